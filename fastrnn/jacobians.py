"""Norms of the Jacobian dh_T / dh_{T-lag}, a product of as many matrices diag(f') W2 as the lag.

The product is kept near 1 with an exponent beside it. Its smallest singular value drowns in the
rounding of the largest after some steps; so the inverse is multiplied up too, whose largest is the
inverse of it. Of one unit, all norms are the absolute product of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.activations import derivative_scaled
from fastrnn.checks import FloatArray
from fastrnn.folds import fold
from fastrnn.kernels import BOUNDED, WORKING_PRECISION
from fastrnn.scaled import Scaled
from fastrnn.sequences import Sequences

# Above, singular values are not looked for.
MOST_UNITS = 64
# Binades that take any float to 0 or inf.
FAR = 4000
# Slopes of neurons that are looked at together.
BLOCK = 1 << 18

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class JacobianNorms:
    """Norms of dh_T / dh_{T-lag} for every net, sequence and lag; NaN past a sequence's first step.

    Attributes
    ----------
    lags : ndarray of int, shape (L,)
        Steps back from the last state.
    largest : Scaled, shape [K,] [B,] L, or None
        Largest singular value, by which a perturbation grows at most; None where H > 64.
    smallest : Scaled, shape [K,] [B,] L, or None
        Smallest singular value, by which one grows at least; 0 where some f' is 0 or W2 is singular
        to working precision, whatever units its rows and columns are measured in; None where
        H > 64.
    frobenius : Scaled, shape [K,] [B,] L
        Root of the sum of all squares.
    """

    lags: NDArray[np.int64]
    largest: Scaled | None
    smallest: Scaled | None
    frobenius: Scaled


@dataclass(eq=False)
class Product:
    """Matrices (K, B, H, H) times 2**(powers + rests) (K, B)."""

    matrix: Doubles
    powers: Doubles
    rests: Doubles

    @classmethod
    def start(cls, lanes: tuple[int, ...], hidden: int) -> Product:
        """Unit matrices."""
        unit = np.broadcast_to(np.eye(hidden), (*lanes, hidden, hidden))
        return cls(np.array(unit), np.zeros(lanes), np.zeros(lanes))

    def scale(self, axis: int, mantissa: Doubles, exponent: Doubles, where: FloatArray) -> None:
        """Rows or columns (axis -2, -1) times mantissa * 2**exponent (K, B, H), near 1 again."""
        across = -1 if axis == -2 else -2
        matrix = self.matrix * np.expand_dims(mantissa, across)
        _, own = np.frexp(abs(matrix).max(axis=across))
        # Zero times any power of two is 0, and no reason to make others small.
        some = (abs(matrix) > 0).any(axis=across)
        top = np.max(np.where(some, own + exponent, -np.inf), axis=-1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        shift = np.clip(exponent - top, -FAR, FAR).astype(np.int64)
        matrix = np.ldexp(matrix, np.expand_dims(shift, across))
        self.matrix = np.where(where[..., None, None], matrix, self.matrix)
        self.shift(top[..., 0], where)

    def shift(self, binades: Doubles, where: FloatArray) -> None:
        """Times 2**binades (K, B)."""
        powers = self.powers + binades
        rests = self.rests + _lost(self.powers, binades, powers)
        self.powers = np.where(where, powers, self.powers)
        self.rests = np.where(where, rests, self.rests)

    def become(self, matrix: Doubles, where: FloatArray) -> None:
        """Another matrix, near 1 again."""
        _, own = np.frexp(abs(matrix).max(axis=(-2, -1)))
        matrix = np.ldexp(matrix, -own[..., None, None])
        self.matrix = np.where(where[..., None, None], matrix, self.matrix)
        self.shift(own, where)

    def largest(self) -> Scaled:
        """Largest singular value (K, B)."""
        finite = np.asarray(np.isfinite(self.matrix).all(axis=(-2, -1)))
        safe = np.where(finite[..., None, None], self.matrix, 0.0)
        value = np.linalg.svd(safe, compute_uv=False)[..., 0]
        return Scaled(np.where(finite, value, np.nan), self.powers + self.rests)

    def frobenius(self) -> Scaled:
        """Root of the sum of squares (K, B)."""
        hidden = self.matrix.shape[-1]
        squares = self.matrix.reshape(*self.powers.shape, hidden * hidden) ** 2
        return Scaled(np.sqrt(fold(squares, -1)), self.powers + self.rests)


class Balanced(NamedTuple):
    """W2 (K, H, H) as 2**rows * matrix * 2**columns, rows and columns of the matrix near 1."""

    matrix: Doubles
    rows: Doubles
    columns: Doubles
    regular: NDArray[np.bool_]

    @classmethod
    def of(cls, w2: Doubles) -> Balanced:
        """Balanced W2; unit matrices stand for those that are singular to working precision."""
        _, rows = np.frexp(abs(w2).max(axis=2))
        matrix = np.ldexp(w2, -rows[:, :, None])
        _, columns = np.frexp(abs(matrix).max(axis=1))
        matrix = np.ldexp(matrix, -columns[:, None, :])
        values = np.linalg.svd(matrix, compute_uv=False)
        hidden = w2.shape[-1]
        regular = np.asarray(values[:, -1] > hidden * WORKING_PRECISION * values[:, 0])
        matrix = np.where(regular[:, None, None], matrix, np.eye(hidden))
        return cls(matrix, rows.astype(float), columns.astype(float), regular)


def jacobian_norms_of(job: Sequences, states: FloatArray, lags: NDArray[np.int64]) -> JacobianNorms:
    """Norms along the states (K, B, T, H), of which relu needs no more than the signs."""
    with np.errstate(all="ignore"):
        if job.net.hidden_size == 1:
            norm = job.visible(_of_numbers(job, states, lags), "KB")
            return JacobianNorms(lags, norm, norm, norm)
        columns = _of_matrices(job, states, lags)
    frobenius, *values = (job.visible(_stack(column, job.size("KB")), "KB") for column in columns)
    largest, smallest = values or (None, None)
    return JacobianNorms(lags, largest, smallest, frobenius)


def _of_numbers(job: Sequences, states: FloatArray, lags: NDArray[np.int64]) -> Scaled:
    """Absolute products (K, B, L) of w2 f'."""
    lanes = job.size("KB")
    w2 = Scaled(job.weights.w2[:, :, 0].astype(np.float64))
    product, shift, power, rest = (np.full(lanes, start) for start in (1.0, 0.0, 0.0, 0.0))
    mantissas, exponents = np.ones((*lanes, len(lags))), np.zeros((*lanes, len(lags)))
    longest, each = int(lags.max(initial=0)), max(1, BLOCK // max(1, product.size))
    for first in range(1, longest + 1, each):
        some = np.arange(first, min(first + each, longest + 1))
        slopes = _slopes(job, states, some)[..., 0]
        factors = abs(slopes.mantissa * w2.mantissa[:, :, None])
        # How far the product gets, near enough to keep it near 1 by powers of two.
        sizes = np.log2(np.where(factors > 0, factors, 1.0))
        shifts = np.rint(np.cumsum(sizes, axis=-1))
        steps = np.diff(shifts, axis=-1, prepend=0.0).astype(np.int64)
        factors = np.ldexp(factors, -steps)
        products = np.cumprod(_after(product, factors), axis=-1)
        powers = np.cumsum(_after(power, slopes.exponent), axis=-1)
        lost = _lost(powers[..., :-1], slopes.exponent, powers[..., 1:])
        rests = np.cumsum(_after(rest, lost), axis=-1)
        products, own = np.frexp(products)
        shifts = shift[..., None] + _after(np.zeros(lanes), shifts) + own
        here = np.flatnonzero((lags >= first) & (lags < first + each))
        at = lags[here] - (first - 1)
        mantissas[..., here] = products[..., at]
        exponents[..., here] = powers[..., at] + (rests[..., at] + shifts[..., at])
        product, shift, power, rest = (a[..., -1] for a in (products, shifts, powers, rests))
    within = lags <= job.lengths[:, None]
    return Scaled(np.where(within, mantissas, np.nan), exponents + lags * w2.exponent[:, :, None])


def _of_matrices(job: Sequences, states: FloatArray, lags: NDArray[np.int64]) -> list[list[Scaled]]:
    """Frobenius norm, and of few units the largest and smallest singular value, each by lag."""
    lanes, hidden = job.size("KB"), job.net.hidden_size
    w2 = np.ascontiguousarray(job.weights.w2, np.float64)
    small = hidden <= MOST_UNITS
    balanced = Balanced.of(w2)
    _, power = np.frexp(abs(w2).max(axis=(1, 2)))
    w2 = np.ldexp(w2, -power[:, None, None])
    every = np.ones(lanes, bool)
    regular = every & balanced.regular[:, None]
    product, inverse = Product.start(lanes, hidden), Product.start(lanes, hidden)
    wanted = set(lags.tolist())
    found: dict[int, tuple[Scaled, ...]] = {}
    for lag in range(int(lags.max(initial=-1)) + 1):
        running = np.broadcast_to(job.lengths >= lag, lanes)
        if lag:
            slope = _slopes(job, states, np.array([lag]))[:, :, 0]
            product.scale(-1, slope.mantissa, slope.exponent, running)
            product.become(product.matrix @ w2[:, None], running)
            product.shift(power[:, None], running)
        if lag and small and regular.any():
            flat = slope.sign == 0
            regular = regular & ~(flat.any(axis=-1) & running)
            exponent = -slope.exponent - balanced.rows[:, None]
            inverse.scale(-2, 1 / np.where(flat, 1.0, slope.mantissa), exponent, running)
            solved = np.asarray(np.linalg.solve(balanced.matrix[:, None], inverse.matrix))
            inverse.become(solved, running)
            columns = np.broadcast_to(-balanced.columns[:, None], slope.shape)
            inverse.scale(-2, np.ones(slope.shape), columns, running)
        if lag in wanted:
            norms = [product.frobenius()]
            if small:
                largest, inverted = product.largest(), 1.0 / inverse.largest()
                # NaN stays so in what is singular, too.
                mantissa = np.where(regular, inverted.mantissa, 0.0 * largest.mantissa)
                norms += [largest, Scaled(mantissa, inverted.exponent)]
            found[lag] = tuple(_known(norm, running) for norm in norms)
    return [[found[lag][n] for lag in lags.tolist()] for n in range(3 if small else 1)]


def _after(start: Doubles, steps: Doubles) -> Doubles:
    """What steps (K, B, n) follow on, and they."""
    return np.concatenate([start[..., None], steps], axis=-1)


def _lost(before: Doubles, term: Doubles, after: Doubles) -> Doubles:
    """What rounding takes from the sum of two numbers (Knuth): slopes of |z| > 1e15 need it."""
    back = after - before
    lost = (before - (after - back)) + (term - back)
    return np.where(np.isfinite(lost), lost, 0.0)


def _slopes(job: Sequences, states: FloatArray, lags: NDArray[np.int64]) -> Scaled:
    """f' (K, B, n, H) of the steps that the states ``lags`` (n,) before the last go into."""
    time = np.maximum(job.lengths[:, None] - lags, 0)
    rows = np.arange(len(time))[:, None]
    if job.net.activation not in BOUNDED:
        return derivative_scaled(job.net.activation, states[:, rows, time])
    w1, w2, b, _, _ = (np.ascontiguousarray(weight, np.float64) for weight in job.weights)
    before = states[:, rows, np.maximum(time - 1, 0)]
    before = np.where((time > 0)[..., None], before, job.h0[:, :, None])
    before, x = (np.ascontiguousarray(a, np.float64) for a in (before, job.x[rows, time]))
    if job.net.hidden_size == 1 and job.net.input_size == 1:
        z = w2[:, None] * before + w1[:, None] * x
    else:
        # A product for each lane and step by itself, so that its bits do not depend on others.
        z = (w2[:, None, None] @ before[..., None])[..., 0]
        z = z + (w1[:, None, None] @ x[..., None])[..., 0]
    return derivative_scaled(job.net.activation, z + b[:, None, None])


def _known(value: Scaled, running: FloatArray) -> Scaled:
    """NaN past a sequence's first step."""
    return Scaled(np.where(running, value.mantissa, np.nan), value.exponent)


def _stack(values: list[Scaled], lanes: tuple[int, ...]) -> Scaled:
    """An axis of lags, as the last."""
    mantissas, exponents = np.empty((2, *lanes, len(values)))
    for n, value in enumerate(values):
        mantissas[..., n], exponents[..., n] = value.mantissa, value.exponent
    return Scaled(mantissas, exponents)
