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
from fastrnn.kernels import ACTIVATIONS, tangents
from fastrnn.scaled import Scaled
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
# A run that stops at a wanted standard error looks at it after T / 64, T / 32, ... T steps.
LOOKS = 7
# At the first look, a batch has at least so many steps if the sequence allows it.
LEAST_WINDOW = 16


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
        self.h = self.job.h0
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
        else:
            self._lead(part, windows, open_windows, found)
        self.step += longest
        close_windows(found, open_windows, steps, windows)
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
            before = np.empty(states.shape)
            before[:, :, :1], before[:, :, 1:] = self.h[:, :, None], states[:, :, :-1]
            path = np.ascontiguousarray(x, np.float64), before, ends
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
    sums[:, left, (steps // windows)[left]] = Scaled(product, power + rest).log()


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
    skipped = np.minimum(job.lengths, transient)
    if transient:
        growth.sums(skipped, np.full(len(skipped), transient))
    steps = job.lengths - skipped
    if stderr is not None:
        return _until(job, growth, steps, stderr)
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
    """Look after T / 64, T / 32, ... T steps, and keep of each sequence the first that will do."""
    total = job.x.shape[1] - growth.step
    looks = min(LOOKS, max(1, (total // (BATCHES * LEAST_WINDOW)).bit_length()))
    window = max(1, total // (BATCHES << (looks - 1)))
    sums = np.zeros((*job.size("KB"), 0, growth.k))
    kept: Estimate | None = None
    used = np.zeros(job.size("KB"), np.int64)
    settled = np.zeros(job.size("KB"), bool)
    done = 0
    for look in range(looks):
        if look:
            sums, window = _merged(sums), 2 * window
        stop = total if look == looks - 1 else BATCHES * window
        found = growth.sums(np.clip(steps - done, 0, stop - done), np.full(len(steps), window))
        sums, done = np.concatenate([sums, found], axis=2), stop
        so_far = np.minimum(steps, done)
        estimate = Estimate.of(sums, so_far, np.full(len(steps), window))
        met = estimate.reliable & (estimate.stderr <= wanted)
        estimate = estimate._replace(reliable=met)
        if kept is not None:
            pairs = zip(kept, estimate, strict=True)
            estimate = Estimate(*(np.where(settled[..., None], *pair) for pair in pairs))
        used = np.where(settled, used, so_far)
        settled |= met.all(axis=2) | (steps <= done)
        kept = estimate
        if settled.all():
            break
    assert kept is not None
    return lyapunov_result(job, kept, used, None)


def _merged(sums: Doubles) -> Doubles:
    """Sums over windows twice as long."""
    if sums.shape[2] % 2:
        sums = np.concatenate([sums, np.zeros_like(sums[:, :, :1])], axis=2)
    return np.asarray(sums[:, :, ::2] + sums[:, :, 1::2])
