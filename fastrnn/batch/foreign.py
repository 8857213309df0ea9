"""Foreign stores: metadata that fastrnn would not have written are refused before Zarr sees them.

What they may ask of a reader is much: other formats, and codecs that run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.batch.labels import labels
from fastrnn.batch.layout import MOST_METADATA, Array, Layout
from fastrnn.batch.regular import read_regular

GROUP = "zarr.json"


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


def fill_value(dtype: np.dtype[Any]) -> Any:
    """What stands where nothing is stored."""
    return np.nan if dtype.kind == "f" else dtype.type(0).item()


def _require_array(path: Path, found: Any, array: Array) -> None:
    """The metadata of an array are those that it is created with."""
    fill = fill_value(array.dtype)
    wanted: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(array.shape),
        "data_type": str(array.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(array.chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "NaN" if fill != fill else fill,
        "attributes": labels(array.name),
        # Values of one byte have no byte order, and Zarr writes none.
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
