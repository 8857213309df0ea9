"""Lyapunov exponents from local growth: means, error bars, and when to rely on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.folds import fold, fold_mean
from fastrnn.sequences import Sequences

# Batches whose means are compared. More would be shorter, and less independent of each other.
BATCHES = 32
# With fewer, a standard error is not one to rely on.
LEAST_BATCHES = 8
# Halves that differ by more standard errors of the whole, which are half as large as those of
# their difference, are not of one stationary run.
MOST_DEVIATIONS = 6.0
# Neighbouring batches that are correlated by more are too short: twice the error is not enough.
MOST_RELATED = 0.5
# Relative differences of that size are rounding.
ROUNDING = 2.0**-46
# Before or after the decimal point; with more, a number is written in scientific form.
MOST_DIGITS = 6
# Of tangent vectors, which start in directions that no layer is likely to treat specially.
SEED = 20_260

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Lyapunov:
    """Lyapunov exponents, a row of k for every net and sequence, the largest first.

    Attributes
    ----------
    exponents : ndarray, shape [K,] [B,] k
        Mean growth per step of k independent perturbations of the state, natural logarithm.
    stderr : ndarray, shape [K,] [B,] k
        Standard error of each by batch means; NaN where there are too few steps for two batches.
    converged : ndarray of bool, shape [K,] [B,] k
        Whether the standard error can be relied on: the run is long enough for it, and its two
        halves agree. Where a standard error was asked for, also whether it was reached.
    steps : ndarray of int, shape [K,] [B]
        Steps that were averaged over.
    local : ndarray, shape [K,] [B,] W, k, or None
        Mean growth per step in windows of the steps asked for; NaN past a sequence's length.
    """

    exponents: Any
    stderr: Any
    converged: Any
    steps: Any
    local: Any

    def __repr__(self) -> str:
        shape = np.shape(self.exponents)
        if len(shape) > 1:
            return f"Lyapunov(exponents of shape {shape})"
        pairs = zip(self.exponents, self.stderr, self.converged, strict=True)
        return "Lyapunov(" + ", ".join(error_text(*pair) for pair in pairs) + ")"


def error_text(value: float, stderr: float, converged: bool = True) -> str:
    """A number with its standard error, to the digits this leaves.

    Examples
    --------
    >>> error_text(-0.123456, 0.0021)
    '-0.1235 ± 0.0021'
    """
    text = f"{value:.6g}"
    if stderr == 0:
        text += " ± 0"
    elif math.isfinite(stderr) and math.isfinite(value):
        digits = max(0, 1 - math.floor(math.log10(stderr)))
        if digits <= MOST_DIGITS and max(abs(value), stderr) < 10.0**MOST_DIGITS:
            text = f"{value:.{digits}f} ± {stderr:.{digits}f}"
        else:
            text += f" ± {stderr:.1e}"
    return text + ("" if converged else ", not converged")


class Estimate(NamedTuple):
    """Mean growth (K, B, k), its standard error, and whether that can be relied on."""

    mean: Doubles
    stderr: Doubles
    reliable: NDArray[np.bool_]

    @classmethod
    def of(cls, sums: Doubles, steps: NDArray[np.int64], windows: NDArray[np.int64]) -> Estimate:
        """From sums (K, B, W, k) over windows (B,) of steps (B,)."""
        shape = (*sums.shape[:2], sums.shape[3])
        found = cls(np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool))
        for length in np.unique(steps[steps > 0]):
            own = steps == length
            parts = _of_length(sums[:, own], int(length), int(windows[own][0]))
            for whole, part in zip(found, parts, strict=True):
                whole[:, own] = part
        return found


def largest(
    sums: Doubles, steps: NDArray[np.int64], windows: NDArray[np.int64], turns: bool
) -> Estimate:
    """The largest exponent from sums (K, B, W, 1) of a whole run.

    A perturbation of several units first ``turns`` to where it grows: without the first window.
    """
    every = Estimate.of(sums, steps, windows)
    if not turns:
        return every
    later = Estimate.of(sums[:, :, 1:], np.maximum(steps - windows, 0), windows)
    some = (steps > windows)[:, None]
    return Estimate(*(np.where(some, *pair) for pair in zip(later, every, strict=True)))


def _of_length(sums: Doubles, steps: int, window: int) -> Estimate:
    """Estimate of sequences of one length."""
    with np.errstate(all="ignore"):
        mean = fold(sums, 2) / steps
        # Batches of whole windows; what is left at the end has no part in the error.
        group = max(1, steps // window // BATCHES)
        count = steps // window // group
        if count < 2:
            return Estimate(mean, np.full(mean.shape, np.nan), np.zeros(mean.shape, bool))
        whole = sums[:, :, : count * group].reshape(*sums.shape[:2], count, group, sums.shape[3])
        batches = fold(whole, 3) / (group * window)
        stderr, steady = _error_of_mean(batches)
    gone = np.isneginf(mean)
    reliable = gone | steady
    return Estimate(mean, np.where(gone, 0.0, stderr), reliable)


def _error_of_mean(batches: Doubles) -> tuple[Doubles, NDArray[np.bool_]]:
    """Standard error (K, B, k) of the mean of batches (K, B, N, k), and whether it is reliable."""
    count = batches.shape[2]
    # Squares of what is in units of the largest do not overflow.
    unit = np.max(abs(batches), axis=2, keepdims=True)
    batches = batches / np.where(unit > 0, unit, 1.0)
    deviation = batches - fold_mean(batches, 2)[:, :, None]
    squares = fold(deviation * deviation, 2)
    stderr = np.sqrt(squares / (count - 1)) / math.sqrt(count)
    half = count // 2
    halves = abs(fold_mean(batches[:, :, :half], 2) - fold_mean(batches[:, :, count - half :], 2))
    related = fold(deviation[:, :, 1:] * deviation[:, :, :-1], 2) / squares
    # Where all that differs is rounding, nothing else is to be read into it.
    constant = stderr <= ROUNDING
    unit = unit[:, :, 0]
    agree = halves * unit <= MOST_DEVIATIONS * (stderr * unit)
    steady = agree & (related <= MOST_RELATED)
    return stderr * unit, constant | ((count >= LEAST_BATCHES) & steady)


def batch_lengths(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Steps of a batch of sequences of some lengths."""
    return np.maximum(1, steps // BATCHES)


def lyapunov_result(
    job: Sequences, estimate: Estimate, steps: NDArray[np.int64], local: Doubles | None
) -> Lyapunov:
    """What the caller sees of an estimate from so many steps (K, B)."""
    mean, stderr, reliable = (job.visible(array, "KB") for array in estimate)
    rates = None if local is None else job.visible(local, "KB")
    return Lyapunov(mean, stderr, reliable, job.visible(steps, "KB"), rates)


def local_rates(sums: Doubles, steps: NDArray[np.int64], window: int) -> Doubles:
    """Mean growth per step (K, B, W, k) in windows; NaN past the end."""
    within = np.clip(steps[:, None] - np.arange(sums.shape[2]) * window, 0, window)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(within > 0, sums / within, np.nan)


def directions(hidden: int) -> Doubles:
    """Where tangent vectors start, an orthonormal basis, a vector a row: always the same one."""
    random = np.random.default_rng(SEED).standard_normal((hidden, hidden))
    return np.ascontiguousarray(np.linalg.qr(random)[0].T)
