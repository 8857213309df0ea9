"""Export: what a sweep has stored, as files of other kinds, some tasks' rows at a time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xarray

from fastrnn.batch.durable import PARTIAL
from fastrnn.batch.labels import TIME
from fastrnn.batch.verify import verify
from fastrnn.checks import choice

ENDINGS = {"csv": ".csv", "parquet": ".parquet", "netcdf": ".nc"}
# Any one of these writes the kind; pandas comes with xarray.
LIBRARIES = {"parquet": ("pyarrow",), "netcdf": ("netCDF4", "h5netcdf", "scipy")}


def export(
    folder: Path, kind: str, file: Path | None = None, *, partial: bool = False
) -> list[Path]:
    """Write the sweep in a folder to a file, by default beside it; the files written.

    States, which have an axis more than all else, are a table of their own in CSV and Parquet.
    ``partial``: also where the sweep is not done; NaN stands for what is missing.
    """
    _require_library(choice("kind", kind, tuple(ENDINGS)))
    _require_done(folder, partial)
    file = folder.with_name(folder.name + ENDINGS[kind]) if file is None else file
    with xarray.open_zarr(folder) as data:
        if kind == "netcdf":
            with _replacing(file) as path:
                data.to_netcdf(path)
            return [file]
        states = [name for name in data.data_vars if TIME in data[name].dims]
        tables = {file: data.drop_dims(TIME, errors="ignore")}
        tables[file.with_stem(f"{file.stem}-states")] = data[states]
        tables = {path: table for path, table in tables.items() if table.data_vars}
        for path, table in tables.items():
            with _replacing(path) as staged:
                (_write_csv if kind == "csv" else _write_parquet)(table, staged)
        return list(tables)


def _require_library(kind: str) -> None:
    names = LIBRARIES.get(kind, ())
    if names and not any(find_spec(name) for name in names):
        raise ModuleNotFoundError(f"export to {kind} needs {' or '.join(names)}")


def _require_done(folder: Path, partial: bool) -> None:
    findings = verify(folder)
    if findings.faults:
        raise ValueError(f"{folder} is damaged, see fastrnn verify: {findings.faults[0]}")
    if findings.not_computed and not partial:
        raise ValueError(
            f"{folder} is not done, {findings.not_computed} of {findings.tasks} tasks are missing: "
            "go on with it, or export what there is (--partial)"
        )


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file that takes the place of ``path`` when it is whole."""
    staged = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        yield staged
        staged.replace(path)
    finally:
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
