"""Gradients: their time, and their error at ordinary and extreme W2."""

import mpmath as mp
import numpy as np

import fastrnn

from . import cases

DIGITS = 40


class LossAndGrad:
    """Fused loss and gradient of a batch of sequences."""

    version = "1"
    param_names = ("dtype", "batch_size", "steps")
    params = (["float32", "float64"], [1, 1024], [1000])

    def setup(self, dtype, batch_size, steps):
        self.net = cases.neuron(dtype)
        self.x = cases.normal(batch_size, steps, dtype=dtype)
        self.y = cases.normal(batch_size, steps, dtype=dtype, seed=1)
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    def time_loss_and_grad(self, dtype, batch_size, steps):
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    def peakmem_loss_and_grad(self, dtype, batch_size, steps):
        fastrnn.loss_and_grad(self.net, self.x, self.y)


class LossAndGradBudget:
    """Memory and time under a budget, of inputs some 80 MB large."""

    version = "1"
    param_names = ("memory",)
    params = ([1 << 20, 1 << 23, None],)

    def setup(self, memory):
        self.net = cases.neuron("float32")
        self.x = cases.normal(1024, 20_000, dtype="float32")

    def time_loss_and_grad(self, memory):
        fastrnn.loss_and_grad(self.net, self.x, self.x, memory=memory)

    def peakmem_loss_and_grad(self, memory):
        fastrnn.loss_and_grad(self.net, self.x, self.x, memory=memory)

    def peakmem_baseline(self, memory):
        """What the process holds without it."""


class LossAndGradCells:
    """The jobs that `benchmarks.peers` measures beside others."""

    version = "1"
    param_names = ("dtype", "cell")
    params = (["float32", "float64"], list(cases.CELLS))

    def setup(self, dtype, cell):
        self.net, self.x, self.y = cases.cell(cell, dtype)
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    def time_loss_and_grad(self, dtype, cell):
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    def track_loss_and_grad_nanoseconds(self, dtype, cell):
        return cases.nanoseconds(lambda: fastrnn.loss_and_grad(self.net, self.x, self.y), cell)

    track_loss_and_grad_nanoseconds.unit = "ns a step and lane"


class GradientError:
    """Error against mpmath along the computed states, in units of eps * sum(1 + 2|z_t|).

    That unit is the rounding of the pre-activations themselves; the promise is at most 8.
    """

    version = "1"
    unit = "rounding units"
    param_names = ("w2",)
    params = ([1e-3, 0.9, 1e3],)
    steps = 50

    def setup(self, w2):
        self.net = cases.neuron("float64", w2)
        self.x = cases.normal(self.steps)
        with mp.workdps(DIGITS):
            self.by_x1, self.by_w2, self.rounding = self.exact()

    def exact(self):
        """d h_T / d x_1, d h_T / d W2 and the unit."""
        w1, w2, b = (mp.mpf(float(w)) for w in (self.net.w1, self.net.w2, self.net.b))
        states = [mp.mpf(float(h)) for h in (0.0, *fastrnn.forward(self.net, self.x))]
        by_w2, dh, rounding = mp.mpf(0), mp.mpf(1), mp.mpf(0)
        for t in reversed(range(self.steps)):
            z = w1 * mp.mpf(float(self.x[t])) + w2 * states[t] + b
            dz = dh * mp.sech(z) ** 2
            by_w2 += dz * states[t]
            dh = w2 * dz
            rounding += np.finfo(float).eps * (1 + 2 * abs(z))
        return w1 * dz, by_w2, rounding

    def track_backward_error(self, w2):
        """Of dW2 in plain floats; where the true value leaves their range, their least one."""
        upstream = np.zeros(self.steps)
        upstream[-1] = 1.0
        ours = fastrnn.backward(self.net, self.x, upstream, wrt="w2").w2
        with mp.workdps(DIGITS):
            scale = max(abs(self.by_w2), mp.mpf(float(np.finfo(float).tiny)))
            return float(abs(mp.mpf(float(ours)) - self.by_w2) / scale / self.rounding)

    def track_influence_error(self, w2):
        """Of the influence of x_1, at any magnitude."""
        ours = fastrnn.influence(self.net, self.x)[0]
        with mp.workdps(DIGITS):
            value = mp.ldexp(mp.mpf(float(ours.mantissa)), int(ours.exponent))
            return float(abs(value / self.by_x1 - 1) / self.rounding)
