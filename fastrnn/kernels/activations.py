"""Activation functions on vectors, and their exact derivatives from the pre-activation.

``activate(f, z)`` is f(z), ``with_slope(f, z)`` is f(z) and f'(z), ``slope_scaled(f, z)`` is
f'(z) as mantissa and exponent. The argument f is one of ``fastrnn.kernels.ACTIVATIONS``; its
type picks the function when a kernel is compiled, so that no loop branches on it.

tanh and sigmoid are made of one exponential and one division, and neither ever falls. With
s = (exp(2|z|) + 1) / 2

    tanh |z| = (s - 1) / s        f'(z) = (1 + tanh |z|) (1 - tanh |z|),  1 - tanh |z| = 1 / s

and with e = exp(|z|)

    sigmoid |z| = e / (1 + e)     sigmoid -|z| = 1 / (1 + e)     f'(z) = their product

so that the derivative keeps its digits in saturation. The cheap 1 - h*h has a relative error of
4 % at |z| = 18 in float64 and of 100 % from 19 on (from 9 in float32).

A new activation is a name in ``ACTIVATIONS`` and a row in each table at the end.
"""

import math

from llvmlite import ir
from numba import types
from numba.extending import (
    NativeValue,
    intrinsic,
    models,
    overload,
    register_model,
    unbox,
)

from fastrnn.kernels import ACTIVATIONS
from fastrnn.kernels.jit import part
from fastrnn.kernels.simd import (
    Vector,
    copysign,
    fma,
    integer_shift,
    like,
    maximum,
    minimum,
    power_of_two,
    where,
)

LOG2_E = 1.4426950408889634
# From here on tanh is 1 in either type.
TANH_ONE = 20.0
# Up to here tanh z is z in either type.
TANH_IS_Z = 2.0**-40
# Up to here `_binades` finds the integer next to 2a log2(e); from ALL_INTEGERS on float64 has none
# but integers, and one of them is near enough to either.
LARGEST_SHIFTED, ALL_INTEGERS = 2.0**49, 2.0**52
# Of the exponent of exp(2a) where only 1 + exp(2a) is wanted.
LEAST_EXPONENT = -100.0
# Times 2 log2(e), the largest float64.
LARGEST_TRIPLED = 6.2e307


class Format:
    """What the exponential needs to know of a float type."""

    def __init__(self, half_ln_2, rest_of_half_ln_2, expm1, most_binades, slope_zero, short):
        # ln(2) / 2 as a number of this type, and what is missing to it.
        self.half_ln_2, self.rest_of_half_ln_2 = half_ln_2, rest_of_half_ln_2
        # (expm1(2r) / 2 - r) / r**2 for 2r in [-ln(2)/4, 3 ln(2)/4], minimax for the relative
        # error of expm1 (Lawson's iteration): 2**-26.1 in float32, 2**-55.4 in float64.
        self.expm1 = expm1
        # exp(u) is held as 2**k (1 + p) with k up to here, where 1 + exp(u) is exp(u) but for a
        # thousandth of a ULP; what is above divides the result.
        self.most_binades = most_binades
        # tanh'(z) is 0 from here on, that of the sigmoid from twice as much; and so is 2**(j - k),
        # its exponent the least there is: a product that underflows to 0 took a quarter longer.
        self.slope_zero = slope_zero
        # 1 - 2**k short is 1 for small k, and s minus it is s - 1 for every s = 2**k (...) that
        # has integers beside it: an eighth of half a ULP of 1.
        self.short = short


FORMATS = {
    types.float32: Format(
        0.3465735912322998, -9.5232669e-10,
        (1.0000000618654467967, 0.66667360246545284281, 0.33329389932884119351,
         0.13251172092818504037, 0.05129403768983698252),
        40.0, 57.95, 2.0**-28,
    ),
    types.float64: Format(
        0.34657359027997264, 1.15952342e-17,
        (1.0000000000000008674, 0.66666666666664192333, 0.3333333333325192135,
         0.13333333334971763453, 0.044444444573044587953, 0.012698409283994813488,
         0.0031746100347588941334, 0.0007056609233062967098, 0.00013956161992425562456,
         0.00003004647875789801796),
        60.0, 375.4, 2.0**-57,
    ),
}  # fmt: skip


def _of_format(get):
    """Function of a vector that is a constant of its float type, in every lane."""

    def typed(typingctx, v):
        def generate(context, builder, signature, values):
            llvm_vector = context.get_value_type(v)
            return ir.Constant(llvm_vector, [get(FORMATS[v.number])] * v.lanes)

        return (v(v), generate) if isinstance(v, Vector) else None

    return intrinsic(typed)


_half_ln_2 = _of_format(lambda form: form.half_ln_2)
_rest_of_half_ln_2 = _of_format(lambda form: form.rest_of_half_ln_2)
_most_binades = _of_format(lambda form: form.most_binades)
_slope_zero = _of_format(lambda form: form.slope_zero)
_short = _of_format(lambda form: form.short)


def _expm1_quotient(r):
    raise NotImplementedError("for compiled code")


@overload(_expm1_quotient, jit_options={"forceinline": True})
def _typed_expm1_quotient(r):
    """(expm1(2r) / 2 - r) / r**2."""
    c = FORMATS[r.number].expm1
    if r.number == types.float32:
        c0, c1, c2, c3, c4 = c

        def horner(r):
            p = fma(fma(c4, r, c3), r, c2)
            return fma(fma(p, r, c1), r, c0)
    else:
        c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 = c

        def horner(r):
            p = fma(fma(c9, r, c8), r, c7)
            p = fma(fma(fma(fma(p, r, c6), r, c5), r, c4), r, c3)
            return fma(fma(fma(p, r, c2), r, c1), r, c0)

    return horner


# Everywhere below, exp(2a) = 2**k (1 + 2p) and p = expm1(2r) / 2 with 2r in [-0.17, 0.52].


@part
def _binades(a):
    """k + integer_shift. The quarter makes k = 0, where p is the result itself, last to 0.52."""
    return fma(a, 2.0 * LOG2_E, -0.25) + integer_shift(a)


@part
def _half_expm1(r):
    """p."""
    return fma(_expm1_quotient(r) * r, r, r)


@part
def _exp_parts(a):
    """k + integer_shift and p, which leave exp(-k rest_of_half_ln_2) out of exp(a)."""
    shifted = _binades(a)
    return shifted, _half_expm1(fma(shifted - integer_shift(a), -_half_ln_2(a), a))


@part
def _bounded_parts(a):
    """2**j, p, 2**(j - k) and the rest: exp(-2a) = 2**-k / (1 + 2p) * (1 + rest).

    j is k where that is at most most_binades.
    """
    shifted, p = _exp_parts(a)
    bounded = minimum(shifted, integer_shift(a) + _most_binades(a))
    scale = power_of_two((bounded - shifted) + integer_shift(a))
    rest = (shifted - integer_shift(a)) * (2.0 * _rest_of_half_ln_2(a))
    return power_of_two(bounded), p, scale, rest


@part
def tanh(z):
    """tanh z."""
    shifted, p = _exp_parts(_usual(minimum(abs(z), TANH_ONE)))
    small, top, s = _tanh_fraction(power_of_two(shifted), p)
    return _signed(_tanh_of(small, p, top / s), z)


@part
def tanh_with_slope(z):
    """tanh z, with the bits of `tanh`, and its derivative."""
    power, p, scale, rest = _bounded_parts(_usual(minimum(abs(z), _slope_zero(z))))
    small, top, s = _tanh_fraction(power, p)
    # One division for both. The product, corrected once, is the quotient, rounded (Markstein 1990):
    # but for a power of two over a number of ones alone, which top and s never are.
    share = 1.0 / s
    product = top * share
    h = _tanh_of(small, p, fma(fma(-product, s, top), share, product))
    # Where the rest counts, h is all but 1, and (1 + h) (1 + rest) is 1 + h + 2 rest.
    return _signed(h, z), (share * (1.0 + fma(2.0, rest, h))) * scale


@part
def _usual(a):
    """No subnormal number, with which some processors take 30 times as long."""
    return maximum(a, TANH_IS_Z)


@part
def _tanh_fraction(power, p):
    """tanh a = top / s with s = (exp(2a) + 1) / 2, but where ``small``, see below.

    Neither ever falls as a rises: s is rounded once, s - 1 is exact, and (s - 1) / s = 1 - 1 / s
    rises with s.
    """
    s = fma(power, p, fma(power, 0.5, 0.5))
    small = power < 1.5
    # From 2**24 (2**53) on, s - 1 would be s and s - 2 by turns; with less than 1 it is s.
    return small, where(small, p, s - fma(power, -_short(p), 1.0)), s


@part
def _tanh_of(small, p, quotient):
    """tanh a from that quotient, p / s where ``small``: there, expm1(2a) / 2 is p and s is 1 + p.

    That has too few digits for small p: tanh a = p - p (p / s) takes little of their rounding, less
    than what it rises by from one p to the next (0.96 of it at the largest p, 0.341). Exact
    residuals instead of that took 5 % longer.
    """
    return where(small, fma(-p, quotient, p), quotient)


@part
def _signed(h, z):
    """tanh |z| with the sign of z; and z itself where `_usual` raised it, as it is no less."""
    return copysign(minimum(h, abs(z)), z)


@part
def sigmoid(z):
    """1 / (1 + exp(-z))."""
    y, scale = _sigmoid_below(z)
    return where(z >= 0.0, 1.0 - y, y * scale)


@part
def sigmoid_with_slope(z):
    """sigmoid z, with the bits of `sigmoid`, and its derivative."""
    y, scale = _sigmoid_below(z)
    return where(z >= 0.0, 1.0 - y, y * scale), (y * (1.0 - y)) * scale


@part
def _sigmoid_below(z):
    """y and a power of two whose product is sigmoid -|z| = 1 / (1 + e), e = exp(|z|)."""
    power, p, scale, rest = _bounded_parts(0.5 * minimum(abs(z), 2.0 * _slope_zero(z)))
    e = fma(power + power, p, power)
    sum_ = 1.0 + e
    lost = 1.0 - (sum_ - e)
    y = 1.0 / sum_
    # One Newton step takes back what the sum and the division rounded away.
    return fma(y, rest + fma(-y, lost, fma(-y, sum_, 1.0)), y), scale


@part
def relu(z):
    """max(z, 0)."""
    return maximum(z, 0.0)


@part
def _step(z):
    """1 above 0, else 0; NaN of NaN."""
    return where(z > 0.0, 1.0, where(z <= 0.0, like(z, 0.0), z))


@part
def relu_with_slope(z):
    """relu z and its derivative, 0 at 0."""
    return relu(z), _step(z)


@part
def identity(z):
    """z."""
    return z


@part
def identity_with_slope(z):
    """z and 1."""
    return z, like(z, 1.0)


@part
def _exp_scaled(a):
    """(k, m, 1 + exp(2a)) of exp(2a) = 2**k m, for a <= 0 or NaN."""
    near = a > -LARGEST_SHIFTED
    shifted = _binades(where(near, a, 0.0))
    k = shifted - integer_shift(a)
    r = fma(k, -_rest_of_half_ln_2(a), fma(k, -_half_ln_2(a), where(near, a, 0.0)))
    m = fma(2.0, _half_expm1(r), 1.0)
    far = a * (2.0 * LOG2_E)
    far = where(far > -ALL_INTEGERS, (far - ALL_INTEGERS) + ALL_INTEGERS, far)
    k = where(near, k, far)
    m = where(a == a, m, a)
    bounded = maximum(k, LEAST_EXPONENT) + integer_shift(a)
    return k, m, fma(power_of_two(bounded), m, 1.0)


@part
def _tanh_slope_scaled(z):
    k, m, sum_ = _exp_scaled(-minimum(abs(z), LARGEST_TRIPLED))
    return _nonzero(z, 4.0 * m / (sum_ * sum_), k)


@part
def _sigmoid_slope_scaled(z):
    k, m, sum_ = _exp_scaled(-0.5 * abs(z))
    return _nonzero(z, m / (sum_ * sum_), k)


@part
def _nonzero(z, m, k):
    """m and k, but 0 and 0 at infinite z, and exponent 0 of NaN."""
    return where(abs(z) == math.inf, 0.0, m), where(abs(z) < math.inf, k, 0.0)


@part
def _relu_slope_scaled(z):
    return _step(z), like(z, 0.0)


@part
def _identity_slope_scaled(z):
    return like(z, 1.0), like(z, 0.0)


VALUE = {"tanh": tanh, "relu": relu, "sigmoid": sigmoid, "identity": identity}
WITH_SLOPE = {
    "tanh": tanh_with_slope,
    "relu": relu_with_slope,
    "sigmoid": sigmoid_with_slope,
    "identity": identity_with_slope,
}
SLOPE_SCALED = {
    "tanh": _tanh_slope_scaled,
    "relu": _relu_slope_scaled,
    "sigmoid": _sigmoid_slope_scaled,
    "identity": _identity_slope_scaled,
}


# f(2**e m) = 2**e f(m).
HOMOGENEOUS = ("relu", "identity")


class ActivationType(types.Type):
    """The type of one activation function."""

    def __init__(self, name):
        self.activation = name
        super().__init__(f"Activation({name})")


register_model(ActivationType)(models.OpaqueModel)


# Where Numba finds an object's type without a call of Python: 2.5 us of each call of a kernel.
for _activation in ACTIVATIONS.values():
    _activation._numba_type_ = ActivationType(_activation.name)


@unbox(ActivationType)
def _unbox_activation(type_, value, context):
    return NativeValue(context.context.get_dummy_value())


def _of_activation(table):
    def function(f, z):
        raise NotImplementedError("for compiled code")

    @overload(function, jit_options={"forceinline": True})
    def typed(f, z):
        chosen = table[f.activation]
        return lambda f, z: chosen(z)

    return function


activate = _of_activation(VALUE)
with_slope = _of_activation(WITH_SLOPE)
slope_scaled = _of_activation(SLOPE_SCALED)


def is_homogeneous(f):
    """Whether f(2**e m) = 2**e f(m)."""
    raise NotImplementedError("for compiled code")


@overload(is_homogeneous, jit_options={"forceinline": True})
def _typed_is_homogeneous(f):
    found = f.activation in HOMOGENEOUS
    return lambda f: found
