"""Tasks: the boxes that a sweep's grid is cut into."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple


class Task(NamedTuple):
    """A box of the grid: all that one task computes."""

    number: int
    place: tuple[int, ...]
    """Which box it is along each axis."""
    box: tuple[slice, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Points of the box along each axis."""
        return tuple(part.stop - part.start for part in self.box)


def box_shape(sizes: tuple[int, ...], tasks: int) -> tuple[int, ...]:
    """Largest box along each axis for at most so many tasks: the first axes are cut first.

    Examples
    --------
    >>> box_shape((1000, 50), 100)
    (10, 50)
    >>> box_shape((3, 50), 100)
    (1, 2)
    """
    shape = []
    for size in sizes:
        shape.append(-(-size // min(size, tasks)))
        tasks //= -(-size // shape[-1])
    return tuple(shape)


def count_boxes(sizes: tuple[int, ...], steps: tuple[int, ...]) -> int:
    """How many boxes of a shape cover the grid."""
    return math.prod(-(-size // step) for size, step in zip(sizes, steps, strict=True))


def cut(sizes: tuple[int, ...], steps: tuple[int, ...]) -> tuple[Task, ...]:
    """The whole grid in boxes of that shape; those at the end of an axis may be smaller."""
    counts = [-(-size // step) for size, step in zip(sizes, steps, strict=True)]
    return tuple(
        Task(
            number,
            place,
            tuple(
                slice(i * step, min(size, (i + 1) * step))
                for i, step, size in zip(place, steps, sizes, strict=True)
            ),
        )
        for number, place in enumerate(itertools.product(*map(range, counts)))
    )


def blocks(nets: int, rows: int, steps: int, limit: int) -> list[tuple[slice, slice]]:
    """Nets and rows of a task in pieces of at most so many steps, or of a single lane."""
    across = min(rows, max(1, limit // steps))
    down = max(1, limit // (steps * across))
    return [
        (slice(net, min(nets, net + down)), slice(row, min(rows, row + across)))
        for net in range(0, nets, down)
        for row in range(0, rows, across)
    ]
