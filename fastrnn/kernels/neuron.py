"""The scalar neuron, H = 1: h_t = f(w1 x_t + w2 h_{t-1} + b), forward and back through time.

Sizes: K nets of a bank, B sequences, T steps. One lane is one net over one sequence; ``block``
is the (first net, last net, first sequence, last sequence) a call works on. Sums over time are
kept in float64 and in the order of time.

    code      activation                        tile    steps recomputed at a time
    x         (B, T, 1), any strides            h0      (K, B, 1)
    lengths   (B,): steps of each sequence      group   sequences that share a sum

Arrays come with the axes of a layer of size 1, and signatures are those of ``layer``.
Backward passes keep the state at the start of every tile, recompute a tile and walk it
backwards: no trajectory is written.
"""

import math

import numpy as np

from fastrnn.kernels.activations import activate, derivative, derivative_scaled
from fastrnn.kernels.jit import kernel


@kernel
def forward(code, w1, w2, b, x, h0, lengths, block, keep, states, last):
    """States (K, B, T, 1) where ``keep``, and always the last state (K, B, 1)."""
    w1, w2, b, x, h0 = w1[:, 0, 0], w2[:, 0, 0], b[:, 0], x[:, :, 0], h0[:, :, 0]
    number = last.dtype.type
    first_net, last_net, first_sequence, last_sequence = block
    for k in range(first_net, last_net):
        for i in range(first_sequence, last_sequence):
            h = h0[k, i]
            for t in range(lengths[i]):
                h = number(activate(code, (w1[k] * x[i, t] + b[k]) + w2[k] * h))
                if keep:
                    states[k, i, t, 0] = h
            last[k, i, 0] = h


@kernel
def backward(
    code, w1, w2, b, w3, b3, x, h0, lengths, tile, block, group, fused,
    upstream, dlast, loss, dw1, dw2, db, dw3, db3, dx, dh0, want_dx,
):  # fmt: skip
    """Pull a gradient of the states back to the weights, h0 (K, B, 1), x (K, B, T, 1).

    ``upstream`` (K, B, T, 1) is that gradient, ``dlast`` (K, B, 1) a further one for the last
    state.
    Where ``fused`` it is the target y instead, and what is differentiated is half the sum of
    the squares of w3 h_t + b3 - y_t, added to ``loss``.
    """
    w1, w2, b, x, h0 = w1[:, 0, 0], w2[:, 0, 0], b[:, 0], x[:, :, 0], h0[:, :, 0]
    w3, b3 = w3[:, 0, 0], b3[:, 0]
    number = h0.dtype.type
    first_net, last_net, first_sequence, last_sequence = block
    starts, z, before = _workspace(x, h0, tile)
    for k in range(first_net, last_net):
        for i in range(first_sequence, last_sequence):
            tiles = _checkpoint(
                code, w1[k], w2[k], b[k], x[i], h0[k, i], lengths[i], tile, starts, z, before
            )
            total = sum_w1 = sum_w2 = sum_b = sum_w3 = sum_b3 = 0.0
            dh = dlast[k, i, 0]
            for j in range(tiles - 1, -1, -1):
                start, stop = j * tile, min(j * tile + tile, lengths[i])
                if j < tiles - 1:
                    _replay(code, w1[k], w2[k], b[k], x[i], start, stop, starts[j], z, before)
                for t in range(stop - 1, start - 1, -1):
                    if fused:
                        h = before[t + 1 - start]
                        error = (w3[k] * h + b3[k]) - upstream[k, i, t, 0]
                        total += 0.5 * error * error
                        sum_w3 += error * h
                        sum_b3 += error
                        dh += w3[k] * error
                    else:
                        dh += upstream[k, i, t, 0]
                    dz = number(dh * derivative(code, z[t - start]))
                    if dz != 0.0:  # the limit, 0, and not 0 * inf where an input is infinite
                        sum_w1 += dz * x[i, t]
                        sum_w2 += dz * before[t - start]
                        sum_b += dz
                    if want_dx:
                        dx[k, i, t, 0] = w1[k] * dz
                    dh = w2[k] * dz
            g = i // group
            loss[k, g] += total
            dw1[k, g, 0, 0] += sum_w1
            dw2[k, g, 0, 0] += sum_w2
            db[k, g, 0] += sum_b
            dw3[k, g, 0, 0] += sum_w3
            db3[k, g, 0] += sum_b3
            dh0[k, i, 0] = dh


@kernel
def influence(
    code, w1, w2, b, x, h0, lengths, tile, block, seed, mantissa, exponent, mantissa0, exponent0
):
    """seed h_T differentiated by x (K, B, T, 1) and h_0 (K, B, 1), as mantissa * 2**exponent."""
    w1, w2, b, x, h0 = w1[:, 0, 0], w2[:, 0, 0], b[:, 0], x[:, :, 0], h0[:, :, 0]
    first_net, last_net, first_sequence, last_sequence = block
    starts, z, before = _workspace(x, h0, tile)
    for k in range(first_net, last_net):
        for i in range(first_sequence, last_sequence):
            tiles = _checkpoint(
                code, w1[k], w2[k], b[k], x[i], h0[k, i], lengths[i], tile, starts, z, before
            )
            dh, power = normalise(np.float64(seed[k, 0]))
            rest = 0.0
            w1_mantissa, w1_power = normalise(np.float64(w1[k]))
            w2_mantissa, w2_power = normalise(np.float64(w2[k]))
            for j in range(tiles - 1, -1, -1):
                start, stop = j * tile, min(j * tile + tile, lengths[i])
                if j < tiles - 1:
                    _replay(code, w1[k], w2[k], b[k], x[i], start, stop, starts[j], z, before)
                for t in range(stop - 1, start - 1, -1):
                    slope, slope_power = derivative_scaled(code, z[t - start])
                    power, rest = add_exactly(power, rest, slope_power)
                    dz, shift = normalise(dh * slope)
                    power, rest = add_exactly(power, rest, shift)
                    mantissa[k, i, t, 0] = w1_mantissa * dz
                    exponent[k, i, t, 0] = power + (rest + w1_power)
                    dh = w2_mantissa * dz
                    power, rest = add_exactly(power, rest, w2_power)
            mantissa0[k, i, 0], exponent0[k, i, 0] = dh, power + rest


@kernel
def normalise(value):
    """``value`` as mantissa * 2**exponent, the mantissa's absolute value in [1, 2), or 0."""
    if value == 0.0 or math.isnan(value):
        return value, 0.0
    fraction, shift = math.frexp(value)
    return 2.0 * fraction, float(shift - 1)


@kernel
def add_exactly(total, rest, term):
    """(total, rest) + term, with what rounding takes from the sum kept in the rest (Knuth).

    Exponents past 2**53, from |z| = 1e15 on, would else lose T/2 units instead of one.
    """
    result = total + term
    if math.isinf(result):
        return result, 0.0
    back = result - total
    return result, rest + ((total - (result - back)) + (term - back))


@kernel
def _workspace(x, h0, tile):
    """Tile starts, and for one tile the pre-activations and the states from its start on."""
    tiles = (x.shape[1] + tile - 1) // tile
    number = h0.dtype
    return np.empty(tiles, number), np.empty(tile, number), np.empty(tile + 1, number)


@kernel
def _checkpoint(code, w1, w2, b, x, h, length, tile, starts, z, before):
    """Run forward, keep each tile's first state; the last tile stays in z and before."""
    tiles = (length + tile - 1) // tile
    for j in range(tiles):
        starts[j] = h
        stop = min(j * tile + tile, length)
        h = _replay(code, w1, w2, b, x, j * tile, stop, h, z, before)
    return tiles


@kernel
def _replay(code, w1, w2, b, x, start, stop, h, z, before):
    """z of the steps [start, stop) and the states before and after each, from state h."""
    number = before.dtype.type
    before[0] = h
    for t in range(start, stop):
        a = (w1 * x[t] + b) + w2 * h
        h = number(activate(code, a))
        z[t - start] = a
        before[t + 1 - start] = h
    return h
