"""Bad input: one error that names the argument, what was expected and what came."""

import inspect
import pickle
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn.keywords import suggests_keywords

NEURON = fastrnn.RNN(1.0, 0.5)
BANK = fastrnn.RNN(1.0, [0.1, 0.5, 0.9])
LAYER = fastrnn.RNN(np.ones((4, 2)), np.eye(4))
X = np.zeros((3, 5))
XF = np.zeros((3, 5, 2))


class Unreadable:
    """What has numbers, but does not give them."""

    def __array__(self, *args, **kwargs):
        raise ValueError("no such column")


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
    (dict(w1=1.0, w2=0.5, b3=1.0), ValueError, "b3 must come with w3: .*, and b3=None then"),
    (dict(w1=np.ones(4), w2=np.eye(4)), ValueError, r"w1 must have shape \(hidden_size, input_size\) = \(4, 1\), got \(4,\)"),
    (dict(w1=np.ones((2, 4)), w2=np.eye(4)), ValueError, r"w1 must have shape .* = \(4, 2\), got \(2, 4\); its transpose would fit$"),
    (dict(w1=np.ones((4, 1)), w2=np.eye(4), w3=np.ones((4, 1))), ValueError, r"w3 must have shape .* = \(1, 4\), got \(4, 1\); its transpose would fit$"),
    (dict(w1=np.ones((4, 1)), w2=np.eye(4), w3=np.ones(4)), ValueError, r"w3 must have shape .* = \(1, 4\), got \(4,\)$"),
    (dict(w1=1.0, w2=np.eye(4)), ValueError, r"w1 must have shape \(hidden_size, input_size\) = \(4, 1\), got \(\)"),
    (dict(w1=np.ones((2, 4)), w2=np.ones((2, 4, 4))), ValueError, r"w1 must have shape .* = \(4, 1\) or .* = \(2, 4, 1\), got \(2, 4\)"),
    (dict(w1=1.0, w2=None), TypeError, "w2 must be an array of numbers, got None"),
    (dict(w1=1.0, w2=[0.5, None]), TypeError, "w2 must be .*, got object with NoneType in it"),
    (dict(w1=1.0, w2=0.5, activate="relu"), TypeError, r"unexpected keyword argument 'activate'. Did you mean 'activation'\?"),
    (dict(w1=1.0, w2=np.nan), ValueError, "w2 must be finite, got nan"),
    (dict(w1=np.inf, w2=0.5), ValueError, "w1 must be finite, got inf"),
    (dict(w1=1.0, w2=0.5, activation="tahn"), ValueError, "activation must be one of tanh, relu, sigmoid, identity, got 'tahn'; did you mean 'tanh'"),
    (dict(w1=1.0, w2=0.5, activation="RELU"), ValueError, "got 'RELU'; did you mean 'relu'"),
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
    (NEURON, [np.ma.masked_array(X[0])], TypeError, "x must not be a masked array"),
    (NEURON, (X[0], np.ma.masked_array(X[0])), TypeError, "x must not be a masked array"),
    (LAYER, [[np.ma.masked_array(XF[0, 0])]], TypeError, "x must not be a masked array"),
    (NEURON, None, TypeError, "x must be an array of numbers, got None"),
    (NEURON, [1.0, None], TypeError, "x must be .*, got object with NoneType in it"),
    (NEURON, [Decimal(1)], TypeError, r"x must be .*, got object: convert it with astype\(float\)"),
    (
        NEURON,
        "sunspots",
        TypeError,
        "x must be an array of numbers, got 'sunspots': read a file with fastrnn.load_series",
    ),
    (NEURON, Path("x.csv"), TypeError, "x must be an array of numbers, got .*x.csv.*load_series"),
    (NEURON, {"a": 1.0}, TypeError, "x must be an array of numbers, got a dict"),
    (NEURON, {1.0}, TypeError, "x must be an array of numbers, got a set"),
    (NEURON, object(), TypeError, r"x must be .*, got object \(object\)"),
    (
        NEURON,
        fastrnn.Scaled(X),
        TypeError,
        r"x must be an array of numbers in main memory: .*say \.to_float\(\)",
    ),
    (
        LAYER,
        np.zeros((5, 2)),
        ValueError,
        r"got \(5, 2\); a single sequence has the shape \(1, 5, 2\)",
    ),
    (
        NEURON,
        [[1.0, 2.0], [3.0]],
        ValueError,
        r"x must be a regular array of numbers, got a ragged one \(pad shorter sequences, and pass lengths=\)",
    ),
    (NEURON, Unreadable(), ValueError, "x must be an array of numbers: no such column"),
]

WRONG_OPTIONS = [
    (lambda: fastrnn.forward(1.0, X), TypeError, "net must be a fastrnn.RNN, got float"),
    (lambda: fastrnn.forward(NEURON, X, keep="lst"), ValueError, "keep must be one of all, last, got 'lst'; did you mean 'last'"),
    (lambda: fastrnn.forward(NEURON, X, h0=np.zeros(4)), ValueError, r"h0 must have shape \(batch_size,\) = \(3,\), got \(4,\)"),
    (lambda: fastrnn.forward(NEURON, X, h0=0.0), ValueError, "h0 must have shape"),
    (lambda: fastrnn.forward(NEURON, X[0], h0=np.zeros(2)), ValueError, r"h0 must have shape \(\) \(a number\), got \(2,\)"),
    (lambda: fastrnn.forward(BANK, X[0], h0=np.zeros(2)), ValueError, r"h0 must have shape \(bank_size,\) = \(3,\) or \(\) \(a number\), got \(2,\)"),
    (lambda: fastrnn.forward(NEURON, X, h0="0"), TypeError, "h0 must be an array of numbers, got '0'$"),
    (lambda: fastrnn.loss_and_grad(NEURON, X, X.T), ValueError, r"y must have shape .* = \(3, 5\), got \(5, 3\); its transpose would fit \(columns of a table are sequences\)$"),
    (lambda: fastrnn.backward(NEURON, X, X.T), ValueError, r"dh must have .*, got \(5, 3\); its transpose would fit"),
    (lambda: fastrnn.loss_and_grad(NEURON, X, "y"), TypeError, "y must be .* got 'y': read a file with fastrnn.load_series"),
    (lambda: fastrnn.loss_and_grad(NEURON, iter(X), X), TypeError, "x must be an array of numbers, got an iterator .*: numpy.stack its items"),
    (lambda: fastrnn.loss_and_grad(NEURON, X, iter(X)), TypeError, "y must be an array of numbers, got an iterator"),
    (lambda: fastrnn.predict(NEURON, iter(X)), TypeError, "x must be an array of numbers, got an iterator"),
    (lambda: fastrnn.backward(NEURON, X, [np.ma.masked_array(row) for row in X]), TypeError, "dh must not be a masked array"),
    (lambda: fastrnn.forward(NEURON, X, worker=2), TypeError, r"forward\(\) got an unexpected keyword argument 'worker'. Did you mean 'workers'\?"),
    (lambda: fastrnn.loss_and_grad(NEURON, X, X, length=[5, 5, 5]), TypeError, r"'length'. Did you mean 'lengths'\?"),
    (lambda: fastrnn.forward(NEURON, X, zzz=2), TypeError, "unexpected keyword argument 'zzz'$"),
    (lambda: fastrnn.forward(NEURON), TypeError, r"forward\(\) missing 1 required positional argument: 'x'$"),
    (lambda: fastrnn.forward(NEURON, X, scaled="no"), TypeError, "scaled must be True or False, got 'no'"),
    (lambda: fastrnn.backward(NEURON, X, X, per_sequence="no"), TypeError, "per_sequence must be True or False, got 'no'"),
    (lambda: fastrnn.loss_and_grad(NEURON, X, X, scaled="no"), TypeError, "scaled must be True or False, got 'no'"),
    (lambda: fastrnn.phase_diagram(X[0], w2=[1.0, 2.0], b=[1.0, 2.0], refine=1.5), TypeError, "refine must be an integer, got float"),
    (lambda: fastrnn.phase_diagram(X[0], w2=[1.0, 2.0], b=[1.0, 2.0], refine=-1), ValueError, "refine must be at least 0, got -1"),
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
    (lambda: fastrnn.forward(NEURON, X, out=np.ma.masked_array(np.zeros((3, 5)), True)), TypeError, "out must be a plain NumPy array, got MaskedArray"),
    (lambda: fastrnn.forward(NEURON, X, out=np.zeros((3, 5)).view(np.matrix)), TypeError, "out must be a plain NumPy array, got matrix"),
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
    for x in (torch.zeros(3, requires_grad=True), torch.zeros(3, device="meta")):
        with pytest.raises(
            TypeError, match=r"x must be an array of numbers in main memory .*detach"
        ):
            fastrnn.forward(NEURON, x)


def test_a_packed_sequence_is_to_be_unpacked():
    torch = pytest.importorskip("torch")
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    with pytest.raises(
        TypeError, match=r"x must be .*, got a PackedSequence: .*pad_packed_sequence"
    ):
        fastrnn.forward(NEURON, packed)


class TracerArrayConversionError(TypeError):
    """Named as JAX's."""


class Tracer:
    """What JAX calls a function with while it compiles it."""

    shape, dtype = (5,), np.dtype("float32")

    def __array__(self, *args, **kwargs):
        raise TracerArrayConversionError(
            "The numpy.ndarray conversion method __array__() was called on traced array"
        )


TRACED = "must be an array of known numbers, got a JAX tracer, .*outside of jit.*jax.pure_callback"


@pytest.mark.parametrize("name", ["x", "h0", "y", "dh", "lengths"])
def test_a_tracer_is_told_what_to_do(name):
    given = {"x": X, "y": X, "dh": X}
    verb = {"y": fastrnn.loss_and_grad, "dh": fastrnn.backward}.get(name, fastrnn.forward)
    own = inspect.signature(verb).parameters
    options = {key: value for key, value in given.items() if key in own} | {name: Tracer()}
    with pytest.raises(TypeError, match=f"{name} {TRACED}"):
        verb(NEURON, **options)


def test_a_tracer_of_jax_is_told_what_to_do():
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match=f"x {TRACED}"):
        jax.jit(lambda x: fastrnn.forward(NEURON, x))(np.ones(3, "float32"))


VERBS = [
    getattr(fastrnn, name)
    for name in ("backward", "diagnose", "fixed_points", "forward", "influence", "jacobian_norms",
                 "loss_and_grad", "lyapunov", "phase_diagram", "predict")
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_every_verb_suggests_keywords_and_is_else_a_plain_function(verb):
    names = [
        name
        for name, parameter in inspect.signature(verb).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ] or ["net"]
    with pytest.raises(TypeError, match=f"Did you mean {names[-1]!r}"):
        verb(**{f"{names[-1]}_": None})
    assert pickle.loads(pickle.dumps(verb)) is verb
    # doctest looks for examples among functions with a module's own globals.
    assert verb.__globals__ is inspect.getmodule(verb).__dict__


def test_errors_from_within_a_call_are_left_as_they_are():
    @suggests_keywords
    def verb(option=None):
        return len(option=3)

    with pytest.raises(TypeError) as found:
        verb()
    assert "Did you mean" not in str(found.value)


def test_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'foward'"):
        fastrnn.foward  # noqa: B018
