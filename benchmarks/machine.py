"""fastrnn beside the machine and beside its peers: ratios of times, so that more is worse."""

import re

import numpy as np

import fastrnn
from fastrnn.kernels import neuron
from fastrnn.kernels.jit import _compiled

from . import cases, ceilings, layer_cells, neuron_cells, peers
from .cases import Benchmark, named, reduced

ROUNDS = 3
# The first ones are measured by default.
NEURONS = [neuron_cells.CELLS[at] for at in (0, 3, 4, 1, 2)]
LAYERS = [layer_cells.CELLS[at] for at in (2, 0, 1, 3, 4, 5, 6, 7)]
JOBS = {
    f"{kind}, {cell.name}": (cell, contenders)
    for kind, cells, contenders in (
        ("neuron", reduced(2, NEURONS), neuron_cells.CONTENDERS),
        ("layer", reduced(1, LAYERS), layer_cells.CONTENDERS),
    )
    for cell in cells
}


class Peers(Benchmark):
    """Beside the best of NumPy, PyTorch, JAX and ONNX Runtime, as far as installed."""

    param_names = ("job",)
    params = (list(JOBS),)

    def ratio(self, job, kind):
        return 1 / peers.measure(*JOBS[job], ROUNDS, kinds=[kind])[f"{kind}_ratio"]

    @named("Forward pass: time, over that of the best peer", "times")
    def track_forward_over_best_peer(self, job):
        return self.ratio(job, "forward")

    @named("Loss and gradient: time, over that of the best peer", "times")
    def track_loss_and_grad_over_best_peer(self, job):
        return self.ratio(job, "gradient")


class Ceiling(Benchmark):
    """Beside what one core does at best with tanh alone, of numbers in its first cache."""

    param_names = ("dtype",)
    params = (["float32", "float64"],)

    @named("Forward pass: share of the machine's ceiling", "share")
    def track_forward_share_of_ceiling(self, dtype):
        found = ceilings.compute(dtype)
        return found["bare"] / found["forward"]


class Cells(Benchmark):
    """Beside the machine, in every layout: tanh, or what is read and written."""

    param_names = ("dtype", "cell", "workers")
    params = (
        ["float32", "float64"],
        reduced(1, ["1024 x 1000", "256 x 1000", "8192 x 1024"]),
        [1, 2],
    )

    @named("Forward pass: least share of the machine's ceiling, over layouts", "share")
    def track_forward_least_share(self, dtype, cell, workers):
        batch_size, steps = map(int, cell.split(" x "))
        return min(ceilings.shares(dtype, batch_size, steps, workers).values())


class Calls(Benchmark):
    """What a call takes beside its steps."""

    param_names = ("net",)
    params = (["neuron", "layer"],)

    def setup(self, net):
        self.net, shape = cases.neuron("float32"), (1, 1)
        if net == "layer":
            w1, w2 = cases.normal(16, 4, dtype="float32"), cases.normal(16, 16, dtype="float32")
            self.net, shape = fastrnn.RNN(w1, 0.1 * w2, np.zeros(16, "f4")), (4, 1, 4)
        self.x = np.zeros(shape, "f4")
        self.y = fastrnn.forward(self.net, self.x)

    @named("Forward pass of one step")
    def time_forward_of_one_step(self, net):
        fastrnn.forward(self.net, self.x)

    @named("Loss and gradient of one step")
    def time_loss_and_grad_of_one_step(self, net):
        fastrnn.loss_and_grad(self.net, self.x, self.y)


class VectorInstructions(Benchmark):
    """In the forward pass of a neuron, as compiled for this processor."""

    param_names = ("dtype",)
    params = (["float32", "float64"],)

    @named("Forward pass: vector instructions in the kernel", "instructions")
    def track_forward_vector_instructions(self, dtype):
        fastrnn.forward(cases.neuron(dtype), cases.normal(1, 3, dtype=dtype))
        signature = next(
            types
            for types in neuron.forward.signatures
            if types[0].activation == "tanh" and str(types[1].dtype) == dtype
        )
        # Code that came from the cache has no listing.
        fresh = _compiled(neuron.forward.py_func)
        fresh.compile(signature)
        suffix = "ps" if dtype == "float32" else "pd"
        return len(re.findall(rf"\sv\w+{suffix}\s.*%[xyz]mm", fresh.inspect_asm(signature)))
