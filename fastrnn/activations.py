"""The activation functions and their derivatives, in plain NumPy."""

from __future__ import annotations

import numpy as np

from fastrnn import scaled
from fastrnn.checks import FloatArray
from fastrnn.scaled import Scaled

# A third of the largest float: as kernels have it.
LARGEST_TRIPLED = np.finfo(np.float64).max / 3


def activate(activation: str, z: FloatArray) -> FloatArray:
    """f(z)."""
    if activation == "tanh":
        return np.tanh(z)
    if activation == "relu":
        return np.maximum(z, 0)
    if activation == "sigmoid":
        tail = np.exp(-abs(z))
        return np.where(z < 0, tail, 1) / (1 + tail)
    return z


def derivative(activation: str, z: FloatArray) -> FloatArray:
    """f'(z), from the pre-activation."""
    if activation == "tanh":
        tail = _tail(z)
        return 4 * tail / (1 + tail) ** 2
    if activation == "relu":
        return np.where(np.isnan(z), z, z > 0).astype(z.dtype)
    if activation == "sigmoid":
        tail = np.exp(-abs(z))
        return tail / (1 + tail) ** 2
    return np.ones_like(z)


def derivative_scaled(activation: str, z: FloatArray) -> Scaled:
    """f'(z) at any magnitude."""
    z = z.astype(np.float64)
    with np.errstate(all="ignore"):
        if activation == "tanh":
            return 4 * scaled.exp(_finite(z, -2 * abs(z))) / (1 + _tail(z)) ** 2
        if activation == "sigmoid":
            return scaled.exp(_finite(z, -abs(z))) / (1 + np.exp(-abs(z))) ** 2
        return Scaled(derivative(activation, z))


def _finite(z: FloatArray, exponent: FloatArray) -> FloatArray:
    """An exponent of e, that of 2 a float too unless z is infinite."""
    return np.where(abs(z) < np.inf, np.maximum(exponent, -LARGEST_TRIPLED), exponent)


def _tail(z: FloatArray) -> FloatArray:
    """exp(-2 |z|); 0 where 2 |z| is no float any more."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(-2 * abs(z)))
