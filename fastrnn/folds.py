"""Sums over an axis whose bits depend on the numbers and their places alone.

NumPy groups the terms of a sum by shape and memory layout, so that a sequence in a batch would have
other bits than the same sequence alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def fold(array: NDArray[Any], axis: int) -> Doubles:
    """Sum over an axis, in float64: of neighbours, then of those neighbours, and so on.

    Which terms meet depends on their places alone, and zeros at the end change nothing. The
    rounding error grows with the logarithm of the number of terms.
    """
    terms = np.moveaxis(np.asarray(array, np.float64), axis, 0)
    if len(terms) == 0:
        return np.zeros(terms.shape[1:])
    while len(terms) > 1:
        terms = halved(terms)
    # Zeros at the end would make a sum of -0.0 into 0.0.
    return np.asarray(terms[0] + 0.0)


def halved(terms: Doubles) -> Doubles:
    """Sums of neighbours along the first axis; an odd one is left over."""
    sums = terms[::2].copy()
    sums[: len(terms) // 2] += terms[1::2]
    return sums


def fold_mean(array: NDArray[Any], axis: int) -> Doubles:
    """Mean over an axis, by the same sums."""
    return np.asarray(fold(array, axis) / array.shape[axis])
