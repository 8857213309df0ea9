"""A hidden layer, H > 1: h_t = f(W1 x_t + W2 h_{t-1} + b), forward and back through time.

Sizes: K nets of a bank, B sequences, T steps, F inputs, H hidden units, O outputs. One lane is
one net over one sequence; ``block`` is the (first net, last net, first sequence, last sequence)
a call works on. Sums over the sequences of a ``group`` share a row of the weight gradients, so
that their number, and with it every bit of the result, does not depend on the threads.

    f         activation             w1, w2, b, w3, b3   (K,H,F) (K,H,H) (K,H) (K,O,H) (K,O)
    x         (B, T, F), any strides                h0   (K, B, H)
    lengths   (B,): steps of each sequence        tile   steps recomputed at a time

The forward product runs over columns of W2, so that its inner loop is a vector operation whose
sums stay in index order.
"""

import math

import numpy as np

from fastrnn.kernels.activations import activate, slope_scaled, with_slope
from fastrnn.kernels.jit import kernel
from fastrnn.kernels.powers import add_exactly, normalise
from fastrnn.kernels.simd import fma_number, lane, single

# 2**-1100 of a sum's largest term is nothing beside it, in float64.
LEAST_EXPONENT = -1100.0


@kernel
def forward(f, w1, w2, b, x, h0, lengths, block, keep, states, last):
    """States (K, B, T, H) where ``keep``, and always the last state (K, B, H)."""
    first_net, last_net, first_sequence, last_sequence = block
    w1_columns, w2_columns, z, h = _forward_workspace(w1, w2)
    for k in range(first_net, last_net):
        _transpose(w1[k], w1_columns)
        _transpose(w2[k], w2_columns)
        for i in range(first_sequence, last_sequence):
            h[:] = h0[k, i]
            for t in range(lengths[i]):
                _step(f, w1_columns, w2_columns, b[k], x[i, t], h, z, h)
                if keep:
                    states[k, i, t] = h
            last[k, i] = h


@kernel
def backward(
    f, w1, w2, b, w3, b3, x, h0, lengths, tile, block, group, fused,
    upstream, dlast, loss, dw1, dw2, db, dw3, db3, dx, dh0, want_dx,
):  # fmt: skip
    """Pull a gradient of the states back to the weights, h0 (K, B, H) and x (K, B, T, F).

    ``upstream`` (K, B, T, H) is that gradient, ``dlast`` (K, B, H) a further one for the last
    state. Where ``fused`` it is the target y instead, and what is differentiated is half the
    sum of the squares of W3 h_t + b3 - y_t (h_t - y_t without a read-out), added to ``loss``.
    """
    first_net, last_net, first_sequence, last_sequence = block
    w1_columns, w2_columns, dz, dh = _forward_workspace(w1, w2)
    starts, z, before = _workspace(x, h0, tile)
    for k in range(first_net, last_net):
        _transpose(w1[k], w1_columns)
        _transpose(w2[k], w2_columns)
        for i in range(first_sequence, last_sequence):
            g = i // group
            length = lengths[i]
            tiles = _checkpoint(
                f, w1_columns, w2_columns, b[k], x[i], h0[k, i], length, tile, starts, z, before
            )
            dh[:] = dlast[k, i]
            for j in range(tiles - 1, -1, -1):
                start, stop = j * tile, min(j * tile + tile, length)
                if j < tiles - 1:
                    before[0] = starts[j]
                    _replay(f, w1_columns, w2_columns, b[k], x[i], start, stop, z, before)
                for t in range(stop - 1, start - 1, -1):
                    h = before[t + 1 - start]
                    if not fused:
                        dh += upstream[k, i, t]
                    elif w3.shape[1] > 0:
                        loss[k, g] += _readout_error(
                            w3[k], b3[k], h, upstream[k, i, t], dh, dw3[k, g], db3[k, g]
                        )
                    else:
                        loss[k, g] += _state_error(h, upstream[k, i, t], dh)
                    for unit in range(dz.size):
                        dz[unit] = dh[unit] * _slope(f, z[t - start, unit])
                    _outer(dz, before[t - start], dw2[k, g])
                    _outer(dz, x[i, t], dw1[k, g])
                    db[k, g] += dz
                    if want_dx:
                        _pull(w1[k], dz, dx[k, i, t])
                    _pull(w2[k], dz, dh)
            dh0[k, i] = dh


@kernel
def influence(
    f, w1, w2, b, x, h0, lengths, tile, block, seed, mantissa, exponent, mantissa0, exponent0
):
    """d(seed . h_T)/dx_t (K, B, T, F) and d(seed . h_T)/dh_0 (K, B, H), mantissa * 2**exponent.

    Every component has an exponent of its own, and a common offset besides.
    """
    first_net, last_net, first_sequence, last_sequence = block
    w1_columns, w2_columns, _, _ = _forward_workspace(w1, w2)
    starts, z, before = _workspace(x, h0, tile)
    dh, dh_power = np.empty(w2.shape[1]), np.empty(w2.shape[1])
    dz, dz_power = np.empty(w2.shape[1]), np.empty(w2.shape[1])
    dx, dx_power = np.empty(w1.shape[2]), np.empty(w1.shape[2])
    for k in range(first_net, last_net):
        _transpose(w1[k], w1_columns)
        _transpose(w2[k], w2_columns)
        for i in range(first_sequence, last_sequence):
            length = lengths[i]
            tiles = _checkpoint(
                f, w1_columns, w2_columns, b[k], x[i], h0[k, i], length, tile, starts, z, before
            )
            dh[:], dh_power[:] = seed[k], 0.0
            power = rest = 0.0
            for j in range(tiles - 1, -1, -1):
                start, stop = j * tile, min(j * tile + tile, length)
                if j < tiles - 1:
                    before[0] = starts[j]
                    _replay(f, w1_columns, w2_columns, b[k], x[i], start, stop, z, before)
                for t in range(stop - 1, start - 1, -1):
                    for unit in range(dz.size):
                        slope, slope_power = _slope_scaled(f, z[t - start, unit])
                        dz[unit], shift = normalise(dh[unit] * slope)
                        dz_power[unit] = dh_power[unit] + (slope_power + shift)
                    power, rest = add_offset(power, rest, take_offset(dz, dz_power))
                    pull_scaled(w1[k], dz, dz_power, dx, dx_power)
                    for column in range(dx.size):
                        mantissa[k, i, t, column] = dx[column]
                        exponent[k, i, t, column] = power + (rest + dx_power[column])
                    pull_scaled(w2[k], dz, dz_power, dh, dh_power)
            for unit in range(dh.size):
                mantissa0[k, i, unit] = dh[unit]
                exponent0[k, i, unit] = power + (rest + dh_power[unit])


@kernel
def readout(w3, b3, h, lengths, block, y):
    """Predictions W3 h_t + b3 (K, B, T, O) of states h (K, B, T, H), summed in index order."""
    first_net, last_net, first_sequence, last_sequence = block
    for k in range(first_net, last_net):
        for i in range(first_sequence, last_sequence):
            for t in range(lengths[i]):
                for o in range(w3.shape[1]):
                    y[k, i, t, o] = _output(w3[k, o], b3[k, o], h[k, i, t])


@kernel
def _step(f, w1_columns, w2_columns, b, x, h, z, result):
    """One step from state h (H,) to ``result``, which may be h; z is left behind."""
    z[:] = b
    for column in range(x.size):
        _add_fused(z, w1_columns[column], x[column])
    for unit in range(h.size):
        _add_fused(z, w2_columns[unit], h[unit])
    for unit in range(h.size):
        result[unit] = _activate(f, z[unit])


@kernel
def _activate(f, z):
    return lane(activate(f, single(z)), 0)


@kernel
def _slope(f, z):
    _, slope = with_slope(f, single(z))
    return lane(slope, 0)


@kernel
def _slope_scaled(f, z):
    mantissa, exponent = slope_scaled(f, single(np.float64(z)))
    return lane(mantissa, 0), lane(exponent, 0)


@kernel
def add_offset(total, rest, term):
    result, left = add_exactly(single(total), single(rest), single(term))
    return lane(result, 0), lane(left, 0)


@kernel
def _add_fused(total, vector, scale):
    for unit in range(total.size):
        total[unit] = fma_number(vector[unit], scale, total[unit])


@kernel
def _add_scaled(total, vector, scale):
    for unit in range(total.size):
        total[unit] += vector[unit] * scale


@kernel
def _outer(dz, vector, total):
    """total += dz vector^T; an exact 0 in dz adds nothing, even where the vector is infinite."""
    for unit in range(dz.size):
        if dz[unit] != 0.0:
            _add_scaled(total[unit], vector, dz[unit])


@kernel
def _pull(w, dz, result):
    """result = w^T dz."""
    result[:] = 0.0
    for unit in range(dz.size):
        _add_scaled(result, w[unit], dz[unit])


@kernel
def _output(w3, b3, h):
    total = b3
    for unit in range(h.size):
        total += w3[unit] * h[unit]
    return total


@kernel
def _readout_error(w3, b3, h, y, dh, dw3, db3):
    """Half the squared error of one step; its gradients are added to dh, dw3, db3."""
    total = 0.0
    for o in range(y.size):
        error = _output(w3[o], b3[o], h) - y[o]
        total += 0.5 * error * error
        db3[o] += error
        _add_scaled(dw3[o], h, error)
        _add_scaled(dh, w3[o], error)
    return total


@kernel
def _state_error(h, y, dh):
    total = 0.0
    for unit in range(h.size):
        error = h[unit] - y[unit]
        total += 0.5 * error * error
        dh[unit] += error
    return total


@kernel
def take_offset(vector, powers):
    """Subtract the largest power of a vector's non-zero components from all, and return it."""
    largest = -math.inf
    for unit in range(vector.size):
        if vector[unit] != 0.0:
            largest = max(largest, powers[unit])
    if not math.isfinite(largest):
        return 0.0
    for unit in range(vector.size):
        powers[unit] = powers[unit] - largest if vector[unit] != 0.0 else 0.0
    return largest


@kernel
def pull_scaled(w, dz, dz_power, result, result_power):
    """result * 2**result_power = w^T (dz * 2**dz_power), every sum aligned to its largest term."""
    for column in range(result.size):
        top = -math.inf
        for unit in range(dz.size):
            if dz[unit] != 0.0 and w[unit, column] != 0.0:
                top = max(top, dz_power[unit] + math.frexp(w[unit, column])[1])
        total = 0.0
        for unit in range(dz.size):
            if dz[unit] != 0.0 and w[unit, column] != 0.0:
                fraction, shift = math.frexp(np.float64(w[unit, column]))
                shift = max(dz_power[unit] + shift - top, LEAST_EXPONENT)
                total += math.ldexp(fraction * dz[unit], int(shift))
        result[column], shift = normalise(total)
        result_power[column] = top + shift if total != 0.0 else 0.0


@kernel
def _forward_workspace(w1, w2):
    """Columns of W1 (F, H) and of W2 (H, H), and two vectors (H,)."""
    inputs, hidden, number = w1.shape[2], w2.shape[1], w2.dtype
    return (
        np.empty((inputs, hidden), number),
        np.empty((hidden, hidden), number),
        np.empty(hidden, number),
        np.empty(hidden, number),
    )


@kernel
def _workspace(x, h0, tile):
    """Tile starts, and for one tile the pre-activations and the states from its start on."""
    tiles = (x.shape[1] + tile - 1) // tile
    hidden, number = h0.shape[2], h0.dtype
    return (
        np.empty((tiles, hidden), number),
        np.empty((tile, hidden), number),
        np.empty((tile + 1, hidden), number),
    )


@kernel
def _transpose(matrix, columns):
    for row in range(matrix.shape[0]):
        for column in range(matrix.shape[1]):
            columns[column, row] = matrix[row, column]


@kernel
def _checkpoint(f, w1_columns, w2_columns, b, x, h0, length, tile, starts, z, before):
    """Run forward, keep each tile's first state; the last tile stays in z and before."""
    tiles = (length + tile - 1) // tile
    before[0] = h0
    for j in range(tiles):
        if j > 0:
            before[0] = before[tile]
        starts[j] = before[0]
        stop = min(j * tile + tile, length)
        _replay(f, w1_columns, w2_columns, b, x, j * tile, stop, z, before)
    return tiles


@kernel
def _replay(f, w1_columns, w2_columns, b, x, start, stop, z, before):
    """z of the steps [start, stop) and the states after each, from the state before[0]."""
    for t in range(start, stop):
        s = t - start
        _step(f, w1_columns, w2_columns, b, x[t], before[s], z[s], before[s + 1])
