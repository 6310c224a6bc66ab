"""A convolution driven by events: each input that is not zero adds its weights to the outputs that see it.

Images lie channels last, so what one event adds to a row of outputs is one run of numbers. `weight` is arranged for
that, [channels, tall, residue, run, outs]: for an input column of residue x mod stride, the kernel's columns that meet
an output, last one first. All arrays are flat.
"""

import functools
from typing import NamedTuple

import numpy as np

from snn_bp.kernels.lines import room
from snn_bp.kernels.vectors import add_scaled, multiply


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


@functools.cache
def reach(geometry: Geometry, *, channels_last: bool) -> np.ndarray:
    """For every place of an input in memory, int32: where its weights begin, and which outputs they meet.

    Columns: start in `weight` of channel and column; first row of the kernel; output row it meets (each next kernel
    row, a stride on, meets the row above); first output column; how many numbers a run has.
    """
    g = geometry
    runs = -(-g.wide // g.right)
    c, y, x = np.indices((g.channels, g.height, g.width))
    residue, column = (x + g.left) % g.right, (x + g.left) // g.right
    count = -(-(g.wide - residue) // g.right)
    first = column - (count - 1)
    low, high = np.maximum(0, -first), np.minimum(count, g.out_width - first)
    start = ((c * g.tall * g.right + residue) * runs + low) * g.outs
    length = np.maximum(high - low, 0) * g.outs
    table = np.stack([start, (y + g.above) % g.down, (y + g.above) // g.down, first + low, length], axis=-1)
    if channels_last:
        table = table.transpose(1, 2, 0, 3)
    return np.ascontiguousarray(table.reshape(-1, 5), dtype=np.int32)


def forward(z, begin, end, index, value, weight, bias, table, geometry, first, rows):
    """Fill images `first .. first + rows` of `z`: bias plus what their events bring."""
    _, _, _, outs, out_height, out_width, tall, wide, down, right, _, _ = geometry
    step = right * ((wide + right - 1) // right) * outs  # from one row of the kernel to the next
    row_size, plain = out_width * outs, bool((bias == 0).all())
    for r in range(rows):
        image = (first + r) * out_height
        if plain:
            z[image * row_size : (image + out_height) * row_size] = 0
        else:
            for corner in range(image * row_size, (image + out_height) * row_size, outs):
                for m in range(outs):
                    z[corner + m] = bias[m]
        for n in range(begin[r], end[r]):
            place = np.int64(index[n])
            start, ky, row, column, length = table[place]
            while ky < tall and row >= 0:
                if row < out_height:
                    to = ((image + row) * out_width + column) * outs
                    add_scaled(z, to, weight, start + ky * step, value[n], length)
                ky += down
                row -= 1


def weight_gradient(g_weight, begin, end, index, value, d, table, geometry, first, rows):
    """Add to `g_weight`, arranged as `weight`, the gradient from the same images."""
    _, _, _, outs, out_height, out_width, tall, wide, down, right, _, _ = geometry
    step = right * ((wide + right - 1) // right) * outs
    for r in range(rows):
        image = (first + r) * out_height
        for n in range(begin[r], end[r]):
            place = np.int64(index[n])
            start, ky, row, column, length = table[place]
            while ky < tall and row >= 0:
                if row < out_height:
                    at = ((image + row) * out_width + column) * outs
                    add_scaled(g_weight, start + ky * step, d, at, value[n], length)
                ky += down
                row -= 1


def input_gradient(g_x, d, back, geometry, first, rows):
    """Write the gradient of images `first .. first + rows`, channels last; `back` holds panels of
    [outs, (tall, wide, channels)]."""
    channels, height, width, outs, out_height, out_width, tall, wide, down, right, above, left = geometry
    places, run = out_height * out_width, wide * channels
    seen = back.size // outs  # numbers one output sees, padded to whole panels
    columns = room(places * seen, d)
    one = back.dtype.type(1)
    for r in range(first, first + rows):
        multiply(columns, 0, seen, d, r * places * outs, outs, back, places, outs, seen, False)
        image = r * height * width * channels
        g_x[image : image + height * width * channels] = 0
        for row in range(out_height):
            for column in range(out_width):
                x = column * right - left
                low, high = max(0, -x), min(wide, width - x)
                for ky in range(max(0, above - row * down), min(tall, height + above - row * down)):
                    to = image + ((row * down - above + ky) * width + x + low) * channels
                    at = (row * out_width + column) * seen + ky * run + low * channels
                    add_scaled(g_x, to, columns, at, one, (high - low) * channels)
