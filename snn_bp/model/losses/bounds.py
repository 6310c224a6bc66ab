"""Bounds on firing rates: a penalty beside any loss."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp.errors import SnnError, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Within, check_fields
from snn_bp.model.losses.checks import text_of


@checked_dataclass(frozen=True)
class RateBounds:
    """Penalty on neurons whose mean rate (spikes per step, over time and batch) leaves `lower..upper`.

    strength * mean over the neurons of a layer of relu(lower - rate)^2 + relu(rate - upper)^2, summed over layers.

    Parameters:
        lower (0.0): spikes per step, within 0..1; one number, or one for each hidden layer of neurons.
        upper (1.0): likewise.
        strength (1.0): what the sum is multiplied by.

    >>> RateBounds(lower=0.1, upper=0.5)([torch.tensor([0.0, 0.2, 0.6])])  # (0.1^2 + 0.1^2) / 3
    tensor(0.0067)
    """

    lower: Annotated[float | tuple[float, ...], Within(0, 1)] = 0.0
    upper: Annotated[float | tuple[float, ...], Within(0, 1)] = 1.0
    strength: Annotated[float, Within(low=0)] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        ends = [end if isinstance(end, tuple) else (end,) for end in (self.lower, self.upper)]
        lower, upper = (end * max(map(len, ends)) if len(end) == 1 else end for end in ends)
        if len(lower) != len(upper) or any(low > high for low, high in zip(lower, upper, strict=True)):
            raise SnnError(
                f"RateBounds(lower={shown(self.lower)}, upper={shown(self.upper)}): each lower bound should have an "
                "upper one that is not below it, as RateBounds(lower=0.01, upper=0.5)."
            )

    def __call__(self, rates: list[Tensor]) -> Tensor:
        """The penalty of the mean rates of each hidden layer's neurons, as `network.rates` gives them."""
        if not isinstance(rates, tuple | list) or not all(isinstance(rate, Tensor) for rate in rates):
            raise SnnError(f"RateBounds: it takes a list of tensors, the rates of each layer, found {text_of(rates)}.")
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
