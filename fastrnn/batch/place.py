"""Places in the file system, as a user names them."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Two letters at least: C:/ is a drive.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(name: str, value: object) -> Path:
    """A path in this machine's file system; a URL would be taken for a folder called ``s3:``."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {type(value).__name__}")
    text = os.fspath(value)
    if isinstance(text, bytes):
        raise TypeError(f"{name} must be a path as text, got bytes")
    if URL.match(text):
        raise ValueError(f"{name} must be a path in the file system, got the URL {text!r}")
    if "\0" in text or not text:
        raise ValueError(f"{name} must be a path, got {text!r}")
    return Path(text)
