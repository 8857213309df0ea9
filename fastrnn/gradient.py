"""Gradient: what the gradient verbs return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.checks import FloatArray, is_finite, require_shape
from fastrnn.scaled import Scaled
from fastrnn.sequences import Sequences

# Axes of each gradient, without those that come of the bank and of the batch.
AXES = {"w1": "HF", "w2": "HH", "b": "H", "w3": "OH", "b3": "O", "x": "TX", "h0": "H"}

# Numbers looked at at a time.
LOOK = 1 << 15


@dataclass(frozen=True, eq=False)
class Gradient:
    """Gradients by the things they belong to; None where not asked for.

    Each has the shape of its thing, after the bank axis K where the net is a bank (a weight
    that the bank shares has a gradient for every net), and after the batch axis B where
    ``per_sequence`` was asked for. With ``scaled=True`` they are `Scaled`, else ndarrays.

    ``cancellation`` holds for each weight the size of its sum over the sum of its terms' sizes: 1
    where all terms have one sign, and 1e-10 where ten digits cancel. It is None for layers without
    ``scaled=True``.

    ``out_of_range`` names the gradients some of whose values are too large for floats, and so
    infinite, and ``underflow`` those with values that are 0 or below the least normal float: what
    floats keep of smaller numbers, or true zeros, as past a sequence's length. With ``scaled=True``
    there are none.
    """

    w1: Any = None
    w2: Any = None
    b: Any = None
    w3: Any = None
    b3: Any = None
    x: Any = None
    h0: Any = None
    cancellation: Gradient | None = None
    out_of_range: tuple[str, ...] = ()

    @property
    def underflow(self) -> tuple[str, ...]:
        """Names of gradients with values that are 0 or below the least normal float."""
        return tuple(name for name in AXES if _has_small(getattr(self, name)))


def _has_small(gradient: Any) -> bool:
    """Whether some floats are 0 or subnormal; they are looked at a block at a time."""
    if gradient is None or isinstance(gradient, Scaled):
        return False
    array = np.asarray(gradient)
    flags: Any = ["external_loop", "buffered", "zerosize_ok"]
    blocks: Any = np.nditer(array, flags, buffersize=LOOK)
    least = np.finfo(array.dtype).tiny
    return any(bool((abs(block) < least).any()) for block in blocks)


def split_upstream(job: Sequences, dh: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``dh`` as a gradient of all states (K, B, T, H) and a further one of the last (K, B, H)."""
    if dh.shape == job.size(job.seen("KBH")):
        last = dh.astype(job.dtype, copy=False).reshape(job.size("KBH"))
        return np.broadcast_to(np.zeros((), job.dtype), job.size("KBTH")), last
    require_shape("dh", dh, job.named("KBTH"), job.named("KBH"))
    return dh.astype(job.dtype, copy=False).reshape(job.size("KBTH")), np.zeros_like(job.h0)


def collect(
    job: Sequences,
    arrays: Mapping[str, Any],
    wanted: tuple[str, ...],
    per_sequence: bool,
    shares: Mapping[str, FloatArray] | None = None,
) -> Gradient:
    """The wanted gradients with the axes the caller sees, floats or `Scaled`.

    Weights' come with (K, [B,] ...), and so do ``shares``, what is left of their terms.
    """
    fields, cancellation = {}, {}
    for name in wanted:
        axes = _axes(name, per_sequence)
        own = arrays[name]
        if not isinstance(own, Scaled):
            with np.errstate(over="ignore"):
                own = own.astype(job.dtype, copy=False)
        fields[name] = job.visible(own, axes)
        if shares is not None and name in shares:
            cancellation[name] = job.visible(shares[name], axes)
    beyond = tuple(
        name
        for name, array in fields.items()
        if isinstance(array, np.ndarray | np.generic)
        and not is_finite(np.asarray(array))
        and np.isinf(array).any()
    )
    left = None if shares is None else Gradient(**cancellation)
    return Gradient(**fields, cancellation=left, out_of_range=beyond)


def _axes(name: str, per_sequence: bool) -> str:
    return ("KB" if per_sequence or name in ("x", "h0") else "K") + AXES[name]
