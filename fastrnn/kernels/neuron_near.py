"""A block of steps brought near 1 by exact powers of two, before it is walked back in floats.

What is carried, errors and upstream gradients come near 1, and so do states that have an exponent;
of what grows or fades with W2 a rate is taken out (``rates``). What this may cost in digits is
measured here, and judged by ``neuron_floats.failed``.
"""

import numpy as np

from fastrnn.kernels.jit import apart, bare, bare_part
from fastrnn.kernels.memory import lanes_of, load, load_double, store
from fastrnn.kernels.neuron_floats import (
    BASE,
    CARRIED,
    DH,
    FACTOR,
    FADE,
    FADES,
    FITS,
    FOUND,
    GROWING,
    IN_REACH,
    LARGEST,
    LOST,
    MOST,
    OWN_W2,
    PLAIN_W2,
    PLAIN_W3,
    POWER,
    REST,
    SLOPE_POWER,
    STATE_POWER,
    STATE_SCALE,
    TRIED,
    W2,
    low,
)
from fastrnn.kernels.powers import shifted
from fastrnn.kernels.rates import (
    GROWTH,
    MOST_FADING,
    STATES,
    least_exponent,
    own_steps,
    rate_of,
    set_rates,
    times_nothing,
)
from fastrnn.kernels.simd import any_lane, copysign, fma, like, maximum, minimum, where
from fastrnn.kernels.tiles import load_row, place

# Exponents of what is carried and of what is upstream that differ by more are taken apart.
REACH_32, REACH_64 = 40.0, 300.0


@bare_part
def reach(array):
    """See REACH_32."""
    return REACH_32 if array.itemsize == 4 else REACH_64


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
        power, rest = load(carried, POWER * block + u), load(carried, REST * block + u)
        state = load(carried, STATE_POWER * block + u)
        rate = rate_of_block(carried, found, rates is not None, u)
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
    own_scale = scale
    for s in range(steps):
        running = running_steps > float(row + s)
        up, size = load_row(ups, up_place, row + s), zero
        if rates is not None:
            own_scale = scale * load(rates, (STATES + s + 1) * block + v)
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
    bad = (own_scale < 2.0 ** -reach(found)) & ~((least >= low(found)) & (least >= lost))
    store(found, MOST * block + v, most)
    store(found, LARGEST * block + v, largest)
    store(found, FITS * block + v, where(bad, zero, 1.0))
