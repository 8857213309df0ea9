"""Series from a bundled name, a CSV or a .npy file, or one clear error."""

from __future__ import annotations

import csv
import math
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import choice, float_array

BUNDLED = ("co2", "elnino", "sunspots")
# Cells that say "no value here", in any case.
GAPS = frozenset({"", "na", "nan", "n/a", "null", "none", "-", "?"})

SEPARATORS = ",;\t"

Fill = Literal["interpolate", "drop"]


def load_series(
    source: str | Path, *, column: str | None = None, fill: Fill | None = None
) -> NDArray[np.float64]:
    """Read a series as float64.

    Parameters
    ----------
    source : str or Path
        "sunspots" (yearly number, 1700-2008), "co2" (weekly, ppm, 1958-2001), "elnino"
        (monthly, °C, 1950-2010), or the path of a .csv or .npy file.
    column : str, optional
        Column of a CSV (separated by comma, semicolon or tab), by its name; the last one by
        default.
    fill : {"interpolate", "drop"}, optional
        What to do with gaps (empty cells or NaN): draw a line between the neighbours, or leave
        them out. Refused by default.

    Returns
    -------
    ndarray, shape (T,), or (B, T) from a .npy file with two axes

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the column is unknown, a cell is no number (its line is named), or the series is
        empty, infinite, or has gaps and no ``fill`` was chosen.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.load_series("sunspots")[:4]
    array([ 5., 11., 16., 23.])
    """
    if fill is not None:
        choice("fill", fill, ("interpolate", "drop"))
    path = Path(source)
    if str(source) in BUNDLED:
        with resources.as_file(resources.files("fastrnn") / "data" / f"{source}.csv") as bundled:
            values = _read_csv(bundled, column)
    elif not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "no such file"
        raise FileNotFoundError(
            f"series {str(source)!r}: {what}, nor one of the bundled {', '.join(BUNDLED)}"
        )
    elif path.suffix.lower() == ".npz":
        raise ValueError(f"{path.name} must be a .csv or .npy file: save one array with numpy.save")
    elif path.suffix.lower() == ".npy":
        if column is not None:
            raise ValueError(f"column is for CSV files, got {column!r} for {path.name}")
        values = _read_npy(path)
    else:
        values = _read_csv(path, column)
    return _without_gaps(values, fill)


def _read_csv(path: Path, column: str | None) -> NDArray[np.float64]:
    try:
        rows = _rows(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name} is not a CSV file: {error}") from None
    if not rows:
        raise ValueError(f"{path.name} is empty")
    header = [cell.strip() for cell in rows[0][1]]
    if all(_is_number(cell) or cell.lower() in GAPS for cell in header):
        header = [str(number) for number in range(1, len(header) + 1)]
    else:
        rows = rows[1:]
    name = header[-1] if column is None else choice("column", column, header)
    index = len(header) - 1 if column is None else header.index(name)
    if column is not None and header.count(name) > 1:
        raise ValueError(f"{path.name} has {header.count(name)} columns {name!r}")
    values = []
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"{path.name}, line {line}: expected {len(header)} cells, got {len(row)}"
            )
        cell = row[index].strip()
        if cell.lower() not in GAPS and not _is_number(cell):
            raise ValueError(
                f"{path.name}, line {line}, column {name!r}: expected a number, got {cell!r}"
            )
        values.append(math.nan if cell.lower() in GAPS else float(cell))
    return np.array(values)


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Cells of every row that is not blank, with the line it ends in."""
    lines = text.splitlines(keepends=True)
    separator = max(SEPARATORS, key=lines[0].count) if lines else SEPARATORS[0]
    reader = csv.reader(lines, delimiter=separator, strict=True)
    return [(reader.line_num, row) for row in reader if row]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_npy(path: Path) -> NDArray[np.float64]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise ValueError(f"{path.name} is not a readable .npy array of numbers") from None
    array = float_array(path.name, array)
    if array.ndim not in (1, 2):
        raise ValueError(f"{path.name} must have shape (T,) or (B, T), got {array.shape}")
    return np.asarray(array, np.float64)


def _without_gaps(values: NDArray[np.float64], fill: Fill | None) -> NDArray[np.float64]:
    if values.size == 0:
        raise ValueError("the series is empty")
    if np.isinf(values).any():
        raise ValueError(f"the series must be finite, got {values[np.isinf(values)][0]}")
    gaps = np.isnan(values)
    if not gaps.any():
        return values
    if gaps.all():
        raise ValueError("the series has no values, only gaps")
    if fill is None:
        raise ValueError(
            f"the series has gaps, {gaps.sum()} in {values.size} values: choose fill= (on the "
            "command line --fill) 'interpolate' (a line between the neighbours) or 'drop'"
        )
    if values.ndim == 2:
        raise ValueError("fill is for a single series; gaps in a (B, T) array must be filled first")
    if fill == "drop":
        return values[~gaps]
    time = np.arange(values.size)
    return np.interp(time, time[~gaps], values[~gaps])
