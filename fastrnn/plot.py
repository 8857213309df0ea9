"""Pictures of results, in matplotlib.

Each function draws into ``ax``, or into a new figure where there is none, and returns the axes;
``.figure.savefig(path)`` writes it. Figures are not tied to any window. Pictures need matplotlib,
which is imported when the first is drawn: ``pip install "fastrnn[plot]"``.

Colours are the Okabe-Ito set, told apart with any colour vision (Okabe and Ito 2008).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.diagnosis import LN_10, regimes, stretches
from fastrnn.forgetting import HORIZON_DECADES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from fastrnn.diagnosis import Diagnosis
    from fastrnn.phases import PhaseDiagram
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
# Powers of ten of one sign that fit below an axis of both.
MOST_SIGNED_TICKS = 3
# W2 of either sign with a larger one than so many times the median are spread by magnitude.
EVEN = 10.0
# Beyond it, and below its inverse, an axis of matplotlib overflows.
LARGEST_WEIGHT = 1e30
# Growth below so many decades a step is drawn as none.
LEAST_DECADES = 1e-12
# Inputs that are drawn as a bar each, and of which the bars are labelled.
MOST_BARS, MOST_LABELS = 40, 12
# Where a float64 is 0 or inf, log10.
FLOAT_DECADES = (-323.3, 308.25)
BAND_STDERRS = 2
LAG_LINES = 6
# Of a plane, so much is drawn within the range of colours.
SHOWN_SHARE = 0.98
# Positive weights that span more than so many times are drawn by their logarithm.
WIDE = 30.0
PARAMETER_LABELS = {
    "w1": "input weight $W_1$", "w2": "feedback weight $W_2$", "b": "bias $b$",
    "scale": "scale of the input",
}  # fmt: skip


def unrolled_influence(found: Diagnosis, *, ax: Axes | None = None) -> Axes:
    """How much of each input reaches the last prediction: the unrolled neuron's picture.

    Parameters
    ----------
    found : Diagnosis
        Of one net and one sequence.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there are several nets or sequences.
    """
    if np.ndim(found.exponent):
        raise ValueError(
            f"found must be of one net and one sequence, got shape {np.shape(found.exponent)}"
        )
    axes = _axes(ax)
    log10 = _finite(found.gradient_by_lag[::-1])
    log10 = log10[~np.isnan(found.gradient_by_lag[::-1])]
    steps = np.arange(1, len(log10) + 1) + (found.steps - len(log10))
    colour = REGIME_COLOURS[found.regime]
    if len(steps) <= MOST_BARS and (np.nanmax(abs(log10), initial=0.0) < FAR_DECADES):
        axes.set_yscale("log")
        axes.bar(steps, 10.0**log10, color=colour, edgecolor="black", linewidth=0.5)
        axes.set_ylabel(r"$|\partial\hat y_T/\partial x_t|$")
        axes.margins(y=0.15)
        if len(steps) <= MOST_LABELS:
            axes.set_xticks(steps, [f"$x_{{{t}}}$" for t in steps])
            for t, value in zip(steps, log10, strict=True):
                axes.annotate(
                    _share_text(value), (t, 10.0 ** np.nan_to_num(value)), (0, 3),
                    textcoords="offset points", ha="center", fontsize="small",
                )  # fmt: skip
    else:
        _far_scale(axes, [log10])
        _shade_floats(axes, log10)
        axes.plot(steps, log10, color="black", linewidth=1.2)
        axes.set_ylabel(r"log$_{10}\,|\partial\hat y_T/\partial x_t|$")
        axes.margins(x=0)
    axes.set(xlabel="input, from the first to the last", title=_unrolled_title(found))
    axes.grid(axis="y", alpha=0.3)
    return axes


def _share_text(log10: float) -> str:
    """A factor as per cent up to 1, else as a multiple."""
    if not np.isfinite(log10):
        return "0"
    value = 10.0**log10
    return f"{100 * value:.3g} %" if value <= 1 else f"{value:.3g} times"


def _unrolled_title(found: Diagnosis) -> str:
    net = found.net
    what = f"$W_2$ = {float(net.w2):.4g}, {net.activation}" if net.is_neuron else repr(net)
    return f"how much of each input reaches the last prediction\n{what}: {found.regime}"


def gradient_by_lag(found: Diagnosis, *, ax: Axes | None = None) -> Axes:
    """Influence against lag, as a logarithm relative to the newest input's, any distance below 0.

    Parameters
    ----------
    found : Diagnosis
        Of any nets and sequences; six at most are drawn, spread evenly.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    lags = found.gradient_by_lag.shape[-1]
    every = found.gradient_by_lag.reshape(np.size(found.exponent), lags)
    columns = found.to_columns()
    labels = {}
    for n in _spread(len(every), LAG_LINES):
        batch = f"sequence {columns['sequence'][n]}" if len(every) > found.net.bank_size else ""
        w2 = f"$W_2$ = {columns['w2'][n]:.3g}" if "w2" in columns else f"net {columns['net'][n]}"
        bank = w2 if found.net.is_bank or not batch else ""
        labels[", ".join(filter(None, (bank, batch))) or w2] = every[n]
    axes = _axes(ax)
    _influence_by_lag(axes, labels)
    _shade_floats(axes, np.concatenate([line.get_ydata() for line in axes.lines]))
    return axes


def exponent_against_w2(found: Diagnosis, *, ax: Axes | None = None) -> Axes:
    """Largest Lyapunov exponent of a bank of neurons against W2, with error band and regimes.

    Parameters
    ----------
    found : Diagnosis
        Of a bank of scalar neurons; several sequences are averaged.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If it is not of a bank of neurons.
    """
    if not (found.net.is_neuron and found.net.is_bank):
        raise ValueError(f"found must be of a bank of scalar neurons, got {found.net!r}")
    count = found.net.bank_size
    exponent, stderr, decades = (
        np.reshape(array, (count, -1)) if np.size(array) else np.full((count, 1), np.nan)
        for array in (found.exponent, found.exponent_stderr, found.decades)
    )  # fmt: skip
    order = np.argsort(found.net.w2, kind="stable")
    with np.errstate(invalid="ignore"):  # infinite ones of both signs
        mean = _finite(exponent.mean(axis=1))[order]
        regime = regimes(np.median(decades, axis=1))[order]
    stderr = _finite(stderr)[order]
    band = BAND_STDERRS * np.sqrt((stderr**2).sum(axis=1)) / exponent.shape[1]
    axes = _axes(ax)
    _far_scale(axes, [mean])
    w2 = _w2_axis(axes, found.net.w2[order])
    axes.fill_between(w2, mean - band, mean + band, color=LINE_COLOURS[0], alpha=0.3, linewidth=0)
    axes.plot(w2, mean, color=LINE_COLOURS[0], linewidth=1.5, label="exponent ± 2 standard errors")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(x=0)
    axes.grid(alpha=0.3)
    _shade_regimes(axes, w2, regime)
    many = f", mean of {exponent.shape[1]} sequences" if exponent.shape[1] > 1 else ""
    axes.set(
        ylabel="Lyapunov exponent $\\lambda$ (1/step)",
        title=f"growth of a perturbation, {found.net.activation}{many}",
    )
    handles = [axes.get_lines()[0], *_regime_handles(regime)]
    axes.legend(handles=handles, loc="best", fontsize="small")
    return axes


def phase_diagram(found: PhaseDiagram, *, ax: Axes | None = None) -> Axes:
    """Exponent over a plane of weights, with the boundaries of the regimes.

    Parameters
    ----------
    found : PhaseDiagram
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = _axes(ax)
    down, across = (_along(name, getattr(found, name)) for name in found.axes)
    ordered = np.ix_(down.order, across.order)
    exponent = found.exponent[ordered]
    decades = np.clip(exponent / LN_10, -MOST_DECADES, MOST_DECADES)
    # Units that are off, at -inf, say nothing of how fast the others grow.
    known = abs(decades[np.isfinite(exponent)])
    limit = float(np.quantile(known, SHOWN_SHARE)) if known.size else 1.0
    limit = limit if limit > LEAST_DECADES else 1.0
    mesh = axes.pcolormesh(
        across.edges, down.edges, np.clip(decades, -limit, limit), cmap="PuOr_r",
        vmin=-limit, vmax=limit, rasterized=True,
    )  # fmt: skip
    axes.figure.colorbar(mesh, ax=axes, extend="both").set_label(
        "growth of the gradient (decades/step)"
    )
    for side, along in (("y", down), ("x", across)):
        axes.set(**{f"{side}scale": along.scale, f"{side}label": along.label})
    axes.plot(
        across.at(found.boundary[:, 1]), down.at(found.boundary[:, 0]), ".", color="black",
        markersize=1.5, zorder=3,
    )  # fmt: skip
    regime = found.regime[ordered]
    for name in np.unique(regime):
        row, column = _inmost(regime == name)
        axes.annotate(
            name, (across.centres[column], down.centres[row]), ha="center", va="center",
            fontsize="small",
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 2},
        )  # fmt: skip
    axes.set_title(
        f"regimes over {found.steps} steps, {found.activation}; black: where they change"
    )
    return axes


class _Along(NamedTuple):
    """How the values of a parameter, in growing order, lie along an axis."""

    order: NDArray[np.intp]
    values: NDArray[Any]
    centres: NDArray[Any]
    scale: str
    label: str

    def at(self, values: NDArray[Any]) -> NDArray[Any]:
        """Where some values between the parameter's lie."""
        if self.centres is self.values:
            return values
        # Halved: the distance of two floats may be none.
        return np.asarray(np.interp(values / 2, self.values / 2, self.centres))

    @property
    def edges(self) -> NDArray[Any]:
        """Half-way between neighbours, and as far to the other side of the first and the last."""
        centres = np.log(self.centres) if self.scale == "log" else self.centres
        if centres[0] == centres[-1]:
            half = abs(centres[0]) / 2 or 1.0
            return np.linspace(centres[0] - half, centres[0] + half, len(centres) + 1)
        middles = (centres[1:] + centres[:-1]) / 2
        ends = 2 * centres[0] - middles[0], 2 * centres[-1] - middles[-1]
        edges = np.concatenate([ends[:1], middles, ends[1:]])
        return np.asarray(np.exp(edges) if self.scale == "log" else edges)


def _along(name: str, values: NDArray[Any]) -> _Along:
    """The values themselves where matplotlib can place them, else their logarithms or ranks."""
    order = np.argsort(values, kind="stable")
    values, label = values[order], PARAMETER_LABELS[name]
    if _is_ordinary(values):
        wide = values[0] > 0 and values[-1] > WIDE * values[0]
        return _Along(order, values, values, "log" if wide else "linear", label)
    if values[0] > 0:
        return _Along(order, values, np.log10(values), "linear", f"log$_{{10}}$ of the {label}")
    ranks = np.arange(len(values), dtype=float)
    return _Along(order, values, ranks, "linear", f"rank of the {label}, from 0")


def _is_ordinary(values: NDArray[Any]) -> bool:
    """Whether matplotlib can draw an axis of such numbers."""
    sizes = abs(values[values != 0])
    return not sizes.size or bool(sizes.max() < LARGEST_WEIGHT and sizes.min() > 1 / LARGEST_WEIGHT)


def _inmost(mask: NDArray[Any]) -> tuple[int, int]:
    """The place that is farthest from what is not in the mask: where its name has room."""
    depth, left = np.zeros(mask.shape, int), np.pad(mask, 1)
    while left.any():
        depth += left[1:-1, 1:-1]
        left[1:-1, 1:-1] &= left[:-2, 1:-1] & left[2:, 1:-1] & left[1:-1, :-2] & left[1:-1, 2:]
    rows, columns = np.nonzero(depth == depth.max())
    middle = len(rows) // 2
    return int(rows[middle]), int(columns[middle])


def _axes(ax: Axes | None) -> Axes:
    return _figure((7, 4)).subplots() if ax is None else ax


def _figure(inches: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        message = f'pictures need {missing}: python -m pip install "fastrnn[plot]"'
        raise ModuleNotFoundError(message, name=missing) from None
    return Figure(figsize=inches, dpi=120, layout="constrained")


def _regime_handles(regime: NDArray[Any]) -> list[Patch]:
    from matplotlib.patches import Patch

    return [
        Patch(color=colour, alpha=0.4, label=name)
        for name, colour in REGIME_COLOURS.items()
        if name in regime
    ]


def _shade_floats(axes: Axes, log10: NDArray[Any]) -> None:
    """Where plain floats know nothing but 0 and inf."""
    low, high = FLOAT_DECADES
    lowest, highest = np.nanmin(log10, initial=0.0), np.nanmax(log10, initial=0.0)
    style: dict[str, Any] = {"color": "black", "alpha": 0.08, "linewidth": 0, "zorder": 0}
    text: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "left",
        "fontsize": "small", "color": "0.35",
    }  # fmt: skip
    if lowest < low:
        axes.axhspan(lowest * 1.3, low, **style)
        axes.annotate("float64: 0", (0.01, lowest * 1.3), (0, 4), **text)
    if highest > high:
        axes.axhspan(high, highest * 1.3, **style)
        axes.annotate("float64: inf", (0.01, highest * 1.3), (0, -12), **text)


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
    figure = _figure((10, 7.5))
    figure.suptitle(title)
    (loss, growth), (gradient, lags) = figure.subplots(2, 2)
    _against_w2(loss, table, {"loss": _finite(table.loss_log10)})
    loss.set(title="error of the next value", ylabel="log$_{10}$ mean squared error")
    _against_w2(growth, table, {"growth": _finite(table.exponent / LN_10)})
    growth.axhline(0, color="black", linewidth=0.8)
    growth.set(title="growth of the gradient per step", ylabel="decades per step")
    _against_w2(
        gradient,
        table,
        {
            "loss by $W_1, W_2, b$": _finite(table.gradient_log10),
            r"$\hat y_T$ by $x_1$": _finite(table.influence_log10),
        },
    )
    gradient.set(title="size of the gradients", ylabel="log$_{10}$ |gradient|")
    gradient.legend(loc="best")
    _influence_by_lag(lags, {f"$W_2$ = {w2:.3g}": log10 for w2, log10 in by_lag.items()})
    figure.legend(
        handles=_regime_handles(table.regime),
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
        axes.plot(*_with_gap(w2, values), color=colour, marker=marker, markersize=4, label=label)
    if not any(np.isfinite(values).any() for values in curves.values()):
        axes.text(0.5, 0.5, "nothing finite to draw", transform=axes.transAxes, ha="center")
    axes.margins(x=0)
    axes.grid(alpha=0.3)
    _shade_regimes(axes, w2, table.regime)


def _with_gap(w2: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """No line from the last W2 below 0 to the first one above: nothing was computed between."""
    at = np.flatnonzero((w2[:-1] < 0) & (w2[1:] > 0)) + 1
    return np.insert(w2, at, 0.0), np.insert(values, at, np.nan)


def _shade_regimes(axes: Axes, w2: NDArray[Any], regime: NDArray[Any]) -> None:
    """A band for each stretch of W2, as they lie on the axis, in one regime."""
    for stretch in stretches(regime):
        low, high = _edges(w2, stretch, axes.get_xscale() == "linear")
        axes.axvspan(low, high, color=REGIME_COLOURS[regime[stretch][0]], alpha=0.2, lw=0)


def _w2_axis(axes: Axes, w2: NDArray[Any]) -> NDArray[Any]:
    """Choose the scale of the W2 axis; what to draw on it."""
    axes.set(xlabel="feedback weight $W_2$")
    sizes, ordinary = abs(w2[w2 != 0]), _is_ordinary(w2)
    positive = bool((w2 > 0).all())
    if ordinary and not positive and w2[0] != w2[-1] and sizes.max() < EVEN * np.median(sizes):
        return w2
    if ordinary and (positive or w2[0] != w2[-1]):
        options = {} if positive else {"linthresh": sizes.min(initial=1.0)}
        axes.set_xscale("log" if positive else "symlog", **options)
        if not positive:
            axes.set_xticks(_signed_ticks(options["linthresh"], sizes.max(initial=1.0)))
        return w2
    if positive:
        axes.set(xlabel="log$_{10}$ of the feedback weight $W_2$")
        return np.asarray(np.log10(w2))
    axes.set(xlabel="row, by growing $W_2$")
    return np.arange(len(w2), dtype=float)


def _signed_ticks(least: float, most: float) -> list[float]:
    """0 and powers of ten of both signs, few enough to be read."""
    low, high = math.ceil(math.log10(least) - 1e-9), math.floor(math.log10(most) + 1e-9)
    stride = max(1, -(-(high - low + 1) // MOST_SIGNED_TICKS))
    powers = [10.0**k for k in range(high, low - 1, -stride)]
    return [*(-power for power in powers), 0.0, *reversed(powers)]


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


def _influence_by_lag(axes: Axes, by_lag: dict[str, NDArray[Any]]) -> None:
    """Influence relative to the newest input's, so that all curves start at 1."""
    finite = {label: _finite(log10) for label, log10 in by_lag.items()}
    curves = {label: log10 - log10[:1] for label, log10 in finite.items()}
    _far_scale(axes, list(curves.values()))
    for (label, curve), colour in zip(curves.items(), LINE_COLOURS, strict=False):
        shown = _spread(len(curve), MOST_POINTS)
        axes.plot(shown, curve[shown], color=colour, label=label)
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
    if by_lag:
        axes.legend(loc="best", fontsize="small")


def _spread(count: int, most: int) -> NDArray[Any]:
    """At most so many of the numbers below ``count``, evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    """NaN instead of inf, and nothing past the edge of the picture."""
    return np.where(np.isfinite(values), np.clip(values, -MOST_DECADES, MOST_DECADES), np.nan)
