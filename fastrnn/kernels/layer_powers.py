"""States of a layer of any magnitude, where f does not squash them: rows h * 2**e, an e a sequence.

A row that grows is brought near 1 by exact powers of two, and what comes in is scaled alike: states
have the bits of floats without a range. Where a number of a row would be lost beside the others,
the sequence is marked as ``outside``: see ``exact``.
"""

import math

import numpy as np

from fastrnn.kernels.jit import bare
from fastrnn.kernels.memory import get, lanes_of, load, numbers_at, put, store
from fastrnn.kernels.powers import normalise
from fastrnn.kernels.products import affine, copy_row, of_packed, panel_width
from fastrnn.kernels.rows import (
    activate_with_slopes,
    any_below,
    clear_between,
    largest_of,
    scale_row,
)
from fastrnn.kernels.simd import like

# A row has an exponent from where its largest number is above this, and then one that keeps it
# within DRIFT of 1.
HIGH_32, HIGH_64 = 2.0**60, 2.0**400
DRIFT = 2.0**20
# Beside numbers so small, of a row near 1, what comes in may have lost digits.
LOW_32, LOW_64 = 2.0**-60, 2.0**-500


@bare
def replay(
    f, panel, weights, x, inputs, rows, ends, stride, h, h_powers, hs, zs, xs, powers, outside,
    begin, scaled_xs, offsets, room,
):  # fmt: skip
    """As `layer.replay`, of states that begin with h * 2**h_powers, (R, H) and (R,).

    Pre-activations in ``zs`` and states in ``hs`` are those of ``powers``, (steps + 1, R): of the
    state before each step. h and its powers become those behind the last step. ``begin`` (R,
    stride) and ``scaled_xs`` (R, F), with their ``offsets``, are room.
    """
    source, z = numbers_at(x[0], h), room.z
    count, hidden = h.shape
    active, width = count, panel_width(panel)
    block, line, low = count * stride, inputs + 1, LOW_32 if h.itemsize == 4 else LOW_64
    own, high = h.reshape(h.size), HIGH_32 if h.itemsize == 4 else HIGH_64
    clear_between(hs, 0, block)
    for r in range(count):
        copy_row(panel, own, r * hidden, hs, r * stride, hidden)
        powers[r] = h_powers[r]
    for s in range(ends[0]):
        while ends[active - 1] <= s:
            active -= 1
        at, x_at = s * block, s * count * line
        for r in range(active):
            factor = math.ldexp(1.0, int(max(-powers[s * count + r], -2000.0)))
            for i in range(inputs):
                value = get(source, rows[r] * x[1] + s * x[2] + i * x[3])
                put(xs, x_at + r * line + i, value)
                put(scaled_xs, r * inputs + i, value * factor)
            put(xs, x_at + r * line + inputs, 1.0)
            for v in range(0, hidden, lanes_of(h)):
                vector = load(weights.b, v)
                store(begin, r * stride + v, vector * like(vector, factor))
        inner = (
            of_packed(scaled_xs, offsets, 0, 1, weights.w1, 0, inputs, width),
            of_packed(hs, room.offsets, at, 1, weights.w2, 0, hidden, width),
        )
        affine(panel, active, hidden, begin, 0, stride, inner, z, 0, stride)
        activate_with_slopes(f, z, active, hidden, stride, True, hs, at + block, zs, at)
        for r in range(active):
            row, here, after = at + block + r * stride, s * count + r, (s + 1) * count + r
            powers[after] = powers[here]
            if powers[here] > 0.0:
                outside[r] |= any_below(z, r * stride, hidden, low)
            largest = largest_of(hs, row, hidden)
            if not largest < np.inf:
                outside[r] = 1
                clear_between(hs, row, row + stride)
                powers[after] = 0.0
            elif largest == 0.0:
                powers[after] = 0.0
            elif largest > (DRIFT if powers[here] > 0.0 else high) or (
                powers[here] > 0.0 and largest < 1.0 / DRIFT
            ):
                _, shift = normalise(largest)
                shift = max(shift, -powers[here])
                outside[r] |= not scale_row(hs, row, hidden, -shift)
                powers[after] += shift
        if active < count:
            clear_between(hs, at + block + active * stride, at + 2 * block)
            clear_between(zs, at + active * stride, at + block)
            clear_between(xs, x_at + active * line, x_at + count * line)
    for r in range(count):
        copy_row(panel, hs, ends[r] * block + r * stride, own, r * hidden, hidden)
        h_powers[r] = powers[ends[r] * count + r]
