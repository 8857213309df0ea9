"""Tiles: a block of lanes over some steps, step after step, as vector kernels want it.

A lane is one net over one sequence. Arrays of the caller have any strides; a tile is flat and
dense, ``tile[step * width + lane]``. Lane l of a block is found in an array from the element
``offsets[l]`` on, its steps ``stride`` elements apart.
"""

from fastrnn.kernels.jit import kernel
from fastrnn.kernels.memory import get, lanes_of, load, load_columns, put, store, store_columns
from fastrnn.kernels.simd import splat


@kernel
def load_tile(array, offsets, stride, first_step, steps, tile, at, width):
    """Fill ``steps`` rows of a tile from element ``at`` on, by the fastest way there is."""
    n = lanes_of(tile)
    for v in range(0, width, n):
        whole = steps - steps % n
        if _same(offsets, v, n):  # a bank: one value for all of its nets
            for s in range(steps):
                value = get(array, offsets[v] + (first_step + s) * stride)
                store(tile, at + s * width + v, splat(value))
        elif stride == 1:  # one sequence after the other
            for s in range(0, whole, n):
                load_columns(array, offsets, v, first_step + s, tile, at + s * width + v, width)
            _load_elements(array, offsets, stride, first_step, whole, steps, tile, at, width, v)
        elif _consecutive(offsets, v, n):  # one step after the other
            for s in range(steps):
                row = load(array, offsets[v] + (first_step + s) * stride)
                store(tile, at + s * width + v, row)
        else:
            _load_elements(array, offsets, stride, first_step, 0, steps, tile, at, width, v)


@kernel
def store_tile(tile, at, width, count, steps, array, offsets, stride, first_step):
    """Write the first ``count`` lanes of ``steps`` rows from element ``at`` on."""
    n = lanes_of(tile)
    for v in range(0, width, n):
        whole = steps - steps % n if count >= v + n else 0
        if stride == 1:
            for s in range(0, whole, n):
                store_columns(array, offsets, v, first_step + s, tile, at + s * width + v, width)
        elif whole > 0 and _consecutive(offsets, v, n):
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


@kernel
def _same(offsets, v, n):
    for lane in range(v + 1, v + n):
        if offsets[lane] != offsets[v]:
            return False
    return True


@kernel
def _consecutive(offsets, v, n):
    for lane in range(v + 1, v + n):
        if offsets[lane] != offsets[lane - 1] + 1:
            return False
    return True
