"""Sums whose order does not depend on shapes, layouts or threads."""

import math

import numpy as np
from numpy.typing import NDArray

from fastrnn.kernels.jit import kernel
from fastrnn.kernels.scaled_sums import NO_POWER, SUM, add_totals


def ordered_sum(
    array: NDArray[np.float64], first: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Sum (K, ...) of a contiguous float64 array (K, B, ...), in the order of B.

    A sum of what comes before may be given as the ``first`` term (K, ...).
    """
    nets, rows = array.shape[:2]
    width = math.prod(array.shape[2:])
    total = np.zeros((nets, width)) if first is None else first.reshape(nets, width).copy()
    _add_rows(array.reshape(nets, rows, width), total)
    return total.reshape(nets, *array.shape[2:])


def ordered_total(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums (N, 1, 4) over the B of (N, B, 4), each in the numbers of ``scaled_sums``, in order."""
    total = np.zeros((len(sums), 1, sums.shape[2]))
    total[..., -1] = NO_POWER
    _add_totals(sums, total)
    return total


@kernel
def _add_totals(sums, total):  # type: ignore[no-untyped-def]
    for row in range(sums.shape[0]):
        found = (0.0, 0.0, 0.0, NO_POWER)
        for i in range(sums.shape[1]):
            value, lost, size, power = sums[row, i]
            found = add_totals(found, (value, lost, size, power))
        for number in range(SUM):
            total[row, 0, number] = found[number]


@kernel
def _add_rows(array, total):  # type: ignore[no-untyped-def]
    # Rows outermost: the sums of all nets then run side by side.
    for row in range(array.shape[1]):
        for k in range(array.shape[0]):
            for column in range(array.shape[2]):
                total[k, column] += array[k, row, column]
