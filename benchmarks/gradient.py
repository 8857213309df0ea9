"""Time and memory of gradients."""

from functools import partial

import fastrnn

from . import neuron_cells
from .cases import (
    CELLS,
    FEW_SIZES,
    SIGNS,
    Benchmark,
    cell,
    lane_steps,
    layer,
    named,
    nanoseconds,
    net,
    neuron,
    neuron_of,
    normal,
    over,
    reduced,
)
from .forward import LANE_UNIT


class LossAndGrad(Benchmark):
    """Fused loss and gradient of a neuron (hidden size 1) or a layer."""

    param_names = ("dtype", "hidden_size", "batch_size")
    params = (["float32", "float64"], reduced(3, [1, 16, 64, 4, 256]), reduced(2, [1, 64, 1024]))
    steps = 1000

    def setup(self, dtype, hidden_size, batch_size):
        self.net, self.x, self.y = net(dtype, hidden_size, batch_size, self.steps)
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    @named("Loss and gradient: time")
    def time_loss_and_grad(self, *parameters):
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    @named("Loss and gradient: a step of a sequence", LANE_UNIT)
    def track_loss_and_grad_nanoseconds(self, *parameters):
        batch_size, steps = self.x.shape[:2]
        call = lambda: fastrnn.loss_and_grad(self.net, self.x, self.y)  # noqa: E731
        return nanoseconds(call, batch_size * steps)


class LossAndGradCells(Benchmark):
    """Batches, banks and long sequences, as `benchmarks.peers` measures them beside others."""

    param_names = ("dtype", "job")
    params = (reduced(1, ["float32", "float64"]), reduced(3, CELLS))

    def setup(self, dtype, job):
        self.net, self.x, self.y = cell(job, dtype)
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    @named("Loss and gradient by job: a step", LANE_UNIT)
    def track_loss_and_grad_nanoseconds(self, dtype, job):
        call = lambda: fastrnn.loss_and_grad(self.net, self.x, self.y)  # noqa: E731
        return nanoseconds(call, lane_steps(job))


class LossAndGradAtW2(Benchmark):
    """Whether W2 changes what a step costs: 256 sequences of 1000 steps on one core."""

    param_names = ("log10 |W2|", "sign", "scaled")
    params = (FEW_SIZES, reduced(1, SIGNS), [False, True])

    def setup(self, size, sign, scaled):
        self.net, self.ordinary = neuron_of(size, sign, "float64"), neuron("float64")
        self.x, self.y = normal(256, 1000), normal(256, 1000, seed=1)
        fastrnn.loss_and_grad(self.net, self.x, self.y, workers=1, scaled=scaled)

    @named("Loss and gradient by W2: time / time at W2 = 0.9", "times that at W2 = 0.9")
    def track_loss_and_grad_over_ordinary(self, size, sign, scaled):
        own, ordinary = (
            partial(fastrnn.loss_and_grad, net, self.x, self.y, workers=1, scaled=scaled)
            for net in (self.net, self.ordinary)
        )
        return over(own, ordinary)


class Backward(Benchmark):
    """Gradients for a given upstream one, of 64 sequences of 1000 steps."""

    param_names = ("dtype", "hidden_size")
    params = (["float32", "float64"], reduced(2, [1, 16, 64]))

    def setup(self, dtype, hidden_size):
        self.net, self.x, self.dh = net(dtype, hidden_size, 64, 1000)
        fastrnn.backward(self.net, self.x, self.dh)

    @named("Back-propagation through time: time")
    def time_backward(self, dtype, hidden_size):
        fastrnn.backward(self.net, self.x, self.dh)


class LossAndGradMemory(Benchmark):
    """Memory of 64 float32 sequences against their length, here and elsewhere."""

    param_names = ("steps", "library")
    params = (reduced(3, [1000, 10_000, 100_000, 1_000_000]), ["fastrnn", "PyTorch", "JAX"])

    def setup(self, steps, library):
        make = neuron_cells.CONTENDERS[library]
        problem = neuron_cells.Cell("memory", "float32", 1, 64, steps, 0.9)
        try:
            _, self.gradient = make(problem)
            # What the first call loads is none of its memory.
            make(neuron_cells.Cell("first", "float32", 1, 64, 10, 0.9))[1]()
        except ImportError as error:
            raise NotImplementedError("not installed") from error

    @named("Loss and gradient: peak memory")
    def peakmem_loss_and_grad(self, steps, library):
        self.gradient()

    @named("Loss and gradient: the inputs' peak memory")
    def peakmem_baseline(self, steps, library):
        """What the process holds without it."""


class LossAndGradBudget(Benchmark):
    """Memory and time under a budget, of inputs some 80 MB large."""

    param_names = ("memory",)
    params = ([1 << 20, 1 << 23, None],)

    def setup(self, memory):
        self.net = neuron("float32")
        self.x = normal(1024, 1, dtype="float32").repeat(20_000, axis=1)
        fastrnn.loss_and_grad(self.net, self.x[:64, :1], self.x[:64, :1])

    @named("Loss and gradient in a budget: time")
    def time_loss_and_grad(self, memory):
        fastrnn.loss_and_grad(self.net, self.x, self.x, memory=memory)

    @named("Loss and gradient in a budget: peak memory")
    def peakmem_loss_and_grad(self, memory):
        fastrnn.loss_and_grad(self.net, self.x, self.x, memory=memory)

    @named("Loss and gradient in a budget: the inputs' peak")
    def peakmem_baseline(self, memory):
        """What the process holds without it."""


class LossAndGradLayerMemory(Benchmark):
    """Memory of a training step of 100 hidden units, 64 sequences of 10,000 steps."""

    def setup(self):
        self.net, x, y = layer("float32", 100, 64, steps=1)
        fastrnn.loss_and_grad(self.net, x, y)
        self.x = x.repeat(10_000, axis=1)
        self.y = self.x.repeat(100, axis=2)

    @named("Loss and gradient of a layer: peak memory")
    def peakmem_loss_and_grad(self):
        fastrnn.loss_and_grad(self.net, self.x, self.y)

    @named("Loss and gradient of a layer: the inputs' peak")
    def peakmem_baseline(self):
        """What the process holds without it."""
