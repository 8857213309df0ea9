"""The scalar neuron, H = 1, forward: h_t = f(w1 x_t + w2 h_{t-1} + b).

Sizes: K nets of a bank, B sequences, T steps. One lane is one net over one sequence, lane
k B + i of net k and sequence i. Lanes go in blocks of ``vectors`` vectors; a call takes blocks,
at most ``most`` of them, from the counters ``turns`` that all calls of a job share.

    f         activation                        lanes    order of the lanes
    x         (B, T): a view, see below         h0       (K, B, 1): state before the first step
    lengths   (B,): steps of each sequence      tile     steps of a tile

Arrays of any layout come as views: the address of the first number, then the strides of their
axes in numbers. One compiled kernel serves them all.

A job may be cut in time: the state comes in by the array it goes out by. Every z is
fma(w2, h, fma(w1, x, b)).
"""

from fastrnn.kernels.activations import activate
from fastrnn.kernels.blocks import (
    copy,
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
from fastrnn.kernels.memory import (
    lanes_of,
    load,
    load_group,
    load_like,
    numbers_at,
    store,
)
from fastrnn.kernels.simd import fma, where
from fastrnn.kernels.tiles import (
    SEQUENCES,
    all_lie,
    find_layouts,
    in_lines,
    in_one_row,
    load_group_row,
    load_row,
    load_rows,
    place,
    rows_for,
    store_group_row,
    store_row,
    store_rows,
    store_rows_past,
    tile_rows,
)
from fastrnn.kernels.turns import finish, take

# Vectors whose states stay in registers over many steps: as many as hide each other's latency (4
# took 1.25 times as long, 2 twice as long).
GROUP = 8


# What becomes of the states: nothing; written by way of the caches, or past them.
NONE, CACHED, PAST = 0, 1, 2


@kernel
def forward(
    f, w1, w2, b, x, h0, lengths, lanes, vectors, turns, most, tile, keep, states, last_states
):  # fmt: skip
    """States, a view (K, B, T), unless ``keep`` is NONE, and always the last state (K, B, 1)."""
    inputs, outputs = numbers_at(x[0], h0), numbers_at(states[0], h0)
    block = vectors * lanes_of(h0)
    nets, sequences, ends = integers(block), integers(block), integers(block)
    x_offsets, x_layouts = integers(block), integers(vectors)
    offsets, layouts = integers(block), integers(vectors)
    weights, remaining = numbers(h0, 3 * block), numbers(h0, block)
    h, rows, tile_offsets = numbers(h0, block), numbers(h0, tile * block), sequence(block)
    room = numbers(h0, tile * lanes_of(h0) if keep == PAST else 8)
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
        # Past the caches whole lines go directly, others by way of a tile.
        lines = keep == PAST and in_lines(outputs, layouts, offsets, states[3], width)
        past = (keep == PAST and not lines) and (
            all_lie(layouts, width // lanes_of(h0), SEQUENCES) or in_one_row(offsets, width)
        )
        for t in range(0, longest, tile):
            steps = min(tile, longest - t)
            xs = load_rows(
                inputs, x_layouts, x_offsets, x[2], t, steps, width, 1, rows, tile_offsets
            )
            out = tile_rows(rows, tile_offsets, width)
            if not past:
                out = rows_for(outputs, layouts, offsets, states[3], t, width, rows, tile_offsets)
            ragged = t + steps > least
            if ragged:
                remaining_steps(ends, width, t, steps, remaining)
            _advance(f, weights, xs, remaining, ragged, steps, width, h, keep != NONE, out, lines)
            if past:
                store_rows_past(rows, outputs, layouts, offsets, states[3], t, steps, width, room)
            elif keep != NONE:
                store_rows(rows, outputs, layouts, offsets, states[3], t, steps, width, 1)
        for lane in range(width):
            last_states[nets[lane], sequences[lane], 0] = h[lane]
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
        _advance_vectors(f, weights, xs, remaining, ragged, tile, 0, width, h, False, xs)
        copy(h, 0, starts, (t // tile + 1) * block, width)


# --- steps of a block: the math ---


@part
def pre_activation(weights, v, x, h):
    block = weights.size // 3
    return fma(load(weights, block + v), h, fma(load(weights, v), x, load(weights, 2 * block + v)))


@part
def group_pre_activation(weights, v, x, h):
    block = weights.size // 3
    w1, w2 = load_like(h, weights, v), load_like(h, weights, block + v)
    return fma(w2, h, fma(w1, x, load_like(h, weights, 2 * block + v)))


@part
def _advance_group(f, weights, xs, remaining, ragged, steps, v, h, keep, out, past):
    state = load_group(h, v, GROUP)
    for s in range(steps):
        x = load_group_row(state, xs, v, s)
        after = activate(f, group_pre_activation(weights, v, x, state))
        if ragged:
            running = load_like(state, remaining, v) > float(s)
            if keep:
                store_group_row(out, v, s, where(running, after, 0.0), past)
            after = where(running, after, state)
        elif keep:
            store_group_row(out, v, s, after, past)
        state = after
    store(h, v, state)


@kernel
def _advance(f, weights, xs, remaining, ragged, steps, width, h, keep, out, past):
    """The state h after some steps, and all of them in rows, which may be those of the inputs.

    Rows are read and written where the caller has them, while numbers are crunched: by way of
    tiles, side-by-side lanes took twice as long. States of whole groups stay in registers.
    """
    group = GROUP * lanes_of(h)
    grouped = width // group * group
    for v in range(0, grouped, group):
        _advance_group(f, weights, xs, remaining, ragged, steps, v, h, keep, out, past)
    _advance_vectors(f, weights, xs, remaining, ragged, steps, grouped, width, h, keep, out)


@kernel
def _advance_vectors(f, weights, xs, remaining, ragged, steps, first, width, h, keep, out):
    """The same of vectors that are too few for a group."""
    for s in range(steps):
        for v in range(first, width, lanes_of(h)):
            before = load(h, v)
            after = activate(f, pre_activation(weights, v, load_row(xs, place(xs, v), s), before))
            state = after
            if ragged:
                running = load(remaining, v) > float(s)
                after, state = where(running, after, before), where(running, after, 0.0)
            store(h, v, after)
            if keep:
                store_row(out, place(out, v), s, state)
