"""One long sequence in chunks: the bits of one long walk, whichever way is taken."""

import logging

import numpy as np
import pytest

import fastrnn
from fastrnn import chunks
from fastrnn.lanes import Lanes

# Many of them, and a rest.
STEPS = 20 * chunks.CHUNK + 700


def everything(net, x, y, **options):
    h0 = 0.25 * np.ones_like(fastrnn.forward(net, x[..., :1], keep="last"))
    wanted = ("w1", "w2", "b", "x", "h0")
    loss, grad = fastrnn.loss_and_grad(net, x, y, h0=h0, wrt=wanted, **options)
    states = fastrnn.forward(net, x, h0=h0, **options)
    last = fastrnn.forward(net, x, h0=h0, keep="last", **options)
    upstream = fastrnn.backward(net, x, last, h0=h0, wrt=wanted, **options)
    fields = [getattr(g, name) for g in (grad, upstream) for name in wanted]
    return [a.tobytes() for a in (states, last, loss, *fields)]


def series(dtype, *shape):
    rng = np.random.default_rng(3)
    return rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)


def check(net, x, y, monkeypatch, **options):
    found = everything(net, x, y, **options)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "suits", lambda lanes: False)
        assert everything(net, x, y, **options) == found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("w2", [1e-3, 0.9, -0.9, 1.02, 1.5, -2.0, 2.0, 5.0, -50.0, 1e3])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_same_bits_in_chunks_and_in_one_walk(activation, w2, dtype, monkeypatch):
    number = np.dtype(dtype).type
    net = fastrnn.RNN(number(0.5), number(w2), number(0.1), activation=activation)
    check(net, *series(dtype, STEPS), monkeypatch)


@pytest.mark.parametrize("w2", [0.5, 0.99, 1.0, -1.0])
@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_same_bits_where_states_do_not_meet(activation, w2, monkeypatch):
    check(fastrnn.RNN(0.5, w2, 0.1, activation=activation), *series("float64", STEPS), monkeypatch)


def test_same_bits_in_a_bank_of_both_basins(monkeypatch):
    net = fastrnn.RNN(0.5, np.array([0.9, 5.0, -3.0]), 0.1)
    check(net, *series("float64", STEPS), monkeypatch)


@pytest.mark.parametrize("steps", [8 * chunks.CHUNK - 1, 8 * chunks.CHUNK, 9 * chunks.CHUNK + 1])
def test_same_bits_for_any_length(steps, monkeypatch):
    check(fastrnn.RNN(0.5, 0.9), *series("float64", steps), monkeypatch)


def test_same_bits_of_ragged_batches_with_strides(monkeypatch):
    x, y = series("float32", STEPS, 3)
    one = np.float32(1)
    options = {"lengths": [STEPS, 5, STEPS - 4000]}
    check(fastrnn.RNN(one / 2, one * 2), x.T, y.T, monkeypatch, **options)


def test_a_nan_reaches_all_later_states_and_no_earlier(monkeypatch):
    x, y = series("float64", STEPS)
    x[30_000] = np.nan
    net = fastrnn.RNN(0.5, 0.9)
    states = fastrnn.forward(net, x)
    assert np.isfinite(states[:30_000]).all()
    assert np.isnan(states[30_000:]).all()
    check(net, x, y, monkeypatch)


def test_the_log_tells_which_way_was_taken(caplog):
    x, _ = series("float64", STEPS)
    fastrnn.forward(fastrnn.RNN(0.5, 0.9), x)
    fastrnn.forward(fastrnn.RNN(0.5, 1.0, activation="identity"), x)
    contracting, expanding = (record.getMessage() for record in caplog.records)
    assert contracting.startswith("20 of 20 chunks side by side")
    assert not expanding.startswith("20 of 20")
    assert {record.levelno for record in caplog.records} == {logging.INFO}


@pytest.mark.parametrize("guess", [0.0, 0.5, -1.0])
def test_wrong_guesses_cost_time_and_no_bits(guess, monkeypatch):
    """Whatever the guesses are, chunks are accepted only where they fit."""
    x, y = series("float64", STEPS)

    def wild(one, starts):
        starts[:, 1:] = guess

    monkeypatch.setattr(chunks, "_guess", wild)
    check(fastrnn.RNN(0.5, 5.0), x, y, monkeypatch)
    check(fastrnn.RNN(0.5, 0.9), x, y, monkeypatch)


def test_short_sequences_and_large_batches_are_not_cut():
    net = fastrnn.RNN(0.5, 0.9)

    def suited(*shape):
        x = np.zeros(shape)
        lengths = np.full(shape[0], shape[1])
        weights = net.weights(np.dtype("float64"))
        return chunks.suits(Lanes(fastrnn.kernels.ACTIVATIONS["tanh"], weights, x, lengths, 2))

    assert suited(1, 100_000)
    assert not suited(1, 1000)
    assert not suited(100, 100_000)


def test_padding_does_not_meet_infinite_states():
    """0 times inf past the end of a sequence is not a NaN in its gradient."""
    net = fastrnn.RNN(1.0, 3.0, activation="identity", w3=1.0)
    x = np.ones((2, 1500))
    y = np.zeros_like(x)
    _, together = fastrnn.loss_and_grad(net, x, y, lengths=[1500, 800], per_sequence=True)
    _, alone = fastrnn.loss_and_grad(net, x[1, :800], y[1, :800])
    assert np.isnan(together.w3[1]) == np.isnan(alone.w3)
    assert np.isnan(together.b[1]) == np.isnan(alone.b)


def test_no_steps_in_many_lanes():
    net = fastrnn.RNN(1.0, np.linspace(0.1, 1, 100))
    _, grad = fastrnn.loss_and_grad(net, np.empty((5, 0)), np.empty((5, 0)))
    assert (grad.w2 == 0).all()
