"""What a sweep costs beside its kernels, and whether its memory follows the task.

``python -m benchmarks.sweeps`` prints both; asv times a small sweep. Kernels are what the engine
does, by the processor time of its threads.
"""

import resource
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

import fastrnn
from fastrnn import engine
from fastrnn.threads import available_cores

from .cases import Benchmark, named

OVERHEAD = (("float32", ("last",)), ("float64", ("last",)), ("float32", ("loss", "gradient")))
MEMORY = ((200, 50), (4000, 50), (8000, 500))
WARM_UP = 100


class Sweep(Benchmark):
    """Loss and gradient of 100 neurons over 10 sequences of 1000 steps, stored."""

    def setup(self):
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise NotImplementedError("not installed") from error
        x = np.random.default_rng(0).standard_normal((10, 1000))
        given = {"w2": np.linspace(0.1, 2, 100), "keep": ("loss", "gradient"), "y": "next"}
        self.sweep = fastrnn.Sweep(x, **given)
        self.time_sweep()

    @named("Sweep into a store: time")
    def time_sweep(self):
        with tempfile.TemporaryDirectory() as out:
            self.sweep.run(out)


def overhead(dtype, keep):
    """Seconds of a sweep of 1e10 steps, and which part of them its threads are not in kernels."""
    x = np.random.default_rng(0).standard_normal((1000, 10_000)).astype(dtype)
    given = {"w2": np.geomspace(0.1, 10, 1000), "keep": keep, "y": "next"}
    with tempfile.TemporaryDirectory() as out:
        fastrnn.Sweep(x[:, :WARM_UP], **given).run(out)
    inside = Clock()
    for name in ("forward", "backward"):
        setattr(engine, name, inside.timing(getattr(engine, name)))
    with tempfile.TemporaryDirectory() as out:
        began, cpu = time.perf_counter(), time.process_time()
        fastrnn.Sweep(x, **given).run(out)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    cores = available_cores()
    print(
        f"{dtype}, {' and '.join(keep)}: {seconds:.1f} s; outside kernels "
        f"{1 - inside.seconds / cores / seconds:.1%} of the time of {cores} cores, waiting "
        f"included, and {1 - inside.seconds / cpu:.1%} of the time they were at work"
    )


class Clock:
    """Processor seconds that calls took, in all threads together."""

    def __init__(self):
        self.seconds, self.lock = 0.0, threading.Lock()

    def timing(self, function):
        def timed(*arguments, **options):
            began = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                with self.lock:
                    self.seconds += time.thread_time() - began

        return timed


def memory(nets, nets_a_task):
    """Peak memory of a sweep that stores states, in so many tasks."""
    x = np.random.default_rng(0).standard_normal((100, 2000)).astype("float32")
    sweep = fastrnn.Sweep(
        x, w2=np.linspace(0.1, 2, nets), keep="states", every=10, tasks=nets // nets_a_task
    )
    with tempfile.TemporaryDirectory() as out:
        sweep.run(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    count = len(sweep.tasks)
    print(f"{count} tasks of {sweep.task_bytes / 1e6:.0f} MB: peak {peak:.0f} MB")


def main():
    if arguments := sys.argv[1:]:
        kind, number = arguments
        (overhead if kind == "overhead" else memory)(*globals()[kind.upper()][int(number)])
        return
    for kind in ("overhead", "memory"):
        for number in range(len(globals()[kind.upper()])):
            # A process each: compiled kernels and peaks are not to be those of another.
            command = [sys.executable, "-m", "benchmarks.sweeps", kind, str(number)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
