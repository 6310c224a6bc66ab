"""A layer of neurons behind its batch norm in two passes: statistics first, then scale, shift and neurons at once.

Nothing but the input is kept for the backward pass, which computes the potentials again, a block of neurons at a time
so that they stay in cache. Neurons are `equations.py`, bound as in `cpu.py`: without a norm spikes equal the reference
bit for bit, with one up to the rounding of the normalised current.
"""

# pyright: reportUndefinedVariable=false

import functools
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp import equations
from snn_bp.kernels.bind import Constants, bind, slope_functions
from snn_bp.kernels.cpu import array, compiled, compiled_plain, inline, operations
from snn_bp.kernels.parallel import in_threads
from snn_bp.surrogates import Surrogate, Unit

BLOCK = 256  # neurons at a time: their potentials of 500 steps fit the second-level cache
# What a block of neurons holds beside its trace, in one array: LLVM sees that its rows do not overlap, and vectorises.
OWN = 18
ROWS = tuple(np.uint64(row * BLOCK) for row in range(OWN))
V, S, CUR, A, SCALE, SHIFT, COUNT, S_FIRST, SHARE, GV, GS, GI, GA, ALPHA, BETA, RHO, KAPPA, THETA = ROWS
TOTAL, WEIGHTED = V, COUNT  # rows that the adjoint has no other use for


class Norm(NamedTuple):
    """A batch norm over `weight.numel()` channels in training."""

    weight: Tensor
    bias: Tensor
    eps: float


class Ran(NamedTuple):
    """What a layer did."""

    out: Tensor  # spikes, or potentials of a neuron that does not spike, shaped and laid out as the input
    means: Tensor  # their mean over time and batch
    last: tuple[Tensor, ...]  # i, a, v, s
    mean: Tensor | None  # of the input, of each channel
    variance: Tensor | None


def run_layer(
    z: Tensor, norm: Norm | None, channel_axis: int, state: tuple[Tensor, ...] | None,
    parameters: tuple[Tensor, ...], constants: Constants, surrogate: Surrogate,
) -> Ran:  # fmt: skip
    """Neurons under the weighted sums `z` `[time, batch, ...]`, contiguous, normalised first where there is a norm.

    `channel_axis` names the axis of `z` that the norm does not average over. `state` and `parameters` are shaped as one
    step of `z`, the parameters also as scalars. Gradients flow to `z`, norm, state and parameters, and from all but the
    statistics.
    """
    weight, bias, eps = norm or (None, None, 0.0)
    learns = torch.is_grad_enabled() and any(value.requires_grad for value in parameters)
    options = (constants, surrogate, channel_axis, eps, learns)
    out, means, i, a, v, s, mean, variance = _Layer.apply(
        options, z, weight, bias, *(state or (None,) * 4), *parameters
    )  # type: ignore[misc]
    return Ran(out, means, (i, a, v, s), *((mean, variance) if norm else (None, None)))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, z: Tensor, weight: Tensor | None, bias: Tensor | None, *tensors: Tensor | None):
        constants, _, axis, eps, _ = options
        x = array(z).reshape(len(z), -1)
        (steps, size), dtype, one = x.shape, x.dtype, z.shape[1:]
        mean = variance = scale = None
        affine = [np.ones(size, dtype), np.zeros(size, dtype)]
        if weight is not None and bias is not None:
            mean, variance = statistics(x, one, axis)
            scale = array(weight) / np.sqrt(variance + eps)
            affine = [over_neurons(part, one, axis, dtype) for part in (scale, array(bias) - mean * scale)]
        first = [
            np.zeros(size if need else 0, dtype) if part is None else array(part).reshape(-1)[: size if need else 0]
            for part, need in zip(tensors[:4], parts_of(constants), strict=True)
        ]
        given = [array(value).reshape(-1) for value in tensors[4:] if value is not None]
        last, out, counts = [part.copy() for part in first], np.empty_like(x), np.zeros(size, dtype)
        kernel = compiled_forward(constants, dtype, uniform=len(given[0]) == 1)
        over_blocks(size, partial(kernel, x, *affine, *last, *given, out, counts))
        ctx.options, ctx.shape, ctx.saved = options, z.shape, (x, affine, first, given, (mean, variance, scale))
        ctx.set_materialize_grads(False)
        measured = [
            z.new_empty(0) if part is None else torch.from_numpy(part.astype(dtype)) for part in (mean, variance)
        ]
        ctx.mark_non_differentiable(*measured)
        return (
            torch.from_numpy(out).view(z.shape),
            torch.from_numpy(counts.reshape(one).sum(0) / dtype.type(steps * one[0])),
            *(torch.from_numpy(part).view(one) if len(part) else z.new_empty(0) for part in last),
            *measured,
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g_out, g_means, *others):
        constants, surrogate, axis, eps, learns = ctx.options
        x, affine, first, given, (mean, variance, scale) = ctx.saved
        (steps, size), dtype, one = x.shape, x.dtype, ctx.shape[1:]
        g_spikes = np.zeros((1, size), dtype) if g_out is None else array(g_out).reshape(steps, size)
        share = (
            np.zeros(size, dtype) if g_means is None else array((g_means / (steps * one[0])).expand(one)).reshape(-1)
        )
        carried = [
            np.zeros(size if need else 0, dtype) if g is None else array(g).reshape(-1).copy()
            for g, need in zip(others[:4], parts_of(constants), strict=True)
        ]
        gz, totals = np.empty_like(x), [np.zeros(size, dtype) for _ in range(2)]
        learned = [np.zeros(size if learns else 0, dtype) for _ in range(5)]
        kernel = compiled_backward(
            constants, surrogate.shape, surrogate.per, dtype, uniform=len(given[0]) == 1, LEARNS=learns,
            GIVEN=g_out is not None,
            SAVES_CURRENT=(constants.current and learns) or (constants.reset == "zero_all" and not constants.detach),
        )  # fmt: skip
        slope = dtype.type(surrogate.slope)
        arrays = (x, *affine, *first, *given, slope, g_spikes, share, *carried, gz, *totals, *learned)
        over_blocks(size, partial(kernel, *arrays))
        g_weight = g_bias = None
        if mean is not None:
            total, weighted = (over_channels(part, one, axis) for part in totals)
            inverse, count = 1 / np.sqrt(variance + eps), steps * size // len(mean)
            g_weight = inverse * (weighted - mean * total)
            rise = -scale * inverse * g_weight / count
            fixes = [over_neurons(part, one, axis, dtype) for part in (rise, -scale * total / count - rise * mean)]
            over_blocks(size, partial(compiled_plain(correct), gz, x, *fixes))
            g_weight, g_bias = (torch.from_numpy(part.astype(dtype)) for part in (g_weight, total))
        states = [torch.from_numpy(part).view(one) if len(part) else None for part in carried]
        parameters = [
            torch.from_numpy(part).view(one) if len(given[0]) > 1 else torch.from_numpy(part).sum() for part in learned
        ] if learns else [None] * 5  # fmt: skip
        gradients = (None, torch.from_numpy(gz).view(ctx.shape), g_weight, g_bias, *states, *parameters)
        return tuple(g if need else None for g, need in zip(gradients, ctx.needs_input_grad, strict=True))


def forward(x, scale, shift, i, a, v, s, alpha, beta, rho, kappa, theta, out, counts, low, high):
    """Neurons `low..high` through all steps; `i, a, v, s` hold the state, in and out, where the neuron has the part."""
    own = np.zeros(OWN * BLOCK, x.dtype)
    for first in range(low, high, BLOCK):
        origin, width = np.uint64(first), np.uint64(min(high, first + BLOCK) - first)
        for k in range(width):
            m = origin + k
            own[ALPHA + k], own[BETA + k], own[RHO + k] = of(alpha, m), of(beta, m), of(rho, m)
            own[KAPPA + k], own[THETA + k] = of(kappa, m), of(theta, m)
            own[V + k], own[COUNT + k] = v[origin + k], 0
            own[SCALE + k], own[SHIFT + k] = scale[origin + k], shift[origin + k]
            if CURRENT:
                own[CUR + k] = i[origin + k]
            if ADAPTS:
                own[A + k] = a[origin + k]
            if SPIKING:
                own[S + k] = s[origin + k]
        for t in range(x.shape[0]):
            for k in range(width):
                m = origin + k
                i1, a1, v1, s1 = advance(
                    own[CUR + k], own[A + k], own[V + k], own[S + k], x[t, m] * own[SCALE + k] + own[SHIFT + k],
                    own[ALPHA + k], own[BETA + k], own[RHO + k], own[KAPPA + k], own[THETA + k],
                )  # fmt: skip
                own[V + k] = v1
                if CURRENT:
                    own[CUR + k] = i1
                if ADAPTS:
                    own[A + k] = a1
                if SPIKING:
                    own[S + k] = s1
                out[t, m] = s1 if SPIKING else v1
                own[COUNT + k] += s1 if SPIKING else v1
        for k in range(width):
            v[origin + k], counts[origin + k] = own[V + k], own[COUNT + k]
            if CURRENT:
                i[origin + k] = own[CUR + k]
            if ADAPTS:
                a[origin + k] = own[A + k]
            if SPIKING:
                s[origin + k] = own[S + k]


def backward(
    x, scale, shift, i, a, v, s, alpha, beta, rho, kappa, theta, slope, g_out, share, gi, ga, gv, gs,
    gx, total, weighted, g_alpha, g_beta, g_rho, g_kappa, g_theta, low, high,
):  # fmt: skip
    """The adjoint of `forward`: `gi, ga, gv, gs` hold the gradient of the last state in, of the first state out.

    `gx` becomes the gradient of the scaled input times `scale`; `total` and `weighted` sum the gradient of the scaled
    input, and its product with the input, over time.
    """
    steps = x.shape[0]
    own = np.zeros(OWN * BLOCK, x.dtype)
    vs = np.empty((steps + 1, BLOCK), x.dtype)  # as one row LLVM does not vectorise the adjoint
    adapted = np.empty((steps + 1 if ADAPTS else 0, BLOCK), x.dtype)
    currents = np.empty((steps + 1 if SAVES_CURRENT else 0, BLOCK), x.dtype)
    for first in range(low, high, BLOCK):
        origin, width = np.uint64(first), np.uint64(min(high, first + BLOCK) - first)
        for k in range(width):
            m = origin + k
            vs[0, k] = v[m]
            own[ALPHA + k], own[BETA + k], own[RHO + k] = of(alpha, m), of(beta, m), of(rho, m)
            own[KAPPA + k], own[THETA + k] = of(kappa, m), of(theta, m)
            own[SCALE + k], own[SHIFT + k], own[SHARE + k], own[GV + k] = scale[m], shift[m], share[m], gv[m]
            own[TOTAL + k], own[WEIGHTED + k] = 0, 0
            if SPIKING:
                own[S + k], own[S_FIRST + k], own[GS + k] = s[m], s[m], gs[m]
            if CURRENT:
                own[CUR + k], own[GI + k] = i[m], gi[m]
            if ADAPTS:
                adapted[0, k], own[GA + k] = a[m], ga[m]
            if SAVES_CURRENT:
                currents[0, k] = own[CUR + k]
        for t in range(steps):
            for k in range(width):
                m = origin + k
                i1, a1, v1, s1 = advance(
                    own[CUR + k], adapted[t, k] if ADAPTS else real(0), vs[t, k], own[S + k],
                    x[t, m] * own[SCALE + k] + own[SHIFT + k],
                    own[ALPHA + k], own[BETA + k], own[RHO + k], own[KAPPA + k], own[THETA + k],
                )  # fmt: skip
                vs[t + 1, k] = v1
                if SPIKING:
                    own[S + k] = s1
                if CURRENT:
                    own[CUR + k] = i1
                if ADAPTS:
                    adapted[t + 1, k] = a1
                if SAVES_CURRENT:
                    currents[t + 1, k] = i1
        for t in range(steps - 1, -1, -1):
            for k in range(width):
                m = origin + k
                v0 = vs[t, k]
                a0 = adapted[t, k] if ADAPTS else v0
                g = g_out[t, m] + own[SHARE + k] if GIVEN else own[SHARE + k]
                s0 = own[S_FIRST + k]
                if SPIKING:
                    level = v0 - own[THETA + k] - own[KAPPA + k] * a0 if ADAPTS else v0 - own[THETA + k]
                    s0 = s0 if t == 0 else heaviside(level, own[THETA + k])
                di, da, dv, ds, dx, d_alpha, d_beta, d_rho, d_kappa, d_theta = advance_vjp(
                    own[GI + k], own[GA + k],
                    own[GV + k] if SPIKING else own[GV + k] + g, own[GS + k] + g if SPIKING else real(0),
                    currents[t, k] if SAVES_CURRENT else v0, a0, v0, s0,
                    currents[t + 1, k] if SAVES_CURRENT else v0,
                    adapted[t + 1, k] if ADAPTS else v0, vs[t + 1, k],
                    own[ALPHA + k], own[BETA + k], own[RHO + k], own[KAPPA + k], own[THETA + k], slope,
                )  # fmt: skip
                gx[t, m] = dx * own[SCALE + k]
                own[TOTAL + k] += dx
                own[WEIGHTED + k] += dx * x[t, m]
                own[GV + k] = dv
                if SPIKING:
                    own[GS + k] = ds
                if CURRENT:
                    own[GI + k] = di
                if ADAPTS:
                    own[GA + k] = da
                if LEARNS:
                    g_alpha[m] += d_alpha
                    g_beta[m] += d_beta
                    g_rho[m] += d_rho
                    g_kappa[m] += d_kappa
                    g_theta[m] += d_theta
        for k in range(width):
            m = origin + k
            gv[m], total[m], weighted[m] = own[GV + k], own[TOTAL + k], own[WEIGHTED + k]
            if SPIKING:
                gs[m] = own[GS + k]
            if CURRENT:
                gi[m] = own[GI + k]
            if ADAPTS:
                ga[m] = own[GA + k]


def correct(gx, x, rise, offset, low, high):
    """What the statistics of a norm add to the gradient of its input, a linear function of the input."""
    for t in range(x.shape[0]):
        for m in range(np.uint64(low), np.uint64(high)):
            gx[t, m] += rise[m] * x[t, m] + offset[m]


def sums(x, total, squares, low, high):
    """Sums over time of each input and of its square, in double precision."""
    for t in range(x.shape[0]):
        for m in range(np.uint64(low), np.uint64(high)):
            value = np.float64(x[t, m])
            total[m] += value
            squares[m] += value * value


@functools.cache
def compiled_forward(constants: Constants, dtype: np.dtype, *, uniform: bool) -> Callable:
    """`forward` for one kind of neuron and one float type, compiled at its first call."""
    names = operations(constants, dtype, uniform)
    names["advance"] = inline(bind(equations.advance, **names))
    return compiled(bind(forward, **names), ("layer", constants, dtype.str, uniform))


@functools.cache
def compiled_backward(
    constants: Constants, shape: str, per: Unit, dtype: np.dtype, *, uniform: bool, **flags: bool
) -> Callable:
    """`backward` for one kind of neuron, one shape of surrogate and one float type, compiled at its first call."""
    names = {**operations(constants, dtype, uniform), **flags}
    equation, unit = slope_functions(shape, per)
    names["slope_at"] = inline(bind(unit, shape=inline(bind(equation, **names))))
    names["advance"] = inline(bind(equations.advance, **names))
    names["advance_vjp"] = inline(bind(equations.advance_vjp, **names))
    return compiled(bind(backward, **names), ("layer", constants, shape, per, dtype.str, uniform, flags))


def statistics(x: np.ndarray, one: torch.Size, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel, in double precision."""
    total, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    over_blocks(x.shape[1], partial(compiled_plain(sums), x, total, squares))
    mean, square = (over_channels(part, one, axis) for part in (total, squares))
    count = x.size // len(mean)
    return mean / count, np.maximum(square / count - (mean / count) ** 2, 0)


def over_channels(values: np.ndarray, one: torch.Size, axis: int) -> np.ndarray:
    """Sums over all neurons of a channel."""
    others = tuple(k for k in range(len(one)) if k != axis - 1)
    return values.reshape(one).sum(others, dtype=np.float64)


def over_neurons(values: np.ndarray, one: torch.Size, axis: int, dtype: np.dtype) -> np.ndarray:
    """The value of its channel for each neuron."""
    shape = [1] * len(one)
    shape[axis - 1] = -1
    return np.broadcast_to(values.astype(dtype).reshape(shape), tuple(one)).ravel()


def over_blocks(size: int, task: Callable[[int, int], None]) -> None:
    """Do the task for neurons `low..high`, all blocks shared among the threads; no result depends on how."""
    blocks = -(-size // BLOCK)
    count = min(max(1, size // 4096), 16)
    edges = [min(size, BLOCK * (blocks * n // count)) for n in range(count + 1)]
    in_threads([partial(task, low, high) for low, high in pairwise(edges) if low < high])


def parts_of(constants: Constants) -> tuple[bool, bool, bool, bool]:
    """Whether the neuron has the parts i, a, v, s."""
    return constants.current, constants.adapts, True, constants.spiking
