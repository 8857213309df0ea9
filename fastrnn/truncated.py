"""Truncated back-propagation through time: gradients that reach back to the start of a window.

Every window of k steps starts from its true state, but the gradient ends there. So windows are
sequences of their own, side by side, as many at a time as memory is to hold their states.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import engine, exact_walks, gradients
from fastrnn.checks import FloatArray
from fastrnn.gradients import Found
from fastrnn.kernels import BOUNDED
from fastrnn.kernels.scaled_sums import SUM
from fastrnn.kernels.sums import ordered_total
from fastrnn.lanes import State
from fastrnn.layers_scaled import Total
from fastrnn.memory import BudgetTooSmall
from fastrnn.sequences import Sequences

# States held at a time: 16 MB of float32.
STATES = 1 << 22

Doubles = NDArray[np.float64]


def in_windows(
    job: Sequences,
    target: FloatArray,
    k: int,
    *,
    each: bool,
    scale: float,
    workers: int | None,
    memory: int | None = None,
) -> Found:
    """As `gradients.find` of half the sum of squares, times a scale; sums over all windows."""
    nets, batch_size, steps = job.size("KBT")
    together, left = _together(job, k, memory)
    rows: dict[str, Doubles] = {}
    state, start = State.start(job.h0), 0
    while start < steps:
        # The last window may be shorter, and is by itself then.
        count = min(together, (steps - start) // k)
        width = min(k, steps - start)
        end = start + max(1, count) * width
        part = replace(job, x=job.x[:, start:end], h0=state.h, lengths=_within(job, start, end))
        windows, powers, state = _windows(part, state, width, workers)
        found = gradients.find(
            windows, _cut(target[:, :, start:end], width), np.zeros_like(windows.h0), fused=True,
            want_dx=False, each=True, scaled=False, workers=workers, memory=left,
            h0_powers=powers,
        )  # fmt: skip
        totals = found.totals()
        for name, total in totals.items():
            rows[name] = _added(rows.get(name), total, nets * batch_size, max(1, count))
        start = end
    shapes = {name: total.value.shape[2:] for name, total in totals.items()}
    if not each:
        rows = {
            name: _in_order(array.reshape(nets, batch_size, array.shape[1], SUM))
            for name, array in rows.items()
        }
    totals = {
        name: gradients.total_of(array.reshape(nets, batch_size if each else 1, *shapes[name], SUM))
        for name, array in rows.items()
    }
    nothing = np.zeros(job.h0.shape), np.zeros(job.h0.shape)
    return Found(job, scale, totals, None, nothing, each, found.has_sizes)


def _added(before: Doubles | None, total: Total, sequences: int, count: int) -> Doubles:
    """Rows (sequences, components, SUM) of sums, with those of some windows of each sequence."""
    components = math.prod(total.value.shape[2:])
    value, size, power = (part.reshape(sequences, count, components) for part in total)
    terms = np.stack([value, np.zeros_like(value), size, power], axis=-1)
    if before is not None:
        terms = np.concatenate([before[:, None], terms], axis=1)
    return _in_order(terms)


def _in_order(terms: Doubles) -> Doubles:
    """Sums (N, components, SUM) over the second axis of (N, M, components, SUM)."""
    own = np.ascontiguousarray(terms.swapaxes(1, 2))
    found = ordered_total(own.reshape(math.prod(own.shape[:2]), *own.shape[2:]))
    return found.reshape(*own.shape[:2], SUM)


def _together(job: Sequences, k: int, memory: int | None) -> tuple[int, int | None]:
    """Windows at a time, and what is left of a budget for their gradients."""
    nets, batch_size, hidden, inputs, outputs = job.size("KBHFO")
    together = max(1, STATES // max(1, k * nets * batch_size * hidden))
    if memory is None:
        return together, None
    numbers = k * (nets * (hidden + outputs) + inputs) + 2 * nets * hidden
    held, none = batch_size * numbers * job.dtype.itemsize, np.zeros((), job.dtype)
    if job.net.is_neuron and job.net.activation not in BOUNDED:
        held += batch_size * k * nets * 8
    while True:
        rows = batch_size * together
        windows = replace(
            job,
            x=np.broadcast_to(none, (rows, k, inputs)),
            h0=np.broadcast_to(none, (nets, rows, hidden)),
            lengths=np.full(rows, k),
        )
        needed = together * held + gradients.least_memory(windows, each=True)
        if needed <= memory:
            return together, memory - together * held
        if together == 1:
            raise BudgetTooSmall(memory, needed)
        together //= 2


def _windows(
    part: Sequences, start: State, width: int, workers: int | None
) -> tuple[Sequences, Doubles | None, State]:
    """The windows of some steps as sequences of their own, and the state after all of them.

    Powers of two of the states they start from, where those may leave the range of floats.
    """
    powers: Doubles | None = None
    if part.net.is_neuron and part.net.activation not in BOUNDED:
        states, exponents = np.empty(part.size("KBTH"), part.dtype), np.empty(part.size("KBTH"))
        outside = np.zeros(part.size("KB"), np.uint8)
        own = engine.lanes(part, workers)
        last = own.states(start, (states[..., 0], exponents[..., 0]), outside)
        for k, i in np.argwhere(outside).tolist():
            into = states[k, i], exponents[k, i]
            last.h[k, i], last.power[k, i] = exact_walks.forward(
                part, k, i, into, start.power[k, i]
            )
        powers = _starts(start.power, exponents, width)
    else:
        states, h = engine.forward(part, keep=True, workers=workers)
        last = State(h, start.power)
    firsts = np.arange(0, part.x.shape[1], width)
    lengths = np.clip(part.lengths[:, None] - firsts, 0, width)
    windows = replace(
        part,
        x=part.x.reshape(lengths.size, width, part.x.shape[2]),
        h0=_starts(start.h, states, width),
        lengths=lengths.ravel(),
    )
    return windows, powers, last


def _starts(first: FloatArray, states: FloatArray, width: int) -> FloatArray:
    """What comes before each window: of the first (K, B, H), and of states (K, B, T, H)."""
    found = np.concatenate([first[:, :, None], states[:, :, width - 1 : -1 : width]], axis=2)
    return found.reshape(len(found), -1, found.shape[3])


def _cut(target: FloatArray, width: int) -> FloatArray:
    """Targets (K, B, T, O) as those of windows (K, B * T / width, width, O)."""
    nets, batch_size, steps, outputs = target.shape
    return target.reshape(nets, batch_size * steps // width, width, outputs)


def _within(job: Sequences, start: int, end: int) -> Any:
    return np.clip(job.lengths - start, 0, end - start)
