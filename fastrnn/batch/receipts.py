"""Receipts: which tasks are done, and the hashes by which all that is stored can be checked.

What they say is believed only as far as it can be true: a task's receipt names just the files that
a task has, each no larger than it can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastrnn.batch.description import identity_of, to_json
from fastrnn.batch.durable import write_durably
from fastrnn.batch.labels import LONG_NAMES
from fastrnn.batch.layout import INPUTS, Layout, layout_of
from fastrnn.batch.regular import digest, file_digest, read_json, refuse_links
from fastrnn.batch.tasks import Task

FOLDER = "receipts"
ABOUT = "sweep.json"

Hashes = dict[str, str]
"""Of files, by their names in a sweep's folder."""


class About(NamedTuple):
    """What sweep a folder is of."""

    identity: str
    """Hash of the description."""
    layout: Layout
    files: Hashes
    """Files that do not come of tasks."""


def receipt_path(folder: Path, task: int) -> Path:
    """File of a task's receipt."""
    return folder / FOLDER / f"{task:08d}.json"


def write_receipt(folder: Path, task: int, receipt: dict[str, Any]) -> None:
    """Say that a task is done, with the hashes of its ``files``."""
    write_durably(receipt_path(folder, task), [_sealed(receipt)])


def task_faults(folder: Path, about: About, task: Task) -> list[str] | None:
    """What of a task is missing or damaged, each with which of the two; None: not computed."""
    path = receipt_path(folder, task.number)
    try:
        receipt = _unsealed(path)
        if (receipt.get("sweep"), receipt.get("task")) != (about.identity, task.number):
            raise ValueError("a receipt of something else")
        sizes = about.layout.chunks(task)
        return file_faults(folder, _hashes(receipt, sizes), sizes)
    except FileNotFoundError:
        return None
    except ValueError:
        return [f"{FOLDER}/{path.name}: damaged"]


def file_faults(folder: Path, files: Hashes, sizes: dict[str, int]) -> list[str]:
    """Files that are missing or damaged, each with which of the two."""
    found = {name: file_digest(folder / name, sizes[name]) for name in files}
    return [
        f"{name}: {'missing' if found[name] is None else 'damaged'}"
        for name, known in files.items()
        if found[name] != known
    ]


def write_about(folder: Path, description: dict[str, Any], files: Hashes) -> None:
    """Say what sweep a folder is of, with the hashes of all files that do not come of tasks."""
    about = {"sweep": identity_of(description), "description": description, "files": files}
    write_durably(folder / FOLDER / ABOUT, [_sealed(about)])


def read_about(folder: Path) -> About | None:
    """What sweep a folder is of; None where that is not there, or damaged."""
    require_no_links(folder)
    try:
        content = _unsealed(folder / FOLDER / ABOUT)
        layout = layout_of(content.get("description"))
        if content.get("sweep") != (identity := identity_of(dict(layout.description))):
            raise ValueError("a description of something else")
        return About(identity, layout, _hashes(content, layout.beginnings))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def require_no_links(folder: Path) -> None:
    """Nothing that a store is made of is a link, which would lead out of it."""
    refuse_links(folder, (FOLDER, INPUTS, *LONG_NAMES, "zarr.json"))


def identities(folder: Path) -> Iterator[str]:
    """Sweeps whose tasks were done in a folder, as far as that can be read."""
    for path in (folder / FOLDER).glob("[0-9]*.json"):
        try:
            yield str(_unsealed(path).get("sweep"))
        except (FileNotFoundError, ValueError):
            continue


def _hashes(content: dict[str, Any], sizes: dict[str, int]) -> Hashes:
    """The hashes of files in a sealed file; ValueError if they are not of just the files known."""
    files = content.get("files")
    if not isinstance(files, dict) or set(files) != set(sizes):
        raise ValueError("files that are not those of a sweep")
    if not all(
        isinstance(known, str) and re.fullmatch("[0-9a-f]+", known) for known in files.values()
    ):
        raise ValueError("hashes that are none")
    return files


def _sealed(content: dict[str, Any]) -> bytes:
    """JSON that ends in the hash of all else in it."""
    return to_json({**content, "hash": digest([to_json(content)])})


def _unsealed(path: Path) -> dict[str, Any]:
    """Content of a sealed file; ValueError where a bit of it has changed."""
    content = read_json(path)
    if content.pop("hash", "") != digest([to_json(content)]):
        raise ValueError(f"{path} is damaged")
    return content
