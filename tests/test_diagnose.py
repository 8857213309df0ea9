"""The diagnosis against hand-worked cases."""

import math

import numpy as np
import pytest

import fastrnn

X = np.ones(5)


def linear(w2, x=X, **weights):
    return fastrnn.diagnose(fastrnn.RNN(1.0, w2, activation="identity", **weights), x)


def test_small_feedback_forgets():
    found = linear(0.1)
    assert found.regime == "vanishing"
    assert found.influence_of_first.to_float() == pytest.approx(1e-4, rel=1e-15)
    assert found.share == pytest.approx(np.array([1e-4, 1e-3, 1e-2, 1e-1, 1]) / 1.1111)
    assert found.gradient_by_lag == pytest.approx([0, -1, -2, -3, -4], abs=1e-12)
    assert found.exponent == pytest.approx(math.log(0.1))
    assert found.decades == pytest.approx(-4)
    assert found.saturated == 0
    # 0.1**3 is 1e-3 itself but for its last bit; lag 4 is surely below.
    assert found.horizon in (3, 4)
    assert linear(0.09).horizon == 3


def test_large_feedback_outweighs():
    found = linear(2.0)
    assert found.regime == "exploding"
    assert found.influence_of_first.to_float() == 16
    assert found.share[0] == pytest.approx(16 / 31)
    assert found.horizon == math.inf


def test_one_is_balanced_and_so_is_minus_one():
    for w2 in (1.0, -1.0):
        found = linear(w2)
        assert (found.regime, found.exponent, found.horizon) == ("balanced", 0, math.inf)
        assert found.influence_of_first.sign == 1


def test_the_regime_compares_the_first_input_with_the_newest():
    """The newest input meets a saturated neuron, and counts less than the first."""
    found = fastrnn.diagnose(fastrnn.RNN(1.0, 2.0), [0.0] * 9 + [10.0])
    assert found.regime == "exploding"
    assert found.decades == pytest.approx(math.log10(2**9), rel=1e-12)


def test_the_regime_is_that_of_the_whole_sequence():
    assert linear(0.95, np.ones(10)).regime == "balanced"
    assert linear(0.95, np.ones(1000)).regime == "vanishing"


def test_saturation_makes_the_gradient_of_a_large_w2_vanish():
    found = fastrnn.diagnose(fastrnn.RNN(1.0, 2.0), np.ones(100))
    assert found.regime == "vanishing"
    assert found.saturated == 0.99
    assert found.decades == found.gradient_by_lag[-1] - found.gradient_by_lag[0]
    # At the fixed point h = tanh(1 + 2h).
    h = 0.994893
    assert found.exponent == pytest.approx(math.log(2 * (1 - h * h)), rel=0.01)


def test_exponent_is_the_mean_of_log_w2_slope():
    net = fastrnn.RNN(0.4, -1.3, 0.2)
    x = np.random.default_rng(0).standard_normal(500)
    h = np.concatenate([[0], fastrnn.forward(net, x)])
    z = 0.4 * x - 1.3 * h[:-1] + 0.2
    found = fastrnn.diagnose(net, x)
    assert found.exponent == pytest.approx(np.mean(np.log(1.3 / np.cosh(z) ** 2)), rel=1e-12)


def test_a_layer_grows_by_its_largest_eigenvalue():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    w2 = basis @ np.diag([0.9, 0.5, -0.3, 0.1]) @ basis.T
    net = fastrnn.RNN(np.ones((4, 1)), w2, activation="identity")
    found = fastrnn.diagnose(net, np.ones(2000), v=[1, 0, 0, 0])
    assert found.exponent == pytest.approx(math.log(0.9), abs=2 / 2000)


def test_extreme_feedback_has_finite_logarithms():
    for w2 in (1e-300, 1e300):
        found = linear(w2, np.ones(1001))
        assert found.decades == pytest.approx(1000 * math.log10(w2), rel=1e-13)
        assert found.gradient_by_lag[-1] == pytest.approx(1000 * math.log10(w2), rel=1e-13)
        assert np.isfinite(found.share).all()


def test_a_dead_relu_remembers_nothing():
    found = fastrnn.diagnose(fastrnn.RNN(1.0, 0.5, activation="relu"), -X)
    assert (found.horizon, found.exponent, found.saturated) == (0, -math.inf, 1)
    assert found.regime == "vanishing"
    assert found.share.tolist() == [0] * 5


def test_ragged_sequences_count_from_their_own_end():
    net = fastrnn.RNN(1.0, 0.5, activation="identity")
    found = fastrnn.diagnose(net, np.ones((3, 6)), lengths=[6, 2, 0])
    assert found.gradient_by_lag[1, :2] == pytest.approx([0, math.log10(0.5)])
    assert np.isnan(found.gradient_by_lag[1, 2:]).all()
    assert found.share[1].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0, 0, 0])
    assert found.regime.tolist() == ["vanishing", "balanced", "undefined"]
    assert np.isnan(found.exponent[2])


def test_nan_is_undefined_and_not_balanced():
    found = fastrnn.diagnose(fastrnn.RNN(1.0, 0.5), [1.0, math.nan, 2.0])
    assert found.regime == "undefined"
    assert math.isnan(found.horizon)
    assert math.isnan(found.exponent)
    # What comes before the NaN is another sequence's business.
    both = fastrnn.diagnose(fastrnn.RNN(1.0, 0.5), [[1.0, math.nan, 2.0], [1.0, 1.0, 2.0]])
    assert both.regime.tolist() == ["undefined", "vanishing"]


def test_fields_are_frozen():
    with pytest.raises(AttributeError):
        linear(1.0).regime = "balanced"


def test_summary_of_many_is_a_table():
    net = fastrnn.RNN(1.0, np.geomspace(0.1, 10, 30), activation="identity")
    text = fastrnn.diagnose(net, X).summary()
    assert len(text.splitlines()) == 24
    assert text.splitlines()[-1].startswith("forgets most slowly: W2 = 0.")
    assert "... and 10 more" in text
    assert "vanishing" in text
    assert "balanced" in text
    assert repr(fastrnn.diagnose(net, X)) == "Diagnosis((30,) of them; .summary() tells more)"


def test_summary_of_none():
    assert "no steps" in linear(0.5, np.zeros(0)).summary()


def test_the_error_bar_is_that_of_lyapunov():
    net = fastrnn.RNN(1.0, np.array([0.5, 2.0]))
    x = np.random.default_rng(2).standard_normal((3, 700))
    found = fastrnn.diagnose(net, x, lengths=[700, 400, 5])
    growth = fastrnn.lyapunov(net, x, lengths=[700, 400, 5])
    assert found.exponent.tolist() == growth.exponents[..., 0].tolist()
    assert found.exponent_stderr.tolist() == growth.stderr[..., 0].tolist()
    assert found.exponent_converged.tolist() == growth.converged[..., 0].tolist()


def test_horizon_of_a_long_run_is_that_of_the_exponent():
    found = linear(0.9, np.ones(500))
    # 0.9**65 > 1e-3 > 0.9**66.
    assert found.horizon == 66
    assert found.horizon_by_exponent == pytest.approx(math.log(1e-3) / math.log(0.9))
    assert linear(2.0).horizon_by_exponent == math.inf
    assert linear(1.0).horizon_by_exponent == math.inf


@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_horizon_by_brute_force(kind):
    """Perturb each input, run again and see from which lag on the last state hardly notices."""
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(100):
        if kind == "neuron":
            net = fastrnn.RNN(rng.uniform(0.3, 2), rng.uniform(-2, 2), rng.normal())
        else:
            w2 = rng.uniform(0.2, 1.5) * rng.standard_normal((4, 4)) / 2
            net = fastrnn.RNN(rng.standard_normal((4, 1)), w2, rng.standard_normal(4))
        x = rng.standard_normal(40)
        # Fourth order central differences.
        step, weights = 1e-3, np.array([1, -8, 8, -1]) / 12
        shifted = x + step * np.array([-2, -1, 1, 2])[:, None, None] * np.eye(40)
        last = fastrnn.forward(net, shifted.reshape(-1, 40), keep="last")
        total = last.reshape(4, 40, -1).sum(axis=2)
        influence = abs(weights @ total)[::-1] / step
        # Within what differences can tell, which is some 1e-10.
        margin = 1e-9
        surely = influence < 1e-3 * influence[0] - margin
        hardly = influence < 1e-3 * influence[0] + margin
        horizon = fastrnn.diagnose(net, x).horizon
        first_sure = surely.argmax() if surely.any() else math.inf
        first_hard = hardly.argmax() if hardly.any() else math.inf
        assert first_hard <= horizon <= first_sure
        missed += first_hard != first_sure
    assert missed < 10


def test_fixed_points_are_those_under_the_mean_input():
    net = fastrnn.RNN(1.0, np.array([0.5, 3.0]))
    x = np.array([[0.1, 0.3, 7.0], [np.nan, 0.0, 0.0]])
    found = fastrnn.diagnose(net, x, lengths=[2, 3]).fixed_points
    assert found.h[:, 0].tobytes() == fastrnn.fixed_points(net, x[0, :2].mean()).h.tobytes()
    assert found.count.tolist() == [[1, 0], [3, 0]]
    assert not found.stable[:, 1].any()
    assert fastrnn.diagnose(fastrnn.RNN([[1.0]], [[1.0]]), X).fixed_points is None


def test_evidence_names_what_decides():
    text = linear(0.1).evidence
    assert text.startswith("x_1 counts 10^-4 times x_5, below 10^-1; the exponent is -2.30259 ± 0")
    net = fastrnn.RNN(1.0, [0.5, 1.0], activation="identity")
    many = fastrnn.diagnose(net, np.ones((2, 3)), lengths=[3, 0]).evidence
    assert many.shape == (2, 2)
    assert many[1, 0].startswith("x_1 counts 10^0 times x_3, within 10^-1 to 10^1;")
    assert many[0, 1] == "the states are NaN, or there are no steps"
    x = np.random.default_rng(4).standard_normal(2000)
    assert "standard errors below 0;" in fastrnn.diagnose(fastrnn.RNN(1.0, 0.5), x).evidence


def test_columns_have_a_row_for_every_net_and_sequence():
    net = fastrnn.RNN([1.0, 2.0], [0.5, 3.0])
    columns = fastrnn.diagnose(net, np.ones((3, 6))).to_columns()
    assert {column.shape for column in columns.values()} == {(6,)}
    assert columns["net"].tolist() == [0, 0, 0, 1, 1, 1]
    assert columns["sequence"].tolist() == [0, 1, 2] * 2
    assert columns["w1"].tolist() == [1, 1, 1, 2, 2, 2]
    assert columns["b"].tolist() == [0] * 6
    for one in (
        linear(0.5),
        fastrnn.diagnose(fastrnn.RNN(np.ones((2, 3)), np.eye(2)), [np.eye(3)]),
    ):
        assert {column.shape for column in one.to_columns().values()} == {(1,)}


def test_html_is_a_table_of_all_columns():
    found = fastrnn.diagnose(fastrnn.RNN(1.0, np.linspace(0.1, 1, 30)), X)
    text = found._repr_html_()
    assert text.count("<tr>") == 21
    assert text.count("<th>") == len(found.to_columns())
    assert "... and 10 more" in text
