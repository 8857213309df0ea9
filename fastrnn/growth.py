"""Growth: what a net does to small perturbations of its state, step after step.

Of a neuron that is the factor w2 f'(z), of a layer the R of a QR decomposition. Their logarithms
are summed over windows of steps; exponents, error bars and local rates are made of those sums. A
run may be cut in time anywhere: state, tangent vectors and the open window are carried.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn import engine
from fastrnn.beyond import Beyond
from fastrnn.cached import cached_property
from fastrnn.checks import FloatArray
from fastrnn.engine import FEWER, zeros
from fastrnn.exponents import (
    BATCHES,
    Doubles,
    Estimate,
    Lyapunov,
    batch_lengths,
    directions,
    largest,
    local_rates,
    lyapunov_result,
)
from fastrnn.folds import halved
from fastrnn.kernels import ACTIVATIONS, neuron_growth, tangents
from fastrnn.sequences import Sequences
from fastrnn.threads import count_workers, run

# Multiply-adds of one call: some 50 ms, so that Ctrl-C is heard.
CALL_WORK = 1 << 26
# A step of a unit, its activation and its place in an order, beside them.
UNIT_WORK = 100
# W2 below 2**1000 times a unit vector does not overflow.
LARGEST_POWER = 1000
# Bytes of a layer's states that are held at a time.
SLICE_BYTES = 1 << 25
# Steps of a batch when a run that stops at a wanted standard error is first looked at.
FIRST_WINDOW = 16


class Packed(NamedTuple):
    """Weights of a bank of layers for the kernel; see there."""

    w1: Doubles
    w2: Doubles
    w2_powers: NDArray[np.int64]
    b: Doubles


@dataclass(eq=False)
class Growth:
    """A run of k tangent vectors along a job's states, and how far it has come."""

    job: Sequences
    k: int
    workers: int | None
    step: int = 0
    h: FloatArray = field(init=False)
    tangents: Doubles = field(init=False)

    def __post_init__(self) -> None:
        self.h, self._beyond = self.job.h0, Beyond(self.job, self.workers)
        nets, batch_size, hidden = self.h.shape
        self.tangents = np.zeros((0, 0, 0, 0))
        if not self.job.net.is_neuron:
            own = np.zeros((self.k, padded(hidden)))
            own[:, :hidden] = directions(hidden)[: self.k]
            self.tangents = np.array(np.broadcast_to(own, (nets, batch_size, *own.shape)))

    def sums(self, steps: NDArray[np.int64], windows: NDArray[np.int64]) -> Doubles:
        """Sums (K, B, W, k) over windows (B,) of the next steps (B,) of each sequence.

        The last window of a sequence may be shorter.
        """
        count = int(np.max(-(-steps // windows), initial=0))
        nets, batch_size, _ = self.h.shape
        found = zeros("local growth", (nets, batch_size, count, self.k), np.float64, FEWER)
        open_windows = new_windows((nets, batch_size, self.k))
        longest = int(steps.max(initial=0))
        x = self.job.x[:, self.step : self.step + longest]
        part = replace(self.job, x=x, h0=self.h, lengths=steps)
        if self.job.net.is_neuron:
            lanes = engine.lanes(part, self.workers)
            self.h = lanes.growth(self.h, 0, windows, open_windows[..., 0], found[..., 0])
            close_windows(found, open_windows, steps, windows)
            self._beyond.mend_sums(found[..., 0], self.step, steps, windows)
        else:
            self._lead(part, windows, open_windows, found)
            close_windows(found, open_windows, steps, windows)
        self.step += longest
        return found

    def _lead(
        self, job: Sequences, windows: NDArray[np.int64], open_windows: Doubles, found: Doubles
    ) -> None:
        """Lead the tangents of layers along the states of some steps, which are stored."""
        nets, batch_size, hidden = job.h0.shape
        work = hidden * (hidden * (self.k + 1) + 4 * self.k**2 + UNIT_WORK)
        held = 2 * nets * batch_size * hidden * 8
        slice_ = max(1, min(SLICE_BYTES // max(1, held), CALL_WORK // work))
        lanes = nets * batch_size
        each = max(1, min(CALL_WORK // (slice_ * work), -(-lanes // count_workers(self.workers))))
        parts = [(start, min(start + each, lanes)) for start in range(0, lanes, each)]
        activation, packed = ACTIVATIONS[job.net.activation], self._packed
        for start in range(0, job.x.shape[1], slice_):
            x = job.x[:, start : start + slice_]
            ends = np.clip(job.lengths - start, 0, x.shape[1])
            piece = replace(job, x=x, h0=self.h, lengths=ends)
            states, last = engine.forward(piece, keep=True, workers=self.workers)
            self._beyond.mend(states, self.step + start, ends)
            along = np.concatenate([self.h[:, :, None], states], axis=2, dtype=np.float64)
            path = np.ascontiguousarray(x, np.float64), np.ascontiguousarray(along), ends
            rest = start, windows, self.tangents, open_windows, found
            run(partial(_advance, (activation, *packed, *path), rest), parts, self.workers)
            self.h = last

    @cached_property
    def _packed(self) -> Packed:
        w1, w2, b = (weight.astype(np.float64) for weight in self.job.weights[:3])
        _, powers = np.frexp(abs(w2).max(axis=(1, 2)))
        # Small ones are brought up to 1, large ones down as far as needed: what is small beside
        # them may be all that some unit hears.
        powers = np.minimum(powers, np.maximum(0, powers - LARGEST_POWER))
        nets, hidden, inputs = w1.shape
        stride = padded(hidden)
        wide = np.zeros((nets, hidden, stride))
        wide[..., :hidden] = np.ldexp(w2, -powers[:, None, None]).swapaxes(1, 2)
        strips = wide.reshape(nets, hidden, -1, tangents.LANES).swapaxes(1, 2)
        w1_wide, b_wide = np.zeros((nets, inputs, stride)), np.zeros((nets, stride))
        w1_wide[..., :hidden], b_wide[..., :hidden] = w1.swapaxes(1, 2), b
        return Packed(w1_wide, np.ascontiguousarray(strips), powers.astype(np.int64), b_wide)


def _advance(before: tuple[Any, ...], after: tuple[Any, ...], lanes: tuple[int, int]) -> None:
    tangents.advance(*before, lanes, *after)


def new_windows(shape: tuple[int, ...]) -> Doubles:
    """What kernels carry of windows that have begun: empty products."""
    windows = np.zeros((3, *shape))
    windows[0] = 1.0
    return windows


def close_windows(
    sums: Doubles, open_windows: Doubles, steps: NDArray[np.int64], windows: NDArray[np.int64]
) -> None:
    """Sums (K, B, W, k) of the last windows of sequences (B,) that end within one."""
    left = np.flatnonzero(steps % windows)
    product, power, rest = open_windows[:, :, left]
    logs = np.empty(product.shape)
    neuron_growth.logs_of(product.ravel(), (power + rest).ravel(), logs.ravel())
    sums[:, left, (steps // windows)[left]] = logs


def padded(hidden: int) -> int:
    """Numbers of a row in whole vectors."""
    return -(-hidden // tangents.LANES) * tangents.LANES


def lyapunov_of(
    job: Sequences,
    *,
    k: int = 1,
    transient: int = 0,
    local: int | None = None,
    stderr: float | None = None,
    workers: int | None = None,
) -> Lyapunov:
    """Exponents of a job, from arguments that are checked."""
    growth = Growth(job, k, workers)
    # More steps than there are would be no number for a kernel.
    longest = max(1, job.x.shape[1])
    skipped = np.minimum(job.lengths, min(transient, longest))
    if transient:
        growth.sums(skipped, np.full(len(skipped), longest))
    steps = job.lengths - skipped
    if stderr is not None:
        return _until(job, growth, steps, stderr)
    local = local and min(local, longest)
    windows = batch_lengths(steps) if local is None else np.full(len(steps), local)
    sums = growth.sums(steps, windows)
    rates = None if local is None else local_rates(sums, steps, local)
    estimate = Estimate.of(sums, steps, windows)
    return lyapunov_result(job, estimate, np.broadcast_to(steps, job.size("KB")), rates)


def largest_exponent(job: Sequences, *, workers: int | None) -> Estimate:
    """The largest exponent (K, B, 1) of all of a job's steps."""
    windows = batch_lengths(job.lengths)
    sums = Growth(job, 1, workers).sums(job.lengths, windows)
    return largest(sums, job.lengths, windows, job.net.hidden_size > 1)


def _until(job: Sequences, growth: Growth, steps: NDArray[np.int64], wanted: float) -> Lyapunov:
    """Look after 512, 1024, 2048, ... steps, and keep of each sequence the first that will do.

    When a sequence is looked at depends on its own length alone.
    """
    windows = np.minimum(batch_lengths(steps), FIRST_WINDOW)
    sums = np.zeros((*job.size("KB"), 0, growth.k))
    kept: Estimate | None = None
    used = np.zeros(job.size("KB"), np.int64)
    settled = np.zeros(job.size("KB"), bool)
    done, stop = 0, BATCHES * FIRST_WINDOW
    while True:
        rest = np.where(settled.all(axis=0), 0, np.clip(steps - done, 0, stop - done))
        sums = np.concatenate([sums, growth.sums(rest, windows)], axis=2)
        so_far = np.minimum(steps, stop)
        # Of those that are settled, the windows are no longer those of their sums.
        open_ = np.where(settled.all(axis=0), 0, so_far)
        estimate = Estimate.of(sums, open_, windows)
        met = estimate.reliable & (estimate.stderr <= wanted)
        estimate = estimate._replace(reliable=met)
        if kept is not None:
            pairs = zip(kept, estimate, strict=True)
            estimate = Estimate(*(np.where(settled[..., None], *pair) for pair in pairs))
        used = np.where(settled, used, so_far)
        settled |= met.all(axis=2) | (steps <= stop)
        kept = estimate
        if settled.all():
            return lyapunov_result(job, kept, used, None)
        # Those that go on have as many windows as batches.
        sums = np.moveaxis(halved(np.moveaxis(sums[:, :, :BATCHES], 2, 0)), 0, 2)
        done, stop, windows = stop, 2 * stop, 2 * windows
