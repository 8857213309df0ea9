"""The gradient of a job: found in numbers of any magnitude, rounded to floats once, at the end.

Of neurons, the kernels look at what they found and compute anew what plain floats do not hold.
Layers are walked in plain floats, and by ``layers_scaled`` where those left their range. What
neither can hold is walked number by number (``exact_walks``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastrnn import chunks, exact_walks, layers_scaled
from fastrnn.checks import FloatArray, is_finite
from fastrnn.engine import EMPTY, FEWER, lanes, layers, zeros
from fastrnn.exact_walks import ZERO
from fastrnn.kernels.neuron_powers import LEAST
from fastrnn.kernels.neuron_sums import SUMS
from fastrnn.kernels.rows import LOST, VOID
from fastrnn.kernels.scaled_sums import SUM, mark_lost, round_totals
from fastrnn.kernels.sums import ordered_sum, ordered_total
from fastrnn.lanes import Carried, Lanes, ScaledPair, State, no_sums
from fastrnn.layers_scaled import Total
from fastrnn.memory import BudgetTooSmall
from fastrnn.scaled import Scaled, already_normal
from fastrnn.scaled_parts import floats, quietly
from fastrnn.sequences import Sequences
from fastrnn.threads import count_workers, run

# Sequences whose sums are found number by number before they are added.
EXACT_SUMS = 16

Flags = NDArray[np.bool_]
Shares = dict[str, FloatArray]


@dataclass(frozen=True)
class Found:
    """What was found: sums of the weights' gradients and the loss, the gradients of x and of h_0.

    Sums are rows (6, K, B or 1, SUM) of a neuron, or totals (K, B or 1, ...) by weight of a layer.
    By weight, those of a neuron have no axes of units.
    """

    job: Sequences
    scale: float
    """Factor of the sums and of ``dh0``; ``dx`` has it already."""
    sums: NDArray[np.float64] | dict[str, Total]
    dx: FloatArray | ScaledPair | None
    """(K, B, T, F), floats or mantissas and exponents."""
    dh0: ScaledPair
    """(K, B, H)"""
    each: bool
    """Whether sums are those of every sequence."""
    has_sizes: bool = True
    """Whether ``size`` of the totals is that of all terms; not so of layers in plain floats."""

    def floats(self, want_h0: bool = True) -> tuple[dict[str, FloatArray], Shares | None]:
        """Gradients with axes (K, [B,] ...), and shares; a layer's are float64 but for x."""
        left: Shares | None
        if isinstance(self.sums, np.ndarray):
            values, shares = rounded(self.sums, self.scale, self.job.dtype)
            found, left = self._by_name(values), self._by_name(shares)
        else:
            found = {
                name: _rounded(self.scale * total.value, total.power)
                for name, total in self.totals().items()
            }
            left = self.shares()
        if want_h0:
            found["h0"] = _rounded(self.scale * self.dh0[0], self.dh0[1])
        if isinstance(self.dx, np.ndarray):
            found["x"] = self.dx
        return found, left

    def scaled(self, want_h0: bool = True) -> tuple[dict[str, Scaled], Shares | None]:
        """The same as `Scaled`."""
        dtype, totals = self.job.dtype, self.totals()
        found: dict[str, Scaled] = {}
        # But for those of w2 they are few numbers each: it takes less time to look at all at once.
        rest = tuple(name for name in totals if name != "w2")
        groups = [tuple(totals)] if self.job.net.is_neuron else [rest, ("w2",)]
        for names in groups if totals else []:
            found |= _together(totals, names, self.scale, dtype)
        if isinstance(self.dx, tuple):
            found["x"] = already_normal(*self.dx)
        if want_h0:
            found["h0"] = Scaled(self.scale * self.dh0[0], self.dh0[1]).astype(dtype)
        return found, self.shares()

    @quietly
    def shares(self) -> Shares | None:
        """|sum| / sum of |terms| of each weight; of layers in plain floats it is not known."""
        if not self.has_sizes:
            return None
        return {
            name: np.divide(
                abs(total.value), total.size, out=np.ones_like(total.value), where=total.size != 0
            )
            for name, total in self.totals().items()
        }

    def totals(self) -> dict[str, Total]:
        """Sums (K, [B,] ...) by weight."""
        totals = self.sums
        if isinstance(totals, np.ndarray):
            named = self._by_name(totals)
            return {name: total_of(row) for name, row in named.items()}
        if self.each:
            return totals
        return {name: Total(*(p[:, 0] for p in total)) for name, total in totals.items()}

    def _by_name(self, rows: FloatArray) -> dict[str, FloatArray]:
        """Rows (6, K, B or 1, ...) by weight: (K, [B,] ...)."""
        return dict(zip(SUMS, rows if self.each else rows[:, :, 0], strict=True))


def rounded(
    rows: NDArray[np.float64], scale: float, dtype: np.dtype[Any]
) -> tuple[FloatArray, NDArray[np.float64]]:
    """Sums (..., SUM) times a factor as floats of a type, and |sum| / sum of |terms|."""
    values, shares = np.empty(rows.shape[:-1], dtype), np.empty(rows.shape[:-1])
    round_totals(rows.reshape(-1, SUM), scale, values.reshape(-1), shares.reshape(-1))
    return values, shares


def _rounded(value: FloatArray, power: FloatArray) -> FloatArray:
    """value * 2**power in floats; powers of ordinary values are 0."""
    found: FloatArray = floats((value, power)) if power.any() else value
    return found


def _together(
    totals: dict[str, Total], names: tuple[str, ...], scale: float, dtype: np.dtype[Any]
) -> dict[str, Scaled]:
    shapes = [totals[name].value.shape for name in names]
    kept = len(shapes[names.index("loss")] if "loss" in names else shapes[0][:-2])
    value, power = (
        np.concatenate([p.reshape(*p.shape[:kept], math.prod(p.shape[kept:])) for p in parts], -1)
        for parts in (
            [totals[name].value for name in names], [totals[name].power for name in names]
        )
    )  # fmt: skip
    sums, start, found = Scaled(scale * value, power).astype(dtype), 0, {}
    for name, shape in zip(names, shapes, strict=True):
        columns = slice(start, start := start + math.prod(shape[kept:]))
        found[name] = sums[..., columns].reshape(*shape)
    return found


def find(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    *,
    fused: bool,
    want_dx: bool,
    each: bool,
    scaled: bool,
    workers: int | None,
    memory: int | None,
    scale: float = 1.0,
    want_sums: bool = True,
    h0_powers: NDArray[np.float64] | None = None,
) -> Found:
    """Pull a gradient back through a job.

    ``fused``: ``upstream`` is the target y (K, B, T, O) and the result is the gradient of half the
    sum of squared errors, times ``scale``; else it is a gradient of the states (K, B, T, H), beside
    that of the last one. States of neurons begin with h0 * 2**h0_powers.
    """
    require_memory(job, memory, each=each, want_sums=want_sums)
    if job.net.is_neuron or scaled:
        dx: Any = None
        if want_dx:
            dx = pair("dx", job.size("KBTF"), job.dtype) if scaled else _plain_dx(job)
        options: dict[str, Any] = {
            "fused": fused, "each": each, "want_sums": want_sums, "scale": scale,
        }  # fmt: skip
        pull: Any = _pull_layer
        if job.net.is_neuron:
            pull, options["h0_powers"] = _pull_neuron, h0_powers
        totals, dh0 = pull(job, upstream, dlast, dx, workers, memory, **options)
        return Found(job, scale, totals, dx, dh0, each)
    options = {"workers": workers, "memory": memory}
    found, marks = _layer_in_floats(job, upstream, dlast, want_dx, fused, each, scale, **options)
    if not marks.any() and is_whole(found):
        return found
    finite = _of_finite_inputs(job, upstream, dlast)
    lost: Flags = (marks == VOID) | (finite & ((marks == LOST) | ~_whole(found, finite)))
    if not lost.any():
        return found
    again = find(
        job, upstream, dlast, fused=fused, want_dx=want_dx, each=each, scaled=True, scale=scale,
        **options,
    )  # fmt: skip
    return _mended(found, again, lost)


def _plain_dx(job: Sequences) -> FloatArray:
    return zeros("dx", job.size("KBTF"), job.dtype, FEWER)


def pair(what: str, shape: tuple[int, ...], dtype: DTypeLike) -> ScaledPair:
    """Room for mantissas and exponents."""
    return zeros(what, shape, dtype, FEWER), zeros(what, shape, np.float64, FEWER)


# --- neurons ---


def _pull_neuron(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    dx: FloatArray | ScaledPair | None,
    workers: int | None,
    memory: int | None,
    *,
    fused: bool,
    each: bool,
    want_sums: bool,
    scale: float,
    h0_powers: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64] | dict[str, Total], ScaledPair]:
    own, carried = lanes(job, workers, memory), Carried.start(dlast)
    start = State(job.h0, job.zeros_64 if h0_powers is None else h0_powers)
    rows = no_sums(len(SUMS), *job.size("KB")) if want_sums else None
    outside = walk_neuron(
        own, start, upstream[..., 0], carried, rows, without_inputs(dx), fused=fused,
        want_w3=job.net.has_readout, scale=scale,
    )  # fmt: skip
    dh0 = carried.dh, carried.power + carried.rest
    some = mark_outside(rows, carried, outside)
    if some:
        outside &= ~_with_nan(job, upstream, dlast, outside)
        some = bool(outside.any())
    if some:
        pairs = np.argwhere(outside)
        sums = _sums(job, len(pairs)) if rows is not None else {}
        threads = _affordable(job, count_workers(workers), memory)
        _pull_exact(
            job, upstream, dlast, dx, dh0, fused, threads, outside, pairs, sums, scale, start.power
        )
        if rows is not None:
            for row, name in zip(rows, SUMS, strict=True):
                row[outside] = sums[name].reshape(-1, SUM)
    return ({} if rows is None else over_batch(rows, each)), dh0


def walk_neuron(own: Lanes, *arguments: Any, **options: Any) -> Flags:
    """As `Lanes.backward`, of long sequences in chunks."""
    walk = chunks.backward if chunks.suits(own) else Lanes.backward
    return walk(own, *arguments, **options)


def mark_outside(rows: NDArray[np.float64] | None, carried: Carried, outside: Flags) -> bool:
    """Mark lanes (K, B) whose sums lack digits, or whose gradient of h_0 is not finite.

    Whether there are some, marked here or before.
    """
    some: bool = mark_lost(no_sums(0, 0, 0) if rows is None else rows, LEAST, carried.dh, outside)
    return some


def over_batch(rows: NDArray[np.float64], each: bool) -> NDArray[np.float64]:
    """Sums (6, K, B or 1, SUM) of rows (6, K, B, SUM)."""
    if each:
        return rows
    slots, nets, batch_size, _ = rows.shape
    found = ordered_total(rows.reshape(slots * nets, batch_size, SUM))
    return found.reshape(slots, nets, 1, SUM)


def without_inputs(dx: Any) -> Any:
    """The gradient of x (K, B, T, 1) without its last axis."""
    if isinstance(dx, tuple):
        return dx[0][..., 0], dx[1][..., 0]
    return None if dx is None else dx[..., 0]


def _with_nan(job: Sequences, upstream: FloatArray, dlast: FloatArray, lanes: Flags) -> Flags:
    """Which of some lanes (K, B) have NaN among their inputs: it is theirs by right."""
    found = np.zeros_like(lanes)
    for k, i in np.argwhere(lanes):
        steps = job.lengths[i]
        given = job.x[i, :steps], upstream[k, i, :steps], dlast[k, i], job.h0[k, i]
        found[k, i] = any(np.isnan(array).any() for array in given)
    return found


# --- layers ---


def _pull_layer(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    dx: ScaledPair | None,
    workers: int | None,
    memory: int | None,
    *,
    fused: bool,
    each: bool,
    want_sums: bool,
    scale: float,
) -> tuple[dict[str, Total], ScaledPair]:
    into = pair("dx", EMPTY, job.dtype) if dx is None else dx
    dh0 = np.zeros(job.h0.shape), np.zeros(job.h0.shape)
    totals, outside, void = layers_scaled.pull(
        layers(job, workers, memory), job.h0, upstream, dlast, into, dh0, fused=fused, each=each,
        want_sums=want_sums, want_dx=dx is not None,
    )  # fmt: skip
    if dx is not None and scale != 1.0:
        by_x = job.dtype.type(scale) * already_normal(*dx)
        dx[0][...], dx[1][...] = by_x.mantissa, by_x.exponent
    pairs = np.argwhere(void if want_sums else outside)
    threads = _affordable(job, count_workers(workers), memory) if len(pairs) else 1
    for first in range(0, len(pairs), EXACT_SUMS):
        some = pairs[first : first + EXACT_SUMS]
        sums = _sums(job, len(some)) if want_sums else {}
        _pull_exact(job, upstream, dlast, dx, dh0, fused, threads, outside, some, sums, scale)
        for name, array in sums.items():
            own = total_of(array)
            for row, (k, i) in enumerate(some):
                totals[name].add((k, i) if each else (k, 0), Total(*(part[row] for part in own)))
    return totals, dh0


@quietly
def _layer_in_floats(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    want_dx: bool,
    fused: bool,
    each: bool,
    scale: float,
    *,
    workers: int | None,
    memory: int | None,
) -> tuple[Found, NDArray[np.uint8]]:
    """What plain floats found, and what they may have lost (K, B): see `Layers.backward`."""
    own, dx = layers(job, workers, memory), _plain_dx(job) if want_dx else None
    sums, dh0, lost = own.backward(job.h0, upstream, dlast, dx, fused=fused, each=each)
    if dx is not None and scale != 1.0:
        dx *= job.dtype.type(scale)
    return found_in_floats(job, sums, dh0, dx, each, scale), lost


def found_in_floats(
    job: Sequences, sums: Any, dh0: FloatArray, dx: FloatArray | None, each: bool, scale: float
) -> Found:
    """What a layer in plain floats found, from its sums."""
    arrays = layers(job, None).found(sums)
    if not each:
        arrays = {name: ordered_sum(array)[:, None] for name, array in arrays.items()}
    totals = {name: Total(a, abs(a), np.zeros(a.shape)) for name, a in arrays.items()}
    start = dh0.astype(np.float64), np.zeros(dh0.shape)
    return Found(job, scale, totals, dx, start, each, has_sizes=False)


def is_whole(found: Found) -> bool:
    """Whether everything is finite."""
    totals = found.sums
    arrays = [totals] if isinstance(totals, np.ndarray) else [t.value for t in totals.values()]
    arrays.append(found.dh0[0])
    if isinstance(found.dx, np.ndarray):
        arrays.append(found.dx)
    return all(is_finite(array) for array in arrays)


def _of_finite_inputs(job: Sequences, upstream: FloatArray, dlast: FloatArray) -> Flags:
    """Sequences (K, B) whose inputs are all finite."""
    nets, batch_size, steps = job.size("KBT")
    whole = np.ones((nets, batch_size), bool)
    within = (np.arange(steps) < job.lengths[:, None])[None, :, :, None]
    for array in (job.x[None], upstream):
        whole &= (np.isfinite(array) | ~within).all(axis=(2, 3))
    for array in (dlast, job.h0):
        whole &= np.isfinite(array).all(axis=2)
    return whole


def _whole(found: Found, finite: Flags) -> Flags:
    """Sequences (K, B) of which all is finite, or was not to be: see `_of_finite_inputs`."""
    of_sums = finite if found.each else np.asarray(finite.all(axis=1, keepdims=True))
    assert isinstance(found.sums, dict), "those of layers"
    whole = np.asarray(np.isfinite(found.dh0[0]).all(axis=2))
    if isinstance(found.dx, np.ndarray):
        whole &= np.isfinite(found.dx).all(axis=(2, 3))
    for total in found.sums.values():
        axes = tuple(range(2, total.value.ndim))
        own: Flags = np.asarray(np.isfinite(total.value).all(axis=axes))
        whole &= own | ~of_sums
    return whole


def _mended(found: Found, again: Found, lost: Flags) -> Found:
    """What was found in floats, but the true values where some sequences (K, B) lost digits."""
    assert isinstance(found.sums, dict), "those of layers"
    assert isinstance(again.sums, dict), "those of layers"
    of_sums = lost if found.each else np.asarray(lost.any(axis=1, keepdims=True))

    def taken(flags: Flags, true: FloatArray, own: FloatArray) -> FloatArray:
        return np.where(flags.reshape(flags.shape + (1,) * (own.ndim - 2)), true, own)

    sums = {
        name: Total(*(taken(of_sums, *both) for both in zip(again.sums[name], total, strict=True)))
        for name, total in found.sums.items()
    }
    mantissa, power = (taken(lost, *both) for both in zip(again.dh0, found.dh0, strict=True))
    dx = found.dx
    if isinstance(dx, np.ndarray) and isinstance(again.dx, tuple):
        dx = taken(lost, floats(again.dx), dx)
    return replace(found, sums=sums, dx=dx, dh0=(mantissa, power))


# --- number by number ---


def _sums(job: Sequences, *axes: int) -> dict[str, FloatArray]:
    """Room for sums (..., SUM) of the loss and of each weight."""
    shapes = {"loss": ()} | {name: w.shape[1:] for name, w in job.weights._asdict().items()}
    return {
        name: zeros(f"d{name}", (*axes, *shape, SUM), np.float64, FEWER)
        for name, shape in shapes.items()
    }


def total_of(sums: FloatArray) -> Total:
    """The total of numbers (..., SUM)."""
    value, lost, size, power = (sums[..., number] for number in range(SUM))
    return Total(value + lost, size, power)


def _pull_exact(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    dx: FloatArray | ScaledPair | None,
    dh0: ScaledPair,
    fused: bool,
    workers: int,
    outside: Flags,
    pairs: NDArray[np.int64],
    sums: dict[str, FloatArray],
    scale: float,
    h0_powers: NDArray[np.float64] | None = None,
) -> None:
    """Number by number, the sums of some nets and sequences, a row for each.

    Also the gradients of x and h_0 of those that are ``outside`` (K, B); others have theirs.
    """

    def call(row: int) -> None:
        k, i = pairs[row].tolist()
        names = exact_walks.Gradients._fields
        own = exact_walks.Gradients(*(sums[name][row] for name in names)) if sums else None
        by_x: ScaledPair | None = None
        if dx is not None and outside[k, i]:
            shape = job.size("TF")
            by_x = np.zeros(shape, job.dtype), np.zeros(shape)
        power = ZERO if h0_powers is None else h0_powers[k, i]
        found = exact_walks.backward(
            job, k, i, upstream[k, i], dlast[k, i], own, by_x, fused=fused, h0_powers=power
        )
        if not outside[k, i]:
            return
        dh0[0][k, i], dh0[1][k, i] = found
        if by_x is not None and isinstance(dx, tuple):
            true = job.dtype.type(scale) * Scaled(*by_x)
            dx[0][k, i], dx[1][k, i] = true.mantissa, true.exponent
        elif by_x is not None and isinstance(dx, np.ndarray):
            with np.errstate(all="ignore"):
                dx[k, i] = floats((scale * by_x[0].astype(np.float64), by_x[1]))

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
    if memory is None:
        return workers
    return max(1, min(workers, memory // exact_walks.working_memory(job)))
