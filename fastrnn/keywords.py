"""Misspelt keywords: the error of Python, with the closest name that there is."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def suggests_keywords(function: Function) -> Function:
    """Let errors of unknown keywords suggest the closest, as Python does from 3.13 on."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except TypeError as error:
            better = with_closest(error, function, options)
            if better is error:
                raise
            raise better from None

    return call  # type: ignore[return-value]


def with_closest(
    error: TypeError, function: Callable[..., Any], options: dict[str, Any]
) -> TypeError:
    """The error of a call of ``function``, if it is one, with the name that may be meant."""
    # An error of the call itself has come through no other frame.
    if error.__traceback__ is None or error.__traceback__.tb_next is not None:
        return error
    known = inspect.signature(function).parameters
    unknown = next((name for name in options if name not in known), None)
    close = [] if unknown is None else difflib.get_close_matches(unknown, known, n=1)
    if not close or "Did you mean" in str(error):
        return error
    return TypeError(f"{error}. Did you mean {close[0]!r}?")
