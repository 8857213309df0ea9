"""Beyond the range of floats, at either end: signs of the states that relu takes there.

Its slope needs nothing else: f'(z) is that of the state f(z), and of all multiples of it. The signs
are found number by number, each number with an exponent of its own.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastrnn import exact_walks, reach
from fastrnn.checks import FloatArray
from fastrnn.engine import FEWER, zeros
from fastrnn.reach import Reach
from fastrnn.sequences import Sequences
from fastrnn.threads import run

# Signs of states, a byte each: places in VALUES.
Signs = NDArray[np.int8]
VALUES = np.array([0.0, 1.0, np.nan])
Pair = tuple[int, int]


class Beyond:
    """Signs of the states of a job's nets and sequences, of those that leave floats."""

    def __init__(self, job: Sequences, workers: int | None) -> None:
        self.job, self.workers = job, workers
        self._signs: dict[Pair, Signs] = {}
        self._reach = Reach(job)
        if job.net.is_neuron and job.net.activation == "relu":
            self._find(_pairs(_far_inputs(job)))

    def mend(self, states: FloatArray, start: int, steps: NDArray[np.int64]) -> None:
        """Put signs in place of states (K, B, T, H) from which slopes would not be right.

        The first of the states is that after step ``start``; ``steps`` (B,) of them count.
        """
        count = states.shape[2]
        if self.job.net.activation != "relu" or count == 0:
            return
        self._reach.take(self.job.x[:, start : start + count], steps, states)
        self._find(_pairs(self._reach.was_left()))
        for (k, i), signs in self._signs.items():
            states[k, i, : steps[i]] = VALUES[signs[start : start + steps[i]]]

    def mend_sums(
        self,
        sums: NDArray[np.float64],
        start: int,
        steps: NDArray[np.int64],
        windows: NDArray[np.int64],
    ) -> None:
        """Put right sums (K, B, W) of a neuron's log|w2 f'| over windows (B,) of steps (B,).

        The first of them is step ``start``. A slope of 0 may be that of a state that was too small.
        """
        if self.job.net.activation != "relu":
            return
        dead = np.isneginf(sums).any(axis=2)
        if dead.any():
            rows = np.flatnonzero(dead.any(axis=0))
            left = np.zeros(dead.shape, bool)
            _, left[:, rows] = reach.forward(_of_sequences(self.job, rows), self.workers)
            self._find(_pairs(left & dead))
        for (k, i), signs in self._signs.items():
            starts = np.arange(0, steps[i], windows[i])
            if not len(starts):
                continue
            least = np.minimum.reduceat(VALUES[signs[start : start + steps[i], 0]], starts)
            w2 = abs(float(self.job.weights.w2[k, 0, 0]))
            log = math.log(w2) if w2 else -math.inf
            counts = np.minimum(windows[i], steps[i] - starts)
            # A step without a slope ends it all, and so does one that is NaN.
            dead = np.where(np.isnan(least), np.nan, -np.inf)
            sums[k, i, : len(starts)] = np.where(least > 0, counts * log, dead)

    def _find(self, pairs: list[Pair]) -> None:
        """Signs of all states of nets and sequences; NaN of NaN."""
        job, new = self.job, [pair for pair in pairs if pair not in self._signs]

        def call(pair: Pair) -> None:
            shape = job.size("TH")
            states, powers = (zeros("states", shape, d, FEWER) for d in (job.dtype, np.float64))
            exact_walks.forward(job, *pair, (states, powers))
            self._signs[pair] = np.where(np.isnan(states), 2, states > 0).astype(np.int8)

        if new and job.x.shape[1]:
            run(call, new, self.workers)


def _pairs(lanes: NDArray[np.bool_]) -> list[Pair]:
    """Nets and sequences that are marked (K, B)."""
    return [(k, i) for k, i in np.argwhere(lanes).tolist()]


def _of_sequences(job: Sequences, rows: NDArray[np.int64]) -> Sequences:
    return replace(job, x=job.x[rows], h0=job.h0[:, rows], lengths=job.lengths[rows])


def _far_inputs(job: Sequences) -> NDArray[np.bool_]:
    """Whether inputs alone may bring a neuron to the end of floats, or back from there (K, B).

    One that its weight brought there is at infinity, with the right slope, and stays there.
    """
    where: NDArray[np.bool_] | bool = True
    if job.is_ragged:
        where = (np.arange(job.x.shape[1]) < job.lengths[:, None])[..., None]
    most, least = (
        np.asarray(reduce(job.x, axis=(1, 2), initial=0.0, where=where), np.float64)
        for reduce in (np.max, np.min)
    )
    w1, b, h0 = (
        abs(array[..., 0].astype(np.float64))
        for array in (job.weights.w1[..., 0], job.weights.b, job.h0)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        inputs = w1[:, None] * np.maximum(most, -least) + b[:, None]
        size = np.maximum(job.lengths * inputs, h0)
        return np.asarray(size >= np.finfo(job.dtype).max / 4)
