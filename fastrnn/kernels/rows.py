"""Rows of a layer's numbers, one a sequence: what is done to each number by itself.

Rows lie ``stride`` apart, see `panels.row_stride`; where that is their length they are walked as
one. Vectors may reach behind the last number of a row, into room that nothing is read from.
"""

import numpy as np

from fastrnn.kernels.activations import activate, with_slope
from fastrnn.kernels.jit import bare, part
from fastrnn.kernels.memory import get, lanes_of, load, put, store
from fastrnn.kernels.products import copy_row
from fastrnn.kernels.simd import any_lane, fma

# Steps whose squared errors are added up in the arrays' own type.
LOSS_STEPS = 32


@part
def lines_of(rows, hidden, stride):
    """Number and length of what can be walked vector after vector, with less than one past it."""
    return (1, rows * hidden) if stride == hidden else (rows, hidden)


@bare
def activate_rows(f, z, rows, hidden, stride, h):
    """h = f(z)."""
    lines, length = lines_of(rows, hidden, stride)
    for r in range(lines):
        for v in range(r * stride, r * stride + length, lanes_of(z)):
            store(h, v, activate(f, load(z, v)))


@bare
def activate_with_slopes(f, z, rows, hidden, stride, h, at, slopes, slopes_at):
    """f(z) and f'(z)."""
    lines, length = lines_of(rows, hidden, stride)
    for r in range(lines):
        for v in range(r * stride, r * stride + length, lanes_of(z)):
            value, slope = with_slope(f, load(z, v))
            store(h, at + v, value)
            store(slopes, slopes_at + v, slope)


@bare
def times_slopes(dh, rows, hidden, stride, slopes, at):
    """The slopes become dz = dh f'; what lies behind them are those of the step after."""
    lines, length = lines_of(rows, hidden, stride)
    n = lanes_of(dh)
    whole = length // n * n if stride == hidden else length
    for r in range(lines):
        for v in range(r * stride, r * stride + whole, n):
            store(slopes, at + v, load(dh, v) * load(slopes, at + v))
    for i in range(whole, length):
        put(slopes, at + i, get(dh, i) * get(slopes, at + i))


@bare
def add_rows(ups, rows, hidden, stride, dh):
    lines, length = lines_of(rows, hidden, stride)
    for r in range(lines):
        for v in range(r * stride, r * stride + length, lanes_of(dh)):
            store(dh, v, load(dh, v) + load(ups, v))


@bare
def add_errors(hs, at, ys, rows, hidden, stride, dh, squares):
    """Errors h - y to dh, and their squares."""
    lines, length = lines_of(rows, hidden, stride)
    for r in range(lines):
        for v in range(r * stride, r * stride + length, lanes_of(dh)):
            error = load(hs, at + v) - load(ys, v)
            store(dh, v, load(dh, v) + error)
            store(squares, v, fma(error, error, load(squares, v)))


@bare
def fold_squares(squares, rows, hidden, stride, each, loss):
    """Half the squares to the loss; they begin anew."""
    for r in range(rows):
        for unit in range(hidden):
            loss[r if each else 0, 0] += 0.5 * np.float64(get(squares, r * stride + unit))
    squares[:] = 0.0


@bare
def any_infinite(array, at, rows, length, stride):
    """Whether some number is infinite or NaN, and so 0 times it is not 0."""
    n = lanes_of(array)
    found = False
    for r in range(rows):
        start, stop = at + r * stride, at + r * stride + length
        for i in range(start, stop - length % n, n):
            found = found or any_lane(0.0 * load(array, i) != 0.0)
        for i in range(stop - length % n, stop):
            found = found or not np.isfinite(get(array, i))
    return found


@part
def clear_between(array, start, stop):
    for i in range(start, stop):
        put(array, i, 0.0)


@part
def store_row(panel, source, at, array, offset, stride, count):
    """A row to an array of any stride."""
    if stride == 1:
        copy_row(panel, source, at, array, offset, count)
    else:
        for i in range(count):
            put(array, offset + i * stride, get(source, at + i))


@part
def load_row(panel, array, offset, stride, target, to, count):
    """The way back."""
    if stride == 1:
        copy_row(panel, array, offset, target, to, count)
    else:
        for i in range(count):
            put(target, to + i, get(array, offset + i * stride))
