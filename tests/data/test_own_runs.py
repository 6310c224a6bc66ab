"""Runs on sources of one's own: stopped and gone on bit for bit, and what has changed is said by name."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import runs

from snn_bp import LIF, BatchNorm, Data, Delta, Dense, Experiment, Flatten, SnnError, Targets, Train, resume, train
from snn_bp.data import Dataset


@dataclass(frozen=True)
class Camera:
    """Events on one of three thirds of a small sensor; a file may say what is otherwise."""

    file: str = ""
    sensor, step_ms, window_ms = (12, 4, 2), 10, 60

    def said(self):
        usual = {"changed": -1, "relabelled": -1, "class_names": ["left", "middle", "right"]}
        return usual | (json.loads(Path(self.file).read_text()) if self.file else {})

    @property
    def class_names(self):
        return self.said()["class_names"]

    def recordings(self, part):
        rng, said = np.random.default_rng(0), self.said()
        for number in range(48 if part == "train" else 0):
            events = np.empty(30, [("x", int), ("y", int), ("p", int), ("t", int)])
            events["x"], events["y"] = rng.integers(0, 4, 30) + 4 * (number % 3), rng.integers(0, 4, 30)
            events["p"], events["t"] = np.arange(30) % 2, np.sort(rng.integers(0, 60_000, 30))
            if number == said["changed"]:
                events["y"][5] = 3 - events["y"][5]
            yield events, (number + (number == said["relabelled"])) % 3, {"group": f"subject {number // 4 % 6}"}


@dataclass(frozen=True)
class Signals:
    """Series of three frequencies."""

    class_names = ("slow", "middle", "fast")

    def frames(self, part):
        if part == "test":
            return None
        rng, t = np.random.default_rng(1), np.arange(24)[:, None]
        y = np.arange(48) % 3
        return np.stack([np.sin(t * 0.2 * (1 + k) + rng.normal(size=2)) for k in y]), y


@dataclass(frozen=True)
class Noisy:
    """An encoder of one's own that draws anew for every recording and epoch."""

    noise: float = 0.1

    def __call__(self, x, rng):
        return Delta(0.2)(x + self.noise * rng.normal(size=x.shape), rng)


MODEL = (Flatten(), Dense(12), BatchNorm(), LIF(beta=0.8), Dense(3), BatchNorm(), LIF(beta=0.8))
HOW = Train(epochs=3, lr=5e-3)
EXPERIMENTS = {
    "events": Experiment(
        Data(Camera(), batch=8, split_by="group", test_groups=("subject 2",), translate_px=1), MODEL, HOW
    ),
    "frames": Experiment(Data(Signals(), batch=8, encoder=Noisy(0.3), folds=4, fold=1), MODEL, HOW),
}


def stop_at(count: int, patch: pytest.MonkeyPatch) -> None:
    """Let so many batches of training be asked for, and none more."""
    real, seen = Dataset.batch, []

    def batch(self, split, ids, **how):
        seen.append(how.get("seed"))
        if sum(seed is not None for seed in seen) == count:
            raise KeyboardInterrupt
        return real(self, split, ids, **how)

    patch.setattr(Dataset, "batch", batch)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_stops_in_an_epoch_and_goes_on_bit_for_bit(name, cache, tmp_path, monkeypatch):
    whole = train(EXPERIMENTS[name], tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(7, patch)
        train(EXPERIMENTS[name], tmp_path / "stopped", quiet=True, save_seconds=0)
    stopped = resume(tmp_path / "stopped", quiet=True)

    runs.assert_same_run(stopped, whole)
    assert whole.results()["test"]["samples"] in (8, 12)
    record = json.loads((whole.path / "data.json").read_text())
    assert record["parts"]["test"]["same_as"] == "train" and record["splits"]["test"]["sha256"]


@pytest.mark.parametrize(
    "change, said",
    (
        ({"changed": 11}, "train part: recording 11, recording 11, has changed in its events"),
        ({"relabelled": 7}, "train part: recording 7, recording 7, has changed in its class"),
        ({"class_names": ["left", "middle", "up"]}, "the classes: .*right.* then, .*up.* now"),
    ),
)
def test_what_has_changed_in_a_source_is_said_when_a_run_goes_on(cache, tmp_path, change, said):
    file = tmp_path / "said.json"
    file.write_text("{}")
    data = Data(Camera(str(file)), batch=8)
    run = train(Experiment(data, MODEL, Train(epochs=1)), tmp_path / "run", quiet=True)
    (run.path / "results.json").unlink()
    resume(run.path, quiet=True)
    (run.path / "results.json").unlink()
    file.write_text(json.dumps(change))

    with pytest.raises(SnnError, match=said):
        resume(run.path, quiet=True)


def test_targets_may_be_fields_of_a_source(cache, tmp_path):
    @dataclass(frozen=True)
    class Any3:
        targets: Targets

        def frames(self, part):
            return np.ones((6, 4, 2)), np.arange(6) % 3

    assert Data(Any3(Targets("class", ("a", "b", "c")))).name == "Any3"


def test_recordings_in_memory_go_on_with_an_encoder_of_ones_own(cache, tmp_path, monkeypatch):
    def made() -> Dataset:
        return Dataset.of(train=Signals().frames("train"), batch=8, encoder=Noisy(0.3), test_fraction=0.2)

    def training(out):
        return train(Experiment(made().data, MODEL, HOW), out, quiet=True, dataset=made(), save_seconds=0)

    whole = training(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(7, patch)
        training(tmp_path / "stopped")

    runs.assert_same_run(resume(tmp_path / "stopped", quiet=True, dataset=made()), whole)
