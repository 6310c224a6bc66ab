"""What numba's own loops leave slow: rows summed in registers, a register-blocked matrix product, spikes as bits.

Written as LLVM vectors of eight numbers, which LLVM turns into whatever the processor has. Arrays are C-contiguous and
flat, addressed by the offset of an element; widths of rows are multiples of `PANEL`. Sums are fused (`fmuladd`) and
taken in an order of their own, the same on every call: equal inputs give equal bits, for any number of threads.
"""

# pyright: reportCallIssue=false, reportRedeclaration=false
# an intrinsic is called without its first argument, the typing context

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
PANEL = 16  # columns of a product taken at once; every width is a multiple of it
_INDEX, _LANE = ir.IntType(64), ir.IntType(32)


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
        _add_rows_64(sums, at + column, rows, column, width, index, start, count)
        column += 64
    while column < width:
        _add_rows_16(sums, at + column, rows, column, width, index, start, count)
        column += 16


@numba.njit(error_model="numpy")
def add_scaled_rows(sums, at, width, rows, index, value, start, count):
    """As `add_rows`, each row times its `value`."""
    column = 0
    while column + 64 <= width:
        _add_scaled_rows_64(sums, at + column, rows, column, width, index, value, start, count)
        column += 64
    while column < width:
        _add_scaled_rows_16(sums, at + column, rows, column, width, index, value, start, count)
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
        _tile_4x16(c, c_at + r * c_row, c_row, a, a_at + r * a_row, a_row, a_depth, panel, panel_at, depth, add)
        r += 4
    while r < rows:
        _tile_1x16(c, c_at + r * c_row, c_row, a, a_at + r * a_row, a_row, a_depth, panel, panel_at, depth, add)
        r += 1


@numba.njit(error_model="numpy")
def add_scaled(target, target_at, source, source_at, factor, count):
    """`count` numbers of `source`, times `factor`, added to as many of `target`; any count."""
    done = 0
    while done + 8 <= count:
        _add_scaled_8(target, target_at + done, source, source_at + done, factor)
        done += 8
    if done + 4 <= count:
        _add_scaled_4(target, target_at + done, source, source_at + done, factor)
        done += 4
    while done < count:
        _add_scaled_1(target, target_at + done, source, source_at + done, factor)
        done += 1


@numba.njit(error_model="numpy")
def largest(out, which, out_at, values, at, right, down, size, count):
    """For `count` neighbours, the largest of `size` x `size` values `right` and `down` apart, and its place among them.

    The first of equal values counts, and a NaN is larger than all, as in torch's max pooling.
    """
    done = 0
    while done + 8 <= count:
        _largest_8(out, which, out_at + done, values, at + done, right, down, size)
        done += 8
    if done + 4 <= count:
        _largest_4(out, which, out_at + done, values, at + done, right, down, size)
        done += 4
    while done < count:
        _largest_1(out, which, out_at + done, values, at + done, right, down, size)
        done += 1


@numba.njit(error_model="numpy")
def put_back(values, at, right, down, size, given, which, given_at, count):
    """Add `count` neighbours of `given` to the values that were the largest."""
    done = 0
    while done + 8 <= count:
        _put_back_8(values, at + done, right, down, size, given, which, given_at + done)
        done += 8
    if done + 4 <= count:
        _put_back_4(values, at + done, right, down, size, given, which, given_at + done)
        done += 4
    while done < count:
        _put_back_1(values, at + done, right, down, size, given, which, given_at + done)
        done += 1


@numba.njit(error_model="numpy")
def copy(target, target_at, source, source_at, width):
    """`width` numbers."""
    for column in range(0, width, LANES):
        _copy(target, target_at + column, source, source_at + column)


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


@intrinsic
def _trailing_zeros(typing, word):
    def emit(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(types.boolean, 1))

    return types.uint64(types.uint64), emit


@intrinsic
def _count_bits(typing, word):
    def emit(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), emit


@numba.njit(error_model="numpy")
def trailing_zeros(word):
    """Place of the lowest bit set."""
    return _trailing_zeros(word)


@numba.njit(error_model="numpy")
def count_bits(word):
    """How many bits are set."""
    return _count_bits(word)


@numba.njit(error_model="numpy")
def nonzero(values, at):
    """A byte with a bit for each of eight values that is not zero; a NaN is not."""
    return _nonzero(values, at)


def _scaled(lanes: int):
    """An intrinsic that adds `lanes` numbers times a factor."""

    @intrinsic
    def add(typing, target, target_at, source, source_at, factor):
        def emit(context, builder, signature, arguments):
            there = _Array(context, builder, signature.args[0], arguments[0], lanes)
            here = _Array(context, builder, signature.args[2], arguments[2], lanes)
            part, so_far = here.load(arguments[3]), there.load(arguments[1])
            there.store(there.fused(there.spread(arguments[4]), part, so_far), arguments[1])
            return context.get_dummy_value()

        return types.void(target, types.int64, source, types.int64, target.dtype), emit

    return add


def _window(lanes: int):
    """Two intrinsics for `lanes` windows beside each other: their largest values, and the way back."""

    def places(builder, at, right, down, size):
        """Yields within nested loops: the place of a window's value in memory, and its number."""
        with cgutils.for_range(builder, size) as rows, cgutils.for_range(builder, size) as columns:
            step = builder.add(builder.mul(rows.index, down), builder.mul(columns.index, right))
            number = builder.add(builder.mul(rows.index, size), columns.index)
            yield builder.add(at, step), builder.trunc(number, ir.IntType(8))

    @intrinsic
    def forward(typing, out, which, out_at, values, at, right, down, size):
        def emit(context, builder, signature, arguments):
            out, which, out_at, values, at, right, down, size = arguments
            source = _Array(context, builder, signature.args[3], values, lanes)
            target = _Array(context, builder, signature.args[0], out, lanes)
            chosen = _Array(context, builder, signature.args[1], which, lanes)
            best = cgutils.alloca_once_value(builder, source.load(at))
            number = cgutils.alloca_once_value(builder, ir.Constant(chosen.vector, [0] * lanes))
            for place, here in places(builder, at, right, down, size):
                value, so_far = source.load(place), builder.load(best)
                more = builder.or_(
                    builder.fcmp_ordered(">", value, so_far), builder.fcmp_unordered("uno", value, value)
                )  # fmt: skip
                builder.store(builder.select(more, value, so_far), best)
                builder.store(builder.select(more, chosen.spread(here), builder.load(number)), number)
            target.store(builder.load(best), out_at)
            chosen.store(builder.load(number), out_at)
            return context.get_dummy_value()

        place = types.int64
        return types.void(out, which, place, values, place, place, place, place), emit

    @intrinsic
    def backward(typing, values, at, right, down, size, given, which, given_at):
        def emit(context, builder, signature, arguments):
            values, at, right, down, size, given, which, given_at = arguments
            target = _Array(context, builder, signature.args[0], values, lanes)
            part = _Array(context, builder, signature.args[5], given, lanes).load(given_at)
            chosen = _Array(context, builder, signature.args[6], which, lanes)
            number, zero = chosen.load(given_at), ir.Constant(part.type, [0.0] * lanes)
            for place, here in places(builder, at, right, down, size):
                mine = builder.select(builder.icmp_unsigned("==", number, chosen.spread(here)), part, zero)
                target.store(builder.fadd(target.load(place), mine), place)
            return context.get_dummy_value()

        place = types.int64
        return types.void(values, place, place, place, place, given, which, place), emit

    return forward, backward


@intrinsic
def _copy(typing, target, target_at, source, source_at):
    """Eight numbers."""

    def emit(context, builder, signature, arguments):
        there = _Array(context, builder, signature.args[0], arguments[0])
        here = _Array(context, builder, signature.args[2], arguments[2])
        there.store(here.load(arguments[3]), arguments[1])
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), emit


@intrinsic
def _nonzero(typing, values, at):
    def emit(context, builder, signature, arguments):
        array, vector = _Array(context, builder, signature.args[0], arguments[0]), LANES
        value = array.load(arguments[1])
        zero = ir.Constant(value.type, [0.0] * vector)
        return builder.bitcast(builder.fcmp_unordered("!=", value, zero), ir.IntType(8))

    return types.uint8(values, types.int64), emit


def _row_sum(vectors: int, *, scaled: bool):
    """An intrinsic that adds rows to `vectors` vectors held in registers."""

    def emit(context, builder, signature, arguments):
        sums_type, rows_type, index_type = signature.args[0], signature.args[2], signature.args[5]
        if scaled:
            sums, at, rows, column, width, index, value, start, count = arguments
            values = _Array(context, builder, signature.args[6], value)
        else:
            sums, at, rows, column, width, index, start, count = arguments
            values = None
        target, source = (
            _Array(context, builder, sums_type, sums),
            _Array(context, builder, rows_type, rows),
        )
        places = _Array(context, builder, index_type, index)
        total = [cgutils.alloca_once_value(builder, target.load(_plus(builder, at, n))) for n in range(vectors)]
        with cgutils.for_range(builder, count) as loop:
            event = builder.add(start, loop.index)
            row = builder.add(builder.mul(builder.zext(places.scalar(event), _INDEX), width), column)
            factor = None if values is None else values.splat(event)
            for n in range(vectors):
                part = source.load(_plus(builder, row, n))
                so_far = builder.load(total[n])
                new = builder.fadd(so_far, part) if factor is None else source.fused(factor, part, so_far)
                builder.store(new, total[n])
        for n in range(vectors):
            target.store(builder.load(total[n]), _plus(builder, at, n))
        return context.get_dummy_value()

    if scaled:

        @intrinsic
        def add(typing, sums, at, rows, column, width, index, value, start, count):
            place = types.int64
            return types.void(sums, place, rows, place, place, index, value, place, place), emit
    else:

        @intrinsic
        def add(typing, sums, at, rows, column, width, index, start, count):
            place = types.int64
            return types.void(sums, place, rows, place, place, index, place, place), emit

    return add


def _tile(rows: int, vectors: int):
    """An intrinsic for `rows` x `vectors` vectors of a product, all held in registers; b is a panel."""

    @intrinsic
    def fill(typing, c, c_at, c_row, a, a_at, a_row, a_depth, b, b_at, depth, add):
        def emit(context, builder, signature, arguments):
            _, c_at, c_row, _, a_at, a_row, a_depth, _, b_at, depth, add = arguments
            target, left, right = (
                _Array(context, builder, signature.args[place], arguments[place]) for place in (0, 3, 7)
            )
            corners = [builder.add(c_at, builder.mul(_INDEX(r), c_row)) for r in range(rows)]
            adds = builder.trunc(add, ir.IntType(1))
            zero = ir.Constant(target.vector, [0.0] * LANES)
            total = [
                [
                    cgutils.alloca_once_value(
                        builder, builder.select(adds, target.load(_plus(builder, corner, n)), zero)
                    )
                    for n in range(vectors)
                ]
                for corner in corners
            ]
            starts = [builder.add(a_at, builder.mul(_INDEX(r), a_row)) for r in range(rows)]
            with cgutils.for_range(builder, depth) as loop:
                below = builder.add(b_at, builder.mul(loop.index, _INDEX(PANEL)))
                along = builder.mul(loop.index, a_depth)
                parts = [right.load(_plus(builder, below, n)) for n in range(vectors)]
                for r in range(rows):
                    factor = left.splat(builder.add(starts[r], along))
                    for n in range(vectors):
                        builder.store(right.fused(factor, parts[n], builder.load(total[r][n])), total[r][n])
            for corner, row in zip(corners, total, strict=True):
                for n in range(vectors):
                    target.store(builder.load(row[n]), _plus(builder, corner, n))
            return context.get_dummy_value()

        place = types.int64
        return types.void(c, place, place, a, place, place, place, b, place, place, types.boolean), emit

    return fill


class _Array:
    """A contiguous array seen by LLVM code: its elements, alone or `lanes` at a time."""

    def __init__(self, context, builder, array_type, value, lanes: int = LANES) -> None:
        self.builder, self.lanes = builder, lanes
        self.data = context.make_array(array_type)(context, builder, value).data
        self.bytes = array_type.dtype.bitwidth // 8
        self.vector = ir.VectorType(context.get_data_type(array_type.dtype), lanes)

    def scalar(self, at):
        return self.builder.load(self.builder.gep(self.data, [at]))

    def splat(self, at):
        return self.spread(self.scalar(at))

    def spread(self, number):
        empty = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(empty, number, _LANE(0))
        return self.builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_LANE, self.lanes), [0] * self.lanes))

    def load(self, at):
        return self.builder.load(self._address(at), align=self.bytes)

    def store(self, value, at) -> None:
        self.builder.store(value, self._address(at), align=self.bytes)

    def fused(self, x, y, z):
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.bytes}"
        function = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(self.builder.module.declare_intrinsic(name, (), function), [x, y, z])

    def _address(self, at):
        return self.builder.bitcast(self.builder.gep(self.data, [at]), self.vector.as_pointer())


def _plus(builder, at, vectors: int):
    return builder.add(at, _INDEX(LANES * vectors))


_add_rows_64, _add_rows_16 = _row_sum(8, scaled=False), _row_sum(2, scaled=False)
_add_scaled_rows_64, _add_scaled_rows_16 = _row_sum(8, scaled=True), _row_sum(2, scaled=True)
_tile_4x16, _tile_1x16 = _tile(4, 2), _tile(1, 2)
_add_scaled_8, _add_scaled_4, _add_scaled_1 = _scaled(8), _scaled(4), _scaled(1)
(_largest_8, _put_back_8), (_largest_4, _put_back_4), (_largest_1, _put_back_1) = _window(8), _window(4), _window(1)
