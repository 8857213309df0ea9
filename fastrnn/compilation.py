"""Compilation ahead of the first call: in processes of their own, beside one another.

Numba compiles one kernel at a time in a process. Children make tiny calls, whose kernels go into
the cache; a process that needs a kernel while another one compiles it waits, and then finds it.
"""

from __future__ import annotations

import atexit
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

import fastrnn
from fastrnn.checks import choice, positive
from fastrnn.kernels import ACTIVATIONS
from fastrnn.kernels.jit import cache_folder, is_noted, note
from fastrnn.threads import available_cores, count_workers

# In an order in which neighbours share few kernels: who needs one that another process compiles
# waits for it.
VERBS = (
    "loss_and_grad", "lyapunov", "forward", "jacobian_norms", "predict", "fixed_points",
    "influence", "backward", "diagnose", "phase_diagram",
)  # fmt: skip
# Those of the scalar neuron alone.
OF_NEURONS = ("phase_diagram", "fixed_points")
DTYPES = ("float64", "float32")
STEPS = 20
# A child: it reads tasks and answers each. It finds modules where its parent does, and not in the
# current folder.
CHILD = "import sys; sys.path[:] = {path!r}; from fastrnn.compilation import serve; serve()"

Names = Iterable[str] | str


class Task(NamedTuple):
    """A verb, and the net and batch that it is called with."""

    verb: str
    hidden: int = 1
    inputs: int = 1
    batch_size: int = 1
    activation: str = "tanh"
    dtype: str = "float64"


def warmup(
    verbs: Names | None = None,
    *,
    hidden: Iterable[int] | int = 1,
    inputs: int = 1,
    batch_size: int = 64,
    activation: Names = "tanh",
    dtype: Names = "float64",
    workers: SupportsIndex | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> None:
    """Compile kernels into the cache before they are needed, on all cores.

    For images of containers, and for clusters, whose jobs would else all compile at once. Kernels
    serve arrays of any length and layout; those of layers are made for sizes.

    Parameters
    ----------
    verbs : iterable of str, optional
        Names of public functions, as "forward" or "loss_and_grad"; all by default.
    hidden : int or iterable of int, default 1
        Units of layers; 1 is the scalar neuron where there is one input.
    inputs : int, default 1
        Inputs of layers.
    batch_size : int, default 64
        Sequences of a call to a layer.
    activation : str or iterable of str, default "tanh"
        As `RNN` has them.
    dtype : {"float64", "float32"} or an iterable of them
        Type of weights and inputs.
    workers : int, optional
        Processes; by default as many as there are cores.
    progress : callable, optional
        Called as ``progress(done, all)`` when a task is done, by one thread at a time.

    Raises
    ------
    ValueError, TypeError
        If a name is unknown, or a size is not positive.
    RuntimeError
        If there is no folder for the cache, or a process failed.

    Notes
    -----
    The cache is in ``$FASTRNN_CACHE_DIR``, and can be copied between machines with the same kind of
    processor and the same versions of Python, NumPy, Numba and fastrnn.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.warmup("fixed_points")
    """
    tasks = tasks_of(
        verbs, hidden=hidden, inputs=inputs, batch_size=batch_size, activation=activation,
        dtype=dtype,
    )  # fmt: skip
    children = available_cores() if workers is None else count_workers(workers)
    if cache_folder() is None:
        raise RuntimeError("there is no folder for compiled kernels: set FASTRNN_CACHE_DIR")
    missing = [task for task in tasks if not is_noted(json.dumps(task))]
    done, telling, stopped = len(tasks) - len(missing), threading.Lock(), threading.Event()
    if progress is not None and done:
        progress(done, len(tasks))
    waiting: SimpleQueue[Task | None] = SimpleQueue()
    for task in missing:
        waiting.put(task)
    children = min(children, len(missing))
    for _ in range(children):
        waiting.put(None)

    def work(child: subprocess.Popen[str]) -> None:
        nonlocal done
        while (task := waiting.get()) is not None and not stopped.is_set():
            if (answer := _ask(child, task)) != "done":
                raise RuntimeError(f"{task.verb} could not be compiled: {answer}")
            with telling:
                done += 1
                if progress is not None:
                    progress(done, len(tasks))

    started: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(max(1, children)) as pool:
        try:
            started += [_child(subprocess.PIPE) for _ in range(children)]
            ended, _ = wait([pool.submit(work, child) for child in started], None, FIRST_EXCEPTION)
            for future in ended:
                future.result()
        finally:
            stopped.set()
            for child in started:
                _stop(child)


def tasks_of(
    verbs: Names | None,
    *,
    hidden: Iterable[int] | int,
    inputs: int,
    batch_size: int,
    activation: Names,
    dtype: Names,
) -> list[Task]:
    """All of them, checked."""
    names = VERBS if verbs is None else _several("verbs", verbs, VERBS)
    sizes = [hidden] if isinstance(hidden, SupportsIndex) else list(hidden)
    sizes = [positive("hidden", size) for size in sizes]
    inputs, batch_size = positive("inputs", inputs), positive("batch_size", batch_size)
    kinds = itertools.product(
        sorted(names, key=VERBS.index), sizes, _several("activation", activation, ACTIVATIONS),
        _several("dtype", dtype, DTYPES),
    )  # fmt: skip
    return [
        Task(verb, size, inputs, batch_size, f, number)
        for verb, size, f, number in kinds
        if verb not in OF_NEURONS or (size == inputs == 1)
    ]


def beside(*verbs: str, activation: str, dtype: str, workers: int | None) -> None:
    """Let a child compile the kernels of a neuron's verbs, if some core is free for it.

    It ends with its tasks, or with this process.
    """
    tasks = [Task(verb, activation=activation, dtype=dtype) for verb in verbs]
    if available_cores() == 1 or workers == 1 or cache_folder() is None:
        return
    if not (missing := [task for task in tasks if not is_noted(json.dumps(task))]):
        return
    with suppress(OSError):  # no process to be had
        child = _child(subprocess.DEVNULL)
        atexit.register(_stop, child)
        assert child.stdin is not None, "a pipe"
        child.stdin.writelines(f"{json.dumps(task)}\n" for task in missing)
        child.stdin.close()


def serve() -> None:
    """What a child does: tasks from its input, an answer for each to its output."""
    for line in sys.stdin:
        task = Task(*json.loads(line))
        try:
            compile_now(task)
            answer = "done"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        with suppress(OSError):  # who has stopped listening is served all the same
            print(answer, flush=True)


def compile_now(task: Task) -> None:
    """Make a call, in this process, and note that its kernels are there."""
    rng = np.random.default_rng(0)
    number, hidden = np.dtype(task.dtype), task.hidden

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(number)

    is_neuron = hidden == task.inputs == 1
    if is_neuron:
        net = fastrnn.RNN(number.type(1.0), number.type(0.5), activation=task.activation)
        x = y = normal(task.batch_size, STEPS)
    else:
        w2 = normal(hidden, hidden) * number.type(0.1)
        net = fastrnn.RNN(
            normal(hidden, task.inputs), w2, normal(hidden), activation=task.activation
        )
        x, y = (normal(task.batch_size, STEPS, size) for size in (task.inputs, hidden))
    call: dict[str, Callable[[], Any]] = {
        "forward": lambda: fastrnn.forward(net, x),
        "predict": lambda: fastrnn.predict(net, x),
        "backward": lambda: fastrnn.backward(net, x, y),
        "loss_and_grad": lambda: fastrnn.loss_and_grad(net, x, y),
        "influence": lambda: fastrnn.influence(net, x),
        "diagnose": lambda: fastrnn.diagnose(net, x),
        "lyapunov": lambda: fastrnn.lyapunov(net, x),
        "jacobian_norms": lambda: fastrnn.jacobian_norms(net, x),
        "phase_diagram": lambda: fastrnn.phase_diagram(
            x[0], w1=(0.5, 2.0, 3), w2=(0.5, 2.0, 3), activation=task.activation
        ),
        "fixed_points": lambda: fastrnn.fixed_points(net),
    }
    call[task.verb]()
    note(json.dumps(task))


def _several(name: str, value: Names, options: Iterable[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    return tuple(choice(name, one, tuple(options)) for one in names)


def _child(answers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD.format(path=sys.path)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=answers, stderr=subprocess.DEVNULL, text=True
    )


def _stop(child: subprocess.Popen[str]) -> None:
    child.kill()
    with suppress(OSError), child:  # closes its pipes, and waits
        pass


def _ask(child: subprocess.Popen[str], task: Task) -> str:
    """Give a child a task, and wait for its answer."""
    assert child.stdin is not None, "a pipe"
    assert child.stdout is not None, "a pipe"
    try:
        child.stdin.write(f"{json.dumps(task)}\n")
        child.stdin.flush()
        return child.stdout.readline().strip() or "its process ended"
    except OSError as error:
        return str(error)
