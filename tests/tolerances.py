"""The one table of tolerances: bounds derived from the rounding of each step."""

import numpy as np

from fastrnn import reference
from fastrnn.sequences import Sequences

# Constant of promise N3; at most 8.
C = 8.0
# tanh and sigmoid, in units in the last place (promise N1).
ACTIVATION_ULP = 2.0


def eps(dtype) -> float:
    return float(np.finfo(dtype).eps)


def unrolled(job: Sequences):
    """Pre-activations and states (K, B, T, H) in plain NumPy, float64."""
    wide = Sequences(
        job.net, job.x.astype(np.float64), job.h0.astype(np.float64), job.lengths, job.absent
    )
    z, after, _ = reference._unroll(wide)
    return z, np.concatenate([wide.h0[:, :, None], after], axis=2), wide


def forward_bound(job: Sequences) -> np.ndarray:
    """Bound on the difference of two right forward passes (K, B, T, H).

    Each z is a sum of F + H + 1 rounded terms, each f is right to a few ULP, and what went
    wrong before comes back times |W2| f'.
    """
    z, before, wide = unrolled(job)
    w1, w2, b, _, _ = (abs(w) for w in wide.weights)
    unit = eps(job.dtype) * (w1.shape[2] + w2.shape[2] + 2)
    slope = reference.derivative(job.net.activation, z)
    error = np.zeros_like(wide.h0)
    bound = np.zeros_like(z)
    for t in range(z.shape[2]):
        terms = np.einsum("khf,bf->kbh", w1, abs(wide.x[:, t])) + b[:, None]
        terms = terms + np.einsum("khj,kbj->kbh", w2, abs(before[:, :, t]))
        carried = np.einsum("khj,kbj->kbh", w2, error)
        local = 2 * ACTIVATION_ULP * eps(job.dtype) * abs(before[:, :, t + 1])
        error = slope[:, :, t] * (unit * terms + carried) + local
        bound[:, :, t] = error
    return 2 * bound + np.finfo(job.dtype).tiny


def rounding(job: Sequences) -> np.ndarray:
    """C * eps * sum over time of (1 + 2|z|), for each net and sequence (K, B): promise N3."""
    z, _, _ = unrolled(job)
    return C * eps(job.dtype) * (1 + 2 * abs(z)).max(axis=3).sum(axis=2)


def gradient_bound(job: Sequences, dh: np.ndarray) -> dict[str, np.ndarray]:
    """N3 for signed sums: `rounding` times the sum of the absolute terms, (K, B, ...)."""
    z, before, wide = unrolled(job)
    w1, w2, _, _, _ = (abs(w) for w in wide.weights)
    slope = reference.derivative(job.net.activation, z)
    dz, carried = np.zeros_like(z), np.zeros_like(wide.h0)
    for t in reversed(range(z.shape[2])):
        dz[:, :, t] = (carried + abs(dh[:, :, t])) * slope[:, :, t]
        carried = np.einsum("khj,kbh->kbj", w2, dz[:, :, t])
    unit = rounding(job)
    terms = {
        "w1": np.einsum("kbth,btf->kbhf", dz, abs(wide.x)),
        "w2": np.einsum("kbth,kbtj->kbhj", dz, abs(before[:, :, :-1])),
        "b": dz.sum(axis=2),
        "x": np.einsum("khf,kbth->kbtf", w1, dz),
        "h0": carried,
    }
    return {
        name: unit.reshape(unit.shape + (1,) * (term.ndim - 2)) * term + np.finfo(job.dtype).tiny
        for name, term in terms.items()
    }
