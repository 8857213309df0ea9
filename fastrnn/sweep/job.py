"""The values a sweep runs over: W2 from text, and the series cut and normalised."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A longer list is a sign of a slip, as 0.1:10:1e9.
MOST_W2 = 1_000_000


def parse_w2(text: str) -> NDArray[np.float64]:
    """W2 values from a comma list of numbers and of log-spaced ranges LO:HI:N.

    Examples
    --------
    >>> parse_w2("0.01:1:3")
    array([0.01, 0.1 , 1.  ])
    >>> parse_w2("-10:-0.1:3,0,0.5")
    array([-10. ,  -1. ,  -0.1,   0. ,   0.5])
    """
    values, count = [], 0
    for part in text.split(","):
        values.append(_range(part.strip()) if ":" in part else _number(part.strip()))
        count += len(values[-1])
        if count > MOST_W2:
            raise ValueError(f"w2 must have at most {MOST_W2} values, got {count} and more")
    return np.concatenate(values)


def _number(text: str) -> NDArray[np.float64]:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"w2 must be numbers or LO:HI:N, got {text!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"w2 must be finite, got {text!r}")
    return np.array([value])


def _range(text: str) -> NDArray[np.float64]:
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"w2 must be numbers or LO:HI:N, got {text!r}")
    low, high = _number(parts[0])[0], _number(parts[1])[0]
    if not low < high:
        raise ValueError(f"w2 must have LO below HI, got {text!r}")
    if low <= 0 <= high:
        raise ValueError(
            f"w2 must have LO and HI of one sign (log-spaced), got {text!r}: add 0 or the other "
            "sign after a comma"
        )
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", parts[2]) or not 2 <= int(parts[2]) <= MOST_W2:
        raise ValueError(f"w2 must have N from 2 to {MOST_W2} in LO:HI:N, got {text!r}")
    return np.geomspace(low, high, int(parts[2]))


@dataclass(frozen=True, eq=False)
class PreparedSeries:
    """Sequences (B, T + 1): T inputs and, one step later, their T targets."""

    values: NDArray[Any]
    mean: list[float] | None
    std: list[float] | None
    left_out: int
    """Values after the last whole window."""


def prepare(
    series: NDArray[np.float64], *, normalize: bool, window: int | None, dtype: str
) -> PreparedSeries:
    """Normalise each series to mean 0 and standard deviation 1, and cut it into windows."""
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    series = np.atleast_2d(series)
    mean = std = None
    if normalize:
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = series.mean(axis=1), series.std(axis=1)
            wrong = ~(np.isfinite(std) & (std > 0))
            if wrong.any():
                raise ValueError(
                    "the series cannot be normalised, its standard deviation is "
                    f"{std[wrong][0]}: use it as it is (--raw)"
                )
            series = (series - mean[:, None]) / std[:, None]
    steps = series.shape[1] - 1 if window is None else window
    if steps < 1 or series.shape[1] < steps + 1:
        what = "the series" if window is None else f"a window of {window} steps"
        raise ValueError(
            f"{what} needs {max(2, steps + 1)} values, one more than its steps, and the series "
            f"has {series.shape[1]}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(series, steps + 1, axis=1)[:, ::steps]
    used = windows.shape[1] * steps + 1
    with np.errstate(over="ignore"):
        values = windows.reshape(-1, steps + 1).astype(dtype)
    if not np.isfinite(values).all():
        raise ValueError(f"the series must be representable in {dtype}: use float64 or normalise")
    return PreparedSeries(
        values,
        None if mean is None else mean.tolist(),
        None if std is None else std.tolist(),
        series.shape[1] - used,
    )
