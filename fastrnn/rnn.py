"""RNN: the weights, checked once and for all."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.checks import FloatArray, cast, choice, float_array, require_finite, require_shape
from fastrnn.kernels import ACTIVATIONS
from fastrnn.keywords import suggests_keywords


class Weights(NamedTuple):
    """The weights in the one form all computation uses; a neuron is a layer of size 1."""

    w1: FloatArray  # (K, H, F)
    w2: FloatArray  # (K, H, H)
    b: FloatArray  # (K, H)
    w3: FloatArray  # (K, O, H)
    b3: FloatArray  # (K, O)


@dataclass(frozen=True, eq=False, repr=False)
class RNN:
    r"""A recurrent net: one scalar neuron, a hidden layer, or a bank of either.

    .. math:: h_t = f(W_1 x_t + W_2 h_{t-1} + b), \qquad \hat y_t = W_3 h_t + b_3

    and :math:`\hat y_t = h_t` where there is no read-out. The number of axes of ``w2`` tells
    what the net is; the other weights broadcast against its bank axis K. Sizes: K nets, F
    inputs, H hidden units, O outputs. All quantities are dimensionless.

    Parameters
    ----------
    w1 : array_like, shape () or (K,) for a neuron; (H, F) or (K, H, F) for a layer
        Input weight.
    w2 : array_like, shape () or (K,) for a neuron; (H, H) or (K, H, H) for a layer
        Feedback (recurrent) weight.
    b : array_like, shape () or (K,) for a neuron; (), (H,) or (K, H) for a layer
        Bias.
    activation : {"tanh", "relu", "sigmoid", "identity"}
        The function f.
    w3 : array_like, shape () or (K,) for a neuron; (O, H) or (K, O, H) for a layer, optional
        Read-out weight.
    b3 : array_like, shape () or (K,) for a neuron; (), (O,) or (K, O) for a layer, optional
        Read-out bias; only with ``w3``.

    Raises
    ------
    ValueError
        If a shape does not fit, a weight is not finite, or the activation is unknown.
    TypeError
        If a weight is neither float32, float64 nor integer.

    Notes
    -----
    Python numbers take the float type of the arrays they meet, as in NumPy; integer arrays are
    float64. Weights are read-only, in copies and unpickled nets too; `dataclasses.replace` makes a
    net with other ones. A layer in the sense of Elman, "Finding structure in time", Cognitive
    Science 14 (1990), section 2.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> fastrnn.RNN(w1=1.0, w2=0.9)
    RNN(a scalar neuron, activation='tanh')
    >>> fastrnn.RNN(w1=1.0, w2=np.geomspace(1e-3, 1e3, 1000), activation="relu")
    RNN(a bank of 1000 scalar neurons, activation='relu')
    >>> fastrnn.RNN(w1=np.ones((8, 2)), w2=np.eye(8), w3=np.ones((1, 8)))
    RNN(a layer of 8 hidden units, 2 inputs, 1 output, activation='tanh')
    >>> from dataclasses import replace
    >>> float(replace(fastrnn.RNN(w1=1.0, w2=0.9), w2=0.7).w2)
    0.7
    """

    w1: FloatArray
    w2: FloatArray
    b: FloatArray
    activation: str
    w3: FloatArray | None
    b3: FloatArray | None
    dtype: np.dtype[Any] | None = field(init=False)
    """Float type of the weights; None where all are Python numbers, which take that of x."""
    _weights: dict[np.dtype[Any], Weights] = field(init=False)
    """In the form that computation uses, by float type, as far as they have been asked for."""
    _kept: dict[Any, Any] = field(init=False)
    """What layers made of them, see `Layers.once`."""
    _jobs: dict[Any, Any] = field(init=False)
    """Small jobs by the form of their inputs, see `sequences`."""

    @suggests_keywords
    def __init__(
        self,
        w1: ArrayLike,
        w2: ArrayLike,
        b: ArrayLike = 0.0,
        *,
        activation: str = "tanh",
        w3: ArrayLike | None = None,
        b3: ArrayLike | None = None,
    ) -> None:
        if w3 is None and b3 is not None:
            raise ValueError(
                "b3 must come with w3: there is no read-out without its weight, and b3=None then"
            )
        given = {"w1": w1, "w2": w2, "b": b}
        if w3 is not None:
            given |= {"w3": w3, "b3": 0.0 if b3 is None else b3}
        arrays = {name: float_array(name, value) for name, value in given.items()}
        typed = [arrays[name].dtype for name in given if not _is_python_number(given[name])]
        dtype = np.result_type(*typed) if typed else None
        for name, array in arrays.items():
            require_finite(name, array)
            own = _PythonNumber.array(array) if dtype is None else cast(name, array, dtype).copy()
            own.flags.writeable = False
            object.__setattr__(self, name, own)
        if w3 is None:
            object.__setattr__(self, "w3", None)
            object.__setattr__(self, "b3", None)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "_weights", {})
        object.__setattr__(self, "_kept", {})
        object.__setattr__(self, "_jobs", {})
        object.__setattr__(self, "activation", choice("activation", activation, tuple(ACTIVATIONS)))
        self._check_shapes()

    def __reduce__(self) -> Any:
        """Copies and pickles are made anew of the weights: read-only, and with no cache."""
        given = {name: getattr(self, name) for name in self.weight_names}
        if self.dtype is None:
            given = {name: weight.item() for name, weight in given.items()}
        return partial(type(self), activation=self.activation, **given), ()

    def __repr__(self) -> str:
        if self.is_neuron:
            one, many = "a scalar neuron", "scalar neurons"
            sizes = ""
        else:
            one, many = f"a layer of {_count(self.hidden_size, 'hidden unit')}", "layers"
            sizes = f", {_count(self.input_size, 'input')}"
            if self.is_bank:
                sizes = f" of {_count(self.hidden_size, 'hidden unit')}{sizes}"
        if self.w3 is not None:
            sizes += f", {_count(self.output_size, 'output')}"
        what = f"a bank of {self.bank_size} {many}" if self.is_bank else one
        return f"RNN({what}{sizes}, activation={self.activation!r})"

    @property
    def is_neuron(self) -> bool:
        """Whether the net is a scalar neuron, or a bank of them."""
        return self.w2.ndim <= 1

    @property
    def is_bank(self) -> bool:
        """Whether results have a bank axis K."""
        return self.w2.ndim in (1, 3)

    @property
    def bank_size(self) -> int:
        """K, 1 for a single net."""
        return self.w2.shape[0] if self.is_bank else 1

    @property
    def hidden_size(self) -> int:
        """H, 1 for a neuron."""
        return 1 if self.is_neuron else self.w2.shape[-1]

    @property
    def input_size(self) -> int:
        """F, 1 for a neuron."""
        return 1 if self.is_neuron else self.w1.shape[-1]

    @property
    def output_size(self) -> int:
        """O, H where there is no read-out."""
        if self.w3 is None or self.is_neuron:
            return self.hidden_size
        return int(self.w3.shape[-2])

    @property
    def has_readout(self) -> bool:
        """Whether predictions are W3 h + b3 rather than h."""
        return self.w3 is not None

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Weights that predictions depend on."""
        return ("w1", "w2", "b", "w3", "b3") if self.has_readout else ("w1", "w2", "b")

    def weights(self, dtype: np.dtype[Any]) -> Weights:
        """All weights as contiguous read-only arrays of ``dtype`` with every axis; see `Weights`.

        A bias of 0 is carried as -0.0, which leaves every sum as it is, a sum of -0.0 too. The
        missing read-out of a neuron is 1 h + 0; that of a layer has no rows.
        """
        views = [weight.view() for weight in self._kernel_weights(dtype)]
        for view in views:
            view.flags.writeable = False
        return Weights(*views)

    def _kernel_weights(self, dtype: np.dtype[Any]) -> Weights:
        """The arrays behind `weights`, never to be written to.

        Numba compiles a kernel once more for arrays that are read-only: seconds each.
        """
        if dtype not in self._weights:
            self._weights[dtype] = self._in_full(dtype)
        return self._weights[dtype]

    def _in_full(self, dtype: np.dtype[Any]) -> Weights:
        k, h, f, o = self.bank_size, self.hidden_size, self.input_size, self.output_size
        unit, zero = np.ones(()), np.zeros(())
        if self.w3 is None and not self.is_neuron:
            o, unit = 0, np.ones((0, h))
        w3 = unit if self.w3 is None else self.w3
        b3 = zero if self.b3 is None else self.b3

        def full(name: str, array: FloatArray, *shape: int) -> FloatArray:
            if self.is_neuron:
                array = array.reshape(array.shape + (1,) * (len(shape) - 1))
            return np.full(shape, cast(name, array, dtype))

        def bias(name: str, array: FloatArray, *shape: int) -> FloatArray:
            return full(name, np.where(array == 0, -zero, array), *shape)

        return Weights(
            full("w1", self.w1, k, h, f),
            full("w2", self.w2, k, h, h),
            bias("b", self.b, k, h),
            full("w3", w3, k, o, h),
            bias("b3", b3, k, o),
        )

    def _check_shapes(self) -> None:
        if self.w2.ndim > 3:
            raise ValueError(
                "w2 must be scalar or (bank_size,) for a neuron, (hidden_size, hidden_size) or "
                f"(bank_size, hidden_size, hidden_size) for a layer, got shape {self.w2.shape}"
            )
        if 0 in self.w2.shape:
            raise ValueError(f"w2 must not be empty, got shape {self.w2.shape}")
        (self._check_neuron if self.is_neuron else self._check_layer)()

    def _check_neuron(self) -> None:
        for name in ("w1", "b", "w3", "b3"):
            array = getattr(self, name)
            if array is None or array.shape in ((), self.w2.shape):
                continue
            if self.is_bank:
                expected = f"scalar or (bank_size,) = {self.w2.shape} as w2"
            else:
                expected = "scalar as w2 (a bank has w2 of shape (bank_size,))"
            raise ValueError(f"{name} must be {expected}, got shape {array.shape}")

    def _check_layer(self) -> None:
        h = self.w2.shape[-2]
        bank = self.w2.shape[:-2]
        k = "bank_size, " if self.is_bank else ""
        square = ("(hidden_size, hidden_size)", (h, h))
        if self.is_bank:
            square = ("(bank_size, hidden_size, hidden_size)", (*bank, h, h))
        require_shape("w2", self.w2, square)

        def check(name: str, array: FloatArray, meaning: str, *shape: int) -> None:
            options = [(f"({meaning})", shape)]
            if self.is_bank:
                options.append((f"({k}{meaning})", (*bank, *shape)))
            require_shape(name, array, *options)

        # Without an axis of inputs there is one input.
        one = self.w1.ndim < 2 or (self.is_bank and self.w1.shape == (*bank, h))
        inputs = 1 if one else _size_beside(h, self.w1.shape[-2], self.w1.shape[-1])
        if inputs == 0:
            raise ValueError(f"w1 must have at least one input, got shape {self.w1.shape}")
        check("w1", self.w1, "hidden_size, input_size", h, inputs)
        if self.b.ndim:
            check("b", self.b, "hidden_size", h)
        if self.w3 is not None and self.b3 is not None:
            outputs = 1
            if self.w3.ndim > 1:
                outputs = _size_beside(h, self.w3.shape[-1], self.w3.shape[-2])
            if outputs == 0:
                raise ValueError(f"w3 must have at least one output, got shape {self.w3.shape}")
            check("w3", self.w3, "output_size, hidden_size", outputs, h)
            if self.b3.ndim:
                check("b3", self.b3, "output_size", outputs)


class _PythonNumber(bytes):
    """Memory of a weight that came as a Python number.

    The array is known by it when a net is made of another's weights, as `dataclasses.replace` does:
    such a weight still takes the float type of what it meets.
    """

    @classmethod
    def array(cls, number: FloatArray) -> FloatArray:
        return np.ndarray((), np.float64, cls(number.tobytes()))


def _is_python_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return isinstance(value.base, _PythonNumber)
    return isinstance(value, numbers.Real) and not isinstance(value, np.generic)


def _size_beside(h: int, hidden: int, other: int) -> int:
    """The size of a weight's other axis, also where its axes are in the wrong order."""
    return hidden if hidden != h and other == h else other


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def require_net(net: object) -> None:
    """``net`` is a net."""
    if not isinstance(net, RNN):
        raise TypeError(f"net must be a fastrnn.RNN, got {type(net).__name__}")
