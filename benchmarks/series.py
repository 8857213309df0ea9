"""Time and memory of reading a long series from text.

``python -m benchmarks.series`` compares them with those of pandas.
"""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np

import fastrnn

from .cases import Benchmark, named

ROWS = 1_000_000
KINDS = ("numbers", "short numbers", "dates and numbers", "numbers and gaps")


def write(path, kind):
    """A text of 1,000 lines, again and again."""
    values = np.random.default_rng(0).standard_normal(1000)
    digits = ".3f" if kind == "short numbers" else ".17g"
    cells = [format(value, digits) for value in values]
    if kind == "numbers and gaps":
        cells[::10] = ["NA"] * 100
    if kind == "dates and numbers":
        cells = [f"2000-01-01 {i // 60:02}:{i % 60:02},{cell}" for i, cell in enumerate(cells)]
    with open(path, "w") as file:
        file.write("date,x\n" if kind == "dates and numbers" else "x\n")
        for _ in range(ROWS // 1000):
            file.write("\n".join(cells) + "\n")


class LoadSeries(Benchmark):
    """A million rows."""

    param_names = ("text",)
    params = (list(KINDS),)

    def setup(self, kind):
        handle, self.path = tempfile.mkstemp(suffix=".csv")
        os.close(handle)
        write(self.path, kind)
        fastrnn.load_series("sunspots")

    def teardown(self, kind):
        os.remove(self.path)

    @named("Series from text: time")
    def time_load_series(self, kind):
        fastrnn.load_series(self.path, fill="drop")

    @named("Series from text: peak memory")
    def peakmem_load_series(self, kind):
        fastrnn.load_series(self.path, fill="drop")

    @named("Series from text: peak memory before")
    def peakmem_baseline(self, kind):
        """What the process holds without it."""


def measure(library, path):
    """Processor seconds, and MB of memory beyond what a process with all imports holds."""
    import resource

    import pandas as pd

    def by_pandas(path):
        return pd.read_csv(path).iloc[:, -1].dropna().to_numpy()

    def by_fastrnn(path):
        return fastrnn.load_series(path, fill="drop")

    read = {"pandas": by_pandas, "fastrnn": by_fastrnn}[library]
    with tempfile.NamedTemporaryFile("w+", suffix=".csv") as small:
        small.write("x\n" + "1.5\n" * 10_000)  # enough for all imports
        small.flush()
        read(small.name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    read(path)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(seconds, (peak - before) / 1e3)


def main():
    if sys.argv[1:]:
        measure(*sys.argv[1:])
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.csv")
        for kind in KINDS:
            write(path, kind)
            best = {}
            for library in ("pandas", "fastrnn") * 3:
                # A process each: a peak is not to be that of another.
                command = [sys.executable, "-m", "benchmarks.series", library, path]
                found = subprocess.check_output(command, text=True).split()
                best[library] = min(best.get(library, (np.inf, 0)), tuple(map(float, found)))
            (seconds, memory), (by_pandas, memory_of_pandas) = best["fastrnn"], best["pandas"]
            print(
                f"{kind:<18} fastrnn {seconds:.2f} s, {memory:.0f} MB; pandas {by_pandas:.2f} s, "
                f"{memory_of_pandas:.0f} MB: {seconds / by_pandas:.1f} and "
                f"{memory / memory_of_pandas:.2f} times"
            )


if __name__ == "__main__":
    main()
