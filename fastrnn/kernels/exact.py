"""Nets forward and back in numbers of any magnitude, m * 2**e with m in float64 and e beside it.

Scalar neurons are layers of one unit here. States are rounded to the net's own type and have, as
far as it reaches, the bits of `neuron` and `layer`; what follows from them is in float64. A call
walks some steps of one net and one sequence.

Sizes: T steps, F inputs, H hidden units, O outputs.

    f         activation             w1, w2, b, w3, b3   (H,F) (H,H) (H,) (O,H) (O,)
    x         (T, F), any strides    h, h_powers         (H,): state before the first step

A sum over time is kept in four numbers, those of ``scaled_sums``.
"""

import math

import numpy as np

from fastrnn.kernels.activations import activate, is_homogeneous, slope_scaled
from fastrnn.kernels.jit import kernel
from fastrnn.kernels.powers import add_exactly, normalise, shifted_number
from fastrnn.kernels.simd import fma_number, lane, single

# 2**-1100 of a sum's largest term is nothing beside it.
LEAST_EXPONENT = -1100.0


@kernel
def forward(f, w1, w2, b, x, h, h_powers, keep, states, powers):
    """States (T, H) where ``keep``; h becomes the last one."""
    hidden, number = w2.shape[0], w2.dtype
    z, z_powers, work = np.empty(hidden, number), np.empty(hidden), np.empty(3, number)
    for t in range(x.shape[0]):
        _step(f, w1, w2, b, x[t], h, h_powers, z, z_powers, work)
        _activate(f, z, z_powers, h, h_powers)
        if keep:
            for unit in range(hidden):
                states[t, unit], powers[t, unit] = h[unit], h_powers[unit]


@kernel
def backward(
    f, w1, w2, b, w3, b3, x, h, h_powers, fused, upstream, dh, dh_powers, offset, want_sums, loss,
    dw1, dw2, db, dw3, db3, dx, dx_powers, want_dx,
):  # fmt: skip
    """Pull a gradient of the states back to the weights, to x (T, F) and to the state before.

    ``upstream`` (T, H) is that gradient, and what is carried a further one of the last state:
    dh * 2**(dh_powers + offset), the offset in two parts, which becomes that of the state before
    the first step. Where ``fused`` upstream is the target y (T, O) instead, and what is
    differentiated is half the sum of the squares of W3 h_t + b3 - y_t (h_t - y_t without a
    read-out), added to ``loss``. Sums (..., SUM) are left alone unless ``want_sums``.
    """
    steps, hidden, number = x.shape[0], w2.shape[0], w2.dtype
    before, powers = np.empty((steps + 1, hidden), number), np.empty((steps + 1, hidden))
    z, z_powers = np.empty((steps, hidden), number), np.empty((steps, hidden))
    dz, dz_powers = np.empty(hidden), np.empty(hidden)
    input_row, input_powers = np.empty(x.shape[1]), np.empty(x.shape[1])
    work, value, value_power = np.empty(3, number), np.empty(1, number), np.empty(1)
    minus_one = np.full(1, -1.0).astype(number)
    for unit in range(hidden):
        before[0, unit], powers[0, unit] = h[unit], h_powers[unit]
    for t in range(steps):
        _step(f, w1, w2, b, x[t], before[t], powers[t], z[t], z_powers[t], work)
        _activate(f, z[t], z_powers[t], before[t + 1], powers[t + 1])
    power, rest = offset
    for t in range(steps - 1, -1, -1):
        if fused:
            _add_errors(
                w3, b3, before[t + 1], powers[t + 1], upstream[t], power + rest, dh, dh_powers,
                value, value_power, minus_one, work, loss, dw3, db3,
            )  # fmt: skip
        else:
            for unit in range(hidden):
                up, shift = normalise(np.float64(upstream[t, unit]))
                _add_to(dh, dh_powers, unit, up, shift - (power + rest))
        for unit in range(hidden):
            slope, slope_power = _slope(f, z[t, unit], z_powers[t, unit])
            dz[unit], shift = normalise(dh[unit] * slope)
            dz_powers[unit] = dh_powers[unit] + (slope_power + shift)
        power, rest = _add_offset(power, rest, _take_offset(dz, dz_powers))
        for unit in range(hidden):
            # An exact 0 adds nothing, even where an input or a state is infinite.
            if want_sums and dz[unit] != 0.0:
                at = power + (rest + dz_powers[unit])
                for j in range(hidden):
                    _add(dw2[unit, j], dz[unit], at + powers[t, j], before[t, j])
                for j in range(x.shape[1]):
                    _add(dw1[unit, j], dz[unit], at, x[t, j])
                _add(db[unit], dz[unit], at)
        if want_dx:
            _pull(w1, dz, dz_powers, input_row, input_powers)
            for j in range(x.shape[1]):
                # Zeros of scaled results are positive.
                dx[t, j] = input_row[j] + 0.0
                dx_powers[t, j] = power + (rest + input_powers[j])
        _pull(w2, dz, dz_powers, dh, dh_powers)
    offset[0], offset[1] = power, rest


@kernel
def _step(f, w1, w2, b, x, h, powers, z, z_powers, work):
    """Pre-activations z, in the order and with the roundings of `layer`."""
    for unit in range(b.size):
        z[unit], z_powers[unit] = normalise(np.float64(b[unit]))
        for j in range(x.size):
            _add_product(w1[unit, j], x[j], 0.0, z, z_powers, unit, work)
        for j in range(h.size):
            _add_product(w2[unit, j], h[j], powers[j], z, z_powers, unit, work)


@kernel
def _add_product(w, v, power, z, z_powers, unit, work):
    """Add w * v * 2**power to z * 2**z_power, rounded once, to the type of z."""
    if w == 0.0 or v == 0.0 or not math.isfinite(w * 0.0 + v * 0.0 + z[unit] * 0.0):
        work[0], work[1] = w, v
        if z[unit] == 0.0 or not math.isfinite(w * 0.0 + v * 0.0):
            z[unit], z_powers[unit] = fma_number(work[0], work[1], z[unit]), 0.0
        return
    w, shift = normalise(np.float64(w))
    v, v_shift = normalise(np.float64(v))
    shift += v_shift + power
    top = max(shift, z_powers[unit]) if z[unit] != 0.0 else shift
    work[0], work[1] = shifted_number(w, shift - top), v
    work[2] = shifted_number(np.float64(z[unit]), z_powers[unit] - top)
    z[unit], up = normalise(np.float64(fma_number(work[0], work[1], work[2])))
    z_powers[unit] = top + up if z[unit] != 0.0 else 0.0


@kernel
def _activate(f, z, z_powers, h, powers):
    for unit in range(z.size):
        if is_homogeneous(f):
            h[unit], powers[unit] = lane(activate(f, single(z[unit])), 0), z_powers[unit]
        else:
            # In the type of z, which math.ldexp does not keep.
            h[unit] = shifted_number(np.float64(z[unit]), z_powers[unit])
            h[unit], powers[unit] = lane(activate(f, single(h[unit])), 0), 0.0


@kernel
def _slope(f, z, power):
    """f'(z * 2**power) as mantissa and exponent."""
    if not is_homogeneous(f):
        z = shifted_number(np.float64(z), power)
    mantissa, exponent = slope_scaled(f, single(np.float64(z)))
    return lane(mantissa, 0), lane(exponent, 0)


@kernel
def _add_to(values, powers, unit, value, power):
    """Add value * 2**power to one of some numbers."""
    if value == 0.0:
        return
    if values[unit] == 0.0:
        values[unit], powers[unit] = value, power
        return
    top = max(power, powers[unit])
    total = shifted_number(value, power - top) + shifted_number(values[unit], powers[unit] - top)
    values[unit], up = normalise(total)
    powers[unit] = top + up if values[unit] != 0.0 else 0.0


@kernel
def _add(sum_, factor, power, other=1.0):
    """Add factor * 2**power * other to a sum."""
    value, shift = normalise(np.float64(factor))
    second, second_shift = normalise(np.float64(other))
    value, up = normalise(value * second)
    if value == 0.0:
        return
    power += shift + second_shift + up
    if not math.isfinite(value):
        power = sum_[3]
    if sum_[2] == 0.0:
        sum_[3] = power
    elif power > sum_[3]:
        for part in range(3):
            sum_[part] = shifted_number(sum_[part], sum_[3] - power)
        sum_[3] = power
    term = shifted_number(value, power - sum_[3])
    total = sum_[0] + term
    back = total - sum_[0]
    error = (sum_[0] - (total - back)) + (term - back)
    sum_[0] = total
    sum_[1] += error if math.isfinite(total) else 0.0
    sum_[2] += abs(term)


@kernel
def _add_errors(
    w3, b3, h, powers, y, offset, dh, dh_powers, value, value_power, minus_one, work, loss, dw3, db3
):  # fmt: skip
    """Half the squared error of one step, its gradients to dh * 2**offset, dw3 and db3."""
    for o in range(y.size):
        # With the roundings of `layer`: a prediction that is met is an error of 0.
        if w3.shape[0] == 0:
            value[0], value_power[0] = h[o], powers[o]
        else:
            value[0], value_power[0] = normalise(np.float64(b3[o]))
            for unit in range(h.size):
                _add_product(w3[o, unit], h[unit], powers[unit], value, value_power, 0, work)
        _add_product(minus_one[0], y[o], 0.0, value, value_power, 0, work)
        error, shift = normalise(np.float64(value[0]))
        power = value_power[0] + shift
        _add(loss, 0.5 * error * error, 2 * power)
        if w3.shape[0] == 0:
            _add_to(dh, dh_powers, o, error, power - offset)
            continue
        _add(db3[o], error, power)
        for unit in range(h.size):
            _add(dw3[o, unit], error, power + powers[unit], h[unit])
            w, up = normalise(np.float64(w3[o, unit]))
            w, shift = normalise(w * error)
            _add_to(dh, dh_powers, unit, w, (up + shift) + (power - offset))


@kernel
def _add_offset(total, rest, term):
    result, left = add_exactly(single(total), single(rest), single(term))
    return lane(result, 0), lane(left, 0)


@kernel
def _take_offset(vector, powers):
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
def _pull(w, dz, dz_power, result, result_power):
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
