"""Descriptions of sweeps in TOML; an error names the key and its line."""

from __future__ import annotations

import re
import reprlib
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastrnn.batch.npy import map_npy
from fastrnn.batch.regular import read_regular
from fastrnn.batch.sweep import WEIGHTS, Sweep
from fastrnn.checks import FloatArray, choice
from fastrnn.series import BUNDLED, load_series
from fastrnn.sweep.job import parse_w2, prepare

# What a key may hold, as types and in words.
KEYS: dict[str, tuple[tuple[type, ...], str]] = {
    "x": ((str,), "the name of a series or a file"),
    "column": ((str,), "text"),
    "fill": ((str,), "text"),
    "header": ((bool,), "true or false"),
    "separator": ((str,), "text"),
    "decimal": ((str,), "text"),
    "comment": ((str,), "text"),
    "na": ((str, list), "a mark of a missing value or a list of them"),
    "encoding": ((str,), "text"),
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
# A list of 200,000 weights; longer ones are ranges, or a Sweep in Python.
MOST_BYTES = 1 << 22
# Keys of a sweep have none, but `tomllib` takes memory by the square of those in a key.
MOST_DOTS = 1000
FLOAT = re.compile(r"(?<![\w.])\d[\d_]*+\.\d[\d_]*+(?:e[+-]?\d++)?+(?![\w.])", re.ASCII | re.I)
# How a series is read, and what is made of it.
READ = ("column", "fill", "header", "separator", "decimal", "comment", "na", "encoding")
PREPARE = (*READ, "normalize", "window")


def read_sweep(path: Path) -> Sweep:
    """The sweep that a file describes."""
    text = _text(path)
    try:
        given = tomllib.loads(text + "\n")  # an error at the very end then has a line too
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not TOML: {error}") from None
    with _located(path.name, text):
        for key, value in given.items():
            _check(key, value)
        for key in NEEDED:
            if key not in given:
                raise ValueError(f"{key} is missing")
        return Sweep(**_arguments(path.parent, given))


def _text(path: Path) -> str:
    """Text of a description, which is of a size that Python's reader of TOML ends on."""
    content = read_regular(path, MOST_BYTES, follow=True)
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not TOML: it must be text in UTF-8 ({error})") from None
    if FLOAT.sub("", text).count(".") > MOST_DOTS:
        raise ValueError(
            f"{path.name} must have no keys with dots, which a sweep has none of, got more than "
            f"{MOST_DOTS} dots that are in no number"
        )
    return text


@contextmanager
def _located(name: str, text: str) -> Iterator[None]:
    """Before an error's message, the file and the line of the key that it begins with."""
    try:
        yield
    except (ValueError, TypeError) as error:
        key = re.escape(str(error).split(maxsplit=1)[0])
        begins = re.compile(rf"""[ \t\["']*+{key}["' \t]*+[=.\]]""")
        lines = (n for n, line in enumerate(text.split("\n"), 1) if begins.match(line))
        line = f", line {number}" if (number := next(lines, None)) else ""
        # What an option says there, as encoding='latin-1', a key says here.
        text = re.sub(r" \(on the command line [^)]*\)", "", str(error))
        raise type(error)(f"{name}{line}: {text}") from None


def _check(key: str, value: object) -> None:
    key = key if len(key) <= 80 else key[:80] + "..."
    if key not in KEYS:
        try:
            choice("key", key, tuple(KEYS))
        except ValueError as error:
            raise ValueError(f"{key} is no key of a sweep: {error}") from None
    types, words = KEYS[key]
    if type(value) not in types:
        raise TypeError(f"{key} must be {words}, got {reprlib.repr(value)}")


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
    values = load_series(source, **{key: given[key] for key in READ if key in given})
    normalize, window = given.get("normalize", False), given.get("window")
    dtype = choice("dtype", given.get("dtype", "float64"), ("float32", "float64"))
    return prepare(values, normalize=normalize, window=window, dtype=dtype).values


def _mapped(name: str, path: Path) -> FloatArray:
    """An array in a file, of which only what is used comes into memory."""
    try:
        return map_npy(path)
    except ValueError as error:
        what = str(error).removeprefix(f"{path.name} ")
        raise ValueError(f"{name} {what}: {path.name}") from None
