"""What a wish is made of, and the small recordings that most of them are trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from snn_bp import LIF, BatchNorm, Data, Dataset, Dense, Experiment, Flatten, Run, Train


@dataclass(frozen=True)
class Wish:
    """One small experiment, or how it is made in a folder; `holds` says what is wrong with a run of it, "" if nothing.

    `dataset` makes the recordings that are handed in. `work` does more than train and resume: given a folder, it runs
    the wish in a way of its own before the usual promises are looked at, and says what is wrong, "" if nothing.
    """

    make: Callable[[Any], Experiment]
    dataset: Callable[[], Dataset] | None = None
    holds: Callable[[Run], str] = lambda run: ""
    work: Callable[[Any, Any], str] = lambda experiment, folder: ""


@dataclass(frozen=True)
class Bars:
    """Spikes `[recordings, 6, 2, size, size]` of bars that lie, stand or do neither, in noise; 4 steps with `short`."""

    recordings: int = 60
    size: int = 8
    short: bool = False
    step_ms = 5
    class_names = ("lies", "stands", "neither")

    def frames(self, part: str) -> Any:
        """The frames of a part, and the class of each recording."""
        rng = np.random.default_rng(("train", "test").index(part))
        labels = np.arange(self.recordings) % 3
        x = rng.random((self.recordings, 4 if self.short else 6, 2, self.size, self.size)) < 0.1
        for number, label in enumerate(labels):
            at = rng.integers(self.size)
            if label < 2:
                picture = x[number, ..., at] if label else x[number, ..., at, :]
                picture |= rng.random(picture.shape) < 0.8
        return x.astype(np.uint8), labels


BARS = Data(Bars(), batch=10)
OUT = (Dense(3), BatchNorm(), LIF(beta=0.8, reset="zero"))  # a readout of three classes
SPIKING = (Flatten(), Dense(12), BatchNorm(), LIF(beta=0.8, reset="zero"), *OUT)


def wish(*model: Any, data: Any = None, holds: Callable[[Run], str] | None = None, **how: Any) -> Wish:
    """A wish that is a network, or a way to train one."""
    train = Train(**({"epochs": 2, "lr": 5e-3} | how))
    experiment = Experiment(data or BARS, model or SPIKING, train)
    return Wish(lambda folder: experiment, holds=holds or (lambda run: ""))
