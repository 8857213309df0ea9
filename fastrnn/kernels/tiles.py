"""Rows and tiles: a block of lanes over some steps, step after step, as vector kernels want it.

A lane is one net over one sequence. Arrays of the caller have any strides; lane l of a block is
found in one from the element ``offsets[l]`` on, its steps ``stride`` elements apart. Where the
lanes of every vector lie side by side, kernels read and write these rows where they are; else by
way of a tile, flat and dense: ``tile[step * width + lane]``. Kernels are handed rows as

    array, offsets, start, stride, shared

vector v of step s from element ``offsets[v] + start + s * stride`` on, or, where ``shared``,
that one number for all its lanes.
"""

import numpy as np

from fastrnn.kernels.jit import kernel, part
from fastrnn.kernels.memory import (
    get,
    lanes_of,
    load,
    load_columns,
    load_double,
    put,
    store,
    store_columns,
)
from fastrnn.kernels.simd import splat

# How the lanes of a vector lie in an array: in one place (a bank: its nets share an input), one
# sequence after the other, side by side in each step, or anyhow.
SAME, SEQUENCES, SIDE_BY_SIDE, ANYHOW = 0, 1, 2, 3


@kernel
def find_layouts(like_array, offsets, stride, width, layouts):
    """How the lanes of each vector of a block lie."""
    n = lanes_of(like_array)
    for v in range(0, width, n):
        same = consecutive = True
        for lane in range(v + 1, v + n):
            same = same and offsets[lane] == offsets[v]
            consecutive = consecutive and offsets[lane] == offsets[lane - 1] + 1
        if same:
            layouts[v // n] = SAME
        elif stride == 1:
            layouts[v // n] = SEQUENCES
        else:
            layouts[v // n] = SIDE_BY_SIDE if consecutive else ANYHOW


@part
def all_lie(layouts, vectors, layout):
    """Whether all vectors of a block lie in one way."""
    found = True
    for v in range(vectors):
        found = found and layouts[v] == layout
    return found


@part
def in_rows(layouts, vectors):
    """Whether a block can be read where it is."""
    return all_lie(layouts, vectors, SIDE_BY_SIDE) or all_lie(layouts, vectors, SAME)


@part
def place(rows, v):
    """Where vector v of step 0 lies."""
    _, offsets, start, _, _ = rows
    return offsets[v] + start


@part
def load_row(rows, place, s):
    """The vector that lies at ``place``, of step s."""
    array, _, _, stride, shared = rows
    at = place + s * stride
    return splat(get(array, at)) if shared else load(array, at)


@part
def load_row_double(rows, place, s):
    """Eight numbers of either type from ``place`` on, of step s, as float64."""
    array, _, _, stride, shared = rows
    at = place + s * stride
    return splat(np.float64(get(array, at))) if shared else load_double(array, at)


@part
def store_row(rows, place, s, vector):
    """Write the vector that lies at ``place``, of step s."""
    array, _, _, stride, _ = rows
    store(array, place + s * stride, vector)


@kernel
def load_rows(
    array, layouts, offsets, stride, first_step, steps, width, direction, tile, tile_offsets
):  # fmt: skip
    """Rows of ``steps`` steps, those of ``array`` itself or of the tile, which is then filled.

    Tiles follow one another in time in ``direction`` 1, or -1.
    """
    n = lanes_of(tile)
    if in_rows(layouts, width // n):
        return array, offsets, first_step * stride, stride, layouts[0] == SAME
    whole = steps - steps % n
    for v in range(0, width, n):
        if layouts[v // n] == SAME:
            for s in range(steps):
                x = get(array, offsets[v] + (first_step + s) * stride)
                store(tile, s * width + v, splat(x))
        elif layouts[v // n] == SEQUENCES:
            for s in range(0, whole, n):
                load_columns(
                    array, offsets, v, first_step + s, tile, s * width + v, width, direction
                )
            _load_elements(array, offsets, stride, first_step, whole, steps, tile, width, v)
        else:
            _load_elements(array, offsets, stride, first_step, 0, steps, tile, width, v)
    return tile, tile_offsets, 0, width, False


@part
def rows_for(array, layouts, offsets, stride, first_step, width, tile, tile_offsets):
    """Rows to write to: those of ``array`` itself, or of the tile; see `store_rows`."""
    if all_lie(layouts, width // lanes_of(tile), SIDE_BY_SIDE):
        return array, offsets, first_step * stride, stride, False
    return tile, tile_offsets, 0, width, False


@kernel
def store_rows(tile, array, layouts, offsets, stride, first_step, steps, width, direction):
    """Write a tile to ``array``, unless its rows were those of `rows_for`."""
    n = lanes_of(tile)
    if all_lie(layouts, width // n, SIDE_BY_SIDE):
        return
    for v in range(0, width, n):
        whole = steps - steps % n if layouts[v // n] == SEQUENCES else 0
        for s in range(0, whole, n):
            store_columns(array, offsets, v, first_step + s, tile, s * width + v, width, direction)
        last = v + 1 if layouts[v // n] == SAME else v + n
        for lane in range(v, last):
            for s in range(whole, steps):
                put(array, offsets[lane] + (first_step + s) * stride, tile[s * width + lane])


@kernel
def _load_elements(array, offsets, stride, first_step, start, steps, tile, width, v):
    for lane in range(v, v + lanes_of(tile)):
        for s in range(start, steps):
            tile[s * width + lane] = get(array, offsets[lane] + (first_step + s) * stride)
