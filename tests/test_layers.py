"""Layers: the same bits whatever is computed beside a sequence, and what is infinite or missing."""

import numpy as np
import pytest

import fastrnn
from tests import cases, fuzz

HIDDEN = (2, 5, 16, 47)
WRT = ("w1", "w2", "b", "x", "h0")


def problem(hidden, batch_size, steps, dtype, inputs=2, **options):
    net = cases.layer(hidden, inputs, dtype=dtype, **options)
    x = cases.inputs(net, batch_size, steps, dtype)
    y = np.random.default_rng(9).standard_normal((batch_size, steps, net.output_size))
    return net, x, y.astype(dtype)


def bits(gradient, index=...):
    return [getattr(gradient, name)[index].tobytes() for name in WRT]


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_same_bits_alone_and_at_any_place_in_a_batch(hidden, dtype):
    net, x, y = problem(hidden, 70, 150, dtype)
    dh = y
    options = {"wrt": WRT, "per_sequence": True}
    together, grad = fastrnn.forward(net, x), fastrnn.backward(net, x, dh, **options)
    for i in (0, 1, 15, 16, 17, 63, 69):
        one = slice(i, i + 1)
        assert fastrnn.forward(net, x[one]).tobytes() == together[one].tobytes()
        alone = fastrnn.backward(net, x[one], dh[one], wrt=WRT)
        assert bits(alone) == bits(grad, one)
    for size in (2, 3, 4, 7, 16, 33):
        some = fastrnn.backward(net, x[:size], dh[:size], **options)
        assert fastrnn.forward(net, x[:size]).tobytes() == together[:size].tobytes()
        assert bits(some) == bits(grad, slice(size))


@pytest.mark.parametrize("hidden", HIDDEN)
def test_same_bits_in_any_layout(hidden):
    net, x, y = problem(hidden, 20, 40, "float32", outputs=3)
    expected = fastrnn.forward(net, x)
    _, grad = fastrnn.loss_and_grad(net, x, y, wrt=WRT)
    wide = np.zeros((40, 60, 4), "float32")
    wide[:, ::3, ::2] = x.swapaxes(0, 1)
    backwards = x[::-1, ::-1].copy()[::-1, ::-1]
    first = np.asfortranarray(y)
    for other in (wide[:, ::3, ::2].swapaxes(0, 1), backwards, np.asfortranarray(x)):
        assert (fastrnn.forward(net, other) == expected).all()
        for out in (np.empty_like(expected), np.asfortranarray(expected), wide_like(expected)):
            assert fastrnn.forward(net, other, out=out) is out
            assert (out == expected).all()
        _, again = fastrnn.loss_and_grad(net, other, first, wrt=WRT)
        assert bits(again) == bits(grad)


@pytest.mark.parametrize(("batch_size", "hidden"), [(6, 16), (300, 16), (50, 5)])
def test_same_bits_for_any_workers_and_memory(batch_size, hidden):
    net, x, y = problem(hidden, batch_size, 300, "float32", inputs=19, outputs=18, bank=2)
    results = set()
    for workers in (1, 2, 5):
        for memory in (None, 6_500_000, 1 << 30):
            options = {"workers": workers, "memory": memory, "wrt": (*WRT, "w3", "b3")}
            loss, grad = fastrnn.loss_and_grad(net, x, y, **options)
            results.add((loss.tobytes(), grad.w3.tobytes(), grad.b3.tobytes(), *bits(grad)))
    assert len(results) == 1


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("hidden", [4, 16, 64])
def test_scaled_gradients_have_the_same_bits_however_time_is_cut(dtype, hidden):
    net, x, y = problem(hidden, 3, 1333, dtype, bank=2)
    each = dict(scaled=True, per_sequence=True, wrt=WRT)

    def run(x, y, **options):
        loss, grad = fastrnn.loss_and_grad(net, x, y, **(each | options))
        return [loss.mantissa.tobytes()] + [getattr(grad, n).mantissa.tobytes() for n in WRT]

    with pytest.raises(ValueError, match="memory must be at least") as error:
        run(x, y, memory=1)
    least = int(str(error.value).split()[5])
    assert run(x, y, memory=least) == run(x, y, memory=4 * least) == run(x, y)


@pytest.mark.parametrize("seed", [31337757, 31337969, 31338214])
def test_sums_that_lack_digits_change_no_bit_of_other_gradients(seed):
    """Random jobs found it: gradients of x and h0 were found anew where a sum of all was."""
    assert fuzz.differences(fuzz.job(seed)) == []


def test_a_long_scaled_gradient_has_the_bits_it_has_in_a_batch():
    net, x, _ = problem(4, 40, 30_000, "float64")
    dh = np.ones((40, 4))
    options = {"scaled": True, "per_sequence": True}
    together = fastrnn.backward(net, x, dh, **options)
    for i in (0, 39):
        alone = fastrnn.backward(net, x[i : i + 1], dh[i : i + 1], **options)
        assert alone.w2.mantissa[0].tobytes() == together.w2.mantissa[i].tobytes()


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("gain", [0.5, 1e5])
@pytest.mark.parametrize("options", [{}, {"per_sequence": True}, {"scaled": True}])
def test_a_budget_that_an_error_names_is_enough(dtype, gain, options):
    """Where plain floats suffice, and where states and gradients overflow."""
    net = cases.layer(17, 2, "relu", dtype, bank=2)
    net = fastrnn.RNN(net.w1, net.w2 * np.asarray(gain, dtype), net.b, activation="relu")
    x = cases.inputs(net, 40, 131, dtype)
    y = np.zeros_like(fastrnn.predict(net, x))
    with pytest.raises(ValueError, match="memory must be at least") as error:
        fastrnn.loss_and_grad(net, x, y, memory=1, **options)
    least = int(str(error.value).split()[5])
    _, grad = fastrnn.loss_and_grad(net, x, y, memory=least, **options)
    _, free = fastrnn.loss_and_grad(net, x, y, **options)
    np.testing.assert_array_equal(
        *(np.asarray(getattr(g.w2, "mantissa", g.w2)) for g in (grad, free))
    )


def test_an_overflow_is_mended_beside_a_sequence_that_is_not_finite():
    net = fastrnn.RNN(
        np.ones((2, 1), "float32"), np.eye(2, dtype="float32") * np.float32(1e25),
        np.zeros(2, "float32"), activation="identity",
    )  # fmt: skip
    x = np.zeros((2, 4, 1), "float32")
    x[0, 3] = 1
    found = []
    for other in (0, np.nan):
        x[1, 0] = other
        grad = fastrnn.backward(net, x, np.ones((2, 2), "float32"), per_sequence=True)
        found.append((grad.w1[0].tolist(), grad.b[0].tolist()))
    assert found[0] == found[1] == ([[1.0], [1.0]], [np.inf, np.inf])


def wide_like(array):
    return np.empty((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)[..., ::2]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_ragged_sequences_are_those_without_padding(hidden):
    net, x, y = problem(hidden, 23, 140, "float32")
    lengths = np.random.default_rng(3).integers(0, 141, 23)
    for i, length in enumerate(lengths):
        x[i, length:], y[i, length:] = np.nan, np.nan
    options = {"lengths": lengths, "wrt": WRT, "per_sequence": True}
    states, grad = fastrnn.forward(net, x, lengths=lengths), fastrnn.backward(net, x, y, **options)
    for i, length in enumerate(lengths):
        own = x[i : i + 1, :length]
        alone = fastrnn.backward(net, own, y[i : i + 1, :length], wrt=WRT)
        assert fastrnn.forward(net, own).tobytes() == states[i, :length].tobytes()
        assert (states[i, length:] == 0).all()
        for name in WRT:
            ours = getattr(grad, name)[i]
            ours, rest = (ours[:length], ours[length:]) if name == "x" else (ours, ours[:0])
            assert ours.tobytes() == getattr(alone, name).tobytes(), name
            assert (rest == 0).all()
    _, whole = fastrnn.loss_and_grad(net, x, y, lengths=lengths)
    assert np.isfinite(whole.w2).all()


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_sequence_from_its_step_on(hidden, bad):
    net, x, y = problem(hidden, 20, 50, "float64")
    options = {"wrt": WRT, "per_sequence": True}
    clean, clean_grad = fastrnn.forward(net, x), fastrnn.backward(net, x, y, **options)
    x[7, 30] = bad
    states, grad = fastrnn.forward(net, x), fastrnn.backward(net, x, y, **options)
    others = np.arange(20) != 7
    assert (states[others] == clean[others]).all()
    assert (states[7, :30] == clean[7, :30]).all()
    assert bits(grad, others) == bits(clean_grad, others)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_an_infinite_input_saturates_and_adds_nothing_to_gradients(dtype):
    one = np.ones((1, 1), dtype)
    net = fastrnn.RNN(np.ones((3, 1), dtype), 0.1 * np.eye(3, dtype=dtype), np.zeros(3, dtype))
    x = np.array([[0.5, np.inf, 0.25]], dtype)
    dh = np.zeros((1, 3, 3), dtype)
    dh[0, 1] = 1
    assert (fastrnn.forward(net, x)[0, 1] == one).all()
    grad = fastrnn.backward(net, x, dh, wrt=WRT)
    for name in WRT:
        assert (getattr(grad, name) == 0).all(), name
    late = np.zeros_like(dh)
    late[0, 2] = 1
    grad = fastrnn.backward(net, x, late, wrt=WRT)
    assert all(np.isfinite(getattr(grad, name)).all() for name in WRT)
    assert (grad.w1 > 0).all()


@pytest.mark.parametrize(
    ("hidden", "batch_size", "dtype"), [(64, 40, "float32"), (47, 33, "float64")]
)
def test_training_step_agrees_with_torch(hidden, batch_size, dtype):
    torch = pytest.importorskip("torch")
    net, x, y = problem(hidden, batch_size, 60, dtype, inputs=3, outputs=2)
    peer = torch.nn.RNN(3, hidden, batch_first=True, dtype=getattr(torch, dtype))
    with torch.no_grad():
        peer.weight_ih_l0.copy_(torch.tensor(net.w1))
        peer.weight_hh_l0.copy_(torch.tensor(net.w2))
        peer.bias_ih_l0.copy_(torch.tensor(net.b))
        peer.bias_hh_l0.zero_()
    w3, b3 = (torch.tensor(w, requires_grad=True) for w in (net.w3, net.b3))
    states, _ = peer(torch.from_numpy(x))
    expected = torch.nn.functional.mse_loss(states @ w3.T + b3, torch.from_numpy(y))
    expected.backward()
    loss, grad = fastrnn.loss_and_grad(net, x, y)
    # A gradient's last digits are those of 60 steps back, in float32 of both.
    rtol = 60 * hidden * float(np.finfo(dtype).eps)
    assert float(loss) == pytest.approx(expected.item(), rel=rtol)
    for ours, theirs in (
        (grad.w1, peer.weight_ih_l0.grad), (grad.w2, peer.weight_hh_l0.grad),
        (grad.b, peer.bias_ih_l0.grad), (grad.w3, w3.grad), (grad.b3, b3.grad),
    ):  # fmt: skip
        theirs = theirs.numpy()
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * abs(theirs).max())
