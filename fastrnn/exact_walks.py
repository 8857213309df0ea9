"""Walks number by number, each number with an exponent of its own: of one net over one sequence.

They are for what vectors cannot hold, and take some 20 ns a product. So they are cut in time:
between two calls of the kernels, Ctrl-C is heard.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import FloatArray
from fastrnn.kernels import ACTIVATIONS, Activation, exact
from fastrnn.kernels.scaled_sums import SUM
from fastrnn.rnn import Weights
from fastrnn.scaled_parts import normal
from fastrnn.sequences import Sequences

# Products of a call: some 5 ms at least, and 0.2 s at most.
LEAST_WORK, MOST_WORK = 1 << 18, 1 << 23

# Steps of a call that is to be no longer for its own sake.
LONGEST = 1 << 12
# Exponent of plain floats.
ZERO = np.zeros(())

Doubles = NDArray[np.float64]
# Mantissas and exponents.
Pair = tuple[FloatArray, Doubles]


class Gradients(NamedTuple):
    """Where the sums of a gradient go, each in numbers (..., SUM), see `kernels.scaled_sums`."""

    loss: Doubles
    w1: Doubles
    w2: Doubles
    b: Doubles
    w3: Doubles
    b3: Doubles


def tile(job: Sequences) -> int:
    """Steps of a call: near sqrt(T), where as many states are kept as recomputed."""
    hidden = job.net.hidden_size
    products = hidden * (hidden + job.net.input_size)
    least, most = (max(1, work // products) for work in (LEAST_WORK, MOST_WORK))
    # A neuron's steps are short, and its states few.
    return min(max(min(least, LONGEST), math.isqrt(job.x.shape[1])), most)


def working_memory(job: Sequences) -> int:
    """Bytes of a walk back."""
    hidden, steps, rows = job.net.hidden_size, job.x.shape[1], tile(job)
    kept = 2 * rows + steps // rows + 2 + hidden + job.net.input_size
    return int(kept * hidden * (job.dtype.itemsize + 8) + 64 * hidden)


def forward(
    job: Sequences,
    net: int,
    sequence: int,
    states: Pair | None = None,
    h0_powers: Doubles = ZERO,
) -> Pair:
    """The last state (H,), mantissas and exponents, and all of them into ``states`` (T, H).

    States begin with h0 * 2**h0_powers.
    """
    weights, x, steps = _weights(job, net)[:3], _inputs(job, sequence), tile(job)
    h, h_powers = normal(job.h0[net, sequence], h0_powers)
    for t in range(0, len(x), steps):
        here = slice(t, min(t + steps, len(x)))
        into = _part(states, here, h)
        exact.forward(_activation(job), *weights, x[here], h, h_powers, states is not None, *into)
    return h, h_powers


def backward(
    job: Sequences,
    net: int,
    sequence: int,
    upstream: FloatArray,
    dlast: FloatArray,
    sums: Gradients | None,
    dx: Pair | None,
    *,
    fused: bool,
    h0_powers: Doubles = ZERO,
) -> Pair:
    """Gradient (H,) of h_0, mantissas and exponents, of a gradient of all and of the last state.

    ``upstream`` (T, H), or the target (T, O) where ``fused``. Adds to ``sums``, and writes
    mantissas and exponents of the gradient of x, ``dx`` (T, F). States begin with
    h0 * 2**h0_powers.
    """
    weights, x, steps = _weights(job, net), _inputs(job, sequence), tile(job)
    f, into_sums = _activation(job), _no_sums(weights) if sums is None else sums
    h, h_powers = normal(job.h0[net, sequence], h0_powers)
    kept = []
    for t in range(0, len(x), steps):
        kept.append((h.copy(), h_powers.copy()))
        if t + steps < len(x):
            nowhere = _part(None, slice(0), h)
            exact.forward(f, *weights[:3], x[t : t + steps], h, h_powers, False, *nowhere)
    dh, dh_powers = normal(dlast.astype(np.float64), ZERO)
    offset = np.zeros(2)
    for t in reversed(range(0, len(x), steps)):
        here = slice(t, min(t + steps, len(x)))
        exact.backward(
            f, *weights, x[here], *kept.pop(), fused, upstream[here], dh, dh_powers, offset,
            sums is not None, *into_sums, *_part(dx, here, h), dx is not None,
        )  # fmt: skip
    return dh, offset[0] + (offset[1] + dh_powers)


def _part(pair: Pair | None, steps: slice, like: FloatArray) -> Pair:
    """Some steps of mantissas and exponents; where there are none, arrays of their types."""
    if pair is None:
        return np.empty((0, 1), like.dtype), np.empty((0, 1))
    return pair[0][steps], pair[1][steps]


def _no_sums(weights: Weights) -> Gradients:
    return Gradients(np.empty(SUM), *(np.empty((*w.shape, SUM)) for w in weights))


def _activation(job: Sequences) -> Activation:
    return ACTIVATIONS[job.net.activation]


def _weights(job: Sequences, net: int) -> Weights:
    return Weights(*(weight[net] for weight in job.weights))


def _inputs(job: Sequences, sequence: int) -> FloatArray:
    found: FloatArray = job.x[sequence, : job.lengths[sequence]]
    return found
