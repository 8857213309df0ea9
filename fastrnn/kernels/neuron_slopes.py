"""Slopes of saturated units near 1, so that floats hold what is made of them.

f' of tanh and sigmoid may be e^-2000 at one step and e^-2003 at the next. All slopes of a block of
steps are multiplied by one power of two, which is carried beside what they make; and as they are
known then, so is the rate at which a gradient fades that nothing joins (``rates``).
"""

import numpy as np
from numba import types
from numba.extending import overload

from fastrnn.kernels.activations import slope_scaled
from fastrnn.kernels.jit import apart, bare, bare_part
from fastrnn.kernels.memory import lanes_of, load, load_double, store
from fastrnn.kernels.neuron_floats import (
    BAD,
    FADE,
    FOUND,
    MEAN,
    NOT_TRIED,
    SLOPE_POWER,
    TOP,
    TRIED,
    W2,
)
from fastrnn.kernels.powers import normalise_vector
from fastrnn.kernels.rates import least_exponent, own_steps
from fastrnn.kernels.simd import any_lane, integer_shift, like, maximum, power_of_two, where

# Exponents of slopes up to here are sums of integers in float64, whatever T.
MOST_POWER = 2.0**40
# The largest |z| whose f' has an exponent that float32 holds, and its digits.
NEAR_32 = 2.0**17


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
