"""Shapes, types, strides and empty input."""

import numpy as np
import pytest

import fastrnn
from fastrnn import engine, lanes
from fastrnn.sequences import sequences
from tests import cases

LAYOUTS = {
    "fortran": np.asfortranarray,
    "time-major": lambda x: np.ascontiguousarray(np.swapaxes(x, 0, 1)).swapaxes(0, 1),
    "every other": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards": lambda x: x[:, ::-1].copy()[:, ::-1],
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": lambda x: _unaligned(x),
    "list": lambda x: x.tolist(),
}


def _unaligned(x):
    buffer = np.empty(x.nbytes + 1, np.uint8)
    view = np.ndarray(x.shape, x.dtype, buffer, offset=1)
    view[...] = x
    return view


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["neuron", "bank", "layer"])
def test_any_layout_gives_the_same_bits(kind, layout):
    net = cases.NETS[kind]("tanh", "float64")
    x = cases.inputs(net, 5, 70)
    y = np.full_like(fastrnn.predict(net, x), 0.5)
    other_x, other_y = LAYOUTS[layout](x), LAYOUTS[layout](y) if kind != "bank" else y
    assert fastrnn.forward(net, x).tobytes() == fastrnn.forward(net, other_x).tobytes()
    wrt = ("w1", "w2", "b", "x")
    loss, grad = fastrnn.loss_and_grad(net, x, y, wrt=wrt)
    other_loss, other = fastrnn.loss_and_grad(net, other_x, other_y, wrt=wrt)
    assert loss.tobytes() == other_loss.tobytes()
    for name in wrt:
        assert getattr(grad, name).tobytes() == getattr(other, name).tobytes()


def test_a_broadcast_input_is_read_in_place():
    net = cases.neuron()
    row = np.random.default_rng(0).standard_normal(40)
    states = fastrnn.forward(net, np.broadcast_to(row, (1000, 40)))
    assert states.tobytes() == np.tile(fastrnn.forward(net, row), (1000, 1)).tobytes()


@pytest.mark.parametrize("kind", cases.NETS)
def test_inputs_are_read_only_and_stay_as_they_are(kind):
    net = cases.NETS[kind]("sigmoid", "float64")
    x = cases.inputs(net, 3, 20)
    job = sequences(net, x)
    h0 = job.visible(np.full(job.size("KBH"), 0.25), "KBH").copy()
    y = np.ones_like(fastrnn.predict(net, x))
    dh = np.ones_like(fastrnn.forward(net, x))
    arguments = [x, h0, y, dh]
    copies = [array.copy() for array in arguments]
    for array in arguments:
        array.flags.writeable = False
    fastrnn.loss_and_grad(net, x, y, h0=h0)
    fastrnn.backward(net, x, dh, h0=h0)
    fastrnn.diagnose(net, x, h0=h0)
    for array, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_results_do_not_alias_inputs():
    net = fastrnn.RNN(1.0, 0.5)
    h0 = np.ones(2)
    last = fastrnn.forward(net, np.zeros((2, 0)), h0=h0, keep="last")
    assert not np.shares_memory(last, h0)


@pytest.mark.parametrize(
    ("net", "shape", "states", "last", "weights"),
    [
        (fastrnn.RNN(1.0, 0.5), (7,), (7,), (), ((), (), ())),
        (fastrnn.RNN(1.0, 0.5), (3, 7), (3, 7), (3,), ((), (), ())),
        (fastrnn.RNN(1.0, [0.5, 1.0]), (7,), (2, 7), (2,), ((2,), (2,), (2,))),
        (fastrnn.RNN(1.0, [0.5, 1.0]), (3, 7), (2, 3, 7), (2, 3), ((2,), (2,), (2,))),
        (fastrnn.RNN(np.ones((4, 1)), np.eye(4)), (7,), (7, 4), (4,), ((4, 1), (4, 4), (4,))),
        (
            fastrnn.RNN(np.ones((4, 6)), np.eye(4)),
            (3, 7, 6), (3, 7, 4), (3, 4), ((4, 6), (4, 4), (4,)),
        ),
        (
            fastrnn.RNN(np.ones((4, 1)), np.ones((2, 4, 4))),
            (3, 7), (2, 3, 7, 4), (2, 3, 4), ((2, 4, 1), (2, 4, 4), (2, 4)),
        ),
    ],
)  # fmt: skip
def test_shapes(net, shape, states, last, weights):
    x = np.zeros(shape)
    assert fastrnn.forward(net, x).shape == states
    assert np.shape(fastrnn.forward(net, x, keep="last")) == last
    wrt = ("w1", "w2", "b", "x", "h0")
    grad = fastrnn.backward(net, x, np.zeros(states), wrt=wrt)
    assert tuple(np.shape(getattr(grad, name)) for name in ("w1", "w2", "b")) == weights
    bank = states[:1] if net.is_bank else ()
    assert grad.x.shape == bank + shape
    assert np.shape(grad.h0) == last
    assert grad.w3 is None
    assert fastrnn.influence(net, x).shape == bank + shape
    by_last = fastrnn.backward(net, x, np.zeros(last))
    assert np.shape(by_last.w2) == weights[1]


def test_the_last_states_gradient_is_that_of_the_states_at_their_end():
    net = cases.neuron()
    x = cases.inputs(net, 3, 20)
    dh = np.zeros((3, 20))
    dh[:, -1] = [1.0, 2.0, 3.0]
    assert fastrnn.backward(net, x, dh).w2 == fastrnn.backward(net, x, dh[:, -1]).w2


def test_types_follow_the_wider_of_net_and_x():
    single, double = np.ones((1, 3), np.float32), np.ones((1, 3))
    typed = fastrnn.RNN(np.float32(1), np.float32(0.5))
    assert fastrnn.forward(typed, single).dtype == np.float32
    assert fastrnn.forward(typed, double).dtype == np.float64
    assert fastrnn.forward(fastrnn.RNN(np.ones(()), 0.5), single).dtype == np.float64
    # Python numbers are weak, as in NumPy.
    assert fastrnn.forward(fastrnn.RNN(1, 0.5), single).dtype == np.float32
    assert fastrnn.forward(fastrnn.RNN(1, 0.5), [1, 2, 3]).dtype == np.float64
    assert fastrnn.forward(fastrnn.RNN(1, 0.5), np.array([True])).dtype == np.float64
    assert fastrnn.influence(typed, single).dtype == np.float32
    loss, grad = fastrnn.loss_and_grad(typed, single, single, per_sequence=True, wrt=("w1", "x"))
    assert loss.dtype == grad.w1.dtype == grad.x.dtype == np.float32


@pytest.mark.parametrize("kind", cases.NETS)
def test_no_steps_and_no_sequences(kind):
    net = cases.NETS[kind]("tanh", "float64")
    for batch_size, steps in ((3, 0), (0, 4), (0, 0)):
        x = np.zeros((batch_size, steps, net.input_size))
        x = x[..., 0] if net.is_neuron else x
        job = sequences(net, x)
        h0 = np.full(job.visible(job.h0, "KBH").shape, 0.5)
        assert fastrnn.forward(net, x, h0=h0).size == 0
        last = fastrnn.forward(net, x, h0=h0, keep="last")
        assert last.tolist() == h0.tolist() if steps == 0 else last.size == 0
        y = np.zeros(job.visible(np.zeros(job.size("KBTO")), "KBTO").shape)
        loss, grad = fastrnn.loss_and_grad(net, x, y)
        assert not np.any(loss)
        assert not any(np.any(gradient) for gradient in (grad.w1, grad.w2, grad.b))
        assert fastrnn.influence(net, x).shape[-1 - (not net.is_neuron)] == steps
        assert np.shape(fastrnn.diagnose(net, x).regime)[-1:] == (batch_size,)


def test_a_sequence_of_length_0_keeps_its_state_and_has_no_gradient():
    net = cases.neuron()
    x = cases.inputs(net, 2, 5)
    options = {"h0": [0.3, 0.3], "lengths": [0, 5]}
    assert fastrnn.forward(net, x, keep="last", **options)[0] == 0.3
    _, grad = fastrnn.loss_and_grad(net, x, x, per_sequence=True, **options)
    assert (grad.w1[0], grad.w2[0], grad.b[0]) == (0, 0, 0)


def test_padding_is_never_read():
    net = cases.layer(3)
    x = cases.inputs(net, 2, 9)
    padded = x.copy()
    padded[0, 4:] = np.nan
    options = {"lengths": [4, 9]}
    y = np.zeros((2, 9, 3))
    clean, dirty = (fastrnn.loss_and_grad(net, a, y, **options) for a in (x, padded))
    assert clean[0] == dirty[0]
    assert clean[1].w2.tobytes() == dirty[1].w2.tobytes()


def test_a_target_shared_by_the_bank_is_as_good_as_one_for_each_net():
    net = cases.neuron(bank=3)
    x = cases.inputs(net, 2, 9)
    y = np.ones((2, 9))
    shared = fastrnn.loss_and_grad(net, x, y)[0]
    assert shared.tolist() == fastrnn.loss_and_grad(net, x, np.stack([y] * 3))[0].tolist()


def test_input_with_a_negative_zero():
    assert np.signbit(fastrnn.forward(fastrnn.RNN(1.0, 0.5), [-0.0], h0=-np.zeros(()))[0])


def test_a_net_keeps_its_weights():
    w2 = np.array([0.1, 0.2])
    net = fastrnn.RNN(1.0, w2)
    w2[0] = 9.0
    assert net.w2[0] == 0.1
    with pytest.raises(ValueError, match="read-only"):
        net.w2[0] = 1.0
    with pytest.raises(AttributeError):
        net.w2 = 1.0


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (fastrnn.RNN(1, 2), "RNN(a scalar neuron, activation='tanh')"),
        (fastrnn.RNN(np.ones((3, 1)), np.ones((2, 3, 3))),
         "RNN(a bank of 2 layers of 3 hidden units, 1 input, activation='tanh')"),
    ],
)  # fmt: skip
def test_repr(net, text):
    assert repr(net) == text


@pytest.mark.parametrize("kind", cases.NETS)
@pytest.mark.parametrize("keep", ["all", "last"])
def test_states_are_written_where_the_caller_wants_them(kind, keep):
    net = cases.NETS[kind]("tanh", "float32")
    x, lengths = cases.inputs(net, 20, 30, "float32"), np.arange(1, 21)
    expected = fastrnn.forward(net, x, lengths=lengths, keep=keep)
    for order in "CF":
        out = np.full(expected.shape, np.nan, "float32", order)
        assert fastrnn.forward(net, x, lengths=lengths, keep=keep, out=out) is out
        assert out.tobytes() == expected.tobytes()


def test_states_of_one_sequence_are_written_where_the_caller_wants_them():
    net, x = cases.neuron(), np.linspace(0, 1, 30)
    out = np.empty(30)
    assert fastrnn.forward(net, x, out=out) is out
    assert out.tobytes() == fastrnn.forward(net, x).tobytes()


ONE = {
    "neuron": (fastrnn.RNN(1.0, 0.5), [(), (1,), (1, 1)]),
    "bank of one": (fastrnn.RNN(1.0, [0.5]), [(), (1,), (1, 1)]),
    "layer of one": (fastrnn.RNN([[1.0]], [[0.5]]), [(), (1,), (1, 1)]),
    "bank of one layer": (fastrnn.RNN(np.ones((4, 1)), np.eye(4)[None]), [(4,), (1, 4), (1, 1, 4)]),
}


@pytest.mark.parametrize("kind", ONE)
def test_axes_of_length_1_in_h0_are_as_one_likes(kind):
    net, shapes = ONE[kind]
    for x in (np.ones(5), np.ones((1, 5))):
        ends = {
            fastrnn.forward(net, x, h0=np.full(shape, 0.25), keep="last").tobytes()
            for shape in shapes
        }
        assert len(ends) == 1


def test_h0_of_a_bank_over_one_sequence():
    net, x = fastrnn.RNN(1.0, [0.1, 0.5, 0.9]), np.ones((1, 5))
    h0 = np.array([0.1, 0.2, 0.3])
    each = fastrnn.forward(net, x, h0=h0[:, None])
    assert fastrnn.forward(net, x, h0=h0).tobytes() == each.tobytes()
    # As many sequences as nets: without a bank axis it is shared, as documented.
    shared = fastrnn.forward(net, np.ones((3, 5)), h0=h0)
    assert shared.tobytes() == fastrnn.forward(net, np.ones((3, 5)), h0=[h0] * 3).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ragged", [False, True])
def test_results_past_the_caches_are_the_same(monkeypatch, dtype, ragged):
    net, rng = cases.neuron("tanh", dtype), np.random.default_rng(5)
    x = rng.standard_normal((283, 577)).astype(dtype)
    lengths = rng.integers(0, 578, 283) if ragged else None
    wanted = fastrnn.forward(net, x, lengths=lengths)
    monkeypatch.setattr(engine, "PAST_BYTES", 1)
    monkeypatch.setattr(lanes, "PAST_BYTES", 1)
    # The first number of a row in any place of a line of the cache, and rows of any length.
    for inputs in (x, np.ascontiguousarray(x.T).T, np.repeat(x, 2, axis=1)[:, ::2]):
        options = {"lengths": lengths, "workers": 2}
        assert np.array_equal(fastrnn.forward(net, inputs, **options), wanted)
        for shift in (0, 1, 7):
            for more in (shift, 16 - 577 % 16 + 16, 40):
                room = np.full((283, 577 + more), np.nan, dtype)
                fastrnn.forward(net, inputs, out=room[:, shift : shift + 577], **options)
                assert np.array_equal(room[:, shift : shift + 577], wanted)
                assert np.isnan(np.delete(room, np.s_[shift : shift + 577], axis=1)).all()
                room = np.full((577, 283 + more), np.nan, dtype)
                fastrnn.forward(net, inputs, out=room[:, shift : shift + 283].T, **options)
                assert np.array_equal(room[:, shift : shift + 283].T, wanted)
                assert np.isnan(np.delete(room, np.s_[shift : shift + 283], axis=1)).all()


def test_vectors_of_a_bank_have_inputs_of_their_own():
    rng = np.random.default_rng(6)
    bank = fastrnn.RNN(rng.standard_normal(32), rng.standard_normal(32), rng.standard_normal(32))
    x = rng.standard_normal((40, 130))
    for inputs in (x, np.ascontiguousarray(x.T).T):
        states = fastrnn.forward(bank, inputs)
        _, grad = fastrnn.loss_and_grad(bank, inputs, states * 0.9, per_sequence=True)
        for k in (0, 13, 31):
            net = fastrnn.RNN(bank.w1[k], bank.w2[k], bank.b[k])
            assert np.array_equal(fastrnn.forward(net, x), states[k])
            _, own = fastrnn.loss_and_grad(net, x, states[k] * 0.9, per_sequence=True)
            assert np.array_equal(own.w2, grad.w2[k])
