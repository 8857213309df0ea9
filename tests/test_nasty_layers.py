"""Gradients of layers that are built to be nasty: what plain floats lose is found.

Scaled gradients are the truth here; those are held against mpmath and number by number elsewhere.
"""

import numpy as np
import pytest

import fastrnn

CASES = 120
# Largest relative error of a sum beside its absolute terms: far above N3, as z of a saturated layer
# is rounded to 1e-6 of hundreds; what is lost on the way is far above this.
LOOSE = {"float32": 3e-2, "float64": 1e-10}


def case(seed):
    """A net, inputs, lengths, targets or upstream gradients, and whether it is targets."""
    rng = np.random.default_rng(seed)
    dtype = str(rng.choice(["float32", "float64"]))
    activation = str(rng.choice(["tanh", "sigmoid", "relu", "identity"]))
    units, inputs = int(rng.choice([1, 2, 5, 8, 16, 17, 20])), int(rng.choice([1, 3]))
    shape = int(rng.choice([1, 2, 5, 17])), int(rng.choice([1, 2, 31, 70, 140]))
    gain = 10.0 ** (rng.uniform(-3, 4) if rng.random() < 0.7 else rng.uniform(-20, 12))
    w2 = rng.standard_normal((units, units)) * gain / np.sqrt(units)
    kind = rng.choice(["full", "full", "full", "diagonal", "zero"])
    w2 = w2 if kind == "full" else np.diag(np.diag(w2)) * (kind == "diagonal")
    weights = [
        rng.standard_normal((units, inputs)) * 10.0 ** rng.uniform(-3, 3), w2,
        rng.standard_normal(units) * rng.choice([0, 0, 0.1, 20]),
    ]  # fmt: skip
    options = {"activation": activation}
    if rng.random() < 0.4:
        outputs = int(rng.choice([1, 3]))
        w3 = rng.standard_normal((outputs, units)) * 10.0 ** rng.uniform(-8, 8)
        b3 = rng.standard_normal(outputs) * rng.choice([0, 1])
        options |= {"w3": w3.astype(dtype), "b3": b3.astype(dtype)}
    net = fastrnn.RNN(*(weight.astype(dtype) for weight in weights), **options)
    x = rng.standard_normal((*shape, inputs))
    kind = rng.choice(["plain", "sparse", "zero"])
    if kind != "plain":
        x *= 20 * (kind == "sparse") * (rng.random(x.shape) < 0.05)
    x, lengths = x.astype(dtype), np.full(shape[0], shape[1])
    if rng.random() < 0.4:
        lengths = rng.integers(0, shape[1] + 1, shape[0])
    fused = bool(rng.random() < 0.6)
    other = rng.standard_normal((*shape, net.output_size if fused else units))
    if fused and rng.random() < 0.5:
        own = fastrnn.predict(net, x, lengths=lengths)
        masked = np.isfinite(own) & (rng.random(own.shape) < rng.choice([0.5, 0.95, 1.0]))
        other = np.where(masked, own, other)
    elif not fused and rng.random() < 0.6:
        other *= rng.random(other.shape) < 0.02
    beyond = np.arange(shape[1]) >= lengths[:, None]
    x[beyond], other[beyond] = rng.choice([0, np.nan]), rng.choice([0, np.nan])
    return net, x, lengths, other.astype(dtype), fused


def failures(seed):
    """Names of gradients that plain floats have otherwise than scaled numbers."""
    net, x, lengths, other, fused = case(seed)
    wrt = ["w1", "w2", "b", "x", "h0"] + (["w3", "b3"] if fused and net.w3 is not None else [])
    found = []
    for each in (False, True):
        options = {"lengths": lengths, "wrt": wrt, "per_sequence": each}
        if fused:
            (_, plain), (_, scaled) = (
                fastrnn.loss_and_grad(net, x, other, scaled=s, **options) for s in (False, True)
            )
        else:
            plain, scaled = (
                fastrnn.backward(net, x, other, scaled=s, **options) for s in (False, True)
            )
        for name in wrt:
            value, true = np.asarray(getattr(plain, name), float), getattr(scaled, name)
            share = getattr(scaled.cancellation, name) if name not in ("x", "h0") else None
            if not _agree(value, true, share, str(x.dtype)):
                found.append((name, each))
    return found


def _agree(value, true, share, dtype):
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        exact = np.ldexp(true.mantissa.astype(float), np.clip(true.exponent, -2e3, 2e3).astype(int))
        size = abs(exact)
        if share is None:
            size = np.broadcast_to(size.max(axis=-1, keepdims=True), size.shape)
        else:
            size = size / np.maximum(share, 1e-30)
        near = abs(value - exact) <= LOOSE[dtype] * size + 100 * info.tiny
        beyond = (abs(exact) > info.max) & (value == np.copysign(np.inf, exact))
    return bool((near | beyond | (np.isnan(value) & np.isnan(exact))).all())


@pytest.mark.parametrize("first", range(0, CASES, 20))
def test_plain_gradients_of_random_layers_are_the_scaled_ones(first):
    wrong = {seed: found for seed in range(first, first + 20) if (found := failures(seed))}
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("first", range(CASES, 5000, 100))
def test_plain_gradients_of_many_random_layers(first):
    wrong = {seed: found for seed in range(first, first + 100) if (found := failures(seed))}
    assert not wrong
