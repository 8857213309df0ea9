"""Export: what a sweep has stored, as files of other kinds, some tasks' rows at a time."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xarray

from fastrnn.batch import receipts
from fastrnn.batch.durable import PARTIAL, naming
from fastrnn.batch.labels import TIME
from fastrnn.batch.place import local_path
from fastrnn.batch.store import Store
from fastrnn.batch.variables import COMPUTED
from fastrnn.batch.verify import Findings, verify
from fastrnn.checks import choice

ENDINGS = {"csv": ".csv", "parquet": ".parquet", "netcdf": ".nc"}
# Any one of these writes the kind; pandas comes with xarray.
LIBRARIES = {"parquet": ("pyarrow",), "netcdf": ("netCDF4", "h5netcdf", "scipy")}


def export(
    folder: Path, kind: str, file: Path | None = None, *, partial: bool = False
) -> list[Path]:
    """Write the sweep in a folder to a file, by default beside it; the files written.

    States, which have an axis more than all else, are a table of their own in CSV and Parquet.
    ``partial``: also where the sweep is not done; NaN stands for what is missing, where
    ``computed`` is false.
    """
    _require_library(choice("kind", kind, tuple(ENDINGS)))
    folder = local_path("out", folder)
    file = folder.with_name(folder.name + ENDINGS[kind]) if file is None else file
    if file.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"file must be outside of the sweep's own folder {folder}, got {file}")
    with ExitStack() as files:
        # Before all is read and checked: a name may be too long, a folder read-only.
        tables = {
            files.enter_context(_replacing(path)): (path, names)
            for path, names in _tables(folder, kind, local_path("file", file)).items()
        }
        findings = _require_done(folder, partial)
        marks = [COMPUTED] if findings.not_computed else []
        with Store.open(folder).dataset() as data:
            for staged, (_, names) in tables.items():
                WRITERS[kind](data[[*names, *marks]], staged)
    return [path for path, _ in tables.values()]


def _tables(folder: Path, kind: str, file: Path) -> dict[Path, list[str]]:
    """Files to be written, and the variables of each."""
    about = receipts.read_about(folder)
    arrays = {} if about is None else about.layout.results
    names = [name for name in arrays if name != COMPUTED]
    if kind == "netcdf":
        return {file: names}
    states = [name for name in names if TIME in arrays[name].axes]
    others = [name for name in names if name not in states]
    found = {file: others, file.with_stem(f"{file.stem}-states"): states}
    return {path: table for path, table in found.items() if table}


def _require_library(kind: str) -> None:
    names = LIBRARIES.get(kind, ())
    if names and not any(find_spec(name) for name in names):
        raise ModuleNotFoundError(f"export to {kind} needs {' or '.join(names)}")


def _require_done(folder: Path, partial: bool) -> Findings:
    findings = verify(folder)
    if findings.faults:
        raise ValueError(f"{folder} is damaged, see fastrnn verify: {findings.faults[0]}")
    if findings.not_computed and not partial:
        raise ValueError(
            f"{folder} is not done, {findings.not_computed} of {findings.tasks} tasks are missing: "
            "go on with it, or export what there is (--partial)"
        )
    return findings


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file that takes the place of ``path`` when it is whole."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
    staged = path.with_name(f".{uuid.uuid4().hex}{PARTIAL}")
    try:
        with naming(path):
            try:
                staged.touch(exist_ok=False)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None
            yield staged
            staged.replace(path)
    finally:
        with suppress(OSError):
            staged.unlink(missing_ok=True)


def _rows(table: xarray.Dataset) -> Iterator[Any]:
    """Data frames of the tasks along the first axis; all axes are columns."""
    axes = list(next(iter(table.data_vars.values())).dims)
    step = table.chunksizes[axes[0]][0] if table.chunksizes else table.sizes[axes[0]]
    for start in range(0, table.sizes[axes[0]], step):
        part = table.isel({axes[0]: slice(start, start + step)})
        yield part.to_dataframe(dim_order=axes).reset_index()


def _write_csv(table: xarray.Dataset, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        for number, rows in enumerate(_rows(table)):
            rows.to_csv(file, index=False, header=number == 0)


def _write_parquet(table: xarray.Dataset, path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    frames = (pyarrow.Table.from_pandas(rows, preserve_index=False) for rows in _rows(table))
    first = next(frames)
    with ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for frame in frames:
            writer.write_table(frame)


def _write_netcdf(table: xarray.Dataset, path: Path) -> None:
    table.to_netcdf(path)


WRITERS = {"csv": _write_csv, "parquet": _write_parquet, "netcdf": _write_netcdf}
