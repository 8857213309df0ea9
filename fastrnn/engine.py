"""A job cut into blocks of lanes, and the threads that run them.

One lane is one net over one sequence. Every lane writes its own part of the results, so blocks
may run in any order on any number of threads and the bits stay the same.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from fastrnn import chunks
from fastrnn.checks import FloatArray
from fastrnn.kernels import ACTIVATIONS, layer, neuron
from fastrnn.kernels.sums import ordered_sum
from fastrnn.lanes import Lanes, in_rows, nets_side_by_side
from fastrnn.memory import budget_too_small, check_memory
from fastrnn.sequences import Sequences
from fastrnn.threads import count_workers, run

Block = tuple[int, int, int, int]

# Multiply-adds of one call on a layer: about 50 ms, so that Ctrl-C is heard.
BLOCK_WORK = 1 << 22
# A step of activation and derivative costs about as much as this many multiply-adds.
ACTIVATION_WORK = 16
# Sequences of a layer that share a weight-gradient sum. A constant, and not a share of the
# threads, so that the order of the sum is the same on every machine.
GROUP = 16
LEAST_TILE = 64
# Stands for an array that is not wanted; kernels may take its last axis apart.
EMPTY = (0, 0, 0, 1)
FEWER = "fewer sequences or nets a call"


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
    last = np.empty_like(job.h0)
    w1, w2, b, _, _ = job.weights
    common = ACTIVATIONS[job.net.activation], w1, w2, b, job.x, job.h0, job.lengths
    run(
        lambda block: layer.forward(*common, block, keep, states, last),
        blocks(job, workers),
        workers,
    )
    return states, last


def readout(job: Sequences, states: FloatArray, *, workers: int | None) -> FloatArray:
    """Predictions (K, B, T, O) of states (K, B, T, H)."""
    _, _, _, w3, b3 = job.weights
    y = zeros("predictions", job.size("KBTO"), job.dtype, FEWER)
    run(
        lambda block: layer.readout(w3, b3, states, job.lengths, block, y),
        blocks(job, workers),
        workers,
    )
    return y


def backward(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    *,
    fused: bool,
    want_dx: bool,
    per_sequence: bool,
    workers: int | None,
    memory: int | None = None,
) -> dict[str, FloatArray]:
    """Gradients with axes (K, B, ...), summed over B but for h0 and x unless ``per_sequence``.

    ``fused``: ``upstream`` is the target y (K, B, T, O) and the result is that of half the sum
    of squared errors, its key ``loss``; else it is a gradient of the states (K, B, T, H).
    """
    nets, batch_size, _ = job.h0.shape
    dx = zeros("dx", job.size("KBTF") if want_dx else EMPTY, job.dtype, FEWER)
    if job.net.is_neuron:
        into_dx = dx[..., 0] if want_dx else None
        own = lanes(job, workers, memory)
        walk = chunks.backward if chunks.suits(own) else Lanes.backward
        found, dh0 = walk(own, job.h0, upstream[..., 0], dlast, into_dx, fused=fused)
        if not per_sequence:
            rows = found.reshape(len(neuron.SUMS) * nets, batch_size)
            found = ordered_sum(rows).reshape(-1, nets)
        shapes = [weight.shape[1:] for weight in job.weights] + [()]
        sums = {
            name: array.reshape(*array.shape, *(1,) * len(shape))
            for name, array, shape in zip(neuron.SUMS, found, shapes, strict=True)
        }
        return sums | {"loss": 0.5 * sums["loss"], "x": dx, "h0": dh0}
    group = 1 if per_sequence else GROUP
    rows = -(-batch_size // group)
    sums = {"loss": np.zeros((nets, rows))}
    for name, weight in job.weights._asdict().items():
        sums[name] = zeros(f"d{name}", (nets, rows, *weight.shape[1:]), np.float64, FEWER)
    dh0 = np.empty_like(job.h0)
    held = sum(array.nbytes for array in sums.values())
    workers = affordable(job, count_workers(workers), memory, held)
    common = ACTIVATIONS[job.net.activation], *job.weights, job.x, job.h0, job.lengths
    rest = group, fused, upstream, dlast, *sums.values(), dx, dh0, want_dx
    run(
        lambda block: layer.backward(*common, tile(job), block, *rest),
        blocks(job, workers, group),
        workers,
    )
    if not per_sequence:
        sums = {name: ordered_sum(array) for name, array in sums.items()}
    return sums | {"x": dx, "h0": dh0}


def lanes(job: Sequences, workers: int | None, memory: int | None = None) -> Lanes:
    """The lanes of a neuron's job."""
    activation = ACTIVATIONS[job.net.activation]
    x, threads = job.x[..., 0], count_workers(workers)
    return Lanes(activation, job.weights, x, job.lengths, threads, memory)


def blocks(
    job: Sequences, workers: int | None, group: int = 1, work: int | None = None
) -> list[Block]:
    """Nets x sequences of a layer in blocks of bounded work, whole groups of sequences each."""
    nets, batch_size, _ = job.h0.shape
    _, steps, inputs = job.x.shape
    lane_work = max(1, steps * job.net.hidden_size * (job.net.hidden_size + inputs))
    lane_work += ACTIVATION_WORK * steps * job.net.hidden_size
    share = -(-nets * batch_size // count_workers(workers))
    count = max(1, min((work or BLOCK_WORK) // lane_work, share))
    sequences = min(batch_size, group * max(1, count // group)) or 1
    k = max(1, count // sequences)
    return [
        (k0, min(k0 + k, nets), b0, min(b0 + sequences, batch_size))
        for k0 in range(0, nets, k)
        for b0 in range(0, batch_size, sequences)
    ]


def _states(job: Sequences) -> FloatArray:
    """Room for all states (K, B, T, H), laid out as x is: time first where it comes first in x.

    What is computed side by side then lies side by side, nets or sequences.
    """
    what, hint = "states", FEWER + " or keep='last' in forward"
    make = zeros if job.is_ragged else _empty
    axes = "KBTH"
    if job.net.is_neuron and in_rows(job.x):
        axes = "TBKH" if nets_side_by_side(job.net.bank_size, job.dtype) else "KTBH"
    room = make(what, job.size(axes), job.dtype, hint)
    return room.transpose([axes.index(axis) for axis in "KBTH"])


def _empty(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> FloatArray:
    check_memory(what, shape, dtype, instead)
    return np.empty(shape, dtype)


def zeros(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> FloatArray:
    """An array of zeros, or an error that names it and says what to do instead."""
    check_memory(what, shape, dtype, instead)
    return np.zeros(shape, dtype)


def affordable(
    job: Sequences, workers: int, memory: int | None, held: int = 0, exponent_bytes: int = 0
) -> int:
    """As many of the workers as a budget allows a layer, beside the bytes that are held anyhow."""
    if memory is None:
        return workers
    hidden, steps = job.net.hidden_size, job.x.shape[1]
    rows = 2 * tile(job) + steps // tile(job) + 2 + hidden + job.net.input_size
    each = rows * hidden * (job.dtype.itemsize + exponent_bytes) + 64 * hidden
    if (affordable := (memory - held) // each) < 1:
        raise budget_too_small(memory, held + each)
    return min(workers, int(affordable))


def tile(job: Sequences) -> int:
    """Steps of a layer recomputed at a time: near sqrt(T), where starts and tile are equal."""
    return max(LEAST_TILE, math.isqrt(job.x.shape[1]))
