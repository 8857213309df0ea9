"""The engine of numbers of any magnitude.

Neurons and layers are walked by vectors; nets and sequences that leave the reach of those, number
by number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastrnn import exact_walks, layers_scaled, reach
from fastrnn.checks import FloatArray
from fastrnn.engine import EMPTY, FEWER, lanes, layers, zeros
from fastrnn.kernels import neuron, neuron_scaled
from fastrnn.kernels.neuron_scaled import SUM
from fastrnn.kernels.sums import ordered_total
from fastrnn.lanes import Carried
from fastrnn.layers_scaled import Total
from fastrnn.memory import BudgetTooSmall
from fastrnn.scaled import Scaled, already_normal
from fastrnn.sequences import Sequences
from fastrnn.threads import count_workers, run

# Sequences whose sums are found number by number before they are added.
EXACT_SUMS = 16


def forward(job: Sequences, *, keep: bool, workers: int | None) -> tuple[Scaled, Scaled]:
    """As `engine.forward`, of states of any magnitude; past a sequence's length they are 0.

    Plain floats are tried first; only nets and sequences that leave their reach are walked number
    by number.
    """
    states = zeros("states", job.size("KBTH") if keep else EMPTY, job.dtype, FEWER)
    last, left = reach.forward(job, workers, states if keep else None)
    pairs = np.argwhere(left)
    if not len(pairs):
        # Adding 0 makes every zero positive.
        return Scaled(states + 0.0), Scaled(last + 0.0)
    powers = zeros("exponents of states", states.shape, np.float64, FEWER)
    last_powers = np.zeros(last.shape)

    def call(pair: NDArray[np.int64]) -> None:
        k, i = pair.tolist()
        into = (states[k, i], powers[k, i]) if keep else None
        last[k, i], last_powers[k, i] = exact_walks.forward(job, k, i, into)

    run(call, list(pairs), workers)
    return Scaled(states + 0.0, powers), Scaled(last + 0.0, last_powers)


def influence(
    job: Sequences, seed: FloatArray, *, workers: int | None, memory: int | None = None
) -> tuple[Scaled, Scaled]:
    """d(seed . h_T)/dx (K, B, T, F) and d(seed . h_T)/dh_0 (K, B, H), for seeds (K, H)."""
    require_memory(job, memory, want_sums=False)
    into = Results(_pair("influences", job.size("KBTF"), job.dtype), _pair_of(job.h0))
    none = np.broadcast_to(np.zeros((), job.dtype), job.size("KBTH"))
    seeds = np.broadcast_to(seed[:, None], job.h0.shape)
    pull = _pull_neuron if job.net.is_neuron else _pull_layer
    pull(job, none, seeds, into, workers, memory, fused=False, each=False, want_sums=False)
    found = into.scaled(job)
    return found["x"], found["h0"]


def neuron_influence(
    job: Sequences, carried: Carried, *, workers: int | None
) -> tuple[Scaled, NDArray[np.bool_]]:
    """What is carried from later steps of a neuron, pulled back to x (K, B, T, F) and h_0.

    Also which nets and sequences were outside the kernel's range, see there.
    """
    dx = _pair("influences", job.size("KBTF"), job.dtype)
    none = np.broadcast_to(np.zeros((), job.dtype), job.size("KBT"))
    into = dx[0][..., 0], dx[1][..., 0]
    walk = lanes(job, workers).backward_scaled
    outside = walk(job.h0, none, carried, None, into, fused=False, want_w3=False)
    return already_normal(*dx), outside | ~np.isfinite(carried.dh[..., 0])


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
    want_h0: bool = True,
    scale: float = 1.0,
) -> tuple[dict[str, Scaled], dict[str, FloatArray]]:
    """As `engine.backward`, times a factor, and |sum| / sum of |terms| of each weight."""
    require_memory(job, memory, each=per_sequence)
    dx = _pair("dx", job.size("KBTF") if want_dx else EMPTY, job.dtype)
    into = Results(dx, _pair_of(job.h0))
    pull = _pull_neuron if job.net.is_neuron else _pull_layer
    totals = pull(
        job, upstream, dlast, into, workers, memory, fused=fused, each=per_sequence, want_sums=True
    )
    found = into.scaled(job, want_h0, scale)
    left = {}
    # But for those of w2 they are few numbers each: it takes less time to look at all at once.
    several = [tuple(name for name in totals if name != "w2"), ("w2",)]
    for names in [tuple(totals)] if job.net.is_neuron else several:
        shapes = [totals[name].value.shape[2:] for name in names]
        value, size, power = (
            np.concatenate(
                [part.reshape(*part.shape[:2], math.prod(part.shape[2:])) for part in parts], axis=2
            )
            for parts in zip(*(totals[name] for name in names), strict=True)
        )
        if not per_sequence:
            value, size, power = value[:, 0], size[:, 0], power[:, 0]
        sums, start = Scaled(scale * value, power).astype(job.dtype), 0
        with np.errstate(invalid="ignore"):
            share = np.divide(abs(value), size, out=np.ones_like(value), where=size != 0)
        for name, shape in zip(names, shapes, strict=True):
            whole = (*value.shape[:-1], *shape)
            columns = slice(start, start := start + math.prod(shape))
            found[name] = sums[..., columns].reshape(*whole)
            left[name] = share[..., columns].reshape(whole)
    return found, left


Pair = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class Results:
    """Room for mantissas and exponents of the gradients of x (K, B, T, F) and h_0 (K, B, H)."""

    dx: Pair
    dh0: Pair

    @property
    def want_dx(self) -> bool:
        """Whether the gradient of x is to be found."""
        return self.dx[0].size > 0

    def scaled(self, job: Sequences, want_h0: bool = True, scale: float = 1.0) -> dict[str, Scaled]:
        """Gradients of x, and of h_0 where wanted, times a factor."""
        by_x = already_normal(*self.dx)
        found = {"x": by_x if scale == 1.0 or not self.want_dx else job.dtype.type(scale) * by_x}
        if want_h0:
            mantissa, exponent = self.dh0
            found["h0"] = Scaled(scale * mantissa, exponent).astype(job.dtype)
        return found


def _pair(what: str, shape: tuple[int, ...], dtype: DTypeLike) -> Pair:
    return zeros(what, shape, dtype, FEWER), zeros(what, shape, np.float64, FEWER)


def _pair_of(h0: FloatArray) -> Pair:
    return np.zeros(h0.shape), np.zeros(h0.shape)


def _sums(job: Sequences, *axes: int) -> dict[str, FloatArray]:
    """Room for sums (..., SUM) of the loss and of each weight."""
    shapes = {"loss": ()} | {name: w.shape[1:] for name, w in job.weights._asdict().items()}
    return {
        name: zeros(f"d{name}", (*axes, *shape, SUM), np.float64, FEWER)
        for name, shape in shapes.items()
    }


def _pull_neuron(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    into: Results,
    workers: int | None,
    memory: int | None,
    *,
    fused: bool,
    each: bool,
    want_sums: bool,
) -> dict[str, Total]:
    """Pull a gradient back through neurons; sums (K, B or 1, ...) of each sequence, or of all."""
    rows: FloatArray | None = None
    if want_sums:
        rows = np.zeros((len(neuron.SUMS), *job.h0.shape[:2], SUM))
        rows[: neuron_scaled.POWERED, ..., -1] = neuron_scaled.NO_POWER
    dx = (into.dx[0][..., 0], into.dx[1][..., 0]) if into.want_dx else None
    carried, walk = Carried.start(dlast), lanes(job, workers, memory).backward_scaled
    outside = walk(
        job.h0, upstream[..., 0], carried, rows, dx, fused=fused, want_w3=job.net.has_readout
    )
    into.dh0[0][...], into.dh0[1][...] = carried.dh, carried.power + carried.rest
    outside |= ~np.isfinite(into.dh0[0][..., 0])
    if rows is not None:
        outside |= neuron_scaled.digits_lost(rows)
    own = _sums(job, int(outside.sum())) if rows is not None else {}
    threads = _affordable(job, count_workers(workers), memory)
    _pull_exact(job, upstream, dlast, into, fused, threads, outside, np.argwhere(outside), own)
    if rows is None:
        return {}
    for row, name in zip(rows, neuron.SUMS, strict=True):
        row[outside] = own[name].reshape(-1, SUM)
    if not each:
        nets, batch_size = job.h0.shape[:2]
        sums = rows.reshape(len(rows) * nets, batch_size, SUM)
        rows = ordered_total(sums).reshape(len(rows), nets, 1, SUM)
    shapes = {"loss": ()} | {name: w.shape[1:] for name, w in job.weights._asdict().items()}
    return {
        name: _total(row.reshape(*row.shape[:2], *shapes[name], SUM))
        for name, row in zip(neuron.SUMS, rows, strict=True)
    }


def _pull_layer(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    into: Results,
    workers: int | None,
    memory: int | None,
    *,
    fused: bool,
    each: bool,
    want_sums: bool,
) -> dict[str, Total]:
    """The same of layers."""
    totals, outside, void = layers_scaled.pull(
        layers(job, workers, memory), job.h0, upstream, dlast, into.dx, into.dh0, fused=fused,
        each=each, want_sums=want_sums, want_dx=into.want_dx,
    )  # fmt: skip
    pairs = np.argwhere(void if want_sums else outside)
    threads = _affordable(job, count_workers(workers), memory) if len(pairs) else 1
    for first in range(0, len(pairs), EXACT_SUMS):
        some = pairs[first : first + EXACT_SUMS]
        sums = _sums(job, len(some)) if want_sums else {}
        _pull_exact(job, upstream, dlast, into, fused, threads, outside, some, sums)
        for name, array in sums.items():
            own = _total(array)
            for row, (k, i) in enumerate(some):
                totals[name].add((k, i) if each else (k, 0), Total(*(part[row] for part in own)))
    return totals


def _total(sums: FloatArray) -> Total:
    value, lost, size, power = np.moveaxis(sums, -1, 0)
    return Total(value + lost, size, power)


def _pull_exact(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    into: Results,
    fused: bool,
    workers: int | None,
    outside: NDArray[np.bool_],
    pairs: NDArray[np.int64],
    sums: dict[str, FloatArray],
) -> None:
    """Number by number, the sums of some nets and sequences, a row for each.

    Also the gradients of x and h_0 of those that are ``outside`` (K, B); others have theirs.
    """

    def call(row: int) -> None:
        k, i = pairs[row].tolist()
        names = exact_walks.Gradients._fields
        own = exact_walks.Gradients(*(sums[name][row] for name in names)) if sums else None
        dx = (into.dx[0][k, i], into.dx[1][k, i]) if into.want_dx and outside[k, i] else None
        found = exact_walks.backward(job, k, i, upstream[k, i], dlast[k, i], own, dx, fused=fused)
        if outside[k, i]:
            into.dh0[0][k, i], into.dh0[1][k, i] = found

    run(call, list(range(len(pairs))), workers)


def require_memory(
    job: Sequences, memory: int | None, *, each: bool = False, want_sums: bool = True
) -> None:
    """A budget is enough for every way that a gradient may be found, in plain floats or not."""
    if memory is None:
        return
    if memory < (least := least_memory(job, each=each, want_sums=want_sums)):
        raise BudgetTooSmall(memory, least)


def least_memory(job: Sequences, *, each: bool, want_sums: bool = True) -> int:
    """The least budget that `require_memory` takes."""
    least = exact_walks.working_memory(job)
    if job.net.is_neuron:
        return max(least, lanes(job, 1).least_memory())
    own = layers(job, 1)
    least = max(least, layers_scaled.least_memory(own, each=each, want_sums=want_sums))
    return max(least, own.least_memory(own.held(each), own.stride))


def _affordable(job: Sequences, workers: int, memory: int | None) -> int:
    """As many of the workers as a budget allows walks number by number, at least one."""
    return (
        workers
        if memory is None
        else max(1, min(workers, memory // exact_walks.working_memory(job)))
    )
