"""Tables of sums of numbers of any magnitude, a column for each component.

The first four rows are the numbers of ``scaled_sums``: sum, what rounding took from it, sum of
absolute terms, and an exponent that they lack. The last two take terms that all share one exponent
and their absolute values, until that exponent changes and they are settled. Columns are padded to
whole vectors of float64.
"""

from fastrnn.kernels.jit import bare, kernel, part
from fastrnn.kernels.memory import lanes_of, load, store
from fastrnn.kernels.powers import shifted
from fastrnn.kernels.scaled_sums import NO_POWER, add_totals
from fastrnn.kernels.simd import any_lane, first_lanes, like, maximum, where

VALUE, LOST, SIZE, POWER, TERMS, SIZES, TABLE = range(7)


@bare
def settle(table, count, power, doubtful, least):
    """Add the terms of ``count`` components at 2**power to the sums, and begin anew.

    Whether all their digits are there: terms are finite and, where some are ``doubtful``, no sum
    of absolute terms is below ``least``.
    """
    columns = table.shape[1]
    good = True
    for v in range(0, columns, lanes_of(table)):
        term, size = load(table, TERMS * columns + v), load(table, SIZES * columns + v)
        good = good and not any_lane(0.0 * size != 0.0)
        if doubtful:
            good = good and not any_lane(where(first_lanes(size, count - v), size, 1.0) < least)
        _add(table, columns, v, term, like(term, 0.0), size, like(term, power))
        store(table, TERMS * columns + v, like(term, 0.0))
        store(table, SIZES * columns + v, like(term, 0.0))
    return good


@bare
def add_term(table, column, power):
    """Add the term of one component, at 2**power, to its sum, and begin anew."""
    _add_totals(table, column, (table[TERMS, column], 0.0, table[SIZES, column], power))
    table[TERMS, column] = table[SIZES, column] = 0.0


@bare
def add_number(table, column, value, power):
    """Add value * 2**power to a sum."""
    _add_totals(table, column, (value, 0.0, abs(value), power))


@part
def _add_totals(table, column, term):
    found = add_totals(
        (table[VALUE, column], table[LOST, column], table[SIZE, column], table[POWER, column]), term
    )
    table[VALUE, column], table[LOST, column], table[SIZE, column], table[POWER, column] = found


@kernel
def add_table(table, total):
    """Add the sums of a table to those of another, of which all terms are settled."""
    columns = table.shape[1]
    for v in range(0, columns, lanes_of(table)):
        _add(
            total, columns, v, load(table, VALUE * columns + v), load(table, LOST * columns + v),
            load(table, SIZE * columns + v), load(table, POWER * columns + v),
        )  # fmt: skip


@part
def _add(table, columns, v, term, lost, size, power):
    value, before = load(table, VALUE * columns + v), load(table, LOST * columns + v)
    sizes, own = load(table, SIZE * columns + v), load(table, POWER * columns + v)
    # Nothing has no exponent.
    power = where(size != 0.0, power, NO_POWER)
    top = maximum(own, power)
    value, term = shifted(value, own - top), shifted(term, power - top)
    total = value + term
    back = total - value
    error = (value - (total - back)) + (term - back)
    store(table, VALUE * columns + v, total)
    lost = shifted(before, own - top) + shifted(lost, power - top) + error
    store(table, LOST * columns + v, lost)
    store(table, SIZE * columns + v, shifted(sizes, own - top) + shifted(size, power - top))
    store(table, POWER * columns + v, top)
