"""Descriptions of sweeps in TOML; an error names the key and its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.batch.sweep import WEIGHTS, Sweep
from fastrnn.checks import FloatArray, choice
from fastrnn.series import BUNDLED, load_series
from fastrnn.sweep.job import parse_w2, prepare

# What a key may hold, as types and in words.
KEYS: dict[str, tuple[tuple[type, ...], str]] = {
    "x": ((str,), "the name of a series or a file"),
    "column": ((str,), "text"),
    "fill": ((str,), "text"),
    "normalize": ((bool,), "true or false"),
    "window": ((int,), "an integer"),
    **dict.fromkeys(WEIGHTS, ((int, float, list, str), "a number, a list, or text as LO:HI:N")),
    "activation": ((str,), "text"),
    "y": ((str,), '"next" or a .npy file'),
    "keep": ((str, list), "a name or a list of them"),
    "every": ((int,), "an integer"),
    "dtype": ((str,), "text"),
    "tasks": ((int,), "an integer"),
}
NEEDED = ("x", "w2")
PREPARE = ("column", "fill", "normalize", "window")


def read_sweep(path: Path) -> Sweep:
    """The sweep that a file describes."""
    text = path.read_text(encoding="utf-8")
    try:
        given = tomllib.loads(text + "\n")  # an error at the very end then has a line too
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is not TOML: {error}") from None
    with _located(path.name, text):
        for key, value in given.items():
            _check(key, value)
        for key in NEEDED:
            if key not in given:
                raise ValueError(f"{key} is missing")
        return Sweep(**_arguments(path.parent, given))


@contextmanager
def _located(name: str, text: str) -> Iterator[None]:
    """Before an error's message, the file and the line of the key that it begins with."""
    try:
        yield
    except (ValueError, TypeError) as error:
        key = re.escape(str(error).split(maxsplit=1)[0])
        found = re.search(rf"""^[\s\["']*{key}["'\s]*[=.\]]""", text, re.MULTILINE)
        line = f", line {text.count(chr(10), 0, found.end()) + 1}" if found else ""
        raise type(error)(f"{name}{line}: {error}") from None


def _check(key: str, value: object) -> None:
    if key not in KEYS:
        try:
            choice("key", key, tuple(KEYS))
        except ValueError as error:
            raise ValueError(f"{key} is no key of a sweep: {error}") from None
    types, words = KEYS[key]
    if type(value) not in types:
        raise TypeError(f"{key} must be {words}, got {value!r}")


def _arguments(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in given.items() if key not in PREPARE}
    for name in WEIGHTS:
        if isinstance(given.get(name), str):
            found[name] = _spaced(name, given[name])
    found["x"] = _series(folder, given)
    if given.get("y", "next") != "next":
        found["y"] = _mapped("y", folder / given["y"])
    return found


def _spaced(name: str, text: str) -> FloatArray:
    try:
        return parse_w2(text)
    except ValueError as error:
        raise ValueError(re.sub(r"^w2", name, str(error))) from None


def _series(folder: Path, given: dict[str, Any]) -> FloatArray:
    name = given["x"]
    source = name if name in BUNDLED else folder / name
    if Path(name).suffix == ".npy" and not any(key in given for key in PREPARE):
        return _mapped("x", folder / name)
    if "window" in given and given.get("y") != "next":
        raise ValueError("window must come with y = 'next': its last value is a target only")
    values = load_series(source, column=given.get("column"), fill=given.get("fill"))
    normalize, window = given.get("normalize", False), given.get("window")
    dtype = choice("dtype", given.get("dtype", "float64"), ("float32", "float64"))
    return prepare(values, normalize=normalize, window=window, dtype=dtype).values


def _mapped(name: str, path: Path) -> FloatArray:
    """An array in a file, of which only what is used comes into memory."""
    try:
        array: FloatArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError):
        raise ValueError(f"{name} must be a readable .npy array of numbers: {path.name}") from None
    return array
