"""What the shipped kernels became: vectors, and no call of a mathematical library."""

import platform
import re

import numba
import numpy as np
import pytest

import fastrnn
from fastrnn import engine
from fastrnn.kernels import layer, neuron, neuron_gradient
from fastrnn.kernels.jit import _compiled
from fastrnn.sequences import sequences
from tests import cases

# What a branch on the numbers of a vector, or on a single one, would ask.
BRANCH = re.compile(r"\b(?:kortest|ktest|v?ptest|vtestp|v?movmskp|v?u?comis)\w*")
LIBM = re.compile(r"\b(tanh|exp|expm1|fma|ldexp|pow)f?\b")

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="registers are named as on x86-64"
)


def _is_tanh_of(signature, dtype):
    return signature[0].activation == "tanh" and str(signature[1].dtype) == dtype


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("name", ["forward", "backward"])
def test_kernel_has_vectors_and_calls_no_mathematical_library(name, dtype):
    net = cases.neuron("tanh", dtype)
    x = np.zeros((1, 3), dtype)
    fastrnn.forward(net, x)
    fastrnn.loss_and_grad(net, x, x)
    shipped = neuron.forward if name == "forward" else neuron_gradient.backward
    signature = next(s for s in shipped.signatures if _is_tanh_of(s, dtype))
    # Code that came from the cache has no listing.
    fresh = _compiled(shipped.py_func)
    fresh.compile(signature)
    listing = fresh.inspect_asm(signature)
    suffix = "ps" if dtype == "float32" else "pd"
    assert len(re.findall(rf"vfn?m(?:add|sub)\d+{suffix}\s.*%[zy]mm", listing)) >= 10
    assert re.findall(rf"vdiv{suffix}\s.*%[zy]mm", listing)
    assert not LIBM.findall(listing)
    # No branch forward depends on the numbers: W2 and the inputs do not change what a step costs.
    # The way back looks, once a block of steps, whether floats sufficed.
    assert name == "backward" or not BRANCH.findall(listing)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("name", ["forward", "replay", "retreat"])
def test_a_layers_kernel_is_made_of_whole_tiles(name, dtype):
    net = cases.layer(17, dtype=dtype)
    x = np.zeros((40, 3, 1), dtype)
    fastrnn.forward(net, x)
    fastrnn.loss_and_grad(net, x, np.zeros((40, 3, 17), dtype))
    shipped, panels = getattr(layer, name), engine.layers(sequences(net, x), 1).shapes
    # Place and type of the panel, and the place of an array of the net's own type.
    at, panel, own = (0, panels, 4) if name == "retreat" else (1, panels[0], 8)
    signature = next(
        s
        for s in shipped.signatures
        if s[at] == numba.typeof(panel)
        and str(s[own].dtype) == dtype
        and (name == "retreat" or s[0].activation == "tanh")
    )
    fresh = _compiled(shipped.py_func, _nrt=False)
    fresh.compile(signature)
    listing = fresh.inspect_asm(signature)
    # Tiles of 6 rows: as many multiply-adds of whole registers without a branch between them.
    suffix = "ps" if dtype == "float32" else "pd"
    runs = re.split(r"\n\s*j\w+\s|\n\.L\w+:", listing)
    tiles = [len(re.findall(rf"vfmadd\d+{suffix}\s.*%[zy]mm", run)) for run in runs]
    assert max(tiles) >= 6
    assert not LIBM.findall(listing)
    # Scalar multiply-adds are for what is infinite alone.
    if name != "retreat":
        assert not re.findall(rf"vfmadd\d+s{suffix[1]}\s", listing)
