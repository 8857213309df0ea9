"""Lanes: scalar neurons over sequences, advanced and walked back by the kernels.

One lane is one net over one sequence. Every lane writes its own part of the results, so blocks
of lanes may run in any order on any number of threads and the bits stay the same. Long jobs are
cut in time too: state, gradient and sums are carried from one slice to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import FloatArray
from fastrnn.kernels import Activation, neuron
from fastrnn.kernels.memory import REGISTER_BYTES
from fastrnn.rnn import Weights
from fastrnn.threads import share

# Steps of one call, a multiple of neuron.SEGMENT: a single lane takes some 10 ms for them.
SLICE = 128 * neuron.SEGMENT
# Steps times lanes of one call: some 20 ms, so that Ctrl-C is heard.
LANE_STEPS = 1 << 23
# Steps recomputed at a time, a divisor of neuron.SEGMENT, and vectors of a block on the way back:
# its inputs, states, slopes and gradients just fit into a core's second cache.
TILE = neuron.SEGMENT // 2
VECTORS_BACK = 4
# Where lanes lie side by side, of narrow rows each would be in another page: up to 3 times as long.
TILE_IN_ROWS = neuron.SUM_STEPS
VECTORS_IN_ROWS = 64


@dataclass(frozen=True, eq=False)
class Lanes:
    """K nets over B sequences x (B, T) of some lengths (B,)."""

    activation: Activation
    weights: Weights
    x: FloatArray
    lengths: NDArray[np.int64]
    workers: int
    chosen: NDArray[np.int64] | None = None
    """Lanes to run, where not all of them: others keep what they are given."""

    def forward(self, h0: FloatArray, states: FloatArray | None = None) -> FloatArray:
        """The last state (K, B, 1), and all of them into ``states`` (K, B, T) if given."""
        w1, w2, b, _, _ = self.weights
        h = np.array(h0)
        for part, steps in self._slices():
            before = self.activation, w1, w2, b, _view(part.x), h, part.lengths, self._order
            out = _view(h if states is None else states[..., steps])
            after = states is not None, out, h
            most_vectors = VECTORS_IN_ROWS if self._in_rows else neuron.VECTORS
            part._share(neuron.forward, most_vectors, before, after)
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
            view, lengths = _view(part.x), part.lengths
            before = self.activation, *self.weights, view, start, lengths, self._order
            out = _view(dh if dx is None else dx[..., steps])
            tile, vectors = TILE, VECTORS_BACK
            if self._in_rows and not nets_side_by_side(len(self.weights.w2), self.x.dtype):
                tile, vectors = TILE_IN_ROWS, VECTORS_IN_ROWS
            after = tile, fused, _view(upstream[..., steps]), dh, sums, out, dx is not None
            part._share(neuron.backward, vectors, before, after)
        return sums, dh

    def influence(
        self, h0: FloatArray, seed: FloatArray, mantissa: FloatArray, exponent: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """seed (K, B, 1) of the last state pulled back to x, into mantissa and exponent (K, B, T).

        The result is mantissa and exponent of that by h_0, (K, B, 1).
        """
        w1, w2, b, _, _ = self.weights
        dh = np.array(seed)
        power, rest = np.zeros_like(dh), np.zeros_like(dh)
        for part, steps, start in self._slices_back(h0):
            before = self.activation, w1, w2, b, _view(part.x), start, part.lengths, self._order
            out = _view(mantissa[..., steps]), _view(exponent[..., steps])
            part._share(neuron.influence, VECTORS_BACK, before, (TILE, *out, dh, power, rest))
        return dh, power + rest

    def _share(
        self,
        kernel: Callable[..., None],
        most_vectors: int,
        before: tuple[Any, ...],
        after: tuple[Any, ...],
    ) -> None:
        """Call a kernel until all blocks of lanes are done."""
        lanes, n = len(self._order), REGISTER_BYTES // self.x.itemsize
        vectors = min(most_vectors, max(1, -(-lanes // (n * self.workers))))
        most = max(1, LANE_STEPS // (vectors * n * max(1, self.x.shape[1])))
        share(
            lambda turns: kernel(*before, vectors, turns, most, *after),
            -(-lanes // (vectors * n)),
            self.workers,
        )

    @cached_property
    def _in_rows(self) -> bool:
        """Whether inputs of consecutive sequences lie side by side, in rows of a step each."""
        return abs(self.x.strides[0]) < abs(self.x.strides[1])

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Order in which lanes fill vectors: of one length, or nearly, side by side."""
        if self.chosen is not None:
            return self.chosen
        nets, batch_size = len(self.weights.w2), len(self.x)
        lanes = np.arange(nets * batch_size)
        if nets_side_by_side(nets, self.x.dtype):
            lanes = lanes.reshape(nets, batch_size).T.ravel()
        if batch_size == 0 or (self.lengths == self.x.shape[1]).all():
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


def nets_side_by_side(nets: int, dtype: np.dtype[Any]) -> bool:
    """Whether a bank's nets fill a vector: they go side by side then, for they share inputs."""
    return nets >= REGISTER_BYTES // dtype.itemsize


def _view(array: FloatArray) -> tuple[int, ...]:
    """Address of the first number and the strides in numbers, for kernels of any layout."""
    address: int = array.__array_interface__["data"][0]
    return address, *(stride // array.itemsize for stride in array.strides)
