"""Gradients of neurons that are built to be nasty, against mpmath."""

import numpy as np
import pytest

import fastrnn
from tests import nasty

CASES = 400


@pytest.mark.parametrize("first", range(0, CASES, 50))
def test_random_gradients_are_right_plain_and_scaled(first):
    wrong = {seed: found for seed in range(first, first + 50) if (found := _failures(seed))}
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("first", range(CASES, 10_000, 100))
def test_many_random_gradients_are_right(first):
    wrong = {seed: found for seed in range(first, first + 100) if (found := _failures(seed))}
    assert not wrong


def _failures(seed):
    return nasty.failures(nasty.case(seed))


def test_a_latched_neuron_whose_errors_are_exactly_zero():
    """The gradient fades to 1e-371 while the state is latched, and grows to 1e15 before that."""
    x = np.zeros(324)
    x[300] = 20
    y = (np.arange(324) >= 300).astype(float)
    y[-1] = 0
    _, grad = fastrnn.loss_and_grad(fastrnn.RNN(1.0, 20.0), x, y, wrt=("b", "h0"))
    assert grad.b == pytest.approx(3.7341e15, rel=1e-4)
    assert grad.h0 == pytest.approx(7.09e16, rel=1e-3)


@pytest.mark.parametrize("padding", [0.0, np.nan, np.inf])
def test_padding_is_never_read(padding):
    net = fastrnn.RNN(1.0, 20.0)
    x = np.zeros((1, 325))
    x[0, 300], x[0, 324] = 20, padding
    dh = np.zeros((1, 325))
    dh[0, 323], dh[0, 324] = 1, padding
    grad = fastrnn.backward(net, x, dh, lengths=[324], wrt=("b", "x"))
    alone = fastrnn.backward(net, x[:, :324], dh[:, :324], wrt=("b", "x"))
    assert grad.b == alone.b != 0
    assert grad.x[0, 324] == 0
    assert grad.x[:, :324].tobytes() == alone.x.tobytes()


def test_the_mean_fits_where_the_sum_of_squares_does_not():
    x = np.full((1, 10_000), 3e18, np.float32)
    net = fastrnn.RNN(np.float32(1), np.float32(0.5), activation="identity")
    loss, grad = fastrnn.loss_and_grad(net, x, np.zeros_like(x), wrt=("w1", "w2"))
    assert loss == pytest.approx(3.5994e37, rel=1e-4)
    assert grad.w1 == pytest.approx(7.199e37, rel=1e-4)
    assert grad.w2 == pytest.approx(1.4395e38, rel=1e-4)
    assert grad.out_of_range == ()


def test_truncated_gradients_past_an_overflow_are_infinite():
    x = np.zeros(4000)
    x[0] = 1
    net = fastrnn.RNN(1.0, 2.0, activation="identity")
    loss, grad = fastrnn.loss_and_grad(net, x, np.zeros(4000), truncate=1500)
    assert loss == grad.w1 == grad.w2 == np.inf
    assert grad.out_of_range == ("w1", "w2", "b")


@pytest.mark.parametrize("units", [1, 2, 8, 40])
def test_a_latched_layer_whose_errors_are_exactly_zero(units):
    """The units of a diagonal W2 are the neuron above, each by itself."""
    x = np.zeros((1, 324, 1))
    x[0, 300] = 20
    y = np.zeros((1, 324, units))
    y[0, 300:-1] = 1
    net = fastrnn.RNN(np.ones((units, 1)), 20 * np.eye(units), np.zeros(units))
    _, grad = fastrnn.loss_and_grad(net, x, y, wrt=("b", "h0"))
    assert grad.b == pytest.approx(3.7341e15 / units, rel=1e-4)
    assert grad.h0 == pytest.approx(7.09e16 / units, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("units", [3, 16, 20])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_plain_gradients_of_saturated_layers_are_the_scaled_ones(dtype, units, batch_size):
    """Derivatives of 1e-30 and below, gradients beyond 1e38: more than float32 holds."""
    rng = np.random.default_rng(units)
    w2 = (30 * rng.standard_normal((units, units)) / np.sqrt(units)).astype(dtype)
    w1, b = rng.standard_normal((units, 2)).astype(dtype), np.zeros(units, dtype)
    net = fastrnn.RNN(w1, w2, b)
    x = rng.standard_normal((batch_size, 60, 2)).astype(dtype)
    y = rng.standard_normal((batch_size, 60, units)).astype(dtype)
    plain_loss, plain = fastrnn.loss_and_grad(net, x, y, wrt=("w1", "w2", "b", "x", "h0"))
    loss, scaled = fastrnn.loss_and_grad(net, x, y, wrt=("w1", "w2", "b", "x", "h0"), scaled=True)
    assert plain_loss == pytest.approx(float(loss), rel=1e-6)
    for name in ("w1", "w2", "b", "x", "h0"):
        value, true = getattr(plain, name), getattr(scaled, name).to_float()
        size = abs(true).max(axis=-1, keepdims=True)
        np.testing.assert_allclose(value / size, true / size, atol=1e-4, err_msg=name)
