"""Files that a process holds: a lock of the system, which ends with the process however it ends.

The lock belongs to the open file, not to a name or a process number, so it holds across containers
and namespaces of a machine. Libraries for this fall back to process numbers where the file system
has no locks; here the caller learns of it, and goes by signs of life.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from pathlib import Path

from fastrnn.batch.durable import naming

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

MISSING = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
BUSY = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
# Where Windows locks: its locks keep others from reading, and there is nothing to read here.
FAR = 1 << 30
POLL_SECONDS = 0.05

ANY = os.O_CREAT
NEW = os.O_CREAT | os.O_EXCL

_held: set[HeldFile] = set()


class HeldFile:
    """An open file, and whether it is locked for as long as it is open.

    Parameters
    ----------
    create : int
        Flags of `os.open` that make the file: ``NEW`` only if there is none, ``ANY`` if need be.

    Attributes
    ----------
    locked : bool or None
        False where another holds it, None where the file system has no locks.
    """

    def __init__(self, path: Path, create: int = 0) -> None:
        flags = os.O_RDWR | create
        for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
            flags |= getattr(os, name, 0)
        self.path = path
        self.number = os.open(path, flags, 0o666)
        _held.add(self)
        try:
            if not stat.S_ISREG(os.fstat(self.number).st_mode):
                raise OSError(errno.EINVAL, "is no regular file", str(path))
            self.locked = try_lock(self.number)
        except BaseException:
            self.close()
            raise

    def wait(self) -> None:
        """Wait until nobody else holds it."""
        while self.locked is False:
            time.sleep(POLL_SECONDS)
            self.locked = try_lock(self.number)

    def read(self, most: int) -> bytes:
        """The first bytes of the file."""
        os.lseek(self.number, 0, os.SEEK_SET)
        return os.read(self.number, most)

    def write(self, content: bytes) -> None:
        """Write into the file, in one piece."""
        with naming(self.path):
            os.write(self.number, content)

    def touch(self) -> None:
        """Set the file's time to now, by the clock of its file system."""
        os.utime(self.number if os.utime in os.supports_fd else self.path)

    def is_at_its_path(self) -> bool:
        """Whether the file is still the one of its name."""
        try:
            return os.path.samestat(os.fstat(self.number), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Take the file away, if it is still the one of its name, and close it."""
        try:
            ours = self.is_at_its_path()
            if sys.platform == "win32":  # where an open file cannot be taken away
                self.close()
            if ours:
                self.path.unlink(missing_ok=True)
        finally:
            self.close()

    def close(self) -> None:
        """End the lock."""
        if self in _held:
            _held.discard(self)
            os.close(self.number)


def try_lock(number: int) -> bool | None:
    """Lock an open file: whether nobody else has; None where the file system has no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(number, FAR, os.SEEK_SET)
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in MISSING:
            return None
        if error.errno in BUSY:
            return False
        raise
    return True


def _forget() -> None:
    """In a forked child, which would hold its parent's locks for longer than that lives."""
    for held in list(_held):
        held.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
