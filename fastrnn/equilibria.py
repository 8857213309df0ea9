"""Fixed points of the scalar neuron: where it comes to rest, or would.

A fixed point h = f(a + w2 h), a = w1 x + b, is a root of G(z) = z - a - w2 f(z). Between the points
where G' = 1 - w2 f'(z) is 0, of which a bounded f has at most two, G is monotone: each such stretch
has one root or none, found by bisection and sharpened by Newton's method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.activations import activate, derivative

Doubles = NDArray[np.float64]

# A neuron with a bounded f has at most so many.
MOST = 3
# z is looked for on a scale of asinh(z), of which the whole line has 1420.
BISECTIONS = 80
NEWTON_STEPS = 4
LARGEST = 1e308
# tanh z is made of exp(2z), the sigmoid of exp(z).
WIDTH = {"tanh": 1.0, "sigmoid": 2.0}


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """Fixed points of neurons under constant inputs, by growing h; NaN where there are fewer.

    Attributes
    ----------
    h : ndarray, shape [K,] ..., 3
        States that reproduce themselves.
    multiplier : ndarray, shape [K,] ..., 3
        W2 f'(z) there: by what a small deviation is multiplied each step.
    stable : ndarray of bool, shape [K,] ..., 3
        Whether deviations die out: its absolute value is below 1.
    """

    h: Any
    multiplier: Any
    stable: Any

    @property
    def count(self) -> Any:
        """How many there are, [K,] ...."""
        return (~np.isnan(self.h)).sum(axis=-1)


def fixed_points_of(activation: str, a: Doubles, w2: Doubles) -> FixedPoints:
    """Fixed points for arrays of a = w1 x + b and w2 of one shape."""
    if activation in ("relu", "identity"):
        z = _of_lines(activation, a, w2)
    else:
        z = _of_curves(activation, a, w2)
    h = activate(activation, z)
    with np.errstate(invalid="ignore"):
        multiplier = w2[..., None] * derivative(activation, z)
        return FixedPoints(h, multiplier, abs(multiplier) < 1)


def _of_lines(activation: str, a: Doubles, w2: Doubles) -> Doubles:
    """Roots z (..., 3) where f is made of straight lines."""
    z = np.full((*a.shape, MOST), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        # h = z = a + w2 z. Where every z is one, 0 stands for them.
        line = np.where(a == 0, 0.0, a / (1 - w2))
    z[..., 0] = np.where(np.isfinite(line), line, np.nan)
    if activation == "relu":
        z[..., 1] = np.where(line > 0, z[..., 0], np.nan)
        z[..., 0] = np.where(a <= 0, a, np.nan)
    return z


def _of_curves(activation: str, a: Doubles, w2: Doubles) -> Doubles:
    """Roots z (..., 3) of a bounded f, each in its stretch, double ones once."""
    steepest = derivative(activation, np.zeros(1))[0]
    far = np.minimum(abs(a) + abs(w2) + 1, LARGEST)
    folded = w2 * steepest > 1
    # f'(z) is steepest / cosh(z / width)**2.
    width = WIDTH[activation]
    fold = width * np.arccosh(np.sqrt(np.where(folded, w2 * steepest, 1.0)))
    edges = np.stack([-far, -fold, fold, far], axis=-1)
    # Where nothing folds, the whole line is the first stretch.
    edges[..., 1] = np.where(folded, edges[..., 1], far)
    low, high = edges[..., :-1], edges[..., 1:]
    a, w2 = a[..., None], w2[..., None]

    def residue(z: Doubles) -> Doubles:
        return np.asarray(z - a - w2 * activate(activation, z))

    first, last = residue(low), residue(high)
    exists = (first * np.sign(last) <= 0) & (folded[..., None] | (np.arange(MOST) == 0))
    rising = last >= first
    u, v = np.arcsinh(low), np.arcsinh(high)
    for _ in range(BISECTIONS):
        middle = (u + v) / 2
        right = (residue(np.sinh(middle)) < 0) == rising
        u, v = np.where(right, middle, u), np.where(right, v, middle)
    z = np.clip(np.sinh((u + v) / 2), low, high)
    for _ in range(NEWTON_STEPS):
        with np.errstate(divide="ignore", invalid="ignore"):
            step = z - residue(z) / (1 - w2 * derivative(activation, z))
            better = abs(residue(step)) < abs(residue(z))
        z = np.where(better, step, z)
    z = np.where(exists, z, np.nan)
    twice = np.zeros(z.shape, bool)
    twice[..., 1:] = z[..., 1:] == z[..., :-1]
    return np.sort(np.where(twice, np.nan, z), axis=-1)
