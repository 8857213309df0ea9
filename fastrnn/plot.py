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

REGIME_COLOURS = {
    "vanishing": "#56B4E9",
    "balanced": "#009E73",
    "exploding": "#E69F00",
    "undefined": "#999999",
}
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
MOST_POINTS = 2000
MOST_MARKERS = 100
# Past so many decades an axis of logarithms is itself drawn by its logarithm.
FAR_DECADES = 30.0
LINEAR_DECADES = 10.0
# Past so many it is drawn at the edge.
MOST_DECADES = 1e12
# Beyond it, and below its inverse, a logarithmic axis of matplotlib overflows.
LARGEST_W2 = 1e30


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
    w2 = _w2_axis(axes, table.w2)
    for (label, values), colour in zip(curves.items(), LINE_COLOURS, strict=False):
        axes.plot(w2, values, color=colour, marker=marker, markersize=4, label=label)
    if not any(np.isfinite(values).any() for values in curves.values()):
        axes.text(0.5, 0.5, "nothing finite to draw", transform=axes.transAxes, ha="center")
    axes.margins(x=0)
    axes.grid(alpha=0.3)
    for stretch in table.stretches():
        low, high = _edges(w2, stretch, axes.get_xscale() == "linear")
        axes.axvspan(low, high, color=REGIME_COLOURS[table.regime[stretch][0]], alpha=0.2, lw=0)


def _w2_axis(axes: Axes, w2: NDArray[Any]) -> NDArray[Any]:
    """Choose the scale of the W2 axis; what to draw on it."""
    axes.set(xlabel="feedback weight $W_2$")
    sizes = abs(w2[w2 != 0])
    ordinary = not sizes.size or (sizes.max() < LARGEST_W2 and sizes.min() > 1 / LARGEST_W2)
    positive = bool((w2 > 0).all())
    if ordinary and (positive or w2[0] != w2[-1]):
        options = {} if positive else {"linthresh": sizes.min(initial=1.0)}
        axes.set_xscale("log" if positive else "symlog", **options)
        return w2
    if positive:
        axes.set(xlabel="log$_{10}$ of the feedback weight $W_2$")
        return np.asarray(np.log10(w2))
    axes.set(xlabel="row, by growing $W_2$")
    return np.arange(len(w2), dtype=float)


def _far_scale(axes: Axes, curves: list[NDArray[Any]]) -> None:
    """Logarithms that reach far are drawn linearly near 0 and by their own logarithm beyond."""
    largest = max((np.nanmax(abs(curve), initial=0.0) for curve in curves), default=0.0)
    if largest > FAR_DECADES:
        axes.set_yscale("symlog", linthresh=LINEAR_DECADES)
        axes.yaxis.set_major_formatter(lambda x, _: f"{x:,.0f}" if abs(x) < 1e6 else f"{x:.0e}")


def _edges(w2: NDArray[Any], stretch: slice, linear: bool) -> tuple[float, float]:
    """Ends of a regime's band: half-way to the neighbours, as the axis shows it."""

    def between(a: float, b: float) -> float:
        return (a + b) / 2 if linear or a * b <= 0 else float(np.sign(a) * np.sqrt(a * b))

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
    """NaN instead of inf, and nothing past the edge of the picture."""
    return np.where(np.isfinite(values), np.clip(values, -MOST_DECADES, MOST_DECADES), np.nan)


def _positive(values: NDArray[Any]) -> NDArray[Any]:
    """NaN where there is no logarithm to draw."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
