"""Rows of a layer's numbers, one a sequence: what is done to each number by itself.

Rows lie ``stride`` apart, see `panels.row_stride`; where that is their length they are walked as
one. Vectors may reach behind the last number of a row, into room that nothing is read from.
"""

import math

import numpy as np

from fastrnn.kernels.activations import activate, with_slope
from fastrnn.kernels.jit import apart, bare, part
from fastrnn.kernels.memory import get, lanes_of, load, put, store
from fastrnn.kernels.products import copy_row
from fastrnn.kernels.simd import (
    any_lane,
    first_lanes,
    fma,
    lane,
    like,
    maximum,
    minimum,
    where,
)

# Steps whose squared errors are added up in the arrays' own type.
LOSS_STEPS = 32
# Gradients of states that are at least so large, in float32 and in float64, have all their digits,
# and so has what comes of them: what is lost of a sum beside them is below its last digit.
LEAST_32, LEAST_64 = 2.0**-100, 2.0**-960
# The same of states, which are multiplied by weights and by gradients.
LOW_STATE_32, LOW_STATE_64 = 2.0**-40, 2.0**-400
# What is larger soon leaves floats.
MOST_32, MOST_64 = 2.0**100, 2.0**960
# What may be wrong with what floats found of a sequence: some digits, or all of it.
LOST, VOID = 1, 2


@part
def lines_of(rows, hidden, stride):
    """Number and length of what can be walked vector after vector, with less than one past it."""
    return (1, rows * hidden) if stride == hidden else (rows, hidden)


@bare
def activate_rows(f, z, rows, hidden, stride, h):
    """h = f(z)."""
    lines, length = lines_of(rows, hidden, stride)
    for r in range(lines):
        for v in range(r * stride, r * stride + length, lanes_of(z)):
            store(h, v, activate(f, load(z, v)))


@bare
def activate_with_slopes(f, z, rows, hidden, stride, want_z, h, at, slopes, slopes_at):
    """f(z) and f'(z), or z itself."""
    lines, length = lines_of(rows, hidden, stride)
    for r in range(lines):
        for v in range(r * stride, r * stride + length, lanes_of(z)):
            value, slope = with_slope(f, load(z, v))
            store(h, at + v, value)
            store(slopes, slopes_at + v, load(z, v) if want_z else slope)


@part
def least_of(array):
    """See LEAST_32."""
    return LEAST_32 if array.itemsize == 4 else LEAST_64


@part
def most_of(array):
    """See MOST_32."""
    return MOST_32 if array.itemsize == 4 else MOST_64


@bare
def times_slopes(linear, dh, rows, hidden, stride, slopes, at):
    """The slopes become dz = dh f'; whether some are of a size that `judge` is to look at.

    Where f is made of ``linear`` pieces, a slope of 0 is one. What lies behind the slopes are those
    of the step after.
    """
    lines, length = lines_of(rows, hidden, stride)
    n, least, most = lanes_of(dh), least_of(dh), most_of(dh)
    whole = length // n * n
    found = load(dh, 0) != load(dh, 0)
    for r in range(lines):
        for v in range(r * stride, r * stride + whole, n):
            slope = load(slopes, at + v)
            dz = load(dh, v) * slope
            store(slopes, at + v, dz)
            found = found | (kept(linear, dz, slope) < least) | (abs(dz) > most)
        if whole < length and stride > hidden:
            v = r * stride + whole
            slope = load(slopes, at + v)
            dz = load(dh, v) * slope
            store(slopes, at + v, dz)
            own = (kept(linear, dz, slope) < least) | (abs(dz) > most)
            found = found | (first_lanes(dz, length - whole) & own)
    extreme = any_lane(found)
    if stride == hidden:
        for i in range(whole, length):
            slope = get(slopes, at + i)
            dz = get(dh, i) * slope
            put(slopes, at + i, dz)
            size = abs(dz) if linear else min(abs(dz), slope)
            extreme = extreme or (size < least and not (linear and slope == 0.0)) or abs(dz) > most
    return extreme


@part
def kept(linear, dz, slope):
    """What is to be large, lest digits are lost."""
    if linear:
        return where(slope != 0.0, abs(dz), np.inf)
    return minimum(abs(dz), slope)


@bare
def judge(linear, dh, at, hidden, dz, dz_at, terms):
    """LOST or VOID, or 0, of a row of dz; products that are ``terms`` may hide behind a dh of 0."""
    apart()
    least, most = least_of(dh), most_of(dh)
    lost = zeros = void = False
    for u in range(hidden):
        total, own = abs(get(dh, at + u)), abs(get(dz, dz_at + u))
        zeros = zeros or total == 0.0
        void = void or most < own < np.inf
        if linear:
            lost = lost or 0.0 < own < least
        else:
            # The slope is what dz is beside dh.
            lost = lost or (total != 0.0 and own < least * max(1.0, total))
    if void:
        return VOID
    return LOST if lost or (zeros and terms < least) else 0


@bare
def sizes_of(states, at, hidden):
    """Whether a state, but for 0, is so small that its products may have lost digits, or large."""
    low, most = LOW_STATE_32 if states.itemsize == 4 else LOW_STATE_64, most_of(states)
    small = large = first_lanes(load(states, at), 0)
    for v in range(0, hidden, lanes_of(states)):
        size = abs(load(states, at + v))
        own = first_lanes(size, hidden - v)
        small, large = small | (own & (size < low) & (size != 0.0)), large | (own & (size > most))
    return any_lane(small), any_lane(large)


@bare
def smallest(array, at, hidden):
    """The smallest absolute value of a row but for 0."""
    bottoms = like(load(array, at), np.inf)
    for v in range(0, hidden, lanes_of(array)):
        size = abs(load(array, at + v))
        some = where(size > 0.0, size, np.inf)
        bottoms = minimum(bottoms, where(first_lanes(size, hidden - v), some, np.inf))
    found = np.inf
    for i in range(lanes_of(array)):
        found = min(found, np.float64(lane(bottoms, i)))
    return found


@bare
def largest_of(array, at, hidden):
    """The largest absolute value of a row; NaN where some number is none."""
    tops = nothing = like(load(array, at), 0.0)
    for v in range(0, hidden, lanes_of(array)):
        value = where(first_lanes(tops, hidden - v), load(array, at + v), 0.0)
        tops, nothing = maximum(tops, abs(value)), nothing + 0.0 * value
    largest = 0.0
    for i in range(lanes_of(array)):
        largest = max(largest, np.float64(lane(tops, i)))
    return np.nan if any_lane(nothing != 0.0) else largest


@bare
def any_below(array, at, hidden, bound):
    """Whether some absolute value of a row is smaller."""
    found = False
    for v in range(0, hidden, lanes_of(array)):
        size = abs(load(array, at + v))
        found = found or any_lane(where(first_lanes(size, hidden - v), size, np.inf) < bound)
    return found


@bare
def scale_row(array, at, hidden, power):
    """A row times 2**power; whether no digit is lost."""
    factor, good = math.ldexp(1.0, int(max(power, -2000.0))), True
    for v in range(0, hidden, lanes_of(array)):
        before = load(array, at + v)
        after = before * like(before, factor)
        store(array, at + v, where(first_lanes(before, hidden - v), after, before))
        lost = (before != 0.0) & (abs(after) < least_of(array))
        good = good and not any_lane(lost & first_lanes(before, hidden - v))
    return good


@bare
def add_rows(ups, rows, hidden, stride, dh):
    lines, length = lines_of(rows, hidden, stride)
    for r in range(lines):
        for v in range(r * stride, r * stride + length, lanes_of(dh)):
            store(dh, v, load(dh, v) + load(ups, v))


@bare
def add_errors(hs, at, ys, rows, hidden, stride, dh, squares):
    """Errors h - y to dh, and their squares."""
    lines, length = lines_of(rows, hidden, stride)
    for r in range(lines):
        for v in range(r * stride, r * stride + length, lanes_of(dh)):
            error = load(hs, at + v) - load(ys, v)
            store(dh, v, load(dh, v) + error)
            store(squares, v, fma(error, error, load(squares, v)))


@bare
def fold_squares(squares, rows, hidden, stride, each, loss):
    """Half the squares to the loss; they begin anew."""
    for r in range(rows):
        for unit in range(hidden):
            loss[r if each else 0, 0] += 0.5 * np.float64(get(squares, r * stride + unit))
    squares[:] = 0.0


@bare
def any_infinite(array, at, rows, length, stride):
    """Whether some number is infinite or NaN, and so 0 times it is not 0."""
    n = lanes_of(array)
    found = False
    for r in range(rows):
        start, stop = at + r * stride, at + r * stride + length
        for i in range(start, stop - length % n, n):
            found = found or any_lane(0.0 * load(array, i) != 0.0)
        for i in range(stop - length % n, stop):
            found = found or not np.isfinite(get(array, i))
    return found


@part
def clear_between(array, start, stop):
    for i in range(start, stop):
        put(array, i, 0.0)


@part
def store_row(panel, source, at, array, offset, stride, count):
    """A row to an array of any stride."""
    if stride == 1:
        copy_row(panel, source, at, array, offset, count)
    else:
        for i in range(count):
            put(array, offset + i * stride, get(source, at + i))


@part
def load_row(panel, array, offset, stride, target, to, count):
    """The way back."""
    if stride == 1:
        copy_row(panel, array, offset, target, to, count)
    else:
        for i in range(count):
            put(target, to + i, get(array, offset + i * stride))
