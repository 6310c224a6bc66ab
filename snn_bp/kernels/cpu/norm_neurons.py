"""A layer of neurons behind its batch norm in two passes: statistics first, then scale, shift and neurons at once.

Nothing but the input is kept for the backward pass, which computes the potentials again, a block of neurons at a time
so that they stay in cache. Neurons are `equations.py`, bound by `compile.py`: without a norm spikes equal the reference
bit for bit, with one up to the rounding of the normalised current.
"""

# pyright: reportUndefinedVariable=false

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels.around import first_derivatives
from snn_bp.kernels.bind import Constants
from snn_bp.kernels.cpu.aligned import aligned_empty, kernel_zeros
from snn_bp.kernels.cpu.compile import array, compiled_plain, flat_or_scalar, inner, specialised
from snn_bp.kernels.cpu.threads import parallel_for, split_rows
from snn_bp.neurons import Coefficients, FullState
from snn_bp.surrogates import Surrogate

BLOCK_NEURONS = 256  # neurons at a time: their potentials of 500 steps fit the second-level cache
# What a block of neurons holds beside its trace, in one array: LLVM sees that its rows do not overlap, and vectorises.
BLOCK_ROWS = 18
OFFSETS = tuple(np.uint64(row * BLOCK_NEURONS) for row in range(BLOCK_ROWS))
V, S, CUR, A, SCALE, SHIFT, COUNT, S_FIRST, G_RATE, GV, GS, GI, GA, ALPHA, BETA, RHO, KAPPA, THETA = OFFSETS
TOTAL, WEIGHTED = V, COUNT  # rows that the adjoint has no other use for


class Norm(NamedTuple):
    """A batch norm over `weight.numel()` channels in training."""

    weight: Tensor
    bias: Tensor
    eps: float


class LayerOutput(NamedTuple):
    """What a layer did."""

    out: Tensor  # spikes, or potentials of a neuron that does not spike, shaped and laid out as the input
    means: Tensor  # their mean over time and batch
    last: FullState
    mean: Tensor | None  # the statistics of each channel of the input
    variance: Tensor | None


def run_layer(
    z: Tensor, norm: Norm | None, channel_axis: int, state: FullState | None,
    coefficients: Coefficients, constants: Constants, surrogate: Surrogate,
) -> LayerOutput:  # fmt: skip
    """Neurons under the weighted sums `z` `[time, batch, ...]`, contiguous, normalised first where there is a norm.

    `channel_axis` names the axis of `z` that the norm does not average over. `state` is shaped as one step of `z`,
    `coefficients` as one sample or as scalars. Gradients flow to `z`, norm, state and coefficients, and from all but
    the statistics.
    """
    weight, bias, eps = norm or (None, None, 0.0)
    learns = torch.is_grad_enabled() and any(value.requires_grad for value in coefficients)
    options = (constants, surrogate, channel_axis, eps, learns)
    out, means, i, a, v, s, mean, variance = _Layer.apply(
        options, z, weight, bias, *(state or (None,) * 4), *coefficients
    )  # type: ignore[misc]
    return LayerOutput(out, means, FullState(i, a, v, s), *((mean, variance) if norm else (None, None)))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, z: Tensor, weight: Tensor | None, bias: Tensor | None, *tensors: Tensor | None):
        constants, _, axis, eps, _ = options
        x = array(z).reshape(len(z), -1)
        (steps, size), dtype, sample = x.shape, x.dtype, z.shape[2:]
        neurons = sample.numel()
        shards = split_samples(steps, z.shape[1], neurons)
        mean = variance = scale = None
        affine = [np.ones(neurons, dtype), np.zeros(neurons, dtype)]
        if weight is not None and bias is not None:
            mean, variance = statistics(x, sample, axis, shards)
            scale = array(weight) / np.sqrt(variance + eps)
            affine = [spread_channels(part, sample, axis, dtype) for part in (scale, array(bias) - mean * scale)]
        first = [np.empty(0, dtype) if part is None else array(part).reshape(-1) for part in tensors[:4]]
        given = [flat_or_scalar(value) for value in tensors[4:] if value is not None]
        out = aligned_empty(x.size, dtype).reshape(x.shape)  # torch's products differ with where their input begins
        exists = (constants.current, constants.adapts, True, constants.spiking)
        last = [np.empty(size if each else 0, dtype) for each in exists]
        counts = np.zeros((len(shards), neurons), dtype)
        kernel = specialised(forward, constants, dtype, uniform=given[0].ndim == 0, helpers=(load_parameters,))
        arrays = (x, *affine, *first, *given, out, *last)
        parallel_for([partial(kernel, *arrays, counts[n], neurons, *part) for n, part in enumerate(shards)])
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
        shards = split_samples(steps, batch, neurons)
        g_spikes = np.empty((0, 0), dtype) if g_out is None else array(g_out).reshape(steps, size)
        g_rate = np.zeros(neurons, dtype) if g_means is None else array(g_means / (steps * batch)).reshape(-1)
        state_grads = [
            np.zeros(part.size if need else 0, dtype) if g is None else array(g).reshape(-1).copy()
            for g, part, need in zip(others[:4], first, ctx.needs_input_grad[4:8], strict=True)
        ]
        gz = aligned_empty(x.size, dtype).reshape(x.shape)
        sums = np.zeros((len(shards), 7 if learns else 2, neurons), dtype)
        kernel = specialised(
            backward, constants, dtype, uniform=given[0].ndim == 0, adjoint=(surrogate.shape, surrogate.per),
            helpers=(load_parameters,), LEARNS=learns, GIVEN=g_out is not None,
            SAVES_CURRENT=constants.needs_current(learns),
        )  # fmt: skip
        arrays = (x, *affine, *first, *given, dtype.type(surrogate.slope), g_spikes, g_rate, *state_grads, gz)
        parallel_for([partial(kernel, *arrays, sums[n], neurons, *part) for n, part in enumerate(shards)])
        total, weighted, *learned = sums.sum(0)
        g_weight = g_bias = None
        if mean is not None:
            total, weighted = (sum_channels(part, sample, axis) for part in (total, weighted))
            inverse, count = 1 / np.sqrt(variance + eps), x.size // len(mean)
            g_weight = inverse * (weighted - mean * total)
            rise = -scale * inverse * g_weight / count
            fixes = [
                spread_channels(part, sample, axis, dtype) for part in (rise, -scale * total / count - rise * mean)
            ]
            parallel_for([partial(compiled_plain(correct), gz, x, *fixes, neurons, *part) for part in shards])
            g_weight, g_bias = (torch.from_numpy(part.astype(dtype)) for part in (g_weight, total))
        states = [torch.from_numpy(part).view(ctx.shape[1:]) if len(part) else None for part in state_grads]
        parameters = [
            torch.from_numpy(part).view(sample) if given[0].ndim else torch.from_numpy(part).sum() for part in learned
        ] or [None] * 5  # fmt: skip
        gradients = (None, torch.from_numpy(gz).view(ctx.shape), g_weight, g_bias, *states, *parameters)
        return tuple(g if need else None for g, need in zip(gradients, ctx.needs_input_grad, strict=True))


def forward(
    x, scale, shift, i, a, v, s, alpha, beta, rho, kappa, theta, out, i_last, a_last, v_last, s_last, counts,
    neurons, low, high,
):  # fmt: skip
    """Samples `low..high` through all steps, from the state `i, a, v, s`; an empty array stands for rest."""
    block = kernel_zeros(BLOCK_ROWS * BLOCK_NEURONS, x)
    for b in range(low, high):
        for first in range(0, neurons, BLOCK_NEURONS):
            n, m = np.uint64(first), np.uint64(b * neurons + first)
            width = np.uint64(min(BLOCK_NEURONS, neurons - first))
            load_parameters(block, alpha, beta, rho, kappa, theta, n, width)
            load(block, SCALE, scale, n, width)
            load(block, SHIFT, shift, n, width)
            load(block, CUR, i, m, width)
            load(block, A, a, m, width)
            load(block, V, v, m, width)
            load(block, S, s, m, width)
            load(block, COUNT, counts, n, width)
            for t in range(x.shape[0]):
                x_row, out_row = x[t], out[t]  # as x[t, k] LLVM does not vectorise the loop
                for k in range(width):
                    i1, a1, v1, s1 = advance(
                        block[CUR + k], block[A + k], block[V + k], block[S + k],
                        x_row[m + k] * block[SCALE + k] + block[SHIFT + k],
                        block[ALPHA + k], block[BETA + k], block[RHO + k], block[KAPPA + k], block[THETA + k],
                    )  # fmt: skip
                    block[V + k] = v1
                    if CURRENT:
                        block[CUR + k] = i1
                    if ADAPTS:
                        block[A + k] = a1
                    if SPIKING:
                        block[S + k] = s1
                    out_row[m + k] = s1 if SPIKING else v1
                    block[COUNT + k] += s1 if SPIKING else v1
            store(counts, n, block, COUNT, width)
            store(i_last, m, block, CUR, width)
            store(a_last, m, block, A, width)
            store(v_last, m, block, V, width)
            store(s_last, m, block, S, width)


def backward(
    x, scale, shift, i, a, v, s, alpha, beta, rho, kappa, theta, slope, g_out, g_rate, gi, ga, gv, gs,
    gx, sums, neurons, low, high,
):  # fmt: skip
    """The adjoint of `forward`: `gi, ga, gv, gs` hold the gradient of the last state in, of the first state out.

    `gx` becomes the gradient of the scaled input times `scale`. To the rows of `sums` are added: the gradient of the
    scaled input, its product with the input, and with `LEARNS` the gradients of the parameters.
    """
    steps = x.shape[0]
    block = kernel_zeros(BLOCK_ROWS * BLOCK_NEURONS, x)
    vs = np.empty((steps + 1, BLOCK_NEURONS), x.dtype)  # as one row LLVM does not vectorise the adjoint
    adapted = np.empty((steps + 1 if ADAPTS else 0, BLOCK_NEURONS), x.dtype)
    currents = np.empty((steps + 1 if SAVES_CURRENT else 0, BLOCK_NEURONS), x.dtype)
    for b in range(low, high):
        for first in range(0, neurons, BLOCK_NEURONS):
            n, m = np.uint64(first), np.uint64(b * neurons + first)
            width = np.uint64(min(BLOCK_NEURONS, neurons - first))
            load_parameters(block, alpha, beta, rho, kappa, theta, n, width)
            load(block, SCALE, scale, n, width)
            load(block, SHIFT, shift, n, width)
            load(block, G_RATE, g_rate, n, width)
            load(block, CUR, i, m, width)
            load(block, A, a, m, width)
            load(block, S, s, m, width)
            load(block, S_FIRST, s, m, width)
            load(block, V, v, m, width)
            load(block, GI, gi, m, width)
            load(block, GA, ga, m, width)
            load(block, GV, gv, m, width)
            load(block, GS, gs, m, width)
            for k in range(width):
                vs[0, k] = block[V + k]
                if ADAPTS:
                    adapted[0, k] = block[A + k]
                if SAVES_CURRENT:
                    currents[0, k] = block[CUR + k]
            for t in range(steps):
                x_row = x[t]  # as x[t, k] LLVM does not vectorise the loop
                for k in range(width):
                    i1, a1, v1, s1 = advance(
                        block[CUR + k], adapted[t, k] if ADAPTS else real(0), vs[t, k], block[S + k],
                        x_row[m + k] * block[SCALE + k] + block[SHIFT + k],
                        block[ALPHA + k], block[BETA + k], block[RHO + k], block[KAPPA + k], block[THETA + k],
                    )  # fmt: skip
                    vs[t + 1, k] = v1
                    if SPIKING:
                        block[S + k] = s1
                    if CURRENT:
                        block[CUR + k] = i1
                    if ADAPTS:
                        adapted[t + 1, k] = a1
                    if SAVES_CURRENT:
                        currents[t + 1, k] = i1
            load(block, TOTAL, sums[0], n, width)
            load(block, WEIGHTED, sums[1], n, width)
            for t in range(steps - 1, -1, -1):
                x_row, g_row, gx_row = x[t], g_out[t] if GIVEN else x[t], gx[t]
                for k in range(width):
                    v0 = vs[t, k]
                    a0 = adapted[t, k] if ADAPTS else v0
                    g = g_row[m + k] + block[G_RATE + k] if GIVEN else block[G_RATE + k]
                    s0 = block[S_FIRST + k]
                    if SPIKING:
                        s0 = s0 if t == 0 else fired(a0, v0, block[KAPPA + k], block[THETA + k])
                    di, da, dv, ds, dx, d_alpha, d_beta, d_rho, d_kappa, d_theta = advance_vjp(
                        block[GI + k], block[GA + k],
                        block[GV + k] if SPIKING else block[GV + k] + g, block[GS + k] + g if SPIKING else real(0),
                        currents[t, k] if SAVES_CURRENT else v0, a0, v0, s0,
                        currents[t + 1, k] if SAVES_CURRENT else v0,
                        adapted[t + 1, k] if ADAPTS else v0, vs[t + 1, k],
                        block[ALPHA + k], block[BETA + k], block[RHO + k], block[KAPPA + k], block[THETA + k], slope,
                    )  # fmt: skip
                    gx_row[m + k] = dx * block[SCALE + k]
                    block[TOTAL + k] += dx
                    block[WEIGHTED + k] += dx * x_row[m + k]
                    block[GV + k] = dv
                    if SPIKING:
                        block[GS + k] = ds
                    if CURRENT:
                        block[GI + k] = di
                    if ADAPTS:
                        block[GA + k] = da
                    if LEARNS:
                        sums[2, n + k] += d_alpha
                        sums[3, n + k] += d_beta
                        sums[4, n + k] += d_rho
                        sums[5, n + k] += d_kappa
                        sums[6, n + k] += d_theta
            store(sums[0], n, block, TOTAL, width)
            store(sums[1], n, block, WEIGHTED, width)
            store(gi, m, block, GI, width)
            store(ga, m, block, GA, width)
            store(gv, m, block, GV, width)
            store(gs, m, block, GS, width)


def load_parameters(block, alpha, beta, rho, kappa, theta, n, width):
    """The coefficients of a block of neurons."""
    for k in range(width):
        block[ALPHA + k] = of(alpha, n + k)
        block[BETA + k] = of(beta, n + k)
        block[RHO + k] = of(rho, n + k)
        block[KAPPA + k] = of(kappa, n + k)
        block[THETA + k] = of(theta, n + k)


@inner
def load(block, row, values, at, width):
    """`width` values into a row of `block`; zeros where there are none."""
    if values.size == 0:
        for k in range(width):
            block[row + k] = 0
        return
    for k in range(width):
        block[row + k] = values[at + k]


@inner
def store(values, at, block, row, width):
    """The way back, unless `values` is empty."""
    if values.size > 0:
        for k in range(width):
            values[at + k] = block[row + k]


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


def split_samples(steps: int, batch: int, neurons: int) -> list[tuple[int, int]]:
    """The samples of each shard: enough work for a thread, and the same shards for any number of threads."""
    return split_rows(batch, min_rows=max(1, 2**15 // (steps * neurons)))


def statistics(
    x: np.ndarray, sample: torch.Size, axis: int, shards: list[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel, in double precision."""
    found = np.zeros((len(shards), 2, sample.numel()))
    parallel_for(
        [partial(compiled_plain(add_up), x, *found[n], sample.numel(), *part) for n, part in enumerate(shards)]
    )  # fmt: skip
    mean, square = (sum_channels(part, sample, axis) for part in found.sum(0))
    count = x.size // len(mean)
    return mean / count, np.maximum(square / count - (mean / count) ** 2, 0)


def sum_channels(values: np.ndarray, sample: torch.Size, axis: int) -> np.ndarray:
    """Sums over all neurons of a channel."""
    others = tuple(k for k in range(len(sample)) if k != axis - 2)
    return values.reshape(sample).sum(others, dtype=np.float64)


def spread_channels(values: np.ndarray, sample: torch.Size, axis: int, dtype: np.dtype) -> np.ndarray:
    """The value of its channel for each neuron."""
    shape = [1] * len(sample)
    shape[axis - 2] = -1
    wide = np.broadcast_to(values.astype(dtype).reshape(shape), tuple(sample))
    return np.array(wide).ravel()  # a view could be one that numba takes for another type, and compiles for again
