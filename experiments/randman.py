"""Randman (Zenke & Vogels 2021): classes that differ in the relative timing of spikes alone, made here from a seed.

    snn-bp train experiments/randman.py
    snn-bp train experiments/randman.py data.source.dimensions=1

Each of 10 classes is a smooth random manifold; a recording is a point on it, whose 20 coordinates are the times at
which 20 units spike, once each, within 100 steps. Published for one dimension, 128 hidden neurons without a norm and
200 epochs: 96.3 % (stork's notebook); with a norm that is solved, so two dimensions are the default here. Equations and
sizes are those of the authors' generator, the random numbers are not. 1,000 recordings of each class, 200 of them for
the test.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from snn_bp import LI, LIF, BatchNorm, Data, Dense, Experiment, MaxCrossEntropy, Tau, Train, main


@dataclass(frozen=True)
class Randman:
    """Spikes of 20 units, frames [recordings, 100, 20]."""

    dimensions: int = 2
    smoothness: float = 2.0  # amplitudes of the frequencies 1, 2, ... fall with this power
    seed: int = 0
    step_ms = 1.0
    class_names = tuple(map(str, range(10)))

    def frames(self, part: str) -> tuple[Any, ...]:
        """The first 800 points on each manifold as "train", the last 200 as "test"."""
        rng, count, units = np.random.default_rng(self.seed), 1000, 20
        frequencies = np.arange(1, 1 + math.ceil(1e-2 ** (-1 / self.smoothness)))  # amplitudes down to 0.01
        mine = slice(0, 800) if part == "train" else slice(800, 1000)
        frames, labels = [], []
        for label in range(10):
            strength, stretch, phase = rng.random((3, units, self.dimensions, len(frequencies)))
            at = rng.random((count, 1, self.dimensions, 1))
            waves = strength * frequencies**-self.smoothness * np.sin(2 * np.pi * (frequencies * at * stretch + phase))
            values = waves.sum(3).prod(2)  # [recordings, units]
            low, high = values.min(0), values.max(0)
            steps = (99.999 * (values - low) / (high - low + 1e-7)).astype(int)[mine]
            frames.append(np.zeros((len(steps), 100, units), np.uint8))
            np.put_along_axis(frames[-1], steps[:, None], 1, axis=1)
            labels += [label] * len(steps)
        return np.concatenate(frames), labels


experiment = Experiment(
    data=Data(Randman(), batch=32),
    model=(Dense(128), BatchNorm(), LIF(beta=Tau(20)), Dense(10), LI(beta=Tau(20))),
    train=Train(epochs=12, lr=5e-3, loss=MaxCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
