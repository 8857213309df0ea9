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
    assert found.h[0, 2, 1] == 2
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
