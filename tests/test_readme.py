"""The Python of README and of the pages runs, their commands exist, and their links lead somewhere."""

import re
from pathlib import Path

import numpy as np
import pytest
from documents import DOCUMENTS, PAGES, README, ROOT, SITE, blocks

from snn_bp import Run, cli
from snn_bp.chip.rules import chip_blocks
from snn_bp.data.loading import load
from snn_bp.runs.experiment_file import read_file

ELSEWHERE = {"coming_from", "hls4ml", "nir_files", "spinnaker2"}  # other packages; tests/test_site.py runs the first
MARK = re.compile(r"^<!-- README: (.+) -->$", re.MULTILINE)
COMMANDS = {command.name or command.callback.__name__ for command in cli.app.registered_commands} | {
    group.name for group in cli.app.registered_groups
}


def test_the_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    names: dict = {}
    for block in blocks(README, "python"):
        exec(block, names)

    assert names["run"].results()["test"]["samples"] == 360
    assert names["potentials"].shape == (100, 8, 50)
    assert len(chip_blocks(names["network"])) == 2  # what the table exports can be exported

    ran = [page for page, text in PAGES.items() if page not in ELSEWHERE and blocks(text, "python")]
    for page in ran:  # each goes on from README, as its reader does
        own = dict(names)
        for block in blocks(PAGES[page], "python"):
            exec(block, own)

    assert {"plots", "runs"} <= {*ran}
    assert (tmp_path / "movie.gif").is_file() and (tmp_path / "runs/loop/results.json").is_file()


@pytest.mark.slow
def test_the_experiment_with_code_of_its_own_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    text = next(block for block in blocks(README, "py") if "EveryStep" in block)
    (tmp_path / "mine.py").write_text(text)

    cli.train(tmp_path / "mine.py", ["train.loss.penalty=0.1", "train.epochs=1"], out=tmp_path / "run")

    assert Run(tmp_path / "run").experiment.train.loss.penalty == 0.1


def test_the_source_of_ones_own_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(24):
        file = tmp_path / "lab" / ("train", "test")[number % 3 == 2] / ("left", "right")[number % 2] / f"{number}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        t = np.sort(rng.integers(0, 400_000, 50))
        np.save(file, np.stack([rng.integers(0, 240, 50), rng.integers(0, 180, 50), rng.integers(0, 2, 50), t], 1))
    (text,) = blocks(PAGES["data"], "py")
    (tmp_path / "mine.py").write_text(text.replace("/data/lab", str(tmp_path / "lab")))

    dataset = load(read_file(tmp_path / "mine.py").data, quiet=True)

    assert len(dataset.ids["train"]) + len(dataset.ids["validation"]) == 16 and len(dataset.ids["test"]) == 8
    assert dataset.batch("train", dataset.ids["train"])[0].sum() == 50 * len(dataset.ids["train"])


@pytest.mark.parametrize("text", (README, PAGES["commands"]), ids=("README", "commands"))
def test_every_command_is_named_and_every_name_is_a_command(text):
    assert set(re.findall(r"snn-bp (\w+)", text)) == COMMANDS


def test_no_page_names_a_command_that_is_none():
    named = set(re.findall(r"`?snn-bp (\w+)(?= )", "\n".join(PAGES.values())))

    assert named <= COMMANDS, named - COMMANDS


def test_options_that_say_how_a_run_goes_on_or_is_written_are_named():
    options = ("--dry-run", "--out", "--restart", "--step", "--compatible", "--lava")

    assert [option for option in options if option not in PAGES["commands"]] == []
    assert all(option in README for option in ("--dry-run", "--out", "--lava"))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_named_in_a_command_or_link_exists(name):
    folder = ROOT if name == "README" else SITE
    links = [link for link, _ in links_of(DOCUMENTS[name]) if link]
    named = [ROOT / file for file in re.findall(r"experiments/\w+(?:/\w+)?\.(?:py|json)", DOCUMENTS[name])]

    assert name != "README" or (links and named)
    assert [str(file) for file in (*named, *(folder / link for link in links)) if not file.exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_to_a_heading_finds_it(name):
    lost = []
    for link, heading in links_of(DOCUMENTS[name]):
        text = whole(Path(link).stem if link else name) if heading else ""
        found = [slug(title) for title in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)]
        lost += [f"{link}#{heading}"] if heading and heading not in found else []

    assert lost == []


def links_of(text: str) -> list[tuple[str, str]]:
    """File and heading of each link that leads to a file here."""
    return re.findall(r"\]\((?!http)([^)#\s]*)(?:#([^)\s]*))?\)", text)


def whole(name: str) -> str:
    """A document with the sections of README that it shows."""
    return MARK.sub(lambda mark: f"## {mark[1]}", DOCUMENTS[name])


def slug(title: str) -> str:
    """A heading as links name it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_readme_is_short_enough_to_be_read_to_its_end():
    assert len(README.splitlines()) <= 380


def test_every_page_is_in_the_table_of_readme():
    table = README.partition("## Where everything else is")[2]

    assert sorted(re.findall(r"\(notebooks/site/(\w+)\.md\)", table)) == sorted({*PAGES} - {"index", "notebooks"})
