"""Metadata of the store: written by Zarr, and read back only as it is written here.

What a Zarr file may ask of its reader is much: other formats, and codecs that run code. So nothing
of a store is opened whose metadata are not just these.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from fastrnn.batch.labels import SEQUENCE, TIME, labels, provenance
from fastrnn.batch.layout import MOST_METADATA, Array, Layout
from fastrnn.batch.regular import read_regular
from fastrnn.batch.sweep import WEIGHTS, Sweep

GROUP = "zarr.json"


def metadata(sweep: Sweep, layout: Layout, inputs: Mapping[str, str]) -> dict[str, bytes]:
    """Files of a Zarr group that has every array and no results; the group's own file last.

    ``inputs`` are hashes of the input files, which are told among the attributes.
    """
    store = MemoryStore()
    # Which xarray takes for the coordinates that are no axes.
    scalars = " ".join(name for name in WEIGHTS if name not in sweep.sizes)
    hashes = ", ".join(f"{name} {known}" for name, known in inputs.items())
    attributes = {**provenance(sweep), "inputs": hashes, "coordinates": scalars}
    group = zarr.create_group(store, zarr_format=3, attributes=attributes)
    values: dict[str, Any] = {name: getattr(sweep, name) for name in WEIGHTS}
    values |= {SEQUENCE: range(len(sweep.x)), TIME: sweep.times}
    for name, array in layout.coordinates.items():
        _create(group, array)[...] = np.asarray(values[name], array.dtype)
    for array in layout.results.values():
        _create(group, array)
    with warnings.catch_warnings():
        # That consolidated metadata is not in the specification yet; all readers know it.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(store)
    files = {key: value.to_bytes() for key, value in store._store_dict.items()}
    return {key: files[key] for key in sorted(files, key=lambda key: (key == GROUP, key))}


def checked_metadata(folder: Path, layout: Layout) -> dict[str, bytes]:
    """Metadata files of a store; ValueError where fastrnn would not have written one."""
    arrays = {**layout.coordinates, **layout.results}
    contents, parsed = {}, {}
    for key in (*(f"{name}/{GROUP}" for name in arrays), GROUP):
        contents[key] = read_regular(folder / key, MOST_METADATA)
        try:
            parsed[key] = json.loads(contents[key])
        except (ValueError, RecursionError):
            raise _foreign(folder / key, "no JSON") from None
    for name, array in arrays.items():
        _require_array(folder / name / GROUP, parsed[f"{name}/{GROUP}"], array)
    _require_group(folder / GROUP, parsed[GROUP], arrays)
    return contents


def _create(group: zarr.Group, array: Array) -> Any:
    return group.create_array(
        array.name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=array.chunk,
        fill_value=_fill(array.dtype),
        # Zarr itself refuses a chunk whose checksum is wrong.
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=array.axes,
        attributes=labels(array.name),
        # Else the chunk of a grid of zeros, as the numbers of one sequence are, is not written.
        config={"write_empty_chunks": True},
    )


def _fill(dtype: np.dtype[Any]) -> Any:
    return np.nan if dtype.kind == "f" else dtype.type(0).item()


def _require_array(path: Path, found: Any, array: Array) -> None:
    """The metadata of an array are those that it is created with."""
    fill = _fill(array.dtype)
    wanted: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(array.shape),
        "data_type": str(array.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(array.chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "NaN" if fill != fill else fill,
        "attributes": labels(array.name),
        # Of one byte a value there is no order, and Zarr writes none.
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "storage_transformers": [],
        "dimension_names": list(array.axes),
    }
    if array.dtype.itemsize == 1:
        wanted["codecs"][0] = {"name": "bytes"}
    if not isinstance(found, dict):
        raise _foreign(path, "no object")
    found = {"storage_transformers": [], "dimension_names": [], **found}
    found["codecs"] = _plain(found.get("codecs"))
    for key in (*wanted, *found):
        if key not in wanted or key not in found or found[key] != wanted[key]:
            raise _foreign(path, f"{key} {_short(found.get(key, 'missing'))}")


def _plain(codecs: Any) -> Any:
    """Codecs without what other versions of Zarr may write of a codec that has no options."""
    if not isinstance(codecs, list) or not all(isinstance(codec, dict) for codec in codecs):
        return codecs
    return [{k: v for k, v in codec.items() if (k, v) != ("configuration", {})} for codec in codecs]


def _require_group(path: Path, found: Any, arrays: Mapping[str, Array]) -> None:
    """A group of just those arrays, whose metadata stand in it once more."""
    keys = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}
    if not isinstance(found, dict) or set(found) != keys:
        raise _foreign(path, "other keys")
    if (found["zarr_format"], found["node_type"]) != (3, "group"):
        raise _foreign(path, f"zarr_format {_short(found['zarr_format'])}")
    attributes, inside = found["attributes"], found["consolidated_metadata"]
    if not isinstance(attributes, dict) or not all(map(_is_text, attributes.values())):
        raise _foreign(path, "attributes that are not text")
    members = inside.get("metadata") if isinstance(inside, dict) else None
    if not isinstance(members, dict) or set(members) != set(arrays):
        raise _foreign(path, "other arrays")
    for name, array in arrays.items():
        _require_array(path, members[name], array)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _foreign(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is not of a store that fastrnn wrote: {what}")


def _short(value: object) -> str:
    return json.dumps(value)[:100]
