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
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import FloatArray
from fastrnn.kernels import neuron
from fastrnn.kernels.memory import REGISTER_BYTES
from fastrnn.kernels.sums import ordered_sum
from fastrnn.lanes import LANE_BYTES, Lanes
from fastrnn.rnn import Weights

logger = logging.getLogger(__name__)

# Steps of a chunk: sums over time are cut there anyhow.
CHUNK = neuron.SEGMENT
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
    h0: FloatArray,
    upstream: FloatArray,
    dlast: FloatArray,
    dx: FloatArray | None,
    *,
    fused: bool,
    sums: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """As `Lanes.backward`."""
    if sums is None:
        sums = np.zeros((len(neuron.SUMS), *h0.shape[:2]))
    dh0 = np.array(dlast)
    for i, one in enumerate(_sequences(lanes)):
        steps = one.x.shape[1]
        into = None if dx is None else dx[:, i, :steps]
        starts, _ = _forward(one, h0[:, i], None)
        sums[:, :, i], dh0[:, i] = _backward(
            one, starts, upstream[:, i, :steps], dlast[:, i], into, fused, sums[:, :, i]
        )
    return sums, dh0


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


def _backward(
    one: Lanes,
    starts: FloatArray,
    upstream: FloatArray,
    dlast: FloatArray,
    dx: FloatArray | None,
    fused: bool,
    later: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Sums (6, K) and dh0 (K, 1) of one sequence, from the states before its chunks.

    Sums are added to those of ``later`` steps.
    """

    def in_sequence(
        first: int, end: int | None, dh: FloatArray, sums: FloatArray | None
    ) -> tuple[FloatArray, FloatArray]:
        into = None if dx is None else dx[:, None, first:end]
        up = upstream[:, None, first:end]
        start = starts[:, first // CHUNK, None, None]
        part = _part(one, first, end)
        sums, dh = part.backward(start, up, dh[:, None], into, fused=fused, sums=sums)
        return sums, dh[:, 0]

    count = starts.shape[1] - 1
    sums, dh = in_sequence(count * CHUNK, None, dlast, later[..., None].copy())
    done = 0
    if count >= LEAST_CHUNKS:
        found, dh = _run_back(one, starts, upstream, dh, dx, fused)
        done = found.shape[2]
        terms = np.concatenate([sums, found[..., ::-1]], axis=2)
        sums = ordered_sum(terms.reshape(-1, done + 1)).reshape(sums.shape)
    logger.info("%d of %d chunks back side by side, the rest in sequence", done, count)
    if done < count:
        sums, dh = in_sequence(0, (count - done) * CHUNK, dh, sums)
    return sums[..., 0], dh


def _run_back(
    one: Lanes,
    starts: FloatArray,
    upstream: FloatArray,
    dlast: FloatArray,
    dx: FloatArray | None,
    fused: bool,
) -> tuple[FloatArray, FloatArray]:
    """Sums (6, K, N) of the last N chunks, as many as are right, and dh (K, 1) before them."""
    count = starts.shape[1] - 1
    dh = np.repeat(dlast, count, axis=1)
    run_up = _chunks(one, CHUNK, count - 1, RUN_UP)
    above = _cut(upstream, CHUNK, count - 1, RUN_UP)
    none = np.zeros_like(dh[:, :-1, None])
    dh[:, :-1] = run_up.backward(starts[:, 1:-1, None], above, none, None, fused=fused)[1][..., 0]
    chunks = _chunks(one, 0, count, CHUNK)
    into = None if dx is None else _cut(dx, 0, count, CHUNK)
    above = _cut(upstream, 0, count, CHUNK)
    sums, before = chunks.backward(starts[:, :-1, None], above, dh[..., None], into, fused=fused)
    before = before[..., 0]
    for _ in range(REPAIRS):
        wrong = _bits(dh[:, :-1]) != _bits(before[:, 1:])
        if not wrong.any():
            return sums, before[:, :1]
        dh[:, :-1][wrong] = before[:, 1:][wrong]
        again = np.zeros(dh.shape, bool)
        again[:, :-1] = wrong
        mended = replace(chunks, chosen=np.flatnonzero(again))
        some, some_before = mended.backward(
            starts[:, :-1, None], above, dh[..., None], into, fused=fused
        )
        sums[:, again], before[again] = some[:, again], some_before[again, 0]
    wrong = (_bits(dh[:, :-1]) != _bits(before[:, 1:])).any(axis=0)
    first = count - int(np.argmax(wrong[::-1])) - 1 if wrong.any() else 0
    return sums[..., first:], before[:, first, None]


def _part(one: Lanes, first: int, end: int | None) -> Lanes:
    """Some steps of one sequence."""
    x = one.x[:, first:end]
    return replace(one, x=x, lengths=np.array([x.shape[1]]))
