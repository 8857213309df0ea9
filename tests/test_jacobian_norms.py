"""Norms of the Jacobian by lag against mpmath and closed forms."""

import math

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from benchmarks.exact import derivative
from tests import cases, tolerances

EPS = tolerances.eps("float64")


def exact_norms(net, x, h0, lags):
    """Largest, smallest and Frobenius by lag, along the computed states.

    Digits enough for a largest singular value 10**2500 times the smallest.
    """
    h = np.concatenate([h0[None], fastrnn.forward(net, x[None], h0=h0[None])[0]])
    with mp.workdps(2700):
        w1, w2 = mp.matrix(net.w1.tolist()), mp.matrix(net.w2.tolist())
        product, found, rounding = mp.eye(len(h0)), {}, 0.0
        for lag in range(max(lags) + 1):
            if lag:
                t = len(x) - lag
                z = w1 * mp.matrix(x[t].tolist()) + w2 * mp.matrix(h[t].tolist())
                z += mp.matrix(net.b.tolist())
                slopes = mp.diag([derivative(net.activation, value) for value in z])
                product = product * slopes * w2
                rounding += float(1 + 2 * max(abs(value) for value in z))
            if lag in lags:
                values = mp.svd_r(product, compute_uv=False)
                size = mp.sqrt(mp.fsum(value**2 for value in product))
                found[lag] = [float(mp.log(v)) for v in (values[0], values[len(h0) - 1], size)]
    return np.array([found[lag] for lag in lags]), rounding


@pytest.mark.parametrize("gain", [1e-3, 0.8, 4.0, 30.0])
def test_norms_match_mpmath(gain):
    rng = np.random.default_rng(0)
    w2 = gain * rng.standard_normal((4, 4)) / 2
    net = fastrnn.RNN(rng.standard_normal((4, 2)), w2, rng.standard_normal(4))
    x, h0 = rng.standard_normal((60, 2)), rng.uniform(-1, 1, 4)
    lags = [0, 1, 5, 60]
    truth, rounding = exact_norms(net, x, h0, lags)
    found = fastrnn.jacobian_norms(net, x[None], lags, h0=h0[None])
    # Rounding of each step's slopes, and of a product or a solution of H equations.
    bound = tolerances.C * tolerances.eps("float64") * (rounding + 60 * 4 * np.linalg.cond(w2))
    for n, name in enumerate(("largest", "smallest", "frobenius")):
        log = getattr(found, name)[0].log()
        assert (abs(log - truth[:, n]) <= bound).all(), name
    if gain == 30.0:
        assert truth[-1, 1] < -1000


def test_the_norms_of_a_neuron_are_its_product_of_slopes():
    net = cases.neuron("tanh", bank=3)
    x = cases.inputs(net, 2, 50)
    found = fastrnn.jacobian_norms(net, x, [3, 50])
    growth = fastrnn.lyapunov(net, x, local=1).local[..., 0]
    for name in ("largest", "smallest", "frobenius"):
        log = getattr(found, name).log()
        assert log.shape == (3, 2, 2)
        assert log[..., 1] == pytest.approx(growth.sum(axis=2), rel=1e-12)
        assert log[..., 0] == pytest.approx(growth[..., -3:].sum(axis=2), rel=1e-12)


def test_a_long_run_of_a_neuron_takes_a_product_of_numbers():
    """Saturated and not, past the range of floats by some 10**5 decades, at any lag."""
    net = fastrnn.RNN(1.0, np.array([1e-300, 0.7, -30.0, 1e300]), 0.1)
    x = np.random.default_rng(1).standard_normal((2, 3000))
    lags = np.array([2999, 0, 1, 17, 3000, 17])
    found = fastrnn.jacobian_norms(net, x, lags, lengths=[3000, 2999])
    states = fastrnn.forward(net, x, lengths=[3000, 2999])
    for k, i in np.ndindex(4, 2):
        length = 3000 - i
        with mp.workdps(40):
            logs, rounding = [mp.mpf(0)], [0.0]
            for t in range(length - 1, -1, -1):
                before = mp.mpf(float(states[k, i, t - 1])) if t else mp.mpf(0)
                z = mp.mpf(float(x[i, t])) + mp.mpf(float(net.w2[k])) * before + mp.mpf(0.1)
                # log sech(z)**2, that no digits are lost to.
                slope = 2 * mp.log(2) - 2 * abs(z) - 2 * mp.log1p(mp.exp(-2 * abs(z)))
                logs.append(logs[-1] + mp.log(abs(mp.mpf(float(net.w2[k])))) + slope)
                rounding.append(rounding[-1] + float(1 + 2 * abs(z)))
        for n, lag in enumerate(lags):
            if lag > length:
                assert np.isnan(found.largest.mantissa[k, i, n])
                continue
            error = abs(float(mp.mpf(float(found.largest.log()[k, i, n])) - logs[lag]))
            assert error <= EPS * (tolerances.C * rounding[lag] + 4 * abs(float(logs[lag])))


def test_products_far_beyond_the_range_of_floats():
    w2 = np.diag([1e200, 3.0, 1e-200])
    net = fastrnn.RNN(np.zeros((3, 1)), w2, activation="identity")
    found = fastrnn.jacobian_norms(net, np.zeros(1000), [1000])
    assert found.largest.log10() == pytest.approx([200_000], rel=1e-14)
    assert found.frobenius.log10() == pytest.approx([200_000], rel=1e-14)
    assert found.smallest.log10() == pytest.approx([-200_000], rel=1e-14)
    net = fastrnn.RNN(np.zeros((2, 1)), np.diag([1e5, 1e-5]), activation="identity")
    found = fastrnn.jacobian_norms(net, np.zeros(1000), [1000])
    assert found.smallest.log10() == pytest.approx([-5000], rel=1e-14)


def test_a_dead_unit_makes_the_smallest_0():
    net = fastrnn.RNN([[1.0], [-1.0]], np.eye(2), activation="relu")
    found = fastrnn.jacobian_norms(net, np.ones(4), [0, 1, 4])
    assert found.smallest.to_float().tolist() == [1, 0, 0]
    assert found.largest.to_float().tolist() == [1, 1, 1]


def test_nan_stays_nan_where_a_unit_is_dead():
    net = fastrnn.RNN([[1.0], [-1.0]], np.eye(2), activation="relu")
    x = np.array([[1.0, np.nan, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    found = fastrnn.jacobian_norms(net, x, [1, 4], h0=np.full((2, 2), 0.5))
    alone = fastrnn.jacobian_norms(net, x[:1], [1, 4], h0=np.full((1, 2), 0.5))
    for name in ("largest", "smallest", "frobenius"):
        ours = getattr(found, name)
        assert np.isnan(ours.mantissa).tolist() == [[True, True], [False, False]]
        assert getattr(alone, name).mantissa.tobytes() == ours.mantissa[:1].tobytes()
    assert found.smallest.sign[1].tolist() == [0, 0]


def test_wide_layers_have_the_frobenius_norm_alone():
    net = cases.layer(65)
    found = fastrnn.jacobian_norms(net, np.zeros(5), [0, 2])
    assert found.largest is None
    assert found.smallest is None
    assert found.frobenius[0].to_float() == pytest.approx(math.sqrt(65))


def test_ragged_batches_count_from_their_own_end_whatever_is_beside_them():
    net = cases.layer(5, 2, bank=2)
    x = cases.inputs(net, 4, 30)
    lengths = np.array([30, 7, 0, 19])
    found = fastrnn.jacobian_norms(net, x, [0, 6, 20], lengths=lengths)
    assert np.isnan(found.frobenius.mantissa[:, 1]).tolist() == [[False, False, True]] * 2
    assert np.isnan(found.frobenius.mantissa[:, 2]).tolist() == [[False, True, True]] * 2
    alone = fastrnn.jacobian_norms(net, x[1:2, :7], [0, 6])
    for name in ("largest", "smallest", "frobenius"):
        ours, other = getattr(found, name), getattr(alone, name)
        assert ours.mantissa[:, 1, :2].tobytes() == other.mantissa[:, 0].tobytes()
        assert ours.exponent[:, 1, :2].tobytes() == other.exponent[:, 0].tobytes()


def test_default_lags_reach_back_to_the_beginning():
    lags = fastrnn.jacobian_norms(cases.layer(2), np.zeros(1000)).lags
    assert (lags[0], lags[-1]) == (0, 1000)
    assert 30 < len(lags) <= 64
    assert fastrnn.jacobian_norms(cases.layer(2), np.zeros(0)).lags.tolist() == [0]
    empty = fastrnn.jacobian_norms(cases.layer(2), np.zeros(3), [])
    assert empty.largest.shape == empty.smallest.shape == empty.frobenius.shape == (0,)


WRONG = [
    ([[1]], ValueError, r"lags must have shape \(L,\), got \(1, 1\)"),
    ([1, [2]], ValueError, r"lags must have shape \(L,\), got a ragged array"),
    ([0.5], TypeError, "lags must be integers, got float64"),
    ([True], TypeError, "lags must be integers, got bool"),
    ([0, 10], ValueError, "lags must be from 0 to T = 9, got 10"),
    ([-1], ValueError, "lags must be from 0 to T = 9, got -1"),
]


@pytest.mark.parametrize(("lags", "error", "match"), WRONG)
def test_wrong_lags(lags, error, match):
    with pytest.raises(error, match=match):
        fastrnn.jacobian_norms(cases.layer(2), np.zeros(9), lags)
