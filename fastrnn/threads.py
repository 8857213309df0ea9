"""Threads: how many a call may use, and how they share out its work."""

from __future__ import annotations

import _thread
import contextvars
import functools
import multiprocessing
import operator
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastrnn.control_groups import cpu_quota
from fastrnn.kernels.arithmetic import make_standard
from fastrnn.kernels.jit import given_up
from fastrnn.kernels.turns import (
    AT_WORK,
    COUNTERS,
    DONE,
    TAKEN,
    await_end,
    await_first,
    await_idle,
    enter,
    finish,
    leave,
    take,
)

Part = TypeVar("Part")

# Looks at a counter before a thread that waits for others goes to sleep: 0.3 to 1 ms.
LOOKS = 1 << 20
# Seconds between looks after that.
NAP = 2e-4
# Seconds after which a helper that sleeps looks whether its crew is still there.
SLEEP = 60.0

_workers: contextvars.ContextVar[int | None] = contextvars.ContextVar("workers", default=None)


class set_workers:
    """Let calls without ``workers=`` use a number of threads.

    As a statement, from there on; as a context, until its end, where the number before holds
    again. It holds for the calls of the thread, or the asynchronous task, that says so: calls from
    other threads keep their own, 1 by default.

    Parameters
    ----------
    workers : int, optional
        As everywhere: positive, or negative to count back from the number of cores. None for the
        default: the cores that this process may use, and 1 in a pool's worker.

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

    For the rest of a script:

    >>> _ = fastrnn.set_workers(2)
    >>> _ = fastrnn.set_workers(None)
    """

    def __init__(self, workers: SupportsIndex | None) -> None:
        number = None if workers is None else count_workers(workers)
        self._before = _workers.get()
        _workers.set(number)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        _workers.set(self._before)


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
    """Cores by affinity and, on Linux, by the quotas of control groups; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, _quota()))


@functools.cache
def _quota() -> int:
    """Whole cores by quota, read once: a read costs as much as a small job."""
    return int(min(cpu_quota(), sys.maxsize))


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
    """Make ``call`` for every part of a job; see `share`. It refers to all arrays it works on."""

    def call_next(turns: NDArray[np.int64]) -> None:
        number = take(turns)
        if number < len(parts):
            call(parts[number])
            finish(turns)

    share(call_next, len(parts), count_workers(workers))


def share(
    call: Callable[[NDArray[np.int64]], None],
    blocks: int,
    workers: int,
    held: tuple[object, ...] = (),
) -> None:
    """Let ``call(turns)`` take blocks of a job, on several threads, until all are done.

    A call takes a bounded number of blocks from the counters and returns. ``held`` are arrays that
    it knows by their addresses only: they live for as long as a thread may be at work. An error or
    Ctrl-C is raised when no thread is at work any more.
    """
    if workers == 1 or blocks <= 1:
        turns = np.zeros(COUNTERS, np.int64)
        while turns[TAKEN] < blocks:
            call(turns)
        return
    crew = _crews.pop() if _crews else Crew()
    helpers = crew.hire(min(workers, blocks) - 1)
    try:
        crew.share(Job(call, held, crew.post.next_turns, blocks, helpers))
    finally:
        _crews.append(crew)


@dataclass(eq=False)
class Job:
    """What `share` was given, with the counters ``turns`` and the number of helpers.

    A helper holds it while it is at work, and so all that the call refers to.
    """

    call: Callable[[NDArray[np.int64]], None]
    held: tuple[object, ...]
    turns: NDArray[np.int64]
    blocks: int
    helpers: int
    errors: list[BaseException] = field(default_factory=list)

    def work(self) -> None:
        """Take blocks until none is left."""
        while self.turns[TAKEN] < self.blocks:
            self.call(self.turns)

    def help(self) -> None:
        """Take blocks, as a helper."""
        enter(self.turns)
        try:
            self.work()
        except BaseException as error:
            self.errors.append(error)
        finally:
            leave(self.turns)

    def wait(self) -> None:
        """Wait until the helpers have done their blocks."""
        while self.turns[DONE] < self.blocks and self.turns[AT_WORK]:
            time.sleep(NAP)

    def stop(self) -> None:
        """Let helpers take no more blocks, and wait until none is at work, whatever is raised.

        A signal handler may raise at any call or turn of a loop, here too. None runs in the last
        line, for that is compiled.
        """
        self.turns[TAKEN] = self.blocks
        try:
            self.wait()
        finally:
            await_idle(self.turns)


class Post:
    """Where a crew's helpers look for work."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.next_turns = np.zeros(COUNTERS, np.int64)
        self.asleep: set[int] = set()
        self.stopped = False


class Crew:
    """Threads that help one caller at a time.

    To wake a thread takes as long as a small job. So a helper that has nothing to do first looks
    out for the next job, without holding the interpreter, and lies down after a while. A job
    begins, to it, when the first block is taken: the caller is then in compiled code, and the
    interpreter free.

    Helpers know the post, and of the crew only whether it is there: one that an exception out of
    a signal handler has lost has no helpers for long.
    """

    def __init__(self) -> None:
        self.post = Post()
        # A helper lies down at its gate, which is closed; plain locks, for others hold locks of
        # their own, perhaps when a process forks.
        self.gates: list[threading.Lock] = []
        # Compiled here, not by a helper.
        turns = np.zeros(COUNTERS, np.int64)
        enter(turns)
        leave(turns)
        await_idle(turns)
        await_first(turns, 0)
        await_end(turns, 0, turns, 0, 0)
        make_standard()

    def hire(self, helpers: int) -> int:
        """Have so many helpers, or as many as the system lets a process have threads."""
        while len(self.gates) < helpers:
            gate, number = threading.Lock(), len(self.gates)
            gate.acquire()
            try:
                # `Thread.start` leaves half a thread where a signal handler breaks it off.
                _thread.start_new_thread(_help, (weakref.ref(self), self.post, number, gate))
            except RuntimeError:
                return number
            self.gates.append(gate)
        return helpers

    def share(self, job: Job) -> None:
        """Do a job."""
        post, later = self.post, np.zeros(COUNTERS, np.int64)
        try:
            post.stopped = False
            # No call between the two, where Ctrl-C could come in.
            post.job = job
            post.next_turns = later
            for number in [n for n in list(post.asleep) if n < job.helpers]:
                self._open(self.gates[number])
            job.work()
            await_end(job.turns, job.blocks, later, job.helpers, LOOKS)
            job.wait()
        except BaseException:
            # Whatever a second signal breaks off here, the last wait is compiled.
            try:
                post.stopped = True
                job.stop()
            finally:
                await_idle(job.turns)
            raise
        finally:
            post.job = None
        if job.errors:
            raise job.errors[0]

    @staticmethod
    def _open(gate: threading.Lock) -> None:
        """Wake the helper that lies at a gate, or does so next."""
        with suppress(RuntimeError):  # open already
            gate.release()


def _help(crew: weakref.ref[Crew], post: Post, number: int, gate: threading.Lock) -> None:
    """What a helper does all its life."""
    # It was given the arithmetic of the thread that has started it.
    make_standard()
    given_up.set(lambda: post.stopped)
    # Of the last job its counters only: the job itself would keep the caller's arrays alive.
    last: NDArray[np.int64] | None = None
    while crew() is not None:
        turns, job = post.next_turns, post.job
        if job is not None and job.turns is not last and number < job.helpers:
            job.help()
            last = job.turns
            continue
        del job
        if not await_first(turns, LOOKS):
            post.asleep.add(number)
            if post.next_turns is turns:
                gate.acquire(timeout=SLEEP)
            post.asleep.discard(number)


# Crews without a caller. A child process has none of its parent's threads.
_crews: list[Crew] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crews.clear)
