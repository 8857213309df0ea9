"""The engine of numbers of any magnitude.

Neurons are walked by vectors as long as their states are floats, and lanes whose are not number
by number; layers number by number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastrnn import engine
from fastrnn.checks import FloatArray, is_finite
from fastrnn.engine import EMPTY, FEWER, lanes, layers, zeros
from fastrnn.kernels import ACTIVATIONS, BOUNDED, exact, neuron, neuron_scaled
from fastrnn.kernels.neuron_scaled import SUM
from fastrnn.memory import budget_too_small
from fastrnn.scaled import Scaled, already_normal
from fastrnn.sequences import Sequences
from fastrnn.threads import count_workers, run

# Multiply-adds of one call: about 50 ms, so that Ctrl-C is heard.
EXACT_WORK = 1 << 16
# A step of activation and derivative costs about as much as this many multiply-adds.
ACTIVATION_WORK = 16
LEAST_TILE = 64

Block = tuple[int, int, int, int]


def forward(job: Sequences, *, keep: bool, workers: int | None) -> tuple[Scaled, Scaled]:
    """As `engine.forward`, of states of any magnitude; past a sequence's length they are 0."""
    if job.net.is_neuron and job.net.activation in BOUNDED:
        plain = engine.forward(job, keep=keep, workers=workers)
        return Scaled(plain[0]), Scaled(plain[1])
    shape = job.size("KBTH") if keep else EMPTY
    states, powers = (zeros("states", shape, dtype, FEWER) for dtype in (job.dtype, np.float64))
    last, last_powers = np.empty_like(job.h0), np.empty(job.h0.shape)
    w1, w2, b, _, _ = job.weights
    common = ACTIVATIONS[job.net.activation], w1, w2, b, job.x, job.h0, job.lengths
    run(
        lambda block: exact.forward(*common, block, keep, states, powers, last, last_powers),
        blocks(job, workers),
        workers,
    )
    return Scaled(states, powers), Scaled(last, last_powers)


def influence(
    job: Sequences, seed: FloatArray, *, workers: int | None, memory: int | None = None
) -> tuple[Scaled, Scaled]:
    """d(seed . h_T)/dx (K, B, T, F) and d(seed . h_T)/dh_0 (K, B, H), for seeds (K, H)."""
    into = Results(None, _pair("influences", job.size("KBTF"), job.dtype), _pair_of(job.h0))
    none = np.broadcast_to(np.zeros((), job.dtype), job.size("KBTH"))
    seeds = np.broadcast_to(seed[:, None], job.h0.shape)
    if job.net.is_neuron:
        return _pull_neuron(job, none, seeds, into, False, workers, memory)
    if job.net.activation != "relu":
        outside = layers(job, workers, memory).pull_scaled(job.h0, seeds, into.dx, into.dh0)
        if not outside.any():
            return into.scaled(job.dtype)
        again = [(k, k + 1, i, i + 1) for k, i in np.argwhere(outside).tolist()]
    else:
        # Its derivative does not tell a state below the least float from 0.
        again = blocks(job, workers)
    workers = affordable(job, count_workers(workers), memory)
    return _pull_exact(job, none, seeds, into, False, workers, again)


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
) -> tuple[dict[str, Scaled], dict[str, FloatArray]]:
    """As `engine.backward`, and |sum| / sum of |terms| of each weight."""
    dx = _pair("dx", job.size("KBTF") if want_dx else EMPTY, job.dtype)
    sums = _sums(job, len(job.x))
    into = Results(sums, dx, _pair_of(job.h0))
    if job.net.is_neuron:
        by_x, by_h0 = _pull_neuron(job, upstream, dlast, into, fused, workers, memory)
    else:
        workers = affordable(job, count_workers(workers), memory)
        own = blocks(job, workers)
        by_x, by_h0 = _pull_exact(job, upstream, dlast, into, fused, workers, own)
    found, left = {"x": by_x, "h0": by_h0}, {}
    # Those of a neuron are few numbers each: it takes less time to look at all of them at once.
    for names in [tuple(sums)] if job.net.is_neuron else [(name,) for name in sums]:
        shapes = [sums[name].shape[2:-1] for name in names]
        rows = [sums[name].reshape(*sums[name].shape[:2], -1, SUM) for name in names]
        total, lost, size, power = np.moveaxis(np.concatenate(rows, axis=2), -1, 0)
        value, terms = Scaled(total + lost, power), Scaled(size, power)
        if not per_sequence:
            value, terms = value.sum(axis=1), terms.sum(axis=1)
        share = np.where(terms.sign == 0, 1.0, (abs(value) / terms).to_float())
        value, start = value.astype(job.dtype), 0
        for name, shape in zip(names, shapes, strict=True):
            whole = (*value.shape[:-1], *shape)
            columns = slice(start, start := start + math.prod(shape))
            found[name] = value[..., columns].reshape(*whole)
            left[name] = share[..., columns].reshape(whole)
    return found, left


def mended(
    job: Sequences,
    plain: dict[str, FloatArray],
    upstream: FloatArray,
    dlast: FloatArray,
    *,
    per_sequence: bool,
    **options: Any,
) -> dict[str, FloatArray]:
    """Results of `engine.backward` with the rounded true values where theirs are inf or NaN.

    Past an overflow floats know no more than inf - inf. What is finite keeps its bits, and so
    does what inf or NaN in the inputs of a sequence reach by right.
    """
    lost = [name for name, array in plain.items() if not is_finite(array)]
    if not lost:
        return plain
    nets, batch_size, _ = job.h0.shape
    whole = np.ones((nets, batch_size), bool)
    for array in (job.x[None], upstream, dlast, job.h0):
        whole &= np.isfinite(array).all(axis=tuple(range(2, array.ndim)))
    if not whole.any():
        return plain
    found, _ = backward(job, upstream, dlast, per_sequence=per_sequence, **options)
    result = dict(plain)
    for name in lost:
        true = found[name].to_float().reshape(plain[name].shape)
        own = whole if per_sequence or name in ("x", "h0") else whole.all(axis=1)
        own = own.reshape(own.shape + (1,) * (true.ndim - own.ndim))
        result[name] = np.where(own & ~np.isfinite(plain[name]), true, plain[name])
    return result


Pair = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class Results:
    """Room for sums (K, B, ..., SUM) of the weights and the loss, and mantissas and exponents."""

    sums: dict[str, FloatArray] | None
    dx: Pair
    dh0: Pair

    @property
    def want_dx(self) -> bool:
        """Whether the gradient of x is to be found."""
        return self.dx[0].size > 0

    def scaled(self, dtype: DTypeLike) -> tuple[Scaled, Scaled]:
        """Gradients of x and h_0."""
        return Scaled(*self.dx), Scaled(*self.dh0).astype(dtype)


def _pair(what: str, shape: tuple[int, ...], dtype: DTypeLike) -> Pair:
    return zeros(what, shape, dtype, FEWER), zeros(what, shape, np.float64, FEWER)


def _pair_of(h0: FloatArray) -> Pair:
    return np.zeros(h0.shape), np.zeros(h0.shape)


def _sums(job: Sequences, batch_size: int) -> dict[str, FloatArray]:
    nets = job.net.bank_size
    shapes = {"loss": ()} | {name: w.shape[1:] for name, w in job.weights._asdict().items()}
    return {
        name: zeros(f"d{name}", (nets, batch_size, *shape, SUM), np.float64, FEWER)
        for name, shape in shapes.items()
    }


def _pull_neuron(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    into: Results,
    fused: bool,
    workers: int | None,
    memory: int | None,
) -> tuple[Scaled, Scaled]:
    """Gradients of x and h_0 of a neuron, and the sums."""
    rows = None
    if into.sums is not None:
        rows = np.zeros((len(neuron.SUMS), *job.h0.shape[:2], SUM))
        rows[: neuron_scaled.POWERED, ..., -1] = neuron_scaled.NO_POWER
    dx = (into.dx[0][..., 0], into.dx[1][..., 0]) if into.want_dx else None
    walk = lanes(job, workers, memory).backward_scaled
    *found, outside = walk(
        job.h0, upstream[..., 0], dlast, rows, dx, fused=fused, want_w3=job.net.has_readout
    )
    for mine, theirs in zip(into.dh0, found, strict=True):
        mine[...] = theirs
    outside |= ~np.isfinite(into.dh0[0][..., 0])
    if into.sums is not None and rows is not None:
        outside |= neuron_scaled.digits_lost(rows)
        for name, row in zip(neuron.SUMS, rows, strict=True):
            row[outside] = 0
            into.sums[name][...] = row.reshape(into.sums[name].shape)
    if not outside.any():
        by_x = already_normal(*into.dx)
        return by_x, Scaled(*into.dh0).astype(job.dtype)
    again = [(k, k + 1, i, i + 1) for k, i in np.argwhere(outside).tolist()]
    return _pull_exact(job, upstream, dlast, into, fused, workers, again)


def _pull_exact(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    into: Results,
    fused: bool,
    workers: int | None,
    parts: list[Block],
) -> tuple[Scaled, Scaled]:
    """The same of any net, number by number, of some nets and sequences."""
    want_sums = into.sums is not None
    sums = _sums(job, 0) if into.sums is None else into.sums
    common = ACTIVATIONS[job.net.activation], *job.weights, job.x, job.h0, job.lengths, tile(job)
    rest = fused, upstream, dlast, want_sums, *sums.values(), *into.dx, *into.dh0, into.want_dx
    run(lambda block: exact.backward(*common, block, *rest), parts, workers)
    return into.scaled(job.dtype)


def blocks(job: Sequences, workers: int | None) -> list[Block]:
    """Nets x sequences in blocks of bounded work."""
    nets, batch_size, _ = job.h0.shape
    _, steps, inputs = job.x.shape
    lane_work = max(1, steps * job.net.hidden_size * (job.net.hidden_size + inputs))
    lane_work += ACTIVATION_WORK * steps * job.net.hidden_size
    share = -(-nets * batch_size // count_workers(workers))
    count = max(1, min(EXACT_WORK // lane_work, share))
    sequences = min(batch_size, count) or 1
    k = max(1, count // sequences)
    return [
        (k0, min(k0 + k, nets), b0, min(b0 + sequences, batch_size))
        for k0 in range(0, nets, k)
        for b0 in range(0, batch_size, sequences)
    ]


def affordable(job: Sequences, workers: int, memory: int | None) -> int:
    """As many of the workers as a budget allows a layer."""
    if memory is None:
        return workers
    hidden, steps = job.net.hidden_size, job.x.shape[1]
    rows = 2 * tile(job) + steps // tile(job) + 2 + hidden + job.net.input_size
    each = rows * hidden * (job.dtype.itemsize + 8) + 64 * hidden
    if (affordable := memory // each) < 1:
        raise budget_too_small(memory, each)
    return min(workers, int(affordable))


def tile(job: Sequences) -> int:
    """Steps of a layer recomputed at a time: near sqrt(T), where starts and tile are equal."""
    return max(LEAST_TILE, math.isqrt(job.x.shape[1]))
