"""A column of numbers out of delimited text, block by block: by NumPy, or by Arrow where it is.

Both round to the nearest float, so the values are the same. A million numbers take NumPy 0.4 s and
Arrow 0.2; what Arrow cannot read (nA, +1, blank lines in a table) is left to NumPy.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from fastrnn.text import arrow
from fastrnn.text.dialect import NO_SEPARATOR, Dialect, Options, find_dialect
from fastrnn.text.lines import Block, blocks, rows_of

# Lines that are worth the import of pyarrow.
ARROW_FROM = 5_000
_COMMENT = "; comment='#' leaves such lines out (on the command line --comment '#')"
# A decimal comma becomes a point, and a point is no part of a number then.
_SWAPPED = str.maketrans(",.", ".,")


def read_column(
    name: str, lines: Iterable[str], options: Options
) -> tuple[NDArray[np.float64], Dialect]:
    """Values of one column, NaN where it has gaps, and how the text was read."""
    if options.separator == " ":
        lines = (" ".join(line.split()) + "\n" for line in lines)  # one or more
    each = blocks(lines, options.comment)
    first = next(each, None)
    if first is None:
        raise ValueError(f"{name} is empty")
    try:
        dialect = find_dialect(name, first, options)
        rest = itertools.chain([first.after(dialect.begin)], each)
        parts = [_values(name, block, dialect) for block in rest if block.lines]
    except csv.Error as error:
        raise ValueError(f"{name} is not a CSV file: {error}") from None
    return np.concatenate(parts) if parts else np.empty(0), dialect


def _values(name: str, block: Block, dialect: Dialect) -> NDArray[np.float64]:
    """The column's values in a block, by the first parser that can read all of it."""
    if '"' in block.text:
        for _ in rows_of(block, dialect.separator):
            pass  # raises where a quote is not closed, which NumPy accepts
    if not dialect.has_numeric_gaps:
        if len(block.lines) >= ARROW_FROM:
            with suppress(ValueError, ImportError):
                return arrow.values(block.text, dialect)
        if "\n" not in block.lines:
            with suppress(ValueError):
                return _parsed(block.lines, dialect)
    try:
        return _parsed(_with_nan(block.lines, dialect), dialect)
    except ValueError as error:
        raise _located(name, block, dialect) or ValueError(f"{name}: {error}") from None


def _parsed(lines: list[str], dialect: Dialect) -> NDArray[np.float64]:
    separator = dialect.separator
    if dialect.decimal == ",":
        separator = separator.translate(_SWAPPED)
        lines = "".join(lines).translate(_SWAPPED).split("\n")
    # Columns that are not wanted are cut to a character: their number is still checked.
    types = ["f8" if i == dialect.index else "U1" for i in range(len(dialect.names))]
    fields = [(str(i), kind) for i, kind in enumerate(types)]
    table = np.loadtxt(
        lines, dtype=fields, delimiter=separator, comments=None, quotechar='"', ndmin=1
    )
    return np.ascontiguousarray(table[str(dialect.index)])


def _with_nan(lines: list[str], dialect: Dialect) -> list[str]:
    """Lines with ``nan`` in the place of every mark of a gap, and for every blank line."""
    separator = re.escape(dialect.separator)
    marks = "|".join(re.escape(mark) for mark in sorted(dialect.gaps, key=len, reverse=True))
    gap = rf'(^|{separator})[ ]*("?)[ ]*(?:{marks})[ ]*\2[ ]*(?={separator}|$)'
    missing = dialect.separator.join(["nan"] * len(dialect.names)) + "\n"
    # Text that ends in a newline would end in one more line, a gap.
    text = "".join(line if line.strip() else missing for line in lines).removesuffix("\n")
    text = re.sub(gap, r"\1nan", text, flags=re.MULTILINE | re.IGNORECASE)
    return [line + "\n" for line in text.split("\n")]


def _located(name: str, block: Block, dialect: Dialect) -> ValueError | None:
    """What is wrong with the first row that cannot be read."""
    columns, index = len(dialect.names), dialect.index
    for i, row in rows_of(block, dialect.separator):
        where = f"{name}, line {block.numbers[i]}"
        comment = _COMMENT if block.lines[i].startswith("#") else ""
        if row and len(row) != columns:
            return ValueError(f"{where}: expected {columns} cells, got {len(row)}{comment}")
        if row and not dialect.is_gap(row[index]) and not dialect.is_number(row[index]):
            others = [n for i, n in enumerate(dialect.names) if i != index and dialect.numeric[i]]
            hint = comment or _hint(row[index], dialect, others)
            return ValueError(
                f"{where}, column {dialect.names[index]!r}: expected a number, "
                f"got {row[index]!r}{hint}"
            )
    return None


def _hint(cell: str, dialect: Dialect, others: list[str]) -> str:
    if "," in cell and "." in cell:
        return "; write thousands without a mark"
    if "," in cell and dialect.decimal == ".":
        return "; decimal=',' reads a decimal comma (on the command line --decimal ,)"
    if " " in cell and dialect.separator == NO_SEPARATOR:
        return "; separator=' ' divides at blanks (on the command line --separator ' ')"
    if not dialect.numeric[dialect.index] and others:
        return f"; column={others[-1]!r} is one of numbers (on the command line --column)"
    return ""
