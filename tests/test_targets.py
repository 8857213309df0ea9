"""The same bits whatever x86-64 processor the kernels are compiled for."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib
import numpy as np
import fastrnn
digest = hashlib.sha256()
x = np.random.default_rng(0).standard_normal((37, 301)).astype("{dtype}")
net = fastrnn.RNN(0.7, np.linspace(-3, 3, 20).astype(x.dtype), 0.1, activation="{activation}")
loss, grad = fastrnn.loss_and_grad(net, x, x, wrt=("w1", "w2", "b", "x"))
influence = fastrnn.influence(net, x)
w1, w2, b = (np.random.default_rng(k).standard_normal(s).astype("{dtype}") / 4
             for k, s in enumerate([(33, 1), (33, 33), (33,)]))
layer = fastrnn.RNN(w1, w2, b, activation="{activation}")
found = fastrnn.loss_and_grad(layer, x[..., None], np.ones((37, 301, 33), x.dtype))
for array in (
    fastrnn.forward(layer, x[..., None]), found[0], found[1].w1, found[1].w2, found[1].b,
    fastrnn.forward(net, x), loss, grad.w1, grad.w2, grad.b, grad.x,
    influence.mantissa, influence.exponent,
):
    digest.update(np.ascontiguousarray(array).tobytes())
print(digest.hexdigest())
"""
TARGETS = {
    "haswell": "+avx2,+fma",
    "skylake-avx512": "+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl",
    "znver4": "+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl",
}


def supported(features):
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read().split()
    except OSError:
        return False
    return all(feature.lstrip("+") in flags for feature in features.split(","))


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="targets are of x86-64")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_same_bits_for_every_processor(activation, dtype, tmp_path):
    program = PROGRAM.format(activation=activation, dtype=dtype)
    digests = {}
    for target, features in TARGETS.items():
        if supported(features):
            environment = {
                **os.environ,
                "NUMBA_CPU_NAME": target,
                "NUMBA_CPU_FEATURES": features,
                "FASTRNN_CACHE_DIR": str(tmp_path / target),
            }
            result = subprocess.run(
                [sys.executable, "-c", program],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            digests[target] = result.stdout
    assert len(digests) > 1
    assert len(set(digests.values())) == 1, digests
