"""Descriptions of sweeps as JSON, arrays by their hashes, and the inputs as .npy files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastrnn.batch.durable import Bytes
from fastrnn.batch.layout import FORMAT
from fastrnn.batch.regular import digest
from fastrnn.batch.sweep import WEIGHTS, Sweep
from fastrnn.checks import FloatArray

PIECE_BYTES = 1 << 24


def describe(sweep: Sweep) -> dict[str, Any]:
    """Everything that results depend on."""
    y = sweep.y
    return {
        "format": FORMAT,
        **{name: _described(getattr(sweep, name)) for name in ("x", *WEIGHTS)},
        "y": y if y is None or isinstance(y, str) else _described(y),
        "activation": sweep.activation,
        "keep": list(sweep.keep),
        "every": sweep.every,
        "dtype": str(sweep.dtype),
        "tasks": len(sweep.tasks),
    }


def identity_of(description: dict[str, Any]) -> str:
    """Hash of a description."""
    return digest([to_json(description)])


def changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two descriptions, in words."""
    return ", ".join(
        f"{key} {_in_words(old.get(key))} there and {_in_words(value)} here"
        for key, value in new.items()
        if old.get(key) != value
    )


def to_json(value: dict[str, Any]) -> bytes:
    """JSON of one form."""
    return (json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def npy_pieces(array: FloatArray) -> Iterator[Bytes]:
    """Content of a .npy file, a piece at a time."""
    header = io.BytesIO()
    about = {"shape": array.shape, "fortran_order": False, "descr": array.dtype.str}
    np.lib.format.write_array_header_1_0(header, about)
    yield header.getvalue()
    rows = np.atleast_1d(array)
    count = max(1, PIECE_BYTES * len(rows) // max(1, rows.nbytes))
    for start in range(0, len(rows), count):
        yield np.ascontiguousarray(rows[start : start + count]).data.cast("B")


def _described(array: FloatArray) -> dict[str, Any]:
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "hash": digest(npy_pieces(array)),
    }


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return f"of shape {tuple(value['shape'])} and hash {value['hash'][:8]}"
    return str(value)
