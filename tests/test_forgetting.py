"""Which W2 forgets most slowly."""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn.forgetting import in_words, pace, slowest
from fastrnn.sweep.job import parse_w2, prepare
from fastrnn.sweep.run import sweep


def test_the_largest_exponent_below_zero_and_its_neighbours_within_the_error():
    w2 = np.array([4.0, 0.1, 1.0, 2.0, 3.0])
    exponent = np.array([0.3, -3.0, -1.05, -1.0, -1.5])
    stderr = np.array([0.1, 0.1, 0.1, 0.1, 0.1])
    assert slowest(w2, exponent, stderr) == (2.0, 1.0, 2.0, -1.0)
    # Without errors there is one.
    assert slowest(w2, exponent, np.full(5, np.nan)) == (2.0, 2.0, 2.0, -1.0)


def test_nothing_is_said_where_nothing_forgets():
    assert slowest([1.0, 2.0], [0.0, 0.7], [0.0, 0.0]) is None
    assert slowest([1.0, 2.0], [math.nan, -math.inf], [0.0, 0.0]) is None
    assert in_words([1.0], [0.5], [0.1]) == ""


def test_pace_in_words():
    assert pace(-math.log(4.5)) == "a factor of 4.5 a step, 0.1% left after 5 steps"
    assert pace(-7.0) == "a factor of 1.1e+03 a step, 0.1% left after 1 step"
    assert pace(-2000.0) == "10^-869 a step, 0.1% left after 1 step"


@pytest.mark.parametrize("dropped", [0, 1, 2, 5, 11])
def test_the_answer_does_not_hang_on_the_last_values(dropped):
    series = np.atleast_2d(fastrnn.load_series("sunspots"))
    series = series[:, : series.shape[1] - dropped]
    prepared = prepare(series, normalize=True, window=None, dtype="float64")
    table = sweep(prepared.values, parse_w2("0.1:10:41"))
    found = slowest(table.w2, table.exponent, table.exponent_stderr)
    assert found is not None
    assert 0.9 <= found.w2 <= 1.4
    assert found.low <= 1.12 <= found.high


def test_a_table_of_neurons_names_their_w2_and_the_answer():
    net = fastrnn.RNN(1.0, np.array([0.1, 0.9, 5.0]))
    x = np.sin(np.arange(200.0))
    text = fastrnn.diagnose(net, x).summary()
    assert [line.split()[0] for line in text.splitlines()[1:4]] == ["0.1", "0.9", "5"]
    assert text.splitlines()[-1].startswith("forgets most slowly: W2 = 0.9")
    # Nets that differ in something else are numbered.
    net = fastrnn.RNN(np.array([1.0, 2.0]), np.array([0.9, 0.9]))
    text = fastrnn.diagnose(net, x).summary()
    assert [line.split()[0] for line in text.splitlines()[1:3]] == ["0", "1"]
