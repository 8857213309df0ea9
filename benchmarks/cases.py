"""What the benchmarks share: inputs, ranges of parameters, and names for the dashboard."""

import os
import statistics
import time

import numpy as np

import fastrnn

from . import layer_cells

# With the environment variable FASTRNN_BENCHMARKS=full all parameters are measured.
FULL = os.environ.get("FASTRNN_BENCHMARKS") == "full"

# log10 |W2|: asv's axes are linear.
SIZES = [-300, -100, -30, -10, -3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3, 10, 30, 100, 300]
FEW_SIZES = SIZES if FULL else [-300, -3, -0.1, 0, 0.3, 3, 300]
SIGNS = ["+", "-"]
# float32 holds none beyond.
FLOAT32_DECADES = 30

# Jobs of a neuron: nets, sequences, steps, W2; None is a range of them.
CELLS = {
    "1024 sequences": (1, 1024, 1000, 0.9),
    "256 nets, 16 sequences": (256, 16, 1000, None),
    "one of 1e6 steps": (1, 1, 1_000_000, 0.9),
    "8192 sequences": (1, 8192, 1000, 0.9),
    "one of 1e6 steps, W2 = -2": (1, 1, 1_000_000, -2.0),
    "one of 1e6 steps, W2 = 5": (1, 1, 1_000_000, 5.0),
}


def reduced(count, values):
    """The first of some values, or all of them where everything is measured."""
    return list(values) if FULL else list(values)[:count]


def named(pretty_name, unit=None):
    """Give a benchmark the name and the unit that the dashboard shows."""

    def name(benchmark):
        benchmark.pretty_name = pretty_name
        if unit is not None:
            benchmark.unit = unit
        return benchmark

    return name


class Benchmark:
    """What all have in common."""

    # Results of other versions are not comparable; asv would make it of the source otherwise.
    version = "1"
    timeout = 300
    rounds, repeat, sample_time, warmup_time = 2, (2, 6, 0.5), 0.02, 0.02


def weight(size, sign="+"):
    """W2 of a size, its log10, and a sign."""
    return float(f"{sign}1") * 10.0**size


def neuron(dtype, w2=0.9, activation="tanh"):
    one = np.dtype(dtype).type
    return fastrnn.RNN(one(0.5), one(w2), one(0.1), activation=activation)


def neuron_of(size, sign, dtype, activation="tanh"):
    """A neuron of an extreme W2, if its type holds it."""
    if dtype == "float32" and abs(size) > FLOAT32_DECADES:
        raise NotImplementedError("no float32")
    return neuron(dtype, weight(size, sign), activation)


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def cell(name, dtype):
    """Net, inputs and targets of one of CELLS."""
    nets, batch_size, steps, w2 = CELLS[name]
    number = np.dtype(dtype).type
    bank = np.linspace(-1.5, 1.5, nets).astype(dtype) if w2 is None else number(w2)
    net = fastrnn.RNN(number(0.5), bank, number(0.1))
    x, y = (normal(batch_size, steps, dtype=dtype, seed=seed) for seed in (0, 1))
    return net, x, y


def lane_steps(name):
    nets, batch_size, steps, _ = CELLS[name]
    return nets * batch_size * steps


def layer(dtype, hidden_size, batch_size, steps=None):
    """A layer, inputs and targets of the problem of a size."""
    w1, w2, b, x, y = layer_cells.Cell(dtype, hidden_size, batch_size).problem()
    x, y = (np.ascontiguousarray(array[:steps].swapaxes(0, 1)) for array in (x, y))
    return fastrnn.RNN(w1, w2, b), x, y


def net(dtype, hidden_size, batch_size, steps):
    """A neuron or a layer, inputs and targets."""
    if hidden_size > 1:
        return layer(dtype, hidden_size, batch_size, steps)
    x, y = (normal(batch_size, steps, dtype=dtype, seed=seed) for seed in (0, 1))
    return neuron(dtype), x, y


def nanoseconds(call, steps, repeat=7, of=statistics.median):
    """Time of a call for each of some steps: the median, or what else is asked, of some calls."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return of(times) / steps * 1e9


def over(call, ordinary, repeat=25):
    """Time of a call over that of another: the fastest of some, taken in turns.

    What the machine does besides reaches both alike.
    """
    times = {call: [], ordinary: []}
    for _ in range(repeat):
        for one, taken in times.items():
            taken.append(nanoseconds(one, 1, repeat=1))
    return min(times[call]) / min(times[ordinary])


# asv's fork server imports this before it forks: Numba and LLVM are up in every benchmark.
fastrnn.forward(neuron("float64"), [0.0])
