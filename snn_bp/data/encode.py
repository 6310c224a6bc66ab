"""Events to frames in one compiled pass over the events of a batch.

An event at `t` microseconds lies in step `t // step_us`, in integers, so that every event with
0 <= t < steps * step_us is counted once and no other is. Counts are float32, exact up to 2**24 in one cell, or bytes
where that many suffice: a quarter of the memory to clear and to look through.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels.lazy import kernel


@dataclass(frozen=True, eq=False)
class Events:
    """Events of many recordings end to end; recording n is `offsets[n]:offsets[n + 1]`.

    A row of channels has no `y` and no `p`: these two are empty then. Times are in microseconds from the
    start of the recording, in any order. The arrays are read-only, often memory maps.
    """

    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    t: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def encode(
    events: Events,
    ids: np.ndarray,
    *,
    steps: int,
    step_us: int,
    shape: tuple[int, ...],
    downsample: int = 1,
    binary: bool = False,
    shifts: np.ndarray | None = None,
    turns: np.ndarray | None = None,
    in_bytes: bool = False,
) -> Tensor:
    """Counts [steps, len(ids), polarities, height, width] of the recordings `ids`.

    In bytes (uint8) where they are asked for and no cell counts more than 255, else in float32.

    `shape` is (polarities, height, width) after downsampling. `shifts` [len(ids), 2] moves each recording by
    so many pixels in x and y, before downsampling; `turns` [len(ids)] turns it by so many radians about the middle
    of the sensor, before it is moved, to the nearest pixel. What leaves the sensor is not counted.
    """
    if shifts is None:
        shifts = np.zeros((len(ids), 2), dtype=np.int64)
    arrays = (events.x, events.y, events.p, events.t)
    starts, stops = events.offsets[ids], events.offsets[1:][ids]
    columns, rows = (np.empty(size * downsample, np.int64) for size in shape[:0:-1])
    if turns is None or not turns.any():
        moves, turned = (shifts, np.empty(0), np.empty(0)), np.empty((0, 0), np.int64)
    else:
        moves, turned = (shifts, np.cos(turns), np.sin(turns)), np.empty((len(rows), len(columns)), np.int64)
    for dtype, test in ((np.uint8, True), (np.float32, None))[not in_bytes :]:
        frames = np.empty((steps, len(ids), *shape), dtype)  # NumPy's large arrays lie in huge pages
        if _count(frames, *arrays, starts, stops, *moves, step_us, downsample, binary, test, columns, rows, turned):
            break
    return torch.from_numpy(frames)


def _fill_cells(cells, shift, downsample, stride):
    for pixel in range(len(cells)):
        moved = pixel + shift
        cells[pixel] = moved // downsample * stride if 0 <= moved < len(cells) else -1


def _turn(turned, columns, rows, cosine, sine):
    height, width = turned.shape
    for y in range(height):
        for x in range(width):
            right, down = x - (width - 1) / 2, y - (height - 1) / 2
            column = int(np.floor(cosine * right - sine * down + width / 2))
            row = int(np.floor(sine * right + cosine * down + height / 2))
            inside = 0 <= column < width and 0 <= row < height
            on_sensor = inside and rows[row] >= 0 and columns[column] >= 0
            turned[y, x] = rows[row] + columns[column] if on_sensor else -1


@kernel(_fill_cells, _turn)
def _count(
    frames, x, y, p, t, starts, stops, shifts, cosines, sines, step_us, downsample, binary, test, columns, rows, turned
):
    """Whether every count fits the frames' type; with None for `test`, which floats need not pay, not looked at.

    For each pixel `columns` and `rows` get cells from the corner of a frame, -1 off the sensor, and `turned`, unless
    it is empty, both together.
    """
    one, fits = frames.dtype.type(1), True
    steps, samples, polarities, height, width = frames.shape
    cells, plane, window = frames.reshape(-1), height * width, steps * step_us
    has_rows, frame = len(y) > 0, polarities * plane
    for n in range(samples):
        for step in range(steps):  # here, not for all at once before: they are still in the cache when counted
            cells[(step * samples + n) * frame :][:frame] = 0
        _fill_cells(columns, shifts[n, 0], downsample, np.int64(1))
        _fill_cells(rows, shifts[n, 1], downsample, width)
        if len(turned):
            _turn(turned, columns, rows, cosines[n], sines[n])
        corner, begin, end = 0, 0, 0  # the frame that the last event fell into: its first cell and its span of time
        for e in range(starts[n], stops[n]):
            time = np.int64(t[e])
            if time < begin or time >= end:  # mostly in order: seldom divides
                if time < 0 or time >= window:
                    continue
                step = time // step_us
                begin, end = step * step_us, (step + 1) * step_us
                corner = (step * samples + n) * frame
            row, polarity = rows[0], np.int64(0)
            if has_rows:
                if y[e] >= len(rows):
                    continue
                row, polarity = rows[np.uint64(y[e])], np.int64(p[e])
            if x[e] >= len(columns) or polarity >= polarities:
                continue
            column = columns[np.uint64(x[e])]
            if len(turned):
                row, column = np.int64(0), turned[y[e] if has_rows else 0, x[e]]
            if row < 0 or column < 0:
                continue
            cell = np.uint64(corner + polarity * plane + row + column)  # unsigned: no test for wrapping
            cells[cell] = one if binary else cells[cell] + one
            if test is not None:
                fits &= cells[cell] != 0  # a full byte begins again
    return fits
