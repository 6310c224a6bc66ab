"""A convolution driven by events: each input that is not zero adds its weights to the outputs that see it.

Images lie channels last. An image of outputs has a halo for what a kernel reaches outside of it, so that the window of
an event may be whole registers wide; a table of footprints says which part of its window an event meets. Weights are
packed as [channels, stride_h, stride_w, window rows, (window columns, outs)]: for an input of row y mod stride and
column x mod stride the taps that meet an output, the last one first. Zeros stand where a stride leaves one event fewer
taps than another, and up to a multiple of `LANES` in each row of the window: an event that is not finite makes NaN
there too. All arrays are flat.
"""

import functools
from typing import NamedTuple

import numpy as np

from snn_bp.kernels.cpu.aligned import kernel_empty
from snn_bp.kernels.cpu.compile import inner
from snn_bp.kernels.cpu.vectors import LANES, add_scaled, multiply, padded, panels, store

MAX_TABLES = 32  # tables of footprints that are kept: those of a few networks, each up to some MB


class Geometry(NamedTuple):
    """Sizes of a convolution."""

    channels: int
    height: int
    width: int
    outs: int
    out_height: int
    out_width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    window_rows: int  # outputs that an event meets, down
    window_columns: int  # and across
    row_len: int  # packed weights in a row of the window
    halo_width: int  # columns of an image of outputs with its halo
    halo_size: int  # numbers of such an image
    patch_len: int  # numbers in a row of what an output sees
    input_halo_width: int  # columns of an image of inputs with its halo
    input_halo_size: int  # numbers of such an image


def geometry_of(
    sample: tuple[int, int, int], weight: tuple[int, int, int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Geometry:
    """What the kernels want to know of a convolution of `[channels, height, width]`."""
    (channels, height, width), (outs, _, kernel_h, kernel_w) = sample, weight
    (stride_h, stride_w), (top, left) = stride, padding
    out_height = (height + 2 * top - kernel_h) // stride_h + 1
    out_width = (width + 2 * left - kernel_w) // stride_w + 1
    rows, columns = -(-kernel_h // stride_h), -(-kernel_w // stride_w)
    halo_height = max((height - 1 + top) // stride_h + rows, out_height + rows - 1)
    halo_width = max((width - 1 + left) // stride_w + columns, out_width + columns - 1)
    input_halo_height = max((out_height - 1) * stride_h + kernel_h, top + height)
    input_halo_width = max((out_width - 1) * stride_w + kernel_w, left + width)
    return Geometry(
        channels, height, width, outs, out_height, out_width, kernel_h, kernel_w, stride_h, stride_w, top, left,
        rows, columns, padded(columns * outs), halo_width, halo_height * halo_width * outs + LANES,
        padded(kernel_w * channels), input_halo_width, input_halo_height * input_halo_width * channels + LANES,
    )  # fmt: skip


@functools.lru_cache(maxsize=MAX_TABLES)
def footprints(g: Geometry, *, channels_last: bool) -> np.ndarray:
    """For every input, as it lies in memory, uint32 [inputs, 4]: which part of its window lies in the image of outputs.

    Columns: where its weights begin; where the window does, in an image with its halo; its rows; the numbers in a row,
    from one multiple of `LANES` to another.
    """
    c, y, x = np.indices((g.channels, g.height, g.width))
    (row, y), (column, x) = divmod(y + g.pad_top, g.stride_h), divmod(x + g.pad_left, g.stride_w)  # its last output
    above, left = np.maximum(0, g.window_rows - 1 - row), np.maximum(0, g.window_columns - 1 - column)
    below, behind = np.maximum(0, row + 1 - g.out_height), np.maximum(0, column + 1 - g.out_width)
    first = left * g.outs // LANES * LANES
    length = np.maximum(0, -(-(g.window_columns - behind) * g.outs // LANES) * LANES - first)
    start = (((c * g.stride_h + y) * g.stride_w + x) * g.window_rows + above) * g.row_len + first
    window = ((row + above) * g.halo_width + column) * g.outs + first
    table = np.stack([start, window, np.maximum(0, g.window_rows - above - below), length], axis=-1)
    if channels_last:
        table = table.transpose(1, 2, 0, 3)
    return np.ascontiguousarray(table.reshape(-1, 4), dtype=np.uint32)


def packed_taps(weight: np.ndarray, g: Geometry) -> np.ndarray:
    """[outs, channels, kernel_h, kernel_w], as the kernels want it, flat."""
    rows, columns = g.window_rows, g.window_columns
    taps = np.zeros((g.outs, g.channels, rows * g.stride_h, columns * g.stride_w), weight.dtype)
    taps[:, :, : g.kernel_h, : g.kernel_w] = weight
    taps = taps.reshape(g.outs, g.channels, rows, g.stride_h, columns, g.stride_w)[:, :, ::-1, :, ::-1]
    packed = np.zeros((g.channels * g.stride_h * g.stride_w * rows, g.row_len), weight.dtype)
    packed[:, : columns * g.outs] = taps.transpose(1, 3, 5, 2, 4, 0).reshape(len(packed), -1)
    return packed.reshape(-1)


def unpacked_taps(packed: np.ndarray, g: Geometry) -> np.ndarray:
    """The inverse of `packed_taps`."""
    rows, columns = g.window_rows, g.window_columns
    taps = packed.reshape(-1, g.row_len)[:, : columns * g.outs]
    taps = taps.reshape(g.channels, g.stride_h, g.stride_w, rows, columns, g.outs).transpose(5, 0, 3, 1, 4, 2)
    taps = taps[:, :, ::-1, :, ::-1].reshape(g.outs, g.channels, rows * g.stride_h, columns * g.stride_w)
    return np.ascontiguousarray(taps[:, :, : g.kernel_h, : g.kernel_w])


def forward(z, begin, end, index, value, weight, bias, table, geometry, first, rows):
    """Fill images `first .. first + rows` of `z`: bias plus what their events bring."""
    image, length = kernel_empty(geometry.halo_size, z), geometry.out_width * geometry.outs
    for r in range(rows):
        convolve_image(image, begin[r], end[r], index, value, weight, bias, table, geometry)
        to = (first + r) * geometry.out_height * length
        for row in range(geometry.out_height):
            store(z, to + row * length, image, inside_halo(geometry, row), length)


def weight_gradient(g_weight, g_bias, begin, end, index, value, d, table, geometry, first, rows):
    """Add to `g_weight`, packed as `weight`, the gradient from the same images; zeros stand for nothing there too.

    Added to `g_bias`, a row long or empty: each row of the images.
    """
    image, length = kernel_empty(geometry.halo_size, d), geometry.out_width * geometry.outs
    image[:] = 0
    for r in range(rows):
        at = (first + r) * geometry.out_height * length
        for row in range(geometry.out_height):
            store(image, inside_halo(geometry, row), d, at + row * length, length)
            add_row(g_bias, d, at + row * length)
        weight_grad_image(g_weight, image, begin[r], end[r], index, value, table, geometry)


@inner
def add_row(total, values, at):
    """Add to `total` as many `values`, from `at` on."""
    for m in range(np.uint64(total.size)):
        total[m] += values[np.uint64(at) + m]


@inner
def inside_halo(geometry, row):
    """Where a row of an image of outputs begins, in one with its halo."""
    return ((geometry.window_rows - 1 + row) * geometry.halo_width + geometry.window_columns - 1) * geometry.outs


@inner
def convolve_image(image, begin, end, index, value, weight, bias, table, geometry):
    """Fill an image with a halo: bias plus what the events `begin .. end` bring; what the halo gets means nothing."""
    outs, row_len, line = geometry.outs, geometry.row_len, geometry.halo_width * geometry.outs
    unbiased = True
    for m in range(outs):
        unbiased &= bias[m] == 0
    if unbiased:
        image[:] = 0
    else:
        for corner in range(0, image.size - outs + 1, outs):
            for m in range(outs):
                image[corner + m] = bias[m]
    for n in range(begin, end):
        start, to, met, width = _window(table, index[n])
        for row in range(met):
            add_scaled(image, to + row * line, weight, start + row * row_len, value[n], width)


@inner
def weight_grad_image(g_weight, image, begin, end, index, value, table, geometry):
    """Add to `g_weight` the gradient from events and the gradient of an image, zeros in its halo."""
    row_len, line = geometry.row_len, geometry.halo_width * geometry.outs
    for n in range(begin, end):
        start, at, met, width = _window(table, index[n])
        for row in range(met):
            add_scaled(g_weight, start + row * row_len, image, at + row * line, value[n], width)


@inner(forceinline=True)
def _window(table, position):
    """The row of a table of `footprints`."""
    row = np.uint64(position)
    start, window = np.int64(table[row, np.uint64(0)]), np.int64(table[row, np.uint64(1)])
    return start, window, np.int64(table[row, np.uint64(2)]), np.int64(table[row, np.uint64(3)])


def patch_panels(weight: np.ndarray, g: Geometry) -> np.ndarray:
    """[outs, channels, tall, wide] as panels of [outs, (tall, `patch_len`)], for `input_gradient`."""
    taps = np.zeros((g.outs, g.kernel_h, g.patch_len), weight.dtype)
    taps[:, :, : g.kernel_w * g.channels] = weight.transpose(0, 2, 3, 1).reshape(g.outs, g.kernel_h, -1)
    return panels(taps.reshape(g.outs, -1), g.outs, g.kernel_h * g.patch_len)


def input_gradient(g_x, d, back, geometry, first, rows):
    """Write the gradient of images `first .. first + rows`, channels last; `back` is of `patch_panels`."""
    g, positions = geometry, geometry.out_height * geometry.out_width
    every, line, length = g.kernel_h * g.patch_len, g.input_halo_width * g.channels, g.width * g.channels
    columns, image, one = kernel_empty(positions * every, d), kernel_empty(g.input_halo_size, d), back.dtype.type(1)
    for r in range(first, first + rows):
        multiply(columns, 0, every, d, r * positions * g.outs, g.outs, back, positions, g.outs, every, False)
        image[:] = 0
        for row in range(g.out_height):
            for column in range(g.out_width):
                to, at = (
                    row * g.stride_h * line + column * g.stride_w * g.channels,
                    (row * g.out_width + column) * every,
                )
                for ky in range(g.kernel_h):
                    add_scaled(image, to + ky * line, columns, at + ky * g.patch_len, one, g.patch_len)
        for row in range(g.height):
            store(g_x, (r * g.height + row) * length, image, (g.pad_top + row) * line + g.pad_left * g.channels, length)
