"""The fast parser of long texts; needs pyarrow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastrnn.text.dialect import Dialect


def values(text: str, dialect: Dialect) -> NDArray[np.float64]:
    """Values of the column, NaN for gaps; ValueError where a cell is neither, ImportError."""
    from pyarrow import BufferReader, csv, float64

    data = text.encode()
    names = [str(i) for i in range(len(dialect.names))]
    wanted = str(dialect.index)
    table = csv.read_csv(
        BufferReader(data),
        # In one block: the types of its first rows are never guessed.
        csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
        csv.ParseOptions(
            delimiter=dialect.separator, ignore_empty_lines=False, newlines_in_values='"' in text
        ),
        csv.ConvertOptions(
            include_columns=[wanted],
            column_types={wanted: float64()},
            null_values=[*dialect.gaps, *(mark.upper() for mark in dialect.gaps), "NaN"],
            decimal_point=dialect.decimal,
        ),
    )
    return np.asarray(table.column(0).to_numpy(), np.float64)
