"""Sweep: next-value prediction of a series by a bank of neurons, one for each W2."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.diagnosis import Diagnosis, median_sequence
from fastrnn.rnn import RNN
from fastrnn.verbs.diagnose import diagnose
from fastrnn.verbs.loss_and_grad import loss_and_grad

# Steps times lanes that are diagnosed at once: some 100 MB of arrays.
CHUNK_STEPS = 1 << 21
# A chunk is also a tick of the progress bar; so many there are at least.
TICKS = 20


@dataclass(frozen=True, eq=False)
class SweepTable:
    """A row for each W2, in the order given; every field is a column (K,).

    Loss and gradients are those of all sequences together; their logarithms are there also where
    floats are inf or 0. Influence, horizon and regime are those of the sequence whose exponent is
    the median: a real one, not a mixture.
    """

    w2: NDArray[Any]
    loss: NDArray[Any]
    """Mean squared error of the prediction h_t of x_{t+1}."""
    loss_log10: NDArray[Any]
    dw1: NDArray[Any]
    dw2: NDArray[Any]
    db: NDArray[Any]
    gradient_log10: NDArray[Any]
    """Of the Euclidean norm of the loss gradient by w1, w2 and b."""
    influence_log10: NDArray[Any]
    influence_sign: NDArray[Any]
    horizon: NDArray[Any]
    exponent: NDArray[Any]
    exponent_stderr: NDArray[Any]
    decades: NDArray[Any]
    saturated: NDArray[Any]
    regime: NDArray[Any]

    def stretches(self) -> list[slice]:
        """Runs of neighbouring W2 in the same regime, from the lowest W2 on (see `ordered`)."""
        change = np.flatnonzero(self.regime[1:] != self.regime[:-1]) + 1
        edges = [0, *(int(i) for i in change), len(self.regime)]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    def ordered(self) -> SweepTable:
        """The same rows by growing W2."""
        order = np.argsort(self.w2, kind="stable")
        return SweepTable(**{f.name: getattr(self, f.name)[order] for f in fields(self)})


def sweep(
    series: NDArray[Any],
    w2: NDArray[Any],
    *,
    w1: float = 1.0,
    b: float = 0.0,
    activation: str = "tanh",
    workers: int | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> SweepTable:
    """Predict each next value of ``series`` (B, T + 1) with every W2 (K,), and diagnose.

    ``progress`` is called with the number of W2 done since the last call.
    """
    x, y = series[:, :-1], series[:, 1:]
    chunk = max(1, min(CHUNK_STEPS // max(1, x.size), -(-len(w2) // TICKS)))
    parts = []
    for start in range(0, len(w2), chunk):
        net = RNN(w1, w2[start : start + chunk], b, activation=activation)
        loss, gradient = loss_and_grad(net, x, y, scaled=True, workers=workers)
        squares = sum(getattr(gradient, name) ** 2 for name in ("w1", "w2", "b"))
        found = diagnose(net, x, workers=workers)
        parts.append(
            {
                "w2": net.w2,
                "loss": loss.to_float(),
                "loss_log10": loss.log10(),
                "dw1": gradient.w1.to_float(),
                "dw2": gradient.w2.to_float(),
                "db": gradient.b.to_float(),
                "gradient_log10": 0.5 * squares.log10(),
            }
            | _of_median_sequence(found)
        )
        progress(len(net.w2))
    return SweepTable(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def influence_by_lag(
    series: NDArray[Any], w2: float, *, w1: float, b: float, activation: str
) -> NDArray[Any]:
    """log10 of the absolute influence by lag (T,), in the sequence of median exponent."""
    net = RNN(w1, np.array([w2], series.dtype), b, activation=activation)
    found = diagnose(net, series[:, :-1])
    return np.asarray(found.gradient_by_lag[median_sequence(found.exponent)][0])


def _of_median_sequence(found: Diagnosis) -> dict[str, Any]:
    chosen = median_sequence(found.exponent)
    return {
        "influence_log10": found.influence_of_first.log10()[chosen],
        "influence_sign": found.influence_of_first.sign[chosen],
        "horizon": found.horizon[chosen],
        "exponent": found.exponent[chosen],
        "exponent_stderr": found.exponent_stderr[chosen],
        "decades": found.decades[chosen],
        "saturated": found.saturated[chosen],
        "regime": found.regime[chosen],
    }
