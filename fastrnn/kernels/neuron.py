"""The scalar neuron, H = 1: h_t = f(w1 x_t + w2 h_{t-1} + b), forward and back through time.

Sizes: K nets of a bank, B sequences, T steps. One lane is one net over one sequence, lane
k B + i of net k and sequence i. Lanes go in blocks of ``vectors`` vectors; a call takes blocks,
at most ``most`` of them, from the counters ``turns`` that all calls of a job share.

    f         activation                        lanes    order of the lanes
    x         (B, T): a view, see below         h0       (K, B, 1): state before the first step
    lengths   (B,): steps of each sequence      tile     steps of a tile

Arrays of any layout come as views: the address of the first number, then the strides of their
axes in numbers. One compiled kernel serves them all.

A job may be cut in time: state, gradient and sums come in by the arrays they go out by.

Every z is fma(w2, h, fma(w1, x, b)). Sums over time go from the last step to the first: in the
arrays' own type over SUM_STEPS of them, then in float64 over SEGMENT, then over segments. All
three cuts are at fixed steps, so that no bit depends on how a job was cut.

Backward passes keep the state at the start of every tile, recompute a tile and walk it
backwards: no trajectory is written.
"""

from fastrnn.kernels.activations import activate, with_slope
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
    remaining_steps,
    sequence,
)
from fastrnn.kernels.jit import kernel, part
from fastrnn.kernels.memory import lanes_of, load, load_double, numbers_at, store
from fastrnn.kernels.simd import fma, like, where
from fastrnn.kernels.tiles import (
    SIDE_BY_SIDE,
    all_lie,
    find_layouts,
    in_rows,
    load_row,
    load_rows,
    place,
    rows_for,
    store_row,
    store_rows,
)
from fastrnn.kernels.turns import finish, take

# Steps whose sums are added up in the arrays' own type.
SUM_STEPS = 32
# Steps whose sums are added up before they meet those of other segments. No power of two: a
# cache would have the same few places for the rows of all the chunks of a long sequence.
SEGMENT = 2112
# What backward sums up: gradients, and the squared errors, half of which is the loss.
SUMS = ("w1", "w2", "b", "w3", "b3", "loss")


@kernel
def forward(
    f, w1, w2, b, x, h0, lengths, lanes, vectors, turns, most, tile, keep, states, last_states
):  # fmt: skip
    """States, a view (K, B, T), where ``keep``, and always the last state (K, B, 1)."""
    inputs, outputs = numbers_at(x[0], h0), numbers_at(states[0], h0)
    block = vectors * lanes_of(h0)
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, x_layouts = integers(block), integers(vectors)
    offsets, layouts = integers(block), integers(vectors)
    weights, remaining = numbers(h0, 3 * block), numbers(h0, block)
    h, rows, tile_offsets = numbers(h0, block), numbers(h0, tile * block), sequence(block)
    for _ in range(most):
        start = block * take(turns)
        if start >= lanes.size:
            break
        count = min(block, lanes.size - start)
        width = gather_block(lanes, start, count, h0, lengths, nets, sequences, ends)
        gather_weights(w1, w2, b, nets, width, weights)
        lane_offsets(nets, sequences, width, 0, x[1], x_offsets)
        find_layouts(h0, x_offsets, x[2], width, x_layouts)
        lane_offsets(nets, sequences, width, states[1], states[2], offsets)
        find_layouts(h0, offsets, states[3], width, layouts)
        for lane in range(width):
            h[lane] = h0[nets[lane], sequences[lane], 0]
        least, longest = extremes(ends, width)
        direct = in_rows(x_layouts, width // lanes_of(h0)) and (
            not keep or all_lie(layouts, width // lanes_of(h0), SIDE_BY_SIDE)
        )
        for t in range(0, longest, max(1, longest) if direct else tile):
            steps = longest if direct else min(tile, longest - t)
            xs = load_rows(
                inputs, x_layouts, x_offsets, x[2], t, steps, width, 1, rows, tile_offsets
            )
            out = rows_for(outputs, layouts, offsets, states[3], t, width, rows, tile_offsets)
            ragged = t + steps > least
            if ragged:
                remaining_steps(ends, width, t, steps, remaining)
            _advance(f, weights, xs, remaining, ragged, steps, width, h, keep, out)
            if keep:
                store_rows(rows, outputs, layouts, offsets, states[3], t, steps, width, 1)
        for lane in range(width):
            last_states[nets[lane], sequences[lane], 0] = h[lane]
        finish(turns)


@kernel
def backward(
    f, w1, w2, b, w3, b3, x, h0, lengths, lanes, vectors, turns, most, tile, fused, upstream, dh,
    sums, dx, want_dx,
):  # fmt: skip
    """Pull a gradient of the states back to the weights, to x and to h_0.

    ``upstream``, a view (K, B, T), is that gradient, and ``dh`` (K, B, 1) a further one of the last
    state, which becomes that of h_0. Where ``fused``, upstream is the target y instead, and what
    is differentiated is half the sum of the squares of w3 h_t + b3 - y_t. It and the gradients of
    the weights are added to ``sums`` (6, K, B), in the order of SUMS.
    """
    inputs, targets, gradients = (
        numbers_at(x[0], h0), numbers_at(upstream[0], h0), numbers_at(dx[0], h0),
    )  # fmt: skip
    block = vectors * lanes_of(h0)
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, x_layouts = integers(block), integers(vectors)
    up_offsets, up_layouts = integers(block), integers(vectors)
    dx_offsets, dx_layouts = integers(block), integers(vectors)
    weights, readout = numbers(h0, 3 * block), numbers(h0, 2 * block)
    remaining, dhs = numbers(h0, block), numbers(h0, block)
    hs, slopes = numbers(h0, (tile + 1) * block), numbers(h0, tile * block)
    x_tile, up_tile, tile_offsets = (
        numbers(h0, tile * block), numbers(h0, tile * block), sequence(block),
    )  # fmt: skip
    partial = numbers(h0, len(SUMS) * block)
    segment, total = doubles(len(SUMS) * block), doubles(len(SUMS) * block)
    tiles = max(1, (extremes(lengths, lengths.size)[1] + tile - 1) // tile)
    starts = numbers(h0, tiles * block)
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
        lane_offsets(nets, sequences, width, dx[1], dx[2], dx_offsets)
        find_layouts(h0, dx_offsets, dx[3], width, dx_layouts)
        for lane in range(width):
            k, i = nets[lane], sequences[lane]
            readout[lane], readout[block + lane] = w3[k, 0, 0], b3[k, 0]
            starts[lane], dhs[lane] = h0[k, i, 0], dh[k, i, 0]
            for slot in range(len(SUMS)):
                total[slot * block + lane] = sums[slot, k, i]
        clear(segment)
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
                targets, up_layouts, up_offsets, upstream[3], t, steps, width, -1, up_tile,
                tile_offsets,
            )  # fmt: skip
            # Gradients of the states that lie in a tile are replaced by those of x.
            out = rows_for(
                gradients, dx_layouts, dx_offsets, dx[3], t, width, up_tile, tile_offsets
            )
            ragged = t + steps > least
            if ragged:
                remaining_steps(ends, width, t, steps, remaining)
            copy(starts, t // tile * block, hs, 0, width)
            _advance_with_slopes(f, weights, xs, remaining, ragged, steps, width, hs, slopes)
            for row in range((steps - 1) // SUM_STEPS * SUM_STEPS, -1, -SUM_STEPS):
                _retreat(
                    weights, readout, xs, hs, slopes, ups, remaining, ragged, fused, row,
                    min(row + SUM_STEPS, steps), width, dhs, want_dx, out, partial,
                )  # fmt: skip
                _add_partial(partial, width, block, segment)
                if (t + row) % SEGMENT == 0:
                    for slot in range(total.size):
                        total[slot] += segment[slot]
                    clear(segment)
            if want_dx:
                store_rows(up_tile, gradients, dx_layouts, dx_offsets, dx[3], t, steps, width, -1)
        for lane in range(width):
            k, i = nets[lane], sequences[lane]
            for slot in range(len(SUMS)):
                sums[slot, k, i] = total[slot * block + lane]
            dh[k, i, 0] = dhs[lane]
        finish(turns)


@kernel
def find_starts(
    f, weights, inputs, layouts, offsets, stride, ends, least, longest, tile, width, remaining,
    rows, tile_offsets, starts, h,
):  # fmt: skip
    """The state before every tile, each in a row of ``starts``, from that before the first."""
    block = tile_offsets.size
    copy(starts, 0, h, 0, width)
    for t in range(0, longest - tile, tile):
        xs = load_rows(inputs, layouts, offsets, stride, t, tile, width, 1, rows, tile_offsets)
        ragged = t + tile > least
        if ragged:
            remaining_steps(ends, width, t, tile, remaining)
        _advance(f, weights, xs, remaining, ragged, tile, width, h, False, xs)
        copy(h, 0, starts, (t // tile + 1) * block, width)


# --- steps of a block: the math ---


@part
def pre_activation(weights, v, x, h):
    block = weights.size // 3
    return fma(load(weights, block + v), h, fma(load(weights, v), x, load(weights, 2 * block + v)))


@kernel
def _advance(f, weights, xs, remaining, ragged, steps, width, h, keep, out):
    """The state h after some steps, and all of them in rows, which may be those of the inputs.

    Rows are read and written where the caller has them, while numbers are crunched: by way of
    tiles, side-by-side lanes took twice as long.
    """
    for s in range(steps):
        for v in range(0, width, lanes_of(h)):
            before = load(h, v)
            after = activate(f, pre_activation(weights, v, load_row(xs, place(xs, v), s), before))
            state = after
            if ragged:
                running = load(remaining, v) > float(s)
                after, state = where(running, after, before), where(running, after, 0.0)
            store(h, v, after)
            if keep:
                store_row(out, place(out, v), s, state)


@kernel
def _advance_with_slopes(f, weights, xs, remaining, ragged, steps, width, hs, slopes):
    """States from that in the first row of hs, each in the row after, and f'; 0 past the end."""
    for s in range(steps):
        at = s * width
        for v in range(0, width, lanes_of(hs)):
            h = load(hs, at + v)
            z = pre_activation(weights, v, load_row(xs, place(xs, v), s), h)
            after, slope = with_slope(f, z)
            if ragged:
                running = load(remaining, v) > float(s)
                after, slope = where(running, after, h), where(running, slope, 0.0)
            store(hs, at + width + v, after)
            store(slopes, at + v, slope)


@kernel
def _retreat(
    weights, readout, xs, hs, slopes, ups, remaining, ragged, fused, first, stop, width, dh,
    want_dx, out, partial,
):  # fmt: skip
    """Walk back over some steps: dh, rows of dx, sums of w1, w2, b, w3, b3, squares."""
    n = lanes_of(hs)
    block = readout.size // 2
    for v in range(0, width, n):
        w1, w2 = load(weights, v), load(weights, block + v)
        w3, b3 = load(readout, v), load(readout, block + v)
        dh_v = load(dh, v)
        x_place, up_place, dx_place = place(xs, v), place(ups, v), place(out, v)
        sum_w1 = sum_w2 = sum_b = sum_w3 = sum_b3 = sum_loss = like(w1, 0.0)
        for s in range(stop - 1, first - 1, -1):
            at = s * width + v
            up = load_row(ups, up_place, s)
            if fused:
                h = load(hs, at + width)
                error = (w3 * h + b3) - up
                with_h = fma(error, h, sum_w3)
                if ragged:
                    running = load(remaining, v) > float(s)
                    error, with_h = where(running, error, 0.0), where(running, with_h, sum_w3)
                sum_loss = fma(error, error, sum_loss)
                sum_w3 = with_h
                sum_b3 = sum_b3 + error
                dh_v = fma(w3, error, dh_v)
            elif ragged:
                dh_v = dh_v + where(load(remaining, v) > float(s), up, 0.0)
            else:
                dh_v = dh_v + up
            dz = dh_v * load(slopes, at)
            if ragged:
                dz = where(load(remaining, v) > float(s), dz, 0.0)
            # An exact 0 adds nothing, and not 0 * inf where an input or a state is infinite.
            some = dz != 0.0
            sum_w1 = where(some, fma(dz, load_row(xs, x_place, s), sum_w1), sum_w1)
            sum_w2 = where(some, fma(dz, load(hs, at), sum_w2), sum_w2)
            sum_b = sum_b + dz
            dx, before = w1 * dz, w2 * dz
            if ragged:
                running = load(remaining, v) > float(s)
                dx, before = where(running, dx, 0.0), where(running, before, dh_v)
            if want_dx:
                store_row(out, dx_place, s, dx)
            dh_v = before
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
    for row in range(len(SUMS)):
        for v in range(row * block, row * block + width, 8):
            store(segment, v, load(segment, v) + load_double(partial, v))
