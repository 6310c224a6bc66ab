"""What numba's own loops leave slow: rows summed in registers, a register-blocked matrix product, spikes as bits.

Arrays are C-contiguous and flat, addressed by the offset of an element; widths of rows are multiples of `PANEL`. Sums
are fused and taken in an order of their own, the same on every call: equal inputs give equal bits, for any number of
threads.
"""

# pyright: reportCallIssue=false
# an intrinsic is called without its first argument, the typing context

import numba
import numpy as np

from snn_bp.kernels import llvm
from snn_bp.kernels.llvm import LANES, PANEL


def padded(count: int) -> int:
    """The next multiple of `PANEL`, which every width is."""
    return -(-count // PANEL) * PANEL


def panels(matrix: np.ndarray) -> np.ndarray:
    """[rows, columns] as [columns / PANEL, rows, PANEL]."""
    return matrix.reshape(len(matrix), -1, PANEL).transpose(1, 0, 2).ravel() if matrix.size else matrix.ravel()


@numba.njit(error_model="numpy")
def add_rows(sums, at, width, rows, index, start, count):
    """`sums[at : at + width]` plus the rows of `rows` named by `index[start : start + count]`."""
    column = 0
    while column + 64 <= width:
        llvm.add_rows_64(sums, at + column, rows, column, width, index, start, count)
        column += 64
    while column < width:
        llvm.add_rows_16(sums, at + column, rows, column, width, index, start, count)
        column += 16


@numba.njit(error_model="numpy")
def add_scaled_rows(sums, at, width, rows, index, value, start, count):
    """As `add_rows`, each row times its `value`."""
    column = 0
    while column + 64 <= width:
        llvm.add_scaled_rows_64(sums, at + column, rows, column, width, index, value, start, count)
        column += 64
    while column < width:
        llvm.add_scaled_rows_16(sums, at + column, rows, column, width, index, value, start, count)
        column += 16


@numba.njit(error_model="numpy")
def add_product(c, c_at, c_row, a, a_at, a_row, a_depth, b, b_at, b_depth, rows, depth, width):
    """c[r, j] += sum over k < depth of a[r, k] b[k, j]; strides are given, along `j` all is contiguous."""
    panel = np.empty(depth * PANEL, c.dtype)  # some columns of b close together, so that they stay in cache
    for column in range(0, width, PANEL):
        for k in range(depth):
            copy(panel, k * PANEL, b, b_at + k * b_depth + column, PANEL)
        _add_columns(c, c_at + column, c_row, a, a_at, a_row, a_depth, panel, 0, rows, depth, True)


@numba.njit(error_model="numpy")
def multiply(c, c_at, c_row, a, a_at, panels, rows, depth, width, add):
    """c[r, j] = sum over k < depth of a[r, k] b[k, j], or c plus it; b as panels [width / PANEL, depth, PANEL]."""
    for column in range(0, width, PANEL):
        _add_columns(c, c_at + column, c_row, a, a_at, depth, 1, panels, column * depth, rows, depth, add)


@numba.njit(error_model="numpy")
def _add_columns(c, c_at, c_row, a, a_at, a_row, a_depth, panel, panel_at, rows, depth, add):
    r = 0
    while r + 4 <= rows:
        llvm.tile_4x16(c, c_at + r * c_row, c_row, a, a_at + r * a_row, a_row, a_depth, panel, panel_at, depth, add)
        r += 4
    while r < rows:
        llvm.tile_1x16(c, c_at + r * c_row, c_row, a, a_at + r * a_row, a_row, a_depth, panel, panel_at, depth, add)
        r += 1


@numba.njit(error_model="numpy")
def add_scaled(target, target_at, source, source_at, factor, count):
    """`count` numbers of `source`, times `factor`, added to as many of `target`; any count."""
    done = 0
    while done + 8 <= count:
        llvm.add_scaled_8(target, target_at + done, source, source_at + done, factor)
        done += 8
    if done + 4 <= count:
        llvm.add_scaled_4(target, target_at + done, source, source_at + done, factor)
        done += 4
    while done < count:
        llvm.add_scaled_1(target, target_at + done, source, source_at + done, factor)
        done += 1


@numba.njit(error_model="numpy")
def largest(out, which, out_at, values, at, right, down, size, count):
    """For `count` neighbours, the largest of `size` x `size` values `right` and `down` apart, and its place among them.

    The first of equal values counts, and a NaN is larger than all, as in torch's max pooling.
    """
    done = 0
    while done + 8 <= count:
        llvm.largest_8(out, which, out_at + done, values, at + done, right, down, size)
        done += 8
    if done + 4 <= count:
        llvm.largest_4(out, which, out_at + done, values, at + done, right, down, size)
        done += 4
    while done < count:
        llvm.largest_1(out, which, out_at + done, values, at + done, right, down, size)
        done += 1


@numba.njit(error_model="numpy")
def put_back(values, at, right, down, size, given, which, given_at, count):
    """Add `count` neighbours of `given` to the values that were the largest."""
    done = 0
    while done + 8 <= count:
        llvm.put_back_8(values, at + done, right, down, size, given, which, given_at + done)
        done += 8
    if done + 4 <= count:
        llvm.put_back_4(values, at + done, right, down, size, given, which, given_at + done)
        done += 4
    while done < count:
        llvm.put_back_1(values, at + done, right, down, size, given, which, given_at + done)
        done += 1


@numba.njit(error_model="numpy")
def copy(target, target_at, source, source_at, width):
    """`width` numbers."""
    for column in range(0, width, LANES):
        llvm.copy(target, target_at + column, source, source_at + column)


@numba.njit(error_model="numpy")
def pack(words, words_at, values, at, width):
    """Bits of `values[at : at + width]` that are not zero, 64 to a word."""
    for word in range((width + 63) // 64):
        bits = np.uint64(0)
        for place in range(0, min(64, width - 64 * word), LANES):
            bits |= np.uint64(nonzero(values, at + 64 * word + place)) << np.uint64(place)
        words[words_at + word] = bits


@numba.njit(error_model="numpy")
def decode(words, at, count, index):
    """Places of the bits set in `count` words, into `index`; returns how many."""
    found = 0
    for word in range(count):
        bits = words[at + word]
        while bits != np.uint64(0):
            index[found] = 64 * word + np.int64(trailing_zeros(bits))
            found += 1
            bits &= bits - np.uint64(1)
    return found


@numba.njit(error_model="numpy")
def trailing_zeros(word):
    """Place of the lowest bit set."""
    return llvm.trailing_zeros(word)


@numba.njit(error_model="numpy")
def count_bits(word):
    """How many bits are set."""
    return llvm.count_bits(word)


@numba.njit(error_model="numpy")
def nonzero(values, at):
    """A byte with a bit for each of eight values that is not zero; a NaN is not."""
    return llvm.nonzero(values, at)
