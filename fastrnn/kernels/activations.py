"""Activation functions on vectors, and their exact derivatives from the pre-activation.

``activate(f, z)`` is f(z), ``with_slope(f, z)`` is f(z) and f'(z), ``slope_scaled(f, z)`` is
f'(z) as mantissa and exponent. The argument f is one of ``fastrnn.kernels.ACTIVATIONS``; its
type picks the function when a kernel is compiled, so that no loop branches on it.

tanh and sigmoid are made of one exponential and one division. With e = expm1(2|z|)

    tanh |z| = e / (e + 2)        f'(z) = (1 + tanh |z|) (1 - tanh |z|),  1 - tanh |z| = 2 / (e + 2)

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
    typeof_impl,
    unbox,
)

from fastrnn.kernels import Activation
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
# From here on an integer is all that a float64 can hold.
INTEGERS_ONLY = 2.0**51
# Of the exponent of exp(u) where only 1 + exp(u) is wanted.
LEAST_EXPONENT = -1000.0
LARGEST_DOUBLED = 8.9e307
# Of t = expm1(2|z|) / 2, below which tanh is t - t tanh.
SMALL = 0.35


class Format:
    """What the exponential needs to know of a float type."""

    def __init__(self, ln_2, expm1, most_binades, slope_zero):
        # ln 2 in two parts; the first has so few bits that k times it is exact.
        self.ln_2_high, self.ln_2_low = ln_2
        # (expm1(r) - r) / r**2 on [-ln(2)/4, 3 ln(2)/4], interpolated in Chebyshev points;
        # relative error of expm1: 2**-30.5 in float32, 2**-60.4 in float64.
        self.expm1 = expm1
        # exp(u) is held as 2**k (1 + p) with k up to here; what is above divides the result.
        self.most_binades = most_binades
        # tanh'(z) is 0 from here on, that of the sigmoid from twice as much.
        self.slope_zero = slope_zero


FORMATS = {
    types.float32: Format(
        (0.693359375, -2.12194440e-4),
        (0.49999999847742735272, 0.16666666657834952385, 0.041666969899968542495,
         0.0083327796782555476527, 0.001381285948754509869, 0.00022660779124204163005),
        100.0, 64.0,
    ),
    types.float64: Format(
        (6.93147180369123816490e-01, 1.90821492927058770002e-10),
        (0.5000000000000000008, 0.1666666666666667167, 0.041666666666666088443,
         0.0083333333333233454476, 0.001388888888974816534, 0.00019841269880254293047,
         0.000024801582868752417599, 2.7557353498073377488e-6, 2.756366999417508079e-7,
         2.4812879062039182057e-8, 2.4222981832882807941e-9),
        1000.0, 400.0,
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


_ln_2_high = _of_format(lambda form: form.ln_2_high)
_ln_2_low = _of_format(lambda form: form.ln_2_low)
_most_binades = _of_format(lambda form: form.most_binades)
_slope_zero = _of_format(lambda form: form.slope_zero)


def _expm1_quotient(r):
    raise NotImplementedError("for compiled code")


@overload(_expm1_quotient, jit_options={"forceinline": True})
def _typed_expm1_quotient(r):
    """(expm1(r) - r) / r**2."""
    c = FORMATS[r.number].expm1
    if r.number == types.float32:
        c0, c1, c2, c3, c4, c5 = c

        def horner(r):
            p = fma(fma(c5, r, c4), r, c3)
            return fma(fma(fma(p, r, c2), r, c1), r, c0)
    else:
        c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 = c

        def horner(r):
            p = fma(fma(fma(c10, r, c9), r, c8), r, c7)
            p = fma(fma(fma(fma(p, r, c6), r, c5), r, c4), r, c3)
            return fma(fma(fma(p, r, c2), r, c1), r, c0)

    return horner


@part
def _exp_parts(u):
    """(k + integer_shift, p) of exp(u) = 2**k * (1 + p), p = expm1(r), r in [-0.17, 0.52].

    The quarter makes k = 0, where p is the result itself, last up to u = 0.52.
    """
    shifted = fma(u, LOG2_E, -0.25) + integer_shift(u)
    k = shifted - integer_shift(u)
    r = fma(k, -_ln_2_low(u), fma(k, -_ln_2_high(u), u))
    return shifted, fma(_expm1_quotient(r) * r, r, r)


@part
def _bounded_parts(u):
    """(2**j, p, 2**(j - k)) of exp(u) = 2**k * (1 + p), j the smaller of k and most_binades."""
    shifted, p = _exp_parts(u)
    bounded = minimum(shifted, integer_shift(u) + _most_binades(u))
    return power_of_two(bounded), p, power_of_two((bounded - shifted) + integer_shift(u))


@part
def tanh(z):
    """tanh z."""
    shifted, p = _exp_parts(2.0 * minimum(abs(z), TANH_ONE))
    t, sum_ = _half_expm1(power_of_two(shifted), p)
    return copysign(_refined(t, t / sum_), z)


@part
def tanh_with_slope(z):
    """tanh z, with the bits of `tanh`, and its derivative."""
    power, p, rest = _bounded_parts(2.0 * minimum(abs(z), _slope_zero(z)))
    t, sum_ = _half_expm1(power, p)
    h = _refined(t, t / sum_)
    return copysign(h, z), ((1.0 / sum_) * (1.0 + h)) * rest


@part
def _half_expm1(power, p):
    """t = expm1(u) / 2 and t + 1, of exp(u) = power * (1 + p)."""
    half = 0.5 * power
    t = fma(half, p, half - 0.5)
    return t, t + 1.0


@part
def _refined(t, h):
    """t / (t + 1) of small t anew, as t - t h: without the rounding of the sum, 2.3 ULP."""
    return where(t < SMALL, fma(-t, h, t), h)


@part
def sigmoid(z):
    """1 / (1 + exp(-z))."""
    y, rest = _sigmoid_below(z)
    return where(z >= 0.0, 1.0 - y, y * rest)


@part
def sigmoid_with_slope(z):
    """sigmoid z, with the bits of `sigmoid`, and its derivative."""
    y, rest = _sigmoid_below(z)
    return where(z >= 0.0, 1.0 - y, y * rest), (y * (1.0 - y)) * rest


@part
def _sigmoid_below(z):
    """y and a power of two whose product is sigmoid -|z| = 1 / (1 + e), e = exp(|z|)."""
    power, p, rest = _bounded_parts(minimum(abs(z), 2.0 * _slope_zero(z)))
    e = fma(power, p, power)
    sum_ = 1.0 + e
    lost = 1.0 - (sum_ - e)
    y = 1.0 / sum_
    # One Newton step takes back what the sum and the division rounded away.
    return fma(y, fma(-y, lost, fma(-y, sum_, 1.0)), y), rest


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
def _exp_scaled(u):
    """(k, 1 + p, 1 + exp(u)) of exp(u) = 2**k * (1 + p), for u <= 0 or NaN."""
    near = u > -INTEGERS_ONLY
    shifted, p = _exp_parts(where(near, u, 0.0))
    k = where(near, shifted - integer_shift(u), u * LOG2_E)
    m = where(u == u, 1.0 + p, u)
    bounded = maximum(k, LEAST_EXPONENT) + integer_shift(u)
    return k, m, fma(power_of_two(bounded), m, 1.0)


@part
def _tanh_slope_scaled(z):
    k, m, sum_ = _exp_scaled(-2.0 * minimum(abs(z), LARGEST_DOUBLED))
    return _nonzero(z, 4.0 * m / (sum_ * sum_), k)


@part
def _sigmoid_slope_scaled(z):
    k, m, sum_ = _exp_scaled(-abs(z))
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


class ActivationType(types.Type):
    """The type of one activation function."""

    def __init__(self, name):
        self.activation = name
        super().__init__(f"Activation({name})")


register_model(ActivationType)(models.OpaqueModel)


@typeof_impl.register(Activation)
def _typeof_activation(value, context):
    return ActivationType(value.name)


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
