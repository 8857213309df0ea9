"""Files that are whole and on the disk, or not there at all."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

Bytes = bytes | memoryview

# What is being written ends in this, after a name that no other writer has.
PARTIAL = ".partial"
# Enough against chance, and short enough that a receipt of many chunks is small.
DIGEST_BYTES = 12


def write_durably(path: Path, pieces: Iterable[Bytes], *, later: bool = False) -> None:
    """Write a file that after any crash is the whole new one or what was there before.

    ``later``: after a crash of the process only, until `bring_to_disk` is called.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            if not later:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if not later:
        bring_to_disk(path.parent)


def whole_name(path: Path) -> str:
    """Name of the file that ``path`` is, or is to become when it is whole."""
    return path.name.rsplit(".", 2)[0] if path.suffix == PARTIAL else path.name


def digest(pieces: Iterable[Bytes]) -> str:
    """Hash of bytes."""
    found = _hash()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def file_digest(path: Path) -> str | None:
    """The same of a file; None where there is none."""
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, _hash).hexdigest()
    except FileNotFoundError:
        return None


def _hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def bring_to_disk(path: Path) -> None:
    """What is in a file, or the names in a folder."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
