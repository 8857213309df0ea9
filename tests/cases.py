"""One table of nets and inputs that feeds the comparisons."""

import numpy as np

import fastrnn

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
DTYPES = ("float32", "float64")
# Batch sizes and lengths: one, primes, both sides of a tile and of a group.
ODD_SIZES = ((1, 1), (2, 3), (5, 17), (17, 64), (3, 65), (7, 131))


def neuron(activation="tanh", dtype="float64", bank=None, readout=False, seed=0):
    rng = np.random.default_rng(seed)
    size = () if bank is None else (bank,)

    def weight(low, high):
        return rng.uniform(low, high, size).astype(dtype)

    extra = {"w3": weight(0.5, 2), "b3": weight(-1, 1)} if readout else {}
    return fastrnn.RNN(
        weight(0.3, 1), weight(-0.9, 0.9), weight(-0.5, 0.5), activation=activation, **extra
    )


def layer(hidden, inputs=1, activation="tanh", dtype="float64", bank=None, outputs=None, seed=0):
    rng = np.random.default_rng(seed)
    size = () if bank is None else (bank,)

    def weight(*shape):
        return rng.standard_normal(size + shape).astype(dtype)

    extra = {}
    if outputs is not None:
        extra = {"w3": weight(outputs, hidden), "b3": weight(outputs)}
    w2 = weight(hidden, hidden) * (0.6 / np.sqrt(hidden)).astype(dtype)
    return fastrnn.RNN(weight(hidden, inputs), w2, weight(hidden), activation=activation, **extra)


NETS = {
    "neuron": lambda activation, dtype: neuron(activation, dtype),
    "neuron with read-out": lambda activation, dtype: neuron(activation, dtype, readout=True),
    "bank": lambda activation, dtype: neuron(activation, dtype, bank=5, readout=True),
    "layer of 1": lambda activation, dtype: layer(1, 1, activation, dtype),
    "layer": lambda activation, dtype: layer(7, 3, activation, dtype),
    "layer with read-out": lambda activation, dtype: layer(5, 2, activation, dtype, outputs=3),
    "bank of layers": lambda activation, dtype: layer(4, 1, activation, dtype, bank=3, outputs=2),
}


def inputs(net, batch_size, steps, dtype="float64", seed=1):
    x = np.random.default_rng(seed).standard_normal((batch_size, steps, net.input_size))
    return x.astype(dtype) if not net.is_neuron else x[..., 0].astype(dtype)
