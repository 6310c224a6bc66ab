"""The run folder: never written over, and holding all that says what ran and how it went."""

import csv
import json
import re
import shutil
from dataclasses import replace

import pytest
import runs
import torch
from runs import cli, few, json_of, loading, same_weights, tiny

from snn_bp import LIF, Dense, Flatten, Run, SnnError, train
from snn_bp.files import SEAL, read_object, replace_file, write_csv, write_object
from snn_bp.model.network import Network
from snn_bp.runs.experiment import from_json

few_digits, finished = runs.few_digits, runs.finished
pytestmark = pytest.mark.usefixtures("few_digits")


def test_a_folder_that_holds_a_run_is_refused_and_resume_named(finished):
    before = {file: file.stat().st_mtime_ns for file in finished.path.rglob("*")}

    with pytest.raises(SnnError, match=f"snn-bp resume {re.escape(str(finished.path))}"):
        train(tiny(), finished.path, quiet=True)

    assert {file: file.stat().st_mtime_ns for file in finished.path.rglob("*")} == before


def test_a_folder_that_holds_anything_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(SnnError, match="not an empty folder"):
        train(tiny(), tmp_path, quiet=True)
    with pytest.raises(SnnError, match="not an empty folder"):
        train(tiny(), tmp_path / "thesis.tex", quiet=True)

    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(SnnError, match="cannot be written"):
        train(tiny(), tmp_path / "file" / "run", quiet=True)


def test_an_empty_folder_and_one_not_there_yet_are_taken(finished, tmp_path):
    (tmp_path / "empty").mkdir()

    for out in (tmp_path / "empty", tmp_path / "deep" / "below"):
        run = train(tiny(epochs=1), out, quiet=True)
        assert run.results() is not None


def test_a_run_folder_holds_the_files_of_the_design_and_no_others(finished):
    files = {str(file.relative_to(finished.path)) for file in finished.path.rglob("*") if file.is_file()}

    assert files == {
        "experiment.json", "provenance.json", "data.json", "metrics.csv", "layers.jsonl", "results.json", "log.txt",
        "checkpoints/last.safetensors", "checkpoints/previous.safetensors", "checkpoints/best.safetensors",
        *(f"predictions/{split}.{kind}" for split in ("validation", "test") for kind in ("csv", "safetensors")),
    }  # fmt: skip


def test_metrics_have_a_row_for_each_epoch_and_a_number_in_each_column(finished):
    with (finished.path / "metrics.csv").open() as file:
        header, *rows = csv.reader(file)

    assert header == [
        "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr", "spike_rate",
        "grad_norm", "seconds", "wait_seconds", "samples_per_s", "peak_memory_mb",
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["1", "2"]
    for row in rows:
        values = dict(zip(header, map(float, row), strict=True))
        assert all(0 <= values[name] <= 1 for name in ("train_accuracy", "validation_accuracy", "spike_rate"))
        assert all(values[name] > 0 for name in ("train_loss", "lr", "grad_norm", "samples_per_s", "peak_memory_mb"))


def test_layers_have_a_row_for_each_epoch_and_layer(finished):
    rows = [json.loads(line) for line in (finished.path / "layers.jsonl").read_text().splitlines()]

    found = {(row["epoch"], row["layer"], *sorted(row.keys() - {"epoch", "layer"})) for row in rows}
    name = finished.network().name
    activity, learning = ("rate", "saturated", "silent", "window"), ("grad", "update_over_weight")
    neurons = [(epoch, name(place), *activity) for epoch in (1, 2) for place in (3, 6)]
    weights = [(epoch, name(place), *learning) for epoch in (1, 2) for place in (1, 2, 4, 5)]
    assert found == {*neurons, *weights} and len(rows) == len(found)


def test_provenance_says_what_ran_where_and_from_which_seeds(tmp_path):
    run = train(tiny(seed=5, epochs=1), tmp_path / "run", command="snn-bp train x.py", changes=["seed=5"], quiet=True)

    said = json_of(run.path / "provenance.json")
    assert said["command"] == "snn-bp train x.py" and said["changes"] == ["seed=5"]
    assert said["seeds"] == {"experiment": 5, "split": 0}
    assert said["versions"]["torch"] in (torch.__version__, torch.__version__.split("+")[0])
    assert {"python", "numpy", "snn_bp"} <= said["versions"].keys()
    assert said["machine"]["cores"] and re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", said["started"])
    assert "commit" in said


def test_results_are_those_of_the_best_checkpoint(finished):
    results = finished.results()

    best = max(finished.load("last").metrics, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert results["best_epoch"] == finished.load("best").epoch == best["epoch"]
    assert results["validation"]["accuracy"] == best["validation_accuracy"]
    assert results["validation"]["loss"] == best["validation_loss"]
    assert results["parameters"] == sum(w.numel() for w in finished.network().parameters())
    assert results["test"]["samples"] == 50 and results["validation"]["samples"] == 40


def test_data_json_names_the_recordings_of_each_split(finished):
    splits = json_of(finished.path / "data.json")["splits"]

    for split, ids in few(finished.experiment.data).ids.items():
        assert splits[split]["ids"] == ids.tolist()


def test_the_experiment_in_a_run_folder_trains_the_same_network(finished, tmp_path):
    experiment = from_json(json_of(finished.path / "experiment.json"))
    assert experiment == tiny()

    again = train(experiment, tmp_path / "again", quiet=True)

    assert same_weights(again.load("best").weights, finished.load("best").weights)


def test_a_run_gives_its_network_ready_to_use(finished):
    with loading(few):
        run = Run(finished.path)
        network = run.network()
        x, targets = run.batch("validation", index=1)

    assert isinstance(network, Network) and not network.training
    assert x.shape == (3, 8, 2, 17, 17) and targets.shape == (8,)
    with pytest.raises(SnnError, match=r"index=2: .* in 0\.\.1"):
        run.batch("validation", index=2)
    with pytest.raises(SnnError, match="checkpoint='first'"):
        run.network("first")


def test_a_run_folder_alone_gives_its_network_and_its_files(tmp_path, monkeypatch):
    def missing(*given, **more):
        raise SnnError("no recordings are here")

    model = (Flatten(), Dense(10), LIF(beta=0.7, reset="zero"))
    run = train(replace(tiny(epochs=1), model=model), tmp_path / "run", quiet=True)

    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "empty"))
    with loading(missing):
        network = Run(run.path).network()
        for file in ("a.nir", "a.net"):
            cli.app(["export", str(run.path), str(tmp_path / file), "--no-verify"], standalone_mode=False)

    assert network(torch.zeros(3, 2, 2, 17, 17)).shape == (3, 2, 10)
    assert (tmp_path / "a.nir").exists() and (tmp_path / "a.net").exists()


def test_the_log_tells_of_each_epoch_and_of_the_end(finished):
    log = (finished.path / "log.txt").read_text()

    assert "epoch   1/2" in log and "epoch   2/2" in log and "test accuracy" in log


@pytest.mark.parametrize(
    "content",
    ["", "x", "{}", "[]", "3", "null", '{"is": "Dense", "units": 3}', '{"is": []}', "[" * 100_000, b"\xff\xfe",
     '{"is": "Experiment"}', '{"is": "Experiment", "data": 3, "model": 4}'],
)  # fmt: skip
def test_a_damaged_experiment_is_refused_in_one_line(content, tmp_path):
    file = tmp_path / "experiment.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(SnnError, match=r"experiment\.json") as refusal:
        Run(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", ["", "x", "{}", "[]", "3", "null", '{"epochs": 2}'])
def test_damaged_results_are_refused_in_one_line(content, finished, tmp_path):
    (tmp_path / "experiment.json").write_bytes((finished.path / "experiment.json").read_bytes())
    (tmp_path / "results.json").write_text(content)

    with pytest.raises(SnnError, match=r"results\.json"):
        Run(tmp_path).results()


def test_a_folder_without_a_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(SnnError, match="no run is here"):
            Run(path)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "file"
    replace_file(file, b"old")
    monkeypatch.setattr("os.fsync", fail)

    with pytest.raises(SnnError, match="No space left on device"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"


def test_a_column_that_a_row_lacks_stays_empty(tmp_path):
    write_csv(tmp_path / "table.csv", ("a", "b"), [{"a": 1}, {"b": 2.5, "a": 'x,"y'}])

    assert (tmp_path / "table.csv").read_text() == 'a,b\n1,\n"x,""y",2.5\n'


@pytest.mark.parametrize("name", ("results.json", "provenance.json", "data.json"))
def test_a_figure_altered_in_a_file_of_a_finished_run_is_noticed(name, finished, tmp_path):
    file = tmp_path / name
    text = (finished.path / name).read_text(encoding="utf-8")
    digits = [place for place, letter in enumerate(text) if letter in "12345678"]

    for place in (digits[0], digits[len(digits) // 2], digits[-1]):
        file.write_text(text[:place] + "9" + text[place + 1 :], encoding="utf-8")
        with pytest.raises(SnnError, match="altered"):
            read_object(file)
    file.write_text(text, encoding="utf-8")

    assert SEAL not in read_object(file)


def test_an_object_comes_back_as_json_holds_it_whatever_its_keys_and_numbers(tmp_path):
    content = {"b": (1, 2.5), 3: {10: float("inf"), 9: None}, "a": "é"}

    write_object(tmp_path / "a.json", content)

    assert read_object(tmp_path / "a.json") == {"b": [1, 2.5], "3": {"10": float("inf"), "9": None}, "a": "é"}


@pytest.mark.parametrize("name", ("metrics.csv", "layers.jsonl"))
def test_a_row_altered_in_a_finished_run_is_noticed(name, finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    file = tmp_path / "run" / name
    text = file.read_text(encoding="utf-8")
    place = text.rindex("0.")
    file.write_text(text[: place + 2] + str(9 - int(text[place + 2])) + text[place + 3 :], encoding="utf-8")
    run = Run(tmp_path / "run")

    with pytest.raises(SnnError, match="altered"):
        run.metrics() if name == "metrics.csv" else run.layers()
