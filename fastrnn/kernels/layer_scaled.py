"""A hidden layer back through time in numbers of any magnitude: rows m * 2**e, an e a sequence.

The walk is that of `layer.retreat` along what `layer.replay` left behind. What is pulled back is
in float64, whatever the type of the states, and a sequence's row is brought near 1 where it drifts
from there.
Numbers of one row may differ by as many binades as the type reaches; where one would be lost
beside the others, the sequence is marked as ``outside`` and its results are void: see ``exact``.
Where a sum lacks digits, those of its sequences are marked as lacking: their sums alone are void,
so that no gradient of x depends on the sequences beside it.

Weights' gradients are sums over the samples of a chunk, as in `layer`, at the exponent of the
largest, and beside them those of absolute terms; see ``tables``.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastrnn.kernels.activations import is_homogeneous, slope_scaled, with_slope
from fastrnn.kernels.blocks import integers
from fastrnn.kernels.jit import bare, part, written_out
from fastrnn.kernels.layer_components import (
    LOW_DZ,
    add_by_component,
    add_outputs_by_component,
    mark,
    settle_powered,
)
from fastrnn.kernels.layer_powers import HIGH_32, HIGH_64
from fastrnn.kernels.memory import get, lanes_of, load, load_double, numbers_at, put, store
from fastrnn.kernels.panels import rooms
from fastrnn.kernels.powers import normalise, normalise_vector, shifted
from fastrnn.kernels.products import add_outer, affine, copy_row, of_packed, panel_width
from fastrnn.kernels.rows import LEAST_64 as LEAST
from fastrnn.kernels.rows import LOW_STATE_64 as LOW_STATE
from fastrnn.kernels.rows import any_below, clear_between, largest_of, scale_row, smallest
from fastrnn.kernels.scaled_sums import NO_POWER
from fastrnn.kernels.simd import (
    any_lane,
    first_lanes,
    fma,
    lane,
    like,
    maximum,
    ordered_sum,
    where,
)
from fastrnn.kernels.tables import SIZES, TERMS, add_number, settle

# A row is brought near 1 where its largest number is this far from there, or 1 over it.
DRIFT = 2.0**60
# Terms may be so many binades above or below the exponent of what is not yet settled.
HEADROOM = 100.0
# What is upstream may be so many binades above the exponent of what is carried.
REACH = 300.0
W1, W2, W3 = 0, 1, 2
# The least weight beside the largest of a net of which rows may be deep.
DENSE = 2.0**-300
# Exponents up to here are added exactly.
MOST_POWER = 2.0**50
# Beyond this |z| a derivative has an exponent of its own.
DEEP = 300.0


class Along(NamedTuple):
    """What is known of a walk beside `layer.replay`: exponents of states and of derivatives."""

    state_powers: Any  # (steps + 1, R), or one 0
    deep: Any  # (steps, R): whether derivatives of a row have exponents
    slope_powers: Any  # (steps, R, stride), where some have; with dz they become its exponents
    mantissas: Any  # the same: dz, which is there too in floats of one exponent a row
    predictions: Any  # (steps, R, O): of the net's own type, at the exponent of the states after


class PowersRoom(NamedTuple):
    """What `pull` works in beside `layer.Room`: exponents, and absolute values of a chunk."""

    open_powers: Any  # (R,): of what is not yet settled of each table
    doubts: Any  # (R,): whether digits of that may be lost
    lacks: Any  # (R,): whether sums lack digits
    powers: Any  # (steps, R): of dz
    factors: Any  # (R,): of what is upstream
    factor_powers: Any  # (R,)
    dz: Any  # (chunk, R, stride)
    signed: Any  # (chunk, R, stride)
    states: Any  # (chunk + 1, R, stride)
    inputs: Any  # (chunk, R, F + 1)
    misses: Any  # (chunk, R, O)
    units: Any  # (H,): exponents that components of dz have in a chunk
    vague: Any  # (H,): whether digits of some of them are lost there
    tops: Any  # (F + 1, H or O,): the largest of what they are multiplied by
    row_powers: Any  # (chunk, R): of what units are taken from


def powers_room(
    open_powers: Any, doubts: Any, lacks: Any, stride: int, inputs: int, outputs: int, steps: int,
    chunk: int, dtype: DTypeLike,
) -> PowersRoom:  # fmt: skip
    """Room for so many steps of a team, whose open sums are carried from slice to slice."""
    team = len(open_powers)
    block, chunk = team * stride, min(chunk, steps)
    sizes = (
        chunk * block, chunk * block, (chunk + 1) * block,
        chunk * team * (inputs + 1), chunk * team * outputs, stride, stride,
        max(stride, inputs + 1, outputs), chunk * team,
    )  # fmt: skip
    return PowersRoom(
        open_powers, doubts, lacks, np.empty(steps * team), np.ones(team), np.zeros(team),
        *rooms(sizes, dtype),
    )  # fmt: skip


@bare
def pull(
    lines, low, panels, back, shifts, leasts, floors, like_array, hs, slopes, xs, inputs,
    outputs, rows, ends, stride, chunk, each, fused, upstream, want_upstream, dh, dh_powers, sums,
    want_sums, mantissas, exponents, want_dx, outside, along, room, of_powers,
):  # fmt: skip
    """Pull dh * 2**dh_powers (R, H) and (R,) back to x and to the state before the first step.

    As `layer.retreat`, whose names these are; rows come in near 1, those of 0 at the exponent of
    what is upstream. Where f is made of ``lines`` it hands on what is too small to be a float, and
    its derivative may be 0. Weights in ``back`` are divided by
    2**shifts, which brings their largest near 1; ``floors`` are the smallest of them, and
    ``leasts`` but for 0.
    The gradient of x goes into the views ``mantissas`` and ``exponents`` (B, T, F). Sequences
    marked on entry are left alone and add nothing.
    """
    panel, input_panel, _, sum_panel = panels
    target, out = numbers_at(upstream[0], like_array), numbers_at(mantissas[0], like_array)
    power_out = numbers_at(exponents[0], dh_powers)
    g, ups, row, powers = room.g, room.ups, room.row, of_powers.powers
    # Of a weight of 0, what is nothing beside the others of its row may be all there is.
    dense = floors[W2] >= DENSE and (not want_dx or floors[W1] >= DENSE)
    factors, factor_powers = of_powers.factors, of_powers.factor_powers
    count, hidden = dh.shape
    width, input_width = panel_width(panel), panel_width(input_panel)
    steps, block, line = ends[0], count * stride, inputs + 1
    columns = (hidden + panel_width(sum_panel) - 1) // panel_width(sum_panel)
    columns *= panel_width(sum_panel)
    joined = fused or want_upstream
    of_w3 = shifts[W3] if fused and outputs > 0 else 0.0
    state_powers, deep = along.state_powers, along.deep
    powered = fused and state_powers.size > 1
    for r in range(count):
        copy_row(panel, dh.reshape(dh.size), r * hidden, g, r * stride, hidden)
    active = 0
    for s in range(steps - 1, -1, -1):
        while active < count and ends[active] > s:
            active += 1
        at = s * block
        if fused and outputs > 0:
            _find_errors(
                panel, back, leasts, along, hidden, stride, target, upstream, s, rows, active, each,
                outputs, sums, outside, room,
            )  # fmt: skip
        elif joined:
            _load_step(target, upstream, s, rows, active, ups, stride, hidden)
            if fused:
                _subtract_targets(
                    hs, at + block, ups, active, hidden, stride, each, sums, outside, state_powers,
                    (s + 1) * count,
                )  # fmt: skip
        for r in range(active):
            here, own = s * count + r, at + r * stride
            up_power = of_w3 + (state_powers[here + count] if powered else 0.0)
            if not outside[r]:
                if joined:
                    distance = up_power - dh_powers[r]
                    if distance < -REACH and largest_of(g, r * stride, hidden) == 0.0:
                        dh_powers[r], distance = up_power, 0.0
                    if distance > REACH:
                        outside[r] |= not _join(g, ups, r * stride, hidden, dh_powers, r, up_power)
                        distance = up_power - dh_powers[r]
                    if distance != factor_powers[r]:
                        factor_powers[r] = distance
                        factors[r] = math.ldexp(1.0, int(max(distance, -2000.0)))
                if deep[here]:
                    lost, doubtful, far, some = _times_deep_slopes(
                        g, ups, r * stride, joined, factors[r], slopes, along.slope_powers,
                        along.mantissas, own, hidden, dh_powers, r,
                    )  # fmt: skip
                    lost = lost or not dense
                else:
                    lost, doubtful, far, some = _times_slopes(
                        lines, g, ups, r * stride, joined, factors[r], slopes, own, hidden
                    )
                powers[here] = dh_powers[r] if some else NO_POWER
                if doubtful and s + 1 < ends[r]:
                    terms = _least_of_row(deep[here + count], slopes, own + block, hidden)
                    lost = lost or terms * leasts[W2] < LEAST
                if some and far:
                    largest = largest_of(slopes, own, hidden)
                    lost = lost or not _bring_near_one(slopes, own, hidden, largest, powers, here)
                outside[r] |= lost
            if outside[r]:
                clear_between(slopes, own, own + stride)
                powers[here] = NO_POWER
        for r in range(active, count):
            powers[s * count + r] = NO_POWER
        if active < count:
            clear_between(slopes, at + active * stride, at + block)
        if want_dx:
            inner = (of_packed(slopes, room.offsets, at, 1, back.w1, 0, hidden, input_width),)
            affine(input_panel, active, inputs, room.zeros, 0, 0, inner, row, 0, inputs)
            for r in range(active):
                power = powers[s * count + r] + shifts[W1]
                doubtful = False
                for i in range(inputs):
                    value, shift = normalise(get(row, r * inputs + i))
                    doubtful = doubtful or abs(get(row, r * inputs + i)) < LEAST
                    # Zeros of scaled results are positive.
                    at_x = rows[r] * mantissas[1] + s * mantissas[2] + i * mantissas[3]
                    put(out, at_x, value + 0.0)
                    if abs(get(out, at_x)) == 2.0:
                        put(out, at_x, 0.5 * value)
                        shift += 1.0
                    to = rows[r] * exponents[1] + s * exponents[2] + i * exponents[3]
                    put(power_out, to, power + shift if value != 0.0 else 0.0)
                if doubtful and not outside[r]:
                    terms = _least_of_row(deep[s * count + r], slopes, at + r * stride, hidden)
                    outside[r] |= terms * leasts[W1] < LEAST
        inner = (of_packed(slopes, room.offsets, at, 1, back.w2, 0, hidden, width),)
        affine(panel, active, hidden, room.zeros, 0, 0, inner, g, 0, stride)
        for r in range(active):
            power = powers[s * count + r]
            dh_powers[r] = power + shifts[W2] if power > NO_POWER else of_w3
        if s % chunk == 0 and (want_sums or lines):
            length = min(chunk, steps - s)
            for r in range(count):
                _measure_states(
                    lines, low, hs, xs, room.errors, s, length, r, count, hidden, stride, line,
                    outputs if fused else 0, each, of_powers, outside,
                )  # fmt: skip
            if want_sums:
                for own in range(count if each else 1):
                    _add_chunk(
                        sum_panel, inputs, outputs if fused else 0, hidden, columns, s, length, own,
                        count, each, stride, hs, slopes, xs, sums, room, along, of_powers,
                    )  # fmt: skip
    for r in range(active):
        if not outside[r] and any_below(g, r * stride, hidden, LEAST):
            terms = _least_of_row(deep[r], slopes, r * stride, hidden)
            outside[r] |= terms * leasts[W2] < LEAST
    for r in range(count):
        copy_row(panel, g, r * stride, dh.reshape(dh.size), r * hidden, hidden)


@bare
def settle_all(panel, inputs, outputs, each, sums, dh, lacks, open_powers, doubts):
    """Settle all sums of a team after its last slice; mark sequences whose sums lack digits.

    Before that, sums are settled where exponents ask for it alone, so that no bit depends on where
    a job was cut.
    """
    hidden = dh.shape[1]
    columns = (hidden + panel_width(panel) - 1) // panel_width(panel) * panel_width(panel)
    for own in range(lacks.size if each else 1):
        good = settle_powered(sums, own, inputs + 1, hidden, columns, open_powers, doubts)
        good &= settle(sums.loss[own], 1, 0.0, False, LEAST)
        good &= settle(sums.w3[own], outputs * columns, 0.0, doubts[own] > 0, LEAST)
        good &= settle(sums.b3[own], outputs, 0.0, False, LEAST)
        if not good:
            mark(lacks, own, each)


@bare
def predict(panel, readout, hs, team, steps, hidden, outputs, stride, state_powers, begin, found):
    """Predictions (steps, R, O) of states after each step, at their exponents."""
    width = panel_width(panel)
    offsets = integers(team)
    for r in range(team):
        offsets[r] = r * stride
    for s in range(steps):
        for r in range(team):
            factor = _down(state_powers, (s + 1) * team + r)
            for o in range(outputs):
                put(begin, r * outputs + o, readout.b3[o] * factor)
        at = (s + 1) * team * stride
        inner = (of_packed(hs, offsets, at, 1, readout.w3, 0, hidden, width),)
        affine(panel, team, outputs, begin, 0, outputs, inner, found, s * team * outputs, outputs)


@bare
def _load_step(array, view, s, rows, active, into, stride, hidden):
    """Rows of one step of an array of the job's type."""
    for r in range(active):
        at, to = rows[r] * view[1] + s * view[2], r * stride
        whole = hidden - hidden % 8 if view[3] == 1 else 0
        for v in range(0, whole, 8):
            store(into, to + v, load_double(array, at + v))
        for v in range(whole, hidden):
            put(into, to + v, np.float64(get(array, at + v * view[3])))


@part
def _least_of_row(deep, slopes, at, hidden):
    """The least dz of a row that counts: beside the largest, what a deep row lost is nothing."""
    return 1.0 if deep else smallest(slopes, at, hidden)


@bare
def widen(f, zs, hs, rows, team, hidden, stride, slopes, states, wide_stride, deep):
    """f'(z), and states, in float64, of rows of z in the job's type, and of a team more of h.

    Rows with some |z| above DEEP are marked as ``deep``; whether there are some, or states that
    are about to leave floats.
    """
    found = False
    for r in range(rows + team):
        for v in range(0, hidden, 8):
            h = load_double(hs, r * stride + v)
            own = first_lanes(h, hidden - v)
            store(states, r * wide_stride + v, where(own, h, 0.0))
            found = found or any_lane(own & ~(abs(h) < (HIGH_32 if hs.itemsize == 4 else HIGH_64)))
            if r < rows:
                z = load_double(zs, r * stride + v)
                _, slope = with_slope(f, z)
                store(slopes, r * wide_stride + v, where(own, slope, 0.0))
                # Where f is made of lines, f' is 0 or 1 at any z.
                far = own & (abs(z) > DEEP) & (abs(z) < np.inf)
                if not is_homogeneous(f) and any_lane(far):
                    deep[r], found = 1, True
    return found


@bare
def deepen(f, zs, rows, hidden, stride, slopes, slope_powers, wide_stride, deep):
    """Mantissas and exponents of f' of rows that are ``deep``."""
    for r in range(rows):
        if deep[r]:
            for v in range(0, hidden, 8):
                slope, power = slope_scaled(f, load_double(zs, r * stride + v))
                own = first_lanes(slope, hidden - v)
                store(slopes, r * wide_stride + v, where(own, slope, 0.0))
                store(slope_powers, r * wide_stride + v, where(own, power, 0.0))


@written_out
def _times_slopes(lines, g, ups, at, joined, factor, slopes, slopes_at, hidden):
    """dz = (g + factor ups) f' of a row, over its f'.

    Whether digits are lost; whether some g is so small that they may have been lost before;
    whether the largest dz is far from 1; and whether any is not 0.
    """
    n = lanes_of(g)
    zero = like(load(g, at), 0.0)
    one = like(zero, 1.0)
    tops = nothing = lost = doubtful = zero
    for v in range(0, hidden, n):
        carried, slope = load(g, at + v), load(slopes, slopes_at + v)
        total = carried
        small = where(abs(carried) < LEAST, one, zero)
        doubtful = doubtful + where(first_lanes(carried, hidden - v), small, zero)
        if joined:
            up = load(ups, at + v)
            total = fma(up, like(up, factor), carried)
            small = where(abs(up * like(up, factor)) < LEAST, one, zero)
            small = where(abs(total) < LEAST, small, zero)
            if lines:
                small = where(slope != 0.0, small, zero)
            lost = lost + where(up != 0.0, small, zero)
        dz = total * slope
        store(slopes, slopes_at + v, dz)
        # Of a 0 nothing can be lost; a derivative of 0 is one only where f is made of lines.
        enough = where(abs(dz) >= LEAST, where(slope >= LEAST, one, zero), zero)
        enough = where(total != 0.0, enough, one)
        if lines:
            enough = where(slope != 0.0, enough, one)
        lost = lost + (one - enough)
        tops, nothing = maximum(tops, abs(dz)), nothing + 0.0 * dz
    lost = where(nothing == 0.0, lost, one)
    far = any_lane(tops > DRIFT) or not any_lane(tops >= 1.0 / DRIFT)
    return any_lane(lost > 0.0), any_lane(doubtful > 0.0), far, any_lane(tops > 0.0)


@bare
def _times_deep_slopes(
    g, ups, at, joined, factor, slopes, slope_powers, mantissas, own, hidden, powers, r
):  # fmt: skip
    """As `_times_slopes`, of a row whose derivatives have exponents, and dz too.

    In floats of one exponent, which goes to ``powers``, what is nothing beside the largest is 0.
    """
    zero = like(load(g, at), 0.0)
    tops, nothing, doubtful = zero + NO_POWER, zero, zero != zero
    for v in range(0, hidden, lanes_of(g)):
        total = load(g, at + v)
        doubtful = doubtful | ((abs(total) < LEAST) & first_lanes(total, hidden - v))
        if joined:
            up = load(ups, at + v)
            total = fma(up, like(up, factor), total)
        dz, shift = normalise_vector(total * load(slopes, own + v))
        power = shift + load(slope_powers, own + v)
        some = (dz != 0.0) & first_lanes(dz, hidden - v)
        dz, nothing = where(some, dz, 0.0), nothing + 0.0 * dz
        tops = maximum(tops, where(some, power, NO_POWER))
        store(mantissas, own + v, dz)
        store(slope_powers, own + v, power)
    top = NO_POWER
    for i in range(lanes_of(g)):
        top = max(top, lane(tops, i))
    some = top > NO_POWER
    top = top if some else 0.0
    for v in range(0, hidden, lanes_of(g)):
        power = load(slope_powers, own + v) - top
        store(slope_powers, own + v, power)
        dz = load(mantissas, own + v)
        store(slopes, own + v, where(power > -1000.0, shifted(dz, power), 0.0))
    powers[r] += top
    lost = any_lane(nothing != 0.0) or abs(powers[r]) > MOST_POWER
    return lost, any_lane(doubtful), False, some


@bare
def _bring_near_one(array, at, hidden, largest, powers, r):
    """A row times a power of two, which goes to its exponent; whether no digit is lost."""
    if not np.isfinite(largest):
        return False
    _, shift = normalise(largest)
    powers[r] += shift
    return scale_row(array, at, hidden, -shift)


@bare
def _join(g, ups, at, hidden, powers, r, up_power):
    """Where ups is above g, bring g to the exponent of its largest; whether no digit is lost."""
    largest = largest_of(ups, at, hidden)
    if largest == 0.0 or not np.isfinite(largest):
        return largest == 0.0
    _, shift = normalise(largest)
    fall = powers[r] - (up_power + shift)
    own = largest_of(g, at, hidden)
    if own > 0.0 and fall > 0.0:
        return True
    powers[r] = up_power + shift
    if own == 0.0:
        return True
    down = math.ldexp(1.0, int(max(fall, -2000.0)))
    up_down = math.ldexp(1.0, -int(shift))
    good = True
    for v in range(at, at + hidden, lanes_of(g)):
        before = load(g, v)
        after = before * like(before, down)
        store(g, v, after)
        beside = abs(load(ups, v) * like(before, up_down))
        some = where(before != 0.0, maximum(abs(after), beside), 1.0)
        good = good and not any_lane(some < LEAST)
    return good


@written_out
def _find_errors(
    panel, back, leasts, along, hidden, stride, target, y, s, rows, active, each, outputs, sums,
    outside, room,
):  # fmt: skip
    """Errors of one step's predictions, and ups = W3^T errors, at the exponent of the states."""
    state_powers, predictions = along.state_powers, along.predictions
    errors, error_at, ups = room.errors, s * rows.size * outputs, room.ups
    first = (s + 1) * rows.size
    for r in range(active):
        own, factor = r if each else 0, _down(state_powers, first + r)
        for o in range(outputs):
            e = error_at + r * outputs + o
            # In the net's own type, as its predictions are: one that is met is an error of 0.
            truth = get(target, rows[r] * y[1] + s * y[2] + o * y[3])
            if factor != 1.0:
                put(predictions, e, get(predictions, e) - truth * factor)
            else:
                put(predictions, e, get(predictions, e) - truth)
            error = np.float64(get(predictions, e))
            put(errors, e, error)
            if not outside[r] and error != 0.0:
                outside[r] |= not abs(error) >= LOW_DZ
                _add_half(sums, own, error * error, state_powers, first + r)
                if factor == 1.0:
                    sums.b3[own, TERMS, o] += error
                    sums.b3[own, SIZES, o] += abs(error)
                else:
                    add_number(sums.b3[own], o, error, state_powers[first + r])
    clear_between(errors, error_at + active * outputs, error_at + rows.size * outputs)
    inner = (
        of_packed(errors, room.error_offsets, error_at, 1, back.w3, 0, outputs, panel_width(panel)),
    )
    affine(panel, active, hidden, room.zeros, 0, 0, inner, ups, 0, stride)
    for r in range(active):
        if not outside[r] and any_below(ups, r * stride, hidden, LEAST):
            terms = smallest(errors, error_at + r * outputs, outputs) * leasts[W3]
            outside[r] |= terms < LEAST


@part
def _down(powers, at):
    """2**-power of states; 1 where they have none."""
    power = powers[at] if powers.size > 1 else 0.0
    return math.ldexp(1.0, int(max(-power, -2000.0)))


@part
def _add_half(sums, own, squares, powers, at):
    if powers.size > 1 and powers[at] != 0.0:
        add_number(sums.loss[own], 0, 0.5 * squares, 2.0 * powers[at])
        return
    sums.loss[own, TERMS, 0] += 0.5 * squares
    sums.loss[own, SIZES, 0] += 0.5 * squares


@written_out
def _subtract_targets(
    hs, at, ups, active, hidden, stride, each, sums, outside, state_powers, first
):  # fmt: skip
    """Errors h - y over the targets, at the exponent of the states."""
    n = lanes_of(hs)
    for r in range(active):
        small, factor = False, _down(state_powers, first + r)
        for v in range(0, hidden, n):
            i = r * stride + v
            h, y = load(hs, at + i), load(ups, i)
            error = h - (y if factor == 1.0 else y * like(y, factor))
            error = where(first_lanes(error, hidden - v), error, 0.0)
            store(ups, i, error)
            # Beside large states, a state of 0 is one whose derivative is 0.
            own = (error != 0.0) & (abs(error) < LOW_DZ)
            small = small or any_lane(own if factor > LOW_STATE else own & (h != 0.0))
        if not outside[r]:
            outside[r] |= small
            squares = like(load_double(ups, r * stride), 0.0)
            # Behind the row are zeros.
            for i in range(r * stride, r * stride + hidden, 8):
                error = load_double(ups, i)
                squares = fma(error, error, squares)
            _add_half(sums, r if each else 0, ordered_sum(squares), state_powers, first + r)


@written_out
def _measure_states(
    lines, low, hs, xs, errors, s, length, r, count, hidden, stride, line, outputs, each, of_powers,
    outside,
):  # fmt: skip
    """Absolute states, inputs and errors of a sequence's chunk; what they may cost in digits."""
    states, inputs, misses = of_powers.states, of_powers.inputs, of_powers.misses
    small = infinite = False
    for q in range(length + 1):
        for v in range(0, hidden, lanes_of(hs)):
            h = load(hs, ((s + q) * count + r) * stride + v)
            store(states, (q * count + r) * stride + v, abs(h))
            small = small or any_lane(where(h != 0.0, abs(h), 1.0) < low)
            infinite = infinite or any_lane(0.0 * h != 0.0)
    for q in range(length):
        for i in range(line):
            x = get(xs, ((s + q) * count + r) * line + i)
            put(inputs, (q * count + r) * line + i, abs(x))
            small = small or (x != 0.0 and abs(x) < LOW_STATE)
            infinite = infinite or not np.isfinite(x)
        for o in range(outputs):
            error = get(errors, ((s + q) * count + r) * outputs + o)
            put(misses, (q * count + r) * outputs + o, abs(error))
    if small:
        of_powers.doubts[r if each else 0] = 1
    # What f passes on as it is may have been too small to be a float.
    outside[r] |= infinite or (small and lines)
    if outside[r]:
        for q in range(length + 1):
            at = (s + q) * count + r
            clear_between(hs, at * stride, (at + 1) * stride)
            clear_between(states, (q * count + r) * stride, (q * count + r + 1) * stride)
        for q in range(length):
            at, to = (s + q) * count + r, q * count + r
            clear_between(xs, at * line, (at + 1) * line)
            clear_between(inputs, to * line, (to + 1) * line)
            clear_between(errors, at * outputs, (at + 1) * outputs)
            clear_between(misses, to * outputs, (to + 1) * outputs)


@written_out
def _add_chunk(
    panel, inputs, outputs, hidden, columns, s, length, own, count, each, stride, hs, slopes, xs,
    sums, room, along, of_powers,
):  # fmt: skip
    """Add the products of some samples, of one sequence or of all, to what is not yet settled."""
    units, tile, dz, states = room.units, room.tile, of_powers.dz, of_powers.states
    powers, open_powers, doubts = of_powers.powers, of_powers.open_powers, of_powers.doubts
    first, last = (own, own + 1) if each else (0, count)
    every = count if each else 1
    samples, step, line = length * (last - first), every * stride, inputs + 1
    power = NO_POWER
    for q in range(s, s + length):
        for r in range(first, last):
            power = max(power, powers[q * count + r])
    powered, apart = _has_powers(along, s, length, first, last, count, powers)
    if (powered or apart) and power > NO_POWER:
        add_by_component(
            panel, inputs, hidden, columns, s, length, own, count, each, stride, hs, slopes, xs,
            sums, room, along, of_powers,
        )  # fmt: skip
    elif power > NO_POWER:
        if abs(power - open_powers[own]) > HEADROOM:
            if not settle_powered(sums, own, line, hidden, columns, open_powers, doubts):
                mark(of_powers.lacks, own, each)
            open_powers[own] = power
        for q in range(length):
            for r in range(first, last):
                at, to = ((s + q) * count + r) * stride, (q * count + r) * stride
                if _take_sizes(
                    slopes, at, hidden, powers[(s + q) * count + r] - open_powers[own], dz, to
                ):
                    doubts[own] = 1
        for array, array_at, other, other_at, x, x_at, row in (
            (slopes, s * count, hs, s * count, xs, s * count, TERMS),
            (dz, 0, states, 0, of_powers.inputs, 0, SIZES),
        ):
            add_outer(
                panel, line, hidden, x, units, (x_at + first) * line, every * line, array,
                (array_at + first) * stride, step, samples, tile, sums.w1[own, row],
            )  # fmt: skip
            add_outer(
                panel, hidden, hidden, array, units, (array_at + first) * stride, step, other,
                (other_at + first) * stride, step, samples, tile, sums.w2[own, row],
            )  # fmt: skip
    if outputs > 0 and powered:
        add_outputs_by_component(
            panel, outputs, hidden, columns, s, length, own, count, each, stride, hs, sums, room,
            along, of_powers,
        )  # fmt: skip
    elif outputs > 0:
        for array, at, other, other_at, row in (
            (room.errors, s * count, hs, (s + 1) * count, TERMS),
            (of_powers.misses, 0, states, count, SIZES),
        ):
            add_outer(
                panel, outputs, hidden, array, units, (at + first) * outputs, every * outputs,
                other, (other_at + first) * stride, step, samples, tile, sums.w3[own, row],
            )  # fmt: skip


@part
def _has_powers(along, s, length, first, last, count, powers):
    """Whether states of a chunk have exponents, and whether those of dz are far apart."""
    powered = False
    least, most = -NO_POWER, NO_POWER
    for r in range(first, last):
        for q in range(s, s + length):
            power = powers[q * count + r]
            if power > NO_POWER:
                least, most = min(least, power), max(most, power)
                if along.deep[q * count + r]:
                    least = NO_POWER
        if along.state_powers.size > 1:
            for q in range(s, s + length + 1):
                powered = powered or along.state_powers[q * count + r] > 0.0
    return powered, most - least > REACH


@bare
def _take_sizes(dz, at, hidden, distance, into, to):
    """A row of dz to the exponent that is so far below its own; whether some are small there."""
    factor = math.ldexp(1.0, int(max(distance, -2000.0)))
    small = False
    for v in range(0, hidden, lanes_of(dz)):
        before = load(dz, at + v)
        after = before * like(before, factor)
        store(dz, at + v, after)
        store(into, to + v, abs(after))
        small = small or any_lane(where(before != 0.0, abs(after), 1.0) < LOW_DZ)
    return small
