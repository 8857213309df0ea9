"""Files read with care: regular ones, of a bounded size, and in a sweep's folder no links.

Somebody else may have made the folder: a pipe or a device in it would never end, and a link leads
out of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from fastrnn.batch.durable import Bytes, naming

# Enough against chance, and short enough that a receipt of many chunks is small.
DIGEST_BYTES = 12
# The largest JSON in a sweep's folder, the metadata of all its arrays, has 20 kB.
MOST_JSON = 1 << 20
# What the system says of a link, a folder, a socket or a pipe that is to be read as a file.
NO_FILE = (errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR)


@contextmanager
def open_regular(path: Path, *, follow: bool = False) -> Iterator[FileIO]:
    """A regular file, open for reading; OSError for anything else, links too unless ``follow``."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    with FileIO(os.open(path, flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        with naming(path):
            yield file


def read_regular(path: Path, most: int, *, follow: bool = False) -> bytes:
    """Content of a regular file; ValueError if it has more than ``most`` bytes."""
    with open_regular(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"{path.name} must have at most {most} bytes, got {size}")
        content = bytearray()
        while piece := file.read(most + 1 - len(content)):
            content += piece
        return bytes(content)


def read_json(path: Path) -> dict[str, Any]:
    """JSON object in a file; ValueError where it is none, FileNotFoundError where there is none."""
    try:
        content = json.loads(read_regular(path, MOST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno not in NO_FILE:
            raise
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return content


def digest(pieces: Iterable[Bytes]) -> str:
    """Hash of bytes."""
    found = _hash()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def file_digest(path: Path, most: int) -> str | None:
    """Hash of a file; None where there is none, "" where it is larger or no regular file."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > most:
                return ""
            return hashlib.file_digest(file, _hash).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NO_FILE:
            return ""
        raise


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Nothing of those names in a folder is a symbolic link; the folder itself may be one."""
    for name in names:
        path = folder / name
        if path.is_symlink():
            what = "is a symbolic link: a sweep's folder must hold files and folders of its own"
            raise OSError(errno.ELOOP, what, str(path))


def _hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=DIGEST_BYTES)
