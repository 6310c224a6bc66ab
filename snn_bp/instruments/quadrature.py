"""The area under a surrogate's shape, to rounding: Gauss-Legendre within panels that no kink divides.

Panels double in width away from 0, so that no tail is too long, and halve where a shape is not a polynomial yet.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels.reference import torch_slope
from snn_bp.surrogates import Surrogate

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(20)
OCTAVES = (-60, 130)  # panels reach from 2**-60 to 2**130, about as single precision does
AT_FIRST = 8  # panels of each octave
HALVINGS = 50  # the width of the narrowest panels, around a jump that nobody named
ENOUGH = 1e-15  # a fraction of the area up to there


def area(u: Tensor, surrogate: Surrogate) -> Tensor:
    """The integral of the surrogate's shape from 0 to `u`; `u` in the units in which it counts its slope."""
    edges, sums = (torch.from_numpy(each).to(u.device) for each in _panels(replace(surrogate, per="potential")))
    y = u.double().clamp(float(edges[0]), float(edges[-1]))
    above = torch.bucketize(y.detach(), edges).clamp(1, len(edges) - 1)
    inner = torch.where(y.detach() > 0, above - 1, above)  # the edge nearer 0, where y lies between two
    return (sums[inner] + _within(shape_of(surrogate), edges[inner], y)).to(u.dtype)


def shape_of(surrogate: Surrogate) -> Callable[[Tensor], Tensor]:
    """The surrogate's slope as a function of the distance from threshold, in the units in which it is counted."""
    slope_at = torch_slope(surrogate, per="potential")
    return lambda u: slope_at(u, torch.ones_like(u))


def _within(shape: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """The areas from `low` to `high`, between which the shape is smooth."""
    half, total = (high - low) / 2, torch.zeros_like(high)
    for point, weight in zip(POINTS.tolist(), WEIGHTS.tolist(), strict=True):
        total = total + weight * shape(low + half * (1 + point))
    return half * total


@functools.lru_cache(maxsize=64)
def _panels(surrogate: Surrogate) -> tuple[np.ndarray, np.ndarray]:
    """The edges of panels on which the rule is exact to rounding, and the areas from 0 to each of them."""
    shape = shape_of(surrogate)
    octaves = 2.0 ** np.arange(*OCTAVES)
    first = np.concatenate([octave * (1 + np.arange(AT_FIRST) / AT_FIRST) for octave in octaves])
    edges = np.unique(np.concatenate([[0.0], first, -first, surrogate.kinks]))
    finite = np.isfinite(shape(torch.from_numpy(edges)).numpy())
    zero = int(np.searchsorted(edges, 0.0))
    low = zero - int(np.argmin(np.append(finite[zero::-1], False))) + 1
    edges = edges[low : zero + int(np.argmin(np.append(finite[zero:], False)))]
    for _ in range(HALVINGS):
        middles = (edges[:-1] + edges[1:]) / 2
        left, middle, right = map(torch.from_numpy, (edges[:-1], middles, edges[1:]))
        halves = (_within(shape, left, middle) + _within(shape, middle, right)).numpy()
        wrong = np.abs(_within(shape, left, right).numpy() - halves)
        sizes = np.abs(_sums(edges, np.abs(halves)))
        rough = wrong > ENOUGH * len(POINTS) * np.maximum(np.maximum(sizes[:-1], sizes[1:]), np.finfo(float).tiny)
        if not rough.any():
            break
        edges = np.unique(np.concatenate([edges, middles[rough]]))
    left, right = map(torch.from_numpy, (edges[:-1], edges[1:]))
    return edges, _sums(edges, _within(shape, left, right).numpy())


def _sums(edges: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The areas from 0, which is one of the edges, to each of them."""
    zero = int(np.searchsorted(edges, 0.0))
    below, above = -np.cumsum(areas[:zero][::-1])[::-1], np.cumsum(areas[zero:])
    return np.concatenate([below, [0.0], above])
