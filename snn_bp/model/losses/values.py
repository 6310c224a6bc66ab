"""Losses on vectors, on several labels at once, and on spike trains."""

import math
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, Within, check_fields
from snn_bp.kernels import simulate
from snn_bp.model.losses.checks import check_batch, check_output, mean_over_time, present
from snn_bp.model.losses.classes import Output, mean_of_steps
from snn_bp.model.targets import Kind
from snn_bp.neurons import LI, Tau


def _checked(loss: Any, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """The loss of a batch, once output and targets have been checked."""
    check_batch(loss, out, targets, mask)
    return loss.formula(out, targets, mask)


@checked_dataclass(frozen=True)
class MeanSquaredPotential:
    """Mean squared distance of the mean potential from the target (of neurons that spike: of their rates).

    With a vector for every step: of the potential of each step. Output `[time, batch, outputs]`.

    >>> MeanSquaredPotential()(torch.full((10, 2, 1), 0.5), torch.tensor([[0.5], [0.0]]))
    tensor(0.1250)
    """

    means: ClassVar[tuple[Output, ...]] = ("spikes", "potentials")
    fits: ClassVar[tuple[Kind, ...]] = ("vector", "vector per step")

    def scores(self, out: Tensor, mask: Tensor | None = None, kind: Kind = "vector") -> Tensor:
        """The answer itself: `[batch, outputs]`, for every step `[batch, time, outputs]`."""
        check_output(self, out, mask)
        return out.transpose(0, 1) if kind == "vector per step" else mean_over_time(out, mask)

    def formula(self, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss without checks."""
        if targets.dim() == 2:
            return F.mse_loss(mean_over_time(out, mask), targets.to(out.dtype))
        distance = (out - targets.transpose(0, 1).to(out.dtype)).square().mean(2)
        return distance.mean() if mask is None else mean_of_steps(distance, mask)

    __call__ = _checked


@checked_dataclass(frozen=True)
class BinaryCrossEntropy:
    """Cross entropy of each label by itself: the logistic function of the mean potential says how likely it is.

    Output `[time, batch, labels]`, targets 0 or 1 `[batch, labels]`.

    >>> BinaryCrossEntropy()(torch.zeros(10, 1, 3), torch.tensor([[1.0, 0.0, 1.0]]))  # log 2: it knows nothing
    tensor(0.6931)
    """

    means: ClassVar[tuple[Output, ...]] = ("potentials",)
    fits: ClassVar[tuple[Kind, ...]] = ("labels",)

    def scores(self, out: Tensor, mask: Tensor | None = None, kind: Kind = "labels") -> Tensor:
        """Mean potentials `[batch, labels]`; above 0 a label is more likely than not."""
        check_output(self, out, mask)
        return mean_over_time(out, mask)

    def formula(self, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss without checks."""
        scores = mean_over_time(out, mask)
        return F.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype))

    __call__ = _checked


@checked_dataclass(frozen=True)
class VanRossum:
    """The squared distance of spike trains of van Rossum 2001, mean over recordings and outputs.

        e[t] = exp(-1 / tau) * e[t-1] + s[t] - wanted[t]        D^2 = sum_t e[t]^2 / tau

    `tau` (10.0) is in steps, or in ms as Tau(10). One spike too many costs about 1/2, far from others.

    >>> VanRossum(tau=5.0)(torch.eye(50)[:, None, :1], torch.zeros(1, 50, 1))  # one spike, and none was wanted
    tensor(0.6066)
    """

    tau: Annotated[float | Tau, Within(above=0), Called("a positive number of steps, or ms as Tau(10)")] = 10.0
    means: ClassVar[tuple[Output, ...]] = ("spikes",)
    fits: ClassVar[tuple[Kind, ...]] = ("spikes",)

    __post_init__ = check_fields

    def at_step(self, step_ms: float) -> "VanRossum":
        """With `tau` in steps of `step_ms`."""
        return replace(self, tau=tau_in_steps(self.tau, step_ms))

    def scores(self, out: Tensor, mask: Tensor | None = None, kind: Kind = "spikes") -> Tensor:
        """The spike trains `[batch, time, outputs]`."""
        check_output(self, out, mask)
        return out.transpose(0, 1)

    def formula(self, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss without checks."""
        return squared_distances(out, targets, mask, tau=self.tau).mean()

    __call__ = _checked


def squared_distances(out: Tensor, targets: Tensor, mask: Tensor | None, *, tau: float | Tau) -> Tensor:
    """Van Rossum's squared distance of each recording and output, `[batch, outputs]`."""
    if not isinstance(tau, int | float):
        raise SnnError(f"{tau} is in ms, and nothing here says how long a step is. Give tau in steps, as 10.0.")
    difference = present(out - targets.transpose(0, 1).to(out.dtype), mask)
    filtered, _ = simulate(LI(beta=math.exp(-1 / tau)), difference)
    return present(filtered, mask).square().sum(0) / tau


def tau_in_steps(tau: float | Tau, step_ms: float) -> float:
    """A time constant in steps."""
    return float(tau) if isinstance(tau, int | float) else tau.ms / step_ms
