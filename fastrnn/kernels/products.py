"""Products of rows and a matrix, a few rows and columns at a time: what a layer is made of.

Every product here is

    out[r, u] = begin[r, u] + sum over k of a[r, k] w[k, u]

k in order, a fused multiply-add each, so that its bits depend on no cut. What runs at the speed
of the processor is `multiply`: a tile of a few rows and one *panel* of columns stays in
registers while k runs; for each k it loads the panel's vectors once, and one number of each row.

Panels are those of ``panels.py``: a kernel is handed the shape of one, which it is compiled for.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrnn.kernels.jit import apart, bare, part, written_out
from fastrnn.kernels.memory import get
from fastrnn.kernels.panels import MOST_ROWS, most_sums
from fastrnn.kernels.simd import LANES, Vector, fma_number


def _shape(panel):
    return len(panel), len(panel[0])


@intrinsic
def panel_width(typingctx, panel):
    """Columns of a panel."""
    vectors, lanes = _shape(panel)

    def generate(context, builder, signature, values):
        return ir.Constant(ir.IntType(64), vectors * lanes)

    return types.int64(panel), generate


def _most_rows(panel, array):
    vectors, lanes = _shape(panel)
    room = most_sums() * LANES[array.dtype] // lanes
    return max(1, min(MOST_ROWS, room // vectors))


@intrinsic
def most_rows(typingctx, panel, array):
    """Rows of a tile of such panels."""

    def generate(context, builder, signature, values):
        return ir.Constant(ir.IntType(64), _most_rows(panel, array))

    return types.int64(panel, array), generate


@intrinsic
def copy_lanes(typingctx, panel, source, at, target, to):
    """Copy as many numbers as a vector of the panel has lanes."""
    _, lanes = _shape(panel)

    def generate(context, builder, signature, values):
        _, source_, at_, target_, to_ = values
        kind = context.get_value_type(Vector(source.dtype, lanes)).as_pointer()
        from_ = builder.gep(_data(context, builder, source_, source), [at_])
        into = builder.gep(_data(context, builder, target_, target), [to_])
        value = builder.load(builder.bitcast(from_, kind))
        value.align = source.dtype.bitwidth // 8
        builder.store(value, builder.bitcast(into, kind)).align = value.align
        return context.get_dummy_value()

    return types.void(panel, source, types.int64, target, types.int64), generate


@intrinsic
def lanes_in(typingctx, panel):
    """Lanes of a panel's vectors."""

    def generate(context, builder, signature, values):
        return ir.Constant(ir.IntType(64), _shape(panel)[1])

    return types.int64(panel), generate


@part
def copy_row(panel, source, at, target, to, count):
    """Copy consecutive numbers, at least as many as the panel's vectors have lanes."""
    n = lanes_in(panel)
    for i in range(0, count, n):
        v = min(i, count - n)
        copy_lanes(panel, source, at + v, target, to + v)


def _data(context, builder, array, array_type):
    return context.make_array(array_type)(context, builder, array).data


class _Tile:
    """Code of one tile: its sums in registers, loops over k that add to them."""

    def __init__(self, context, builder, vector, vectors, rows):
        self.context, self.builder, self.rows, self.vectors = context, builder, rows, vectors
        self.number = vector.number
        self.llvm_vector = context.get_value_type(vector)
        self.sums = [
            [cgutils.alloca_once(builder, self.llvm_vector) for _ in range(vectors)]
            for _ in range(rows)
        ]

    def _vectors(self, pointer):
        """Addresses of consecutive vectors."""
        for v in range(self.vectors):
            place = self.builder.gep(pointer, [ir.Constant(ir.IntType(64), v * self.lanes)])
            yield self.builder.bitcast(place, self.llvm_vector.as_pointer())

    @property
    def lanes(self):
        return self.llvm_vector.count

    def _rows_at(self, pointer, stride):
        for r, sums in enumerate(self.sums):
            at = self.builder.mul(stride, ir.Constant(ir.IntType(64), r))
            yield from zip(sums, self._vectors(self.builder.gep(pointer, [at])), strict=True)

    def begin(self, pointer, stride):
        for sum_, place in self._rows_at(pointer, stride):
            value = self.builder.load(place)
            value.align = self.number.bitwidth // 8
            self.builder.store(value, sum_)

    def store(self, pointer, stride):
        for sum_, place in self._rows_at(pointer, stride):
            value = self.builder.load(sum_)
            self.builder.store(value, place).align = self.number.bitwidth // 8

    def add(self, pointers, step, w, w_stride, count):
        """Add a[r, k] w[k, u] for all k, a's rows from ``pointers`` on."""
        builder, one = self.builder, ir.IntType(64)
        kind = ir.FunctionType(self.llvm_vector, [self.llvm_vector] * 3)
        suffix = f"v{self.lanes}f{self.number.bitwidth}"
        fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.{suffix}")
        undefined = ir.Constant(self.llvm_vector, ir.Undefined)
        every = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        at, w_at = (cgutils.alloca_once_value(builder, ir.Constant(one, 0)) for _ in range(2))
        with cgutils.for_range(builder, count):
            k, w_k = builder.load(at), builder.load(w_at)
            columns = []
            for place in self._vectors(builder.gep(w, [w_k])):
                value = builder.load(place)
                value.align = self.number.bitwidth // 8
                columns.append(value)
            for pointer, sums in zip(pointers, self.sums, strict=True):
                number = builder.load(builder.gep(pointer, [k]))
                first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
                row = builder.shuffle_vector(first, undefined, every)
                for column, sum_ in zip(columns, sums, strict=True):
                    builder.store(builder.call(fma, [row, column, builder.load(sum_)]), sum_)
            builder.store(builder.add(k, step), at)
            builder.store(builder.add(w_k, w_stride), w_at)


@intrinsic
def multiply(
    typingctx, panel, number, rows, first, begin, begin_at, begin_stride, sources, out, out_at,
    out_stride,
):  # fmt: skip
    """One tile: out = begin + a w, for some rows from ``first`` on, at most `most_rows`.

    Row r of ``begin`` and ``out`` is r strides behind the first. ``sources`` are products that
    are added one after the other, each a tuple

        a, offsets, at, step, w, w_at, w_panel, w_stride, count

    of the numbers a[offsets[first + r] + at + k step] and of the vectors of the panel with this
    ``number``, w[w_at + number w_panel + k w_stride ...], k below ``count``.
    """
    vectors, lanes = _shape(panel)
    vector = Vector(begin.dtype, lanes)

    def generate(context, builder, signature, values):
        number_, rows_, first_, begin_, begin_at_, begin_stride_, sources_ = values[1:8]
        out_, out_at_, out_stride_ = values[8:]
        start = builder.gep(_data(context, builder, begin_, begin), [begin_at_])
        end = builder.gep(_data(context, builder, out_, out), [out_at_])
        given = cgutils.unpack_tuple(builder, sources_, len(sources))
        for size in range(1, _most_rows(panel, begin) + 1):
            with builder.if_then(builder.icmp_signed("==", rows_, ir.Constant(rows_.type, size))):
                tile = _Tile(context, builder, vector, vectors, size)
                tile.begin(start, begin_stride_)
                for source, kind in zip(given, sources, strict=True):
                    a, offsets, at, step, w, w_at, w_panel, w_stride, count = cgutils.unpack_tuple(
                        builder, source, len(kind)
                    )
                    a_data = _data(context, builder, a, kind[0])
                    offset_data = _data(context, builder, offsets, kind[1])
                    pointers = []
                    for r in range(size):
                        index = builder.add(first_, ir.Constant(first_.type, r))
                        offset = builder.load(builder.gep(offset_data, [index]))
                        pointers.append(builder.gep(a_data, [builder.add(offset, at)]))
                    w_first = builder.add(w_at, builder.mul(number_, w_panel))
                    w_data = builder.gep(_data(context, builder, w, kind[4]), [w_first])
                    tile.add(pointers, step, w_data, w_stride, count)
                tile.store(end, out_stride_)
        return context.get_dummy_value()

    whole = types.int64
    given = panel, whole, whole, whole, begin, whole, whole, sources, out, whole, whole
    return types.void(*given), generate


@written_out
def of_packed(a, offsets, at, step, w, w_at, count, width):
    """Source of `multiply` with a matrix that is `packed`, of ``count`` rows."""
    return a, offsets, at, step, w, w_at, count * width, width, count


@bare
def affine(
    panel, rows, columns, begin, begin_at, begin_stride, sources, out, out_at, out_stride
):  # fmt: skip
    """out[r, u] = begin[r, u] + all a w, for so many rows and columns; see `multiply`."""
    width, most = panel_width(panel), most_rows(panel, out)
    groups = max(1, (rows + most - 1) // most)
    share = max(1, (rows + groups - 1) // groups)
    for p in range((columns + width - 1) // width):
        u = min(p * width, columns - width)
        for first in range(0, rows, share):
            multiply(
                panel, p, min(share, rows - first), first, begin,
                begin_at + u + first * begin_stride, begin_stride, sources, out,
                out_at + u + first * out_stride, out_stride,
            )  # fmt: skip


@bare
def add_outer(panel, rows, columns, a, offsets, at, step, w, w_at, w_stride, count, scratch, total):
    """total[p, r, u] += sum over k of a[r, k] w[k, u], of panels p, with sums in float64.

    Of ``count`` samples k, the sum of which is in the arrays' own type.
    """
    apart()
    width, most = panel_width(panel), most_rows(panel, a)
    groups = max(1, (rows + most - 1) // most)
    share = max(1, (rows + groups - 1) // groups)
    for p in range((columns + width - 1) // width):
        u = min(p * width, columns - width)
        for first in range(0, rows, share):
            size = min(share, rows - first)
            multiply(
                panel, 0, size, first, scratch, most * width, 0,
                ((a, offsets, at, step, w, w_at + u, 0, w_stride, count),), scratch, 0, width,
            )  # fmt: skip
            to = (p * rows + first) * width
            for i in range(size * width):
                total[to + i] += scratch[i]


@bare
def add_outer_by_number(
    panel, rows, columns, a, offsets, at, step, w, w_at, w_stride, count, total
):  # fmt: skip
    """The same bits, number by number, where some are infinite: a factor of 0 adds nothing."""
    apart()
    width, zero = panel_width(panel), a.dtype.type(0)
    for p in range((columns + width - 1) // width):
        u = min(p * width, columns - width)
        for r in range(rows):
            for i in range(width):
                sum_ = zero
                for k in range(count):
                    factor = get(a, offsets[r] + at + k * step)
                    other = get(w, w_at + u + i + k * w_stride)
                    if factor != 0.0 and other != 0.0:
                        sum_ = fma_number(factor, other, sum_)
                total[(p * rows + r) * width + i] += sum_
