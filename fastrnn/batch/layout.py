"""Layout: the arrays of a store and their chunks, which follow from a sweep's description."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastrnn.batch.labels import SEQUENCE, TIME
from fastrnn.batch.sweep import FLOATS, MOST_TASKS, WEIGHTS
from fastrnn.batch.tasks import Task, box_shape, count_boxes, cut
from fastrnn.batch.variables import COMPUTED, KEEP, VARIABLES, Variable
from fastrnn.cached import cached_property
from fastrnn.kernels import ACTIVATIONS

FORMAT = 2
INPUTS = "inputs"
# Which Zarr appends to a chunk.
CHECKSUM_BYTES = 4
# The longest header of a .npy file that NumPy reads.
HEADER_BYTES = 10_000 + 12
MOST_METADATA = 1 << 20


class Array(NamedTuple):
    """An array of the store."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the file of a chunk, which has its whole size also at the end of an axis."""
        return math.prod(self.chunk) * self.dtype.itemsize + CHECKSUM_BYTES

    def key(self, place: tuple[int, ...]) -> str:
        """Name of the file of a chunk."""
        return f"{self.name}/c" + "".join(f".{i}" for i in place)


@dataclass(frozen=True, eq=False)
class Layout:
    """Arrays and tasks of the store of a sweep that is described."""

    description: Mapping[str, Any]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Axes that tasks are cut from."""
        shapes = {name: self.description[name]["shape"] for name in WEIGHTS}
        axes = {name: shape[0] for name, shape in shapes.items() if shape}
        return {**axes, SEQUENCE: self.description["x"]["shape"][0]}

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks."""
        return cut(tuple(self.sizes.values()), self._box)

    @cached_property
    def coordinates(self) -> dict[str, Array]:
        """The grid, each array in one chunk."""
        dtype = np.dtype(self.description["dtype"])
        found = {}
        for name in WEIGHTS:
            shape = tuple(self.description[name]["shape"])
            found[name] = Array(name, (name,) if shape else (), shape, shape, dtype)
        counts = {SEQUENCE: self.sizes[SEQUENCE]}
        if "states" in self.description["keep"]:
            counts[TIME] = len(self._times)
        for name, count in counts.items():
            found[name] = Array(name, (name,), (count,), (count,), np.dtype(np.int64))
        return found

    @cached_property
    def results(self) -> dict[str, Array]:
        """What tasks store, a chunk a task."""
        keep = self.description["keep"]
        found = {v.name: self._result(v) for v in VARIABLES if v.keep in keep}
        axes, shape = (*self.sizes,), (*self.sizes.values(),)
        found[COMPUTED] = Array(COMPUTED, axes, shape, self._box, np.dtype(bool))
        return found

    def chunks(self, task: Task) -> dict[str, int]:
        """Files of a task, and their sizes."""
        return {
            array.key((*task.place, 0) if TIME in array.axes else task.place): array.chunk_bytes
            for array in self.results.values()
        }

    @cached_property
    def beginnings(self) -> dict[str, int]:
        """Files that do not come of tasks, and their sizes or, of some, bounds of them."""
        files = {}
        for name in ("x", "y"):
            if isinstance(given := self.description[name], dict):
                values = math.prod(given["shape"]) * np.dtype(given["dtype"]).itemsize
                files[f"{INPUTS}/{name}.npy"] = HEADER_BYTES + values
        for array in self.coordinates.values():
            files[array.key((0,) * len(array.shape))] = array.chunk_bytes
        for name in (*self.coordinates, *self.results):
            files[f"{name}/zarr.json"] = MOST_METADATA
        return {**files, "zarr.json": MOST_METADATA}

    @cached_property
    def _box(self) -> tuple[int, ...]:
        return box_shape(tuple(self.sizes.values()), self.description["tasks"])

    @cached_property
    def _times(self) -> range:
        steps = self.description["x"]["shape"][1] - (self.description["y"] == "next")
        return range(0, steps, self.description["every"])

    def _result(self, variable: Variable) -> Array:
        dtype = np.dtype("float64" if variable.float64 else self.description["dtype"])
        axes, shape, chunk = (*self.sizes,), (*self.sizes.values(),), self._box
        if variable.over_time:
            count = len(self._times)
            axes, shape, chunk = (*axes, TIME), (*shape, count), (*chunk, count)
        return Array(variable.name, axes, shape, chunk, dtype)


def layout_of(description: object) -> Layout:
    """Layout of a description out of a file; ValueError if it is none that fastrnn writes."""
    if not isinstance(description, dict):
        raise ValueError("a sweep's description must be an object")
    given = dict(description)
    checks: dict[str, Callable[[Any], object]] = {
        "format": lambda value: value == FORMAT,
        "x": lambda value: _is_array(value, 2),
        **dict.fromkeys(WEIGHTS, lambda value: _is_array(value, 0, 1)),
        "y": lambda value: value in (None, "next") or _is_array(value, 2),
        "activation": lambda value: value in tuple(ACTIVATIONS),
        "keep": lambda value: value and value == [name for name in KEEP if name in value],
        "every": _is_count,
        "dtype": lambda value: value in FLOATS,
        "tasks": lambda value: _is_count(value) and value <= MOST_TASKS,
    }
    if list(given) != list(checks):
        raise ValueError(f"a sweep's description must have the keys {', '.join(checks)}")
    for key, check in checks.items():
        if not check(given[key]):
            raise ValueError(f"a sweep's description has a wrong {key}")
    layout = Layout(given)
    sizes = tuple(layout.sizes.values())
    if count_boxes(sizes, box_shape(sizes, given["tasks"])) != given["tasks"] or not layout._times:
        raise ValueError("a sweep's description has tasks that do not fit its grid")
    return layout


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_array(value: object, *dimensions: int) -> bool:
    if not isinstance(value, dict) or list(value) != ["shape", "dtype", "hash"]:
        return False
    shape = value["shape"]
    return (
        isinstance(shape, list)
        and len(shape) in dimensions
        and all(map(_is_count, shape))
        and value["dtype"] in FLOATS
        and isinstance(value["hash"], str)
    )
