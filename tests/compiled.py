"""Vector functions on arrays, so that tests can hold them against NumPy and mpmath."""

import numpy as np

from fastrnn.kernels import ACTIVATIONS
from fastrnn.kernels.activations import activate, slope_scaled, with_slope
from fastrnn.kernels.jit import kernel
from fastrnn.kernels.memory import lanes_of, load, store


@kernel
def _values(f, z, value, with_it, slope):
    for i in range(0, z.size, lanes_of(z)):
        store(value, i, activate(f, load(z, i)))
        h, s = with_slope(f, load(z, i))
        store(with_it, i, h)
        store(slope, i, s)


@kernel
def _scaled(f, z, mantissa, exponent):
    for i in range(0, z.size, lanes_of(z)):
        m, e = slope_scaled(f, load(z, i))
        store(mantissa, i, m)
        store(exponent, i, e)


def _padded(z):
    z = np.atleast_1d(z)
    return np.concatenate([z, np.zeros(-z.size % 16, z.dtype)])


def value_and_slope(activation, z):
    """f(z), and f'(z), of an array; both kernels give f(z) the same bits."""
    padded = _padded(z)
    value, again, slope = (np.empty_like(padded) for _ in range(3))
    _values(ACTIVATIONS[activation], padded, value, again, slope)
    assert value.tobytes() == again.tobytes()
    return value[: np.size(z)], slope[: np.size(z)]


def scaled_slope(activation, z):
    """f'(z) of a float64 array, as mantissas and exponents."""
    padded = _padded(np.asarray(z, np.float64))
    mantissa, exponent = np.empty_like(padded), np.empty_like(padded)
    _scaled(ACTIVATIONS[activation], padded, mantissa, exponent)
    return mantissa[: np.size(z)], exponent[: np.size(z)]
