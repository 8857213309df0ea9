"""What the machine can do at all, and how near fastrnn comes: ``python -m benchmarks.ceilings``.

``--cells``: the neuron's forward pass, over batches, steps, layouts, results and workers.
"""

import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastrnn
from benchmarks import cases, layer_cells
from fastrnn.kernels import ACTIVATIONS
from fastrnn.kernels.activations import activate
from fastrnn.kernels.jit import kernel
from fastrnn.kernels.memory import lanes_of, load, store
from fastrnn.kernels.simd import fma

ROUNDS = 9


@kernel
def bare(f, x, h, rounds):
    """h = f(w h + x), over and over, of numbers that never leave the first cache."""
    for _ in range(rounds):
        for v in range(0, h.size, lanes_of(h)):
            store(h, v, activate(f, fma(0.9, load(h, v), load(x, v))))


def medians(calls):
    """Median seconds of each call, interleaved."""
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(t) for name, t in times.items()}


def compute(dtype):
    """Nanoseconds of one activation: bare, and of a step of forward that stores nothing."""
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal((2, 128)).astype(dtype)
    batch = rng.standard_normal((256, 1000)).astype(dtype)
    rows = np.ascontiguousarray(batch.T).T
    rounds = batch.size // h.size
    net = cases.neuron(dtype)
    found = medians(
        {
            "bare": lambda: bare(ACTIVATIONS["tanh"], x, h, rounds),
            "forward": lambda: fastrnn.forward(net, batch, keep="last", workers=1),
            "time_first": lambda: fastrnn.forward(net, rows, keep="last", workers=1),
        }
    )
    return {name: seconds / batch.size * 1e9 for name, seconds in found.items()}


def shares(dtype, batch_size, steps, workers):
    """Shares of the machine's ceiling that forward reaches, by layout and what is kept.

    The ceiling is the longer of two times: of the bare loop, or np.tanh where that is faster, on as
    many cores, and of moving the bytes that are read and written, as fast as a copy.
    """
    x, h = np.random.default_rng(0).standard_normal((2, 128)).astype(dtype)
    batch = cases.normal(batch_size, steps, dtype=dtype)
    rows, numbers = np.ascontiguousarray(batch.T), np.zeros(8192, dtype)
    into, net, rounds = np.zeros_like(rows), cases.neuron(dtype), max(1, batch.size // h.size)
    cuts = np.linspace(0, steps, workers + 1).astype(int)
    parts = [slice(*cut) for cut in itertools.pairwise(cuts)]
    layouts = {
        "sequences first": (batch, np.zeros_like(batch)),
        "time first": (rows.T, np.zeros_like(rows).T),
    }
    calls = {
        "bare": lambda: bare(ACTIVATIONS["tanh"], x, h, rounds),
        "numpy": lambda: np.tanh(numbers, out=numbers),
    }
    for layout, (given, out) in layouts.items():
        calls[layout, "last state"] = functools.partial(
            fastrnn.forward, net, given, keep="last", workers=workers
        )
        calls[layout, "all states"] = functools.partial(
            fastrnn.forward, net, given, out=out, workers=workers
        )
    with ThreadPoolExecutor(workers) as pool:
        calls["copy"] = lambda: list(pool.map(lambda i: np.copyto(into[i], rows[i]), parts))
        found = medians(calls)
    tanh = min(found["bare"], found["numpy"] * batch.size / numbers.size) / workers
    moved = {"last state": 0.5 * found["copy"], "all states": found["copy"]}
    return {
        (layout, kept): max(tanh, moved[kept]) / found[layout, kept]
        for layout in layouts
        for kept in moved
    }


def bandwidth():
    """GB/s read and written on two threads: a copy, and forward, into memory that is there."""
    x = np.ones((4000, 8192), np.float32)
    into = np.zeros_like(x)
    rows, states = x.T, into.T
    halves = [slice(0, 2000), slice(2000, 4000)]
    net = cases.neuron("float32")
    with ThreadPoolExecutor(2) as pool:
        found = medians(
            {
                "copy": lambda: list(pool.map(lambda i: np.copyto(into[i], x[i]), halves)),
                "forward": lambda: fastrnn.forward(net, rows, out=states, workers=2),
                "forward_new": lambda: fastrnn.forward(net, rows, workers=2),
            }
        )
    return {name: 2 * x.nbytes / seconds / 1e9 for name, seconds in found.items()}


def ratios():
    """Batch-major over time-major, and one worker over two, where numbers are crunched."""
    x = np.random.default_rng(0).standard_normal((1024, 4000)).astype(np.float32)
    columns = np.ascontiguousarray(x.T).T
    net = cases.neuron("float32")
    found = medians(
        {
            "batch": lambda: fastrnn.forward(net, x, workers=2),
            "time": lambda: fastrnn.forward(net, columns, workers=2),
            "one": lambda: fastrnn.forward(net, x, keep="last", workers=1),
            "two": lambda: fastrnn.forward(net, x, keep="last", workers=2),
        }
    )
    return {
        "batch_major_over_time_major": found["batch"] / found["time"],
        "two_workers_over_one": found["one"] / found["two"],
    }


def multiply():
    """GFLOP/s of layers on two threads, and of NumPy's product of large matrices."""
    found = {}
    for dtype in ("float32", "float64"):
        large = cases.normal(2048, 2048, dtype=dtype)
        calls, work = {"numpy": lambda large=large: large @ large}, {"numpy": 2 * 2048**3}
        for hidden in (128, 256, 512):
            cell = layer_cells.Cell(dtype, hidden, 64)
            step = 2 * cell.batch_size * hidden**2
            # The gradient takes a product back and one of gradients with states besides.
            own = layer_cells.fastrnn_calls(cell)
            for kind, products, call in zip(("forward", "gradient"), (1, 3), own, strict=True):
                calls[f"{kind} {hidden}"] = call
                work[f"{kind} {hidden}"] = products * cell.steps * step
        times = medians(calls)
        found[dtype] = {name: work[name] / times[name] / 1e9 for name in calls}
    return found


def same_speed():
    """Time of a step over that of an ordinary one: at any W2, of subnormals, of ragged lengths."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1024, 1000)).astype(np.float32)
    lengths = rng.integers(1, 1001, 1024)
    one = np.float32
    nets = {
        w2: fastrnn.RNN(one(0.5), one(w2))
        for w2 in (1e-3, 0.1, 0.9, 1.0, 2.0, 30.0, 1e3, -1e-3, -1.0, -5.0, -1e3)
    }
    calls = {w2: lambda net=net: fastrnn.forward(net, x, workers=1) for w2, net in nets.items()}
    tiny = x * one(1e-40)
    calls["subnormal"] = lambda: fastrnn.forward(nets[0.9], tiny, workers=1)
    calls["ragged"] = lambda: fastrnn.forward(nets[0.9], x, lengths=lengths, workers=1)
    found = medians(calls)
    times = [found[w2] for w2 in nets]
    return {
        "slowest_over_fastest_w2": max(times) / min(times),
        "subnormal_over_ordinary": found["subnormal"] / found[0.9],
        "ragged_over_full_step": found["ragged"] / found[0.9] * x.size / lengths.sum(),
    }


IMPORT = "import time; import numpy; s = time.perf_counter(); import fastrnn; {}"
FIRST = "fastrnn.forward(fastrnn.RNN(1.0, 0.5), [[1.0]]); print(time.perf_counter() - s)"
GRADIENT = """
import resource, numpy as np, fastrnn
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
net = fastrnn.RNN(np.float32(0.5), np.float32(0.9))
x = np.ones((4096, 20000), np.float32)
fastrnn.loss_and_grad(net, x[:1, :10], x[:1, :10])
before = peak()
fastrnn.loss_and_grad(net, x, x, workers=2)
print((peak() - before) / 1024)
"""


def child(code):
    return float(subprocess.check_output([sys.executable, "-c", code]))


def measure():
    startup = {
        "import_s": IMPORT.format("print(time.perf_counter() - s)"),
        "first_call_s": IMPORT.format(FIRST),
    }
    child(startup["first_call_s"])
    return {
        "tanh_ns": {dtype: compute(dtype) for dtype in ("float32", "float64")},
        "bandwidth_gb_s": bandwidth(),
        "multiply": multiply(),
        **ratios(),
        **same_speed(),
        **{
            name: statistics.median(child(code) for _ in range(5)) for name, code in startup.items()
        },
        "gradient_mib": child(GRADIENT),
    }


def readable(found):
    lines = ["of the machine's ceiling:"]
    for dtype, ns in found["tanh_ns"].items():
        lines.append(
            f"  {dtype} tanh, one core: bare {ns['bare']:.3f} ns, forward {ns['forward']:.3f} ns "
            f"= {ns['bare'] / ns['forward']:.2f}, time first {ns['time_first']:.3f} ns "
            f"= {ns['bare'] / ns['time_first']:.2f} (goal 0.7)"
        )
    for dtype, rates in found["multiply"].items():
        numpy = rates["numpy"]
        shares = ", ".join(
            f"{name} {rate / numpy:.2f}" for name, rate in rates.items() if name != "numpy"
        )
        lines.append(
            f"  {dtype} products: NumPy {numpy:.0f} GFLOP/s; of that, layers by H, B=64: {shares} "
            "(goals 0.75 forward, 0.6 gradient)"
        )
    speed = found["bandwidth_gb_s"]
    return "\n".join(
        [
            *lines,
            f"  memory: copy {speed['copy']:.1f} GB/s, forward {speed['forward']:.1f} GB/s "
            f"= {speed['forward'] / speed['copy']:.2f} (goal 0.7), "
            f"into new memory {speed['forward_new']:.1f} GB/s",
            f"batch-major over time-major: {found['batch_major_over_time_major']:.2f} (goal 1.25)",
            f"two workers over one: {found['two_workers_over_one']:.2f} (goal 1.8)",
            f"slowest over fastest W2: {found['slowest_over_fastest_w2']:.2f} (goal 1.1)",
            f"subnormals over ordinary numbers: {found['subnormal_over_ordinary']:.2f} (goal 1.1)",
            f"a step of ragged lengths over one of full: {found['ragged_over_full_step']:.2f}",
            f"import above NumPy's: {found['import_s']:.3f} s (goal 0.1)",
            f"first call, cached: {found['first_call_s']:.2f} s (goal 0.6)",
            f"gradient of 4096 x 20000 above the input: {found['gradient_mib']:.0f} MiB (goal 64)",
        ]
    )


SIZES = [(b, t) for b in (256, 1024, 8192) for t in (1000, 1024, 2000, 4096)]


def print_cells():
    for dtype, workers, (batch_size, steps) in itertools.product(
        ("float32", "float64"), (1, 2), SIZES
    ):
        found = shares(dtype, batch_size, steps, workers)
        cells = ", ".join(f"{' '.join(name)} {share:.2f}" for name, share in found.items())
        print(f"{dtype}, {workers} workers, {batch_size} x {steps}: {cells}", flush=True)


def main():
    if "--cells" in sys.argv:
        print_cells()
        return
    found = measure()
    print(json.dumps(found, indent=2) if "--json" in sys.argv else readable(found))


if __name__ == "__main__":
    main()
