"""Pairs of arrays, mantissas and exponents, that look like one array to Python and to NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastrnn.scaled_numpy import (
    JOINS,
    METHODS,
    MOVES,
    OF_MANTISSAS,
    OTHERS,
    POWERS,
    REDUCTIONS,
    UFUNCS,
)
from fastrnn.scaled_parts import Axis, Pair

# Python's own numbers take the float type of what they meet, as in NumPy.
WEAK = (bool, int, float)
INSTEAD = (
    "Scaled numbers may lie outside the range of floats: say .to_float() for the nearest floats, "
    "or .log10() and .sign"
)


class PairArray:
    """Shapes, indices and moves of numbers are NumPy's, done to both parts."""

    mantissa: NDArray[Any]
    exponent: NDArray[np.float64]

    def _set(self, mantissa: NDArray[Any], exponent: NDArray[np.float64]) -> None:
        for name, part in (("mantissa", mantissa), ("exponent", exponent)):
            own = part.view()
            own.flags.writeable = False
            object.__setattr__(self, name, own)

    @classmethod
    def _of(cls, parts: Pair) -> Self:
        """An array of parts that are normal: neither looked at nor copied."""
        result = object.__new__(cls)
        result._set(*parts)
        return result

    @classmethod
    def _from(cls, value: Any, dtype: np.dtype[Any] | None = None) -> Any:
        """Any number or array of this class; Python's numbers with the type of what they meet."""
        if isinstance(value, cls):
            return value
        found: Any = cls(value)  # type: ignore[call-arg]
        return found.astype(dtype) if dtype is not None and type(value) in WEAK else found

    @property
    def _parts(self) -> Pair:
        return self.mantissa, self.exponent

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.mantissa.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.mantissa.ndim

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.mantissa.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Float type of the mantissa."""
        return self.mantissa.dtype

    @property
    def T(self) -> Self:
        """With its axes in reverse."""
        return self.transpose()

    def copy(self) -> Self:
        """The same numbers in memory of their own."""
        return self._moved(np.copy)

    def item(self) -> Self:
        """The only number of an array, without axes."""
        if self.size != 1:
            raise ValueError(f"only an array of one number has an item, got shape {self.shape}")
        return self.reshape(())

    def tolist(self) -> Any:
        """The numbers, each an array without axes, in nested lists."""
        return [row.tolist() for row in self] if self.ndim else self

    def reshape(self, *shape: Any) -> Self:
        """The same numbers in another shape."""
        return self._moved(np.reshape, shape[0] if len(shape) == 1 else shape)

    def ravel(self) -> Self:
        """The same numbers along one axis."""
        return self._moved(np.ravel)

    flatten = ravel

    def transpose(self, *axes: Any) -> Self:
        """With its axes in another order, by default in reverse."""
        return self._moved(np.transpose, axes[0] if len(axes) == 1 else axes or None)

    def swapaxes(self, axis1: int, axis2: int) -> Self:
        """With two axes in each other's place."""
        return self._moved(np.swapaxes, axis1, axis2)

    def squeeze(self, axis: Axis = None) -> Self:
        """Without axes of length 1."""
        return self._moved(np.squeeze, axis)

    def __getitem__(self, key: Any) -> Self:
        return self._of((np.asarray(self.mantissa[key]), np.asarray(self.exponent[key])))

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.mantissa)

    def __contains__(self, value: object) -> bool:
        return bool(np.any(self == value))

    def _moved(self, function: Callable[..., Any], *args: Any, **options: Any) -> Self:
        """What a function that moves numbers and changes none makes of both parts."""
        return self._join(function, self, *args, **options)

    @classmethod
    def _join(cls, function: Callable[..., Any], *args: Any, **options: Any) -> Self:
        mantissa, exponent = (
            function(*(_part(value, name) for value in args), **options)
            for name in ("mantissa", "exponent")
        )
        if mantissa is exponent:
            raise TypeError(f"numpy.{function.__name__} of Scaled numbers needs two arrays to fill")
        return cls._of((np.asarray(mantissa), np.asarray(exponent)))

    def __array__(self, *args: Any, **options: Any) -> NDArray[Any]:
        raise TypeError(INSTEAD)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "reduce" and ufunc in REDUCTIONS:
            return getattr(self, REDUCTIONS[ufunc])(**{"axis": 0, **options})
        if method != "__call__" or options or ufunc not in (*UFUNCS, *POWERS):
            raise _unknown(ufunc.__name__, options, "" if method == "__call__" else f".{method}")
        if ufunc in POWERS:
            base, power = inputs
            return self._from(base) ** power
        return UFUNCS[ufunc](*[self._from(value, self.dtype) for value in inputs])

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if not args or "out" in options or "dtype" in options:
            raise _unknown(function.__name__, options)
        first, *rest = args
        if function in METHODS:
            return getattr(first, METHODS[function])(*rest, **options)
        if function in OF_MANTISSAS:
            return function(first.mantissa, *rest, **options)
        if function in MOVES:
            return self._join(function, *args, **options)
        if function in JOINS:
            return self._join(function, [self._from(value) for value in first], *rest, **options)
        if function is np.where and len(args) == 3:
            mask = getattr(first, "mantissa", first)
            return self._join(np.where, mask, *(self._from(value, self.dtype) for value in rest))
        if function in OTHERS:
            count, call = OTHERS[function]
            own = [self._from(value, self.dtype) for value in args[:count]]
            return call(*own, *args[count:], **options)
        raise _unknown(function.__name__, options)


def _part(value: Any, name: str) -> Any:
    """A part of an array, or of each in a list; what is no such array as it is."""
    if isinstance(value, list):
        return [_part(each, name) for each in value]
    return getattr(value, name) if isinstance(value, PairArray) else value


def _unknown(name: str, options: Any, method: str = "") -> TypeError:
    if options:
        name = f"{name}({', '.join(f'{option}=' for option in options)})"
    return TypeError(f"numpy.{name}{method} is not defined for Scaled numbers. {INSTEAD}")
