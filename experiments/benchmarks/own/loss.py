"""A loss of one's own: cross entropy at every step, and a pull of potentials to one another."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from snn_bp import LI, LIF, BatchNorm, Data, Dense, Experiment, Flatten, Train


@dataclass(frozen=True)
class Steady:
    """`(1 - weight)` times the cross entropy of each step, plus `weight` times the variance over time."""

    weight: float = 0.05

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch."""
        each = F.cross_entropy(out.flatten(0, 1), targets.repeat(len(out)))
        return (1 - self.weight) * each + self.weight * out.var(0).mean()

    def scores(self, out: Tensor) -> Tensor:
        """The mean potential."""
        return out.mean(0)


experiment = Experiment(
    Data("digits", step_ms=52, steps=6, batch=64, downsample=2),
    (Flatten(), Dense(48), BatchNorm(), LIF(beta=0.8), Dense(10), LI(beta=0.8)),
    Train(epochs=3, lr=4e-3, loss=Steady(weight=0.1)),
)
