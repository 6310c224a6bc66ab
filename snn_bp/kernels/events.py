"""Inputs as events: for each time step and sample, which inputs are not zero, and their values."""

from typing import NamedTuple

import numpy as np

from snn_bp.kernels.cpu import compiled_plain
from snn_bp.kernels.vectors import nonzero, trailing_zeros


class Events(NamedTuple):
    """Rows `[time, batch]` of an input that is mostly zero; row r holds the events `begin[r] .. end[r]`."""

    begin: np.ndarray  # int64
    end: np.ndarray
    index: np.ndarray  # uint32, which input
    value: np.ndarray

    @classmethod
    def none(cls, dtype: np.dtype) -> "Events":
        """No rows at all."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, dtype))


def find_events(x: np.ndarray, low: int, rows: int, *, most: float) -> Events | None:
    """The events of `rows` samples of `x` `[time, batch, inputs]`, from sample `low` on.

    None where more than the share `most` of the inputs is not zero.
    """
    steps, _, inputs = x.shape
    room = int(most * steps * rows * inputs) + inputs
    pointer = np.zeros(steps * rows + 1, np.int64)
    index, value = np.empty(room, np.uint32), np.empty(room, x.dtype)  # pages that are not written cost nothing
    if not compiled_plain(find)(x, low, rows, pointer, index, value):
        return None
    found = pointer[-1]
    return Events(pointer[:-1], pointer[1:], index[:found], value[:found])


def find(x, low, rows, pointer, index, value):
    """Fill `pointer`, `index` and `value`; False where there is not room for all events."""
    steps, _, inputs = x.shape
    found = 0
    for t in range(steps):
        for q in range(rows):
            if found + inputs > index.size:
                return False
            row = x[t, low + q]
            for first in range(0, inputs, 64):
                bits = np.uint64(0)
                last = min(first + 64, inputs)
                whole = last - last % 8
                for place in range(first, whole, 8):
                    bits |= np.uint64(nonzero(row, place)) << np.uint64(place - first)
                for place in range(whole, last):
                    if row[place] != 0:
                        bits |= np.uint64(1) << np.uint64(place - first)
                while bits != np.uint64(0):
                    place = first + np.int64(trailing_zeros(bits))
                    index[found] = place
                    value[found] = row[place]
                    found += 1
                    bits &= bits - np.uint64(1)
            pointer[t * rows + q + 1] = found
    return True
