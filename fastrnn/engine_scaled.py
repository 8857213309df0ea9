"""States and influences of any magnitude.

Neurons and layers are walked by vectors; nets and sequences that leave the reach of those, number
by number.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastrnn import exact_walks, gradients, layers_scaled, reach
from fastrnn.checks import FloatArray
from fastrnn.engine import EMPTY, FEWER, lanes, layers, zeros
from fastrnn.kernels import BOUNDED
from fastrnn.lanes import Carried, State
from fastrnn.scaled import Scaled, already_normal
from fastrnn.sequences import Sequences
from fastrnn.threads import run


def forward(job: Sequences, *, keep: bool, workers: int | None) -> tuple[Scaled, Scaled]:
    """As `engine.forward`, of states of any magnitude; past a sequence's length they are 0."""
    states = zeros("states", job.size("KBTH") if keep else EMPTY, job.dtype, FEWER)
    # Plain floats are tried first.
    last, left = reach.forward(job, workers, states if keep else None)
    if not left.any():
        return Scaled(states + 0.0), Scaled(last + 0.0)
    powers = zeros("exponents of states", states.shape, np.float64, FEWER)
    last_powers = np.zeros(last.shape)
    if job.net.is_neuron and job.net.activation not in BOUNDED:
        own = replace(lanes(job, workers), chosen=np.flatnonzero(left))
        outside = np.zeros(left.shape, np.uint8)
        into = (states[..., 0], powers[..., 0]) if keep else None
        found = own.states(State.start(job.h0), into, outside)
        last[left], last_powers[left] = found.h[left], found.power[left]
        left = outside.astype(bool)
    elif job.net.activation not in BOUNDED:
        h, h_powers, beyond = layers_scaled.forward(
            layers(job, workers), job.h0, states if keep else None, powers if keep else None
        )
        last[left], last_powers[left] = h[left], h_powers[left][:, None]
        left = beyond

    def call(pair: NDArray[np.int64]) -> None:
        k, i = pair.tolist()
        into = (states[k, i], powers[k, i]) if keep else None
        last[k, i], last_powers[k, i] = exact_walks.forward(job, k, i, into)

    run(call, list(np.argwhere(left)), workers)
    # Adding 0 makes every zero positive.
    return Scaled(states + 0.0, powers), Scaled(last + 0.0, last_powers)


def influence(
    job: Sequences, seed: FloatArray, *, workers: int | None, memory: int | None = None
) -> tuple[Scaled, Scaled]:
    """d(seed . h_T)/dx (K, B, T, F) and d(seed . h_T)/dh_0 (K, B, H), for seeds (K, H)."""
    none = np.broadcast_to(np.zeros((), job.dtype), job.size("KBTH"))
    seeds = np.broadcast_to(seed[:, None], job.h0.shape)
    found, _ = gradients.find(
        job, none, seeds, fused=False, want_dx=True, each=False, scaled=True, workers=workers,
        memory=memory, want_sums=False,
    ).scaled()  # fmt: skip
    return found["x"], found["h0"]


def neuron_influence(
    job: Sequences, carried: Carried, *, workers: int | None
) -> tuple[Scaled, NDArray[np.bool_]]:
    """What is carried from later steps of a neuron, pulled back to x (K, B, T, F) and h_0.

    Also which nets and sequences were outside the kernel's range, see there.
    """
    dx = gradients.pair("influences", job.size("KBTF"), job.dtype)
    none = np.broadcast_to(np.zeros((), job.dtype), job.size("KBT"))
    outside = lanes(job, workers).backward(
        State.start(job.h0), none, carried, None, gradients.without_inputs(dx), fused=False,
        want_w3=False,
    )  # fmt: skip
    return already_normal(*dx), outside | ~np.isfinite(carried.dh[..., 0])
