"""Nothing breaks a call: signals, forks, few threads, and the caller's floating-point mode."""

import _thread
import contextlib
import dataclasses
import inspect
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from llvmlite import binding, ir

import fastrnn
from benchmarks import soak
from fastrnn import lanes, layers, threads
from fastrnn.cached import cached_property
from fastrnn.kernels import arithmetic
from tests import cases

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork and no alarms here")


def run_child(program, *arguments, **environment):
    """Standard output of a program that gets to its end."""
    done = subprocess.run(
        # From Python 3.12 on, a fork beside threads warns.
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process",
            "-c",
            program,
            *map(str, arguments),
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# Alarms or Ctrl-C at random moments, often several in a row. What a call has written when it ends
# stays as it is, memory that is freed is not written to, and the next whole call is right.
BROKEN_OFF = """
import _thread, os, random, signal, sys, threading, time
import numpy as np
import fastrnn
from fastrnn import lanes, layers, threads

kind, how, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
seed = random.randrange(1 << 32)
print("seed", seed)
rng = random.Random(seed)
lanes.LANE_STEPS, layers.CALL_WORK, threads.SLEEP = 20_000, 20_000, 0.5
x = np.random.default_rng(0).standard_normal((192, 3000 if kind == "neuron" else 300))
net = fastrnn.RNN(1.0, 0.9) if kind == "neuron" else fastrnn.RNN(np.ones((8, 1)), 0.1 * np.eye(8))
y = fastrnn.forward(net, x, workers=2)
grad = fastrnn.loss_and_grad(net, x, y + 1, workers=2)[1].w2

class Alarm(Exception):
    pass

def ring(*_):
    raise Alarm

signal.signal(signal.SIGALRM, ring)

def press(again):
    time.sleep(rng.uniform(0, 2e-3))
    for _ in range(again):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1e-4)

def broken_off(call):
    # Where another comes in while one is handled, once more.
    try:
        try:
            if how == "alarm":
                first, next_ = rng.uniform(1e-5, 2e-3), rng.choice([0, 0, 1e-4, 3e-4])
                signal.setitimer(signal.ITIMER_REAL, first, next_)
                call()
                time.sleep(1)
            else:
                thread = threading.Thread(target=press, args=(rng.choice([1, 1, 3]),))
                thread.start()
                try:
                    call()
                    time.sleep(1)
                finally:
                    thread.join()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (Alarm, KeyboardInterrupt):
        pass

def work():
    fastrnn.forward(net, x, workers=2, out=out)
    fastrnn.loss_and_grad(net, x, y, workers=2)

out = np.empty_like(y)
for number in range(wanted):
    while True:
        try:
            broken_off(work)
            break
        except (Alarm, KeyboardInterrupt):
            pass
    while True:
        try:
            before = out.copy()
            fresh = [np.full(y.shape, 7.0) for _ in range(2)]
            time.sleep(1e-4)
            assert before.tobytes() == out.tobytes(), "a helper is at work"
            assert all((array == 7.0).all() for array in fresh), "memory is written to"
            break
        except (Alarm, KeyboardInterrupt):
            pass
time.sleep(0.1)
assert fastrnn.forward(net, x, workers=2).tobytes() == y.tobytes()
again = fastrnn.loss_and_grad(net, x, y + 1, workers=2)[1].w2
assert again.tobytes() == grad.tobytes()
until = time.monotonic() + 30
while _thread._count() > 1 and time.monotonic() < until:
    time.sleep(0.01)
assert _thread._count() <= 1, "helpers that nobody knows"
"""


@unix
@pytest.mark.parametrize("kind", ["neuron", "layer"])
@pytest.mark.parametrize("how", ["alarm", "Ctrl-C"])
def test_a_call_that_a_signal_handler_breaks_off_leaves_no_helper_at_work(kind, how):
    run_child(BROKEN_OFF, kind, how, 500)


COMPILING = """
import random, signal
import numpy as np
from fastrnn.kernels import sums
from fastrnn.kernels.jit import global_compiler_lock

def compiling():
    free = global_compiler_lock._lock.acquire(blocking=False)
    if free:
        global_compiler_lock._lock.release()
    return not free

class Alarm(Exception):
    pass

def ring(*_):
    raise Alarm

signal.signal(signal.SIGALRM, ring)
broken_off = 0
while not broken_off or compiling():
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-3, 0.05))
        print(sums.ordered_sum(np.array([[0.25, 0.5]]))[0])
        signal.setitimer(signal.ITIMER_REAL, 0)
        break
    except Alarm:
        broken_off += 1
assert broken_off
print(sums.ordered_sum(np.array([[0.25, 0.5]], np.float32))[0])
"""


INTERRUPTED = """
import os, signal, threading, time
import numpy as np
import fastrnn
from fastrnn.kernels.jit import global_compiler_lock

def compiling():
    free = global_compiler_lock._lock.acquire(blocking=False)
    if free:
        global_compiler_lock._lock.release()
    return not free

# A kernel of neurons, and what helpers of layers wait for.
for net in (fastrnn.RNN(0.5, 0.5), fastrnn.RNN(np.ones((3, 1)), 0.1 * np.eye(3))):
    def press():
        # In the middle of a long one: what takes no time is compiled first.
        began = time.monotonic()
        while time.monotonic() - began < 0.3:
            if not compiling():
                began = time.monotonic()
            time.sleep(1e-3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    try:
        fastrnn.forward(net, np.zeros((64, 500)), workers=2)
    except KeyboardInterrupt:
        print(compiling())
"""


@unix
def test_ctrl_c_is_heard_before_a_compilation_ends(tmp_path):
    out = run_child(INTERRUPTED, FASTRNN_CACHE_DIR=str(tmp_path / "cache"), PYTHONUNBUFFERED="1")
    assert out.split() == ["True", "True"]


@unix
def test_a_compilation_that_a_signal_handler_breaks_off_is_finished_and_the_next_works(tmp_path):
    # In the main thread this ended in "generator raised StopIteration", or "no compiled object".
    out = run_child(COMPILING, FASTRNN_CACHE_DIR=str(tmp_path / "cache"))
    assert set(out.split()) == {"0.75"}


FORKED = """
import os, sys, threading, time
import numpy as np
import fastrnn
from fastrnn.kernels import sums

what = sys.argv[1]
net, x = fastrnn.RNN(1.0, 0.9), np.random.default_rng(0).standard_normal((64, 500))
layer = fastrnn.RNN(np.ones((3, 1)), 0.1 * np.eye(3))
stop = threading.Event()

def compute():
    fastrnn.forward(net, x, workers=2)
    fastrnn.forward(layer, x, workers=2)

def compile_(*dtypes):
    # The one kernel that compiles within a second.
    for dtype in dtypes:
        sums.ordered_sum(np.ones((1, 2), dtype))

def work():
    if what == "compile":
        compile_(np.float64, np.complex128, np.complex64, np.int64)
    while not stop.is_set() and what == "compute":
        compute()

if what == "compute":
    compute()
thread = threading.Thread(target=work)
thread.start()
children = []
for _ in range(int(sys.argv[2])):
    time.sleep(0.01 if what == "compute" else 0.3)
    child = os.fork()
    if child == 0:
        compute() if what == "compute" else compile_(np.float32)
        os._exit(0)
    children.append(child)
stop.set()
until = time.monotonic() + 120
for child in children:
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended[1] == 0 and ended[0] == child, ended
thread.join()
"""


@unix
def test_children_that_are_forked_while_another_thread_computes_do_not_hang():
    run_child(FORKED, "compute", 40)


@unix
def test_children_that_are_forked_while_another_thread_compiles_do_not_hang(tmp_path):
    run_child(FORKED, "compile", 3, FASTRNN_CACHE_DIR=str(tmp_path / "cache"))


def test_a_cached_property_has_no_lock_that_a_child_could_wait_for():
    begun, end = threading.Event(), threading.Event()

    class Slow:
        waits = False

        @cached_property
        def value(self):
            if self.waits:
                begun.set()
                end.wait(60)
            return object()

    slow, quick, found = Slow(), Slow(), []
    slow.waits = True
    threads_ = [
        threading.Thread(target=lambda one=one: found.append(one.value)) for one in (slow, quick)
    ]
    threads_[0].start()
    begun.wait(60)
    threads_[1].start()
    threads_[1].join(30)
    assert found == [quick.value]
    end.set()
    threads_[0].join(60)
    assert found[1] is slow.value


@pytest.mark.parametrize("possible", [0, 1, 2])
def test_where_threads_are_limited_fewer_are_used(possible, monkeypatch):
    net, x = cases.neuron(), cases.inputs(cases.neuron(), 40, 300)
    expected = fastrnn.forward(net, x).tobytes()
    monkeypatch.setattr(lanes, "LANE_STEPS", 500)
    monkeypatch.setattr(threads, "_crews", [])
    start, left = _thread.start_new_thread, [possible]

    def limited(*arguments):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(*arguments)

    monkeypatch.setattr(threads._thread, "start_new_thread", limited)
    for _ in range(3):
        assert fastrnn.forward(net, x, workers=4).tobytes() == expected
    assert len(threads._crews[0].gates) == possible


def test_helpers_of_a_crew_that_nobody_knows_any_more_go(monkeypatch):
    monkeypatch.setattr(threads, "SLEEP", 0.05)
    crew = threads.Crew()
    post = weakref.ref(crew.post)
    assert crew.hire(3) == 3
    del crew
    until = time.monotonic() + 30
    while post() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert post() is None


def test_a_job_holds_the_arrays_whose_addresses_kernels_are_given(monkeypatch):
    held = []
    share = threads.share

    def spy(call, blocks, workers, arrays=()):
        held.append(arrays)
        share(call, blocks, workers, arrays)

    monkeypatch.setattr(lanes, "share", spy)
    net, x = cases.neuron(), cases.inputs(cases.neuron(), 40, 300)
    y = np.zeros_like(x)

    def holds(call, *arrays):
        held.clear()
        call()
        for array in arrays:
            assert all(any(np.shares_memory(array, h) for h in flat(some)) for some in held)

    def flat(some):
        for one in some:
            if isinstance(one, tuple):
                yield from flat(one)
            elif one is not None:
                yield one

    out = np.empty_like(x)
    holds(lambda: fastrnn.forward(net, x, out=out), x, out)
    holds(lambda: fastrnn.loss_and_grad(net, x, y, wrt="w2"), x)
    holds(lambda: fastrnn.backward(net, x, y, wrt="w2", scaled=True), x, y)
    holds(lambda: fastrnn.lyapunov(net, x), x)


# Flush to zero and "denormals are zero"; to minus and plus infinity, to zero.
MODES = {"subnormals are 0": 0x9FC0, "down": 0x3F80, "up": 0x5F80, "to 0": 0x7F80}
PLANE = np.linspace(0, 2, 3), np.array([0.0, 1e-310])
VERBS = {
    "forward": lambda net, x, y: fastrnn.forward(net, x),
    "forward scaled": lambda net, x, y: fastrnn.forward(net, x, scaled=True),
    "predict": lambda net, x, y: fastrnn.predict(net, x),
    "backward": lambda net, x, y: fastrnn.backward(net, x, y, wrt=("w1", "w2", "b", "x")),
    "backward scaled": lambda net, x, y: fastrnn.backward(net, x, y, scaled=True),
    "loss_and_grad": lambda net, x, y: fastrnn.loss_and_grad(net, x, y),
    "truncated": lambda net, x, y: fastrnn.loss_and_grad(net, x, y, truncate=8),
    "loss_and_grad scaled": lambda net, x, y: fastrnn.loss_and_grad(net, x, y, scaled=True),
    "influence": lambda net, x, y: fastrnn.influence(net, x),
    "lyapunov": lambda net, x, y: fastrnn.lyapunov(net, x),
    "jacobian_norms": lambda net, x, y: fastrnn.jacobian_norms(net, x),
    "diagnose": lambda net, x, y: fastrnn.diagnose(net, x),
    "fixed_points": lambda net, x, y: fastrnn.fixed_points(net, x[0]) if net.is_neuron else None,
    "phase_diagram": lambda net, x, y: fastrnn.phase_diagram(
        x[0], w1=1e-300, w2=PLANE[0], b=PLANE[1]
    ),
}


def upstream(net, x):
    shape = (*x.shape[:2], net.hidden_size) if not net.is_neuron else x.shape
    return np.full(shape, np.finfo(x.dtype).tiny / 7, x.dtype)


def bits(value):
    """Bytes of all arrays in a result."""
    if isinstance(value, np.ndarray | np.generic | float):
        return [np.asarray(value).tobytes()]
    if isinstance(value, fastrnn.Scaled):
        return bits(value.mantissa) + bits(value.exponent)
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        return [found for part in value for found in bits(part)]
    return []


@contextlib.contextmanager
def mode(register):
    """In a floating-point mode of the caller's, which is the same afterwards."""
    arithmetic.restore(register)
    try:
        yield
        assert arithmetic.make_standard() & ~0x3F == register
    finally:
        arithmetic.make_standard()


@pytest.mark.skipif(not arithmetic.is_x86(binding.get_process_triple()), reason="bits of x86's")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["neuron", "layer"])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_results_do_not_depend_on_the_callers_floating_point_mode(verb, kind, dtype, monkeypatch):
    monkeypatch.setattr(layers, "CALL_WORK", 2000)
    monkeypatch.setattr(lanes, "LANE_STEPS", 500)
    tiny = np.finfo(dtype).tiny
    if kind == "neuron":
        net = fastrnn.RNN(1.0, 0.5, activation="identity")
    else:
        net = cases.layer(3, 2, "identity", dtype)
        net = fastrnn.RNN(net.w1, net.w2, activation="identity")
    x = (cases.inputs(net, 40, 30, dtype) * tiny).astype(dtype)
    y = upstream(net, x)
    expected = bits(VERBS[verb](net, x, y))
    for register in MODES.values():
        # Helpers that are started in this mode, and those that were before.
        monkeypatch.setattr(threads, "_crews", [])
        for workers in (3, 1):
            with fastrnn.set_workers(workers), mode(register):
                found = bits(VERBS[verb](net, x, y))
            assert found == expected


@pytest.mark.skipif(not arithmetic.is_x86(binding.get_process_triple()), reason="bits of x86's")
def test_the_modes_of_these_tests_change_what_numpy_computes():
    numbers = np.array([1e-310, 1.0, 1.0]), np.array([0.3, 3.0, 10.0])
    expected = numbers[0] / numbers[1]
    for register in MODES.values():
        with mode(register):
            found = numbers[0] / numbers[1]
        assert found.tobytes() != expected.tobytes()


@pytest.mark.parametrize(
    ("triple", "instructions"),
    [
        ("x86_64-unknown-linux-gnu", ("stmxcsr", "ldmxcsr")),
        ("aarch64-unknown-linux-gnu", ("mrs", "msr")),
        ("arm64-apple-macosx", ("mrs", "msr")),
        ("riscv64-unknown-linux-gnu", ()),
    ],
)
def test_the_mode_is_read_and_set_on_every_processor_that_is_known(triple, instructions):
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        machine = binding.Target.from_triple(triple).create_target_machine()
    except RuntimeError:
        pytest.skip("LLVM is built without this target")
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.IntType(64), [ir.IntType(64)]), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    before = arithmetic.read_register(builder, triple)
    arithmetic.write_register(builder, triple, function.args[0])
    builder.ret(before)
    assembly = machine.emit_assembly(binding.parse_assembly(str(module))).lower()
    assert [word for word in ("stmxcsr", "ldmxcsr", "mrs", "msr") if word in assembly] == list(
        instructions
    )


def test_where_numpy_runs_out_of_memory_the_error_says_what_to_do(monkeypatch):
    net, x = cases.neuron(), cases.inputs(cases.neuron(), 4, 30)

    def none_left(*_):
        raise MemoryError

    monkeypatch.setattr(lanes.Lanes, "forward", none_left)
    with pytest.raises(MemoryError, match="^out of memory; use fewer sequences or nets a call$"):
        fastrnn.forward(net, x)


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process as Linux says it")
def test_the_soak_benchmark_calls_every_verb(monkeypatch, capsys):
    monkeypatch.setattr(soak, "GROWTH", float("inf"))
    monkeypatch.setattr(soak, "other_library", lambda: lambda: time.sleep(1e-3))
    assert soak.one_by_one(4) == []
    assert soak.all_at_once(0.5) == []
    printed = capsys.readouterr().out
    for name in fastrnn.__all__:
        others = ("dataset", "load_series", "warmup")
        if inspect.isfunction(getattr(fastrnn, name)) and name not in others:
            assert f"{name} of" in printed


def test_the_soak_benchmark_finds_what_grows_and_what_changes(monkeypatch):
    held, numbers = [], iter(range(10**9))
    monkeypatch.setattr(soak, "resident", lambda: 1 << 20 << len(held) // 8)
    monkeypatch.setattr(soak, "jobs", lambda: {"f": lambda: held.append(1) or float(next(numbers))})
    monkeypatch.setattr(soak, "other_library", lambda: lambda: time.sleep(1e-3))
    wrong = soak.one_by_one(64)
    assert [text.split()[:2] for text in wrong] == [["f", "grows"], ["f", "has"]]
    monkeypatch.setattr(soak, "resident", lambda: 0)
    assert set(soak.all_at_once(0.3)) == {"f has other bits beside other threads"}
