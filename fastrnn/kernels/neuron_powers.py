"""The scalar neuron over a block of steps with exponents: what plain floats do not hold.

States of an f that does not squash them are h * 2**(power + e), the power that of a block of
steps, and e that of a step. Blocks are tried with an e that grows by a known rate (``rates``);
where that was not enough, `_advance_each` gives each step its own, with the same roundings: states
have the bits of floats without a range.

The way back, `walk`, has a mantissa in float64 with an exponent beside it, in vectors of 8 lanes.
"""

import numpy as np

from fastrnn.kernels.activations import slope_scaled, with_slope
from fastrnn.kernels.jit import apart, bare, bare_part
from fastrnn.kernels.memory import lanes_of, load, load_double, store
from fastrnn.kernels.neuron import pre_activation
from fastrnn.kernels.neuron_floats import (
    CARRIED_ROWS,
    CONSTANTS,
    DH,
    OUTSIDE,
    PLAIN_B3,
    PLAIN_W3,
    POWER,
    REST,
    STATE_POWER,
    W2,
    W3,
    kept,
    kept_below,
    low,
)
from fastrnn.kernels.neuron_near import scale_of
from fastrnn.kernels.powers import add_exactly, normalise_vector, shifted
from fastrnn.kernels.rates import (
    STATES,
    least_exponent,
    own_steps,
    rate_of,
    set_rates,
    times_nothing,
)
from fastrnn.kernels.scaled_sums import HEADROOM, add_at, load_sum, store_sum_where
from fastrnn.kernels.simd import (
    any_lane,
    exponent,
    fma,
    integer_shift,
    like,
    mantissa,
    maximum,
    minimum,
    power_of_two,
    where,
)
from fastrnn.kernels.tiles import load_row, load_row_double, place

# Steps in which what is carried may shrink or grow, and its exponent not be told.
FREE_STEPS = 8
# An upstream gradient below this is outside, and so are sums of terms: some digits are lost.
LEAST = 2.0**-900
# The largest states of a block in floats: `walk` multiplies them by what is carried, in float64.
HIGH_32, HIGH_64 = 2.0**100, 2.0**400
# Exponents of states up to here are added exactly in the states' own type.
MOST_32, MOST_64 = 2.0**20, 2.0**50
# Rows of states' powers in a block: what inputs are multiplied by, the power in the states' own
# type, 1 where a lane is outside.
SCALE, OWN_POWER, LEFT, POWER_ROWS = 0, 1, 2, 3
# What the first row of a block's exponents is where each step has its own; else it is the rate.
EACH = -1.0


# --- forward: states of any magnitude ---


@bare_part
def split(value, power, array):
    """A state value * 2**power as h * 2**own, of its type; own is 0 for all but extreme states."""
    m, shift = normalise_vector(value)
    total = power + shift
    near = (abs(total) <= kept(array)) | (value == 0.0)
    h = where(near, shifted(m, where(near, total, 0.0)), m)
    return where(value != 0.0, h, value), where(near, 0.0, total)


@bare
def advance_with_powers(
    f, weights, xs, remaining, ragged, row, steps, width, powers, power_at, hs, h_row,
    slopes, exponents, rates, rooms,
):  # fmt: skip
    """States from that in row ``h_row`` of hs, each in the row after, and f'.

    ``powers`` are those of the block's states, from ``power_at`` on; ``exponents`` become those of
    each of its steps: see `exponent_at`. Lanes whose states are beyond this kernel get a 1 in row
    LEFT of ``rooms``.
    """
    apart()
    n = lanes_of(hs)
    block = rooms.size // POWER_ROWS
    for v in range(0, width, n):
        ordinary = True
        for u in range(v, v + n, 8):
            power = load(powers, power_at + u)
            store(rooms, SCALE * block + u, scale_of(hs, power))
            store(rooms, OWN_POWER * block + u, power)
            ordinary = ordinary and not any_lane(power != 0.0)
        w1, w2, b = load(weights, v), load(weights, block + v), load(weights, 2 * block + v)
        rate = maximum(rate_of(f, w2, hs), 0.0)
        if not ordinary or any_lane(rate != 0.0):
            set_rates(rates, STATES, block, v, rate, like(rate, 0.0), True)
            bad = _advance_scaled(
                f, w1, w2, b, xs, remaining, True, row, steps, v, block, hs, h_row, slopes, rooms,
                rates, True,
            )  # fmt: skip
        elif ragged:
            bad = _advance_scaled(
                f, w1, w2, b, xs, remaining, True, row, steps, v, block, hs, h_row, slopes, rooms,
                rates, False,
            )  # fmt: skip
        else:
            bad = _advance_scaled(
                f, w1, w2, b, xs, remaining, False, row, steps, v, block, hs, h_row, slopes, rooms,
                rates, False,
            )  # fmt: skip
        again = any_lane(bad)
        store(exponents, h_row * block + v, where(bad, like(w1, EACH), rate))
        left = like(w1, 0.0)
        if again:
            left = _advance_each(
                f, w1, w2, b, xs, remaining, row, steps, v, block,
                load(rooms, OWN_POWER * block + v), hs, h_row, slopes, exponents, bad,
            )  # fmt: skip
        store(rooms, LEFT * block + v, left)


@bare_part
def _advance_scaled(
    f, w1, w2, b, xs, remaining, ragged, row, steps, v, block, hs, h_row, slopes, rooms, rates,
    scaled,
):  # fmt: skip
    """The same of a vector in plain floats, by powers of two where ``scaled``; what was lost."""
    h, x_place = load(hs, h_row * block + v), place(xs, v)
    scale, own = load(rooms, SCALE * block + v), load(rooms, OWN_POWER * block + v)
    least, largest, total = like(h, np.inf), like(h, 0.0), like(h, 0.0)
    if scaled:
        w2 = w2 * load(rates, (STATES + 1) * block + v)
    for s in range(steps):
        u = fma(w1, load_row(xs, x_place, row + s), b)
        if scaled:
            z = fma(w2, h, u * (scale * load(rates, (STATES + s + 1) * block + v)))
        else:
            z = fma(w2, h, u)
        after, slope = with_slope(f, z)
        size = abs(z)
        if ragged:
            running = load(remaining, v) > float(row + s)
            after, slope = where(running, after, h), where(running, slope, 0.0)
            least = minimum(where(running, size, np.inf), least)
            size, u = where(running, size, 0.0), where(running, u, 0.0)
        else:
            least = minimum(size, least)
        total = total + size
        if scaled:
            u = abs(u)
            largest = where(u <= largest, largest, u)
        store(hs, (h_row + s + 1) * block + v, after)
        store(slopes, (row + s) * block + v, slope)
        h = after
    good = (least >= low(hs)) & (total <= (HIGH_32 if hs.itemsize == 4 else HIGH_64))
    if scaled:
        # A state that is small beside what comes in.
        good = good & (own >= least_exponent(hs))
        # What scaled inputs lost is to be nothing beside each z.
        lost = (largest * maximum(scale, 1.0)) * 2.0 ** least_exponent(hs)
        even = (own == 0.0) & (load(rates, (STATES + 1) * block + v) == 1.0)
        good = good & (even | (lost * times_nothing(hs) <= least))
    return ~good & (load(remaining, v) > float(row))


@bare_part
def exponent_at(exponents, h_row, s, block, v):
    """Exponents of the states before step s of a block: see EACH."""
    rate = load_double(exponents, h_row * block + v)
    if s == 0:
        return like(rate, 0.0)
    each = load_double(exponents, (h_row + s) * block + v)
    return where(rate >= 0.0, rate * float(s), each)


@bare_part
def exponent_after(exponents, h_row, remaining, row, steps, block, v):
    """Those of the states after it."""
    rate = load_double(exponents, h_row * block + v)
    own = own_steps(load_double(remaining, v), row, steps)
    each = load_double(exponents, (h_row + steps) * block + v)
    return where(rate >= 0.0, rate * own, each)


@bare
def _advance_each(
    f, w1, w2, b, xs, remaining, row, steps, v, block, own, hs, h_row, slopes, exponents, chosen
):  # fmt: skip
    """The same with an exponent at each step; some lanes are chosen. 1 where lanes are outside."""
    apart()
    h, x_place = load(hs, h_row * block + v), place(xs, v)
    zero, one = like(h, 0.0), like(h, 1.0)
    most = MOST_32 if hs.itemsize == 4 else MOST_64
    tiny = np.finfo(hs.dtype).tiny
    w2_power, w2_own = exponent(w2), mantissa(w2)
    normal_h = abs(h) >= tiny
    # What is neither 0 nor a normal number has no exponent to be told here.
    fits = (abs(own) < np.inf) & ((abs(w2) >= tiny) | (w2 == 0.0)) & (normal_h | (h == 0.0))
    left = where(fits, zero, one)
    e, h = where(normal_h, exponent(h), zero), where(normal_h, mantissa(h), h)
    for s in range(steps):
        u = fma(w1, load_row(xs, x_place, row + s), b)
        running = load(remaining, v) > float(row + s)
        some, product = (abs(u) >= tiny) & (abs(u) < np.inf), (h != 0.0) & (w2 != 0.0)
        at_u, at_h = exponent(u) - own, e + w2_power
        larger = where(at_u > at_h, at_u, at_h)
        top = where(some, where(product, larger, at_u), where(product, at_h, zero))
        # Exponents of inputs that are not exact beside that of a state, where they count.
        vague = (abs(own) > most) & some & (at_u > at_h - 0.5 * most)
        left = where(running & (vague | ~(some | (u == 0.0))), one, left)
        by_u = where(some, mantissa(u), zero) * _down(at_u - top)
        by_h = where(product, h, zero) * _down(at_h - top)
        z = fma(w2_own, by_h, by_u)
        normal_z = abs(z) >= tiny
        shift, z = where(normal_z, exponent(z), zero), where(normal_z, mantissa(z), z)
        after, slope = with_slope(f, z)
        at = where(after != 0.0, top + shift, zero)
        after, slope = where(running, after, h), where(running, slope, zero)
        h, e = after, where(running, at, e)
        here = (h_row + s + 1) * block + v
        store(hs, here, where(chosen, h, load(hs, here)))
        store(exponents, here, where(chosen, e, zero))
        here = (row + s) * block + v
        store(slopes, here, where(chosen, slope, load(slopes, here)))
    return where(chosen, left, zero)


@bare_part
def _down(binades):
    """2**binades, of some that are 0 or less: what lies far below is nothing."""
    return power_of_two(maximum(minimum(binades, 0.0), -100.0) + integer_shift(binades))


# --- back: what is carried, of any magnitude ---


@bare
def find_z(weights, xs, hs, h_row, row, steps, v, zs):
    """Pre-activations of a vector over a block of steps."""
    apart()
    n, block = lanes_of(hs), weights.size // 3
    for s in range(steps):
        x, h = load_row(xs, place(xs, v), row + s), load(hs, (h_row + s) * block + v)
        store(zs, s * n, pre_activation(weights, v, x, h))


@bare
def walk(
    f, constants, xs, hs, h_row, exponents, slopes, zs, ups, remaining, fused, row, steps, v,
    within, carried, walked, want_sums, want_w3, bad,
):  # fmt: skip
    """Walk back over a block of steps with an exponent each; what is carried changes where ``bad``.

    Pre-activations are rows of a vector of the states' lanes; these begin at lane ``within``.
    """
    apart()
    block, n = constants.size // CONSTANTS, lanes_of(hs)
    w2, w2_power = load(constants, W2 * block + v), load(constants, (W2 + 1) * block + v)
    w3, w3_power = load(constants, W3 * block + v), load(constants, (W3 + 1) * block + v)
    b3 = load(constants, PLAIN_B3 * block + v)
    dh, power = load(carried, DH * block + v), load(carried, POWER * block + v)
    rest, outside = load(carried, REST * block + v), load(carried, OUTSIDE * block + v)
    # As a mantissa: of 2**-900, products with inputs may be no numbers.
    dh, shift = normalise_vector(dh)
    rest = where(dh != 0.0, rest + shift, rest)
    state_power = load(carried, STATE_POWER * block + v)
    first = CARRIED_ROWS
    sum_w1, sum_w2, sum_b, sum_w3, sum_b3, sum_loss = (
        load_sum(carried, first, block, v), load_sum(carried, first + 4, block, v),
        load_sum(carried, first + 8, block, v), load_sum(carried, first + 12, block, v),
        load_sum(carried, first + 16, block, v), load_sum(carried, first + 20, block, v),
    )  # fmt: skip
    x_place, up_place = place(xs, v), place(ups, v)
    running_steps = load_double(remaining, v)
    for s in range(steps - 1, -1, -1):
        at = (h_row + s) * block + v
        running = running_steps > float(row + s)
        up, up_power = load_row_double(ups, up_place, row + s), like(dh, 0.0)
        if fused:
            h, h_power = load_double(hs, at + block), like(dh, 0.0)
            if exponents is not None:
                h_power = state_power + exponent_at(exponents, h_row, s + 1, block, v)
                error, up_power = _aligned(w3 * h, h_power + w3_power, b3 - up, up_power)
            else:
                error = fma(load(constants, PLAIN_W3 * block + v), h, b3 - up)
            error = where(running, error, 0.0)
            some = error != 0.0
            if exponents is None:
                outside = where(some & (abs(error) < LEAST), 1.0, outside)
            error, shift = normalise_vector(error)
            up_power = where(some, up_power + shift, 0.0)
            if want_w3:
                sum_w3 = add_at(sum_w3, where(some, error * h, 0.0), up_power + h_power)
            sum_b3 = add_at(sum_b3, error, up_power)
            sum_loss = add_at(sum_loss, error * (0.5 * error), up_power + up_power)
            up, up_power = w3 * error, up_power + w3_power
        else:
            up = where(running, up, 0.0)
            outside = where((up != 0.0) & (abs(up) < LEAST), 1.0, outside)
        some = up != 0.0
        if any_lane(some):
            if not fused:
                up, shift = normalise_vector(up)
                up_power = where(some, shift, 0.0)
            dh, power, rest = _joined(dh, power, rest, up, up_power, some)
        dz_power, dz_rest = power, rest
        if exponents is not None:
            slope = load_double(slopes, (row + s) * block + v)
        else:
            z = load_double(zs, s * n + within)
            slope, slope_power = slope_scaled(f, z)
            dz_power, dz_rest = add_exactly(power, rest, slope_power)
            outside = where(running & ~(abs(z) < np.inf), 1.0, outside)
        dz = where(running, dh * slope, 0.0)
        at_power = dz_power + dz_rest
        if want_sums:
            x, h = load_row_double(xs, x_place, row + s), load_double(hs, at)
            # An exact 0 adds nothing, and not 0 * inf.
            some = dz != 0.0
            by_h = at_power
            if exponents is not None:
                by_h = at_power + (state_power + exponent_at(exponents, h_row, s, block, v))
            sum_w1 = add_at(sum_w1, where(some, dz * x, 0.0), at_power)
            sum_w2 = add_at(sum_w2, where(some, dz * h, 0.0), by_h)
            sum_b = add_at(sum_b, dz, at_power)
        store(walked, 2 * 8 * s, dz)
        store(walked, 2 * 8 * s + 8, at_power)
        after, dz_rest = w2 * dz, dz_rest + w2_power
        if s % FREE_STEPS == 0:
            after, shift = normalise_vector(after)
            dz_rest = dz_rest + shift
        dh = where(running, after, dh)
        power, rest = where(running, dz_power, power), where(running, dz_rest, rest)
    dh, power, rest = settled(dh, power, rest, fused, hs)
    store(carried, DH * block + v, where(bad, dh, load(carried, DH * block + v)))
    store(carried, POWER * block + v, where(bad, power, load(carried, POWER * block + v)))
    store(carried, REST * block + v, where(bad, rest, load(carried, REST * block + v)))
    store(carried, OUTSIDE * block + v, where(bad, outside, load(carried, OUTSIDE * block + v)))
    if want_sums:
        store_sum_where(carried, first, block, v, sum_w1, bad)
        store_sum_where(carried, first + 4, block, v, sum_w2, bad)
        store_sum_where(carried, first + 8, block, v, sum_b, bad)
    if fused:
        store_sum_where(carried, first + 12, block, v, sum_w3, bad)
        store_sum_where(carried, first + 16, block, v, sum_b3, bad)
        store_sum_where(carried, first + 20, block, v, sum_loss, bad)


@bare_part
def settled(dh, power, rest, fused, array):
    """The one form of what is carried: as it is where it is near 1, else a mantissa."""
    m, shift = normalise_vector(dh)
    rest = rest + shift
    # The rest is needed where the sum of both is no exact number.
    total = power + rest
    exact = abs(total) < 2.0**52
    power, rest = where(exact, total, power), where(exact, 0.0, rest)
    near = (total <= kept(array)) & (total >= -kept_below(array, fused))
    m = where(near, shifted(m, where(near, total, 0.0)), m)
    power, rest = where(near, 0.0, power), where(near, 0.0, rest)
    empty = dh == 0.0
    return where(empty, dh, m), where(empty, 0.0, power), where(empty, 0.0, rest)


@bare_part
def _aligned(a, a_power, b, b_power):
    """a * 2**a_power + b * 2**b_power as a mantissa and an exponent."""
    a, a_shift = normalise_vector(a)
    b, b_shift = normalise_vector(b)
    a_power, b_power = a_power + a_shift, b_power + b_shift
    larger = where(a_power > b_power, a_power, b_power)
    top = where(a == 0.0, b_power, where(b == 0.0, a_power, larger))
    sum_ = where(a == 0.0, a, shifted(a, a_power - top))
    sum_ = sum_ + where(b == 0.0, b, shifted(b, b_power - top))
    m, shift = normalise_vector(sum_)
    return m, where(m == 0.0, 0.0, top + shift)


@bare_part
def _joined(dh, power, rest, up, up_power, some):
    """dh * 2**(power + rest) + up * 2**up_power, where there is some."""
    gap = (power + rest) - up_power
    # Such a dh is nothing beside up, or has no size.
    lost = some & ((gap < -HEADROOM) | ((dh == 0.0) & (gap != 0.0)))
    if any_lane(lost):
        dh = where(lost, shifted(dh, gap), dh)
        gap, power, rest = (
            where(lost, 0.0, gap),
            where(lost, up_power, power),
            where(lost, 0.0, rest),
        )
    return where(some, dh + shifted(up, -gap), dh), power, rest
