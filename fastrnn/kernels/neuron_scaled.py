"""The scalar neuron back through time in numbers of any magnitude, m * 2**e.

Arrays and the order of the walk are those of `neuron.backward`; states are computed as there.
What is pulled back is a mantissa in float64 with an exponent beside it, in vectors of 8 lanes.

A sum over time is kept in four numbers, of which the first three lack the last as exponent:

    sum, what rounding took from it, sum of absolute terms, exponent

so that its error is that of its terms, and the second and third tell how much of them is left.

Some steps at a time are tried in plain floats of the states' own type, with the exponent that a
lane has before them (`_try_steps`). Where digits might be lost in that, the same steps are walked
with an exponent of their own each (`_retreat`), and each lane takes what is right for itself: its
bits do not depend on the lanes beside it.

States, pre-activations and upstream gradients are plain floats here. Where those leave their
range, a lane is marked as ``outside`` and its results are void: see ``exact``.
"""

import numpy as np
from numpy.typing import NDArray

from fastrnn.kernels.activations import is_homogeneous, slope_scaled, with_slope
from fastrnn.kernels.blocks import (
    copy,
    doubles,
    extremes,
    gather_block,
    gather_weights,
    integers,
    lane_offsets,
    numbers,
    remaining_steps,
    sequence,
)
from fastrnn.kernels.jit import apart, kernel, part
from fastrnn.kernels.memory import lanes_of, load, load_double, numbers_at, store
from fastrnn.kernels.neuron import SUMS, find_starts, pre_activation
from fastrnn.kernels.powers import add_exactly, normalise, normalise_vector, shifted
from fastrnn.kernels.simd import any_lane, copysign, fma, like, minimum, where
from fastrnn.kernels.tiles import (
    find_layouts,
    load_row,
    load_row_double,
    load_rows,
    place,
    rows_for,
    store_row,
    store_rows,
)
from fastrnn.kernels.turns import finish, take

# Numbers of a sum.
SUM = 4
# So many of the sums have an exponent of their own: those of w1, w2, b.
POWERED = 3
# Exponent of a sum without terms.
NO_POWER = -1e300
# A sum's exponent lags behind that of its largest term by at most so much.
HEADROOM = 200.0
# A derivative below this gets an exponent of its own.
LEAST_SLOPE = 2.0**-30
# Steps in which what is carried may shrink by that, and its exponent not be told.
FREE_STEPS = 8
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
# An upstream gradient below this is outside, and so are sums of terms: some digits are lost.
LEAST = 2.0**-900


@kernel
def backward(
    f, w1, w2, b, w3, b3, x, h0, lengths, lanes, vectors, turns, most, tile, fused, upstream, dh,
    powers, rests, sums, want_sums, want_w3, mantissas, exponents, want_dx, outside,
):  # fmt: skip
    """As `neuron.backward`, of dh * 2**(powers + rests), of arrays (K, B, 1) that become dh_0.

    ``sums`` (6, K, B, 4) are left alone unless ``want_sums``, that of w3 may be unless
    ``want_w3``. The gradient of x goes into the views ``mantissas`` and ``exponents``. Lanes
    outside get a 1 in ``outside`` (K, B).
    """
    inputs, targets, outputs = (
        numbers_at(x[0], h0), numbers_at(upstream[0], h0), numbers_at(mantissas[0], h0),
    )  # fmt: skip
    power_outputs = numbers_at(exponents[0], dh)
    block = vectors * lanes_of(h0)
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, x_layouts = integers(block), integers(vectors)
    up_offsets, up_layouts = integers(block), integers(vectors)
    offsets, layouts, power_layouts = integers(block), integers(vectors), integers(block)
    weights, remaining = numbers(h0, 3 * block), numbers(h0, block)
    hs, slopes, zs = (
        numbers(h0, (tile + 1) * block), numbers(h0, tile * block), numbers(h0, tile * block),
    )  # fmt: skip
    x_tile, rows, tile_offsets = (
        numbers(h0, tile * block), numbers(h0, tile * block), sequence(block),
    )  # fmt: skip
    es = doubles(tile * block)
    tiles = max(1, (extremes(lengths, lengths.size)[1] + tile - 1) // tile)
    starts = numbers(h0, tiles * block)
    # Rows: mantissa and exponent of w1 and of w2, w3, b3.
    constants, readout = doubles(6 * block), numbers(h0, 2 * block)
    tried, tried_dz = numbers(h0, TRIED * block), numbers(h0, TRY_STEPS * block)
    walked = doubles(2 * TRY_STEPS * 8)
    # Rows: dh, power, rest, and 1 where outside; then the numbers of all sums.
    carried = doubles((4 + SUM * len(SUMS)) * block)
    for _ in range(most):
        start = block * take(turns)
        if start >= lanes.size:
            break
        count = min(block, lanes.size - start)
        width = gather_block(lanes, start, count, h0, lengths, nets, sequences, ends)
        gather_weights(w1, w2, b, nets, width, weights)
        lane_offsets(nets, sequences, width, 0, x[1], x_offsets)
        find_layouts(h0, x_offsets, x[2], width, x_layouts)
        lane_offsets(nets, sequences, width, upstream[1], upstream[2], up_offsets)
        find_layouts(h0, up_offsets, upstream[3], width, up_layouts)
        lane_offsets(nets, sequences, width, mantissas[1], mantissas[2], offsets)
        find_layouts(h0, offsets, mantissas[3], width, layouts)
        find_layouts(dh, offsets, mantissas[3], width, power_layouts)
        for lane in range(width):
            k, i = nets[lane], sequences[lane]
            starts[lane] = h0[k, i, 0]
            constants[lane], constants[block + lane] = normalise(np.float64(w1[k, 0, 0]))
            constants[2 * block + lane], constants[3 * block + lane] = normalise(
                np.float64(w2[k, 0, 0])
            )
            constants[4 * block + lane], constants[5 * block + lane] = w3[k, 0, 0], b3[k, 0]
            readout[lane], readout[block + lane] = w3[k, 0, 0], b3[k, 0]
            carried[lane], shift = normalise(dh[k, i, 0])
            carried[block + lane] = powers[k, i, 0] + shift
            carried[2 * block + lane] = rests[k, i, 0]
            carried[3 * block + lane] = 0.0
            if want_sums:
                for slot in range(len(SUMS)):
                    for number in range(SUM):
                        at = (4 + SUM * slot + number) * block + lane
                        carried[at] = sums[slot, k, i, number]
        least, longest = extremes(ends, width)
        find_starts(
            f, weights, inputs, x_layouts, x_offsets, x[2], ends, least, longest, tile, width,
            remaining, x_tile, tile_offsets, starts, hs,
        )  # fmt: skip
        for t in range((longest - 1) // tile * tile, -1, -tile):
            steps = min(tile, longest - t)
            xs = load_rows(
                inputs, x_layouts, x_offsets, x[2], t, steps, width, 1, x_tile, tile_offsets
            )
            ups = load_rows(
                targets, up_layouts, up_offsets, upstream[3], t, steps, width, -1, rows,
                tile_offsets,
            )  # fmt: skip
            out = rows_for(outputs, layouts, offsets, mantissas[3], t, width, rows, tile_offsets)
            power_out = rows_for(
                power_outputs, power_layouts, offsets, exponents[3], t, width, es, tile_offsets
            )
            ragged = t + steps > least
            remaining_steps(ends, width, t, steps, remaining)
            copy(starts, t // tile * block, hs, 0, width)
            _advance(f, weights, xs, remaining, ragged, steps, width, hs, slopes, zs)
            _prepare(carried, tried, width)
            for first in range((steps - 1) // TRY_STEPS * TRY_STEPS, -1, -TRY_STEPS):
                stop = min(first + TRY_STEPS, steps)
                _try_steps(
                    f, weights, readout, xs, hs, slopes, zs, ups, remaining, ragged, fused, first,
                    stop, width, tried, tried_dz, want_sums, want_w3, want_dx,
                )  # fmt: skip
                _settle(
                    f, constants, xs, hs, slopes, zs, ups, remaining, ragged, fused, first, stop,
                    width, carried, tried, tried_dz, walked, want_sums, want_w3, want_dx, out,
                    power_out,
                )  # fmt: skip
            if want_dx:
                store_rows(rows, outputs, layouts, offsets, mantissas[3], t, steps, width, -1)
                store_rows(
                    es, power_outputs, power_layouts, offsets, exponents[3], t, steps, width, -1
                )
        for lane in range(width):
            k, i = nets[lane], sequences[lane]
            dh[k, i, 0], powers[k, i, 0] = carried[lane], carried[block + lane]
            rests[k, i, 0] = carried[2 * block + lane]
            if carried[3 * block + lane] > 0.0:
                outside[k, i] = 1
            if want_sums:
                for slot in range(len(SUMS)):
                    for number in range(SUM):
                        at = (4 + SUM * slot + number) * block + lane
                        sums[slot, k, i, number] = carried[at]
        finish(turns)


@kernel
def _advance(f, weights, xs, remaining, ragged, steps, width, hs, slopes, zs):
    """States from that in the first row of hs, each in the row after; f' and pre-activations."""
    for s in range(steps):
        at = s * width
        for v in range(0, width, lanes_of(hs)):
            before = load(hs, at + v)
            z = pre_activation(weights, v, load_row(xs, place(xs, v), s), before)
            after, slope = with_slope(f, z)
            if ragged:
                after = where(load(remaining, v) > float(s), after, before)
            store(hs, at + width + v, after)
            store(slopes, at + v, slope)
            store(zs, at + v, z)


@part
def _reach(array):
    """See REACH_32."""
    return REACH_32 if array.itemsize == 4 else REACH_64


@kernel
def _prepare(carried, tried, width):
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
def _try_steps(
    f, weights, readout, xs, hs, slopes, zs, ups, remaining, ragged, fused, first, stop, width,
    tried, tried_dz, want_sums, want_w3, want_dx,
):  # fmt: skip
    """Walk back over some steps in plain floats, and keep what tells whether they were enough."""
    apart()
    n = lanes_of(hs)
    block = tried.size // TRIED
    for v in range(0, width, n):
        w2, w3, b3 = load(weights, block + v), load(readout, v), load(readout, block + v)
        dh, scale = load(tried, CARRIED * block + v), load(tried, SCALE * block + v)
        x_place, up_place = place(xs, v), place(ups, v)
        zero, one = like(w2, 0.0), like(w2, 1.0)
        sum_w1 = sum_w2 = sum_b = sum_w3 = sum_b3 = zero
        size_w1 = size_w2 = size_b = size_w3 = size_b3 = zero
        squares = sum_x = sum_h = zero
        least_dz = least_z = least_up = like(w2, np.inf)
        for s in range(stop - 1, first - 1, -1):
            at = s * width + v
            up, slope = load_row(ups, up_place, s), load(slopes, at)
            if ragged:
                running = load(remaining, v) > float(s)
                slope = where(running, slope, 0.0)
            if fused:
                h = load(hs, at + width)
                error = fma(w3, h, b3 - up)
                if ragged:
                    error, h = where(running, error, 0.0), where(running, h, 0.0)
                if want_w3:
                    term = error * h
                    sum_w3, size_w3 = sum_w3 + term, size_w3 + abs(term)
                sum_b3, size_b3 = sum_b3 + error, size_b3 + abs(error)
                squares = fma(error, error, squares)
                up = w3 * error
                least_up = minimum(where(error != 0.0, abs(error), np.inf), least_up)
            elif ragged:
                up = where(running, up, 0.0)
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
            if want_sums:
                x, h = load_row(xs, x_place, s), load(hs, at)
                if ragged:
                    x, h = where(running, x, 0.0), where(running, h, 0.0)
                x_size, h_size = abs(x), abs(h)
                sum_w1, size_w1 = fma(dz, x, sum_w1), fma(size, x_size, size_w1)
                sum_w2, size_w2 = fma(dz, h, sum_w2), fma(size, h_size, size_w2)
                sum_x, sum_h = sum_x + x_size, sum_h + h_size
            if want_dx:
                store(tried_dz, (s - first) * block + v, dz)
            before = w2 * dz
            dh = where(running, before, dh) if ragged else before
        store(tried, CARRIED * block + v, dh)
        store(tried, LEAST_DZ * block + v, least_dz)
        store(tried, LEAST_Z * block + v, least_z)
        store(tried, LEAST_UP * block + v, least_up)
        _store_five(tried, TRIED_SUMS, block, v, (sum_w1, sum_w2, sum_b, sum_w3, sum_b3))
        _store_five(tried, TRIED_SIZES, block, v, (size_w1, size_w2, size_b, size_w3, size_b3))
        store(tried, SQUARES * block + v, squares)
        store(tried, SUM_X * block + v, sum_x)
        store(tried, SUM_H * block + v, sum_h)


@part
def _store_five(tried, row, block, v, vectors):
    a, b, c, d, e = vectors
    store(tried, row * block + v, a)
    store(tried, (row + 1) * block + v, b)
    store(tried, (row + 2) * block + v, c)
    store(tried, (row + 3) * block + v, d)
    store(tried, (row + 4) * block + v, e)


@part
def _failed(constants, tried, block, v, want_sums):
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


@kernel
def _settle(
    f, constants, xs, hs, slopes, zs, ups, remaining, ragged, fused, first, stop, width, carried,
    tried, tried_dz, walked, want_sums, want_w3, want_dx, out, power_out,
):  # fmt: skip
    """Take what was tried over some steps, or walk them; rows of dx; and prepare the next."""
    apart()
    block = constants.size // 6
    # The first number that the states' type rounds to 2.
    top = 2.0 - 0.5 * np.float64(np.finfo(hs.dtype).eps)
    for v in range(0, width, 8):
        power, rest = load(carried, block + v), load(carried, 2 * block + v)
        bad = _failed(constants, tried, block, v, want_sums)
        again = any_lane(bad > 0.0)
        if again:
            _walk(
                f, constants, xs, hs, slopes, zs, ups, remaining, ragged, fused, first, stop,
                width, v, carried, walked, want_sums, want_dx, bad,
            )  # fmt: skip
        at_power = power + rest
        good = where(bad > 0.0, 0.0, like(bad, 1.0))
        _take_sums(tried, carried, block, v, at_power, good, fused, want_sums, want_w3)
        dh, shift = normalise_vector(load_double(tried, CARRIED * block + v))
        shift = where(dh != 0.0, shift, 0.0)
        dh, rest = where(bad > 0.0, load(carried, v), dh), rest + shift
        rest = where(bad > 0.0, load(carried, 2 * block + v), rest)
        power = where(bad > 0.0, load(carried, block + v), power)
        store(carried, v, dh)
        store(carried, block + v, power)
        store(carried, 2 * block + v, rest)
        if want_dx:
            w1, w1_power = load(constants, v), load(constants, block + v)
            m_place, e_place = place(out, v), place(power_out, v)
            for s in range(stop - 1, first - 1, -1):
                dz, dz_power = load_double(tried_dz, (s - first) * block + v), at_power
                if again:
                    i = 2 * 8 * (s - first)
                    dz = where(bad > 0.0, load(walked, i), dz)
                    dz_power = where(bad > 0.0, load(walked, i + 8), dz_power)
                dx, shift = normalise_vector(w1 * dz)
                # What would be rounded to 2 is 1, and twice as much.
                up_one = abs(dx) >= top
                store_row(out, m_place, s, where(up_one, copysign(like(dx, 1.0), dx), dx))
                dx_power = dz_power + (w1_power + where(up_one, shift + 1.0, shift))
                store_row(power_out, e_place, s, where(dx != 0.0, dx_power, 0.0))
    _prepare(carried, tried, width)


@part
def _take_sums(tried, carried, block, v, at_power, good, fused, want_sums, want_w3):
    """Add what was tried to the sums of the lanes that are good."""
    if want_sums:
        for row in range(POWERED):
            sum_ = _load_sum(carried, 4 + SUM * row, block, v)
            term, size = _tried(tried, row, block, v, good)
            if any_lane(at_power > sum_[3] + HEADROOM):
                sum_ = _raised(sum_, size, at_power)
            lower = at_power - sum_[3]
            sum_ = _add_sized(sum_, shifted(term, lower), shifted(size, lower))
            _store_sum(carried, 4 + SUM * row, block, v, sum_)
    if fused:
        for row in range(POWERED, 5):
            if want_w3 or row > POWERED:
                sum_ = _load_sum(carried, 4 + SUM * row, block, v)
                term, size = _tried(tried, row, block, v, good)
                _store_sum(carried, 4 + SUM * row, block, v, _add_sized(sum_, term, size))
        sum_ = _load_sum(carried, 4 + SUM * 5, block, v)
        term = where(good > 0.0, 0.5 * load_double(tried, SQUARES * block + v), 0.0)
        _store_sum(carried, 4 + SUM * 5, block, v, _add(sum_, term))


@part
def _tried(tried, row, block, v, good):
    """A sum and that of its absolute terms; 0 of lanes that are not good."""
    term = load_double(tried, (TRIED_SUMS + row) * block + v)
    size = load_double(tried, (TRIED_SIZES + row) * block + v)
    return where(good > 0.0, term, 0.0), where(good > 0.0, size, 0.0)


@kernel
def _walk(
    f, constants, xs, hs, slopes, zs, ups, remaining, ragged, fused, first, stop, width, v,
    carried, walked, want_sums, want_dx, bad,
):  # fmt: skip
    """Walk some steps with an exponent each; what is carried changes where ``bad``."""
    apart()
    block = constants.size // 6
    tiny = np.float64(np.finfo(hs.dtype).tiny)
    w1 = load(constants, v)
    w2, w2_power = load(constants, 2 * block + v), load(constants, 3 * block + v)
    w3, b3 = load(constants, 4 * block + v), load(constants, 5 * block + v)
    dh, power = load(carried, v), load(carried, block + v)
    rest, outside = load(carried, 2 * block + v), load(carried, 3 * block + v)
    sum_w1, sum_w2, sum_b = (
        _load_sum(carried, 4, block, v), _load_sum(carried, 8, block, v),
        _load_sum(carried, 12, block, v),
    )  # fmt: skip
    sum_w3, sum_b3, sum_loss = (
        _load_sum(carried, 16, block, v), _load_sum(carried, 20, block, v),
        _load_sum(carried, 24, block, v),
    )  # fmt: skip
    x_place, up_place = place(xs, v), place(ups, v)
    running_steps = load_double(remaining, v)
    limit = _limit(sum_w1, sum_w2, sum_b)
    for s in range(stop - 1, first - 1, -1):
        at = s * width + v
        z, up = load_double(zs, at), load_row_double(ups, up_place, s)
        running = running_steps > float(s)
        if fused:
            h = load_double(hs, at + width)
            error = fma(w3, h, b3) - up
            if ragged:
                error = where(running, error, 0.0)
            sum_w3 = _add(sum_w3, where(error != 0.0, error * h, 0.0))
            sum_b3 = _add(sum_b3, error)
            sum_loss = _add(sum_loss, error * (0.5 * error))
            up = w3 * error
        elif ragged:
            up = where(running, up, 0.0)
        some = up != 0.0
        if any_lane(some):
            dh, power, rest = _join(dh, power, rest, up, some)
            outside = where(some, where(abs(up) > LEAST, outside, 1.0), outside)
        # What is too small to be a float, and still passed on by f, has no size of its own.
        size = abs(z)
        if is_homogeneous(f):
            terms = abs(w2 * load_double(hs, at)) + abs(w1 * load_row_double(xs, x_place, s))
            size = where(size < tiny, where(terms > 0.0, np.inf, size), size)
        if ragged:
            size = where(running, size, 0.0)
        outside = where(size < np.inf, outside, 1.0)
        slope, power_z, rest_z = load_double(slopes, at), power, rest
        if not is_homogeneous(f):
            faint = slope < LEAST_SLOPE
            if any_lane(faint):
                mantissa, slope_power = slope_scaled(f, z)
                slope = where(faint, mantissa, slope)
                power_z, rest_z = add_exactly(power, rest, where(faint, slope_power, 0.0))
        dz = dh * slope
        if ragged:
            dz = where(running, dz, 0.0)
        at_power = power_z + rest_z
        if want_sums:
            x, h = load_row_double(xs, x_place, s), load_double(hs, at)
            # An exact 0 adds nothing, and not 0 * inf.
            some = dz != 0.0
            by_w1, by_w2 = where(some, dz * x, 0.0), where(some, dz * h, 0.0)
            if any_lane(at_power > limit):
                sum_w1 = _raised(sum_w1, by_w1, at_power)
                sum_w2 = _raised(sum_w2, by_w2, at_power)
                sum_b = _raised(sum_b, dz, at_power)
                limit = _limit(sum_w1, sum_w2, sum_b)
            sum_w1 = _add_at(sum_w1, by_w1, at_power)
            sum_w2 = _add_at(sum_w2, by_w2, at_power)
            sum_b = _add_at(sum_b, dz, at_power)
        if want_dx:
            store(walked, 2 * 8 * (s - first), dz)
            store(walked, 2 * 8 * (s - first) + 8, at_power)
        after, rest_z = w2 * dz, rest_z + w2_power
        if s % FREE_STEPS == 0:
            after, shift = normalise_vector(after)
            rest_z = rest_z + shift
        if ragged:
            after, power_z = where(running, after, dh), where(running, power_z, power)
            rest_z = where(running, rest_z, rest)
        dh, power, rest = after, power_z, rest_z
    lanes = bad > 0.0
    store(carried, v, where(lanes, dh, load(carried, v)))
    store(carried, block + v, where(lanes, power, load(carried, block + v)))
    store(carried, 2 * block + v, where(lanes, rest, load(carried, 2 * block + v)))
    store(carried, 3 * block + v, where(lanes, outside, load(carried, 3 * block + v)))
    _store_sum_where(carried, 4, block, v, sum_w1, lanes)
    _store_sum_where(carried, 8, block, v, sum_w2, lanes)
    _store_sum_where(carried, 12, block, v, sum_b, lanes)
    _store_sum_where(carried, 16, block, v, sum_w3, lanes)
    _store_sum_where(carried, 20, block, v, sum_b3, lanes)
    _store_sum_where(carried, 24, block, v, sum_loss, lanes)


@part
def _store_sum_where(carried, row, block, v, numbers, lanes):
    before = _load_sum(carried, row, block, v)
    value, lost, size, power = numbers
    store(carried, row * block + v, where(lanes, value, before[0]))
    store(carried, (row + 1) * block + v, where(lanes, lost, before[1]))
    store(carried, (row + 2) * block + v, where(lanes, size, before[2]))
    store(carried, (row + 3) * block + v, where(lanes, power, before[3]))


@part
def _load_sum(carried, row, block, v):
    return (
        load(carried, row * block + v), load(carried, (row + 1) * block + v),
        load(carried, (row + 2) * block + v), load(carried, (row + 3) * block + v),
    )  # fmt: skip


@part
def _store_sum(carried, row, block, v, numbers):
    value, lost, size, power = numbers
    store(carried, row * block + v, value)
    store(carried, (row + 1) * block + v, lost)
    store(carried, (row + 2) * block + v, size)
    store(carried, (row + 3) * block + v, power)


@part
def _join(dh, power, rest, up, some):
    """dh * 2**(power + rest) + up, where there is some."""
    total = power + rest
    # Such a dh is nothing beside up; or has no size, and what scales it would take that of up.
    lost = where(some, where(dh == 0.0, abs(total), -total), 0.0) > HEADROOM
    if any_lane(lost):
        dh = where(lost, shifted(dh, total), dh)
        total, power, rest = (
            where(lost, 0.0, total),
            where(lost, 0.0, power),
            where(lost, 0.0, rest),
        )
    return where(some, dh + shifted(up, -total), dh), power, rest


@part
def _add_sized(sum_, term, size):
    """sum + term, a sum itself of terms of that size."""
    value, lost, sizes, power = sum_
    total = value + term
    back = total - value
    return total, lost + ((value - (total - back)) + (term - back)), sizes + size, power


@part
def _add(sum_, term):
    """sum + term, of numbers that share the sum's exponent."""
    return _add_sized(sum_, term, abs(term))


@part
def _add_at(sum_, term, power):
    """sum + term * 2**power."""
    return _add(sum_, shifted(term, power - sum_[3]))


@part
def _raised(sum_, term, power):
    """The sum with a larger exponent, where a term would go beyond it."""
    value, lost, size, own = sum_
    raised = where(where(term != 0.0, power, own) > own + HEADROOM, power, own)
    fall = own - raised
    return shifted(value, fall), shifted(lost, fall), shifted(size, fall), raised


@part
def _limit(sum_w1, sum_w2, sum_b):
    """Up to this exponent no sum has to be raised."""
    least = where(sum_w1[3] < sum_w2[3], sum_w1[3], sum_w2[3])
    return where(least < sum_b[3], least, sum_b[3]) + HEADROOM


def digits_lost(sums: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Lanes (K, B) whose sums (6, K, B, 4) are not finite, or of terms near the least floats."""
    size = sums[..., 2]
    small = (size < LEAST) & (size > 0.0)
    # The squares of small errors may all be 0.
    small[-1] = (size[-1] < LEAST) & (size[-2] > 0.0)
    return np.asarray((small | ~np.isfinite(size)).any(axis=0))
