"""A folder of the user's own: what is read from it may be run.

Whoever may write to an ancestor of the folder can put another in its place between two looks at
its path. So each use opens the folder once, looks at what it has opened, and reaches files from
there; Windows has no such descriptors, and homes that others cannot write to.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

BY_DESCRIPTOR = {os.open, os.unlink, os.rename} <= os.supports_dir_fd
HAS_OWNERS = hasattr(os, "getuid")
WRITABLE = stat.S_IWGRP | stat.S_IWOTH
# Flags that not every system has.
FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
# A pipe in the place of a file would keep its reader waiting.
FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# Half-written files of processes that were killed, and the seconds after which they are removed.
DAY = 86400
# Seconds in which a file's name is waited for, a few times what a kernel takes; and between looks.
LOCK_SECONDS, LOCK_NAP = 120.0, 0.05
HALF_WRITTEN, HALF_WRITTEN_SECONDS = ".half-written", DAY


class NotPrivate(Exception):
    """Other users may write to a folder, or put another in its place."""


def check(folder: Path) -> None:
    """Raise NotPrivate unless a resolved path leads, for other users too, to a private folder."""
    if not HAS_OWNERS:
        return
    _check_own(folder, folder.stat())
    for ancestor in folder.parents:
        status = ancestor.stat()
        # In a folder with the sticky bit others cannot move what is not theirs.
        if status.st_mode & WRITABLE and not status.st_mode & stat.S_ISVTX:
            raise NotPrivate(f"other users may write to {ancestor}")
        if status.st_uid not in _trusted_users():
            raise NotPrivate(f"{ancestor} is another user's, who may write to it")


def _check_own(folder: Path, status: os.stat_result) -> None:
    if status.st_uid != os.getuid():
        raise NotPrivate(f"{folder} is another user's, and other users may write to it")
    if status.st_mode & WRITABLE:
        raise NotPrivate(f"other users may write to {folder}")


@cache
def _trusted_users() -> frozenset[int]:
    """The user, root, and in a user namespace without root the one that root is shown as."""
    trusted = {0, os.getuid()}
    with suppress(OSError, ValueError):
        mapped = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if not any(int(first_outside) == 0 for _, first_outside, _ in mapped):
            trusted.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return frozenset(trusted)


@contextmanager
def opened(folder: Path) -> Iterator[Folder]:
    """The folder, open; NotPrivate if it is not the user's own at this moment."""
    if not BY_DESCRIPTOR:
        yield Folder(folder, None)
        return
    descriptor = os.open(folder, os.O_RDONLY | FOLDER)
    try:
        _check_own(folder, os.fstat(descriptor))
        yield Folder(folder, descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Folder:
    """A folder that is open; files are reached from its descriptor, where systems have those."""

    path: Path
    descriptor: int | None

    def read(self, name: str) -> bytes:
        """Content of a regular file."""
        with open(
            os.open(self._at(name), os.O_RDONLY | FILE, dir_fd=self.descriptor), "rb"
        ) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{self.path / name} is no regular file")
            return file.read()

    def use(self, name: str) -> None:
        """Mark a file as used today."""
        with suppress(OSError, NotImplementedError):
            here: dict[str, Any] = {"dir_fd": self.descriptor, "follow_symlinks": False}
            if time.time() - os.stat(self._at(name), **here).st_mtime > DAY:
                os.utime(self._at(name), **here)

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole or not at all."""
        part, here = _half_written(name), self.descriptor
        try:
            self._create(part, content)
            os.replace(self._at(part), self._at(name), src_dir_fd=here, dst_dir_fd=here)
        except BaseException:
            with suppress(OSError):
                self.remove(part)
            raise

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        try:
            os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a file's name against other processes; where systems have no such locks, nothing.

        Nor after LOCK_SECONDS: who holds it may have been stopped.
        """
        lock, flags = f"{name}.lock{HALF_WRITTEN}", os.O_RDWR | os.O_CREAT | FILE
        if sys.platform == "win32":
            yield
            return
        import fcntl

        with open(os.open(self._at(lock), flags, 0o600, dir_fd=self.descriptor), "wb") as file:
            until = time.monotonic() + LOCK_SECONDS
            while time.monotonic() < until:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(LOCK_NAP)
            try:
                yield
            finally:
                with suppress(OSError):
                    self.remove(lock)

    def remove(self, name: str) -> None:
        """Remove a file."""
        os.unlink(self._at(name), dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """Names of all files."""
        return os.listdir(self.path if self.descriptor is None else self.descriptor)

    def tidy(self, own: re.Pattern[str], most: int) -> None:
        """Remove what killed processes left half-written, and ``own`` files beyond so many bytes.

        First those that `use` has not marked for longest; those without content go where one with
        content does, for they may be about it. OSError where nothing can be written.
        """
        probe = _half_written("probe")
        self._create(probe, b"")
        self.remove(probe)
        files = []
        for name in self.names():
            with suppress(OSError):
                status = os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)
                if own.fullmatch(name):
                    files.append((status.st_size > 0, status.st_mtime, status.st_size, name))
                elif name.endswith(HALF_WRITTEN):
                    if time.time() - status.st_mtime > HALF_WRITTEN_SECONDS:
                        self.remove(name)
        total = sum(size for _, _, size, _ in files)
        if total <= most:
            return
        for has_content, _, size, name in sorted(files):
            if has_content and total <= most:
                break
            with suppress(OSError):
                self.remove(name)
            total -= size

    def _create(self, name: str, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE
        with open(os.open(self._at(name), flags, 0o600, dir_fd=self.descriptor), "wb") as file:
            file.write(content)

    def _at(self, name: str) -> str | Path:
        return self.path / name if self.descriptor is None else name


def _half_written(name: str) -> str:
    return f"{name}.{secrets.token_hex(8)}{HALF_WRITTEN}"
