"""Gradients of neurons that are built to be nasty, against mpmath."""

from fractions import Fraction

import numpy as np
import pytest

import fastrnn
from fastrnn import layers_scaled
from tests import nasty

CASES = 400


@pytest.mark.parametrize("first", range(0, CASES, 50))
def test_random_gradients_are_right_plain_and_scaled(first):
    wrong = {seed: found for seed in range(first, first + 50) if (found := _failures(seed))}
    assert not wrong


def test_random_gradients_do_not_depend_on_other_sequences_or_padding():
    wrong = {seed: found for seed in range(CASES) if (found := _dependent(seed))}
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("first", range(CASES, 10_000, 100))
def test_many_random_gradients_are_right(first):
    wrong = {seed: found for seed in range(first, first + 100) if (found := _failures(seed))}
    assert not wrong


def _failures(seed):
    return nasty.failures(nasty.case(seed))


def _dependent(seed):
    return nasty.depends_on_others(nasty.case(seed))


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "identity"])
@pytest.mark.parametrize("gain", [30.0, 1e4, 1e10])
def test_exploding_layers_are_those_of_the_walk_number_by_number(
    gain, activation, dtype, monkeypatch
):
    rng = np.random.default_rng(int(gain))
    w1, w3 = rng.standard_normal((5, 2)).astype(dtype), rng.standard_normal((2, 5)).astype(dtype)
    w2 = (gain / np.sqrt(5) * rng.standard_normal((5, 5))).astype(dtype)
    b, b3 = rng.standard_normal(5).astype(dtype) / 10, rng.standard_normal(2).astype(dtype)
    net = fastrnn.RNN(w1, w2, b, w3=w3, b3=b3, activation=activation)
    x, y = rng.standard_normal((2, 3, 40, 2)).astype(dtype)
    options = {"lengths": [40, 1, 33], "scaled": True, "wrt": ("w1", "w2", "b", "w3", "b3", "x")}
    states = fastrnn.forward(net, x, lengths=[40, 1, 33], scaled=True)
    found = fastrnn.loss_and_grad(net, x, y, **options)
    # All that kernels find is void: what is left is found number by number.
    pull, forward = layers_scaled.pull, layers_scaled.forward
    everything = np.ones((1, 3), bool)
    monkeypatch.setattr(
        layers_scaled, "pull", lambda *a, **k: (_cleared(pull(*a, **k)), everything, everything)
    )
    monkeypatch.setattr(layers_scaled, "forward", lambda *a: (*forward(*a)[:2], everything.copy()))
    true_states = fastrnn.forward(net, x, lengths=[40, 1, 33], scaled=True)
    true = fastrnn.loss_and_grad(net, x, y, **options)
    assert states.mantissa.tobytes() == true_states.mantissa.tobytes()
    assert states.exponent.tobytes() == true_states.exponent.tobytes()
    # Both follow the same z: what is left is T products and sums of H terms, in float64.
    steps, last = 8 * 40 * 5 * 2.0**-52, 2 * float(np.finfo(dtype).eps)
    for name in ("w1", "w2", "b", "w3", "b3"):
        share = getattr(true[1].cancellation, name)
        both = getattr(found[1], name), getattr(true[1], name)
        assert (_apart(*both) <= steps / np.maximum(share, 1e-300) + last).all(), name
    assert _apart(found[0], true[0]) <= steps + last
    rows = [grad.x.mantissa * np.exp2(_beside(grad.x, true[1].x)) for _, grad in (found, true)]
    assert (abs(rows[0] - rows[1]) <= 8 * steps + last * 2).all()


def _apart(found, true):
    """Relative distance."""
    binades = np.clip(found.exponent - true.exponent, -99, 99)
    with np.errstate(all="ignore"):
        apart = abs(found.mantissa * np.exp2(binades) - true.mantissa) / abs(true.mantissa)
    return np.where(true.mantissa == 0, np.where(found.mantissa == 0, 0, np.inf), apart)


def _beside(found, true):
    """Exponents beside the largest of each row."""
    powers = np.where(true.mantissa == 0, -np.inf, true.exponent)
    largest = np.maximum(powers.max(axis=-1, keepdims=True), -1e300)
    return np.clip(found.exponent - largest, -900, 900)


def _cleared(found):
    for total in found[0].values():
        for part in total:
            part[...] = 0
    return found[0]


def test_an_error_that_joins_nothing_in_the_midst_of_a_block():
    """What is carried is exactly 0 where its exponent is told, and an error of 1e-252 joins it."""
    steps, joins, w3 = 73, 66, -1.5e-252
    y = np.full((1, steps), 0.5)
    y[0, joins] = 0
    net = fastrnn.RNN(-5.0, 0.9, 0.0, w3=w3, b3=0.5)
    _, grad = fastrnn.loss_and_grad(net, np.zeros((1, steps)), y, wrt=("b",))
    true = w3 / steps * sum(0.9**lag for lag in range(joins + 1))
    assert grad.b == pytest.approx(true, rel=1e-12)


def test_errors_near_the_end_of_the_range():
    """States of 1.7e308 that are what is wanted."""
    steps = 160
    x = np.zeros((1, steps))
    x[0, 0] = 1e300
    net = fastrnn.RNN(1.0, 1.15, activation="identity")
    y = fastrnn.predict(net, x)
    last = int(np.isfinite(y).sum())
    y = np.where(np.isfinite(y), y, 0)
    loss, _ = fastrnn.loss_and_grad(net, x, y, scaled=True)
    # Of the errors that are not 0, each is 1.15 times the one before.
    log_h = np.log10(1e300) + np.arange(last, steps) * np.log10(1.15)
    true = np.log10(np.sum(10.0 ** (2 * (log_h - log_h[-1])))) + 2 * log_h[-1] - np.log10(steps)
    assert float(np.log10(loss)) == pytest.approx(true, rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_a_state_that_is_large_for_a_while(activation, dtype):
    """Blocks of steps whose states have an exponent come after such, in time, that have none."""
    number, steps = np.dtype(dtype).type, 200
    x = np.zeros((1, steps), dtype)
    x[0, 63], x[0, 70:] = 2.0**40 if dtype == "float32" else 2.0**250, 0.5
    net = fastrnn.RNN(number(1), number(0.5), number(1), activation=activation)
    _, grad = fastrnn.loss_and_grad(net, x, np.zeros_like(x))
    h = [Fraction(0)]
    for t in range(steps):
        h.append(h[-1] / 2 + Fraction(float(x[0, t])) + 1)
    dh, true = Fraction(0), dict.fromkeys(("w1", "w2", "b"), Fraction(0))
    for t in reversed(range(steps)):
        dh += 2 * h[t + 1] / steps
        for name, factor in (("w1", Fraction(float(x[0, t]))), ("w2", h[t]), ("b", 1)):
            true[name] += dh * factor
        dh /= 2
    for name, value in true.items():
        # All terms have one sign: 2 roundings a step.
        bound = 2 * steps * float(np.finfo(dtype).eps)
        assert float(getattr(grad, name)) == pytest.approx(float(value), rel=bound), name
