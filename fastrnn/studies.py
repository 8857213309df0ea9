"""The part of the ``fastrnn`` command that looks at one series closely: diagnose and phase."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from fastrnn.terminal import (
    default_folder,
    draw,
    heed_stops,
    prepared_series,
    progress_bar,
    series_options,
    title,
)

if TYPE_CHECKING:
    from fastrnn.phases import PhaseDiagram
    from fastrnn.series import Reading
    from fastrnn.sweep.job import PreparedSeries
    from fastrnn.sweep.report import Origin

# Of a plane, by default: an axis each, evenly spaced.
PLANE = {"w2": "-4:4:161", "b": "-3:3:121"}
# A longer axis is a sign of a slip.
MOST_ON_AXIS = 100_000
# After as many, two neighbours on an axis are one float.
MOST_HALVINGS = 64
RANGE_HELP = "A number, or LO:HI:N (evenly spaced) for an axis of the plane."


@click.command()
@series_options
@click.option(
    "--w2",
    default="0.9",
    show_default=True,
    help="A number, LO:HI:N (log-spaced), a comma list, or all of them.",
)
@click.option("--w1", default=1.0, show_default=True, help="Input weight.")
@click.option("--b", default=0.0, show_default=True, help="Bias.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; diagnose-SERIES by default.")
def diagnose(
    series: str,
    w2: str,
    as_json: bool,
    out: Path | None,
    workers: int | None,
    quiet: bool,
    force: bool,
    **options: Any,
) -> None:
    """Tell how far back a neuron remembers SERIES, and whether its gradient survives.

    For one W2 how much of each input reaches the last prediction; for several, which of them
    keep memory and which lose it. Writes diagnose.csv, diagnose.png and run.json into a folder.
    The inputs are those of fastrnn sweep: all values but the last.
    """
    from fastrnn.checks import cast
    from fastrnn.compilation import beside
    from fastrnn.diagnosis import joined
    from fastrnn.rnn import RNN
    from fastrnn.sweep.job import parse_w2
    from fastrnn.sweep.run import CHUNK_STEPS
    from fastrnn.verbs.diagnose import diagnose as find

    activation, dtype = options["activation"], options["dtype"]
    beside("lyapunov", activation=activation, dtype=dtype, workers=workers)
    values = cast("w2", parse_w2(w2), np.dtype(options["dtype"]))
    run = _Run.begin(
        "diagnose", series, out, options,
        workers=workers, quiet=quiet, as_json=as_json, force=force,
    )  # fmt: skip
    x = run.prepared.values[:, :-1]
    x = x[0] if len(x) == 1 else x

    def bank(w2: Any) -> RNN:
        return RNN(options["w1"], w2, options["b"], activation=options["activation"])

    with progress_bar(len(values), "W2 values", quiet) as advance:
        each, parts = max(1, CHUNK_STEPS // x.size), []
        for start in range(0, len(values), each):
            some = values[start : start + each] if len(values) > 1 else values[0]
            parts.append(find(bank(some), x, workers=workers))
            advance(np.size(some))
            heed_stops()
    found = parts[0] if len(parts) == 1 else joined(bank(values), parts)
    weights = {"w2": values.tolist()}
    run.leave(found.to_columns(), lambda: found.plot().figure, weights, found.summary())


@click.command()
@series_options
@click.option("--w1", default="1", show_default=True, help=RANGE_HELP)
@click.option("--w2", help=f"{RANGE_HELP} {PLANE['w2']} by default.")
@click.option("--b", help=f"{RANGE_HELP} {PLANE['b']} by default.")
@click.option("--scale", default="1", show_default=True, help=f"Of the input. {RANGE_HELP}")
@click.option(
    "--refine",
    default=10,
    show_default=True,
    type=click.IntRange(0, MOST_HALVINGS),
    help="Halvings along the boundary.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; phase-SERIES by default.")
def phase(
    series: str,
    refine: int,
    as_json: bool,
    out: Path | None,
    workers: int | None,
    quiet: bool,
    force: bool,
    **options: Any,
) -> None:
    """Draw where on a plane of weights a neuron driven by SERIES forgets or explodes.

    Two of --w1, --w2, --b and --scale are ranges, by default --w2 and --b. Writes phase.csv,
    phase.png and run.json into a folder.

    \b
    fastrnn phase sunspots --scale 0.01:10:81 --b 0
    fastrnn phase sunspots --activation relu --w2 0:2:81
    """  # noqa: D301 - click marks a paragraph that keeps its lines with a backspace
    from fastrnn.verbs.phase_diagram import phase_diagram

    given = {name: options.pop(name) for name in ("w1", "w2", "b", "scale")}
    ranges = sum(":" in text for text in given.values() if text)
    for name, usual in PLANE.items():
        if given[name] is None:
            given[name] = usual if ranges < 2 else ("1" if name == "w2" else "0")
            ranges += ":" in given[name]
    parameters = {name: _values(name, text) for name, text in given.items()}
    _require_plane(given)
    run = _Run.begin(
        "phase", series, out, options,
        workers=workers, quiet=quiet, as_json=as_json, force=force,
    )  # fmt: skip
    count = int(np.prod([np.size(value) for value in parameters.values()]))
    with progress_bar(count, "points", quiet) as advance:
        before = 0

        def progress(done: int, total: int) -> None:
            nonlocal before
            advance(done - before)
            before = done
            heed_stops()

        found = phase_diagram(
            run.prepared.values[:, :-1], **parameters, activation=options["activation"],
            refine=refine, workers=workers, progress=progress,
        )  # fmt: skip
    weights = given | {"refine": refine}
    run.leave(found.to_columns(), lambda: found.plot().figure, weights, _in_words(found))


def _require_plane(given: Mapping[str, str]) -> None:
    axes = [f"--{name} {text}" for name, text in given.items() if ":" in text]
    if len(axes) != 2:
        raise click.UsageError(
            "A plane needs two ranges LO:HI:N among --w1, --w2, --b and --scale, got "
            f"{', '.join(axes) or 'none'}: "
            + ("leave some out." if len(axes) > 2 else "add one, as --scale 0.01:10:81.")
        )


def _values(name: str, text: str) -> float | NDArray[np.float64]:
    """A number, or evenly spaced ones."""
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts[:2]]
        count = int(parts[2]) if len(parts) == 3 else 2
    except ValueError:
        numbers, count = [], 0
    if len(parts) not in (1, 3) or not numbers or not 2 <= count <= MOST_ON_AXIS:
        raise ValueError(
            f"{name} must be a number or LO:HI:N with N from 2 to {MOST_ON_AXIS}, got {text!r}"
        )
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {text!r}")
    if len(parts) == 1:
        return numbers[0]
    if not numbers[0] < numbers[1]:
        raise ValueError(f"{name} must have LO below HI, got {text!r}")
    if not math.isfinite(numbers[1] - numbers[0]):
        raise ValueError(f"{name} must have HI - LO below 1.8e308, got {text!r}")
    return np.linspace(numbers[0], numbers[1], count)


def _in_words(found: PhaseDiagram) -> str:
    from fastrnn.forgetting import pace, rates

    down, across = found.axes
    lines = [f"{found.exponent.size} points, {across} against {down}"]
    names, counts = np.unique(found.regime, return_counts=True)
    for name, count in zip(names, counts, strict=True):
        lines.append(f"{name:>10}: {count / found.regime.size:.1%}")
    forgets = rates(found.exponent)
    if np.isfinite(forgets).any():
        row, column = np.unravel_index(np.argmax(forgets), forgets.shape)
        lines.append(
            f"forgets most slowly: {across} = {getattr(found, across)[column]:.4g}, "
            f"{down} = {getattr(found, down)[row]:.4g}, {pace(float(forgets[row, column]))}"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class _Run:
    """A command over a series: what was read, and where its results go."""

    command: str
    series: str
    options: dict[str, Any]
    workers: int | None
    quiet: bool
    as_json: bool
    force: bool
    folder: Path
    origin: Origin
    read: Reading
    prepared: PreparedSeries
    began: float

    @classmethod
    def begin(
        cls, command: str, series: str, out: Path | None, options: dict[str, Any], **how: Any
    ) -> _Run:
        """Read the series, and see that the folder is free for it."""
        from fastrnn.sweep.report import Origin, require_free

        began = time.perf_counter()
        read, prepared = prepared_series(series, options)
        folder = default_folder(command, series) if out is None else out
        origin = Origin.of(command, series, read.values)
        if not how["force"]:
            require_free(folder, origin)
        return cls(
            command, series, options, folder=folder, origin=origin, read=read, prepared=prepared,
            began=began, **how,
        )  # fmt: skip

    def leave(
        self,
        columns: Mapping[str, NDArray[Any]],
        picture: Callable[[], Any],
        weights: dict[str, Any],
        words: str,
    ) -> None:
        """Write table, picture and record, and print what was found."""
        from fastrnn.sweep.report import output_folder, record, write_columns, write_json

        files = (f"{self.command}.csv", f"{self.command}.png", "run.json")
        with output_folder(self.folder, files, self.origin, self.force) as staging:
            write_columns(columns, staging / files[0])
            trouble = draw(staging / files[1], picture)
            seconds = time.perf_counter() - self.began
            about = record(
                self.series, self.origin, self.read.values, self.prepared,
                self.options | weights, self.workers, seconds,
            )  # fmt: skip
            write_json(about, staging / files[2])
        if self.as_json:
            table = {key: [_plain(value) for value in column] for key, column in columns.items()}
            click.echo(json.dumps(table))
        elif not self.quiet:
            activation, normalize = self.options["activation"], self.options["normalize"]
            heading = title(self.series, self.prepared, activation, normalize)
            written = ", ".join(file for file in files if not (trouble and file.endswith("png")))
            click.echo(f"{heading}\n{self.read.words}\n\n{words}\n")
            click.echo(f"{written} in {self.folder} ({seconds:.1f} s)")
        if trouble:
            click.echo(f"fastrnn: {files[1]} was not drawn: {trouble}", err=True)


def _plain(value: Any) -> Any:
    """A number or text that JSON knows; None for NaN, text for what is infinite."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value
