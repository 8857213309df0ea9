"""Misspelt keywords: the error of Python, with the closest name that there is."""

from __future__ import annotations

import difflib
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def suggests_keywords(function: Function) -> Function:
    """Let errors of unknown keywords suggest the closest, as Python does from 3.13 on.

    A call takes 0.2 to 0.4 us longer. Signature, docstring and pickling are those of ``function``.
    """
    improved = _improved

    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except TypeError as error:
            # An error of the call itself has come through no other frame.
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise
            raise improved(error, function, options) from None

    # With the globals of its own module, doctest finds the function's examples there.
    names: dict[str, Any] = function.__globals__
    own = types.FunctionType(call.__code__, names, closure=call.__closure__)
    wrapper: Any = functools.wraps(function)(own)
    return wrapper  # type: ignore[no-any-return]


def _improved(error: TypeError, function: Callable[..., Any], options: Any) -> TypeError:
    known = inspect.signature(function).parameters
    unknown = next((name for name in options if name not in known), None)
    close = [] if unknown is None else difflib.get_close_matches(unknown, known, n=1)
    if not close or "Did you mean" in str(error):
        return error
    return TypeError(f"{error}. Did you mean {close[0]!r}?")
