"""What the shipped kernels became: vectors, and no call of a mathematical library."""

import platform
import re

import numpy as np
import pytest

import fastrnn
from fastrnn.kernels import neuron, neuron_scaled
from fastrnn.kernels.jit import _compiled
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
@pytest.mark.parametrize("name", ["forward", "backward", "backward_scaled"])
def test_kernel_has_vectors_and_calls_no_mathematical_library(name, dtype):
    net = cases.neuron("tanh", dtype)
    x = np.zeros((1, 3), dtype)
    fastrnn.forward(net, x)
    fastrnn.loss_and_grad(net, x, x)
    fastrnn.influence(net, x)
    scaled = name == "backward_scaled"
    shipped = neuron_scaled.backward if scaled else getattr(neuron, name)
    signature = next(s for s in shipped.signatures if _is_tanh_of(s, dtype))
    # Code that came from the cache has no listing.
    fresh = _compiled(shipped.py_func)
    fresh.compile(signature)
    listing = fresh.inspect_asm(signature)
    suffix = "ps" if dtype == "float32" else "pd"
    assert len(re.findall(rf"vfn?m(?:add|sub)\d+{suffix}\s.*%[zy]mm", listing)) >= 10
    assert re.findall(rf"vdiv{suffix}\s.*%[zy]mm", listing)
    assert not LIBM.findall(listing)
    # No branch depends on the numbers, so W2 and the inputs do not change what a step costs; where
    # numbers leave the range of floats, an exponent more is worth one.
    assert scaled or not BRANCH.findall(listing)
