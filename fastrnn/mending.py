"""Plain gradients that are the true ones, rounded: what floats lost on the way is computed anew.

Past an overflow floats know no more than inf - inf. And a gradient that fades below the least float
is 0 from there on, though where units are not saturated it may grow again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import engine, engine_scaled
from fastrnn.checks import FloatArray, is_finite
from fastrnn.kernels.sums import ordered_sum
from fastrnn.sequences import Sequences
from fastrnn.threads import run

# Largest f', of those whose f' varies: with the others a gradient that fades never grows again.
STEEPEST = {"tanh": 1.0, "sigmoid": 0.25}
# Numbers looked at at a time: a block of them and their absolute values stay in the cache.
LOOK = 1 << 15

Lanes = NDArray[np.bool_]


def backward(
    job: Sequences,
    upstream: FloatArray,
    dlast: FloatArray,
    *,
    fused: bool,
    per_sequence: bool,
    **options: Any,
) -> dict[str, FloatArray]:
    """As `engine.backward`, mended: neurons and sequences that need none keep their bits.

    Errors of predictions, where ``fused``, come in at every step: beside them, what faded is
    nothing.
    """
    engine_scaled.require_memory(job, options.get("memory"), each=per_sequence)
    options |= {"fused": fused}
    lost = _may_fade_and_grow(job, upstream, options["workers"]) if not fused else np.zeros(1, bool)
    if not lost.any():
        plain = engine.backward(job, upstream, dlast, per_sequence=per_sequence, **options)
        return _without_overflow(job, plain, upstream, dlast, per_sequence, **options)
    lost &= _of_finite_inputs(job, upstream, dlast)
    arrays = engine.backward(job, upstream, dlast, per_sequence=True, **options)
    true = _rounded(job, arrays, upstream, dlast, per_sequence=True, **options)
    arrays = {
        name: np.where(_over(lost, a), true[name], a) if a.size else a for name, a in arrays.items()
    }
    if not per_sequence:
        for name in set(arrays) - {"x", "h0"}:
            arrays[name] = ordered_sum(arrays[name].astype(np.float64))
    return _without_overflow(job, arrays, upstream, dlast, per_sequence, **options)


def _without_overflow(
    job: Sequences,
    plain: dict[str, FloatArray],
    upstream: FloatArray,
    dlast: FloatArray,
    per_sequence: bool,
    **options: Any,
) -> dict[str, FloatArray]:
    """Results with the true values where theirs are inf or NaN.

    What is finite keeps its bits, and so does what inf or NaN in the inputs of a sequence reach by
    right.
    """
    lost = {name: array for name, array in plain.items() if not is_finite(array)}
    if not lost:
        return plain
    whole = _of_finite_inputs(job, upstream, dlast)
    mended = {}
    for name, array in lost.items():
        own = whole if per_sequence or name in ("x", "h0") else np.asarray(whole.all(axis=1))
        mended[name] = _over(own, array) & ~np.isfinite(array)
    # inf or NaN in the inputs of some sequences is no reason to compute anything anew.
    lost = {name: array for name, array in lost.items() if mended[name].any()}
    if not lost:
        return plain
    true = _rounded(job, lost, upstream, dlast, per_sequence=per_sequence, **options)
    return plain | {name: np.where(mended[name], true[name], a) for name, a in lost.items()}


def _rounded(
    job: Sequences, like: dict[str, FloatArray], *inputs: FloatArray, **options: Any
) -> dict[str, FloatArray]:
    found, _ = engine_scaled.backward(job, *inputs, **options)
    # In float64: what is twice the mean of half squares may fit where they do not.
    return {
        name: found[name].astype(np.float64).to_float().reshape(array.shape)
        for name, array in like.items()
    }


def _over(lanes: Lanes, array: FloatArray) -> Lanes:
    """Lanes (K, ...) with axes of 1 for those that only the array has."""
    return lanes.reshape(lanes.shape + (1,) * (array.ndim - lanes.ndim))


def _of_finite_inputs(job: Sequences, upstream: FloatArray, dlast: FloatArray) -> Lanes:
    nets, batch_size, _ = job.h0.shape
    whole = np.ones((nets, batch_size), bool)
    for array in (job.x[None], upstream, dlast, job.h0):
        whole &= np.isfinite(array).all(axis=tuple(range(2, array.ndim)))
    return whole


def _may_fade_and_grow(job: Sequences, upstream: FloatArray, workers: int | None) -> Lanes:
    """Neurons and sequences (K, B) whose gradient may fade below floats and grow again.

    It can't where |w2 f'| <= 1 everywhere, nor where each step adds a gradient beside which what
    was lost is nothing: |w2| times the least float at most.
    """
    nets, batch_size, _ = job.h0.shape
    w2 = abs(job.weights.w2.reshape(nets, -1)[:, :1].astype(np.float64))
    grows = job.net.is_neuron and w2 * STEEPEST.get(job.net.activation, 0.0) > 1
    if not np.any(grows):
        return np.zeros((nets, batch_size), bool)
    least = _least_sizes(upstream[..., 0], workers)
    return np.asarray(grows & (least < np.maximum(1.0, w2) * np.finfo(job.dtype).tiny))


def _least_sizes(array: FloatArray, workers: int | None) -> NDArray[np.float64]:
    """The least absolute value over time of an array (K, B, T); 0 if there is none."""
    least = np.zeros(array.shape[:2])
    if not array.size or not any(array.strides):
        return least + abs(array[..., 0]) if array.size else least
    nets, batch_size, steps = array.shape
    rows, width = max(1, LOOK // steps), min(steps, LOOK)
    least += np.inf

    def look(part: tuple[int, int]) -> None:
        k, i = part
        own = least[k, i : i + rows]
        for t in range(0, steps, width):
            block = abs(array[k, i : i + rows, t : t + width])
            np.minimum(own, block.min(axis=1), out=own)

    run(look, [(k, i) for k in range(nets) for i in range(0, batch_size, rows)], workers)
    return least
