"""Weighted sums of inputs that are mostly zero: a linear layer and a convolution that pay for events only.

Both equal torch's own up to the order of summation. Where too much of the input is not zero, they are torch's own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.kernels.around import first_derivatives
from snn_bp.kernels.cpu import conv, dense
from snn_bp.kernels.cpu import conv_pool as pooled
from snn_bp.kernels.cpu.aligned import empty, zeros
from snn_bp.kernels.cpu.neuron import compiled_plain
from snn_bp.kernels.cpu.pool import is_plain, max_pool, sizes_of
from snn_bp.kernels.cpu.sparse import Bits, Events, find_bits, find_events
from snn_bp.kernels.cpu.threads import cut, in_threads
from snn_bp.kernels.cpu.vectors import blocked, padded, unblocked

# what an event costs a convolution, forward and in the weights' gradient, in ns: to begin, and for each number it adds;
# and what torch's convolution pays for each such number of each input, zero or not. experiments/benchmarks/crossover.py
BEGIN_NS, ADD_NS, TORCH_NS = 27.0, 0.2, 0.07
Found = TypeVar("Found", Bits, Events)
ROWS = 512  # whose error signal stays in the second-level cache


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """`layer(x)` for `x` `[rows, inputs]`."""
    heard = hear_in_parts(x, most=worth_events(layer))
    return layer(x.to(layer.weight.dtype)) if heard is None else linear_of(x, layer, heard)


def linear_of(x: Tensor, layer: nn.Linear, heard: Sequence[Bits | Events]) -> Tensor:
    """`layer(x)` from what is not zero in `x`, found in parts."""
    return _Linear.apply(x, layer.weight, layer.bias, heard)  # type: ignore[return-value]


def convolve(x: Tensor, layer: nn.Conv2d, pool: nn.MaxPool2d | None = None) -> Tensor:
    """`layer(x)` for `x` `[rows, channels, height, width]`, channels last in memory; pooled where a pool is given."""
    most = worth_events(layer)
    events = find_in_parts(x, most=most) if most > 0 else None
    if events is None or not (pool is None or is_plain(pool)):
        out = layer(x.to(layer.weight.dtype, memory_format=torch.channels_last))
        return out if pool is None else max_pool(out, pool)
    return convolve_events(x, layer, events, pool)


def convolve_events(x: Tensor, layer: nn.Conv2d, events: list[Events], pool: nn.MaxPool2d | None = None) -> Tensor:
    """`layer(x)`, pooled where a pool is given, from the events of `x`, found in parts by their place in memory."""
    window = None if pool is None else (pool.kernel_size, pool.stride)
    return _Convolution.apply(x, layer.weight, layer.bias, events, layer.stride, layer.padding, window)  # type: ignore[return-value]


def worth_events(layer: nn.Linear | nn.Conv2d) -> float:
    """The largest share of inputs not zero for which going through events is faster than torch's own product."""
    if isinstance(layer, nn.Linear):
        return dense.PRODUCT_FROM
    if layer.groups > 1 or layer.dilation != (1, 1) or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return 0.0
    (tall, wide), (down, right) = layer.kernel_size, layer.stride
    met = layer.out_channels * -(-tall // down) * -(-wide // right)
    return TORCH_NS * met / (BEGIN_NS + ADD_NS * met)


def hear_in_parts(x: Tensor, *, most: float) -> list[Bits] | list[Events] | None:
    """What is not zero in each part of the rows of `x`; None where it is more than the share `most`."""
    rows, ends = x.detach().contiguous().numpy()[None], cut(len(x), least=ROWS)
    bits = _in_parts(ends, lambda low, count: find_bits(rows, low, count, most=most))
    return bits or _in_parts(ends, lambda low, count: find_events(rows, low, count, most=most))


def find_in_parts(x: Tensor, *, most: float) -> list[Events] | None:
    """The events of each part of the rows of `x`, counted by their place in memory; None where they are too many."""
    rows = in_memory(x.detach()).flatten(1).numpy()[None]
    return _in_parts(cut(len(x)), lambda low, count: find_events(rows, low, count, most=most))


def _in_parts(ends: list[tuple[int, int]], find: Callable[[int, int], Found | None]) -> list[Found] | None:
    """What `find` makes of the first row and the number of rows of each part; None where any is None."""
    found: list[Found | None] = [None] * len(ends)

    def take(n: int, low: int, high: int) -> None:
        found[n] = find(low, high - low)

    in_threads([partial(take, n, *end) for n, end in enumerate(ends)])
    parts = [part for part in found if part is not None]
    return parts if len(parts) == len(found) else None


def in_memory(x: Tensor) -> Tensor:
    """`x` as it lies in memory: channels last where it does, else in the order of its axes."""
    return x.permute(0, 2, 3, 1) if lies_channels_last(x) else x.contiguous()


def lies_channels_last(x: Tensor) -> bool:
    """Whether `x` `[rows, channels, height, width]` lies in memory with its channels innermost, and not otherwise."""
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, heard: Sequence[Bits | Events]):
        units, width = len(weight), padded(len(weight))
        weights = blocked(weight.detach().numpy().T, width)
        start = zeros(width, weights.dtype)
        if bias is not None:
            start[:units] = bias.detach().numpy()
        z = empty(len(x) * width, weights.dtype).reshape(-1, width)

        def weigh(part: Bits | Events, low: int, high: int) -> None:
            for first in range(low, high, ROWS):
                count = min(ROWS, high - first)
                kernel = part.weigh(z[first : first + count].reshape(-1), weights, start, width, 1)
                kernel(first - low, first - low + count)

        in_threads([partial(weigh, part, *ends) for part, ends in zip(heard, cut(len(x), least=ROWS), strict=True)])
        ctx.save_for_backward(weight)
        ctx.heard, ctx.rows, ctx.has_bias = heard, len(x), bias is not None
        return torch.from_numpy(z[:, :units]).contiguous()

    @staticmethod
    @first_derivatives("Dense")
    def backward(ctx, g):
        (weight,) = ctx.saved_tensors
        units, inputs = weight.shape
        width = padded(units)
        g_x = g @ weight if ctx.needs_input_grad[0] else None
        d = (g if width == units else F.pad(g, (0, width - units))).contiguous().numpy().reshape(-1)
        sums = [zeros(inputs * width, d.dtype) for _ in ctx.heard]

        def gather(part: Bits | Events, low: int, high: int, total: np.ndarray) -> None:
            for first in range(0, high - low, ROWS):
                count = min(ROWS, high - low - first)
                part.gather(total, d[(low + first) * width :], width, 1)(first, first + count)

        ends = cut(ctx.rows, least=ROWS)
        in_threads([partial(gather, part, *end, mine) for part, end, mine in zip(ctx.heard, ends, sums, strict=True)])
        g_weight = torch.from_numpy(unblocked(sum(sums[1:], sums[0]), inputs, units))
        return g_x, g_weight, g.sum(0) if ctx.has_bias else None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, events: list[Events], stride, padding, window):
        rows, outs = len(x), len(weight)
        geometry = conv.geometry_of(tuple(x.shape[1:]), tuple(weight.shape), stride, padding)  # type: ignore[arg-type]
        table = conv.reach(geometry, channels_last=lies_channels_last(x))
        sizes = sizes_of(outs, geometry.out_height, geometry.out_width, *(window or (1, 1)))
        z = torch.empty((rows, *sizes[3:5], outs), dtype=weight.dtype)
        which = np.empty(z.numel() if window else 0, np.uint8)
        start = np.zeros(outs, z.numpy().dtype) if bias is None else bias.detach().numpy()
        arranged = conv.arrange(weight.detach().numpy(), geometry)

        def add(part: Events, low: int, high: int) -> None:
            out, given = z.numpy().reshape(-1), (*part, arranged, start, table, geometry)
            if window:
                compiled_plain(pooled.forward)(out, which, *given, sizes, low, high - low)
            else:
                compiled_plain(conv.forward)(out, *given, low, high - low)

        in_threads([partial(add, part, *ends) for part, ends in zip(events, cut(rows), strict=True)])
        ctx.save_for_backward(weight)
        ctx.events, ctx.rows, ctx.has_bias, ctx.geometry, ctx.table = events, rows, bias is not None, geometry, table
        ctx.pool, ctx.size = (which, sizes) if window else None, arranged.size
        return z.permute(0, 3, 1, 2)

    @staticmethod
    @first_derivatives("Conv")
    def backward(ctx, g):
        (weight,) = ctx.saved_tensors
        channels, height, width, *_ = ctx.geometry
        g = g.permute(0, 2, 3, 1).contiguous()
        d, ends = g.numpy().reshape(-1), cut(ctx.rows)
        outs = g.shape[3]
        row = g.shape[2] * outs if ctx.has_bias else 0
        sums = [(np.zeros(ctx.size, d.dtype), np.zeros(row, d.dtype)) for _ in ends]
        g_x = torch.empty((ctx.rows, height, width, channels), dtype=g.dtype) if ctx.needs_input_grad[0] else None
        back = d[:0] if g_x is None else conv.seen_by_outputs(weight.detach().numpy(), ctx.geometry)

        def adjoint(part: Events, low: int, high: int, total: np.ndarray, bias: np.ndarray) -> None:
            below = d[:0] if g_x is None else g_x.numpy().reshape(-1)
            if ctx.pool:
                which, sizes = ctx.pool
                kernel, given = compiled_plain(pooled.backward), (*part, ctx.table, ctx.geometry, back, sizes)
                kernel(total, bias, below, d, which, *given, low, high - low)
                return
            kernel = compiled_plain(conv.weight_gradient)
            kernel(total, bias, *part, d, ctx.table, ctx.geometry, low, high - low)
            if g_x is not None:
                compiled_plain(conv.input_gradient)(below, d, back, ctx.geometry, low, high - low)

        in_threads(
            [partial(adjoint, part, *end, *mine) for part, end, mine in zip(ctx.events, ends, sums, strict=True)]
        )
        totals, biases = [weights for weights, _ in sums], [bias for _, bias in sums]
        g_weight = conv.arranged_back(sum(totals[1:], totals[0]), ctx.geometry)
        return (
            None if g_x is None else g_x.permute(0, 3, 1, 2),
            torch.from_numpy(g_weight),
            torch.from_numpy(sum(biases[1:], biases[0]).reshape(-1, outs).sum(0)) if ctx.has_bias else None,
            *(None, None, None, None),
        )
