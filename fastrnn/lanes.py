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

from fastrnn.cached import cached_property, like
from fastrnn.checks import FloatArray
from fastrnn.kernels import (
    BOUNDED,
    Activation,
    neuron,
    neuron_gradient,
    neuron_growth,
    neuron_states,
)
from fastrnn.kernels.memory import REGISTER_BYTES
from fastrnn.kernels.neuron_gradient import NO_DX, PLAIN_DX, SCALED_DX, SEGMENT
from fastrnn.kernels.rates import STEPS
from fastrnn.kernels.scaled_sums import NO_POWER, SUM
from fastrnn.memory import BudgetTooSmall
from fastrnn.rnn import Weights
from fastrnn.threads import share

# Steps of one call, a multiple of SEGMENT: a block takes some 10 ms for them, and 50 where
# its results are new memory to the system.
SLICE = 32 * SEGMENT
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
# Inputs, states, slopes and gradients just fit into a core's second cache. Tiles take lanes that
# lie side by side too: of rows read where they are, each vector's lie in other pages, and often
# in one set of the cache (64 vectors, tiles of a block: 1.5 to 2 times as long).
BACK = Block(4, SEGMENT)
GROWTH = Block(4, SEGMENT // 4)
# Results from here on are written past the caches: what they overwrite is not fetched first, and
# their first numbers would be gone from there when the last are written.
PAST_BYTES = 1 << 22
# Where lanes lie side by side in memory, they are read and written there, and more of them make
# long rows: a row of 8 vectors is asked for some steps ahead, while others are computed with, and
# pages are few (tiles of 64 steps: 1.2 times as long).
FORWARD_IN_ROWS = Block(128, 16)
# A tile holds whole blocks of steps, and a segment whole tiles.
TILES = [tile for tile in range(SEGMENT, 0, -STEPS) if SEGMENT % tile == 0]
# Numbers of each lane in a block of steps: states and their exponents, slopes, gradients, powers of
# two, what is found; and in float64: constants, what is carried, sums.
BACK_NUMBERS, BACK_DOUBLES = 9 * STEPS + 32, 96


class Carried(NamedTuple):
    """A gradient dh * 2**(power + rest) of a state (K, B, 1), each an array in float64."""

    dh: NDArray[np.float64]
    power: NDArray[np.float64]
    rest: NDArray[np.float64]

    @classmethod
    def start(cls, dh: FloatArray) -> Carried:
        """From a plain gradient."""
        room = np.zeros((3, *dh.shape))
        room[0] = dh
        return cls(*room)


class State(NamedTuple):
    """A state h * 2**power (K, B, 1), the power in float64."""

    h: FloatArray
    power: NDArray[np.float64]

    @classmethod
    def start(cls, h: FloatArray) -> State:
        """From plain floats."""
        return cls(np.array(h), np.zeros(h.shape))


# The view of an array (K, B, T) that is not there.
NO_VIEW: tuple[int, ...] = (0, 0, 0, 0)
# Bytes of a lane, for steps of a tile, bytes of a number, steps of a call.
Room = Callable[[int, int, int], int]
# Mantissas and exponents.
ScaledPair = tuple[FloatArray, NDArray[np.float64]]


def no_sums(*axes: int) -> NDArray[np.float64]:
    """Sums (..., SUM) of nothing."""
    sums = np.zeros((*axes, SUM))
    sums[..., -1] = NO_POWER
    return sums


def _forward(tile: int, size: int, steps: int) -> int:
    return size * tile


def _of_states(tile: int, size: int, steps: int) -> int:
    return (2 * size + 8) * tile + size * BACK_NUMBERS


def _growth(tile: int, size: int, steps: int) -> int:
    return size * (2 * tile + -(-steps // tile))


def _back(tile: int, size: int, steps: int) -> int:
    # Inputs, gradients of states and their exponents, states and theirs, slopes.
    rows = (5 * size + 8) * tile + (2 * size + 8) * -(-tile // STEPS)
    return rows + size * BACK_NUMBERS + 8 * BACK_DOUBLES + (size + 8) * -(-steps // tile)


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

    def looked_at(self) -> Lanes:
        """What is known about these lanes without their inputs: see `over`."""
        _ = self._order, self._in_rows
        return like(self, x=np.empty((0, 0), self.x.dtype))

    def over(self, x: FloatArray, workers: int, memory: int | None) -> Lanes:
        """The same lanes over other inputs of the same form, with what was found about them."""
        return like(self, x=x, workers=workers, memory=memory)

    def forward(self, h0: FloatArray, states: FloatArray | None = None) -> FloatArray:
        """The last state (K, B, 1), and all of them into ``states`` (K, B, T) if given."""
        w1, w2, b, _, _ = self.weights
        h, keep = np.array(h0), neuron.NONE
        if states is not None:
            keep = neuron.PAST if states.nbytes >= PAST_BYTES else neuron.CACHED
        for part, steps in self._slices():
            before = self.activation, w1, w2, b, view(part.x), h, part.lengths, self._order
            out = view(h if states is None else states[..., steps])
            block = part._block(FORWARD_IN_ROWS if self._in_rows else FORWARD, _forward)
            part._share(neuron.forward, block, before, (keep, out, h), states)
        return h

    def lead(self, start: State) -> State:
        """The last state, of any magnitude."""
        if self.activation.name in BOUNDED:
            return State(self.forward(start.h), start.power)
        outside = np.zeros(start.h.shape[:2], np.uint8)
        return self.states(start, None, outside)

    def states(self, start: State, states: ScaledPair | None, outside: NDArray[np.uint8]) -> State:
        """The same, where f does not squash states; all of them into ``states`` (K, B, T).

        Lanes that are beyond the kernel get a 1 in ``outside`` (K, B).
        """
        w1, w2, b, _, _ = self.weights
        h, power = np.array(start.h), np.array(start.power)
        for part, steps in self._slices():
            before = self.activation, w1, w2, b, view(part.x), h, power, part.lengths, self._order
            out = view(h), view(power)
            if states is not None:
                out = view(states[0][..., steps]), view(states[1][..., steps])
            after = states is not None, *out, h, power, outside
            block = part._block(FORWARD, _of_states)
            part._share(neuron_states.forward, block, before, after, states)
        return State(h, power)

    def backward(
        self,
        start: State,
        upstream: FloatArray,
        carried: Carried,
        sums: NDArray[np.float64] | None,
        dx: FloatArray | ScaledPair | None,
        *,
        fused: bool,
        want_w3: bool,
        scale: float = 1.0,
    ) -> NDArray[np.bool_]:
        """A gradient of the last state and upstream (K, B, T) pulled back.

        What is carried becomes the gradient of h_0. Adds to ``sums`` (6, K, B, SUM), in the order
        of `neuron_sums.SUMS`; writes ``dx`` (K, B, T) times a scale, floats or mantissas and
        exponents; and returns which lanes (K, B) were outside the kernel's range: see there.
        """
        outside = np.zeros(carried.dh.shape[:2], np.uint8)
        want_dx = NO_DX if dx is None else SCALED_DX if isinstance(dx, tuple) else PLAIN_DX
        mantissa, exponent = dx if isinstance(dx, tuple) else (dx, dx)
        all_sums = np.empty((0, 0, 0, 0)) if sums is None else sums
        for part, steps, before_it in self._slices_back(start, Lanes.lead):
            powers = None if self.activation.name in BOUNDED else before_it.power
            before = (
                self.activation, *self.weights, view(part.x), before_it.h, powers, part.lengths,
                self._order,
            )  # fmt: skip
            out = NO_VIEW, NO_VIEW
            if mantissa is not None and exponent is not None:
                out = view(mantissa[..., steps]), view(exponent[..., steps])
            wanted = all_sums, sums is not None, want_w3
            up = view(upstream[..., steps])
            after = fused, up, *carried, *wanted, *out, want_dx, scale, outside
            block = part._block(BACK, _back)
            part._share(neuron_gradient.backward, block, before, after, upstream, dx)
        return outside.view(bool)

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
            part._share(neuron_growth.growth, part._block(GROWTH, _growth), before, after)
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
        for part, steps, start in self._slices_back(h0, Lanes.forward):
            before = self.activation, w1, w2, b, view(part.x), start, part.lengths, self._order
            after = steps.start, self.lengths, threshold, walked
            part._share(neuron_growth.horizon, part._block(GROWTH, _growth), before, after)
            if walked[neuron_growth.FOUND].all():
                break
        newest = walked[neuron_growth.NEWEST]
        with np.errstate(divide="ignore"):
            log = np.log(newest) + math.log(2.0) * walked[neuron_growth.NEWEST_POWER]
        unknown = np.isnan(newest) | (self.lengths == 0)
        lag = walked[neuron_growth.LAG]
        return np.where(unknown, np.nan, lag), np.where(unknown, np.nan, log)

    def _block(self, wanted: Block, room: Room) -> Block:
        """The block wanted, or less where a budget asks for it; lanes take so much room in it."""
        n = REGISTER_BYTES // self.x.itemsize
        steps = self.x.shape[1]
        bounded = max(FORWARD.vectors, LANE_STEPS // (n * max(1, steps)))
        vectors = min(wanted.vectors, bounded, max(1, -(-len(self._order) // (n * self.workers))))
        if self.memory is None:
            return Block(vectors, wanted.tile, self.workers)
        for block in self._smaller(Block(vectors, wanted.tile, self.workers)):
            if self._bytes(block, room) <= self.memory:
                return block
        raise BudgetTooSmall(self.memory, self.least_memory())

    def _smaller(self, wanted: Block) -> Iterator[Block]:
        """The block wanted and smaller ones, those that cost least time first."""
        choices = itertools.product(
            range(wanted.workers, 0, -1),
            sorted({max(1, wanted.vectors >> shift) for shift in range(7)}, reverse=True),
            [wanted.tile, *(tile for tile in TILES if tile < wanted.tile)],
        )
        return (Block(vectors, tile, workers) for workers, vectors, tile in choices)

    def _bytes(self, block: Block, room: Room) -> int:
        """Bytes of working memory of a call, whose lanes take so much room each."""
        size, steps = self.x.itemsize, min(self.x.shape[1], SLICE)
        lane = room(block.tile, size, steps) + LANE_BYTES
        lanes = block.vectors * (REGISTER_BYTES // size)
        return int(len(self._order) * LANE_BYTES + block.workers * lanes * lane)

    def least_memory(self) -> int:
        """Bytes with which every way forward and back finds its room."""
        forward = FORWARD_IN_ROWS if self._in_rows else FORWARD
        kinds = (forward, _forward), (FORWARD, _of_states), (BACK, _back)
        return max(
            min(self._bytes(block, room) for block in self._smaller(Block(1, wanted.tile)))
            for wanted, room in kinds
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

    def _slices_back(
        self, start: Any, lead: Callable[[Lanes, Any], Any]
    ) -> Iterator[tuple[Lanes, slice, Any]]:
        """The slices from the last to the first, each with its steps and the state before them."""
        slices, starts = list(self._slices()), [start]
        for part, _ in slices[:-1]:
            starts.append(lead(part, starts[-1]))
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
    size = array.itemsize
    return address, *[stride // size for stride in array.strides]
