"""Norms of the Jacobian dh_T / dh_{T-lag}, a product of as many matrices diag(f') W2 as the lag.

The product is kept near 1 with an exponent beside it. Its smallest singular value drowns in the
rounding of the largest after some steps; so the inverse is multiplied up too, whose largest is the
inverse of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastrnn.activations import derivative_scaled
from fastrnn.checks import FloatArray
from fastrnn.scaled import Scaled
from fastrnn.sequences import Sequences

# Above, singular values are not looked for.
MOST_UNITS = 64

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
        Smallest singular value, by which one grows at least; 0 where W2, to working precision, or
        some f' is singular, None where H > 64.
    frobenius : Scaled, shape [K,] [B,] L
        Root of the sum of all squares.
    """

    lags: NDArray[np.int64]
    largest: Scaled | None
    smallest: Scaled | None
    frobenius: Scaled


@dataclass(eq=False)
class Product:
    """Matrices (K, B, H, H) times 2**powers (K, B)."""

    matrix: Doubles
    powers: Doubles

    @classmethod
    def start(cls, lanes: tuple[int, ...], hidden: int) -> Product:
        """Unit matrices."""
        unit = np.broadcast_to(np.eye(hidden), (*lanes, hidden, hidden))
        return cls(np.array(unit), np.zeros(lanes))

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
        self.powers = np.where(where, self.powers + top[..., 0], self.powers)

    def become(self, matrix: Doubles, power: Doubles, where: FloatArray) -> None:
        """Another matrix, 2**power times as large, near 1 again."""
        _, own = np.frexp(abs(matrix).max(axis=(-2, -1)))
        matrix = np.ldexp(matrix, -own[..., None, None])
        self.matrix = np.where(where[..., None, None], matrix, self.matrix)
        self.powers = np.where(where, self.powers + own + power, self.powers)

    def largest(self) -> Scaled:
        """Largest singular value (K, B)."""
        finite = np.asarray(np.isfinite(self.matrix).all(axis=(-2, -1)))
        safe = np.where(finite[..., None, None], self.matrix, 0.0)
        value = np.linalg.svd(safe, compute_uv=False)[..., 0]
        return Scaled(np.where(finite, value, np.nan), self.powers)

    def frobenius(self) -> Scaled:
        """Root of the sum of squares (K, B)."""
        return Scaled(np.sqrt((self.matrix**2).sum(axis=(-2, -1))), self.powers)


# Binades that take any float to 0 or inf.
FAR = 4000


def jacobian_norms_of(job: Sequences, states: FloatArray, lags: NDArray[np.int64]) -> JacobianNorms:
    """Norms along the computed states (K, B, T, H)."""
    lanes, hidden = job.size("KB"), job.net.hidden_size
    w2 = job.weights.w2.astype(np.float64)
    _, power = np.frexp(abs(w2).max(axis=(1, 2)))
    w2 = np.ldexp(w2, -power[:, None, None])
    small = hidden <= MOST_UNITS
    invertible = _invertible(w2) if small else np.zeros(len(w2), bool)
    solvable = np.where(invertible[:, None, None], w2, np.eye(hidden))[:, None]
    regular = np.ones(lanes, bool)
    product, inverse = Product.start(lanes, hidden), Product.start(lanes, hidden)
    wanted = set(lags.tolist())
    found: dict[int, tuple[Scaled, ...]] = {}
    for lag in range(int(lags.max(initial=-1)) + 1):
        running = np.broadcast_to(job.lengths >= lag, lanes)
        if lag:
            slope = _slope(job, states, lag)
            product.scale(-1, slope.mantissa, slope.exponent, running)
            product.become(product.matrix @ w2[:, None], power[:, None], running)
        if lag and small:
            flat = slope.sign == 0
            regular = regular & invertible[:, None] & ~flat.any(axis=-1)
            inverse.scale(-2, 1 / np.where(flat, 1.0, slope.mantissa), -slope.exponent, running)
            solved = np.asarray(np.linalg.solve(solvable, inverse.matrix))
            inverse.become(solved, -power[:, None], running)
        if lag in wanted:
            norms = [product.frobenius()]
            if small:
                norms += [
                    product.largest(),
                    Scaled(np.where(regular, 1.0, 0.0)) / inverse.largest(),
                ]
            found[lag] = tuple(_known(norm, running) for norm in norms)
    columns = [[found[lag][n] for lag in lags.tolist()] for n in range(3 if small else 1)]
    frobenius, *values = (job.visible(_stack(column, lanes), "KB") for column in columns)
    largest, smallest = values if small else (None, None)
    return JacobianNorms(lags, largest, smallest, frobenius)


def _invertible(w2: Doubles) -> NDArray[np.bool_]:
    """Whether matrices (K, H, H) are regular to working precision."""
    values = np.linalg.svd(w2, compute_uv=False)
    eps = np.finfo(np.float64).eps
    return np.asarray(values[:, -1] > w2.shape[-1] * eps * values[:, 0])


def _slope(job: Sequences, states: FloatArray, lag: int) -> Scaled:
    """f' (K, B, H) of the step that the state ``lag`` before the last goes into."""
    w1, w2, b, _, _ = (weight.astype(np.float64) for weight in job.weights)
    time = np.maximum(job.lengths - lag, 0)
    rows = np.arange(len(time))
    before = states[:, rows, np.maximum(time - 1, 0)]
    before = np.where((time > 0)[:, None], before, job.h0).astype(np.float64)
    x = job.x[rows, time].astype(np.float64)
    # A product for each lane by itself, so that its bits do not depend on the others.
    z = (w2[:, None] @ before[..., None])[..., 0] + (w1[:, None] @ x[..., None])[..., 0]
    return derivative_scaled(job.net.activation, z + b[:, None])


def _known(value: Scaled, running: FloatArray) -> Scaled:
    """NaN past a sequence's first step."""
    return Scaled(np.where(running, value.mantissa, np.nan), value.exponent)


def _stack(values: list[Scaled], lanes: tuple[int, ...]) -> Scaled:
    """An axis of lags, as the last."""
    mantissas, exponents = np.empty((2, *lanes, len(values)))
    for n, value in enumerate(values):
        mantissas[..., n], exponents[..., n] = value.mantissa, value.exponent
    return Scaled(mantissas, exponents)
