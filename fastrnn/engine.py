"""A job cut into blocks of lanes, and the threads that run them.

One lane is one net over one sequence. Every lane writes its own part of the results, so blocks
may run in any order on any number of threads and the bits stay the same.
"""

from __future__ import annotations

import contextvars
import functools
import math
import multiprocessing
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastrnn.checks import FloatArray
from fastrnn.kernels import ACTIVATIONS, layer, neuron
from fastrnn.kernels.memory import REGISTER_BYTES
from fastrnn.kernels.sums import ordered_sum
from fastrnn.scaled import Scaled
from fastrnn.sequences import Sequences

Block = tuple[int, int, int, int]
Part = TypeVar("Part")

# Multiply-adds of one call on a layer: about 50 ms, so that Ctrl-C is heard.
BLOCK_WORK = 1 << 22
# A step of activation and derivative costs about as much as this many multiply-adds.
ACTIVATION_WORK = 16
# Sequences of a layer that share a weight-gradient sum. A constant, and not a share of the
# threads, so that the order of the sum is the same on every machine.
GROUP = 16
LEAST_TILE = 64
# A multiple of neuron.STEPS whose inputs, states and slopes fit into a core's second cache.
NEURON_TILE = 1024
MOST_THREADS = 1024
# Steps times lanes of one call on a neuron: some 50 ms.
LANE_STEPS = 1 << 25
# A request below this is not held against the memory that is left.
MEMORY_UNCHECKED = 1 << 28
# Stands for an array that is not wanted; kernels may take its last axis apart.
EMPTY = (0, 0, 0, 1)
FEWER = "fewer sequences or nets a call"

_workers: contextvars.ContextVar[int | None] = contextvars.ContextVar("workers", default=None)


def forward(job: Sequences, *, keep: bool, workers: int | None) -> tuple[FloatArray, FloatArray]:
    """States (K, B, T, H), empty unless ``keep``, and the last state (K, B, H)."""
    states = _states(job) if keep else np.empty(EMPTY, job.dtype)
    last = np.empty_like(job.h0)
    w1, w2, b, _, _ = job.weights
    f = ACTIVATIONS[job.net.activation]
    common: tuple[Any, ...]
    if job.net.is_neuron:
        common = f, w1, w2, b, _view(job.x), job.h0, job.lengths, _lanes(job)
        results = keep, _view(states), last
        parts = _lane_ranges(job, workers)
        _run(lambda part: neuron.forward(*common, *part, *results), parts, workers)
    else:
        common = f, w1, w2, b, job.x, job.h0, job.lengths
        blocks = _blocks(job, workers)
        _run(lambda block: layer.forward(*common, block, keep, states, last), blocks, workers)
    return states, last


def readout(job: Sequences, states: FloatArray, *, workers: int | None) -> FloatArray:
    """Predictions (K, B, T, O) of states (K, B, T, H)."""
    _, _, _, w3, b3 = job.weights
    y = _zeros("predictions", job.size("KBTO"), job.dtype, FEWER)
    _run(
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
) -> dict[str, FloatArray]:
    """Gradients with axes (K, B, ...), summed over B but for h0 and x unless ``per_sequence``.

    ``fused``: ``upstream`` is the target y (K, B, T, O) and the result is that of half the sum
    of squared errors, its key ``loss``; else it is a gradient of the states (K, B, T, H).
    """
    nets, batch_size, _ = job.h0.shape
    group = 1 if per_sequence or job.net.is_neuron else GROUP
    rows = -(-batch_size // group)
    sums = {"loss": np.zeros((nets, rows))}
    for name, weight in job.weights._asdict().items():
        sums[name] = _zeros(f"d{name}", (nets, rows, *weight.shape[1:]), np.float64, FEWER)
    dx = _zeros("dx", job.size("KBTF") if want_dx else EMPTY, job.dtype, FEWER)
    dh0 = np.empty_like(job.h0)
    tile = _tile(job)
    f = ACTIVATIONS[job.net.activation]
    common: tuple[Any, ...]
    rest: tuple[Any, ...]
    if job.net.is_neuron:
        common = f, *job.weights, _view(job.x), job.h0, job.lengths, _lanes(job)
        parts = _lane_ranges(job, workers)
        flat = [array.reshape(nets, rows) for array in sums.values()]
        rest = tile, fused, _view(upstream), np.array(dlast), *flat, _view(dx), dh0, want_dx
        _run(lambda part: neuron.backward(*common, *part, *rest), parts, workers)
    else:
        common = f, *job.weights, job.x, job.h0, job.lengths
        rest = group, fused, upstream, dlast, *sums.values(), dx, dh0, want_dx
        blocks = _blocks(job, workers, group)
        _run(lambda block: layer.backward(*common, tile, block, *rest), blocks, workers)
    if not per_sequence:
        sums = {name: ordered_sum(array) for name, array in sums.items()}
    return sums | {"x": dx, "h0": dh0}


def influence(job: Sequences, seed: FloatArray, *, workers: int | None) -> tuple[Scaled, Scaled]:
    """d(seed . h_T)/dx (K, B, T, F) and d(seed . h_T)/dh_0 (K, B, H), for seeds (K, H)."""
    w1, w2, b, _, _ = job.weights
    shape = job.size("KBTF")
    mantissa = _zeros("influences", shape, job.dtype, FEWER)
    exponent = _zeros("influences", shape, np.float64, FEWER)
    mantissa0, exponent0 = np.empty_like(job.h0), np.empty(job.h0.shape)
    tile = _tile(job)
    f = ACTIVATIONS[job.net.activation]
    common: tuple[Any, ...]
    rest: tuple[Any, ...]
    if job.net.is_neuron:
        common = f, w1, w2, b, _view(job.x), job.h0, job.lengths, _lanes(job)
        rest = tile, seed, _view(mantissa), _view(exponent), mantissa0, exponent0
        _run(
            lambda part: neuron.influence(*common, *part, *rest),
            _lane_ranges(job, workers),
            workers,
        )
    else:
        common = f, w1, w2, b, job.x, job.h0, job.lengths
        rest = seed, mantissa, exponent, mantissa0, exponent0
        blocks = _blocks(job, workers)
        _run(lambda block: layer.influence(*common, tile, block, *rest), blocks, workers)
    return Scaled(mantissa, exponent), Scaled(mantissa0, exponent0)


@contextmanager
def set_workers(workers: int) -> Iterator[None]:
    """Context in which calls without ``workers=`` use this many threads.

    Parameters
    ----------
    workers : int
        As everywhere: positive, or negative to count back from the number of cores.

    Raises
    ------
    ValueError, TypeError
        If it is 0, below minus the number of cores, or no integer.

    Examples
    --------
    >>> import fastrnn
    >>> with fastrnn.set_workers(1):
    ...     fastrnn.forward(fastrnn.RNN(1.0, 0.5, activation="identity"), [1.0, 0.0, 0.0])
    array([1.  , 0.5 , 0.25])
    """
    token = _workers.set(_count_workers(workers))
    try:
        yield
    finally:
        _workers.reset(token)


def default_workers() -> int:
    """Threads of a call that names none: the cores this process may use, 1 in a pool's worker."""
    chosen = _workers.get()
    if chosen is not None:
        return chosen
    in_pool = threading.current_thread() is not threading.main_thread()
    if in_pool or multiprocessing.parent_process() is not None:
        return 1
    return available_cores()


def available_cores() -> int:
    """Cores by affinity and, on Linux, by the control group's quota; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, _quota())


@functools.cache
def _quota() -> int:
    """Cores by the control group's quota, read once: a read costs as much as a small job."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return sys.maxsize


def _count_workers(workers: SupportsIndex | None) -> int:
    if workers is None:
        return default_workers()
    if isinstance(workers, bool):
        raise TypeError("workers must be an integer, got a bool")
    try:
        number = operator.index(workers)
    except TypeError:
        raise TypeError(f"workers must be an integer, got {type(workers).__name__}") from None
    cores = available_cores()
    if number == 0 or number < -cores:
        raise ValueError(f"workers must be positive, or from -1 to -{cores}, got {number}")
    return number if number > 0 else cores + 1 + number


def _run(call: Callable[[Part], None], parts: list[Part], workers: int | None) -> None:
    """Make ``call`` for every part of a job; an error or Ctrl-C is raised when all are idle."""
    count = _count_workers(workers)
    if count == 1 or len(parts) <= 1:
        for part in parts:
            call(part)
        return
    rest = iter(parts)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                part = next(rest, None)
            if part is None:
                return
            call(part)

    # The caller is one of the workers: waking a thread costs as much as a small job.
    futures = [_pool().submit(work) for _ in range(min(count, len(parts)) - 1)]
    try:
        work()
        for future in futures:
            future.result()
    finally:
        with lock:
            rest = iter(())
        wait(futures)


def _blocks(job: Sequences, workers: int | None, group: int = 1) -> list[Block]:
    """Nets x sequences of a layer in blocks of bounded work, whole groups of sequences each."""
    nets, batch_size, _ = job.h0.shape
    _, steps, inputs = job.x.shape
    lane_work = max(1, steps * job.net.hidden_size * (job.net.hidden_size + inputs))
    lane_work += ACTIVATION_WORK * steps * job.net.hidden_size
    share = -(-nets * batch_size // _count_workers(workers))
    lanes = max(1, min(BLOCK_WORK // lane_work, share))
    sequences = min(batch_size, group * max(1, lanes // group)) or 1
    k = max(1, lanes // sequences)
    return [
        (k0, min(k0 + k, nets), b0, min(b0 + sequences, batch_size))
        for k0 in range(0, nets, k)
        for b0 in range(0, batch_size, sequences)
    ]


def _view(array: FloatArray) -> tuple[int, ...]:
    """Address of the first number and the strides in numbers, for kernels of any layout."""
    return array.ctypes.data, *(stride // array.itemsize for stride in array.strides)


def _lanes(job: Sequences) -> NDArray[np.int64]:
    """Order in which a neuron's lanes fill vectors: of one length, or nearly, side by side."""
    nets, batch_size, _ = job.h0.shape
    table = np.arange(nets * batch_size).reshape(nets, batch_size)
    # Where they fill a vector, a bank's nets go side by side: they share their inputs.
    lanes = (table.T if nets >= REGISTER_BYTES // job.dtype.itemsize else table).ravel()
    lengths = job.lengths[lanes % batch_size] if batch_size else job.lengths
    if (lengths == job.x.shape[1]).all():
        return lanes
    return lanes[np.argsort(-lengths, kind="stable")]


def _lane_ranges(job: Sequences, workers: int | None) -> list[tuple[int, int]]:
    """Ranges of a neuron's lanes: whole vectors, of bounded work, enough for all workers."""
    nets, batch_size, _ = job.h0.shape
    count = nets * batch_size
    vector = REGISTER_BYTES // job.dtype.itemsize
    block = neuron.VECTORS * vector
    size = min(max(1, LANE_STEPS // max(1, job.x.shape[1])), -(-count // _count_workers(workers)))
    unit = block if size >= block else vector
    size = max(1, size // unit) * unit
    return [(start, min(start + size, count)) for start in range(0, count, size)]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads, started when first needed and reused when idle."""
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="fastrnn")


if hasattr(os, "register_at_fork"):
    # A child has none of its parent's threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _states(job: Sequences) -> FloatArray:
    """Room for all states (K, B, T, H), laid out as x is: time first where it comes first in x."""
    what, hint = "states", FEWER + " or keep='last' in forward"
    ragged = bool((job.lengths != job.x.shape[1]).any())
    make = _zeros if ragged else _empty
    nets, batch_size, steps, hidden = job.size("KBTH")
    if job.net.is_neuron and abs(job.x.strides[0]) < abs(job.x.strides[1]):
        return make(what, (nets, steps, batch_size, hidden), job.dtype, hint).swapaxes(1, 2)
    return make(what, (nets, batch_size, steps, hidden), job.dtype, hint)


def _empty(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> FloatArray:
    _check_memory(what, shape, dtype, instead)
    return np.empty(shape, dtype)


def _zeros(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> FloatArray:
    _check_memory(what, shape, dtype, instead)
    return np.zeros(shape, dtype)


def _check_memory(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> None:
    """MemoryError before anything is allocated that would not fit."""
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed > MEMORY_UNCHECKED and needed > (available := _available_memory()):
        raise MemoryError(
            f"{what} of shape {shape} need {needed / 1e9:.3g} GB, {available / 1e9:.3g} GB are "
            f"available; use {instead}"
        )


def _available_memory() -> float:
    """Bytes this process may still take, by the system and the control group; inf if unknown."""
    available = math.inf
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = 1024.0 * int(line.split()[1])
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        available = min(available, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return available


def _tile(job: Sequences) -> int:
    """Steps recomputed at a time: a layer's near sqrt(T), where starts and tile are equal."""
    if job.net.is_neuron:
        return NEURON_TILE
    return max(LEAST_TILE, math.isqrt(job.x.shape[1]))
