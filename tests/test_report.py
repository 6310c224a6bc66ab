"""The run's page: whole in one file, true to the run, readable by machines, and safe with any text in the files."""

import importlib
import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
import runs
from runs import json_of

from snn_bp import Run, SnnError
from snn_bp.files import read_object, write_json
from snn_bp.instruments import Finding, Report
from snn_bp.instruments.findings import Kind
from snn_bp.reports import report, sections
from snn_bp.reports.page import Image
from snn_bp.reports.plots.pictures import Picture
from snn_bp.reports.plots.results import confusion_matrix

few_digits, finished = runs.few_digits, runs.finished
pytestmark = pytest.mark.usefixtures("few_digits")

page_module, wrong_module = (importlib.import_module(f"snn_bp.reports.{name}") for name in ("page", "wrong"))
BROWSER = Path(__file__).parents[1] / "experiments" / "benchmarks" / "page.py"
VOID = {"meta", "img", "link", "br", "hr", "input"}
PROOF = {
    "holds": True, "file": "small.net", "split": "test", "samples": 9, "accuracy": {"float": 0.875, "integer": 0.75},
    "difference": None, "compared": 123456, "spikes": {"layer 3 (LIF)": 12.5}, "operations": {"layer 3 (LIF)": 678.0},
    "weights": {"layer 3 (LIF)": {"-2": 4, "0": 6, "2": 1}}, "chips": {"loihi2": "4 cores at least."},
    "client": None, "note": "Silicon was not tested.",
}  # fmt: skip


class Page(HTMLParser):
    """What stands on a page; raises where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.raw, self.tags, self.open, self.words = text, [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return "\n".join(filter(None, self.words))

    def all(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    """A finished run with a proof of its export, and its page."""
    with runs.loading(runs.few):
        run = Run(shutil.copytree(finished.path, tmp_path_factory.mktemp("report") / "run"))
        (run.path / "export").mkdir()
        write_json(run.path / "export" / "small.net.json", PROOF)
        path = report(run)
    return run, Page(path.read_text())


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """A finished run to change; what has tests of its own and takes long, pictures and doctor, is left out."""
    monkeypatch.setattr(page_module, "svg_bytes", lambda figure: b"<svg/>")
    monkeypatch.setattr(wrong_module, "answer", lambda *_, **how: confusion_matrix([[1]]))
    monkeypatch.setattr(sections.Scene, "pictures", lambda scene: {})
    monkeypatch.setattr(sections, "diagnose", lambda run: Report("run", ()))
    return Run(shutil.copytree(finished.path, tmp_path / "run"))


def page_of(run: Run, **how) -> Page:
    return Page(report(run, **how).read_text())


def test_the_page_needs_nothing_but_itself(written):
    _, page = written

    assert {image["src"].partition(";base64,")[0] for image in page.all("img")} == {
        "data:image/svg+xml",
        "data:image/gif",
    }
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert "url(" not in page.raw and "@import" not in page.raw
    assert "default-src 'none'" in page.raw


def test_the_page_can_be_read_by_those_who_do_not_see_it(written):
    _, page = written

    assert len(page.all("img")) >= 9 and all(len(image["alt"]) > 20 for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) >= 7
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"] for link in page.all("a")} == {f"#{anchor}" for anchor in ids}
    assert len(page.all("h1")) == 1 and len(page.all("h2")) == len(ids)
    assert page.all("html") == [{"lang": "en"}] and len(page.all("title")) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium is here")
def test_nothing_is_cut_in_a_browser(written):
    run, _ = written

    done = subprocess.run(
        [sys.executable, BROWSER, run.path / "report.html"], capture_output=True, text=True, check=False
    )

    assert done.stdout.rstrip().endswith(": 0 findings"), done.stdout + done.stderr


def test_the_page_says_what_results_json_says(written):
    run, page = written
    test = json_of(run.path / "results.json")["test"]

    assert f"{test['accuracy']:.4f}" in page.words
    assert (
        f"{test['correct']} of {test['samples']}, 95 % interval {test['low']:.3f} .. {test['high']:.3f}" in page.words
    )
    assert "This part is missing" not in page.text
    assert f"{sum(test['operations'].values()):,.1f}" in page.words
    assert "Dense(units=12)" in page.words and "0.005" in page.words
    assert json_of(run.path / "provenance.json")["commit"] or "" in page.text


def test_the_page_shows_the_last_epoch_of_each_layer(written):
    run, page = written
    rows = [json.loads(line) for line in (run.path / "layers.jsonl").read_text().splitlines()]
    last = next(row for row in rows if row["epoch"] == 2 and "rate" in row)

    assert f"{last['rate']:.4f}" in page.words and f"{last['window']:.1%}" in page.words


def test_the_page_shows_the_proof_of_an_export(written):
    _, page = written

    activity = "12.5 spikes, 678 synaptic operations for each inference"
    equal, note = "all 123,456 outputs of neurons are equal", "small.net: Silicon was not tested."
    assert {activity, equal, note, "0.8750", "0.7500", "4 cores at least."} <= set(page.words)


def test_a_proof_that_fails_shows_the_first_difference(copy):
    (copy.path / "export").mkdir()
    write_json(
        copy.path / "export" / "small.net.json",
        PROOF | {"holds": False, "difference": "neuron 3 at step 4", "weights": {}},
    )

    page = page_of(copy)

    assert "different: neuron 3 at step 4" in page.words and "are equal" not in page.text


def test_text_from_files_is_never_markup(copy):
    attack = '"><script>alert(1)</script>'
    (copy.path / "export").mkdir()
    proof = PROOF | {"file": "a", "note": attack, "chips": {attack: attack}, "client": attack}
    write_json(copy.path / "export" / "a.json", proof)
    recorded = read_object(copy.path / "provenance.json")
    write_json(copy.path / "provenance.json", recorded | {"command": attack, "changes": [attack], "commit": attack})
    results = read_object(copy.path / "results.json")
    write_json(copy.path / "results.json", results | {"notes": [attack]})
    moved = Run(copy.path.rename(copy.path.with_name("<b>run")))

    page = page_of(moved)

    assert page.all("script") == page.all("b") == []
    assert page.words.count(attack) >= 5


def test_a_run_that_has_not_begun_has_a_page_that_says_so(tmp_path):
    run = Run.create(runs.tiny(), tmp_path / "run", command="", changes=())

    page = page_of(run)

    assert "not started" in page.words
    for said in ("The run is not finished; there are no final results.", "No epoch is complete yet.",
                 sections.NO_CHECKPOINT, "There are no results on the test split yet."):  # fmt: skip
        assert said in page.words
    assert "Nothing is exported yet." in page.text and page.all("img") == []


def test_an_unfinished_run_shows_what_it_has_and_never_meets_the_test_split(copy, monkeypatch):
    (copy.path / "results.json").unlink()
    monkeypatch.setattr(sections, "evaluate_and_keep", lambda *_, **how: pytest.fail("the test split was evaluated"))

    page = page_of(copy)

    assert "not finished, epoch 2 of 2" in page.words
    assert len(page.all("img")) == 2 and "There are no results on the test split yet." in page.words
    assert "The run keeps no predictions of the test split." in page.words


def test_a_finished_run_without_a_test_split_shows_validation(copy):
    results = read_object(copy.path / "results.json")
    write_json(copy.path / "results.json", {name: part for name, part in results.items() if name != "test"})

    page = page_of(copy)

    assert "There is no test split among the results." in page.words
    assert "Predictions on the validation split" in page.words and "validation loss" in page.words


def test_predictions_of_validation_that_an_older_version_did_not_keep_are_made(copy):
    (copy.path / "predictions" / "validation.safetensors").unlink()

    page = page_of(copy, split="validation")

    assert any("recordings of the validation split are wrong" in each for each in page.words)


def test_another_split_is_evaluated_where_results_do_not_hold_it(copy):
    page = page_of(copy, split="train")

    assert "train accuracy" in page.words and "validation accuracy" in page.words


def test_an_unknown_split_is_refused(copy):
    with pytest.raises(SnnError, match="test"):
        report(copy, split="tset")


def test_the_doctors_findings_stand_on_the_page(copy, monkeypatch):
    finding = Finding("silent", "layer 3 (LIF)", "fraction that never fires", 1.0, 0.9, "Put BatchNorm() there.")
    monkeypatch.setattr(sections, "diagnose", lambda run: Report("run", (finding,)))

    page = page_of(copy)
    assert str(finding) in page.words and "See Layers" in page.words
    assert [link["href"] for link in page.all("a")].count("#layers") == 2  # and in the list of sections


def test_every_kind_of_finding_names_a_section_that_is_there(written):
    _, page = written

    assert set(sections.SHOWN_IN) <= set(get_args(Kind))
    assert set(sections.SHOWN_IN.values()) <= set(page.words)


def test_each_class_has_its_accuracy_and_precision(written):
    run, page = written
    counts = json_of(run.path / "results.json")["test"]["confusion"]

    for index, row in enumerate(counts):
        said = sum(each[index] for each in counts)
        wanted = [
            str(index),
            str(sum(row)),
            f"{row[index] / sum(row):.1%}",
            f"{row[index] / said:.1%}" if said else "-",
        ]
        assert any(page.words[at : at + 4] == wanted for at in range(len(page.words))), wanted


def test_a_layer_that_spikes_and_has_weights_stands_in_both_tables(copy, monkeypatch):
    shared = {"epoch": 2, "layer": "model.3 Spiking(LIF(beta=0.7), learn=('beta',))"}
    rows = [{**shared, "rate": 0.25, "silent": 0.0, "saturated": 0.0, "window": 0.5},
            {**shared, "grad": 0.125, "update_over_weight": 0.5}]  # fmt: skip
    monkeypatch.setattr(Run, "layers", lambda run: rows)

    words = page_of(copy).words

    assert words.count(shared["layer"]) == 2 and "0.2500" in words and "0.125" in words


@pytest.mark.parametrize("name", ("provenance.json", "metrics.csv", "layers.jsonl", "checkpoints/best.safetensors"))
def test_a_broken_file_costs_its_part_of_the_page_alone(copy, name):
    (copy.path / name).write_text("broken,\n{")

    page = page_of(copy)

    assert "This part is missing" in page.text and "test accuracy" in page.words


@pytest.mark.parametrize("content", ("{", "[]", '{"holds": true}'))
def test_a_file_that_is_no_verification_is_said(copy, content):
    (copy.path / "export").mkdir()
    (copy.path / "export" / "odd.json").write_text(content)

    assert "odd.json: it " in page_of(copy).text  # is no JSON, should hold an object, or is nothing that verify wrote


def test_an_image_of_the_page_is_the_figure():
    picture = Picture(confusion_matrix([[1]]), "No epochs.")

    image = sections._image(picture, "Curves")

    assert isinstance(image, Image) and image.alt == "No epochs."


def test_a_proof_under_the_name_of_another_is_not_shown_as_its(copy):
    (copy.path / "export").mkdir()
    write_json(copy.path / "export" / "other.net.json", PROOF)

    page = page_of(copy)

    assert "other.net.json: it should be the verification of other.net, found that of small.net." in page.words
    assert "are equal" not in page.text


def test_a_page_says_that_the_record_of_the_recordings_is_missing(copy):
    (copy.path / "data.json").unlink()

    assert "The run folder has no data.json, which names the recordings." in page_of(copy).words
