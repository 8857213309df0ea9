"""Store: a sweep's folder, a Zarr group with inputs and receipts beside its arrays.

    zarr.json, w1/, w2/, b/     the grid
    last/, loss/, ...           a chunk a task; NaN where there is none yet
    inputs/x.npy, y.npy         what tasks read, mapped into memory
    receipts/sweep.json         the description; hashes of all of the above that are no chunks
    receipts/00000017.json      task 17 is done; hashes of its chunks

A task's receipt is written when what it speaks of is on the disk. A store is there when sweep.json
is; what that speaks of is brought to the disk while tasks run, and if a power cut was faster, the
next run finds it damaged and writes it anew.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from fastrnn import __version__, environment
from fastrnn.batch import receipts
from fastrnn.batch.description import npy_pieces
from fastrnn.batch.durable import PARTIAL, bring_to_disk, digest, whole_name, write_durably
from fastrnn.batch.labels import LONG_NAMES
from fastrnn.batch.metadata import metadata
from fastrnn.batch.sweep import WEIGHTS, Sweep
from fastrnn.batch.tasks import Task
from fastrnn.batch.variables import Variable
from fastrnn.checks import FloatArray

INPUTS = "inputs"


class DurableStore(LocalStore):
    """Zarr's store of local files, each on the disk when its writing ends, and its hash kept."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.hashes: receipts.Hashes = {}

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file."""
        await asyncio.to_thread(self._write, key, value.as_numpy_array().data)

    def _write(self, key: str, content: memoryview) -> None:
        write_durably(self.root / key, [content])
        self.hashes[key] = digest([content])


@dataclass(frozen=True, eq=False)
class Store:
    """The folder of a sweep."""

    path: Path
    sweep: Sweep
    identity: str
    """Hash of the description."""
    files: tuple[str, ...]
    """Files that do not come of tasks."""

    @classmethod
    def open(cls, path: Path) -> Store:
        """The store in a folder; its sweep has the inputs mapped into memory."""
        about = receipts.read_about(path)
        if about is None:
            raise FileNotFoundError(f"{path} holds no sweep")
        given = about["description"]
        group: Any = zarr.open_group(LocalStore(path, read_only=True), mode="r")
        arguments = {
            "y": _mapped(path, "y") if isinstance(given["y"], dict) else given["y"],
            **{name: np.asarray(group[name][...]) for name in WEIGHTS},
            **{name: given[name] for name in ("activation", "keep", "every", "dtype", "tasks")},
        }
        sweep = Sweep(_mapped(path, "x"), **arguments)
        return cls(path, sweep, about["sweep"], tuple(about["files"]))

    @classmethod
    def create(cls, path: Path, sweep: Sweep, description: dict[str, Any]) -> Store:
        """Everything but the results, which stay as they are; see `clear`."""
        files = {}
        (path / INPUTS).mkdir(exist_ok=True)
        for name, array in (("x", sweep.x), ("y", sweep.y)):
            if isinstance(array, np.ndarray):
                key = f"{INPUTS}/{name}.npy"
                write_durably(path / key, npy_pieces(array), later=True)
                files[key] = description[name]["hash"]
        for key, content in metadata(sweep, dict(files)).items():
            (path / key).parent.mkdir(exist_ok=True)
            write_durably(path / key, [content], later=True)
            files[key] = digest([content])
        receipts.write_about(path, description, files)
        return cls.open(path)

    def write(self, task: Task, results: dict[str, FloatArray]) -> dict[str, Any]:
        """Store the results of a task, then its receipt, which is returned."""
        files = {}
        for variable in self.sweep.variables:
            self._arrays[variable.name][(*task.box, ...)] = results[variable.name]
            key = _chunk(variable, task)
            files[key] = self._durable.hashes.pop(key)
        receipt = {"task": task.number, "sweep": self.identity, "files": files, **self._origin}
        receipts.write_receipt(self.path, task.number, receipt)
        return receipt

    def bring_to_disk(self) -> None:
        """All that does not come of tasks."""
        paths = [self.path / name for name in self.files]
        for path in (*paths, *{path.parent for path in paths}):
            bring_to_disk(path)

    def withdraw(self, tasks: Iterable[Task]) -> None:
        """Take away what there is of some tasks, half-written files too."""
        for path in self._files_of(tasks):
            path.unlink(missing_ok=True)

    def tidy(self, tasks: Iterable[Task]) -> None:
        """Take away what was half-written of some tasks by processes that died."""
        for path in self._files_of(tasks):
            if path.suffix == PARTIAL:
                path.unlink(missing_ok=True)

    def _files_of(self, tasks: Iterable[Task]) -> Iterator[Path]:
        names = {receipts.receipt_path(self.path, task.number) for task in tasks}
        for variable in self.sweep.variables:
            names |= {self.path / _chunk(variable, task) for task in tasks}
        for folder in {path.parent for path in names}:
            for path in folder.iterdir():
                if path.with_name(whole_name(path)) in names:
                    yield path

    @cached_property
    def _durable(self) -> DurableStore:
        return DurableStore(self.path)

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        group: Any = zarr.open_group(self._durable, mode="r+")
        # Else a chunk that is all NaN would not be written.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return {v.name: group[v.name] for v in self.sweep.variables}

    @cached_property
    def _origin(self) -> dict[str, Any]:
        return {"cpu": environment.machine()["cpu"], "fastrnn": __version__}


def clear(path: Path) -> None:
    """Take away everything that a store may hold, and nothing else."""
    for file in [*(path / receipts.FOLDER).iterdir(), *path.glob("zarr.json*")]:
        if file.suffix in (".json", PARTIAL):
            file.unlink()
    for name in (*LONG_NAMES, INPUTS):
        if (path / name).is_dir():
            shutil.rmtree(path / name)


def _chunk(variable: Variable, task: Task) -> str:
    place = (*task.place, 0) if variable.over_time else task.place
    return f"{variable.name}/c.{'.'.join(map(str, place))}"


def _mapped(path: Path, name: str) -> FloatArray:
    mapped: FloatArray = np.load(path / INPUTS / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return mapped
