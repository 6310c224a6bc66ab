"""A layer of neurons behind its batch norm in two passes: statistics first, then scale, shift and neurons at once.

Nothing but the input is kept for the backward pass, which computes the potentials again, a block of neurons at a time
so that they stay in cache. Loops are spread out for one neuron by `expand.py`: without a norm spikes equal the
reference bit for bit, with one up to the rounding of the normalised current.
"""

# pyright: reportUndefinedVariable=false, reportCallIssue=false

from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from snn_bp.equations.derive import Equation
from snn_bp.kernels.around import first_derivatives
from snn_bp.kernels.cpu.aligned import aligned_empty, kernel_zeros
from snn_bp.kernels.cpu.compile import array, compiled_plain, flat_or_scalar, inner, specialised
from snn_bp.kernels.cpu.packed_layer import Parts
from snn_bp.kernels.cpu.threads import parallel_for, split_rows
from snn_bp.kernels.expand import Form, marked
from snn_bp.surrogates import Surrogate

BLOCK_NEURONS = 256  # neurons at a time: their potentials of 500 steps fit the second-level cache
OWN_ROWS = ("SCALE", "SHIFT", "COUNT", "G_RATE", "TOTAL", "WEIGHTED", "FIRST_s")


def rows_of(equation: Equation) -> tuple[tuple[str, Any], ...]:
    """What a block of neurons holds beside its trace, in one array, and where each row begins.

    In one array LLVM sees that its rows do not overlap, and vectorises.
    """
    full, parameters = [*map(marked, equation.full)], [*map(marked, equation.parameters)]
    names = [*(f"AT_{name}" for name in (*full, *parameters)), *(f"G_{name}" for name in full)]
    offsets = {name: np.uint64(row * BLOCK_NEURONS) for row, name in enumerate([*OWN_ROWS, *names])}
    return *offsets.items(), ("BLOCK_ROWS", len(offsets))


class Across(Protocol):
    """Where other processes have more of the batch."""

    is_empty: bool  # whether what is here counts nothing

    def sums(self, values: np.ndarray, /) -> np.ndarray:
        """Sums over all processes of what each has added up."""
        ...


class Norm(NamedTuple):
    """A batch norm over `weight.numel()` channels in training."""

    weight: Tensor
    bias: Tensor
    eps: float
    across: Across | None = None  # None: the batch is all here


class LayerOutput(NamedTuple):
    """What a layer did."""

    out: Tensor  # spikes, or potentials of a neuron that does not spike, shaped and laid out as the input
    means: Tensor  # their mean over time and batch
    last: Parts
    mean: Tensor | None  # the statistics of each channel of the input
    variance: Tensor | None
    count: int  # values that they are of


def run_layer(
    z: Tensor, norm: Norm | None, channel_axis: int, state: Parts | None, values: Parts, equation: Equation,
    surrogate: Surrogate,
) -> LayerOutput:  # fmt: skip
    """Neurons under the weighted sums `z` `[time, batch, ...]`, contiguous, normalised first where there is a norm.

    `channel_axis` names the axis of `z` that the norm does not average over. `state` is shaped as one step of `z`,
    `values` as one sample or as scalars. Gradients flow to `z`, norm, state and values, and from all but
    the statistics.
    """
    weight, bias, eps, across = norm or (None, None, 0.0, None)
    graded = torch.is_grad_enabled()
    learned = tuple(n for n, value in zip(equation.parameters, values, strict=True) if graded and value.requires_grad)
    options = (Form(equation, learned, equation.saved(learned)), surrogate, channel_axis, eps, across)
    out, means, *others = _Layer.apply(options, z, weight, bias, *(state or (None,) * len(equation.full)), *values)  # type: ignore[misc]
    *last, mean, variance, count = others
    return LayerOutput(out, means, tuple(last), *((mean, variance) if norm else (None, None)), int(count))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, z: Tensor, weight: Tensor | None, bias: Tensor | None, *tensors: Tensor | None):
        form, _, axis, eps, across = options
        equation, carried = form.equation, len(form.equation.full)
        x = array(z).reshape(len(z), -1)
        (steps, size), dtype, sample = x.shape, x.dtype, z.shape[2:]
        neurons = sample.numel()
        shards = split_samples(steps, z.shape[1], neurons)
        mean = variance = scale = None
        count = 0
        affine = [np.ones(neurons, dtype), np.zeros(neurons, dtype)]
        if weight is not None and bias is not None:
            mean, variance, count = statistics(x, sample, axis, shards, across)
            scale = array(weight) / np.sqrt(variance + eps)
            affine = [spread_channels(part, sample, axis, dtype) for part in (scale, array(bias) - mean * scale)]
        first = [np.empty(0, dtype) if part is None else array(part).reshape(-1) for part in tensors[:carried]]
        given = [flat_or_scalar(value) for value in tensors[carried:] if value is not None]
        out = aligned_empty(x.size, dtype).reshape(x.shape)  # torch's products differ with where their input begins
        last = [np.empty(size, dtype) for _ in equation.full]
        counts = np.zeros((len(shards), neurons), dtype)
        kernel = specialised(
            forward, Form(equation), dtype, uniform=all(value.ndim == 0 for value in given),
            helpers=(load_parameters,), numbers=rows_of(equation),
        )  # fmt: skip
        arrays = (x, *affine, *first, *given, out, *last)
        parallel_for([partial(kernel, *arrays, counts[n], neurons, *part) for n, part in enumerate(shards)])
        ctx.options, ctx.shape, ctx.saved = options, z.shape, (affine, (mean, variance, scale, count))
        ctx.save_for_backward(z, *tensors)  # torch notices where one is written to before it is read again
        ctx.set_materialize_grads(False)
        measured = [
            z.new_empty(0) if part is None else torch.from_numpy(part.astype(dtype)) for part in (mean, variance)
        ] + [torch.tensor(count)]
        ctx.mark_non_differentiable(*measured)
        return (
            torch.from_numpy(out).view(z.shape),
            torch.from_numpy(counts.sum(0) / dtype.type(steps * z.shape[1])).view(sample),
            *(torch.from_numpy(part).view(z.shape[1:]) for part in last),
            *measured,
        )

    @staticmethod
    @first_derivatives("neurons")
    def backward(ctx, g_out, g_means, *others):
        form, surrogate, axis, eps, across = ctx.options
        equation, carried = form.equation, len(form.equation.full)
        (affine, (mean, variance, scale, count)), (z, *tensors) = ctx.saved, ctx.saved_tensors
        x = array(z).reshape(len(z), -1)
        first = [np.empty(0, x.dtype) if part is None else array(part).reshape(-1) for part in tensors[:carried]]
        given = [flat_or_scalar(value) for value in tensors[carried:] if value is not None]
        (steps, size), dtype, batch, sample = x.shape, x.dtype, ctx.shape[1], ctx.shape[2:]
        neurons = sample.numel()
        shards = split_samples(steps, batch, neurons)
        g_spikes = np.empty((0, 0), dtype) if g_out is None else array(g_out).reshape(steps, size)
        g_rate = np.zeros(neurons, dtype) if g_means is None else array(g_means / (steps * batch)).reshape(-1)
        state_grads = [
            np.zeros(part.size if need else 0, dtype) if g is None else array(g).reshape(-1).copy()
            for g, part, need in zip(others[:carried], first, ctx.needs_input_grad[4 : 4 + carried], strict=True)
        ]
        gz = aligned_empty(x.size, dtype).reshape(x.shape)
        sums = np.zeros((len(shards), 2 + len(form.learned), neurons), dtype)
        kernel = specialised(
            backward, form, dtype, uniform=all(value.ndim == 0 for value in given), adjoint=surrogate.slope_of,
            helpers=(load_parameters,), numbers=rows_of(equation), GIVEN=g_out is not None,
        )  # fmt: skip
        arrays = (x, *affine, *first, *given, dtype.type(surrogate.slope), g_spikes, g_rate, *state_grads, gz)
        parallel_for([partial(kernel, *arrays, *sums[n], neurons, *part) for n, part in enumerate(shards)])
        total, weighted, *each_learned = sums.sum(0)
        g_weight = g_bias = None
        if mean is not None:
            total, weighted = (sum_channels(part, sample, axis) for part in (total, weighted))
            inverse = 1 / np.sqrt(variance + eps)
            g_weight = inverse * (weighted - mean * total)
            of_all, totals = g_weight, total
            if across is not None:  # the statistics are those of all inputs, and theirs the gradients
                totals, weights = across.sums(np.stack((total, weighted)))
                of_all = inverse * (weights - mean * totals)
            rise = -scale * inverse * of_all / count
            parts = rise, -scale * totals / count - rise * mean
            parts = [0 * part for part in parts] if across is not None and across.is_empty else parts
            fixes = [spread_channels(part, sample, axis, dtype) for part in parts]
            parallel_for([partial(compiled_plain(correct), gz, x, *fixes, neurons, *part) for part in shards])
            g_weight, g_bias = (torch.from_numpy(part.astype(dtype)) for part in (g_weight, total))
        states = [torch.from_numpy(part).view(ctx.shape[1:]) if len(part) else None for part in state_grads]
        each_learned = {
            name: torch.from_numpy(part).sum() if value.ndim == 0 else torch.from_numpy(part).view(sample)
            for name, part, value in zip(form.learned, each_learned, form.of_learned(given), strict=True)
        }
        parameters = [each_learned.get(name) for name in equation.parameters]
        gradients = (None, torch.from_numpy(gz).view(ctx.shape), g_weight, g_bias, *states, *parameters)
        return tuple(g if need else None for g, need in zip(gradients, ctx.needs_input_grad, strict=True))


def forward(x, scale, shift, first_F, value_P, out, last_F, counts, neurons, low, high):
    """Samples `low..high` through all steps, from the `first_` state; an empty array stands for rest."""
    block = kernel_zeros(BLOCK_ROWS * BLOCK_NEURONS, x)
    for b in range(low, high):
        for first in range(0, neurons, BLOCK_NEURONS):
            n, m = np.uint64(first), np.uint64(b * neurons + first)
            width = np.uint64(min(BLOCK_NEURONS, neurons - first))
            load_parameters(block, *value_P, n, width)
            load(block, SCALE, scale, n, width)
            load(block, SHIFT, shift, n, width)
            load(block, AT_F, first_F, m, width)
            load(block, COUNT, counts, n, width)
            for t in range(x.shape[0]):
                x_row, out_row = x[t], out[t]  # as x[t, k] LLVM does not vectorise the loop
                for k in range(width):
                    (after_F,) = advance(
                        *block[AT_F + k], x_row[m + k] * block[SCALE + k] + block[SHIFT + k], *block[AT_P + k]
                    )
                    block[AT_F + k] = after_F
                    given = after_s if SPIKING else after_V
                    out_row[m + k] = given
                    block[COUNT + k] += given
            store(counts, n, block, COUNT, width)
            store(last_F, m, block, AT_F, width)


def backward(
    x, scale, shift, first_F, value_P, slope, g_out, g_rate, g_F, gx, total, weighted, g_L, neurons, low, high
):
    """The adjoint of `forward`: `g_` of a state hold the gradient of the last one in, of the first one out.

    `gx` becomes the gradient of the scaled input times `scale`. Added to `total` and `weighted` are the gradient of the
    scaled input, and its product with the input.
    """
    steps = x.shape[0]
    block = kernel_zeros(BLOCK_ROWS * BLOCK_NEURONS, x)
    if SAVED_F:
        trace_F = np.empty((steps + 1, BLOCK_NEURONS), x.dtype)  # as one row LLVM does not vectorise the adjoint
    for b in range(low, high):
        for first in range(0, neurons, BLOCK_NEURONS):
            n, m = np.uint64(first), np.uint64(b * neurons + first)
            width = np.uint64(min(BLOCK_NEURONS, neurons - first))
            load_parameters(block, *value_P, n, width)
            load(block, SCALE, scale, n, width)
            load(block, SHIFT, shift, n, width)
            load(block, G_RATE, g_rate, n, width)
            load(block, AT_F, first_F, m, width)
            load(block, G_F, g_F, m, width)
            if SPIKING:
                load(block, FIRST_s, first_s, m, width)
            for k in range(width):
                if SAVED_F:
                    trace_F[0, k] = block[AT_F + k]
            for t in range(steps):
                x_row = x[t]  # as x[t, k] LLVM does not vectorise the loop
                for k in range(width):
                    before_F = trace_F[t, k] if SAVED_F else block[AT_F + k]
                    (after_F,) = advance(
                        *before_F, x_row[m + k] * block[SCALE + k] + block[SHIFT + k], *block[AT_P + k]
                    )
                    if SAVED_F:
                        trace_F[t + 1, k] = after_F
                    else:
                        block[AT_F + k] = after_F
            load(block, TOTAL, total, n, width)
            load(block, WEIGHTED, weighted, n, width)
            for t in range(steps - 1, -1, -1):
                x_row, g_row, gx_row = x[t], g_out[t] if GIVEN else x[t], gx[t]
                for k in range(width):
                    current = x_row[m + k] * block[SCALE + k] + block[SHIFT + k] if SAVED_x else real(0)
                    before_F = trace_F[t, k] if SAVED_F else real(0)
                    after_Q = trace_Q[t + 1, k] if SAVED_Q else real(0)
                    if REFIRES:
                        before_s = block[FIRST_s + k] if t == 0 else fired(*before_Q, *block[AT_P + k])
                    g = g_row[m + k] + block[G_RATE + k] if GIVEN else block[G_RATE + k]
                    error_F = block[G_F + k]
                    if SPIKING:
                        error_s = error_s + g
                    else:
                        error_V = error_V + g
                    (d_F, dx, d_P) = adjoint(*error_F, *before_F, current, *after_Q, *block[AT_P + k], slope)
                    gx_row[m + k] = dx * block[SCALE + k]
                    block[TOTAL + k] += dx
                    block[WEIGHTED + k] += dx * x_row[m + k]
                    block[G_F + k] = d_F
                    g_L[n + k] += d_L
            store(total, n, block, TOTAL, width)
            store(weighted, n, block, WEIGHTED, width)
            store(g_F, m, block, G_F, width)


def load_parameters(block, value_P, n, width):
    """The parameters of a block of neurons."""
    for k in range(width):
        block[AT_P + k] = of(value_P, n + k)


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
    x: np.ndarray, sample: torch.Size, axis: int, shards: list[tuple[int, int]], across: Across | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and variance of each channel, in double precision, and how many values it has; in all processes."""
    found = np.zeros((len(shards), 2, sample.numel()))
    parallel_for(
        [partial(compiled_plain(add_up), x, *found[n], sample.numel(), *part) for n, part in enumerate(shards)]
    )  # fmt: skip
    mean, square = (sum_channels(part, sample, axis) for part in found.sum(0))
    count = x.size // len(mean)
    if across is not None:
        mean, square, counts = across.sums(np.stack((mean, square, np.full(len(mean), float(count)))))
        count = int(counts[0])
    return mean / count, np.maximum(square / count - (mean / count) ** 2, 0), count


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
