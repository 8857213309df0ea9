"""Which W2 forgets most slowly: by exponents and their errors, over all steps.

Not by the horizon of the last step, which is an accident of the last few inputs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The memory horizon is where an input's influence falls below this share of the newest one's.
HORIZON_DECADES = 3.0


class Slowest(NamedTuple):
    """The W2 whose exponent is the largest below 0, and the stretch around it that may be it."""

    w2: float
    low: float
    high: float
    exponent: float


def rates(exponent: ArrayLike) -> NDArray[np.float64]:
    """Exponents that are finite and below 0; -inf for all others, which do not forget by a rate."""
    found = np.asarray(exponent, np.float64)
    return np.where(np.isfinite(found) & (found < 0), found, -np.inf)


def slowest(w2: ArrayLike, exponent: ArrayLike, stderr: ArrayLike) -> Slowest | None:
    """The slowest of some W2 (K,); None where none forgets at a finite rate.

    Neighbours belong to its stretch as long as they differ by no more than both errors.
    """
    order = np.argsort(w2, kind="stable")
    weights, errors = (np.asarray(a, np.float64)[order] for a in (w2, stderr))
    own, errors = rates(exponent)[order], np.nan_to_num(errors, posinf=0.0)
    if np.isneginf(own).all():
        return None
    best = int(np.argmax(own))
    as_slow = own[best] - own <= np.hypot(errors, errors[best])
    low = high = best
    while low > 0 and as_slow[low - 1]:
        low -= 1
    while high + 1 < len(weights) and as_slow[high + 1]:
        high += 1
    at = (float(weights[i]) for i in (best, low, high))
    return Slowest._make([*at, float(own[best])])


def pace(exponent: float) -> str:
    """In words, how fast an exponent below 0 forgets."""
    factor = math.exp(-exponent) if exponent > -700 else math.inf
    steps = math.ceil(HORIZON_DECADES * math.log(10) / -exponent)
    by = f"a factor of {factor:.3g}" if factor < 1e6 else f"10^{exponent / math.log(10):.3g}"
    left = f"{10**-HORIZON_DECADES:.1%}"
    return f"{by} a step, {left} left after {steps} {'step' if steps == 1 else 'steps'}"


def in_words(w2: ArrayLike, exponent: ArrayLike, stderr: Any) -> str:
    """A sentence, or nothing where no W2 forgets at a finite rate."""
    found = slowest(w2, exponent, stderr)
    if found is None:
        return ""
    where = f"W2 = {found.w2:.4g}"
    if found.low < found.high:
        where += f" (within the error from {found.low:.4g} to {found.high:.4g})"
    return f"forgets most slowly: {where}, {pace(found.exponent)}"
