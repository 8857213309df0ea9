"""Sweep: what a batch job computes, as a frozen description."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn.batch.extra import sweep_extra
from fastrnn.batch.place import local_path
from fastrnn.batch.tasks import Task, box_shape, count_boxes, cut
from fastrnn.batch.variables import KEEP, VARIABLES, Variable
from fastrnn.cached import cached_property
from fastrnn.checks import (
    FloatArray,
    cast,
    choice,
    float_array,
    positive,
    require_finite,
    require_shape,
)
from fastrnn.kernels import ACTIVATIONS

if TYPE_CHECKING:
    from fastrnn.batch.progress import Progress

WEIGHTS = ("w1", "w2", "b")
FLOATS = ("float32", "float64")
# Unless the caller says how many: tasks of a fraction of a second to some seconds, whose chunks
# are written in one piece, and enough of them to share out.
TASK_STEPS = 1 << 27
TASK_VALUES = 1 << 23
LEAST_TASKS = 16
# Each is some files, and a folder of more is slow to list.
MOST_TASKS = 1_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    r"""A grid of scalar neurons over many sequences, to be computed in tasks and stored.

    .. math:: h_t = f(w_1 x_t + w_2 h_{t-1} + b), \qquad t = 1 \dots T

    for every combination of the weights given and every sequence. All quantities are
    dimensionless.

    Parameters
    ----------
    x : array_like, shape (T,) or (B, T)
        B sequences of T steps. They are copied, but for a `numpy.memmap`, which is never read
        whole: leave its file as it is until the sweep has begun to run.
    w1, w2, b : array_like, shape () or (K,)
        Input weight, feedback weight and bias. Each that is an array is an axis of the grid.
    activation : {"tanh", "relu", "sigmoid", "identity"}
        The function f.
    y : array_like, shape of x, or "next", optional
        Targets of the loss. "next": each value is to predict the next one, so that the last is
        a target only and T is one less than x is long.
    keep : {"last", "states", "loss", "gradient", "diagnosis"} or several of them
        What is computed and stored, each for every neuron and sequence: the last state; all
        states; the mean squared error; its gradients ``dw1``, ``dw2``, ``db``; and, as
        `diagnose` has them, ``influence_log10`` and ``influence_sign`` of the first input,
        ``horizon``, ``exponent``, ``decades`` and ``saturated``.
    every : int
        Of "states" only those of steps 0, ``every``, 2 ``every``, ... are stored.
    dtype : {"float32", "float64"} or NumPy dtype, optional
        Float type of the computation; that of x by default.
    tasks : int, optional
        Into how many tasks the grid and, where it has too few neurons, the sequences are cut:
        at most so many. A task is what is computed, stored and lost at once.

    Raises
    ------
    ValueError, TypeError
        If a shape does not fit, a weight is not finite, a name is unknown, or there are more
        than 1,000,000 tasks.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> x = np.sin(np.arange(300.0)).reshape(3, 100)
    >>> sweep = fastrnn.Sweep(x, w2=np.geomspace(0.1, 10, 40), keep=("last", "loss"), y="next")
    >>> sweep
    Sweep(40 w2 x 3 sequences of 99 steps, keep=('last', 'loss'), 14 tasks)
    >>> sweep.sizes
    {'w2': 40, 'sequence': 3}
    """

    x: FloatArray
    w1: FloatArray
    w2: FloatArray
    b: FloatArray
    activation: str
    y: FloatArray | Literal["next"] | None
    keep: tuple[str, ...]
    every: int
    dtype: np.dtype[Any]
    box: tuple[int, ...]
    """Points of a task along each axis of the grid."""
    tasks: tuple[Task, ...]
    """All tasks; those at the end of an axis may be smaller."""

    def __init__(
        self,
        x: ArrayLike,
        *,
        w2: ArrayLike,
        w1: ArrayLike = 1.0,
        b: ArrayLike = 0.0,
        activation: str = "tanh",
        y: ArrayLike | Literal["next"] | None = None,
        keep: Iterable[str] | str = "last",
        every: SupportsIndex = 1,
        dtype: DTypeLike | None = None,
        tasks: SupportsIndex | None = None,
    ) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        x = float_array("x", x)
        if x.ndim not in (1, 2):
            raise ValueError(f"x must have shape (T,) or (B, T), got {x.shape}")
        put("dtype", x.dtype if dtype is None else _float_type(dtype))
        put("x", _kept_as_is(np.atleast_2d(x)))
        for name, weight in zip(WEIGHTS, (w1, w2, b), strict=True):
            put(name, self._weight(name, weight))
        put("activation", choice("activation", activation, tuple(ACTIVATIONS)))
        put("keep", _kept(keep))
        put("every", positive("every", every))
        if self.every > 1 and "states" not in self.keep:
            raise ValueError(f"every must come with keep 'states', got {self.every} without")
        put("y", self._targets(y))
        if self.steps < 1 or 0 in self.x.shape:
            raise ValueError(f"x must have steps to compute, got shape {self.x.shape}")
        wanted = self._default_tasks if tasks is None else positive("tasks", tasks)
        sizes = tuple(self.sizes.values())
        put("box", box_shape(sizes, wanted))
        if (count := count_boxes(sizes, self.box)) > MOST_TASKS:
            raise ValueError(
                f"tasks must be at most {MOST_TASKS}, got {count} for a grid of {math.prod(sizes)} "
                "neurons and sequences: choose fewer, or several sweeps"
            )
        put("tasks", cut(sizes, self.box))

    def __repr__(self) -> str:
        nets = "".join(f"{size} {name} x " for name, size in self.sizes.items() if name in WEIGHTS)
        return (
            f"Sweep({nets}{len(self.x)} sequences of {self.steps} steps, keep={self.keep}, "
            f"{len(self.tasks)} tasks)"
        )

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Axes that tasks are cut from and their sizes: weights that are arrays, sequences."""
        axes = {name: len(weight) for name in WEIGHTS if (weight := getattr(self, name)).ndim}
        return {**axes, "sequence": len(self.x)}

    @property
    def steps(self) -> int:
        """Steps T of each sequence."""
        return int(self.x.shape[1]) - self._predicts_next

    @property
    def variables(self) -> tuple[Variable, ...]:
        """What is stored."""
        return tuple(variable for variable in VARIABLES if variable.keep in self.keep)

    def type_of(self, variable: Variable) -> np.dtype[Any]:
        """Float type in which a variable is stored."""
        return np.dtype(np.float64) if variable.float64 else self.dtype

    @property
    def times(self) -> range:
        """Steps whose states are stored, if any are."""
        return range(0, self.steps, self.every)

    @property
    def task_bytes(self) -> int:
        """Bytes that a task stores; a chunk has its whole size also at the end of an axis."""
        values = sum(
            self.type_of(variable).itemsize * (len(self.times) if variable.over_time else 1)
            for variable in self.variables
        )
        return math.prod(self.box) * (values + 1)  # and whether they are computed

    @staticmethod
    def from_toml(path: str | Path) -> Sweep:
        """A description in TOML; its keys are the parameters, and those that read a series.

        Parameters
        ----------
        path : str or Path
            The file. ``x`` names a bundled series, a .csv or a .npy file, beside the
            description; ``column``, ``fill``, ``normalize`` and ``window`` prepare it as
            ``fastrnn sweep SERIES`` does. Weights are numbers, lists of them, or text like
            "0.01:100:81": N values in geometric progression. ``y`` may name a .npy file.

        Raises
        ------
        ValueError, TypeError
            If a key is unknown, missing or wrong; its line is named.
        OSError
            If a file cannot be read.
        """
        from fastrnn.batch.toml import read_sweep

        return read_sweep(local_path("path", path))

    def run(
        self,
        out: str | Path,
        *,
        executor: SupportsIndex | Executor | None = None,
        shard: tuple[int, int] = (1, 1),
        force: bool = False,
        progress: bool | Callable[[Progress], object] | None = None,
    ) -> Path:
        """Compute what ``out`` does not hold yet, and store it there.

        Parameters
        ----------
        out : str or Path
            A folder: new, empty, or of an earlier run of the same sweep, which is then gone on
            with. It is a Zarr group, opened by ``xarray.open_zarr(out)``; what is not computed
            is NaN, and False in ``computed``.
        executor : int or concurrent.futures.Executor, optional
            So many threads of this process, by default as many as keep the cores it may use
            at work; or who else computes the tasks: a pool of processes, or the executor of a
            Dask client, whose workers must see the same folder.
        shard : (int, int)
            ``(i, n)``: compute only the i-th (from 1) of n parts of the tasks. All parts may
            run at once.
        force : bool
            Throw away what ``out`` holds of another sweep.
        progress : bool or callable, optional
            A bar on stderr, by default where that is a terminal; or what is to be called with
            a `Progress`, about every second and after each task.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ModuleNotFoundError
            If zarr is not installed (``fastrnn[sweep]``).
        OSError
            If the folder cannot be written, is of another sweep, is in use by another run, or
            its disk is full.
        RuntimeError
            If tasks failed: which, and why. All others are stored.

        Notes
        -----
        A task's results are on the disk before its receipt is, so a run that was killed at any
        moment loses the tasks it was at and nothing else. Ctrl-C and SIGTERM stop within a
        fraction of a second. Results have the same bits whoever computes them.

        Examples
        --------
        >>> import tempfile
        >>> import fastrnn
        >>> sweep = fastrnn.Sweep([1.0, 0.0, 0.0], w2=[0.5, 2.0], activation="identity")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = sweep.run(folder)
        ...     print(sorted(path.name for path in out.iterdir()))
        ['b', 'computed', 'inputs', 'last', 'receipts', 'sequence', 'w1', 'w2', 'zarr.json']
        """
        with sweep_extra():
            from fastrnn.batch.run import run

        return run(self, out, executor=executor, shard=shard, force=force, progress=progress)

    def inputs(self, rows: slice) -> FloatArray:
        """x of some sequences, without what is a target only."""
        return np.asarray(self.x[rows, : self.steps], self.dtype)

    def targets(self, rows: slice) -> FloatArray:
        """y of some sequences."""
        y = self.x[:, 1:] if isinstance(self.y, str) else self.y
        assert y is not None, "checked where the sweep was described"
        return np.asarray(y[rows], self.dtype)

    @property
    def _predicts_next(self) -> bool:
        return isinstance(self.y, str)

    @property
    def _default_tasks(self) -> int:
        lanes = math.prod(self.sizes.values())
        values = lanes * len(self.times) if "states" in self.keep else lanes
        return max(LEAST_TASKS, -(-lanes * self.steps // TASK_STEPS), -(-values // TASK_VALUES))

    def _weight(self, name: str, value: ArrayLike) -> FloatArray:
        array = float_array(name, value)
        if array.ndim > 1 or array.size == 0:
            raise ValueError(f"{name} must be a number or have shape (K,), got shape {array.shape}")
        require_finite(name, array)
        return _kept_as_is(cast(name, array, self.dtype))

    def _targets(self, y: ArrayLike | str | None) -> FloatArray | Literal["next"] | None:
        needed = [name for name in ("loss", "gradient") if name in self.keep]
        if y is None:
            if needed:
                raise ValueError(f"y must be given for keep {needed[0]!r}: targets, or 'next'")
            return None
        if isinstance(y, str):
            choice("y", y, ("next",))
            return "next"
        target = np.atleast_2d(float_array("y", y))
        require_shape("y", target, ("(batch_size, steps)", self.x.shape))
        return _kept_as_is(target)


def _kept_as_is(array: FloatArray) -> FloatArray:
    """What later changes of ``array`` do not reach: a copy, but of a mapped file a view."""
    if _is_mapped(array):
        kept = array.view()
    else:
        # What was broadcast is stored once.
        once = tuple(slice(1 if step == 0 else None) for step in array.strides)
        kept = np.broadcast_to(array[once].copy(), array.shape)
    kept.flags.writeable = False
    return kept


def _is_mapped(array: FloatArray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return isinstance(base, mmap.mmap)


def _float_type(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        name = str(np.dtype(dtype))
    except TypeError:
        name = str(dtype)
    return np.dtype(choice("dtype", name, FLOATS))


def _kept(keep: Iterable[str] | str) -> tuple[str, ...]:
    if not isinstance(keep, Iterable):
        raise TypeError(f"keep must be names of {', '.join(KEEP)}, got {type(keep).__name__}")
    names = {choice("keep", name, KEEP) for name in ([keep] if isinstance(keep, str) else keep)}
    if not names:
        raise ValueError(f"keep must name some of {', '.join(KEEP)}, got none")
    return tuple(name for name in KEEP if name in names)
