"""Scaled as an array: Python's operators and NumPy's functions, held against mpmath."""

import copy
import dataclasses
import math
import operator
import pickle

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrnn import Scaled

# Digits in which sums of any numbers below are right to far more than a float's.
BITS = 300
# NumPy holds its transcendental functions to 4 units in the last place.
ULP = 4


FAR = st.integers(-3000, 3000)
few = settings(max_examples=20, deadline=None)


def numbers(shape=(2, 3), exponents=FAR):
    """Arrays of either type: ordinary floats and far ones, zeros and subnormal mantissas."""

    def of(dtype):
        floats = st.floats(
            allow_nan=False, allow_infinity=False, width=np.dtype(dtype).itemsize * 8
        )
        count = math.prod(shape)
        parts = st.tuples(
            st.lists(floats, min_size=count, max_size=count),
            st.lists(exponents, min_size=count, max_size=count),
        )
        return parts.map(
            lambda pair: Scaled(
                np.array(pair[0], dtype).reshape(shape), np.array(pair[1]).reshape(shape)
            )
        )

    return st.sampled_from(["float32", "float64"]).flatmap(of)


def exact(value):
    """The numbers of a Scaled or float array as an object array of mpmath's."""
    if not isinstance(value, Scaled):
        return np.vectorize(mp.mpf, otypes=[object])(value)
    parts = np.broadcast_arrays(value.mantissa, value.exponent)
    return np.vectorize(lambda m, e: mp.ldexp(mp.mpf(float(m)), int(e)), otypes=[object])(*parts)


def assert_within(value, truth, bound, size=None):
    """Of shape and type of an array, each number off by at most bound * eps * |size|."""
    truth = np.asarray(truth, object)
    size = abs(truth) if size is None else size
    assert isinstance(value, Scaled)
    assert value.shape == truth.shape
    error = np.atleast_1d(abs(exact(value) - truth))
    allowed = bound * float(np.finfo(value.dtype).eps) * np.atleast_1d(size)
    assert (error <= allowed).all()
    lead = abs(value.mantissa)
    assert (((lead >= 1) & (lead < 2)) | (lead == 0)).all()


UNARY = {
    "-a": (operator.neg, operator.neg, 0),
    "+a": (operator.pos, operator.pos, 0),
    "abs(a)": (abs, abs, 0),
    "np.absolute": (np.absolute, abs, 0),
    "np.negative": (np.negative, operator.neg, 0),
    "np.square": (np.square, lambda x: x * x, 0.5),
    "a ** 2": (lambda a: a**2, lambda x: x**2, 2 * ULP + 1),
    "a ** 3": (lambda a: a**3, lambda x: x**3, 2 * ULP + 1),
    "np.power": (lambda a: np.power(a, [0, 1, 5]), lambda x: x ** np.array([0, 1, 5]), 2 * ULP + 1),
    "a ** 700": (lambda a: a**700, lambda x: x**700, 700 * ULP),
    "np.sqrt": (
        lambda a: np.sqrt(abs(a)),
        lambda x: np.vectorize(mp.sqrt, otypes=[object])(abs(x)),
        0.5,
    ),
    "a ** 0.1": (
        lambda a: abs(a) ** 0.1,
        lambda x: np.vectorize(lambda y: y ** mp.mpf(0.1), otypes=[object])(abs(x)),
        2 * ULP + 1,
    ),
    "a.astype": (lambda a: a.astype("float32"), lambda x: x, 0.5),
    "a.T": (lambda a: a.T, lambda x: x.T, 0),
    "np.transpose": (lambda a: np.transpose(a, (1, 0)), lambda x: x.T, 0),
    "a.transpose": (lambda a: a.transpose(1, 0), lambda x: x.T, 0),
    "a.swapaxes": (lambda a: a.swapaxes(0, 1), lambda x: x.T, 0),
    "a.ravel": (lambda a: a.ravel(), np.ravel, 0),
    "a.flatten": (lambda a: a.flatten(), np.ravel, 0),
    "np.ravel": (np.ravel, np.ravel, 0),
    "a.reshape": (lambda a: a.reshape(3, -1), lambda x: x.reshape(3, 2), 0),
    "np.reshape": (lambda a: np.reshape(a, (3, 2)), lambda x: x.reshape(3, 2), 0),
    "np.squeeze": (lambda a: np.squeeze(a[None]), lambda x: x, 0),
    "a.squeeze": (lambda a: a[:, None].squeeze(1), lambda x: x, 0),
    "np.expand_dims": (lambda a: np.expand_dims(a, 1), lambda x: x[:, None], 0),
    "np.broadcast_to": (
        lambda a: np.broadcast_to(a, (4, 2, 3)),
        lambda x: np.broadcast_to(x, (4, 2, 3)),
        0,
    ),
    "np.flip": (np.flip, np.flip, 0),
    "np.roll": (lambda a: np.roll(a, 1), lambda x: np.roll(x, 1), 0),
    "np.take": (lambda a: np.take(a, [5, 0]), lambda x: np.take(x, [5, 0]), 0),
    "np.copy": (np.copy, lambda x: x, 0),
    "a.copy": (lambda a: a.copy(), lambda x: x, 0),
    "a[..., 1:]": (lambda a: a[..., 1:], lambda x: x[..., 1:], 0),
    "a[mask]": (lambda a: a[[True, False]], lambda x: x[[True, False]], 0),
    "np.sort": (np.sort, lambda x: np.sort(x), 0),
    "a.sort": (lambda a: a.sort(axis=None), lambda x: np.sort(x, axis=None), 0),
    "np.argsort": (
        lambda a: np.take_along_axis(a, np.argsort(a, axis=0), 0),
        lambda x: np.sort(x, axis=0),
        0,
    ),
    "np.zeros_like": (np.zeros_like, lambda x: 0 * x, 0),
    "np.ones_like": (np.ones_like, lambda x: 0 * x + 1, 0),
}


@pytest.mark.parametrize("name", UNARY)
@few
@given(a=numbers())
def test_functions_of_one_array(name, a):
    ours, theirs, bound = UNARY[name]
    with mp.workprec(BITS):
        assert_within(ours(a), theirs(exact(a)), bound)


def _quotient(x, y):
    return x / np.where(y == 0, mp.mpf(1), y)


BINARY = {
    "a + b": (operator.add, operator.add, 0.5),
    "a - b": (operator.sub, operator.sub, 0.5),
    "a * b": (operator.mul, operator.mul, 0.5),
    "a / b": (lambda a, b: a / np.where(b == 0, 1, b), _quotient, 0.5),
    "np.add": (np.add, operator.add, 0.5),
    "np.subtract": (np.subtract, operator.sub, 0.5),
    "np.multiply": (np.multiply, operator.mul, 0.5),
    "np.divide": (lambda a, b: np.divide(a, np.where(b == 0, 1, b)), _quotient, 0.5),
    "np.maximum": (np.maximum, np.maximum, 0),
    "np.minimum": (np.minimum, np.minimum, 0),
    "np.where": (
        lambda a, b: np.where([True, False, True], a, b),
        lambda x, y: np.where([True, False, True], *np.broadcast_arrays(x, y)),
        0,
    ),
}
ROWS = {
    "a (2, 3) and b (2, 3)": lambda a, b: (a, b),
    "a (2, 3) and b (3,)": lambda a, b: (a, b[0]),
    "a (3,) and b (2, 3)": lambda a, b: (a[0], b),
    "a (2, 1) and b (3,)": lambda a, b: (a[:, :1], b[0]),
    "a () and b (3,)": lambda a, b: (a[0, 0], b[1]),
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", BINARY)
@few
@given(a=numbers(), b=numbers())
def test_functions_of_two_arrays(name, rows, a, b):
    a, b = ROWS[rows](a, b)
    ours, theirs, bound = BINARY[name]
    with mp.workprec(BITS):
        found = ours(a, b)
        assert found.dtype == np.result_type(a.dtype, b.dtype)
        assert_within(found, theirs(exact(a), exact(b)), bound)


floats = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("name", ["a + b", "a - b", "a * b", "np.add", "np.maximum"])
@few
@given(a=numbers((3,)), b=st.lists(floats, min_size=3, max_size=3))
def test_functions_of_a_scaled_and_a_plain_array(name, a, b):
    ours, theirs, bound = BINARY[name]
    with mp.workprec(BITS):
        for plain in (b, np.array(b)):
            assert_within(ours(a, np.array(plain)), theirs(exact(a), exact(b)), bound)
        assert_within(ours(np.array(b), a), theirs(exact(b), exact(a)), bound)


COMPARISONS = {
    operator.lt: np.less,
    operator.le: np.less_equal,
    operator.eq: np.equal,
    operator.ne: np.not_equal,
    operator.ge: np.greater_equal,
    operator.gt: np.greater,
}


@pytest.mark.parametrize("compare", COMPARISONS, ids=lambda compare: compare.__name__)
@few
@given(a=numbers(), b=numbers((3,)))
def test_comparisons_broadcast(compare, a, b):
    with mp.workprec(BITS):
        truth = compare(exact(a), exact(b)).astype(bool)
    assert compare(a, b).tolist() == truth.tolist()
    assert COMPARISONS[compare](a, b).tolist() == truth.tolist()


AXES = (None, 0, 1, -1, (0, 1), (1, 0))
SUMS = {
    "sum": (np.sum, lambda x, **over: x.sum(**over), 1),
    "mean": (np.mean, lambda x, **over: x.mean(**over), 1),
}


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", SUMS)
@few
@given(a=numbers())
def test_sums_and_means_over_axes(name, axis, keepdims, a):
    of_numpy, truth, _ = SUMS[name]
    over = {"axis": axis, "keepdims": keepdims}
    with mp.workprec(BITS):
        # Each of at most 6 additions rounds a number no larger than the sum of absolute values.
        terms = truth(abs(exact(a)), **over)
        for found in (getattr(a, name)(**over), of_numpy(a, **over)):
            assert_within(found, truth(exact(a), **over), a.size, terms)


FOLDS = {"prod": (np.prod, 6), "max": (np.max, 0), "min": (np.min, 0)}


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", FOLDS)
@few
@given(a=numbers())
def test_products_and_extremes_over_axes(name, axis, keepdims, a):
    of_numpy, bound = FOLDS[name]
    over = {"axis": axis, "keepdims": keepdims}
    with mp.workprec(BITS):
        truth = of_numpy(exact(a), **over)
        for found in (getattr(a, name)(**over), of_numpy(a, **over)):
            assert_within(found, truth, bound)


@few
@given(a=numbers())
def test_reductions_of_ufuncs(a):
    for ufunc, name in ((np.add, "sum"), (np.multiply, "prod"), (np.maximum, "max")):
        same = ufunc.reduce(a) == getattr(a, name)(axis=0)
        assert same.all()
    assert (np.minimum.reduce(a, axis=(0, 1)) == a.min()).all()


@pytest.mark.parametrize("axis", [None, 0, 1])
@few
@given(a=numbers())
def test_index_of_the_extremes(axis, a):
    with mp.workprec(BITS):
        assert np.array_equal(np.argmax(a, axis=axis), np.argmax(exact(a), axis=axis))
        assert np.array_equal(a.argmin(axis=axis), np.argmin(exact(a), axis=axis))


LOGARITHMS = {"log": mp.log, "log2": lambda x: mp.log(x, 2), "log10": mp.log10}


@pytest.mark.parametrize("name", LOGARITHMS)
@few
@given(a=numbers(exponents=st.one_of(st.just(0), st.just(-1), st.integers(-(10**15), 10**15))))
def test_logarithms_keep_their_digits_even_about_1(name, a):
    with mp.workprec(BITS):
        for x, by_method, by_numpy in zip(
            exact(a).flat, getattr(a, name)().flat, getattr(np, name)(a).flat, strict=True
        ):
            truth = LOGARITHMS[name](abs(x)) if x else mp.mpf("-inf")
            # Where the exponent counts, both terms are at most twice their sum: its rounding, that
            # of log 2 and of their product, and of the sum.
            allowed = (ULP + 3) * np.finfo(float).eps * abs(truth)
            assert by_method == truth or abs(by_method - truth) <= allowed
            assert np.isnan(by_numpy) if x < 0 else by_numpy == by_method


def test_logarithm_next_to_1():
    below = Scaled(np.nextafter(1.0, 0.0))
    assert below.log() == pytest.approx(-(2.0**-53), rel=1e-15, abs=0)


@few
@given(
    a=numbers((1,)),
    p=st.one_of(st.floats(-512, 512), st.integers(-512, 512).map(float)),
)
def test_powers(a, p):
    a = abs(a) if p != int(p) else a
    with mp.workprec(BITS):
        (x,) = exact(a)
        if x == 0:
            assert (a**p == np.power(float(x), p)).all() if p >= 0 else np.isinf((a**p).mantissa)
        else:
            assert_within(a**p, np.array([x ** mp.mpf(p)]), 2 * ULP + 1)


@pytest.mark.parametrize("base", [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("p", [0.0, 0.5, 2.0, 3.0, -1.0, -2.0, np.inf, -np.inf, np.nan])
def test_powers_of_special_numbers_are_those_of_floats(base, p):
    with np.errstate(all="ignore"):
        truth = np.power(base, p)
    found = (Scaled(base) ** p).to_float()
    assert found == truth or (np.isnan(found) and np.isnan(truth))
    assert np.isnan(truth) or np.signbit(found) == np.signbit(truth)


def test_roots_of_numbers_far_outside_floats():
    with mp.workprec(BITS):
        a = Scaled(1.25, 10**15 + 1)
        for p in (0.5, 1 / 3, -0.1):
            assert_within(a**p, exact(a) ** mp.mpf(p), 2 * ULP + 1)


SPECIAL = [np.inf, -np.inf, np.nan, 0.0, 1.0]


@pytest.mark.parametrize(
    "apply", [operator.add, operator.sub, operator.mul, operator.truediv, np.maximum, np.minimum]
)
def test_infinities_and_nan_are_those_of_floats(apply):
    values = np.array(SPECIAL)
    with np.errstate(all="ignore"):
        truth = apply(values[:, None], values)
    found = apply(Scaled(values[:, None]), Scaled(values))
    assert np.array_equal(found.to_float(), truth, equal_nan=True)


@pytest.mark.parametrize("name", sorted(UNARY.keys() - {"a.sort"}))
def test_functions_of_special_numbers_are_those_of_floats(name):
    ours, _, _ = UNARY[name]
    values = np.array([[np.inf, -np.inf, np.nan], [0.0, -0.0, -1.5]], "float32")
    with np.errstate(all="ignore"):
        truth = ours(values)
    found = ours(Scaled(values)).to_float()
    assert np.array_equal(found, truth, equal_nan=True)
    assert np.array_equal(np.signbit(found) | np.isnan(found), np.signbit(truth) | np.isnan(truth))


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "argmax", "argmin"])
@pytest.mark.parametrize("values", [[1.0, np.nan, np.inf], [-np.inf, np.inf], [np.inf, 1.0], [0.0]])
def test_reductions_of_special_numbers_are_those_of_floats(name, values):
    with np.errstate(all="ignore"):
        truth = getattr(np, name)(np.array(values))
    found = getattr(np, name)(Scaled(values))
    found = found.to_float() if isinstance(found, Scaled) else found
    assert np.array_equal(found, truth, equal_nan=True)


@pytest.mark.parametrize("compare", COMPARISONS, ids=lambda compare: compare.__name__)
def test_comparisons_of_special_numbers_are_those_of_floats(compare):
    values = np.array([*SPECIAL, -0.0, -2.0])
    truth = compare(values[:, None], values)
    assert compare(Scaled(values[:, None]), Scaled(values)).tolist() == truth.tolist()


def test_sums_of_nothing():
    nothing = Scaled(np.zeros((0, 3)))
    assert (nothing.sum().to_float(), nothing.prod().to_float()) == (0, 1)
    assert np.isnan(nothing.mean().to_float())
    assert nothing.sum(axis=0).tolist() == [0, 0, 0]
    assert nothing.mean(axis=1).shape == (0,)
    with pytest.raises(ValueError, match="empty Scaled array"):
        nothing.max(axis=0)


def test_what_is_asked_of_single_numbers():
    values = Scaled([np.inf, -np.inf, np.nan, -0.0, 2.0], [0, 0, 0, 0, 5000])
    for of_numpy in (np.isnan, np.isinf, np.isfinite, np.signbit):
        assert of_numpy(values).tolist() == of_numpy(values.mantissa).tolist()
    assert np.sign(values[3:]).tolist() == [0, 1]
    assert (np.sqrt(Scaled([-1.0, 4.0])).tolist()[1], np.isnan(np.sqrt(Scaled(-1.0)).mantissa)) == (
        2.0,
        True,
    )


def test_what_an_array_is_asked():
    a = Scaled(np.ones((2, 3), "float32"), 5000)
    assert (a.shape, a.ndim, a.size, a.dtype, len(a)) == ((2, 3), 2, 6, np.float32, 2)
    assert (np.shape(a), np.ndim(a), np.size(a)) == ((2, 3), 2, 6)
    assert [[float(x.log2()) for x in row] for row in a.tolist()] == [[5000.0] * 3] * 2
    assert [row.shape for row in a] == [(3,), (3,)]
    assert Scaled([[3.0]]).item().shape == ()
    assert (np.any(a), np.all(a), np.count_nonzero(a)) == (True, True, 6)
    assert Scaled(1.0, 5000) in a
    assert 2.0 not in a
    assert a[0].tolist()[0].tolist() == Scaled(1.0, 5000)


def test_arrays_are_joined():
    a, plain = Scaled([1.0, 2.0], 5000), np.array([3.0, 4.0])
    whole = np.concatenate([a, plain])
    assert (whole == Scaled([1.0, 2.0, 3.0, 4.0], [5000, 5000, 0, 0])).all()
    assert np.stack([a, plain]).shape == np.vstack([a, a]).shape == (2, 2)
    assert (np.stack(list(a)) == a).all()


def test_agreement_and_norm():
    a = Scaled([3.0, 4.0], 5000)
    assert np.linalg.norm(a) == Scaled(5.0, 5000)
    assert np.linalg.norm(a[None], axis=1, keepdims=True).shape == (1, 1)
    assert np.allclose(a, a * (1 + 1e-9))
    assert not np.allclose(a, a * 2)
    assert np.isclose(Scaled([1.0, np.inf, np.nan]), [1.0, np.inf, np.nan]).tolist() == [1, 1, 0]
    assert np.array_equal(a, a)
    assert not np.array_equal(a, a[:1])


def test_differences_of_an_influence():
    found = Scaled([1.0, 2.0, 4.0], -9000)
    assert (found - found[0] == Scaled([0.0, 1.0, 3.0], -9000)).all()
    assert (found + 1.0 == 1.0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_python_number_takes_the_type_it_meets(dtype):
    a = Scaled(np.ones(2, dtype))
    for found in (
        a + 1,
        1.5 * a,
        True + a,
        np.add(a, 0.1),
        np.where([True, False], a, 0.0),
        a**0.5,
    ):
        assert found.dtype == dtype
    assert (a * np.float64(2)).dtype == (np.ones(2, dtype) * np.float64(2)).dtype
    # As in NumPy, a Python number is rounded to the type of what it is compared with.
    assert (Scaled(np.float32(0.1)) == 0.1).all()


REFUSED = {
    "np.sin": (lambda a: np.sin(a), r"numpy\.sin is not defined for Scaled numbers.*to_float"),
    "np.cumsum": (lambda a: np.cumsum(a), r"numpy\.cumsum is not defined"),
    "np.add.accumulate": (lambda a: np.add.accumulate(a), r"numpy\.add\.accumulate is not"),
    "np.einsum": (lambda a: np.einsum("i->", a), r"numpy\.einsum is not defined"),
    "np.matmul": (lambda a: np.ones(2) @ a, r"numpy\.matmul is not defined"),
    "out=": (lambda a: np.add(a, 1, out=np.ones(2)), r"numpy\.add\(out=\) is not defined"),
    "an array to fill": (lambda a: np.stack([a], 0, np.ones((1, 2))), "needs two arrays to fill"),
    "where=": (lambda a: np.sum(a, where=[True, False]), "unexpected keyword argument 'where'"),
    "dtype=": (lambda a: np.sum(a, dtype=float), r"numpy\.sum\(dtype=\) is not defined"),
    "+=": (lambda a: operator.iadd(np.ones(2), a), r"numpy\.add\(out=\) is not defined"),
    "np.asarray": (lambda a: np.asarray(a), r"say \.to_float\(\)"),
    "np.array of a list": (lambda a: np.array([a, a]), r"say \.to_float\(\)"),
    "np.array of numbers": (lambda a: np.array(list(a)), r"say \.to_float\(\)"),
    "dtype=object": (lambda a: np.array(a, dtype=object), r"say \.to_float\(\)"),
    "np.save": (lambda a: np.save("x", a), r"numpy\.save is not defined"),
    "@": (lambda a: a @ a, "unsupported operand"),
    "//": (lambda a: a // 2, "unsupported operand"),
    "a + None": (lambda a: a + None, "unsupported operand"),
    "a + text": (lambda a: a + "1", "unsupported operand"),
    "a + 1j": (lambda a: a + 1j, "unsupported operand"),
    "a < text": (lambda a: a < "1", "not supported between"),
    "complex array + a": (lambda a: np.ones(2, complex) + a, "mantissa must be float32 or float64"),
    "2 ** a": (lambda a: 2.0**a, "a power must be a float, got Scaled"),
    "a ** a": (lambda a: a**a, r"power must be .*say \.to_float\(\)"),
    "array ** a": (lambda a: np.ones(2) ** a, r"power must be .*say \.to_float\(\)"),
    "float": (lambda a: float(a), r"only a single Scaled number is a float, got shape \(2,\)"),
    "astype(int)": (lambda a: a.astype(int), "dtype must be float32 or float64, got int64"),
    "norm of another kind": (lambda a: np.linalg.norm(a, 1), "ord must be None .*, got 1"),
    "a[0] = 1": (lambda a: operator.setitem(a, 0, 1), "item assignment"),
    "masked": (lambda a: a + np.ma.masked_array([1.0, 2.0]), "masked|to_float"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused(name):
    call, match = REFUSED[name]
    with pytest.raises(TypeError, match=match):
        call(Scaled([1.0, 2.0], 5000))


def test_what_is_no_number_is_not_equal():
    assert (Scaled(1.0) == "1", Scaled(1.0) == None, Scaled(1.0) != "1") == (False, False, True)  # noqa: E711


def test_results_past_the_largest_exponent_are_infinite_or_zero():
    huge = Scaled([1.0, -1.0], 1e308)
    assert (huge * huge).to_float().tolist() == [np.inf, np.inf]
    assert (huge**3).to_float().tolist() == [np.inf, -np.inf]
    assert (1 / huge / huge).sign.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ((1.0, "a"), TypeError, "exponent must be an array of numbers, got 'a'"),
        ((1.0, np.nan), ValueError, "exponent must be integers, got nan"),
        ((1.0, 0.5), ValueError, "exponent must be integers, got 0.5"),
        ((1.0, 1j), TypeError, "exponent must be .*, got complex128"),
        ((1.0, None), TypeError, "exponent must be .*None"),
        (([1.0, 2.0], [1, 2, 3]), ValueError, r"exponent must broadcast .* \(2,\), got \(3,\)"),
        ((["a"],), TypeError, "mantissa must be float32 or float64 .*, got <U1"),
        ((None,), TypeError, "mantissa must be .*None"),
        ((1j,), TypeError, "mantissa must be float32 or float64 .*, got complex128"),
        ((np.float16(1),), TypeError, "mantissa must be .*, got float16"),
        ((np.ma.masked_array([1.0]),), TypeError, "mantissa must not be a masked array"),
        ((Scaled(1.0),), TypeError, r"mantissa must be .*say \.to_float\(\)"),
    ],
)
def test_wrong_parts(parts, error, match):
    with pytest.raises(error, match=match):
        Scaled(*parts)


def test_the_exponent_of_what_has_none_is_ignored():
    assert Scaled([0.0, np.inf, np.nan], [np.inf, np.inf, np.nan]).exponent.tolist() == [0, 0, 0]


def test_an_infinite_exponent_makes_infinity_or_zero():
    found = Scaled([-1.0, 1.0, 0.0], [np.inf, -np.inf, np.inf])
    assert repr(found) == "[-inf, 0.000e+00, 0.000e+00]"
    assert found.exponent.tolist() == [0, 0, 0]
    assert repr(Scaled(1, np.inf)) == "inf"


def test_an_exponent_may_be_a_long_integer():
    assert Scaled(1.0, 10**300).exponent == 1e300
    assert Scaled(1.0, -(10**300)).exponent == -1e300

    with pytest.raises(ValueError, match=r"exponent must be within 2\*\*1000"):
        Scaled(1.0, 10**400)


@few
@given(st.integers(-(10**700), 10**700))
def test_integers_of_any_length_are_numbers(integer):
    with mp.workprec(BITS):
        truth = np.array(mp.mpf(integer))
        assert_within(Scaled(integer), truth, 0.5)
        assert_within(Scaled(1.0) * integer, truth, 0.5)
    far = Scaled(1.5, 5000)
    assert (far > integer, far < integer, far == 3 * 2**4999) == (True, False, True)
    assert Scaled(np.float32(1)) * integer < far


def test_one_number_may_have_several_exponents():
    assert (Scaled(1.5, [0, 5000]).exponent == [0, 5000]).all()


COPIES = {
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda a: pickle.loads(pickle.dumps(a)),
    "replace": lambda a: dataclasses.replace(a, exponent=a.exponent),
    "a.copy": lambda a: a.copy(),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_equal_and_read_only(name):
    a = Scaled([1.0, 2.0], [0, 5000])
    twin = COPIES[name](a)
    assert (twin == a).all()
    for part in (twin.mantissa, twin.exponent):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 0


def test_parts_of_another_array_stay_writeable():
    mantissa = np.ones(3)
    Scaled(mantissa)
    mantissa[0] = 2.0
