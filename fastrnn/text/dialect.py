"""How delimited text is to be read: its separator, header, column and decimal mark.

Two readings of the same text are never settled by a guess: what remains ambiguous is refused, with
both readings and the options that choose between them.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fastrnn.checks import choice
from fastrnn.text.lines import Block, rows_of

# Cells that hold no value, in any case: of spreadsheets, R, pandas, FRED (.), the World Bank (..).
GAPS = (
    "", "na", "nan", "-nan", "n/a", "#n/a", "#n/a n/a", "#na", "<na>", "nat", "null", "none", "nil",
    "-", "--", "?", ".", "..", "#div/0!", "#null!", "#num!", "#ref!", "#value!", "#name?",
    "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan",
)  # fmt: skip
# By precedence: a comma may also be a decimal mark.
SEPARATORS = ("\t", ";", "|", ",")
# The separator of text that has none: "unit separator", which no text file of numbers holds.
NO_SEPARATOR = "\x1f"
# Rows that are looked at before the rest is read.
SAMPLE = 100

# Longer ones are no labels, nor quickly turned into integers.
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|infinity)", re.ASCII | re.IGNORECASE
)
_WITH_COMMA = re.compile(r"[+-]?\d*,\d+(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_PERHAPS_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_PERHAPS_ONE_NUMBER = re.compile(r"\s*[+-]?\d+,\d+\s*", re.ASCII)


@dataclass(frozen=True)
class Options:
    """What a caller says about a text; None where the text is to show it."""

    column: str | None = None
    header: bool | None = None
    separator: str | None = None
    decimal: str | None = None
    comment: str | None = None
    na: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """How one text is read."""

    separator: str
    decimal: str
    header: int | None
    """The line of the header."""
    names: list[str]
    numeric: list[bool]
    """Which columns begin with numbers."""
    index: int
    """The column that is read."""
    begin: int
    """Index of the first line of values in the first block."""
    gaps: frozenset[str]

    @property
    def has_numeric_gaps(self) -> bool:
        """Whether a number, as -999, marks a gap."""
        return any(self.is_number(mark) for mark in self.gaps)

    def is_gap(self, cell: str) -> bool:
        """Whether a cell holds no value."""
        return cell.strip().lower() in self.gaps

    def is_number(self, cell: str) -> bool:
        """Whether a cell is a number with this decimal mark."""
        cell = cell.strip()
        return not (self.decimal == "," and "." in cell) and is_number(cell, self.decimal)


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether a cell is a number."""
    return bool(_NUMBER.fullmatch(cell.replace(decimal, ".")))


def find_dialect(name: str, block: Block, options: Options) -> Dialect:
    """The one reading of a text that begins with ``block``."""
    gaps = frozenset(GAPS) | {mark.strip().lower() for mark in options.na}
    separator = options.separator or _separator(name, block, options, gaps)
    every = rows_of(block, separator)
    start, first = next((index, cells) for index, cells in every if cells)
    after, *body = list(itertools.islice(every, SAMPLE)) or [(len(block.lines), [])]
    columns = [
        _Column(cell, [row[i] for _, row in (after, *body) if _is_full(row, first, i, gaps)], gaps)
        for i, cell in enumerate(first)
    ]
    header = options.header
    if header is None:
        header = _has_header(f"{name}, line {block.numbers[start]}", columns)
    if not header and options.column is None:
        _refuse_wide(name, columns)
    names = first if header else [str(number) for number in range(1, len(first) + 1)]
    index = _index(name, names, columns, options.column)
    cells = columns[index].body if header else [first[index], *columns[index].body]
    return Dialect(
        separator=separator,
        decimal=options.decimal or _decimal(name, cells),
        header=block.numbers[start] if header else None,
        names=names,
        numeric=[column.numbers for column in columns],
        index=index,
        # Without a header, blank lines before the first number are gaps.
        begin=after[0] if header else 0,
        gaps=gaps,
    )


def _is_full(row: Sequence[str], first: Sequence[str], index: int, gaps: frozenset[str]) -> bool:
    return len(row) == len(first) and row[index].lower() not in gaps


def _separator(name: str, block: Block, options: Options, gaps: frozenset[str]) -> str:
    """What divides every row into the same number of cells, above one."""
    block = Block([line for line in block.lines[:SAMPLE] if line.strip()], range(SAMPLE))
    for separator in SEPARATORS:
        rows = _rows(block, separator)
        counts = {len(row) for row in rows}
        if len(counts) == 1 and counts.pop() > 1:
            if separator != "," or _commas_separate(name, block.lines, rows, options.decimal):
                return separator
    first, *cells = [row[0] for row in _rows(block, NO_SEPARATOR)] or [""]
    title = not any(separator in first for separator in SEPARATORS)
    if (title or _either(first)) and all(_either(cell) or cell.lower() in gaps for cell in cells):
        return NO_SEPARATOR
    # No row would do: the first sets the number of cells, and the row that differs is named.
    found = max(SEPARATORS, key=block.lines[0].count)
    return found if found in block.lines[0] else NO_SEPARATOR


def _rows(block: Block, separator: str) -> list[list[str]]:
    rows = []
    with suppress(csv.Error):  # the last row may be cut within quotes
        for _, cells in rows_of(block, separator):
            rows.append(cells)
    return rows


def _commas_separate(
    name: str, lines: Sequence[str], rows: Sequence[Sequence[str]], decimal: str | None
) -> bool:
    """Whether commas that divide rows are separators, no decimal marks."""
    if decimal == ",":
        return any("," in cell for row in rows for cell in row)  # those are in quotes
    if decimal is None:
        _refuse_decimal_comma(name, lines)
    return True


def _refuse_decimal_comma(name: str, lines: Sequence[str]) -> None:
    if all(_PERHAPS_ONE_NUMBER.fullmatch(line) for line in lines):
        text = lines[0].strip()
        before, after = text.split(",")
        raise ValueError(
            f"{name}: {text!r} may be {before}.{after} with a decimal comma, or {before} and "
            f"{after} in two columns: choose decimal=',' or separator=',' (on the command line "
            "--decimal , or --separator ,)"
        )


@dataclass(frozen=True)
class _Column:
    """The first cell of a column, and the next ones that are no gaps."""

    first: str
    body: list[str]
    gaps: frozenset[str]

    @property
    def numbers(self) -> bool:
        """Whether the column holds numbers, below its first cell."""
        return bool(self.body) and _either(self.body[0])

    def begins_with(self, kind: Callable[[str], object]) -> bool:
        return self.first.lower() not in self.gaps and bool(kind(self.first))

    def says_header(self) -> bool:
        """Text above numbers, or above dates that it does not look like."""
        if not self.begins_with(lambda cell: not _either(cell)):
            return False
        return not self.body or self.numbers or (self._dated() and not self._goes_on())

    def says_data(self) -> bool:
        """A number that is no label, as 1.5, or the same kind of text, as another date."""
        if self.begins_with(_either):
            return self.numbers and not _WHOLE.fullmatch(self.first)
        return bool(self.body) and self._dated() and self._goes_on()

    def says_nothing(self) -> bool:
        """Words above words."""
        return self.begins_with(lambda cell: not _either(cell)) and bool(self.body)

    def _dated(self) -> bool:
        return any(letter.isdigit() for letter in self.body[0])

    def _goes_on(self) -> bool:
        return _shape(self.first) == _shape(self.body[0])


def _shape(cell: str) -> str:
    """Text without what differs from one date to the next."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell))


def _either(cell: str) -> bool:
    return is_number(cell) or bool(_WITH_COMMA.fullmatch(cell))


def _has_header(where: str, columns: Sequence[_Column]) -> bool:
    header = any(column.says_header() for column in columns)
    data = any(column.says_data() for column in columns)
    if header != data:
        return header
    if not any(column.first for column in columns):
        return False
    labels = [column.first for column in columns if column.begins_with(_either)]
    if not header and _index_without_name(columns):
        return True
    if not header and not _perhaps_names(columns, labels):
        return False
    text = ", ".join(column.first for column in columns)
    raise ValueError(
        f"{where}: {text!r} may be a header or the first values: choose header=True or "
        "header=False (on the command line --header or --no-header)"
    )


def _index_without_name(columns: Sequence[_Column]) -> bool:
    """No name above the first column, which is full, as DataFrame.to_csv writes an index."""
    index, *others = columns
    rows = max(len(column.body) for column in columns)
    return not index.first and bool(others) and len(index.body) == rows > 0


def _perhaps_names(columns: Sequence[_Column], labels: Sequence[str]) -> bool:
    """Whole numbers that may be labels: 0 alone, 2019 and 2020, or any above decimal numbers."""
    whole = all(_WHOLE.fullmatch(label) for label in labels)
    if not labels or not whole or not any(column.body for column in columns):
        return False
    numbers = [column for column in columns if column.begins_with(_either) and column.numbers]
    return (
        list(labels) == ["0"]
        or any(column.says_nothing() for column in columns)
        or (len(labels) > 1 and _consecutive(labels) and not _counting(columns))
        or all(not _WHOLE.fullmatch(cell) for column in numbers for cell in column.body)
    )


def _consecutive(labels: Sequence[str]) -> bool:
    return all(int(b) == int(a) + 1 for a, b in itertools.pairwise(labels))


def _counting(columns: Sequence[_Column]) -> bool:
    """Whether the first column goes on in equal steps, as time does."""
    cells = [columns[0].first, *columns[0].body]
    if len(cells) < 3 or not all(_WHOLE.fullmatch(cell) for cell in cells):
        return False
    steps = {int(b) - int(a) for a, b in itertools.pairwise(cells)}
    return len(steps) == 1 and steps != {0}


def _refuse_wide(name: str, columns: Sequence[_Column]) -> None:
    """A series in a line reads as a table of many columns."""
    rows = 1 + max(len(column.body) for column in columns)
    numbers = sum(_either(column.first) for column in columns)
    if rows <= SAMPLE and numbers > rows:
        raise ValueError(
            f"{name}: {rows} {'row' if rows == 1 else 'rows'} of {numbers} numbers may be "
            f"{'a series in a line' if rows == 1 else 'series in lines'} or in columns: write one "
            "value a line, or choose a column, from column='1' on (on the command line --column 1)"
        )


def _index(name: str, names: Sequence[str], columns: Sequence[_Column], column: str | None) -> int:
    if column is not None:
        column = choice("column", column, names)
        if names.count(column) > 1:
            raise ValueError(f"{name} has {names.count(column)} columns {column!r}")
        return names.index(column)
    # A separator that ends every line makes an empty column without a name.
    filled = [i for i, each in enumerate(columns) if each.body or names[i]]
    return filled[-1] if filled else len(names) - 1


def _decimal(name: str, cells: Sequence[str]) -> str:
    """The decimal mark of a column."""
    commas = [cell for cell in cells if _WITH_COMMA.fullmatch(cell)]
    if commas and all(_PERHAPS_THOUSANDS.fullmatch(cell) for cell in commas):
        plain = commas[0].replace(",", "")
        raise ValueError(
            f"{name}: {commas[0]!r} may be {commas[0].replace(',', '.')} or {plain}: choose "
            "decimal=',' (on the command line --decimal ,), or write thousands without a mark"
        )
    points = any("." in cell and is_number(cell) for cell in cells)
    return "," if commas and not points else "."
