"""Rows 20 to 36: right at any W2, for any input, in any order of work."""

import math

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from fastrnn.sequences import sequences
from tests import cases, tolerances
from tests.compiled import value_and_slope

EPS = tolerances.eps(np.float64)


def test_20_a_nan_stays_in_its_sequence_from_its_step_on():
    for kind in ("neuron", "layer"):
        net = cases.NETS[kind]("tanh", "float64")
        clean = cases.inputs(net, 5, 30)
        dirty = clean.copy()
        dirty[2, 11] = np.nan
        before, after = fastrnn.forward(net, clean), fastrnn.forward(net, dirty)
        assert np.isnan(after[2, 11:]).all()
        others = np.arange(5) != 2
        assert before[others].tobytes() == after[others].tobytes()
        assert before[2, :11].tobytes() == after[2, :11].tobytes()


def test_21_infinite_inputs_saturate_and_have_no_gradient():
    net = fastrnn.RNN(1.0, 0.5)
    assert fastrnn.forward(net, [math.inf, -math.inf]).tolist() == [1.0, -1.0]
    grad = fastrnn.backward(net, [math.inf], [1.0], wrt=("w1", "w2", "b", "x"))
    assert [float(np.ravel(g)[0]) for g in (grad.w1, grad.w2, grad.b, grad.x)] == [0, 0, 0, 0]
    assert np.isnan(fastrnn.forward(fastrnn.RNN(0.0, 0.5), [math.inf])[0])


@pytest.mark.parametrize("w2", [0.0, 1.0, -1.0, 1e-300, 1e3, 1e10, 1e300, -1e300])
def test_22_extreme_w2_has_the_influence_of_mpmath(w2):
    net = fastrnn.RNN(0.5, w2, 0.1)
    x = np.random.default_rng(0).standard_normal(12)
    before = np.concatenate([[0.0], fastrnn.forward(net, x)[:-1]])
    found = fastrnn.influence(net, x)
    with mp.workdps(60):
        slopes = []
        for value, h in zip(x, before, strict=True):
            w1, of_h, b = (mp.mpf(float(w)) for w in (net.w1, net.w2, net.b))
            z = w1 * mp.mpf(value) + of_h * mp.mpf(h) + b
            # Far from 0 the derivative is 4 exp(-2|z|), with more digits than any tanh.
            slopes.append((4 * mp.exp(-2 * abs(z)) / (1 + mp.exp(-2 * abs(z))) ** 2, z))
        unit = tolerances.C * EPS * sum(1 + 2 * float(abs(z)) for _, z in slopes)
        dh = mp.mpf(1)
        for t in reversed(range(len(x))):
            dz = dh * slopes[t][0]
            truth = mp.mpf(0.5) * dz
            if truth == 0:
                assert found[t].sign == 0
            else:
                log = mp.log(abs(mp.mpf(float(found[t].mantissa))))
                log += int(found[t].exponent) * mp.log(2)
                assert abs(log - mp.log(abs(truth))) <= unit
                assert found[t].sign == mp.sign(truth)
            dh = dz * mp.mpf(w2)


@pytest.mark.parametrize("w2", [math.nan, math.inf])
def test_22_weights_are_finite(w2):
    with pytest.raises(ValueError, match=f"w2 must be finite, got {w2}"):
        fastrnn.RNN(1.0, w2)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_23_zeros_keep_their_sign_and_odd_functions_are_odd(dtype):
    net = fastrnn.RNN(0.7, -1.3)
    assert np.signbit(fastrnn.forward(net, np.array([-0.0], dtype), h0=np.array(0.0, dtype))[0])
    x = np.random.default_rng(1).standard_normal((7, 40)).astype(dtype)
    h0 = x[:, 0] / 2
    positive, negative = fastrnn.forward(net, x, h0=h0), fastrnn.forward(net, -x, h0=-h0)
    assert negative.tobytes() == (-positive).tobytes()


@pytest.mark.parametrize("z", [10, 15, 19, 19.1, 25, 300])
def test_24_the_derivative_keeps_its_digits_in_saturation(z):
    _, slopes = value_and_slope("tanh", np.array([z, -z], float))
    with mp.workdps(400):
        truth = 1 / mp.cosh(mp.mpf(z)) ** 2
        assert all(abs(mp.mpf(float(s)) / truth - 1) <= 4 * EPS for s in slopes)


def test_24_and_where_it_is_no_float_any_more():
    found = fastrnn.influence(fastrnn.RNN(1.0, 0.5), [700.0])
    assert found.log()[0] == pytest.approx(math.log(4) - 1400, rel=1e-14)


def test_25_an_exploding_state_is_infinite_from_the_first_step_that_leaves_the_range():
    net = fastrnn.RNN(1.0, 2.0, activation="identity")
    x = np.zeros(1100)
    x[0] = 1.0
    states = fastrnn.forward(net, x)
    assert np.flatnonzero(np.isinf(states))[0] == 1024
    grad = fastrnn.backward(net, x, [0.0] * 1099 + [1.0], wrt="w1")
    assert grad.out_of_range == ("w1",)
    assert fastrnn.influence(net, x)[0].log() == pytest.approx(1099 * math.log(2), rel=1e-12)


def test_26_a_vanished_gradient_keeps_its_logarithm_and_says_so():
    net = fastrnn.RNN(1.0, 0.5, activation="identity")
    x = np.zeros(100_000)
    dh = np.zeros(100_000)
    dh[-1] = 1.0
    grad = fastrnn.backward(net, x, dh, wrt="x")
    assert grad.x[0] == 0
    assert "x" in grad.underflow
    found = fastrnn.backward(net, x, dh, wrt="x", scaled=True).x[0]
    assert found.log() == pytest.approx(-99_999 * math.log(2), rel=1e-12)


def test_27_subnormal_results_are_not_flushed():
    net = fastrnn.RNN(1.0, 0.5, activation="identity")
    states = fastrnn.forward(net, [2.0**-1070, 0.0, 0.0])
    assert states.tolist() == [2.0**-1070, 2.0**-1071, 2.0**-1072]


def test_27_nor_where_the_caller_has_subnormal_numbers_switched_off():
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("no such mode here")
    try:
        test_27_subnormal_results_are_not_flushed()
        found = fastrnn.influence(fastrnn.RNN(1.0, 0.5, activation="identity"), np.zeros(1100))
    finally:
        torch.set_flush_denormal(False)
    assert found.log()[0] == pytest.approx(-1099 * math.log(2), rel=1e-14)


def test_28_gradients_are_those_of_a_complex_step():
    for seed in range(20):
        net = cases.neuron(seed=seed, readout=True)
        x = np.random.default_rng(seed).standard_normal(200)
        fastrnn.testing.gradcheck(net, x)


def test_29_a_chaotic_layer_follows_mpmath_while_it_can():
    """Then the statistics are what is left: see docs/howto/exponents.md."""
    rng = np.random.default_rng(5)
    hidden, gain = 20, 3.0
    w2 = gain * rng.standard_normal((hidden, hidden)) / math.sqrt(hidden)
    net = fastrnn.RNN(np.zeros((hidden, 1)), w2)
    h0 = rng.standard_normal((1, hidden))
    states = fastrnn.forward(net, np.zeros((1, 12, 1)), h0=h0)[0]
    with mp.workdps(40):
        h, error = [mp.mpf(float(v)) for v in h0[0]], 0.0
        for state in states:
            h = [
                mp.tanh(mp.fdot((mp.mpf(float(w)), v) for w, v in zip(row, h, strict=True)))
                for row in w2
            ]
            # Each step multiplies an error by at most the norm of W2, and adds its own.
            error = error * np.linalg.norm(w2, 2) + 2 * EPS * (
                1 + hidden * abs(w2).sum(axis=1).max()
            )
            assert max(abs(mp.mpf(float(s)) - v) for s, v in zip(state, h, strict=True)) <= error
    exponent = fastrnn.lyapunov(net, np.zeros((1, 20_000, 1)), h0=h0, transient=100)
    assert exponent.exponents[0, 0] > 0
    assert (abs(states) <= 1).all()


@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_30_float32_is_as_exact_as_its_rounding_allows(kind):
    net = cases.NETS[kind]("tanh", "float32")
    wide = fastrnn.RNN(*(np.float64(w) for w in (net.w1, net.w2, net.b)))
    x = cases.inputs(net, 4, 500, "float32")
    job = sequences(net, x)
    error = abs(fastrnn.forward(net, x) - fastrnn.forward(wide, x.astype(np.float64)))
    assert (error <= job.visible(tolerances.forward_bound(job), "KBTH")).all()


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_31_tanh_is_right_to_2_ulp_in_every_binade(dtype):
    info = np.finfo(dtype)
    rng = np.random.default_rng(2)
    exponents = np.arange(info.minexp - info.nmant, 7)
    z = np.ldexp(rng.uniform(1, 2, (exponents.size, 3)), exponents[:, None]).astype(dtype).ravel()
    z = np.concatenate([z, -z])
    values, _ = value_and_slope("tanh", z)
    assert (abs(values) <= 1).all()
    with mp.workdps(400):
        for v, e in zip(values.tolist(), z.tolist(), strict=True):
            truth = mp.tanh(mp.mpf(e))
            unit = mp.mpf(float(np.spacing(np.array(abs(v), dtype))))
            assert abs(mp.mpf(v) - truth) <= 2 * unit


def test_33_a_layer_agrees_with_torch():
    torch = pytest.importorskip("torch")
    net = cases.layer(6, 3)
    cell = torch.nn.RNN(3, 6, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for name, weight in (
            ("weight_ih_l0", net.w1),
            ("weight_hh_l0", net.w2),
            ("bias_ih_l0", net.b),
        ):
            getattr(cell, name)[...] = torch.tensor(weight)
        cell.bias_hh_l0.zero_()
    x = cases.inputs(net, 4, 50)
    expected = cell(torch.tensor(x))[0].detach().numpy()
    np.testing.assert_allclose(fastrnn.forward(net, x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_34_little_memory_and_a_split_sequence_have_the_same_bits(kind):
    net = cases.NETS[kind]("tanh", "float64")
    x = cases.inputs(net, 3, 2500)
    dh = np.ones_like(fastrnn.forward(net, x))
    whole = fastrnn.backward(net, x, dh, wrt=("w2", "x"))
    with pytest.raises(ValueError, match="memory must be at least") as error:
        fastrnn.backward(net, x, dh, memory=1)
    least = int(str(error.value).split()[5])
    little = fastrnn.backward(net, x, dh, wrt=("w2", "x"), memory=least)
    assert whole.w2.tobytes() == little.w2.tobytes()
    assert whole.x.tobytes() == little.x.tobytes()
    middle = fastrnn.forward(net, x[:, :1234], keep="last")
    second = fastrnn.forward(net, x[:, 1234:], h0=middle)
    assert fastrnn.forward(net, x)[:, 1234:].tobytes() == second.tobytes()


def test_35_truncation_after_all_steps_is_none():
    net = cases.neuron(readout=True)
    x = cases.inputs(net, 3, 50)
    full, cut = (fastrnn.loss_and_grad(net, x, x, truncate=k)[1] for k in (None, 50))
    assert all(getattr(full, n) == getattr(cut, n) for n in net.weight_names)


@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_36_twenty_runs_have_the_same_bits(kind):
    net = cases.NETS[kind]("tanh", "float32")
    x = cases.inputs(net, 17, 300, "float32")
    y = np.zeros_like(fastrnn.predict(net, x))
    found = {fastrnn.loss_and_grad(net, x, y, workers=2)[1].w2.tobytes() for _ in range(20)}
    assert len(found) == 1
