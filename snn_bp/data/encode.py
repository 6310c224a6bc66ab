"""Events to frames in one compiled pass over the events of a batch.

An event at `t` microseconds lies in step `t // step_us`, in integers, so that every event with
0 <= t < steps * step_us is counted once and no other is. Counts are float32, exact up to 2**24 in one cell, or bytes
where that many suffice: a quarter of the memory to clear and to look through.

Where recordings are augmented, the events of one are changed on their way, in buffers as large as one recording.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp.data.mapped import fetch, first_at
from snn_bp.kernels.lazy import kernel
from snn_bp.runtime.capacity import check_room

# an event has 64 random bits: 36 choose three quantiles, 27 whether it is dropped, and one whether it is blended in
QUANTILES, DROP_BITS = 4096, 27
DRAWN = np.dtype([
    ("events", "u8"), ("partners", "u8"), ("noise", "u8"),  # keys of random numbers
    ("partner", "i8"), ("blend", "i8"), ("left", "i8"), ("right", "i8"), ("top", "i8"), ("bottom", "i8"),
    ("fraction", "f8"), ("drop", "i8"), ("gap", "i8"), ("gap_end", "i8"),
    ("hole_left", "i8"), ("hole_right", "i8"), ("hole_top", "i8"), ("hole_bottom", "i8"),
    ("crop", "f8"), ("reach", "i8"), ("end", "i8"), ("flip", "i8"), ("noises", "i8"),
])  # fmt: skip


@dataclass(frozen=True, eq=False)
class Changes:
    """What becomes of the recordings of a batch on their way into frames, as `draws.draw` gives it.

    `drawn` has a record for each recording. Of its events those are left out that a chance of `drop` / 2**27 takes,
    that lie in `gap..gap_end` microseconds of the window, or in the rectangle `hole_left..hole_right`,
    `hole_top..hole_bottom`. `partner` is the index of a second recording (-1: none): with `blend`, each event of both
    is kept by chance 0.5, else those of the second replace those of the first in the rectangle `left..right`,
    `top..bottom`; `fraction` of the target is the second one's, where classes are mixed. The window starts up to
    `reach` microseconds late, a fraction `crop` of that or of what the recording has more than the window, where it
    ends at `end` (-1: behind its last event). Times then move by one of `time_us`, addresses by one of `pixels`; `flip`
    mirrors x; `noises` events are added.
    """

    drawn: np.ndarray
    time_us: np.ndarray  # as likely each, empty: none
    pixels: np.ndarray
    has_rows: bool  # whether the sensor is a camera

    def with_partners(self, ids: np.ndarray) -> np.ndarray:
        """The recordings `ids` and, behind them, their partners, which are then known by their index in this."""
        partner = self.drawn["partner"]
        has_one = partner >= 0
        sources = np.concatenate([ids, partner[has_one]])
        partner[has_one] = np.arange(len(ids), len(sources))
        return sources


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
    ends: np.ndarray | None = None  # behind which no event of a recording is looked at; None: all are
    spans: np.ndarray | None = None  # those of `Beside`, where they are known

    def __len__(self) -> int:
        return len(self.labels)


class Stretches(NamedTuple):
    """Which events become frames, `starts:stops` for each recording and for its partner; no others are read."""

    starts: np.ndarray
    stops: np.ndarray
    partner_starts: np.ndarray
    partner_stops: np.ndarray
    begins: np.ndarray  # when the window of each recording begins, in microseconds


def stretches(
    events: Events, ids: np.ndarray, changes: Changes | None, *, window: int, fetched: bool = False
) -> Stretches:
    """Those of the recordings `ids` in a window of so many microseconds, as narrow as can be said.

    With `fetched` the times that this looks at are asked for together, before they are read.
    """
    ends = events.offsets[1:] if events.ends is None else events.ends
    if changes is None:
        none = np.zeros(len(ids), np.int64)
        return Stretches(events.offsets[ids], ends[ids], none, none, none)
    partner, reach, last = changes.drawn["partner"], changes.drawn["reach"], changes.drawn["end"].copy()
    has_one = np.flatnonzero(partner >= 0)
    sources = np.concatenate([ids, partner[has_one]])
    starts, stops = events.offsets[sources], ends[sources]
    for n in np.flatnonzero((last < 0) & (reach > 0)).tolist():
        times = events.t[starts[n] : stops[n]] if events.spans is None else events.spans[ids[n], 1:2]
        last[n] = int(times.max(initial=0)) + 1
    room = np.minimum(reach, last - window)
    begins = np.where(room > 0, changes.drawn["crop"] * (room + 1), 0).astype(np.int64)
    if events.spans is not None:
        jitter = changes.time_us[-1] if len(changes.time_us) else 0
        low = np.concatenate([begins, begins[has_one]]) - jitter
        high, (first, latest, is_ordered) = low + window + 2 * jitter, events.spans[sources].T
        early, late = np.flatnonzero(is_ordered & (first < low)), np.flatnonzero(is_ordered & (latest >= high))
        both = np.concatenate([early, late])
        limits = np.concatenate([low[early], high[late]])
        found = first_at(events.t, starts[both], stops[both], limits, fetched=fetched)
        starts[early], stops[late] = found[: len(early)], found[len(early) :]
    partners = np.zeros((2, len(ids)), np.int64)
    partners[:, has_one] = starts[len(ids) :], stops[len(ids) :]
    return Stretches(starts[: len(ids)], stops[: len(ids)], partners[0], partners[1], begins)


def fetch_events(events: Events, ids: np.ndarray, changes: Changes | None, *, window: int) -> None:
    """Have what `encode` reads of the recordings read from disk, in the background."""
    found = stretches(events, ids, changes, window=window, fetched=True)
    starts, stops = (np.concatenate(each) for each in (found[0:4:2], found[1:4:2]))
    for array in (events.t, events.x, events.y, events.p):
        if len(array):
            fetch(array, starts, stops)


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
    changes: Changes | None = None,
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
    found = stretches(events, ids, changes, window=steps * step_us)
    columns, rows = (np.empty(size * downsample, np.int64) for size in shape[:0:-1])
    if turns is None or not turns.any():
        moves, turned = (shifts, np.empty(0), np.empty(0)), np.empty((0, 0), np.int64)
    else:
        moves, turned = (shifts, np.cos(turns), np.sin(turns)), np.empty((len(rows), len(columns)), np.int64)
    cells = (step_us, downsample, binary)
    for dtype, test in ((np.uint8, True), (np.float32, None))[not in_bytes :]:
        frames = np.empty((steps, len(ids), *shape), dtype)  # NumPy's large arrays lie in huge pages
        if changes is None:
            fits = _count(frames, *arrays, found.starts, found.stops, *moves, *cells, test, columns, rows, turned)
        else:
            firsts = events.offsets[ids], events.offsets[:-1][changes.drawn["partner"]]
            fits = _count_changed(
                frames, *arrays, *found, *firsts, *moves, *cells, test, columns, rows, turned, changes.drawn,
                changes.time_us, changes.pixels, *_buffers(events, found, changes),
            )  # fmt: skip
        if fits:
            break
    return torch.from_numpy(frames)


def mixed(z):
    """64 bits from 64 bits, each of which hangs on all of them: the second half of splitmix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _buffers(events: Events, found: Stretches, changes: Changes) -> tuple[np.ndarray, ...]:
    """Room for the events of any of the recordings, its partner's and its noise: x, y, p, t."""
    room = found.stops - found.starts + found.partner_stops - found.partner_starts + changes.drawn["noises"]
    longest = int(room.max(initial=0))
    rows = longest * changes.has_rows
    check_room(
        14 * longest, what=f"{longest:,} events of a recording and what augmentations add to it",
        remedy="A lower rate of NoiseEvents brings it down.",
    )  # fmt: skip
    kinds = ((longest, events.x.dtype), (rows, events.y.dtype), (rows, events.p.dtype), (longest, np.int64))
    return tuple(np.empty(count, dtype) for count, dtype in kinds)


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


def _count_events(
    cells, x, y, p, t, first, last, start, columns, rows, turned, sizes, n, samples, step_us, window, binary, test
):
    """Count events first..last of the arrays into frames of recording n, from `start` on; whether every count fits."""
    polarities, height, width = sizes
    plane = height * width
    one, fits, has_rows, frame = cells.dtype.type(1), True, len(y) > 0, polarities * plane
    corner, begin, end = 0, 0, 0  # the frame that the last event fell into: its first cell and its span of time
    for e in range(first, last):
        time = np.int64(t[e]) - start
        if time < begin or time >= end:  # mostly in order: seldom divides
            if time < 0 or time >= window:
                continue
            step = np.int64(np.float64(time) / np.float64(step_us))  # exact below 2**52, and faster than of integers
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


@kernel(_fill_cells, _turn, _count_events)
def _count(
    frames, x, y, p, t, starts, stops, shifts, cosines, sines, step_us, downsample, binary, test, columns, rows, turned
):
    """Whether every count fits the frames' type; with None for `test`, which floats need not pay, not looked at.

    For each pixel `columns` and `rows` get cells from the corner of a frame, -1 off the sensor, and `turned`, unless
    it is empty, both together.
    """
    fits = True
    steps, samples, polarities, height, width = frames.shape
    cells, frame, window, sizes = frames.reshape(-1), polarities * height * width, steps * step_us, frames.shape[2:]
    for n in range(samples):
        for step in range(steps):  # here, not for all at once before: they are still in the cache when counted
            cells[(step * samples + n) * frame :][:frame] = 0
        _fill_cells(columns, shifts[n, 0], downsample, np.int64(1))
        _fill_cells(rows, shifts[n, 1], downsample, width)
        if len(turned):
            _turn(turned, columns, rows, cosines[n], sines[n])
        fits &= _count_events(
            cells, x, y, p, t, starts[n], stops[n], np.int64(0), columns, rows, turned, sizes, n, samples, step_us,
            window, binary, test,
        )  # fmt: skip
    return fits


def _is_plain(drawn):
    """Whether events stay as they are, but for the window and what moves all of them."""
    has_gap, has_hole = (
        drawn.gap < drawn.gap_end,
        drawn.hole_left < drawn.hole_right and drawn.hole_top < drawn.hole_bottom,
    )
    return drawn.partner < 0 and drawn.drop == 0 and drawn.flip == 0 and not has_gap and not has_hole


def _change(
    drawn, is_partner, start, x, y, p, t, origin, first, last, width, height, window, time_us, pixels, to_x, to_y, to_p,
    to_t, count,
):  # fmt: skip
    """Write what is left of events first..last behind `count` of the buffers, as it is changed; the new count.

    The recording begins at `origin`."""
    # locals: what is written might lie where a record does, for all that the compiler knows
    key = drawn.partners if is_partner else drawn.events
    has_rows, chances, quantile = len(y) > 0, np.uint64((1 << DROP_BITS) - 1), np.uint64(QUANTILES - 1)
    mixes, blend, flip, drop = drawn.partner >= 0, drawn.blend != 0, drawn.flip != 0, drawn.drop
    left, right, top, bottom = drawn.left, drawn.right, drawn.top, drawn.bottom
    hole_left, hole_right, hole_top, hole_bottom = drawn.hole_left, drawn.hole_right, drawn.hole_top, drawn.hole_bottom
    gap, gap_end = drawn.gap, drawn.gap_end
    reach = time_us[-1] if len(time_us) else np.int64(0)
    for e in range(first, last):
        time = np.int64(t[e]) - start
        if time < -reach or time >= window + reach:
            continue
        z = mixed(key + np.uint64(e - origin + 1) * np.uint64(0x9E3779B97F4A7C15))
        column, row = np.int64(x[e]), np.int64(0)
        if has_rows:
            row = np.int64(y[e])
        # what chance decides goes without branches, which would be guessed wrong
        kept = np.int64((z >> np.uint64(36)) & chances) >= drop
        if mixes:
            if blend:
                kept &= (z >> np.uint64(63)) == 0
            else:
                kept &= ((left <= column) & (column < right) & (top <= row) & (row < bottom)) == is_partner
        kept &= (time < gap) | (time >= gap_end)
        kept &= (column < hole_left) | (column >= hole_right) | (row < hole_top) | (row >= hole_bottom)
        if len(time_us):
            time += time_us[z & quantile]
        if len(pixels):
            column += pixels[(z >> np.uint64(12)) & quantile]
            if has_rows:
                row += pixels[(z >> np.uint64(24)) & quantile]
        kept &= (time >= 0) & (time < window) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        to_x[count] = width - 1 - column if flip else column
        to_t[count] = time
        if has_rows:
            to_y[count] = row
            to_p[count] = p[e]
        count += kept
    return count


def _add_noise(key, noises, width, height, polarities, window, to_x, to_y, to_p, to_t, count):
    """Write so many events behind `count` of the buffers, each anywhere and at any time; the new count."""
    golden, low = np.uint64(0x9E3779B97F4A7C15), np.uint64((1 << 21) - 1)
    for k in range(noises):
        where, when = mixed(key + np.uint64(2 * k + 1) * golden), mixed(key + np.uint64(2 * k + 2) * golden)
        to_x[count] = ((where & low) * np.uint64(width)) >> np.uint64(21)
        to_t[count] = np.int64(np.float64(when >> np.uint64(11)) * 2.0**-53 * window)
        if len(to_y):
            to_y[count] = (((where >> np.uint64(21)) & low) * np.uint64(height)) >> np.uint64(21)
            to_p[count] = (((where >> np.uint64(42)) & low) * np.uint64(polarities)) >> np.uint64(21)
        count += 1
    return count


@kernel(mixed, _fill_cells, _turn, _count_events, _is_plain, _change, _add_noise)
def _count_changed(
    frames, x, y, p, t, starts, stops, partner_starts, partner_stops, begins, origins, partner_origins, shifts, cosines,
    sines, step_us, downsample, binary, test, columns, rows, turned, drawn, time_us, pixels, to_x, to_y, to_p, to_t,
):  # fmt: skip
    """As `_count`, of recordings that are changed on the way."""
    fits = True
    steps, samples, polarities, height, width = frames.shape
    cells, frame, window, sizes = frames.reshape(-1), polarities * height * width, steps * step_us, frames.shape[2:]
    for n in range(samples):
        for step in range(steps):
            cells[(step * samples + n) * frame :][:frame] = 0
        each, count = drawn[n], 0
        is_plain = _is_plain(each) and not len(time_us) and not len(pixels)
        for is_partner in range(0 if is_plain else 1 + (each.partner >= 0)):
            first, last = (partner_starts[n], partner_stops[n]) if is_partner else (starts[n], stops[n])
            origin = partner_origins[n] if is_partner else origins[n]
            count = _change(
                each, is_partner, begins[n], x, y, p, t, origin, first, last, len(columns), len(rows), window, time_us,
                pixels, to_x, to_y, to_p, to_t, count,
            )  # fmt: skip
        noisy = _add_noise(
            each.noise, each.noises, len(columns), len(rows), polarities, window, to_x, to_y, to_p, to_t, count
        )
        for moves in range(2):  # noise, which does not move, and the events
            _fill_cells(columns, moves * shifts[n, 0], downsample, np.int64(1))
            _fill_cells(rows, moves * shifts[n, 1], downsample, width)
            if moves and len(turned):
                _turn(turned, columns, rows, cosines[n], sines[n])
            if moves and is_plain:
                fits &= _count_events(
                    cells, x, y, p, t, starts[n], stops[n], begins[n], columns, rows, turned, sizes, n, samples,
                    step_us, window, binary, test,
                )  # fmt: skip
                continue
            first, last = (0, count) if moves else (count, noisy)
            fits &= _count_events(
                cells, to_x, to_y, to_p, to_t, first, last, np.int64(0), columns, rows, turned[: moves * len(turned)],
                sizes, n, samples, step_us, window, binary, test,
            )  # fmt: skip
    return fits
