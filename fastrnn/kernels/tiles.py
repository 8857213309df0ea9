"""Tiles: a block of lanes over some steps, step after step, as vector kernels want it.

A lane is one net over one sequence. Arrays of the caller have any strides; a tile is flat and
dense, ``tile[step * width + lane]``. Lane l of a block is found in an array from the element
``offsets[l]`` on, its steps ``stride`` elements apart.
"""

from fastrnn.kernels.jit import kernel
from fastrnn.kernels.memory import (
    get,
    lanes_of,
    load,
    load_columns,
    prefetch,
    put,
    store,
    store_columns,
)
from fastrnn.kernels.simd import splat

# How the lanes of a vector lie in an array: in one place (a bank: its nets share an input), one
# sequence after the other, one step after the other, or anyhow.
SAME, SEQUENCES, STEPS, ANYHOW = 0, 1, 2, 3
# Steps that are asked for ahead of their turn where each is a row of its own.
AHEAD = 32


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
            layouts[v // n] = STEPS if consecutive else ANYHOW


@kernel
def load_tile(array, layouts, offsets, stride, first_step, steps, tile, at, width, direction):
    """Fill ``steps`` rows of a tile from element ``at`` on, by the fastest way there is.

    Tiles follow one another in time in ``direction`` 1, or -1.
    """
    n = lanes_of(tile)
    for v in range(0, width, n):
        whole = steps - steps % n
        layout = layouts[v // n]
        if layout == SAME:
            for s in range(steps):
                value = get(array, offsets[v] + (first_step + s) * stride)
                store(tile, at + s * width + v, splat(value))
        elif layout == SEQUENCES:
            for s in range(0, whole, n):
                load_columns(
                    array, offsets, v, first_step + s, tile, at + s * width + v, width, direction
                )
            _load_elements(array, offsets, stride, first_step, whole, steps, tile, at, width, v)
        elif layout == STEPS:
            for s in range(steps):
                row = offsets[v] + (first_step + s) * stride
                prefetch(array, row + direction * AHEAD * stride)
                store(tile, at + s * width + v, load(array, row))
        else:
            _load_elements(array, offsets, stride, first_step, 0, steps, tile, at, width, v)


@kernel
def store_tile(
    tile, at, width, count, steps, array, layouts, offsets, stride, first_step, direction
):
    """Write the first ``count`` lanes of ``steps`` rows from element ``at`` on."""
    n = lanes_of(tile)
    for v in range(0, width, n):
        whole = steps - steps % n if count >= v + n else 0
        layout = layouts[v // n]
        if layout == SEQUENCES:
            for s in range(0, whole, n):
                store_columns(
                    array, offsets, v, first_step + s, tile, at + s * width + v, width, direction
                )
        elif layout == STEPS and whole > 0:
            whole = steps
            for s in range(steps):
                store(array, offsets[v] + (first_step + s) * stride, load(tile, at + s * width + v))
        else:
            whole = 0
        for lane in range(v, min(v + n, count)):
            for s in range(whole, steps):
                put(array, offsets[lane] + (first_step + s) * stride, tile[at + s * width + lane])


@kernel
def _load_elements(array, offsets, stride, first_step, start, steps, tile, at, width, v):
    for lane in range(v, v + lanes_of(tile)):
        for s in range(start, steps):
            tile[at + s * width + lane] = get(array, offsets[lane] + (first_step + s) * stride)
