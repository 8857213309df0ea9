"""Tangent vectors of a hidden layer, carried along its states and kept orthonormal: QR each step.

Sizes: K nets, B sequences, T steps, F inputs, H hidden units, k tangent vectors. Rows of H numbers
are padded with zeros to a stride of whole vectors. A step takes the k vectors Q to

    D W2 Q = Q' R,        D = diag(f'(z)),

and the logarithm of R's diagonal is how they grow (Benettin et al. 1980; Geist, Parlitz and
Lauterborn 1990). The derivatives of a layer whose units saturate lie hundreds of orders of
magnitude apart. So the rows of D W2 Q have an exponent each, the largest are brought to the
top, and each reflection counts rows by weights relative to its own first one: Householder's method
is then as exact for every row as for the largest (Cox and Higham 1998). What is left of a vector
that depends on those before it is rounding, of any size; a bound on that of each row, of the
product W2 Q and of the reflections, says where it is no more, and R's diagonal is 0 there.
"""

import math

import numpy as np

from fastrnn.kernels import WORKING_PRECISION
from fastrnn.kernels.activations import is_homogeneous, slope_scaled
from fastrnn.kernels.blocks import doubles, sequence
from fastrnn.kernels.jit import kernel, part
from fastrnn.kernels.memory import load, store
from fastrnn.kernels.neuron_growth import log_of
from fastrnn.kernels.powers import MOST_BINADES, add_exactly, normalise, shifted
from fastrnn.kernels.simd import fma, lane, like, maximum, ordered_sum, single, splat

LANES = 8
# Exponent of a row of zeros.
NOTHING = -1e300
# Vectors multiplied or reflected side by side: enough not to wait for one another's sums.
TOGETHER = 4


@kernel
def advance(
    f, w1, w2, w2_powers, b, x, states, lengths, lanes, first, windows, tangents, open_windows, sums
):  # fmt: skip
    """Lead the tangents (K, B, k, stride) over some steps; see `neuron_growth.growth`.

    ``w1`` (K, F, stride) and ``b`` (K, stride) are padded, the first transposed; ``w2`` (K, strips,
    H, 8) has its transpose in strips of 8 columns, 2**-w2_powers times as large. ``states`` (K, B,
    T + 1, H) are the one before the first step and those after each; relu and identity need no more
    of the latter than their signs. ``lanes`` are the first and the last of K B to work on.
    ``open_windows`` is (3, K, B, k), ``sums`` (K, B, W, k).
    """
    sequences, hidden = states.shape[1], states.shape[3]
    count, stride = tangents.shape[2], tangents.shape[3]
    start, stop = lanes
    rows, products = doubles((count + 1) * stride), doubles((count + 1) * stride)
    vectors, reflectors = doubles(count * stride), doubles(count * stride)
    # Slopes and exponents of the rows, then what `_factorise` works with.
    slopes, exponents, work = doubles(stride), doubles(stride), doubles(4 * stride)
    order, sizes = sequence(stride), doubles(stride)
    diagonal, powers = np.empty(count), np.empty(count)
    for number in range(start, stop):
        k, i = number // sequences, number % sequences
        window = windows[i]
        index, due = first // window, window - first % window
        _find_sizes(w2[k], hidden, sizes)
        for c in range(count):
            for unit in range(stride):
                rows[(c + 1) * stride + unit] = tangents[k, i, c, unit]
        for t in range(lengths[i]):
            for unit in range(hidden):
                rows[unit] = states[k, i, t, unit]
            for unit in range(hidden, stride):
                rows[unit] = 0.0
            _multiply(w2[k], rows, count + 1, hidden, stride, products)
            if is_homogeneous(f):
                for unit in range(hidden):
                    products[unit] = states[k, i, t + 1, unit]
            else:
                _find_inputs(w1[k], b[k], w2_powers[k], x[i, t], products)
            _find_slopes(f, stride, products, slopes, exponents)
            reach = _arrange_rows(
                products, slopes, exponents, sizes, count, hidden, stride, order, vectors, work
            )
            _factorise(
                w2[k], rows, order, slopes, reach, vectors, exponents, count, hidden, stride,
                reflectors, work, diagonal, powers,
            )  # fmt: skip
            _orthonormal(reflectors, diagonal, count, stride, vectors)
            due -= 1
            for c in range(count):
                for unit in range(hidden):
                    rows[(c + 1) * stride + order[unit]] = vectors[c * stride + unit]
                product, shift = normalise(open_windows[0, k, i, c] * abs(diagonal[c]))
                total, left = add_exactly(
                    single(open_windows[1, k, i, c]), single(open_windows[2, k, i, c]),
                    single(powers[c] + (w2_powers[k] + shift)),
                )  # fmt: skip
                power, rest = lane(total, 0), lane(left, 0)
                if due == 0:
                    sums[k, i, index, c] = log_of(product, power + rest)
                    product, power, rest = 1.0, 0.0, 0.0
                open_windows[0, k, i, c] = product
                open_windows[1, k, i, c], open_windows[2, k, i, c] = power, rest
            if due == 0:
                index, due = index + 1, window
        for c in range(count):
            for unit in range(stride):
                tangents[k, i, c, unit] = rows[(c + 1) * stride + unit]


@kernel
def _multiply(w2, rows, count, hidden, stride, products):
    """Products of W2 and vectors, each a row."""
    for strip in range(stride // LANES):
        w, at = w2[strip].reshape(hidden * LANES), strip * LANES
        c = 0
        while c + TOGETHER <= count:
            r = c * stride
            s0 = s1 = s2 = s3 = like(load(w, 0), 0.0)
            for j in range(hidden):
                column = load(w, j * LANES)
                s0 = fma(splat(rows[r + j]), column, s0)
                s1 = fma(splat(rows[r + stride + j]), column, s1)
                s2 = fma(splat(rows[r + 2 * stride + j]), column, s2)
                s3 = fma(splat(rows[r + 3 * stride + j]), column, s3)
            store(products, r + at, s0)
            store(products, r + stride + at, s1)
            store(products, r + 2 * stride + at, s2)
            store(products, r + 3 * stride + at, s3)
            c += TOGETHER
        while c < count:
            r = c * stride
            s0 = s1 = s2 = s3 = like(load(w, 0), 0.0)
            whole = hidden - hidden % TOGETHER
            for j in range(0, whole, TOGETHER):
                s0 = fma(splat(rows[r + j]), load(w, j * LANES), s0)
                s1 = fma(splat(rows[r + j + 1]), load(w, (j + 1) * LANES), s1)
                s2 = fma(splat(rows[r + j + 2]), load(w, (j + 2) * LANES), s2)
                s3 = fma(splat(rows[r + j + 3]), load(w, (j + 3) * LANES), s3)
            for j in range(whole, hidden):
                s0 = fma(splat(rows[r + j]), load(w, j * LANES), s0)
            store(products, r + at, (s0 + s1) + (s2 + s3))
            c += 1


@kernel
def _find_sizes(w2, hidden, sizes):
    """Sums of the absolute weights of each row: what a product with unit vectors is made of."""
    for unit in range(sizes.size):
        total = 0.0
        for j in range(hidden):
            total += abs(w2[unit // LANES, j, unit % LANES])
        sizes[unit] = total


@kernel
def _find_inputs(w1, b, w2_power, x, products):
    """Pre-activations, where the first row of products is W2 h."""
    for v in range(0, b.size, LANES):
        z = fma(load(products, v), math.ldexp(1.0, w2_power), load(b, v))
        for i in range(x.size):
            z = fma(splat(x[i]), load(w1, i * b.size + v), z)
        store(products, v, z)


@kernel
def _find_slopes(f, stride, products, slopes, exponents):
    """f'(z) of the first row of products."""
    for v in range(0, stride, LANES):
        mantissa, power = slope_scaled(f, load(products, v))
        store(slopes, v, mantissa)
        store(exponents, v, power)


@kernel
def _arrange_rows(
    products, slopes, exponents, sizes, count, hidden, stride, order, vectors, work
):  # fmt: skip
    """Rows of D W2 Q brought near 1, the k largest first; the vectors are columns across them.

    Returns how large the terms of such a row may be.
    """
    reach = 1.0
    for v in range(0, stride, LANES):
        slope = load(slopes, v)
        largest = like(slope, 0.0)
        for c in range(1, count + 1):
            largest = maximum(abs(load(products, c * stride + v)), largest)
        store(work, v, abs(largest * slope))
    for unit in range(hidden):
        largest, shift = normalise(work[unit])
        # By how much a row is brought down.
        work[unit] = math.ldexp(slopes[unit], -int(shift))
        exponents[unit] = exponents[unit] + shift if largest != 0.0 else NOTHING
        if largest != 0.0:
            reach = max(reach, abs(work[unit]) * sizes[unit])
    # A reflection has its largest row first; how those lie that never are first does not matter.
    for place in range(hidden):
        order[place] = place
    for place in range(count):
        top = place
        for other in range(place + 1, hidden):
            if exponents[order[other]] > exponents[order[top]]:
                top = other
        order[place], order[top] = order[top], order[place]
    for place in range(hidden):
        unit = order[place]
        slopes[place], work[stride + place] = work[unit], exponents[unit]
        for c in range(count):
            vectors[c * stride + place] = products[(c + 1) * stride + unit] * slopes[place]
    for place in range(hidden):
        exponents[place] = work[stride + place]
    for place in range(hidden, stride):
        exponents[place] = NOTHING
        for c in range(count):
            vectors[c * stride + place] = 0.0
    return reach


@kernel
def _factorise(
    w2, rows, order, slopes, reach, vectors, exponents, count, hidden, stride, reflectors, work,
    diagonal, powers,
):  # fmt: skip
    """R's diagonal, as numbers with exponents, and the reflections v, (v, v) = 2, that lead to Q.

    ``work`` holds two forms of v: as rows are counted in a scalar product, and as they are changed.
    ``reach`` is the size of the terms that rows are sums of, at most.
    """
    for j in range(count):
        low, row = j - j % LANES, j * stride
        tops, weights = like(load(work, 0), 0.0), like(load(work, 0), 0.0)
        for v in range(low, stride, LANES):
            weight = shifted(like(tops, 1.0), load(exponents, v) - exponents[j])
            column = load(vectors, row + v)
            store(work, 2 * stride + v, weight)
            weights = fma(weight, weight, weights)
            store(reflectors, row + v, column * weight)
        for i in range(low, j):
            reflectors[row + i] = 0.0
        for v in range(low, stride, LANES):
            tops = maximum(abs(load(reflectors, row + v)), tops)
        largest = 0.0
        for n in range(LANES):
            largest = max(largest, lane(tops, n))
        _, shift = normalise(largest)
        shift = max(shift, -MOST_BINADES)
        down = math.ldexp(1.0, -int(shift))
        squares = like(tops, 0.0)
        for v in range(low, stride, LANES):
            column = load(reflectors, row + v) * down
            store(reflectors, row + v, column)
            squares = fma(column, column, squares)
        length = math.sqrt(ordered_sum(squares))
        # A bound for any column, that of this one where it is reached.
        rounding = 2.0 * hidden * WORKING_PRECISION * reach * down * math.sqrt(ordered_sum(weights))
        if length <= rounding and _is_rounding(
            w2, rows, order, slopes, exponents, j, hidden, stride, reflectors, diagonal, down,
            length, work,
        ):  # fmt: skip
            length = 0.0
        top = reflectors[row + j]
        diagonal[j], powers[j] = length, shift + exponents[j]
        if length == 0.0:
            powers[j] = 0.0
            continue
        reflectors[row + j] = top + math.copysign(length, top)
        scale = 1.0 / math.sqrt(length * (length + abs(top)))
        for v in range(low, stride, LANES):
            own = load(reflectors, row + v) * scale
            store(reflectors, row + v, own)
            store(work, v, own * load(work, 2 * stride + v))
            store(work, stride + v, load(vectors, row + v) * (down * scale))
        for i in range(low, j):
            work[stride + i] = 0.0
        work[j] = work[stride + j] = reflectors[row + j]
        _reflect(vectors, j + 1, count, low, stride, work, 0, work, stride)


@kernel
def _is_rounding(
    w2, rows, order, slopes, exponents, j, hidden, stride, reflectors, diagonal, down, length, work
):  # fmt: skip
    """Whether what is left of column j is no more than the rounding of what it is made of.

    The last part of ``work`` gets the largest terms of each row, of W2 Q and of what reflections
    then add to it.
    """
    bounds = 3 * stride
    for place in range(hidden):
        strip, own = order[place] // LANES, order[place] % LANES
        terms = 0.0
        for i in range(hidden):
            terms += abs(w2[strip, i, own] * rows[(j + 1) * stride + i])
        work[bounds + place] = terms * abs(slopes[place])
    for r in range(j):
        if diagonal[r] == 0.0:
            continue
        top = 0.0
        for place in range(r, hidden):
            counted = reflectors[r * stride + place] * _weight(exponents, place, r)
            top = max(top, abs(counted) * work[bounds + place])
        for place in range(r + 1, hidden):
            changed = reflectors[r * stride + place] / _weight(exponents, place, r)
            work[bounds + place] = max(work[bounds + place], abs(changed) * top)
    squares = 0.0
    for place in range(j, hidden):
        term = work[bounds + place] * _weight(exponents, place, j) * down
        squares += term * term
    return length <= hidden * WORKING_PRECISION * math.sqrt(squares)


@part
def _weight(exponents, row, first):
    """What a row counts where another is the first."""
    return math.ldexp(1.0, int(max(exponents[row] - exponents[first], -MOST_BINADES)))


@kernel
def _orthonormal(reflectors, diagonal, count, stride, vectors):
    """The first columns of Q: unit vectors, reflected."""
    for c in range(count):
        for i in range(stride):
            vectors[c * stride + i] = 1.0 if i == c else 0.0
    for j in range(count - 1, -1, -1):
        if diagonal[j] != 0.0:
            row = j * stride
            _reflect(vectors, j, count, j - j % LANES, stride, reflectors, row, reflectors, row)


@kernel
def _reflect(vectors, start, stop, low, stride, counted, counted_at, changed, changed_at):
    """Vectors less (counted, vector) changed, from row ``low`` on."""
    c = start
    while c + TOGETHER <= stop:
        r = c * stride
        s0 = s1 = s2 = s3 = like(load(counted, counted_at), 0.0)
        for v in range(low, stride, LANES):
            by = load(counted, counted_at + v)
            s0 = fma(by, load(vectors, r + v), s0)
            s1 = fma(by, load(vectors, r + stride + v), s1)
            s2 = fma(by, load(vectors, r + 2 * stride + v), s2)
            s3 = fma(by, load(vectors, r + 3 * stride + v), s3)
        t0, t1, t2, t3 = (
            splat(-ordered_sum(s0)), splat(-ordered_sum(s1)), splat(-ordered_sum(s2)),
            splat(-ordered_sum(s3)),
        )  # fmt: skip
        for v in range(low, stride, LANES):
            by = load(changed, changed_at + v)
            store(vectors, r + v, fma(by, t0, load(vectors, r + v)))
            store(vectors, r + stride + v, fma(by, t1, load(vectors, r + stride + v)))
            store(vectors, r + 2 * stride + v, fma(by, t2, load(vectors, r + 2 * stride + v)))
            store(vectors, r + 3 * stride + v, fma(by, t3, load(vectors, r + 3 * stride + v)))
        c += TOGETHER
    while c < stop:
        total = like(load(counted, counted_at), 0.0)
        for v in range(low, stride, LANES):
            total = fma(load(counted, counted_at + v), load(vectors, c * stride + v), total)
        down = splat(-ordered_sum(total))
        for v in range(low, stride, LANES):
            value = fma(load(changed, changed_at + v), down, load(vectors, c * stride + v))
            store(vectors, c * stride + v, value)
        c += 1
