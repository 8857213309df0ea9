"""Tables of the NumPy functions that Scaled arrays know, and what computes each.

What stands in no table raises a TypeError that names the function: a Scaled array never turns
into floats or into an array of objects unasked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

Function = Callable[..., Any]


def positive_or_nan(logarithm: Any, number: Any) -> Any:
    """Logarithms of absolute values as those of the numbers: NaN for negative ones."""
    return np.where(number.mantissa < 0, np.nan, logarithm)[()]


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether numbers agree, as `numpy.isclose`."""
    near = (abs(a - b) <= atol + rtol * abs(b)) & np.isfinite(b.mantissa)
    both_nan = np.isnan(a.mantissa) & np.isnan(b.mantissa)
    return near | (a == b) | (both_nan & equal_nan)


def norm(a: Any, ord: None = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Euclidean or Frobenius norm, as `numpy.linalg.norm` without ``ord``."""
    if ord is not None:
        raise TypeError(f"ord must be None for Scaled numbers, got {ord!r}")
    return (a * a).sum(axis=axis, keepdims=keepdims).sqrt()


# Called with Scaled arrays only.
UFUNCS: dict[np.ufunc, Function] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
    np.negative: operator.neg,
    np.positive: operator.pos,
    np.absolute: operator.abs,
    np.fabs: operator.abs,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
    np.maximum: lambda a, b: a.maximum(b),
    np.minimum: lambda a, b: a.minimum(b),
    np.sqrt: lambda a: a.sqrt(),
    np.square: lambda a: a * a,
    np.reciprocal: lambda a: 1 / a,
    np.log: lambda a: positive_or_nan(a.log(), a),
    np.log2: lambda a: positive_or_nan(a.log2(), a),
    np.log10: lambda a: positive_or_nan(a.log10(), a),
    np.sign: lambda a: a.sign,
    np.signbit: lambda a: np.signbit(a.mantissa),
    np.isnan: lambda a: np.isnan(a.mantissa),
    np.isinf: lambda a: np.isinf(a.mantissa),
    np.isfinite: lambda a: np.isfinite(a.mantissa),
}

# Of a Scaled base and a power of floats.
POWERS: frozenset[np.ufunc] = frozenset({np.power, np.float_power})

# Methods that reduce as these functions do.
REDUCTIONS: dict[np.ufunc, str] = {
    np.add: "sum",
    np.multiply: "prod",
    np.maximum: "max",
    np.minimum: "min",
}

# Methods, with the same arguments.
METHODS: dict[Function, str] = {
    np.sum: "sum",
    np.prod: "prod",
    np.mean: "mean",
    np.max: "max",
    np.amax: "max",
    np.min: "min",
    np.amin: "min",
    np.argmax: "argmax",
    np.argmin: "argmin",
    np.sort: "sort",
    np.argsort: "argsort",
}

# What is known from the mantissas: shapes, and whether numbers are 0.
OF_MANTISSAS: frozenset[Function] = frozenset(
    {
        np.shape, np.ndim, np.size, np.iscomplexobj, np.isrealobj, np.any, np.all,
        np.count_nonzero, np.nonzero, np.flatnonzero, np.argwhere,
    }
)  # fmt: skip

# What moves numbers and changes none: done to mantissas and to exponents.
MOVES: frozenset[Function] = frozenset(
    {
        np.reshape, np.ravel, np.transpose, np.matrix_transpose, np.swapaxes, np.moveaxis,
        np.squeeze, np.expand_dims, np.broadcast_to, np.atleast_1d, np.atleast_2d, np.copy,
        np.flip, np.flipud, np.fliplr, np.rot90, np.roll, np.repeat, np.tile, np.take,
        np.take_along_axis, np.delete, np.diagonal,
    }
)  # fmt: skip

# Those that join several arrays.
JOINS: frozenset[Function] = frozenset(
    {np.concatenate, np.stack, np.vstack, np.hstack, np.column_stack}
)

# Called with Scaled arrays in place of their first arguments, as many as the number says.
OTHERS: dict[Function, tuple[int, Function]] = {
    np.isclose: (2, isclose),
    np.allclose: (2, lambda *args, **options: bool(isclose(*args, **options).all())),
    np.array_equal: (2, lambda a, b: a.shape == b.shape and bool((a == b).all())),
    np.linalg.norm: (1, norm),
    np.zeros_like: (1, lambda a: a._moved(np.zeros_like)),
    np.ones_like: (1, lambda a: a._moved(np.zeros_like) + 1),
}
