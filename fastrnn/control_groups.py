"""Control groups of Linux: what they leave to this process of cores and memory.

A process is in one group of each hierarchy, and bound by the limits of that group and of all above
it. There is a hierarchy for each resource in version 1, one for all in version 2, and both may be
there. The system says where they are mounted: in a container, at a group below the root perhaps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

PROCESS = Path("/proc/self")


def cpu_quota(process: Path = PROCESS) -> float:
    """Cores by the least quota; inf where there is none."""
    return min((_cores(group) for group in _groups("cpu", process)), default=math.inf)


def memory_left(process: Path = PROCESS) -> float:
    """Bytes up to the nearest limit, with those of files that the system would give back."""
    return min((_left(group) for group in _groups("memory", process)), default=math.inf)


def _cores(group: Path) -> float:
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)  # ValueError for "max"
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf


def _left(group: Path) -> float:
    for limit, used, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        with suppress(OSError, ValueError):
            left = int((group / limit).read_text()) - int((group / used).read_text())
            return left + _of_files(group, prefix)
    return math.inf


def _of_files(group: Path, prefix: str) -> int:
    """Bytes of files that are held because there was room for them."""
    with suppress(OSError, ValueError):
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        stat = {name: int(number) for name, number in lines}
        return sum(stat.get(f"{prefix}{state}_file", 0) for state in ("active", "inactive"))
    return 0


@functools.cache
def _groups(resource: str, process: Path) -> list[Path]:
    """Folders of the groups that this process is in, and of those above them."""
    found = []
    with suppress(OSError, ValueError):
        own = dict(_own_groups(resource, process))
        for root, mounted, version_2 in _hierarchies(resource, process):
            if version_2 in own:
                group = PurePosixPath(own[version_2])
                inner = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
                folder = mounted / inner
                found += [folder, *folder.parents[: len(inner.parts)]]
    return found


def _own_groups(resource: str, process: Path) -> Iterator[tuple[bool, str]]:
    """Whether of version 2, and the group: lines like ``4:cpu,cpuacct:/group`` or ``0::/group``."""
    for line in (process / "cgroup").read_text().splitlines():
        _, resources, group = line.split(":", 2)
        if not resources or resource in resources.split(","):
            yield not resources, group


def _hierarchies(resource: str, process: Path) -> Iterator[tuple[str, Path, bool]]:
    """Group at the root of a mount, its folder, and whether it is of version 2: see proc(5)."""
    for line in (process / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = [*after.split(" "), "", ""][:3]
        if kind == "cgroup2" or (kind == "cgroup" and resource in options.split(",")):
            root, mounted = before.split(" ")[3:5]
            yield root, Path(mounted), kind == "cgroup2"
