"""Panels: matrices cut into vectors of columns, as the tiles of ``products.py`` take them.

A panel is some vectors of columns, all rows of them in one piece of memory. Kernels are compiled
for the shape of a panel, and are handed it as a tuple of as many tuples as it has vectors, of as
many numbers as those have lanes: what a compiler knows of a tuple is its length. Where the columns
are no multiple of a panel, the last one overlaps the one before it: the same numbers are then
found twice.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numba.core.registry import cpu_target
from numpy.typing import DTypeLike, NDArray

Panel = tuple[tuple[int, ...], ...]
Array = NDArray[Any]

LINE_BYTES = 64
# Rows of a tile. With 16 registers of 32 bytes, 6 rows of 64 bytes are 12 sums that do not wait
# for each other, beside what is loaded: those of 4 rows wait for a multiply-add now and then.
MOST_ROWS = 6
# Vectors of 64 bytes that the registers of a processor hold as sums: 16 of 32 bytes, 32 of 64.
SUMS, WIDE_SUMS = 6, 24
# Lanes of narrow vectors. Each width is compiled by itself.
NARROW = 4


@functools.cache
def most_sums() -> int:
    """Vectors of 64 bytes that the registers of this processor hold as sums."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return WIDE_SUMS if "+avx512f" in features else SUMS


def panel_for(columns: int, rows: int, dtype: np.dtype[Any]) -> Panel:
    """Shape of panels for so many columns, and rows that are multiplied side by side."""
    full = LINE_BYTES // dtype.itemsize
    if columns < full:
        return ((0,) * (NARROW if columns >= NARROW else 1),)
    # Sums enough to hide that each waits for its last one; with few rows, of more columns.
    vectors = max(1, most_sums() // (2 * MOST_ROWS)) * (4 if rows == 1 else 2 if rows <= 3 else 1)
    return ((0,) * full,) * min(vectors, columns // full)


def width(panel: Panel) -> int:
    """Columns of a panel."""
    return len(panel) * len(panel[0])


def count(columns: int, panel: Panel) -> int:
    """Panels of so many columns."""
    return -(-columns // width(panel))


def row_stride(numbers: int, dtype: np.dtype[Any]) -> int:
    """From row to row: an odd number of cache lines, lest all rows share a few places of a cache.

    Rows shorter than a line lie side by side.
    """
    n = LINE_BYTES // dtype.itemsize
    return numbers if numbers < n else (-(-numbers // n) | 1) * n


def aligned(
    shape: tuple[int, ...], dtype: DTypeLike, make: Callable[..., Array] = np.empty
) -> Array:
    """Room for an array, from the start of a cache line on."""
    size, dtype = math.prod(shape), np.dtype(dtype)
    room = make(size + LINE_BYTES // dtype.itemsize, dtype)
    address: int = room.__array_interface__["data"][0]
    first = -address % LINE_BYTES // dtype.itemsize
    return room[first : first + size].reshape(shape)


def rooms(sizes: Iterable[int], dtype: DTypeLike) -> list[Array]:
    """Zeros for so many numbers each, from the start of a cache line on, with a vector behind."""
    n = LINE_BYTES // np.dtype(dtype).itemsize
    stops = list(itertools.accumulate((-(-size // n) + 1) * n for size in sizes))
    whole = aligned((stops[-1],), dtype)
    whole.fill(0)
    return [whole[start:stop] for start, stop in itertools.pairwise([0, *stops])]


def in_vectors(w: Array) -> Array:
    """Matrices (K, inner, columns), no wider than a vector, a vector a row: (K, inner x n)."""
    nets, inner, columns = w.shape
    n = LINE_BYTES // w.dtype.itemsize
    result = aligned((nets, inner, n), w.dtype)
    result[..., :columns], result[..., columns:] = w, 0
    return result.reshape(nets, inner * n)


def packed(w: Array, panel: Panel) -> Array:
    """Matrices (..., inner, columns) as their panels, (..., panels x inner x width)."""
    *before, inner, columns = w.shape
    panels, own = count(columns, panel), width(panel)
    result = aligned((*before, panels, inner, own), w.dtype)
    for number in range(panels):
        start = min(number * own, columns - own)
        result[..., number, :, :] = w[..., start : start + own]
    return result.reshape(*before, panels * inner * own)


def unpacked(panels: Array, inner: int, columns: int, panel: Panel) -> Array:
    """The way back of `packed`."""
    before = panels.shape[:-1]
    panels = panels.reshape(*before, count(columns, panel), inner, width(panel))
    result = np.empty((*before, inner, columns), panels.dtype)
    for number in range(panels.shape[-3]):
        start = min(number * width(panel), columns - width(panel))
        result[..., start : start + width(panel)] = panels[..., number, :, :]
    return result
