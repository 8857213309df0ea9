"""Scaled: numbers far outside the range of floats, as mantissa * 2**exponent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

LN_2 = math.log(2.0)
LOG10_2 = math.log10(2.0)
LOG10_2_DIGITS = Decimal(
    "0.30102999566398119521373889472449302676818988146210854131042746112710818927442450948692725"
)
# Past this many binades a float64 is 0 or inf whatever its mantissa.
FLOAT_BINADES = 2200.0


@dataclass(frozen=True, eq=False, repr=False)
class Scaled:
    """An array of numbers mantissa * 2**exponent, of any magnitude up to 2**(1e300).

    Zero has mantissa 0: its sign is 0 and its logarithm -inf, as in `numpy.linalg.slogdet`, and
    so it is told apart from what is merely tiny. inf and NaN are mantissas too.

    Parameters
    ----------
    mantissa : array_like of float32 or float64
        Normalised on entry to an absolute value in [1, 2).
    exponent : array_like, same shape, default 0
        Integers, kept as float64.

    Raises
    ------
    TypeError
        If handed to NumPy as an array: say ``.to_float()`` and accept 0 and inf.

    Examples
    --------
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
    """

    mantissa: NDArray[Any]
    exponent: NDArray[np.float64]

    # Makes NumPy leave `array * scaled` to Scaled.
    __array_ufunc__ = None

    def __init__(self, mantissa: ArrayLike, exponent: ArrayLike = 0.0) -> None:
        value = np.asarray(mantissa)
        if value.dtype.kind not in "biuf":
            raise TypeError(f"mantissa must be real numbers, got {value.dtype}")
        if value.dtype not in (np.float32, np.float64):
            value = value.astype(np.float64)
        finite = np.isfinite(value)
        wrong = np.asarray(exponent) != np.rint(exponent)
        if wrong.any() and (wrong & finite).any():
            bad = np.broadcast_to(exponent, value.shape)[wrong & finite].flat[0]
            raise ValueError(f"exponent must be integers, got {bad}")
        fraction, shift = np.frexp(value)
        exact = finite & (value != 0)
        power = np.where(exact, np.asarray(exponent, np.float64) + (shift - 1), 0.0)
        normal = np.asarray(np.where(exact, 2 * fraction, value))
        self._set(normal, np.broadcast_to(power, value.shape))

    def _set(self, mantissa: NDArray[Any], exponent: NDArray[np.float64]) -> None:
        mantissa.flags.writeable = False
        object.__setattr__(self, "mantissa", mantissa)
        object.__setattr__(self, "exponent", exponent)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.mantissa.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.mantissa.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Float type of the mantissa."""
        return self.mantissa.dtype

    @property
    def sign(self) -> Any:
        """-1, 0 or 1 (NaN for NaN)."""
        return np.sign(self.mantissa)

    def log(self) -> Any:
        """Natural logarithm of the absolute value, in float64; -inf for zero."""
        return self._log(np.log, LN_2)

    def log10(self) -> Any:
        """Decimal logarithm of the absolute value, in float64; -inf for zero."""
        return self._log(np.log10, LOG10_2)

    def to_float(self) -> Any:
        """The nearest floats; 0 or inf where the range of the type ends."""
        binades = np.clip(self.exponent, -FLOAT_BINADES, FLOAT_BINADES).astype(np.int32)
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(self.mantissa, binades)

    def astype(self, dtype: DTypeLike) -> Scaled:
        """With the mantissa rounded to another float type."""
        same = self.dtype == dtype
        return self if same else Scaled(self.mantissa.astype(dtype), self.exponent)

    def reshape(self, *shape: int) -> Scaled:
        """The same numbers in another shape."""
        return already_normal(self.mantissa.reshape(shape), self.exponent.reshape(shape))

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Scaled:
        """Sum over ``axis`` (all axes by default), aligned to the largest exponent."""
        top = np.max(_exponent_of_nonzero(self), axis=axis, keepdims=True, initial=-np.inf)
        top = np.where(np.isfinite(top), top, 0.0)
        total = np.asarray(Scaled(self.mantissa, self.exponent - top).to_float().sum(axis=axis))
        return Scaled(total, top.reshape(total.shape))

    def prod(self, axis: int | None = None) -> Scaled:
        """Product over ``axis`` (all axes by default)."""
        return self._fold(axis, lambda a, b: a * b, Scaled(np.ones(1, self.dtype)))

    def max(self, axis: int | None = None) -> Scaled:
        """The largest over ``axis`` (all axes by default); NaN where there is one."""
        return self._fold(axis, lambda a, b: _where(_less(a, b) | np.isnan(b.mantissa), b, a))

    def min(self, axis: int | None = None) -> Scaled:
        """The smallest over ``axis`` (all axes by default); NaN where there is one."""
        return self._fold(axis, lambda a, b: _where(_less(b, a) | np.isnan(b.mantissa), b, a))

    def _fold(
        self, axis: int | None, combine: Callable[[Scaled, Scaled], Scaled], empty: Any = None
    ) -> Scaled:
        """Halves of an axis combined until one is left."""
        parts = self.mantissa, np.broadcast_to(self.exponent, self.shape)
        if axis is None:
            parts, axis = (parts[0].ravel(), parts[1].ravel()), 0
        left = already_normal(*(np.moveaxis(part, axis, 0) for part in parts))
        if len(left) == 0:
            if empty is None:
                raise ValueError("an empty Scaled array has no largest or smallest number")
            return Scaled(np.broadcast_to(empty.mantissa[0], left.shape[1:]))
        while len(left) > 1:
            half = len(left) // 2
            pairs = combine(left[:half], left[half : 2 * half])
            odd = left[2 * half :]
            left = already_normal(
                np.concatenate([pairs.mantissa, odd.mantissa]),
                np.concatenate([pairs.exponent, odd.exponent]),
            )
        return left[0]

    def __add__(self, other: Scaled | ArrayLike) -> Scaled:
        other = _scaled(other, self.dtype)
        top = np.maximum(_exponent_of_nonzero(self), _exponent_of_nonzero(other))
        top = np.where(np.isfinite(top), top, 0.0)
        aligned = (Scaled(term.mantissa, term.exponent - top).to_float() for term in (self, other))
        return Scaled(sum(aligned), top)

    __radd__ = __add__

    def __sub__(self, other: Scaled | ArrayLike) -> Scaled:
        return self + -_scaled(other, self.dtype)

    def __rsub__(self, other: ArrayLike) -> Scaled:
        return -self + other

    def __abs__(self) -> Scaled:
        return already_normal(np.abs(self.mantissa), self.exponent)

    def __neg__(self) -> Scaled:
        return already_normal(-self.mantissa, self.exponent)

    def __mul__(self, other: Scaled | ArrayLike) -> Scaled:
        other = _scaled(other, self.dtype)
        return Scaled(self.mantissa * other.mantissa, self.exponent + other.exponent)

    __rmul__ = __mul__

    def __truediv__(self, other: Scaled | ArrayLike) -> Scaled:
        other = _scaled(other, self.dtype)
        with np.errstate(divide="ignore", invalid="ignore"):
            return Scaled(self.mantissa / other.mantissa, self.exponent - other.exponent)

    def __rtruediv__(self, other: ArrayLike) -> Scaled:
        return _scaled(other, self.dtype) / self

    def __eq__(self, other: object) -> Any:
        other = _scaled(other)
        return (self.mantissa == other.mantissa) & (self.exponent == other.exponent)

    def __ne__(self, other: object) -> Any:
        return ~(self == other)

    def __lt__(self, other: Scaled | ArrayLike) -> Any:
        return _less(self, _scaled(other))

    def __gt__(self, other: Scaled | ArrayLike) -> Any:
        return _less(_scaled(other), self)

    def __le__(self, other: Scaled | ArrayLike) -> Any:
        return (self < other) | (self == other)

    def __ge__(self, other: Scaled | ArrayLike) -> Any:
        return (self > other) | (self == other)

    __hash__ = None  # type: ignore[assignment]  # equality is elementwise

    def __getitem__(self, key: Any) -> Scaled:
        return already_normal(self.mantissa[key], self.exponent[key])

    def __iter__(self) -> Iterator[Scaled]:
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.mantissa)

    def __bool__(self) -> bool:
        return bool(self.mantissa)

    def __float__(self) -> float:
        return float(self.to_float())

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        raise TypeError(
            "Scaled numbers may lie outside the range of floats: say .to_float() for the nearest "
            "floats, or .log10() and .sign"
        )

    def __format__(self, spec: str) -> str:
        """A single number in scientific form; ``spec`` is that of a float, as ``.3e``."""
        if self.shape:
            raise TypeError(f"only a single Scaled number can be formatted, got {self.shape}")
        return _decimal(float(self.mantissa), float(self.exponent), spec or ".3e")

    def __repr__(self) -> str:
        def text(index: Any) -> str:
            return _decimal(self.mantissa.flat[index], self.exponent.flat[index], ".3e")

        # NumPy lays out the indices; only those it shows are turned into text.
        indices = np.arange(self.mantissa.size).reshape(self.shape)
        return np.array2string(indices, separator=", ", formatter={"int": text})

    def _log(self, log: np.ufunc, log_2: float) -> Any:
        with np.errstate(divide="ignore"):
            return log(np.abs(self.mantissa), dtype=np.float64) + self.exponent * log_2


def already_normal(mantissa: ArrayLike, exponent: ArrayLike) -> Scaled:
    """As `Scaled`, of a float array normalised as that says: neither looked at nor copied."""
    result = object.__new__(Scaled)
    result._set(np.asarray(mantissa), np.asarray(exponent))
    return result


def _scaled(value: Any, dtype: DTypeLike | None = None) -> Scaled:
    """As Scaled; Python numbers take the type of what they meet, as in NumPy."""
    if isinstance(value, Scaled):
        return value
    found = Scaled(value)
    return found.astype(dtype) if dtype is not None and type(value) in (int, float) else found


def _where(mask: NDArray[np.bool_], a: Scaled, b: Scaled) -> Scaled:
    return already_normal(
        np.where(mask, a.mantissa, b.mantissa), np.where(mask, a.exponent, b.exponent)
    )


def _exponent_of_nonzero(value: Scaled) -> NDArray[np.float64]:
    """Exponents, -inf of zero."""
    return np.where(value.mantissa == 0, -np.inf, value.exponent)


def _less(a: Scaled, b: Scaled) -> Any:
    """a < b: by sign, then by exponent, then by mantissa."""
    exponent_a = np.where(np.isinf(a.mantissa), np.inf, a.exponent)
    exponent_b = np.where(np.isinf(b.mantissa), np.inf, b.exponent)
    same = exponent_a == exponent_b
    sign = np.sign(a.mantissa)
    nearer = (exponent_a < exponent_b) | (same & (abs(a.mantissa) < abs(b.mantissa)))
    farther = (exponent_a > exponent_b) | (same & (abs(a.mantissa) > abs(b.mantissa)))
    within = np.where(sign > 0, nearer, farther & (sign < 0))
    return np.where(sign == np.sign(b.mantissa), within, sign < np.sign(b.mantissa))


def _decimal(mantissa: float, exponent: float, spec: str) -> str:
    """mantissa * 2**exponent in decimal scientific form, its digits exact at any exponent."""
    if mantissa == 0.0 or not math.isfinite(mantissa):
        return format(mantissa, spec)
    digits = Context(prec=len(str(int(abs(exponent)))) + 25)
    if digits.prec > len(LOG10_2_DIGITS.as_tuple().digits):
        # log10(2) is known to 87 digits here; past that the exponent says it all.
        return f"{'-' if mantissa < 0 else ''}2**{exponent:.6g}"
    log10 = digits.multiply(Decimal(exponent), LOG10_2_DIGITS)
    power = math.floor(log10)
    lead = mantissa * 10.0 ** float(digits.subtract(log10, Decimal(power)))
    text, _, shift = format(lead, spec).partition("e")
    if not shift:
        raise ValueError(f"a Scaled number is formatted with an 'e' format, got {spec!r}")
    return f"{text}e{power + int(shift):+03d}"


def exp(u: ArrayLike) -> Scaled:
    """exp(u) at any u; -inf gives 0."""
    u = np.asarray(u, np.float64)
    finite = np.isfinite(u)
    exponent = np.rint(np.where(finite, u, 0.0) / LN_2)
    # From |u| = 2**52 on u no longer says where in its binade exp(u) lies.
    rest = np.clip(np.where(finite, u, 0.0) - exponent * LN_2, -LN_2, LN_2)
    with np.errstate(over="ignore"):
        return Scaled(np.where(finite, np.exp(rest), np.exp(u)), exponent)
