"""Forward passes."""

import fastrnn

from . import cases


class Forward:
    """A batch of sequences through one neuron, all states kept."""

    version = "1"
    param_names = ("dtype", "batch_size", "steps")
    params = (["float32", "float64"], [1, 1024], [1000])

    def setup(self, dtype, batch_size, steps):
        self.net = cases.neuron(dtype)
        self.x = cases.normal(batch_size, steps, dtype=dtype)
        fastrnn.forward(self.net, self.x)

    def time_forward(self, dtype, batch_size, steps):
        fastrnn.forward(self.net, self.x)


class ForwardCells:
    """The jobs that `benchmarks.peers` measures beside others."""

    version = "1"
    param_names = ("dtype", "cell")
    params = (["float32", "float64"], list(cases.CELLS))

    def setup(self, dtype, cell):
        self.net, self.x, _ = cases.cell(cell, dtype)
        fastrnn.forward(self.net, self.x)

    def time_forward(self, dtype, cell):
        fastrnn.forward(self.net, self.x)

    def track_forward_nanoseconds(self, dtype, cell):
        return cases.nanoseconds(lambda: fastrnn.forward(self.net, self.x), cell)

    track_forward_nanoseconds.unit = "ns a step and lane"


class ForwardMemory:
    """Memory of a forward pass, beside that of its inputs alone."""

    version = "1"
    param_names = ("batch_size",)
    params = ([1, 8192],)

    def setup(self, batch_size):
        self.net = cases.neuron("float32")
        self.x = cases.normal(batch_size, 1000, dtype="float32")

    def peakmem_forward(self, batch_size):
        fastrnn.forward(self.net, self.x)

    def peakmem_baseline(self, batch_size):
        """What the process holds without it."""


class ForwardLayerCells:
    """Hidden layers of the sizes that `benchmarks.peers` measures beside others."""

    version = "1"
    param_names = ("dtype", "hidden_size", "batch_size")
    params = (["float32", "float64"], [4, 16, 64, 256], [1, 64])

    def setup(self, dtype, hidden_size, batch_size):
        self.cell, self.net, self.x, _ = cases.layer(dtype, hidden_size, batch_size)
        fastrnn.forward(self.net, self.x)

    def time_forward(self, dtype, hidden_size, batch_size):
        fastrnn.forward(self.net, self.x)

    def track_forward_nanoseconds(self, dtype, hidden_size, batch_size):
        call = lambda: fastrnn.forward(self.net, self.x)  # noqa: E731
        return cases.median_seconds(call) / self.cell.lane_steps * 1e9

    track_forward_nanoseconds.unit = "ns a step of all sequences"
