"""What a new process pays: the import, and the first call with and without kernels in the cache."""

import fastrnn

from .cases import Benchmark, named, reduced


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


NEURON, LAYER = "fastrnn.RNN(1.0, 0.5)", "fastrnn.RNN(np.ones((16, 1)), 0.1 * np.eye(16))"
CALLS = {
    "forward": f"fastrnn.forward({NEURON}, [0.0])",
    "loss_and_grad": f"fastrnn.loss_and_grad({NEURON}, np.ones(3), np.ones(3))",
    "loss_and_grad, a layer": f"fastrnn.loss_and_grad({LAYER}, np.ones(3), np.ones((3, 16)))",
    "diagnose": f"fastrnn.diagnose({NEURON}, np.ones(9))",
    "fastrnn sweep sunspots": """
    os.chdir(folder)
    import subprocess, sys
    subprocess.run([sys.executable, "-m", "fastrnn", "sweep", "sunspots", "--quiet"], check=True)
""",
    "forward, a layer": f"fastrnn.forward({LAYER}, np.ones(3))",
    "predict": f"fastrnn.predict({LAYER}, np.ones(3))",
    "backward": f"fastrnn.backward({NEURON}, np.ones(3), np.ones(3))",
    "influence": f"fastrnn.influence({NEURON}, np.ones(3))",
    "influence, a layer": f"fastrnn.influence({LAYER}, np.ones(3))",
    "diagnose, a layer": f"fastrnn.diagnose({LAYER}, np.ones(9))",
    "lyapunov": f"fastrnn.lyapunov({NEURON}, np.ones(9))",
    "jacobian_norms": f"fastrnn.jacobian_norms({NEURON}, np.ones(9))",
    "phase_diagram": "fastrnn.phase_diagram(np.ones(9), w1=(0.5, 2.0, 3), w2=(0.5, 2.0, 3))",
}


class FirstCallCold(Benchmark):
    """All is compiled."""

    # Calls of seconds.
    rounds, repeat, number, warmup_time = 1, 1, 1, 0
    params = (reduced(5, CALLS),)
    param_names = ("call",)

    @named("First call, nothing cached")
    def timeraw_first_call(self, call):
        return COLD.format(CALLS[call])
