"""The scalar neuron back through time in numbers of any magnitude, m * 2**e.

Arrays and the order of the walk are those of `neuron.backward`; states are computed as there.
What is pulled back is a mantissa in float64 with an exponent beside it, in vectors of 8 lanes.

A sum over time is kept in four numbers, of which the first three lack the last as exponent:

    sum, what rounding took from it, sum of absolute terms, exponent

so that its error is that of its terms, and the second and third tell how much of them is left.

Some steps at a time are tried in plain floats of the states' own type, with the exponent that a
lane has before them (``neuron_tried``). Where digits might be lost in that, the same steps are
walked with an exponent of their own each (`_walk`), and each lane takes what is right for itself:
its bits do not depend on the lanes beside it.

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
from fastrnn.kernels.neuron_tried import (
    CARRIED,
    SQUARES,
    TRIED,
    TRIED_SIZES,
    TRIED_SUMS,
    TRY_STEPS,
    failed,
    prepare,
    try_back,
    try_errors,
    try_sums,
)
from fastrnn.kernels.powers import add_exactly, normalise, normalise_vector, shifted
from fastrnn.kernels.simd import any_lane, copysign, fma, like, where
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
            prepare(carried, tried, width)
            for first in range((steps - 1) // TRY_STEPS * TRY_STEPS, -1, -TRY_STEPS):
                stop = min(first + TRY_STEPS, steps)
                if fused:
                    try_errors(
                        readout, hs, ups, remaining, ragged, first, stop, width, tried, tried_dz,
                        want_w3,
                    )  # fmt: skip
                try_back(
                    f, weights, slopes, zs, ups, remaining, ragged, fused, first, stop, width,
                    tried, tried_dz,
                )  # fmt: skip
                if want_sums:
                    try_sums(xs, hs, remaining, ragged, first, stop, width, tried, tried_dz)
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
        bad = failed(constants, tried, block, v, fused, want_sums)
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
                rounded = where(up_one, copysign(like(dx, 1.0), dx), dx)
                # Zeros of scaled results are positive.
                store_row(out, m_place, s, where(dx != 0.0, rounded, 0.0))
                dx_power = dz_power + (w1_power + where(up_one, shift + 1.0, shift))
                store_row(power_out, e_place, s, where(dx != 0.0, dx_power, 0.0))
    prepare(carried, tried, width)


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
