"""A convolution driven by events: each input that is not zero adds its weights to the outputs that see it.

Images lie channels last. Around an image of outputs lies a rim for what the kernel would reach outside of it, so that a
window may be whole registers wide; a table says what of it an event meets. `weight` is arranged for that, [channels,
down, right, window rows, (window columns, outs)]: for an input of row y mod stride and column x mod stride the taps
that meet an output, the last one first. Zeros stand where a stride leaves one event fewer taps than another, and up to
a multiple of `LANES` in each row of the window: an event that is not finite makes NaN there too. All arrays are flat.
"""

import functools
from typing import NamedTuple

import numpy as np

from snn_bp.kernels.cpu.aligned import room
from snn_bp.kernels.cpu.llvm import inner
from snn_bp.kernels.cpu.vectors import LANES, add_scaled, multiply, padded, panels, put

TABLES = 32  # of places that are kept: those of a few networks, each up to some MB


class Geometry(NamedTuple):
    """Sizes of a convolution; `down, right` are its stride, `above, left` its padding."""

    channels: int
    height: int
    width: int
    outs: int
    out_height: int
    out_width: int
    tall: int
    wide: int
    down: int
    right: int
    above: int
    left: int
    rows: int  # of outputs that an event meets
    columns: int
    run: int  # numbers in a row of its weights
    with_rim: int  # columns of an image of outputs with its rim
    size: int  # numbers of such an image
    seen: int  # numbers in a row of what an output sees
    below_with_rim: int  # columns of an image of inputs with its rim
    below_size: int


def geometry_of(
    sample: tuple[int, int, int], weight: tuple[int, int, int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Geometry:
    """What the kernels want to know of a convolution of `[channels, height, width]`."""
    (channels, height, width), (outs, _, tall, wide) = sample, weight
    (down, right), (above, left) = stride, padding
    out_height, out_width = (height + 2 * above - tall) // down + 1, (width + 2 * left - wide) // right + 1
    rows, columns = -(-tall // down), -(-wide // right)
    high = max((height - 1 + above) // down + rows, out_height + rows - 1)
    broad = max((width - 1 + left) // right + columns, out_width + columns - 1)
    run, seen = padded(columns * outs), padded(wide * channels)
    below_high = max((out_height - 1) * down + tall, above + height)
    below_broad = max((out_width - 1) * right + wide, left + width)
    return Geometry(
        channels, height, width, outs, out_height, out_width, tall, wide, down, right, above, left,
        rows, columns, run, broad, high * broad * outs + LANES,
        seen, below_broad, below_high * below_broad * channels + LANES,
    )  # fmt: skip


@functools.lru_cache(maxsize=TABLES)
def reach(g: Geometry, *, channels_last: bool) -> np.ndarray:
    """For every place of an input in memory, uint32 [places, 4]: what of its window lies in the image of outputs.

    Columns: where its weights begin; where the window does, in an image with its rim; its rows; the numbers in a row,
    from one multiple of `LANES` to another.
    """
    c, y, x = np.indices((g.channels, g.height, g.width))
    (row, y), (column, x) = divmod(y + g.above, g.down), divmod(x + g.left, g.right)  # of the window's last output
    above, left = np.maximum(0, g.rows - 1 - row), np.maximum(0, g.columns - 1 - column)
    below, behind = np.maximum(0, row + 1 - g.out_height), np.maximum(0, column + 1 - g.out_width)
    first = left * g.outs // LANES * LANES
    run = np.maximum(0, -(-(g.columns - behind) * g.outs // LANES) * LANES - first)
    start = (((c * g.down + y) * g.right + x) * g.rows + above) * g.run + first
    window = ((row + above) * g.with_rim + column) * g.outs + first
    table = np.stack([start, window, np.maximum(0, g.rows - above - below), run], axis=-1)
    if channels_last:
        table = table.transpose(1, 2, 0, 3)
    return np.ascontiguousarray(table.reshape(-1, 4), dtype=np.uint32)


def arrange(weight: np.ndarray, g: Geometry) -> np.ndarray:
    """[outs, channels, tall, wide], as the kernels want it, flat."""
    taps = np.zeros((g.outs, g.channels, g.rows * g.down, g.columns * g.right), weight.dtype)
    taps[:, :, : g.tall, : g.wide] = weight
    taps = taps.reshape(g.outs, g.channels, g.rows, g.down, g.columns, g.right)[:, :, ::-1, :, ::-1]
    arranged = np.zeros((g.channels * g.down * g.right * g.rows, g.run), weight.dtype)
    arranged[:, : g.columns * g.outs] = taps.transpose(1, 3, 5, 2, 4, 0).reshape(len(arranged), -1)
    return arranged.reshape(-1)


def arranged_back(arranged: np.ndarray, g: Geometry) -> np.ndarray:
    """The inverse of `arrange`."""
    taps = arranged.reshape(-1, g.run)[:, : g.columns * g.outs]
    taps = taps.reshape(g.channels, g.down, g.right, g.rows, g.columns, g.outs).transpose(5, 0, 3, 1, 4, 2)
    whole = taps[:, :, ::-1, :, ::-1].reshape(g.outs, g.channels, g.rows * g.down, g.columns * g.right)
    return np.ascontiguousarray(whole[:, :, : g.tall, : g.wide])


def forward(z, begin, end, index, value, weight, bias, table, geometry, first, rows):
    """Fill images `first .. first + rows` of `z`: bias plus what their events bring."""
    image, length = room(geometry.size, z), geometry.out_width * geometry.outs
    for r in range(rows):
        convolve_image(image, begin[r], end[r], index, value, weight, bias, table, geometry)
        to = (first + r) * geometry.out_height * length
        for row in range(geometry.out_height):
            put(z, to + row * length, image, within_rim(geometry, row), length)


def weight_gradient(g_weight, g_bias, begin, end, index, value, d, table, geometry, first, rows):
    """Add to `g_weight`, arranged as `weight`, the gradient from the same images; zeros stand for nothing there too.

    Added to `g_bias`, a row long or empty: each row of the images.
    """
    image, length = room(geometry.size, d), geometry.out_width * geometry.outs
    image[:] = 0
    for r in range(rows):
        at = (first + r) * geometry.out_height * length
        for row in range(geometry.out_height):
            put(image, within_rim(geometry, row), d, at + row * length, length)
            add_row(g_bias, d, at + row * length)
        gather_image(g_weight, image, begin[r], end[r], index, value, table, geometry)


@inner
def add_row(total, values, at):
    """Add to `total` as many `values`, from `at` on."""
    for m in range(np.uint64(total.size)):
        total[m] += values[np.uint64(at) + m]


@inner
def within_rim(geometry, row):
    """Where a row of an image of outputs begins, in one with its rim."""
    return ((geometry.rows - 1 + row) * geometry.with_rim + geometry.columns - 1) * geometry.outs


@inner
def convolve_image(image, begin, end, index, value, weight, bias, table, geometry):
    """Fill an image with a rim: bias plus what the events `begin .. end` bring; what the rim gets means nothing."""
    outs, run, line = geometry.outs, geometry.run, geometry.with_rim * geometry.outs
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
            add_scaled(image, to + row * line, weight, start + row * run, value[n], width)


@inner
def gather_image(g_weight, image, begin, end, index, value, table, geometry):
    """Add to `g_weight` the gradient from events and the gradient of an image, zeros in its rim."""
    run, line = geometry.run, geometry.with_rim * geometry.outs
    for n in range(begin, end):
        start, at, met, width = _window(table, index[n])
        for row in range(met):
            add_scaled(g_weight, start + row * run, image, at + row * line, value[n], width)


@inner(forceinline=True)
def _window(table, place):
    """The row of a table of `reach`."""
    row = np.uint64(place)
    start, window = np.int64(table[row, np.uint64(0)]), np.int64(table[row, np.uint64(1)])
    return start, window, np.int64(table[row, np.uint64(2)]), np.int64(table[row, np.uint64(3)])


def seen_by_outputs(weight: np.ndarray, g: Geometry) -> np.ndarray:
    """[outs, channels, tall, wide] as panels of [outs, (tall, `seen`)], for `input_gradient`."""
    taps = np.zeros((g.outs, g.tall, g.seen), weight.dtype)
    taps[:, :, : g.wide * g.channels] = weight.transpose(0, 2, 3, 1).reshape(g.outs, g.tall, -1)
    return panels(taps.reshape(g.outs, -1), g.outs, g.tall * g.seen)


def input_gradient(g_x, d, back, geometry, first, rows):
    """Write the gradient of images `first .. first + rows`, channels last; `back` is of `seen_by_outputs`."""
    g, places = geometry, geometry.out_height * geometry.out_width
    every, line, length = g.tall * g.seen, g.below_with_rim * g.channels, g.width * g.channels
    columns, image, one = room(places * every, d), room(g.below_size, d), back.dtype.type(1)
    for r in range(first, first + rows):
        multiply(columns, 0, every, d, r * places * g.outs, g.outs, back, places, g.outs, every, False)
        image[:] = 0
        for row in range(g.out_height):
            for column in range(g.out_width):
                to, at = row * g.down * line + column * g.right * g.channels, (row * g.out_width + column) * every
                for ky in range(g.tall):
                    add_scaled(image, to + ky * line, columns, at + ky * g.seen, one, g.seen)
        for row in range(g.height):
            put(g_x, (r * g.height + row) * length, image, (g.above + row) * line + g.left * g.channels, length)
