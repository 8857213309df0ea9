"""Inputs of the benchmarks."""

import numpy as np

import fastrnn


def neuron(dtype, w2=0.9, activation="tanh"):
    one = np.dtype(dtype).type
    return fastrnn.RNN(one(0.5), one(w2), one(0.1), activation=activation)


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
