"""States of a scalar neuron of any magnitude, where f does not squash them.

Arrays and blocks of lanes are those of ``neuron``; blocks of steps are those of
``neuron_powers``.
"""

from fastrnn.kernels.blocks import (
    doubles,
    extremes,
    gather_block,
    gather_weights,
    integers,
    lane_offsets,
    numbers,
    remaining_steps,
    sequence,
    touch,
)
from fastrnn.kernels.jit import bare, kernel
from fastrnn.kernels.memory import lanes_of, load, load_double, numbers_at, store
from fastrnn.kernels.neuron_floats import STATE_ROWS
from fastrnn.kernels.neuron_powers import (
    LEFT,
    POWER_ROWS,
    advance_with_powers,
    exponent_after,
    exponent_at,
    split,
)
from fastrnn.kernels.powers import normalise_vector
from fastrnn.kernels.rates import RATE_ROWS, STEPS, forget_rates
from fastrnn.kernels.simd import where
from fastrnn.kernels.tiles import find_layouts, load_rows, place, rows_for, store_row, store_rows
from fastrnn.kernels.turns import finish, take


@kernel
def forward(
    f, w1, w2, b, x, h0, h0_powers, lengths, lanes, vectors, turns, most, tile, keep, mantissas,
    exponents, last, last_powers, outside,
):  # fmt: skip
    """States h * 2**e, views (K, B, T), where ``keep``; and the last one, arrays (K, B, 1).

    Lanes that are beyond this kernel get a 1 in ``outside`` (K, B).
    """
    inputs, outputs = numbers_at(x[0], h0), numbers_at(mantissas[0], h0)
    power_outputs = numbers_at(exponents[0], last_powers)
    block = vectors * lanes_of(h0)
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, x_layouts = integers(block), integers(vectors)
    offsets, layouts, power_layouts = integers(block), integers(vectors), integers(block)
    weights, remaining, rooms = (
        numbers(h0, 3 * block), numbers(h0, block), numbers(h0, POWER_ROWS * block),
    )  # fmt: skip
    hs, hes = numbers(h0, STATE_ROWS * block), numbers(h0, STATE_ROWS * block)
    slopes, powers = numbers(h0, tile * block), doubles(block)
    touch(hes)
    rates = numbers(h0, RATE_ROWS * block)
    forget_rates(rates, block)
    rows, es, tile_offsets = numbers(h0, tile * block), doubles(tile * block), sequence(block)
    for _ in range(most):
        start = block * take(turns)
        if start >= lanes.size:
            break
        count = min(block, lanes.size - start)
        width = gather_block(lanes, start, count, h0, lengths, nets, sequences, ends)
        gather_weights(w1, w2, b, nets, width, weights)
        lane_offsets(nets, sequences, width, 0, x[1], x_offsets)
        find_layouts(h0, x_offsets, x[2], width, x_layouts)
        lane_offsets(nets, sequences, width, mantissas[1], mantissas[2], offsets)
        find_layouts(h0, offsets, mantissas[3], width, layouts)
        find_layouts(last_powers, offsets, mantissas[3], width, power_layouts)
        for lane in range(width):
            hes[lane] = remaining[lane] = 0.0
            hs[lane] = h0[nets[lane], sequences[lane], 0]
            powers[lane] = h0_powers[nets[lane], sequences[lane], 0]
        _split_row(hs, hes, powers, remaining, 0, 0, width, block)
        least, longest = extremes(ends, width)
        for t in range(0, longest, tile):
            tile_steps = min(tile, longest - t)
            xs = load_rows(
                inputs, x_layouts, x_offsets, x[2], t, tile_steps, width, 1, rows, tile_offsets
            )
            out = rows_for(outputs, layouts, offsets, mantissas[3], t, width, rows, tile_offsets)
            power_out = rows_for(
                power_outputs, power_layouts, offsets, exponents[3], t, width, es, tile_offsets
            )
            ragged = t + tile_steps > least
            remaining_steps(ends, width, t, tile_steps, remaining)
            for row in range(0, tile_steps, STEPS):
                steps = min(STEPS, tile_steps - row)
                advance_with_powers(
                    f, weights, xs, remaining, ragged, row, steps, width,
                    powers, 0, hs, 0, slopes, hes, rates, rooms,
                )  # fmt: skip
                for lane in range(width):
                    if rooms[LEFT * block + lane] > 0.0:
                        outside[nets[lane], sequences[lane]] = 1
                if keep:
                    _store_states(hs, hes, powers, remaining, row, steps, width, out, power_out)
                _split_row(hs, hes, powers, remaining, row, steps, width, block)
            if keep:
                store_rows(rows, outputs, layouts, offsets, mantissas[3], t, tile_steps, width, 1)
                store_rows(
                    es, power_outputs, power_layouts, offsets, exponents[3], t, tile_steps, width, 1
                )
        for lane in range(width):
            last[nets[lane], sequences[lane], 0] = hs[lane]
            last_powers[nets[lane], sequences[lane], 0] = powers[lane]
        finish(turns)


@bare
def _split_row(hs, hes, powers, remaining, row, steps, width, block):
    """States after a block to the first row, in the form in which a block begins."""
    for v in range(0, width, 8):
        power = load(powers, v) + exponent_after(hes, 0, remaining, row, steps, block, v)
        h, power = split(load_double(hs, steps * block + v), power, hs)
        store(hs, v, h)
        store(powers, v, power)


@bare
def _store_states(hs, hes, powers, remaining, row, steps, width, out, power_out):
    """States of a block; 0 past a sequence's end."""
    block = hes.size // STATE_ROWS
    for v in range(0, width, 8):
        h_place, e_place = place(out, v), place(power_out, v)
        running_steps, power = load_double(remaining, v), load(powers, v)
        for s in range(steps):
            h, shift = normalise_vector(load_double(hs, (s + 1) * block + v))
            e = power + exponent_at(hes, 0, s + 1, block, v) + shift
            h = where(running_steps > float(row + s), h, 0.0)
            # Zeros of scaled results are positive.
            store_row(out, h_place, row + s, where(h != 0.0, h, 0.0))
            store_row(power_out, e_place, row + s, where(h != 0.0, e, 0.0))
