"""Inputs as what is not zero in them: bits where all else is one, else the events of each row and their values.

Both give weighted sums of the rows they hold, and the gradient of the weights, by kernels that want no more than the
first step and the one behind the last, `rows` rows to a step. `weight` and `g_weight` lie in blocks of columns.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from snn_bp.kernels.cpu import dense
from snn_bp.kernels.cpu.compile import compiled_plain
from snn_bp.kernels.cpu.vectors import differing, trailing_zeros


class Bits(NamedTuple):
    """Rows of zeros and ones, a bit for each input."""

    words: np.ndarray  # uint64 [rows, words]

    def weighted_sum(self, z: np.ndarray, weight: np.ndarray, bias: np.ndarray, width: int, rows: int) -> Callable:
        """Fills `z` `[rows of the steps, width]` with weighted sums."""
        return _few_or_many(dense.sum_bits, dense.matmul_bits, z, *self._flat(), weight, bias, width, rows)

    def weight_grad(self, g_weight: np.ndarray, d: np.ndarray, width: int, rows: int) -> Callable:
        """Adds to `g_weight` the gradient from the gradient `d` of the weighted sums."""
        return _few_or_many(dense.weight_grad_bits, dense.weight_grad_matmul, g_weight, d, *self._flat(), width, rows)

    def _flat(self) -> tuple[np.ndarray, int]:
        return self.words.reshape(-1), self.words.shape[1]


def _few_or_many(few: Callable, many: Callable, *arguments: Any) -> Callable[[int, int], None]:
    """A kernel that may leave its steps undone, and the one that does those instead."""
    kernel = compiled_plain(few)

    def run(start: int, stop: int) -> None:
        if not kernel(*arguments, start, stop):
            compiled_plain(many)(*arguments, start, stop)

    return run


class Events(NamedTuple):
    """Rows of inputs that are mostly zero; row r holds the events `begin[r] .. end[r]`."""

    begin: np.ndarray  # int64
    end: np.ndarray
    index: np.ndarray  # uint32, which input
    value: np.ndarray

    def weighted_sum(self, z: np.ndarray, weight: np.ndarray, bias: np.ndarray, width: int, rows: int) -> Callable:
        """As `Bits.weighted_sum`."""
        return partial(compiled_plain(dense.sum_events), z, *self, weight, bias, width, rows)

    def weight_grad(self, g_weight: np.ndarray, d: np.ndarray, width: int, rows: int) -> Callable:
        """As `Bits.weight_grad`."""
        return partial(compiled_plain(dense.weight_grad_events), g_weight, d, *self, width, rows)


def find_bits(x: np.ndarray, low: int, rows: int, *, max_fraction: float = 1.0) -> Bits | None:
    """`rows` samples of `x` `[time, batch, inputs]` from sample `low` on.

    None where a number is neither zero nor one, or more than this fraction is one.
    """
    steps, _, inputs = x.shape
    words = np.empty((steps * rows, -(-inputs // 64)), np.uint64)
    ones = compiled_plain(dense.pack_input)(words.reshape(-1), x, low, rows)
    return Bits(words) if 0 <= ones <= max_fraction * steps * rows * inputs else None


def find_events(x: np.ndarray, low: int, rows: int, *, max_fraction: float) -> Events | None:
    """The same samples as events, values of bytes in single precision; None where more than this is not zero."""
    steps, _, inputs = x.shape
    capacity = int(max_fraction * steps * rows * inputs) + inputs
    pointer = np.zeros(steps * rows + 1, np.int64)
    dtype = np.float32 if x.dtype == np.uint8 else x.dtype
    index, value = np.empty(capacity, np.uint32), np.empty(capacity, dtype)  # pages that are not written cost nothing
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
                bits = differing(row, first, x.dtype.type(0))
                while bits != np.uint64(0):
                    position = first + np.int64(trailing_zeros(bits))
                    index[found] = position
                    value[found] = row[position]
                    found += 1
                    bits &= bits - np.uint64(1)
            pointer[t * rows + q + 1] = found
    return True
