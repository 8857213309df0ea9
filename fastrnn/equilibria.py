"""Fixed points of the scalar neuron: where it comes to rest, or would.

A fixed point h = f(a + w2 h), a = w1 x + b, is a root of G(z) = z - a - w2 f(z). Between the points
where G' = 1 - w2 f'(z) is 0, of which a bounded f has at most two, G is monotone: each such stretch
has one root or none, found by bisection down to neighbouring floats. Where roots meet, G is the
difference of nearly equal terms; there it is made of what f departs from its tangent at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.activations import activate, derivative

Doubles = NDArray[np.float64]

# A neuron with a bounded f has at most so many.
MOST = 3
LARGEST = np.finfo(np.float64).max
# Halvings of all floats that leave two neighbours.
BISECTIONS = 64
# f(z) = MIDDLE + STEEPEST * (z - WIDTH * excess(z / WIDTH)), excess(y) = y - tanh(y).
MIDDLE = {"tanh": 0.0, "sigmoid": 0.5}
STEEPEST = {"tanh": 1.0, "sigmoid": 0.25}
WIDTH = {"tanh": 1.0, "sigmoid": 2.0}
# y cosh y - sinh y = y**3 times a series in y**2, all of its terms positive.
SERIES = tuple(2 * n / math.factorial(2 * n + 1) for n in range(1, 12))
# How far w2 f'(0) is from 1 where z and w2 f(z) take most of each other away.
NEAR = 0.5
# Roundings of G, in units in the last place of the terms it is made of.
ROUNDING = 8 * 2.0**-52


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """Fixed points of neurons under constant inputs, by growing h; NaN where there are fewer.

    Attributes
    ----------
    h : ndarray, shape [K,] ..., 3
        States that reproduce themselves.
    multiplier : ndarray, shape [K,] ..., 3
        W2 f'(z) there: by what a small deviation is multiplied each step. At the kink of relu, a
        state of 0 under no input, that of the side on which deviations go on: W2 where it is
        positive, else 0.
    stable : ndarray of bool, shape [K,] ..., 3
        Whether deviations die out: its absolute value is below 1.
    continuum : ndarray of bool, shape [K,] ...
        Whether every state (identity), or every one from 0 on (relu), is a fixed point: W2 = 1
        under no input. 0 stands for all of them.
    """

    h: Any
    multiplier: Any
    stable: Any
    continuum: Any

    @property
    def count(self) -> Any:
        """How many there are, [K,] ...."""
        return (~np.isnan(self.h)).sum(axis=-1)


def fixed_points_of(activation: str, a: Doubles, w2: Doubles) -> FixedPoints:
    """Fixed points for arrays of a = w1 x + b and w2 of one shape."""
    with np.errstate(all="ignore"):
        if activation in ("relu", "identity"):
            z, continuum = _of_lines(activation, a, w2), (a == 0) & (w2 == 1)
            special, value = (z == 0) & (activation == "relu"), np.maximum(w2, 0.0)[..., None]
        else:
            (z, special), value = _of_curves(activation, a, w2), np.ones(1)
            continuum = np.zeros(a.shape, bool)
        multiplier = np.where(special, value, w2[..., None] * derivative(activation, z))
        multiplier = np.where(np.isnan(z), np.nan, multiplier)
        stable = abs(multiplier) < 1
        return FixedPoints(activate(activation, z), multiplier, stable, continuum[()])


def _of_lines(activation: str, a: Doubles, w2: Doubles) -> Doubles:
    """Roots z (..., 3) where f is made of straight lines."""
    z = np.full((*a.shape, MOST), np.nan)
    # h = z = a + w2 z, past the range of floats inf. Where every z is one, 0 stands for them.
    line = np.where(a == 0, 0.0, np.where(w2 == 1, np.nan, a / (1 - w2)))
    z[..., 0] = line
    if activation == "relu":
        z[..., 1] = np.where(line > 0, line, np.nan)
        z[..., 0] = np.where(a <= 0, a, np.nan)
    return np.sort(z, axis=-1)


def _of_curves(activation: str, a: Doubles, w2: Doubles) -> tuple[Doubles, NDArray[np.bool_]]:
    """Roots z (..., 3) of a bounded f, each in its stretch, and which of them are double.

    Two that are nearer than the rounding of G can tell are one, at the point where G turns.
    """
    a, w2 = a[..., None], w2[..., None]
    steepest, width = STEEPEST[activation], WIDTH[activation]
    far = np.minimum(2 * (abs(a) + abs(w2) + 1), LARGEST)
    # f'(z) is steepest / cosh(z / width)**2.
    folded = w2 * steepest > 1
    fold = width * np.arcsinh(np.sqrt(np.where(folded, w2 * steepest - 1, 0.0)))
    (top, top_size), (bottom, bottom_size) = (_residue(activation, z, a, w2) for z in (-fold, fold))
    # Rounding decides nothing: a root that is there for one sign of it, and not for the other.
    touches = [
        folded & (abs(value) <= ROUNDING * size) & (size < np.inf)
        for value, size in ((top, top_size), (bottom, bottom_size))
    ]
    above, below = (top > 0) & ~touches[0], (bottom < 0) & ~touches[1]
    # Where nothing folds, the whole line is the first stretch.
    exists = np.concatenate([~folded | above, folded & above & below, folded & below], axis=-1)
    low = np.concatenate([-far, -fold, fold], axis=-1)
    high = np.concatenate([np.where(folded, -fold, far), fold, far], axis=-1)
    z = _bisect(activation, a, w2, low, high)
    # The tangent at 0 goes through it: one root is exact.
    centre = np.concatenate([~folded, folded, np.zeros_like(folded)], axis=-1)
    z = np.where(centre & (a + w2 * MIDDLE[activation] == 0), 0.0, z)
    double = np.concatenate([touches[0], np.zeros_like(folded), touches[1]], axis=-1)
    z = np.where(double, np.concatenate([-fold, fold, fold], axis=-1), z)
    z = np.where(exists | double, z, np.nan)
    order = np.argsort(z, axis=-1)
    return np.take_along_axis(z, order, -1), np.take_along_axis(double, order, -1)


def _residue(activation: str, z: Doubles, a: Doubles, w2: Doubles) -> tuple[Doubles, Doubles]:
    """G(z), and the size of the terms that it is made of."""
    z, a, w2 = np.broadcast_arrays(z, a, w2)
    product = w2 * activate(activation, z)
    value, size = (z - a) - product, abs(z) + abs(a) + abs(product)
    steepest, width = STEEPEST[activation], WIDTH[activation]
    near = (abs(z) < width) & (abs(w2 * steepest - 1) < NEAR)
    if near.any():
        z, a, w2 = z[near], a[near], w2[near]
        linear, offset = z * (1 - w2 * steepest), a + w2 * MIDDLE[activation]
        curved = w2 * (steepest * width) * _excess(z / width)
        value[near] = (linear - offset) + curved
        size[near] = abs(linear) + abs(offset) + abs(curved)
    return value, size


def _excess(y: Doubles) -> Doubles:
    """y - tanh(y) for |y| <= 1, to full relative accuracy."""
    square, series = y * y, np.zeros_like(y)
    for factor in reversed(SERIES):
        series = series * square + factor
    return y * square * series / np.cosh(y)


def _bisect(activation: str, a: Doubles, w2: Doubles, low: Doubles, high: Doubles) -> Doubles:
    """Of two neighbouring floats around the root in each stretch, the better one."""
    rising = np.array([True, False, True])
    left, right = _place(low), _place(high)
    for _ in range(BISECTIONS):
        middle = (left & right) + ((left ^ right) >> 1)
        value, _ = _residue(activation, _float(middle), a, w2)
        later = (value < 0) == rising
        left, right = np.where(later, middle, left), np.where(later, right, middle)
    low, high = _float(left), _float(right)
    before, after = (abs(_residue(activation, z, a, w2)[0]) for z in (low, high))
    return np.where(before < after, low, high)


def _place(values: Doubles) -> NDArray[np.int64]:
    """Places of floats among all floats, 0 in the middle."""
    bits = values.view(np.int64)
    return np.where(bits < 0, -(bits & np.int64(2**63 - 1)), bits)


def _float(places: NDArray[np.int64]) -> Doubles:
    return np.copysign(abs(places).view(np.float64), places)
