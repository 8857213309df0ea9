"""The activation functions and their derivatives, in plain NumPy."""

from __future__ import annotations

import numpy as np

from fastrnn import scaled
from fastrnn.checks import FloatArray
from fastrnn.scaled import Scaled


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
    if activation == "tanh":
        return 4 * scaled.exp(-2 * abs(z)) / (1 + _tail(z)) ** 2
    if activation == "sigmoid":
        return scaled.exp(-abs(z)) / (1 + np.exp(-abs(z))) ** 2
    return Scaled(derivative(activation, z))


def _tail(z: FloatArray) -> FloatArray:
    """exp(-2 |z|); 0 where 2 |z| is no float any more."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(-2 * abs(z)))
