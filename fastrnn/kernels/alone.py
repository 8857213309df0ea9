"""A single sequence through a layer no wider than a vector: its state in one register.

The bits are those of ``layer.py``, step after step. There, tiles and rows are made ready for any
size, which takes a hundred ns a step; here a step takes as long as its numbers wait for each other.
Weights are `panels.in_vectors`, and vectors reach behind the last unit, where they are 0.
"""

import numpy as np

from fastrnn.kernels.activations import activate, with_slope
from fastrnn.kernels.blocks import copy
from fastrnn.kernels.jit import bare, part
from fastrnn.kernels.memory import get, lanes_of, load, numbers_at, put, store
from fastrnn.kernels.rows import (
    LOSS_STEPS,
    VOID,
    clear_between,
    fold_squares,
    judge,
    kept,
    least_of,
    most_of,
    smallest,
)
from fastrnn.kernels.simd import any_lane, first_lanes, fma, like


@part
def plus_product(begin, a, at, step, w, count):
    """The vector begin + sum over k of a[at + k step] times row k of w."""
    total = begin
    for k in range(count):
        total = fma(get(a, at + k * step), load(w, k * lanes_of(w)), total)
    return total


@bare
def forward(f, weights, x, inputs, row, steps, h, keep, states, state):
    """As `layer.forward`, of sequence number ``row``; ``state`` is room for a vector of h."""
    source, out = numbers_at(x[0], h), numbers_at(states[0], h)
    hidden, w1, w2, b = h.size, weights.w1, weights.w2, load(weights.b, 0)
    own = h.reshape(hidden)
    copy(own, 0, state, 0, hidden)
    for t in range(steps):
        z = plus_product(b, source, row * x[1] + t * x[2], x[3], w1, inputs)
        store(state, 0, activate(f, plus_product(z, state, 0, 1, w2, hidden)))
        if keep:
            for u in range(hidden):
                put(out, row * states[1] + t * states[2] + u * states[3], get(state, u))
    copy(state, 0, own, 0, hidden)


@bare
def replay(f, weights, x, inputs, row, steps, stride, h, want_z, hs, slopes, xs):
    """As `layer.replay`."""
    source = numbers_at(x[0], h)
    hidden, line = h.size, inputs + 1
    w1, w2, b = weights.w1, weights.w2, load(weights.b, 0)
    clear_between(hs, 0, stride)
    copy(h.reshape(hidden), 0, hs, 0, hidden)
    for s in range(steps):
        for i in range(inputs):
            put(xs, s * line + i, get(source, row * x[1] + s * x[2] + i * x[3]))
        put(xs, s * line + inputs, 1.0)
        z = plus_product(b, xs, s * line, 1, w1, inputs)
        z = plus_product(z, hs, s * stride, 1, w2, hidden)
        after, slope = with_slope(f, z)
        store(hs, (s + 1) * stride, after)
        store(slopes, s * stride, z if want_z else slope)


@bare
def retreat(
    fused, want_upstream, target, place, step, between, first, stop, hs, hidden, stride, w2, ups,
    squares, dh, slopes, loss, linear, least_weight, end, lost,
):  # fmt: skip
    """Steps ``first`` to ``stop`` of `layer.retreat`: dh is led back, slopes become dz.

    Numbers of upstream are ``step`` apart from step to step, ``between`` from unit to unit.
    """
    g = load(dh, 0)
    for s in range(stop - 1, first - 1, -1):
        at = s * stride
        if fused or want_upstream:
            for u in range(hidden):
                put(ups, u, get(target, place + s * step + u * between))
            up = load(ups, 0)
            if fused:
                up = load(hs, at + stride) - up
                store(squares, 0, fma(up, up, load(squares, 0)))
            g = g + up
        slope = load(slopes, at)
        dz = g * slope
        extreme = (kept(linear, dz, slope) < least_of(dh)) | (abs(dz) > most_of(dh))
        if any_lane(extreme & first_lanes(dz, hidden)):
            store(ups, 0, g)
            store(dh, 0, dz)
            terms = np.inf
            if s + 1 < end:
                terms = smallest(slopes, at + stride, hidden) * least_weight
            lost[0] = max(lost[0], judge(linear, ups, 0, hidden, dh, 0, terms))
            if lost[0] == VOID:
                dz = like(dz, 0.0)
        store(dh, 0, dz)
        # Behind them lie those of the step after.
        for u in range(hidden):
            put(slopes, at + u, get(dh, u))
        g = plus_product(like(g, 0.0), dh, 0, 1, w2, hidden)
        if fused and s % LOSS_STEPS == 0:
            fold_squares(squares, 1, hidden, stride, False, loss)
    store(dh, 0, g)
