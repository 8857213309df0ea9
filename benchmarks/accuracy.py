"""Errors against the truth, and bits that must stay. Whatever grows here is a regression."""

import hashlib

import mpmath as mp
import numpy as np

import fastrnn
import fastrnn.accuracy
from fastrnn.kernels import ACTIVATIONS

from . import cases, exact
from .cases import SIGNS, SIZES, Benchmark, named, reduced

WEIGHTS = ("w1", "w2", "b")
DTYPES = ["float32", "float64"]


def last_only(steps, dtype):
    """Gradient of the last state alone."""
    dh = np.zeros(steps, dtype)
    dh[-1] = 1
    return dh


def units(net, x, states, found):
    """The largest error of gradients of the last state, in eps * sum(1 + 2|z_t|).

    That unit is the rounding of the pre-activations themselves; the promise is at most 8. A
    weight's error is relative to its absolute terms; past a unit of 1 errors are of logarithms.
    """
    with mp.workdps(exact.DIGITS):
        values, sizes, rounding = exact.gradients(net, x, states, last_only(len(x), x.dtype))
        unit = mp.mpf(float(np.finfo(x.dtype).eps)) * rounding
        pairs = [(getattr(found, name), values[name], sizes[name]) for name in WEIGHTS]
        pairs += [(ours, true, abs(true)) for ours, true in zip(found.x, values["x"], strict=True)]
        pairs.append((found.h0, values["h0"], abs(values["h0"])))
        errors = [
            _log_error(ours, true) if unit > 1 else abs(exact.number(ours) - true) / size
            for ours, true, size in pairs
            if size != 0
        ]
        return float(max(errors, default=mp.mpf(0)) / unit)


def _log_error(ours, true):
    return abs(mp.log(abs(exact.number(ours) / true))) if ours.sign else mp.inf


class Activations(Benchmark):
    """Of f and f' at 200,000 points; promised are 2 ULP for functions, 4 for derivatives."""

    param_names = ("function", "dtype")
    params = (["tanh", "tanh'", "sigmoid", "sigmoid'"], DTYPES)
    points = 200_000

    def setup_cache(self):
        rows = fastrnn.accuracy.measure(self.points)
        return {(row.function, row.dtype): row for row in rows}

    def setup(self, rows, function, dtype):
        if (function, dtype) not in rows:
            raise NotImplementedError("no wider type")

    @named("Activations: largest error", "ULP")
    def track_accuracy_max_ulp(self, rows, function, dtype):
        return rows[function, dtype].largest

    @named("Activations: mean error", "ULP")
    def track_accuracy_mean_ulp(self, rows, function, dtype):
        return rows[function, dtype].mean


class GradientError(Benchmark):
    """Of all gradients of the last state, as Scaled, over 20 steps, along the computed states."""

    param_names = ("log10 |W2|", "sign", "activation", "dtype")
    params = (SIZES, SIGNS, reduced(1, ["tanh", *sorted(set(ACTIVATIONS) - {"tanh"})]), DTYPES)
    steps = 20

    def setup(self, size, sign, activation, dtype):
        self.prepare(cases.neuron_of(size, sign, dtype, activation), dtype)

    def prepare(self, net, dtype):
        self.net, self.x = net, cases.normal(self.steps, dtype=dtype)
        scaled = fastrnn.forward(self.net, self.x, scaled=True)
        with mp.workdps(exact.DIGITS):
            self.states = [exact.number(state) for state in scaled]

    @named("Gradients against mpmath by W2: error (promised 8)", "rounding units")
    def track_backward_error(self, *parameters):
        return self.error()

    def error(self):
        dh, wrt = last_only(self.steps, self.x.dtype), (*WEIGHTS, "x", "h0")
        found = fastrnn.backward(self.net, self.x, dh, wrt=wrt, scaled=True)
        return units(self.net, self.x, self.states, found)


class GradientErrorAtT(Benchmark):
    """The same against T, at W2 = 0.9."""

    param_names = ("steps", "dtype")
    params = (reduced(4, [1, 10, 100, 1000, 10_000]), DTYPES)

    def setup(self, steps, dtype):
        self.job = GradientError()
        self.job.steps = steps
        self.job.prepare(cases.neuron(dtype), dtype)

    @named("Gradients against mpmath by T: error (promised 8)", "rounding units")
    def track_backward_error(self, *parameters):
        return self.job.error()


class SaturatedSlope(Benchmark):
    """Of f'(z) in plain floats, as the gradient of x over one step."""

    param_names = ("z", "activation", "dtype")
    params = (reduced(4, [0.1, 5.0, 18.0, 30.0, 1.0, 9.0]), ["tanh", "sigmoid"], DTYPES)

    @named("Slope where units saturate: relative error", "eps")
    def track_backward_error(self, z, activation, dtype):
        one = np.dtype(dtype).type
        net = fastrnn.RNN(one(1), one(0), activation=activation)
        found = fastrnn.backward(net, np.array([z], dtype), np.ones(1, dtype), wrt="x").x[0]
        with mp.workdps(exact.DIGITS):
            true = exact.derivative(activation, mp.mpf(float(one(z))))
            return float(abs(mp.mpf(float(found)) / true - 1) / np.finfo(dtype).eps)


class Bits(Benchmark):
    """A number made of all bits of a result: where it steps, the numbers changed."""

    param_names = ("dtype", "hidden_size")
    params = (DTYPES, [1, 16])

    def setup(self, dtype, hidden_size):
        self.net, self.x, self.y = cases.net(dtype, hidden_size, 17, 301)

    @named("Hash of the states", "first 48 bits")
    def track_forward_bits(self, *parameters):
        return bits(fastrnn.forward(self.net, self.x))

    @named("Hash of the gradient", "first 48 bits")
    def track_loss_and_grad_bits(self, *parameters):
        loss, gradient = fastrnn.loss_and_grad(self.net, self.x, self.y)
        return bits(loss, *(getattr(gradient, name) for name in WEIGHTS))


def bits(*arrays):
    """The first of a SHA-256, as many as a float holds with ease."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    return int.from_bytes(digest.digest()[:6], "big")
