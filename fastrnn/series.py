"""Series from a bundled name, a text, Parquet or .npy file or a pipe, or one clear error."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import choice, float_array
from fastrnn.text.column import read_column
from fastrnn.text.dialect import Options
from fastrnn.text.source import NOT_READ, STDIN, open_lines

BUNDLED = ("co2", "elnino", "sunspots")

Fill = Literal["interpolate", "drop"]

_logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    """A series, and in words what was read of which source."""

    values: NDArray[np.float64]
    words: str


def load_series(
    source: str | os.PathLike[str],
    *,
    column: str | None = None,
    fill: Fill | None = None,
    header: bool | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    comment: str | None = None,
    na: str | Iterable[str] = (),
    encoding: str | None = None,
) -> NDArray[np.float64]:
    """Read a series as float64.

    Parameters
    ----------
    source : str or path
        "sunspots" (yearly number, 1700-2008), "co2" (weekly, ppm, 1958-2001), "elnino" (monthly,
        °C, 1950-2010), or a file: delimited text (.csv, .tsv, .txt, also compressed with gzip),
        .parquet (needs ``fastrnn[parquet]``) or .npy; "-" is text from standard input. A Path is
        always a file; "./sunspots" is a file too.
    column : str, optional
        Column of a table, by its name, or from "1" on where there are no names; the last one by
        default.
    fill : {"interpolate", "drop"}, optional
        What to do with gaps (blank lines, empty cells, NaN, NA, null, -, ?, ., #N/A and other
        marks of spreadsheets and data services): draw a line between the neighbours, or leave
        them out. Refused by default.
    header : bool, optional
        Whether the first row of a text names the columns. By default it does where it has text
        above numbers; where it may also be values, as 0 above 0.5, it is refused.
    separator : str, optional
        What divides the cells of a text; found among tab, semicolon, bar and comma by default.
    decimal : {".", ","}, optional
        Decimal mark of a text; found by default, and refused where it may also be a separator.
    comment : str, optional
        Begins a comment that goes to the end of the line; none by default.
    na : str or iterable of str, optional
        More marks of gaps, as "-999".
    encoding : str, optional
        Encoding of a text; UTF-8 by default.

    Returns
    -------
    ndarray, shape (T,), or (B, T) from a .npy file with two axes

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModuleNotFoundError
        If a .parquet file needs pyarrow.
    ValueError
        If the column is unknown, a cell is no number (its line is named), the text can be read in
        two ways (both are named), its encoding or kind is not read, or the series is empty,
        infinite, or has gaps and no ``fill`` was chosen.

    Notes
    -----
    The logger ``fastrnn.series`` says at level INFO how many values were read of which column,
    and which line was taken for the header.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.load_series("sunspots")[:4]
    array([ 5., 11., 16., 23.])
    """
    options = {"header": header, "separator": separator, "decimal": decimal, "comment": comment}
    found = read_series(source, column=column, fill=fill, na=na, encoding=encoding, **options)
    _logger.info(found.words)
    return found.values


def read_series(
    source: str | os.PathLike[str], *, fill: Fill | None, encoding: str | None, **options: Any
) -> Reading:
    """A series with the options of `load_series`, and what was read in words."""
    if fill is not None:
        choice("fill", fill, ("interpolate", "drop"))
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"source must be a name or a path, got {type(source).__name__}")
    wanted = _checked(**options)
    if source == STDIN:
        found = _read_text(None, "standard input", wanted, encoding)
    elif isinstance(source, str) and source in BUNDLED:
        if Path(source).is_file():
            raise ValueError(
                f"series {source!r} is bundled, and also a file in this folder: './{source}' is "
                "the file; for the bundled one, give the file another name"
            )
        _refuse_text_options(f"the bundled series {source}", wanted, encoding)
        with resources.as_file(resources.files("fastrnn") / "data" / f"{source}.csv") as bundled:
            found = _read_text(bundled, f"bundled series {source}", wanted, None)
    else:
        found = _read_file(source, wanted, encoding)
    values, filled = _without_gaps(found.values, fill)
    return Reading(values, found.words + filled)


def _checked(*, na: object, **options: Any) -> Options:
    for name in ("separator", "comment"):
        mark = options[name]
        if mark is not None and not (isinstance(mark, str) and _is_mark(mark, name == "comment")):
            raise ValueError(
                f"{name} must be one character that no number has, as ';', got {mark!r}"
            )
    if options["decimal"] is not None:
        choice("decimal", options["decimal"], (".", ","))
    if options["header"] not in (None, True, False):
        raise TypeError(f"header must be True, False or None, got {options['header']!r}")
    marks = tuple(na) if isinstance(na, Iterable) and not isinstance(na, str) else (na,)
    if not all(isinstance(mark, str) for mark in marks):
        raise TypeError(f"na must be text or several texts, got {na!r}")
    return Options(na=marks, **options)


def _is_mark(text: str, longer: bool) -> bool:
    one = len(text) == 1 or (longer and len(text) > 1)
    return one and not any(letter.isalnum() or letter in '.+-"\r\n' for letter in text)


def _read_file(source: str | os.PathLike[str], wanted: Options, encoding: str | None) -> Reading:
    path = Path(source)
    suffix = path.suffix.lower()
    if "://" in str(source):
        raise ValueError(f"series {str(source)!r}: addresses are not read, download the file first")
    if not path.exists() or path.is_dir():
        what = "a folder, not a file" if path.is_dir() and str(source) else "no such file"
        raise FileNotFoundError(
            f"series {str(source)!r}: {what}, nor one of the bundled {', '.join(BUNDLED)}"
        )
    if suffix in NOT_READ:
        raise ValueError(f"{path.name} is {NOT_READ[suffix]}")
    if suffix not in (".npy", ".parquet"):
        return _read_text(path, path.name, wanted, encoding)
    _refuse_text_options(path.name, wanted, encoding)
    if suffix == ".npy" and wanted.column is not None:
        raise ValueError(f"column is for tables, got {wanted.column!r} for {path.name}")
    return _read_npy(path) if suffix == ".npy" else _read_parquet(path, wanted.column)


def _refuse_text_options(name: str, wanted: Options, encoding: str | None) -> None:
    options = {"header", "separator", "decimal", "comment", "na"}
    given = {option: getattr(wanted, option) for option in sorted(options)}
    for option, value in {**given, "encoding": encoding}.items():
        if value not in (None, ()):
            raise ValueError(f"{option} is for text files, got {value!r} for {name}")


def _read_text(path: Path | None, name: str, wanted: Options, encoding: str | None) -> Reading:
    with open_lines(path, name, encoding) as lines:
        values, dialect = read_column(name, lines, wanted)
    header = "no header" if dialect.header is None else f"header in line {dialect.header}"
    mark = ", decimal comma" if dialect.decimal == "," else ""
    what = _of_column(values, dialect.names, dialect.index)
    return Reading(values, f"{name}: {what}; {header}{mark}")


def _of_column(values: NDArray[Any], names: list[str], index: int) -> str:
    number = f", number {index + 1} of {len(names)}" if len(names) > 1 else ""
    return f"{_count(values.size, 'value')} of column {names[index]!r}{number}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _read_npy(path: Path) -> Reading:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    # The header is parsed as Python, which can fail in as many ways as it can be nested.
    except Exception:
        raise ValueError(f"{path.name} is not a readable .npy array of numbers") from None
    array = float_array(path.name, array)
    if array.ndim not in (1, 2):
        raise ValueError(f"{path.name} must have shape (T,) or (B, T), got {array.shape}")
    return Reading(np.asarray(array, np.float64), f"{path.name}: array of shape {array.shape}")


def _read_parquet(path: Path, column: str | None) -> Reading:
    try:
        from pyarrow import parquet, types
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path.name} needs pyarrow: python -m pip install 'fastrnn[parquet]'", name="pyarrow"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path.name} is not a readable Parquet file: {error}") from None
    with file:
        schema = file.schema_arrow
        index = (schema.pandas_metadata or {}).get("index_columns", [])
        names = [name for name in schema.names if name not in index]
        if not names:
            raise ValueError(f"{path.name} has no columns")
        chosen = names[-1] if column is None else choice("column", column, names)
        kind = schema.field(chosen).type
        if not (types.is_integer(kind) or types.is_floating(kind)):
            raise ValueError(
                f"{path.name}, column {chosen!r}: expected numbers, got {kind}; column= chooses "
                "another one (on the command line --column)"
            )
        values = np.asarray(file.read(columns=[chosen]).column(0).to_numpy(), np.float64)
    return Reading(values, f"{path.name}: {_of_column(values, names, names.index(chosen))}")


def _without_gaps(
    values: NDArray[np.float64], fill: Fill | None
) -> tuple[NDArray[np.float64], str]:
    """Values, and in words what was done about gaps."""
    if values.size == 0:
        raise ValueError("the series is empty")
    if np.isinf(values).any():
        raise ValueError(f"the series must be finite, got {values[np.isinf(values)][0]}")
    gaps = np.isnan(values)
    if not gaps.any():
        return values, ""
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
        return values[~gaps], f"; {_count(gaps.sum(), 'gap')} left out"
    if gaps[0] or gaps[-1]:
        side, neighbour = ("begins", "before") if gaps[0] else ("ends", "after")
        raise ValueError(
            f"fill='interpolate' needs values on both sides of a gap, and the series {side} with "
            f"one, no value {neighbour} it: choose 'drop'"
        )
    time = np.arange(values.size)
    return np.interp(
        time, time[~gaps], values[~gaps]
    ), f"; {_count(gaps.sum(), 'gap')} interpolated"
