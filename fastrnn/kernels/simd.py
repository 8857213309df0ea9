"""SIMD vectors as a Numba type: float32 x 16 and float64 x 8, written like numbers.

A processor's vector register holds several numbers, its lanes, and works on all of them at
once. LLVM, the compiler behind Numba, knows such vectors; Numba does not. This file teaches
them to it, so that a kernel can say ``fma(w2, h, w1 * x + b)`` of sixteen neurons as of one.

Three things make a Numba extension, and each stands once below:

* a *type* (`Vector`, `Mask`) that Numba's type inference hands around, with a *data model* that
  tells which LLVM type holds its values;
* an *intrinsic* for each operation: a function that is given the argument types and returns a
  signature and a generator, which emits the LLVM instruction;
* a *template* with a *lowering* for each Python operator: the same, in two halves, for ``+``.

Rules of the language: a plain number that meets a vector takes the vector's type and fills all
lanes, so that literals never widen float32. Nothing is contracted or reordered: a fused
multiply-add happens where ``fma`` is written and nowhere else, so that every processor gives
the same bits.

Loads and stores stand in ``memory.py``.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils, typing
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = {types.float32: 16, types.float64: 8}
# Bits of the fraction, bias of the exponent.
FORMAT = {types.float32: (23, 127), types.float64: (52, 1023)}


class Vector(types.Type):
    """``lanes`` numbers of one float type."""

    def __init__(self, number, lanes):
        self.number = number
        self.lanes = lanes
        super().__init__(f"Vector({number} x {lanes})")


class Mask(types.Type):
    """``lanes`` truth values."""

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(f"Mask({lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        number = manager.lookup(vector.number).get_value_type()
        super().__init__(manager, vector, ir.VectorType(number, vector.lanes))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, mask):
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), mask.lanes))


# --- what generators share ---


def llvm_type(context, vector):
    return context.get_value_type(vector)


def _bits_type(vector):
    return ir.VectorType(ir.IntType(vector.number.bitwidth), vector.lanes)


def constant(llvm_vector, value):
    return ir.Constant(llvm_vector, [value] * llvm_vector.count)


def broadcast(builder, value, llvm_vector):
    """``value`` in every lane."""
    undefined = ir.Constant(llvm_vector, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, constant(index_type(llvm_vector), 0))


def index_type(llvm_vector):
    return ir.VectorType(ir.IntType(32), llvm_vector.count)


def _as_vector(context, builder, value, given, vector):
    """A vector as it is; a number in every lane of a vector."""
    if given == vector:
        return value
    number = context.cast(builder, value, given, vector.number)
    return broadcast(builder, number, llvm_type(context, vector))


def _common(*given):
    """The vector type that the arguments take together, or None."""
    vectors = {t for t in given if isinstance(t, Vector)}
    rest = [t for t in given if not isinstance(t, Vector)]
    fits = len(vectors) == 1 and all(isinstance(t, types.Number) for t in rest)
    return vectors.pop() if fits else None


def _call(builder, name, vector_llvm, arguments, suffix):
    kind = ir.FunctionType(vector_llvm, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.{suffix}")
    return builder.call(function, arguments)


def suffix(vector):
    return f"v{vector.lanes}f{vector.number.bitwidth}"


# --- elementwise operations ---


def _lowering(emit):
    """Generator of an operation; ``emit(builder, vector, *values)`` makes the instruction."""

    def generate(context, builder, signature, values):
        vector = _common(*signature.args)
        pairs = zip(values, signature.args, strict=True)
        return emit(
            builder, vector, *(_as_vector(context, builder, v, t, vector) for v, t in pairs)
        )

    return generate


def _typed(result, given):
    """Signature of an operation, or None if it is not one of vectors."""
    vector = _common(*given)
    if vector is None:
        return None
    return typing.signature(result(vector.lanes) if result else vector, *given)


def _function(emit, arguments, result=None):
    """An operation as a function of two or three arguments."""

    def typed(*given):
        found = _typed(result, given)
        return None if found is None else (found, _lowering(emit))

    if arguments == 2:
        return intrinsic(lambda typingctx, a, b: typed(a, b))
    return intrinsic(lambda typingctx, a, b, c: typed(a, b, c))


def _operator(symbol, emit, arguments=2, result=None):
    """An operation as a Python operator."""

    class Template(typing.templates.AbstractTemplate):
        key = symbol

        def generic(self, given, keywords):
            return _typed(result, given)

    typing.templates.infer_global(symbol)(Template)
    kinds = [(Vector,)]
    if arguments == 2:
        kinds = [(Vector, Vector), (Vector, types.Number), (types.Number, Vector)]
    for kind in kinds:
        lower_builtin(symbol, *kind)(_lowering(emit))


def _instruction(name):
    return lambda builder, vector, *values: getattr(builder, name)(*values)


def _intrinsic_call(name):
    return lambda builder, vector, *values: _call(
        builder, name, values[0].type, list(values), suffix(vector)
    )


def _on_bits(name):
    def emit(builder, vector, *values):
        bits = [builder.bitcast(value, _bits_type(vector)) for value in values]
        return builder.bitcast(getattr(builder, name)(*bits), values[0].type)

    return emit


def _comparison(sign):
    return lambda builder, vector, a, b: builder.fcmp_ordered(sign, a, b)


def _bounded(sign):
    """The bound where it is on that side of the vector; NaN in the vector stays."""

    def emit(builder, vector, v, bound):
        return builder.select(builder.fcmp_ordered(sign, bound, v), bound, v)

    return emit


fma = _function(_intrinsic_call("fma"), 3)  # a * b + c, rounded once
copysign = _function(_intrinsic_call("copysign"), 2)
minimum = _function(_bounded("<"), 2)  # the bound comes second and is no NaN
maximum = _function(_bounded(">"), 2)

_operator(operator.neg, _instruction("fneg"), 1)
_operator(abs, _intrinsic_call("fabs"), 1)
_operator(operator.add, _instruction("fadd"))
_operator(operator.sub, _instruction("fsub"))
_operator(operator.mul, _instruction("fmul"))
_operator(operator.truediv, _instruction("fdiv"))
# On the bits of the numbers' representation.
_operator(operator.and_, _on_bits("and_"))
_operator(operator.or_, _on_bits("or_"))
_operator(operator.xor, _on_bits("xor"))
# False where either is NaN, as in NumPy; but for !=.
_operator(operator.lt, _comparison("<"), result=Mask)
_operator(operator.le, _comparison("<="), result=Mask)
_operator(operator.gt, _comparison(">"), result=Mask)
_operator(operator.ge, _comparison(">="), result=Mask)
_operator(operator.eq, _comparison("=="), result=Mask)
_operator(
    operator.ne, lambda builder, vector, a, b: builder.fcmp_unordered("!=", a, b), result=Mask
)


# --- truth values ---


def _on_masks(symbol, emit, arguments):
    class Template(typing.templates.AbstractTemplate):
        key = symbol

        def generic(self, given, keywords):
            fits = len(set(given)) == 1 and isinstance(given[0], Mask)
            return typing.signature(given[0], *given) if fits else None

    typing.templates.infer_global(symbol)(Template)
    lower_builtin(symbol, *(Mask,) * arguments)(
        lambda context, builder, signature, values: emit(builder, *values)
    )


_on_masks(operator.and_, lambda builder, a, b: builder.and_(a, b), 2)
_on_masks(operator.or_, lambda builder, a, b: builder.or_(a, b), 2)
_on_masks(operator.invert, lambda builder, a: builder.not_(a), 1)


@intrinsic
def fma_number(typingctx, a, b, c):
    """fma of plain numbers of one type: a loop of them is left to the compiler to vectorise."""

    def generate(context, builder, signature, values):
        return _call(builder, "fma", values[0].type, list(values), f"f{a.bitwidth}")

    return (a(a, b, c), generate) if a == b == c and isinstance(a, types.Float) else None


@intrinsic
def where(typingctx, mask, a, b):
    """a where the mask is true, else b."""
    vector = _common(a, b)
    if vector is None or mask != Mask(vector.lanes):
        return None

    def generate(context, builder, signature, values):
        chosen, *rest = values
        a, b = (
            _as_vector(context, builder, value, given, vector)
            for value, given in zip(rest, signature.args[1:], strict=True)
        )
        return builder.select(chosen, a, b)

    return vector(mask, a, b), generate


@intrinsic
def any_lane(typingctx, mask):
    """Whether the mask is true anywhere."""

    def generate(context, builder, signature, values):
        bits = builder.bitcast(values[0], ir.IntType(mask.lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return (types.boolean(mask), generate) if isinstance(mask, Mask) else None


# --- powers of two ---


@intrinsic
def integer_shift(typingctx, v):
    """A number that, added to a small one, leaves the nearest integer in the low bits of the sum.

    It is 1.5 * 2**23 (2**52), and the bias of the exponent, which `power_of_two` need not add.
    ``shifted = fma(u, 1 / step, integer_shift(u))`` and ``shifted - integer_shift(u)`` round
    u / step to an integer in two operations; `power_of_two` takes ``shifted`` itself.
    """
    fraction_bits, bias = FORMAT[v.number]

    def generate(context, builder, signature, values):
        return constant(llvm_type(context, v), 1.5 * 2.0**fraction_bits + bias)

    return v(v), generate


@intrinsic
def power_of_two(typingctx, shifted):
    """2**k for the integer k of ``shifted = k + integer_shift``, k a normal exponent."""
    fraction_bits, _ = FORMAT[shifted.number]

    def generate(context, builder, signature, values):
        bits_type = _bits_type(shifted)
        bits = builder.bitcast(values[0], bits_type)
        bits = builder.shl(bits, constant(bits_type, fraction_bits))
        return builder.bitcast(bits, values[0].type)

    return shifted(shifted), generate


@intrinsic
def exponent(typingctx, v):
    """e of v = m * 2**e with |m| in [1, 2), as a number; -127 (-1023) for zero."""
    fraction_bits, bias = FORMAT[v.number]

    def generate(context, builder, signature, values):
        bits_type = _bits_type(v)
        # An integer below 2**fraction_bits in the low bits of 2**fraction_bits is their sum.
        offset = 2.0**fraction_bits
        offset_bits = (bias + fraction_bits) << fraction_bits
        sign_off = constant(bits_type, (1 << (v.number.bitwidth - 1)) - 1)
        bits = builder.and_(builder.bitcast(values[0], bits_type), sign_off)
        bits = builder.lshr(bits, constant(bits_type, fraction_bits))
        total = builder.bitcast(builder.or_(bits, constant(bits_type, offset_bits)), values[0].type)
        return builder.fsub(total, constant(total.type, offset + bias))

    return v(v), generate


@intrinsic
def mantissa(typingctx, v):
    """m of v = m * 2**e with |m| in [1, 2), for a normal v."""
    fraction_bits, bias = FORMAT[v.number]
    exponent_bits = ((1 << (v.number.bitwidth - 1)) - 1) >> fraction_bits << fraction_bits

    def generate(context, builder, signature, values):
        bits_type = _bits_type(v)
        mask = (1 << v.number.bitwidth) - 1 - exponent_bits
        bits = builder.and_(builder.bitcast(values[0], bits_type), constant(bits_type, mask))
        bits = builder.or_(bits, constant(bits_type, bias << fraction_bits))
        return builder.bitcast(bits, values[0].type)

    return v(v), generate


# --- between vectors and numbers ---


def _in_every_lane(number, lanes):
    vector = Vector(number, lanes)

    def generate(context, builder, signature, values):
        return broadcast(builder, values[0], llvm_type(context, vector))

    return vector(number), generate


@intrinsic
def splat(typingctx, number):
    """The number in every lane of a whole register."""
    return _in_every_lane(number, LANES[number])


@intrinsic
def single(typingctx, number):
    """The number as a vector of one lane: what a sequential kernel computes with."""
    return _in_every_lane(number, 1)


@intrinsic
def like(typingctx, v, number):
    """The number in every lane of a vector like ``v``."""

    def generate(context, builder, signature, values):
        return _as_vector(context, builder, values[1], number, v)

    return (v(v, number), generate) if isinstance(v, Vector) else None


@intrinsic
def lane(typingctx, v, index):
    """The number in one lane."""

    def generate(context, builder, signature, values):
        index = context.cast(builder, values[1], signature.args[1], types.int32)
        return builder.extract_element(values[0], index)

    return v.number(v, types.int64), generate


@intrinsic
def first_lanes(typingctx, v, count):
    """Mask of the lanes below ``count``."""

    def generate(context, builder, signature, values):
        kind = index_type(llvm_type(context, v))
        indices = ir.Constant(kind, list(range(v.lanes)))
        limit = context.cast(builder, values[1], signature.args[1], types.int32)
        return builder.icmp_signed("<", indices, broadcast(builder, limit, kind))

    return Mask(v.lanes)(v, types.int64), generate


@intrinsic
def ordered_sum(typingctx, v):
    """Sum of the lanes from the first to the last."""

    def generate(context, builder, signature, values):
        parts = [
            builder.extract_element(values[0], ir.Constant(ir.IntType(32), i))
            for i in range(v.lanes)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = builder.fadd(total, part)
        return total

    return v.number(v), generate
