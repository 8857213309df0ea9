"""The scalar neuron, H = 1: h_t = f(w1 x_t + w2 h_{t-1} + b), forward and back through time.

Sizes: K nets of a bank, B sequences, T steps. One lane is one net over one sequence, lane
k B + i of net k and sequence i; a call works on ``lanes[first:last]``, some vectors of them at
a time.

    f         activation                        lanes   order of the lanes
    x         (B, T): a view, see below         h0      (K, B, 1)
    lengths   (B,): steps of each sequence      tile    steps recomputed at a time

Arrays of any layout come as views: the address of the first number, then the strides of their
axes in numbers. One compiled kernel serves them all.

Every z is fma(w2, h, fma(w1, x, b)). Sums over time go from the last step to the first: in the
arrays' own type over STEPS of them, then in float64 over SEGMENT, then over segments. All
three cuts are at fixed steps, so that no bit depends on how a job was cut.

Backward passes keep the state at the start of every tile, recompute a tile and walk it
backwards: no trajectory is written.
"""

import math

import numpy as np

from fastrnn.kernels.activations import activate, slope_scaled, with_slope
from fastrnn.kernels.blocks import (
    clear,
    copy,
    doubles,
    gather_block,
    gather_weights,
    integers,
    lane_offsets,
    longest,
    numbers,
    remaining_steps,
)
from fastrnn.kernels.jit import kernel, part
from fastrnn.kernels.memory import lanes_of, load, load_double, numbers_at, store
from fastrnn.kernels.simd import exponent, fma, like, mantissa, where
from fastrnn.kernels.tiles import load_tile, store_tile

# Steps of a tile of inputs: two of them and the states fit into the first cache.
STEPS = 32
# Vectors a block advances side by side; they hide each other's latency.
VECTORS = 8
# Steps whose sums are added up before they meet those of other segments.
SEGMENT = 2048


@kernel
def forward(f, w1, w2, b, x, h0, lengths, lanes, first, last, keep, states, last_states):
    """States, a view (K, B, T), where ``keep``, and always the last state (K, B, 1)."""
    inputs, outputs = numbers_at(x[0], h0), numbers_at(states[0], h0)
    block = VECTORS * lanes_of(h0)
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, state_offsets = integers(block), integers(block)
    weights, remaining, h = numbers(h0, 3 * block), numbers(h0, block), numbers(h0, block)
    xs, hs = numbers(h0, STEPS * block), numbers(h0, (STEPS + 1) * block)
    for start in range(first, last, block):
        count = min(block, last - start)
        width = gather_block(lanes, start, count, h0, lengths, nets, sequences, ends)
        gather_weights(w1, w2, b, nets, width, weights)
        lane_offsets(nets, sequences, width, 0, x[1], x_offsets)
        lane_offsets(nets, sequences, width, states[1], states[2], state_offsets)
        for lane in range(width):
            h[lane] = h0[nets[lane], sequences[lane], 0]
        most = longest(ends, width)
        for t in range(0, most, STEPS):
            steps = min(STEPS, most - t)
            load_tile(inputs, x_offsets, x[2], t, steps, xs, 0, width)
            ragged = remaining_steps(ends, width, t, steps, remaining)
            copy(h, 0, hs, 0, width)
            _advance(f, weights, xs, remaining, ragged, 0, steps, width, hs)
            copy(hs, steps * width, h, 0, width)
            if keep:
                if ragged:
                    _silence(hs, remaining, steps, width)
                step_stride = states[3]
                store_tile(hs, width, width, count, steps, outputs, state_offsets, step_stride, t)
        for lane in range(count):
            last_states[nets[lane], sequences[lane], 0] = h[lane]


@kernel
def backward(
    f, w1, w2, b, w3, b3, x, h0, lengths, lanes, first, last, tile, fused, upstream, dlast,
    loss, dw1, dw2, db, dw3, db3, dx, dh0, want_dx,
):  # fmt: skip
    """Pull a gradient of the states back to the weights (K, B), h0 (K, B, 1), x.

    ``upstream``, a view (K, B, T), is that gradient, ``dlast`` (K, B, 1) a further one for the last
    state. Where ``fused`` it is the target y instead, and what is differentiated is half the
    sum of the squares of w3 h_t + b3 - y_t, left in ``loss`` (K, B).
    """
    inputs, targets, gradients = (
        numbers_at(x[0], h0), numbers_at(upstream[0], h0), numbers_at(dx[0], h0),
    )  # fmt: skip
    n = lanes_of(h0)
    block = VECTORS * n
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, up_offsets, dx_offsets = integers(block), integers(block), integers(block)
    weights, readout = numbers(h0, 3 * block), numbers(h0, 2 * block)
    remaining, h, dh = numbers(h0, block), numbers(h0, block), numbers(h0, block)
    xs, ups = numbers(h0, tile * block), numbers(h0, STEPS * block)
    dxs, partial = numbers(h0, STEPS * block), numbers(h0, SUMS * block)
    hs, slopes = numbers(h0, (tile + 1) * block), numbers(h0, tile * block)
    segment, total = doubles(SUMS * block), doubles(SUMS * block)
    starts = numbers(h0, ((longest(lengths, lengths.size) + tile - 1) // tile) * block)
    for start in range(first, last, block):
        count = min(block, last - start)
        width = gather_block(lanes, start, count, h0, lengths, nets, sequences, ends)
        gather_weights(w1, w2, b, nets, width, weights)
        for lane in range(width):
            readout[lane], readout[block + lane] = w3[nets[lane], 0, 0], b3[nets[lane], 0]
            h[lane] = h0[nets[lane], sequences[lane], 0]
            dh[lane] = dlast[nets[lane], sequences[lane], 0]
        lane_offsets(nets, sequences, width, 0, x[1], x_offsets)
        lane_offsets(nets, sequences, width, upstream[1], upstream[2], up_offsets)
        lane_offsets(nets, sequences, width, dx[1], dx[2], dx_offsets)
        most = longest(ends, width)
        clear(segment)
        clear(total)
        tiles = (most + tile - 1) // tile
        for j in range(tiles - 1):
            copy(h, 0, starts, j * block, width)
            _run_tile(
                f, weights, inputs, x_offsets, x[2], ends, j * tile, tile, width, xs, hs,
                remaining, h,
            )  # fmt: skip
        if tiles > 0:
            copy(h, 0, starts, (tiles - 1) * block, width)
        for j in range(tiles - 1, -1, -1):
            begin, stop = j * tile, min(j * tile + tile, most)
            copy(starts, j * block, hs, 0, width)
            for t in range(begin, stop, STEPS):
                steps, row = min(STEPS, stop - t), t - begin
                load_tile(inputs, x_offsets, x[2], t, steps, xs, row * width, width)
                ragged = remaining_steps(ends, width, t, steps, remaining)
                _advance_with_slopes(
                    f, weights, xs, remaining, ragged, row, steps, width, hs, slopes
                )
            for t in range(begin + (stop - 1 - begin) // STEPS * STEPS, begin - 1, -STEPS):
                steps, row = min(STEPS, stop - t), t - begin
                load_tile(targets, up_offsets, upstream[3], t, steps, ups, 0, width)
                ragged = remaining_steps(ends, width, t, steps, remaining)
                _retreat(
                    weights, readout, xs, hs, slopes, ups, remaining, ragged, fused, row, steps,
                    width, dh, dxs, want_dx, partial,
                )  # fmt: skip
                _add_partial(partial, width, block, segment)
                if t % SEGMENT == 0:
                    for slot in range(total.size):
                        total[slot] += segment[slot]
                    clear(segment)
                if want_dx:
                    step_stride = dx[3]
                    store_tile(dxs, 0, width, count, steps, gradients, dx_offsets, step_stride, t)
        for lane in range(count):
            k, i = nets[lane], sequences[lane]
            dw1[k, i], dw2[k, i], db[k, i] = (
                total[lane],
                total[block + lane],
                total[2 * block + lane],
            )
            dw3[k, i], db3[k, i] = total[3 * block + lane], total[4 * block + lane]
            loss[k, i] = 0.5 * total[5 * block + lane]
            dh0[k, i, 0] = dh[lane]


@kernel
def influence(
    f, w1, w2, b, x, h0, lengths, lanes, first, last, tile, seed,
    mantissas, exponents, mantissas0, exponents0,
):  # fmt: skip
    """seed h_T differentiated by x (K, B, T) and h_0 (K, B, 1), as mantissa * 2**exponent."""
    inputs, outputs = numbers_at(x[0], h0), numbers_at(mantissas[0], h0)
    powers = numbers_at(exponents[0], seed)
    n = lanes_of(h0)
    block = VECTORS * n
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, offsets = integers(block), integers(block)
    weights, remaining, h = numbers(h0, 3 * block), numbers(h0, block), numbers(h0, block)
    xs, hs, zs = (
        numbers(h0, tile * block),
        numbers(h0, (tile + 1) * block),
        numbers(h0, tile * block),
    )
    starts = numbers(h0, ((longest(lengths, lengths.size) + tile - 1) // tile) * block)
    # Rows: mantissa and exponent of w1 and of w2, then of dh, and what the exponent lost.
    scaled = doubles(7 * block)
    ms, es = numbers(h0, STEPS * block), doubles(STEPS * block)
    for start in range(first, last, block):
        count = min(block, last - start)
        width = gather_block(lanes, start, count, h0, lengths, nets, sequences, ends)
        gather_weights(w1, w2, b, nets, width, weights)
        for lane in range(width):
            h[lane] = h0[nets[lane], sequences[lane], 0]
            scaled[lane], scaled[block + lane] = normalise(np.float64(weights[lane]))
            scaled[2 * block + lane], scaled[3 * block + lane] = normalise(
                np.float64(weights[block + lane])
            )
            scaled[4 * block + lane], scaled[5 * block + lane] = normalise(seed[nets[lane], 0])
            scaled[6 * block + lane] = 0.0
        lane_offsets(nets, sequences, width, 0, x[1], x_offsets)
        lane_offsets(nets, sequences, width, mantissas[1], mantissas[2], offsets)
        most = longest(ends, width)
        tiles = (most + tile - 1) // tile
        for j in range(tiles):
            copy(h, 0, starts, j * block, width)
            steps = min(tile, most - j * tile)
            _run_tile(
                f, weights, inputs, x_offsets, x[2], ends, j * tile, steps, width, xs, hs,
                remaining, h,
            )  # fmt: skip
        for j in range(tiles - 1, -1, -1):
            begin, stop = j * tile, min(j * tile + tile, most)
            copy(starts, j * block, h, 0, width)
            _run_tile(
                f, weights, inputs, x_offsets, x[2], ends, begin, stop - begin, width, xs,
                hs, remaining, h,
            )  # fmt: skip
            _pre_activations(weights, xs, hs, stop - begin, width, zs)
            for t in range(begin + (stop - 1 - begin) // STEPS * STEPS, begin - 1, -STEPS):
                steps = min(STEPS, stop - t)
                remaining_steps(ends, width, t, steps, remaining)
                _retreat_scaled(f, zs, remaining, t - begin, steps, width, block, scaled, ms, es)
                store_tile(ms, 0, width, count, steps, outputs, offsets, mantissas[3], t)
                store_tile(es, 0, width, count, steps, powers, offsets, mantissas[3], t)
        for lane in range(count):
            k, i = nets[lane], sequences[lane]
            mantissas0[k, i, 0] = scaled[4 * block + lane]
            exponents0[k, i, 0] = scaled[5 * block + lane] + scaled[6 * block + lane]


# --- steps of a block: the math ---


@part
def _pre_activation(weights, xs, offset, v, h):
    block = VECTORS * lanes_of(xs)
    inside = fma(load(weights, v), load(xs, offset + v), load(weights, 2 * block + v))
    return fma(load(weights, block + v), h, inside)


@kernel
def _advance(f, weights, xs, remaining, ragged, row, steps, width, hs):
    """States of ``steps`` steps from that in row ``row`` of hs, each in the row after."""
    for s in range(steps):
        at = (row + s) * width
        for v in range(0, width, lanes_of(hs)):
            h = load(hs, at + v)
            after = activate(f, _pre_activation(weights, xs, at, v, h))
            if ragged:
                after = where(load(remaining, v) > float(s), after, h)
            store(hs, at + width + v, after)


@kernel
def _advance_with_slopes(f, weights, xs, remaining, ragged, row, steps, width, hs, slopes):
    """The same, and f' of every step; 0 past the end of a sequence."""
    for s in range(steps):
        at = (row + s) * width
        for v in range(0, width, lanes_of(hs)):
            h = load(hs, at + v)
            after, slope = with_slope(f, _pre_activation(weights, xs, at, v, h))
            if ragged:
                running = load(remaining, v) > float(s)
                after, slope = where(running, after, h), where(running, slope, 0.0)
            store(hs, at + width + v, after)
            store(slopes, at + v, slope)


@kernel
def _retreat(
    weights, readout, xs, hs, slopes, ups, remaining, ragged, fused, row, steps, width, dh, dxs,
    want_dx, partial,
):  # fmt: skip
    """Walk back over ``steps`` steps: dh, dx, and the sums of w1, w2, b, w3, b3 and the loss."""
    n = lanes_of(hs)
    block = VECTORS * n
    for v in range(0, width, n):
        w1, w2 = load(weights, v), load(weights, block + v)
        w3, b3 = load(readout, v), load(readout, block + v)
        dh_v = load(dh, v)
        sum_w1 = sum_w2 = sum_b = sum_w3 = sum_b3 = sum_loss = like(w1, 0.0)
        for s in range(steps - 1, -1, -1):
            at = (row + s) * width + v
            up = load(ups, s * width + v)
            if fused:
                h = load(hs, at + width)
                error = (w3 * h + b3) - up
                if ragged:
                    error = where(load(remaining, v) > float(s), error, 0.0)
                sum_loss = fma(error, error, sum_loss)
                sum_w3 = fma(error, h, sum_w3)
                sum_b3 = sum_b3 + error
                dh_v = fma(w3, error, dh_v)
            elif ragged:
                dh_v = dh_v + where(load(remaining, v) > float(s), up, 0.0)
            else:
                dh_v = dh_v + up
            dz = dh_v * load(slopes, at)
            # An exact 0 adds nothing, and not 0 * inf where an input or a state is infinite.
            some = dz != 0.0
            sum_w1 = where(some, fma(dz, load(xs, at), sum_w1), sum_w1)
            sum_w2 = where(some, fma(dz, load(hs, at), sum_w2), sum_w2)
            sum_b = sum_b + dz
            if want_dx:
                store(dxs, s * width + v, w1 * dz)
            if ragged:
                dh_v = where(load(remaining, v) > float(s), w2 * dz, dh_v)
            else:
                dh_v = w2 * dz
        store(dh, v, dh_v)
        store(partial, v, sum_w1)
        store(partial, block + v, sum_w2)
        store(partial, 2 * block + v, sum_b)
        store(partial, 3 * block + v, sum_w3)
        store(partial, 4 * block + v, sum_b3)
        store(partial, 5 * block + v, sum_loss)


@kernel
def _add_partial(partial, width, block, segment):
    """Add the sums of some steps to those of the segment, in float64."""
    for row in range(SUMS):
        for v in range(row * block, row * block + width, 8):
            store(segment, v, load(segment, v) + load_double(partial, v))


@kernel
def _retreat_scaled(f, zs, remaining, row, steps, width, block, scaled, ms, es):
    """Walk back over ``steps`` steps in float64: d/dx into ms, es, and dh in ``scaled``."""
    for v in range(0, width, 8):
        w1, w1_power = load(scaled, v), load(scaled, block + v)
        w2, w2_power = load(scaled, 2 * block + v), load(scaled, 3 * block + v)
        dh, power = load(scaled, 4 * block + v), load(scaled, 5 * block + v)
        rest = load(scaled, 6 * block + v)
        running_steps = load_double(remaining, v)
        for s in range(steps - 1, -1, -1):
            running = running_steps > float(s)
            slope, slope_power = slope_scaled(f, load_double(zs, (row + s) * width + v))
            new_power, new_rest = add_exactly(power, rest, slope_power)
            dz, shift = _normalise(dh * slope)
            new_power, new_rest = add_exactly(new_power, new_rest, shift)
            dx, shift = _normalise(w1 * dz)
            store(ms, s * width + v, where(running, dx, 0.0))
            store(es, s * width + v, new_power + (new_rest + (w1_power + shift)))
            after, shift = _normalise(w2 * dz)
            new_power, new_rest = add_exactly(new_power, new_rest, w2_power + shift)
            dh = where(running, after, dh)
            power, rest = where(running, new_power, power), where(running, new_rest, rest)
        store(scaled, 4 * block + v, dh)
        store(scaled, 5 * block + v, power)
        store(scaled, 6 * block + v, rest)


@part
def _normalise(v):
    """v = m * 2**e with |m| in [1, 2), or v and 0 of zero, inf and NaN."""
    usual = where(abs(v) < np.inf, abs(v), 0.0) > 0.0
    return where(usual, mantissa(v), v), where(usual, exponent(v), 0.0)


@part
def add_exactly(total, rest, term):
    """(total, rest) + term, with what rounding takes from the sum kept in the rest (Knuth).

    Exponents past 2**53, from |z| = 1e15 on, would else lose T/2 units instead of one.
    """
    result = total + term
    back = result - total
    error = (total - (result - back)) + (term - back)
    return result, where(abs(result) < np.inf, rest + error, 0.0)


# Sums over time: of w1, w2, b, w3, b3 and the squared errors.
SUMS = 6


@kernel
def _run_tile(f, weights, x, x_offsets, x_stride, ends, begin, length, width, xs, hs, remaining, h):
    """Inputs and states of ``length`` steps from ``begin`` on, from state h, which is advanced."""
    copy(h, 0, hs, 0, width)
    for row in range(0, length, STEPS):
        steps = min(STEPS, length - row)
        load_tile(x, x_offsets, x_stride, begin + row, steps, xs, row * width, width)
        ragged = remaining_steps(ends, width, begin + row, steps, remaining)
        _advance(f, weights, xs, remaining, ragged, row, steps, width, hs)
    copy(hs, length * width, h, 0, width)


@kernel
def _pre_activations(weights, xs, hs, steps, width, zs):
    for s in range(steps):
        for v in range(0, width, lanes_of(hs)):
            z = _pre_activation(weights, xs, s * width, v, load(hs, s * width + v))
            store(zs, s * width + v, z)


@kernel
def _silence(hs, remaining, steps, width):
    """0 for the states past a sequence's length."""
    for s in range(steps):
        for v in range(0, width, lanes_of(hs)):
            at = (s + 1) * width + v
            store(hs, at, where(load(remaining, v) > float(s), load(hs, at), 0.0))


@part
def normalise(value):
    """``value`` as mantissa * 2**exponent, the mantissa's absolute value in [1, 2), or 0."""
    if value == 0.0 or not np.isfinite(value):
        return value, 0.0
    fraction, shift = math.frexp(value)
    return 2.0 * fraction, float(shift - 1)
