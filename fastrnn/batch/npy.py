"""Arrays in .npy files, mapped into memory and never unpickled."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from fastrnn.batch.regular import open_regular
from fastrnn.checks import FloatArray


def map_npy(path: Path, *, follow: bool = True) -> FloatArray:
    """The array in a file, of which only what is used comes into memory.

    ValueError if it is no array of numbers, OSError if it is no file.
    """
    with open_regular(path, follow=follow) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, by_columns, dtype = read(file)
            if dtype.hasobject:
                raise ValueError("objects")
            order = "F" if by_columns else "C"
            return np.memmap(file, dtype, "r", file.tell(), shape, order)  # type: ignore[call-overload, no-any-return]
        # The header is parsed as Python, which can fail in as many ways as it can be nested.
        except Exception as error:
            if isinstance(error, OSError):
                raise
            raise ValueError(f"{path.name} must be a readable .npy array of numbers") from None
