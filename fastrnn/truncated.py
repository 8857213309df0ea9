"""Truncated back-propagation through time: gradients that reach back to the start of a window.

Every window of k steps starts from its true state, but the gradient ends there. So windows are
sequences of their own, side by side, as many at a time as memory is to hold their states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastrnn import engine, engine_scaled
from fastrnn.checks import FloatArray
from fastrnn.kernels.sums import ordered_sum
from fastrnn.memory import BudgetTooSmall
from fastrnn.sequences import Sequences

# States held at a time: 16 MB of float32.
STATES = 1 << 22

HalfSquares = Callable[[Sequences, FloatArray, int | None], dict[str, FloatArray]]


def in_windows(
    job: Sequences,
    target: FloatArray,
    k: int,
    half_squares: HalfSquares,
    *,
    per_sequence: bool,
    workers: int | None,
    memory: int | None = None,
) -> dict[str, FloatArray]:
    """Sums over all windows of what ``half_squares`` of a job of windows gives, per sequence."""
    nets, batch_size, steps = job.size("KBT")
    together, left = _together(job, k, memory)
    sums: dict[str, FloatArray] = {}
    state, start = job.h0, 0
    while start < steps:
        # The last window may be shorter, and is by itself then.
        count = min(together, (steps - start) // k)
        width = min(k, steps - start)
        end = start + max(1, count) * width
        part = replace(job, x=job.x[:, start:end], h0=state, lengths=_within(job, start, end))
        windows, state = _windows(part, width, workers)
        found = half_squares(windows, _cut(target[:, :, start:end], width), left)
        for name in ("loss", *job.weight_names):
            shape = found[name].shape[2:]
            terms = found[name].reshape(nets * batch_size, max(1, count), *shape)
            before = sums[name].reshape(len(terms), *shape) if name in sums else None
            sums[name] = ordered_sum(terms, before).reshape(nets, batch_size, *shape)
        start = end
    return sums if per_sequence else {name: ordered_sum(array) for name, array in sums.items()}


def _together(job: Sequences, k: int, memory: int | None) -> tuple[int, int | None]:
    """Windows at a time, and what is left of a budget for their gradients."""
    nets, batch_size, hidden, inputs, outputs = job.size("KBHFO")
    together = max(1, STATES // max(1, k * nets * batch_size * hidden))
    if memory is None:
        return together, None
    numbers = k * (nets * (hidden + outputs) + inputs) + 2 * nets * hidden
    held, none = batch_size * numbers * job.dtype.itemsize, np.zeros((), job.dtype)
    while True:
        rows = batch_size * together
        windows = replace(
            job,
            x=np.broadcast_to(none, (rows, k, inputs)),
            h0=np.broadcast_to(none, (nets, rows, hidden)),
            lengths=np.full(rows, k),
        )
        needed = together * held + engine_scaled.least_memory(windows, each=True)
        if needed <= memory:
            return together, memory - together * held
        if together == 1:
            raise BudgetTooSmall(memory, needed)
        together //= 2


def _windows(part: Sequences, width: int, workers: int | None) -> tuple[Sequences, FloatArray]:
    """The windows of some steps as sequences of their own, and the state after all of them."""
    states, last = engine.forward(part, keep=True, workers=workers)
    starts = np.concatenate([part.h0[:, :, None], states[:, :, width - 1 : -1 : width]], axis=2)
    firsts = np.arange(0, part.x.shape[1], width)
    lengths = np.clip(part.lengths[:, None] - firsts, 0, width)
    windows = replace(
        part,
        x=part.x.reshape(lengths.size, width, part.x.shape[2]),
        h0=starts.reshape(len(starts), lengths.size, starts.shape[3]),
        lengths=lengths.ravel(),
    )
    return windows, last


def _cut(target: FloatArray, width: int) -> FloatArray:
    """Targets (K, B, T, O) as those of windows (K, B * T / width, width, O)."""
    nets, batch_size, steps, outputs = target.shape
    return target.reshape(nets, batch_size * steps // width, width, outputs)


def _within(job: Sequences, start: int, end: int) -> Any:
    return np.clip(job.lengths - start, 0, end - start)
