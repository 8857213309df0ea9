"""What all verbs share: standard arithmetic, and advice where memory ends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fastrnn.kernels.arithmetic import WAS_STANDARD, make_standard, restore
from fastrnn.memory import with_advice

P = ParamSpec("P")
R = TypeVar("R")


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Compute in standard arithmetic, whatever the caller's is, and leave that as it was.

    Where a caller's thread takes subnormal numbers for 0, as after
    ``torch.set_flush_denormal(True)``, or rounds to another side, results would be others.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        before = WAS_STANDARD
        try:
            before = make_standard()
            return function(*args, **kwargs)
        except MemoryError as error:
            advised = with_advice(error)
            if advised is error:
                raise
            raise advised from error
        finally:
            if before != WAS_STANDARD:
                restore(before)

    return call
