"""Numbers beyond the range of floats, as m * 2**e: what all kernels on them share.

A mantissa m and an exponent e are float64 numbers or vectors, e an integer. A running exponent
has two parts, ``power`` and ``rest``: from |z| = 1e15 on, f' has exponents past 2**53, of whose
sum T/2 units would else be lost instead of one.
"""

import math

import numpy as np

from fastrnn.kernels.jit import part
from fastrnn.kernels.simd import (
    exponent,
    integer_shift,
    like,
    mantissa,
    maximum,
    minimum,
    power_of_two,
    where,
)

# 2**-1000 of a float64 is nothing beside one of ordinary size.
MOST_BINADES = 1000.0
# And 2**-2200 is nothing beside any other.
LEAST_SHIFT = -2200.0


@part
def normalise(value):
    """``value`` as mantissa * 2**exponent, the mantissa's absolute value in [1, 2), or 0."""
    if value == 0.0 or not np.isfinite(value):
        return value, 0.0
    fraction, shift = math.frexp(value)
    return 2.0 * fraction, float(shift - 1)


@part
def normalise_vector(v):
    """The same of vectors. Zero, inf and NaN stay so, and their exponents mean nothing."""
    e, none = exponent(v), exponent(like(v, 0.0))
    # Of the largest numbers, 2**-e is no normal number; subnormal ones have no mantissa.
    normal = (e > none) & (abs(v) < math.inf)
    return where(normal, mantissa(v), v * power_of_two(integer_shift(v) - none)), e


@part
def shifted(v, binades):
    """v * 2**binades; what lies past MOST_BINADES counts as that many."""
    bounded = maximum(minimum(binades, MOST_BINADES), -MOST_BINADES)
    return v * power_of_two(bounded + integer_shift(v))


@part
def float_of(v, binades):
    """v * 2**binades: rounded once, to 0 or inf if it has to be."""
    v, own = normalise_vector(v)
    binades = binades + own
    bounded = maximum(minimum(binades, 2.0 * MOST_BINADES), -2.0 * MOST_BINADES)
    half = (0.5 * bounded + integer_shift(v)) - integer_shift(v)
    return (v * power_of_two(half + integer_shift(v))) * power_of_two(
        (bounded - half) + integer_shift(v)
    )


@part
def shifted_number(value, binades):
    """value * 2**binades, of a number."""
    return math.ldexp(value, int(min(max(binades, LEAST_SHIFT), -LEAST_SHIFT)))


@part
def add_exactly(power, rest, term):
    """(power, rest) + term, with what rounding takes from the sum kept in the rest (Knuth)."""
    result = power + term
    back = result - power
    error = (power - (result - back)) + (term - back)
    return result, where(abs(result) < np.inf, rest + error, 0.0)
