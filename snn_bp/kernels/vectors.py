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

BLOCK = 64  # columns: as much of 700 inputs' weights, or of 512 rows' errors, fits the second-level cache
AT_ONCE = 4


def padded(count: int) -> int:
    """The next multiple of `PANEL`, which every width is."""
    return -(-count // PANEL) * PANEL


def blocked(matrix: np.ndarray) -> np.ndarray:
    """[rows, columns], flat: `BLOCK` columns of all rows together, then the next; the last block may be narrower."""
    columns = range(0, matrix.shape[1], BLOCK)
    return np.concatenate([matrix[:0].ravel(), *(matrix[:, at : at + BLOCK].ravel() for at in columns)])


def unblocked(values: np.ndarray, rows: int) -> np.ndarray:
    """The inverse of `blocked`."""
    matrix = np.empty((rows, values.size // rows), values.dtype)
    for at in range(0, matrix.shape[1], BLOCK):
        part = matrix[:, at : at + BLOCK]
        part[:] = values[at * rows :][: part.size].reshape(part.shape)
    return matrix


def panels(matrix: np.ndarray) -> np.ndarray:
    """[rows, columns] as [columns / PANEL, rows, PANEL]."""
    return matrix.reshape(len(matrix), -1, PANEL).transpose(1, 0, 2).ravel() if matrix.size else matrix.ravel()


@numba.njit(error_model="numpy")
def add_rows(sums, at, rows, rows_at, width, index, start, count):
    """`sums[at : at + width]` plus the rows, of a block at `rows_at`, named by `index[start : start + count]`."""
    if width == BLOCK:
        llvm.add_rows_64(sums, at, rows, rows_at, width, index, start, count)
        return
    for column in range(0, width, PANEL):
        llvm.add_rows_16(sums, at + column, rows, rows_at + column, width, index, start, count)


@numba.njit(error_model="numpy")
def add_scaled_rows(sums, at, rows, rows_at, width, index, value, start, count):
    """As `add_rows`, each row times its `value`."""
    if width == BLOCK:
        llvm.add_scaled_rows_64(sums, at, rows, rows_at, width, index, value, start, count)
        return
    for column in range(0, width, PANEL):
        llvm.add_scaled_rows_16(sums, at + column, rows, rows_at + column, width, index, value, start, count)


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
def decode(words, at, count, index, found):
    """Places of the bits set in `count` words, into `index` from `found` on; returns where they end.

    A word's first `AT_ONCE` are written whether or not there are so many, which spares most of the branches that a
    processor guesses wrong: `index` needs room for as many more.
    """
    to = np.uint64(found)
    for word in range(np.uint64(count)):
        bits, first = words[np.uint64(at) + word], np.uint32(64) * np.uint32(word)
        last = to + np.uint64(count_bits(bits))
        for place in range(np.uint64(AT_ONCE)):
            index[to + place] = first + np.uint32(trailing_zeros(bits))
            bits &= bits - np.uint64(1)
        to += np.uint64(AT_ONCE)
        while bits != np.uint64(0):
            index[to] = first + np.uint32(trailing_zeros(bits))
            bits &= bits - np.uint64(1)
            to += np.uint64(1)
        to = last
    return np.int64(to)


@numba.njit(error_model="numpy")
def transpose(bits):
    """64 words as a matrix of bits, transposed in place: corners of 32, 16, .. 1 bits change places.

    Warren, Hacker's Delight (2002), section 7-3.
    """
    for width, mask in (
        (32, 0x00000000FFFFFFFF), (16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F), (2, 0x3333333333333333), (1, 0x5555555555555555),
    ):  # fmt: skip
        shift, low = np.uint64(width), np.uint64(mask)
        for corner in range(0, 64, 2 * width):
            for k in range(corner, corner + width):
                change = ((bits[k] >> shift) ^ bits[k + width]) & low
                bits[k] ^= change << shift
                bits[k + width] ^= change


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


@numba.njit(error_model="numpy")
def not_one(values, at):
    """As `nonzero`, for values that are not one."""
    return llvm.not_one(values, at)
