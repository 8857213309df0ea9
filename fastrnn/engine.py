"""The engine: a job's arrays, and who computes them: lanes, chunks of lanes, or layers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from fastrnn import chunks
from fastrnn.checks import FloatArray
from fastrnn.kernels import ACTIVATIONS
from fastrnn.kernels.panels import aligned
from fastrnn.lanes import PAST_BYTES, Lanes, in_rows, nets_side_by_side
from fastrnn.layers import ACTIVATION_WORK, Layers
from fastrnn.memory import LESS, check_memory
from fastrnn.sequences import Sequences
from fastrnn.threads import count_workers

# Stands for an array that is not wanted; kernels may take its last axis apart.
EMPTY = (0, 0, 0, 1)
FEWER = LESS
# Multiply-adds of a layer, and steps of a neuron's lanes, that are worth another thread: 100 us
# and more, 30 us.
THREAD_WORK, LANE_WORK = 1 << 19, 1 << 16


def forward(
    job: Sequences, *, keep: bool, workers: int | None, states: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """States (K, B, T, H), empty unless ``keep``, and the last state (K, B, H)."""
    if not keep:
        states = np.empty(EMPTY, job.dtype)
    elif states is None:
        states = _states(job)
    elif job.is_ragged:
        states[...] = 0
    if job.net.is_neuron:
        own = lanes(job, workers)
        walk = chunks.forward if chunks.suits(own) else Lanes.forward
        return states, walk(own, job.h0, states[..., 0] if keep else None)
    return states, layers(job, workers).forward(job.h0, states if keep else None)


def readout(job: Sequences, states: FloatArray, *, workers: int | None) -> FloatArray:
    """Predictions (K, B, T, O) of states (K, B, T, H)."""
    y = zeros("predictions", job.size("KBTO"), job.dtype, FEWER)
    layers(job, workers).predict(states, y)
    return y


def layers(job: Sequences, workers: int | None, memory: int | None = None) -> Layers:
    """The nets and sequences of a layer's job."""
    nets, batch_size, steps, inputs, hidden, outputs = job.size("KBTFHO")
    work = nets * batch_size * steps * hidden * (hidden + inputs + outputs + ACTIVATION_WORK)
    threads = _threads(workers, work, THREAD_WORK)
    return job.once("layers", lambda: _layers(job)).over(job.x, threads, memory)


def _layers(job: Sequences) -> Layers:
    activation, kept = ACTIVATIONS[job.net.activation], job.net._kept
    return Layers(activation, job.weights, job.x, job.lengths, 1, None, kept).looked_at()


def _threads(workers: int | None, work: int, worth: int) -> int:
    """Threads of a job; one comes and goes in some 50 us, and so much work is worth it."""
    most = max(1, work // worth)
    if workers is None and most == 1:
        return 1
    return min(count_workers(workers), most)


def lanes(job: Sequences, workers: int | None, memory: int | None = None) -> Lanes:
    """The lanes of a neuron's job."""
    x = job.x[..., 0]
    threads = _threads(workers, job.net.bank_size * x.size, LANE_WORK)
    return job.once("lanes", lambda: _lanes(job)).over(x, threads, memory)


def _lanes(job: Sequences) -> Lanes:
    own = Lanes(ACTIVATIONS[job.net.activation], job.weights, job.x[..., 0], job.lengths, 1)
    return own.looked_at()


def _states(job: Sequences) -> FloatArray:
    """Room for all states (K, B, T, H), laid out as x is: time first where it comes first in x.

    What is computed side by side then lies side by side, nets or sequences.
    """
    what, hint = "states", FEWER + " or keep='last' in forward"
    make = zeros if job.is_ragged else _empty

    def order() -> tuple[tuple[int, ...], list[int]]:
        axes = "KBTH"
        if in_rows(job.x):
            bank = job.net.is_neuron and nets_side_by_side(job.net.bank_size, job.dtype)
            axes = "TBKH" if bank else "KTBH"
        return job.size(axes), [axes.index(axis) for axis in "KBTH"]

    shape, axes = job.once("order of states", order)
    return make(what, shape, job.dtype, hint).transpose(axes)


def _empty(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> FloatArray:
    check_memory(what, shape, dtype, instead)
    return _in_lines(np.empty, shape, dtype)


def _in_lines(
    make: Callable[..., FloatArray], shape: tuple[int, ...], dtype: DTypeLike
) -> FloatArray:
    """An array; a large one begins with a cache line, for kernels write lines as wholes."""
    if math.prod(shape) * np.dtype(dtype).itemsize < PAST_BYTES:
        return make(shape, dtype)
    return aligned(shape, dtype, make)


def zeros(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> FloatArray:
    """An array of zeros, or an error that names it and says what to do instead."""
    check_memory(what, shape, dtype, instead)
    return _in_lines(np.zeros, shape, dtype)
