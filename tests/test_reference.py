"""The reference itself, against hand-worked cases and mpmath."""

import math

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from fastrnn import reference
from fastrnn.sequences import sequences
from tests import cases, exact, tolerances

LINEAR = fastrnn.RNN(1.0, 0.5, 0.25, activation="identity", w3=2.0, b3=1.0)


def test_states_and_predictions_by_hand():
    # 1 + .25; 2 + .625 + .25; 0 + 1.4375 + .25
    assert reference.forward(LINEAR, [1.0, 2.0, 0.0]).tolist() == [1.25, 2.875, 1.6875]
    assert reference.predict(LINEAR, [1.0, 2.0, 0.0]).tolist() == [3.5, 6.75, 4.375]
    assert reference.forward(LINEAR, [1.0], h0=2.0, keep="last") == 2.25


def test_loss_and_gradient_by_hand():
    loss, grad = reference.loss_and_grad(
        LINEAR, [1.0, 2.0], [3.0, 6.0], wrt=("w1", "w2", "b", "w3", "b3", "x", "h0")
    )
    # Errors .5 and .75; dh = w3 * error (the mean of 2 gives the factor 1).
    assert loss == (0.25 + 0.5625) / 2
    dz2 = 1.5
    dz1 = 1.0 + 0.5 * dz2
    assert grad.w1 == dz1 * 1.0 + dz2 * 2.0
    assert grad.w2 == dz2 * 1.25
    assert grad.b == dz1 + dz2
    assert grad.w3 == 0.5 * 1.25 + 0.75 * 2.875
    assert grad.b3 == 1.25
    assert grad.x.tolist() == [dz1, dz2]
    assert grad.h0 == 0.5 * dz1


def test_a_layer_by_hand():
    net = fastrnn.RNN([[1.0], [0.0]], [[0.0, 1.0], [1.0, 0.0]], activation="relu")
    # The input enters unit 0, and the units change places every step; a silent unit is off.
    states = reference.forward(net, [[3.0, 0.0, 0.0]])
    assert states.tolist() == [[[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]]]
    influence = reference.influence(net, [[3.0, 0.0, 0.0]], v=[1.0, 0.0])
    assert influence.to_float().tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_gradient_and_influence_match_mpmath(kind, activation):
    net = cases.NETS[kind](activation, "float64")
    steps = 30
    x = cases.inputs(net, 1, steps)
    job = sequences(net, x)
    states = reference.forward(net, x).reshape(job.size("KBTH"))[0, 0]
    before = np.concatenate([job.h0[0], states[:-1]])
    w1, w2, b, _, _ = job.weights
    seed = np.zeros((steps, net.hidden_size))
    seed[-1] = 1.0
    _, dz, dx, dh0 = exact.back_propagate(w1[0], w2[0], b[0], activation, job.x[0], before, seed)
    grad = reference.backward(net, x, job.visible(seed[None, None], "KBTH"), wrt=("b", "x", "h0"))
    bounds = tolerances.gradient_bound(job, seed[None, None])
    with mp.workdps(exact.DIGITS):
        db = [mp.fsum(column) for column in zip(*dz, strict=True)]
    for name, truth in {"b": db, "x": dx, "h0": dh0}.items():
        ours, bound = np.ravel(getattr(grad, name)), np.ravel(bounds[name])
        assert (abs(ours - np.ravel(np.array(truth, float))) <= bound).all(), name
    influence = np.ravel(reference.influence(net, x).to_float())
    assert (abs(influence - np.ravel(np.array(dx, float))) <= np.ravel(bounds["x"])).all()


@pytest.mark.parametrize("w2", [1e-300, 1e-10, 10.0, 1e10, 1e20, 1e300])
def test_influence_of_an_extreme_neuron_matches_mpmath(w2):
    net = fastrnn.RNN(1.0, w2, 0.1)
    x = np.array([0.3, 0.2, -0.1])
    ours = reference.influence(net, x)
    before = np.concatenate([[0.0], reference.forward(net, x)[:-1]])
    with mp.workdps(exact.DIGITS):
        z, _, dx, _ = exact.back_propagate(
            [[1.0]], [[w2]], [0.1], "tanh", x[:, None], before[:, None], [[0.0], [0.0], [1.0]]
        )
        for t in range(3):
            value = mp.ldexp(mp.mpf(float(ours.mantissa[t])), int(ours.exponent[t]))
            bound = mp.fsum(1 + 2 * abs(row[0]) for row in z[t:])
            bound *= tolerances.C * tolerances.eps(np.float64)
            assert abs(mp.log(value / dx[t][0])) <= bound


def test_activations_of_special_values():
    z = np.array([-math.inf, -800.0, 0.0, 800.0, math.inf])
    assert reference.activate("sigmoid", z).tolist() == [0, 0, 0.5, 1, 1]
    assert reference.activate("tanh", z).tolist() == [-1, -1, 0, 1, 1]
    assert reference.derivative("tanh", z).tolist() == [0, 0, 1, 0, 0]
    assert reference.derivative("relu", z).tolist() == [0, 0, 0, 1, 1]
