"""The ``fastrnn`` command."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from click.core import ParameterSource

from fastrnn import __version__
from fastrnn.batch.commands import export, run_job, verify
from fastrnn.studies import diagnose, phase
from fastrnn.terminal import (
    default_folder,
    draw,
    end,
    heed_stops,
    leave,
    prepared_series,
    progress_bar,
    series_options,
    stop,
    tell_of_compiling,
    title,
)

if TYPE_CHECKING:
    from fastrnn.sweep.job import PreparedSeries
    from fastrnn.sweep.run import SweepTable

DEFAULT_W2 = "-100:-0.01:41,0,0.01:100:41"
FILES = ("sweep.csv", "sweep.png", "run.json")
# W2 whose influence by lag is drawn: evenly spread ones, and the one that forgets most slowly.
SPREAD_PROFILES = 5


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, prog_name="fastrnn")
@click.pass_context
def cli(context: click.Context) -> None:
    """Recurrent networks in bulk: what the feedback weight W2 does to memory and gradients."""
    tell_of_compiling()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@series_options
@click.option(
    "--w2",
    default=DEFAULT_W2,
    show_default=True,
    help="LO:HI:N (log-spaced), a comma list, or both; negative values too.",
)
@click.option("--w1", default=1.0, show_default=True, help="Input weight.")
@click.option("--b", default=0.0, show_default=True, help="Bias.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; sweep-SERIES by default.")
@click.option("--shard", help="Of a job: I/N, the I-th of N parts. Known in a Slurm array.")
def sweep(
    series: str,
    out: Path | None,
    workers: int | None,
    quiet: bool,
    shard: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Run a bank of neurons, one for each W2, over SERIES and predict each next value.

    SERIES is sunspots, co2 or elnino, a file (CSV and other delimited text, also .gz, .parquet,
    or .npy of shape (T,) or (B, T)), or - for text from standard input. Writes sweep.csv,
    sweep.png and run.json into a folder and prints what it found.

    A SERIES ending in .toml is a job: a description of a larger sweep, with all options but
    --out, --workers, --quiet, --shard and --force inside. It can be stopped and run again to go
    on; see fastrnn verify and fastrnn export, and docs/sweeps.md.

    \b
    x_1 on y_T    derivative of the last prediction by the first input
    horizon       memory: the first lag whose influence is below 1/1000 of the
                  newest input's
    decades/step  mean growth of the gradient per step, log10 (sweep.csv:
                  exponent, natural log)
    regime        vanishing or exploding if the gradient changes by more than a
                  factor of 10 over the whole sequence, else balanced
    saturated     share of steps where the slope f' is below a tenth of its largest

    Loss and gradients are of all sequences together; the other figures are those of the
    sequence with the median growth.
    """  # noqa: D301 - click marks a paragraph that keeps its lines with a backspace
    if Path(series).suffix == ".toml":
        _require_defaults(options, f"must stand in {series}")
        run_job(Path(series), out, workers=workers, shard=shard, force=force, quiet=quiet)
        return
    _require_defaults(("shard",), "is for a job (SERIES ending in .toml)")

    from fastrnn.checks import cast
    from fastrnn.compilation import beside
    from fastrnn.rnn import RNN
    from fastrnn.sweep.job import parse_w2
    from fastrnn.sweep.report import (
        Origin,
        output_folder,
        readable_table,
        record,
        write_csv,
        write_json,
    )
    from fastrnn.sweep.run import sweep as run_sweep
    from fastrnn.threads import count_workers

    beside(
        "lyapunov", "forward", activation=options["activation"], dtype=options["dtype"],
        workers=workers,
    )  # fmt: skip
    began = time.perf_counter()
    w2 = cast("w2", parse_w2(options["w2"]), np.dtype(options["dtype"]))
    found, prepared = prepared_series(series, options)
    weights = {name: options[name] for name in ("w1", "b", "activation")}
    out = default_folder("sweep", series) if out is None else out
    origin = Origin.of("sweep", series, found.values)
    # What is wrong is the only line that is printed then.
    RNN(weights["w1"], w2, weights["b"], activation=weights["activation"])
    count_workers(workers)
    with output_folder(out, FILES, origin, force) as staging:
        if not quiet:
            heading = title(series, prepared, weights["activation"], options["normalize"])
            click.echo(f"{heading}\n{found.words}\n")
        with progress_bar(len(w2), "W2 values", quiet) as advance:

            def progress(done: int) -> None:
                advance(done)
                heed_stops()

            table = run_sweep(
                prepared.values,
                w2,
                **weights,
                workers=workers,
                progress=progress,
            )
        write_csv(table, staging / "sweep.csv")
        trouble = draw(staging / "sweep.png", lambda: _picture(table, prepared, series, weights))
        seconds = time.perf_counter() - began
        about = options | {"w2": w2.tolist()}
        run = record(series, origin, found.values, prepared, about, workers, seconds)
        write_json(run, staging / "run.json")
    if not quiet:
        click.echo(readable_table(table))
        files = "sweep.csv, run.json" if trouble else "sweep.csv, sweep.png, run.json"
        click.echo(f"\n{files} in {out} ({seconds:.1f} s)")
    if trouble:
        click.echo(f"fastrnn: sweep.png was not drawn: {trouble}", err=True)


cli.add_command(diagnose)
cli.add_command(phase)
cli.add_command(verify)
cli.add_command(export)


@cli.command()
@click.argument("verbs", nargs=-1)
@click.option("--hidden", multiple=True, default=[1], show_default=True, help="Units; may repeat.")
@click.option("--inputs", default=1, show_default=True, help="Inputs of layers.")
@click.option("--batch", default=64, show_default=True, help="Sequences of a call to a layer.")
@click.option(
    "--activation", multiple=True, default=["tanh"], show_default=True, help="May repeat."
)
@click.option("--dtype", multiple=True, default=["float64"], show_default=True, help="May repeat.")
@click.option("--workers", type=int, help="Processes, -1 for all cores; those usable by default.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def warmup(
    verbs: tuple[str, ...],
    hidden: tuple[int, ...],
    inputs: int,
    batch: int,
    activation: tuple[str, ...],
    dtype: tuple[str, ...],
    workers: int | None,
    quiet: bool,
) -> None:
    """Compile kernels ahead, for containers and clusters: those of VERBS, or all.

    VERBS are functions of the library, as forward or loss_and_grad. --hidden 1 is the scalar
    neuron, other numbers are layers. The kernels are kept in FASTRNN_CACHE_DIR, see fastrnn info.
    """
    from fastrnn import compilation, environment

    tasks = compilation.tasks_of(
        verbs or None, hidden=hidden, inputs=inputs, batch_size=batch, activation=activation,
        dtype=dtype,
    )  # fmt: skip
    with progress_bar(len(tasks), "kernels", quiet) as advance:
        done = 0

        def progress(now: int, every: int) -> None:
            nonlocal done
            advance(now - done)
            done = now
            heed_stops()

        try:
            compilation.warmup(
                verbs or None, hidden=hidden, inputs=inputs, batch_size=batch,
                activation=activation, dtype=dtype, workers=workers, progress=progress,
            )  # fmt: skip
        except RuntimeError as error:
            raise click.ClickException(str(error)) from None
    if not quiet:
        click.echo(f"kernels of {len(tasks)} calls are in {environment.kernel_cache()}")


@cli.command()
def info() -> None:
    """Print versions, processor, cores, threads and the kernel cache."""
    from fastrnn import environment, threads

    facts = {
        **environment.versions(),
        **environment.machine(),
        "workers": threads.default_workers(),
        "kernel cache": environment.kernel_cache(),
    }
    for name, value in facts.items():
        click.echo(f"{name:<13} {value}")


@cli.command()
@click.option(
    "--points", default=1_000_000, show_default=True, type=click.IntRange(2, 1_000_000_000)
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def accuracy(points: int, as_json: bool) -> None:
    """Measure the rounding errors of the activations on this processor.

    The largest and the mean error of tanh, sigmoid and their derivatives, in units in the last
    place. Promised are 2 for the functions and 4 for their derivatives.
    """
    from fastrnn import environment
    from fastrnn.accuracy import measure, readable

    rows = measure(points)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    click.echo(f"{environment.machine()['cpu']}, {points} points each\n")
    click.echo(readable(rows))


def main() -> None:
    """Entry point: bad input ends in one line on stderr and exit status 2."""
    # A batch scheduler's polite kill ends as Ctrl-C does, with nothing left half-written.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    warnings.showwarning = _show_warning
    try:
        _main()
    except SystemExit as ending:
        leave(ending.code)


def _main() -> None:
    try:
        sys.exit(cli(prog_name="fastrnn", standalone_mode=False))
    except click.UsageError as error:
        where = "fastrnn" if error.ctx is None else error.ctx.command_path
        end(f"{error.format_message().rstrip('.')}. Try '{where} --help'.", error.exit_code)
    except click.ClickException as error:
        end(error.format_message(), error.exit_code)
    except (ValueError, TypeError, OSError, MemoryError, ModuleNotFoundError) as error:
        end(_reason(error), 2)


def _show_warning(message: Warning | str, *where: Any, **also: Any) -> None:
    """One line, without the place in the source that Python names."""
    click.echo(f"fastrnn: {message}", err=True)


def _require_defaults(names: Iterable[str], otherwise: str) -> None:
    for name in names:
        if click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} {otherwise}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'output'}: {error.strerror}"
    return str(error)


def _picture(
    table: SweepTable, prepared: PreparedSeries, series: str, weights: dict[str, Any]
) -> Any:
    from fastrnn.forgetting import slowest
    from fastrnn.plot import sweep_figure
    from fastrnn.sweep.run import influence_by_lag

    ordered = table.ordered()
    spread = np.linspace(0, len(ordered.w2) - 1, SPREAD_PROFILES).round().astype(int)
    chosen = set(ordered.w2[spread])
    if (found := slowest(ordered.w2, ordered.exponent, ordered.exponent_stderr)) is not None:
        chosen.add(found.w2)
    by_lag = {w2: influence_by_lag(prepared.values, w2, **weights) for w2 in sorted(chosen)}
    return sweep_figure(table, by_lag, title=title(series, prepared, weights["activation"]))
