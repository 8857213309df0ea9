"""What all verbs share: standard arithmetic, and advice for memory that ends and misspelt names."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from fastrnn.kernels.arithmetic import WAS_STANDARD, make_standard, restore
from fastrnn.keywords import with_closest
from fastrnn.memory import with_advice

P = ParamSpec("P")
R = TypeVar("R")


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Compute in standard arithmetic, whatever the caller's is, and leave that as it was.

    Where a caller's thread takes subnormal numbers for 0, as after
    ``torch.set_flush_denormal(True)``, or rounds to another side, results would be others.
    Signature, docstring and pickling are those of ``function``.
    """
    begin, end, standard = make_standard, restore, WAS_STANDARD
    closest, advised = with_closest, with_advice

    def call(*args: Any, **options: Any) -> Any:
        before = standard
        try:
            before = begin()
            return function(*args, **options)
        except TypeError as error:
            better = closest(error, function, options)
            if better is error:
                raise
            raise better from None
        except MemoryError as error:
            more = advised(error)
            if more is error:
                raise
            raise more from error
        finally:
            if before != standard:
                end(before)

    # With the globals of its own module, doctest finds the function's examples there.
    names: dict[str, Any] = function.__globals__
    own = types.FunctionType(call.__code__, names, closure=call.__closure__)
    return functools.wraps(function)(own)
