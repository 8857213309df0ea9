"""Claim: a sweep's folder, made or found as it should be, and locked against other runs."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastrnn.batch import receipts
from fastrnn.batch.description import changes, describe, identity_of
from fastrnn.batch.lock import Lock, guarded
from fastrnn.batch.space import require_space
from fastrnn.batch.store import Store, clear
from fastrnn.batch.sweep import Sweep


@contextmanager
def claimed(
    path: Path, sweep: Sweep, shard: tuple[int, int], *, force: bool
) -> Iterator[tuple[Store, Lock]]:
    """The store of a sweep, made where there is none, and the lock on a shard of its tasks."""
    folder = path / receipts.FOLDER
    receipts.require_no_links(path)
    if not folder.is_dir():
        _require_new_or_empty(path, folder)
        folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder, shard)
    with guarded(folder):
        store = _take(path, sweep, lock, force)
    try:
        yield store, lock
    finally:
        lock.give_back()


def _require_new_or_empty(path: Path, folder: Path) -> None:
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(path))
    # A run that starts at the same time makes the receipts' folder before anything else.
    if path.exists() and any(path.iterdir()) and not folder.is_dir():
        what = "must be a new or empty folder, or one of a sweep"
        raise FileExistsError(errno.EEXIST, what, str(path))


def _take(path: Path, sweep: Sweep, lock: Lock, force: bool) -> Store:
    about, description = receipts.read_about(path), describe(sweep)
    identity = identity_of(description)
    same = about is not None and about.identity == identity
    if not same and not force:
        _require_nothing_to_lose(path, about, description, identity)
    lock.take(alone=not same)
    try:
        if about is not None and same and not _beginnings_faults(path, about):
            return Store.open(path)
        # Where only the description is damaged, what is done is kept.
        if not same and identity not in receipts.identities(path):
            clear(path)
        require_space(path, sweep.x.nbytes + len(sweep.tasks) * sweep.task_bytes)
        return Store.create(path, sweep, description)
    except BaseException:
        lock.give_back()
        raise


def _require_nothing_to_lose(
    path: Path, about: receipts.About | None, description: dict[str, Any], identity: str
) -> None:
    if about is not None:
        what = changes(dict(about.layout.description), description)
    else:
        others = set(receipts.identities(path))
        if not others or identity in others:
            return
        what = "whose description is damaged or of another version"
    raise FileExistsError(
        errno.EEXIST,
        f"holds another sweep ({what}): choose another folder, or force=True (on the command line "
        "--force) to lose it",
        str(path),
    )


def _beginnings_faults(path: Path, about: receipts.About) -> list[str]:
    return receipts.file_faults(path, about.files, about.layout.beginnings)
