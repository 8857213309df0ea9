"""Errors against mpmath at ordinary and at extreme W2. Whatever grows here is a regression."""

import mpmath as mp
import numpy as np

import fastrnn
from fastrnn.kernels import ACTIVATIONS

from . import cases, exact, extremes

SIZES = (1e-300, 1e-10, 0.1, 0.9, 1.0, 1.1, 2.0, 10.0, 1e3, 1e10, 1e100, 1e300)
EXTREME_W2 = [sign * size for sign in (1, -1) for size in SIZES]
WEIGHTS = ("w1", "w2", "b")
# Significant digits of a float64.
MOST_DIGITS = 16.0


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


class ScaledError:
    """Of all gradients of the last state, as Scaled, over 20 steps."""

    version = "1"
    unit = "rounding units"
    param_names = ("w2", "activation", "dtype")
    params = (EXTREME_W2, list(ACTIVATIONS), ["float32", "float64"])
    steps = 20

    def setup(self, w2, activation, dtype):
        if dtype == "float32" and not 1e-30 < abs(w2) < 1e30:
            raise NotImplementedError("no float32")
        self.net = cases.neuron(dtype, w2, activation)
        self.x = cases.normal(self.steps, dtype=dtype)
        scaled = fastrnn.forward(self.net, self.x, scaled=True)
        with mp.workdps(exact.DIGITS):
            self.states = [exact.number(state) for state in scaled]

    def track_backward_error(self, w2, activation, dtype):
        dh, wrt = last_only(self.steps, dtype), (*WEIGHTS, "x", "h0")
        found = fastrnn.backward(self.net, self.x, dh, wrt=wrt, scaled=True)
        return units(self.net, self.x, self.states, found)


class ErrorGrowth:
    """The same against T, at W2 = 0.9."""

    version = "1"
    unit = "rounding units"
    param_names = ("steps", "dtype")
    params = ([1, 10, 100, 1000, 10_000], ["float32", "float64"])

    def setup(self, steps, dtype):
        self.job = ScaledError()
        self.job.steps = steps
        self.job.setup(0.9, "tanh", dtype)

    def track_backward_error(self, steps, dtype):
        return self.job.track_backward_error(0.9, "tanh", dtype)


class SaturatedSlope:
    """Of f'(z) in plain floats, as the gradient of x over one step, in eps."""

    version = "1"
    unit = "eps"
    param_names = ("z", "activation", "dtype")
    params = ([0.1, 1.0, 5.0, 9.0, 18.0, 30.0], ["tanh", "sigmoid"], ["float32", "float64"])

    def track_backward_error(self, z, activation, dtype):
        one = np.dtype(dtype).type
        net = fastrnn.RNN(one(1), one(0), activation=activation)
        found = fastrnn.backward(net, np.array([z], dtype), np.ones(1, dtype), wrt="x").x[0]
        with mp.workdps(exact.DIGITS):
            true = exact.derivative(activation, mp.mpf(float(one(z))))
            return float(abs(mp.mpf(float(found)) / true - 1) / np.finfo(dtype).eps)


class DigitsLost:
    """Of 16, in d h_T / d x_1 over 100 steps, by fastrnn and by what others answer."""

    version = "1"
    unit = "digits"
    param_names = ("w2", "library")
    params = (EXTREME_W2, list(extremes.LIBRARIES))
    steps = 100

    def setup(self, w2, library):
        self.net, self.x = extremes.problem("identity", w2, self.steps)
        with mp.workdps(exact.DIGITS):
            self.true = extremes.truth(self.net, self.x)
        self.answer = extremes.LIBRARIES[library](self.net, self.x)
        if self.answer is None:
            raise NotImplementedError("not installed")

    def track_influence_digits_lost(self, w2, library):
        if library == "fastrnn":
            self.answer = fastrnn.influence(self.net, self.x)[0]
        with mp.workdps(exact.DIGITS):
            scaled = isinstance(self.answer, fastrnn.Scaled)
            ours = exact.number(self.answer) if scaled else mp.mpf(self.answer)
            if not mp.isfinite(ours):
                return MOST_DIGITS
            error = abs(ours / self.true - 1)
            return float(min(max(mp.log10(error) + MOST_DIGITS, 0), MOST_DIGITS)) if error else 0.0
