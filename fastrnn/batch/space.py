"""Room on the disk."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


def require_space(folder: Path, needed: int) -> None:
    """``folder`` has room for so many bytes, or a clear error before anything is computed."""
    if needed > shutil.disk_usage(folder).free:
        raise disk_full(folder, needed)


def disk_full(folder: Path, needed: int) -> OSError:
    """What to say where a disk, or one's quota of it, is full."""
    free = shutil.disk_usage(folder).free
    return OSError(
        errno.ENOSPC,
        f"no space left on the disk: {needed} bytes are still to be written, {free} are free. "
        "What is done is kept: make room and run the same again",
        str(folder),
    )
