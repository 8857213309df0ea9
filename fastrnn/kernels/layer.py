"""A hidden layer, H > 1: h_t = f(W1 x_t + W2 h_{t-1} + b), forward and back through time.

Sizes: B sequences, T steps, F inputs, H hidden units, O outputs. A call works on one net and a
team of R sequences, ``rows`` of the batch, over some steps; states are led on in ``h`` (R, H).
Step after step is computed of all the team, so that each weight that is loaded serves R times.
The longest sequences come first in a team: those that still run are its first rows.

    f         activation                            ends     (R,): steps of each, descending
    x         (B, T, F): a view, see `neuron`       panels   shapes of panels, see `products`
    weights   packed, see below

Rows of numbers lie ``stride`` apart, see `panels.row_stride`. All products are those of `products`:
of h and x with the weights, of the gradient with the weights' transposes, and of gradients with
states over the samples of a chunk of steps, which is the weights' gradient. Every sum is in index
order: z of b, then x, then h; over time from the last chunk to the first, in float64 between
chunks. Chunks are at fixed steps, so that no bit depends on how a job was cut.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastrnn.kernels import alone
from fastrnn.kernels.blocks import integers, numbers
from fastrnn.kernels.jit import bare, kernel, written_out
from fastrnn.kernels.memory import get, lanes_of, numbers_at, prefetch, put
from fastrnn.kernels.panels import MOST_ROWS, rooms
from fastrnn.kernels.products import (
    add_outer,
    add_outer_by_number,
    affine,
    copy_row,
    of_packed,
    panel_width,
)
from fastrnn.kernels.rows import (
    LOSS_STEPS,
    LOST,
    VOID,
    activate_rows,
    activate_with_slopes,
    add_errors,
    add_rows,
    any_infinite,
    clear_between,
    fold_squares,
    judge,
    least_of,
    lines_of,
    load_row,
    sizes_of,
    smallest,
    store_row,
    times_slopes,
)

# Samples, steps times sequences, whose sum is in the arrays' own type. So many of all columns
# fit into the first cache.
SAMPLES = 128


class Packed(NamedTuple):
    """Weights of one net for steps forward, matrices in panels; all in vectors for `alone`."""

    w1: Any  # (F, H): x to z
    w2: Any  # (H, H): h to z
    b: Any  # (H,)


class PackedOutput(NamedTuple):
    """The read-out."""

    w3: Any  # (H, O): h to predictions
    b3: Any  # (O,)


class PackedBack(NamedTuple):
    """The same weights for steps back."""

    w1: Any  # (H, F): dz to dx
    w2: Any  # (H, H): dz to dh
    w3: Any  # (O, H): errors to dh


class Sums(NamedTuple):
    """Sums of a team in float64, a row for each sequence or one for all; matrices in panels."""

    loss: Any  # half the sum of squared errors
    w1: Any  # (F + 1, H), the last row of which is that of b
    w2: Any  # (H, H)
    w3: Any  # (O, H)
    b3: Any  # (O,)


class Room(NamedTuple):
    """What `replay` and `retreat` work in. Behind numbers of the own type is room for a vector."""

    offsets: Any  # (R,): of rows
    x_offsets: Any  # (R,): of rows of inputs, each with a 1 behind it
    error_offsets: Any  # (R,): of rows of errors
    units: Any  # 0, 1, 2 ... below H, F + 1 and O
    zeros: Any  # (H or F,)
    row: Any  # (R, F)
    g: Any  # (R, stride)
    z: Any  # (R, stride)
    ups: Any  # (R, stride)
    squares: Any  # (R, stride)
    errors: Any  # (steps, R, O)
    tile: Any  # sums of a tile, see `add_outer`


def room(
    team: int, stride: int, inputs: int, outputs: int, steps: int, columns: int, dtype: DTypeLike
) -> Room:
    """Room for so many steps of a team, and sums of panels of so many columns."""
    longest, rows = max(stride, inputs + 1, outputs), team * stride
    sizes = (
        longest, team * inputs, rows, rows, rows, rows, steps * team * outputs,
        (MOST_ROWS + 1) * columns,
    )  # fmt: skip
    row = np.arange(team)
    return Room(
        row * stride, row * (inputs + 1), row * outputs, np.arange(longest), *rooms(sizes, dtype)
    )


@bare
def forward(
    f, panel, weights, x, inputs, rows, ends, stride, h, keep, states, state, z, x_offsets, offsets
):  # fmt: skip
    """States, a view (B, T, H), where ``keep``; h becomes the last of each sequence.

    ``state`` and ``z`` are room for a row each, and ``offsets`` those of rows of x and of these.
    """
    source, out = numbers_at(x[0], h), numbers_at(states[0], h)
    count, hidden = h.shape
    for r in range(count):
        copy_row(panel, h.reshape(h.size), r * hidden, state, r * stride, hidden)
    active, width = count, panel_width(panel)
    for t in range(ends[0]):
        while ends[active - 1] <= t:
            active -= 1
            copy_row(panel, state, active * stride, h.reshape(h.size), active * hidden, hidden)
        inner = (
            of_packed(source, x_offsets, t * x[2], x[3], weights.w1, 0, inputs, width),
            of_packed(state, offsets, 0, 1, weights.w2, 0, hidden, width),
        )
        affine(panel, active, hidden, weights.b, 0, 0, inner, z, 0, stride)
        activate_rows(f, z, active, hidden, stride, state)
        if keep:
            for r in range(active):
                at = rows[r] * states[1] + t * states[2]
                store_row(panel, state, r * stride, out, at, states[3], hidden)
    for r in range(active):
        copy_row(panel, state, r * stride, h.reshape(h.size), r * hidden, hidden)


@bare
def replay(f, panel, weights, x, inputs, rows, ends, stride, h, want_z, hs, slopes, xs, room):
    """Run forward once more for `retreat`, from the state h (R, H) before the first step.

    Of every step of the team: into ``hs`` the state before it, and behind the last that after;
    into ``slopes`` f', or z; into ``xs`` the inputs, each row with a 1 behind it. Sequences that
    have ended have rows of 0.
    """
    source, z = numbers_at(x[0], h), room.z
    count, hidden = h.shape
    active, width = count, panel_width(panel)
    block, line = count * stride, inputs + 1
    clear_between(hs, 0, block)
    for r in range(count):
        copy_row(panel, h.reshape(h.size), r * hidden, hs, r * stride, hidden)
    for s in range(ends[0]):
        while ends[active - 1] <= s:
            active -= 1
        at, x_at = s * block, s * count * line
        for r in range(active):
            for i in range(inputs):
                value = get(source, rows[r] * x[1] + s * x[2] + i * x[3])
                put(xs, x_at + r * line + i, value)
            put(xs, x_at + r * line + inputs, 1.0)
        inner = (
            of_packed(xs, room.x_offsets, x_at, 1, weights.w1, 0, inputs, width),
            of_packed(hs, room.offsets, at, 1, weights.w2, 0, hidden, width),
        )
        affine(panel, active, hidden, weights.b, 0, 0, inner, z, 0, stride)
        activate_with_slopes(f, z, active, hidden, stride, want_z, hs, at + block, slopes, at)
        if active < count:
            clear_between(hs, at + block + active * stride, at + 2 * block)
            clear_between(slopes, at + active * stride, at + block)
            clear_between(xs, x_at + active * line, x_at + count * line)


@bare
def retreat(
    panels, readout, back, leasts, hs, slopes, xs, finite, inputs, outputs, rows, ends, stride,
    chunk, each, fused, upstream, want_upstream, single, dh, sums, dx, want_dx, lost, room,
):  # fmt: skip
    """Pull a gradient of the states back to the weights, to x and to the state before.

    ``upstream``, a view (B, T, H), is that gradient, and ``dh`` (R, H) a further one of the last
    state, which becomes that of the state before the first step. Where ``fused``, upstream is the
    target y (B, T, O) instead, and what is differentiated is half the sum of the squares of
    W3 h_t + b3 - y_t (h_t - y_t without a read-out). ``sums`` are of ``each`` sequence or of all.
    The gradient of x is written to the view ``dx``. All else is of `replay`; states are known to
    be ``finite``, but for the first, or are not. Of ``slopes`` dz is made. A ``single`` sequence
    is led back by `alone`, which takes the W2 of ``back`` in vectors. Sequences of which floats may
    have ``lost`` (R,) something are marked LOST, or VOID, see `judge`: ``leasts`` are the smallest
    weights of W2 and W3 but for 0.
    """
    panel, input_panel, output_panel, sum_panel = panels
    target, gradient = numbers_at(upstream[0], dh), numbers_at(dx[0], dh)
    input_width, count, hidden = panel_width(input_panel), rows.size, dh.shape[1]
    block, g = count * stride, room.g
    for r in range(count):
        copy_row(panel, dh.reshape(dh.size), r * hidden, g, r * stride, hidden)
    if not finite:
        _judge_states(hs, slopes, xs, hidden, inputs + 1, ends, stride, lost)
    active, stop = 0, ends[0]
    while stop > 0:
        first = (stop - 1) // chunk * chunk
        if single:
            alone.retreat(
                fused, want_upstream, target, rows[0] * upstream[1], upstream[2], upstream[3],
                first, stop, hs, hidden, stride, back.w2, room.ups, room.squares, g, slopes,
                sums.loss, not finite, leasts[0], ends[0], lost,
            )  # fmt: skip
        for s in range(stop - 1, first - 1, -1):
            while active < count and ends[active] > s:
                active += 1
            at = s * block
            if not single:
                _retreat_step(
                    panel, output_panel, readout, back, hs, slopes, hidden, stride, target,
                    upstream, want_upstream, fused, s, rows, active, each, outputs, sums.loss,
                    not finite, leasts, ends, lost, room,
                )  # fmt: skip
            if want_dx:
                inner = (of_packed(slopes, room.offsets, at, 1, back.w1, 0, hidden, input_width),)
                affine(input_panel, active, inputs, room.zeros, 0, 0, inner, room.row, 0, inputs)
                for r in range(active):
                    to = rows[r] * dx[1] + s * dx[2]
                    store_row(input_panel, room.row, r * inputs, gradient, to, dx[3], inputs)
        _add_chunk(
            sum_panel, inputs, outputs if fused else 0, hidden, first, stop - first, count, each,
            stride, finite, hs, slopes, xs, sums, room,
        )  # fmt: skip
        stop = first
    for r in range(active):
        if smallest(slopes, r * stride, hidden) * leasts[0] < least_of(dh):
            for u in range(hidden):
                if get(g, r * stride + u) == 0.0:
                    lost[r] = max(lost[r], LOST)
    for r in range(count):
        copy_row(panel, g, r * stride, dh.reshape(dh.size), r * hidden, hidden)


@bare
def _judge_states(hs, slopes, xs, hidden, line, ends, stride, lost):
    """Mark sequences whose states leave floats: where f squashes none, it hands on what is left.

    Those that overflow are cleared: infinite numbers take long. NaN that came in stays.
    """
    count = lost.size
    for r in range(count):
        for s in range(ends[r] + 1):
            row = (s * count + r) * stride
            small, large = sizes_of(hs, row, hidden)
            if small:
                lost[r] = max(lost[r], LOST)
            if large or any_infinite(hs, row, 1, hidden, 0):
                x_at = (max(s, 1) - 1) * count * line + r * line
                if large and (s == 0 or not any_infinite(xs, x_at, 1, line, 0)):
                    lost[r] = VOID
                    for t in range(ends[r] + 1):
                        at = (t * count + r) * stride
                        clear_between(hs, at, at + hidden)
                        if t < ends[r]:
                            clear_between(slopes, at, at + hidden)
                break


# Not written out: of one sequence through 64 units `retreat` would take 1.15 times as long.
@bare
def _retreat_step(
    panel, output_panel, readout, back, hs, slopes, hidden, stride, target, upstream, want_upstream,
    fused, s, rows, active, each, outputs, loss, linear, leasts, ends, lost, room,
):  # fmt: skip
    """Lead g, which is dh, back over a step whose slopes become dz."""
    block = rows.size * stride
    at, dh = s * block, room.g
    if fused and outputs > 0:
        _pull_outputs(
            panel, output_panel, readout, back, hs, at + block, hidden, stride, target, upstream, s,
            rows, active, each, outputs, loss, room,
        )  # fmt: skip
        dh = room.z
    elif fused or want_upstream:
        load_step(panel, target, upstream, s, rows, active, room.ups, stride, hidden)
        if fused:
            add_errors(hs, at + block, room.ups, active, hidden, stride, dh, room.squares)
        else:
            add_rows(room.ups, active, hidden, stride, dh)
    if fused and outputs == 0 and s % LOSS_STEPS == 0:
        fold_squares(room.squares, active, hidden, stride, each, loss)
    if times_slopes(linear, dh, active, hidden, stride, slopes, at):
        for r in range(active):
            own, terms = at + r * stride, np.inf
            if s + 1 < ends[r]:
                terms = smallest(slopes, own + block, hidden) * leasts[0]
            if fused and outputs > 0:
                error_at = (s * rows.size + r) * outputs
                terms = min(terms, smallest(room.errors, error_at, outputs) * leasts[1])
            lost[r] = max(lost[r], judge(linear, dh, r * stride, hidden, slopes, own, terms))
            # Lest it becomes infinite, which takes long.
            if lost[r] == VOID:
                clear_between(slopes, own, own + hidden)
    clear_between(slopes, at + active * stride, at + block)
    inner = (of_packed(slopes, room.offsets, at, 1, back.w2, 0, hidden, panel_width(panel)),)
    affine(panel, active, hidden, room.zeros, 0, 0, inner, room.g, 0, stride)


@written_out
def _pull_outputs(
    panel, output_panel, readout, back, hs, at, hidden, stride, target, y, s, rows, active, each,
    outputs, loss, room,
):  # fmt: skip
    """Errors of one step's predictions; z = g + W3^T errors."""
    errors, error_at = room.errors, s * rows.size * outputs
    inner = (of_packed(hs, room.offsets, at, 1, readout.w3, 0, hidden, panel_width(output_panel)),)
    affine(output_panel, active, outputs, readout.b3, 0, 0, inner, errors, error_at, outputs)
    for r in range(active):
        for o in range(outputs):
            e = error_at + r * outputs + o
            error = get(errors, e) - get(target, rows[r] * y[1] + s * y[2] + o * y[3])
            put(errors, e, error)
            loss[r if each else 0, 0] += 0.5 * np.float64(error) * error
    clear_between(errors, error_at + active * outputs, error_at + rows.size * outputs)
    inner = (
        of_packed(errors, room.error_offsets, error_at, 1, back.w3, 0, outputs, panel_width(panel)),
    )
    affine(panel, active, hidden, room.g, 0, stride, inner, room.z, 0, stride)


@bare
def load_step(panel, array, view, s, rows, active, into, stride, hidden):
    """Rows of one step of an array."""
    for r in range(active):
        at = rows[r] * view[1] + s * view[2]
        load_row(panel, array, at, view[3], into, r * stride, hidden)
        # The step before is no neighbour that a processor foresees.
        for i in range(0, hidden, lanes_of(into)):
            prefetch(array, at - view[2] + i)


@written_out
def _add_chunk(
    sum_panel, inputs, outputs, hidden, first, length, count, each, stride, finite, hs, slopes, xs,
    sums, room,
):  # fmt: skip
    """Add the products of some steps to the sums."""
    block, line = count * stride, inputs + 1
    at, error_at, x_at = first * block, first * count * outputs, first * count * line
    samples = length if each else length * count
    lines, size = lines_of(length * count, hidden, stride)
    infinite = any_infinite(xs, x_at, 1, length * count * line, 0)
    infinite = infinite or any_infinite(slopes, at, lines, size, stride)
    if first == 0 or not finite:
        infinite = infinite or any_infinite(hs, at, lines, size, stride)
    # Of one sequence, samples are so many rows apart.
    every = count if each else 1
    for lane in range(every):
        _add_sums(
            sum_panel, inputs, outputs, hidden, infinite, samples, hs, at + lane * stride, block,
            slopes, every * stride, xs, x_at + lane * line, every * line, error_at + lane * outputs,
            every * outputs, sums, lane, room,
        )  # fmt: skip


@written_out
def _add_sums(
    panel, inputs, outputs, hidden, infinite, samples, hs, at, block, dz, step, xs, x_at, x_step,
    error_at, error_step, sums, lane, room,
):  # fmt: skip
    """Add the products of some samples to the sums."""
    units, errors, tile = room.units, room.errors, room.tile
    of_w1, of_w2, of_w3 = sums.w1[lane], sums.w2[lane], sums.w3[lane]
    if infinite:
        add_outer_by_number(
            panel, inputs + 1, hidden, xs, units, x_at, x_step, dz, at, step, samples, of_w1
        )
        add_outer_by_number(
            panel, hidden, hidden, dz, units, at, step, hs, at, step, samples, of_w2
        )
    else:
        add_outer(
            panel, inputs + 1, hidden, xs, units, x_at, x_step, dz, at, step, samples, tile, of_w1
        )
        add_outer(panel, hidden, hidden, dz, units, at, step, hs, at, step, samples, tile, of_w2)
    if outputs > 0:
        add_outer(
            panel, outputs, hidden, errors, units, error_at, error_step, hs, at + block, step,
            samples, tile, of_w3,
        )  # fmt: skip
        for o in range(outputs):
            for i in range(samples):
                sums.b3[lane, o] += get(errors, error_at + i * error_step + o)


@kernel
def predict(panel, weights, states, hidden, outputs, rows, ends, like_array, y):
    """Predictions, a view (B, T, O), of states, a view (B, T, H)."""
    source, out = numbers_at(states[0], like_array), numbers_at(y[0], like_array)
    some, width = 64, panel_width(panel)
    offsets, found = integers(some), numbers(like_array, some * outputs)
    for j in range(some):
        offsets[j] = j * states[2]
    for r in range(rows.size):
        for t in range(0, ends[r], some):
            count = min(some, ends[r] - t)
            at = rows[r] * states[1] + t * states[2]
            inner = (of_packed(source, offsets, at, states[3], weights.w3, 0, hidden, width),)
            affine(panel, count, outputs, weights.b3, 0, 0, inner, found, 0, outputs)
            for j in range(count):
                store_row(
                    panel, found, j * outputs, out, rows[r] * y[1] + (t + j) * y[2], y[3], outputs
                )
