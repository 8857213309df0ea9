"""Memory: what is left of it, and the budget a caller may set for a call."""

from __future__ import annotations

import math
import operator
import os
from contextlib import suppress
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from fastrnn.control_groups import memory_left

# A request below this is not held against the memory that is left.
UNCHECKED = 1 << 28
# What to do where memory ends in the middle of a call.
LESS = "fewer sequences or nets a call"


def byte_budget(memory: SupportsIndex | None) -> int | None:
    """The argument ``memory``, checked."""
    if memory is None:
        return None
    if isinstance(memory, bool):
        raise TypeError("memory must be a number of bytes, got a bool")
    try:
        budget = operator.index(memory)
    except TypeError:
        raise TypeError(
            f"memory must be a whole number of bytes, got {type(memory).__name__}"
        ) from None
    if budget <= 0:
        raise ValueError(f"memory must be a positive number of bytes, got {budget}")
    return budget


class BudgetTooSmall(ValueError):
    """Not even the slowest way keeps to a budget."""

    def __init__(self, memory: int, needed: int) -> None:
        super().__init__(f"memory must be at least {needed} bytes for this job, got {memory}")
        self.needed = needed


def check_memory(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> None:
    """MemoryError before anything is allocated that would not fit."""
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed > UNCHECKED and needed > (available := available_memory()):
        raise MemoryError(
            f"{what} of shape {shape} need {needed / 1e9:.3g} GB, {available / 1e9:.3g} GB are "
            f"available; use {instead}"
        )


def with_advice(error: MemoryError) -> MemoryError:
    """An error of the system's, or one that says what to do already, with what to do."""
    if "; use " in str(error):
        return error
    return MemoryError(f"{str(error) or 'out of memory'}; use {LESS}")


def available_memory() -> float:
    """Bytes this process may still take: by the system, its control groups and its own limits."""
    return max(0.0, min(_system_memory(), memory_left(), _within_limits()))


def _system_memory() -> float:
    """Bytes that are free or can be made so; all there are where that is not known."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    with suppress(AttributeError, OSError, ValueError):  # Windows has no sysconf
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    return math.inf


def _within_limits() -> float:
    """Bytes up to the process' own limits (``ulimit -v`` and ``-d``), on Linux."""
    left = math.inf
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        status = Path("/proc/self/status").read_text()
        for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
            bytes_, _ = resource.getrlimit(limit)
            if bytes_ != resource.RLIM_INFINITY:
                left = min(left, bytes_ - 1024 * int(status.partition(f"{used}:")[2].split()[0]))
    return left
