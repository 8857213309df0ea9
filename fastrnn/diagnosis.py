"""Diagnosis: what W2 does to memory and gradients, as numbers and in words."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import FloatArray
from fastrnn.equilibria import FixedPoints, fixed_points_of
from fastrnn.exponents import Estimate, error_text
from fastrnn.folds import fold
from fastrnn.forgetting import HORIZON_DECADES, in_words
from fastrnn.rnn import RNN
from fastrnn.scaled import Scaled, already_normal
from fastrnn.sequences import Sequences

LN_10 = math.log(10.0)
# Balanced: over the whole sequence the gradient grows or shrinks by no more than a factor of 10.
BALANCED_DECADES = 1.0
# Saturated: f' below a tenth of its largest value. That is |h| > sqrt(0.9) for tanh, and for a
# sigmoid the same of 2h - 1; a threshold needs none of the digits that 1 - h*h loses.
SATURATED_TANH = math.sqrt(0.9)
SUMMARY_ROWS = 20
# Steps that are written out; more are in scientific form.
MOST_STEPS = 1e7
# Fields that are columns of a table as they are.
COLUMNS = (
    "regime", "decades", "exponent", "exponent_stderr", "exponent_converged", "horizon",
    "horizon_by_exponent", "saturated",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """What `diagnose` found, for every net and sequence.

    Arrays have the axes [K,] [B] of the last state, none for one net and one sequence; some
    have an axis T more. All logarithms stay finite where plain floats would be 0 or inf.

    Attributes
    ----------
    net : RNN
        What was diagnosed.
    steps : int or ndarray, shape [K,] [B]
        Steps of each sequence.
    influence : Scaled, shape [K,] [B,] T [,F]
        Derivative of the last prediction by every input. Of a series that was read block by
        block, this, ``share`` and ``gradient_by_lag`` are of the newest steps alone.
    influence_of_first : Scaled, shape [K,] [B] [,F]
        The same for x_1 alone.
    share : ndarray, shape [K,] [B,] T
        Share of each input in the sum of all absolute influences.
    share_of_first : float or ndarray, shape [K,] [B]
        The same of x_1 alone.
    gradient_by_lag : ndarray, shape [K,] [B,] T
        log10 of the absolute influence of the input ``lag`` steps before the last; -inf where
        nothing arrives, NaN where a sequence has no such lag.
    horizon : float or ndarray, shape [K,] [B]
        Memory horizon in steps: the first lag whose influence is below 1e-3 of the newest
        input's; inf where there is none, 0 where not even the newest input counts, NaN where
        there are no steps.
    exponent : float or ndarray, shape [K,] [B]
        Largest Lyapunov exponent of this run: mean growth per step of a perturbation, and so
        of the gradient, natural logarithm.
    exponent_stderr : float or ndarray, shape [K,] [B]
        Its standard error; see `lyapunov`.
    exponent_converged : bool or ndarray, shape [K,] [B]
        Whether that can be relied on.
    decades : float or ndarray, shape [K,] [B]
        log10 of the influence of x_1 over that of the newest input; decides the regime.
    regime : str or ndarray, shape [K,] [B]
        "vanishing", "balanced" (within one decade either way), "exploding", or "undefined"
        where the states are NaN or there are none.
    saturated : float or ndarray, shape [K,] [B]
        Share of the steps (and units) where f' is below a tenth of its largest value.
    fixed_points : FixedPoints, shape [K,] [B,] 3, or None
        Of a scalar neuron under the mean of each sequence; None for a layer.
    """

    net: RNN
    steps: Any
    influence: Scaled
    influence_of_first: Scaled
    share: Any
    share_of_first: Any
    gradient_by_lag: Any
    horizon: Any
    exponent: Any
    exponent_stderr: Any
    exponent_converged: Any
    decades: Any
    regime: Any
    saturated: Any
    fixed_points: FixedPoints | None

    @property
    def horizon_by_exponent(self) -> Any:
        """Memory horizon that the exponent alone would give, [K,] [B]: ln(1000) over its decay.

        The steps in which a gradient falls to 1e-3 once the run has long gone on; inf from an
        exponent of 0 on. What this sequence does on its last steps is in ``horizon``.
        """
        exponent = np.asarray(self.exponent)
        with np.errstate(divide="ignore"):
            steps = -HORIZON_DECADES * LN_10 / exponent
        return np.where(exponent >= 0, np.inf, steps)[()]

    @property
    def evidence(self) -> Any:
        """What speaks for the regime, in words: str or ndarray of them, [K,] [B]."""
        texts = np.empty(np.shape(self.exponent), object)
        for index in np.ndindex(texts.shape):
            texts[index] = self._evidence(index)
        return texts[()]

    def to_columns(self) -> dict[str, NDArray[Any]]:
        """A row for every net and sequence, as columns.

        Returns
        -------
        dict of str to ndarray, shape (K B,)
            What pandas.DataFrame and polars.DataFrame take.

        Examples
        --------
        >>> import fastrnn
        >>> bank = fastrnn.RNN(w1=1.0, w2=[0.1, 2.0], activation="identity")
        >>> columns = fastrnn.diagnose(bank, [1.0] * 5).to_columns()
        >>> columns["w2"], columns["regime"]
        (array([0.1, 2. ]), array(['vanishing', 'exploding'], dtype='<U9'))
        """
        shape = np.shape(self.exponent)
        whole = (self.net.bank_size, int(np.prod(shape)) // self.net.bank_size)
        net, sequence = np.indices(whole)
        columns = {"net": net.ravel(), "sequence": sequence.ravel()}
        if self.net.is_neuron:
            for name in ("w1", "w2", "b"):
                weight = np.reshape(getattr(self.net, name), (-1, 1))
                columns[name] = np.broadcast_to(weight, whole).ravel()
        first = self.influence_of_first
        # Of several inputs, the norm.
        several = first.ndim > len(shape)
        columns["influence_log10"] = log10_norm(first) if several else first.log10()
        columns["influence_sign"] = np.full(shape, np.nan) if several else first.sign
        for name in COLUMNS:
            columns[name] = getattr(self, name)
        if self.fixed_points is not None:
            columns["fixed_points"] = self.fixed_points.count
            columns["stable_fixed_points"] = self.fixed_points.stable.sum(axis=-1)
        return {name: np.array(np.ravel(column)) for name, column in columns.items()}

    def summary(self) -> str:
        """The findings in words: a paragraph for one sequence, a line each for many."""
        if np.ndim(self.exponent) == 0:
            return self._paragraph()
        return self._table()

    def plot(self, ax: Any = None) -> Any:
        """Picture of the findings; needs matplotlib.

        For one sequence how much of each input reaches the last prediction, for a bank of
        neurons the exponent against W2, for anything else the gradient by lag.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            ``.figure.savefig(path)`` writes it.
        """
        from fastrnn import plot

        if np.ndim(self.exponent) == 0:
            return plot.unrolled_influence(self, ax=ax)
        if self.net.is_neuron and self.net.is_bank:
            return plot.exponent_against_w2(self, ax=ax)
        return plot.gradient_by_lag(self, ax=ax)

    def __repr__(self) -> str:
        shape = np.shape(self.exponent)
        what = f"{shape} of them" if shape else self.regime
        return f"Diagnosis({what}; .summary() tells more)"

    def _repr_html_(self) -> str:
        columns = self.to_columns()
        count = len(columns["net"])
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        rows = [
            "".join(f"<td>{html.escape(_cell(column[n]))}</td>" for column in columns.values())
            for n in range(min(count, SUMMARY_ROWS))
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        rest = f"<p>... and {count - SUMMARY_ROWS} more</p>" if count > SUMMARY_ROWS else ""
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"{rest}<p>{html.escape(repr(self.net))}</p>"
        )

    def _steps(self, index: tuple[int, ...] = ()) -> int:
        return int(np.asarray(self.steps)[index])

    def _paragraph(self) -> str:
        steps = self._steps()
        if steps == 0:
            return f"regime            {self.regime}: no steps"
        exponent = error_text(self.exponent, self.exponent_stderr, self.exponent_converged)
        lines = [
            f"regime            {self.regime}: x_1 counts 10^{self.decades:.4g} times x_{steps}",
            f"growth per step   10^{self.exponent / LN_10:.4g} (exponent {exponent})",
        ]
        if self.influence_of_first.ndim == 0:
            lines.append(f"influence of x_1  {self.influence_of_first:.3e}{self._percent()}")
        lines += [
            f"share of x_1      {self.share_of_first:.3g}",
            f"memory horizon    {lag_text(self.horizon)} of {steps} steps "
            f"(by the exponent {lag_text(self.horizon_by_exponent)})",
            f"saturated steps   {self.saturated:.1%}",
        ]
        if self.fixed_points is not None:
            lines.append(f"fixed points      {self._fixed_points_text()}")
        return "\n".join(lines)

    def _fixed_points_text(self) -> str:
        points = self.fixed_points
        if points is None or not points.count:
            return "none under the mean input"
        if points.continuum:
            states = "every state" if self.net.activation == "identity" else "every state from 0 on"
            return f"{states} (under the mean input)"
        pairs = zip(points.h, points.stable, strict=True)
        words = [f"{h:.4g} {'stable' if s else 'unstable'}" for h, s in pairs if not math.isnan(h)]
        return ", ".join(words) + " (under the mean input)"

    def _evidence(self, index: tuple[int, ...]) -> str:
        regime, exponent = np.asarray(self.regime)[index], np.asarray(self.exponent)[index]
        if regime == "undefined":
            return "the states are NaN, or there are no steps"
        steps, stderr = self._steps(index), np.asarray(self.exponent_stderr)[index]
        decades = np.asarray(self.decades)[index]
        limit = {"vanishing": "below", "balanced": "within", "exploding": "above"}[str(regime)]
        bounds = {"below": "10^-1", "within": "10^-1 to 10^1", "above": "10^1"}[limit]
        text = f"x_1 counts 10^{decades:.4g} times x_{steps}, {limit} {bounds}; the exponent is "
        text += error_text(exponent, stderr, bool(np.asarray(self.exponent_converged)[index]))
        if stderr > 0:
            side = "above" if exponent > 0 else "below"
            text += f", {abs(exponent) / stderr:.2g} standard errors {side} 0"
        return f"{text}; {np.asarray(self.saturated)[index]:.1%} of the steps are saturated"

    def _percent(self) -> str:
        value = abs(float(self.influence_of_first.to_float()))
        return f" ({100 * value:.4g} %)" if 1e-9 <= value <= 1 else ""

    def _table(self) -> str:
        index = list(np.ndindex(np.shape(self.exponent)))
        of_w2 = self.net.is_neuron and self.net.is_bank
        of_w2 = of_w2 and len(np.unique(self.net.w2)) == self.net.bank_size
        lines = [
            f"{'W2' if of_w2 else '':>10} {'regime':>10} {'exponent':>10} {'± stderr':>9} "
            f"{'horizon':>8} {'saturated':>9}"
        ]

        def name(i: tuple[int, ...]) -> str:
            first = f"{self.net.w2.ravel()[i[0]]:.4g}" if of_w2 else f"{i[0]}"
            return ",".join([first, *map(str, i[1:])])

        lines += [
            f"{name(i):>10} {self.regime[i]:>10} {self.exponent[i]:>10.4g} "
            f"{self.exponent_stderr[i]:>9.1e} {lag_text(self.horizon[i]):>8} "
            f"{self.saturated[i]:>9.1%}"
            for i in index[:SUMMARY_ROWS]
        ]
        if len(index) > SUMMARY_ROWS:
            lines.append(f"... and {len(index) - SUMMARY_ROWS} more")
        if of_w2 and index:
            exponent, stderr = (
                np.reshape(a, (self.net.bank_size, -1))
                for a in (self.exponent, self.exponent_stderr)
            )
            chosen = median_sequence(exponent)
            slowest = in_words(self.net.w2.ravel(), exponent[chosen], stderr[chosen])
            lines += ["", slowest] if slowest else []
        return "\n".join(lines)


def median_sequence(exponent: FloatArray) -> tuple[NDArray[Any], NDArray[Any]]:
    """Index (K,), (K,) of each net's sequence whose exponent (K, B) is the (lower) median."""
    order = np.argsort(exponent, axis=1, kind="stable")
    return np.arange(len(order)), order[:, (exponent.shape[1] - 1) // 2]


class Findings(NamedTuple):
    """What a diagnosis is made of, with all axes."""

    influence: Scaled  # (K, B, T, F)
    first: Scaled  # (K, B, F)
    share: FloatArray  # (K, B, T)
    first_share: FloatArray  # (K, B)
    by_lag: FloatArray  # (K, B, T)
    horizon: FloatArray  # (K, B)
    decades: FloatArray  # (K, B)
    growth: Estimate  # (K, B, 1)
    saturated: FloatArray  # (K, B)
    mean: FloatArray | None  # (B,) of the inputs of a neuron


def diagnosis(job: Sequences, by_x: Scaled, states: FloatArray, growth: Estimate) -> Diagnosis:
    """Diagnosis from the influences of x (K, B, T, F), the states and the largest exponent."""
    magnitude = log10_norm(by_x)
    by_lag = _newest_first(magnitude, job.lengths)
    share = _share(magnitude)
    with np.errstate(invalid="ignore", divide="ignore"):
        decades = _decades(by_lag, job.lengths)
    found = Findings(
        influence=by_x,
        first=by_x[:, :, 0] if job.x.shape[1] else by_x.sum(axis=2),
        share=share,
        first_share=share[..., 0] if job.x.shape[1] else fold(share, 2),
        by_lag=by_lag,
        horizon=_horizon(by_lag),
        decades=decades,
        growth=growth,
        saturated=saturated_steps(job, states) / np.maximum(1, job.lengths * job.net.hidden_size),
        mean=_mean_inputs(job) if job.net.is_neuron else None,
    )
    return assembled(job, found, job.lengths)


def assembled(job: Sequences, found: Findings, lengths: NDArray[np.int64]) -> Diagnosis:
    """The diagnosis as the caller sees it, of sequences of some lengths (B,)."""
    return Diagnosis(
        net=job.net,
        steps=job.visible(np.broadcast_to(lengths, job.size("KB")), "KB"),
        influence=job.visible(found.influence, "KBTX"),
        influence_of_first=job.visible(found.first, "KBX"),
        share=job.visible(found.share, "KBT"),
        share_of_first=job.visible(found.first_share, "KB"),
        gradient_by_lag=job.visible(found.by_lag, "KBT"),
        horizon=job.visible(found.horizon, "KB"),
        exponent=job.visible(found.growth.mean[..., 0], "KB"),
        exponent_stderr=job.visible(found.growth.stderr[..., 0], "KB"),
        exponent_converged=job.visible(found.growth.reliable[..., 0], "KB"),
        decades=job.visible(found.decades, "KB"),
        regime=_plain(job.visible(regimes(found.decades), "KB")),
        saturated=job.visible(found.saturated, "KB"),
        fixed_points=None if found.mean is None else _fixed_points(job, found.mean),
    )


def joined(net: RNN, parts: Sequence[Diagnosis]) -> Diagnosis:
    """The diagnosis of a bank from those of its parts, which are banks too."""

    def whole(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Scaled):
            pairs = ([v.mantissa for v in values], [v.exponent for v in values])
            return already_normal(*(np.concatenate(pair) for pair in pairs))
        if isinstance(values[0], FixedPoints):
            names = [field.name for field in fields(FixedPoints)]
            return FixedPoints(*(whole([getattr(v, name) for v in values]) for name in names))
        return np.concatenate(values)

    names = [field.name for field in fields(Diagnosis) if field.name != "net"]
    return Diagnosis(net=net, **{name: whole([getattr(p, name) for p in parts]) for name in names})


def _mean_inputs(job: Sequences) -> FloatArray:
    """Of each sequence (B,) of a neuron, within its length."""
    within = np.arange(job.x.shape[1]) < job.lengths[:, None]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = fold(np.where(within, job.x[..., 0].astype(np.float64), 0.0), 1)
        return np.asarray(total / job.lengths)


def _fixed_points(job: Sequences, mean: FloatArray) -> FixedPoints:
    """Under the mean (B,) of each sequence; of one without a finite mean there are none."""
    w1, w2, b = (np.reshape(w, (-1, 1)).astype(np.float64) for w in job.weights[:3])
    with np.errstate(invalid="ignore", over="ignore"):
        a = w1 * mean + b
    known = np.isfinite(a)
    found = fixed_points_of(
        job.net.activation, np.where(known, a, 0.0), np.broadcast_to(w2, a.shape)
    )
    own = known[..., None]
    h, multiplier = (np.where(own, v, np.nan) for v in (found.h, found.multiplier))
    arrays = (
        job.visible(v, "KB") for v in (h, multiplier, found.stable & own, found.continuum & known)
    )
    return FixedPoints(*arrays)


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)


def stretches(regime: NDArray[np.str_]) -> list[slice]:
    """Runs of neighbours in the same regime."""
    change = np.flatnonzero(regime[1:] != regime[:-1]) + 1
    edges = [0, *(int(i) for i in change), len(regime)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def lag_text(lag: float) -> str:
    """A lag in words."""
    if math.isinf(lag):
        return "all"
    return f"{lag:.0f}" if abs(lag) < MOST_STEPS or math.isnan(lag) else f"{lag:.3g}"


def regimes(decades: FloatArray) -> NDArray[np.str_]:
    """Regime of a gradient that grows by so many decades over a sequence."""
    cases = {
        "vanishing": decades < -BALANCED_DECADES,
        "balanced": abs(decades) <= BALANCED_DECADES,
        "exploding": decades > BALANCED_DECADES,
    }
    return np.select(list(cases.values()), list(cases), "undefined")


def log10_norm(vector: Scaled) -> FloatArray:
    """log10 of the Euclidean norm over the last axis; -inf for 0."""
    log10 = np.asarray(vector.log10())
    top = np.max(log10, axis=-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(all="ignore"):
        rest = np.log10(fold(10.0 ** (2 * (log10 - top)), -1))
    return np.asarray(top[..., 0] + rest / 2)


def _newest_first(magnitude: FloatArray, lengths: NDArray[np.int64]) -> FloatArray:
    """(K, B, T) by time to (K, B, T) by lag behind each sequence's last step, NaN past it."""
    time = lengths[:, None] - 1 - np.arange(magnitude.shape[-1])
    by_lag = np.take_along_axis(magnitude, np.maximum(time, 0)[None], axis=-1)
    return np.where(time < 0, np.nan, by_lag)


def _decades(by_lag: FloatArray, lengths: NDArray[np.int64]) -> FloatArray:
    """log10 of the first input's influence over the newest's; -inf where neither has any."""
    if by_lag.shape[-1] == 0:
        return np.full(by_lag.shape[:-1], np.nan)
    newest = by_lag[..., 0]
    oldest = np.take_along_axis(by_lag, np.maximum(lengths - 1, 0)[None, :, None], axis=-1)[..., 0]
    return np.where(np.isneginf(newest), -np.inf, oldest - newest)


def _horizon(by_lag: FloatArray) -> FloatArray:
    """First lag at least three decades below lag 0; 0 where not even the newest input counts."""
    if by_lag.shape[-1] == 0:
        return np.full(by_lag.shape[:-1], np.nan)
    newest = by_lag[..., :1]
    below = by_lag < newest - HORIZON_DECADES
    horizon = np.where(below.any(axis=-1), below.argmax(axis=-1), np.inf)
    horizon = np.where(np.isneginf(newest[..., 0]), 0.0, horizon)
    return np.where(np.isnan(by_lag).all(axis=-1) | np.isnan(newest[..., 0]), np.nan, horizon)


def _share(magnitude: FloatArray) -> FloatArray:
    top = np.max(magnitude, axis=-1, keepdims=True, initial=-np.inf)
    with np.errstate(all="ignore"):
        weight = 10.0 ** (magnitude - np.where(np.isneginf(top), 0.0, top))
    total = fold(weight, -1)[..., None]
    return np.asarray(weight / np.where(total == 0, 1.0, total))


def saturated_steps(job: Sequences, states: FloatArray) -> FloatArray:
    """Number (K, B) of steps and units, within the lengths, where f' has all but gone."""
    activation = job.net.activation
    if activation == "tanh":
        flat = abs(states) > SATURATED_TANH
    elif activation == "sigmoid":
        flat = abs(2 * states - 1) > SATURATED_TANH
    else:
        flat = (states == 0) & (activation == "relu")
    within = np.arange(states.shape[2]) < job.lengths[:, None]
    return np.asarray((flat & within[None, :, :, None]).sum(axis=(2, 3)))


def _plain(value: Any) -> Any:
    """A str for a single one."""
    return str(value) if np.ndim(value) == 0 else value
