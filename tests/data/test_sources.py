"""Sources of one's own: recordings of events and frames, every kind of target, lengths, groups, and a true cache."""

import importlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from snn_bp import LIF, Dense, Experiment, Flatten, Pool
from snn_bp.data import Data, describe, first_difference, load
from snn_bp.data.definition import made_from
from snn_bp.errors import SnnError
from snn_bp.model.targets import UNLABELLED, Targets
from snn_bp.runs.experiment_file import read_file
from snn_bp.trainer.memory import estimate

EVENT = [("x", np.int16), ("y", np.int16), ("p", np.int8), ("t", np.int64)]


def events(number: int, *, size=(346, 260), count: int = 50) -> np.ndarray:
    rng = np.random.default_rng(number)
    found = np.empty(count, EVENT)
    found["x"], found["y"] = (rng.integers(0, length, count) for length in size)
    found["p"], found["t"] = rng.integers(0, 2, count), np.sort(rng.integers(0, 200_000, count))
    found["p"][:2] = 0, 1
    return found


@dataclass(frozen=True)
class Lab:
    """Events of a camera of 346 x 260 pixels, made from their number."""

    recordings_of_train: int = 12
    sensor = (346, 260, 2)
    class_names = ("left", "right", "up")
    step_ms, window_ms = 20, 200

    def recordings(self, part):
        for number in range(self.recordings_of_train if part == "train" else 4):
            named = {"name": f"{part} {number}", "group": "abcd"[number % 4]}
            yield events(number + 100 * (part == "test")), number % 3, named


@dataclass(frozen=True)
class Series:
    """Frames with targets of any kind, and lengths where they are asked for."""

    kind: str = "vector"
    lengths: bool = False
    step_ms = 2

    @property
    def targets(self):
        return Targets(self.kind, ("a", "b", "c"))

    def frames(self, part):
        if part == "test":
            return None
        rng = np.random.default_rng(3)
        x = rng.random((8, 20, 5))
        shape = self.targets.shape(8, 20)
        y = rng.integers(0, 2, shape) if self.kind not in ("vector", "vector per step") else rng.random(shape)
        return (x, y, np.arange(13, 21)) if self.lengths else (x, y)


def test_events_of_a_source_are_counted_where_they_lie(cache):
    dataset = load(Data(Lab(), batch=5), quiet=True)

    x, targets = dataset.batch("train", [3, 7])

    assert x.shape == (10, 2, 2, 260, 346) and targets.tolist() == [0, 1]
    expected = torch.zeros(10, 2, 260, 346)
    for event in events(7):
        expected[event["t"] // 20_000, event["p"], event["y"], event["x"]] += 1
    assert torch.equal(x[:, 1], expected)
    assert (dataset.classes, dataset.class_names, dataset.steps) == (3, ("left", "right", "up"), 10)
    assert dataset.targets == Targets("class", ("left", "right", "up")) and dataset.mask("train", [0]) is None
    assert dataset.names("test")[1] == "test 1" and dataset.groups("test") == ["a", "b", "c", "d"]


@pytest.mark.parametrize("kind", ("class", "class per step", "vector", "vector per step", "labels", "spikes"))
def test_frames_come_with_targets_of_every_kind(cache, kind):
    source = Series(kind)
    x, y = source.frames("train")

    dataset = load(Data(source), quiet=True)

    ids = dataset.ids["train"][:3]
    frames, targets = dataset.batch("train", ids)
    assert frames.dtype == torch.float32 and frames.shape == (20, 3, 5) and dataset.shape == (5,)
    assert torch.equal(frames, torch.from_numpy(x[ids]).float().transpose(0, 1))
    assert tuple(targets.shape) == source.targets.shape(3, 20)
    assert targets.dtype == (torch.int64 if source.targets.are_classes else torch.float32)
    assert np.allclose(targets.numpy(), y[ids]) and dataset.mask("train", ids) is None
    assert np.array_equal(dataset.labels("train")[:3], targets.numpy())


def test_recordings_that_end_early_are_masked_and_filled_with_zeros(cache):
    dataset = load(Data(Series("class per step", lengths=True), validation_fraction=0), quiet=True)

    x, targets = dataset.batch("train", range(8))
    mask = dataset.mask("train", range(8))

    assert mask is not None and mask.shape == (20, 8) and mask.dtype == torch.bool
    assert mask.sum(0).tolist() == list(range(13, 21))
    assert not x[~mask].any() and x[mask].all()
    assert (targets.T[~mask] == UNLABELLED).all() or targets.shape == (8, 20)
    assert (targets.T[mask] >= 0).all()


@pytest.mark.parametrize("steps", (11, 30))
def test_steps_cut_frames_or_add_silence(cache, steps):
    whole = load(Data(Series("class per step", lengths=True)), quiet=True)
    other = load(Data(Series("class per step", lengths=True), steps=steps), quiet=True)
    ids = whole.ids["train"]

    (x, y), (cut, z) = (dataset.batch("train", ids) for dataset in (whole, other))

    kept = min(steps, 20)
    assert cut.shape[0] == z.shape[1] == steps
    assert torch.equal(cut[:kept], x[:kept]) and not cut[kept:].any()
    assert torch.equal(z[:, :kept], y[:, :kept]) and (z[:, kept:] == UNLABELLED).all()
    mask = other.mask("train", ids)
    assert (mask is None) == (steps == 11)
    assert mask is None or mask.sum(0).tolist() == [13 + number for number in ids]


def test_events_that_end_early_are_masked(cache):
    @dataclass(frozen=True)
    class Short(Lab):
        def recordings(self, part):
            for number, (found, label, named) in enumerate(Lab.recordings(self, part)):
                yield found, label, named | ({"duration_ms": 90} if number % 2 else {})

    dataset = load(Data(Short(), validation_fraction=0), quiet=True)

    mask = dataset.mask("train", [0, 1, 3])

    assert mask is not None and mask.sum(0).tolist() == [10, 5, 5]


@dataclass(frozen=True)
class Files:
    """A recording for each file of a folder; says which files it reads."""

    folder: str
    read: list = field(default_factory=list, compare=False, repr=False)
    says: bool = True
    sensor, class_names, step_ms, window_ms = (346, 260, 2), ("a", "b"), 20, 200

    def recordings(self, part):
        for file in sorted(Path(self.folder, part).glob("*.npy")):
            self.read.append(file.name)
            yield np.load(file), int(file.stem[0])

    def __getattr__(self, name):
        if name == "made_from" and self.says:
            return lambda: [Path(self.folder)]
        raise AttributeError(name)


@pytest.mark.parametrize("says", (True, False))
def test_a_changed_file_is_never_taken_from_the_cache(cache, tmp_path, says):
    folder = tmp_path / "recordings"
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
        for number in range(4):
            np.save(folder / part / f"{number % 2}_{number}.npy", events(number))
    source = Files(str(folder), says=says)
    first = load(Data(source), quiet=True)
    record = json.loads(json.dumps(describe(first)))
    assert len(source.read) == 8

    again = load(Data(source), quiet=True)
    assert len(source.read) == (8 if says else 16) and first_difference(record, again) is None
    assert again.parts["train"].folder == first.parts["train"].folder is not None

    np.save(folder / "train" / "1_3.npy", events(9))
    changed = load(Data(source), quiet=True)

    assert first_difference(record, changed) == "train part: recording 3, recording 3, has changed in its events"
    assert changed.batch("train", [3])[0].sum() == 50 and not torch.equal(
        changed.batch("train", [3])[0], first.batch("train", [3])[0]
    )


@dataclass(frozen=True)
class Altered:
    """A source whose fields are what may change between two starts."""

    add: float = 0.0
    target: int = 0
    name: str = "b"
    group: str = "g"
    length: int = 6

    @property
    def targets(self):
        return Targets("vector", ("a", self.name))

    def frames(self, part):
        x = np.zeros((3, 6, 2)) + self.add * (np.arange(3) == 1)[:, None, None]
        targets = np.zeros((3, 2))
        targets[2] = self.target
        return x, targets, [6, 6, self.length], {"names": ["p", "q", "r"], "groups": ["h", "g", self.group]}


@pytest.mark.parametrize(
    "change, said",
    (
        ({"add": 1.0}, "train part: recording 1, q, has changed in its frames"),
        ({"target": 1}, "train part: recording 2, r, has changed in its target"),
        ({"length": 5}, "train part: recording 2, r, has changed in its frames"),
        ({"name": "c"}, 'the outputs: ["a", "b"] then, ["a", "c"] now'),
    ),
)
def test_what_changes_in_frames_is_named(cache, change, said):
    record = json.loads(json.dumps(describe(load(Data(Altered()), quiet=True))))

    assert first_difference(record, load(Data(Altered()), quiet=True)) is None
    assert first_difference(record, load(Data(Altered(**change)), quiet=True)) == said


class NotFrozen:
    def recordings(self, part):
        return ()


@dataclass(frozen=True)
class Wrong(Lab):
    """Lab with one thing wrong."""

    what: str = ""

    def recordings(self, part):
        found, label, named = next(iter(Lab.recordings(self, part)))
        if self.what == "x":
            found["x"][3] = 346
        if self.what == "t":
            found["t"][0] = -1
        wrong = {"label": (found, 3), "word": (found, "lft"), "one": found, "none": (found, None), "half": (found, 0.5)}
        wrong |= {"fact": (found, 0, {"grop": "a"}), "split": (found, 0, {"split": "dev"}), "columns": (found["x"], 0)}
        yield wrong.get(self.what, (found, label, named))


@pytest.mark.parametrize(
    "what, message",
    (
        ("x", r"x lies in 0\.\.345, found .*346"),
        ("t", "t should be 0 or more"),
        ("label", r"one class, 0\.\.2"),
        ("word", "'left'"),
        ("one", r"should be \(events, target\)"),
        ("none", r"one class, 0\.\.2"),
        ("half", "found 0.5"),
        ("fact", "'group'"),
        ("split", "Known: train, validation, test"),
        ("columns", r"an array \[events, 4\]"),
    ),
)
def test_what_a_source_gives_wrongly_is_refused_by_name(cache, what, message):
    with pytest.raises(SnnError, match=message):
        load(Data(Wrong(what=what)), quiet=True)


@pytest.mark.parametrize(
    "source, message", ((NotFrozen(), "frozen dataclass"), (3, "frozen dataclass"), (Lab, r"Write Data\(Lab\("))
)
def test_what_is_no_source_is_refused(source, message):
    with pytest.raises(SnnError, match=message):
        Data(source)


def test_an_unknown_name_shows_how_to_bring_ones_own():
    with pytest.raises(SnnError) as error:
        Data("my_recordings")

    assert "recordings(self, part)" in str(error.value) and "Dataset.of(" in str(error.value)


def test_a_sensor_of_a_million_pixels_keeps_every_event(cache):
    @dataclass(frozen=True)
    class Large:
        sensor, class_names, step_ms, window_ms = (1280, 720, 2), ("a",), 100, 200

        def recordings(self, part):
            found = events(5, size=(1280, 720), count=500)
            found["x"][7], found["y"][7] = 1279, 719
            yield found, 0

    dataset = load(Data(Large(), validation_fraction=0), quiet=True)

    x, _ = dataset.batch("train", [0], in_bytes=True)

    assert x.shape == (2, 1, 2, 720, 1280) and x.sum() == 500 and x[:, 0, :, 719, 1279].sum() == 1
    assert dataset.parts["train"].events.x.dtype == np.uint16


def test_events_may_have_a_class_for_every_step(cache):
    @dataclass(frozen=True)
    class PerStep(Lab):
        targets = Targets("class per step", ("rest", "move"))

        def recordings(self, part):
            for number, (found, _, named) in enumerate(Lab.recordings(self, part)):
                yield found, np.arange(7 + number % 5) % 2, named

    dataset = load(Data(PerStep()), quiet=True)

    _, targets = dataset.batch("train", [0, 4, 9])

    assert targets.dtype == torch.int64
    assert targets.tolist() == [
        [0, 1, 0, 1, 0, 1, 0, -1, -1, -1],
        [0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
        [0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
    ]
    assert describe(dataset)["targets"] == "class per step"


def test_the_memory_of_a_large_sensor_is_estimated_by_its_pixels(cache):
    @dataclass(frozen=True)
    class Large(Lab):
        sensor = (1280, 720, 2)

    dataset = load(Data(Large(), batch=4, steps=3), quiet=True)
    model = (Pool(16), Flatten(), Dense(3), LIF(beta=0.9))

    found = estimate(Experiment(dataset.data, model), dataset)

    x, _ = dataset.batch("train", dataset.batches("train")[0], in_bytes=True)
    assert x.dtype == torch.uint8 and found.frames == 4 * x.numel() == 4 * 3 * 4 * 2 * 720 * 1280  # the probe is one


@pytest.mark.parametrize("folder", (True, False))
def test_without_a_cache_recordings_are_held_in_memory(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    if not folder:
        (tmp_path / "cache").write_text("a file where the folder should be")

    frames, found = (load(Data(source), quiet=True) for source in (Series("vector", lengths=True), Lab()))

    for dataset in (frames, found):
        assert (dataset.parts["train"].folder is not None) == folder
        assert any("cannot be written" in note for note in dataset.notes) == (not folder)
    assert frames.mask("train", [0]).sum() == 13 and found.batch("train", [0])[0].sum() == 50


def test_a_damaged_entry_of_frames_is_made_again(cache):
    @dataclass(frozen=True)
    class Kept(Series):
        def made_from(self):
            return [1, "one"]

    first = load(Data(Kept()), quiet=True)
    file = first.parts["train"].folder / "frames.npy"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)

    again = load(Data(Kept()), quiet=True)

    assert again.parts["train"].sha256 == first.parts["train"].sha256
    assert any("was damaged" in note for note in again.notes)
    expected = torch.from_numpy(Series().frames("train")[0]).float().transpose(0, 1)
    assert torch.equal(again.batch("train", range(8))[0], expected)


def from_module(file: Path):
    return importlib.reload(importlib.import_module(file.stem)).Written


def from_experiment_file(file: Path):
    return type(read_file(file).data.source)


@pytest.mark.parametrize("found_in", (from_module, from_experiment_file))
def test_a_source_whose_definition_changes_is_read_again_and_no_other(cache, tmp_path, monkeypatch, found_in):
    text = """
import numpy as np
from dataclasses import dataclass
from snn_bp import Data, Dense, Experiment, LIF
HEIGHT = {height}
LEARNING_RATE = {rate}
def scaled(x): return {scale} * x
@dataclass(frozen=True)
class Written:
    log: str
    class_names = ("a",)
    def frames(self, part):
        import beside
        with open(self.log, "a") as file: file.write(part[0])
        return (beside.ADDED + scaled(HEIGHT * np.ones((2, 3, 1))), [0, 0]) if part == "train" else None
    def made_from(self): return []
experiment = Experiment(Data(Written("")), (Dense(1), LIF(beta=0.5)))
"""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    seen, log = [], tmp_path / "log"
    for change in ({}, {}, {"rate": 2}, {"height": 2}, {"scale": 3}, {"added": 1}):
        settings = {"height": 1, "scale": 1, "rate": 1, "added": 0} | change
        (tmp_path / "beside.py").write_text(f"ADDED = {settings['added']}")
        (tmp_path / "written.py").write_text(text.format(**settings))
        monkeypatch.delitem(sys.modules, "beside", raising=False)
        source = found_in(tmp_path / "written.py")(str(log))
        dataset = load(Data(source, validation_fraction=0), quiet=True)
        seen.append((dataset.batch("train", [0])[0].sum().item(), log.read_text()))

    assert seen == [(3, "tt"), (3, "tt"), (3, "tt"), (6, "tttt"), (9, "tttttt"), (6, "tttttttt")]


@dataclass(frozen=True, eq=False)
class Holding:
    """A source with a value that is long, or that nobody can look through."""

    value: object

    def made_from(self):
        return []


def test_values_are_told_apart_by_all_that_they_hold():
    long = np.zeros(5000)
    values = [long, long + (np.arange(5000) == 2500), long + 1e-12, torch.zeros(5000, 1), long.astype(np.float32)]
    values += [[long], {"a": long}, "x", 1, 1.0, True, None, (1, 2), (1, (2,)), Path("a"), "a", Lab(), Lab(3)]

    keys = [json.dumps(made_from(Holding(value), "train")) for value in values]

    assert len(set(keys)) == len(values) and "null" not in keys
    assert keys[0] == json.dumps(made_from(Holding(np.zeros(5000)), "train"))
    assert made_from(Holding(object()), "train") is None
    assert made_from(Holding(np.array([object()])), "train") is None


@pytest.mark.parametrize("method", ["recordings", "frames"])
def test_a_file_that_a_source_cannot_read_is_not_taken_for_a_full_cache(cache, method, monkeypatch):
    def lost(self, part):
        raise OSError(5, "Input/output error", "/net/lab/a.npy")

    source = Lab() if method == "recordings" else Series()
    monkeypatch.setattr(type(source), method, lost)

    with pytest.raises(SnnError, match=r"train part: a file cannot be read \(.*/net/lab/a\.npy.*See that it is there"):
        load(Data(source), quiet=True)
