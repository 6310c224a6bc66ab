"""A layer of neurons behind its batch norm in two passes: statistics first, then scale, shift and neurons at once.

Nothing but the input is kept for the backward pass, which computes the potentials again, a block of neurons at a time
so that they stay in cache. Neurons are `equations.py`, bound as in `cpu.py`: without a norm spikes equal the reference
bit for bit, with one up to the rounding of the normalised current.
"""

# pyright: reportUndefinedVariable=false

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp import equations
from snn_bp.kernels.around import first_derivatives
from snn_bp.kernels.bind import Constants, bind
from snn_bp.kernels.cpu.aligned import cleared
from snn_bp.kernels.cpu.llvm import inner
from snn_bp.kernels.cpu.neuron import (
    adjoint_operations,
    array,
    compiled,
    compiled_plain,
    flat_or_scalar,
    inline,
    operations,
)
from snn_bp.kernels.cpu.threads import cut, in_threads
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

    `channel_axis` names the axis of `z` that the norm does not average over. `state` is shaped as one step of `z`,
    `parameters` as one sample or as scalars. Gradients flow to `z`, norm, state and parameters, and from all but the
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
        (steps, size), dtype, sample = x.shape, x.dtype, z.shape[2:]
        neurons = sample.numel()
        parts = share(steps, z.shape[1], neurons)
        mean = variance = scale = None
        affine = [np.ones(neurons, dtype), np.zeros(neurons, dtype)]
        if weight is not None and bias is not None:
            mean, variance = statistics(x, sample, axis, parts)
            scale = array(weight) / np.sqrt(variance + eps)
            affine = [over_neurons(part, sample, axis, dtype) for part in (scale, array(bias) - mean * scale)]
        first = [np.empty(0, dtype) if part is None else array(part).reshape(-1) for part in tensors[:4]]
        given = [flat_or_scalar(value) for value in tensors[4:] if value is not None]
        out = np.empty_like(x)
        last = [np.empty(size if need else 0, dtype) for need in parts_of(constants)]
        counts = np.zeros((len(parts), neurons), dtype)
        kernel = compiled_forward(constants, dtype, uniform=given[0].ndim == 0)
        arrays = (x, *affine, *first, *given, out, *last)
        in_threads([partial(kernel, *arrays, counts[n], neurons, *part) for n, part in enumerate(parts)])
        ctx.options, ctx.shape, ctx.saved = options, z.shape, (affine, (mean, variance, scale))
        ctx.save_for_backward(z, *tensors)  # torch notices where one is written to before it is read again
        ctx.set_materialize_grads(False)
        measured = [
            z.new_empty(0) if part is None else torch.from_numpy(part.astype(dtype)) for part in (mean, variance)
        ]
        ctx.mark_non_differentiable(*measured)
        return (
            torch.from_numpy(out).view(z.shape),
            torch.from_numpy(counts.sum(0) / dtype.type(steps * z.shape[1])).view(sample),
            *(torch.from_numpy(part).view(z.shape[1:]) if len(part) else z.new_empty(0) for part in last),
            *measured,
        )

    @staticmethod
    @first_derivatives("neurons")
    def backward(ctx, g_out, g_means, *others):
        constants, surrogate, axis, eps, learns = ctx.options
        (affine, (mean, variance, scale)), (z, *tensors) = ctx.saved, ctx.saved_tensors
        x = array(z).reshape(len(z), -1)
        first = [np.empty(0, x.dtype) if part is None else array(part).reshape(-1) for part in tensors[:4]]
        given = [flat_or_scalar(value) for value in tensors[4:] if value is not None]
        (steps, size), dtype, batch, sample = x.shape, x.dtype, ctx.shape[1], ctx.shape[2:]
        neurons = sample.numel()
        parts = share(steps, batch, neurons)
        g_spikes = np.empty((0, 0), dtype) if g_out is None else array(g_out).reshape(steps, size)
        g_rate = np.zeros(neurons, dtype) if g_means is None else array(g_means / (steps * batch)).reshape(-1)
        carried = [
            np.zeros(part.size if need else 0, dtype) if g is None else array(g).reshape(-1).copy()
            for g, part, need in zip(others[:4], first, ctx.needs_input_grad[4:8], strict=True)
        ]
        gz, sums = np.empty_like(x), np.zeros((len(parts), 7 if learns else 2, neurons), dtype)
        kernel = compiled_backward(
            constants, surrogate.shape, surrogate.per, dtype, uniform=given[0].ndim == 0, LEARNS=learns,
            GIVEN=g_out is not None,
            SAVES_CURRENT=(constants.current and learns) or (constants.reset == "zero_all" and not constants.detach),
        )  # fmt: skip
        arrays = (x, *affine, *first, *given, dtype.type(surrogate.slope), g_spikes, g_rate, *carried, gz)
        in_threads([partial(kernel, *arrays, sums[n], neurons, *part) for n, part in enumerate(parts)])
        total, weighted, *learned = sums.sum(0)
        g_weight = g_bias = None
        if mean is not None:
            total, weighted = (over_channels(part, sample, axis) for part in (total, weighted))
            inverse, count = 1 / np.sqrt(variance + eps), x.size // len(mean)
            g_weight = inverse * (weighted - mean * total)
            rise = -scale * inverse * g_weight / count
            fixes = [over_neurons(part, sample, axis, dtype) for part in (rise, -scale * total / count - rise * mean)]
            in_threads([partial(compiled_plain(correct), gz, x, *fixes, neurons, *part) for part in parts])
            g_weight, g_bias = (torch.from_numpy(part.astype(dtype)) for part in (g_weight, total))
        states = [torch.from_numpy(part).view(ctx.shape[1:]) if len(part) else None for part in carried]
        parameters = [
            torch.from_numpy(part).view(sample) if given[0].ndim else torch.from_numpy(part).sum() for part in learned
        ] or [None] * 5  # fmt: skip
        gradients = (None, torch.from_numpy(gz).view(ctx.shape), g_weight, g_bias, *states, *parameters)
        return tuple(g if need else None for g, need in zip(gradients, ctx.needs_input_grad, strict=True))


def forward(
    x, scale, shift, i, a, v, s, alpha, beta, rho, kappa, theta, out, i_last, a_last, v_last, s_last, counts,
    neurons, low, high,
):  # fmt: skip
    """Samples `low..high` through all steps, from the state `i, a, v, s`; parts of it that are empty are at rest."""
    own = cleared(OWN * BLOCK, x)
    for b in range(low, high):
        for first in range(0, neurons, BLOCK):
            n, m = np.uint64(first), np.uint64(b * neurons + first)
            width = np.uint64(min(BLOCK, neurons - first))
            load_parameters(own, alpha, beta, rho, kappa, theta, n, width)
            load(own, SCALE, scale, n, width)
            load(own, SHIFT, shift, n, width)
            load(own, CUR, i, m, width)
            load(own, A, a, m, width)
            load(own, V, v, m, width)
            load(own, S, s, m, width)
            load(own, COUNT, counts, n, width)
            for t in range(x.shape[0]):
                x_row, out_row = x[t], out[t]  # as x[t, k] LLVM does not vectorise the loop
                for k in range(width):
                    i1, a1, v1, s1 = advance(
                        own[CUR + k], own[A + k], own[V + k], own[S + k],
                        x_row[m + k] * own[SCALE + k] + own[SHIFT + k],
                        own[ALPHA + k], own[BETA + k], own[RHO + k], own[KAPPA + k], own[THETA + k],
                    )  # fmt: skip
                    own[V + k] = v1
                    if CURRENT:
                        own[CUR + k] = i1
                    if ADAPTS:
                        own[A + k] = a1
                    if SPIKING:
                        own[S + k] = s1
                    out_row[m + k] = s1 if SPIKING else v1
                    own[COUNT + k] += s1 if SPIKING else v1
            store(counts, n, own, COUNT, width)
            store(i_last, m, own, CUR, width)
            store(a_last, m, own, A, width)
            store(v_last, m, own, V, width)
            store(s_last, m, own, S, width)


def backward(
    x, scale, shift, i, a, v, s, alpha, beta, rho, kappa, theta, slope, g_out, g_rate, gi, ga, gv, gs,
    gx, sums, neurons, low, high,
):  # fmt: skip
    """The adjoint of `forward`: `gi, ga, gv, gs` hold the gradient of the last state in, of the first state out.

    `gx` becomes the gradient of the scaled input times `scale`. To the rows of `sums` are added: the gradient of the
    scaled input, its product with the input, and with `LEARNS` the gradients of the parameters.
    """
    steps = x.shape[0]
    own = cleared(OWN * BLOCK, x)
    vs = np.empty((steps + 1, BLOCK), x.dtype)  # as one row LLVM does not vectorise the adjoint
    adapted = np.empty((steps + 1 if ADAPTS else 0, BLOCK), x.dtype)
    currents = np.empty((steps + 1 if SAVES_CURRENT else 0, BLOCK), x.dtype)
    for b in range(low, high):
        for first in range(0, neurons, BLOCK):
            n, m = np.uint64(first), np.uint64(b * neurons + first)
            width = np.uint64(min(BLOCK, neurons - first))
            load_parameters(own, alpha, beta, rho, kappa, theta, n, width)
            load(own, SCALE, scale, n, width)
            load(own, SHIFT, shift, n, width)
            load(own, SHARE, g_rate, n, width)
            load(own, CUR, i, m, width)
            load(own, A, a, m, width)
            load(own, S, s, m, width)
            load(own, S_FIRST, s, m, width)
            load(own, V, v, m, width)
            load(own, GI, gi, m, width)
            load(own, GA, ga, m, width)
            load(own, GV, gv, m, width)
            load(own, GS, gs, m, width)
            for k in range(width):
                vs[0, k] = own[V + k]
                if ADAPTS:
                    adapted[0, k] = own[A + k]
                if SAVES_CURRENT:
                    currents[0, k] = own[CUR + k]
            for t in range(steps):
                x_row = x[t]  # as x[t, k] LLVM does not vectorise the loop
                for k in range(width):
                    i1, a1, v1, s1 = advance(
                        own[CUR + k], adapted[t, k] if ADAPTS else real(0), vs[t, k], own[S + k],
                        x_row[m + k] * own[SCALE + k] + own[SHIFT + k],
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
            load(own, TOTAL, sums[0], n, width)
            load(own, WEIGHTED, sums[1], n, width)
            for t in range(steps - 1, -1, -1):
                x_row, g_row, gx_row = x[t], g_out[t] if GIVEN else x[t], gx[t]
                for k in range(width):
                    v0 = vs[t, k]
                    a0 = adapted[t, k] if ADAPTS else v0
                    g = g_row[m + k] + own[SHARE + k] if GIVEN else own[SHARE + k]
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
                    gx_row[m + k] = dx * own[SCALE + k]
                    own[TOTAL + k] += dx
                    own[WEIGHTED + k] += dx * x_row[m + k]
                    own[GV + k] = dv
                    if SPIKING:
                        own[GS + k] = ds
                    if CURRENT:
                        own[GI + k] = di
                    if ADAPTS:
                        own[GA + k] = da
                    if LEARNS:
                        sums[2, n + k] += d_alpha
                        sums[3, n + k] += d_beta
                        sums[4, n + k] += d_rho
                        sums[5, n + k] += d_kappa
                        sums[6, n + k] += d_theta
            store(sums[0], n, own, TOTAL, width)
            store(sums[1], n, own, WEIGHTED, width)
            store(gi, m, own, GI, width)
            store(ga, m, own, GA, width)
            store(gv, m, own, GV, width)
            store(gs, m, own, GS, width)


def load_parameters(own, alpha, beta, rho, kappa, theta, n, width):
    """The coefficients of a block of neurons."""
    for k in range(width):
        own[ALPHA + k] = of(alpha, n + k)
        own[BETA + k] = of(beta, n + k)
        own[RHO + k] = of(rho, n + k)
        own[KAPPA + k] = of(kappa, n + k)
        own[THETA + k] = of(theta, n + k)


@inner
def load(own, row, values, at, width):
    """`width` values into a row of `own`; zeros where there are none."""
    if values.size == 0:
        for k in range(width):
            own[row + k] = 0
        return
    for k in range(width):
        own[row + k] = values[at + k]


@inner
def store(values, at, own, row, width):
    """The way back, where there is room."""
    if values.size > 0:
        for k in range(width):
            values[at + k] = own[row + k]


def correct(gx, x, rise, offset, neurons, low, high):
    """What the statistics of a norm add to the gradient of its input, a linear function of the input."""
    for t in range(x.shape[0]):
        for b in range(low, high):
            m = np.uint64(b * neurons)
            for k in range(np.uint64(neurons)):
                gx[t, m + k] += rise[k] * x[t, m + k] + offset[k]


def add_up(x, total, squares, neurons, low, high):
    """Add each input, and its square, over time and samples, in double precision."""
    for t in range(x.shape[0]):
        for b in range(low, high):
            m = np.uint64(b * neurons)
            for k in range(np.uint64(neurons)):
                value = np.float64(x[t, m + k])
                total[k] += value
                squares[k] += value * value


@functools.cache
def compiled_forward(constants: Constants, dtype: np.dtype, *, uniform: bool) -> Callable:
    """`forward` for one kind of neuron and one float type, compiled at its first call."""
    names = operations(constants, dtype, uniform)
    names["advance"] = inline(bind(equations.advance, **names))
    names["load_parameters"] = inline(bind(load_parameters, **names))
    return compiled(bind(forward, **names), ("layer", constants, dtype.str, uniform))


@functools.cache
def compiled_backward(
    constants: Constants, shape: str, per: Unit, dtype: np.dtype, *, uniform: bool, **flags: bool
) -> Callable:
    """`backward` for one kind of neuron, one shape of surrogate and one float type, compiled at its first call."""
    names = adjoint_operations(constants, shape, per, dtype, uniform, flags)
    names["advance"] = inline(bind(equations.advance, **names))
    names["load_parameters"] = inline(bind(load_parameters, **names))
    return compiled(bind(backward, **names), ("layer", constants, shape, per, dtype.str, uniform, flags), adjoint=True)


def share(steps: int, batch: int, neurons: int) -> list[tuple[int, int]]:
    """The samples of each part: enough work for a thread, and the same parts for any number of threads."""
    return cut(batch, least=max(1, 2**15 // (steps * neurons)))


def statistics(
    x: np.ndarray, sample: torch.Size, axis: int, parts: list[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel, in double precision."""
    found = np.zeros((len(parts), 2, sample.numel()))
    in_threads(
        [partial(compiled_plain(add_up), x, *found[n], sample.numel(), *part) for n, part in enumerate(parts)]
    )  # fmt: skip
    mean, square = (over_channels(part, sample, axis) for part in found.sum(0))
    count = x.size // len(mean)
    return mean / count, np.maximum(square / count - (mean / count) ** 2, 0)


def over_channels(values: np.ndarray, sample: torch.Size, axis: int) -> np.ndarray:
    """Sums over all neurons of a channel."""
    others = tuple(k for k in range(len(sample)) if k != axis - 2)
    return values.reshape(sample).sum(others, dtype=np.float64)


def over_neurons(values: np.ndarray, sample: torch.Size, axis: int, dtype: np.dtype) -> np.ndarray:
    """The value of its channel for each neuron."""
    shape = [1] * len(sample)
    shape[axis - 2] = -1
    wide = np.broadcast_to(values.astype(dtype).reshape(shape), tuple(sample))
    return np.array(wide).ravel()  # a view could be one that numba takes for another type, and compiles for again


def parts_of(constants: Constants) -> tuple[bool, bool, bool, bool]:
    """Whether the neuron has the parts i, a, v, s."""
    return constants.current, constants.adapts, True, constants.spiking
