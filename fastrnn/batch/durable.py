"""Files that are whole and on the disk, or not there at all."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

Bytes = bytes | memoryview

# What is being written ends in this, after a name that no other writer has.
PARTIAL = ".partial"


def write_durably(path: Path, pieces: Iterable[Bytes], *, later: bool = False) -> None:
    """Write a file that after any crash is the whole new one or what was there before.

    ``later``: after a crash of the process only, until `bring_to_disk` is called.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        # "x" follows no link that somebody else put there.
        with naming(path), partial.open("xb") as file:
            file.writelines(pieces)
            file.flush()
            if not later:
                _sync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if not later:
        bring_to_disk(path.parent)


def whole_name(path: Path) -> str:
    """Name of the file that ``path`` is, or is to become when it is whole."""
    return path.name.rsplit(".", 2)[0] if path.suffix == PARTIAL else path.name


def bring_to_disk(path: Path) -> None:
    """What is in a file, or the names in a folder."""
    writes = sys.platform == "win32"
    if writes and path.is_dir():  # which Windows brings to the disk by itself
        return
    number = os.open(path, os.O_RDWR if writes else os.O_RDONLY)
    try:
        with naming(path):
            _sync(number)
    finally:
        os.close(number)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within, an error of the system that names no file names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _sync(number: int) -> None:
    if sys.platform == "darwin":  # where fsync stops at the disk's own cache
        fcntl.fcntl(number, fcntl.F_FULLFSYNC)
    else:
        os.fsync(number)
