"""The smooth spike: the integral of each surrogate shape, so that forward and backward pass belong together.

A surrogate is the derivative of some smooth function S in place of the step. With S itself as the spike, the gradient
that the surrogate computes is exact, and finite differences can check it (Neftci et al. 2019; Gygax & Zenke 2025).
S(0) = 1/2. S goes from 0 to 1 where the area under the shape is 1; it does not for `FastSigmoid` (area 2 / slope),
`MultiGaussian` (0.85) and `StraightThrough` (a line without end).
"""

import functools
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from snn_bp.errors import SnnError, shown
from snn_bp.instruments.quadrature import area, shape_of
from snn_bp.kernels.reference import torch_slope
from snn_bp.surrogates import Surrogate
from snn_bp.surrogates.making import OwnSurrogate

BESIDE = 1e-7  # so close to a kink, in units of 1 / slope, its two sides are looked at
JUMP = 1e-4  # a fraction of the value there that counts as a jump; FAINT is a fraction of the height
FAINT = 1e-6
AGREES = 1e-8  # a given integral with the area


class SmoothSpike(torch.autograd.Function):
    """S of the distance from threshold; backward by the surrogate's slope in `equations.py`.

    The surrogate scales with the threshold: that scale counts as a constant, as it does in training.
    """

    @staticmethod
    def forward(ctx, u: Tensor, theta: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(u, theta)
        ctx.surrogate = surrogate
        return smooth_spike(u, theta, surrogate)

    @staticmethod
    def backward(ctx, grad: Tensor):
        u, theta = ctx.saved_tensors
        return grad * torch_slope(ctx.surrogate)(u, theta), None, None


def smooth_spike(u: Tensor, theta: Tensor, surrogate: Surrogate) -> Tensor:
    """S at the distance `u` from threshold `theta`."""
    return 0.5 + integral(u / theta if surrogate.per == "threshold" else u, surrogate)


def integral(u: Tensor, surrogate: Surrogate) -> Tensor:
    """The shape's integral from 0 to `u`."""
    if isinstance(surrogate, OwnSurrogate):
        return area(u, surrogate) if type(surrogate).kind.integral is None else _integral_of(u, surrogate)
    y = surrogate.slope * u
    match surrogate.shape:
        case "FastSigmoid":
            return u / (1 + y.abs())
        case "ATan":
            return torch.atan(math.pi / 2 * y) / math.pi
        case "Sigmoid":
            return 0.5 * torch.tanh(y / 2)
        case "Triangular":
            inside = y.clamp(-1, 1)
            return inside - 0.5 * inside * inside.abs()
        case "Boxcar":
            return 0.5 * y.clamp(-1, 1)
        case "StraightThrough":
            return u
        case "Exponential":
            return -0.5 * y.sign() * torch.expm1(-y.abs())
        case "Gaussian":
            return _normal(y)
        case "MultiGaussian":
            return 1.15 * _normal(y) - 0.15 * (_normal((y + 1) / 6) + _normal((y - 1) / 6))
    raise AssertionError(f"{surrogate.shape}: no integral")


def piece(u: Tensor, theta: Tensor, surrogate: Surrogate) -> Tensor:
    """Between which kinks of S each `u` lies; S is smooth as long as this does not change."""
    u = u / theta if surrogate.per == "threshold" else u
    kinks, _ = kinks_and_edges(surrogate)
    return torch.bucketize(u.detach(), torch.tensor(kinks, dtype=u.dtype, device=u.device))


def at_edges(u: Tensor, theta: Tensor, surrogate: Surrogate, *, rounding: float) -> int:
    """How many `u` lie on a jump of the surrogate, as far as `rounding` of the largest potential can say."""
    unit = theta if surrogate.per == "threshold" else torch.ones_like(theta)
    reach = rounding * float((u + theta).abs().max())
    _, edges = kinks_and_edges(surrogate) if math.isfinite(surrogate.slope) else ((), ())
    return sum(int(((u - edge * unit).abs() <= reach).sum()) for edge in edges)


@functools.lru_cache(maxsize=256)
def kinks_and_edges(surrogate: Surrogate) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The distances from threshold at which a derivative of S jumps, and those of them where the shape itself does."""
    width, kinks, edges = 1 / surrogate.slope, [], []
    height = float(shape_of(surrogate)(torch.tensor([surrogate.peak], dtype=torch.float64)))
    for at in surrogate.kinks:
        beside = BESIDE * max(abs(at), width)
        sides = _derivatives(shape_of(surrogate), torch.tensor([at - beside, at + beside], dtype=torch.float64))
        jumps = [
            abs(float(each[1] - each[0] - beside * after.sum())) * width**order
            > JUMP * max(float(each.abs().max()) * width**order, FAINT * height)
            for order, (each, after) in enumerate(pairwise(sides))
        ]
        kinks += [at] * any(jumps)
        edges += [at] * jumps[0]
    return tuple(kinks), tuple(edges)


def _derivatives(shape: Callable[[Tensor], Tensor], u: Tensor) -> list[Tensor]:
    """The shape at `u`, and its first three derivatives."""
    u.requires_grad_()
    found = [shape(u)]
    for _ in range(3):
        grad = torch.autograd.grad
        last = found[-1].sum()
        found.append(grad(last, u, create_graph=True, materialize_grads=True)[0] if last.requires_grad else 0 * u)
    return [each.detach() for each in found]


def _integral_of(u: Tensor, surrogate: OwnSurrogate) -> Tensor:
    """By the integral that stands above an own surrogate."""
    _check_given(surrogate)
    return _difference(u, surrogate)


def _difference(u: Tensor, surrogate: OwnSurrogate) -> Tensor:
    given: Any = type(surrogate).kind.integral
    found = given(u, **surrogate.parameters)
    if not isinstance(found, Tensor) or found.shape != u.shape:
        found = f"{list(found.shape)}" if isinstance(found, Tensor) else shown(found)
        raise SnnError(
            f"{surrogate!r}: its integral= gives {found} for a tensor {list(u.shape)}. It should give a tensor like it."
        )
    return (found - given(torch.zeros_like(u), **surrogate.parameters)).to(u.dtype)


@functools.lru_cache(maxsize=256)
def _check_given(surrogate: OwnSurrogate) -> None:
    """Raise where the integral is that of another shape."""
    u = torch.linspace(-4, 4, 33, dtype=torch.float64) / surrogate.slope
    got, wanted = _difference(u, surrogate), area(u, surrogate)
    off = (got - wanted).abs()
    if not bool((off <= AGREES * wanted.abs().max()).all()):
        at = int(off.nan_to_num(torch.inf).argmax())
        raise SnnError(
            f"{surrogate!r}: its integral= is that of another shape: from 0 to {float(u[at]):g} it grows by "
            f"{float(got[at]):.6g}, the area is {float(wanted[at]):.6g}. Leave it out: quadrature finds it."
        )


def _normal(y: Tensor) -> Tensor:
    """The normal distribution function less 1/2."""
    return 0.5 * torch.erf(y / math.sqrt(2))
