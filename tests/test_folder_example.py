"""The example for recordings of one's own on bars drawn here, .npy and EVT3 files at 346 x 260, to the end."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from snn_bp import Run, SnnError, predict, resume, train
from snn_bp.reports import sections
from snn_bp.runs.changes import override
from snn_bp.runs.experiment_file import read_file

sys.path.insert(0, str(Path(__file__).parent / "data"))
from event_files import moving_bar, write_evt3

EXAMPLE = Path(__file__).resolve().parents[1] / "experiments" / "folder.py"


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    """The same recordings as .npy files in one folder, and as EVT3 files in another."""
    root, rng = tmp_path_factory.mktemp("bars"), np.random.default_rng(0)
    for part, count in (("train", 10), ("test", 4)):
        for direction in ("down", "left", "right", "up"):
            for number in range(count):
                events = moving_bar(direction, rng)
                for kind in ("npy", "raw"):
                    file = root / kind / part / direction / f"{number}.{kind}"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    if kind == "npy":
                        np.save(file, events)
                    else:
                        write_evt3(file, events)
                        header = b"height=480;width=640"
                        file.write_bytes(file.read_bytes().replace(header, b"height=260;width=346"))
    return root


def example(root: Path):
    return override(read_file(EXAMPLE), [f"data.root={root}", "train.epochs=4", "train.lr=1e-2"])[0]


@pytest.fixture(scope="module")
def trained(bars) -> Run:
    return train(example(bars / "npy"), bars / "run", quiet=True)


def test_the_bars_are_told_apart(trained):
    results = trained.results()

    assert results["test"]["accuracy"] >= 0.9
    assert json.loads((trained.path / "data.json").read_text())["class_names"] == ["down", "left", "right", "up"]


def test_the_page_says_where_the_files_are(trained, bars):
    asked = dict(sections.configuration(trained).tables[1].rows)

    assert asked["data.name"] == "'folder'" and asked["data.sensor"] == "(346, 260, 2)"
    assert asked["data.root"] == repr(str(bars / "npy"))


@pytest.mark.slow
def test_evt3_files_of_the_same_events_give_the_same_run(trained, bars):
    other = train(example(bars / "raw"), bars / "run of raw", quiet=True)

    described = [json.loads((run.path / "data.json").read_text()) for run in (trained, other)]
    assert all(described[0]["parts"][p]["sha256"] == described[1]["parts"][p]["sha256"] for p in ("train", "test"))
    first, second = (run.load("last").weights for run in (trained, other))
    assert all(first[name].equal(second[name]) for name in first)


def test_files_without_a_label_get_their_class(trained, bars):
    files = sorted((bars / "raw" / "test").rglob("*.raw"))

    found = predict(trained, files)

    right = [answer == file.parent.name for answer, file in zip(found.answers, files, strict=True)]
    assert sum(right) == trained.results()["test"]["correct"]


def test_resume_names_a_recording_that_has_changed(trained, bars, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    file = bars / "npy" / "train" / "up" / "3.npy"
    whole = file.read_bytes()

    np.save(file, np.load(file)[:-1])

    try:
        with pytest.raises(SnnError, match=r"train/up/3\.npy, has changed in its events"):
            resume(tmp_path / "run", quiet=True)
    finally:
        file.write_bytes(whole)
