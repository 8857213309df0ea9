"""Inputs of the benchmarks."""

import statistics
import time

import numpy as np

import fastrnn

from . import layer_cells

# Jobs of a neuron: nets, sequences, steps, W2; None is a range of them.
CELLS = {
    "1024 sequences": (1, 1024, 1000, 0.9),
    "8192 sequences": (1, 8192, 1000, 0.9),
    "256 nets, 16 sequences": (256, 16, 1000, None),
    "one of 1e6 steps": (1, 1, 1_000_000, 0.9),
    "one of 1e6 steps, W2 = -2": (1, 1, 1_000_000, -2.0),
    "one of 1e6 steps, W2 = 5": (1, 1, 1_000_000, 5.0),
}


def neuron(dtype, w2=0.9, activation="tanh"):
    one = np.dtype(dtype).type
    return fastrnn.RNN(one(0.5), one(w2), one(0.1), activation=activation)


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


def layer(dtype, hidden_size, batch_size):
    """The problem of a size, a layer, inputs and targets."""
    problem = layer_cells.Cell(dtype, hidden_size, batch_size)
    w1, w2, b, x, y = problem.problem()
    x, y = (np.ascontiguousarray(array.swapaxes(0, 1)) for array in (x, y))
    return problem, fastrnn.RNN(w1, w2, b), x, y


def median_seconds(call, repeat=5):
    """Median time of a call."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def nanoseconds(call, name):
    """Median time of a call for a step of one lane."""
    nets, batch_size, steps, _ = CELLS[name]
    return median_seconds(call) / (nets * batch_size * steps) * 1e9
