"""Verify: every file of a sweep's folder held against the hash in its receipt."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fastrnn.batch import receipts
from fastrnn.batch.foreign import GROUP, checked_metadata
from fastrnn.batch.tasks import Task
from fastrnn.threads import available_cores


class Findings(NamedTuple):
    """What `verify` found."""

    tasks: int
    not_computed: int
    """Tasks that have no receipt."""
    faults: list[str]
    """Files that are damaged or missing, each with which of the two."""


def verify(folder: Path) -> Findings:
    """Read all that is stored, and hold it against its receipts.

    ValueError if the metadata are whole, but not as fastrnn writes them.
    """
    about = receipts.read_about(folder)
    if about is None:
        if not (folder / receipts.FOLDER).is_dir():
            raise FileNotFoundError(f"{folder} holds no sweep")
        return Findings(0, 0, [f"{receipts.FOLDER}/{receipts.ABOUT}: missing or damaged"])
    tasks = about.layout.tasks
    beginnings = receipts.file_faults(folder, about.files, about.layout.beginnings)
    if not any(GROUP in fault for fault in beginnings):
        checked_metadata(folder, about.layout)
    found = faults_of_all(folder, about, tasks)
    of_tasks = [fault for faults in found if faults for fault in faults]
    return Findings(len(tasks), found.count(None), beginnings + of_tasks)


def faults_of_all(
    folder: Path, about: receipts.About, tasks: Sequence[Task]
) -> list[list[str] | None]:
    """`receipts.task_faults` of many tasks."""
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(lambda task: receipts.task_faults(folder, about, task), tasks))
