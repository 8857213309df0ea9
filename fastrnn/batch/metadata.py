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

from fastrnn.batch.labels import SEQUENCE, TIME, labels, provenance
from fastrnn.batch.sweep import WEIGHTS, Sweep


def metadata(sweep: Sweep, inputs: Mapping[str, str]) -> dict[str, bytes]:
    """Files of a Zarr group that has every array and no results; the group's own file last.

    ``inputs`` are hashes of the input files, which are told among the attributes.
    """
    store = MemoryStore()
    # Which xarray takes for the coordinates that are no axes.
    scalars = " ".join(name for name in WEIGHTS if name not in sweep.sizes)
    hashes = ", ".join(f"{name} {known}" for name, known in inputs.items())
    attributes = {**provenance(sweep), "inputs": hashes, "coordinates": scalars}
    group = zarr.create_group(store, zarr_format=3, attributes=attributes)
    for name in WEIGHTS:
        values = getattr(sweep, name)
        _add(group, name, (name,) if values.ndim else (), values.shape, values.dtype, values)
    counts = {SEQUENCE: range(len(sweep.x))}
    if "states" in sweep.keep:
        counts[TIME] = sweep.times
    for name, numbers in counts.items():
        values = np.array(numbers, np.int64)
        _add(group, name, (name,), values.shape, values.dtype, values)
    for variable in sweep.variables:
        dtype = np.dtype(np.float64) if variable.float64 else sweep.dtype
        axes, shape, chunk = (*sweep.sizes,), (*sweep.sizes.values(),), sweep.box
        if variable.over_time:
            count = len(sweep.times)
            axes, shape, chunk = (*axes, TIME), (*shape, count), (*chunk, count)
        _add(group, variable.name, axes, shape, dtype, chunk=chunk)
    with warnings.catch_warnings():
        # That consolidated metadata is not in the specification yet; all readers know it.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(store)
    files = {key: value.to_bytes() for key, value in store._store_dict.items()}
    return {key: files[key] for key in sorted(files, key=lambda key: (key == "zarr.json", key))}


def _add(
    group: zarr.Group,
    name: str,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    values: Any = None,
    *,
    chunk: tuple[int, ...] | None = None,
) -> None:
    array: Any = group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=shape if chunk is None else chunk,
        fill_value=np.nan if dtype.kind == "f" else 0,
        # Zarr itself refuses a chunk whose checksum is wrong.
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=axes,
        attributes=labels(name),
    )
    if values is not None:
        array[...] = values
