"""Gradient: what the gradient verbs return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.checks import FloatArray, require_shape
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

    @property
    def out_of_range(self) -> tuple[str, ...]:
        """Names of gradients with values that are infinite."""
        return tuple(name for name in AXES if _has_infinite(getattr(self, name)))

    @property
    def underflow(self) -> tuple[str, ...]:
        """Names of gradients with values that are 0 or below the least normal float."""
        return tuple(name for name in AXES if _has_small(getattr(self, name)))


FIELDS = (*AXES, "cancellation")


def _has_small(gradient: Any) -> bool:
    """Whether some floats are 0 or subnormal."""
    return any(bool((abs(b) < np.finfo(b.dtype).tiny).any()) for b in _blocks(gradient))


def _has_infinite(gradient: Any) -> bool:
    """Whether some floats are infinite."""
    return any(bool(np.isinf(block).any()) for block in _blocks(gradient))


def _blocks(gradient: Any) -> Iterator[FloatArray]:
    """Floats in blocks: a mask for all of them would take memory."""
    if gradient is not None and not isinstance(gradient, Scaled):
        flags: Any = ["external_loop", "buffered", "zerosize_ok"]
        blocks: Any = np.nditer(np.asarray(gradient), flags, buffersize=LOOK)
        yield from blocks


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
        own = arrays[name]
        # Those of a neuron's weights may lack the axes of units, which nobody sees.
        axes = _axes(name, per_sequence)[: own.ndim]
        if not isinstance(own, Scaled) and own.dtype != job.dtype:
            with np.errstate(over="ignore"):
                own = own.astype(job.dtype)
        fields[name] = job.visible(own, axes)
        if shares is not None and name in shares:
            cancellation[name] = job.visible(shares[name], axes)
    left = None if shares is None else _gradient(cancellation)
    return _gradient({**fields, "cancellation": left})


def _gradient(fields: dict[str, Any]) -> Gradient:
    """As the class, whose frozen fields take a microsecond each."""
    gradient = object.__new__(Gradient)
    gradient.__dict__.update(dict.fromkeys(FIELDS), **fields)
    return gradient


def _axes(name: str, per_sequence: bool) -> str:
    return ("KB" if per_sequence or name in ("x", "h0") else "K") + AXES[name]
