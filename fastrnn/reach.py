"""Reach: whether plain floats were enough for a forward walk.

They are, to the last bit, where no sum on the way could overflow and no product that counts could
underflow. The largest and the least numbers that were multiplied say so, unlike the results: what
overflowed may come out of a tanh as 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastrnn import engine
from fastrnn.checks import FloatArray
from fastrnn.sequences import Sequences

# Numbers of a piece of a walk, of which the largest and the least are found.
PIECE_NUMBERS = 1 << 20

Doubles = NDArray[np.float64]


class Reach:
    """The largest and the least sizes that a job's walk met so far; inf and NaN are left out."""

    def __init__(self, job: Sequences) -> None:
        self._job = job
        batch_size, inputs = job.size("BF")
        self._largest_x = np.zeros((batch_size, inputs))
        self._least_x = np.full(batch_size, np.inf)
        start = _finite_sizes(job.h0)
        self._largest_h = start
        self._least_h = _least_of_nonzero(start, 2)
        self._smallest_h = np.full(self._least_h.shape, np.inf)

    def take(self, x: FloatArray, lengths: NDArray[np.int64], states: FloatArray) -> None:
        """Take steps of the inputs (B, S, F) and the states that follow (K, B, S, H)."""
        inputs, states = _finite_sizes(x), _finite_sizes(states)
        inputs[np.arange(x.shape[1]) >= lengths[:, None]] = 0.0
        self._largest_x = np.maximum(self._largest_x, inputs.max(axis=1))
        self._least_x = np.minimum(self._least_x, _least_of_nonzero(inputs, 1))
        self._largest_h = np.maximum(self._largest_h, states.max(axis=2))
        self._least_h = np.minimum(self._least_h, _least_of_nonzero(states, 2))
        self._smallest_h = np.minimum(self._smallest_h, states.min(axis=(2, 3)))

    def was_left(self) -> NDArray[np.bool_]:
        """Nets and sequences (K, B) for which floats may not have been enough."""
        w1, w2, b, _, _ = (_finite_sizes(weight) for weight in self._job.weights)
        counts, is_small = _least_that_counts(self._job.dtype)
        with np.errstate(over="ignore", under="ignore"):
            sums = np.einsum("khf,bf->kbh", w1, self._largest_x) + b[:, None]
            sums = sums + np.einsum("khj,kbj->kbh", w2, self._largest_h)
            least = np.minimum(
                _least_of_nonzero(w1, 1)[:, None] * self._least_x,
                _least_of_nonzero(w2, 1)[:, None] * self._least_h,
            )
        overflows = ~(sums < np.finfo(self._job.dtype).max / 2).all(axis=2)
        return np.asarray(overflows | ((least < counts) & (self._smallest_h < is_small)))


def forward(
    job: Sequences, workers: int | None, states: FloatArray | None = None
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The last state (K, B, H), and for which nets and sequences (K, B) floats were not enough.

    All states go into ``states`` (K, B, T, H) if given.
    """
    reach, last = Reach(job), job.h0.copy()
    for start, piece in _pieces(job):
        piece = replace(piece, h0=last)
        into = None if states is None else states[:, :, start : start + piece.x.shape[1]]
        found, last = engine.forward(piece, keep=True, workers=workers, states=into)
        reach.take(piece.x, piece.lengths, found)
    return last, reach.was_left()


def _pieces(job: Sequences) -> Iterator[tuple[int, Sequences]]:
    """A job cut in time, with the first step of each piece: few numbers of each array."""
    steps = max(1, PIECE_NUMBERS // max(1, math.prod(job.size("KBH")), math.prod(job.size("BF"))))
    for start in range(0, job.x.shape[1], steps):
        x = job.x[:, start : start + steps]
        yield start, replace(job, x=x, lengths=np.clip(job.lengths - start, 0, x.shape[1]))


def _finite_sizes(array: FloatArray) -> Doubles:
    """Absolute values, 0 of what is not finite."""
    sizes = abs(array.astype(np.float64))
    sizes[~np.isfinite(sizes)] = 0.0
    return sizes


def _least_of_nonzero(sizes: Doubles, axis: int) -> Doubles:
    """Over ``axis`` and all later ones; inf where there is none."""
    axes = tuple(range(axis, sizes.ndim))
    return np.asarray(sizes.min(axis=axes, where=sizes > 0, initial=np.inf))


def _least_that_counts(dtype: DTypeLike) -> tuple[float, float]:
    """The least product with all of its digits, and a state that smaller ones do not reach."""
    digit = float(np.finfo(dtype).eps)
    product = float(np.finfo(dtype).smallest_subnormal) / digit**2
    return product, product / digit
