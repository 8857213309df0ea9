"""The scalar neuron back through a block of steps in plain floats, and whether they sufficed.

What is carried, errors and upstream gradients come in near 1 (``neuron_near``). The sums of sizes
tell what overflowed, and the least |dz| what underflowed: `failed` judges by what was found, and by
nothing that was known before.
"""

import numpy as np

from fastrnn.kernels.activations import is_homogeneous
from fastrnn.kernels.jit import bare_part
from fastrnn.kernels.memory import load, store
from fastrnn.kernels.rates import (
    FADING,
    GROWTH,
    STATES,
    STEPS,
    least_exponent,
    times_nothing,
)
from fastrnn.kernels.simd import (
    any_lane,
    fma,
    like,
    maximum,
    minimum,
    where,
)
from fastrnn.kernels.tiles import load_row, place

# Numbers whose exponents are at most so large, and no less than minus that, are taken as they are.
KEPT_32, KEPT_64 = 20.0, 200.0
# Or no less than minus that, where an error joins what is carried at each step.
BELOW_32, BELOW_64 = 100.0, 900.0
# The least dz of which no digit is lost, and the largest.
LOW_32, LOW_64 = 2.0**-90, 2.0**-400
HIGH_32, HIGH_64 = 2.0**100, 2.0**700
# The least factors whose products with such a dz lose no digit either, and the least sum beside
# which what products lose is nothing.
FACTOR_32, FACTOR_64 = 2.0**-36, 2.0**-400
SUM_32, SUM_64 = 2.0**-100, 2.0**-700
# Rows of a block's states: those before and after each step.
STATE_ROWS = STEPS + 1
# Rows of what a block finds: what is carried; what errors or upstream gradients are multiplied
# by; the power of two of the states (see ``neuron_powers``); whether those are of use; the least
# |dz|; sums of w1, w2, b, w3, b3, and of their absolute terms; of squares; 1 where all that failed;
# the least derivative; beside what dz digits of upstream gradients are nothing; rates at which the
# block grows and fades (``rates``); the w2 by which dz is carried on; the
# largest exponent and the mean log2 of the slopes; the largest of inputs, states and errors; the
# sum of |dz| without powers of two; the largest of what is upstream; whether states' powers fit it.
CARRIED, FACTOR, STATE_SCALE, IN_REACH, LEAST_DZ, SUMS_FOUND, SIZES_FOUND = 0, 1, 2, 3, 4, 5, 10
SQUARES, BAD, LEAST_SLOPE, LOST, GROWING, FADES, OWN_W2 = 15, 16, 17, 18, 19, 20, 21
TOP, MEAN, MOST, SIZE_DZ, LARGEST, FITS, FOUND = 22, 23, 24, 25, 26, 27, 28
# Rows of what is carried from block to block in float64: dh * 2**(power + rest); 1 where lanes are
# outside; blocks that are not to be tried in floats, and 0 if there are some; exponents of the
# block's dh and of its states; 1 where those of all sums are 0; 1 where a block failed as it is;
# that of the block's slopes; the rate at which it fades.
DH, POWER, REST, OUTSIDE, NOT_TRIED, TRIED, BASE, STATE_POWER, PLAIN_SUMS, FAILED = range(10)
SLOPE_POWER, FADE, CARRIED_ROWS = 10, 11, 12
# Rows of constants: mantissa and exponent of w1, w2 and w3, then w1, w2, w3 and b3 themselves.
W1, W2, W3, PLAIN_W1, PLAIN_W2, PLAIN_W3, PLAIN_B3, CONSTANTS = 0, 2, 4, 6, 7, 8, 9, 10


@bare_part
def kept(array):
    """See KEPT_32."""
    return KEPT_32 if array.itemsize == 4 else KEPT_64


@bare_part
def kept_below(array, fused):
    """See BELOW_32."""
    below = BELOW_32 if array.itemsize == 4 else BELOW_64
    return below if fused else kept(array)


@bare_part
def low(array):
    """See LOW_32."""
    return LOW_32 if array.itemsize == 4 else LOW_64


@bare_part
def _least_factor(array):
    """See FACTOR_32."""
    return FACTOR_32 if array.itemsize == 4 else FACTOR_64


@bare_part
def retreat(
    f, weights, readout, xs, hs, h_row, slopes, ups, remaining, ragged, fused, row, steps, v, found,
    rates, fades, dzs, want_sums,
):  # fmt: skip
    """Walk a vector back over a block of steps: rows of dz, sums, and what tells of lost digits.

    Each kind of walk is compiled by itself: branches within its steps cost a third.
    """
    if fused:
        if ragged:
            _retreat(
                f, weights, readout, xs, hs, h_row, slopes, ups, remaining, True, True, row, steps,
                v, found, rates, fades, dzs, True,
            )  # fmt: skip
        else:
            _retreat(
                f, weights, readout, xs, hs, h_row, slopes, ups, remaining, False, True, row, steps,
                v, found, rates, fades, dzs, True,
            )  # fmt: skip
    elif ragged:
        _retreat(
            f, weights, readout, xs, hs, h_row, slopes, ups, remaining, True, False, row, steps, v,
            found, rates, fades, dzs, True,
        )  # fmt: skip
    elif want_sums:
        _retreat(
            f, weights, readout, xs, hs, h_row, slopes, ups, remaining, False, False, row, steps, v,
            found, rates, fades, dzs, True,
        )  # fmt: skip
    else:
        _retreat(
            f, weights, readout, xs, hs, h_row, slopes, ups, remaining, False, False, row, steps, v,
            found, rates, fades, dzs, False,
        )  # fmt: skip


@bare_part
def _retreat(
    f, weights, readout, xs, hs, h_row, slopes, ups, remaining, ragged, fused, row, steps, v,
    found, rates, fades, dzs, want_sums,
):  # fmt: skip
    block = found.size // FOUND
    w2, w3, b3 = load(found, OWN_W2 * block + v), load(readout, v), load(readout, block + v)
    x_place, up_place = place(xs, v), place(ups, v)
    dh, factor = load(found, CARRIED * block + v), load(found, FACTOR * block + v)
    scale = load(found, STATE_SCALE * block + v)
    of_zero = where(abs(w2) < _least_factor(found), like(w2, 0.0), np.inf)
    sum_w1 = sum_w2 = sum_b = sum_w3 = sum_b3 = squares = like(w2, 0.0)
    size_w1 = size_w2 = size_b = size_w3 = size_b3 = size_dz = like(w2, 0.0)
    least = least_slope = like(w2, np.inf)
    for s in range(steps - 1, -1, -1):
        slope, up = load(slopes, (row + s) * block + v), load_row(ups, up_place, row + s)
        if fused:
            h, offset = load(hs, (h_row + s + 1) * block + v), b3 - up
            if rates is not None:
                offset = offset * (scale * load(rates, (STATES + s + 1) * block + v))
            up = fma(w3, h, offset)
        if ragged:
            running = load(remaining, v) > float(row + s)
            slope, up = where(running, slope, 0.0), where(running, up, 0.0)
        joins, own_factor = up != 0.0, factor
        if rates is not None:
            # By now, what is carried has grown by so much more than what is upstream.
            growth = load(rates, (GROWTH + s) * block + v)
            own_factor = factor * growth
            if fused:
                h, up = h * growth, up * growth
        if fused:
            term = up * h
            sum_w3, size_w3 = sum_w3 + term, size_w3 + abs(term)
            sum_b3, size_b3 = sum_b3 + up, size_b3 + abs(up)
            squares = fma(up, up, squares)
        dh = fma(own_factor, up, dh)
        dz = dh * slope
        size = abs(dz)
        # An exact 0 lost nothing, unless a small w2 made it.
        counts = where((dh != 0.0) | joins, size, of_zero)
        if rates is not None:
            counts = where(slope != 0.0, counts, np.inf)
        else:
            if ragged:
                counts = where(running, counts, np.inf)
            # A large dh would hide that digits of this were lost.
            least_slope = minimum(where(running, slope, np.inf) if ragged else slope, least_slope)
        least = minimum(counts, least)
        # In the unit of the largest terms, at one end of the block; states shrink on the way.
        by_h = dz
        if not fused:
            by_h = dz * load(fades, (FADING + s) * block + v)
        by_x = by_h
        if rates is not None:
            by_x = by_h * load(rates, (STATES + s) * block + v)
        sum_b, size_b = sum_b + by_x, size_b + abs(by_x)
        if rates is not None or not fused:
            size_dz = size_dz + size
        if want_sums:
            x, h = load_row(xs, x_place, row + s), load(hs, (h_row + s) * block + v)
            if ragged:
                x = where(running, x, 0.0)
            sum_w1, size_w1 = fma(by_x, x, sum_w1), fma(abs(by_x), abs(x), size_w1)
            sum_w2, size_w2 = fma(by_h, h, sum_w2), fma(abs(by_h), abs(h), size_w2)
        store(dzs, s * block + v, dz)
        before = w2 * dz
        dh = where(running, before, dh) if ragged else before
    store(found, LEAST_DZ * block + v, least)
    store(found, LEAST_SLOPE * block + v, least_slope)
    store(found, SIZE_DZ * block + v, size_dz)
    store(found, (SUMS_FOUND + 2) * block + v, sum_b)
    store(found, (SIZES_FOUND + 2) * block + v, size_b)
    if want_sums:
        store(found, SUMS_FOUND * block + v, sum_w1)
        store(found, (SUMS_FOUND + 1) * block + v, sum_w2)
        store(found, SIZES_FOUND * block + v, size_w1)
        store(found, (SIZES_FOUND + 1) * block + v, size_w2)
    if fused:
        store(found, (SUMS_FOUND + 3) * block + v, sum_w3)
        store(found, (SUMS_FOUND + 4) * block + v, sum_b3)
        store(found, (SIZES_FOUND + 3) * block + v, size_w3)
        store(found, (SIZES_FOUND + 4) * block + v, size_b3)
        store(found, SQUARES * block + v, squares)


@bare_part
def failed(
    f, found, xs, hs, h_row, remaining, row, steps, v, dzs, fused, want_sums, want_w3
):  # fmt: skip
    """Whether digits may have been lost, or a lane was not to be tried."""
    block = found.size // FOUND
    single = found.itemsize == 4
    high, least_sum = HIGH_32 if single else HIGH_64, SUM_32 if single else SUM_64
    size_b, least = load(found, (SIZES_FOUND + 2) * block + v), load(found, LEAST_DZ * block + v)
    good = (least >= low(found)) & (size_b <= high)
    good = good & (least >= load(found, LOST * block + v))
    # Beside what a w2 took from it that is too small for floats.
    no_w2 = load(found, OWN_W2 * block + v) == 0.0
    nothing = 2.0 ** least_exponent(found) * times_nothing(found)
    good = good & (~no_w2 | (least >= size_b * nothing))
    rated = load(found, FADES * block + v) != 0.0
    if is_homogeneous(f):
        rated = rated | (load(found, GROWING * block + v) != 0.0)
    # What a power of two of the block's own made too small is to be nothing in each sum; what is 0
    # may have become so, unless no dz counted.
    most = where(rated, load(found, MOST * block + v), 0.0)
    lost_dz = where(rated, load(found, SIZE_DZ * block + v) * (64.0 * nothing), 0.0)
    lost_error = most * (64.0 * nothing)
    least_sum = maximum(like(size_b, least_sum), lost_dz * most)
    good = good & (~rated | ((size_b >= least_sum) & (size_b >= lost_dz)) | (least == np.inf))
    good = good & (load(found, IN_REACH * block + v) > 0.0)
    good = good & (load(found, LEAST_SLOPE * block + v) >= np.finfo(found.dtype).tiny)
    if fused:
        squares = load(found, SQUARES * block + v)
        none = (load(found, (SIZES_FOUND + 4) * block + v) == 0.0) & ~rated
        good = good & ((squares >= low(found)) | none) & (squares <= high)
        good = good & (squares >= lost_error * most)
        good = good & (load(found, (SIZES_FOUND + 4) * block + v) >= lost_error)
        if want_w3:
            size = load(found, (SIZES_FOUND + 3) * block + v)
            least_size = maximum(like(size, SUM_32 if single else SUM_64), lost_error * most)
            some = (size >= least_size) | none
            if any_lane(~some):
                some = some | _all_zero(hs, h_row + 1, remaining, row, steps, v, block)
            good = good & some & (size <= high)
    if want_sums:
        for factor in range(2):
            size = load(found, (SIZES_FOUND + factor) * block + v)
            some = (size >= least_sum) | (size_b == 0.0)
            if any_lane(~some):
                least_factor = where(rated, np.inf, like(size, _least_factor(found)))
                some = some | _none_small(
                    xs, hs, h_row, remaining, row, steps, v, dzs, factor == 0, least_factor
                )
            good = good & some & (size <= high)
    return ~good


@bare_part
def _all_zero(hs, h_row, remaining, row, steps, v, block):
    """Where a state is 0 over all steps of a lane."""
    running_steps = load(remaining, v)
    sum_ = like(running_steps, 0.0)
    for s in range(steps):
        size = abs(load(hs, (h_row + s) * block + v))
        sum_ = sum_ + where(running_steps > float(row + s), size, 0.0)
    return sum_ == 0.0


@bare_part
def _none_small(xs, hs, h_row, remaining, row, steps, v, dzs, of_inputs, least_factor):
    """Where factors are 0 or so large that their products with a dz that is good are exact.

    Those of a dz that is 0 do not count.
    """
    block = dzs.size // STEPS
    x_place, running_steps = place(xs, v), load(remaining, v)
    small = running_steps != running_steps
    for s in range(steps):
        factor = load(hs, (h_row + s) * block + v)
        if of_inputs:
            factor = load_row(xs, x_place, row + s)
        counts = (running_steps > float(row + s)) & (load(dzs, s * block + v) != 0.0)
        size = where(counts, abs(factor), 0.0)
        small = small | ((size < least_factor) & (size != 0.0))
    return ~small
