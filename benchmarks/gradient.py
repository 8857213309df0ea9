"""Time and memory of gradients."""

import fastrnn

from . import cases


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


class LossAndGradLayerCells:
    """Hidden layers of the sizes that `benchmarks.peers` measures beside others."""

    version = "1"
    param_names = ("dtype", "hidden_size", "batch_size")
    params = (["float32", "float64"], [4, 16, 64, 256], [1, 64])

    def setup(self, dtype, hidden_size, batch_size):
        self.cell, self.net, self.x, self.y = cases.layer(dtype, hidden_size, batch_size)
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    def time_loss_and_grad(self, dtype, hidden_size, batch_size):
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    def track_loss_and_grad_nanoseconds(self, dtype, hidden_size, batch_size):
        call = lambda: fastrnn.loss_and_grad(self.net, self.x, self.y)  # noqa: E731
        return cases.median_seconds(call) / self.cell.lane_steps * 1e9

    track_loss_and_grad_nanoseconds.unit = "ns a step of all sequences"


class LossAndGradLayerMemory:
    """Memory of a training step of 100 hidden units, 64 sequences of 10,000 steps."""

    version = "1"

    def setup(self):
        _, self.net, _, _ = cases.layer("float32", 100, 64)
        self.x = cases.normal(64, 10_000, dtype="float32")[..., None]
        self.y = self.x.repeat(100, axis=2)

    def peakmem_loss_and_grad(self):
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    def peakmem_baseline(self):
        """What the process holds without it."""
