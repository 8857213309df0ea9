"""Locks: one run at a time on a sweep's folder, or one for each shard.

A run holds its lock's file by a lock of the system. That it is free proves the holder dead only on
the holder's own machine: some network file systems lock for one machine each, some not at all. So
a run also touches its file every second, and where nothing else is known, one that was silent for
ten minutes is taken for dead. Process numbers prove nothing: containers have their own.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fastrnn.batch.held import ANY, NEW, POLL_SECONDS, HeldFile

logger = logging.getLogger(__name__)

GUARD, ALONE = "guard", "guard.alone"
LOCK = "lock"
MOST_BYTES = 4096
TOUCH_SECONDS = 1.0
SILENT_SECONDS = 600.0


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Alone in the folder, for as long as it takes to look at its locks and to make a store."""
    guard = HeldFile(folder / GUARD, ANY)
    try:
        guard.wait()
        guard.touch()
        if guard.locked:
            yield
        else:
            with _alone_by_name(guard):
                yield
    finally:
        guard.close()


@contextmanager
def _alone_by_name(guard: HeldFile) -> Iterator[None]:
    """Alone where the file system has no locks: only one can make a file of a name."""
    path = guard.path.with_name(ALONE)
    while True:
        try:
            mark = HeldFile(path, NEW)
            break
        except FileExistsError:
            with suppress(FileNotFoundError):
                guard.touch()
                if _silence(path) > SILENT_SECONDS:
                    path.unlink()
            time.sleep(POLL_SECONDS)
    with _touching(mark):
        try:
            yield
        finally:
            mark.remove()


@dataclass(eq=False)
class Lock:
    """A run's claim to a shard of the tasks. To be taken where guarded."""

    folder: Path
    shard: tuple[int, int]
    _file: HeldFile | None = None
    _ending: ExitStack = field(default_factory=ExitStack)

    @property
    def path(self) -> Path:
        """The lock's file."""
        return self.folder / f"{self.shard[0]}-of-{self.shard[1]}.{LOCK}"

    def take(self, *, alone: bool) -> None:
        """Claim the shard; OSError if another run has tasks of it, or ``alone`` any at all."""
        for path in sorted(self.folder.glob(f"*.{LOCK}")):
            holder = Holder.of(path)
            if holder is None:
                continue
            if holder.is_dead():
                logger.warning("%s was left by %s, which has died", path, holder)
                path.unlink(missing_ok=True)
            elif alone or path == self.path or not path.match(f"*-of-{self.shard[1]}.{LOCK}"):
                raise _in_use(path, str(holder))
        with ExitStack() as ending:
            try:
                file = HeldFile(self.path, NEW)
            except FileExistsError:  # by a machine that this one's locks do not reach
                raise _in_use(self.path, "which began at this moment") from None
            ending.callback(self._remove, file)
            claim, token = _claim(file)
            file.write(claim)
            _own.add(token)
            ending.callback(_own.discard, token)
            ending.enter_context(_touching(file))
            self._file, self._ending = file, ending.pop_all()

    def require(self) -> None:
        """OSError if the lock was taken away, as from a run that was suspended for long."""
        if self._file is not None and not _is_there(self._file):
            what = "was taken over by another run, or taken away, while this one was silent"
            raise OSError(errno.ENOLCK, what, str(self.path))

    def give_back(self) -> None:
        """End the claim."""
        self._file = None
        self._ending.close()

    def _remove(self, file: HeldFile) -> None:
        try:
            file.remove()
        except OSError as error:  # the lock ends all the same: its file is closed
            logger.warning("%s could not be taken away: %s", self.path, error.strerror)


@dataclass(frozen=True)
class Holder:
    """What a lock's file says, and how it was found."""

    path: Path
    about: dict[str, object]
    empty: bool
    locked: bool | None
    """Whether the file was free to be locked; None where the file system has no locks."""
    silence: float

    @classmethod
    def of(cls, path: Path) -> Holder | None:
        """The holder of a lock; None where there is no lock any more."""
        try:
            file = HeldFile(path)
        except FileNotFoundError:
            return None
        try:
            content = file.read(MOST_BYTES)
            return cls(path, _parsed(content), not content, file.locked, _silence(path))
        finally:
            file.close()

    def is_dead(self) -> bool:
        """Whether the run has ended without giving its lock back."""
        if self.locked is False:
            return False
        if self.empty:  # died before it wrote: here, under guard, nobody else writes
            return True
        if self.about.get("process") == _process:
            return self.about.get("claim") not in _own
        if self.locked and self.about.get("locked") is True and self._is_of_here():
            return True
        return self.silence > SILENT_SECONDS

    def _is_of_here(self) -> bool:
        return self.about.get("machine") == _machine()

    def __str__(self) -> str:
        pid, host = (str(self.about.get(name, "?"))[:80] for name in ("pid", "host"))
        words = f"process {pid} on host {host}"
        if self.locked is False or self._is_of_here():
            return words
        return (
            f"{words}, last heard of {max(0.0, self.silence):.0f} s ago; after "
            f"{SILENT_SECONDS:.0f} s of silence it is taken for dead"
        )


def _claim(file: HeldFile) -> tuple[bytes, str]:
    """What a lock's file says of its holder, and by what that knows it."""
    token = uuid.uuid4().hex
    claim = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": _machine(),
        "process": _process,
        "claim": token,
        "locked": file.locked,
    }
    return json.dumps(claim).encode() + b"\n", token


def _in_use(path: Path, by: str) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, f"in use by another run, {by}", str(path))


def _parsed(content: bytes) -> dict[str, object]:
    try:
        about = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _silence(path: Path) -> float:
    """Seconds by the clock of the file system, on which the guard was touched just now."""
    return (path.parent / GUARD).stat().st_mtime - path.lstat().st_mtime


def _is_there(file: HeldFile) -> bool:
    try:
        return file.is_at_its_path()
    except OSError:  # of a file system that is away for a while
        return True


@contextmanager
def _touching(file: HeldFile) -> Iterator[None]:
    """Within, a file is touched every second; that it fails now and then ends nothing."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(TOUCH_SECONDS):
            with suppress(OSError):
                file.touch()

    thread = threading.Thread(target=touch, name="fastrnn-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _machine() -> str:
    """The running system, which all its containers share and no other has."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return f"host {socket.gethostname()}"


# Claims of this process, and what no other process is called.
_own: set[object] = set()
_process = uuid.uuid4().hex


def _begin_child() -> None:
    global _process
    _own.clear()
    _process = uuid.uuid4().hex


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)
