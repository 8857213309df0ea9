"""Vectors to and from memory: loads, stores, and squares turned in registers.

Offsets count elements from the start of an array, whatever its shape.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from fastrnn.kernels.simd import LANES, Vector, constant, index_type, llvm_type, suffix

REGISTER_BYTES = 64


def _pointer(context, builder, array, array_type, offset, llvm_vector):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), llvm_vector.as_pointer())


def _loaded(builder, pointer, number):
    value = builder.load(pointer)
    value.align = number.bitwidth // 8
    return value


def _stored(builder, value, pointer, number):
    builder.store(value, pointer).align = number.bitwidth // 8


@intrinsic
def numbers_at(typingctx, address, like_array):
    """Flat array of the numbers from an address on, of another array's type.

    What the compiler knows of an array is its type, its layout and whether it may be written;
    an address spares a compilation for each kind. Whoever passes it keeps the array alive.
    """
    array = types.Array(like_array.dtype, 1, "C")

    def generate(context, builder, signature, values):
        result = context.make_array(array)(context, builder)
        number = context.get_data_type(array.dtype)
        size = ir.Constant(ir.IntType(64), array.dtype.bitwidth // 8)
        populate_array(
            result,
            data=builder.inttoptr(values[0], number.as_pointer()),
            shape=[ir.Constant(ir.IntType(64), 0)],
            strides=[size],
            itemsize=size,
            meminfo=None,
        )
        return result._getvalue()

    return array(types.int64, like_array), generate


@intrinsic
def lanes_of(typingctx, array):
    """Lanes of a register of the array's numbers."""

    def generate(context, builder, signature, values):
        return ir.Constant(ir.IntType(64), LANES[array.dtype])

    return types.int64(array), generate


@intrinsic
def get(typingctx, array, offset):
    """The element at ``offset``."""

    def generate(context, builder, signature, values):
        data = context.make_array(array)(context, builder, values[0]).data
        return builder.load(builder.gep(data, [values[1]]))

    return array.dtype(array, types.int64), generate


@intrinsic
def put(typingctx, array, offset, number):
    """Write the element at ``offset``."""

    def generate(context, builder, signature, values):
        data = context.make_array(array)(context, builder, values[0]).data
        value = context.cast(builder, values[2], number, array.dtype)
        builder.store(value, builder.gep(data, [values[1]]))
        return context.get_dummy_value()

    return types.void(array, types.int64, number), generate


@intrinsic
def load(typingctx, array, offset):
    """A register of consecutive elements from ``offset`` on."""
    vector = Vector(array.dtype, LANES[array.dtype])

    def generate(context, builder, signature, values):
        pointer = _pointer(
            context, builder, values[0], array, values[1], llvm_type(context, vector)
        )
        return _loaded(builder, pointer, array.dtype)

    return vector(array, types.int64), generate


@intrinsic
def load_double(typingctx, array, offset):
    """Eight consecutive elements of either type, as float64."""
    narrow, vector = Vector(array.dtype, 8), Vector(types.float64, 8)

    def generate(context, builder, signature, values):
        pointer = _pointer(
            context, builder, values[0], array, values[1], llvm_type(context, narrow)
        )
        value = _loaded(builder, pointer, array.dtype)
        return value if narrow == vector else builder.fpext(value, llvm_type(context, vector))

    return vector(array, types.int64), generate


@intrinsic
def store(typingctx, array, offset, v):
    """Write a vector over consecutive elements from ``offset`` on, in the array's type."""
    target = Vector(array.dtype, v.lanes)

    def generate(context, builder, signature, values):
        llvm_target = llvm_type(context, target)
        pointer = _pointer(context, builder, values[0], array, values[1], llvm_target)
        value = values[2] if target == v else builder.fptrunc(values[2], llvm_target)
        _stored(builder, value, pointer, array.dtype)
        return context.get_dummy_value()

    return types.void(array, types.int64, v), generate


def _prefetch(builder, pointer, write):
    byte, flag = ir.IntType(8), ir.IntType(32)
    place = builder.bitcast(pointer, byte.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), flag, flag, flag])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    # For reading or writing, into the first cache, of data.
    builder.call(function, [place, flag(int(write)), flag(3), flag(1)])


@intrinsic
def prefetch(typingctx, array, offset):
    """Ask for the cache line of the element at ``offset``, which need not exist."""

    def generate(context, builder, signature, values):
        data = context.make_array(array)(context, builder, values[0]).data
        _prefetch(builder, builder.gep(data, [values[1]]), write=False)
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _masked(name, builder, vector, llvm_vector, pointer, arguments, mask):
    align = ir.Constant(ir.IntType(32), vector.number.bitwidth // 8)
    result = llvm_vector if name == "load" else ir.VoidType()
    before = [] if name == "load" else arguments
    after = arguments if name == "load" else []
    values = [*before, pointer, align, mask, *after]
    kind = ir.FunctionType(result, [value.type for value in values])
    function = cgutils.get_or_insert_function(
        builder.module, kind, f"llvm.masked.{name}.{suffix(vector)}.p0"
    )
    return builder.call(function, values)


@intrinsic
def load_where(typingctx, array, offset, mask):
    """Elements from ``offset`` on where the mask is true, 0 elsewhere; no other is touched."""
    vector = Vector(array.dtype, mask.lanes)

    def generate(context, builder, signature, values):
        llvm_vector = llvm_type(context, vector)
        pointer = _pointer(context, builder, values[0], array, values[1], llvm_vector)
        zero = [constant(llvm_vector, 0.0)]
        return _masked("load", builder, vector, llvm_vector, pointer, zero, values[2])

    return vector(array, types.int64, mask), generate


@intrinsic
def store_where(typingctx, array, offset, v, mask):
    """Write the lanes where the mask is true; no other element is touched."""

    def generate(context, builder, signature, values):
        llvm_vector = llvm_type(context, v)
        pointer = _pointer(context, builder, values[0], array, values[1], llvm_vector)
        _masked("store", builder, v, llvm_vector, pointer, [values[2]], values[3])
        return context.get_dummy_value()

    return types.void(array, types.int64, v, mask), generate


# --- square tiles: rows of consecutive elements to columns ---

# Rows are moved in pieces of 16 bytes, the widest within which processors turn numbers cheaply:
# whole rows, turned by rounds of interleaving, took 2.5 times as long where registers have 32.
PIECE_BYTES = 16


def _join(builder, pieces):
    """Short vectors, one after the other, as one."""
    while len(pieces) > 1:
        size = 2 * pieces[0].type.count
        indices = ir.Constant(ir.VectorType(ir.IntType(32), size), list(range(size)))
        pieces = [
            builder.shuffle_vector(pieces[k], pieces[k + 1], indices)
            for k in range(0, len(pieces), 2)
        ]
    return pieces[0]


def _split(builder, vector, size):
    """The way back of `_join`, to vectors of some size."""
    kind = ir.VectorType(ir.IntType(32), size)
    return [
        builder.shuffle_vector(vector, vector, ir.Constant(kind, list(range(k, k + size))))
        for k in range(0, vector.type.count, size)
    ]


def _turn(builder, vectors):
    """Transpose the squares that the pieces of as many vectors form, in rounds of interleaving."""
    n, size = vectors[0].type.count, len(vectors)
    halves = []
    for start in (0, size // 2):
        lanes = [
            lane
            for piece in range(0, n, size)
            for k in range(piece + start, piece + start + size // 2)
            for lane in (k, n + k)
        ]
        halves.append(ir.Constant(index_type(vectors[0].type), lanes))
    for _ in range(size.bit_length() - 1):
        vectors = [
            builder.shuffle_vector(vectors[k], vectors[k + size // 2], half)
            for k in range(size // 2)
            for half in halves
        ]
    return vectors


# A row is asked for so far ahead of its turn: there are more than a processor foresees by itself.
PREFETCH_BYTES = 256


def _prefetch_ahead(builder, pointer, direction, write):
    """Where a row is read or written next; ``direction`` is 1 or -1 for a walk back."""
    place = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    ahead = builder.mul(direction, ir.Constant(ir.IntType(64), PREFETCH_BYTES))
    _prefetch(builder, builder.gep(place, [ahead]), write)


def _row_pointer(context, builder, array, array_type, offsets, offsets_type, first, r, start):
    """Address of element offsets[first + r] + start of the array."""
    data = context.make_array(offsets_type)(context, builder, offsets).data
    index = builder.add(first, ir.Constant(ir.IntType(64), r))
    offset = builder.add(builder.load(builder.gep(data, [index])), start)
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _piece_type(context, array):
    number = array.dtype
    return ir.VectorType(context.get_data_type(number), PIECE_BYTES * 8 // number.bitwidth)


def _piece(builder, row, column, piece):
    """Address of the piece of a row that begins at a column."""
    place = builder.gep(row, [ir.Constant(ir.IntType(64), column)])
    return builder.bitcast(place, piece.as_pointer())


def _column(builder, start, stride, number):
    return builder.add(start, builder.mul(stride, ir.Constant(ir.IntType(64), number)))


@intrinsic
def load_columns(typingctx, array, offsets, first, start, tile, tile_start, tile_stride, direction):
    """Copy a square of ``array`` into ``tile``, its rows to columns.

    Row r is the register of consecutive elements from ``offsets[first + r] + start`` on; its
    element c goes to ``tile[tile_start + c * tile_stride + r]``. Squares follow one another in
    ``direction`` 1 or, when time runs backwards, -1.
    """
    vector = Vector(array.dtype, LANES[array.dtype])

    def generate(context, builder, signature, values):
        array_, offsets_, first_, start_, tile_, tile_start_, tile_stride_, direction_ = values
        llvm_vector, piece = llvm_type(context, vector), _piece_type(context, array)
        rows = [
            _row_pointer(context, builder, array_, array, offsets_, offsets, first_, r, start_)
            for r in range(vector.lanes)
        ]
        for row in rows:
            _prefetch_ahead(builder, row, direction_, write=False)
        for c in range(0, vector.lanes, piece.count):
            pieces = [_loaded(builder, _piece(builder, row, c, piece), array.dtype) for row in rows]
            vectors = [_join(builder, pieces[q :: piece.count]) for q in range(piece.count)]
            for q, column in enumerate(_turn(builder, vectors)):
                where_ = _column(builder, tile_start_, tile_stride_, c + q)
                pointer = _pointer(context, builder, tile_, tile, where_, llvm_vector)
                _stored(builder, column, pointer, array.dtype)
        return context.get_dummy_value()

    integer = types.int64
    arguments = array, offsets, integer, integer, tile, integer, integer, integer
    return types.void(*arguments), generate


@intrinsic
def store_columns(
    typingctx, array, offsets, first, start, tile, tile_start, tile_stride, direction
):
    """The way back of `load_columns`: a square of ``tile`` into the rows of ``array``."""
    vector = Vector(array.dtype, LANES[array.dtype])

    def generate(context, builder, signature, values):
        array_, offsets_, first_, start_, tile_, tile_start_, tile_stride_, direction_ = values
        llvm_vector, piece = llvm_type(context, vector), _piece_type(context, array)
        rows = [
            _row_pointer(context, builder, array_, array, offsets_, offsets, first_, r, start_)
            for r in range(vector.lanes)
        ]
        for row in rows:
            _prefetch_ahead(builder, row, direction_, write=True)
        for c in range(0, vector.lanes, piece.count):
            columns = []
            for q in range(piece.count):
                where_ = _column(builder, tile_start_, tile_stride_, c + q)
                pointer = _pointer(context, builder, tile_, tile, where_, llvm_vector)
                columns.append(_loaded(builder, pointer, array.dtype))
            for q, vector_ in enumerate(_turn(builder, columns)):
                pieces = _split(builder, vector_, piece.count)
                for row, value in zip(rows[q :: piece.count], pieces, strict=True):
                    _stored(builder, value, _piece(builder, row, c, piece), array.dtype)
        return context.get_dummy_value()

    integer = types.int64
    arguments = array, offsets, integer, integer, tile, integer, integer, integer
    return types.void(*arguments), generate
