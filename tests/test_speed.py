"""fastrnn beside NumPy and installed peers: ``pytest tests/test_speed.py --benchmark-enable``.

In the normal run each does a small job, and results are held against each other.
"""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import layer_cells, neuron_cells

CELLS = {
    "neuron": (neuron_cells.CELLS[0], neuron_cells.CONTENDERS),
    "bank": (neuron_cells.CELLS[3], neuron_cells.CONTENDERS),
    "layer": (layer_cells.CELLS[2], layer_cells.CONTENDERS),
}
SMALL = {
    "neuron": {"batch_size": 3, "steps": 7},
    "bank": {"nets": 5, "batch_size": 3, "steps": 7},
    "layer": {"hidden_size": 5, "batch_size": 3},
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # PyTorch's own
    pytest.mark.benchmark(max_time=0.3, min_rounds=3),
]


@pytest.fixture(autouse=True)
def short_layers(benchmark, monkeypatch):
    if benchmark.disabled:
        monkeypatch.setattr(layer_cells, "LEAST_STEPS", 7)
        monkeypatch.setattr(layer_cells, "MOST_STEPS", 7)


def made(job, library, benchmark):
    """The two calls of a library: forward, and forward with gradient."""
    cell, contenders = CELLS[job]
    if benchmark.disabled:
        cell = replace(cell, **SMALL[job])
    try:
        calls = contenders[library](cell)
    except ImportError as error:
        pytest.skip(f"{library} is not installed: {error}")
    return calls or (None, None)


def run(call, benchmark, group):
    if call is None:
        pytest.skip("has none of it")
    benchmark.group = group
    found = call()  # the first call compiles
    benchmark(call)
    return found


jobs = pytest.mark.parametrize("job", list(CELLS))
libraries = pytest.mark.parametrize("library", list(neuron_cells.CONTENDERS))


@jobs
@libraries
def test_forward(job, library, benchmark):
    call, _ = made(job, library, benchmark)
    found = run(call, benchmark, f"{job}: forward")
    if benchmark.enabled:
        return  # near |W2| = 1 rounding decides where long sequences end
    if library.startswith("fastrnn"):
        # Sequences first; others have the steps first.
        found = np.moveaxis(found, -1 if job != "layer" else -2, 0)
    elif library in ("PyTorch", "ONNX Runtime"):
        found = found[0]
    elif (library, job) == ("JAX", "bank"):
        found = np.moveaxis(found, 0, 1)
    numpy = made(job, "NumPy", benchmark)[0]()
    np.testing.assert_allclose(np.reshape(found, numpy.shape), numpy, rtol=1e-4, atol=1e-5)


@jobs
@libraries
def test_loss_and_grad(job, library, benchmark):
    _, call = made(job, library, benchmark)
    found = run(call, benchmark, f"{job}: loss and gradient")
    if library == "JAX" and benchmark.disabled:
        _, gradient = made(job, "fastrnn", benchmark)[1]()
        own = gradient.w1, gradient.w2, gradient.b
        for one, other in zip(found[1], own, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
