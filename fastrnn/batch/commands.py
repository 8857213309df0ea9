"""The part of the ``fastrnn`` command that runs, checks and exports batch jobs."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from fastrnn.batch.extra import sweep_extra
from fastrnn.batch.place import local_path


def run_job(
    job: Path,
    out: Path | None,
    *,
    workers: int | None,
    shard: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Run the sweep that a TOML file describes, or go on with it."""
    with sweep_extra():
        from fastrnn.batch.run import TasksFailed
    from fastrnn.batch.sweep import Sweep
    from fastrnn.threads import count_workers

    began = time.perf_counter()
    part = parse_shard(shard, os.environ)
    sweep = Sweep.from_toml(local_path("job", job))
    out = job.with_suffix("") if out is None else local_path("out", out)
    mine = "" if part == (1, 1) else f", shard {part[0]} of {part[1]}"
    if mine and shard is None:
        # Also where nothing else is said: an array of another kind computes a part of each job.
        element = f"as element {os.environ['SLURM_ARRAY_TASK_ID']} of a Slurm array"
        what = f"fastrnn: computes{mine[1:]} only, {element}; all of it: --shard 1/1"
        click.echo(what, err=True)
    if not quiet:
        click.echo(f"{job.name}: {sweep}{mine}")
    try:
        with _stops_exit():
            sweep.run(
                out,
                executor=None if workers is None else count_workers(workers),
                shard=part,
                force=force,
                progress=False if quiet else None,
            )
    except TasksFailed as error:
        click.echo(f"fastrnn: {error}", err=True)
        sys.exit(1)
    except SystemExit:
        click.echo("fastrnn: stopped; what is done is kept: run the same to go on", err=True)
        raise
    if not quiet:
        click.echo(f"all tasks{mine} are in {out} ({time.perf_counter() - began:.1f} s)")


def parse_shard(text: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Which of how many parts: as given, or as a Slurm job array has it.

    Examples
    --------
    >>> parse_shard("2/8", {})
    (2, 8)
    >>> array = {"TASK_ID": "6", "TASK_MIN": "0", "TASK_MAX": "14", "TASK_COUNT": "8"}
    >>> array["TASK_STEP"] = "2"
    >>> parse_shard(None, {f"SLURM_ARRAY_{name}": value for name, value in array.items()})
    (4, 8)
    """
    if text is not None:
        if not (found := re.fullmatch(r"([0-9]{1,18})/([0-9]{1,18})", text)):
            raise ValueError(f"shard must be i/n as 1/4, got {text!r}")
        number, count = int(found[1]), int(found[2])
        if not 1 <= number <= count:
            raise ValueError(f"shard must be i/n with i from 1 to n, got {text!r}")
        return number, count
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return 1, 1
    names = ("ID", "MIN", "MAX", "COUNT", "STEP")
    number, low, high, count, step = (_slurm(name, environment) for name in names)
    if high - low != (count - 1) * step or not 0 <= number - low <= high - low:
        raise ValueError("shard must be given for a Slurm array with gaps: --shard i/n")
    return (number - low) // step + 1, count


def _slurm(name: str, environment: Mapping[str, str]) -> int:
    variable = f"SLURM_ARRAY_TASK_{name}"
    text = environment.get(variable, "1" if name == "STEP" else "not set")
    if not re.fullmatch(r"[0-9]{1,18}", text) or (name in ("COUNT", "STEP") and int(text) == 0):
        raise ValueError(f"shard must be given (--shard i/n) where {variable} is {text}")
    return int(text)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
def verify(out: Path) -> None:
    """Hold every file of a sweep's folder OUT against the hash in its receipt.

    Names each that is damaged or missing. Exit status 0 if the sweep is done and whole, 1 if
    not; running it again computes just what is not.
    """
    from fastrnn.batch.verify import verify as find_faults

    found = find_faults(local_path("out", out))
    for fault in found.faults:
        click.echo(fault)
    done, faults = found.tasks - found.not_computed, len(found.faults)
    files = "1 file" if faults == 1 else f"{faults} files"
    click.echo(f"{done} of {found.tasks} tasks computed, {files} at fault")
    sys.exit(1 if found.faults or found.not_computed else 0)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    required=True,
    type=click.Choice(["csv", "parquet", "netcdf"]),
    help="Kind of file.",
)
@click.option("--file", type=click.Path(path_type=Path), help="Beside OUT by default.")
@click.option("--partial", is_flag=True, help="Also if the sweep is not done: NaN where missing.")
def export(out: Path, kind: str, file: Path | None, partial: bool) -> None:
    """Write what the sweep in the folder OUT has stored to a file of another kind.

    Parquet needs pyarrow; netCDF needs netCDF4, h5netcdf or scipy. States are a CSV or Parquet
    file of their own.
    """
    with sweep_extra():
        from fastrnn.batch.export import export as write

    for path in write(out, kind, file, partial=partial):
        click.echo(path)


@contextmanager
def _stops_exit() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM raise SystemExit at once: only other threads compile here."""

    def stop(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
