"""Diagnosis: what W2 does to memory and gradients, as numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import FloatArray
from fastrnn.scaled import Scaled
from fastrnn.sequences import Sequences

LN_10 = math.log(10.0)
# The memory horizon is where an input's influence falls below this share of the newest one's.
HORIZON_DECADES = 3.0
# Balanced: over the whole sequence the gradient grows or shrinks by no more than a factor of 10.
BALANCED_DECADES = 1.0
# Saturated: f' below a tenth of its largest value. That is |h| > sqrt(0.9) for tanh, and for a
# sigmoid the same of 2h - 1; a threshold needs none of the digits that 1 - h*h loses.
SATURATED_TANH = math.sqrt(0.9)
SUMMARY_ROWS = 20


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """What `diagnose` found, for every net and sequence.

    Arrays have the axes [K,] [B] of the last state, none for one net and one sequence; some
    have an axis T more. All logarithms stay finite where plain floats would be 0 or inf.

    Attributes
    ----------
    influence : Scaled, shape [K,] [B,] T [,F]
        Derivative of the last prediction by every input.
    influence_of_first : Scaled, shape [K,] [B] [,F]
        The same for x_1 alone.
    share : ndarray, shape [K,] [B,] T
        Share of each input in the sum of all absolute influences.
    gradient_by_lag : ndarray, shape [K,] [B,] T
        log10 of the absolute influence of the input ``lag`` steps before the last; -inf where
        nothing arrives, NaN where a sequence has no such lag.
    horizon : float or ndarray, shape [K,] [B]
        Memory horizon: the first lag whose influence is below 1e-3 of the newest input's; inf
        where there is none, 0 where not even the newest input counts.
    exponent : float or ndarray, shape [K,] [B]
        Mean growth of the gradient per step, natural logarithm: the largest Lyapunov exponent
        of this run.
    decades : float or ndarray, shape [K,] [B]
        log10 of the influence of x_1 over that of the newest input; decides the regime.
    regime : str or ndarray, shape [K,] [B]
        "vanishing", "balanced" (within one decade either way), "exploding", or "undefined"
        where the states are NaN or there are none.
    saturated : float or ndarray, shape [K,] [B]
        Share of the steps (and units) where f' is below a tenth of its largest value.
    """

    influence: Scaled
    influence_of_first: Scaled
    share: Any
    gradient_by_lag: Any
    horizon: Any
    exponent: Any
    decades: Any
    regime: Any
    saturated: Any

    def summary(self) -> str:
        """The findings in words: a paragraph for one sequence, a line each for many."""
        if np.ndim(self.exponent) == 0:
            return self._paragraph()
        return self._table()

    def __repr__(self) -> str:
        shape = np.shape(self.exponent)
        what = f"{shape} of them" if shape else self.regime
        return f"Diagnosis({what}; .summary() tells more)"

    def _paragraph(self) -> str:
        steps = int((~np.isnan(self.gradient_by_lag)).sum()) or np.size(self.gradient_by_lag)
        if steps == 0:
            return f"regime            {self.regime}: no steps"
        lines = [
            f"regime            {self.regime}: x_1 counts 10^{self.decades:.4g} times x_{steps}",
            f"growth per step   10^{self.exponent / LN_10:.4g} (exponent {self.exponent:.6g})",
        ]
        if self.influence_of_first.ndim == 0:
            lines.append(f"influence of x_1  {self.influence_of_first:.3e}{self._percent()}")
        lines += [
            f"share of x_1      {self.share[0]:.3g}",
            f"memory horizon    {lag_text(self.horizon)} of {steps} steps",
            f"saturated steps   {self.saturated:.1%}",
        ]
        return "\n".join(lines)

    def _percent(self) -> str:
        value = abs(float(self.influence_of_first.to_float()))
        return f" ({100 * value:.4g} %)" if 1e-9 <= value <= 1 else ""

    def _table(self) -> str:
        index = list(np.ndindex(np.shape(self.exponent)))
        lines = [f"{'':>10} {'regime':>10} {'exponent':>10} {'horizon':>8} {'saturated':>9}"]
        lines += [
            f"{','.join(map(str, i)):>10} {self.regime[i]:>10} {self.exponent[i]:>10.4g} "
            f"{lag_text(self.horizon[i]):>8} {self.saturated[i]:>9.1%}"
            for i in index[:SUMMARY_ROWS]
        ]
        if len(index) > SUMMARY_ROWS:
            lines.append(f"... and {len(index) - SUMMARY_ROWS} more")
        return "\n".join(lines)


def diagnosis(
    job: Sequences, seed: FloatArray, by_x: Scaled, by_h0: Scaled, states: FloatArray
) -> Diagnosis:
    """Diagnosis from the influences of x (K, B, T, F) and h_0 (K, B, H) and the states."""
    lengths = np.broadcast_to(job.lengths, job.size("KB"))
    magnitude = log10_norm(by_x)
    by_lag = _newest_first(magnitude, job.lengths)
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = log10_norm(by_h0) - log10_norm(Scaled(seed))[:, None]
        per_step = np.where(lengths > 0, growth / lengths, np.nan)
        decades = _decades(by_lag, job.lengths)
    influence = job.visible(by_x, "KBTX")
    time = -1 if "X" in job.absent else -2
    beginning = (Ellipsis, 0) if time == -1 else (Ellipsis, 0, slice(None))
    return Diagnosis(
        influence=influence,
        influence_of_first=influence[beginning] if job.x.shape[1] else influence.sum(axis=time),
        share=job.visible(_share(magnitude), "KBT"),
        gradient_by_lag=job.visible(by_lag, "KBT"),
        horizon=job.visible(_horizon(by_lag), "KB"),
        exponent=job.visible(per_step * LN_10, "KB"),
        decades=job.visible(decades, "KB"),
        regime=_plain(job.visible(_regime(decades), "KB")),
        saturated=job.visible(_saturated(job, states), "KB"),
    )


def lag_text(lag: float) -> str:
    """A lag in words."""
    return "all" if math.isinf(lag) else f"{lag:.0f}"


def _regime(decades: FloatArray) -> NDArray[np.str_]:
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
    with np.errstate(divide="ignore"):
        rest = np.log10((10.0 ** (2 * (log10 - top))).sum(axis=-1))
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
        return np.zeros(by_lag.shape[:-1])
    newest = by_lag[..., :1]
    below = by_lag < newest - HORIZON_DECADES
    horizon = np.where(below.any(axis=-1), below.argmax(axis=-1), np.inf)
    horizon = np.where(np.isneginf(newest[..., 0]), 0.0, horizon)
    return np.where(np.isnan(by_lag).all(axis=-1) | np.isnan(newest[..., 0]), np.nan, horizon)


def _share(magnitude: FloatArray) -> FloatArray:
    top = np.max(magnitude, axis=-1, keepdims=True, initial=-np.inf)
    weight = 10.0 ** (magnitude - np.where(np.isneginf(top), 0.0, top))
    total = weight.sum(axis=-1, keepdims=True)
    return np.asarray(weight / np.where(total == 0, 1.0, total))


def _saturated(job: Sequences, states: FloatArray) -> FloatArray:
    """Share of the steps and units within the sequences' lengths where f' has all but gone."""
    activation = job.net.activation
    if activation == "tanh":
        flat = abs(states) > SATURATED_TANH
    elif activation == "sigmoid":
        flat = abs(2 * states - 1) > SATURATED_TANH
    else:
        flat = (states == 0) & (activation == "relu")
    within = np.arange(states.shape[2]) < job.lengths[:, None]
    count = np.maximum(1, job.lengths * job.net.hidden_size)
    return np.asarray((flat & within[None, :, :, None]).sum(axis=(2, 3)) / count)


def _plain(value: Any) -> Any:
    """A str for a single one."""
    return str(value) if np.ndim(value) == 0 else value
