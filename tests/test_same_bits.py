"""Promise N5 of the verbs that measure dynamics: a sequence has the bits that it has alone."""

import dataclasses

import numpy as np
import pytest

import fastrnn
from fastrnn import growth, jacobians
from tests import cases

STEPS = 50
# Shorter than a window, one step, none, and all.
LENGTHS = np.array([50, 11, 1, 0, 33, 50, 2, 47])
KINDS = ("neuron", "bank", "layer", "bank of layers", "layer of 1", "neuron with read-out")


def net_of(kind, activation, dtype):
    return cases.NETS[kind](activation, dtype)


def lyapunov(**options):
    def call(net, x, lengths, workers):
        own = {k: min(v, net.hidden_size) if k == "k" else v for k, v in options.items()}
        return fastrnn.lyapunov(net, x, lengths=lengths, workers=workers, **own)

    return call


def jacobian_norms(net, x, lengths, workers):
    lags = np.arange(0, min(x.shape[1], 12))
    return fastrnn.jacobian_norms(net, x, lags, lengths=lengths, workers=workers)


def diagnose(net, x, lengths, workers):
    return fastrnn.diagnose(net, x, lengths=lengths, workers=workers)


VERBS = {
    "lyapunov": lyapunov(),
    "lyapunov, k": lyapunov(k=3),
    "lyapunov, local": lyapunov(k=2, local=4),
    "lyapunov, stderr": lyapunov(stderr=0.3),
    "lyapunov, transient": lyapunov(k=2, transient=7),
    "jacobian_norms": jacobian_norms,
    "diagnose": diagnose,
}


def arrays_of(value):
    """The arrays of a result, those of Scaled numbers and of results within it too."""
    if isinstance(value, fastrnn.Scaled):
        return [value.mantissa, np.broadcast_to(value.exponent, value.shape)]
    if isinstance(value, fastrnn.RNN) or value is None:
        return []
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return [array for field in fields for array in arrays_of(getattr(value, field.name))]
    return [np.asarray(value)]


def of_sequence(array, net, i, batch_size):
    """What belongs to one sequence; what belongs to none is None."""
    axis = 1 if net.is_bank else 0
    if array.ndim <= axis or array.shape[axis] != batch_size:
        return None
    return np.take(array, [i], axis=axis)


def assert_same(whole, alone, net, i, batch_size):
    for ours, own in zip(arrays_of(whole), arrays_of(alone), strict=True):
        part = of_sequence(ours, net, i, batch_size)
        if part is None:
            continue
        # Past the end of a shorter sequence there is nothing, or NaN.
        shared = tuple(slice(0, n) for n in np.minimum(part.shape, own.shape))
        assert part[shared].tobytes() == own[shared].tobytes()


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_sequence_has_the_bits_it_has_alone(verb, kind, activation, dtype):
    net = net_of(kind, activation, dtype)
    call = VERBS[verb]
    x = cases.inputs(net, len(LENGTHS), STEPS, dtype)
    whole = call(net, x, LENGTHS, None)
    for i, length in enumerate(LENGTHS):
        if verb == "jacobian_norms" and length < 12:
            continue
        alone = call(net, np.ascontiguousarray(x[i : i + 1, :length]), None, 1)
        assert_same(whole, alone, net, i, len(LENGTHS))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
def test_layout_workers_and_cuts_change_no_bits(verb, kind, monkeypatch):
    net = net_of(kind, "tanh", "float64")
    call = VERBS[verb]
    x = cases.inputs(net, len(LENGTHS), STEPS)
    whole = [array.tobytes() for array in arrays_of(call(net, x, LENGTHS, 1))]
    time_major = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    for other in (np.asfortranarray(x), time_major, np.repeat(x, 2, axis=1)[:, ::2]):
        found = [array.tobytes() for array in arrays_of(call(net, other, LENGTHS, 2))]
        assert found == whole
    monkeypatch.setattr(growth, "CALL_WORK", 2000)
    monkeypatch.setattr(growth, "SLICE_BYTES", 5000)
    monkeypatch.setattr(jacobians, "BLOCK", 7 * len(LENGTHS))
    assert [array.tobytes() for array in arrays_of(call(net, x, LENGTHS, 2))] == whole


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_states_that_leave_floats_leave_others_alone(dtype, monkeypatch):
    """Of a bank of relu layers some do, at steps of their own, and some do not."""
    net = cases.layer(4, 1, "relu", dtype, bank=3)
    gains = np.array([0.5, 8.0, 30.0], dtype)[:, None, None]
    net = fastrnn.RNN(net.w1, abs(net.w2) * gains, net.b, activation="relu")
    x = abs(cases.inputs(net, 3, 900, dtype)) * np.array([1, -1, 1], dtype)[:, None, None]
    lengths = np.array([900, 900, 333])
    assert np.isinf(fastrnn.forward(net, x)).any(axis=(1, 2, 3)).tolist() == [False, True, True]
    options = [{"k": 2}, {"local": 50}, {"stderr": 1e-3}, {"transient": 600, "k": 3}]
    whole = [fastrnn.lyapunov(net, x, lengths=lengths, **own) for own in options]
    assert not np.isnan(whole[0].exponents).any()
    monkeypatch.setattr(growth, "CALL_WORK", 20_000)
    monkeypatch.setattr(growth, "SLICE_BYTES", 5000)
    for own, found in zip(options, whole, strict=True):
        for i, length in enumerate(lengths):
            alone = fastrnn.lyapunov(net, x[i : i + 1, :length], workers=1, **own)
            assert_same(found, alone, net, i, 3)
        for k in range(3):
            one = fastrnn.RNN(net.w1[k], net.w2[k], net.b[k], activation="relu")
            alone = fastrnn.lyapunov(one, x, lengths=lengths, **own)
            assert alone.exponents.tobytes() == found.exponents[k].tobytes()


@pytest.mark.parametrize("steps", [2000, 100])
@pytest.mark.parametrize("kind", ["bank", "layer"])
def test_when_a_run_stops_depends_on_its_own_length(kind, steps):
    net = net_of(kind, "tanh", "float64")
    x = cases.inputs(net, 3, 5000)
    lengths = [5000, steps, 700]
    whole = fastrnn.lyapunov(net, x, lengths=lengths, stderr=0.05)
    for i, length in enumerate(lengths):
        alone = fastrnn.lyapunov(net, x[i : i + 1, :length], stderr=0.05)
        assert_same(whole, alone, net, i, 3)


def test_a_phase_diagram_has_the_bits_of_its_points():
    x = np.random.default_rng(0).standard_normal((3, 60))
    w2, b = np.linspace(-3, 3, 7), np.linspace(-1, 1, 5)
    whole = fastrnn.phase_diagram(x, w2=w2, b=b, refine=0)
    for i, j in np.ndindex(5, 7):
        one = fastrnn.phase_diagram(np.asfortranarray(x), w2=w2[[j]], b=b[[i]], workers=1)
        for name in ("exponent", "decades", "horizon"):
            assert getattr(one, name)[0, 0] == getattr(whole, name)[i, j]
