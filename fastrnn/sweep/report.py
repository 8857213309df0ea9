"""What a sweep leaves: sweep.csv, sweep.png, run.json, and a table to read."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn import environment, forgetting
from fastrnn.batch.held import NEW, HeldFile
from fastrnn.diagnosis import LN_10, lag_text
from fastrnn.series import BUNDLED
from fastrnn.sweep.job import PreparedSeries
from fastrnn.sweep.run import SweepTable
from fastrnn.text.source import STDIN

COLUMNS = (
    "w2", "loss", "loss_log10", "dw1", "dw2", "db", "gradient_log10", "influence_log10",
    "influence_sign", "horizon", "exponent", "exponent_stderr", "decades", "saturated", "regime",
)  # fmt: skip
TABLE_ROWS = 13
# A folder that is being filled, and the file in it that its run holds.
STAGING, HELD = ".partial-", ".held"
MOST_PLAIN_DECADES = 1e6


class Origin(NamedTuple):
    """What a folder's results are of."""

    command: str
    source: str
    """A bundled series' name, a file's absolute path, or the hash of values from a pipe."""

    @classmethod
    def of(cls, command: str, series: str, values: NDArray[Any]) -> Origin:
        """Results of a command over a series as it was given, and its values."""
        if series in BUNDLED:
            return cls(command, series)
        if series != STDIN and Path(series).is_file():
            return cls(command, str(Path(series).resolve()))
        return cls(command, f"a pipe, values with sha256 {_sha256(values)}")


@contextmanager
def output_folder(
    folder: Path, files: Sequence[str], origin: Origin, force: bool
) -> Iterator[Path]:
    """A staging folder whose ``files`` replace those of ``folder`` when all are complete.

    One of an earlier run that this one did not make is removed. OSError before anything
    is computed where ``folder`` cannot be written, or holds results of another origin and there
    is no ``force``. Of runs at once, the last to end is kept.
    """
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file, not a folder")
    if (folder / "receipts" / "sweep.json").exists():
        raise FileExistsError(f"{folder} holds the sweep of a job: choose another folder (--out)")
    if not force:
        require_free(folder, origin)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    ending = ExitStack()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
        ending.callback(shutil.rmtree, staging, ignore_errors=True)
        ending.callback(HeldFile(staging / HELD, NEW).close)
        yield staging
        if not force:  # another may have come meanwhile
            require_free(folder, origin)
        for name in files:
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{folder / name} is a folder")
        for name in files:
            if (staging / name).exists():
                os.replace(staging / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    finally:
        ending.close()
        for path in missing:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def require_free(folder: Path, origin: Origin) -> None:
    """FileExistsError where the record of an earlier run is of another series or command."""
    try:
        earlier = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        held = Origin(earlier["command"], earlier["source"])
    except (FileNotFoundError, NotADirectoryError):
        return
    except (ValueError, KeyError, TypeError):
        held = None
    if held != origin:
        what = f"the {held.command} of {held.source}" if held else "a run.json of something else"
        raise FileExistsError(
            f"{folder} holds {what}: choose another folder (--out), or --force to overwrite it"
        )


def _remove_abandoned(folder: Path) -> None:
    """Take away staging folders of runs that were killed: nobody holds the lock in them."""
    for staging in folder.glob(f"{STAGING}*"):
        with suppress(OSError):
            held = HeldFile(staging / HELD)
            held.close()
            if held.locked:
                shutil.rmtree(staging, ignore_errors=True)


def write_csv(table: SweepTable, path: Path) -> None:
    """A row for each W2, numbers with all their digits."""
    write_columns({name: getattr(table, name) for name in COLUMNS}, path)


def write_columns(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    """A table as CSV, numbers with all their digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def record(
    series: str,
    origin: Origin,
    values: NDArray[Any],
    prepared: PreparedSeries,
    options: Mapping[str, Any],
    workers: int | None,
    seconds: float,
) -> dict[str, Any]:
    """Everything that went into a run."""
    count, length = prepared.values.shape
    return {
        "command": origin.command,
        "series": series,
        "source": origin.source,
        "values": {"shape": list(values.shape), "sha256": _sha256(values)},
        "sequences": count,
        "steps": length - 1,
        "values_left_out": prepared.left_out,
        "mean": prepared.mean,
        "std": prepared.std,
        **options,
        "workers": workers,
        "versions": environment.versions(),
        "machine": environment.machine(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }


def _sha256(values: NDArray[Any]) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


def write_json(run: dict[str, Any], path: Path) -> None:
    """A record as JSON."""
    text = json.dumps(run, indent=2, ensure_ascii=False) + "\n"
    # Names of files may have bytes that are no UTF-8: JSON has the same escapes for them.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def readable_table(table: SweepTable) -> str:
    """A few rows, every regime's range of W2, and which W2 predicts best and forgets least."""
    table = table.ordered()
    lines = [
        f"{'W2':>11} {'loss':>10} {'|gradient|':>10} {'x_1 on y_T':>14} {'horizon':>8} "
        f"{'decades/step':>12}  regime"
    ]
    for k in _rows_to_show(table):
        lines.append(
            f"{table.w2[k]:>11.4g} {_number(table.loss_log10[k], 4):>10} "
            f"{_number(table.gradient_log10[k], 3):>10} "
            f"{_power(table.influence_sign[k], table.influence_log10[k]):>14} "
            f"{lag_text(table.horizon[k]):>8} {table.exponent[k] / LN_10:>12.4g}  "
            f"{table.regime[k]}"
        )
    lines.append("")
    for stretch in table.stretches():
        low, high = table.w2[stretch][[0, -1]]
        where = f"W2 = {low:.4g}" if low == high else f"W2 from {low:.4g} to {high:.4g}"
        lines.append(f"{table.regime[stretch][0]:>10}: {where}")
    lines.append("")
    if not np.isnan(table.loss_log10).all():
        best = int(np.nanargmin(table.loss_log10))
        lowest = _number(table.loss_log10[best], 4)
        lines.append(f"lowest loss: W2 = {table.w2[best]:.4g}, {lowest}")
    if slowest := forgetting.in_words(table.w2, table.exponent, table.exponent_stderr):
        lines.append(slowest)
    if (table.regime == "vanishing").all():
        lines.append("no W2 here lets a gradient live through the whole sequence")
    return "\n".join(lines)


def _rows_to_show(table: SweepTable) -> list[int]:
    """Evenly spread rows, and the two beside every boundary of regimes while they are few."""
    rows = set(np.linspace(0, len(table.w2) - 1, min(TABLE_ROWS, len(table.w2))).round().tolist())
    inner = table.stretches()[1:]
    if len(inner) <= TABLE_ROWS // 2:
        rows |= {stretch.start - 1 for stretch in inner} | {stretch.start for stretch in inner}
    return sorted(int(row) for row in rows)


def _number(log10: float, digits: int) -> str:
    """A number of 0 or more by its logarithm, as it is where it is an ordinary one."""
    if np.isnan(log10) or -99 < log10 < 99 or np.isneginf(log10):
        return f"{10.0**log10:.{digits}g}"
    return _power(1.0, log10)


def _power(sign: float, log10: float) -> str:
    """A number by its logarithm."""
    if sign == 0 or np.isnan(log10):
        return "0" if sign == 0 else "nan"
    digits = ".1f" if abs(log10) < MOST_PLAIN_DECADES else ".3g"
    return f"{'-' if sign < 0 else ''}10^{log10:{digits}}"
