"""User input to arrays of one type and shape, or one clear error.

Everything past this file may trust its arrays. Errors name the argument, what was expected and
what came.
"""

from __future__ import annotations

import difflib
import math
import numbers
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[Any]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
# Arguments that are sequences (B, T).
SEQUENCES = ("x", "y", "dh")


def float_array(name: str, value: ArrayLike) -> FloatArray:
    """``value`` as an aligned float32 or float64 array; never a copy where it is one already."""
    if type(value) is np.ndarray and value.dtype in FLOATS and value.flags.aligned:
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise _unsuitable(name, value) or _irregular(name, error) from None
    except (TypeError, RuntimeError) as error:
        raise _unsuitable(name, value) or _unreadable(name, error) from None
    if holds_masked(value, array.ndim):
        raise TypeError(
            f"{name} must not be a masked array: fill the gaps (numpy.ma.filled), or pass a "
            "shorter sequence with lengths="
        )
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    if array.dtype.newbyteorder("=") not in FLOATS:
        raise _unsuitable(name, value) or TypeError(
            f"{name} must be float32 or float64 (integers become float64), got {array.dtype}"
            f"{_contents(value, array)}"
        )
    return np.require(array, array.dtype.newbyteorder("="), "A")


def sequence_array(name: str, value: Any) -> FloatArray:
    """As `float_array`, of sequences (B, T): each column of a table is one, its rows are steps."""
    array = float_array(name, value)
    # pandas and polars alike; neither is imported for it.
    is_table = array.ndim == 2 and hasattr(value, "columns")
    return array.T if is_table else array


def holds_masked(value: Any, depth: int) -> bool:
    """Whether ``value`` is a masked array, or a list that holds one; its numbers are not read."""
    if isinstance(value, list | tuple) and depth > 1:
        return any(holds_masked(each, depth - 1) for each in value)
    return isinstance(value, np.ma.MaskedArray)


def _unsuitable(name: str, value: Any) -> TypeError | None:
    """The error for what is known to be no array of numbers, with what to do instead."""
    expected = f"{name} must be an array of numbers, got"
    if value is None:
        return TypeError(f"{expected} None")
    if isinstance(value, str | bytes | os.PathLike):
        advice = ": read a file with fastrnn.load_series" if name in SEQUENCES else ""
        return TypeError(f"{expected} {value!r}{advice}")
    if type(value).__name__ == "PackedSequence":
        return TypeError(
            f"{expected} a PackedSequence: unpack it with torch.nn.utils.rnn.pad_packed_sequence("
            "..., batch_first=True), and pass the lengths it gives as lengths="
        )
    if isinstance(value, Iterator):
        return TypeError(f"{expected} an iterator ({type(value).__name__}): numpy.stack its items")
    if isinstance(value, Mapping | Set):
        return TypeError(f"{expected} a {type(value).__name__}")
    return None


def _irregular(name: str, error: Exception) -> ValueError:
    """The error for lists of several lengths, and for what else NumPy makes no array of."""
    if "inhomogeneous" not in str(error):
        return ValueError(f"{name} must be an array of numbers: {error}")
    return ValueError(
        f"{name} must be a regular array of numbers, got a ragged one (pad shorter sequences, and "
        f"pass lengths=): {error}"
    )


def _unreadable(name: str, error: Exception) -> TypeError:
    """The error for what does not let NumPy have its numbers."""
    if type(error).__name__ == "TracerArrayConversionError":
        return TypeError(
            f"{name} must be an array of known numbers, got a JAX tracer, which has none yet: "
            "call outside of jit, vmap and grad, or through jax.pure_callback"
        )
    text = str(error)
    advice = " (a tensor: .detach().cpu())" if "ensor" in text else ""
    return TypeError(f"{name} must be an array of numbers in main memory{advice}: {text}")


def _contents(value: Any, array: NDArray[Any]) -> str:
    """What an array of objects holds first that is no number, and what to do about it."""
    if array.dtype != object:
        return ""
    if array.ndim == 0:
        return f" ({type(value).__name__})"
    strange = (item for item in array.flat if not isinstance(item, numbers.Number))
    kind = next((type(item).__name__ for item in strange), None)
    if kind is None:
        return ": convert it with astype(float)"
    is_table = array.ndim == 2 and hasattr(value, "columns")
    advice = ": pass its columns of numbers only" if is_table else ""
    return f" with {kind} in it{advice}"


def output_array(
    name: str, value: object, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: FloatArray
) -> FloatArray:
    """``value`` if results of that shape and type can be written to it while inputs are read."""
    if isinstance(value, np.ma.MaskedArray | np.matrix):
        raise TypeError(f"{name} must be a plain NumPy array, got {type(value).__name__}")
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{name} must be a NumPy array of {dtype}, got {got}")
    if value.shape != shape:
        raise ValueError(f"{name} must have the shape of the result {shape}, got {value.shape}")
    if not (value.flags.writeable and value.flags.aligned):
        raise ValueError(f"{name} must be a writeable, aligned array")
    if any(np.may_share_memory(value, array) for array in inputs):
        raise ValueError(f"{name} must not share memory with an input")
    return value


def cast(name: str, array: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    """Finite ``array`` as ``dtype``; a value that would become inf or 0 there is refused."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", under="ignore"):
        result = np.asarray(array, dtype)
    lost = ~np.isfinite(result) | ((result == 0) & (array != 0))
    if lost.any():
        raise ValueError(
            f"{name} must be representable in {dtype}, got {array[lost].flat[0]!s}: "
            "use float64 for weights and x"
        )
    return result


def require_shape(name: str, array: FloatArray, *expected: tuple[str, tuple[int, ...]]) -> None:
    """``array`` has one of the ``expected`` shapes, each given with its meaning in words."""
    shapes = [shape for _, shape in expected]
    if array.shape not in shapes:
        wanted = " or ".join(
            f"{meaning} = {shape}" if shape else "() (a number)" for meaning, shape in expected
        )
        hint = ""
        if array.ndim == 2 and array.shape[::-1] in shapes:
            of_tables = " (columns of a table are sequences)" if name in SEQUENCES else ""
            hint = f"; its transpose would fit{of_tables}"
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}{hint}")


def is_finite(array: FloatArray) -> bool:
    """Whether ``array`` has no inf and no NaN."""
    # A single number is worth no ufunc.
    return math.isfinite(array.item()) if array.size == 1 else bool(np.isfinite(array).all())


def require_finite(name: str, array: FloatArray) -> None:
    """``array`` has no inf and no NaN."""
    if not is_finite(array):
        bad = array[~np.isfinite(array)].flat[0]
        raise ValueError(f"{name} must be finite, got {bad}")


def choice(name: str, value: object, options: Sequence[str]) -> str:
    """``value`` if it is one of ``options``; the error suggests the closest."""
    if isinstance(value, str) and value in options:
        return value
    known = {option.lower(): option for option in options}
    close = difflib.get_close_matches(str(value).lower(), known, n=1)
    hint = f"; did you mean {known[close[0]]!r}?" if close else ""
    raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}{hint}")


def positive(name: str, value: object) -> int:
    """``value`` as a Python integer of at least 1."""
    return integer(name, value, 1)


def integer(name: str, value: object, least: int, expected: str = "") -> int:
    """``value`` as a Python integer of at least so many."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        article = "a " if isinstance(value, (bool, np.bool_)) else ""
        raise TypeError(f"{name} must be an integer, got {article}{type(value).__name__}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be {expected or f'at least {least}'}, got {number}")
    return number


def flag(name: str, value: object) -> bool:
    """``value`` if it is True or False; any text would count as true."""
    if not isinstance(value, bool | np.bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def wanted_fields(wrt: Iterable[str] | str, options: Sequence[str]) -> tuple[str, ...]:
    """``wrt`` as a tuple of known names."""
    if not isinstance(wrt, Iterable):
        raise TypeError(f"wrt must be names of {', '.join(options)}, got {type(wrt).__name__}")
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    return tuple(choice("wrt", name, options) for name in names)


def sequence_lengths(lengths: ArrayLike | None, batch_size: int, steps: int) -> NDArray[np.int64]:
    """``lengths`` (B,), or T for every sequence."""
    if lengths is None:
        return np.full(batch_size, steps, np.int64)
    if isinstance(lengths, np.ma.MaskedArray):
        raise TypeError("lengths must be integers, got a masked array")
    try:
        array = np.asarray(lengths)
    except ValueError:
        raise ValueError("lengths must be one integer a sequence, got a ragged array") from None
    except (TypeError, RuntimeError) as error:
        raise _unreadable("lengths", error) from None
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, got {array.dtype}")
    require_shape("lengths", array, ("(batch_size,)", (batch_size,)))
    wrong = (array < 0) | (array > steps)
    if wrong.any():
        raise ValueError(f"lengths must be from 0 to T = {steps}, got {array[wrong][0]}")
    return array.astype(np.int64)
