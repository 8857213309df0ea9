"""Lines of a text in blocks that hold whole rows, with their numbers in the file."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fastrnn.cached import cached_property

# Lines that are read at once: some MB.
BLOCK = 30_000


@dataclass(frozen=True)
class Block:
    """Lines, and the number of each in its file."""

    lines: list[str]
    numbers: Sequence[int]

    @cached_property
    def text(self) -> str:
        """All lines in one."""
        return "".join(self.lines)

    def after(self, index: int) -> Block:
        """What begins at a line."""
        return Block(self.lines[index:], self.numbers[index:]) if index else self

    def before(self, index: int) -> Block:
        """What ends before a line."""
        if index == len(self.lines):
            return self
        return Block(self.lines[:index], self.numbers[:index])


def blocks(lines: Iterable[str], comment: str | None) -> Iterator[Block]:
    """Blocks of whole rows; without comments, and without blank lines at the end of the text."""
    numbered = _numbered(iter(lines), comment)
    held = Block([], range(1, 1))
    for block in numbered:
        block = _joined(held, block)
        last = len(block.lines)
        while last and not block.lines[last - 1].strip():
            last -= 1
        # Blank lines are gaps if anything comes after them, and a row may go on within quotes.
        if not last or block.text.count('"') % 2:
            held = block
            continue
        held = block.after(last)
        yield block.before(last)
    if any(line.strip() for line in held.lines):
        yield held


def rows_of(block: Block, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of every row, and the index of the line that it begins in; csv.Error if none."""
    reader = csv.reader(block.lines, delimiter=separator, strict=True)
    index = 0
    try:
        for row in reader:
            blank = not block.lines[index].strip()
            yield index, [] if blank else [cell.strip() for cell in row]
            index = reader.line_num
    except csv.Error as error:
        line = block.numbers[min(index, len(block.lines) - 1)]
        raise csv.Error(f"line {line}: {error}") from None


def _numbered(lines: Iterator[str], comment: str | None) -> Iterator[Block]:
    first = 1
    while some := list(itertools.islice(lines, BLOCK)):
        numbers = range(first, first + len(some))
        first += len(some)
        yield (
            Block(some, numbers)
            if comment is None
            else _without_comments(Block(some, numbers), comment)
        )


def _without_comments(block: Block, comment: str) -> Block:
    kept = [
        (line.partition(comment)[0], number)
        for line, number in zip(block.lines, block.numbers, strict=True)
        if not line.lstrip().startswith(comment)
    ]
    return Block([line for line, _ in kept], [number for _, number in kept])


def _joined(held: Block, block: Block) -> Block:
    if not held.lines:
        return block
    return Block([*held.lines, *block.lines], [*held.numbers, *block.numbers])
