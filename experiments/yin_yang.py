"""Yin-Yang (Kriener et al. 2021): is a point in the one half, the other half or one of the dots? Made here from a seed.

    snn-bp train experiments/yin_yang.py

A point (x, y) becomes four spikes, of x, y, 1 - x and 1 - y, each the later the larger the value is, and one spike at
the first of 100 steps. 5,000 points to train, 1,000 for the test, as many of each class as of the others; a test point
whose times, in whole steps, equal those of a training point is not taken out, and a run says how many there are. No
line separates the classes in the plane; in the 500 frames laid flat it nearly does (logistic regression: 98.7 %,
`experiments/benchmarks/beside.py`), so what is asked here is the use of spike times, not a hard problem.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from snn_bp import LI, CubaLIF, Data, Dense, Experiment, MaxCrossEntropy, Tau, Train, main

RADIUS, DOT = 0.5, 0.1  # of the sign, whose middle is (RADIUS, RADIUS), and of its dots


@dataclass(frozen=True)
class YinYang:
    """Spike times of points, as frames [points, 100, 5]."""

    points: int = 5000
    seed: int = 0
    step_ms = 1.0
    class_names = ("yang", "yin", "dot")

    def frames(self, part: str) -> tuple[Any, ...]:
        """The points of a part."""
        rng = np.random.default_rng((self.seed, part == "test"))
        count = self.points if part == "train" else 1000
        drawn = rng.random((50 * count, 2))
        classes, labels, points = which(*drawn.T), np.arange(count) % 3, np.empty((count, 2))
        for label in range(3):
            points[labels == label] = drawn[classes == label][: (labels == label).sum()]
        steps = np.rint(np.concatenate([np.zeros((count, 1)), points, 1 - points], 1) * 99).astype(int)
        frames = np.zeros((count, 100, 5), np.uint8)
        np.put_along_axis(frames, steps[:, None], 1, axis=1)
        return frames, labels


def which(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The classes of points; -1 outside of the sign."""
    right, left = np.hypot(x - 1.5 * RADIUS, y - RADIUS), np.hypot(x - 0.5 * RADIUS, y - RADIUS)
    yin = (right <= DOT) | ((left > DOT) & (left <= 0.5 * RADIUS)) | ((y > RADIUS) & (right > 0.5 * RADIUS))
    inside = np.where(np.minimum(left, right) < DOT, 2, yin)
    return np.where(np.hypot(x - RADIUS, y - RADIUS) <= RADIUS, inside, -1)


experiment = Experiment(
    data=Data(YinYang(), batch=32),
    model=(Dense(120), CubaLIF(alpha=Tau(5), beta=Tau(15)), Dense(3), LI(beta=Tau(15), alpha=Tau(5))),
    train=Train(epochs=40, lr=5e-3, loss=MaxCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
