"""Nets: what they are made of stays as it was, in copies too."""

import copy
import dataclasses
import multiprocessing
import operator
import pickle

import numpy as np
import pytest

import fastrnn
from tests import cases

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "replace": dataclasses.replace,
    "copy of a copy": lambda net: copy.deepcopy(copy.copy(net)),
}
NETS = {
    **{name: make("relu", "float32") for name, make in cases.NETS.items()},
    "numbers": fastrnn.RNN(1, 0.5, 0.25, w3=2.0),
}


def bits(net, dtype="float64"):
    return [weight.tobytes() for weight in net.weights(np.dtype(dtype))]


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_the_same_net_and_read_only(name, kind):
    net = NETS[kind]
    fastrnn.forward(net, np.zeros((1, 2, net.input_size))[..., 0 if net.is_neuron else slice(None)])
    twin = COPIES[name](net)
    assert (repr(twin), twin.dtype, twin.activation) == (repr(net), net.dtype, net.activation)
    assert bits(twin) == bits(net)
    for weight in net.weight_names:
        own = getattr(twin, weight)
        assert own.dtype == getattr(net, weight).dtype
        with pytest.raises(ValueError, match="read-only"):
            own[...] = 0


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_carries_no_converted_weights(name):
    net = fastrnn.RNN(1.0, [0.1, 0.2])
    before = net.weights(np.dtype("float64"))
    twin = COPIES[name](net)
    assert not np.shares_memory(twin.w2, net.w2)
    # Whoever forces a weight open gets the answer of that weight, not of one that was kept.
    twin.w2.flags.writeable = True
    twin.w2[:] = 0
    assert twin.weights(np.dtype("float64")).w2.ravel().tolist() == [0, 0]
    assert before.w2.ravel().tolist() == [0.1, 0.2]


def test_converted_weights_are_read_only():
    for net in (fastrnn.RNN(1.0, 0.5), cases.layer(3, outputs=2)):
        for dtype in ("float32", "float64"):
            for weight in net.weights(np.dtype(dtype)):
                with pytest.raises(ValueError, match="read-only"):
                    weight[...] = 0


def test_a_net_and_a_verb_reach_another_process_whole():
    net, x = fastrnn.RNN(1.0, [0.1, 0.2]), np.linspace(-1, 1, 30)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(operator.attrgetter("w2.flags.writeable"), (net,)) is False
        states = pool.apply(fastrnn.forward, (net, x))
    assert states.tobytes() == fastrnn.forward(net, x).tobytes()


def test_a_net_with_another_weight():
    net = fastrnn.RNN(1.0, 0.9, 0.1)
    other = dataclasses.replace(net, w2=0.7)
    assert bits(other) == bits(fastrnn.RNN(1.0, 0.7, 0.1))
    assert bits(net) == bits(fastrnn.RNN(1.0, 0.9, 0.1))
    x = np.linspace(-1, 1, 9)
    assert (
        fastrnn.forward(other, x).tobytes()
        == fastrnn.forward(fastrnn.RNN(1.0, 0.7, 0.1), x).tobytes()
    )
    assert dataclasses.replace(net, activation="relu").activation == "relu"


def test_a_replaced_number_still_takes_the_type_of_what_it_meets():
    net, x = fastrnn.RNN(1.0, 0.9), np.ones(3, "float32")
    assert dataclasses.replace(net, w2=0.7).dtype is None
    assert fastrnn.forward(dataclasses.replace(net, w2=0.7), x).dtype == np.float32
    assert dataclasses.replace(net, w2=np.float32(0.7)).dtype == np.float32
    assert dataclasses.replace(net, w2=np.array([0.7, 0.8])).dtype == np.float64
    # What is computed from a weight is an array like any other.
    assert fastrnn.RNN(net.w1 + 0, net.w2).dtype == np.float64
    single = fastrnn.RNN(np.float32(1), np.float32(0.9))
    assert dataclasses.replace(single, w2=0.7).dtype == np.float32


def test_a_read_out_is_added_changed_and_removed():
    net = fastrnn.RNN(1.0, 0.9)
    with_readout = dataclasses.replace(net, w3=2.0)
    assert (with_readout.w3, with_readout.b3) == (2.0, 0.0)
    assert dataclasses.replace(with_readout, b3=1.0).b3 == 1.0
    assert not dataclasses.replace(with_readout, w3=None, b3=None).has_readout
    with pytest.raises(ValueError, match="b3 must come with w3: .* b3=None"):
        dataclasses.replace(with_readout, w3=None)


def test_what_follows_from_the_weights_is_not_replaced():
    with pytest.raises((ValueError, TypeError), match="dtype"):
        dataclasses.replace(fastrnn.RNN(1.0, 0.9), dtype="float32")
    with pytest.raises(ValueError, match="w1 must be scalar or"):
        dataclasses.replace(fastrnn.RNN([1.0, 2.0], [0.5, 0.6]), w2=[0.1, 0.2, 0.3])
