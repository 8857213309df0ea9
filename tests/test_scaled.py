"""Scaled against Python's fractions and mpmath."""

import math
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn import Scaled
from fastrnn.scaled import already_normal, exp

floats = st.floats(allow_nan=False, allow_infinity=False)
exponents = st.integers(-3000, 3000)
numbers = st.builds(Scaled, floats, exponents)


def fraction(value):
    return Fraction(float(value.mantissa)) * Fraction(2) ** int(value.exponent)


@given(floats)
def test_floats_make_a_round_trip(value):
    scaled = Scaled(value)
    assert fraction(scaled) == Fraction(value)
    assert scaled.to_float() == value
    assert value == 0 or 1 <= abs(scaled.mantissa) < 2


@given(numbers, numbers)
def test_product_and_quotient(a, b):
    eps = Fraction(np.finfo(float).eps)
    assert abs(fraction(a * b) - fraction(a) * fraction(b)) <= eps * abs(fraction(a) * fraction(b))
    if fraction(b):
        quotient = fraction(a) / fraction(b)
        assert abs(fraction(a / b) - quotient) <= eps * abs(quotient)


@given(numbers, numbers)
def test_sum_and_difference(a, b):
    eps = Fraction(np.finfo(float).eps)
    size = abs(fraction(a)) + abs(fraction(b))
    # What lies 2200 binades below the larger one is nothing beside it.
    assert abs(fraction(a + b) - (fraction(a) + fraction(b))) <= eps * size
    assert abs(fraction(a - b) - (fraction(a) - fraction(b))) <= eps * size


@given(st.lists(st.tuples(floats, exponents), min_size=1, max_size=20))
def test_product_and_extremes_of_many(parts):
    values = Scaled(*np.array(parts).T)
    terms = [fraction(value) for value in values]
    exactly = math.prod(terms)
    bound = len(parts) * Fraction(np.finfo(float).eps)
    assert abs(fraction(values.prod()) - exactly) <= bound * abs(exactly)
    assert fraction(values.max()) == max(terms)
    assert fraction(values.min()) == min(terms)


def test_folds_over_an_axis_and_over_nothing():
    values = Scaled([[1.0, -2.0, 3.0], [4.0, 5.0, np.nan]], 5000)
    assert (values.prod(axis=0) == Scaled([4.0, -10.0, np.nan], 10_000)).tolist() == [1, 1, 0]
    assert (values.max(axis=1)[0] == Scaled(3.0, 5000)).all()
    assert (values.min(axis=1)[0] == Scaled(-2.0, 5000)).all()
    assert np.isnan(values.max(axis=1).mantissa[1])
    assert float(Scaled(np.zeros(0)).prod()) == 1
    with pytest.raises(ValueError, match="empty Scaled array"):
        Scaled(np.zeros(0)).max()


def test_python_numbers_take_the_type_they_meet():
    one = Scaled(np.float32(1.0))
    for result in (one + 1.0, 2 * one, 1 - one, one / 3, 3.0 / one):
        assert result.dtype == np.float32
    assert (one * np.float64(2.0)).dtype == np.float64
    assert (np.float64(1e-300) + one == 1).all()


@given(numbers, numbers)
def test_comparisons(a, b):
    for name in ("__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__"):
        assert bool(getattr(a, name)(b)) == getattr(fraction(a), name)(fraction(b)), name


@given(st.lists(st.tuples(floats, exponents), min_size=1, max_size=20))
def test_sum(parts):
    values = Scaled(*np.array(parts).T)
    terms = [fraction(value) for value in (values[i] for i in range(len(values)))]
    bound = Fraction(len(parts) * np.finfo(float).eps) * sum(map(abs, terms))
    assert abs(fraction(values.sum()) - sum(terms)) <= bound


@given(numbers)
def test_logarithms_sign_and_negation(a):
    if fraction(a) == 0:
        assert (a.log(), a.log10(), a.sign) == (-np.inf, -np.inf, 0)
        return
    with mp.workdps(40):
        exactly = mp.mpf(float(a.mantissa)) * mp.mpf(2) ** int(a.exponent)
        assert a.log() == pytest.approx(float(mp.log(abs(exactly))), rel=1e-15, abs=1e-15)
        assert a.log10() == pytest.approx(float(mp.log10(abs(exactly))), rel=1e-15, abs=1e-15)
    assert a.sign == (1 if fraction(a) > 0 else -1)
    assert fraction(-a) == -fraction(a)
    assert fraction(abs(a)) == abs(fraction(a))


@given(numbers)
def test_text_has_the_decimal_digits(a):
    if fraction(a) == 0:
        assert repr(a) in ("0.000e+00", "-0.000e+00")
        return
    with mp.workdps(40):
        exactly = mp.mpf(float(a.mantissa)) * mp.mpf(2) ** int(a.exponent)
        ratio = mp.mpf(f"{a:.9e}") / exactly
        assert abs(ratio - 1) < 1e-9


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Scaled(1.0, -144_269), "5.053e-43430"),
        (Scaled(-3.0), "-3.000e+00"),
        (Scaled(0.0), "0.000e+00"),
        (Scaled(np.inf), "inf"),
        (Scaled(np.nan), "nan"),
        (Scaled([1.0, -2.0]), "[1.000e+00, -2.000e+00]"),
        (Scaled(1.0, 1e300), "2**1e+300"),
        (already_normal(-1.0, np.inf), "-2**inf"),
        (already_normal(1.0, np.nan), "2**nan"),
    ],
)
def test_repr(value, text):
    assert repr(value) == text


def test_range_of_floats_ends_where_it_ends():
    assert Scaled(1.0, 1024).to_float() == np.inf
    assert Scaled(1.0, -1074).to_float() == 5e-324
    assert Scaled(1.0, -1e300).to_float() == 0
    assert Scaled(np.float32(1.0), 128).to_float() == np.inf
    assert Scaled(np.float32(1.0), 128).to_float().dtype == np.float32


def test_arrays_on_either_side():
    values = Scaled([1.0, 2.0], [0, 5000])
    assert (np.array([2.0, 3.0]) * values).exponent.tolist() == [1, 5002]
    assert (1 / values).exponent.tolist() == [0, -5001]
    assert (values > 1).tolist() == [False, True]
    assert (values == [1.0, 2.0]).tolist() == [True, False]
    assert values[1:].shape == (1,)
    assert len(values) == 2
    assert float(values[0]) == 1.0


def test_infinities_and_nan_order_as_floats():
    assert Scaled(np.inf) > Scaled(1.0, 1e6)
    assert Scaled(-np.inf) < Scaled(-1.0, 1e6)
    nan = Scaled(np.nan)
    assert not any([nan < 1, nan > 1, nan == 1, nan == nan])


def test_sum_over_an_axis_and_over_nothing():
    values = Scaled(np.ones((2, 3)), np.full((2, 3), 1e6))
    assert values.sum(axis=1).mantissa.tolist() == [1.5, 1.5]
    assert values.sum(axis=0).exponent.tolist() == [1e6 + 1] * 3
    assert Scaled(np.zeros(0)).sum().to_float() == 0


def test_exp_at_any_argument():
    for u in (0.0, 1.0, -745.2, 1e5, -1e9, -1e18):
        with mp.workdps(40):
            ours = exp(u)
            truth = mp.exp(mp.mpf(u))
            ratio = mp.ldexp(mp.mpf(float(ours.mantissa)), int(ours.exponent)) / truth
            assert abs(mp.log(ratio)) <= 2 * np.finfo(float).eps * (1 + abs(u))
    assert exp(-np.inf).sign == 0


def test_truth_and_iteration():
    assert Scaled(1.0, -1e6)
    assert not Scaled(0.0)
    assert [float(value) for value in Scaled([1.0, 2.0])] == [1.0, 2.0]
    with pytest.raises(TypeError):
        list(Scaled(1.0))
    with pytest.raises(ValueError, match="truth value"):
        bool(Scaled([1.0, 2.0]))


def test_format_wants_an_e():
    with pytest.raises(ValueError, match="'e' format, got '.3f'"):
        format(Scaled(1.0), ".3f")
    with pytest.raises(TypeError, match="only a single Scaled"):
        format(Scaled([1.0]), ".3e")
