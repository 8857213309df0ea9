"""What a new process pays: the import, and the first call with and without kernels in the cache."""

import fastrnn

from .cases import Benchmark, named


class Import(Benchmark):
    @named("import fastrnn")
    def timeraw_import_fastrnn(self):
        return "import fastrnn"

    @named("import numpy, for comparison")
    def timeraw_import_numpy(self):
        return "import numpy"


# What a process does that has kernels nowhere.
COLD = """
import os, tempfile
with tempfile.TemporaryDirectory() as folder:
    os.environ["FASTRNN_CACHE_DIR"] = folder
    import numpy as np, fastrnn
    {}
"""


class FirstCall(Benchmark):
    rounds, repeat, number, warmup_time = 1, 3, 1, 0

    def setup(self):
        fastrnn.forward(fastrnn.RNN(1.0, 0.5), [0.0])

    @named("First call, kernels cached")
    def timeraw_first_forward(self):
        return "import fastrnn; fastrnn.forward(fastrnn.RNN(1.0, 0.5), [0.0])"


class FirstCallCold(Benchmark):
    """All is compiled."""

    # Calls of seconds.
    rounds, repeat, number, warmup_time = 1, 1, 1, 0

    @named("First call, nothing cached: a neuron's forward pass")
    def timeraw_first_forward(self):
        return COLD.format("fastrnn.forward(fastrnn.RNN(1.0, 0.5), [0.0])")

    @named("First call, nothing cached: a layer's gradient")
    def timeraw_first_loss_and_grad(self):
        net = "fastrnn.RNN(np.ones((16, 1)), np.eye(16))"
        return COLD.format(f"fastrnn.loss_and_grad({net}, np.ones(3), np.ones((3, 16)))")
