"""Progress of a run, as numbers and as a bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Seconds between two reports while no task ends.
TICK = 1.0


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes
    ----------
    done, tasks : int
        Tasks done, and tasks there are; of the shard, those of earlier runs included.
    steps, steps_left : int
        Neuron-steps computed in this run, and left.
    seconds : float
        Since the run began to compute.
    """

    done: int
    tasks: int
    steps: int
    steps_left: int
    seconds: float

    @property
    def rate(self) -> float:
        """Neuron-steps per second."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """By the rate so far; inf where nothing is done yet."""
        if self.steps_left == 0:
            return 0.0
        return self.steps_left / self.rate if self.rate else float("inf")


Report = Callable[[Progress], object]


@contextmanager
def reporting(progress: bool | Report | None, tasks: int) -> Iterator[Report]:
    """What is to be called with every `Progress`: a bar if wanted, on a terminal by default."""
    if callable(progress):
        yield progress
    elif progress or (progress is None and sys.stderr.isatty()):
        with _bar(tasks) as report:
            yield report
    else:
        yield lambda now: None


@contextmanager
def _bar(tasks: int) -> Iterator[Report]:
    import click

    bar = click.progressbar(
        length=tasks,
        label="tasks",
        file=sys.stderr,
        show_eta=False,  # which counts the tasks of earlier runs as done in no time
        show_pos=True,
        item_show_func=lambda now: None if now is None else _in_words(now),
    )

    def report(now: Progress) -> None:
        bar.update(now.done - bar.pos, now)

    with bar:
        yield report


def _in_words(now: Progress) -> str:
    left = now.seconds_left
    if left == float("inf"):
        return ""
    hours, minutes, seconds = int(left) // 3600, int(left) // 60 % 60, int(left) % 60
    return f"{now.rate:.3g} steps/s, {hours}:{minutes:02d}:{seconds:02d} left"
