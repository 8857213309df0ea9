"""Store: a sweep's folder, a Zarr group with inputs and receipts beside its arrays.

    zarr.json, w1/, w2/, b/     the grid
    last/, loss/, ...           a chunk a task; NaN where there is none yet
    computed/                   likewise, true where there is one
    inputs/x.npy, y.npy         what tasks read, mapped into memory
    receipts/sweep.json         the description; hashes of all of the above that are no chunks
    receipts/00000017.json      task 17 is done; hashes of its chunks

A task's receipt is written when what it speaks of is on the disk. A store is there when sweep.json
is; what that speaks of is brought to the disk while tasks run, and if a power cut was faster, the
next run finds it damaged and writes it anew.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from fastrnn import __version__, environment
from fastrnn.batch import receipts
from fastrnn.batch.description import npy_pieces
from fastrnn.batch.durable import PARTIAL, bring_to_disk, whole_name, write_durably
from fastrnn.batch.foreign import GROUP, checked_metadata
from fastrnn.batch.labels import LONG_NAMES
from fastrnn.batch.layout import CHECKSUM_BYTES, INPUTS, Array, layout_of
from fastrnn.batch.metadata import metadata
from fastrnn.batch.npy import map_npy
from fastrnn.batch.receipts import About
from fastrnn.batch.regular import digest, read_regular
from fastrnn.batch.sweep import WEIGHTS, Sweep
from fastrnn.batch.tasks import Task
from fastrnn.batch.variables import COMPUTED
from fastrnn.cached import cached_property
from fastrnn.checks import FloatArray

if TYPE_CHECKING:
    import xarray


_opening = threading.Lock()


class CheckedStore(LocalStore):
    """Zarr's store of local files, whose metadata were checked and are not read again."""

    def __init__(self, root: Path, known: Mapping[str, bytes], *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)
        self.known = dict(known)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Content of a file."""
        if Path(key).name == GROUP:
            known = self.known.get(key)
            return None if known is None else _buffer(prototype, known)
        if Path(key).name.startswith("."):  # metadata of Zarr's older format
            return None
        return await super().get(key, prototype, byte_range)


class DurableStore(CheckedStore):
    """One to write to: each file is on the disk when its writing ends, and its hash kept."""

    def __init__(self, root: Path, known: Mapping[str, bytes]) -> None:
        super().__init__(root, known, read_only=False)
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
    about: About
    known: Mapping[str, bytes]
    """Metadata files, checked."""

    @property
    def identity(self) -> str:
        """Hash of the description."""
        return self.about.identity

    @classmethod
    def open(cls, path: Path) -> Store:
        """The store in a folder; its sweep has the inputs mapped into memory."""
        about = receipts.read_about(path)
        if about is None:
            raise FileNotFoundError(f"{path} holds no sweep")
        known = checked_metadata(path, about.layout)
        given = about.layout.description
        arguments = {
            "y": _input(path, "y", given) if isinstance(given["y"], dict) else given["y"],
            **{name: _weight(path, about, about.layout.coordinates[name]) for name in WEIGHTS},
            **{name: given[name] for name in ("activation", "keep", "every", "dtype", "tasks")},
        }
        return cls(path, Sweep(_input(path, "x", given), **arguments), about, known)

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
        for key, content in metadata(sweep, layout_of(description), dict(files)).items():
            (path / key).parent.mkdir(exist_ok=True)
            write_durably(path / key, [content], later=True)
            files[key] = digest([content])
        receipts.write_about(path, description, files)
        return cls.open(path)

    def dataset(self) -> xarray.Dataset:
        """What is stored, as xarray reads it."""
        import xarray

        store = CheckedStore(self.path, self.known)
        found: xarray.Dataset = xarray.open_zarr(store, consolidated=True, zarr_format=3)
        return found

    def write(self, task: Task, results: dict[str, FloatArray]) -> dict[str, Any]:
        """Store the results of a task, then its receipt, which is returned."""
        values: dict[str, Any] = {**results, COMPUTED: True}
        for name, array in self._arrays.items():
            array[(*task.box, ...)] = values[name]
        files = {key: self._durable.hashes.pop(key) for key in self.about.layout.chunks(task)}
        receipt = {"task": task.number, "sweep": self.identity, "files": files, **self._origin}
        receipts.write_receipt(self.path, task.number, receipt)
        return receipt

    def bring_to_disk(self) -> None:
        """All that does not come of tasks."""
        paths = [self.path / name for name in self.about.files]
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
        names |= {self.path / key for task in tasks for key in self.about.layout.chunks(task)}
        for folder in {path.parent for path in names}:
            for path in folder.iterdir():
                if path.with_name(whole_name(path)) in names:
                    yield path

    @cached_property
    def _durable(self) -> DurableStore:
        return DurableStore(self.path, self.known)

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        group: Any = zarr.open_group(self._durable, mode="r+", zarr_format=3)
        # Else a chunk that is all NaN would not be written. The setting is one for all threads.
        with _opening, zarr.config.set({"array.write_empty_chunks": True}):
            return {name: group[name] for name in self.about.layout.results}

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


def _input(path: Path, name: str, given: Mapping[str, Any]) -> FloatArray:
    """x or y, mapped into memory."""
    mapped = map_npy(path / INPUTS / f"{name}.npy", follow=False)
    if [list(mapped.shape), str(mapped.dtype)] != [given[name]["shape"], given[name]["dtype"]]:
        raise _damaged(path / INPUTS / f"{name}.npy")
    return mapped


def _weight(path: Path, about: About, array: Array) -> FloatArray:
    """A weight, out of the one chunk that it is stored in."""
    key = array.key((0,) * len(array.shape))
    content = read_regular(path / key, array.chunk_bytes)
    if digest([content]) != about.files[key]:
        raise _damaged(path / key)
    little = array.dtype.newbyteorder("<")
    values: FloatArray = np.frombuffer(content[:-CHECKSUM_BYTES], little).reshape(array.shape)
    return values.astype(array.dtype)


def _damaged(path: Path) -> OSError:
    return OSError(errno.EIO, "is damaged, see fastrnn verify", str(path))


def _buffer(prototype: BufferPrototype | None, content: bytes) -> Buffer:
    return (prototype or default_buffer_prototype()).buffer.from_bytes(content)
