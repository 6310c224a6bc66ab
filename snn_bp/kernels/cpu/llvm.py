"""Vector instructions as numba intrinsics, written in LLVM: sixteen numbers at a time, which LLVM turns into whatever
the processor has. `vectors.py` makes loops of them.

Arrays are C-contiguous and flat, addressed by the offset of an element. Sums are fused (`fmuladd`).
"""

# pyright: reportRedeclaration=false

from itertools import product

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

LANES = 16  # one register of single precision with AVX-512, two with AVX2; every width is a multiple of it
_INDEX, _LANE = ir.IntType(64), ir.IntType(32)


@intrinsic
def trailing_zeros(typing, word):
    def emit(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(types.boolean, 0))  # 64 where none is set

    return types.uint64(types.uint64), emit


@intrinsic
def count_bits(typing, word):
    def emit(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), emit


@intrinsic
def power_of_two(typing, exponent):
    """2 to an integer, given as a float of the same precision, within what normal numbers reach."""
    bits, shift, bias = (32, 23, 127) if exponent == types.float32 else (64, 52, 1023)

    def emit(context, builder, signature, arguments):
        whole = ir.IntType(bits)
        number = builder.add(builder.fptosi(arguments[0], whole), whole(bias))
        return builder.bitcast(builder.shl(number, whole(shift)), arguments[0].type)

    return exponent(exponent), emit


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


def _window(lanes: int, fixed: int | None = None):
    """Two intrinsics for `lanes` windows beside each other: their largest values, and the way back.

    Windows of a fixed size take no loop.
    """

    def offsets(builder, at, right, down, size):
        """Yields, within nested loops or in turn, where a window's value lies in memory, and its number."""
        if fixed is not None:
            for number, (row, column) in enumerate(product(range(fixed), repeat=2)):
                step = builder.add(builder.mul(_INDEX(column), right), builder.mul(_INDEX(row), down))
                yield builder.add(at, step), ir.Constant(ir.IntType(8), number)
            return
        with cgutils.for_range(builder, size) as rows, cgutils.for_range(builder, size) as columns:
            step = builder.add(builder.mul(rows.index, down), builder.mul(columns.index, right))
            number = builder.add(builder.mul(rows.index, size), columns.index)
            yield builder.add(at, step), builder.trunc(number, ir.IntType(8))

    @intrinsic
    def forward(typing, out, argmax, out_at, values, at, right, down, size):
        def emit(context, builder, signature, arguments):
            out, argmax, out_at, values, at, right, down, size = arguments
            source = _Array(context, builder, signature.args[3], values, lanes)
            target = _Array(context, builder, signature.args[0], out, lanes)
            chosen = _Array(context, builder, signature.args[1], argmax, lanes)
            best = cgutils.alloca_once_value(builder, source.load(at))
            number = cgutils.alloca_once_value(builder, ir.Constant(chosen.vector, [0] * lanes))
            for offset, here in offsets(builder, at, right, down, size):
                value, so_far = source.load(offset), builder.load(best)
                more = builder.or_(
                    builder.fcmp_ordered(">", value, so_far), builder.fcmp_unordered("uno", value, value)
                )  # fmt: skip
                builder.store(builder.select(more, value, so_far), best)
                builder.store(builder.select(more, chosen.spread(here), builder.load(number)), number)
            target.store(builder.load(best), out_at)
            chosen.store(builder.load(number), out_at)
            return context.get_dummy_value()

        offset = types.int64
        return types.void(out, argmax, offset, values, offset, offset, offset, offset), emit

    @intrinsic
    def backward(typing, values, at, right, down, size, g, argmax, g_at):
        def emit(context, builder, signature, arguments):
            values, at, right, down, size, g, argmax, g_at = arguments
            target = _Array(context, builder, signature.args[0], values, lanes)
            part = _Array(context, builder, signature.args[5], g, lanes).load(g_at)
            chosen = _Array(context, builder, signature.args[6], argmax, lanes)
            number, zero = chosen.load(g_at), ir.Constant(part.type, [0.0] * lanes)
            for offset, here in offsets(builder, at, right, down, size):
                mine = builder.select(builder.icmp_unsigned("==", number, chosen.spread(here)), part, zero)
                target.store(builder.fadd(target.load(offset), mine), offset)
            return context.get_dummy_value()

        offset = types.int64
        return types.void(values, offset, offset, offset, offset, g, argmax, offset), emit

    return forward, backward


def _copied(lanes: int, *, past_cache: bool):
    """An intrinsic that copies `lanes` numbers; past the caches they go to a multiple of their size."""

    @intrinsic
    def copy(typing, target, target_at, source, source_at):
        def emit(context, builder, signature, arguments):
            there = _Array(context, builder, signature.args[0], arguments[0], lanes)
            here = _Array(context, builder, signature.args[2], arguments[2], lanes)
            there.store(here.load(arguments[3]), arguments[1], past_cache=past_cache)
            return context.get_dummy_value()

        return types.void(target, types.int64, source, types.int64), emit

    return copy


def _differing(lanes: int):
    """An intrinsic that compares `lanes` values with a number: a word with a bit for each that differs, a NaN too."""
    word = ir.IntType(lanes)

    @intrinsic
    def compare(typing, values, at, number):
        def emit(context, builder, signature, arguments):
            source = _Array(context, builder, signature.args[0], arguments[0], lanes)
            value, other = source.load(arguments[1]), source.spread(arguments[2])
            whole = isinstance(value.type.element, ir.IntType)
            test = builder.icmp_unsigned if whole else builder.fcmp_unordered
            return builder.zext(builder.bitcast(test("!=", value, other), word), _INDEX)

        return types.uint64(values, types.int64, values.dtype), emit

    return compare


@intrinsic
def spread_16(typing, values, at, bits):
    """Sixteen numbers: one for each of the lowest bits that is set, zero for each other."""

    def emit(context, builder, signature, arguments):
        target = _Array(context, builder, signature.args[0], arguments[0])
        flags = builder.bitcast(builder.trunc(arguments[2], ir.IntType(LANES)), ir.VectorType(ir.IntType(1), LANES))
        target.store(builder.uitofp(flags, target.vector), arguments[1])
        return context.get_dummy_value()

    return types.void(values, types.int64, types.uint64), emit


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
        offsets = _Array(context, builder, index_type, index)
        total = [cgutils.alloca_once_value(builder, target.load(_plus(builder, at, n))) for n in range(vectors)]
        with cgutils.for_range(builder, count) as loop:
            event = builder.add(start, loop.index)
            row = builder.add(builder.mul(builder.zext(offsets.scalar(event), _INDEX), width), column)
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
            offset = types.int64
            return types.void(sums, offset, rows, offset, offset, index, value, offset, offset), emit
    else:

        @intrinsic
        def add(typing, sums, at, rows, column, width, index, start, count):
            offset = types.int64
            return types.void(sums, offset, rows, offset, offset, index, offset, offset), emit

    return add


def _tile(rows: int, panels: int):
    """An intrinsic for `rows` x `panels * LANES` numbers of a product, all held in registers; b lies in panels."""

    @intrinsic
    def fill(typing, c, c_at, c_row, a, a_at, a_row, a_depth, b, b_at, depth, add):
        def emit(context, builder, signature, arguments):
            _, c_at, c_row, _, a_at, a_row, a_depth, _, b_at, depth, add = arguments
            target, left, right = (
                _Array(context, builder, signature.args[offset], arguments[offset]) for offset in (0, 3, 7)
            )
            corners = [builder.add(c_at, builder.mul(_INDEX(r), c_row)) for r in range(rows)]
            zero = ir.Constant(target.vector, [0.0] * LANES)
            total = [[cgutils.alloca_once_value(builder, zero) for _ in range(panels)] for _ in corners]
            for row in total:
                for one in row:
                    builder.store(zero, one)
            with builder.if_then(builder.trunc(add, ir.IntType(1))):
                for corner, row in zip(corners, total, strict=True):
                    for n in range(panels):
                        builder.store(target.load(_plus(builder, corner, n)), row[n])
            starts = [builder.add(a_at, builder.mul(_INDEX(r), a_row)) for r in range(rows)]
            size = builder.mul(depth, _INDEX(LANES))
            columns = [builder.add(b_at, builder.mul(size, _INDEX(n))) for n in range(panels)]
            with cgutils.for_range(builder, depth) as loop:
                below = builder.mul(loop.index, _INDEX(LANES))
                along = builder.mul(loop.index, a_depth)
                parts = [right.load(builder.add(column, below)) for column in columns]
                for r in range(rows):
                    factor = left.splat(builder.add(starts[r], along))
                    for n in range(panels):
                        builder.store(right.fused(factor, parts[n], builder.load(total[r][n])), total[r][n])
            for corner, row in zip(corners, total, strict=True):
                for n in range(panels):
                    target.store(builder.load(row[n]), _plus(builder, corner, n))
            return context.get_dummy_value()

        offset = types.int64
        return types.void(c, offset, offset, a, offset, offset, offset, b, offset, offset, types.boolean), emit

    return fill


def _dots(count: int):
    """An intrinsic that adds the products of a row with `count` rows, those that an index names, in blocks of columns.

    A row that it names twice counts once.
    """

    @intrinsic
    def fill(typing, sums, at, row, row_at, rows, number, width, index, start):
        def emit(context, builder, signature, arguments):
            _, at, _, row_at, _, number, width, _, start = arguments
            target, left, right, names = (
                _Array(context, builder, signature.args[offset], arguments[offset]) for offset in (0, 2, 4, 7)
            )
            chosen = [builder.zext(names.scalar(builder.add(start, _INDEX(n))), _INDEX) for n in range(count)]
            zero, block = ir.Constant(left.vector, [0.0] * LANES), _INDEX(BLOCK_COLUMNS)
            total = [cgutils.alloca_once_value(builder, zero) for _ in chosen]
            for one in total:
                builder.store(zero, one)
            with cgutils.for_range_slice(builder, _INDEX(0), width, block, inc=True) as (column, _):
                left_over = builder.sub(width, column)
                columns = builder.select(builder.icmp_signed("<", left_over, block), left_over, block)
                first = builder.mul(column, number)
                starts = [builder.add(first, builder.mul(position, columns)) for position in chosen]
                along = builder.add(row_at, column)
                with cgutils.for_range(builder, builder.udiv(columns, _INDEX(LANES))) as loop:
                    here = builder.mul(loop.index, _INDEX(LANES))
                    part = left.load(builder.add(along, here))
                    for one, other in zip(total, starts, strict=True):
                        product = right.fused(part, right.load(builder.add(other, here)), builder.load(one))
                        builder.store(product, one)
            sums, to = (
                _sums(builder, [builder.load(one) for one in total]),
                [builder.add(at, position) for position in chosen],
            )
            before = [target.scalar(each) for each in to]
            for n, (each, so_far) in enumerate(zip(to, before, strict=True)):
                new = builder.fadd(so_far, builder.extract_element(sums, _LANE(n)))
                builder.store(new, builder.gep(target.data, [each]))
            return context.get_dummy_value()

        offset = types.int64
        return types.void(sums, offset, row, offset, rows, offset, offset, index, offset), emit

    return fill


def _sums(builder, vectors):
    """The sums of each of some vectors, as one: neighbours are added, of two vectors at a time."""
    count = len(vectors)
    while vectors[0].type.count > count or len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True) if len(vectors) > 1 else [(vectors[0], vectors[0])]
        wide = vectors[0].type.count if len(vectors) > 1 else vectors[0].type.count // 2
        even, odd = (
            ir.Constant(ir.VectorType(_LANE, wide), [2 * lane + side for lane in range(wide)]) for side in (0, 1)
        )
        vectors = [
            builder.fadd(builder.shuffle_vector(one, other, even), builder.shuffle_vector(one, other, odd))
            for one, other in pairs
        ]
    return vectors[0]


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

    def store(self, value, at, *, past_cache: bool = False) -> None:
        stored = self.builder.store(
            value, self._address(at), align=self.lanes * self.bytes if past_cache else self.bytes
        )
        if past_cache:
            stored.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))

    def fused(self, x, y, z):
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.bytes}"
        function = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(self.builder.module.declare_intrinsic(name, (), function), [x, y, z])

    def _address(self, at):
        return self.builder.bitcast(self.builder.gep(self.data, [at]), self.vector.as_pointer())


def _plus(builder, at, vectors: int):
    return builder.add(at, _INDEX(LANES * vectors))


copy, copy_8 = _copied(LANES, past_cache=False), _copied(8, past_cache=False)
copy_past_cache = _copied(8, past_cache=True)
# what numba compiles for: the processor here, or what NUMBA_CPU_FEATURES says
_ASKED_FOR: str | None = vars(config)["CPU_FEATURES"]  # numba sets it from the environment
_HAS_512_BITS = "+avx512f" in (_ASKED_FOR or get_host_cpu_features().flatten()).split(",")
BLOCK_COLUMNS = 64 if _HAS_512_BITS else 32  # columns: four registers of single precision
add_rows_block, add_rows_16 = (_row_sum(count, scaled=False) for count in (BLOCK_COLUMNS // LANES, 1))
add_scaled_rows_block, add_scaled_rows_16 = (_row_sum(count, scaled=True) for count in (BLOCK_COLUMNS // LANES, 1))
# as many sums as hide the latency of an addition: in 32 registers of a panel each, or in 16 of half a panel
TILE_ROWS, TILE_PANELS = (8, 2) if _HAS_512_BITS else (6, 1)
SHORT_TILE_ROWS = 4  # rows of a tile for what tall ones leave over
tile, tile_of_one_panel = _tile(TILE_ROWS, TILE_PANELS), _tile(TILE_ROWS, 1)
short_tile, tile_of_one_row = _tile(SHORT_TILE_ROWS, 1), _tile(1, 1)
DOTS = 8 if _HAS_512_BITS else 4  # rows that one is multiplied with at once
dots = _dots(DOTS)
add_scaled = _scaled(LANES)
(largest_8, put_back_8), (largest_4, put_back_4), (largest_1, put_back_1) = map(_window, (8, 4, 1))
(largest_2x2_8, put_back_2x2_8), (largest_2x2_4, put_back_2x2_4) = _window(8, 2), _window(4, 2)
differing_64, differing_8 = _differing(64), _differing(8)
