"""Lines of a text file or a pipe, compressed or not, in any encoding; what is no text is named."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

STDIN = "-"

_EXCEL = "an Excel workbook: save the sheet as CSV (UTF-8)"
_UNPACK = "compressed in a way that is not read: unpack it, or compress it with gzip"
_ARRAYS = "an archive of arrays: save one array with numpy.save as .npy"
_HDF5 = "an HDF5 file: save one array with numpy.save as .npy"
_ARROW = "an Arrow file: write the table as Parquet or CSV"
_PICKLE = "a pickle, which may run any code when it is read: save the values as .npy or CSV"
# What is not read, by the end of its name and by how its bytes begin.
NOT_READ = {
    **dict.fromkeys((".xlsx", ".xlsm", ".xls"), _EXCEL),
    ".ods": "an OpenDocument spreadsheet: save the sheet as CSV (UTF-8)",
    **dict.fromkeys((".zip", ".bz2", ".xz", ".zst", ".7z"), _UNPACK),
    ".npz": _ARRAYS,
    **dict.fromkeys((".h5", ".hdf5", ".nc"), _HDF5),
    ".mat": "a MATLAB file: save one array with numpy.save as .npy",
    **dict.fromkeys((".feather", ".arrow"), _ARROW),
    **dict.fromkeys((".pkl", ".pickle"), _PICKLE),
    **dict.fromkeys((".json", ".jsonl"), "JSON: save the values as CSV"),
}  # fmt: skip
_BEGINNINGS = {
    b"PK\x03\x04": "a ZIP archive or " + _EXCEL,
    b"\xd0\xcf\x11\xe0": _EXCEL,
    b"BZh": _UNPACK,
    b"\xfd7zXZ": _UNPACK,
    b"\x28\xb5\x2f\xfd": _UNPACK,
    b"\x89HDF": _HDF5,
    b"ARROW1": _ARROW,
    b"PAR1": "a Parquet file: name it .parquet",
    b"\x93NUMPY": "a NumPy array: name it .npy",
}
_GZIP = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def open_lines(path: Path | None, name: str, encoding: str | None) -> Iterator[Iterator[str]]:
    """Lines of a file, or of standard input; ValueError where they are no text in an encoding."""
    with ExitStack() as stack:
        source = sys.stdin.buffer if path is None else stack.enter_context(path.open("rb"))
        file = _buffered(source)
        stack.callback(file.detach)  # standard input stays open
        try:
            if file.peek(2).startswith(_GZIP):
                file = _buffered(gzip.GzipFile(fileobj=file))
            _refuse_binary(name, file.peek(64), encoding)
            text = _decoded(file, encoding)
            stack.callback(text.detach)
            yield text
        except UnicodeError as error:
            raise _not_in(name, encoding, error) from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{name} is a damaged gzip file: {error}") from None


def _buffered(file: BinaryIO | gzip.GzipFile) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, file))


def _decoded(file: io.BufferedReader, encoding: str | None) -> io.TextIOWrapper:
    try:
        return io.TextIOWrapper(file, encoding="utf-8-sig" if encoding is None else encoding)
    except (LookupError, TypeError):
        raise ValueError(
            "encoding must be a text encoding that Python knows, as 'latin-1' or 'utf-16', got "
            f"{encoding!r}"
        ) from None


def _refuse_binary(name: str, beginning: bytes, encoding: str | None) -> None:
    for signature, what in _BEGINNINGS.items():
        if beginning.startswith(signature):
            raise ValueError(f"{name} is {what}")
    if encoding is None and beginning.startswith(_UTF_16):
        raise ValueError(
            f"{name} is UTF-16 text: choose encoding='utf-16' (on the command line "
            "--encoding utf-16)"
        )
    if encoding is None and b"\0" in beginning:
        raise ValueError(
            f"{name} is no UTF-8 text, it has zero bytes: a binary file, or UTF-16 text that "
            "encoding='utf-16-le' reads (on the command line --encoding utf-16-le)"
        )


def _not_in(name: str, encoding: str | None, error: UnicodeError) -> ValueError:
    reason = str(error)
    if isinstance(error, UnicodeDecodeError):
        reason = f"it has the byte 0x{error.object[error.start]:02x}"
    if encoding is not None:
        return ValueError(f"{name} is no text in the encoding {encoding!r}: {reason}")
    return ValueError(
        f"{name} is no UTF-8 text, {reason}: choose its encoding, as encoding='latin-1' for "
        "western European text (on the command line --encoding latin-1)"
    )
