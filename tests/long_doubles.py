"""Gradients in long doubles along computed states, with bounds on what rounding may cost.

Long doubles have 64 bits of mantissa and 15 of exponent. Every bound is carried along with its
value: ``size`` is the value with all its terms positive, ``error`` the rounding so far.
"""

from typing import NamedTuple

import numpy as np

from fastrnn.sequences import Sequences
from tests import tolerances

Long = np.longdouble
# f' may lose so many units of rounding (promise N2), and its logarithm changes with z this fast.
SLOPE_UNITS, STEEPNESS = 4, {"tanh": 2, "sigmoid": 1, "relu": 0, "identity": 0}
# Bounds are of first order in the unit of rounding: far below 1, what is left out is nothing.
FIRST_ORDER = 0.05
# Long doubles end at 1e-4932. Sizes that come near may have been rounded to 0 on the way.
LEAST_SLOPE, LEAST_SIZE = Long("1e-2000"), Long("1e-4800")


class Bounded(NamedTuple):
    """Values, their size, and a bound on the error of a right computation."""

    value: np.ndarray
    size: np.ndarray
    error: np.ndarray

    def through(self, axes: str, matrix: np.ndarray, unit: float, terms: int) -> "Bounded":
        """Sums of products with a matrix, each of so many terms."""
        value, size, error = (
            np.einsum(axes, m, part)
            for m, part in zip((matrix, abs(matrix), abs(matrix)), self, strict=True)
        )
        return Bounded(value, size, error + terms * unit * size)


class Walk(NamedTuple):
    """Steps of every sequence: what goes into a gradient."""

    before: np.ndarray  # (K, B, T, H): states before each step
    x: np.ndarray  # (B, T, F)
    slope: np.ndarray  # (K, B, T, H)
    unit: np.ndarray  # (K, B, T, H): relative error of a step back


def walk(job: Sequences, states: np.ndarray) -> Walk | None:
    """A walk along states (K, B, T, H) of a job; None where a bound cannot be given."""
    w1, w2, b = (w.astype(Long) for w in job.weights[:3])
    steps = np.arange(job.x.shape[1])
    within = (steps < job.lengths[:, None])[None, :, :, None]
    x = np.where(within[0], job.x, 0).astype(Long)
    before = np.concatenate([job.h0[:, :, None], states[:, :, :-1]], axis=2).astype(Long)
    before = np.where(within, before, 0)
    z, terms = (
        np.einsum("khf,btf->kbth", of_x, x_) + np.einsum("khj,kbtj->kbth", of_h, h) + bias
        for of_x, x_, of_h, h, bias in (
            (w1, x, w2, before, b[:, None, None]),
            (abs(w1), abs(x), abs(w2), abs(before), abs(b)[:, None, None]),
        )
    )
    eps = tolerances.eps(job.dtype)
    z_error = (x.shape[2] + w2.shape[2] + 1) * eps / 2 * terms
    activation = job.net.activation
    if activation == "relu" and (within & (z != 0) & (abs(z) <= z_error)).any():
        return None
    unit = (SLOPE_UNITS + w2.shape[2] + 4) * eps + STEEPNESS[activation] * z_error
    if not unit.max(initial=0) * max(1, len(steps)) < FIRST_ORDER:
        return None
    slope = np.where(within, _slope(activation, z), 0)
    if activation in ("tanh", "sigmoid") and (within & (slope < LEAST_SLOPE)).any():
        return None
    return Walk(before, x, slope, unit)


def _slope(activation, z):
    if activation == "relu":
        return (z > 0).astype(Long)
    if activation == "identity":
        return np.ones_like(z)
    e = np.exp(-(2 if activation == "tanh" else 1) * abs(z))
    return (4 if activation == "tanh" else 1) * e / (1 + e) ** 2


def back_propagate(
    job: Sequences, own: Walk, upstream: Bounded, dlast: np.ndarray
) -> dict[str, Bounded]:
    """Gradients of w1, w2, b (K, B, ...), x and h0, of upstream (K, B, T, H)."""
    w1, w2 = (w.astype(Long) for w in job.weights[:2])
    hidden, steps = w2.shape[2], own.x.shape[1]
    eps = tolerances.eps(job.dtype)
    carried = Bounded(dlast.astype(Long), abs(dlast.astype(Long)), np.zeros(dlast.shape, Long))
    parts = [np.zeros(own.slope.shape, Long) for _ in range(3)]
    for t in reversed(range(steps)):
        slope, running = own.slope[:, :, t], (t < job.lengths)[:, None]
        joined = [c + u[:, :, t] for c, u in zip(carried, upstream, strict=True)]
        dz = Bounded(*(part * slope for part in joined))
        dz = dz._replace(error=dz.error + own.unit[:, :, t] * dz.size)
        for part, found in zip(parts, dz, strict=True):
            part[:, :, t] = found
        back = dz.through("khj,kbh->kbj", w2, eps, hidden + 1)
        carried = Bounded(*(np.where(running, *pair) for pair in zip(back, carried, strict=True)))
    dz = Bounded(*parts)

    def over_time(other):
        sums = [
            np.einsum("kbth,kbti->kbhi", part, factor)
            for part, factor in zip(dz, (other, abs(other), abs(other)), strict=True)
        ]
        return Bounded(sums[0], sums[1], sums[2] + (steps + 3) * eps * sums[1])

    x = np.broadcast_to(own.x, (len(w1), *own.x.shape))
    ones = np.ones((*own.slope.shape[:3], 1), Long)
    return {
        "w1": over_time(x),
        "w2": over_time(own.before),
        "b": Bounded(*(part[..., 0] for part in over_time(ones))),
        "x": dz.through("khf,kbth->kbtf", w1, eps, hidden + 1),
        "h0": carried,
    }


def of_errors(
    job: Sequences, states: np.ndarray, target: np.ndarray
) -> tuple[dict[str, Bounded], Bounded]:
    """Loss and gradients of w3, b3 (K, B, ...) of half the squared errors; and their upstream."""
    eps, w3, b3 = tolerances.eps(job.dtype), *(w.astype(Long) for w in job.weights[3:])
    within = (np.arange(job.x.shape[1]) < job.lengths[:, None])[None, :, :, None]
    h, y = states.astype(Long), np.where(within, target, 0).astype(Long)
    terms, units = w3.shape[2] + 2, w3.shape[1]
    if job.net.has_readout:
        found = np.einsum("koh,kbth->kbto", w3, h) + b3[:, None, None]
        size = np.einsum("koh,kbth->kbto", abs(w3), abs(h)) + abs(b3)[:, None, None]
    else:
        found, size, terms, units = h, abs(h), 2, 1
    error = np.where(within, found - y, 0)
    lost = np.where(within, terms * eps * (size + abs(y)), 0)
    errors = Bounded(error, abs(error), lost)
    count = (job.x.shape[1] * error.shape[3] + 3) * eps
    squares = (error * error).sum(axis=(2, 3)) / 2
    loss = Bounded(
        squares, squares, count * squares + (abs(error) * lost + lost * lost).sum(axis=(2, 3))
    )
    if not job.net.has_readout:
        return {"loss": loss}, errors
    by_w3 = [
        np.einsum("kbto,kbth->kboh", part, factor)
        for part, factor in zip(errors, (h, abs(h), abs(h)), strict=True)
    ]
    by_b3 = [part.sum(axis=2) for part in errors]
    sums = {
        name: Bounded(value, size, error + count * size)
        for name, (value, size, error) in (("w3", by_w3), ("b3", by_b3))
    }
    return {"loss": loss, **sums}, errors.through("koh,kbto->kbth", w3, eps, units + 1)
