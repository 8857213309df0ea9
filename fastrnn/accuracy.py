"""Accuracy: the rounding errors of the activations on this processor, in units in the last place.

Measured through `forward` and `backward`, so that what ships is what is judged, against the
reference in a wider type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.activations import activate, derivative
from fastrnn.rnn import RNN
from fastrnn.verbs.backward import backward
from fastrnn.verbs.forward import forward

Array = NDArray[Any]

# Beyond it even the derivatives are 0, in float32 and in float64.
LARGEST = {"float32": 110.0, "float64": 760.0}
LEAST = 1e-6
ACTIVATIONS = ("tanh", "sigmoid")


@dataclass(frozen=True)
class Accuracy:
    """Errors of one function: the largest, where it is, and the mean."""

    function: str
    dtype: str
    largest: float
    where: float
    mean: float


def measure(points: int = 1_000_000) -> list[Accuracy]:
    """Errors in ULP of tanh, sigmoid and their derivatives at so many points each.

    Half of the points are spread evenly over [-10, 10], half over the magnitudes at which the
    functions do anything, of both signs. float64 needs a long double that is wider, and is left
    out where there is none.

    Examples
    --------
    >>> from fastrnn.accuracy import measure
    >>> for row in measure(1000):
    ...     assert row.largest <= (4 if row.function.endswith("'") else 2)
    """
    wider = {"float32": np.float64, "float64": np.longdouble}
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        del wider["float64"]
    rows = []
    for dtype, wide in wider.items():
        z = _points(points, dtype)
        for activation in ACTIVATIONS:
            net = RNN(z.dtype.type(1), z.dtype.type(0), activation=activation)
            # Many sequences of one step each: a state of each says that they are meant so.
            column, h0 = z[:, None], np.zeros_like(z)
            values = forward(net, column, h0=h0, keep="last")
            upstream = np.ones_like(column)
            slopes = backward(net, column, upstream, h0=h0, per_sequence=True, wrt="b").b
            with np.errstate(under="ignore"):
                exact = z.astype(wide)
                rows.append(_errors(activation, z, values, activate(activation, exact)))
                rows.append(_errors(f"{activation}'", z, slopes, derivative(activation, exact)))
    return rows


def _points(count: int, dtype: str) -> Array:
    rng = np.random.default_rng(0)
    even = rng.uniform(-10, 10, count // 2)
    size = np.exp(rng.uniform(np.log(LEAST), np.log(LARGEST[dtype]), count - count // 2))
    z: Array = np.concatenate([even, rng.choice([-1.0, 1.0], size.size) * size]).astype(dtype)
    return z


def _errors(function: str, z: Array, ours: Array | None, truth: Array) -> Accuracy:
    assert ours is not None
    with np.errstate(under="ignore"):
        unit = np.spacing(abs(truth.astype(z.dtype))).astype(truth.dtype)
    error = abs(ours.astype(truth.dtype) - truth) / unit
    worst = int(np.argmax(error))
    return Accuracy(
        function, str(z.dtype), float(error[worst]), float(z[worst]), float(error.mean())
    )


def readable(rows: list[Accuracy]) -> str:
    """The table that `fastrnn accuracy` prints."""
    lines = ["function  type       largest error     at z          mean"]
    for row in rows:
        lines.append(
            f"{row.function:<9} {row.dtype:<9} {row.largest:8.3f} ULP  "
            f"{row.where:>13.6g}  {row.mean:8.3f} ULP"
        )
    return "\n".join(lines)
