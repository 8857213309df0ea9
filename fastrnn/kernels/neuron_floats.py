"""The scalar neuron back through a block of steps in plain floats, and whether they sufficed.

What is carried comes in by an exact power of two that brings it near 1, and so do errors and
upstream gradients. The sums of sizes tell what overflowed, and the least |dz| what underflowed:
`failed` judges by what was found, and by nothing that was known before.
"""

import numpy as np
from numba import types
from numba.extending import overload

from fastrnn.kernels.activations import is_homogeneous, slope_scaled
from fastrnn.kernels.jit import apart, bare, bare_part
from fastrnn.kernels.memory import lanes_of, load, load_double, store
from fastrnn.kernels.powers import normalise_vector, shifted
from fastrnn.kernels.rates import (
    FADING,
    GROWTH,
    MOST_FADING,
    STATES,
    STEPS,
    least_exponent,
    own_steps,
    rate_of,
    set_rates,
    times_nothing,
)
from fastrnn.kernels.simd import (
    any_lane,
    copysign,
    fma,
    integer_shift,
    like,
    maximum,
    minimum,
    power_of_two,
    where,
)
from fastrnn.kernels.tiles import load_row, place

# Numbers whose exponents are at most so large, and no less than minus that, are taken as they are.
KEPT_32, KEPT_64 = 20.0, 200.0
# Or no less than minus that, where an error joins what is carried at each step.
BELOW_32, BELOW_64 = 100.0, 900.0
# Exponents of what is carried and of what is upstream that differ by more are taken apart.
REACH_32, REACH_64 = 40.0, 300.0
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
# Exponents of slopes up to here are sums of integers in float64, whatever T.
MOST_POWER = 2.0**40
# The largest |z| whose f' has an exponent that float32 holds, and its digits.
NEAR_32 = 2.0**17
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
def reach(array):
    """See REACH_32."""
    return REACH_32 if array.itemsize == 4 else REACH_64


@bare_part
def low(array):
    """See LOW_32."""
    return LOW_32 if array.itemsize == 4 else LOW_64


@bare_part
def _least_factor(array):
    """See FACTOR_32."""
    return FACTOR_32 if array.itemsize == 4 else FACTOR_64


@bare_part
def scale_of(array, power):
    """2**-power for a number of the array's type; 0 where that is too small for one."""
    below = -power < least_exponent(array)
    return where(below, 0.0, shifted(like(power, 1.0), where(below, 0.0, -power)))


@bare_part
def find_rates(f, weights, hes, h_row, remaining, fused, row, steps, v, carried, found, rates):
    """The rates at which states and gradients of a vector grow and fade over a block of steps."""
    block = found.size // FOUND
    growth, own = load(hes, h_row * block + v), own_steps(load(remaining, v), row, steps)
    growth = where((growth > 0.0) & (own > 0.0), growth, 0.0)
    store(found, GROWING * block + v, growth)
    set_rates(rates, STATES, block, v, growth, like(growth, 0.0), True)
    set_rates(rates, GROWTH, block, v, growth, own, False)
    fading = like(growth, 0.0)
    if not fused:
        # Of a gradient that fades alone: `_bring_near` looks whether others join it.
        fading = maximum(-rate_of(f, load(weights, block + v), found), 0.0)
        fading = where(own > 0.0, fading, 0.0)
    store(found, FADES * block + v, fading)
    for u in range(v, v + lanes_of(found), 8):
        # Of nothing there is nothing to fade.
        some = load(carried, DH * block + u) != 0.0
        store(carried, FADE * block + u, where(some, load_double(found, FADES * block + u), 0.0))
        store(carried, SLOPE_POWER * block + u, like(load(carried, u), 0.0))


@bare
def scale_slopes(
    f, constants, slopes, row, steps, v, zs, ks, remaining, fused, patience, carried, found, room
):  # fmt: skip
    """Slopes of the lanes that failed near 1, by a power of two each, and the rate of their fading.

    Lanes that failed so too, not long ago, are not to be tried. ``ks`` and ``room`` are for
    exponents of slopes.
    """
    apart()
    n, block = lanes_of(zs), found.size // FOUND
    for u in range(v, v + n, 8):
        chosen = load_double(found, BAD * block + u) > 0.0
        zero = like(load(carried, u), 0.0)
        store(carried, TRIED * block + u, where(chosen, zero, 1.0))
        chosen = chosen & (load(carried, NOT_TRIED * block + u) <= patience)
        store(found, BAD * block + u, where(chosen, like(zero, 1.0), 0.0))
    chosen, running_steps = load(found, BAD * block + v) > 0.0, load(remaining, v)
    largest = like(running_steps, 0.0)
    for s in range(steps):
        size = where(running_steps > float(row + s), abs(load(zs, s * n)), 0.0)
        largest = where(size <= largest, largest, size)
    far = chosen & (largest > (NEAR_32 if found.itemsize == 4 else np.inf))
    usable, top, mean = _scale_slopes(
        f, slopes, row, steps, v, 0, block, zs, ks, running_steps, chosen & ~far
    )
    store(found, BAD * block + v, where(usable, like(top, 1.0), 0.0))
    store(found, TOP * block + v, top)
    store(found, MEAN * block + v, mean)
    for u in range(v, v + n, 8):
        usable = load_double(found, BAD * block + u) > 0.0
        top, mean = load_double(found, TOP * block + u), load_double(found, MEAN * block + u)
        _take_slopes(constants, carried, block, u, usable, top, mean, fused)
    if found.itemsize == 4 and any_lane(far):
        # Exponents of slopes have more digits than float32.
        store(found, BAD * block + v, where(far, like(largest, 1.0), 0.0))
        for u in range(v, v + n, 8):
            usable, top, mean = _scale_slopes(
                f, slopes, row, steps, u, u - v, block, zs, room, load_double(remaining, u),
                load_double(found, BAD * block + u) > 0.0,
            )  # fmt: skip
            _take_slopes(constants, carried, block, u, usable, top, mean, fused)


@bare_part
def _scale_slopes(
    f, slopes, row, steps, v, within, block, zs, ks, running_steps, chosen
):  # fmt: skip
    """The same of some lanes, in the steps' type: which, the largest exponent, the mean of log2."""
    n = lanes_of(zs)
    top, total = like(running_steps, -np.inf), like(running_steps, 0.0)
    mantissas = total
    for s in range(steps):
        at = (row + s) * block + v
        m, k = slope_scaled(f, _load(zs, s * n + within, top))
        running = running_steps > float(row + s)
        store(slopes, at, where(chosen & running, m, _load(slopes, at, top)))
        store(ks, s * 16, k)
        counts = running & (m != 0.0)
        top = where(counts & (k > top), k, top)
        total, mantissas = total + where(counts, k, 0.0), mantissas + where(counts, m, 0.0)
    usable = chosen & (abs(top) < MOST_POWER)
    for s in range(steps):
        at = (row + s) * block + v
        slope, lower = _load(slopes, at, top), load(ks, s * 16) - top
        near = slope * power_of_two(maximum(lower, least_exponent(slopes)) + integer_shift(slope))
        # One far below the largest has lost its size, and `failed` is to see it.
        near = where(lower >= least_exponent(slopes), near, 0.0)
        store(slopes, at, where(usable & (running_steps > float(row + s)), near, slope))
    own = maximum(own_steps(running_steps, row, steps), 1.0)
    return usable, top, total / own + _log2(mantissas / own)


def _load(array, at, v):
    """A vector like ``v``: of float64, or of the array's type."""
    raise NotImplementedError("for compiled code")


@overload(_load, jit_options={"forceinline": True})
def _typed_load(array, at, v):
    if v.number == types.float64:
        return lambda array, at, v: load_double(array, at)
    return lambda array, at, v: load(array, at)


@bare_part
def _log2(v):
    """log2 of a positive number, to a tenth."""
    m, e = normalise_vector(v)
    return e + (m - 1.0)


@bare_part
def _take_slopes(constants, carried, block, v, usable, top, mean, fused):
    """The power of some lanes' slopes, and the rate at which what is carried fades."""
    before = load(carried, FADE * block + v)
    if not fused:
        w2 = abs(load(constants, W2 * block + v))
        fade = -(mean + load(constants, (W2 + 1) * block + v) + _log2(w2))
        fade = maximum((fade + integer_shift(fade)) - integer_shift(fade), 0.0)
        store(carried, FADE * block + v, where(usable & (fade < MOST_POWER), fade, before))
    power, tried = load(carried, SLOPE_POWER * block + v), load(carried, TRIED * block + v)
    store(carried, SLOPE_POWER * block + v, where(usable, top, power))
    store(carried, TRIED * block + v, where(usable, 1.0, tried))


@bare_part
def rate_of_block(carried, found, growing, v):
    """The exponent by which what is carried changes in a step back."""
    block = found.size // FOUND
    fade = load(carried, FADE * block + v)
    return load_double(found, GROWING * block + v) - fade if growing else -fade


@bare_part
def prepare(
    constants, readout, xs, hs, h_row, ups, remaining, fused, row, steps, v, carried, found, rates
):  # fmt: skip
    """What is carried, and factors of what is upstream, of a vector for a block of steps."""
    n, block = lanes_of(found), found.size // FOUND
    some, uneven = False, False
    for u in range(v, v + n, 8):
        some = some or any_lane(load(carried, TRIED * block + u) > 0.0)
        rate, state = (
            rate_of_block(carried, found, rates is not None, u),
            load(carried, STATE_POWER * block + u),
        )
        power, rest = load(carried, POWER * block + u), load(carried, REST * block + u)
        own = (power != 0.0) | (rest != 0.0) | (state != 0.0) | (rate != 0.0)
        own = own | (load(carried, SLOPE_POWER * block + u) != 0.0)
        uneven = uneven or any_lane(own)
        store(found, STATE_SCALE * block + u, scale_of(found, state))
    if some and uneven:
        _measure_upstream(
            readout, xs, hs, h_row, ups, remaining, fused, row, steps, v, found, rates
        )
        for u in range(v, v + n, 8):
            _bring_near(constants, remaining, fused, row, steps, u, carried, found, rates)
        return
    for u in range(v, v + n, 8):
        dh, zero = load(carried, DH * block + u), like(load(carried, u), 0.0)
        factor = load(constants, PLAIN_W3 * block + u) if fused else zero + 1.0
        store(carried, BASE * block + u, load(carried, POWER * block + u))
        store(found, CARRIED * block + u, dh)
        store(found, FACTOR * block + u, factor)
        store(found, LOST * block + u, zero)
        store(found, FADES * block + u, zero)
        store(found, OWN_W2 * block + u, load(constants, PLAIN_W2 * block + u))
        store(found, IN_REACH * block + u, load(carried, TRIED * block + u))


@bare
def _bring_near(constants, remaining, fused, row, steps, v, carried, found, rates):
    """The same of 8 lanes, where something has an exponent."""
    apart()
    block, least = found.size // FOUND, least_exponent(found)
    dh, state = load(carried, DH * block + v), load(carried, STATE_POWER * block + v)
    power = load(carried, POWER * block + v) + load(carried, REST * block + v)
    largest, usable = load_double(found, LARGEST * block + v), load_double(found, FITS * block + v)
    zero = like(dh, 0.0)
    # Exponents: of what is upstream at the block's end, of what is carried.
    growth, unit, own = zero, zero, own_steps(load_double(remaining, v), row, steps)
    if rates is not None:
        growth = load_double(found, GROWING * block + v)
    if fused:
        unit = state + growth * own
    base = where(dh != 0.0, power, unit)
    some, gap = largest != 0.0, base - unit
    fade = where(some, 0.0, load(carried, FADE * block + v))
    store(carried, FADE * block + v, fade)
    store(found, FADES * block + v, minimum(fade, MOST_FADING))
    w2, change = load(constants, PLAIN_W2 * block + v), load(carried, SLOPE_POWER * block + v)
    change = (change + fade) - growth
    w2_power = load(constants, (W2 + 1) * block + v) + change
    own_w2 = shifted(load(constants, W2 * block + v), w2_power)
    own_w2 = where(change == 0.0, w2, where(w2_power < least, 0.0, own_w2))
    store(found, OWN_W2 * block + v, own_w2)
    # What is carried is little beside what is upstream; or nothing, but for its sign.
    below, nothing = some & (gap < -reach(found)), some & (gap < least)
    dh = where(below, shifted(dh, gap), dh)
    dh = where(nothing, copysign(like(dh, 2.0**least), dh), dh)
    base, gap = where(below, unit, base), where(below, 0.0, gap)
    usable = where(state < least, zero, usable)
    factor = where(some, scale_of(found, gap), zero)
    if fused:
        w3 = load(constants, PLAIN_W3 * block + v)
        scaled = w3 * factor
        lost = (w3 != 0.0) & (factor != 0.0) & (factor != 1.0) & (abs(scaled) < 2.0**least)
        usable, factor, largest = where(lost, zero, usable), scaled, largest * abs(w3)
    # Or what is upstream is little beside what is carried, and loses digits.
    loses = gap + 2.0 * growth * own > -least
    store(found, LOST * block + v, where(loses, largest * 2.0**least * times_nothing(found), zero))
    store(carried, BASE * block + v, base)
    store(found, CARRIED * block + v, dh)
    store(found, FACTOR * block + v, factor)
    usable = where(own > 0.0, usable, 1.0)
    store(found, IN_REACH * block + v, usable * load(carried, TRIED * block + v))


@bare
def _measure_upstream(
    readout, xs, hs, h_row, ups, remaining, fused, row, steps, v, found, rates
):  # fmt: skip
    """The largest sizes of a vector: of what is upstream, and of inputs, states and errors.

    And 1 where powers of two of the states take no digit from errors.
    """
    apart()
    block = found.size // FOUND
    w3, b3 = load(readout, v), load(readout, block + v)
    x_place, up_place, running_steps = place(xs, v), place(ups, v), load(remaining, v)
    scale, zero = load(found, STATE_SCALE * block + v), like(w3, 0.0)
    largest, least, offset, most = zero, like(w3, np.inf), zero, zero
    own_scale = last_scale = scale
    for s in range(steps):
        running = running_steps > float(row + s)
        up, size = load_row(ups, up_place, row + s), zero
        if rates is not None:
            own_scale = scale * load(rates, (STATES + s + 1) * block + v)
            last_scale = own_scale
        if rates is not None or not fused:
            before = load(hs, (h_row + s) * block + v)
            size = maximum(abs(load_row(xs, x_place, row + s)), abs(before))
        if fused:
            h, own = load(hs, (h_row + s + 1) * block + v), b3 - up
            up = fma(w3, h, own * own_scale)
            if rates is not None:
                size = maximum(maximum(size, abs(h)), abs(up))
                least = minimum(where(running, abs(w3 * h), np.inf), least)
                own = where(running, abs(own), 0.0)
                offset = where(own <= offset, offset, own)
                up = up * load(rates, (GROWTH + s) * block + v)
        size, up = where(running, size, 0.0), where(running, abs(up), 0.0)
        most = where(size <= most, most, size)
        largest = where(up <= largest, largest, up)
    # By a scale that small, digits are lost of what may be nothing beside a product.
    lost = offset * maximum(scale, 1.0) * (2.0 ** least_exponent(found) * times_nothing(found))
    bad = (last_scale < 2.0 ** -reach(found)) & ~((least >= low(found)) & (least >= lost))
    store(found, MOST * block + v, most)
    store(found, LARGEST * block + v, largest)
    store(found, FITS * block + v, where(bad, zero, 1.0))


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
