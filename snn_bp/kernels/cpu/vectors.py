"""What numba's own loops leave slow: rows summed in registers, a register-blocked matrix product, spikes as bits.

Arrays are C-contiguous and flat, addressed by the offset of an element; widths of rows are multiples of `LANES`. Sums
are fused and taken in an order of their own, the same on every call: equal inputs give equal bits, for any number of
threads.
"""

# pyright: reportCallIssue=false
# an intrinsic is called without its first argument, the typing context

from collections.abc import Iterator

import numpy as np

from snn_bp.kernels.cpu import llvm
from snn_bp.kernels.cpu.aligned import aligned_empty, aligned_zeros, kernel_empty
from snn_bp.kernels.cpu.compile import inner
from snn_bp.kernels.cpu.llvm import BLOCK_COLUMNS, DOTS, LANES, SHORT_TILE_ROWS, TILE_PANELS, TILE_ROWS

DECODED_AT_ONCE = 4  # bits of a word
STREAM_FROM_BYTES = 2**22  # arrays of this size are written past the caches
STORE_LANES = 8  # what has just been written is read as it was written: a wider read waits for the store to end


def padded(count: int) -> int:
    """The next multiple of `LANES`, which every width is."""
    return -(-count // LANES) * LANES


def blocked(matrix: np.ndarray, width: int) -> np.ndarray:
    """[rows, columns], flat: `BLOCK_COLUMNS` columns of all rows, then the next; zeros from the last one to `width`.

    The last block may be narrower. Nothing gives nothing.
    """
    rows, columns = matrix.shape
    if not matrix.size:
        return matrix.ravel()
    values = (aligned_empty if columns == width else aligned_zeros)(rows * width, matrix.dtype)
    for at, part in _blocks(values, rows):
        some = matrix[:, at : at + BLOCK_COLUMNS]
        part[:, : some.shape[1]] = some
    return values


def unblocked(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The inverse of `blocked`, transposed: [columns, rows]."""
    matrix = np.empty((columns, rows), values.dtype)
    for at, part in _blocks(values, rows):
        some = matrix[at : at + BLOCK_COLUMNS]
        some[:] = part[:, : len(some)].T
    return matrix


def _blocks(values: np.ndarray, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """The first column of each block, and the block."""
    width = values.size // rows
    for at in range(0, width, BLOCK_COLUMNS):
        columns = min(BLOCK_COLUMNS, width - at)
        yield at, values[at * rows :][: columns * rows].reshape(rows, columns)


def panels(matrix: np.ndarray, rows: int, width: int) -> np.ndarray:
    """A matrix as [width / LANES, rows, LANES], flat, zeros beyond its own rows and columns; nothing of nothing."""
    if not matrix.size:
        return matrix.ravel()
    values = (aligned_empty if matrix.shape == (rows, width) else aligned_zeros)(rows * width, matrix.dtype)
    for at, part in enumerate(values.reshape(-1, rows, LANES)):
        some = matrix[:, at * LANES : (at + 1) * LANES]
        part[: len(some), : some.shape[1]] = some
    return values


@inner(forceinline=True)
def add_rows(sums, at, rows, rows_at, width, index, start, count):
    """`sums[at : at + width]` plus the rows, of a block at `rows_at`, named by `index[start : start + count]`."""
    if width == BLOCK_COLUMNS:
        llvm.add_rows_block(sums, at, rows, rows_at, width, index, start, count)
    else:
        for column in range(0, width, LANES):
            llvm.add_rows_16(sums, at + column, rows, rows_at + column, width, index, start, count)


@inner(forceinline=True)
def add_scaled_rows(sums, at, rows, rows_at, width, index, value, start, count):
    """As `add_rows`, each row times its `value`."""
    if width == BLOCK_COLUMNS:
        llvm.add_scaled_rows_block(sums, at, rows, rows_at, width, index, value, start, count)
    else:
        for column in range(0, width, LANES):
            llvm.add_scaled_rows_16(sums, at + column, rows, rows_at + column, width, index, value, start, count)


@inner
def add_products(sums, at, row, row_at, rows, number, width, words, words_at, index):
    """Add to `sums`, where a bit of the words is set, the product of a row with that of `number` rows, in blocks.

    `index` has space for `DOTS` more than there are bits.
    """
    count = decode(words, words_at, (number + 63) // 64, index, 0)
    for k in range(DOTS):
        index[count + k] = index[max(count - 1, 0)]  # the last ones are done at once
    for done in range(0, count, DOTS):
        llvm.dots(sums, at, row, row_at, rows, number, width, index, done)


@inner
def add_product(c, c_at, c_row, a, a_at, a_row, a_depth, b, b_at, b_depth, rows, depth, width):
    """c[r, j] += sum over k < depth of a[r, k] b[k, j]; strides are given, along `j` all is contiguous."""
    panels = kernel_empty(depth * width, c)  # the columns of a panel close together, so that they stay in cache
    for column in range(0, width, LANES):
        for k in range(depth):
            llvm.copy(panels, column * depth + k * LANES, b, b_at + k * b_depth + column)
    # literals would compile it once more
    c_at, a_at, a_row, a_depth = np.int64(c_at), np.int64(a_at), np.int64(a_row), np.int64(a_depth)
    _multiply(c, c_at, c_row, a, a_at, a_row, a_depth, panels, rows, depth, width, np.bool_(True))


@inner
def multiply(c, c_at, c_row, a, a_at, a_row, panels, rows, depth, width, add):
    """c[r, j] = sum over k < depth of a[r, k] b[k, j], or c plus it; b as panels [width / LANES, depth, LANES]."""
    c_at, a_at = np.int64(c_at), np.int64(a_at)
    _multiply(c, c_at, c_row, a, a_at, a_row, np.int64(1), panels, rows, depth, width, np.bool_(add))


@inner
def _multiply(c, c_at, c_row, a, a_at, a_row, a_depth, panels, rows, depth, width, add):
    """Tile by tile; the last one overlaps the one before, or where that would add twice its rows go by few or alone."""
    tiled = rows if rows >= TILE_ROWS and not add else rows - rows % TILE_ROWS
    column = 0
    while column + TILE_PANELS * LANES <= width:
        for first in range(0, tiled, TILE_ROWS):
            r = min(first, rows - TILE_ROWS)
            to, at = c_at + r * c_row + column, a_at + r * a_row
            llvm.tile(c, to, c_row, a, at, a_row, a_depth, panels, column * depth, depth, add)
        column += TILE_PANELS * LANES
    while column < width:
        for first in range(0, tiled, TILE_ROWS):
            r = min(first, rows - TILE_ROWS)
            to, at = c_at + r * c_row + column, a_at + r * a_row
            llvm.tile_of_one_panel(c, to, c_row, a, at, a_row, a_depth, panels, column * depth, depth, add)
        column += LANES
    while tiled + SHORT_TILE_ROWS <= rows:
        for column in range(0, width, LANES):
            to, at = c_at + tiled * c_row + column, a_at + tiled * a_row
            llvm.short_tile(c, to, c_row, a, at, a_row, a_depth, panels, column * depth, depth, add)
        tiled += SHORT_TILE_ROWS
    for r in range(tiled, rows):
        for column in range(0, width, LANES):
            to, at = c_at + r * c_row + column, a_at + r * a_row
            llvm.tile_of_one_row(c, to, c_row, a, at, a_row, a_depth, panels, column * depth, depth, add)


@inner(forceinline=True)
def add_scaled(target, target_at, source, source_at, factor, count):
    """`count` numbers of `source`, a multiple of `LANES`, times `factor`, added to as many of `target`."""
    for done in range(0, count, LANES):
        llvm.add_scaled(target, target_at + done, source, source_at + done, factor)


@inner
def largest(out, argmax, out_at, values, at, right, down, size, count):
    """For `count` neighbours, the largest of `size` x `size` values `right` and `down` apart, and which of them it is.

    The first of equal values counts, and a NaN is larger than all, as in torch's max pooling.
    """
    done = 0
    while done + 8 <= count:
        if size == 2:
            llvm.largest_2x2_8(out, argmax, out_at + done, values, at + done, right, down, size)
        else:
            llvm.largest_8(out, argmax, out_at + done, values, at + done, right, down, size)
        done += 8
    if done + 4 <= count:
        if size == 2:
            llvm.largest_2x2_4(out, argmax, out_at + done, values, at + done, right, down, size)
        else:
            llvm.largest_4(out, argmax, out_at + done, values, at + done, right, down, size)
        done += 4
    while done < count:
        llvm.largest_1(out, argmax, out_at + done, values, at + done, right, down, size)
        done += 1


@inner
def scatter_add(values, at, right, down, size, g, argmax, g_at, count):
    """Add `count` neighbours of `g` to the values that were the largest."""
    done = 0
    while done + 8 <= count:
        if size == 2:
            llvm.put_back_2x2_8(values, at + done, right, down, size, g, argmax, g_at + done)
        else:
            llvm.put_back_8(values, at + done, right, down, size, g, argmax, g_at + done)
        done += 8
    if done + 4 <= count:
        if size == 2:
            llvm.put_back_2x2_4(values, at + done, right, down, size, g, argmax, g_at + done)
        else:
            llvm.put_back_4(values, at + done, right, down, size, g, argmax, g_at + done)
        done += 4
    while done < count:
        llvm.put_back_1(values, at + done, right, down, size, g, argmax, g_at + done)
        done += 1


@inner
def copy(target, target_at, source, source_at, width):
    """`width` numbers."""
    for column in range(0, width, LANES):
        llvm.copy(target, target_at + column, source, source_at + column)


@inner
def store(target, target_at, source, source_at, count):
    """As `copy`, any count; into an array that no cache holds without reading its lines or pushing others out."""
    done = 0
    if target.nbytes >= STREAM_FROM_BYTES:
        begin = np.int64(target.ctypes.data) // target.itemsize + target_at
        while done < count and (begin + done) % STORE_LANES != 0:
            target[target_at + done] = source[source_at + done]
            done += 1
        while done + STORE_LANES <= count:
            llvm.copy_past_cache(target, target_at + done, source, source_at + done)
            done += STORE_LANES
    while done + STORE_LANES <= count:
        llvm.copy_8(target, target_at + done, source, source_at + done)
        done += STORE_LANES
    while done < count:
        target[target_at + done] = source[source_at + done]
        done += 1


@inner
def pack(words, words_at, values, at, width):
    """Bits of `values[at : at + width]` that are not zero, 64 to a word."""
    for word in range((width + 63) // 64):
        bits = np.uint64(0)
        for k in range(0, min(64, width - 64 * word), STORE_LANES):
            bits |= llvm.differing_8(values, at + 64 * word + k, 0) << np.uint64(k)
        words[words_at + word] = bits


@inner
def spread(values, width, words, at):
    """The inverse of `pack`: `width` zeros and ones, from the first of `values` on."""
    for k in range(0, width, LANES):
        llvm.spread_16(values, np.int64(k), words[at + k // 64] >> np.uint64(k % 64))


@inner
def decode(words, at, count, index, end):
    """Positions of the bits set in `count` words, into `index` from `end` on; returns where they end.

    A word's first `DECODED_AT_ONCE` are written whether or not there are so many, which spares most of the branches
    that a processor guesses wrong: `index` needs space for as many more.
    """
    to = np.uint64(end)
    for word in range(np.uint64(count)):
        bits, first = words[np.uint64(at) + word], np.uint32(64) * np.uint32(word)
        last = to + np.uint64(count_bits(bits))
        for k in range(np.uint64(DECODED_AT_ONCE)):
            index[to + k] = first + np.uint32(trailing_zeros(bits))
            bits &= bits - np.uint64(1)
        to += np.uint64(DECODED_AT_ONCE)
        while bits != np.uint64(0):
            index[to] = first + np.uint32(trailing_zeros(bits))
            bits &= bits - np.uint64(1)
            to += np.uint64(1)
        to = last
    return np.int64(to)


@inner
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


@inner
def trailing_zeros(word):
    """Position of the lowest bit set."""
    return llvm.trailing_zeros(word)


@inner
def count_bits(word):
    """How many bits are set."""
    return llvm.count_bits(word)


@inner
def differing(row, first, number):
    """A bit for each value from `first` to the end of the row, 64 at most, that is not `number`; a NaN is not."""
    count = min(64, row.size - first)
    if row.size >= 64:
        return llvm.differing_64(row, first + count - 64, number) >> np.uint64(64 - count)
    bits = np.uint64(0)
    for k in range(count):
        bits |= np.uint64(row[k] != number) << np.uint64(k)
    return bits
