"""Sequences: the input x with all that belongs to it, in the one form all computation uses.

Axes are named by letters: K nets of a bank, B sequences, T steps, F inputs, H hidden units, O
outputs, and X for the inputs as the caller's x has them. Computation always has all of them;
the caller sees those that net and x have.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.cached import like
from fastrnn.checks import (
    FloatArray,
    float_array,
    require_finite,
    require_shape,
    sequence_array,
    sequence_lengths,
)
from fastrnn.memory import LESS, check_memory
from fastrnn.rnn import RNN, Weights, require_net

Made = TypeVar("Made")

NAMES = {
    "K": "bank_size", "B": "batch_size", "T": "steps", "F": "input_size", "X": "input_size",
    "H": "hidden_size", "O": "output_size",
}  # fmt: skip

# More sequences a step than that, of fewer steps than these, look like a table taken on its side.
MANY_SEQUENCES = 100
FEW_STEPS = 10
# What results with these axes are called, and what to do where they do not fit into memory.
RESULTS = {
    "KBTH": ("states", f"{LESS} or keep='last' in forward"),
    "KBTF": ("gradients of x", LESS),
    "KBH": ("last states", LESS),
}
# Jobs of so many inputs and states are kept with their net, and so many jobs.
KEPT_NUMBERS, KEPT_JOBS = 1 << 17, 16
# Arrays that each job has of all its sequences: lengths, their order, and states before and after.
OF_EACH_SEQUENCE = 4


@dataclass(frozen=True, eq=False)
class Sequences:
    """x (B, T, F), h0 (K, B, H) and lengths (B,) for a net, of one float type."""

    net: RNN
    x: FloatArray
    h0: FloatArray
    lengths: NDArray[np.int64]
    absent: frozenset[str]
    """Axes that the caller does not see."""
    _sizes: dict[str, int] = field(init=False)
    _known: dict[str, Any] = field(init=False)
    """What was found out of shapes and lengths alone, see `once`."""

    def __post_init__(self) -> None:
        batch_size, steps, inputs = self.x.shape
        # Not cached_property, whose lock on Python 3.11 a fork may leave held in the child.
        sizes = {
            "K": self.net.bank_size, "B": batch_size, "T": steps, "F": inputs, "X": inputs,
            "H": self.net.hidden_size, "O": self.net.output_size,
        }  # fmt: skip
        object.__setattr__(self, "_sizes", sizes)
        object.__setattr__(self, "_known", {})

    def over(self, net: RNN | None, x: FloatArray) -> Sequences:
        """The same job over other inputs of the same shape, strides and type, as a caller has them.

        All but x is shared with this one, and must not be written to. A job that is kept with its
        net does not refer to it: only a search for garbage would find the two.
        """
        own = self.whole(x, "BTX").astype(self.h0.dtype, copy=False)
        return like(self, net=net, x=own)

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What follows from shapes and lengths alone, found once for all such inputs."""
        if name not in self._known:
            self._known[name] = make()
        found: Made = self._known[name]
        return found

    @property
    def dtype(self) -> np.dtype[Any]:
        """Float type of the whole computation."""
        return self.x.dtype

    @property
    def zeros(self) -> FloatArray:
        """As many as states (K, B, H), not to be written to."""
        return self.once("zeros", lambda: np.zeros_like(self.h0))

    @property
    def zeros_64(self) -> NDArray[np.float64]:
        """The same in float64."""
        return self.once("zeros_64", lambda: np.zeros(self.h0.shape))

    @property
    def weights(self) -> Weights:
        """All weights, in that type."""
        return self.net._kernel_weights(self.dtype)

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Weights that predictions depend on."""
        return self.net.weight_names

    @property
    def is_ragged(self) -> bool:
        """Whether some sequence is shorter than x is long."""
        steps = self.x.shape[1]
        return self.once("is_ragged", lambda: bool((self.lengths != steps).any()))

    @property
    def predictions(self) -> int:
        """Number of predictions of one net within the sequences' lengths."""
        return self.once("predictions", lambda: int(self.lengths.sum()) * self.net.output_size)

    def size(self, axes: str) -> tuple[int, ...]:
        """Sizes of the named axes."""
        return tuple([self._sizes[axis] for axis in axes])

    def seen(self, axes: str) -> str:
        """Those of ``axes`` that the caller sees."""
        return "".join(axis for axis in axes if axis not in self.absent)

    def visible(self, array: Any, axes: str) -> Any:
        """``array`` without those of its ``axes`` that the caller does not see."""
        return array[self.once(f"visible {axes}", lambda: self._index(axes, 0))]

    def whole(self, array: FloatArray, axes: str) -> FloatArray:
        """``array`` as the caller sees it, as a view with all ``axes``."""
        index = self.once(f"whole {axes}", lambda: self._index(axes, None))
        whole: FloatArray = array[index]
        return whole

    def _index(self, axes: str, absent: Any) -> tuple[Any, ...]:
        return tuple([absent if axis in self.absent else slice(None) for axis in axes])

    def named(self, axes: str) -> tuple[str, tuple[int, ...]]:
        """Those of ``axes`` that the caller sees, in words and as a shape."""
        seen = self.seen(axes)
        words = ", ".join(NAMES[axis] for axis in seen) + ("," if len(seen) == 1 else "")
        return f"({words})", self.size(seen)

    def full(self, name: str, value: ArrayLike, axes: str) -> FloatArray:
        """``value``, given with the visible ``axes``, with all of them; K may always be missing.

        A value without the bank axis is shared by all nets of the bank, as a stride-0 view.
        """
        if type(value) is np.ndarray and value.dtype == self.dtype and value.flags.aligned:
            if value.shape == self.once(f"shape {axes}", lambda: self.size(self.seen(axes))):
                return self.whole(value, axes)
        array = sequence_array(name, value)
        own = array.shape == self.size(self.seen(axes))
        if not own:
            options = [self.named(axes)]
            if self.net.is_bank:
                options.append(self.named(axes[1:]))
            require_shape(name, array, *options)
        array = array.astype(self.dtype, copy=False)
        if own:
            return array.reshape(self.size(axes))
        return np.broadcast_to(array.reshape(self.size(axes[1:])), self.size(axes))

    def output_seed(self, v: ArrayLike | None) -> FloatArray:
        """d(v . y_T)/dh_T (K, H) in float64, for a direction v (O,), by default all ones."""
        net = self.net
        if v is None:
            direction = np.ones(net.output_size)
        elif net.is_neuron:
            raise ValueError("v must be None for a scalar neuron, which has a single output")
        else:
            direction = float_array("v", v)
            require_shape("v", direction, ("(output_size,)", self.size("O")))
            require_finite("v", direction)
        if net.has_readout:
            w3 = self.weights.w3.astype(np.float64)
            return np.asarray((w3 * direction[:, None]).sum(axis=1))
        return np.broadcast_to(direction, self.size("KH")).astype(np.float64)


def sequences(
    net: RNN,
    x: ArrayLike,
    *,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    others: tuple[FloatArray, ...] = (),
    is_block: bool = False,
    results: str = "KBH",
) -> Sequences:
    """Check x, h0 and lengths against ``net``; ``others`` take part in the choice of type.

    A block is a part of longer sequences, and may be as short as it likes. MemoryError where the
    ``results``, given by their axes, do not fit into memory: before anything is allocated, for x
    may be a large array of a single number.
    """
    require_net(net)
    # Of small jobs, to look at shapes takes longer than to compute.
    key = None
    if h0 is None and lengths is None and type(x) is np.ndarray and x.flags.aligned:
        types = tuple([array.dtype for array in others])
        key = x.shape, x.strides, x.dtype, types, is_block, results
        kept: Sequences | None = net._jobs.get(key)
        if kept is not None:
            return kept.over(net, x)
    x = given = sequence_array("x", x)
    start = None if h0 is None else float_array("h0", h0)
    arrays = [x, *others] if start is None else [x, start, *others]
    weight_type = [] if net.dtype is None else [net.dtype]
    dtype = np.result_type(*(array.dtype for array in arrays), *weight_type)
    absent = _absent_axes(net, x)
    # Whoever gives a state or a length for each sequence knows which axis is which.
    if start is None and lengths is None and not is_block and _is_on_its_side(x):
        key = None
    if "B" in absent:
        x = x[None]
    if "X" in absent:
        x = x[..., None]
    if x.dtype != dtype:
        check_memory(f"x in {dtype}", x.shape, dtype, LESS)
    bare = Sequences(net, x, np.empty(0), np.empty(0, np.int64), absent)
    what, instead = RESULTS[results]
    check_memory(what, bare.size(results), dtype, instead)
    check_memory("states and lengths", (OF_EACH_SEQUENCE, *bare.size("KBH")), np.int64, LESS)
    checked = sequence_lengths(lengths, x.shape[0], x.shape[1])
    result = replace(bare, x=x.astype(dtype, copy=False), lengths=checked)
    state = np.zeros(result.size("KBH"), dtype)
    if start is not None:
        state[...] = result.full("h0", _with_seen_axes(result, start), "KBH")
    object.__setattr__(result, "h0", state)
    numbers = result.x.size + state.size + math.prod(result.size("KBTH"))
    if key is not None and numbers <= KEPT_NUMBERS:
        if len(net._jobs) >= KEPT_JOBS:
            net._jobs.clear()
        net._jobs[key] = result.over(None, np.empty((0,) * given.ndim, dtype))
    return result


def _with_seen_axes(job: Sequences, h0: FloatArray) -> FloatArray:
    """h0 with the axes the caller sees, where it has others of length 1, or lacks such."""
    for axes in ("KBH", "BH"):
        shape = job.size(job.seen(axes))
        if [size for size in h0.shape if size != 1] == [size for size in shape if size != 1]:
            return h0.reshape(shape)
    return h0


def _is_on_its_side(x: FloatArray) -> bool:
    """Whether x has far more sequences than steps, as a table (T, columns) taken for (B, T).

    It warns then.
    """
    if x.ndim == 1 or not 0 < x.shape[1] < FEW_STEPS or x.shape[0] < MANY_SEQUENCES * x.shape[1]:
        return False
    turned = "x.T" if x.ndim == 2 else "x.swapaxes(0, 1)"
    warnings.warn(
        f"x of shape {x.shape} is taken as {x.shape[0]} sequences of {x.shape[1]} steps, (B, T): "
        f"if its first axis is time, pass {turned}; if not, lengths= or h0= says so",
        UserWarning,
        # The line that called the verb: past its wrapper, the verb, `sequences` and this.
        stacklevel=5,
    )
    return True


def _absent_axes(net: RNN, x: FloatArray) -> frozenset[str]:
    """Axes that neither net nor x have; ValueError where x does not fit the net."""
    accepted = "(T,) or (B, T)"
    if not net.is_neuron:
        accepted = f"(B, T, F) with F = {net.input_size}"
        if net.input_size == 1:
            accepted += ", (B, T) or (T,)"
    fits = x.ndim in (1, 2) and net.input_size == 1
    if not net.is_neuron:
        fits = fits or (x.ndim == 3 and x.shape[-1] == net.input_size)
    if not fits:
        what = "a scalar neuron" if net.is_neuron else "a layer"
        hint = ""
        if x.ndim == 2 and not net.is_neuron and net.input_size in x.shape:
            steps = x.size // net.input_size
            hint = f"; a single sequence has the shape (1, {steps}, {net.input_size})"
        raise ValueError(f"x must have shape {accepted} for {what}, got {x.shape}{hint}")
    return frozenset(
        ("" if net.is_bank else "K")
        + ("B" if x.ndim == 1 else "")
        + ("X" if x.ndim < 3 else "")
        + ("HFO" if net.is_neuron else "")
    )
