"""Sums of a layer's weights over a chunk whose rows are far apart: an exponent for each unit.

What is summed up for w1, b and w2 is dz of a unit times inputs or states; for w3, states of a unit
times errors. Each unit's numbers are brought to the exponent of its largest, and what is nothing
beside that is nothing in its sums; where it might be all there is, as what the largest is
multiplied with is 0, sequences are summed up by themselves, and then steps. See ``tables``.

Arrays are those of ``layer_scaled``: ``along`` a walk, and ``of_powers`` its room.
"""

import math

from fastrnn.kernels.jit import bare, part
from fastrnn.kernels.memory import get, lanes_of, load, put, store
from fastrnn.kernels.powers import normalise_vector, shifted
from fastrnn.kernels.products import add_outer, panel_width
from fastrnn.kernels.rows import LEAST_64 as LEAST
from fastrnn.kernels.rows import LOW_STATE_64 as LOW_STATE
from fastrnn.kernels.rows import largest_of
from fastrnn.kernels.scaled_sums import NO_POWER
from fastrnn.kernels.simd import like, maximum, where
from fastrnn.kernels.tables import SIZES, TERMS, add_term, settle

# A dz that is at least so large has all its digits in products with states that are.
LOW_DZ = LEAST / LOW_STATE


@bare
def add_by_component(
    panel, inputs, hidden, columns, s, length, own, count, each, stride, hs, slopes, xs, sums, room,
    along, of_powers,
):  # fmt: skip
    """Add a chunk's products to the sums of w1, b and w2."""
    open_powers, doubts, line = of_powers.open_powers, of_powers.doubts, inputs + 1
    good = settle_powered(sums, own, line, hidden, columns, open_powers, doubts)
    open_powers[own] = NO_POWER
    first, last = (own, own + 1) if each else (0, count)
    powers, row_powers = of_powers.powers, of_powers.row_powers
    for q in range(length):
        for r in range(first, last):
            row_powers[q * count + r] = powers[(s + q) * count + r]
    good &= _add_product(
        panel, sums.w1[own], slopes, s, along, (count, s, 0, length, first, last), hidden, stride,
        xs, of_powers.inputs, line, line, False, room, of_powers,
    )  # fmt: skip
    for q in range(length):
        for r in range(first, last):
            here = (s + q) * count + r
            if along.state_powers.size > 1:
                row_powers[q * count + r] += along.state_powers[here]
            # Beside a first state of 0, what comes later is all there is.
            if largest_of(hs, here * stride, hidden) == 0.0:
                row_powers[q * count + r] = NO_POWER
    good &= _add_product(
        panel, sums.w2[own], slopes, s, along, (count, s, 0, length, first, last), hidden, stride,
        hs, of_powers.states, stride, hidden, True, room, of_powers,
    )  # fmt: skip
    if not good:
        mark(of_powers.lacks, own, each)


@bare
def add_outputs_by_component(
    panel, outputs, hidden, columns, s, length, own, count, each, stride, hs, sums, room, along,
    of_powers,
):  # fmt: skip
    """Add a chunk's products to those of w3."""
    good = settle(sums.w3[own], outputs * columns, 0.0, of_powers.doubts[own] > 0, LEAST)
    first, last = (own, own + 1) if each else (0, count)
    for q in range(length):
        for r in range(first, last):
            power = 2.0 * along.state_powers[(s + q + 1) * count + r]
            of_powers.row_powers[q * count + r] = power
    good &= _add_product(
        panel, sums.w3[own], hs, s + 1, along, (count, s, 0, length, first, last), hidden, stride,
        room.errors, of_powers.misses, outputs, outputs, False, room,
        of_powers,
    )  # fmt: skip
    if not good:
        mark(of_powers.lacks, own, each)


@bare
def _add_product(
    panel, table, array, start, along, rows, hidden, stride, other, sizes, line,
    numbers, in_rows, room, of_powers,
):  # fmt: skip
    """Add products of units with other numbers, ``line`` apart; whether all digits are there.

    Of some sequences together; of each by itself where one hides what is of another; or of each
    step, where one hides what is of another.
    """
    count, s, begin, stop, first, last = rows
    _find_product(
        panel, table, array, start, along, rows, hidden, stride, other, sizes,
        line, numbers, in_rows, room, of_powers,
    )  # fmt: skip
    if _is_whole(panel, table, numbers, hidden, in_rows, of_powers):
        _settle_components(panel, table, numbers, hidden, in_rows, of_powers)
        return True
    good = True
    for r in range(first, last):
        _find_product(
            panel, table, array, start, along, (count, s, begin, stop, r, r + 1), hidden,
            stride, other, sizes, line, numbers, in_rows, room, of_powers,
        )  # fmt: skip
        if _is_whole(panel, table, numbers, hidden, in_rows, of_powers):
            _settle_components(panel, table, numbers, hidden, in_rows, of_powers)
            continue
        for q in range(begin, stop):
            _find_product(
                panel, table, array, start, along, (count, s, q, q + 1, r, r + 1), hidden, stride,
                other, sizes, line, numbers, in_rows, room, of_powers,
            )  # fmt: skip
            good &= _is_whole(panel, table, numbers, hidden, in_rows, of_powers)
            _settle_components(panel, table, numbers, hidden, in_rows, of_powers)
    return good


@bare
def _find_product(
    panel, table, array, start, along, rows, hidden, stride, other, sizes, line,
    numbers, in_rows, room, of_powers,
):  # fmt: skip
    """The products, and those of sizes, as terms of a table."""
    count, s, begin, stop, first, last = rows
    every = 1 if last - first == count else count
    at, samples = begin * count + first, (stop - begin) * (last - first)
    signed, size, tile = of_powers.signed, of_powers.dz, room.tile
    for column in range(table.shape[1]):
        table[TERMS, column] = table[SIZES, column] = 0.0
    _take_components(array, start, along, rows, hidden, stride, of_powers)
    _find_tops(sizes, at * line, every * line, samples, numbers, of_powers.tops)
    # The one begins with the walk, the other with the chunk.
    for units, own, own_at, row in (
        (signed, other, s * count * line, TERMS),
        (size, sizes, 0, SIZES),
    ):
        if in_rows:
            add_outer(
                panel, hidden, hidden, units, room.units, at * stride, every * stride, own,
                own_at + at * line, every * line, samples, tile, table[row],
            )  # fmt: skip
        else:
            add_outer(
                panel, numbers, hidden, own, room.units, own_at + at * line, every * line, units,
                at * stride, every * stride, samples, tile, table[row],
            )  # fmt: skip


@bare
def _take_components(array, start, along, rows, hidden, stride, of_powers):
    """Rows of a chunk from step ``start`` on, and sizes, each unit's at the power of its largest.

    Of dz that is deep, mantissas and exponents are taken.
    """
    count, s, begin, stop, first, last = rows
    units, vague = of_powers.units, of_powers.vague
    zero = like(load(units, 0), 0.0)
    for v in range(0, hidden, lanes_of(units)):
        store(units, v, zero + NO_POWER)
        store(vague, v, zero)
    for fill in range(2):
        for q in range(begin, stop):
            for r in range(first, last):
                power, to = of_powers.row_powers[q * count + r], (q * count + r) * stride
                at = ((start + q) * count + r) * stride
                deep = start == s and along.deep[(s + q) * count + r] > 0
                for v in range(0, hidden, lanes_of(units)):
                    if deep:
                        m, e = load(along.mantissas, at + v), load(along.slope_powers, at + v)
                    else:
                        m, e = normalise_vector(load(array, at + v))
                    if power <= NO_POWER:
                        m = zero
                    unit = load(units, v)
                    if fill == 0:
                        store(units, v, maximum(unit, where(m != 0.0, e + power, NO_POWER)))
                    else:
                        value = where(m != 0.0, shifted(m, e + power - unit), 0.0)
                        store(of_powers.signed, to + v, value)
                        store(of_powers.dz, to + v, abs(value))
                        small = (m != 0.0) & (abs(value) < LOW_DZ)
                        store(vague, v, where(small, like(m, 1.0), load(vague, v)))


@part
def _find_tops(sizes, at, step, samples, length, tops):
    """The largest of each number over some samples."""
    for i in range(length):
        put(tops, i, 0.0)
    for k in range(samples):
        for i in range(length):
            put(tops, i, max(get(tops, i), get(sizes, at + k * step + i)))


@bare
def _is_whole(panel, table, rows, hidden, in_rows, of_powers):
    """Whether no digit of a table's terms lacks."""
    width, vague, tops = panel_width(panel), of_powers.vague, of_powers.tops
    good = True
    for p in range((hidden + width - 1) // width):
        start = min(p * width, hidden - width)
        for k in range(rows):
            for c in range(width):
                size = table[SIZES, (p * rows + k) * width + c]
                unit, other = (k, start + c) if in_rows else (start + c, k)
                some = size != 0.0 or (get(vague, unit) != 0.0 and get(tops, other) != 0.0)
                lost = size < LEAST and some
                good = good and size < math.inf and not lost
    return good


@bare
def _settle_components(panel, table, rows, hidden, in_rows, of_powers):
    """Settle a table, whose rows or columns have the exponents of units."""
    width = panel_width(panel)
    for p in range((hidden + width - 1) // width):
        start = min(p * width, hidden - width)
        for k in range(rows):
            for c in range(width):
                at = (p * rows + k) * width + c
                if table[SIZES, at] != 0.0:
                    add_term(table, at, get(of_powers.units, k if in_rows else start + c))


@bare
def settle_powered(sums, own, line, hidden, columns, open_powers, doubts):
    """Settle the sums of w1, b and w2; whether all digits are there."""
    if open_powers[own] == NO_POWER:
        return True
    power, doubtful = open_powers[own], doubts[own] > 0
    good = settle(sums.w1[own], line * columns, power, doubtful, LEAST)
    good &= settle(sums.w2[own], hidden * columns, power, doubtful, LEAST)
    return good


@part
def mark(lacks, own, each):
    """Mark one sequence, or all of a sum."""
    for r in range(lacks.size):
        if r == own or not each:
            lacks[r] = 1
