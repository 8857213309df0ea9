"""Every verb against plain NumPy, over net x activation x dtype x odd sizes."""

import numpy as np
import pytest

import fastrnn
from fastrnn.sequences import sequences
from tests import tolerances
from tests.cases import ACTIVATIONS, DTYPES, NETS, ODD_SIZES, inputs


@pytest.fixture(params=NETS, name="kind")
def _kind(request):
    return request.param


@pytest.fixture(params=ACTIVATIONS, name="activation")
def _activation(request):
    return request.param


@pytest.fixture(params=DTYPES, name="dtype")
def _dtype(request):
    return request.param


@pytest.fixture(params=ODD_SIZES, ids=lambda size: "B{}T{}".format(*size), name="problem")
def _problem(request, kind, activation, dtype):
    batch_size, steps = request.param
    net = NETS[kind](activation, dtype)
    rng = np.random.default_rng(batch_size + steps)
    x = inputs(net, batch_size, steps, dtype)
    lengths = rng.integers(0, steps, batch_size, endpoint=True)
    job = sequences(net, x)
    h0 = job.visible(rng.standard_normal(job.size("KBH")).astype(dtype) / 2, "KBH")
    return net, x, {"h0": h0, "lengths": lengths}


def test_states(problem):
    net, x, options = problem
    result = fastrnn.forward(net, x, **options)
    expected = fastrnn.reference.forward(net, x, **options)
    job = sequences(net, x, **options)
    bound = job.visible(tolerances.forward_bound(job), "KBTH")
    assert result.dtype == expected.dtype == x.dtype
    assert result.shape == expected.shape
    assert (abs(result - expected) <= bound).all()


def test_last_state_is_that_of_each_sequences_own_last_step(problem):
    net, x, options = problem
    job = sequences(net, x, **options)
    states = fastrnn.forward(net, x, **options).reshape(job.size("KBTH"))
    last = fastrnn.forward(net, x, keep="last", **options).reshape(job.size("KBH"))
    for i, length in enumerate(options["lengths"]):
        expected = states[:, i, length - 1] if length else job.h0[:, i]
        np.testing.assert_array_equal(last[:, i], expected)
        assert not states[:, i, length:].any()


def test_predictions(problem):
    net, x, options = problem
    result = fastrnn.predict(net, x, **options)
    expected = fastrnn.reference.predict(net, x, **options)
    job = sequences(net, x, **options)
    assert result.shape == expected.shape
    bound = tolerances.forward_bound(job)
    if net.has_readout:
        states = abs(tolerances.unrolled(job)[1][:, :, 1:])
        states = bound + (net.hidden_size + 2) * tolerances.eps(x.dtype) * states
        bias = tolerances.eps(x.dtype) * abs(job.weights.b3[:, None, None])
        bound = np.einsum("koh,kbth->kbto", abs(job.weights.w3), states) + bias
    assert (abs(result - expected) <= job.visible(bound, "KBTO")).all()


@pytest.mark.parametrize("per_sequence", [False, True])
def test_backward(problem, per_sequence):
    net, x, options = problem
    job = sequences(net, x, **options)
    rng = np.random.default_rng(5)
    full = rng.standard_normal(job.size("KBTH")).astype(x.dtype)
    dh = job.visible(full, "KBTH")
    wrt = ("w1", "w2", "b", "x", "h0")
    arguments = dict(options, wrt=wrt, per_sequence=per_sequence)
    result = fastrnn.backward(net, x, dh, **arguments)
    expected = fastrnn.reference.backward(net, x, dh, **arguments)
    _assert_gradients_agree(job, result, expected, wrt, full, per_sequence)


@pytest.mark.parametrize("per_sequence", [False, True])
def test_loss_and_gradient(problem, per_sequence):
    net, x, options = problem
    job = sequences(net, x, **options)
    target = np.random.default_rng(6).standard_normal(job.size("KBTO")).astype(x.dtype)
    y = job.visible(target, "KBTO")
    wrt = (*job.weight_names, "x", "h0")
    arguments = dict(options, wrt=wrt, per_sequence=per_sequence)
    loss, result = fastrnn.loss_and_grad(net, x, y, **arguments)
    expected_loss, expected = fastrnn.reference.loss_and_grad(net, x, y, **arguments)
    # A sum of squares: twice the relative error of its terms, T rounded sums.
    error = abs(fastrnn.reference.predict(net, x, **options) - y).max() + 1
    unit = tolerances.eps(x.dtype) * (x.shape[1] + 2)
    slack = tolerances.forward_bound(job).max() * net.hidden_size * 4
    assert np.shape(loss) == np.shape(expected_loss)
    assert (abs(loss - expected_loss) <= (unit * error + 4 * slack) * error).all()
    upstream = np.full(job.size("KBTH"), 8.0 * net.output_size * error / max(1, job.predictions))
    _assert_gradients_agree(
        job, result, expected, ("w1", "w2", "b", "x", "h0"), upstream, per_sequence
    )
    for name in ("w3", "b3")[: 2 * net.has_readout]:
        ours, theirs = getattr(result, name), getattr(expected, name)
        states = abs(tolerances.unrolled(job)[1]).max() + 1
        assert ours.shape == theirs.shape
        assert (abs(ours - theirs) <= 8 * (unit * error + slack) * states).all()


def _assert_gradients_agree(job, result, expected, names, dh, per_sequence):
    bounds = tolerances.gradient_bound(job, dh)
    for name in names:
        ours, theirs = getattr(result, name), getattr(expected, name)
        bound = bounds[name]
        keeps_batch = per_sequence or name in ("x", "h0")
        if not keeps_batch:
            bound = bound.sum(axis=1)
        assert ours.dtype == job.dtype
        assert ours.shape == theirs.shape
        difference = abs(ours - theirs)
        assert (difference <= bound.reshape(difference.shape)).all(), name


def test_influence(problem):
    net, x, options = problem
    job = sequences(net, x, **options)
    result = fastrnn.influence(net, x, **options)
    expected = fastrnn.reference.influence(net, x, **options)
    assert result.shape == expected.shape
    assert result.mantissa.dtype == job.dtype
    zero = expected.sign == 0
    assert ((result.sign == 0) == zero).all()
    # These nets stay within the range of floats; test_exactness.py leaves it.
    seed = np.zeros(job.size("KBTH"))
    for i, length in enumerate(options["lengths"]):
        seed[:, i, max(0, length - 1)] = abs(job.output_seed(None)) if length else 0
    bound = job.visible(tolerances.gradient_bound(job, seed)["x"], "KBTX")
    assert (abs(result.to_float() - expected.to_float()) <= bound).all()


def test_diagnosis(problem):
    net, x, options = problem
    result = fastrnn.diagnose(net, x, **options)
    expected = fastrnn.reference.diagnose(net, x, **options)
    assert np.shape(result.regime) == np.shape(expected.regime)
    np.testing.assert_array_equal(result.regime, expected.regime)
    np.testing.assert_array_equal(result.horizon, expected.horizon)
    rtol = 1e3 * tolerances.eps(x.dtype)
    for name in ("share", "exponent", "decades", "saturated"):
        ours, theirs = getattr(result, name), getattr(expected, name)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol, err_msg=name)


def test_gradient_by_lag_is_the_norm_of_the_influence_read_backwards(problem):
    net, x, options = problem
    job = sequences(net, x, **options)
    found = fastrnn.diagnose(net, x, **options)
    log10 = found.influence.log10().reshape(job.size("KBTF"))
    by_lag = found.gradient_by_lag.reshape(job.size("KBT"))
    for i, length in enumerate(options["lengths"]):
        for lag in range(length):
            with np.errstate(divide="ignore"):
                norm = np.log10(np.sqrt((100.0 ** log10[:, i, length - 1 - lag]).sum(axis=-1)))
            near = abs(norm) < 100  # 100 ** log10 has a range
            np.testing.assert_allclose(by_lag[near, i, lag], norm[near], rtol=1e-12, atol=1e-12)
        assert np.isnan(by_lag[:, i, length:]).all()
