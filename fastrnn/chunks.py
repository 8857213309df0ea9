"""One long sequence as a batch of its chunks, with the bits of one long walk.

A neuron forgets where it came from: f is contracting, and from any two states it comes within
some hundred steps to the same one, to the last bit. So the state before each chunk is found by
a run-up over the steps before it, from both ends of f's range; a state between them is led to
where they meet. Where they do not (beyond |w2| = 2 there are two basins), each end is led on to
the end of its chunk, and the way from chunk to chunk tells which of the two is true.

All of this is guesswork, and none is trusted: chunks are accepted when each of them starts with
the bits that the one before ended with. The others are run again from there, and if that does
not help, in sequence. The way back is linear in its gradient, which fades as states do.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import FloatArray
from fastrnn.kernels import BOUNDED
from fastrnn.kernels.memory import REGISTER_BYTES
from fastrnn.kernels.neuron_gradient import SEGMENT
from fastrnn.kernels.neuron_sums import SUMS
from fastrnn.kernels.sums import ordered_total
from fastrnn.lanes import LANE_BYTES, Carried, Lanes, ScaledPair, State, no_sums
from fastrnn.rnn import Weights

Doubles = NDArray[np.float64]

logger = logging.getLogger(__name__)

# Steps of a chunk: sums over time are cut there anyhow.
CHUNK = SEGMENT
# Shorter sequences are not worth the trouble.
LEAST_CHUNKS = 8
# Steps of a run-up. Up to |w2| = 1.5 orbits meet within 160.
RUN_UP = 192
# Where repairs stop helping, the rest is run in sequence.
REPAIRS = 6
# Ends of the range of f; those that have none contract, if they do, from anywhere.
RANGE = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "relu": (0.0, 1.0), "identity": (-1.0, 1.0)}


def suits(lanes: Lanes) -> bool:
    """Whether there are so few lanes, and so long ones, that chunks of them are faster."""
    few = 2 * REGISTER_BYTES // lanes.x.itemsize
    count = len(lanes.weights.w2) * len(lanes.x)
    long = lanes.x.shape[1] >= LEAST_CHUNKS * CHUNK
    if not (0 < count <= few and long):
        return False
    # Every chunk is guessed from both ends of the range of f.
    held = 2 * count * (lanes.x.shape[1] // CHUNK) * LANE_BYTES
    return lanes.memory is None or held + lanes.least_memory() <= lanes.memory


def forward(lanes: Lanes, h0: FloatArray, states: FloatArray | None = None) -> FloatArray:
    """As `Lanes.forward`."""
    last = np.array(h0)
    for i, one in enumerate(_sequences(lanes)):
        into = None if states is None else states[:, i, : one.x.shape[1]]
        _, last[:, i] = _forward(one, h0[:, i], into)
    return last


def backward(
    lanes: Lanes,
    start: State,
    upstream: FloatArray,
    carried: Carried,
    sums: Doubles | None,
    dx: FloatArray | ScaledPair | None,
    *,
    fused: bool,
    want_w3: bool,
    scale: float = 1.0,
) -> NDArray[np.bool_]:
    """As `Lanes.backward`."""
    outside = np.zeros(carried.dh.shape[:2], bool)
    for i, one in enumerate(_sequences(lanes)):
        here = slice(i, i + 1)
        back = _Back(
            one,
            upstream[:, here, : one.x.shape[1]],
            _part_of(dx, here, slice(one.x.shape[1])),
            {"fused": fused, "want_w3": want_w3, "scale": scale},
            sums is not None,
        )
        # Copies, as kernels are compiled for whole arrays alone.
        own = Carried(*(array[:, here].copy() for array in carried))
        of_sums = None if sums is None else sums[:, :, here].copy()
        at = State(*(array[:, here].copy() for array in start))
        outside[:, here] = back.run(at, own, of_sums)
        for array, found in zip(carried, own, strict=True):
            array[:, here] = found
        if sums is not None:
            sums[:, :, here] = of_sums
    return outside


def _part_of(
    dx: FloatArray | ScaledPair | None, sequences: slice, steps: slice
) -> FloatArray | ScaledPair | None:
    if isinstance(dx, tuple):
        return dx[0][:, sequences, steps], dx[1][:, sequences, steps]
    return None if dx is None else dx[:, sequences, steps]


def _sequences(lanes: Lanes) -> list[Lanes]:
    """Each sequence by itself, without its padding."""
    return [
        replace(lanes, x=lanes.x[i : i + 1, :length], lengths=lanes.lengths[i : i + 1])
        for i, length in enumerate(lanes.lengths.tolist())
    ]


def _cut(array: FloatArray, first: int, count: int, steps: int) -> FloatArray:
    """View (..., count, steps) of (..., T): steps from ``first`` on, and every CHUNK later."""
    rows = array[..., first : first + count * CHUNK].reshape(*array.shape[:-1], count, CHUNK)
    return rows[..., :steps]


def _chunks(one: Lanes, first: int, count: int, steps: int) -> Lanes:
    """As many lanes as there are chunks, all of the same length."""
    return replace(one, x=_cut(one.x[0], first, count, steps), lengths=np.full(count, steps))


def _bits(array: FloatArray) -> NDArray[Any]:
    return array.view(f"u{array.itemsize}")


def _forward(
    one: Lanes, h0: FloatArray, states: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """States (K, C + 1) before the chunks that ran side by side and after; the last (K, 1)."""
    count = one.x.shape[1] // CHUNK
    starts = np.repeat(h0, count + 1, axis=1)
    done = 0
    if count >= LEAST_CHUNKS:
        _guess(one, starts)
        done = _run(one, starts, states)
    logger.info("%d of %d chunks side by side, the rest in sequence", done, count)
    rest = _part(one, done * CHUNK, None)
    into = None if states is None else states[:, None, done * CHUNK :]
    last = rest.forward(starts[:, done, None, None], into)
    return starts[:, : done + 1], last[:, 0]


def _guess(one: Lanes, starts: FloatArray) -> None:
    """Fill in the states (K, C + 1) before every chunk from that before the first."""
    nets, count = starts.shape[0], starts.shape[1] - 1
    ends = np.array(RANGE[one.activation.name], starts.dtype)
    twice = replace(one, weights=Weights(*(np.concatenate([w, w]) for w in one.weights)))
    # Two candidates for the state before every chunk (2K, C).
    both = np.repeat(ends, nets)[:, None].repeat(count, axis=1)
    run_up = _chunks(twice, CHUNK - RUN_UP, count - 1, RUN_UP)
    both[:, 1:] = run_up.forward(both[:, 1:, None])[..., 0]
    both[:, 0] = np.tile(starts[:, 0], 2)
    starts[:, :-1] = both[:nets]
    low, high = _bits(both[:nets]), _bits(both[nets:])
    apart = low != high
    if not apart.any():
        return
    # The end of every chunk before one in doubt, from both candidates.
    doubted = np.zeros((2, nets, count), bool)
    doubted[..., :-1] = apart[:, 1:]
    some = replace(_chunks(twice, 0, count, CHUNK), chosen=np.flatnonzero(doubted))
    ends = _bits(some.forward(both[..., None])[..., 0]).reshape(2, nets, count)
    # To which candidate of the next chunk does each lead? 0, 1, or 2 for neither.
    is_low, is_high = ends[..., :-1] == low[:, 1:], ends[..., :-1] == high[:, 1:]
    leads = np.where(is_low, 0, np.where(is_high, 1, 2))
    for k in range(nets):
        way = [0]
        for to_low, to_high, doubt in zip(
            *leads[:, k].tolist(), apart[k, 1:].tolist(), strict=True
        ):
            way.append((to_low, to_high, 0)[way[-1]] if doubt else 0)
        starts[k, :-1] = np.where(np.array(way) == 1, both[nets + k], both[k])


def _run(one: Lanes, starts: FloatArray, states: FloatArray | None) -> int:
    """Run all chunks from their starts, mend what does not fit; how many are right from the first.

    The state after them stands in ``starts`` too.
    """
    count: int = starts.shape[1] - 1
    chunks = _chunks(one, 0, count, CHUNK)
    into = None if states is None else _cut(states, 0, count, CHUNK)
    ends = chunks.forward(starts[:, :-1, None], into)[..., 0]
    for _ in range(REPAIRS):
        wrong = _bits(starts[:, 1:-1]) != _bits(ends[:, :-1])
        if not wrong.any():
            starts[:, -1] = ends[:, -1]
            return count
        starts[:, 1:-1][wrong] = ends[:, :-1][wrong]
        again = np.zeros(ends.shape, bool)
        again[:, 1:] = wrong
        mended = replace(chunks, chosen=np.flatnonzero(again)).forward(starts[:, :-1, None], into)
        ends[again] = mended[again, 0]
    wrong = (_bits(starts[:, 1:-1]) != _bits(ends[:, :-1])).any(axis=0)
    done = int(np.argmax(wrong)) + 1 if wrong.any() else count
    starts[:, done] = ends[:, done - 1]
    return done


class _Back:
    """The way back of one sequence: of its chunks side by side, or in sequence."""

    def __init__(
        self,
        one: Lanes,
        upstream: FloatArray,
        dx: FloatArray | ScaledPair | None,
        options: dict[str, Any],
        want_sums: bool,
    ) -> None:
        self._one, self._upstream, self._dx = one, upstream, dx
        self._options, self._want_sums = options, want_sums

    def run(self, start: State, carried: Carried, sums: Doubles | None) -> NDArray[np.bool_]:
        """As `Lanes.backward`."""
        starts = self._starts(start)
        count = starts.shape[1] - 1
        done, outside = 0, np.zeros((len(starts), 1), bool)
        if count >= LEAST_CHUNKS:
            first = count * CHUNK
            outside |= self._in_sequence(
                State.start(starts[:, count, None, None]), first, None, carried, sums
            )
            found, before, left = self._side_by_side(starts, carried)
            outside |= left
            done = before.dh.shape[1]
            if sums is not None:
                _add_in_order(sums, found[:, :, count - done :])
            if done:
                for own, of_chunk in zip(carried, before, strict=True):
                    own[...] = of_chunk[:, :1]
        logger.info("%d of %d chunks back side by side, the rest in sequence", done, count)
        if done < count or count < LEAST_CHUNKS:
            end = (count - done) * CHUNK if count >= LEAST_CHUNKS else None
            outside |= self._in_sequence(start, 0, end, carried, sums)
        return outside

    def _starts(self, start: State) -> FloatArray:
        """States (K, C + 1) before the chunks that are to run side by side and after."""
        if start.power.any():
            return start.h[:, :, 0]
        starts, _ = _forward(self._one, start.h[:, 0], None)
        if self._one.activation.name in BOUNDED:
            return starts
        # States that come near the ends of floats have powers of two, which a chunk does not know.
        inner = abs(starts[:, 1:])
        info = np.finfo(starts.dtype)
        ordinary = (inner < math.sqrt(info.max)) & (inner > math.sqrt(info.tiny))
        return starts if ordinary.all() else starts[:, :1]

    def _in_sequence(
        self, start: State, first: int, end: int | None, carried: Carried, sums: Doubles | None
    ) -> NDArray[np.bool_]:
        steps = slice(first, end)
        dx = _part_of(self._dx, slice(None), steps)
        part = _part(self._one, first, end)
        return part.backward(start, self._upstream[..., steps], carried, sums, dx, **self._options)

    def _side_by_side(
        self, starts: FloatArray, carried: Carried
    ) -> tuple[Doubles, Carried, NDArray[np.bool_]]:
        """Sums (6, K, C, SUM) of chunks; what is carried before the last N, which are right.

        ``carried`` (K, 1, 1) comes from the steps behind the last chunk.
        """
        one, count = self._one, starts.shape[1] - 1
        after = Carried(*(np.repeat(array, count, axis=1) for array in carried))
        upstream = self._upstream[:, 0]
        run_up = _chunks(one, CHUNK, count - 1, RUN_UP)
        guess = Carried.start(np.zeros_like(after.dh[:, :-1]))
        run_up.backward(
            State.start(starts[:, 1:-1, None]), _cut(upstream, CHUNK, count - 1, RUN_UP), guess,
            None, None, **self._options,
        )  # fmt: skip
        for array, guessed in zip(after, guess, strict=True):
            array[:, :-1] = guessed
        chunks = _chunks(one, 0, count, CHUNK)
        states = State.start(starts[:, :-1, None])
        above = _cut(upstream, 0, count, CHUNK)
        into = self._dx
        if isinstance(into, tuple):
            into = _cut(into[0][:, 0], 0, count, CHUNK), _cut(into[1][:, 0], 0, count, CHUNK)
        elif into is not None:
            into = _cut(into[:, 0], 0, count, CHUNK)
        sums = no_sums(len(SUMS), len(starts), count)
        before = Carried(*(array.copy() for array in after))
        outside = np.zeros((len(starts), count), bool)

        def walk(part: Lanes, again: NDArray[np.bool_]) -> None:
            for own, given in zip(before, after, strict=True):
                own[again] = given[again]
            sums[:, again] = no_sums()
            outside[again] = False
            of_sums = sums if self._want_sums else None
            outside[...] |= part.backward(states, above, before, of_sums, into, **self._options)

        walk(chunks, np.ones(outside.shape, bool))
        for _ in range(REPAIRS):
            wrong = np.zeros(outside.shape, bool)
            for given, own in zip(after, before, strict=True):
                wrong[:, :-1] |= (_bits(given[:, :-1]) != _bits(own[:, 1:]))[..., 0]
            if not wrong.any():
                break
            for given, own in zip(after, before, strict=True):
                given[:, :-1][wrong[:, :-1]] = own[:, 1:][wrong[:, :-1]]
            walk(replace(chunks, chosen=np.flatnonzero(wrong)), wrong)
        wrong = np.zeros(outside.shape, bool)
        for given, own in zip(after, before, strict=True):
            wrong[:, :-1] |= (_bits(given[:, :-1]) != _bits(own[:, 1:]))[..., 0]
        some: NDArray[np.bool_] = np.asarray(wrong.any(axis=0))
        first = count - int(np.argmax(some[::-1])) if some.any() else 0
        right = Carried(*(array[:, first:] for array in before))
        left: NDArray[np.bool_] = np.asarray(outside[:, first:].any(axis=1, keepdims=True))
        return sums, right, left


def _add_in_order(sums: Doubles, found: Doubles) -> None:
    """Add sums of chunks (6, K, C, SUM), the last first, to those (6, K, 1, SUM) behind them."""
    terms = np.concatenate([sums, found[:, :, ::-1]], axis=2)
    sums[...] = ordered_total(terms.reshape(-1, *terms.shape[2:])).reshape(sums.shape)


def _part(one: Lanes, first: int, end: int | None) -> Lanes:
    """Some steps of one sequence."""
    x = one.x[:, first:end]
    return replace(one, x=x, lengths=np.array([x.shape[1]]))
