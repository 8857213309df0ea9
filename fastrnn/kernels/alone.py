"""A single sequence through a layer no wider than a vector: its state in one register.

The bits are those of ``layer.py``, step after step. There, tiles and rows are made ready for any
size, which takes a hundred ns a step; here a step takes as long as its numbers wait for each other.
Weights are `panels.in_vectors`, and vectors reach behind the last unit, where they are 0.
"""

from fastrnn.kernels.activations import activate, with_slope
from fastrnn.kernels.blocks import copy
from fastrnn.kernels.jit import bare, part
from fastrnn.kernels.memory import get, lanes_of, load, numbers_at, put, store
from fastrnn.kernels.rows import LOSS_STEPS, clear_between, fold_squares
from fastrnn.kernels.simd import fma, like


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
def replay(f, weights, x, inputs, row, steps, stride, h, hs, slopes, xs):
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
        after, slope = with_slope(f, plus_product(z, hs, s * stride, 1, w2, hidden))
        store(hs, (s + 1) * stride, after)
        store(slopes, s * stride, slope)


@bare
def retreat(
    fused, want_upstream, target, place, step, between, first, stop, hs, hidden, stride, w2, ups,
    squares, dh, slopes, loss,
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
        store(dh, 0, g * load(slopes, at))
        # Behind them lie those of the step after.
        for u in range(hidden):
            put(slopes, at + u, get(dh, u))
        g = plus_product(like(g, 0.0), dh, 0, 1, w2, hidden)
        if fused and s % LOSS_STEPS == 0:
            fold_squares(squares, 1, hidden, stride, False, loss)
    store(dh, 0, g)
