"""Lanes: scalar neurons over sequences, advanced and walked back by the kernels.

One lane is one net over one sequence. Every lane writes its own part of the results, so blocks
of lanes may run in any order on any number of threads and the bits stay the same. Long jobs are
cut in time too: state, gradient and sums are carried from one slice to the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.cached import cached_property
from fastrnn.checks import FloatArray
from fastrnn.kernels import Activation, neuron, neuron_growth, neuron_scaled
from fastrnn.kernels.memory import REGISTER_BYTES
from fastrnn.memory import BudgetTooSmall
from fastrnn.rnn import Weights
from fastrnn.threads import share

# Steps of one call, a multiple of neuron.SEGMENT: a block takes some 10 ms for them, and 50 where
# its results are new memory to the system.
SLICE = 32 * neuron.SEGMENT
# Steps times lanes of one call: some 20 ms, so that Ctrl-C is heard.
LANE_STEPS = 1 << 23
# Bytes of working memory for a lane, beside tiles: sums in float64, weights, places.
LANE_BYTES = 512


class Block(NamedTuple):
    """Vectors of lanes that a thread advances side by side, in tiles of some steps."""

    vectors: int
    tile: int
    workers: int = 1


# Vectors hide each other's latency. A processor foresees the 16 rows that a vector of lanes is
# read from, but not the 128 of 8 vectors: each must be read for long. Tiles of 32 steps took 1.5
# times as long from memory.
FORWARD = Block(8, 528)
# Inputs, states, slopes and gradients just fit into a core's second cache.
BACK = Block(4, neuron.SEGMENT // 2)
GROWTH = Block(4, neuron.SEGMENT // 4)
# Where lanes lie side by side in memory, they are not gathered in tiles, and more of them make
# long rows, which stream by themselves: of narrow ones each is in another page, 3 times as slow
# (back, 16 vectors and a single tile of 1056 steps, walked forward once: 1.4 times).
FORWARD_IN_ROWS = Block(64, 64)
BACK_IN_ROWS = Block(64, neuron.SUM_STEPS)
# Tiles of a block that walks back, in plain floats and in numbers of any magnitude.
BACK_TILES, SCALED_TILES = 4, 7
# A tile holds whole sums, and a segment whole tiles.
TILES = [tile for tile in range(neuron.SEGMENT, 0, -neuron.SUM_STEPS) if neuron.SEGMENT % tile == 0]


class Carried(NamedTuple):
    """A gradient dh * 2**(power + rest) of a state (K, B, 1), each an array in float64."""

    dh: NDArray[np.float64]
    power: NDArray[np.float64]
    rest: NDArray[np.float64]

    @classmethod
    def start(cls, dh: FloatArray) -> Carried:
        """From a plain gradient."""
        own = np.array(dh, np.float64)
        return cls(own, np.zeros_like(own), np.zeros_like(own))


@dataclass(frozen=True, eq=False)
class Lanes:
    """K nets over B sequences x (B, T) of some lengths (B,)."""

    activation: Activation
    weights: Weights
    x: FloatArray
    lengths: NDArray[np.int64]
    workers: int
    memory: int | None = None
    """Bytes of working memory a call may use; unbounded use is some MB a thread."""
    chosen: NDArray[np.int64] | None = None
    """Lanes to run, where not all of them: others keep what they are given."""

    def forward(self, h0: FloatArray, states: FloatArray | None = None) -> FloatArray:
        """The last state (K, B, 1), and all of them into ``states`` (K, B, T) if given."""
        w1, w2, b, _, _ = self.weights
        h = np.array(h0)
        for part, steps in self._slices():
            before = self.activation, w1, w2, b, view(part.x), h, part.lengths, self._order
            out = view(h if states is None else states[..., steps])
            block = part._block(FORWARD_IN_ROWS if self._in_rows else FORWARD, 1)
            part._share(neuron.forward, block, before, (states is not None, out, h), states)
        return h

    def backward(
        self,
        h0: FloatArray,
        upstream: FloatArray,
        dlast: FloatArray,
        dx: FloatArray | None,
        *,
        fused: bool,
        sums: FloatArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Sums (6, K, B) in the order of `neuron.SUMS`, and dh0 (K, B, 1); see the kernel.

        Given ``sums`` are those of later steps, and are added to.
        """
        if sums is None:
            sums = np.zeros((len(neuron.SUMS), *h0.shape[:2]))
        dh = np.array(dlast)
        for part, steps, start in self._slices_back(h0):
            inputs, lengths = view(part.x), part.lengths
            before = self.activation, *self.weights, inputs, start, lengths, self._order
            out = view(dh if dx is None else dx[..., steps])
            bank = nets_side_by_side(len(self.weights.w2), self.x.dtype)
            block = part._block(BACK_IN_ROWS if self._in_rows and not bank else BACK, BACK_TILES)
            after = fused, view(upstream[..., steps]), dh, sums, out, dx is not None
            part._share(neuron.backward, block, before, after, upstream, dx)
        return sums, dh

    def backward_scaled(
        self,
        h0: FloatArray,
        upstream: FloatArray,
        carried: Carried,
        sums: NDArray[np.float64] | None,
        dx: tuple[FloatArray, NDArray[np.float64]] | None,
        *,
        fused: bool,
        want_w3: bool,
    ) -> NDArray[np.bool_]:
        """Of any magnitude: a gradient of the last state and upstream (K, B, T) pulled back.

        What is carried becomes the gradient of h_0. Adds to ``sums`` (6, K, B, 4), writes mantissas
        and exponents ``dx`` (K, B, T), and returns which lanes (K, B) were outside the kernel's
        range: see there.
        """
        outside = np.zeros(h0.shape[:2], np.uint8)
        mantissa, exponent = (carried.dh, carried.dh) if dx is None else dx
        all_sums = np.empty((0, 0, 0, 0)) if sums is None else sums
        for part, steps, start in self._slices_back(h0):
            inputs, lengths = view(part.x), part.lengths
            before = self.activation, *self.weights, inputs, start, lengths, self._order
            out = view(mantissa), view(exponent)
            if dx is not None:
                out = view(mantissa[..., steps]), view(exponent[..., steps])
            up = view(upstream[..., steps])
            wanted = all_sums, sums is not None, want_w3
            after = (fused, up, *carried, *wanted, *out, dx is not None, outside)
            block = part._block(BACK, SCALED_TILES)
            part._share(neuron_scaled.backward, block, before, after, upstream, dx)
        return outside.astype(bool)

    def growth(
        self,
        h0: FloatArray,
        first: int,
        windows: NDArray[np.int64],
        open_windows: NDArray[np.float64],
        sums: NDArray[np.float64],
    ) -> FloatArray:
        """Sums (K, B, W) of log|w2 f'(z)| over windows of steps, and the last state (K, B, 1).

        ``first`` is the number of the first step, counted in windows (B,); see the kernel.
        """
        w1, w2, b, _, _ = self.weights
        h = np.array(h0)
        for part, steps in self._slices():
            before = self.activation, w1, w2, b, view(part.x), h, part.lengths, self._order
            after = first + steps.start, windows, open_windows, sums, h
            part._share(neuron_growth.growth, part._block(GROWTH, 2), before, after)
        return h

    def horizon(
        self, h0: FloatArray, threshold: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First lag (K, B) whose influence is below ``threshold`` of the newest input's, or inf.

        Also log f' of the newest step. Both are NaN where there are no steps.
        """
        w1, w2, b, _, _ = self.weights
        walked = np.zeros((neuron_growth.WALKING, *h0.shape[:2]))
        walked[neuron_growth.PRODUCT] = 1.0
        walked[neuron_growth.LAG] = np.inf
        for part, steps, start in self._slices_back(h0):
            before = self.activation, w1, w2, b, view(part.x), start, part.lengths, self._order
            after = steps.start, self.lengths, threshold, walked
            part._share(neuron_growth.horizon, part._block(GROWTH, 2), before, after)
            if walked[neuron_growth.FOUND].all():
                break
        newest = walked[neuron_growth.NEWEST]
        with np.errstate(divide="ignore"):
            log = np.log(newest) + math.log(2.0) * walked[neuron_growth.NEWEST_POWER]
        unknown = np.isnan(newest) | (self.lengths == 0)
        lag = walked[neuron_growth.LAG]
        return np.where(unknown, np.nan, lag), np.where(unknown, np.nan, log)

    def _block(self, wanted: Block, tiles: int) -> Block:
        """The block wanted, or less where a budget asks for it; it holds so many tiles."""
        n = REGISTER_BYTES // self.x.itemsize
        steps = self.x.shape[1]
        bounded = max(FORWARD.vectors, LANE_STEPS // (n * max(1, steps)))
        vectors = min(wanted.vectors, bounded, max(1, -(-len(self._order) // (n * self.workers))))
        if self.memory is None:
            return Block(vectors, wanted.tile, self.workers)
        for block in self._smaller(Block(vectors, wanted.tile, self.workers)):
            if self._bytes(block, tiles) <= self.memory:
                return block
        raise BudgetTooSmall(self.memory, self.least_memory())

    def _smaller(self, wanted: Block) -> Iterator[Block]:
        """The block wanted and smaller ones, those that cost least time first."""
        choices = itertools.product(
            range(wanted.workers, 0, -1),
            sorted({max(1, wanted.vectors >> shift) for shift in range(7)}, reverse=True),
            [tile for tile in TILES if tile <= wanted.tile],
        )
        return (Block(vectors, tile, workers) for workers, vectors, tile in choices)

    def _bytes(self, block: Block, tiles: int) -> int:
        """Bytes of working memory of a call, whose blocks hold so many tiles each."""
        size, steps = self.x.itemsize, min(self.x.shape[1], SLICE)
        lane = size * (tiles * block.tile + -(-steps // block.tile)) + LANE_BYTES
        lanes = block.vectors * (REGISTER_BYTES // size)
        return int(len(self._order) * LANE_BYTES + block.workers * lanes * lane)

    def least_memory(self) -> int:
        """Bytes with which every way back finds its room, in plain floats or not."""
        forward, back = (FORWARD_IN_ROWS, BACK_IN_ROWS) if self._in_rows else (FORWARD, BACK)
        kinds = (forward, 1), (back, BACK_TILES), (BACK, BACK_TILES), (BACK, SCALED_TILES)
        return max(
            min(self._bytes(block, tiles) for block in self._smaller(Block(1, wanted.tile)))
            for wanted, tiles in kinds
        )

    def _share(
        self,
        kernel: Callable[..., None],
        block: Block,
        before: tuple[Any, ...],
        after: tuple[Any, ...],
        *held: object,
    ) -> None:
        """Call a kernel until all blocks of lanes are done; ``held`` are arrays behind views."""
        vectors, tile, workers = block
        lanes = vectors * (REGISTER_BYTES // self.x.itemsize)
        most = max(1, LANE_STEPS // (lanes * max(1, self.x.shape[1])))
        share(
            lambda turns: kernel(*before, vectors, turns, most, tile, *after),
            -(-len(self._order) // lanes),
            workers,
            (self.x, *held),
        )

    @cached_property
    def _in_rows(self) -> bool:
        return in_rows(self.x)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Order in which lanes fill vectors: of one length, or nearly, side by side."""
        if self.chosen is not None:
            return self.chosen
        nets, batch_size = len(self.weights.w2), len(self.x)
        lanes = np.arange(nets * batch_size)
        if nets_side_by_side(nets, self.x.dtype):
            lanes = lanes.reshape(nets, batch_size).T.ravel()
        # Side-by-side lanes stay so: it costs less than steps past the end of some.
        if self._in_rows or batch_size == 0 or (self.lengths == self.x.shape[1]).all():
            return lanes
        return lanes[np.argsort(-self.lengths[lanes % batch_size], kind="stable")]

    def _slices(self) -> Iterator[tuple[Lanes, slice]]:
        """The job cut in time, each slice with its steps."""
        steps = self.x.shape[1]
        if steps <= SLICE:
            yield self, slice(0, steps)
            return
        for start in range(0, steps, SLICE):
            x = self.x[:, start : start + SLICE]
            lengths = np.clip(self.lengths - start, 0, x.shape[1])
            yield replace(self, x=x, lengths=lengths), slice(start, start + SLICE)

    def _slices_back(self, h0: FloatArray) -> Iterator[tuple[Lanes, slice, FloatArray]]:
        """The slices from the last to the first, each with its steps and the state before them."""
        slices, starts = list(self._slices()), [h0]
        for part, _ in slices[:-1]:
            starts.append(part.forward(starts[-1]))
        while slices:
            yield *slices.pop(), starts.pop()


def in_rows(x: FloatArray) -> bool:
    """Whether inputs (B, T, ...) of consecutive sequences lie side by side, a row a step."""
    return bool(abs(x.strides[0]) < abs(x.strides[1]))


def nets_side_by_side(nets: int, dtype: np.dtype[Any]) -> bool:
    """Whether a bank's nets fill a vector: they go side by side then, for they share inputs."""
    return nets >= REGISTER_BYTES // dtype.itemsize


def view(array: FloatArray) -> tuple[int, ...]:
    """Address of the first number and the strides in numbers, for kernels of any layout.

    An address keeps nothing alive: the array does, in the caller's frame and in the job's.
    """
    address: int = array.__array_interface__["data"][0]
    return address, *(stride // array.itemsize for stride in array.strides)
