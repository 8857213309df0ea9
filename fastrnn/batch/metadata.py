"""Metadata of the store: its arrays, with the grid in them and no results."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from fastrnn.batch.foreign import GROUP, fill_value
from fastrnn.batch.labels import SEQUENCE, TIME, labels, provenance
from fastrnn.batch.layout import Array, Layout
from fastrnn.batch.sweep import WEIGHTS, Sweep


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


def _create(group: zarr.Group, array: Array) -> Any:
    return group.create_array(
        array.name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=array.chunk,
        fill_value=fill_value(array.dtype),
        # Zarr itself refuses a chunk whose checksum is wrong.
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=array.axes,
        attributes=labels(array.name),
        # Else the chunk of a grid of zeros, as the numbers of one sequence are, is not written.
        config={"write_empty_chunks": True},
    )
