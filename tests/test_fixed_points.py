"""Fixed points of the neuron against mpmath and closed forms."""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from benchmarks.exact import activate, derivative
from tests import cases

W2 = [-50.0, -1.0, -1e-300, 0.0, 0.5, 1.0, 1.2, 2.0, 5.0, 60.0, 1e5]
INPUTS = np.array([-300.0, -2.0, -0.1, 0.0, 1e-12, 0.3, 40.0])


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_each_reproduces_itself_and_none_is_missing(activation):
    bank = fastrnn.RNN(1.0, np.array(W2), 0.05, activation=activation)
    found = fastrnn.fixed_points(bank, INPUTS)
    assert found.h.shape == (len(W2), len(INPUTS), 3)
    for k, i in np.ndindex(len(W2), len(INPUTS)):
        a = mp.mpf(float(INPUTS[i])) + mp.mpf(0.05)
        w2 = mp.mpf(W2[k])
        roots = exact_roots(activation, a, w2)
        own = found.h[k, i][~np.isnan(found.h[k, i])]
        assert len(own) == len(roots) == found.count[k, i]
        for h, (truth, slope), multiplier, stable in zip(
            own, roots, found.multiplier[k, i], found.stable[k, i], strict=False
        ):
            # A root is as sharp as G is steep there: rounding of a and of w2 h, over G'.
            sharp = abs(slope) * (abs(a) + abs(w2 * truth)) / abs(1 - w2 * slope)
            assert abs(h - float(truth)) <= 8 * 2.0**-52 * float(abs(truth) + sharp)
            if abs(abs(w2 * slope) - 1) > 1e-6:
                assert stable == (abs(w2 * slope) < 1)
            if abs(multiplier) > 1e-3:
                assert multiplier == pytest.approx(float(w2 * slope), rel=1e-9, abs=1e-300)


def exact_roots(activation, a, w2):
    """(h, f'(z)) of the sign changes of z - a - w2 f(z) between its extremes, by growing h."""
    with mp.workdps(60):
        steepest = derivative(activation, mp.mpf(0))
        edges = [-abs(a) - abs(w2) - 1, abs(a) + abs(w2) + 1]
        if w2 * steepest > 1:
            fold = mp.acosh(mp.sqrt(w2 * steepest)) * (1 if activation == "tanh" else 2)
            edges[1:1] = [-fold, fold]

        def residue(z):
            return z - a - w2 * activate(activation, z)

        roots = []
        for low, high in itertools.pairwise(edges):
            if residue(low) * residue(high) >= 0:
                continue
            rising = residue(high) > 0
            for _ in range(250):
                middle = (low + high) / 2
                right = (residue(middle) < 0) == rising
                low, high = (middle, high) if right else (low, middle)
            roots.append((activate(activation, low), derivative(activation, low)))
        return roots


def test_extreme_feedback():
    bank = fastrnn.RNN(1.0, np.array([-1e300, 1e300]))
    found = fastrnn.fixed_points(bank, 0.3)
    assert found.h[0, 0] == pytest.approx(0.3 / 1e300, rel=1e-14)
    assert found.count.tolist() == [1, 3]
    assert found.h[1] == pytest.approx([-1, -0.3 / 1e300, 1], rel=1e-14)
    assert found.stable.tolist() == [[False] * 3, [True, False, True]]
    assert found.multiplier[1].tolist() == pytest.approx([0, 1e300, 0])


def test_roots_that_meet_at_the_middle_are_exact():
    """At the pitchfork, where W2 f'(0) = 1, three roots are one, of which 1 / eps is lost."""
    for net, h in (
        (fastrnn.RNN(1.0, 1.0), 0.0),
        (fastrnn.RNN(1.0, 4.0, -2.0, activation="sigmoid"), 0.5),
    ):
        found = fastrnn.fixed_points(net)
        assert found.count == 1
        assert (found.h[0], found.multiplier[0], found.stable[0]) == (h, 1.0, False)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("above", [0.0, 2.0**-52, 2.0**-40, 1e-6])
@pytest.mark.parametrize("push", [0.0, 1e-60, -1e-30, 1e-12, -1e-6])
def test_near_the_pitchfork_roots_keep_their_digits(activation, above, push):
    """Where f is all but its tangent, z - a - w2 f(z) has no digits left in plain floats."""
    if activation == "sigmoid":
        # -2 and a push is the number nearest to it: what is left is exact.
        push = (-2.0 + push) + 2.0
    w2, middle = (
        (1.0 + above, 0.0) if activation == "tanh" else (4.0 * (1 + above), -2 * (1 + above))
    )
    a = middle + push
    found = fastrnn.fixed_points(fastrnn.RNN(1.0, w2, activation=activation), a)
    with mp.workdps(120):
        roots = near_the_middle(activation, mp.mpf(a), mp.mpf(w2))
        own = found.h[~np.isnan(found.h)]
        assert len(own) == len(roots)
        for h, z in zip(own, roots, strict=True):
            truth = activate(activation, z)
            # The residue is right to some roundings of its terms; all are of one sign or large.
            slope = derivative(activation, z)
            size = abs(z) * abs(1 - mp.mpf(w2) * derivative(activation, mp.mpf(0)))
            size += abs(mp.mpf(a) + mp.mpf(w2) * activate(activation, mp.mpf(0)))
            steep = abs(1 - mp.mpf(w2) * slope)
            sharp = slope * 2 * size / steep if steep else mp.mpf(0)
            assert abs(mp.mpf(float(h)) - truth) <= 16 * mp.mpf(2) ** -52 * (abs(truth) + sharp)


def near_the_middle(activation, a, w2):
    """Roots z of z - a - w2 f(z) by growing z, of a tangent that all but takes it away."""
    steepest = derivative(activation, mp.mpf(0))
    width = 1 if activation == "tanh" else 2
    edges = [-mp.mpf(10), mp.mpf(10)]
    if w2 * steepest > 1:
        fold = width * mp.acosh(mp.sqrt(w2 * steepest))
        edges[1:1] = [-fold, fold]

    def residue(z):
        return z - a - w2 * activate(activation, z)

    roots = []
    for low, high in itertools.pairwise(edges):
        if residue(low) * residue(high) > 0:
            continue
        rising = residue(high) > residue(low)
        for _ in range(400):
            middle = (low + high) / 2
            if residue(middle) == 0:
                low = high = middle
                break
            right = (residue(middle) < 0) == rising
            low, high = (middle, high) if right else (low, middle)
        roots.append((low + high) / 2)
    return roots


# Nearer to the pitchfork, -2 and a bit is a coarse number, and says which side it is on.
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("w2", [1.5, 2.0, 49.0, 1e3, 1e6])
def test_at_a_saddle_node_two_roots_are_one(activation, w2):
    """The input at which they vanish is no float: the nearest is closer than rounding can tell."""
    width = 1 if activation == "tanh" else 2
    w2 *= width**2 if activation == "sigmoid" else 1
    with mp.workdps(60):
        steepest = derivative(activation, mp.mpf(0))
        fold = width * mp.acosh(mp.sqrt(mp.mpf(w2) * steepest))
        critical = fold - mp.mpf(w2) * activate(activation, fold)
        h = float(activate(activation, fold))
    net = fastrnn.RNN(1.0, w2, activation=activation)
    # Both signs of G beyond the fold, at inputs below 0.
    found = fastrnn.fixed_points(net, float(critical) * np.array([1 - 1e-6, 1.0, 1 + 1e-6]))
    assert found.count.tolist() == [3, 2, 1]
    assert found.h[1, 1] == pytest.approx(h, rel=1e-15)
    assert (found.multiplier[1, 1], found.stable[1, 1]) == (1.0, False)
    below, above = found.h[0, 1:]
    assert below < h < above
    assert found.stable[0].tolist() == [True, False, True]


def test_at_the_kink_of_relu_the_side_that_deviations_stay_on_decides():
    w2 = np.array([2.0, 1.0, 0.5, -0.5, -3.0])
    net = fastrnn.RNN(1.0, w2, activation="relu")
    found = fastrnn.fixed_points(net)
    assert found.count.tolist() == [1] * 5
    assert found.h[:, 0].tolist() == [0] * 5
    assert found.multiplier[:, 0].tolist() == [2, 1, 0.5, 0, 0]
    assert found.stable[:, 0].tolist() == [False, False, True, True, True]
    for h0 in (1e-6, -1e-6):
        last = fastrnn.forward(net, np.zeros((1, 60)), h0=np.full((5, 1), h0), keep="last")[:, 0]
        assert (last[2:] < 1e-20).all()
        assert (last[0] > 1e3) == (h0 > 0)


def test_a_continuum_is_called_one():
    for activation in ("identity", "relu"):
        net = fastrnn.RNN(1.0, [1.0, 1.0, 0.5], [0.0, 1.0, 0.0], activation=activation)
        found = fastrnn.fixed_points(net, [0.0, -1.0])
        assert found.continuum.tolist() == [[True, False], [False, True], [False, False]]
        assert found.h[0, 0, 0] == 0
        for h in (0.0, 1.0, 1e9):
            assert fastrnn.forward(net, np.zeros((1, 5)), h0=[h], keep="last")[0, 0] == h
    assert not fastrnn.fixed_points(fastrnn.RNN(1.0, 1.0)).continuum
    diagnosis = fastrnn.diagnose(fastrnn.RNN(1.0, 1.0, activation="relu"), np.zeros(9))
    assert "every state from 0 on (under the mean input)" in diagnosis.summary()
    diagnosis = fastrnn.diagnose(fastrnn.RNN(1.0, 1.0, activation="identity"), np.zeros(9))
    assert "every state (under the mean input)" in diagnosis.summary()


def test_what_is_no_fixed_point_is_not_stable():
    found = fastrnn.fixed_points(fastrnn.RNN(1.0, 0.5, activation="identity"), 1.0)
    assert np.isnan(found.multiplier).tolist() == [False, True, True]
    assert found.stable.tolist() == [True, False, False]
    columns = fastrnn.diagnose(
        fastrnn.RNN(1.0, 0.5, activation="identity"), np.ones(9)
    ).to_columns()
    assert columns["stable_fixed_points"].tolist() == [1]


def test_inputs_as_large_as_floats():
    """Every root is at the end of f's range, on the side of its input."""
    net = fastrnn.RNN(1e300, np.array([-2.0, 2.0, 1.0]))
    for x in (1e-292, 1e8, 1e300):
        found = fastrnn.fixed_points(net, [-x, x])
        assert found.count.tolist() == [[1, 1]] * 3
        assert found.h[..., 0].tolist() == [[-1, 1]] * 3
    found = fastrnn.fixed_points(fastrnn.RNN(1.0, 0.5, activation="identity"), 1.7e308)
    assert found.h[0] == math.inf


def test_straight_lines():
    bank = fastrnn.RNN(1.0, np.array([0.5, 2.0, 1.0, -3.0]), activation="identity")
    found = fastrnn.fixed_points(bank, [0.0, 3.0])
    assert found.h[..., 0].tolist()[:2] == [[0, 6], [0, -3]]
    assert found.h[2, 0, 0] == 0
    assert np.isnan(found.h[2, 1]).all()
    assert found.stable[..., 0].tolist() == [[True, True], *[[False, False]] * 3]
    assert found.multiplier[3, 1, 0] == -3
    bank = fastrnn.RNN(1.0, np.array([0.5, 2.0, 1.0]), activation="relu")
    found = fastrnn.fixed_points(bank, [-1.0, 0.0, 1.0])
    assert found.count.tolist() == [[1, 1, 1], [2, 1, 0], [1, 1, 0]]
    assert found.h[0, 2, 0] == 2
    assert found.h[1, 0].tolist()[:2] == [0, 1]
    assert found.stable[1, 0].tolist() == [True, False, False]


def test_a_neuron_left_alone_comes_to_rest_at_the_stable_ones():
    net = fastrnn.RNN(1.0, 3.0, 0.1)
    found = fastrnn.fixed_points(net)
    assert found.stable.tolist() == [True, False, True]
    x = np.zeros((2, 200))
    last = fastrnn.forward(net, x, h0=found.h[1] + np.array([-1e-6, 1e-6]), keep="last")
    assert last == pytest.approx(found.h[[0, 2]], rel=1e-14)
    exponent = fastrnn.lyapunov(net, np.zeros(1000), h0=found.h[2]).exponents[0]
    assert exponent == pytest.approx(math.log(abs(found.multiplier[2])), rel=1e-9)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="net must be a scalar neuron, got a layer of 2 units"):
        fastrnn.fixed_points(cases.layer(2))
    with pytest.raises(ValueError, match="x must be finite, got nan"):
        fastrnn.fixed_points(cases.neuron(), math.nan)
    with pytest.raises(TypeError, match=r"net must be a fastrnn\.RNN, got float"):
        fastrnn.fixed_points(1.0)
