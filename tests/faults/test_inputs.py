"""Rows 1 to 19: input is refused with one clear error, or gives what is documented."""

import math
import re

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from fastrnn import memory
from tests import cases

NEURON = fastrnn.RNN(0.5, 0.9)
LAYER = cases.layer(8, 2)
X = np.linspace(-1, 1, 24).reshape(3, 8)
XF = np.linspace(-1, 1, 48).reshape(3, 8, 2)


def refused(error, message):
    return pytest.raises(error, match=re.escape(message))


@pytest.mark.parametrize("axes", [0, 1, 4])
def test_01_x_of_wrong_dimensions_names_the_accepted_shapes(axes):
    x = np.zeros((2,) * axes)
    with refused(ValueError, f"x must have shape (B, T, F) with F = 2 for a layer, got {x.shape}"):
        fastrnn.forward(LAYER, x)
    if axes != 1:
        with refused(
            ValueError, f"x must have shape (T,) or (B, T) for a scalar neuron, got {x.shape}"
        ):
            fastrnn.forward(NEURON, x)


@pytest.mark.parametrize("shape", [(3, 7), (2, 8), (8,), (1, 8)])
def test_02_a_wrong_h0_is_refused_with_both_shapes(shape):
    with refused(ValueError, f"h0 must have shape (batch_size, hidden_size) = (3, 8), got {shape}"):
        fastrnn.forward(LAYER, XF, h0=np.zeros(shape))


def test_03_w2_is_square():
    with refused(ValueError, "w2 must have shape (hidden_size, hidden_size) = (8, 8), got (8, 4)"):
        fastrnn.RNN(np.zeros((8, 2)), np.zeros((8, 4)), np.zeros(8))
    with refused(ValueError, "w1 must have shape (hidden_size, input_size)"):
        fastrnn.RNN(np.zeros((7, 2)), np.zeros((8, 8)), np.zeros(8))


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_04_no_steps_and_no_sequences_have_defined_results(dtype):
    for net, empty in ((NEURON, (3, 0)), (LAYER, (3, 0, 2))):
        h0 = np.full((3,) if net.is_neuron else (3, 8), 0.25, dtype)
        x = np.zeros(empty, dtype)
        assert fastrnn.forward(net, x, h0=h0).size == 0
        last = fastrnn.forward(net, x, h0=h0, keep="last")
        np.testing.assert_array_equal(last, h0)
        assert not fastrnn.backward(net, x, np.ones_like(last), h0=h0).w2.any()
        none = np.zeros((0, *x.shape[1:]), dtype)
        found = fastrnn.forward(fastrnn.RNN(np.float32(1), np.float32(1)), np.zeros((0, 4), dtype))
        assert (found.shape, found.dtype) == ((0, 4), dtype)
        assert fastrnn.forward(net, none).shape[0] == 0
    with refused(ValueError, "w2 must not be empty, got shape (0, 0)"):
        fastrnn.RNN(np.zeros((0, 1)), np.zeros((0, 0)), np.zeros(0))


@pytest.mark.parametrize("z", [1e-30, 0.1, 0.34, 0.36, 1.0, 5.0, 19.0])
def test_05_one_step_has_its_closed_form_to_2_ulp(z):
    (h,) = fastrnn.forward(fastrnn.RNN(1.0, 3.0), [z])
    truth = mp.tanh(mp.mpf(z))
    assert abs(mp.mpf(float(h)) - truth) <= 2 * np.spacing(float(truth))


@pytest.mark.parametrize(
    "x",
    [
        np.array([1.0, None]), np.array(["a"]), np.zeros(2, "datetime64[s]"), np.zeros(2, complex),
        np.zeros(2, [("a", float)]), np.zeros(2, np.float16), np.zeros(2, np.longdouble),
    ],
    ids=lambda x: str(x.dtype),
)  # fmt: skip
def test_06_types_that_are_no_floats_are_refused(x):
    if x.dtype == np.float64:
        pytest.skip("long doubles are doubles here")
    with pytest.raises(TypeError, match="^x must be float32 or float64"):
        fastrnn.forward(NEURON, x)


def test_06_integers_and_truth_values_become_float64():
    for x in (np.array([1, 0]), np.array([True, False]), [1, 0], np.array([1, 0], np.uint8)):
        states = fastrnn.forward(NEURON, x)
        assert states.dtype == np.float64
        np.testing.assert_array_equal(states, fastrnn.forward(NEURON, [1.0, 0.0]))


def test_07_float_types_are_kept_and_the_wider_one_wins():
    for weights, x, result in (
        ("f4", "f4", "f4"),
        ("f8", "f8", "f8"),
        ("f4", "f8", "f8"),
        ("f8", "f4", "f8"),
    ):
        net = fastrnn.RNN(np.array(0.5, weights), np.array(0.9, weights))
        loss, grad = fastrnn.loss_and_grad(net, X.astype(x), X.astype(x), wrt=("w2", "x"))
        found = fastrnn.forward(net, X.astype(x)), loss, grad.w2, grad.x
        assert {array.dtype for array in found} == {np.dtype(result)}


def _unaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)
    found = room[1:].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


LAYOUTS = {
    "columns first": np.asfortranarray,
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "every second": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "unaligned": _unaligned,
    "bytes swapped": lambda a: a.astype(a.dtype.newbyteorder()),
}


@pytest.mark.parametrize("arrange", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_08_any_layout_has_the_bits_of_the_contiguous_copy(arrange, dtype):
    for net, x in ((NEURON, X), (LAYER, XF)):
        x = np.ascontiguousarray(x, dtype)
        own = arrange(x)
        assert fastrnn.forward(net, own).tobytes() == fastrnn.forward(net, x).tobytes()
        ours, theirs = (
            fastrnn.backward(net, a, fastrnn.forward(net, x), wrt="x").x for a in (own, x)
        )
        assert ours.tobytes() == theirs.tobytes()


def test_08_a_broadcast_input_has_the_bits_of_its_copy():
    x = np.broadcast_to(X[:1], (5, 8))
    assert fastrnn.forward(NEURON, x).tobytes() == fastrnn.forward(NEURON, x.copy()).tobytes()


def test_09_inputs_may_be_read_only_and_stay_as_they_are():
    x, y, h0 = X.copy(), X.copy(), np.zeros(3)
    for array in (x, y, h0):
        array.flags.writeable = False
    before = [array.tobytes() for array in (x, y, h0)]
    fastrnn.forward(NEURON, x, h0=h0)
    fastrnn.loss_and_grad(NEURON, x, y, h0=h0, wrt=("w1", "w2", "b", "x", "h0"))
    fastrnn.influence(NEURON, x, h0=h0)
    fastrnn.diagnose(NEURON, x, h0=h0)
    assert [array.tobytes() for array in (x, y, h0)] == before


def test_10_out_is_writeable_of_the_results_shape_and_type_and_no_input():
    read_only = np.empty_like(X)
    read_only.flags.writeable = False
    own = X.copy()
    for out, error, message in (
        (read_only, ValueError, "out must be a writeable, aligned array"),
        (np.empty((3, 9)), ValueError, "out must have the shape of the result (3, 8), got (3, 9)"),
        (np.empty((3, 8), "f4"), TypeError, "out must be a NumPy array of float64, got float32"),
        (own, ValueError, "out must not share memory with an input"),
        (np.ma.masked_array(np.empty((3, 8))), TypeError, "out must be a plain NumPy array"),
    ):
        with refused(error, message):
            fastrnn.forward(NEURON, own, out=out)
    np.testing.assert_array_equal(own, X)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_11_masked_arrays_are_refused_and_subclasses_become_plain():
    with refused(TypeError, "x must not be a masked array"):
        fastrnn.forward(NEURON, np.ma.masked_array(X, X > 0))
    with refused(TypeError, "x must not be a masked array"):
        fastrnn.forward(NEURON, [np.ma.masked_array(row, row > 0) for row in X])
    states = fastrnn.forward(NEURON, np.matrix(X))
    assert type(states) is np.ndarray
    np.testing.assert_array_equal(states, fastrnn.forward(NEURON, X))


def test_12_labels_and_tensors():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X.T, columns=["a", "b", "c"])
    np.testing.assert_array_equal(fastrnn.forward(NEURON, table), fastrnn.forward(NEURON, X))
    np.testing.assert_array_equal(
        fastrnn.forward(NEURON, table["a"]), fastrnn.forward(NEURON, X[0])
    )


def test_12_a_tensor_that_wants_gradients_is_refused_with_advice():
    torch = pytest.importorskip("torch")
    with refused(TypeError, ".detach().cpu()"):
        fastrnn.forward(NEURON, torch.ones(3, requires_grad=True))


def test_13_lists_are_arrays_unless_they_are_ragged():
    np.testing.assert_array_equal(fastrnn.forward(NEURON, X.tolist()), fastrnn.forward(NEURON, X))
    with refused(ValueError, "x must be a regular array of numbers, got a ragged one"):
        fastrnn.forward(NEURON, [[1.0], [1.0, 2.0]])


@pytest.mark.slow
def test_14_more_than_2_to_the_31_numbers_are_indexed_right(tmp_path):
    count = 2**31 + 5
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(4 * count)
    x = np.memmap(tmp_path / "sparse", np.float32, "r+", shape=(count,))
    x[-3:] = [1, 0, 0.5]
    net = fastrnn.RNN(np.float32(1), np.float32(0.5), activation="identity")
    assert fastrnn.forward(net, x, keep="last") == 0.75


def test_15_sizes_whose_product_overflows_are_refused():
    x = np.broadcast_to(0.0, (1 << 29, 1 << 30))
    bank = fastrnn.RNN(1.0, np.ones(1 << 12))
    with pytest.raises((ValueError, MemoryError), match="states of shape|lanes|lengths"):
        fastrnn.forward(bank, x)


def test_16_what_does_not_fit_is_refused_with_its_size_and_another_way(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1e9)
    x = np.broadcast_to(0.0, (1 << 10, 1 << 20))
    with pytest.raises(
        MemoryError, match=r"states of shape .* need 8\.59 GB, 1 GB are available; use"
    ):
        fastrnn.forward(NEURON, x)


def test_17_unknown_names_suggest_the_closest():
    with refused(ValueError, "got 'tahn'; did you mean 'tanh'?"):
        fastrnn.RNN(1.0, 1.0, activation="tahn")
    with refused(ValueError, "keep must be one of all, last, got 'lst'; did you mean 'last'?"):
        fastrnn.forward(NEURON, X, keep="lst")
    with pytest.raises(AttributeError, match="forwrad"):
        fastrnn.forwrad  # noqa: B018


@pytest.mark.parametrize(
    ("workers", "error"), [(0, ValueError), (-99, ValueError), (True, TypeError), (1.5, TypeError)]
)
def test_18_workers_are_an_integer_and_not_0(workers, error):
    with pytest.raises(error, match="^workers must be"):
        fastrnn.forward(NEURON, X, workers=workers)


def test_18_more_workers_than_cores_are_as_good():
    assert fastrnn.forward(NEURON, X, workers=64).tobytes() == fastrnn.forward(NEURON, X).tobytes()


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        ([9, 1, 1], ValueError),
        ([-1, 1, 1], ValueError),
        ([1.0, 1, 1], TypeError),
        ([1, 1], ValueError),
    ],
)
def test_19_lengths_are_integers_from_0_to_the_number_of_steps(lengths, error):
    with pytest.raises(error, match="^lengths must"):
        fastrnn.forward(NEURON, X, lengths=lengths)


def test_19_a_sequence_of_no_steps_keeps_its_state_and_has_no_gradient():
    h0 = np.array([0.1, 0.2, 0.3])
    last = fastrnn.forward(NEURON, X, h0=h0, lengths=[8, 0, 3], keep="last")
    assert last[1] == h0[1]
    grad = fastrnn.backward(NEURON, X, np.ones(3), lengths=[8, 0, 3], per_sequence=True)
    assert grad.w2[1] == grad.w1[1] == grad.b[1] == 0
    assert math.isfinite(grad.w2[0])
