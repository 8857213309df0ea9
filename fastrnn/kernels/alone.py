"""A single sequence through a layer no wider than a vector: its state in one register.

The bits are those of ``layer.py``, step after step. There, tiles and rows are made ready for any
size, which takes a hundred ns a step; here a step takes as long as its numbers wait for each other.
Vectors reach behind the last unit, where weights are 0.
"""

from fastrnn.kernels.activations import activate, with_slope
from fastrnn.kernels.blocks import clear, copy, numbers
from fastrnn.kernels.jit import inner, kernel, part
from fastrnn.kernels.memory import get, lanes_of, load, put, store
from fastrnn.kernels.products import panel_width
from fastrnn.kernels.rows import LOSS_STEPS, fold_squares
from fastrnn.kernels.simd import fma, like


@part
def in_vectors(panel, w, inner, hidden):
    """A packed matrix (inner, hidden), a vector a row."""
    n, width = lanes_of(w), panel_width(panel)
    rows = numbers(w, inner * n)
    clear(rows)
    for k in range(inner):
        for u in range(hidden):
            first = min(u // width * width, hidden - width)
            rows[k * n + u] = get(w, (u // width * inner + k) * width + u - first)
    return rows


@part
def plus_product(begin, a, at, step, w, count):
    """The vector begin + sum over k of a[at + k step] times row k of w."""
    total = begin
    for k in range(count):
        total = fma(get(a, at + k * step), load(w, k * lanes_of(w)), total)
    return total


@kernel
def forward(f, panel, weights, source, x, inputs, row, steps, h, keep, out, states):
    """As `layer.forward`, of sequence number ``row``, from numbers of source to numbers of out."""
    hidden, n = h.shape[1], lanes_of(h)
    w1, w2 = (
        in_vectors(panel, weights.w1, inputs, hidden),
        in_vectors(panel, weights.w2, hidden, hidden),
    )
    b, state = numbers(h, n), numbers(h, n)
    own = h.reshape(h.size)
    clear(b)
    clear(state)
    copy(weights.b, 0, b, 0, hidden)
    copy(own, 0, state, 0, hidden)
    for t in range(steps):
        z = plus_product(load(b, 0), source, row * x[1] + t * x[2], x[3], w1, inputs)
        store(state, 0, activate(f, plus_product(z, state, 0, 1, w2, hidden)))
        if keep:
            for u in range(hidden):
                put(out, row * states[1] + t * states[2] + u * states[3], get(state, u))
    copy(state, 0, own, 0, hidden)


@kernel
def replay(f, panel, weights, source, x, inputs, row, steps, stride, h, hs, slopes, xs):
    """As `layer.replay`."""
    hidden, line = h.shape[1], inputs + 1
    w1, w2 = (
        in_vectors(panel, weights.w1, inputs, hidden),
        in_vectors(panel, weights.w2, hidden, hidden),
    )
    b = numbers(h, lanes_of(h))
    clear(b)
    clear(hs[:stride])
    copy(weights.b, 0, b, 0, hidden)
    copy(h.reshape(h.size), 0, hs, 0, hidden)
    for s in range(steps):
        for i in range(inputs):
            put(xs, s * line + i, get(source, row * x[1] + s * x[2] + i * x[3]))
        put(xs, s * line + inputs, 1.0)
        z = plus_product(load(b, 0), xs, s * line, 1, w1, inputs)
        after, slope = with_slope(f, plus_product(z, hs, s * stride, 1, w2, hidden))
        store(hs, (s + 1) * stride, after)
        store(slopes, s * stride, slope)


@inner
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
