"""Truncated back-propagation through time."""

import numpy as np
import pytest

import fastrnn
from fastrnn import truncated

RNG = np.random.default_rng(11)
LAYER = {
    "w1": RNG.normal(size=(3, 2)), "w2": 0.5 * RNG.normal(size=(3, 3)), "b": RNG.normal(size=3),
    "w3": RNG.normal(size=(1, 3)), "b3": RNG.normal(size=1),
}  # fmt: skip
NETS = {
    "neuron": fastrnn.RNN(0.8, -0.9, 0.1),
    "bank": fastrnn.RNN(0.8, np.linspace(-1.5, 1.5, 5), 0.1, w3=2.0, b3=0.5),
    "layer": fastrnn.RNN(**LAYER),
    "layers": fastrnn.RNN(**LAYER | {"w2": 0.5 * RNG.normal(size=(4, 3, 3))}),
}
B, T = 3, 23


def example(net):
    x = RNG.standard_normal((B, T) if net.is_neuron else (B, T, 2))
    y = RNG.standard_normal((B, T) if net.is_neuron else (B, T, 1))
    return x, y


def by_windows(net, x, y, k, lengths):
    """Loss and gradients of each sequence: the sum over its windows, from their true states."""
    loss, grads = 0.0, dict.fromkeys(net.weight_names, 0.0)
    state = None
    for start in range(0, x.shape[1], k):
        window = slice(start, start + k)
        own = np.clip(lengths - start, 0, x[:, window].shape[1])
        given = {"lengths": own, "h0": state}
        part, grad = fastrnn.loss_and_grad(
            net, x[:, window], y[:, window], per_sequence=True, **given
        )
        share = own.sum() / lengths.sum()
        loss += share * part
        grads = {name: total + share * getattr(grad, name) for name, total in grads.items()}
        state = fastrnn.forward(net, x[:, window], keep="last", **given)
    return loss, grads


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("k", [1, 4, 10, 22])
@pytest.mark.parametrize("held", [1, 1 << 22])
def test_windows_start_from_true_states_and_gradients_end_there(net, k, held, monkeypatch):
    monkeypatch.setattr(truncated, "STATES", held)
    x, y = example(net)
    for lengths in (np.full(B, T), np.array([T, 0, 13])):
        options = {"truncate": k, "lengths": lengths}
        loss, grads = by_windows(net, x, y, k, lengths)
        found, each = fastrnn.loss_and_grad(net, x, y, per_sequence=True, **options)
        np.testing.assert_allclose(found, loss, rtol=1e-12, atol=1e-15)
        _, whole = fastrnn.loss_and_grad(net, x, y, workers=2, **options)
        batch = 1 if net.is_bank else 0
        for name, expected in grads.items():
            np.testing.assert_allclose(getattr(each, name), expected, rtol=1e-11, atol=1e-14)
            np.testing.assert_allclose(
                getattr(whole, name), expected.sum(axis=batch), rtol=1e-11, atol=1e-14
            )


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_window_of_all_steps_gives_the_full_gradient_bit_for_bit(net):
    x, y = example(net)
    loss, full = fastrnn.loss_and_grad(net, x, y)
    for k in (T, 10 * T):
        found, same = fastrnn.loss_and_grad(net, x, y, truncate=k)
        np.testing.assert_array_equal(found, loss)
        for name in net.weight_names:
            np.testing.assert_array_equal(getattr(same, name), getattr(full, name))


def test_the_error_is_that_of_the_farther_past():
    x = np.ones(200)
    net = fastrnn.RNN(1.0, 0.5, activation="identity")
    short, long = (fastrnn.testing.truncation_error(net, x, 0 * x, k) for k in (5, 20))
    assert 0 < long["w2"] < short["w2"] < 1
    assert fastrnn.testing.truncation_error(net, x, 0 * x, 200) == {"w1": 0, "w2": 0, "b": 0}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"truncate": 0}, ValueError, "truncate must be at least 1, got 0"),
        ({"truncate": 2.0}, TypeError, "truncate must be an integer, got float"),
        ({"truncate": True}, TypeError, "truncate must be an integer, got a bool"),
        ({"truncate": 2, "scaled": True}, ValueError, "truncate must be None where scaled=True"),
        ({"truncate": 2, "wrt": "x"}, ValueError, "and for wrt 'x' and 'h0'"),
    ],
)
def test_wrong_truncation_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        fastrnn.loss_and_grad(NETS["neuron"], [1.0, 2.0], [0.0, 0.0], **given)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("held", [1, 1 << 22])
def test_a_sequence_has_the_bits_it_has_alone(net, held, monkeypatch):
    monkeypatch.setattr(truncated, "STATES", held)
    # Sizes of powers of two: the mean over 64 sequences is then that over one, over 64.
    rng, batch_size, steps = np.random.default_rng(3), 64, 1000
    x = rng.standard_normal((batch_size, steps) if net.is_neuron else (batch_size, steps, 2))
    y = rng.standard_normal((batch_size, steps) if net.is_neuron else (batch_size, steps, 1))
    batch = int(net.is_bank)
    loss, grad = fastrnn.loss_and_grad(net, x, y, truncate=64, per_sequence=True)
    for i in (0, 5, 63):
        own = slice(i, i + 1)
        alone_loss, alone = fastrnn.loss_and_grad(net, x[own], y[own], truncate=64)
        np.testing.assert_array_equal(64 * loss.take(i, batch), alone_loss)
        for name in net.weight_names:
            found = 64 * getattr(grad, name).take(i, batch)
            np.testing.assert_array_equal(found, getattr(alone, name))


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize(("batch_size", "steps"), [(0, 5), (3, 0), (0, 0)])
def test_no_sequences_and_no_steps_have_no_gradient(net, batch_size, steps):
    x = np.zeros((batch_size, steps) if net.is_neuron else (batch_size, steps, 2))
    y = np.zeros((batch_size, steps) if net.is_neuron else (batch_size, steps, 1))
    loss, grad = fastrnn.loss_and_grad(net, x, y, truncate=2)
    assert not np.any(loss)
    for name in net.weight_names:
        _, full = fastrnn.loss_and_grad(net, x, y)
        assert getattr(grad, name).shape == getattr(full, name).shape
        assert not getattr(grad, name).any()


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_budget_that_an_error_names_is_enough_and_changes_no_bit(net):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((16, 900) if net.is_neuron else (16, 900, 2))
    y = rng.standard_normal((16, 900) if net.is_neuron else (16, 900, 1))
    with pytest.raises(ValueError, match="memory must be at least") as error:
        fastrnn.loss_and_grad(net, x, y, truncate=64, memory=1)
    least = int(str(error.value).split()[5])
    assert least < x.nbytes * 12
    found = []
    for memory in (least, 2 * least, 5 * least, None):
        _, grad = fastrnn.loss_and_grad(net, x, y, truncate=64, memory=memory)
        found.append([getattr(grad, name).tobytes() for name in net.weight_names])
    assert all(one == found[0] for one in found)


def test_windows_start_from_states_that_vectors_do_not_hold():
    """A first state of 2**-1074 has lost its digits: h_t = 2**(t - 1074)."""
    net = fastrnn.RNN(1.0, 2.0, activation="identity")
    steps = 1200
    zeros = np.zeros(steps)
    loss, grad = fastrnn.loss_and_grad(net, zeros, zeros, h0=5e-324, truncate=300)
    assert loss == pytest.approx(4 / 3 * 4.0 ** (steps - 1074) / steps, rel=1e-12)
    assert grad.w1 == 0
