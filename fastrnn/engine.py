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
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from fastrnn.checks import FloatArray
from fastrnn.kernels import ACTIVATIONS, layer, neuron
from fastrnn.scaled import Scaled
from fastrnn.sequences import Sequences

Block = tuple[int, int, int, int]

# Multiply-adds of one call: about 50 ms of a layer or a neuron, so that Ctrl-C is heard.
BLOCK_WORK = 1 << 22
# A step of activation and derivative costs about as much as this many multiply-adds.
ACTIVATION_WORK = 16
# Sequences of a layer that share a weight-gradient sum. A constant, and not a share of the
# threads, so that the order of the sum is the same on every machine.
GROUP = 16
LEAST_TILE = 64
MOST_THREADS = 1024
# A request below this is not held against the memory that is left.
MEMORY_UNCHECKED = 1 << 28
# Stands for an array that is not wanted; kernels may take its last axis apart.
EMPTY = (0, 0, 0, 1)
FEWER = "fewer sequences or nets a call"

_workers: contextvars.ContextVar[int | None] = contextvars.ContextVar("workers", default=None)


def forward(job: Sequences, *, keep: bool, workers: int | None) -> tuple[FloatArray, FloatArray]:
    """States (K, B, T, H), empty unless ``keep``, and the last state (K, B, H)."""
    states = _zeros(
        "states",
        job.size("KBTH") if keep else EMPTY,
        job.dtype,
        FEWER + " or keep='last' in forward",
    )
    last = np.empty_like(job.h0)
    w1, w2, b, _, _ = job.weights
    _run(
        lambda block: _kernels(job).forward(
            _code(job), w1, w2, b, job.x, job.h0, job.lengths, block, keep, states, last
        ),
        job,
        workers,
    )
    return states, last


def readout(job: Sequences, states: FloatArray, *, workers: int | None) -> FloatArray:
    """Predictions (K, B, T, O) of states (K, B, T, H)."""
    _, _, _, w3, b3 = job.weights
    y = _zeros("predictions", job.size("KBTO"), job.dtype, FEWER)
    _run(lambda block: layer.readout(w3, b3, states, job.lengths, block, y), job, workers)
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
    group = 1 if per_sequence else GROUP
    rows = -(-batch_size // group)
    sums = {
        name: _zeros(f"d{name}", (nets, rows, *weight.shape[1:]), np.float64, FEWER)
        for name, weight in job.weights._asdict().items()
    }
    loss = np.zeros((nets, rows))
    dx = _zeros("dx", job.size("KBTF") if want_dx else EMPTY, job.dtype, FEWER)
    dh0 = np.empty_like(job.h0)
    tile = _tile(job)
    _run(
        lambda block: _kernels(job).backward(
            _code(job), *job.weights, job.x, job.h0, job.lengths, tile, block, group, fused,
            upstream, dlast, loss, *sums.values(), dx, dh0, want_dx,
        ),
        job,
        workers,
        group,
    )  # fmt: skip
    sums["loss"] = loss
    if not per_sequence:
        sums = {name: _ordered_sum(array) for name, array in sums.items()}
    return sums | {"x": dx, "h0": dh0}


def influence(job: Sequences, seed: FloatArray, *, workers: int | None) -> tuple[Scaled, Scaled]:
    """d(seed . h_T)/dx (K, B, T, F) and d(seed . h_T)/dh_0 (K, B, H), for seeds (K, H)."""
    w1, w2, b, _, _ = job.weights
    shape = job.size("KBTF")
    mantissa = _zeros("influences", shape, job.dtype, FEWER)
    exponent = _zeros("influences", shape, np.float64, FEWER)
    mantissa0, exponent0 = np.empty_like(job.h0), np.empty(job.h0.shape)
    tile = _tile(job)
    _run(
        lambda block: _kernels(job).influence(
            _code(job), w1, w2, b, job.x, job.h0, job.lengths, tile, block, seed,
            mantissa, exponent, mantissa0, exponent0,
        ),
        job,
        workers,
    )  # fmt: skip
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
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores


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


def _run(
    call: Callable[[Block], None], job: Sequences, workers: int | None, group: int = 1
) -> None:
    """Make ``call`` for every block of lanes; an error or Ctrl-C is raised when all are idle."""
    count = _count_workers(workers)
    blocks = _blocks(job, count, group)
    if count == 1 or len(blocks) <= 1:
        for block in blocks:
            call(block)
        return
    rest = iter(blocks)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                block = next(rest, None)
            if block is None:
                return
            call(block)

    futures = [_pool().submit(work) for _ in range(min(count, len(blocks)))]
    try:
        for future in futures:
            future.result()
    finally:
        with lock:
            rest = iter(())
        wait(futures)


def _blocks(job: Sequences, workers: int, group: int) -> list[Block]:
    """Lanes in blocks of bounded work, whole groups of sequences each, enough for all workers."""
    nets, batch_size, _ = job.h0.shape
    _, steps, inputs = job.x.shape
    lane_work = max(1, steps * job.net.hidden_size * (job.net.hidden_size + inputs))
    lane_work += ACTIVATION_WORK * steps * job.net.hidden_size
    lanes = max(1, min(BLOCK_WORK // lane_work, -(-nets * batch_size // workers)))
    sequences = min(batch_size, group * max(1, lanes // group)) or 1
    k = max(1, lanes // sequences)
    return [
        (k0, min(k0 + k, nets), b0, min(b0 + sequences, batch_size))
        for k0 in range(0, nets, k)
        for b0 in range(0, batch_size, sequences)
    ]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads, started when first needed and reused when idle."""
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="fastrnn")


if hasattr(os, "register_at_fork"):
    # A child has none of its parent's threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _ordered_sum(array: FloatArray) -> FloatArray:
    """Sum over axis 1 in the order of the index."""
    total = np.zeros(array.shape[:1] + array.shape[2:], array.dtype)
    for row in range(array.shape[1]):
        total += array[:, row]
    return total


def _zeros(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> FloatArray:
    """Zeros, or a MemoryError before anything is allocated."""
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed > MEMORY_UNCHECKED and needed > (available := _available_memory()):
        raise MemoryError(
            f"{what} of shape {shape} need {needed / 1e9:.3g} GB, {available / 1e9:.3g} GB are "
            f"available; use {instead}"
        )
    return np.zeros(shape, dtype)


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
    """Steps recomputed at a time: near sqrt(T), where tile starts and tile are equally large."""
    return max(LEAST_TILE, math.isqrt(job.x.shape[1]))


def _code(job: Sequences) -> int:
    return ACTIVATIONS.index(job.net.activation)


def _kernels(job: Sequences) -> ModuleType:
    return neuron if job.net.is_neuron else layer
