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
from snn_bp.kernels.cpu import conv, conv_pool, dense
from snn_bp.kernels.cpu.aligned import aligned_empty, aligned_zeros
from snn_bp.kernels.cpu.compile import compiled_plain
from snn_bp.kernels.cpu.pool import is_plain, max_pool, sizes_of
from snn_bp.kernels.cpu.sparse import Bits, Events, find_bits, find_events
from snn_bp.kernels.cpu.threads import parallel_for, split_rows
from snn_bp.kernels.cpu.vectors import blocked, padded, unblocked
from snn_bp.kernels.layout import lies_channels_last

# what an event costs a convolution, forward and in the weights' gradient, in ns: to begin, and for each number it adds;
# and what torch's convolution pays for each such number of each input, zero or not. experiments/benchmarks/crossover.py
BEGIN_NS, ADD_NS, TORCH_NS = 27.0, 0.2, 0.07
Sparse = TypeVar("Sparse", Bits, Events)
MAX_ROWS = 512  # rows at a time: their error signal stays in the second-level cache


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """`layer(x)` for `x` `[rows, inputs]`."""
    sparse = encode_sparse(x, max_fraction=worth_events(layer))
    return layer(x.to(layer.weight.dtype)) if sparse is None else linear_sparse(x, layer, sparse)


def linear_sparse(x: Tensor, layer: nn.Linear, sparse: Sequence[Bits | Events]) -> Tensor:
    """`layer(x)` from what is not zero in `x`, shard by shard."""
    return _Linear.apply(x, layer.weight, layer.bias, sparse)  # type: ignore[return-value]


def convolve(x: Tensor, layer: nn.Conv2d, pool: nn.MaxPool2d | None = None) -> Tensor:
    """`layer(x)` for `x` `[rows, channels, height, width]`, channels last in memory; pooled where a pool is given."""
    max_fraction = worth_events(layer)
    events = encode_images(x, max_fraction=max_fraction) if max_fraction > 0 else None
    if events is None or not (pool is None or is_plain(pool)):
        out = layer(x.to(layer.weight.dtype, memory_format=torch.channels_last))
        return out if pool is None else max_pool(out, pool)
    return convolve_events(x, layer, events, pool)


def convolve_events(x: Tensor, layer: nn.Conv2d, events: list[Events], pool: nn.MaxPool2d | None = None) -> Tensor:
    """`layer(x)`, pooled where a pool is given, from the events of `x`, indexed as they lie in memory."""
    window = None if pool is None else (pool.kernel_size, pool.stride)
    return _Convolution.apply(x, layer.weight, layer.bias, events, layer.stride, layer.padding, window)  # type: ignore[return-value]


def worth_events(layer: nn.Linear | nn.Conv2d) -> float:
    """The largest fraction of inputs not zero for which going through events is faster than torch's own product."""
    if isinstance(layer, nn.Linear):
        return dense.PRODUCT_FROM
    if layer.groups > 1 or layer.dilation != (1, 1) or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return 0.0
    (kernel_h, kernel_w), (stride_h, stride_w) = layer.kernel_size, layer.stride
    met = layer.out_channels * -(-kernel_h // stride_h) * -(-kernel_w // stride_w)
    return TORCH_NS * met / (BEGIN_NS + ADD_NS * met)


def encode_sparse(x: Tensor, *, max_fraction: float) -> list[Bits] | list[Events] | None:
    """What is not zero in each shard of the rows of `x`; None where it is more than `max_fraction`."""
    rows, ends = x.detach().contiguous().numpy()[None], split_rows(len(x), min_rows=MAX_ROWS)
    bits = _by_shard(ends, lambda low, count: find_bits(rows, low, count, max_fraction=max_fraction))
    return bits or _by_shard(ends, lambda low, count: find_events(rows, low, count, max_fraction=max_fraction))


def encode_images(x: Tensor, *, max_fraction: float) -> list[Events] | None:
    """The events of each shard of the rows of `x`, indexed as they lie in memory; None where they are too many."""
    rows = as_in_memory(x.detach()).flatten(1).numpy()[None]
    return _by_shard(split_rows(len(x)), lambda low, count: find_events(rows, low, count, max_fraction=max_fraction))


def _by_shard(ends: list[tuple[int, int]], find: Callable[[int, int], Sparse | None]) -> list[Sparse] | None:
    """What `find` makes of the first row and the number of rows of each shard; None where any is None."""
    found: list[Sparse | None] = [None] * len(ends)

    def take(n: int, low: int, high: int) -> None:
        found[n] = find(low, high - low)

    parallel_for([partial(take, n, *end) for n, end in enumerate(ends)])
    shards = [shard for shard in found if shard is not None]
    return shards if len(shards) == len(found) else None


def as_in_memory(x: Tensor) -> Tensor:
    """`x` as it lies in memory: channels last where it does, else in the order of its axes."""
    return x.permute(0, 2, 3, 1) if lies_channels_last(x, dims=4) else x.contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, sparse: Sequence[Bits | Events]):
        units, width = len(weight), padded(len(weight))
        weights = blocked(weight.detach().numpy().T, width)
        start = aligned_zeros(width, weights.dtype)
        if bias is not None:
            start[:units] = bias.detach().numpy()
        z = aligned_empty(len(x) * width, weights.dtype).reshape(-1, width)

        def sum_shard(shard: Bits | Events, low: int, high: int) -> None:
            for first in range(low, high, MAX_ROWS):
                count = min(MAX_ROWS, high - first)
                kernel = shard.weighted_sum(z[first : first + count].reshape(-1), weights, start, width, 1)
                kernel(first - low, first - low + count)

        parallel_for(
            [
                partial(sum_shard, shard, *ends)
                for shard, ends in zip(sparse, split_rows(len(x), min_rows=MAX_ROWS), strict=True)
            ]
        )
        ctx.save_for_backward(weight)
        ctx.sparse, ctx.rows, ctx.has_bias = sparse, len(x), bias is not None
        return torch.from_numpy(z[:, :units]).contiguous()

    @staticmethod
    @first_derivatives("Dense")
    def backward(ctx, g):
        (weight,) = ctx.saved_tensors
        units, inputs = weight.shape
        width = padded(units)
        g_x = g @ weight if ctx.needs_input_grad[0] else None
        d = (g if width == units else F.pad(g, (0, width - units))).contiguous().numpy().reshape(-1)
        sums = [aligned_zeros(inputs * width, d.dtype) for _ in ctx.sparse]

        def grad_shard(shard: Bits | Events, low: int, high: int, total: np.ndarray) -> None:
            for first in range(0, high - low, MAX_ROWS):
                count = min(MAX_ROWS, high - low - first)
                shard.weight_grad(total, d[(low + first) * width :], width, 1)(first, first + count)

        ends = split_rows(ctx.rows, min_rows=MAX_ROWS)
        parallel_for(
            [partial(grad_shard, shard, *end, mine) for shard, end, mine in zip(ctx.sparse, ends, sums, strict=True)]
        )
        g_weight = torch.from_numpy(unblocked(sum(sums[1:], sums[0]), inputs, units))
        return g_x, g_weight, g.sum(0) if ctx.has_bias else None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, events: list[Events], stride, padding, window):
        rows, outs = len(x), len(weight)
        geometry = conv.geometry_of(tuple(x.shape[1:]), tuple(weight.shape), stride, padding)  # type: ignore[arg-type]
        table = conv.footprints(geometry, channels_last=lies_channels_last(x, dims=4))
        sizes = sizes_of(outs, geometry.out_height, geometry.out_width, *(window or (1, 1)))
        z = torch.empty((rows, *sizes[3:5], outs), dtype=weight.dtype)
        argmax = np.empty(z.numel() if window else 0, np.uint8)
        start = np.zeros(outs, z.numpy().dtype) if bias is None else bias.detach().numpy()
        packed = conv.packed_taps(weight.detach().numpy(), geometry)

        def add(shard: Events, low: int, high: int) -> None:
            out, arguments = z.numpy().reshape(-1), (*shard, packed, start, table, geometry)
            if window:
                compiled_plain(conv_pool.forward)(out, argmax, *arguments, sizes, low, high - low)
            else:
                compiled_plain(conv.forward)(out, *arguments, low, high - low)

        parallel_for([partial(add, shard, *ends) for shard, ends in zip(events, split_rows(rows), strict=True)])
        ctx.save_for_backward(weight)
        ctx.events, ctx.rows, ctx.has_bias, ctx.geometry, ctx.table = events, rows, bias is not None, geometry, table
        ctx.pool, ctx.size = (argmax, sizes) if window else None, packed.size
        return z.permute(0, 3, 1, 2)

    @staticmethod
    @first_derivatives("Conv")
    def backward(ctx, g):
        (weight,) = ctx.saved_tensors
        channels, height, width, *_ = ctx.geometry
        g = g.permute(0, 2, 3, 1).contiguous()
        d, ends = g.numpy().reshape(-1), split_rows(ctx.rows)
        outs = g.shape[3]
        row = g.shape[2] * outs if ctx.has_bias else 0
        sums = [(np.zeros(ctx.size, d.dtype), np.zeros(row, d.dtype)) for _ in ends]
        g_x = torch.empty((ctx.rows, height, width, channels), dtype=g.dtype) if ctx.needs_input_grad[0] else None
        back = d[:0] if g_x is None else conv.patch_panels(weight.detach().numpy(), ctx.geometry)

        def adjoint(shard: Events, low: int, high: int, total: np.ndarray, bias: np.ndarray) -> None:
            below = d[:0] if g_x is None else g_x.numpy().reshape(-1)
            if ctx.pool:
                argmax, sizes = ctx.pool
                kernel, arguments = compiled_plain(conv_pool.backward), (*shard, ctx.table, ctx.geometry, back, sizes)
                kernel(total, bias, below, d, argmax, *arguments, low, high - low)
                return
            kernel = compiled_plain(conv.weight_gradient)
            kernel(total, bias, *shard, d, ctx.table, ctx.geometry, low, high - low)
            if g_x is not None:
                compiled_plain(conv.input_gradient)(below, d, back, ctx.geometry, low, high - low)

        parallel_for(
            [partial(adjoint, shard, *end, *mine) for shard, end, mine in zip(ctx.events, ends, sums, strict=True)]
        )
        totals, biases = [weights for weights, _ in sums], [bias for _, bias in sums]
        g_weight = conv.unpacked_taps(sum(totals[1:], totals[0]), ctx.geometry)
        return (
            None if g_x is None else g_x.permute(0, 3, 1, 2),
            torch.from_numpy(g_weight),
            torch.from_numpy(sum(biases[1:], biases[0]).reshape(-1, outs).sum(0)) if ctx.has_bias else None,
            *(None, None, None, None),
        )
