"""The smooth spike: the integral of each surrogate shape, so that forward and backward pass belong together.

A surrogate is the derivative of some smooth function S in place of the step. With S itself as the spike, the gradient
that the surrogate computes is exact, and finite differences can check it (Neftci et al. 2019; Gygax & Zenke 2025).
S(0) = 1/2. S goes from 0 to 1 where the area under the shape is 1; it does not for `FastSigmoid` (area 2 / slope),
`MultiGaussian` (0.85) and `StraightThrough` (a line without end).
"""

import math

import torch
from torch import Tensor

from snn_bp.kernels.reference import torch_slope
from snn_bp.surrogates import Surrogate

# by shape, in units of 1 / slope: where a derivative of S jumps, so that differences across are not exact
KINKS = {"Triangular": (-1.0, 0.0, 1.0), "Boxcar": (-1.0, 1.0), "FastSigmoid": (0.0,), "Exponential": (0.0,)}
EDGES = {"Boxcar": (-1.0, 1.0)}  # likewise, where the shape itself jumps


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
    """The shape's integral from 0 to `u`, odd in `u`."""
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
    y = surrogate.slope * (u / theta if surrogate.per == "threshold" else u)
    kinks = torch.tensor(KINKS.get(surrogate.shape, ()), dtype=y.dtype, device=y.device)
    return torch.bucketize(y.detach(), kinks)


def at_edges(u: Tensor, theta: Tensor, surrogate: Surrogate, *, rounding: float) -> int:
    """How many `u` lie on a jump of the surrogate, as far as `rounding` of the largest potential can say."""
    unit = (theta if surrogate.per == "threshold" else torch.ones_like(theta)) / surrogate.slope
    reach = rounding * float((u + theta).abs().max())
    return sum(int(((u - edge * unit).abs() <= reach).sum()) for edge in EDGES.get(surrogate.shape, ()))


def _normal(y: Tensor) -> Tensor:
    """The normal distribution function less 1/2."""
    return 0.5 * torch.erf(y / math.sqrt(2))
