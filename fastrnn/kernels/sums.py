"""Sums whose order does not depend on shapes, layouts or threads."""

import math

import numpy as np
from numpy.typing import NDArray

from fastrnn.kernels.jit import kernel


def ordered_sum(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum (K, ...) of a contiguous float64 array (K, B, ...), in the order of B."""
    nets, rows = array.shape[:2]
    width = math.prod(array.shape[2:])
    total = np.zeros((nets, width))
    _add_rows(array.reshape(nets, rows, width), total)
    return total.reshape(nets, *array.shape[2:])


@kernel
def _add_rows(array, total):  # type: ignore[no-untyped-def]
    # Rows outermost: the sums of all nets then run side by side.
    for row in range(array.shape[1]):
        for k in range(array.shape[0]):
            for column in range(array.shape[2]):
                total[k, column] += array[k, row, column]
