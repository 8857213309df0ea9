"""The libraries that sweeps need and fastrnn does not install by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("xarray", "zarr")


@contextmanager
def sweep_extra() -> Iterator[None]:
    """Within, a library that is missing is told of with the way to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in LIBRARIES:
            raise
        message = f"sweeps need {error.name}: python -m pip install 'fastrnn[sweep]'"
        raise ModuleNotFoundError(message, name=error.name) from None
