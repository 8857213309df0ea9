"""The scalar neuron back through time: one gradient, right at any magnitude.

Arrays and blocks of lanes are those of ``neuron``. What is pulled back is a float64 number with an
exponent beside it, and so are the states where f does not squash them, and all sums over time
(``scaled_sums``): no range of floats is left on the way.

Time goes in blocks of STEPS steps, from the last to the first. A block is computed in plain
floats (``neuron_floats``), brought near 1 by exact powers of two, and judged by what it found:
where digits may have been lost, the same steps are walked with an exponent each
(``neuron_powers``), and each lane takes what is right for itself. Its bits do not depend on the
lanes beside it, nor on how a job was cut: blocks are at fixed steps.

Only the state before every tile is kept: a tile, of whole blocks, is computed again and walked
back.

Where pre-activations are infinite, or upstream gradients below LEAST, lanes are marked as
``outside`` and their results are void: see ``exact``.
"""

import numpy as np

from fastrnn.kernels.activations import with_slope
from fastrnn.kernels.blocks import (
    clear,
    copy,
    doubles,
    extremes,
    gather_block,
    gather_weights,
    integers,
    lane_offsets,
    numbers,
    numbers_beside,
    remaining_steps,
    sequence,
    touch,
)
from fastrnn.kernels.jit import apart, bare, bare_part, kernel
from fastrnn.kernels.memory import (
    lanes_of,
    load,
    load_double,
    numbers_at,
    store,
)
from fastrnn.kernels.neuron import find_starts, pre_activation
from fastrnn.kernels.neuron_floats import (
    BAD,
    BASE,
    CARRIED_ROWS,
    CONSTANTS,
    DH,
    FADE,
    FADES,
    FAILED,
    FOUND,
    GROWING,
    IN_REACH,
    KEPT_64,
    NOT_TRIED,
    OUTSIDE,
    PLAIN_B3,
    PLAIN_SUMS,
    PLAIN_W1,
    PLAIN_W2,
    PLAIN_W3,
    POWER,
    REST,
    SLOPE_POWER,
    STATE_POWER,
    STATE_ROWS,
    TRIED,
    W1,
    W2,
    W3,
    failed,
    kept,
    kept_below,
    retreat,
)
from fastrnn.kernels.neuron_near import find_rates, prepare, rate_of_block
from fastrnn.kernels.neuron_powers import (
    LEFT,
    POWER_ROWS,
    advance_with_powers,
    exponent_after,
    find_z,
    settled,
    split,
    walk,
)
from fastrnn.kernels.neuron_slopes import scale_slopes
from fastrnn.kernels.neuron_sums import (
    SUMS,
    clear_sums,
    close_segment,
    copy_sums,
    take_plain_sums,
    take_sums,
)
from fastrnn.kernels.powers import float_of, normalise, normalise_vector
from fastrnn.kernels.rates import (
    FADING,
    RATE_ROWS,
    STEPS,
    TABLE_ROWS,
    forget_rates,
    own_steps,
    set_rates,
)
from fastrnn.kernels.scaled_sums import (
    SUM,
)
from fastrnn.kernels.simd import any_lane, copysign, like, minimum, where
from fastrnn.kernels.tiles import (
    find_layouts,
    load_row,
    load_tile,
    place,
    store_row,
    store_tile,
    tile_rows,
)
from fastrnn.kernels.turns import finish, take

# Steps whose sums are added up before they meet those of other segments; after them, all lanes are
# tried in floats again. No power of two: a cache would have the same few places for the rows of
# all the chunks of a long sequence.
SEGMENT = 2112
# Blocks of a lane that failed are walked so many times before floats are tried again.
PATIENCE = 8.0
# What becomes of the gradient of x.
NO_DX, PLAIN_DX, SCALED_DX = 0, 1, 2


@kernel
def backward(
    f, w1, w2, b, w3, b3, x, h0, h0_powers, lengths, lanes, vectors, turns, most, tile, fused,
    upstream, dh, powers, rests, sums, want_sums, want_w3, mantissas, exponents, want_dx, scale,
    outside,
):  # fmt: skip
    """Pull a gradient of the states back to the weights, to x and to h_0.

    States begin with h0 * 2**h0_powers, which are None where f squashes them. ``upstream``, a view
    (K, B, T), is the gradient, and dh * 2**(powers + rests), arrays (K, B, 1), a further one of the
    last state, which becomes that of h_0. Where ``fused``, upstream is the target y instead, and
    what is differentiated is half the sum of the squares of w3 h_t + b3 - y_t. It and the gradients
    of the weights are added to ``sums`` (6, K, B, 4), in the order of SUMS, unless not
    ``want_sums``; that of w3 only where ``want_w3``. The gradient of x, times ``scale``, goes into
    the view ``mantissas``, and ``exponents`` where it is not to be plain floats. Lanes outside get
    a 1 in ``outside`` (K, B).
    """
    inputs, targets, outputs = (
        numbers_at(x[0], h0), numbers_at(upstream[0], h0), numbers_at(mantissas[0], h0),
    )  # fmt: skip
    power_outputs = numbers_at(exponents[0], dh)
    n = lanes_of(h0)
    block = vectors * n
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, x_layouts = integers(block), integers(vectors)
    up_offsets, up_layouts = integers(block), integers(vectors)
    offsets, layouts, power_layouts = integers(block), integers(vectors), integers(block)
    weights, readout, remaining = (
        numbers(h0, 3 * block), numbers(h0, 2 * block), numbers(h0, block),
    )  # fmt: skip
    x_tile, rows, es, tile_offsets = (
        numbers(h0, tile * block), numbers(h0, tile * block),
        doubles(tile * block if want_dx == SCALED_DX else 8), sequence(block),
    )  # fmt: skip
    tiles = max(1, (extremes(lengths, lengths.size)[1] + tile - 1) // tile)
    starts = numbers(h0, tiles * block)
    blocks = (tile + STEPS - 1) // STEPS
    hs, slopes, dzs = (
        numbers(h0, blocks * STATE_ROWS * block), numbers(h0, tile * block),
        numbers(h0, STEPS * block),
    )  # fmt: skip
    hes, start_powers, powers_of_blocks = (
        numbers_beside(h0_powers, h0, blocks * STATE_ROWS * block),
        numbers_beside(h0_powers, dh, tiles * block),
        numbers_beside(h0_powers, dh, blocks * block),
    )  # fmt: skip
    rates, fades = numbers_beside(h0_powers, h0, RATE_ROWS * block), numbers(h0, TABLE_ROWS * block)
    forget_rates(fades, block)
    if h0_powers is not None:
        clear(start_powers)
        touch(hes)
        forget_rates(rates, block)
    rooms, found = numbers(h0, POWER_ROWS * block), numbers(h0, FOUND * block)
    zs, ks, walked, totals = (
        numbers(h0, STEPS * n),
        numbers(h0, STEPS * 16),
        doubles(2 * STEPS * 8),
        doubles(SUM * len(SUMS) * block),
    )
    constants, carried = (
        doubles(CONSTANTS * block),
        doubles((CARRIED_ROWS + SUM * len(SUMS)) * block),
    )
    # A gradient without errors at each step may fade by more than floats hold, in a whole block.
    piece = STEPS if fused or h0_powers is not None else STEPS // 2
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
        for at in range(PLAIN_SUMS * block):
            carried[at] = 0.0
        if want_sums:
            copy_sums(sums, nets, sequences, width, h0.shape[0], h0.shape[1], totals, False)
        for lane in range(width):
            k, i = nets[lane], sequences[lane]
            _set_constants(constants, W1, lane, w1[k, 0, 0])
            _set_constants(constants, W2, lane, w2[k, 0, 0])
            _set_constants(constants, W3, lane, w3[k, 0, 0])
            constants[PLAIN_W1 * block + lane] = w1[k, 0, 0]
            constants[PLAIN_W2 * block + lane] = w2[k, 0, 0]
            constants[PLAIN_W3 * block + lane] = w3[k, 0, 0]
            constants[PLAIN_B3 * block + lane] = b3[k, 0]
            readout[lane], readout[block + lane] = w3[k, 0, 0], b3[k, 0]
            starts[lane] = h0[k, i, 0]
            if h0_powers is not None:
                start_powers[lane] = h0_powers[k, i, 0]
            carried[DH * block + lane], carried[TRIED * block + lane] = dh[k, i, 0], 1.0
            carried[POWER * block + lane] = powers[k, i, 0]
            carried[REST * block + lane] = rests[k, i, 0]
        least, longest = extremes(ends, width)
        if h0_powers is not None:
            for v in range(0, width, 8):
                h, power = split(load_double(starts, v), load(start_powers, v), starts)
                store(starts, v, h)
                store(start_powers, v, power)
            for t in range(0, longest - tile, tile):
                xs = load_tile(
                    inputs, x_layouts, x_offsets, x[2], t, tile, width, 1, x_tile, tile_offsets
                )
                remaining_steps(ends, width, t, tile, remaining)
                copy(starts, t // tile * block, hs, 0, width)
                copy(start_powers, t // tile * block, powers_of_blocks, 0, width)
                _replay_with_powers(
                    f, weights, xs, remaining, t + tile > least, tile, width, powers_of_blocks, hs,
                    slopes, hes, rates, rooms, carried, starts, start_powers,
                    (t // tile + 1) * block,
                )  # fmt: skip
        else:
            find_starts(
                f, weights, inputs, x_layouts, x_offsets, x[2], ends, least, longest, tile, width,
                remaining, x_tile, tile_offsets, starts, hs,
            )  # fmt: skip
        clear_sums(carried, block)
        for v in range(0, width, 8):
            own = settled(*_load_carried(carried, block, v), fused, h0)
            _store_carried(carried, block, v, *own)
        for t in range((longest - 1) // tile * tile, -1, -tile):
            tile_steps = min(tile, longest - t)
            xs = load_tile(
                inputs, x_layouts, x_offsets, x[2], t, tile_steps, width, 1, x_tile, tile_offsets
            )
            ups = load_tile(
                targets, up_layouts, up_offsets, upstream[3], t, tile_steps, width, -1, rows,
                tile_offsets,
            )  # fmt: skip
            # Gradients of the states that lie in a tile are replaced by those of x.
            out = tile_rows(rows, tile_offsets, width)
            power_out = tile_rows(es, tile_offsets, width)
            ragged = t + tile_steps > least
            remaining_steps(ends, width, t, tile_steps, remaining)
            copy(starts, t // tile * block, hs, 0, width)
            if h0_powers is not None:
                copy(start_powers, t // tile * block, powers_of_blocks, 0, width)
                _replay_with_powers(
                    f, weights, xs, remaining, ragged, tile_steps, width, powers_of_blocks, hs,
                    slopes, hes, rates, rooms, carried, starts, start_powers, -1,
                )  # fmt: skip
            else:
                _replay(f, weights, xs, remaining, ragged, tile_steps, width, hs, slopes)
            for row in range((tile_steps - 1) // STEPS * STEPS, -1, -STEPS):
                steps, h_row = min(STEPS, tile_steps - row), row // STEPS * STATE_ROWS
                if h0_powers is not None:
                    copy(
                        powers_of_blocks, row // STEPS * block, carried, STATE_POWER * block, width
                    )
                for s in range((steps - 1) // piece * piece, -1, -piece):
                    patience = PATIENCE if (t + row + s) % SEGMENT else 0.0
                    _retreat(
                        f, weights, constants, readout, xs, hs, h_row + s, hes, slopes, zs, ks, ups,
                        remaining, ragged, fused, row + s, min(piece, steps - s), width, carried,
                        found, rates, fades, dzs, walked, want_sums, want_w3, want_dx, scale, out,
                        power_out, patience,
                    )  # fmt: skip
                if want_sums and (t + row) % SEGMENT == 0:
                    close_segment(carried, totals, width, block)
            if want_dx != NO_DX:
                store_tile(rows, outputs, layouts, offsets, mantissas[3], t, tile_steps, width, -1)
            if want_dx == SCALED_DX:
                store_tile(
                    es, power_outputs, power_layouts, offsets, exponents[3], t, tile_steps, width,
                    -1,
                )  # fmt: skip
        for lane in range(width):
            k, i = nets[lane], sequences[lane]
            dh[k, i, 0], powers[k, i, 0] = carried[lane], carried[POWER * block + lane]
            rests[k, i, 0] = carried[REST * block + lane]
            if carried[OUTSIDE * block + lane] > 0.0:
                outside[k, i] = 1
        if want_sums:
            copy_sums(sums, nets, sequences, width, h0.shape[0], h0.shape[1], totals, True)
        finish(turns)


@bare_part
def _set_constants(constants, row, lane, weight):
    block = constants.size // CONSTANTS
    constants[row * block + lane], constants[(row + 1) * block + lane] = normalise(float(weight))


@bare
def _replay(f, weights, xs, remaining, ragged, steps, width, hs, slopes):
    """States of a tile from that in the first row of hs, in blocks of rows, and f'; 0 past the end.

    A block begins with the state that the one before ended with.
    """
    block = weights.size // 3
    for row in range(0, steps, STEPS):
        first = row // STEPS * STATE_ROWS * block
        count = min(STEPS, steps - row)
        for s in range(count):
            for v in range(0, width, lanes_of(hs)):
                at = first + s * block + v
                h = load(hs, at)
                z = pre_activation(weights, v, load_row(xs, place(xs, v), row + s), h)
                after, slope = with_slope(f, z)
                if ragged:
                    running = load(remaining, v) > float(row + s)
                    after, slope = where(running, after, h), where(running, slope, 0.0)
                store(hs, at + block, after)
                store(slopes, (row + s) * block + v, slope)
        if row + count < steps:
            copy(hs, first + count * block, hs, first + STATE_ROWS * block, width)


@bare
def _replay_with_powers(
    f, weights, xs, remaining, ragged, steps, width, powers, hs, slopes, hes, rates, rooms,
    carried, starts, start_powers, start,
):  # fmt: skip
    """The same of states of any magnitude; the last one to ``starts``, unless ``start`` is below 0.

    ``powers`` become those of all blocks.
    """
    apart()
    block = weights.size // 3
    for row in range(0, steps, STEPS):
        h_row, at = row // STEPS * STATE_ROWS, row // STEPS * block
        count = min(STEPS, steps - row)
        advance_with_powers(
            f, weights, xs, remaining, ragged, row, count, width, powers, at, hs, h_row,
            slopes, hes, rates, rooms,
        )  # fmt: skip
        is_last = row + count == steps
        for v in range(0, width, 8):
            left, before = load_double(rooms, LEFT * block + v), load(carried, OUTSIDE * block + v)
            store(carried, OUTSIDE * block + v, where(left > 0.0, left, before))
            if is_last and start < 0:
                continue
            last = (h_row + count) * block + v
            power = load(powers, at + v)
            power = power + exponent_after(hes, h_row, remaining, row, count, block, v)
            h, power = split(load_double(hs, last), power, hs)
            if is_last:
                store(starts, start + v, h)
                store(start_powers, start + v, power)
            else:
                store(hs, last + block, h)
                store(powers, at + block + v, power)


@bare_part
def _load_carried(carried, block, v):
    return (
        load(carried, DH * block + v), load(carried, POWER * block + v),
        load(carried, REST * block + v),
    )  # fmt: skip


@bare_part
def _store_carried(carried, block, v, dh, power, rest):
    store(carried, DH * block + v, dh)
    store(carried, POWER * block + v, power)
    store(carried, REST * block + v, rest)


@bare
def _retreat(
    f, weights, constants, readout, xs, hs, h_row, hes, slopes, zs, ks, ups, remaining, ragged,
    fused, row, steps, width, carried, found, rates, fades, dzs, walked, want_sums,
    want_w3, want_dx, scale, out, power_out, patience,
):  # fmt: skip
    """Walk back over a block of steps: in floats, and where those did not suffice, once more.

    Before that, slopes of an f that saturates are brought near 1 and tried in floats too.
    """
    apart()
    n, block = lanes_of(hs), found.size // FOUND
    for v in range(0, width, n):
        attempts = 2
        if hes is not None:
            find_rates(
                f, weights, hes, h_row, remaining, fused, row, steps, v, carried, found, rates
            )
            attempts = 1
        else:
            for u in range(v, v + n, 8):
                zero = like(load(carried, u), 0.0)
                store(carried, SLOPE_POWER * block + u, zero)
                store(carried, FADE * block + u, zero)
                store(carried, FAILED * block + u, zero)
        again = False
        for attempt in range(attempts):
            if attempt == 1:
                scale_slopes(
                    f, constants, slopes, row, steps, v, zs, ks, remaining, fused, PATIENCE,
                    carried, found, walked,
                )  # fmt: skip
            prepare(
                constants, readout, xs, hs, h_row, ups, remaining, fused, row, steps, v, carried,
                found, rates,
            )  # fmt: skip
            if hes is not None:
                for u in range(v, v + n, 8):
                    # States with an exponent at each step are none of floats.
                    each = load_double(hes, h_row * block + u) < 0.0
                    usable = load_double(found, IN_REACH * block + u)
                    store(found, IN_REACH * block + u, where(each, 0.0, usable))
            failed_lanes = ~(load(found, IN_REACH * block + v) > 0.0)
            if any_lane(~failed_lanes):
                if not fused:
                    own_v = own_steps(load(remaining, v), row, steps)
                    set_rates(fades, FADING, block, v, load(found, FADES * block + v), own_v, False)
                retreat(
                    f, weights, readout, xs, hs, h_row, slopes, ups, remaining, ragged, fused, row,
                    steps, v, found, rates, fades, dzs, want_sums,
                )  # fmt: skip
                failed_lanes = failed(
                    f, found, xs, hs, h_row, remaining, row, steps, v, dzs, fused, want_sums,
                    want_w3,
                )  # fmt: skip
            again = any_lane(failed_lanes)
            if not again:
                break
            store(found, BAD * block + v, where(failed_lanes, like(load(hs, v), 1.0), 0.0))
            if hes is None and attempt == 0:
                find_z(weights, xs, hs, h_row, row, steps, v, zs)
                for u in range(v, v + n, 8):
                    store(carried, FAILED * block + u, load_double(found, BAD * block + u))
        for u in range(v, v + n, 8):
            base, dh = load(carried, BASE * block + u), load(carried, DH * block + u)
            bad, rate = dh != dh, rate_of_block(carried, found, hes is not None, u)
            own, growth = own_steps(load_double(remaining, u), row, steps), like(base, 0.0)
            if hes is not None:
                growth = load_double(found, GROWING * block + u)
            slope_power = load(carried, SLOPE_POWER * block + u)
            if again:
                bad = load_double(found, BAD * block + u) > 0.0
                walk(
                    f, constants, xs, hs, h_row, hes, slopes, zs, ups,
                    remaining, fused, row, steps, u, u - v, carried, walked,
                    want_sums,
                    want_w3, bad,
                )  # fmt: skip
            failed_before = bad
            if hes is None:
                failed_before = load(carried, FAILED * block + u) > 0.0
            if any_lane(failed_before):
                _wait(carried, block, u, failed_before, bad, hes is None, patience)
            plain = load(carried, PLAIN_SUMS * block + u) > 0.0
            if again and not any_lane(~bad):
                # All is there, and some sums may have exponents.
                store(carried, PLAIN_SUMS * block + u, where(bad, like(base, 0.0), 0.0))
            else:
                ordinary = (base == 0.0) & (rate == 0.0) & (slope_power == 0.0) & plain
                if hes is not None:
                    ordinary = ordinary & (load(carried, STATE_POWER * block + u) == 0.0)
                if again or any_lane(~ordinary):
                    take_sums(
                        carried, found, block, u, bad, base + slope_power, growth, own, fused,
                        want_sums, want_w3,
                    )  # fmt: skip
                else:
                    take_plain_sums(carried, found, block, u, fused, want_sums, want_w3)
                _take_carried(
                    constants, remaining, fused, row, dzs, carried, block, u, bad, base,
                    rate * (own - 1.0) + slope_power, hs,
                )  # fmt: skip
            if want_dx != NO_DX:
                _store_dx(
                    constants, remaining, dzs, walked, bad, again, base + slope_power, rate, own,
                    block, u, row, steps, want_dx, scale, hs, out, power_out,
                )  # fmt: skip


@bare_part
def _wait(carried, block, v, failed_before, bad, twice, patience):
    """Let lanes that failed wait some blocks before floats are tried again."""
    left = load(carried, NOT_TRIED * block + v)
    after = where(left > 0.0, left - 1.0, like(left, patience))
    if twice:
        # Those that failed with slopes near 1 too wait for that before.
        after = where(bad & (left <= patience), 2.0 * patience, after)
    left = minimum(where(failed_before, after, 0.0), 2.0 * patience)
    store(carried, NOT_TRIED * block + v, left)
    store(carried, TRIED * block + v, where(left > 0.0, 0.0, like(left, 1.0)))


@bare_part
def _take_carried(
    constants, remaining, fused, row, dzs, carried, block, v, bad, base, change, hs
):  # fmt: skip
    """The gradient of the state before a block, of the lanes that are good.

    Its exponent is the block's, and by how much that changed.
    """
    dh, power, rest = _load_carried(carried, block, v)
    w2, w2_power = load(constants, W2 * block + v), load(constants, (W2 + 1) * block + v)
    same = base == power + rest
    dz, taken = load_double(dzs, v), (load_double(remaining, v) > float(row)) & ~bad
    # Most numbers are as they are to be.
    near = load(constants, PLAIN_W2 * block + v) * dz
    size = abs(near)
    ordinary = (size > 2.0 ** -kept_below(hs, fused)) & (size < 2.0 ** kept(hs))
    ordinary = ordinary & (base == 0.0) & (change == 0.0) & taken
    if not any_lane(~ordinary):
        _store_carried(carried, block, v, near, base, base)
        return
    power_after = where(same, power, base)
    rest_after = where(same, rest, 0.0) + (w2_power + change)
    after = settled(w2 * dz, power_after, rest_after, fused, hs)
    _store_carried(
        carried, block, v, where(taken, after[0], dh), where(taken, after[1], power),
        where(taken, after[2], rest),
    )  # fmt: skip


@bare_part
def _store_dx(
    constants, remaining, dzs, walked, bad, again, base, rate, own, block, v, row, steps, want_dx,
    scale, hs, out, power_out,
):  # fmt: skip
    w1, w1_power = load(constants, W1 * block + v), load(constants, (W1 + 1) * block + v)
    m_place, e_place = place(out, v), place(power_out, v)
    running_steps = load_double(remaining, v)
    # A product with a w1 near the ends of the range may leave it where dx does not.
    ordinary = want_dx == PLAIN_DX and not again
    if ordinary:
        uneven = (base != 0.0) | (rate != 0.0) | (abs(w1_power) > KEPT_64)
        ordinary = not any_lane(uneven)
    if ordinary:
        w1 = load(constants, PLAIN_W1 * block + v)
    # The first number that the states' type rounds to 2.
    top = 2.0 - 0.5 * float(np.finfo(hs.dtype).eps)
    for s in range(steps):
        dz, power = load_double(dzs, s * block + v), base + rate * (own - float(s + 1))
        running = running_steps > float(row + s)
        if ordinary:
            store_row(out, m_place, row + s, where(running, (w1 * dz) * scale, 0.0))
            continue
        if again:
            dz = where(bad, load(walked, 2 * 8 * s), dz)
            power = where(bad, load(walked, 2 * 8 * s + 8), power)
        dx, power = (w1 * dz) * scale, power + w1_power
        if want_dx == PLAIN_DX:
            store_row(out, m_place, row + s, where(running, float_of(dx, power), 0.0))
            continue
        dx, shift = normalise_vector(dx)
        # What would be rounded to 2 is 1, and twice as much.
        up_one = abs(dx) >= top
        dx = where(up_one, copysign(like(dx, 1.0), dx), dx)
        power = power + where(up_one, shift + 1.0, shift)
        # Zeros of scaled results are positive.
        store_row(out, m_place, row + s, where(dx != 0.0, dx, 0.0))
        store_row(power_out, e_place, row + s, where(dx != 0.0, power, 0.0))
