"""States as mantissa and exponent: plain floats where they reach, number by number elsewhere."""

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from benchmarks.exact import number
from fastrnn import exact_walks, lanes, reach
from fastrnn.sequences import sequences
from tests import cases
from tests.cases import ACTIVATIONS


def _forbid_the_exact_walk(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("walked number by number")

    monkeypatch.setattr(exact_walks, "forward", refuse)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", cases.NETS)
def test_nothing_is_walked_number_by_number_within_the_range_of_floats(
    monkeypatch, kind, activation, dtype
):
    _forbid_the_exact_walk(monkeypatch)
    net = cases.NETS[kind](activation, dtype)
    x = cases.inputs(net, 4, 50, dtype)
    x[1] = 0
    x[2, 0], x[2, 1], x[2, 2] = np.inf, -np.inf, np.nan
    options = {"lengths": [50, 50, 50, 20]}
    plain = fastrnn.forward(net, x, **options)
    for numbers in (1 << 20, 500, 1):
        monkeypatch.setattr(reach, "PIECE_NUMBERS", numbers)
        found = fastrnn.forward(net, x, scaled=True, **options)
        np.testing.assert_array_equal(found.to_float(), plain)
        last = fastrnn.forward(net, x, keep="last", scaled=True, **options)
        np.testing.assert_array_equal(
            last.to_float(), fastrnn.forward(net, x, keep="last", **options)
        )


def test_only_the_sequence_that_leaves_floats_is_walked_with_exponents(monkeypatch):
    _forbid_the_exact_walk(monkeypatch)
    net = fastrnn.RNN(np.ones(2), np.array([0.5, 4.0]), activation="identity")
    x = np.zeros((3, 600))
    x[0, 0], x[1, -1] = 1, 1
    chosen, states = [], lanes.Lanes.states

    def noted(own, *arguments):
        chosen.extend(own.chosen)
        return states(own, *arguments)

    monkeypatch.setattr(lanes.Lanes, "states", noted)
    found = fastrnn.forward(net, x, scaled=True)
    assert chosen == [3]
    steps = np.arange(600)
    assert found[1, 0].log10() == pytest.approx(2 * steps * np.log10(2), rel=1e-14)
    np.testing.assert_array_equal(found[0, 0].to_float(), 0.5**steps)
    assert (found[:, 2].sign == 0).all()


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_sum_that_overflows_on_the_way_has_its_true_state(activation, dtype):
    """large + large - 3 large: plain floats answer f(inf), and no NaN shows it."""
    large = 0.75 * np.finfo(dtype).max
    w2 = np.array([[large, large, -large, -large, -large]] * 5, dtype)
    net = fastrnn.RNN(np.eye(5, dtype=dtype), w2, activation=activation)
    x = np.zeros((1, 2, 5), dtype)
    x[0, 0] = {"tanh": 30, "sigmoid": 1000}.get(activation, 1)
    found = fastrnn.forward(net, x, scaled=True)[0]
    assert (found[0].to_float() == 1).all()
    truth = {"tanh": -1, "sigmoid": 0, "relu": 0, "identity": -large}[activation]
    assert (found[1].to_float() == truth).all()
    assert (fastrnn.forward(net, x)[0, 1] != truth).all()


def test_a_product_that_overflows_decides_the_sign():
    net = fastrnn.RNN(1e10, -1e300)
    assert float(fastrnn.forward(net, [1e300], h0=1e300, scaled=True)[0]) == -1


def test_sums_of_products_that_underflow_keep_their_digits():
    """Each product is below half of the least float64, their sum is 810 of them."""
    net = fastrnn.RNN(np.full((1, 2000), 1e-320), [[1e300]])
    x = np.zeros((1, 2, 2000))
    x[0, 0] = 2e-4
    found = fastrnn.forward(net, x, scaled=True)[0, :, 0]
    least = mp.mpf(2) ** -1074
    first = 2000 * mp.mpf(1e-320) * mp.mpf(2e-4)
    assert abs(number(found[0]) - first) <= least / 2
    assert abs(number(found[1]) / (number(found[0]) * mp.mpf(1e300)) - 1) < 1e-15
    assert fastrnn.forward(net, x)[0, 0, 0] == 0


@pytest.mark.parametrize("kind", cases.NETS)
def test_states_do_not_depend_on_how_a_walk_is_cut(monkeypatch, kind):
    net = cases.NETS[kind]("identity", "float64")
    x = 1e200 * cases.inputs(net, 3, 700)
    x[0, :50] *= 1e-200
    found = fastrnn.forward(net, x, scaled=True)
    monkeypatch.setattr(reach, "PIECE_NUMBERS", 1)
    again = fastrnn.forward(net, x, scaled=True)
    last = fastrnn.forward(net, x, keep="last", scaled=True)
    job = sequences(net, x)
    end = (slice(None), slice(None), -1)
    for part in ("mantissa", "exponent"):
        every = getattr(found, part)
        assert every.tobytes() == getattr(again, part).tobytes()
        ends = every.reshape(job.size("KBTH"))[end]
        assert ends.tobytes() == getattr(last, part).tobytes()


@pytest.mark.parametrize("kind", cases.NETS)
@pytest.mark.parametrize("shape", [(0, 5), (2, 0)], ids=str)
@pytest.mark.parametrize("keep", ["all", "last"])
def test_no_steps_and_no_sequences_have_states(kind, shape, keep):
    net = cases.NETS[kind]("relu", "float64")
    x = cases.inputs(net, *shape)
    found = fastrnn.forward(net, x, scaled=True, keep=keep)
    np.testing.assert_array_equal(found.to_float(), fastrnn.forward(net, x, keep=keep))


@pytest.mark.parametrize("scale", [1.0, 1e-320])
def test_every_zero_is_positive(scale):
    """Also of a net whose products may underflow."""
    found = fastrnn.forward(fastrnn.RNN(1.0, scale, -0.0), [-0.0, 0.0, -0.0], scaled=True)
    assert (found.sign == 0).all()
    assert not np.signbit(found.mantissa).any()
