"""Properties that are found once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

Instance = TypeVar("Instance")

if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property(functools.cached_property):
        """`functools.cached_property` as it is from Python 3.12 on, without a lock.

        A child that is forked while another thread holds the lock waits for it forever. Two
        threads may find a value twice.
        """

        def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
            """The value, kept in the instance under the property's own name."""
            if instance is None:
                return self
            value = instance.__dict__[self.attrname] = self.func(instance)
            return value


def like(instance: Instance, **fields: Any) -> Instance:
    """The instance with other fields, and with all properties that were found so far."""
    copy = object.__new__(type(instance))
    copy.__dict__.update(instance.__dict__, **fields)
    return copy


__all__ = ["cached_property", "like"]
