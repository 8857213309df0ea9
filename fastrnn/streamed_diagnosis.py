"""Diagnosis of series larger than memory: read a block of time at a time, forwards and then back.

What has an axis of time is kept of the last block alone, the newest steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import engine, engine_scaled, streams
from fastrnn.diagnosis import (
    Diagnosis,
    Findings,
    assembled,
    log10_norm,
    saturated_steps,
)
from fastrnn.exponents import Doubles, Estimate, batch_lengths, largest
from fastrnn.forgetting import HORIZON_DECADES
from fastrnn.growth import close_windows, new_windows
from fastrnn.kernels.neuron_gradient import SEGMENT
from fastrnn.lanes import Carried
from fastrnn.rnn import RNN
from fastrnn.sequences import Sequences, sequences

# Numbers made of each state: its influence in two parts, its logarithm, and what that takes.
EACH = 8


def streamed_diagnosis(net: RNN, x: Any, h0: Any, workers: int | None) -> Diagnosis | None:
    """The diagnosis of a neuron over a lazy array; None where numbers are to be walked exactly."""
    parts = streams.parts(net, x, each=EACH * net.bank_size, unit=SEGMENT)
    run, starts = _Run(x.shape[-1]), [h0]
    for part in parts:
        job = sequences(net, streams.read(x, part), h0=starts[-1])
        starts.append(run.lead(job, workers))
        if not np.isfinite(starts[-1]).all():
            return None
    seed = np.broadcast_to(job.output_seed(None)[:, None], job.size("KBH"))
    carried, back = Carried.start(seed), _Back()
    for part, start in zip(reversed(parts), reversed(starts[:-1]), strict=True):
        job = sequences(net, streams.read(x, part), h0=start)
        by_x, outside = engine_scaled.neuron_influence(job, carried, workers=workers)
        if outside.any():
            return None
        back.take(by_x)
    found = Findings(
        influence=back.newest,
        first=by_x[:, :, 0],
        share=back.share(back.by_lag[..., ::-1]),
        first_share=back.share(back.oldest[..., None])[..., 0],
        by_lag=back.by_lag,
        horizon=back.horizon(),
        decades=back.decades(),
        growth=run.growth(),
        saturated=run.saturated / run.steps,
        mean=run.total / run.steps,
    )
    return assembled(job, found, np.full(len(job.x), run.steps))


class _Run:
    """What is summed up forwards."""

    def __init__(self, steps: int) -> None:
        self.steps, self.step = steps, 0
        self.saturated: Any = 0
        self.total: Any = 0.0

    def lead(self, job: Sequences, workers: int | None) -> Any:
        """Take a block; the state after it, as the caller of a verb has it."""
        if self.step == 0:
            self.windows = batch_lengths(np.full(len(job.x), self.steps))
            count = -(-self.steps // int(self.windows[0]))
            self.open_windows = new_windows((*job.size("KB"), 1))
            self.sums = np.zeros((*job.size("KB"), count, 1))
        states, last = engine.forward(job, keep=True, workers=workers)
        self.saturated = self.saturated + saturated_steps(job, states)
        with np.errstate(over="ignore", invalid="ignore"):
            self.total = self.total + job.x[..., 0].sum(axis=1, dtype=np.float64)
        engine.lanes(job, workers).growth(
            job.h0, self.step, self.windows, self.open_windows[..., 0], self.sums[..., 0]
        )
        self.step += job.x.shape[1]
        return job.visible(last, "KBH")

    def growth(self) -> Estimate:
        """The exponent of all blocks."""
        steps = np.full(len(self.windows), self.steps)
        close_windows(self.sums, self.open_windows, steps, self.windows)
        return largest(self.sums, steps, self.windows, False)


class _Back:
    """What is found backwards."""

    def __init__(self) -> None:
        self.lags = 0

    def take(self, by_x: Any) -> None:
        """Take the influences (K, B, T, 1) of a block."""
        by_lag = log10_norm(by_x)[..., ::-1]
        if self.lags == 0:
            self.newest, self.by_lag = by_x, by_lag
            self._horizon = np.full(by_lag.shape[:2], np.inf)
            self._top, self._total = np.full(by_lag.shape[:2], -np.inf), np.zeros(by_lag.shape[:2])
        below = by_lag < self.by_lag[..., :1] - HORIZON_DECADES
        first = np.where(below.any(axis=-1), self.lags + below.argmax(axis=-1), np.inf)
        self._horizon = np.minimum(self._horizon, first)
        top = np.maximum(self._top, by_lag.max(axis=-1))
        level = np.where(np.isneginf(top), 0.0, top)
        self._total *= 10.0 ** np.where(np.isneginf(self._top), 0.0, self._top - level)
        self._total += (10.0 ** (by_lag - level[..., None])).sum(axis=-1)
        self._top, self.oldest = top, by_lag[..., -1]
        self.lags += by_lag.shape[-1]

    def share(self, log10: Doubles) -> Doubles:
        """Of some influences in the sum of all."""
        level = np.where(np.isneginf(self._top), 0.0, self._top)[..., None]
        total = np.where(self._total == 0, 1.0, self._total)[..., None]
        return np.asarray(10.0 ** (log10 - level) / total)

    def horizon(self) -> Doubles:
        """Memory horizon, as `Diagnosis` has it."""
        return np.where(np.isneginf(self.by_lag[..., 0]), 0.0, self._horizon)

    def decades(self) -> Doubles:
        """Decades from the oldest to the newest influence."""
        newest = self.by_lag[..., 0]
        with np.errstate(invalid="ignore"):
            return np.where(np.isneginf(newest), -np.inf, self.oldest - newest)
