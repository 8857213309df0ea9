"""Vectors to and from memory: loads, stores, and squares turned in registers.

Offsets count elements from the start of an array, whatever its shape.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from fastrnn.kernels.simd import LANES, Vector, broadcast, constant, index_type, llvm_type, suffix

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


def _stored_past(builder, value, pointer):
    stored = builder.store(value, pointer)
    stored.align = REGISTER_BYTES
    one = ir.Constant(ir.IntType(32), 1)
    stored.set_metadata("nontemporal", builder.module.add_metadata([one]))


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
    return vector(array, types.int64), _loading(array, vector)


@intrinsic(prefer_literal=True)
def load_group(typingctx, array, offset, registers):
    """As many registers of consecutive elements, as one vector; ``registers`` is a literal."""
    vector = Vector(array.dtype, registers.literal_value * LANES[array.dtype])
    result = _loading(array, vector)
    return vector(array, types.int64, registers), result


@intrinsic
def load_like(typingctx, v, array, offset):
    """As many consecutive elements as a vector of the array's numbers has."""

    def generate(context, builder, signature, values):
        return _loading(array, v)(context, builder, signature, values[1:])

    return v(v, array, types.int64), generate


def _loading(array, vector):
    def generate(context, builder, signature, values):
        llvm_vector = llvm_type(context, vector)
        pointer = _pointer(context, builder, values[0], array, values[1], llvm_vector)
        return _loaded(builder, pointer, array.dtype)

    return generate


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


@intrinsic
def store_past(typingctx, array, offset, v):
    """Write a register past the caches; it fills a whole line, which is not fetched first."""
    vector = Vector(array.dtype, LANES[array.dtype])

    def generate(context, builder, signature, values):
        llvm_vector = llvm_type(context, vector)
        pointer = _pointer(context, builder, values[0], array, values[1], llvm_vector)
        _stored_past(builder, values[2], pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


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


# --- several registers as one vector, each from a place of its own ---


def _places(context, builder, array, array_type, offsets, offsets_type, first, start, registers):
    """Addresses of registers from elements offsets[first + r * lanes] + start on."""
    llvm_vector = llvm_type(context, Vector(array_type.dtype, LANES[array_type.dtype]))
    given = context, builder, array, array_type, offsets, offsets_type, first
    rows = [_row_pointer(*given, r * llvm_vector.count, start) for r in range(registers)]
    return [builder.bitcast(row, llvm_vector.as_pointer()) for row in rows]


@intrinsic
def load_places(typingctx, v, array, offsets, first, start):
    """A vector like ``v``, its registers from ``offsets[first + their lane] + start`` on."""
    registers = v.lanes // LANES[array.dtype]

    def generate(context, builder, signature, values):
        _, array_, offsets_, first_, start_ = values
        places = _places(
            context, builder, array_, array, offsets_, offsets, first_, start_, registers
        )
        return _join(builder, [_loaded(builder, place, array.dtype) for place in places])

    return v(v, array, offsets, types.int64, types.int64), generate


@intrinsic
def splat_places(typingctx, v, array, offsets, first, start):
    """The same where all lanes of a register have the one number that it begins with."""
    registers = v.lanes // LANES[array.dtype]

    def generate(context, builder, signature, values):
        _, array_, offsets_, first_, start_ = values
        places = _places(
            context, builder, array_, array, offsets_, offsets, first_, start_, registers
        )
        number = context.get_data_type(array.dtype).as_pointer()
        numbers = [builder.load(builder.bitcast(place, number)) for place in places]
        kind = places[0].type.pointee
        return _join(builder, [broadcast(builder, value, kind) for value in numbers])

    return v(v, array, offsets, types.int64, types.int64), generate


@intrinsic
def prefetch_places(typingctx, v, array, offsets, first, start):
    """Ask for what `load_places` reads, which need not exist."""
    registers = v.lanes // LANES[array.dtype]

    def generate(context, builder, signature, values):
        _, array_, offsets_, first_, start_ = values
        for place in _places(
            context, builder, array_, array, offsets_, offsets, first_, start_, registers
        ):
            _prefetch(builder, place, write=False)
        return context.get_dummy_value()

    return types.void(v, array, offsets, types.int64, types.int64), generate


@intrinsic
def store_places(typingctx, array, offsets, first, start, v, past):
    """The way back of `load_places`; where ``past``, as `store_past`."""
    lanes = LANES[array.dtype]

    def generate(context, builder, signature, values):
        array_, offsets_, first_, start_, v_, past_ = values
        places = _places(
            context, builder, array_, array, offsets_, offsets, first_, start_, v.lanes // lanes
        )
        pairs = list(zip(_split(builder, v_, lanes), places, strict=True))
        with builder.if_else(past_) as (then, otherwise):
            with then:
                for value, place in pairs:
                    _stored_past(builder, value, place)
            with otherwise:
                for value, place in pairs:
                    _stored(builder, value, place, array.dtype)
        return context.get_dummy_value()

    return types.void(array, offsets, types.int64, types.int64, v, types.boolean), generate


# --- square tiles: rows of consecutive elements to columns ---

# Numbers are turned within pieces of 16 bytes, the widest within which processors do so cheaply,
# and then pieces as wholes: rounds of interleaving over whole rows took 2.5 times as long where
# registers have 32. Rows are read and written whole: where all of them share a set of the cache,
# as where T is a power of two, a line that is written in pieces is fetched for each.
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
    if vector.type.count == size:
        return [vector]
    kind = ir.VectorType(ir.IntType(32), size)
    return [
        builder.shuffle_vector(vector, vector, ir.Constant(kind, list(range(k, k + size))))
        for k in range(0, vector.type.count, size)
    ]


def _shuffle(builder, a, b, pieces, size):
    """Pieces of two vectors, those of the second numbered after those of the first."""
    lanes = [size * piece + k for piece in pieces for k in range(size)]
    return builder.shuffle_vector(a, b, ir.Constant(index_type(a.type), lanes))


def _turn_numbers(builder, vectors):
    """Transpose the squares that the pieces of as many vectors form, in rounds of interleaving."""
    n, size = vectors[0].type.count, len(vectors)
    halves = [
        [
            lane
            for piece in range(0, n, size)
            for k in range(piece + start, piece + start + size // 2)
            for lane in (k, n + k)
        ]
        for start in (0, size // 2)
    ]
    for _ in range(size.bit_length() - 1):
        vectors = [
            _shuffle(builder, vectors[k], vectors[k + size // 2], half, 1)
            for k in range(size // 2)
            for half in halves
        ]
    return vectors


def _turn_pieces(builder, vectors):
    """Transpose the square of pieces that four vectors of four form."""
    size = vectors[0].type.count // 4
    a, b, c, d = vectors
    pairs = [
        (_shuffle(builder, a, b, half, size), _shuffle(builder, c, d, half, size))
        for half in ([0, 1, 4, 5], [2, 3, 6, 7])
    ]
    return [
        _shuffle(builder, first, second, which, size)
        for first, second in pairs
        for which in ([0, 2, 4, 6], [1, 3, 5, 7])
    ]


def _turn(builder, vectors):
    """Transpose a square."""
    n = len(vectors)
    size = n // 4
    # Piece p of row r = size * i + q goes to piece i of the p-th vector of those of q; within
    # these, numbers are turned.
    by_piece = [_turn_pieces(builder, vectors[q::size]) for q in range(size)]
    return [
        column
        for p in range(4)
        for column in _turn_numbers(builder, [by_piece[q][p] for q in range(size)])
    ]


def _turn_back(builder, vectors):
    """The same, first within pieces: what comes in last is needed last."""
    n = len(vectors)
    size = n // 4
    turned = [_turn_numbers(builder, vectors[c : c + size]) for c in range(0, n, size)]
    by_row = [_turn_pieces(builder, [group[q] for group in turned]) for q in range(size)]
    return [by_row[r % size][r // size] for r in range(n)]


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


def _square(
    context, builder, array, array_type, offsets, offsets_type, first, start, direction, write
):  # fmt: skip
    """Addresses of the rows of a square, and those of the ones to come are asked for."""
    n = LANES[array_type.dtype]
    llvm_vector = llvm_type(context, Vector(array_type.dtype, n))
    given = context, builder, array, array_type, offsets, offsets_type, first
    rows = [_row_pointer(*given, r, start) for r in range(n)]
    for row in rows:
        _prefetch_ahead(builder, row, direction, write)
    return [builder.bitcast(row, llvm_vector.as_pointer()) for row in rows]


def _columns(context, builder, tile, tile_type, start, stride):
    """Addresses of the columns of a tile's square."""
    llvm_vector = llvm_type(context, Vector(tile_type.dtype, LANES[tile_type.dtype]))
    places = [
        builder.add(start, builder.mul(stride, ir.Constant(ir.IntType(64), c)))
        for c in range(LANES[tile_type.dtype])
    ]
    return [_pointer(context, builder, tile, tile_type, place, llvm_vector) for place in places]


@intrinsic
def load_columns(typingctx, array, offsets, first, start, tile, tile_start, tile_stride, direction):
    """Copy a square of ``array`` into ``tile``, its rows to columns.

    Row r is the register of consecutive elements from ``offsets[first + r] + start`` on; its
    element c goes to ``tile[tile_start + c * tile_stride + r]``. Squares follow one another in
    ``direction`` 1 or, when time runs backwards, -1.
    """

    def generate(context, builder, signature, values):
        array_, offsets_, first_, start_, tile_, tile_start_, tile_stride_, direction_ = values
        rows = _square(
            context, builder, array_, array, offsets_, offsets, first_, start_, direction_, False
        )
        columns = _turn(builder, [_loaded(builder, row, array.dtype) for row in rows])
        places = _columns(context, builder, tile_, tile, tile_start_, tile_stride_)
        for column, place in zip(columns, places, strict=True):
            _stored(builder, column, place, array.dtype)
        return context.get_dummy_value()

    integer = types.int64
    arguments = array, offsets, integer, integer, tile, integer, integer, integer
    return types.void(*arguments), generate


@intrinsic
def store_columns(
    typingctx, array, offsets, first, start, tile, tile_start, tile_stride, direction
):
    """The way back of `load_columns`: a square of ``tile`` into the rows of ``array``."""

    def generate(context, builder, signature, values):
        array_, offsets_, first_, start_, tile_, tile_start_, tile_stride_, direction_ = values
        rows = _square(
            context, builder, array_, array, offsets_, offsets, first_, start_, direction_, True
        )
        places = _columns(context, builder, tile_, tile, tile_start_, tile_stride_)
        columns = [_loaded(builder, place, array.dtype) for place in places]
        for row, value in zip(rows, _turn_back(builder, columns), strict=True):
            _stored(builder, value, row, array.dtype)
        return context.get_dummy_value()

    integer = types.int64
    arguments = array, offsets, integer, integer, tile, integer, integer, integer
    return types.void(*arguments), generate
