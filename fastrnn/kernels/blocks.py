"""Blocks: some vectors of lanes that a kernel advances side by side, and its scratch memory."""

import numpy as np
from numba import types
from numba.extending import overload

from fastrnn.kernels.jit import bare, kernel, part
from fastrnn.kernels.memory import REGISTER_BYTES, lanes_of, put

PAGE_BYTES = 4096


@kernel
def gather_block(lanes, start, count, h0, lengths, nets, sequences, ends):
    """Nets, sequences and lengths of a block's lanes; its width in whole vectors.

    The last vector overlaps the one before it, or, where there is none, repeats its last lane:
    the same numbers are then written twice.
    """
    n = lanes_of(h0)
    width = (count + n - 1) // n * n
    for lane in range(width):
        back = width - count if count >= n and lane >= width - n else 0
        number = lanes[start + min(lane - back, count - 1)]
        nets[lane], sequences[lane] = number // h0.shape[1], number % h0.shape[1]
        ends[lane] = lengths[sequences[lane]]
    return width


@kernel
def gather_weights(w1, w2, b, nets, width, weights):
    block = weights.size // 3
    for lane in range(width):
        weights[lane] = w1[nets[lane], 0, 0]
        weights[block + lane] = w2[nets[lane], 0, 0]
        weights[2 * block + lane] = b[nets[lane], 0]


@part
def lane_offsets(nets, sequences, width, net_stride, sequence_stride, offsets):
    for lane in range(width):
        offsets[lane] = nets[lane] * net_stride + sequences[lane] * sequence_stride


@kernel
def remaining_steps(ends, width, t, steps, remaining):
    """Steps from t on that each lane still has, at most ``steps``."""
    for lane in range(width):
        remaining[lane] = min(max(ends[lane] - t, 0), steps)


@kernel
def extremes(ends, width):
    """The least and the largest of the lanes' lengths."""
    least = most = ends[0]
    for lane in range(1, width):
        least, most = min(least, ends[lane]), max(most, ends[lane])
    return least, most


# Loops, and not slices: a slice costs the compiler half a second.
@part
def copy(source, start, target, to, count):
    for i in range(count):
        target[to + i] = source[start + i]


@part
def clear(array):
    for i in range(array.size):
        array[i] = 0.0


@part
def integers(size):
    return np.empty(size, np.int64)


@kernel
def sequence(size):
    """0, 1, 2 ..."""
    result = np.empty(size, np.int64)
    for i in range(size):
        result[i] = i
    return result


@kernel
def numbers(like_array, size):
    """Room for numbers of the array's type, from the start of a cache line on.

    A vector across two lines is slow to hand from a store to the next load.
    """
    room = np.empty(size + REGISTER_BYTES // like_array.itemsize, like_array.dtype)
    first = (-room.ctypes.data % REGISTER_BYTES) // like_array.itemsize
    return room[first : first + size]


@kernel
def doubles(size):
    room = np.empty(size + 8)
    first = (-room.ctypes.data % REGISTER_BYTES) // 8
    return room[first : first + size]


@bare
def touch(array):
    """Write to each page of fresh memory.

    A load that is masked out, from a page that is not there yet, takes 100 ns and brings none.
    """
    for at in range(0, array.size, PAGE_BYTES // array.itemsize):
        put(array, at, 0.0)


def numbers_beside(given, like_array, size):
    """As `numbers`; None where ``given`` is None: Numba compiles no code that works on that."""
    raise NotImplementedError("for compiled code")


@overload(numbers_beside)
def _typed_numbers_beside(given, like_array, size):
    if isinstance(given, types.NoneType):
        return lambda given, like_array, size: None
    return lambda given, like_array, size: numbers(like_array, size)
