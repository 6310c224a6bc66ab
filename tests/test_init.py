"""`snn-bp init`: a folder of recordings becomes an experiment's file that trains as it stands."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import cli

from snn_bp import BinaryCrossEntropy, Dense, Flatten, Folder, Run, Tau, use_backend
from snn_bp.data import load
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.proposal import file_name

sys.path.insert(0, str(Path(__file__).parent / "data"))
from event_files import write_evt3


@pytest.fixture
def init(capsys, monkeypatch, tmp_path):
    """Run `snn-bp init` in an empty folder; gives its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        try:
            cli.guarded(cli.app, ["init", *map(str, words)])
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return code, *capsys.readouterr()

    return run


def events(rng: np.random.Generator, *, size=(34, 34), last_ms=100.0, count=200) -> np.ndarray:
    """Events all over a sensor, the last at `last_ms` behind the first, and one in each corner."""
    found = np.empty(count, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "u1")])
    found["x"], found["y"] = rng.integers(0, size[0], count), rng.integers(0, size[1], count)
    found["t"] = 5_000_000 + np.sort(rng.integers(0, int(last_ms * 1000), count))
    found["t"][[0, -1]] = 5_000_000, 5_000_000 + int(last_ms * 1000) - 1
    found["x"][:2], found["y"][:2] = (0, size[0] - 1), (0, size[1] - 1)
    found["p"] = rng.integers(0, 2, count)
    return found


def folder_of(root: Path, *names: str, write=np.save, ending="npy", **of_events) -> Path:
    """A recording for each name such as "left/0"."""
    rng = np.random.default_rng(0)
    for name in names:
        file = root / f"{name}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, events(rng, **of_events))
    return root


def named(classes: int, each: int, above: str = "") -> list[str]:
    return [f"{above}class {label}/{number}" for label in range(classes) for number in range(each)]


def opened(file: str):
    """The experiment of a file, its data set, and one batch through its network."""
    experiment = read_file(Path(file))
    dataset = load(experiment.data, quiet=True)
    x, targets = dataset.batch("train", dataset.batches("train")[0])
    with use_backend("reference"), torch.no_grad():
        out = experiment.network(dataset.shape)(x)
    assert experiment.train_at_step().loss(out, targets).item() > 0
    return experiment, dataset


def test_a_small_sensor_becomes_a_dense_experiment_that_can_be_read(init, tmp_path):
    folder_of(tmp_path / "lab", *named(3, 8), size=(20, 16), last_ms=100)

    code, printed, errors = init("lab")

    assert (code, errors) == (0, "")
    assert printed == "lab.py: 24 recordings of 3 classes of 20x16 pixels\nnext: snn-bp train lab.py\n"
    experiment, dataset = opened("lab.py")
    data = experiment.data
    assert (data.sensor, data.step_ms, data.steps, data.downsample) == ((20, 16, 2), 5.0, 20, 1)
    assert experiment.model[:2] == (Flatten(), Dense(128)) and experiment.model[3].beta == Tau(25)
    assert {split: len(ids) for split, ids in dataset.ids.items()} == {"train": 15, "validation": 3, "test": 6}
    text = Path("lab.py").read_text()
    assert '"class 0" 8' in text and "the files do not state it, addresses reach x = 19, y = 15" in text
    assert "24 files that" in text and "nine of ten up to 100 ms" in text and "2,000 a second" in text


@pytest.mark.parametrize(
    ("size", "sensor", "downsample"),
    [
        ((346, 260), (346, 260), 2),
        ((300, 240), (304, 240), 8),
        ((1200, 720), (1280, 720), 20),
        ((89, 97), (89, 97), 1),
    ],
)
def test_a_large_sensor_is_that_of_a_usual_camera_and_is_convolved(init, tmp_path, size, sensor, downsample):
    folder_of(tmp_path / "lab", *named(2, 3), size=size, last_ms=2000)

    assert init("lab")[0] == 0

    experiment, dataset = opened("lab.py")
    data = experiment.data
    assert (data.sensor, data.downsample) == ((*sensor, 2), downsample)
    assert (data.step_ms, data.steps) == (100.0, 20) and "Conv(16, " in Path("lab.py").read_text()
    assert dataset.shape == (2, sensor[1] // downsample, sensor[0] // downsample)


def test_what_files_state_of_their_sensor_counts(init, tmp_path):
    folder_of(tmp_path / "lab", *named(2, 2), write=write_evt3, ending="raw", size=(30, 30))

    assert init("lab")[0] == 0

    assert read_file(Path("lab.py")).data.sensor == (640, 480, 2)
    assert "as the files state it" in Path("lab.py").read_text()


def test_a_split_by_folders_is_kept_and_groups_stay_whole(init, tmp_path):
    folder_of(tmp_path / "parts", *named(2, 4, "train/"), *named(2, 2, "test/"))
    folder_of(tmp_path / "people", *(f"{label}/{person}/0" for label in "ab" for person in "pqrstu"))

    assert init("parts")[0] == init("people")[0] == 0

    assert len(opened("parts.py")[1].ids["test"]) == 4
    experiment, dataset = opened("people.py")
    data = experiment.data
    assert (data.split_by, data.test_fraction) == ("group", 0.2) and len(dataset.ids["test"]) == 4
    assert "of 6 groups" in Path("people.py").read_text()


def test_groups_too_few_to_split_by_are_named_as_they_may_be_the_classes(init, tmp_path):
    folder_of(tmp_path / "swapped", *(f"{person}/{label}/{n}" for person in "pq" for label in "ab" for n in range(4)))

    assert init("swapped")[0] == 0

    text = " ".join(Path("swapped.py").read_text().replace("#", "").split())
    assert 'Groups (who was recorded): "a", "b". They are too few' in text
    assert opened("swapped.py")[0].data.split_by == "recording"


@pytest.mark.parametrize("several", [False, True])
def test_a_table_beside_the_recordings_is_found(init, tmp_path, several):
    root = folder_of(tmp_path / "lab", *map(str, range(8)))
    with (root / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "labels" if several else "label"])
        rows.writerows(
            [f"{number}.npy", "a;b" if several and number % 3 == 0 else "ab"[number % 2]] for number in range(8)
        )

    assert init("lab")[0] == 0

    experiment, _ = opened("lab.py")
    assert experiment.data.source == Folder(str(root), sensor=(34, 34, 2), table="labels.csv")
    assert isinstance(experiment.train.loss, BinaryCrossEntropy) == several


def test_how_files_are_read_is_said_behind_the_folder(init, tmp_path):
    def text(file: Path, found: np.ndarray) -> None:
        np.savetxt(file, np.stack([found[name] for name in "ptxy"], 1), fmt="%d", delimiter=",")

    folder_of(tmp_path / "lab", *named(2, 3), write=text, ending="csv")

    code, _, errors = init("lab", "columns=ptxy", "unit=us", "sensor=(40,40,2)")

    assert (code, errors) == (0, "")
    source = opened("lab.py")[0].data.source
    assert (source.columns, source.unit, source.sensor) == ("ptxy", "us", (40, 40, 2))


def test_nothing_is_written_over_and_what_is_wrong_is_one_line(init, tmp_path):
    folder_of(tmp_path / "lab", *named(2, 2))
    folder_of(tmp_path / "one", "only/0", "only/1")
    folder_of(tmp_path / "row", *named(2, 2), size=(34, 1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "lab.py").write_text("mine")

    told = {
        ("lab",): "lab.py: it is there already",
        ("lab", "--out", "none/lab.py"): "no folder none",
        ("lab", "--out", "lab.txt"): "ends in .py",
        ("lab", "colums=xytp", "--out", "b.py"): "Did you mean 'columns'?",
        ("lab", "columns", "--out", "b.py"): "key=value",
        ("lab", "sensor=(10,10,2)", "--out", "b.py"): "x lies in 0..9",
        ("one",): "one class, 'only'",
        ("row",): "one row, 34 channels",
        ("empty",): "no recordings are below it",
        ("nowhere",): "there is no such folder",
        ("lab.py",): "it is a file",
    }

    for words, part in told.items():
        code, _, errors = init(*words)
        assert code == 2 and errors.count("\n") == 1 and errors.startswith("error: ") and part in errors, errors
    assert sorted(path.name for path in tmp_path.glob("*.py")) == ["lab.py"]
    assert (tmp_path / "lab.py").read_text() == "mine"


def test_the_file_shadows_no_module(tmp_path):
    names = {"My recordings (2)": "my_recordings_2.py", "signal": "my_signal.py", "2026": "my_2026.py", "été": "t.py"}

    assert {name: file_name(tmp_path / name) for name in names} == names


@pytest.mark.slow
@pytest.mark.parametrize("size", [(20, 16), (346, 260)])
def test_the_file_trains_as_it_stands(init, tmp_path, monkeypatch, size):
    folder_of(tmp_path / "lab", *named(2, 6), size=size)
    assert init("lab")[0] == 0

    cli.train(Path("lab.py"))

    assert Run("runs/lab").results()["epochs"] == 20
