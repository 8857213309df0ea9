"""Bad input: one error that names the argument, what was expected and what came."""

import re

import numpy as np
import pytest

import fastrnn

NEURON = fastrnn.RNN(1.0, 0.5)
BANK = fastrnn.RNN(1.0, [0.1, 0.5, 0.9])
LAYER = fastrnn.RNN(np.ones((4, 2)), np.eye(4))
X = np.zeros((3, 5))
XF = np.zeros((3, 5, 2))

WRONG_NETS = [
    (dict(w1=1.0, w2=np.ones((8, 4))), ValueError, r"w2 must have shape \(hidden_size, hidden_size\) = \(8, 8\), got \(8, 4\)"),
    (dict(w1=1.0, w2=np.ones((2, 2, 2, 2))), ValueError, "w2 must be scalar or"),
    (dict(w1=1.0, w2=np.ones((0, 0))), ValueError, "w2 must not be empty"),
    (dict(w1=[1.0, 2.0], w2=0.5), ValueError, "w1 must be scalar as w2"),
    (dict(w1=[1.0, 2.0], w2=[1.0, 2.0, 3.0]), ValueError, r"w1 must be scalar or \(bank_size,\) = \(3,\)"),
    (dict(w1=np.ones((3, 2)), w2=np.eye(4)), ValueError, r"w1 must have shape .* = \(4, 2\), got \(3, 2\)"),
    (dict(w1=np.ones((4, 0)), w2=np.eye(4)), ValueError, "w1 must have at least one input"),
    (dict(w1=np.ones((4, 2)), w2=np.eye(4), b=np.ones(3)), ValueError, r"b must have shape .* = \(4,\), got \(3,\)"),
    (dict(w1=np.ones((4, 2)), w2=np.eye(4), w3=np.ones(3)), ValueError, "w3 must have shape"),
    (dict(w1=np.ones((4, 2)), w2=np.eye(4), w3=np.ones((2, 4)), b3=np.ones(3)), ValueError, "b3 must have shape"),
    (dict(w1=np.ones((4, 2)), w2=np.eye(4), w3=np.ones((0, 4))), ValueError, "w3 must have at least one output"),
    (dict(w1=1.0, w2=0.5, b3=1.0), ValueError, "b3 must come with w3"),
    (dict(w1=1.0, w2=np.nan), ValueError, "w2 must be finite, got nan"),
    (dict(w1=np.inf, w2=0.5), ValueError, "w1 must be finite, got inf"),
    (dict(w1=1.0, w2=0.5, activation="tahn"), ValueError, "activation must be one of tanh, relu, sigmoid, identity, got 'tahn'; did you mean 'tanh'"),
    (dict(w1=1.0, w2=0.5, activation=None), ValueError, "activation must be one of"),
    (dict(w1="one", w2=0.5), TypeError, "w1 must be an array of numbers, got 'one'"),
    (dict(w1=["one"], w2=0.5), TypeError, "w1 must be float32 or float64 .*, got <U3"),
    (dict(w1=1.0, w2=0.5 + 1j), TypeError, "w2 must be float32 or float64 .*, got complex128"),
    (dict(w1=1.0, w2=[[1.0], [1.0, 2.0]]), ValueError, "w2 must be a regular array"),
]  # fmt: skip

WRONG_X = [
    (
        NEURON,
        1.0,
        ValueError,
        r"x must have shape \(T,\) or \(B, T\) for a scalar neuron, got \(\)",
    ),
    (NEURON, np.zeros((2, 2, 2, 2)), ValueError, r"x must have shape \(T,\) or \(B, T\)"),
    (NEURON, XF, ValueError, r"x must have shape \(T,\) or \(B, T\)"),
    (LAYER, X, ValueError, r"x must have shape \(B, T, F\) with F = 2 for a layer, got \(3, 5\)"),
    (LAYER, np.zeros((3, 5, 4)), ValueError, r"with F = 2"),
    (NEURON, X.astype(complex), TypeError, "x must be float32 or float64"),
    (NEURON, X.astype(np.float16), TypeError, "got float16"),
    (NEURON, X.astype(np.longdouble), TypeError, "got float128"),
    (NEURON, X.astype(object), TypeError, "got object"),
    (NEURON, X.astype(str), TypeError, "x must be float32 or float64"),
    (NEURON, X.astype("datetime64[s]"), TypeError, "x must be float32 or float64"),
    (NEURON, np.zeros(3, dtype=[("a", float)]), TypeError, "x must be float32 or float64"),
    (NEURON, np.ma.masked_array(X, X == 0), TypeError, "x must not be a masked array"),
    (NEURON, [[1.0, 2.0], [3.0]], ValueError, "x must be a regular array"),
]

WRONG_OPTIONS = [
    (lambda: fastrnn.forward(1.0, X), TypeError, "net must be a fastrnn.RNN, got float"),
    (lambda: fastrnn.forward(NEURON, X, keep="lst"), ValueError, "keep must be one of all, last, got 'lst'; did you mean 'last'"),
    (lambda: fastrnn.forward(NEURON, X, h0=np.zeros(4)), ValueError, r"h0 must have shape \(batch_size,\) = \(3,\), got \(4,\)"),
    (lambda: fastrnn.forward(NEURON, X, h0=0.0), ValueError, "h0 must have shape"),
    (lambda: fastrnn.forward(BANK, X, h0=np.zeros((2, 3))), ValueError, r"h0 must have shape \(bank_size, batch_size\) = \(3, 3\) or \(batch_size,\) = \(3,\), got \(2, 3\)"),
    (lambda: fastrnn.forward(LAYER, XF, h0=np.zeros((3, 5))), ValueError, r"= \(3, 4\), got \(3, 5\)"),
    (lambda: fastrnn.forward(NEURON, X, lengths=[1, 2]), ValueError, r"lengths must have shape \(batch_size,\) = \(3,\), got \(2,\)"),
    (lambda: fastrnn.forward(NEURON, X, lengths=[1, 2, 6]), ValueError, "lengths must be from 0 to T = 5, got 6"),
    (lambda: fastrnn.forward(NEURON, X, lengths=[1, -2, 3]), ValueError, "lengths must be from 0 to T = 5, got -2"),
    (lambda: fastrnn.forward(NEURON, X, lengths=[1.0, 2.0, 3.0]), TypeError, "lengths must be integers, got float64"),
    (lambda: fastrnn.forward(NEURON, X, lengths=np.ma.masked_array([1, 2, 3])), TypeError, "lengths must be integers, got a masked array"),
    (lambda: fastrnn.forward(NEURON, X, lengths=[1, [2], 3]), ValueError, "lengths must be one integer a sequence"),
    (lambda: fastrnn.backward(NEURON, X, X, wrt=None), TypeError, "wrt must be names of w1, w2, b, x, h0, got NoneType"),
    (lambda: fastrnn.forward(NEURON, X, workers=0), ValueError, "workers must be positive"),
    (lambda: fastrnn.forward(NEURON, X, workers=-1000), ValueError, "workers must be positive"),
    (lambda: fastrnn.forward(NEURON, X, workers=True), TypeError, "workers must be an integer, got a bool"),
    (lambda: fastrnn.forward(NEURON, X, workers=1.5), TypeError, "workers must be an integer, got float"),
    (lambda: fastrnn.backward(NEURON, X, np.zeros((3, 4))), ValueError, r"dh must have shape \(batch_size, steps\) = \(3, 5\) or \(batch_size,\) = \(3,\), got \(3, 4\)"),
    (lambda: fastrnn.backward(NEURON, X, X, wrt="w3"), ValueError, "wrt must be one of w1, w2, b, x, h0, got 'w3'"),
    (lambda: fastrnn.loss_and_grad(NEURON, X, X, wrt=["w"]), ValueError, "wrt must be one of"),
    (lambda: fastrnn.loss_and_grad(NEURON, X, X[0]), ValueError, r"y must have shape \(batch_size, steps\) = \(3, 5\), got \(5,\)"),
    (lambda: fastrnn.loss_and_grad(NEURON, X, X, loss="mae"), ValueError, "loss must be one of mse, got 'mae'"),
    (lambda: fastrnn.influence(NEURON, X, v=[1.0]), ValueError, "v must be None for a scalar neuron"),
    (lambda: fastrnn.influence(LAYER, XF, v=np.ones(3)), ValueError, r"v must have shape \(output_size,\) = \(4,\), got \(3,\)"),
    (lambda: fastrnn.forward(fastrnn.RNN(1.0, 1e300), X.astype(np.float32)), ValueError, "w2 must be representable in float32, got 1e\\+300"),
    (lambda: fastrnn.forward(fastrnn.RNN(1.0, 1e-300), X.astype(np.float32)), ValueError, "w2 must be representable in float32, got 1e-300"),
    (lambda: fastrnn.forward(NEURON, X, out=np.zeros((3, 4))), ValueError, r"out must have the shape of the result \(3, 5\), got \(3, 4\)"),
    (lambda: fastrnn.forward(NEURON, X, out=np.zeros((3, 5), "f")), TypeError, "out must be a NumPy array of float64, got float32"),
    (lambda: fastrnn.forward(NEURON, X, out=[0.0]), TypeError, "out must be a NumPy array of float64, got list"),
    (lambda: fastrnn.forward(NEURON, X, out=X), ValueError, "out must not share memory with an input"),
    (lambda: fastrnn.forward(NEURON, X, out=np.broadcast_to(0.0, (3, 5))), ValueError, "out must be a writeable, aligned array"),
    (lambda: fastrnn.influence(NEURON, X, memory=0), ValueError, "memory must be a positive number of bytes, got 0"),
    (lambda: fastrnn.influence(NEURON, X, memory=1e6), TypeError, "memory must be a whole number of bytes, got float"),
    (lambda: fastrnn.influence(NEURON, X, memory=True), TypeError, "memory must be a number of bytes, got a bool"),
    (lambda: fastrnn.influence(LAYER, XF, memory=10), ValueError, "memory must be at least [0-9]+ bytes for this job, got 10"),
]  # fmt: skip


@pytest.mark.parametrize(("weights", "error", "match"), WRONG_NETS)
def test_wrong_weights(weights, error, match):
    with pytest.raises(error, match=match):
        fastrnn.RNN(**weights)


@pytest.mark.parametrize(("net", "x", "error", "match"), WRONG_X)
@pytest.mark.parametrize("verb", ["forward", "predict", "influence", "diagnose"])
def test_wrong_x(verb, net, x, error, match):
    with pytest.raises(error, match=match):
        getattr(fastrnn, verb)(net, x)
    with pytest.raises(error, match=match):
        getattr(fastrnn.reference, verb)(net, x)


@pytest.mark.parametrize(("call", "error", "match"), WRONG_OPTIONS)
def test_wrong_options(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_states_larger_than_memory_are_refused_before_anything_is_allocated():
    x = np.broadcast_to(np.zeros(1), (1 << 20, 1 << 20))
    with pytest.raises(MemoryError, match=re.escape("need 8.8e+03 GB") + ".*or keep='last'"):
        fastrnn.forward(NEURON, x)


def test_a_tensor_with_gradient_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"x must be an array in main memory .*detach"):
        fastrnn.forward(NEURON, torch.zeros(3, requires_grad=True))


def test_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'foward'"):
        fastrnn.foward  # noqa: B018
