"""Losses on the output `[time, batch, classes]`, the scores of the classes they imply, and bounds on firing rates.

Each loss is a value: called, it gives the mean loss of a batch, once output and targets have been checked; `mean`
is the formula alone. `scores` gives `[batch, classes]`, largest for the class the network decides on. `means` says
which outputs a loss is for: spikes, potentials, or either.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.errors import SnnError, shown
from snn_bp.errors.fields import Within, check_fields
from snn_bp.model.blocks import LayerAt, Layers, parts_of, role_of
from snn_bp.neurons import is_spiking

Output: TypeAlias = Literal["spikes", "potentials"]
Fraction: TypeAlias = Annotated[float, Within(0, 1)]


NO_CLASS = -(2**31)  # what torch leaves out of a cross entropy: no class has this number, -100 is refused as any other


def _cross_entropy(loss: Any, out: Tensor, targets: Tensor) -> Tensor:
    """The loss without checks."""
    return F.cross_entropy(loss.scores(out), targets, ignore_index=NO_CLASS)


def _checked(loss: Any, out: Tensor, targets: Tensor) -> Tensor:
    """The loss of a batch, once output and targets have been checked."""
    check_batch(loss, out, targets)
    return loss.mean(out, targets)


@dataclass(frozen=True)
class CountCrossEntropy:
    """Cross entropy of the spike counts (of a readout that does not spike: its summed potentials)."""

    means: ClassVar[tuple[Output, ...]] = ("spikes", "potentials")

    def scores(self, out: Tensor) -> Tensor:
        """Spike counts."""
        return out.float().sum(0) if out.dtype in (torch.float16, torch.bfloat16) else out.sum(0)

    mean = _cross_entropy
    __call__ = _checked


@dataclass(frozen=True)
class MembraneCrossEntropy:
    """Cross entropy of the potentials' mean over time (of neurons that spike: of their rates)."""

    means: ClassVar[tuple[Output, ...]] = ("spikes", "potentials")

    def scores(self, out: Tensor) -> Tensor:
        """Mean potentials."""
        return out.mean(0)

    mean = _cross_entropy
    __call__ = _checked


@dataclass(frozen=True)
class MaxCrossEntropy:
    """Cross entropy of the potentials' maximum over time. Zenke & Vogels 2021."""

    means: ClassVar[tuple[Output, ...]] = ("potentials",)

    def scores(self, out: Tensor) -> Tensor:
        """Maximal potentials."""
        return out.amax(0)

    mean = _cross_entropy
    __call__ = _checked


@dataclass(frozen=True)
class CountSquaredError:
    """Mean squared distance of the rates (spikes per step) from `right` for the true class, `wrong` for the others.

    Of a readout that does not spike: of its mean potentials.
    """

    right: Fraction = 0.8
    wrong: Fraction = 0.2
    means: ClassVar[tuple[Output, ...]] = ("spikes", "potentials")

    __post_init__ = check_fields

    def scores(self, out: Tensor) -> Tensor:
        """Spikes per step."""
        return out.mean(0)

    def mean(self, out: Tensor, targets: Tensor) -> Tensor:
        """The loss without checks."""
        rates = self.scores(out)
        wanted = torch.full_like(rates, self.wrong).scatter_(1, targets[:, None], self.right)
        return F.mse_loss(rates, wanted)

    __call__ = _checked


@dataclass(frozen=True)
class FirstSpike:
    """Cross entropy of minus the time of the first spike, in units of `scale` steps.

    The time is sum_t prod_{k <= t} (1 - s[k]): the steps before the first spike, all steps where none comes. As a
    polynomial in the spikes it has a gradient that pulls spikes earlier, and calls for one where none is.
    """

    scale: Annotated[float, Within(above=0)] = 5.0
    means: ClassVar[tuple[Output, ...]] = ("spikes",)

    __post_init__ = check_fields

    def scores(self, out: Tensor) -> Tensor:
        """Minus the time of the first spike, in steps / scale."""
        check_spikes(self, out)
        return self._scores(out)

    def mean(self, out: Tensor, targets: Tensor) -> Tensor:
        """The loss without checks, also of smooth spikes that leave 0..1."""
        return F.cross_entropy(self._scores(out), targets, ignore_index=NO_CLASS)

    def _scores(self, out: Tensor) -> Tensor:
        return -torch.cumprod(1 - out, 0).sum(0) / self.scale

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        check_batch(self, out, targets)
        check_spikes(self, out)
        return self.mean(out, targets)


Loss: TypeAlias = CountCrossEntropy | MembraneCrossEntropy | MaxCrossEntropy | CountSquaredError | FirstSpike
LOSSES = (CountCrossEntropy, MembraneCrossEntropy, MaxCrossEntropy, CountSquaredError, FirstSpike)


def check_loss(loss: Any, network: Layers) -> None:
    """Raise unless the loss is one of ours and means what the network's last layer gives: spikes, or potentials."""
    if type(loss) not in LOSSES:
        raise SnnError(f"loss={shown(loss)}: it should be a loss, as CountCrossEntropy().")
    last = next((part.layer for part in reversed(parts_of(network)) if not _keeps_spikes(part)), None)
    neuron: Any = last.neuron if last is not None and role_of(last) == "neurons" else None
    output: Output = "spikes" if neuron is not None and is_spiking(neuron) else "potentials"
    if output in loss.means:
        return
    name = type(neuron or last).__name__
    if output == "spikes":
        raise SnnError(
            f"{loss}: it looks for the largest potential, and the last layer ({name}) gives spikes, which are all as "
            "large. End the model with LI(beta=0.9), or use CountCrossEntropy()."
        )
    raise SnnError(
        f"{loss}: it needs neurons that spike, and the last layer ({name}) does not. End the model with one that does, "
        "as LIF(beta=0.9), or use MaxCrossEntropy()."
    )


def _keeps_spikes(part: LayerAt) -> bool:
    """Whether a layer makes spikes of spikes."""
    return part.role in ("flatten", "delay") or isinstance(part.layer, nn.MaxPool1d | nn.MaxPool2d)


def smooth_loss(loss: Any, out: Tensor, targets: Tensor) -> Tensor:
    """The loss of spikes that have been made smooth, which may leave 0..1."""
    return loss.mean(out, targets) if type(loss) in LOSSES else loss(out, targets)


def check_batch(loss: "Loss", out: Tensor, targets: Tensor) -> None:
    """Raise unless `out` is `[time, batch, classes]` and `targets` holds the class of each sample.

    On a GPU the range of the classes is left to the kernels, which stop at one that is not there: to look from here
    would wait for the network in every step.
    """
    name = type(loss).__name__
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.dim() != 3 or 0 in out.shape:
        raise SnnError(f"{name}: the output should be floats [time, batch, classes], found {_text_of(out)}.")
    batch, classes = out.shape[1:]
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or targets.shape != (batch,):
        raise SnnError(
            f"{name}: targets should be the classes of the {batch} samples, int64 [{batch}], found {_text_of(targets)}."
            f"{' Use targets.long().' if isinstance(targets, Tensor) and targets.shape == (batch,) else ''}"
        )
    if targets.device != out.device:
        raise SnnError(f"{name}: targets are on {targets.device}, the output on {out.device}. Use targets.to(device).")
    if targets.device.type == "cpu" and _has_values(targets):
        least, most = (int(end) for end in targets.aminmax())
        if not 0 <= least <= most < classes:
            wrong = least if least < 0 else most
            raise SnnError(f"{name}: a target is {wrong}, the output has the classes 0..{classes - 1}.")


def check_spikes(loss: "FirstSpike", out: Tensor) -> None:
    """Raise where the output leaves 0..1, which no spike does; a NaN is for whoever looks for NaNs."""
    if isinstance(out, Tensor) and out.numel() and out.is_floating_point() and _has_values(out):
        least, most = (float(end) for end in out.detach().aminmax())
        if least < 0 or most > 1:
            raise SnnError(
                f"{type(loss).__name__}: it needs spikes, 0 or 1, and the output lies in {least:.4g}..{most:.4g}: "
                "potentials. End the model with a neuron that spikes, as LIF(beta=0.9), or use MaxCrossEntropy()."
            )


def _text_of(given: Any) -> str:
    return f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"


def _has_values(given: Tensor) -> bool:
    """Whether numbers can be read from here: not while torch compiles, captures, batches or only counts shapes."""
    return (
        type(given) in (Tensor, nn.Parameter)
        and given.device.type != "meta"
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(given)  # type: ignore[attr-defined]
        and not (given.is_cuda and torch.cuda.is_current_stream_capturing())
    )


@dataclass(frozen=True)
class RateBounds:
    """Penalty on neurons whose mean rate (spikes per step, over time and batch) leaves `lower..upper`.

    strength * mean over the neurons of a layer of relu(lower - rate)^2 + relu(rate - upper)^2, summed over layers.
    Each bound is one number, or one for each hidden layer of neurons.
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
            raise SnnError(f"RateBounds: it takes a list of tensors, the rates of each layer, found {_text_of(rates)}.")
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
