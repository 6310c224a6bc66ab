"""Losses on the output `[time, batch, classes]`, the votes they imply, and bounds on firing rates.

Each loss is a value: called, it gives the mean loss of a batch; `votes` gives `[batch, classes]`, largest for the
class the network decides on.
"""

from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp.errors import SnnError, check_number


@dataclass(frozen=True)
class CountCrossEntropy:
    """Cross entropy of the spike counts (of a readout that does not spike: its summed potentials)."""

    def votes(self, out: Tensor) -> Tensor:
        """Spike counts."""
        return out.float().sum(0) if out.dtype in (torch.float16, torch.bfloat16) else out.sum(0)

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.votes(out), targets)


@dataclass(frozen=True)
class MembraneCrossEntropy:
    """Cross entropy of the potentials' mean over time."""

    def votes(self, out: Tensor) -> Tensor:
        """Mean potentials."""
        return out.mean(0)

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.votes(out), targets)


@dataclass(frozen=True)
class MaxCrossEntropy:
    """Cross entropy of the potentials' maximum over time. Zenke & Vogels 2021."""

    def votes(self, out: Tensor) -> Tensor:
        """Maximal potentials."""
        return out.amax(0)

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.votes(out), targets)


@dataclass(frozen=True)
class CountSquaredError:
    """Mean squared distance of the rates (spikes per step) from `right` for the true class, `wrong` for the others."""

    right: float = 0.8
    wrong: float = 0.2

    def __post_init__(self) -> None:
        for name in ("right", "wrong"):
            check_number(f"CountSquaredError: {name}", getattr(self, name), low=0, high=1)

    def votes(self, out: Tensor) -> Tensor:
        """Spikes per step."""
        return out.mean(0)

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        rates = self.votes(out)
        wanted = torch.full_like(rates, self.wrong).scatter_(1, targets[:, None], self.right)
        return F.mse_loss(rates, wanted)


@dataclass(frozen=True)
class FirstSpike:
    """Cross entropy of minus the time of the first spike, in units of `scale` steps.

    The time is sum_t prod_{k <= t} (1 - s[k]): the steps before the first spike, all steps where none comes. As a
    polynomial in the spikes it has a gradient that pulls spikes earlier, and calls for one where none is.
    """

    scale: float = 5.0

    def __post_init__(self) -> None:
        check_number("FirstSpike: scale", self.scale, above=0)

    def votes(self, out: Tensor) -> Tensor:
        """Minus the time of the first spike, in steps / scale."""
        return -torch.cumprod(1 - out, 0).sum(0) / self.scale

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.votes(out), targets)


Loss: TypeAlias = CountCrossEntropy | MembraneCrossEntropy | MaxCrossEntropy | CountSquaredError | FirstSpike


@dataclass(frozen=True)
class RateBounds:
    """Penalty on neurons whose mean rate (spikes per step, over time and batch) leaves `lower..upper`.

    strength * mean over the neurons of a layer of relu(lower - rate)^2 + relu(rate - upper)^2, summed over layers.
    Each bound is one number, or one for each hidden layer of neurons.
    """

    lower: float | tuple[float, ...] = 0.0
    upper: float | tuple[float, ...] = 1.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            bound = getattr(self, name)
            for value in bound if isinstance(bound, tuple) else (bound,):
                check_number(f"RateBounds: {name}", value, low=0, high=1)
        check_number("RateBounds: strength", self.strength, low=0)

    def __call__(self, rates: list[Tensor]) -> Tensor:
        """The penalty of the mean rates of each hidden layer's neurons, as `network.rates` gives them."""
        penalty = torch.zeros(())
        for low, high, rate in zip(self._each(self.lower, rates), self._each(self.upper, rates), rates, strict=True):
            penalty = penalty + (F.relu(low - rate).square() + F.relu(rate - high).square()).mean()
        return self.strength * penalty

    @staticmethod
    def _each(bound: float | tuple[float, ...], rates: list[Tensor]) -> tuple[float, ...]:
        if not isinstance(bound, tuple):
            return (bound,) * len(rates)
        if len(bound) != len(rates):
            raise SnnError(
                f"RateBounds: {len(bound)} bounds for {len(rates)} hidden layers. Give one for each, or one for all."
            )
        return bound
