"""Receipts: which tasks are done, and the hashes by which all that is stored can be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastrnn.batch.description import identity_of, to_json
from fastrnn.batch.durable import digest, file_digest, write_durably

FOLDER = "receipts"
ABOUT = "sweep.json"

Hashes = dict[str, str]
"""Of files, by their names in a sweep's folder."""


def receipt_path(folder: Path, task: int) -> Path:
    """File of a task's receipt."""
    return folder / FOLDER / f"{task:08d}.json"


def write_receipt(folder: Path, task: int, receipt: dict[str, Any]) -> None:
    """Say that a task is done, with the hashes of its ``files``."""
    write_durably(receipt_path(folder, task), [_sealed(receipt)])


def task_faults(folder: Path, identity: str, task: int) -> list[str] | None:
    """What of a task is missing or damaged, each with which of the two; None: not computed."""
    path = receipt_path(folder, task)
    try:
        receipt = _unsealed(path)
        if (receipt["sweep"], receipt["task"]) != (identity, task):
            raise ValueError("a receipt of something else")
        return file_faults(folder, receipt["files"])
    except FileNotFoundError:
        return None
    except ValueError:
        return [f"{FOLDER}/{path.name}: damaged"]


def file_faults(folder: Path, files: Hashes) -> list[str]:
    """Files that are missing or damaged, each with which of the two."""
    found = {name: file_digest(folder / name) for name in files}
    return [
        f"{name}: {'missing' if found[name] is None else 'damaged'}"
        for name, known in files.items()
        if found[name] != known
    ]


def write_about(folder: Path, description: dict[str, Any], files: Hashes) -> None:
    """Say what sweep a folder is of, with the hashes of all files that do not come of tasks."""
    about = {"sweep": identity_of(description), "description": description, "files": files}
    write_durably(folder / FOLDER / ABOUT, [_sealed(about)])


def read_about(folder: Path) -> dict[str, Any] | None:
    """The same, read; None where it is not there, or damaged."""
    try:
        return _unsealed(folder / FOLDER / ABOUT)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def some_are_of(folder: Path, identity: str) -> bool:
    """Whether some task of that sweep was done in a folder."""
    receipts = (folder / FOLDER).glob("[0-9]*.json")
    return any(identity.encode() in receipt.read_bytes() for receipt in receipts)


def _sealed(content: dict[str, Any]) -> bytes:
    """JSON that ends in the hash of all else in it."""
    return to_json({**content, "hash": digest([to_json(content)])})


def _unsealed(path: Path) -> dict[str, Any]:
    """Content of a sealed file; ValueError where a bit of it has changed."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or content.pop("hash", "") != digest([to_json(content)]):
        raise ValueError(f"{path} is damaged")
    return content
