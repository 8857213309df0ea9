"""Threads: how many a call may use, and how they share out its work."""

from __future__ import annotations

import contextvars
import functools
import multiprocessing
import operator
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastrnn.kernels.turns import COUNTERS, DONE, TAKEN, await_end, await_first, finish, take

Part = TypeVar("Part")

# Looks at a counter before a thread that waits for others goes to sleep: 0.3 to 1 ms.
LOOKS = 1 << 20
# Seconds between looks after that.
NAP = 2e-4

_workers: contextvars.ContextVar[int | None] = contextvars.ContextVar("workers", default=None)


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
    token = _workers.set(count_workers(workers))
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


def count_workers(workers: SupportsIndex | None) -> int:
    """Threads of a call, from its argument ``workers``."""
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


def run(call: Callable[[Part], None], parts: list[Part], workers: int | None) -> None:
    """Make ``call`` for every part of a job; see `share`."""

    def call_next(turns: NDArray[np.int64]) -> None:
        number = take(turns)
        if number < len(parts):
            call(parts[number])
            finish(turns)

    share(call_next, len(parts), count_workers(workers))


def share(call: Callable[[NDArray[np.int64]], None], blocks: int, workers: int) -> None:
    """Let ``call(turns)`` take blocks of a job, on several threads, until all are done.

    A call takes a bounded number of blocks from the counters and returns. An error or Ctrl-C is
    raised when no thread is at work any more.
    """
    if workers == 1 or blocks <= 1:
        Job(call, np.zeros(COUNTERS, np.int64), blocks, 0).work()
        return
    crew = _crews.pop() if _crews else Crew()
    try:
        crew.share(call, blocks, min(workers, blocks) - 1)
    finally:
        _crews.append(crew)


@dataclass(eq=False)
class Job:
    """What `share` was given, with the counters ``turns`` and the number of helpers."""

    call: Callable[[NDArray[np.int64]], None]
    turns: NDArray[np.int64]
    blocks: int
    helpers: int
    at_work: list[int] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def work(self) -> None:
        """Take blocks until none is left."""
        while self.turns[TAKEN] < self.blocks:
            self.call(self.turns)

    def help(self, number: int) -> None:
        """The same, by a helper."""
        self.at_work.append(number)
        try:
            self.work()
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.at_work.remove(number)


class Crew:
    """Threads that help one caller at a time.

    To wake a thread takes as long as a small job. So a helper that has nothing to do first looks
    out for the next job, without holding the interpreter, and lies down after a while. A job
    begins, to it, when the first block is taken: the caller is then in compiled code, and the
    interpreter free.
    """

    def __init__(self) -> None:
        self.job: Job | None = None
        self.next_turns = np.zeros(COUNTERS, np.int64)
        self.gates: list[threading.Semaphore] = []
        self.asleep: set[int] = set()
        # Compiled here, not by a helper that may hold the compiler's lock when a process forks.
        await_first(np.zeros(COUNTERS, np.int64), 0)
        await_end(self.next_turns, 0, self.next_turns, 0, 0)

    def share(self, call: Callable[[NDArray[np.int64]], None], blocks: int, helpers: int) -> None:
        """Do a job with so many helpers."""
        while len(self.gates) < helpers:
            self.gates.append(threading.Semaphore(0))
            number = len(self.gates) - 1
            name = f"fastrnn-{number}"
            threading.Thread(target=self._help, args=(number,), name=name, daemon=True).start()
        job, later = Job(call, self.next_turns, blocks, helpers), np.zeros(COUNTERS, np.int64)
        try:
            # No call between the two, where Ctrl-C could come in.
            self.job = job
            self.next_turns = later
            for number in [n for n in list(self.asleep) if n < helpers]:
                self.gates[number].release()
            job.work()
            await_end(job.turns, blocks, later, helpers, LOOKS)
        finally:
            self._end(job)
        if job.errors:
            raise job.errors[0]

    def _end(self, job: Job) -> None:
        """Wait until no helper is at work: it would write to arrays that the caller may free."""
        job.turns[TAKEN] = max(job.blocks, job.turns[TAKEN])
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                self._wait(job)
                break
            except KeyboardInterrupt as error:
                interrupt = error
        self.job = None
        if interrupt is not None:
            raise interrupt

    def _wait(self, job: Job) -> None:
        while job.turns[DONE] < job.blocks and job.at_work:
            time.sleep(NAP)

    def _help(self, number: int) -> None:
        # Of the last job its counters only: the job itself would keep the caller's arrays alive.
        last: NDArray[np.int64] | None = None
        while True:
            turns, job = self.next_turns, self.job
            if job is not None and job.turns is not last and number < job.helpers:
                job.help(number)
                last = job.turns
                continue
            del job
            if not await_first(turns, LOOKS):
                self.asleep.add(number)
                if self.next_turns is turns:
                    self.gates[number].acquire()
                self.asleep.discard(number)


# Crews without a caller. A child process has none of its parent's threads.
_crews: list[Crew] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crews.clear)
