"""Scaled: numbers far outside the range of floats, as mantissa * 2**exponent."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastrnn import scaled_parts
from fastrnn.checks import FLOATS, float_array
from fastrnn.scaled_array import WEAK, PairArray
from fastrnn.scaled_parts import LN_2, LOG10_2, Axis, Pair
from fastrnn.scaled_text import decimal_text

Result = TypeVar("Result")

# Integers of Python up to so many bits are floats.
INTEGER_BITS = 1000


def _operator(method: Callable[[Any, Any], Result]) -> Callable[[Any, Any], Result]:
    """Make the other side of an operator Scaled; what holds no numbers is left to Python."""

    @functools.wraps(method)
    def operate(self: Scaled, other: object) -> Any:
        try:
            right = Scaled._from(other, self.dtype)
        except TypeError:
            return NotImplemented
        return method(self, right)

    return operate


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(PairArray):
    """An array of numbers mantissa * 2**exponent, of any magnitude up to 2**(1e300).

    Zero has mantissa 0: its sign is 0 and its logarithm -inf, as in `numpy.linalg.slogdet`, and
    so it is told apart from what is merely tiny. inf and NaN are mantissas too.

    It is used as a NumPy array is: operators, indices, broadcasting, reductions and many of
    NumPy's functions (``np.sum``, ``np.sqrt``, ``np.where``, ``np.concatenate`` ...) work on it,
    and round to the type of the mantissa. Others, as ``np.sin``, raise TypeError; say
    ``.to_float()`` and accept 0 and inf. The parts are read-only.

    Parameters
    ----------
    mantissa : array_like of float32 or float64
        Normalised on entry to an absolute value in [1, 2).
    exponent : array_like, default 0
        Integers, kept as float64; broadcast against the mantissa. inf and -inf make inf and 0.

    Raises
    ------
    TypeError
        If a part is neither float32, float64 nor integer, or is a masked array.
    ValueError
        If the exponent of a finite number is not an integer, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import Scaled
    >>> tiny = Scaled(1.5, -180_000)
    >>> tiny
    5.982e-54186
    >>> float(tiny)
    0.0
    >>> bool(tiny > 0)
    True
    >>> float((tiny * tiny).log10())
    -108370.4...
    >>> np.sqrt(np.mean(Scaled([1.0, 2.0], [3000, 5000])))
    3.758e+752
    """

    mantissa: NDArray[Any]
    exponent: NDArray[np.float64]

    def __init__(self, mantissa: ArrayLike, exponent: ArrayLike = 0.0) -> None:
        lead, shift = _short(mantissa)
        own, beyond = _short(exponent)
        if beyond:
            raise ValueError(f"exponent must be within 2**{INTEGER_BITS}")
        value = float_array("mantissa", lead)
        power = float_array("exponent", own).astype(np.float64, copy=False) + shift
        if power.ndim and power.shape != value.shape:
            try:
                value, power = np.broadcast_arrays(value, power)
            except ValueError:
                raise ValueError(
                    f"exponent must broadcast with the mantissa's shape {value.shape}, got "
                    f"{power.shape}"
                ) from None
        self._set(*_checked(value, power))

    def __reduce__(self) -> Any:
        return already_normal, self._parts

    @property
    def sign(self) -> Any:
        """-1, 0 or 1 (NaN for NaN)."""
        return np.sign(self.mantissa)

    def log(self) -> Any:
        """Natural logarithm of the absolute value, in float64; -inf for zero."""
        return scaled_parts.logarithm(self._parts, np.log, LN_2)

    def log2(self) -> Any:
        """Binary logarithm of the absolute value, in float64; -inf for zero."""
        return scaled_parts.logarithm(self._parts, np.log2, 1.0)

    def log10(self) -> Any:
        """Decimal logarithm of the absolute value, in float64; -inf for zero."""
        return scaled_parts.logarithm(self._parts, np.log10, LOG10_2)

    def to_float(self) -> Any:
        """The nearest floats; 0 or inf where the range of the type ends."""
        return scaled_parts.floats(self._parts)

    def astype(self, dtype: DTypeLike) -> Scaled:
        """With the mantissa rounded to another float type."""
        wanted = np.dtype(dtype)
        if wanted not in FLOATS:
            raise TypeError(f"dtype must be float32 or float64, got {wanted}")
        if wanted == self.dtype:
            return self
        return Scaled._of(scaled_parts.normal(self.mantissa.astype(wanted), self.exponent))

    def sum(self, axis: Axis = None, *, keepdims: bool = False) -> Scaled:
        """Sum over ``axis`` (all axes by default), aligned to the largest exponent."""
        return Scaled._of(scaled_parts.total(self._parts, axis, keepdims))

    def mean(self, axis: Axis = None, *, keepdims: bool = False) -> Scaled:
        """Mean over ``axis`` (all axes by default); NaN where there is nothing."""
        total = self.sum(axis, keepdims=keepdims)
        return total / (self.size // max(1, total.size))

    def prod(self, axis: Axis = None, *, keepdims: bool = False) -> Scaled:
        """Product over ``axis`` (all axes by default)."""
        one = Scaled(np.ones((), self.dtype))
        return self._fold(axis, keepdims, lambda a, b: a * b, one)

    def max(self, axis: Axis = None, *, keepdims: bool = False) -> Scaled:
        """The largest over ``axis`` (all axes by default); NaN where there is one."""
        return self._fold(axis, keepdims, Scaled.maximum)

    def min(self, axis: Axis = None, *, keepdims: bool = False) -> Scaled:
        """The smallest over ``axis`` (all axes by default); NaN where there is one."""
        return self._fold(axis, keepdims, Scaled.minimum)

    def _fold(
        self,
        axis: Axis,
        keepdims: bool,
        combine: Callable[[Scaled, Scaled], Scaled],
        empty: Scaled | None = None,
    ) -> Scaled:
        """Halves of the numbers along some axes combined until one is left."""
        axes = normalize_axis_tuple(range(self.ndim) if axis is None else axis, self.ndim)
        front = self._moved(np.moveaxis, axes, range(len(axes)))
        shape = front.shape[len(axes) :]
        left = front.reshape(math.prod(front.shape[: len(axes)]), *shape)
        if len(left) == 0:
            if empty is None:
                raise ValueError("an empty Scaled array has no largest or smallest number")
            left = empty._moved(np.broadcast_to, (1, *shape))
        while len(left) > 1:
            half = len(left) // 2
            pairs = combine(left[:half], left[half : 2 * half])
            left = Scaled._join(np.concatenate, [pairs, left[2 * half :]])
        return left[0]._moved(np.expand_dims, tuple(sorted(axes))) if keepdims else left[0]

    def argmax(self, axis: int | None = None) -> Any:
        """Index of the first of the largest over ``axis`` (of all by default), or of NaN."""
        found = self == self.max(axis, keepdims=True)
        return np.argmax(found | np.isnan(self.mantissa), axis=axis)

    def argmin(self, axis: int | None = None) -> Any:
        """Index of the first of the smallest over ``axis`` (of all by default), or of NaN."""
        found = self == self.min(axis, keepdims=True)
        return np.argmax(found | np.isnan(self.mantissa), axis=axis)

    def argsort(self, axis: int | None = -1) -> NDArray[np.intp]:
        """Indices that sort along ``axis`` (all numbers if None); NaN comes last."""
        own, axis = (self.ravel(), 0) if axis is None else (self, axis)
        return scaled_parts.order(own._parts, axis)

    def sort(self, axis: int | None = -1) -> Scaled:
        """A new array, sorted along ``axis`` (all numbers if None); NaN comes last."""
        own, axis = (self.ravel(), 0) if axis is None else (self, axis)
        return own._moved(np.take_along_axis, own.argsort(axis), axis)

    def maximum(self, other: Scaled | ArrayLike) -> Scaled:
        """The larger of each pair; NaN where one is NaN."""
        right = Scaled._from(other, self.dtype)
        return Scaled._join(np.where, (self < right) | np.isnan(right.mantissa), right, self)

    def minimum(self, other: Scaled | ArrayLike) -> Scaled:
        """The smaller of each pair; NaN where one is NaN."""
        right = Scaled._from(other, self.dtype)
        return Scaled._join(np.where, (right < self) | np.isnan(right.mantissa), right, self)

    def sqrt(self) -> Scaled:
        """Square root; NaN of what is below 0."""
        return Scaled._of(scaled_parts.sqrt(self._parts))

    def __pow__(self, power: Any) -> Scaled:
        """Some units of the last place are lost; of powers p past 512, some p of them."""
        p = float_array("power", power)
        dtype = self.dtype if type(power) in WEAK else np.result_type(self.dtype, p.dtype)
        return Scaled._of(scaled_parts.power(self.astype(dtype)._parts, p))

    def __rpow__(self, base: Any) -> Scaled:
        raise TypeError("a power must be a float, got Scaled: say .to_float()")

    def __abs__(self) -> Scaled:
        return already_normal(np.abs(self.mantissa), self.exponent)

    def __neg__(self) -> Scaled:
        return already_normal(-self.mantissa, self.exponent)

    def __pos__(self) -> Scaled:
        return self

    @_operator
    def __add__(self, other: Any) -> Scaled:
        return Scaled._of(scaled_parts.add(self._parts, other._parts))

    @_operator
    def __sub__(self, other: Any) -> Scaled:
        return Scaled._of(scaled_parts.add(self._parts, (-other)._parts))

    @_operator
    def __rsub__(self, other: Any) -> Scaled:
        return Scaled._of(scaled_parts.add(other._parts, (-self)._parts))

    @_operator
    def __mul__(self, other: Any) -> Scaled:
        return Scaled._of(scaled_parts.multiply(self._parts, other._parts))

    @_operator
    def __truediv__(self, other: Any) -> Scaled:
        return Scaled._of(scaled_parts.divide(self._parts, other._parts))

    @_operator
    def __rtruediv__(self, other: Any) -> Scaled:
        return Scaled._of(scaled_parts.divide(other._parts, self._parts))

    __radd__ = __add__
    __rmul__ = __mul__

    @_operator
    def __eq__(self, other: Any) -> Any:
        return (self.mantissa == other.mantissa) & (self.exponent == other.exponent)

    @_operator
    def __ne__(self, other: Any) -> Any:
        return ~(self == other)

    @_operator
    def __lt__(self, other: Any) -> Any:
        return scaled_parts.less(self._parts, other._parts)

    @_operator
    def __gt__(self, other: Any) -> Any:
        return other < self

    @_operator
    def __le__(self, other: Any) -> Any:
        return (self < other) | (self == other)

    @_operator
    def __ge__(self, other: Any) -> Any:
        return (other < self) | (self == other)

    __hash__ = None  # type: ignore[assignment]  # equality is elementwise

    def __bool__(self) -> bool:
        return bool(self.mantissa)

    def __float__(self) -> float:
        if self.ndim:
            raise TypeError(f"only a single Scaled number is a float, got shape {self.shape}")
        return float(self.to_float())

    def __format__(self, spec: str) -> str:
        """A single number in scientific form; ``spec`` is that of a float, as ``.3e``."""
        if self.shape:
            raise TypeError(f"only a single Scaled number can be formatted, got {self.shape}")
        return decimal_text(float(self.mantissa), float(self.exponent), spec or ".3e")

    def __repr__(self) -> str:
        def text(index: Any) -> str:
            return decimal_text(self.mantissa.flat[index], self.exponent.flat[index], ".3e")

        # NumPy lays out the indices; only those it shows are turned into text.
        indices = np.arange(self.mantissa.size).reshape(self.shape)
        return np.array2string(indices, separator=", ", formatter={"int": text})


def already_normal(mantissa: ArrayLike, exponent: ArrayLike) -> Scaled:
    """A Scaled array of parts that are normal: neither looked at nor copied."""
    return Scaled._of((np.asarray(mantissa), np.asarray(exponent)))


def exp(u: ArrayLike) -> Scaled:
    """exp(u) at any u; -inf gives 0."""
    return Scaled._of(scaled_parts.exponential(np.asarray(u, np.float64)))


def _short(value: Any) -> tuple[Any, int]:
    """An integer of Python, of any length, as a float and a power of 2; others as they are."""
    if type(value) is not int:
        return value, 0
    shift = max(0, value.bit_length() - INTEGER_BITS)
    return float(value >> shift), shift


def _checked(value: NDArray[Any], power: NDArray[np.float64]) -> Pair:
    """Any parts in normal form; the exponents of finite numbers are integers."""
    finite = np.isfinite(value)
    wrong = power != np.rint(power)
    if wrong.any() and (wrong & finite).any():
        bad = np.broadcast_to(power, value.shape)[wrong & finite].flat[0]
        raise ValueError(f"exponent must be integers, got {bad}")
    return scaled_parts.normal(value, power)
