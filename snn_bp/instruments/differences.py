"""The smoothed network's gradient against central finite differences, in double precision.

Spikes are the surrogate's integral, so the loss is a smooth function of the weights. Where a reset is detached, its
spikes are held at the values of the unperturbed run, and so is the scale of a surrogate that counts per threshold:
that is what the gradient means. What is compared is the slope of the loss along random directions. How far a
difference can be trusted is measured beside it: a loss that rounds to single precision, or one with a kink in reach (a
tie of a maximum), is not smooth, and its differences say less.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from snn_bp.instruments.smooth import piece
from snn_bp.instruments.traces import forked
from snn_bp.instruments.unroll import Steps, Variant, unroll
from snn_bp.model.blocks import every_part, parts_of
from snn_bp.model.losses import Loss, smooth_loss
from snn_bp.model.network import Network
from snn_bp.runtime.status import in_phase

REACHES = (1e-3, 1e-4, 1e-5, 1e-6)  # step sizes along a direction; smaller ones cross fewer kinks and lose digits
FLOOR = 1e-3  # fraction of the gradient of a whole layer; the four below are fractions of the gradient's norm
ENOUGH = 1e-5  # a smaller correction by extrapolation counts as none
SMOOTH = 1e-8  # a smaller uncertainty is far below every limit
AGREED = 5e-7  # a difference this close to the gradient needs no second reach
TRUSTED = 10.0  # an error of so many uncertainties is one of the gradient
SEEN = 1e-2  # a wrong derivative is off by more


@dataclass(frozen=True)
class Difference:
    """The slope of the smoothed loss along random directions of one parameter."""

    name: str
    error: float  # largest |difference - gradient|, over the gradient's norm (see `scales`)
    crossed: int  # neurons and steps that a kink lies under, of the surrogate or of a `where` in the neuron's own step
    uncertain: float = 0.0  # the difference's own error, over the same norm: how far the loss is from smooth

    @property
    def conclusive(self) -> bool:
        """Whether the error says something of the gradient, not of a kink."""
        return self.crossed == 0 and not TRUSTED * self.uncertain > SEEN

    def within(self, limit: float) -> bool:
        """Whether the error is below the limit, or below what the differences themselves are off."""
        return self.error < max(limit, TRUSTED * self.uncertain)


def differences(
    network: Network, x: Tensor, targets: Tensor, loss: Loss, *, directions: int, seed: int
) -> list[Difference]:  # fmt: skip
    """Each parameter of a network in double precision, and its input; learned delays are left out.

    (A delay moves in whole steps, its gradient is an estimate by definition.)
    """
    x = x.detach().clone().requires_grad_()
    first, held = _run(network, x, targets, loss, None)
    subjects = {"input": x, **smooth_parameters(network)}
    gradients = torch.autograd.grad(first, list(subjects.values()), allow_unused=True, materialize_grads=True)
    pieces, middle = _pieces(held), first.item()
    generator = torch.Generator().manual_seed(seed)
    sizes = scales(dict(zip(subjects, gradients, strict=True)))
    found = []

    def run() -> tuple[Tensor, list[Steps]]:
        return _run(network, x, targets, loss, held)

    with torch.no_grad():
        pairs = list(zip(subjects.items(), gradients, strict=True))
        for (name, value), gradient in in_phase(pairs, "taking finite differences"):
            errors, unsure, crossed, size = [], [], 0, sizes[name]
            for _ in range(directions):
                way = torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
                wanted = float((gradient * way).sum())
                got, across, spread = _slope(value, way, run, pieces, middle=middle, size=size, wanted=wanted)
                away = abs(got - wanted)
                errors.append(away / (size or 1.0))
                unsure.append(spread / (size or 1.0))
                crossed += across
            found.append(Difference(name, largest(errors), crossed, largest(unsure)))
    return found


def scales(gradients: dict[str, Tensor], *, floor: float = FLOOR) -> dict[str, float]:
    """The norm that an error of each gradient is measured by: its own, or that fraction of its layer's if it is more.

    (A bias in front of a batch norm has no gradient but rounding.)
    """
    own = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    layer = {name: name.rpartition(".")[0] for name in own}
    return {
        name: max([size, *(floor * own[other] for other in own if layer[other] == layer[name])])
        for name, size in own.items()
    }


def largest(errors: Iterable[float]) -> float:
    """The largest error; NaN where one is, which `max` would pass over."""
    errors = list(errors)
    return math.nan if any(math.isnan(error) for error in errors) else max(errors, default=0.0)


def smooth_parameters(network: Network) -> dict[str, Tensor]:
    """The parameters in which the smoothed network is differentiable."""
    delays = [part for part in every_part(parts_of(network)) if part.role == "delay"]
    moved = {name for part in delays for name in network.parameters_of(part.path)}
    return {name: weight for name, weight in network.named_parameters() if name not in moved}


def _slope(
    value: Tensor, way: Tensor, run: Callable[[], tuple[Tensor, list[Steps]]], pieces: list[Tensor], *,
    middle: float, size: float, wanted: float,
) -> tuple[float, int, float]:  # fmt: skip
    """The derivative along `way`, the kinks of the surrogate crossed on the way to it, and how uncertain it is.

    Richardson's extrapolation of two central differences, over the widest reach that crosses no kink, is certain and
    finds what is `wanted`; else over the one of all that is most certain. The fourth difference of the five losses,
    next to zero of a smooth one, is what rounding and kinks that nobody counts leave.
    """
    start, found, rows = value.detach().clone(), [], []
    for reach in REACHES:
        losses, crossed = [], 0
        for step in (reach, -reach, reach / 2, -reach / 2):
            value.copy_(start + step * way)
            loss, steps = run()
            losses.append(loss.item())
            crossed += sum(int((a != b).sum()) for a, b in zip(_pieces(steps), pieces, strict=True))
        wide, narrow = (losses[0] - losses[1]) / (2 * reach), (losses[2] - losses[3]) / reach
        moved = (narrow - wide) / 3
        rough = abs(losses[0] + losses[1] - 4 * (losses[2] + losses[3]) + 6 * middle)
        rows.append((reach, crossed, rough, abs(moved) if abs(moved) > ENOUGH * size else 0.0, narrow + moved))
        known = max(rough, _rounding([middle, *losses])) / reach + rows[-1][3]
        if crossed == 0 and known <= SMOOTH * size and abs(narrow + moved - wanted) <= AGREED * size:
            value.copy_(start)
            return narrow + moved, crossed, known
    value.copy_(start)
    grain = _rounding([middle, *losses])
    for reach, crossed, _, moved, got in rows:  # rounding is as large at a narrower reach, where nothing else is left
        rough = max(rough for other, _, rough, _, _ in rows if other <= reach)
        found.append((crossed, max(rough, grain) / reach + moved, got))
    crossed, unsure, got = min(found, key=lambda row: row[:2])
    return got, crossed, unsure


def _rounding(losses: list[float]) -> float:
    """By how much losses are rounded at least: as single precision where all are numbers of it."""
    exact = torch.tensor(losses, dtype=torch.float64)
    return (2.0**-24 if torch.equal(exact.float().double(), exact) else 2.0**-50) * max(map(abs, losses))


def _run(
    network: Network, x: Tensor, targets: Tensor, loss: Loss, held: list[Steps] | None
) -> tuple[Tensor, list[Steps]]:
    with forked(x):  # the same dropout every time
        torch.manual_seed(0)
        out, layers = unroll(network, x, variant=Variant(smooth=True, held=held))
    return smooth_loss(loss, out, targets), layers


def _pieces(layers: list[Steps]) -> list[Tensor]:
    """Between which kinks each neuron was at each step, those of the surrogate and those of its own equation."""
    found = []
    for steps in layers:
        found += [piece(*each, steps.neurons.surrogate) for each in steps.by_threshold]
        found += [each.detach() for each in steps.conditions]
    return found
