"""Streams: inputs larger than memory, read a block of time at a time.

Large files mapped into memory and chunked arrays (Zarr, HDF5, Dask) are read block by block with
the state carried on, forwards and then backwards; iterators of blocks forwards only. Blocks end
where sums over time are cut anyhow, so the bits are those of arrays in memory.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastrnn import engine, gradients
from fastrnn.checks import FloatArray, float_array
from fastrnn.gradients import Found
from fastrnn.kernels import BOUNDED
from fastrnn.kernels.neuron_sums import SUMS
from fastrnn.lanes import SLICE, Carried, State, no_sums
from fastrnn.layers import MOST_SUMS, SLICE_STEPS, TEAM
from fastrnn.rnn import RNN
from fastrnn.sequences import Sequences, sequences

# Numbers of a block: 4 MB of float32.
BLOCK_NUMBERS = 1 << 20
# Smaller files may as well stay in memory.
LEAST_BYTES = 1 << 26
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def is_lazy(net: RNN, x: Any) -> bool:
    """Whether ``x`` is a large mapped file or a chunked array of floats, and fits the net.

    Not a chunked array of unknown size, as a selection in Dask is: that is taken into memory.
    """
    if isinstance(x, np.memmap):
        large = x.nbytes >= LEAST_BYTES
    else:
        large = getattr(x, "chunks", None) is not None
    shape, dtype = getattr(x, "shape", ()), getattr(x, "dtype", None)
    numbers = isinstance(dtype, np.dtype) and dtype in FLOATS
    fits = len(shape) in ((1, 2) if net.is_neuron else (1, 2, 3))
    return large and numbers and fits and all(isinstance(n, int) and n > 0 for n in shape)


def suit(net: RNN, x: Any, y: Any) -> bool:
    """Whether x and y are to be read block by block, for a gradient."""
    plain = isinstance(y, np.ndarray) and not isinstance(y, np.ma.MaskedArray)
    if not is_lazy(net, x) or not (is_lazy(net, y) or plain):
        return False
    if net.is_neuron:
        return bool(x.shape == y.shape)
    # The teams of more sequences take turns at their sums, each with all of its steps.
    few = len(x.shape) == 1 or x.shape[0] <= TEAM * MOST_SUMS
    return bool(few and y.shape == (*x.shape[:2], net.output_size))


def last_state(net: RNN, x: Any, h0: Any, workers: int | None) -> FloatArray:
    """The last state, as `forward` has it, of a lazy array or an iterator of blocks."""
    if isinstance(x, Iterator):
        return _end(net, x, h0, workers)
    return _end(net, (read(x, part) for part in parts(net, x)), h0, workers)


def half_squares(
    net: RNN,
    x: Any,
    y: Any,
    h0: Any,
    *,
    scale: float,
    each: bool,
    workers: int | None,
    memory: int | None,
) -> Found | None:
    """As `gradients.find`, fused, of lazy arrays; None where that is to be done in memory."""
    left, starts = parts(net, x, y), [h0]
    typed = float_array("y", np.empty(0, y.dtype))
    for part in left[:-1]:
        starts.append(_end(net, [read(x, part)], starts[-1], workers, typed))
    back: _NeuronBack | _LayerBack | None = None
    while left:
        part = left.pop()
        target = read(y, part, _time_axis(x), "y")
        job = sequences(net, read(x, part), h0=starts.pop(), others=(target,))
        target = job.full("y", target, "KBTO")
        back = back or (_NeuronBack if net.is_neuron else _LayerBack)(job, each)
        if left and not is_ordinary(net.activation, job.h0):
            return None
        if not back.take(job, target, workers, memory):
            return None
    assert back is not None, "lazy arrays have steps"
    return back.found(job, scale)


class _NeuronBack:
    """What is carried from block to block of a neuron, and its sums."""

    def __init__(self, job: Sequences, each: bool) -> None:
        self._each = each
        self._carried = Carried.start(np.zeros_like(job.h0))
        self._sums = no_sums(len(SUMS), *job.size("KB"))

    def take(
        self, job: Sequences, target: FloatArray, workers: int | None, memory: int | None
    ) -> bool:
        """Walk back over a block; whether that was possible."""
        outside = gradients.walk_neuron(
            engine.lanes(job, workers, memory), State.start(job.h0), target[..., 0], self._carried,
            self._sums, None, fused=True, want_w3=job.net.has_readout,
        )  # fmt: skip
        return not outside.any()

    def found(self, job: Sequences, scale: float) -> Found | None:
        """The gradient of all blocks, of which this is the first; None if it lacks digits."""
        outside = np.zeros(job.size("KB"), bool)
        gradients.mark_outside(self._sums, self._carried, outside)
        if outside.any():
            return None
        dh, power, rest = self._carried
        sums = gradients.over_batch(self._sums, self._each)
        return Found(job, scale, sums, None, (dh, power + rest), self._each)


class _LayerBack:
    """The same of a layer, in plain floats."""

    def __init__(self, job: Sequences, each: bool) -> None:
        self._each, self._dh = each, np.zeros_like(job.h0)
        self._sums: Any = None

    def take(
        self, job: Sequences, target: FloatArray, workers: int | None, memory: int | None
    ) -> bool:
        """Walk back over a block."""
        own = engine.layers(job, workers, memory)
        self._sums, self._dh, lost = own.backward(
            job.h0, target, self._dh, None, fused=True, each=self._each, sums=self._sums
        )
        return not lost.any()

    def found(self, job: Sequences, scale: float) -> Found | None:
        """The gradient of all blocks; None where floats overflowed."""
        found = gradients.found_in_floats(job, self._sums, self._dh, None, self._each, scale)
        return found if gradients.is_whole(found) else None


def is_ordinary(activation: str, states: FloatArray) -> bool:
    """Whether states are such that kernels carry them on without a power of two."""
    if activation in BOUNDED:
        return True
    size, info = abs(states), np.finfo(states.dtype)
    # A 0 of relu is one that is off; one of identity may have been too small.
    off = (size == 0) & (activation == "relu")
    within = (size < math.sqrt(info.max)) & ((size > math.sqrt(info.tiny)) | off)
    return bool(within.all())


def _end(
    net: RNN, blocks: Iterable[FloatArray], state: Any, workers: int | None, *others: FloatArray
) -> FloatArray:
    """The state after some blocks, from that before them."""
    first: tuple[int, ...] | None = None
    for block in blocks:
        rows = np.shape(block)[:1] if np.ndim(block) > 1 else ()
        if first is None:
            first = rows
        elif rows != first:
            raise ValueError(
                f"x must give blocks of the same sequences, {first} in the first, got {rows}"
            )
        job = sequences(net, block, h0=state, others=others, is_block=True)
        state = job.visible(engine.forward(job, keep=False, workers=workers)[1], "KBH")
    if first is None:
        raise ValueError("x must give at least one block, got an empty iterator")
    result: FloatArray = state
    return result


def parts(net: RNN, *arrays: Any, each: int = 1, unit: int = 0) -> list[slice]:
    """The steps of all arrays in blocks, for each of whose numbers so many others are made."""
    total = arrays[0].shape[_time_axis(arrays[0])]
    numbers = each * max(math.prod(array.shape) // total for array in arrays)
    unit = unit or (SLICE if net.is_neuron else SLICE_STEPS)
    steps = unit * max(1, BLOCK_NUMBERS // (unit * numbers))
    return [slice(t, min(t + steps, total)) for t in range(0, total, steps)]


def _time_axis(x: Any) -> int:
    """Of (T,), (B, T) or (B, T, F)."""
    return min(len(x.shape), 2) - 1


def read(x: Any, part: slice, axis: int | None = None, name: str = "x") -> FloatArray:
    """Some steps of all sequences, copied; memory that a file was mapped into is given back."""
    axis = _time_axis(x) if axis is None else axis
    block = x[(slice(None),) * axis + (part,)]
    # NumPy would take a lazy masked array without its mask.
    block = block.compute() if hasattr(block, "compute") else block
    block = np.array(float_array(name, block))
    mapping = getattr(x, "_mmap", None)
    # A private mapping ("c") would lose what was written to it.
    if isinstance(mapping, mmap.mmap) and x.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
    return block
