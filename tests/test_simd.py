"""Every vector operation against NumPy, lane by lane, in both float types."""

import numpy as np
import pytest

from fastrnn.kernels import memory, simd
from fastrnn.kernels.jit import kernel

DTYPES = (np.float32, np.float64)


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__, name="dtype")
def _dtype(request):
    return request.param


def numbers(dtype, seed):
    """A register of ordinary numbers, zeros of both signs, inf, NaN and a subnormal."""
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(64 // np.dtype(dtype).itemsize) * 3).astype(dtype)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).smallest_subnormal]
    return np.concatenate([values, np.resize(np.array(special, dtype), values.size)])


@kernel
def _elementwise(a, b, c, out):
    n = memory.lanes_of(a)
    for i in range(0, a.size, n):
        x, y, z = memory.load(a, i), memory.load(b, i), memory.load(c, i)
        results = (
            x + y, x - y, x * y, x / y, -x, abs(x), simd.fma(x, y, z), simd.copysign(x, y),
            simd.minimum(x, 1.0), simd.maximum(x, 1.0),
            simd.where(x < y, x, y), simd.where(x <= y, 1.0, z), simd.where(x > y, x, 2.0),
            simd.where(x >= y, x, z), simd.where(x == x, y, z), simd.where(x != x, y, z),
            x + 0.1, 0.1 * x, 1.0 / y, simd.like(x, 0.1) + x,
        )  # fmt: skip
        for k in range(len(results)):
            memory.store(out[k], i, results[k])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_elementwise_operations(dtype):
    a, b, c = numbers(dtype, 0), numbers(dtype, 1)[::-1].copy(), numbers(dtype, 2)
    out = np.empty((20, a.size), dtype)
    _elementwise(a, b, c, out)
    tenth = dtype(0.1)
    wide = np.longdouble
    exactly = [
        a + b, a - b, a * b, a / b, -a, abs(a),
        (a.astype(wide) * b.astype(wide) + c.astype(wide)).astype(dtype), np.copysign(a, b),
        np.minimum(a, dtype(1)), np.maximum(a, dtype(1)),
        np.where(a < b, a, b), np.where(a <= b, dtype(1), c), np.where(a > b, a, dtype(2)),
        np.where(a >= b, a, c), np.where(a == a, b, c), np.where(a != a, b, c),
        a + tenth, tenth * a, 1 / b, tenth + a,
    ]  # fmt: skip
    for k, expected in enumerate(exactly):
        if k == 6 and dtype == np.float64:
            # Extended precision rounds float64 products once more than fma does.
            np.testing.assert_allclose(out[k], expected, rtol=2e-16)
        else:
            np.testing.assert_array_equal(out[k], expected, err_msg=str(k))
            same_sign = np.signbit(out[k]) == np.signbit(expected)
            assert (same_sign | np.isnan(expected)).all(), k


@kernel
def _fma(a, b, c):
    return simd.lane(simd.fma(simd.single(a), simd.single(b), simd.single(c)), 0)


def test_fma_rounds_once():
    a = 1 + 2.0**-30
    assert a * a - (1 + 2.0**-29) == 0
    assert _fma(a, a, -(1 + 2.0**-29)) == 2.0**-60


@kernel
def _bits(a, b, out):
    x, y = memory.load(a, 0), memory.load(b, 0)
    memory.store(out[0], 0, x & y)
    memory.store(out[1], 0, x | y)
    memory.store(out[2], 0, x ^ y)


def test_bit_operations(dtype):
    a, b = numbers(dtype, 3), numbers(dtype, 4)
    n = 64 // np.dtype(dtype).itemsize
    out = np.empty((3, n), dtype)
    _bits(a, b, out)
    integer = np.int32 if dtype == np.float32 else np.int64
    x, y = a[:n].view(integer), b[:n].view(integer)
    assert out.view(integer).tolist() == [(x & y).tolist(), (x | y).tolist(), (x ^ y).tolist()]


@kernel
def _powers(k, u, power, shift, exponent, mantissa):
    x = memory.load(k, 0)
    memory.store(power, 0, simd.power_of_two(x + simd.integer_shift(x)))
    shifted = memory.load(u, 0) + simd.integer_shift(x)
    memory.store(shift, 0, shifted - simd.integer_shift(x))
    memory.store(exponent, 0, simd.exponent(memory.load(u, 0)))
    memory.store(mantissa, 0, simd.mantissa(memory.load(u, 0)))


def test_powers_of_two(dtype):
    n = 64 // np.dtype(dtype).itemsize
    limit = 126 if dtype == np.float32 else 1022
    k = np.linspace(-limit, limit, n).round().astype(dtype)
    u = (np.random.default_rng(0).standard_normal(n) * 100).astype(dtype)
    results = [np.empty(n, dtype) for _ in range(4)]
    _powers(k, u, *results)
    fraction, shift = np.frexp(u)
    np.testing.assert_array_equal(results[0], dtype(2) ** k)
    np.testing.assert_array_equal(results[1], np.rint(u))
    np.testing.assert_array_equal(results[2], shift - 1)
    np.testing.assert_array_equal(results[3], 2 * fraction)


@kernel
def _memory(array, out, count, number):
    v = memory.load(array, 3)
    memory.store(out[0], 1, v)
    memory.store(out[1], 0, simd.splat(number))
    memory.store(out[2], 0, v)
    tail = simd.first_lanes(v, count)
    memory.store_where(out[2], 0, memory.load_where(array, 0, tail) + 1.0, tail)
    memory.store(out[3], 0, memory.load_where(array, 0, tail))
    memory.put(out[4], 2, memory.get(array, 5))
    out[4, 0] = simd.ordered_sum(v)
    out[4, 1] = simd.lane(v, count)
    return simd.any_lane(v > 1e6), simd.any_lane(v > -1e6)


@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_loads_stores_tails_and_sums(dtype, count):
    n = 64 // np.dtype(dtype).itemsize
    count = min(count, n - 1)
    array = np.arange(3 * n, dtype=dtype)
    out = np.zeros((5, 2 * n), dtype)
    assert _memory(array, out, count, dtype(0.1)) == (False, True)
    assert out[0, 1 : n + 1].tolist() == array[3 : n + 3].tolist()
    assert (out[1, :n] == dtype(0.1)).all()
    assert out[2, :count].tolist() == (array[:count] + 1).tolist()
    assert out[2, count:n].tolist() == array[3 + count : n + 3].tolist()
    assert out[3, :n].tolist() == [*array[:count].tolist(), *[0] * (n - count)]
    assert out[4, :3].tolist() == [array[3 : n + 3].sum(), array[3 + count], 5]


def test_ordered_sum_goes_from_the_first_lane_to_the_last(dtype):
    n = 64 // np.dtype(dtype).itemsize
    values = np.resize(numbers(dtype, 0)[:n], 3 * n)
    out = np.zeros((5, 2 * n), dtype)
    _memory(values, out, 0, dtype(0))
    total = dtype(0)
    for value in values[3 : n + 3]:
        total = dtype(total + value)
    assert out[4, 0] == total


@kernel
def _columns(array, offsets, tile, back):
    n = memory.lanes_of(array)
    memory.load_columns(array, offsets, 0, 2, tile, 0, n, 1)
    memory.store_columns(back, offsets, 0, 2, tile, 0, n, 1)


def test_transposed_squares(dtype):
    n = 64 // np.dtype(dtype).itemsize
    array = np.arange(n * 50, dtype=dtype).reshape(n, 50)
    offsets = np.random.default_rng(0).permutation(n) * 50
    tile, back = np.zeros((n, n), dtype), np.zeros_like(array)
    _columns(array, offsets, tile, back)
    np.testing.assert_array_equal(tile, array[offsets // 50, 2 : n + 2].T)
    np.testing.assert_array_equal(back[:, 2 : n + 2], array[:, 2 : n + 2])
    assert not back[:, :2].any()
    assert not back[:, n + 2 :].any()


@kernel
def _in_double(array, out):
    memory.store(out, 0, memory.load_double(array, 1))


def test_eight_numbers_in_double(dtype):
    array = np.arange(20, dtype=dtype) / 3
    out = np.zeros(8)
    _in_double(array, out)
    assert out.tolist() == array[1:9].astype(np.float64).tolist()
