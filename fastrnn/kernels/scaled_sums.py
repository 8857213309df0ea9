"""Sums over time of numbers m * 2**e, in vectors of float64.

A sum is kept in four numbers, of which the first three lack the last as exponent:

    sum, what rounding took from it, sum of absolute terms, exponent

so that its error is that of its terms, and the second and third tell how much of them is left.
The exponent runs: it rises when a larger term comes.
"""

import math

from fastrnn.kernels.jit import bare_part, kernel
from fastrnn.kernels.memory import load, store
from fastrnn.kernels.powers import float_of, shifted, shifted_number
from fastrnn.kernels.simd import any_lane, where

# Numbers of a sum.
SUM = 4
# Exponent of a sum without terms.
NO_POWER = -1e308
# A sum's exponent lags behind that of its largest term by at most so much.
HEADROOM = 200.0


@bare_part
def load_sum(rows, row, block, v):
    return (
        load(rows, row * block + v), load(rows, (row + 1) * block + v),
        load(rows, (row + 2) * block + v), load(rows, (row + 3) * block + v),
    )  # fmt: skip


@bare_part
def store_sum(rows, row, block, v, numbers):
    value, lost, size, power = numbers
    store(rows, row * block + v, value)
    store(rows, (row + 1) * block + v, lost)
    store(rows, (row + 2) * block + v, size)
    store(rows, (row + 3) * block + v, power)


@bare_part
def store_sum_where(rows, row, block, v, numbers, lanes):
    """Store a sum where ``lanes`` say so."""
    before = load_sum(rows, row, block, v)
    store_sum(rows, row, block, v, (
        where(lanes, numbers[0], before[0]), where(lanes, numbers[1], before[1]),
        where(lanes, numbers[2], before[2]), where(lanes, numbers[3], before[3]),
    ))  # fmt: skip


@bare_part
def add_at(sum_, term, power):
    """sum + term * 2**power."""
    return add_block_at(sum_, term, abs(term), power)


@bare_part
def add_block(sum_, term, size):
    """sum + term, a sum itself of terms of that size; both share the sum's exponent.

    What rounding takes is not kept: in a segment it is little, and it costs a tenth of a block's
    time.
    """
    return sum_[0] + term, sum_[1], sum_[2] + size, sum_[3]


@bare_part
def add_block_at(sum_, term, size, power):
    """The same of term * 2**power."""
    sum_ = _raised(sum_, size, power)
    lower = power - sum_[3]
    return add_block(sum_, shifted(term, lower), shifted(size, lower))


@bare_part
def _raised(sum_, size, power):
    """The sum with a larger exponent, where a term would go beyond it."""
    value, lost, sizes, own = sum_
    above = (size != 0.0) & (power > own + HEADROOM)
    if any_lane(above):
        fall = where(above, own - power, 0.0)
        value, lost, sizes = float_of(value, fall), float_of(lost, fall), float_of(sizes, fall)
        own = where(above, power, own)
    return value, lost, sizes, own


@bare_part
def add_totals(total, term):
    """The sum of two sums, each four numbers: whichever adds them, it is rounded in one way."""
    value, lost, sizes, own = total
    other, rest, size, power = term
    if size == 0.0:
        return total
    # Nothing has no exponent: some powers are even less than that which stands for it.
    if sizes == 0.0:
        return term
    top = max(own, power)
    if own != power:
        value, lost = shifted_number(value, own - top), shifted_number(lost, own - top)
        other, rest = shifted_number(other, power - top), shifted_number(rest, power - top)
        sizes, size = shifted_number(sizes, own - top), shifted_number(size, power - top)
    after = value + other
    back = after - value
    error = (value - (after - back)) + (other - back)
    return after, (lost + rest) + (error if math.isfinite(after) else 0.0), sizes + size, top


@kernel
def mark_lost(sums, least, dh, outside):
    """Mark lanes (K, B) whose sums (N, K, B, SUM) are not finite, or of terms below ``least``.

    And those whose dh (K, B, 1) is not finite. Whether any lane is marked.
    """
    some = False
    for k in range(dh.shape[0]):
        for i in range(dh.shape[1]):
            outside[k, i] = outside[k, i] or not math.isfinite(dh[k, i, 0])
            some = some or outside[k, i]
    for slot in range(sums.shape[0]):
        for k in range(sums.shape[1]):
            for i in range(sums.shape[2]):
                size = sums[slot, k, i, 2]
                if not (size >= least or size == 0.0) or size == math.inf:
                    outside[k, i] = some = True
    return some


@kernel
def round_totals(totals, scale, values, shares):
    """Sums (N, SUM) times a factor as floats, and |sum| / sum of |terms|."""
    for row in range(totals.shape[0]):
        value, lost, size, power = totals[row]
        value = value + lost
        shares[row] = abs(value) / size if size != 0.0 else 1.0
        value = scale * value
        if power != 0.0 and value != 0.0:
            value = shifted_number(value, power)
        values[row] = value
