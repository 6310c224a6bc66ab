"""A residual network of spikes, with a branch beside it and a joint of one's own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snn_bp import LIF, BatchNorm, Conv, Data, Dense, Experiment, Flatten, Parallel, Pool, Residual, Train


@dataclass(frozen=True)
class Or:
    """Spikes of two rows of layers, joined as "or"."""

    first: tuple
    second: tuple

    def branches(self) -> tuple[tuple, ...]:
        """The rows."""
        return self.first, self.second

    def combine(self, outs: list[Tensor]) -> Tensor:
        """1 where one of both spikes."""
        return torch.maximum(*outs)


def spiking(channels: int) -> tuple:
    """A convolution, its norm and its neurons."""
    return Conv(channels, 3, padding=1), BatchNorm(), LIF(beta=0.7, reset="zero")


experiment = Experiment(
    Data("digits", step_ms=104, steps=3, batch=64, downsample=2),
    (
        *spiking(3),
        Residual(*spiking(3), *spiking(3)),
        Parallel((), spiking(2)),
        Or(spiking(3), spiking(3)),
        *(Pool(2), Flatten(), Dense(10), BatchNorm(), LIF(beta=0.8, reset="zero")),
    ),
    Train(epochs=2, lr=4e-3),
)
