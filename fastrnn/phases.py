"""Phases: regime, exponent and horizon of a scalar neuron over a plane of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import engine
from fastrnn.checks import FloatArray
from fastrnn.diagnosis import LN_10, regimes
from fastrnn.folds import fold_mean
from fastrnn.forgetting import HORIZON_DECADES
from fastrnn.growth import new_windows
from fastrnn.rnn import RNN
from fastrnn.sequences import sequences

# What a plane may be of: the later of two is drawn from left to right.
PARAMETERS = ("scale", "b", "w1", "w2")
# Steps times sequences times points of one call, some 0.1 s: what progress and Ctrl-C wait for.
CALL_STEPS = 1 << 24

Doubles = NDArray[np.float64]
Report = Callable[[int, int], object]


@dataclass(frozen=True, eq=False, repr=False)
class PhaseDiagram:
    """What `phase_diagram` found, at V x H points of a plane.

    Attributes
    ----------
    axes : tuple of str
        Names of the two parameters that vary: along the rows, from below, and along the columns.
    w1, w2, b, scale : float or ndarray
        The parameters; arrays of shape (V,) and (H,) for those of ``axes``.
    exponent : ndarray, shape (V, H)
        Lyapunov exponent, natural logarithm per step; of several sequences the mean.
    decades : ndarray, shape (V, H)
        log10 of the influence of the first input over that of the newest one; of several
        sequences the mean. It decides the regime.
    horizon : ndarray, shape (V, H)
        Memory horizon in steps, inf where nothing is forgotten; of several sequences the median.
    regime : ndarray of str, shape (V, H)
        "vanishing", "balanced", "exploding" or "undefined"; see `Diagnosis`.
    boundary : ndarray, shape (M, 2)
        Points where the regime changes, found by bisection between neighbours on the plane; in
        the order of ``axes``.
    activation : str
    steps : int
        Length of the sequences.
    """

    axes: tuple[str, str]
    w1: Any
    w2: Any
    b: Any
    scale: Any
    exponent: Doubles
    decades: Doubles
    horizon: Doubles
    regime: NDArray[Any]
    boundary: Doubles
    activation: str
    steps: int

    def to_columns(self) -> dict[str, NDArray[Any]]:
        """A row for every point, as columns.

        Returns
        -------
        dict of str to ndarray, shape (V H,)
            What pandas.DataFrame and polars.DataFrame take.
        """
        down, across = np.meshgrid(*(getattr(self, name) for name in self.axes), indexing="ij")
        grid = dict(zip(self.axes, (down, across), strict=True))
        names = ("exponent", "decades", "horizon", "regime")
        columns = grid | {name: getattr(self, name) for name in names}
        return {name: np.ravel(column) for name, column in columns.items()}

    def plot(self, ax: Any = None) -> Any:
        """Picture of the plane; see `fastrnn.plot.phase_diagram`."""
        from fastrnn import plot

        return plot.phase_diagram(self, ax=ax)

    def __repr__(self) -> str:
        rows, columns = self.exponent.shape
        return f"PhaseDiagram({rows} {self.axes[0]} x {columns} {self.axes[1]}, {self.steps} steps)"


def phases_of(
    x: FloatArray,
    parameters: Mapping[str, Doubles],
    *,
    activation: str,
    refine: int,
    workers: int | None,
    progress: Report,
) -> PhaseDiagram:
    """The diagram of sequences x (B, T), from arguments that are checked.

    Of the parameters two have shape (N,), the others ().
    """
    down, across = (name for name in PARAMETERS if parameters[name].ndim)
    shape = len(parameters[down]), len(parameters[across])
    rest = {name: parameters[name] for name in PARAMETERS if not parameters[name].ndim}

    def measure(points: Doubles, report: Report) -> Doubles:
        return _measure(x, rest | {down: points[0], across: points[1]}, activation, workers, report)

    grid = np.meshgrid(parameters[down], parameters[across], indexing="ij")
    found = measure(np.reshape(grid, (2, -1)), progress).reshape(3, *shape)
    exponent, decades, horizon = found
    regime = regimes(decades)

    def regime_at(points: Doubles) -> NDArray[Any]:
        return regimes(measure(points, lambda done, total: None)[1])

    boundary = _boundary(parameters[down], parameters[across], regime, refine, regime_at)
    plain = {name: value if value.ndim else float(value) for name, value in parameters.items()}
    return PhaseDiagram(
        axes=(down, across), **plain, exponent=exponent, decades=decades, horizon=horizon,
        regime=regime, boundary=boundary, activation=activation, steps=x.shape[1],
    )  # fmt: skip


def _measure(
    x: FloatArray,
    parameters: Mapping[str, Doubles],
    activation: str,
    workers: int | None,
    report: Report,
) -> Doubles:
    """Exponents, decades and horizons (3, N) of N neurons."""
    count = max(value.size for value in parameters.values())
    each = max(1, CALL_STEPS // max(1, x.size))
    found = np.empty((3, count))
    for start in range(0, count, each):
        own = {
            name: value[start : start + each] if value.ndim else value
            for name, value in parameters.items()
        }
        stop = min(start + each, count)
        w2 = np.broadcast_to(own["w2"], stop - start)
        net = RNN(own["scale"] * own["w1"], w2, own["b"], activation=activation)
        found[:, start:stop] = _of_bank(net, x, workers)
        report(stop, count)
    return found


def _of_bank(net: RNN, x: FloatArray, workers: int | None) -> Doubles:
    """The same of a bank that one call takes."""
    job = sequences(net, x)
    lanes = engine.lanes(job, workers)
    nets, batch_size, steps = *job.size("KB"), x.shape[1]
    windows = np.full(batch_size, steps)
    carried, sums = new_windows((nets, batch_size)), np.zeros((nets, batch_size, 1))
    lanes.growth(job.h0, 0, windows, carried, sums)
    total = sums[..., 0]
    horizon, newest = lanes.horizon(job.h0, 10.0**-HORIZON_DECADES)
    w2 = net.w2[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        # All factors but that of the last step: between x_1 and x_T lie T - 1 of them.
        first = total - (np.log(abs(w2)) + newest)
    # No factor of the last step, 0, can be taken out of a product again.
    first = np.where(np.isnan(first) & ~np.isnan(total), -np.inf, first)
    if steps == 1:
        first = np.where(np.isnan(total), np.nan, 0.0)
    with np.errstate(invalid="ignore"):
        return np.stack(
            [fold_mean(total, 1) / steps, fold_mean(first, 1) / LN_10, np.median(horizon, axis=1)]
        )


def _boundary(
    down: Doubles,
    across: Doubles,
    regime: NDArray[Any],
    refine: int,
    regime_at: Callable[[Doubles], NDArray[Any]],
) -> Doubles:
    """Where the regime changes between neighbours (M, 2): the middle of what bisection leaves."""
    points = np.stack(np.meshgrid(down, across, indexing="ij"))
    every, first, later = slice(None), slice(None, -1), slice(1, None)
    ends: tuple[list[Doubles], list[Doubles]] = ([], [])
    for here, there in (((first, every), (later, every)), ((every, first), (every, later))):
        change = regime[here] != regime[there]
        for side, index in zip(ends, (here, there), strict=True):
            side.append(points[(slice(None), *index)][:, change])
    low, high = (np.concatenate(side, axis=1) for side in ends)
    if not low.size:
        return np.empty((0, 2))
    origin = regime_at(low)
    for _ in range(refine):
        middle = low / 2 + high / 2
        if ((middle == low) | (middle == high)).all():
            break
        same = regime_at(middle) == origin
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.asarray((low / 2 + high / 2).T)
