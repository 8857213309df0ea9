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
from fastrnn.kernels import ACTIVATIONS, exact, layer, neuron
from fastrnn.kernels.sums import ordered_sum
from fastrnn.lanes import Lanes, in_rows, nets_side_by_side
from fastrnn.memory import budget_too_small, check_memory
from fastrnn.scaled import Scaled
from fastrnn.sequences import Sequences
from fastrnn.threads import count_workers, run

Block = tuple[int, int, int, int]

# Multiply-adds of one call on a layer: about 50 ms, so that Ctrl-C is heard.
BLOCK_WORK = 1 << 22
# The same of numbers of any magnitude, which take 50 times as long.
EXACT_WORK = 1 << 16
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
        lanes = _lanes(job, workers)
        walk = chunks.forward if chunks.suits(lanes) else Lanes.forward
        return states, walk(lanes, job.h0, states[..., 0] if keep else None)
    last = np.empty_like(job.h0)
    w1, w2, b, _, _ = job.weights
    common = ACTIVATIONS[job.net.activation], w1, w2, b, job.x, job.h0, job.lengths
    blocks = _blocks(job, workers)
    run(
        lambda block: layer.forward(*common, block, keep, states, last),
        blocks,
        workers,
    )
    return states, last


def readout(job: Sequences, states: FloatArray, *, workers: int | None) -> FloatArray:
    """Predictions (K, B, T, O) of states (K, B, T, H)."""
    _, _, _, w3, b3 = job.weights
    y = _zeros("predictions", job.size("KBTO"), job.dtype, FEWER)
    run(
        lambda block: layer.readout(w3, b3, states, job.lengths, block, y),
        _blocks(job, workers),
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
    dx = _zeros("dx", job.size("KBTF") if want_dx else EMPTY, job.dtype, FEWER)
    if job.net.is_neuron:
        into_dx = dx[..., 0] if want_dx else None
        lanes = _lanes(job, workers, memory)
        walk = chunks.backward if chunks.suits(lanes) else Lanes.backward
        found, dh0 = walk(lanes, job.h0, upstream[..., 0], dlast, into_dx, fused=fused)
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
        sums[name] = _zeros(f"d{name}", (nets, rows, *weight.shape[1:]), np.float64, FEWER)
    dh0 = np.empty_like(job.h0)
    held = sum(array.nbytes for array in sums.values())
    workers = _affordable(job, count_workers(workers), memory, held)
    common = ACTIVATIONS[job.net.activation], *job.weights, job.x, job.h0, job.lengths
    rest = group, fused, upstream, dlast, *sums.values(), dx, dh0, want_dx
    blocks = _blocks(job, workers, group)
    run(
        lambda block: layer.backward(*common, _tile(job), block, *rest),
        blocks,
        workers,
    )
    if not per_sequence:
        sums = {name: ordered_sum(array) for name, array in sums.items()}
    return sums | {"x": dx, "h0": dh0}


def influence(
    job: Sequences, seed: FloatArray, *, workers: int | None, memory: int | None = None
) -> tuple[Scaled, Scaled]:
    """d(seed . h_T)/dx (K, B, T, F) and d(seed . h_T)/dh_0 (K, B, H), for seeds (K, H)."""
    shape = job.size("KBTF")
    mantissa = _zeros("influences", shape, job.dtype, FEWER)
    exponent = _zeros("influences", shape, np.float64, FEWER)
    if job.net.is_neuron:
        seeds = np.broadcast_to(seed[:, None], job.h0.shape)
        lanes = _lanes(job, workers, memory)
        by_h0, power = lanes.influence(job.h0, seeds, mantissa[..., 0], exponent[..., 0])
        return Scaled(mantissa, exponent), Scaled(by_h0.astype(job.dtype), power)
    mantissa0, exponent0 = np.empty_like(job.h0), np.empty(job.h0.shape)
    workers = _affordable(job, count_workers(workers), memory, 0)
    w1, w2, b, _, _ = job.weights
    common = ACTIVATIONS[job.net.activation], w1, w2, b, job.x, job.h0, job.lengths
    rest = seed, mantissa, exponent, mantissa0, exponent0
    blocks = _blocks(job, workers)
    run(
        lambda block: layer.influence(*common, _tile(job), block, *rest),
        blocks,
        workers,
    )
    return Scaled(mantissa, exponent), Scaled(mantissa0, exponent0)


def forward_scaled(job: Sequences, *, keep: bool, workers: int | None) -> tuple[Scaled, Scaled]:
    """As `forward`, of states of any magnitude; past a sequence's length they are 0."""
    shape = job.size("KBTH") if keep else EMPTY
    states, powers = (_zeros("states", shape, dtype, FEWER) for dtype in (job.dtype, np.float64))
    last, last_powers = np.empty_like(job.h0), np.empty(job.h0.shape)
    w1, w2, b, _, _ = job.weights
    common = ACTIVATIONS[job.net.activation], w1, w2, b, job.x, job.h0, job.lengths
    run(
        lambda block: exact.forward(*common, block, keep, states, powers, last, last_powers),
        _blocks(job, workers, work=EXACT_WORK),
        workers,
    )
    return Scaled(states, powers), Scaled(last, last_powers)


def backward_scaled(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    *,
    fused: bool,
    want_dx: bool,
    per_sequence: bool,
    workers: int | None,
) -> tuple[dict[str, Scaled], dict[str, FloatArray]]:
    """As `backward`, of numbers of any magnitude, and |sum| / sum of |terms| of each weight."""
    nets, batch_size, _ = job.h0.shape
    shapes = {"loss": ()} | {name: w.shape[1:] for name, w in job.weights._asdict().items()}
    sums = {
        name: _zeros(f"d{name}", (nets, batch_size, *shape, exact.SUM), np.float64, FEWER)
        for name, shape in shapes.items()
    }
    shape = job.size("KBTF") if want_dx else EMPTY
    dx, dx_powers = (_zeros("dx", shape, dtype, FEWER) for dtype in (job.dtype, np.float64))
    dh0, dh0_powers = np.empty(job.h0.shape), np.empty(job.h0.shape)
    common = ACTIVATIONS[job.net.activation], *job.weights, job.x, job.h0, job.lengths, _tile(job)
    rest = fused, upstream, dlast, *sums.values(), dx, dx_powers, dh0, dh0_powers, want_dx
    run(
        lambda block: exact.backward(*common, block, *rest),
        _blocks(job, workers, work=EXACT_WORK),
        workers,
    )
    found, left = {}, {}
    for name, array in sums.items():
        total, lost, size, power = np.moveaxis(array, -1, 0)
        value, terms = Scaled(total + lost, power), Scaled(size, power)
        if not per_sequence:
            value, terms = value.sum(axis=1), terms.sum(axis=1)
        found[name] = value.astype(job.dtype)
        left[name] = np.where(terms.sign == 0, 1.0, (abs(value) / terms).to_float())
    found |= {"x": Scaled(dx, dx_powers), "h0": Scaled(dh0, dh0_powers).astype(job.dtype)}
    return found, left


def _lanes(job: Sequences, workers: int | None, memory: int | None = None) -> Lanes:
    activation = ACTIVATIONS[job.net.activation]
    x, threads = job.x[..., 0], count_workers(workers)
    return Lanes(activation, job.weights, x, job.lengths, threads, memory)


def _blocks(
    job: Sequences, workers: int | None, group: int = 1, work: int | None = None
) -> list[Block]:
    """Nets x sequences of a layer in blocks of bounded work, whole groups of sequences each."""
    nets, batch_size, _ = job.h0.shape
    _, steps, inputs = job.x.shape
    lane_work = max(1, steps * job.net.hidden_size * (job.net.hidden_size + inputs))
    lane_work += ACTIVATION_WORK * steps * job.net.hidden_size
    share = -(-nets * batch_size // count_workers(workers))
    lanes = max(1, min((work or BLOCK_WORK) // lane_work, share))
    sequences = min(batch_size, group * max(1, lanes // group)) or 1
    k = max(1, lanes // sequences)
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
    make = _zeros if job.is_ragged else _empty
    axes = "KBTH"
    if job.net.is_neuron and in_rows(job.x):
        axes = "TBKH" if nets_side_by_side(job.net.bank_size, job.dtype) else "KTBH"
    room = make(what, job.size(axes), job.dtype, hint)
    return room.transpose([axes.index(axis) for axis in "KBTH"])


def _empty(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> FloatArray:
    check_memory(what, shape, dtype, instead)
    return np.empty(shape, dtype)


def _zeros(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> FloatArray:
    check_memory(what, shape, dtype, instead)
    return np.zeros(shape, dtype)


def _affordable(job: Sequences, workers: int, memory: int | None, held: int) -> int:
    """As many of the workers as a budget allows a layer, beside the bytes that are held anyhow."""
    if memory is None:
        return workers
    hidden, steps = job.net.hidden_size, job.x.shape[1]
    rows = 2 * _tile(job) + steps // _tile(job) + 2 + hidden + job.net.input_size
    each = rows * hidden * job.dtype.itemsize + 64 * hidden
    if (affordable := (memory - held) // each) < 1:
        raise budget_too_small(memory, held + each)
    return min(workers, int(affordable))


def _tile(job: Sequences) -> int:
    """Steps of a layer recomputed at a time: near sqrt(T), where starts and tile are equal."""
    return max(LEAST_TILE, math.isqrt(job.x.shape[1]))
