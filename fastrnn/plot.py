"""Pictures of results, in matplotlib.

Colours are the Okabe-Ito set, told apart with any colour vision (Okabe and Ito 2008).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from fastrnn.diagnosis import HORIZON_DECADES, LN_10

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastrnn.sweep.run import SweepTable

REGIME_COLOURS = {"vanishing": "#56B4E9", "balanced": "#009E73", "exploding": "#E69F00"}
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
MOST_POINTS = 2000
MOST_MARKERS = 100
# Past so many decades an axis of logarithms is itself drawn by its logarithm.
FAR_DECADES = 30.0
LINEAR_DECADES = 10.0


def sweep_figure(table: SweepTable, by_lag: dict[float, NDArray[Any]], *, title: str) -> Figure:
    """Loss, gradient and growth against W2 with the regimes shaded, and influence by lag.

    Parameters
    ----------
    table : SweepTable
        K rows.
    by_lag : dict of float to ndarray, shape (T,)
        log10 of the absolute influence by lag, for a few W2.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Not tied to any window; ``.savefig(path)`` writes it.
    """
    table = table.ordered()
    figure = Figure(figsize=(10, 7.5), dpi=120, layout="constrained")
    figure.suptitle(title)
    (loss, growth), (gradient, lags) = figure.subplots(2, 2)
    _against_w2(loss, table, {"loss": np.log10(_positive(table.loss))})
    loss.set(title="error of the next value", ylabel="log$_{10}$ mean squared error")
    _against_w2(growth, table, {"growth": _finite(table.exponent / LN_10)})
    growth.axhline(0, color="black", linewidth=0.8)
    growth.set(title="growth of the gradient per step", ylabel="decades per step")
    _against_w2(
        gradient,
        table,
        {
            "loss by $W_1, W_2, b$": np.log10(_positive(table.gradient)),
            r"$\hat y_T$ by $x_1$": _finite(table.influence_log10),
        },
    )
    gradient.set(title="size of the gradients", ylabel="log$_{10}$ |gradient|")
    gradient.legend(loc="best")
    _influence_by_lag(lags, by_lag)
    figure.legend(
        handles=[
            Patch(color=colour, alpha=0.4, label=name)
            for name, colour in REGIME_COLOURS.items()
            if name in table.regime
        ],
        loc="outside lower center",
        ncols=len(REGIME_COLOURS),
        title="regime over the whole sequence",
        frameon=False,
    )
    return figure


def _against_w2(axes: Axes, table: SweepTable, curves: dict[str, NDArray[Any]]) -> None:
    _far_scale(axes, list(curves.values()))
    marker = "." if len(table.w2) <= MOST_MARKERS else None
    for (label, values), colour in zip(curves.items(), LINE_COLOURS, strict=False):
        axes.plot(table.w2, values, color=colour, marker=marker, markersize=4, label=label)
    if (table.w2 > 0).all():
        axes.set_xscale("log")
    elif len(table.w2) > 1:
        axes.set_xscale("symlog", linthresh=np.min(abs(table.w2[table.w2 != 0]), initial=1.0))
    axes.set(xlabel="feedback weight $W_2$")
    axes.margins(x=0)
    axes.grid(alpha=0.3)
    for stretch in table.stretches():
        low, high = _edges(table.w2, stretch)
        axes.axvspan(low, high, color=REGIME_COLOURS[table.regime[stretch][0]], alpha=0.2, lw=0)


def _far_scale(axes: Axes, curves: list[NDArray[Any]]) -> None:
    """Logarithms that reach far are drawn linearly near 0 and by their own logarithm beyond."""
    largest = max((np.nanmax(abs(curve), initial=0.0) for curve in curves), default=0.0)
    if largest > FAR_DECADES:
        axes.set_yscale("symlog", linthresh=LINEAR_DECADES)
        axes.yaxis.set_major_formatter("{x:,.0f}")


def _edges(w2: NDArray[Any], stretch: slice) -> tuple[float, float]:
    """Ends of a regime's band: half-way to the neighbours."""

    def between(a: float, b: float) -> float:
        return float(np.sign(a) * np.sqrt(a * b)) if a * b > 0 else (a + b) / 2

    if w2[0] == w2[-1]:
        half = abs(w2[0]) / 2 or 1.0
        return w2[0] - half, w2[0] + half
    low = w2[0] if stretch.start == 0 else between(w2[stretch.start - 1], w2[stretch.start])
    high = w2[-1] if stretch.stop == len(w2) else between(w2[stretch.stop - 1], w2[stretch.stop])
    return float(low), float(high)


def _influence_by_lag(axes: Axes, by_lag: dict[float, NDArray[Any]]) -> None:
    """Influence relative to the newest input's, so that all curves start at 1."""
    finite = {w2: _finite(log10) for w2, log10 in by_lag.items()}
    curves = {w2: log10 - log10[0] for w2, log10 in finite.items()}
    _far_scale(axes, list(curves.values()))
    for (w2, curve), colour in zip(curves.items(), LINE_COLOURS, strict=False):
        shown = np.unique(np.linspace(0, len(curve) - 1, MOST_POINTS).round().astype(int))
        axes.plot(shown, curve[shown], color=colour, label=f"$W_2$ = {w2:.3g}")
    axes.axhline(-HORIZON_DECADES, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(
        "memory horizon", (0.5, -HORIZON_DECADES), xycoords=("axes fraction", "data"),
        xytext=(0, 3), textcoords="offset points", ha="center", fontsize="small",
    )  # fmt: skip
    axes.set(
        title=r"how much of each input reaches $\hat y_T$",
        xlabel="lag (steps before the last)",
        ylabel="log$_{10}$ influence, newest = 0",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isfinite(values), values, np.nan)


def _positive(values: NDArray[Any]) -> NDArray[Any]:
    """NaN where there is no logarithm to draw."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
