"""A run: those tasks of a sweep that are not done yet, given to an executor."""

from __future__ import annotations

import operator
import reprlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, SupportsIndex

import numpy as np

from fastrnn.batch.claim import claimed
from fastrnn.batch.compute import results, steps_of
from fastrnn.batch.place import local_path
from fastrnn.batch.progress import TICK, Progress, Report, reporting
from fastrnn.batch.space import FULL, disk_full, require_space
from fastrnn.batch.store import Store
from fastrnn.batch.sweep import Sweep
from fastrnn.batch.tasks import Task
from fastrnn.batch.verify import faults_of_all
from fastrnn.threads import available_cores

NAMED_FAILURES = 3


class TasksFailed(RuntimeError):
    """Some tasks of a run failed; all others are stored."""


Receipt = dict[str, Any]
Submit = Callable[[Task], "Future[Receipt]"]


def run(
    sweep: Sweep,
    out: str | Path,
    *,
    executor: SupportsIndex | Executor | None,
    shard: tuple[int, int],
    force: bool,
    progress: bool | Report | None,
) -> Path:
    """See `Sweep.run`."""
    path = local_path("out", out).absolute()
    number, count = checked_shard(shard)
    pool = executor if isinstance(executor, Executor) else _threads(executor)
    with _sigterm_exits(), claimed(path, sweep, (number, count), force=force) as (store, lock):
        own = store.sweep.tasks[number - 1 :: count]
        faults = faults_of_all(path, store.about, own)
        left = [task for task, found in zip(own, faults, strict=True) if found != []]
        store.withdraw(left)
        require_space(path, len(left) * sweep.task_bytes)
        with reporting(progress, len(own)) as report:

            def tell(now: Progress) -> None:
                lock.require()
                report(now)

            with ThreadPoolExecutor(1) as beside:
                beginnings = beside.submit(store.bring_to_disk)
                try:
                    failures = _compute_all(store, left, len(own), pool, tell)
                finally:
                    store.tidy(left)
                beginnings.result()
    if failures:
        raise TasksFailed(_in_words(sweep, failures, len(own)))
    return path


def compute(
    path: str, identity: str, number: int, stopped: Callable[[], bool] = lambda: False
) -> Receipt:
    """Compute and store one task of the sweep in a folder; its receipt, below 1 kB."""
    store = _opened(path, identity)
    task = store.sweep.tasks[number]
    return store.write(task, results(store.sweep, task, stopped))


@lru_cache(maxsize=2)
def _opened(path: str, identity: str) -> Store:
    store = Store.open(Path(path))
    if store.identity != identity:
        raise RuntimeError(f"{path} is of another sweep by now")
    return store


def checked_shard(shard: object) -> tuple[int, int]:
    """Which of how many parts."""
    try:
        number, count = (operator.index(value) for value in shard)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise TypeError(f"shard must be two integers (i, n), got {reprlib.repr(shard)}") from None
    if not 1 <= number <= count:
        raise ValueError(f"shard must be (i, n) with i from 1 to n, got {shard!r}")
    return number, count


def _compute_all(
    store: Store, left: Sequence[Task], own: int, pool: Executor | int, report: Report
) -> list[tuple[Task, Exception]]:
    """Compute tasks; those that failed, and why. An error of storage ends it all."""
    running: dict[Future[Receipt], Task] = {}
    ended: SimpleQueue[Future[Receipt]] = SimpleQueue()
    failures: list[tuple[Task, Exception]] = []
    began, steps, total = time.monotonic(), 0, sum(steps_of(store.sweep, task) for task in left)
    with _submitting(store, pool) as (submit, stop):
        try:
            for task in left:
                try:
                    running[future := submit(task)] = task
                except BrokenExecutor as error:
                    failures.append((task, error))
                    continue
                future.add_done_callback(ended.put)
            while True:
                done = own - len(running) - len(failures)
                seconds = time.monotonic() - began
                report(Progress(done, own, steps, total - steps, seconds))
                if not running:
                    return failures
                try:
                    future = ended.get(timeout=TICK)
                except Empty:
                    continue
                task = running.pop(future)
                try:
                    future.result()
                    steps += steps_of(store.sweep, task)
                except OSError as error:
                    if error.errno in FULL:
                        needed = (len(running) + 1) * store.sweep.task_bytes
                        raise disk_full(store.path, needed) from error
                    raise
                except Exception as error:
                    failures.append((task, error))
        except BaseException:
            stop()
            for future in running:
                future.cancel()
            wait(future for future in running if not future.cancelled())
            raise


@contextmanager
def _submitting(
    store: Store, pool: Executor | int
) -> Iterator[tuple[Submit, Callable[[], object]]]:
    """How a task is given to the executor, and how tasks at work are told to give up."""
    job = (str(store.path), store.identity)
    if isinstance(pool, Executor):
        yield lambda task: pool.submit(compute, *job, task.number), lambda: None
        return
    stop = threading.Event()
    with ThreadPoolExecutor(pool, "fastrnn-task") as threads:
        yield lambda task: threads.submit(compute, *job, task.number, stop.is_set), stop.set


def _threads(executor: SupportsIndex | None) -> int:
    if executor is None:
        # One more than cores: while a task waits for the disk, another computes.
        return available_cores() + 1
    if isinstance(executor, bool | np.bool) or not hasattr(executor, "__index__"):
        raise TypeError(
            "executor must be a number of threads or a concurrent.futures.Executor, got "
            f"{type(executor).__name__}"
        )
    count = operator.index(executor)
    if count < 1:
        raise ValueError(f"executor must be at least 1 thread, got {count}")
    return count


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """A batch scheduler's polite kill ends a run as Ctrl-C does, unless the program sees to it."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_words(sweep: Sweep, failures: list[tuple[Task, Exception]], own: int) -> str:
    lines = [
        f"{len(failures)} of {own} tasks failed; all others are stored: run the same again to "
        "compute just these"
    ]
    for task, error in failures[:NAMED_FAILURES]:
        what = ", ".join(
            f"{name} {part.start}:{part.stop}"
            for name, part in zip(sweep.sizes, task.box, strict=True)
        )
        lines.append(f"task {task.number} ({what}): {type(error).__name__}: {error}")
    return "\n".join(lines)
