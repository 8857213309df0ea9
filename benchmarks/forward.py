"""Forward passes and predictions."""

import numpy as np

import fastrnn

from .cases import (
    CELLS,
    FEW_SIZES,
    SIGNS,
    Benchmark,
    cell,
    lane_steps,
    named,
    nanoseconds,
    net,
    neuron,
    neuron_of,
    normal,
    over,
    reduced,
)

LANE_UNIT = "ns a step and lane"


class Forward(Benchmark):
    """A batch of sequences through a neuron (hidden size 1) or a layer, all states kept."""

    param_names = ("dtype", "hidden_size", "batch_size")
    params = (["float32", "float64"], reduced(3, [1, 16, 64, 4, 256]), reduced(2, [1, 64, 1024]))
    steps = 1000

    def setup(self, dtype, hidden_size, batch_size):
        self.net, self.x, _ = net(dtype, hidden_size, batch_size, self.steps)
        fastrnn.forward(self.net, self.x)

    @named("Forward pass: time")
    def time_forward(self, *parameters):
        fastrnn.forward(self.net, self.x)

    @named("Forward pass: a step of a sequence", LANE_UNIT)
    def track_forward_nanoseconds(self, *parameters):
        batch_size, steps = self.x.shape[:2]
        return nanoseconds(lambda: fastrnn.forward(self.net, self.x), batch_size * steps)


class ForwardCells(Benchmark):
    """Batches, banks and long sequences, as `benchmarks.peers` measures them beside others."""

    param_names = ("dtype", "job")
    params = (reduced(1, ["float32", "float64"]), reduced(3, CELLS))

    def setup(self, dtype, job):
        self.net, self.x, _ = cell(job, dtype)
        fastrnn.forward(self.net, self.x)

    @named("Forward pass by job: a step", LANE_UNIT)
    def track_forward_nanoseconds(self, dtype, job):
        return nanoseconds(lambda: fastrnn.forward(self.net, self.x), lane_steps(job))


class ForwardAtW2(Benchmark):
    """Whether W2 changes what a step costs: 256 sequences of 1000 steps on one core."""

    param_names = ("log10 |W2|", "sign", "dtype")
    params = (FEW_SIZES, reduced(1, SIGNS), ["float32", "float64"])

    def setup(self, size, sign, dtype):
        self.net, self.ordinary = neuron_of(size, sign, dtype), neuron(dtype)
        self.x = normal(256, 1000, dtype=dtype)
        fastrnn.forward(self.net, self.x, workers=1)

    @named("Forward pass by W2: time / time at W2 = 0.9", "times that at W2 = 0.9")
    def track_forward_over_ordinary(self, *parameters):
        return over(
            lambda: fastrnn.forward(self.net, self.x, workers=1),
            lambda: fastrnn.forward(self.ordinary, self.x, workers=1),
        )


class ForwardScaled(Benchmark):
    """What it costs to have states as `Scaled`, where floats reach: 64 sequences, 1000 steps."""

    param_names = ("hidden_size", "activation")
    params = ([1, 64], ["tanh", "relu"])

    def setup(self, hidden_size, activation):
        ordinary, self.x, _ = net("float64", hidden_size, 64, 1000)
        self.net = fastrnn.RNN(ordinary.w1, ordinary.w2, ordinary.b, activation=activation)
        fastrnn.forward(self.net, self.x, scaled=True)

    @named("Forward pass, scaled: time / time in plain floats", "times that of plain floats")
    def track_forward_over_plain(self, *parameters):
        return over(
            lambda: fastrnn.forward(self.net, self.x, scaled=True),
            lambda: fastrnn.forward(self.net, self.x),
        )


class ForwardLayout(Benchmark):
    """Memory layouts and threads: 1024 sequences of 1000 float32 steps."""

    param_names = ("layout", "workers")
    params = (["sequences first", "time first", "every other step"], [1, 2])

    def setup(self, layout, workers):
        self.net, self.x = neuron("float32"), normal(1024, 1000, dtype="float32")
        if layout == "time first":
            self.x = np.ascontiguousarray(self.x.T).T
        elif layout == "every other step":
            self.x = self.x.repeat(2, axis=1)[:, ::2]
        fastrnn.forward(self.net, self.x, workers=workers)

    @named("Forward pass by layout and threads: time")
    def time_forward(self, layout, workers):
        fastrnn.forward(self.net, self.x, workers=workers)


class ForwardMemory(Benchmark):
    """Memory of 64 sequences against their length, beside that of the inputs alone."""

    param_names = ("steps", "keep")
    params = (reduced(3, [1000, 10_000, 100_000, 1_000_000]), ["all", "last"])

    def setup(self, steps, keep):
        self.net, self.x = neuron("float32"), normal(64, 1, dtype="float32").repeat(steps, axis=1)
        fastrnn.forward(self.net, self.x[:, :1], keep=keep)

    @named("Forward pass: peak memory")
    def peakmem_forward(self, steps, keep):
        fastrnn.forward(self.net, self.x, keep=keep)

    @named("Forward pass: the inputs' peak memory")
    def peakmem_baseline(self, steps, keep):
        """What the process holds without it."""


class Predict(Benchmark):
    """The read-out of 16 hidden units, of 64 sequences of 1000 steps."""

    param_names = ("dtype",)
    params = (["float32", "float64"],)

    def setup(self, dtype):
        hidden, self.x, _ = net(dtype, 16, 64, 1000)
        w3, b3 = normal(1, 16, dtype=dtype), normal(1, dtype=dtype)
        self.net = fastrnn.RNN(hidden.w1, hidden.w2, hidden.b, w3=w3, b3=b3)
        fastrnn.predict(self.net, self.x)

    @named("Prediction: time")
    def time_predict(self, dtype):
        fastrnn.predict(self.net, self.x)
