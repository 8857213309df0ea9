"""Gradient: what the gradient verbs return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastrnn.checks import FloatArray, require_shape
from fastrnn.sequences import Sequences

# Axes of each gradient, without those that come of the bank and of the batch.
AXES = {"w1": "HF", "w2": "HH", "b": "H", "w3": "OH", "b3": "O", "x": "TX", "h0": "H"}


@dataclass(frozen=True, eq=False)
class Gradient:
    """Gradients by the things they belong to; None where not asked for.

    Each has the shape of its thing, after the bank axis K where the net is a bank (a weight
    that the bank shares has a gradient for every net), and after the batch axis B where
    ``per_sequence`` was asked for.
    """

    w1: FloatArray | None = None
    w2: FloatArray | None = None
    b: FloatArray | None = None
    w3: FloatArray | None = None
    b3: FloatArray | None = None
    x: FloatArray | None = None
    h0: FloatArray | None = None


def split_upstream(job: Sequences, dh: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``dh`` as a gradient of all states (K, B, T, H) and a further one of the last (K, B, H)."""
    if dh.shape == job.size(job.seen("KBH")):
        last = dh.astype(job.dtype, copy=False).reshape(job.size("KBH"))
        return np.broadcast_to(np.zeros((), job.dtype), job.size("KBTH")), last
    require_shape("dh", dh, job.named("KBTH"), job.named("KBH"))
    return dh.astype(job.dtype, copy=False).reshape(job.size("KBTH")), np.zeros_like(job.h0)


def collect(
    job: Sequences, arrays: dict[str, FloatArray], wanted: tuple[str, ...], per_sequence: bool
) -> Gradient:
    """The wanted gradients with the axes the caller sees; weights' come with (K, [B,] ...)."""
    fields = {}
    with np.errstate(over="ignore"):
        for name in wanted:
            keeps_batch = per_sequence or name in ("x", "h0")
            axes = ("KB" if keeps_batch else "K") + AXES[name]
            fields[name] = job.visible(arrays[name].astype(job.dtype, copy=False), axes)
    return Gradient(**fields)
