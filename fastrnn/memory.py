"""Memory: what is left of it, and the budget a caller may set for a call."""

from __future__ import annotations

import math
import operator
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

# A request below this is not held against the memory that is left.
UNCHECKED = 1 << 28


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


def check_memory(what: str, shape: tuple[int, ...], dtype: DTypeLike, instead: str) -> None:
    """MemoryError before anything is allocated that would not fit."""
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed > UNCHECKED and needed > (available := available_memory()):
        raise MemoryError(
            f"{what} of shape {shape} need {needed / 1e9:.3g} GB, {available / 1e9:.3g} GB are "
            f"available; use {instead}"
        )


def available_memory() -> float:
    """Bytes this process may still take, by the system and the control group; inf if unknown."""
    available = math.inf
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = 1024.0 * int(line.split()[1])
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        available = min(available, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return available
