"""Eleven wishes of recordings."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    BinaryCrossEntropy,
    Conv,
    Current,
    Data,
    Dataset,
    Delta,
    Dense,
    Experiment,
    Flatten,
    Latency,
    MeanSquaredPotential,
    MembraneCrossEntropy,
    Pool,
    Rate,
    Recurrent,
    Repeat,
    Run,
    Targets,
    Train,
    VanRossum,
)  # fmt: skip
from wished.wish import OUT, Wish, wish

NEURON = LIF(beta=0.8, reset="zero")
TRAIN = Train(epochs=2, lr=5e-3)


def moving(rng: np.random.Generator, label: int, size: tuple[int, int], count: int = 150) -> np.ndarray:
    """Events of a bar that moves right, down or not at all, within 100 ms."""
    events = np.zeros(count, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "u1")])
    events["t"], events["p"] = np.sort(rng.integers(0, 100_000, count)), rng.integers(0, 2, count)
    events["x"], events["y"] = rng.integers(0, size[0], count), rng.integers(0, size[1], count)
    if label < 2:
        events["xy"[label]] = events["t"] * size[label] // 100_000
    return events


def in_files(folder: Path, *, ending: str, convolved: bool = False) -> Experiment:
    """A folder for each class, with files of a sensor of 40 x 30 pixels."""
    rng = np.random.default_rng(0)
    for number in range(45):
        label = number % 3
        file = folder / "files" / ("right", "down", "still")[label] / f"{number}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        events = moving(rng, label, (40, 30))
        if ending == "npy":
            np.save(file, events)
        else:
            with h5py.File(file, "w") as written:
                for name in "xytp":
                    written[f"events/{name}"] = events[name]
    data = Data(
        "folder", root=str(folder / "files"), sensor=(40, 30, 2), step_ms=20, steps=5, batch=8, test_fraction=0.2
    )
    front = (Conv(3, 3, stride=2, padding=1), BatchNorm(), NEURON, Pool(2)) if convolved else ()
    return Experiment(data, (*front, Flatten(), *OUT), TRAIN)


@dataclass(frozen=True)
class Camera:
    """Bars before a camera of 346 x 260 pixels."""

    recordings_of_a_part: int = 30
    sensor = (346, 260, 2)
    class_names = ("right", "down", "still")
    step_ms = 20
    window_ms = 100

    def recordings(self, part: str) -> Any:
        """Events and class of each recording of a part."""
        rng = np.random.default_rng(("train", "test").index(part))
        for number in range(self.recordings_of_a_part):
            yield moving(rng, number % 3, (346, 260)), number % 3


class Recorded(TorchDataset):
    """A data set of torch's, of events and labels."""

    def __len__(self) -> int:
        return 45

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Events and label of a recording."""
        if index >= len(self):
            raise IndexError
        return moving(np.random.default_rng(index), index % 3, (12, 12)), index % 3


def of_torch() -> Dataset:
    """That data set, counted in frames."""
    return Dataset.of(train=Recorded(), sensor=(12, 12, 2), step_ms=20, steps=5, batch=8, test_fraction=0.2)


def of_tensor() -> Dataset:
    """A tensor `[recordings, steps, channels]`."""
    drawn = torch.Generator().manual_seed(0)
    labels = torch.arange(45) % 3
    x = torch.rand(45, 8, 6, generator=drawn) < 0.1 + 0.5 * (torch.arange(6) % 3 == labels[:, None, None])
    return Dataset.of(train=(x, labels), test_fraction=0.2, step_ms=2, batch=8)


def in_memory(make: Any, *model: Any) -> Wish:
    """A wish on recordings that are handed in."""
    return Wish(lambda folder: Experiment(make().data, model, TRAIN), dataset=make)


@dataclass(frozen=True)
class Waves:
    """Analog series `[recordings, 30, 2]` of three frequencies; with `kind` other than "class", what else is asked."""

    kind: Any = "class"
    lengths: bool = False
    recordings: int = 48
    step_ms = 5

    @property
    def targets(self) -> Targets:
        """What is asked of the network."""
        names = ("slow", "middle", "fast") if "class" in self.kind else ("sine", "cosine")
        return Targets(self.kind, names)

    def frames(self, part: str) -> Any:
        """Signals, targets and lengths where these differ."""
        rng = np.random.default_rng(("train", "test").index(part))
        labels, steps = np.arange(self.recordings) % 3, np.arange(30)
        phases = 0.3 * (1 + labels[:, None, None]) * steps[None, :, None] + rng.random((self.recordings, 1, 1))
        x = np.sin(phases + np.array([0, np.pi / 2])).astype(np.float32)
        wanted = {
            "class": labels,
            "class per step": np.where(steps % 5 == 4, labels[:, None], -1),
            "vector": x.mean(1),
            "vector per step": x,
            "labels": np.stack([labels > 0, labels % 2 == 0], 1).astype(np.float32),
            "spikes": (x > 0.9).astype(np.float32),
        }[self.kind]
        return (x, wanted, rng.integers(15, 31, self.recordings)) if self.lengths else (x, wanted)


@dataclass(frozen=True)
class Pictures:
    """Images `[recordings, 6, 6]` of a bright bar."""

    recordings: int = 48
    step_ms = 1
    class_names = ("lies", "stands", "neither")

    def frames(self, part: str) -> Any:
        """Images, and the class of each."""
        rng = np.random.default_rng(("train", "test").index(part))
        labels = np.arange(self.recordings) % 3
        x = 0.2 * rng.random((self.recordings, 6, 6)).astype(np.float32)
        for image, label in zip(x, labels, strict=True):
            if label < 2:
                (image.T if label else image)[rng.integers(6)] += 0.7
        return x, labels


def series(source: Any, loss: Any, *, encoder: Any = None, outputs: int = 3, spikes: bool = False) -> Wish:
    """A wish on analog series."""
    last = LIF(beta=0.8, reset="zero") if spikes else LI(beta=0.8)
    model = (Dense(12), BatchNorm(), Recurrent(NEURON), Dense(outputs), last)
    return wish(*model, data=Data(source, batch=8, encoder=encoder), loss=loss)


def has_masked_rows(run: Run) -> str:
    """Whether recordings of the run differ in length."""
    mask = run.dataset().mask("train", run.dataset().ids["train"])
    return "" if mask is not None and not bool(mask.all()) else "no recording is shorter than the others"


def images(encoder: Any) -> Wish:
    """A wish on images."""
    return wish(Flatten(), Dense(12), BatchNorm(), NEURON, *OUT, data=Data(Pictures(), batch=8, encoder=encoder))


MASKED = series(Waves(lengths=True), MembraneCrossEntropy())
WISHES = {
    "folder of .npy/.h5, own sensor, dense": [Wish(partial(in_files, ending=each)) for each in ("npy", "h5")],
    "the same with convolutions": [Wish(partial(in_files, ending="npy", convolved=True))],
    "sensors above 128x128": [
        wish(Conv(3, 5, stride=4), BatchNorm(), NEURON, Pool(4), Flatten(), *OUT, data=Data(Camera(), batch=8))
    ],
    "torch Dataset of (events, label)": [in_memory(of_torch, Flatten(), Dense(12), NEURON, *OUT)],
    "tensor [N, T, C]": [in_memory(of_tensor, Dense(12), NEURON, *OUT)],
    "analog series as current": [series(Waves(), MembraneCrossEntropy(), encoder=Current())],
    "analog series delta-coded": [series(Waves(), MembraneCrossEntropy(), encoder=Delta(0.2))],
    "images: direct, rate, latency": [images(each) for each in (Repeat(5), Rate(5), Latency(5))],
    "variable length, masks": [replace(MASKED, holds=has_masked_rows)],
    "regression, per-step labels": [
        series(Waves("vector"), MeanSquaredPotential(), outputs=2),
        series(Waves("vector per step"), MeanSquaredPotential(), outputs=2),
        series(Waves("class per step", lengths=True), MembraneCrossEntropy()),
        series(Waves("spikes"), VanRossum(tau=5), outputs=2, spikes=True),
    ],
    "several labels": [series(Waves("labels"), BinaryCrossEntropy(), outputs=2)],
}
