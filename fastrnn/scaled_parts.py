"""Arithmetic of numbers mantissa * 2**exponent, as pairs of arrays.

A pair is normal if the absolute value of each mantissa is in [1, 2), or is 0, inf or NaN with
exponent 0. All functions take normal pairs and return such. What has no value is NaN, and what
exceeds all bounds inf, without a warning.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

quietly = np.errstate(all="ignore")

Pair = tuple[NDArray[Any], NDArray[np.float64]]
Axis = int | tuple[int, ...] | None

LN_2 = math.log(2.0)
LOG10_2 = math.log10(2.0)
# Past this many binades a float64 is 0 or inf whatever its mantissa.
FLOAT_BINADES = 2200.0
# Up to this power a mantissa in [1, 2) stays a float.
MANTISSA_POWERS = 512.0
# Splits a float64 into halves whose products are exact (Dekker 1971).
SPLITTER = 2.0**27 + 1
# Past it, floats have no fractions, and a splitter could overflow.
NO_FRACTION = 2.0**900


@quietly
def normal(mantissa: NDArray[Any], exponent: NDArray[np.float64]) -> Pair:
    """A pair of any floats and integers, in normal form."""
    mantissa = np.asarray(mantissa)
    fraction, shift = np.frexp(mantissa)
    exact = np.isfinite(mantissa) & (mantissa != 0)
    power = np.where(exact, exponent + (shift - 1), 0.0)
    lead = np.asarray(np.where(exact, 2 * fraction, mantissa))
    beyond = np.isinf(power)
    if beyond.any():
        lead = np.where(beyond, np.where(power > 0, np.copysign(np.inf, lead), 0 * lead), lead)
        power = np.where(beyond, 0.0, power)
    return lead.astype(mantissa.dtype, copy=False), power


@quietly
def floats(pair: Pair) -> Any:
    """The nearest floats; 0 or inf where the range of the type ends."""
    mantissa, exponent = pair
    binades = np.clip(exponent, -FLOAT_BINADES, FLOAT_BINADES).astype(np.int32)
    return np.ldexp(mantissa, binades)


@quietly
def add(a: Pair, b: Pair) -> Pair:
    """a + b, rounded once: the larger is a float in [1, 2), the smaller one is aligned to it."""
    top = _finite(np.maximum(_exponent_of_nonzero(a), _exponent_of_nonzero(b)))
    return normal(floats((a[0], a[1] - top)) + floats((b[0], b[1] - top)), top)


@quietly
def multiply(a: Pair, b: Pair) -> Pair:
    """a * b, rounded once."""
    return normal(a[0] * b[0], a[1] + b[1])


@quietly
def divide(a: Pair, b: Pair) -> Pair:
    """a / b, rounded once."""
    return normal(a[0] / b[0], a[1] - b[1])


@quietly
def total(a: Pair, axis: Axis, keepdims: bool) -> Pair:
    """Sum over some axes, aligned to the largest exponent."""
    top = np.max(_exponent_of_nonzero(a), axis=axis, keepdims=True, initial=-np.inf)
    top = _finite(top)
    value = np.asarray(floats((a[0], a[1] - top)).sum(axis=axis, keepdims=keepdims))
    return normal(value, top.reshape(value.shape))


@quietly
def sqrt(a: Pair) -> Pair:
    """Square root, rounded once."""
    half = np.floor(a[1] / 2)
    odd = (a[1] - 2 * half).astype(np.int32)
    return normal(np.sqrt(np.ldexp(a[0], odd)), half)


@quietly
def power(a: Pair, p: NDArray[Any]) -> Pair:
    """a**p for floats p."""
    # The power of a mantissa is taken in float64: that of a float32 is rounded at the end.
    mantissa, p = np.abs(a[0]).astype(np.float64), p.astype(np.float64)
    whole, part = _split_product(np.where(np.isfinite(p), p, 0.0), a[1])
    log2 = p * np.log2(mantissa)
    large = (abs(p) > MANTISSA_POWERS) & np.isfinite(log2)
    binades = np.where(large, np.rint(log2), 0.0)
    lead = np.where(large, np.exp2(log2 - binades), np.power(mantissa, p))
    # A power of inf or NaN looks at nothing but the side of 1 that |a| is on.
    side = np.where(a[1] == 0, mantissa, np.exp2(np.sign(a[1])))
    lead = np.where(np.isfinite(p), lead * np.exp2(part), np.power(side, p))
    # (-1)**p has the sign, and is NaN where there is none.
    signed = np.where(np.signbit(a[0]) & ~np.isnan(mantissa), lead * np.power(-1.0, p), lead)
    exact = np.isfinite(mantissa) & (mantissa != 0)
    signed = np.where(exact, signed, np.power(a[0].astype(np.float64), p))
    found, exponent = normal(signed, whole + binades)
    return normal(found.astype(a[0].dtype), exponent)


@quietly
def logarithm(a: Pair, log: np.ufunc, log_2: float) -> Any:
    """log|a| in float64."""
    # Where the exponent is -1 and the mantissa near 2, the two terms would cancel.
    size = np.abs(a[0])
    high = size > math.sqrt(2.0)
    return log(size * (1 - high / 2).astype(size.dtype), dtype=np.float64) + (a[1] + high) * log_2


@quietly
def less(a: Pair, b: Pair) -> NDArray[np.bool_]:
    """a < b: by sign, then by exponent, then by mantissa."""
    exponent_a, exponent_b = (np.where(np.isinf(m), np.inf, e) for m, e in (a, b))
    same = exponent_a == exponent_b
    size_a, size_b = abs(a[0]), abs(b[0])
    sign_a, sign_b = np.sign(a[0]), np.sign(b[0])
    nearer = (exponent_a < exponent_b) | (same & (size_a < size_b))
    farther = (exponent_a > exponent_b) | (same & (size_a > size_b))
    within = np.where(sign_a > 0, nearer, farther & (sign_a < 0))
    return np.asarray(np.where(sign_a == sign_b, within, sign_a < sign_b))


def order(a: Pair, axis: int) -> NDArray[np.intp]:
    """Indices that sort along an axis: by sign, then by exponent, then by mantissa."""
    sign = np.sign(a[0])
    exponent = np.where(np.isinf(a[0]), np.inf, a[1])
    return np.lexsort((a[0], np.where(sign == 0, 0.0, sign * exponent), sign), axis=axis)


@quietly
def exponential(u: NDArray[np.float64]) -> Pair:
    """exp(u) at any u; -inf gives 0."""
    finite = np.isfinite(u)
    exponent = np.rint(np.where(finite, u, 0.0) / LN_2)
    # From |u| = 2**52 on u no longer says where in its binade exp(u) lies.
    rest = np.clip(np.where(finite, u, 0.0) - exponent * LN_2, -LN_2, LN_2)
    return normal(np.where(finite, np.exp(rest), np.exp(u)), exponent)


def _exponent_of_nonzero(a: Pair) -> NDArray[np.float64]:
    """Exponents, -inf of zero."""
    return np.where(a[0] == 0, -np.inf, a[1])


def _finite(exponent: Any) -> NDArray[np.float64]:
    """Exponents, 0 where all numbers were zero."""
    return np.where(np.isfinite(exponent), exponent, 0.0)


def _split_product(
    p: NDArray[np.float64], q: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """p * q of an integer q as an integer and a rest of at most 1, exact but for the rest's end."""
    product = p * q
    high_p, high_q = (_upper_half(factor) for factor in (p, q))
    low_p, low_q = p - high_p, q - high_q
    lost = ((high_p * high_q - product) + high_p * low_q + low_p * high_q) + low_p * low_q
    whole = np.rint(product)
    rest = (product - whole) + np.where(abs(product) < NO_FRACTION, lost, 0.0)
    carry = np.where(np.isfinite(rest), np.rint(rest), 0.0)
    return whole + carry, np.where(np.isfinite(product), rest - carry, 0.0)


def _upper_half(a: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled = SPLITTER * a
    return np.where(abs(a) < NO_FRACTION, scaled - (scaled - a), a)
