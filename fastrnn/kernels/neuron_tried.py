"""The scalar neuron back through time in plain floats, some steps at a time: whether they suffice.

See ``neuron_scaled``: lanes whose digits may have been lost here are walked again there.

Three passes go over the steps, each with few enough sums for the 16 registers of AVX2: one that did
it all took 1.1 to 1.2 times as long there.
"""

import numpy as np

from fastrnn.kernels.activations import is_homogeneous
from fastrnn.kernels.jit import apart, kernel, part
from fastrnn.kernels.memory import lanes_of, load, load_double, store
from fastrnn.kernels.powers import shifted
from fastrnn.kernels.simd import fma, like, minimum, where
from fastrnn.kernels.tiles import load_row, place

# Steps that are tried at a time: what is done for each lot takes as long as 10 steps.
TRY_STEPS = 32
# Bounds of what is tried in float32 and in float64: the exponents of |w2|, |w3| and of what is
# carried beside what is upstream are at most so large, and no less than minus that; and the least
# dz and upstream gradient of which no digit is lost in products with them.
REACH_32, REACH_64 = 40.0, 300.0
LOW_32, LOW_64 = 2.0**-60, 2.0**-400
# Rows of what is tried: what is carried; its scale; whether that is known; the least |dz|; the
# least |z|; sums of w1, w2, b, w3, b3, and of their absolute terms; of squares; of |x| and |h|; the
# least of what is upstream.
CARRIED, SCALE, IN_REACH, LEAST_DZ, LEAST_Z, TRIED_SUMS, TRIED_SIZES = 0, 1, 2, 3, 4, 5, 10
SQUARES, SUM_X, SUM_H, LEAST_UP, TRIED = 15, 16, 17, 18, 19


@part
def _reach(array):
    """See REACH_32."""
    return REACH_32 if array.itemsize == 4 else REACH_64


@kernel
def prepare(carried, tried, width):
    """What is carried, for the next steps to be tried."""
    block = tried.size // TRIED
    for v in range(0, width, 8):
        power = load(carried, block + v) + load(carried, 2 * block + v)
        near = abs(power) <= _reach(tried)
        store(tried, CARRIED * block + v, load(carried, v))
        scale = shifted(like(power, 1.0), where(near, -power, 0.0))
        store(tried, SCALE * block + v, scale)
        store(tried, IN_REACH * block + v, where(near, like(power, 1.0), 0.0))


@kernel
def try_errors(
    readout, hs, ups, remaining, ragged, first, stop, width, tried, tried_dz, want_w3
):  # fmt: skip
    """Errors of predictions over some steps; what they pull back, into the rows of dz."""
    apart()
    block = tried.size // TRIED
    for v in range(0, width, lanes_of(hs)):
        w3, b3, target = load(readout, v), load(readout, block + v), place(ups, v)
        sum_w3 = sum_b3 = size_w3 = size_b3 = squares = like(w3, 0.0)
        least_up = like(w3, np.inf)
        for s in range(stop - 1, first - 1, -1):
            h = load(hs, (s + 1) * width + v)
            error = fma(w3, h, b3 - load_row(ups, target, s))
            if ragged:
                running = load(remaining, v) > float(s)
                error, h = where(running, error, 0.0), where(running, h, 0.0)
            if want_w3:
                term = error * h
                sum_w3, size_w3 = sum_w3 + term, size_w3 + abs(term)
            sum_b3, size_b3 = sum_b3 + error, size_b3 + abs(error)
            squares = fma(error, error, squares)
            least_up = minimum(where(error != 0.0, abs(error), np.inf), least_up)
            store(tried_dz, (s - first) * block + v, w3 * error)
        store(tried, (TRIED_SUMS + 3) * block + v, sum_w3)
        store(tried, (TRIED_SUMS + 4) * block + v, sum_b3)
        store(tried, (TRIED_SIZES + 3) * block + v, size_w3)
        store(tried, (TRIED_SIZES + 4) * block + v, size_b3)
        store(tried, SQUARES * block + v, squares)
        store(tried, LEAST_UP * block + v, least_up)


@kernel
def try_back(
    f, weights, slopes, zs, ups, remaining, ragged, fused, first, stop, width, tried, tried_dz
):  # fmt: skip
    """Walk back over some steps in plain floats, and keep what tells whether they were enough."""
    apart()
    block = tried.size // TRIED
    for v in range(0, width, lanes_of(slopes)):
        w2, up_place = load(weights, block + v), place(ups, v)
        dh, scale = load(tried, CARRIED * block + v), load(tried, SCALE * block + v)
        one = like(w2, 1.0)
        sum_b = size_b = like(w2, 0.0)
        least_dz = least_z = least_up = like(w2, np.inf)
        if fused:
            least_up = load(tried, LEAST_UP * block + v)
        for s in range(stop - 1, first - 1, -1):
            at, row = s * width + v, (s - first) * block + v
            slope = load(slopes, at)
            up = load(tried_dz, row) if fused else load_row(ups, up_place, s)
            if ragged:
                running = load(remaining, v) > float(s)
                slope, up = where(running, slope, 0.0), where(running, up, 0.0)
            least_up = minimum(where(up != 0.0, abs(up), np.inf), least_up)
            dh = fma(up, scale, dh)
            dz = dh * slope
            size = abs(dz)
            some = where(dh != 0.0, size, one)
            if is_homogeneous(f):
                z = abs(load(zs, at))
                if ragged:
                    z = where(running, z, 1.0)
                least_z = minimum(z, least_z)
                some = where(slope != 0.0, some, 1.0)
            elif ragged:
                some = where(running, some, 1.0)
            least_dz = minimum(some, least_dz)
            sum_b, size_b = sum_b + dz, size_b + size
            store(tried_dz, row, dz)
            before = w2 * dz
            dh = where(running, before, dh) if ragged else before
        store(tried, CARRIED * block + v, dh)
        store(tried, LEAST_DZ * block + v, least_dz)
        store(tried, LEAST_Z * block + v, least_z)
        store(tried, LEAST_UP * block + v, least_up)
        store(tried, (TRIED_SUMS + 2) * block + v, sum_b)
        store(tried, (TRIED_SIZES + 2) * block + v, size_b)


@kernel
def try_sums(xs, hs, remaining, ragged, first, stop, width, tried, tried_dz):
    """Sums of w1 and w2 over some steps."""
    apart()
    block = tried.size // TRIED
    for v in range(0, width, lanes_of(hs)):
        x_place = place(xs, v)
        sum_w1 = sum_w2 = size_w1 = size_w2 = sum_x = sum_h = like(load(hs, v), 0.0)
        for s in range(stop - 1, first - 1, -1):
            dz = load(tried_dz, (s - first) * block + v)
            x, h = load_row(xs, x_place, s), load(hs, s * width + v)
            if ragged:
                running = load(remaining, v) > float(s)
                x, h = where(running, x, 0.0), where(running, h, 0.0)
            size, x_size, h_size = abs(dz), abs(x), abs(h)
            sum_w1, size_w1 = fma(dz, x, sum_w1), fma(size, x_size, size_w1)
            sum_w2, size_w2 = fma(dz, h, sum_w2), fma(size, h_size, size_w2)
            sum_x, sum_h = sum_x + x_size, sum_h + h_size
        store(tried, TRIED_SUMS * block + v, sum_w1)
        store(tried, (TRIED_SUMS + 1) * block + v, sum_w2)
        store(tried, TRIED_SIZES * block + v, size_w1)
        store(tried, (TRIED_SIZES + 1) * block + v, size_w2)
        store(tried, SUM_X * block + v, sum_x)
        store(tried, SUM_H * block + v, sum_h)


@part
def failed(constants, tried, block, v, fused, want_sums):
    """1 where what was tried may have lost digits, else 0."""
    reach = _reach(tried)
    low = LOW_32 if tried.itemsize == 4 else LOW_64
    high = 2.0**reach / low
    w2, w2_power = load(constants, 2 * block + v), load(constants, 3 * block + v)
    w3 = abs(load(constants, 4 * block + v))
    least_up = load_double(tried, LEAST_UP * block + v)
    size_b = load_double(tried, (TRIED_SIZES + 2) * block + v)
    zero, one = like(w2, 0.0), like(w2, 1.0)
    bad = where(abs(w2_power) <= reach, zero, where(w2 == 0.0, zero, one))
    bad = where(w3 <= 2.0**reach, bad, 1.0)
    bad = where(w3 >= 2.0**-reach, bad, where(w3 == 0.0, bad, 1.0))
    bad = where(
        load_double(tried, IN_REACH * block + v) > 0.0, bad, where(least_up < np.inf, one, bad)
    )
    bad = where(least_up >= low, bad, 1.0)
    bad = where(load_double(tried, LEAST_DZ * block + v) >= low, bad, 1.0)
    bad = where(load_double(tried, LEAST_Z * block + v) >= low, bad, 1.0)
    bad = where(size_b <= high, bad, 1.0)
    if fused:
        bad = where(load_double(tried, SQUARES * block + v) <= high, bad, 1.0)
    if want_sums:
        for row in range(2):
            size = load_double(tried, (TRIED_SIZES + row) * block + v)
            factors = load_double(tried, (SUM_X + row) * block + v)
            bad = where(size <= high, bad, 1.0)
            # Terms that are 0 for a factor of 0, or for a dz that is.
            empty = where(factors == 0.0, one, where(size_b == 0.0, one, zero))
            bad = where(size >= low * 2.0**-reach, bad, where(empty > 0.0, bad, 1.0))
    return bad
