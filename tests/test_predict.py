"""Predictions for recordings that nobody labelled are what the network says of the same ones in a split."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from runs import DIGITS, cli, few, loading, tiny, training

from snn_bp import (
    LI,
    LIF,
    BinaryCrossEntropy,
    CountCrossEntropy,
    Data,
    Dataset,
    Dense,
    Experiment,
    Flatten,
    Folder,
    MeanSquaredPotential,
    Run,
    SnnError,
    Targets,
    Tau,
    Train,
    VanRossum,
    evaluate,
    predict,
    train,
)
from snn_bp.data import load
from snn_bp.model.losses import scores_of
from snn_bp.model.targets import KINDS
from snn_bp.runs.answers import Answers
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.prediction import Predictions

sys.path.insert(0, str(Path(__file__).parent / "data"))
from event_files import some_events, write_evt3, write_h5

OWN_SOURCE = """
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from snn_bp import LI, Data, Dense, Experiment, Flatten, Train

@dataclass(frozen=True)
class Lab:
    folder: str
    sensor, class_names, step_ms, window_ms = (20, 16, 2), ("left", "right"), 10, 60
    def recordings(self, part):
        if part == "train":
            for file in sorted(Path(self.folder).rglob("*.npy")):
                yield np.load(file), file.parent.name

experiment = Experiment(
    Data(Lab(str(Path(__file__).parent / "set"))), (Flatten(), Dense(2), LI(beta=0.9)), Train(epochs=1)
)
"""
finished = runs.finished
LOSSES = {
    "class": CountCrossEntropy(),
    "class per step": CountCrossEntropy(),
    "vector": MeanSquaredPotential(),
    "vector per step": MeanSquaredPotential(),
    "labels": BinaryCrossEntropy(),
    "spikes": VanRossum(tau=Tau(20)),
}
SENSOR = (20, 16, 2)
MODEL = (Flatten(), Dense(2), LI(beta=0.9))


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Run:
    """A run on files in folders, a test part among them, whose files are gone since."""
    root = tmp_path_factory.mktemp("lab")
    for part in ("train", "test"):
        for name in ("left", "right"):
            for number in range(8):
                file = root / "set" / part / name / f"{number}.npy"
                file.parent.mkdir(parents=True, exist_ok=True)
                events = some_events(80, size=SENSOR[:2], seed=hash_of(file))
                events["x"] = events["x"] // 2 + (10 if name == "right" else 0)
                np.save(file, events)
    data = Data("folder", root=str(root / "set"), sensor=SENSOR, step_ms=10, steps=6, batch=5)
    run = train(Experiment(data, MODEL, Train(epochs=2, lr=0.05)), root / "run", quiet=True)
    run.dataset()
    shutil.copytree(root / "set" / "test", root / "new")
    return run


def hash_of(file: Path) -> int:
    return sum(str(file.relative_to(file.parents[2])).encode())


def scores_on(run: Run, split: str) -> torch.Tensor:
    """The scores of every recording of a split, the network run by hand."""
    dataset, network = run.dataset(), run.network()
    with torch.inference_mode():
        parts = [
            scores_of(run.experiment.train.loss, network(x, mask), mask, dataset.targets.kind)
            for ids in dataset.batches(split)
            for x, mask in [(dataset.batch(split, ids)[0], dataset.mask(split, ids))]
        ]
    return torch.cat(parts)


def test_files_get_the_scores_that_the_same_recordings_have(lab):
    files = sorted((lab.path.parent / "new").rglob("*.npy"))

    found = predict(lab, files)

    assert found.scores.equal(scores_on(lab, "test"))
    assert found.names == tuple(map(str, files)) and found.targets.names == ("left", "right")
    figures = evaluate(lab, "test")
    right = sum(answer == file.parent.name for answer, file in zip(found.answers, files, strict=True))
    assert right == figures.correct


def test_arrays_and_other_formats_get_the_same_scores(lab, tmp_path):
    events = [np.load(file) for file in sorted((lab.path.parent / "new").rglob("*.npy"))[:3]]
    for number, one in enumerate(events):
        one["t"] -= one["t"].min()
        write_h5(tmp_path / f"{number}.h5", one)
        write_evt3(tmp_path / f"{number}.raw", one)
        raw = (tmp_path / f"{number}.raw").read_bytes()
        (tmp_path / f"{number}.raw").write_bytes(raw.replace(b"height=480;width=640", b"height=16;width=20"))

    by_array = predict(lab, events)

    assert by_array.names == ("recording 0", "recording 1", "recording 2")
    for suffix in (".h5", ".raw"):
        assert predict(lab, sorted(tmp_path.glob(f"*{suffix}"))).scores.equal(by_array.scores)
    assert predict(lab, events[1]).scores.equal(by_array.scores[1:2])
    assert predict(lab, events, names=["a", "b", "c"]).names == ("a", "b", "c")


def test_neither_the_recordings_of_the_run_nor_its_test_split_are_touched(lab, monkeypatch, tmp_path):
    copy = shutil.copytree(lab.path, tmp_path / "run")
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "empty"))

    def fail(self, *rest):
        raise AssertionError("the recordings of the run were asked for")

    monkeypatch.setattr(Run, "dataset", fail)

    assert len(predict(Run(copy), [some_events(9, size=SENSOR[:2])])) == 1


def test_a_sensor_that_is_another_is_refused_by_name(lab, tmp_path):
    write_evt3(tmp_path / "a.raw", some_events(50))

    with pytest.raises(SnnError, match=r"a\.raw: it was recorded by a sensor of 640x480, asked for was 20x16"):
        predict(lab, tmp_path / "a.raw")
    with pytest.raises(SnnError, match=r"recording 0: x lies in 0\.\.19"):
        predict(lab, [some_events(50)])


@pytest.mark.parametrize(
    ("recordings", "said"),
    [([], "there are no recordings"), (3, "is no recording"), ([np.zeros((6, 2, 16, 20))], "events|array")],
)
def test_what_is_no_recording_is_refused(lab, recordings, said):
    with pytest.raises(SnnError, match=said):
        predict(lab, recordings)


def test_names_are_as_many_as_recordings(lab):
    with pytest.raises(SnnError, match="1 recordings, and 2 names"):
        predict(lab, [some_events(9, size=SENSOR[:2])], names=["a", "b"])


def test_files_of_a_named_set_are_read_as_that_set_reads_them(shared_data, tmp_path):
    if not (shared_data / "NMNIST").is_dir():
        pytest.skip("no N-MNIST recordings")
    data = Data("nmnist", root=str(shared_data), step_ms=100, steps=3, batch=32)
    with loading(few):
        run = training.train(tiny(data=data, epochs=1), tmp_path / "run", quiet=True)
        dataset = run.dataset()
        ids = dataset.ids["test"][:7]
        with torch.inference_mode():
            theirs = run.network()(dataset.batch("test", ids)[0])
    files = [shared_data / "NMNIST" / "Test" / name for name in dataset.names("test")[:7]]

    found = predict(run, files)

    assert found.scores.equal(scores_of(run.experiment.train.loss, theirs))


def test_a_row_of_channels_is_predicted_row_by_row(shared_data, tmp_path):
    if not (shared_data / "fsdd").is_dir():
        pytest.skip("no spoken digits")
    data = Data("shd", root=str(shared_data / "fsdd"), step_ms=100, steps=5, batch=32)
    with loading(few):
        model = (Dense(load(data, quiet=True).classes), LI(beta=0.9))
        run = training.train(Experiment(data, model, Train(epochs=1)), tmp_path / "run", quiet=True)
    dataset = load(data, quiet=True)

    found = predict(run, shared_data / "fsdd" / "shd_test.h5")

    assert len(found) == len(dataset.ids["test"]) and found.names[3].endswith("shd_test.h5, row 3")
    with torch.inference_mode():
        theirs = run.network()(dataset.batch("test", range(32))[0])
    assert found.scores[:32].equal(scores_of(run.experiment.train.loss, theirs))


def test_frames_of_different_length_are_predicted_with_a_mask(tmp_path):
    rng = np.random.default_rng(0)
    x = [rng.random((length, 5)).astype(np.float32) for length in (4, 7, 6, 7, 5, 4, 7, 6)]
    y = np.arange(8) % 2
    dataset = Dataset.of(train=(x, y), step_ms=10, batch=3, validation_fraction=0.25)
    experiment = Experiment(dataset.data, (Dense(2), LI(beta=0.9)), Train(epochs=1))
    run = train(experiment, tmp_path / "run", dataset=dataset, quiet=True)
    run = Run(run.path)

    found = predict(run, x)

    network = run.network()
    with torch.inference_mode():
        for one, scores in zip(x, found.scores, strict=True):
            alone = network(torch.from_numpy(one)[:, None])
            assert torch.allclose(scores_of(experiment.train.loss, alone)[0], scores, atol=1e-6)
    np.save(tmp_path / "a.npy", x[1])
    assert torch.allclose(predict(run, [tmp_path / "a.npy"]).scores[0], found.scores[1], atol=1e-6)
    with pytest.raises(SnnError, match=r"one step of these recordings is \[4\]"):
        predict(run, np.zeros((2, 7, 4)))


def test_answers_are_of_the_kind_that_was_asked_for(tmp_path):
    by_step = torch.tensor([[[0.1, 0.9], [0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.3, 0.7], [0.5, 0.1]]])
    once = torch.tensor([[0.5, -0.1], [-0.2, -0.3]])

    def answers(kind, scores):
        return Predictions(("a", "b"), Targets(kind, ("car", "bus")), scores, (3, 2)).answers

    assert answers("class", once) == ["car", "car"]
    assert answers("labels", once) == [["car"], []]
    assert answers("vector", once) == once.tolist()
    assert answers("class per step", by_step) == [["bus", "car", "bus"], ["car", "bus"]]
    assert answers("vector per step", by_step) == [by_step[0].tolist(), by_step[1, :2].tolist()]
    found = Predictions(("a", "b"), Targets("labels", ("car", "bus")), once, (3, 2))
    assert str(found).splitlines()[1].startswith("b  none  (car -0.2, bus -0.3)")
    with pytest.raises(SnnError, match=r"\.json of targets for every step"):
        Predictions(("a", "b"), Targets("spikes", ("car", "bus")), by_step, (3, 2)).write(tmp_path / "a.csv")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_target_is_predicted_as_it_was_evaluated(kind, tmp_path):
    rng, targets = np.random.default_rng(0), Targets(kind, ("car", "bus"))
    x = [rng.random((length, 3)).astype(np.float32) for length in (4, 6, 5, 6, 4, 6)]
    each = [targets.shape(1, len(one))[1:] for one in x]
    whole = not kind.startswith("vector")
    y = [rng.integers(0, 2, shape) if whole else rng.random(shape) for shape in each]
    dataset = Dataset.of(
        train=(x[:4], y[:4]), test=(x[4:], y[4:]), targets=targets, step_ms=10, validation_fraction=0.2
    )
    last = LIF(beta=0.9) if kind in ("class", "class per step", "spikes") else LI(beta=0.9)
    experiment = Experiment(dataset.data, (Dense(2), last), Train(epochs=1, loss=LOSSES[kind]))
    run = train(experiment, tmp_path / "run", dataset=dataset, quiet=True)

    found = predict(Run(run.path), x[4:])

    kept = Answers.read(run.path, "test")
    assert torch.allclose(found.scores[0, : found.steps[0]], kept.scores[0, : found.steps[0]], atol=1e-6)
    assert torch.allclose(found.scores[1], kept.scores[1], atol=1e-6) and found.steps == (4, 6)
    found.write(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["kind"] == kind
    if not targets.is_per_step:
        found.write(tmp_path / "a.csv")
        with (tmp_path / "a.csv").open() as table:
            rows = list(csv.DictReader(table))
        word = "score" if kind in ("class", "labels") else "prediction"
        assert [float(row[f"{word} bus"]) for row in rows] == pytest.approx(found.scores[:, 1].tolist())


def test_files_of_tonics_sets_are_refused(lab, tmp_path):
    copy = shutil.copytree(lab.path, tmp_path / "run")
    experiment = Experiment(Data("tonic:POKERDVS", root=str(tmp_path)), MODEL)
    run = Run(copy)
    run.experiment = experiment

    with pytest.raises(SnnError, match="are read by tonic's own class"):
        predict(run, tmp_path / "a.npy")


def test_a_source_with_read_says_how_files_are_read(tmp_path):
    for name in ("left", "right"):
        for number in range(4):
            file = tmp_path / "set" / name / f"{number}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            events = some_events(30, size=SENSOR[:2], seed=number)
            np.save(file, np.stack([events[field] for field in "xytp"], 1).astype(np.int64))
    data = Data(Folder(str(tmp_path / "set"), sensor=SENSOR, columns="xytp"), step_ms=10, steps=6)
    run = train(Experiment(data, MODEL, Train(epochs=1)), tmp_path / "run", quiet=True)

    files = sorted((tmp_path / "set").rglob("*.npy"))

    dataset = run.dataset()
    ids = np.arange(len(files))
    with torch.inference_mode():
        theirs = run.network()(dataset.batch("train", ids)[0])
    assert predict(run, files).scores.equal(scores_of(run.experiment.train.loss, theirs))


def test_files_for_a_source_of_ones_own_are_read_by_their_format(tmp_path):
    for name in ("left", "right"):
        for number in range(4):
            file = tmp_path / "set" / name / f"{number}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, some_events(30, size=SENSOR[:2], seed=number))
    (tmp_path / "mine.py").write_text(OWN_SOURCE)
    experiment = read_file(tmp_path / "mine.py")
    run = train(experiment, tmp_path / "run", quiet=True)

    files = sorted((tmp_path / "set").rglob("*.npy"))

    dataset = run.dataset()
    with torch.inference_mode():
        theirs = run.network()(dataset.batch("train", range(8))[0])
    scores = scores_of(run.experiment.train.loss, theirs)
    assert predict(Run(run.path), files).scores.equal(scores)
    write_h5(tmp_path / "a.h5", np.load(files[5]))
    assert predict(run, tmp_path / "a.h5").scores.equal(scores[5:6])


def test_the_command_prints_a_line_for_each_file_and_writes_tables(lab, capsys, tmp_path):
    files = sorted((lab.path.parent / "new").rglob("*.npy"))[:3]
    found = predict(lab, files)

    cli.guarded(cli.app, ["predict", str(lab.path), *map(str, files), "--out", str(tmp_path / "a.csv")])
    printed = capsys.readouterr().out.splitlines()
    cli.guarded(cli.app, ["predict", str(lab.path), *map(str, files), "--json"])
    as_json = json.loads(capsys.readouterr().out)

    assert [line.split()[:2] for line in printed] == [[str(f), a] for f, a in zip(files, found.answers, strict=True)]
    assert [row["scores"] for row in as_json["predictions"]] == found.scores.tolist()
    with (tmp_path / "a.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["prediction"] for row in rows] == found.answers
    assert [float(row["score right"]) for row in rows] == pytest.approx(found.scores[:, 1].tolist())


def test_digits_of_a_run_are_predicted_from_events(finished):
    with loading(few):
        dataset = load(DIGITS, quiet=True)
        events = dataset.parts["test"].events
        spans = [slice(*events.offsets[number : number + 2]) for number in range(5)]
        arrays = []
        for span in spans:
            one = np.empty(span.stop - span.start, [(field, np.int64) for field in "xytp"])
            for field in "xytp":
                one[field] = getattr(events, field)[span]
            arrays.append(one)

    found = predict(finished, arrays)

    with torch.inference_mode():
        theirs = finished.network()(dataset.batch("test", range(5))[0])
    assert found.scores.equal(scores_of(finished.experiment.train.loss, theirs))


def test_without_a_description_the_data_say_what_it_holds_and_a_damaged_one_says_what_to_do(finished, tmp_path):
    run = Path(shutil.copytree(finished.path, tmp_path / "run"))
    events = np.zeros(5, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "i2")])
    expected = predict(finished, [events])
    described = (run / "data.json").read_text()

    for content in (described[:40], "{}"):
        (run / "data.json").write_text(content)
        with pytest.raises(SnnError, match=r"Put it back, or move it away where the data are\.$"):
            predict(Run(run), [events])
    (run / "data.json").unlink()

    assert torch.equal(predict(Run(run), [events]).scores, expected.scores)


@pytest.mark.parametrize("file", ("results.json", "experiment.json"))
def test_a_file_that_is_cut_short_says_what_to_do(file, finished, tmp_path):
    run = Path(shutil.copytree(finished.path, tmp_path / "run"))
    (run / file).write_text((run / file).read_text()[:40])

    with pytest.raises(
        SnnError, match=r"Move it away: then `snn-bp resume .*` writes it anew|Put it back as it was written"
    ):
        Run(run).results()
