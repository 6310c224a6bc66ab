"""Max pooling of images that lie channels last: one byte remembers which value of a window was the largest."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from snn_bp.kernels.around import first_derivatives
from snn_bp.kernels.cpu.compile import compiled_plain
from snn_bp.kernels.cpu.threads import parallel_for, split_rows
from snn_bp.kernels.cpu.vectors import largest, scatter_add
from snn_bp.kernels.layout import lies_channels_last


def max_pool(x: Tensor, layer: nn.MaxPool2d) -> Tensor:
    """`layer(x)` for `x` `[rows, channels, height, width]`, channels last in memory; else torch's own."""
    if not is_plain(layer) or not lies_channels_last(x, dims=4):
        return layer(x)
    return _MaxPool.apply(x, layer.kernel_size, layer.stride)  # type: ignore[return-value]


def is_plain(layer: nn.MaxPool2d) -> bool:
    """Whether a layer pools square windows of the image alone."""
    size, stride = layer.kernel_size, layer.stride
    plain = isinstance(size, int) and size < 16 and isinstance(stride, int) and layer.padding == 0
    return plain and layer.dilation == 1 and not layer.ceil_mode and not layer.return_indices


def sizes_of(channels: int, height: int, width: int, size: int, stride: int) -> tuple[int, ...]:
    """What the kernels want to know: the images, what is left of them, the windows."""
    return channels, height, width, (height - size) // stride + 1, (width - size) // stride + 1, size, stride


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, size: int, stride: int):
        rows, channels, height, width = x.shape
        sizes = sizes_of(channels, height, width, size, stride)
        out = torch.empty((rows, *sizes[3:5], channels), dtype=x.dtype)
        argmax = np.empty(out.numel(), np.uint8)
        flat = out.view(-1).numpy(), argmax, x.detach().permute(0, 2, 3, 1).reshape(-1).numpy()
        parallel_for([partial(compiled_plain(forward), *flat, sizes, *ends) for ends in split_rows(rows)])
        ctx.argmax, ctx.sizes, ctx.rows = argmax, sizes, rows
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @first_derivatives("Pool")
    def backward(ctx, g):
        channels, height, width, *_ = ctx.sizes
        g_x = torch.empty((ctx.rows, height, width, channels), dtype=g.dtype)
        flat = g_x.view(-1).numpy(), g.permute(0, 2, 3, 1).reshape(-1).numpy(), ctx.argmax
        parallel_for([partial(compiled_plain(backward), *flat, ctx.sizes, *ends) for ends in split_rows(ctx.rows)])
        return g_x.permute(0, 3, 1, 2), None, None


def forward(out, argmax, x, sizes, first, last):
    """Images `first .. last` of `out`, and which value of its window each is."""
    channels, height, width, out_height, out_width, size, stride = sizes
    for r in range(first, last):
        for row in range(out_height):
            for column in range(out_width):
                to = ((r * out_height + row) * out_width + column) * channels
                at = ((r * height + row * stride) * width + column * stride) * channels
                largest(out, argmax, to, x, at, channels, width * channels, size, channels)


def backward(g_x, g, argmax, sizes, first, last):
    """The adjoint of `forward`."""
    channels, height, width, out_height, out_width, size, stride = sizes
    image = height * width * channels
    for r in range(first, last):
        g_x[r * image : (r + 1) * image] = 0
        for row in range(out_height):
            for column in range(out_width):
                at = ((r * out_height + row) * out_width + column) * channels
                to = ((r * height + row * stride) * width + column * stride) * channels
                scatter_add(g_x, to, channels, width * channels, size, g, argmax, at, channels)
