"""Dense weights of which only some exist, or whose signs stay: plain numbers for whoever reads `weight`.

What is learned is `raw`; the weight is made of it where it is asked for, so kernels, chip and exporters see the weights
that there are, and gradients reach `raw` by the chain rule.
"""

import math
from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor, nn

from snn_bp.errors.fields import Within

Sign: TypeAlias = Literal["positive", "negative", "dale"]
Density: TypeAlias = Annotated[float | None, Within(above=0, high=1)]
Excitatory: TypeAlias = Annotated[float, Within(0, 1)]


class ConstrainedLinear(nn.Linear):
    """A weighted sum with `weight = |raw| * sign * mask`; without signs `raw * mask`, without a mask all exist.

    The mask is a buffer, drawn with the weights: each unit gets the same number of inputs. By "dale" (Dale's principle)
    the first inputs excite, the others inhibit: all weights of a column have one sign.
    """

    raw: nn.Parameter
    mask: Tensor | None
    signs: Tensor | None

    def __init__(
        self, inputs: int, units: int, *, bias: bool, density: float | None, sign: Sign | None, excitatory: float
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.excitatory = inputs, units, excitatory
        exists = inputs if density is None else max(1, round(density * inputs))
        bound = 1 / math.sqrt(exists)  # as a `nn.Linear` with as many inputs
        raw = torch.empty(units, inputs, device="cpu").uniform_(-bound, bound)
        mask = None
        if density is not None:
            chosen = torch.rand(units, inputs, device="cpu").topk(exists, dim=1).indices
            mask = torch.zeros(units, inputs, dtype=torch.bool, device="cpu").scatter_(1, chosen, True)
            raw *= mask
        signs = None if sign is None else _signs(sign, inputs, excitatory)
        exciting = 1.0 if signs is None else float((signs > 0).float().mean())
        if sign == "dale" and 0 < exciting < 1:  # inhibition balances excitation, the mean square stays
            balance = math.sqrt(exciting / (1 - exciting))
            raw *= torch.where(signs > 0, 1 / balance, balance)  # type: ignore[operator]
        device = torch.get_default_device()
        self.raw = nn.Parameter(raw.to(device))
        shift = torch.empty(units, device="cpu").uniform_(-bound, bound)
        self.register_parameter("bias", nn.Parameter(shift.to(device)) if bias else None)
        self.register_buffer("mask", None if mask is None else mask.to(device))
        self.register_buffer("signs", None if signs is None else signs.to(device), persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weights that there are, `[units, inputs]`."""
        weight = self.raw if self.signs is None else self.raw.abs() * self.signs
        return weight if self.mask is None else weight * self.mask

    def fan_out(self) -> Tensor | int:
        """How many units each input reaches, `[inputs]`, or the one number of all."""
        return self.out_features if self.mask is None else self.mask.sum(0)


def dense(
    inputs: int, units: int, *, bias: bool, density: float | None, sign: Sign | None, excitatory: float
) -> nn.Linear:
    """A `nn.Linear`, or a constrained one where something is asked for."""
    if density is None and sign is None:
        return nn.Linear(inputs, units, bias=bias)
    return ConstrainedLinear(inputs, units, bias=bias, density=density, sign=sign, excitatory=excitatory)


def _signs(sign: Sign, inputs: int, excitatory: float) -> Tensor:
    """The sign of each input, `[inputs]`."""
    if sign != "dale":
        return torch.full((inputs,), 1.0 if sign == "positive" else -1.0, device="cpu")
    return torch.where(torch.arange(inputs, device="cpu") < round(excitatory * inputs), 1.0, -1.0)
