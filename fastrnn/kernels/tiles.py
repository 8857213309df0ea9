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

from fastrnn.kernels.blocks import sequence
from fastrnn.kernels.jit import kernel, part
from fastrnn.kernels.memory import (
    get,
    lanes_of,
    load,
    load_columns,
    load_double,
    load_places,
    prefetch,
    prefetch_places,
    put,
    splat_places,
    store,
    store_columns,
    store_past,
    store_places,
)
from fastrnn.kernels.simd import splat

# Steps between a row and the one that is asked for, where it is computed with, or only copied.
AHEAD, FAR_AHEAD = 8, 32

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
def load_group_row(like_group, rows, v, s):
    """Vectors v and following, of step s, as one; a row to come is asked for.

    Each row of a group lies in another page than the one before: no processor foresees it.
    """
    array, offsets, start, stride, shared = rows
    at = start + s * stride
    if shared:
        return splat_places(like_group, array, offsets, v, at)
    prefetch_places(like_group, array, offsets, v, at + AHEAD * stride)
    return load_places(like_group, array, offsets, v, at)


@part
def store_group_row(rows, v, s, group, past):
    """Write vectors v and following of step s; past the caches where they are whole lines."""
    array, offsets, start, stride, _ = rows
    store_places(array, offsets, v, start + s * stride, group, past)


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
    """Rows of ``steps`` steps, those of ``array`` itself or of the tile, which is then filled."""
    if in_rows(layouts, width // lanes_of(tile)):
        return array, offsets, first_step * stride, stride, layouts[0] == SAME
    return load_tile(
        array, layouts, offsets, stride, first_step, steps, width, direction, tile, tile_offsets
    )


@kernel
def load_tile(
    array, layouts, offsets, stride, first_step, steps, width, direction, tile, tile_offsets
):  # fmt: skip
    """Fill a tile with ``steps`` steps, unless all lanes share them; its rows.

    Tiles follow one another in time in ``direction`` 1, or -1.
    """
    n = lanes_of(tile)
    if all_lie(layouts, width // n, SAME):
        return array, offsets, first_step * stride, stride, True
    if all_lie(layouts, width // n, SIDE_BY_SIDE):
        for s in range(steps):
            at = (first_step + s) * stride
            for v in range(0, width, n):
                prefetch(array, offsets[v] + at + FAR_AHEAD * stride)
                store(tile, s * width + v, load(array, offsets[v] + at))
        return tile, tile_offsets, 0, width, False
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
def in_lines(array, layouts, offsets, stride, width):
    """Whether the vectors of every row fill lines of a cache."""
    n = lanes_of(array)
    found = all_lie(layouts, width // n, SIDE_BY_SIDE) and stride % n == 0
    for v in range(0, width, n):
        found = found and (array.ctypes.data // array.itemsize + offsets[v]) % n == 0
    return found


@part
def in_one_row(offsets, width):
    """Whether all lanes of a block lie side by side."""
    found = True
    for lane in range(1, width):
        found = found and offsets[lane] == offsets[0] + lane
    return found


@part
def tile_rows(tile, tile_offsets, width):
    """The rows of a tile."""
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
    if not all_lie(layouts, width // lanes_of(tile), SIDE_BY_SIDE):
        store_tile(tile, array, layouts, offsets, stride, first_step, steps, width, direction)


@kernel
def store_tile(tile, array, layouts, offsets, stride, first_step, steps, width, direction):
    """Write a tile to ``array``."""
    n = lanes_of(tile)
    if all_lie(layouts, width // n, SIDE_BY_SIDE):
        for s in range(steps):
            at = (first_step + s) * stride
            for v in range(0, width, n):
                store(array, offsets[v] + at, load(tile, s * width + v))
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
def store_rows_past(tile, array, layouts, offsets, stride, first_step, steps, width, room):
    """The same past the caches: what results overwrite is not fetched first.

    All lanes are sequences, or lie side by side. The room is that of a vector's lanes.
    """
    n = lanes_of(tile)
    if layouts[0] != SEQUENCES:
        for s in range(steps):
            _copy_past(tile, s * width, array, offsets[0] + (first_step + s) * stride, width)
        return
    whole, rows = steps - steps % n, sequence(n)
    for lane in range(n):
        rows[lane] = lane * steps
    for v in range(0, width, n):
        for s in range(0, whole, n):
            store_columns(room, rows, 0, s, tile, s * width + v, width, 1)
        for lane in range(n):
            for s in range(whole, steps):
                room[lane * steps + s] = tile[s * width + v + lane]
            _copy_past(room, lane * steps, array, offsets[v + lane] + first_step, steps)


@kernel
def _copy_past(source, start, array, to, count):
    """Copy consecutive numbers, whole lines of a cache at a time."""
    n = lanes_of(source)
    first = min((-(array.ctypes.data // array.itemsize + to)) % n, count)
    last = first + (count - first) // n * n
    for at in range(first):
        put(array, to + at, source[start + at])
    for at in range(first, last, n):
        store_past(array, to + at, load(source, start + at))
    for at in range(last, count):
        put(array, to + at, source[start + at])


@kernel
def _load_elements(array, offsets, stride, first_step, start, steps, tile, width, v):
    for lane in range(v, v + lanes_of(tile)):
        for s in range(start, steps):
            tile[s * width + lane] = get(array, offsets[lane] + (first_step + s) * stride)
