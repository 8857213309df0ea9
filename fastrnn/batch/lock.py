"""Locks: one run at a time on a sweep's folder, or one for each shard."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

GUARD = "guard"
LOCK = "lock"
# Whether a process of another host lives cannot be known: a run touches its lock every second,
# and one that was not touched for so many seconds is of a run that died.
SILENT_SECONDS = 600.0


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Alone in the folder, for as long as it takes to look at its locks and to make a store."""
    with (folder / GUARD).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.utime(folder / GUARD)
        yield


@dataclass(frozen=True)
class Lock:
    """A run's claim to a shard of the tasks. To be taken, and given back, where guarded."""

    folder: Path
    shard: tuple[int, int]

    @property
    def path(self) -> Path:
        """The lock's file."""
        return self.folder / f"{self.shard[0]}-of-{self.shard[1]}.{LOCK}"

    def take(self, *, alone: bool) -> None:
        """Claim the shard; OSError if another run has tasks of it, or ``alone`` any at all."""
        for path in sorted(self.folder.glob(f"*.{LOCK}")):
            holder = _holder(path)
            if _is_stale(path, holder):
                logger.warning("%s was left by %s, which has died", path, _in_words(holder))
                path.unlink(missing_ok=True)
            elif alone or path == self.path or not path.match(f"*-of-{self.shard[1]}.{LOCK}"):
                raise BlockingIOError(
                    errno.EAGAIN, f"in use by another run, {_in_words(holder)}", str(path)
                )
        claim = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())}
        self.path.write_text(json.dumps(claim) + "\n", encoding="utf-8")

    def touch(self) -> None:
        """Show that the run lives."""
        os.utime(self.path)

    def give_back(self) -> None:
        """End the claim."""
        self.path.unlink(missing_ok=True)


def _holder(path: Path) -> dict[str, object]:
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_stale(path: Path, holder: dict[str, object]) -> bool:
    if not holder:  # died while it wrote it: here, under guard, nobody else writes
        return True
    if holder.get("host") == socket.gethostname():
        pid = holder.get("pid")
        return not isinstance(pid, int) or not _lives(pid) or _born(pid) != holder.get("born")
    # By the clock of the file system, on which the guard was touched just now.
    silence = (path.parent / GUARD).stat().st_mtime - path.stat().st_mtime
    return silence > SILENT_SECONDS


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _born(pid: int) -> str:
    """When a process started, by the system's own count: its number may be used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _in_words(holder: dict[str, object]) -> str:
    return f"process {holder.get('pid', '?')} on host {holder.get('host', '?')}"
