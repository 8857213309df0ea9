"""How perturbations of a scalar neuron grow from step to step, with nothing stored but sums.

The factor of a step is w2 f'(z), a mantissa with an exponent beside it, from a z in float64 along
the states that `neuron.forward` computes. Lanes, blocks, views and slices of time are those of
``neuron.py``.
"""

import math

import numpy as np

from fastrnn.kernels.activations import activate, slope_scaled
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
from fastrnn.kernels.jit import kernel, part
from fastrnn.kernels.memory import lanes_of, load, load_double, numbers_at, store
from fastrnn.kernels.neuron import find_starts, pre_activation
from fastrnn.kernels.powers import add_exactly, normalise, normalise_vector, shifted
from fastrnn.kernels.simd import any_lane, fma, like, where
from fastrnn.kernels.tiles import find_layouts, load_row, load_row_double, load_rows, place
from fastrnn.kernels.turns import finish, take

LN_2 = math.log(2.0)
# Steps in which a product of mantissas stays within the range of floats.
FREE_STEPS = 32
# Rows of what a block carries: product, its exponent in two parts, steps left of the window.
PRODUCT, POWER, REST, DUE, GROWING = 0, 1, 2, 3, 4
# Rows of `horizon`, of which the last four replace that of the window: slope of the newest step and
# its exponent, 1 where a lane has begun, 1 where its horizon is found, the horizon.
NEWEST, NEWEST_POWER, BEGUN, FOUND, LAG, WALKING = 3, 4, 5, 6, 7, 8


@kernel
def growth(
    f, w1, w2, b, x, h0, lengths, lanes, vectors, turns, most, tile, first, windows, open_windows,
    sums, last_states,
):  # fmt: skip
    """Sums of log|w2 f'(z_t)| over windows of ``windows`` (B,) steps, into ``sums`` (K, B, W).

    The window that the last step leaves open stays in ``open_windows`` (3, K, B): a mantissa and
    its exponent in two parts. ``first`` is the number of the first step. `neuron.forward` tells
    the rest.
    """
    inputs = numbers_at(x[0], h0)
    block = vectors * lanes_of(h0)
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, x_layouts, indices = integers(block), integers(vectors), integers(block)
    weights, remaining = numbers(h0, 3 * block), numbers(h0, block)
    hs, rows, tile_offsets = (
        numbers(h0, (tile + 1) * block), numbers(h0, tile * block), sequence(block),
    )  # fmt: skip
    factors, carried = doubles(2 * block), doubles(GROWING * block)
    for _ in range(most):
        start = block * take(turns)
        if start >= lanes.size:
            break
        count = min(block, lanes.size - start)
        width = gather_block(lanes, start, count, h0, lengths, nets, sequences, ends)
        gather_weights(w1, w2, b, nets, width, weights)
        _gather_factors(w2, nets, width, factors)
        lane_offsets(nets, sequences, width, 0, x[1], x_offsets)
        find_layouts(h0, x_offsets, x[2], width, x_layouts)
        for lane in range(width):
            k, i = nets[lane], sequences[lane]
            hs[lane] = h0[k, i, 0]
            for row in range(DUE):
                carried[row * block + lane] = open_windows[row, k, i]
            indices[lane] = first // windows[i]
            carried[DUE * block + lane] = windows[i] - first % windows[i]
        least, longest = extremes(ends, width)
        for t in range(0, longest, tile):
            steps = min(tile, longest - t)
            xs = load_rows(
                inputs, x_layouts, x_offsets, x[2], t, steps, width, 1, rows, tile_offsets
            )
            ragged = t + steps > least
            remaining_steps(ends, width, t, steps, remaining)
            _advance(f, weights, xs, remaining, ragged, steps, width, hs)
            _multiply(
                f, weights, factors, xs, hs, remaining, steps, width, carried, indices, nets,
                sequences, windows, sums,
            )  # fmt: skip
            copy(hs, steps * width, hs, 0, width)
        for lane in range(width):
            k, i = nets[lane], sequences[lane]
            last_states[k, i, 0] = hs[lane]
            for row in range(DUE):
                open_windows[row, k, i] = carried[row * block + lane]
        finish(turns)


@kernel
def horizon(
    f, w1, w2, b, x, h0, lengths, lanes, vectors, turns, most, tile, first, totals, threshold,
    walked,
):  # fmt: skip
    """Walk back to the first lag at which an input counts less than ``threshold`` of the newest.

    ``walked`` (8, K, B) is carried from slice to slice, see the rows above; ``totals`` (B,) are
    the lengths of the whole sequences.
    """
    inputs = numbers_at(x[0], h0)
    block = vectors * lanes_of(h0)
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, x_layouts = integers(block), integers(vectors)
    weights, remaining = numbers(h0, 3 * block), numbers(h0, block)
    hs, rows, tile_offsets = (
        numbers(h0, (tile + 1) * block), numbers(h0, tile * block), sequence(block),
    )  # fmt: skip
    tiles = max(1, (extremes(lengths, lengths.size)[1] + tile - 1) // tile)
    starts = numbers(h0, tiles * block)
    factors, carried, lags = doubles(2 * block), doubles(WALKING * block), doubles(block)
    for _ in range(most):
        start = block * take(turns)
        if start >= lanes.size:
            break
        count = min(block, lanes.size - start)
        width = gather_block(lanes, start, count, h0, lengths, nets, sequences, ends)
        gather_weights(w1, w2, b, nets, width, weights)
        _gather_factors(w2, nets, width, factors)
        lane_offsets(nets, sequences, width, 0, x[1], x_offsets)
        find_layouts(h0, x_offsets, x[2], width, x_layouts)
        for lane in range(width):
            k, i = nets[lane], sequences[lane]
            starts[lane] = h0[k, i, 0]
            for row in range(WALKING):
                carried[row * block + lane] = walked[row, k, i]
        least, longest = extremes(ends, width)
        find_starts(
            f, weights, inputs, x_layouts, x_offsets, x[2], ends, least, longest, tile, width,
            remaining, rows, tile_offsets, starts, hs,
        )  # fmt: skip
        pending = True
        for t in range((longest - 1) // tile * tile, -1, -tile):
            if not pending:
                break
            steps = min(tile, longest - t)
            xs = load_rows(
                inputs, x_layouts, x_offsets, x[2], t, steps, width, 1, rows, tile_offsets
            )
            ragged = t + steps > least
            remaining_steps(ends, width, t, steps, remaining)
            copy(starts, t // tile * block, hs, 0, width)
            _advance(f, weights, xs, remaining, ragged, steps, width, hs)
            for lane in range(width):
                lags[lane] = totals[sequences[lane]] - 1 - (first + t)
            pending = _walk_back(
                f, weights, factors, xs, hs, remaining, steps, width, threshold, lags, carried
            )
        for lane in range(width):
            for row in range(WALKING):
                walked[row, nets[lane], sequences[lane]] = carried[row * block + lane]
        finish(turns)


@part
def _gather_factors(w2, nets, width, factors):
    """w2 as mantissa and exponent."""
    block = factors.size // 2
    for lane in range(width):
        factors[lane], factors[block + lane] = normalise(np.float64(w2[nets[lane], 0, 0]))


@kernel
def _advance(f, weights, xs, remaining, ragged, steps, width, hs):
    """States from that in the first row of hs, each in the row after."""
    for s in range(steps):
        at = s * width
        for v in range(0, width, lanes_of(hs)):
            before = load(hs, at + v)
            after = activate(f, pre_activation(weights, v, load_row(xs, place(xs, v), s), before))
            if ragged:
                after = where(load(remaining, v) > float(s), after, before)
            store(hs, at + width + v, after)


@part
def _slope(f, w1, w2, b, xs, x_place, hs, s, at):
    """f'(z) as mantissa and exponent, of eight lanes in float64."""
    z = fma(w2, load_double(hs, at), fma(w1, load_row_double(xs, x_place, s), b))
    return slope_scaled(f, z)


@kernel
def _multiply(
    f, weights, factors, xs, hs, remaining, steps, width, carried, indices, nets, sequences,
    windows, sums,
):  # fmt: skip
    """Products of the steps' factors; windows that end go to the sums."""
    block = factors.size // 2
    for v in range(0, width, 8):
        w1, w2, b = (
            load_double(weights, v), load_double(weights, block + v),
            load_double(weights, 2 * block + v),
        )  # fmt: skip
        factor, factor_power = load(factors, v), load(factors, block + v)
        product, power = load(carried, v), load(carried, POWER * block + v)
        rest, due = load(carried, REST * block + v), load(carried, DUE * block + v)
        left, x_place = load_double(remaining, v), place(xs, v)
        for s in range(steps):
            mantissa, slope_power = _slope(f, w1, w2, b, xs, x_place, hs, s, s * width + v)
            running = left > float(s)
            product = product * where(running, factor * mantissa, 1.0)
            power, rest = add_exactly(power, rest, where(running, slope_power + factor_power, 0.0))
            due = due - where(running, like(due, 1.0), 0.0)
            ended = due < 0.5
            ends = any_lane(ended)
            if ends or s % FREE_STEPS == FREE_STEPS - 1:
                product, shift = normalise_vector(product)
                power, rest = add_exactly(power, rest, shift)
            if ends:
                store(carried, v, product)
                store(carried, POWER * block + v, power)
                store(carried, REST * block + v, rest)
                store(carried, DUE * block + v, due)
                for lane in range(v, v + 8):
                    if carried[DUE * block + lane] < 0.5:
                        k, i = nets[lane], sequences[lane]
                        sums[k, i, indices[lane]] = log_of(
                            carried[lane],
                            carried[POWER * block + lane] + carried[REST * block + lane],
                        )
                        carried[lane], indices[lane] = 1.0, indices[lane] + 1
                        carried[POWER * block + lane] = carried[REST * block + lane] = 0.0
                        carried[DUE * block + lane] = windows[i]
                product, power = load(carried, v), load(carried, POWER * block + v)
                rest, due = load(carried, REST * block + v), load(carried, DUE * block + v)
        product, shift = normalise_vector(product)
        power, rest = add_exactly(power, rest, shift)
        store(carried, v, product)
        store(carried, POWER * block + v, power)
        store(carried, REST * block + v, rest)
        store(carried, DUE * block + v, due)


@part
def log_of(mantissa, power):
    """log|mantissa * 2**power|; -inf of 0."""
    return math.log(abs(mantissa)) + LN_2 * power if mantissa != 0.0 else -np.inf


@kernel
def logs_of(mantissas, powers, logs):
    """The same of arrays (N,): NumPy's logarithms have other last bits."""
    for i in range(logs.size):
        logs[i] = log_of(mantissas[i], powers[i])


@kernel
def _walk_back(f, weights, factors, xs, hs, remaining, steps, width, threshold, lags, carried):
    """Look for the horizons from the last of some steps to the first; whether some are missing."""
    block = factors.size // 2
    pending = False
    for v in range(0, width, 8):
        w1, w2, b = (
            load_double(weights, v), load_double(weights, block + v),
            load_double(weights, 2 * block + v),
        )  # fmt: skip
        factor, factor_power = load(factors, v), load(factors, block + v)
        product, power = load(carried, v), load(carried, POWER * block + v)
        rest, newest = load(carried, REST * block + v), load(carried, NEWEST * block + v)
        newest_power, begun = (
            load(carried, NEWEST_POWER * block + v), load(carried, BEGUN * block + v),
        )  # fmt: skip
        found, lag = load(carried, FOUND * block + v), load(carried, LAG * block + v)
        left, x_place, lag_of_first = load_double(remaining, v), place(xs, v), load(lags, v)
        one = like(product, 1.0)
        for s in range(steps - 1, -1, -1):
            # Lanes that end before this tile have not begun, and are not found.
            if not any_lane(found < 0.5):
                break
            mantissa, slope_power = _slope(f, w1, w2, b, xs, x_place, hs, s, s * width + v)
            running = left > float(s)
            begins = where(running, begun, 1.0) < 0.5
            newest = where(begins, mantissa, newest)
            newest_power = where(begins, slope_power, newest_power)
            begun = where(running, one, begun)
            gap = ((power - newest_power) + rest) + slope_power
            below = shifted(abs(product * mantissa), gap) < threshold * newest
            below_now = where(below, where(running, 1.0 - found, 0.0), 0.0) > 0.5
            # Of a newest input that counts for nothing there is no memory at all.
            none = where(begins, abs(mantissa), 1.0) == 0.0
            lag = where(none, 0.0, where(below_now, lag_of_first - float(s), lag))
            found = where(none, 1.0, where(below_now, 1.0, found))
            product = product * where(running, factor * mantissa, 1.0)
            power, rest = add_exactly(power, rest, where(running, slope_power + factor_power, 0.0))
            if s % FREE_STEPS == 0:
                product, shift = normalise_vector(product)
                power, rest = add_exactly(power, rest, shift)
        store(carried, v, product)
        store(carried, POWER * block + v, power)
        store(carried, REST * block + v, rest)
        store(carried, NEWEST * block + v, newest)
        store(carried, NEWEST_POWER * block + v, newest_power)
        store(carried, BEGUN * block + v, begun)
        store(carried, FOUND * block + v, found)
        store(carried, LAG * block + v, lag)
        pending = pending or any_lane(found < 0.5)
    return pending
