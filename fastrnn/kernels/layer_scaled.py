"""A hidden layer back through time in numbers of any magnitude: rows m * 2**e, an e a sequence.

The walk is that of `layer.retreat` along what `layer.replay` left behind, without the sums. What is
pulled back is in float64, and every step each sequence's row is brought near 1 again. Numbers of
one row may differ by several hundred binades; where one would be lost beside the others, the
sequence is marked as ``outside`` and its results are void: see ``exact``.
"""

import math

import numpy as np

from fastrnn.kernels.activations import is_homogeneous
from fastrnn.kernels.blocks import integers, numbers
from fastrnn.kernels.jit import kernel
from fastrnn.kernels.memory import get, load, load_double, numbers_at, put, store
from fastrnn.kernels.powers import normalise
from fastrnn.kernels.products import affine, copy_row, of_packed, panel_width
from fastrnn.kernels.simd import any_lane, lane, like, maximum, ordered_sum, where

# What a derivative in float32 and in float64 is at least, so that all its digits are there.
LEAST_SLOPE_32, LEAST_SLOPE_64 = 2.0**-100, 2.0**-900
# What dz is at least where a row's largest is near 1: times weights it is still a number.
LEAST_DZ = 2.0**-400


@kernel
def pull(
    f, panels, w1, w2, w2_power, slopes, slope_stride, rows, ends, stride, dh, powers, outside,
    inputs, mantissas, exponents, like_x,
):  # fmt: skip
    """Pull dh * 2**powers (R, H) and (R,) back to x and to the state before the first step.

    ``w1`` (H, F) and ``w2`` (H, H) are packed in float64, the latter 2**w2_power times as large.
    The gradient of x goes into the views ``mantissas`` and ``exponents`` (B, T, F).
    """
    panel, input_panel = panels
    out, power_out = numbers_at(mantissas[0], like_x), numbers_at(exponents[0], dh)
    count, hidden = dh.shape
    width, input_width, block = panel_width(panel), panel_width(input_panel), count * stride
    g, dz, row = numbers(dh, block + 8), numbers(dh, block + 8), numbers(dh, count * inputs)
    zeros, offsets = numbers(dh, max(hidden, inputs)), integers(count)
    for array in (g, dz, zeros):
        array[:] = 0.0
    for r in range(count):
        offsets[r] = r * stride
        copy_row(panel, dh.reshape(dh.size), r * hidden, g, r * stride, hidden)
        _bring_near_one(g, r * stride, hidden, powers, r, outside)
    active = 0
    for s in range(ends[0] - 1, -1, -1):
        while active < count and ends[active] > s:
            active += 1
        for r in range(active):
            at = (s * count + r) * slope_stride
            if _times_slopes(f, g, r * stride, slopes, at, hidden, dz):
                outside[r] = 1
        inner = (of_packed(dz, offsets, 0, 1, w1, 0, hidden, input_width),)
        affine(input_panel, active, inputs, zeros, 0, 0, inner, row, 0, inputs)
        for r in range(active):
            for i in range(inputs):
                value, shift = normalise(get(row, r * inputs + i))
                put(out, rows[r] * mantissas[1] + s * mantissas[2] + i * mantissas[3], value)
                to = rows[r] * exponents[1] + s * exponents[2] + i * exponents[3]
                put(power_out, to, powers[r] + shift if value != 0.0 else 0.0)
        inner = (of_packed(dz, offsets, 0, 1, w2, 0, hidden, width),)
        affine(panel, active, hidden, zeros, 0, 0, inner, g, 0, stride)
        for r in range(active):
            powers[r] += w2_power
            _bring_near_one(g, r * stride, hidden, powers, r, outside)
    for r in range(count):
        copy_row(panel, g, r * stride, dh.reshape(dh.size), r * hidden, hidden)


@kernel
def _times_slopes(f, g, at, slopes, slopes_at, hidden, dz):
    """dz = g f' of a row; whether digits are lost."""
    least = LEAST_SLOPE_32 if slopes.itemsize == 4 else LEAST_SLOPE_64
    lost = False
    for v in range(0, hidden - hidden % 8, 8):
        slope, dh = load_double(slopes, slopes_at + v), load(g, at + v)
        product = dh * slope
        store(dz, at + v, product)
        # Of a 0 nothing can be lost; a derivative of 0 is one only where f is made of lines.
        some = where(dh != 0.0, like(dh, 1.0), 0.0)
        if is_homogeneous(f):
            some = where(slope != 0.0, some, 0.0)
        enough = where(slope >= least, where(abs(product) >= LEAST_DZ, some, 0.0), 0.0)
        lost = lost or any_lane(some != enough)
    for i in range(hidden - hidden % 8, hidden):
        slope, dh = np.float64(get(slopes, slopes_at + i)), get(g, at + i)
        product = dh * slope
        put(dz, at + i, product)
        if dh != 0.0 and not (is_homogeneous(f) and slope == 0.0):
            lost = lost or not (slope >= least and abs(product) >= LEAST_DZ)
    return lost


@kernel
def _bring_near_one(g, at, hidden, powers, r, outside):
    """A row times a power of two, which goes to its exponent."""
    whole = hidden - hidden % 8
    tops = nothing = like(load(g, at), 0.0)
    for v in range(at, at + whole, 8):
        size = abs(load(g, v))
        # Zero times what is infinite or NaN is NaN.
        tops, nothing = maximum(tops, size), nothing + 0.0 * size
    largest = ordered_sum(nothing)
    for i in range(8):
        largest = max(largest, lane(tops, i))
    for i in range(at + whole, at + hidden):
        largest = max(largest, abs(get(g, i))) + 0.0 * get(g, i)
    if not np.isfinite(largest):
        outside[r] = 1
        return
    if largest == 0.0:
        return
    _, shift = normalise(largest)
    powers[r] += shift
    down = math.ldexp(1.0, -int(shift))
    scale = like(tops, down)
    for v in range(at, at + whole, 8):
        store(g, v, load(g, v) * scale)
    for i in range(at + whole, at + hidden):
        put(g, i, get(g, i) * down)
