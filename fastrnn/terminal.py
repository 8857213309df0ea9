"""What the commands share: options of a series, the progress bar, and how a command ends."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from fastrnn.kernels import ACTIVATIONS

if TYPE_CHECKING:
    from fastrnn.series import Reading
    from fastrnn.sweep.job import PreparedSeries

# Who logs that a kernel is compiled.
_COMPILER = "fastrnn.kernels.inner"
Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--activation", default="tanh", show_default=True, help=", ".join(ACTIVATIONS)),
    click.option("--column", help="Column of a table, by its name; the last one by default."),
    click.option("--fill", help="For gaps in the series: interpolate or drop."),
    click.option(
        "--header/--no-header",
        default=None,
        help="Whether the first row of a text names the columns; found by default.",
    ),
    click.option("--separator", help="What divides cells, \\t for a tab; found by default."),
    click.option("--decimal", help="Decimal mark, . or ,; found by default."),
    click.option("--comment", help="Begins a comment, as #; none by default."),
    click.option("--na", multiple=True, help="One more mark of a gap, as -999; may be repeated."),
    click.option("--encoding", help="Of a text, as latin-1 or utf-16; UTF-8 by default."),
    click.option("--window", type=int, help="Cut the series into sequences of so many steps."),
    click.option(
        "--normalize/--raw",
        default=True,
        show_default=True,
        help="Bring the series to mean 0, standard deviation 1.",
    ),
    click.option(
        "--dtype", default="float64", show_default=True, type=click.Choice(["float32", "float64"])
    ),
    click.option("--workers", type=int, help="Threads, -1 for all cores; those usable by default."),
    click.option("--quiet", is_flag=True, help="No table, no progress bar."),
    click.option("--force", is_flag=True, help="Overwrite what --out holds of something else."),
)


def series_options(command: Command) -> Command:
    """The options of every command that runs over a SERIES."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return click.argument("series")(command)


def prepared_series(series: str, options: dict[str, Any]) -> tuple[Reading, PreparedSeries]:
    """What a series holds, and its sequences (B, T + 1) as the options want them."""
    from fastrnn.series import read_series
    from fastrnn.sweep.job import prepare

    how = ("column", "fill", "header", "separator", "decimal", "comment", "na", "encoding")
    wanted = {name: options[name] for name in how}
    if wanted["separator"] == r"\t":
        wanted["separator"] = "\t"
    found = read_series(series, **wanted)
    names = ("normalize", "window", "dtype")
    return found, prepare(found.values, **{name: options[name] for name in names})


def series_name(series: str) -> str:
    """A series as it is called in titles."""
    # Bytes that are no UTF-8 cannot be drawn.
    name = Path(series).name.encode("utf-8", "replace").decode()
    return "standard input" if series == "-" else name


def default_folder(command: str, series: str) -> Path:
    """Where a command writes by default."""
    name = "stdin" if series == "-" else Path(series).name.removesuffix(".gz")
    return Path(f"{command}-{Path(name).stem}")


def title(series: str, prepared: PreparedSeries, activation: str, normalised: bool = False) -> str:
    """What runs over what, in words."""
    count, length = prepared.values.shape
    many = f"{count} sequences of " if count > 1 else ""
    how = ", normalised" if normalised else ""
    return f"{series_name(series)}: {activation} neuron, {many}{length - 1} steps{how}"


def progress_bar(
    length: int, label: str, quiet: bool
) -> AbstractContextManager[Callable[[int], Any]]:
    """What is entered is called with the number of items done since the last call."""
    if quiet or not sys.stderr.isatty():
        return nullcontext(lambda done: None)
    return _Bar(length, label)


class _Bar:
    def __init__(self, length: int, label: str) -> None:
        self.bar = click.progressbar(length=length, label=label, file=sys.stderr)

    def __enter__(self) -> Any:
        return self.bar.__enter__().update

    def __exit__(self, *exception: Any) -> None:
        self.bar.__exit__(*exception)


class _Notice(logging.Handler):
    """Says what a first run waits for: in one line, after half a second."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it once, if it takes that long."""
        logger = logging.getLogger(_COMPILER)
        logger.removeHandler(self)
        timer = threading.Timer(0.5, self.say)
        timer.daemon = True
        timer.start()

    @staticmethod
    def say() -> None:
        """Say it, if it is so."""
        jit = sys.modules.get("fastrnn.kernels.jit")
        if jit is not None and jit.is_compiling():
            line = "fastrnn: compiling for this processor, once; the next run starts at once"
            click.echo(line, err=True)


def tell_of_compiling() -> None:
    """Let a terminal know when kernels are compiled."""
    if sys.stderr.isatty():
        logger = logging.getLogger(_COMPILER)
        logger.setLevel(logging.INFO)
        logger.addHandler(_Notice())


_stops: list[int] = []


def stop(number: int, frame: object) -> None:
    """End now, or after a compilation: an exception thrown into the compiler may crash it."""
    _stops.append(number)
    compiler = sys.modules.get("numba.core.compiler_lock")
    if compiler is None or not compiler.global_compiler_lock.is_locked():
        heed_stops()


def heed_stops() -> None:
    """End if a signal came that had to wait."""
    if _stops:
        end("interrupted", 128 + _stops[0])


def end(message: str, status: int) -> NoReturn:
    """One line on stderr, and an exit status."""
    click.echo(f"fastrnn: {' '.join(message.split())}", err=True)
    sys.exit(status)


def leave(status: Any) -> NoReturn:
    """Exit, and do not wait for a compilation that nobody needs any more."""
    jit = sys.modules.get("fastrnn.kernels.jit")
    if jit is not None and jit.is_compiling():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)
    sys.exit(status)


def draw(path: Path, picture: Callable[[], Any]) -> str:
    """Write a picture; what prevented it, if anything: a picture is not worth the results."""
    if find_spec("matplotlib") is None:
        return "it needs matplotlib: python -m pip install 'fastrnn[plot]'"
    try:
        with warnings.catch_warnings():
            # Names in letters that the font lacks are drawn as boxes.
            warnings.filterwarnings("ignore", "Glyph", UserWarning)
            picture().savefig(path)
    except Exception as error:
        path.unlink(missing_ok=True)
        return f"{type(error).__name__}: {error}"
    return ""
