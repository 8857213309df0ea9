"""No warning leaves the verbs that measure dynamics, at any W2, input, type and size."""

import warnings

import numpy as np
import pytest

import fastrnn
from tests import cases

W2 = np.array([-1e300, -2.0, -1.0, -1e-300, 0.0, 1e-300, 0.5, 1.0, 2.0, 1e300])
W2_FLOAT32 = np.array([-1e38, -2.0, -1.0, -1e-38, 0.0, 1e-38, 0.5, 1.0, 2.0, 1e38], np.float32)
NUMBERS = np.random.default_rng(0).standard_normal(40)
SERIES = {
    "ordinary": NUMBERS,
    "zeros": np.zeros(40),
    "huge": 1e30 * NUMBERS,
    "inf and NaN": np.where(
        np.arange(40) == 20, np.inf, np.where(np.arange(40) == 30, np.nan, 1.0)
    ),
    "inf alone": np.where(np.arange(40) == 20, -np.inf, 1.0),
    "one step": NUMBERS[:1],
    "no step": NUMBERS[:0],
}


def neurons(activation, dtype):
    w2 = W2 if dtype == "float64" else W2_FLOAT32
    return fastrnn.RNN(np.ones_like(w2), w2, activation=activation)


def layers(activation, dtype):
    w2 = W2 if dtype == "float64" else W2_FLOAT32
    shapes = np.array([[[1, 0], [0, 1]], [[0.5, -1], [1, 0.5]], [[1, 1], [1, 1]]], dtype)
    both = (w2[:, None, None, None] * shapes).reshape(-1, 2, 2)
    return fastrnn.RNN(np.ones((2, 1), dtype), both, activation=activation)


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
@pytest.mark.parametrize("nets", [neurons, layers])
def test_no_warning_and_no_crash(nets, activation, dtype, series):
    net = nets(activation, dtype)
    x = SERIES[series].astype(dtype)
    for inputs, lengths in (
        (x, None),
        (np.stack([x, x[::-1], x]), [len(x), len(x) // 3, 0]),
        (np.zeros((0, len(x)), dtype), None),
    ):
        for options in ({}, {"local": 7}, {"stderr": 0.1}, {"transient": 5, "local": 10**30}):
            k = min(2, net.hidden_size)
            found = fastrnn.lyapunov(net, inputs, k, lengths=lengths, **options)
            repr(found)
            assert not np.isposinf(found.exponents).any()
        fastrnn.jacobian_norms(net, inputs, lengths=lengths)
        diagnosis = fastrnn.diagnose(net, inputs, lengths=lengths)
        assert max(map(len, diagnosis.summary().splitlines())) < 200
        diagnosis.to_columns()
        assert np.shape(diagnosis.evidence) == np.shape(diagnosis.exponent)
        diagnosis._repr_html_()
        assert np.shape(diagnosis.horizon_by_exponent) == np.shape(diagnosis.exponent)


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
def test_single_nets_put_themselves_in_words(activation):
    for w2 in W2:
        net = fastrnn.RNN(1.0, w2, activation=activation)
        for series in SERIES.values():
            assert len(repr(fastrnn.lyapunov(net, series))) < 100
            text = fastrnn.diagnose(net, series).summary()
            assert max(map(len, text.splitlines())) < 120


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
def test_fixed_points_at_any_weight(activation, dtype):
    net = neurons(activation, dtype)
    largest = np.finfo(dtype).max
    x = np.array([0.0, 1.0, -1e30, 1e-30, largest, -largest], dtype)
    found = fastrnn.fixed_points(net, x)
    some = ~np.isnan(found.h)
    assert (some == ~np.isnan(found.multiplier)).all()
    assert not found.stable[~some].any()
    if activation in ("tanh", "sigmoid"):
        assert (found.count >= 1).all()


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
def test_phase_diagrams_at_any_weight(activation):
    for x in (NUMBERS, NUMBERS[:1], 1e30 * NUMBERS, np.zeros(9)):
        found = fastrnn.phase_diagram(
            x, w2=W2, b=[-1e300, -1.0, 0.0, 1.0, 1e300], activation=activation, refine=2
        )
        found.to_columns()
        assert np.isin(found.regime, ["vanishing", "balanced", "exploding"]).all()
    found = fastrnn.phase_diagram(
        NUMBERS, w2=[1e-300, 1.0, 1e300], scale=[1e-300, 1.0, 1e300], activation=activation
    )
    assert np.isfinite(found.boundary).all()
