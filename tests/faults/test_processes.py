"""Rows 37 to 47: the same bits on any number of threads, and calls from anywhere."""

import multiprocessing
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn
from fastrnn import threads
from tests import cases
from tests.faults import child

HERE = """
import numpy as np, fastrnn
net = fastrnn.RNN(0.5, 0.9)
x = np.random.default_rng(0).standard_normal((64, 500))
def answer(workers=2):
    return fastrnn.forward(net, x, workers=workers).tobytes()
"""


@pytest.mark.parametrize("kind", ["neuron", "bank", "layer"])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_37_same_bits_for_any_workers_order_and_batch(kind, dtype):
    net = cases.NETS[kind]("tanh", dtype)
    x = cases.inputs(net, 50, 60, dtype)
    batch = int(net.is_bank)
    states = fastrnn.forward(net, x)
    assert {fastrnn.forward(net, x, workers=w).tobytes() for w in (1, 2, 7)} == {states.tobytes()}
    order = np.random.default_rng(0).permutation(50)
    assert fastrnn.forward(net, x[order]).tobytes() == states.take(order, batch).tobytes()
    for count in range(1, 18):
        some = fastrnn.forward(net, x[:count])
        assert some.tobytes() == states.take(range(count), batch).tobytes()
    many = np.concatenate([x] * 20)
    assert fastrnn.forward(net, many).take(range(50), batch).tobytes() == states.tobytes()


def test_39_eight_threads_make_the_first_call_at_once(tmp_path):
    code = (
        HERE
        + """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    found = set(pool.map(lambda _: answer(), range(16)))
print(found == {answer(1)})
"""
    )
    assert child.run(code, FASTRNN_CACHE_DIR=str(tmp_path)) == "True\n"


def _answer(_):
    net = cases.neuron()
    return threads.default_workers(), fastrnn.forward(net, cases.inputs(net, 40, 30)).tobytes()


@pytest.mark.parametrize("pool", ["threads", "fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_40_calls_from_pools_are_right_and_take_one_thread_each(pool):
    _, expected = _answer(0)
    if pool == "threads":
        made = ThreadPoolExecutor(2)
    elif pool in multiprocessing.get_all_start_methods():
        made = ProcessPoolExecutor(2, multiprocessing.get_context(pool))
    else:
        pytest.skip(f"no {pool} here")
    with made:
        assert set(made.map(_answer, range(6))) == {(1, expected)}


def test_40_and_from_dask():
    dask = pytest.importorskip("dask")
    tasks = [dask.delayed(_answer)(i) for i in range(4)]
    _, expected = _answer(0)
    assert set(dask.compute(*tasks, scheduler="threads")) == {(1, expected)}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are not forked here")
def test_41_a_process_that_is_forked_after_use_computes():
    code = (
        HERE
        + """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
expected = answer()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(answer() != expected)
    assert os.waitpid(pid, 0)[1] == 0
print("done")
"""
    )
    assert child.run(code, timeout=120) == "done\n"


@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_42_numbas_threading_layer_has_no_effect(layer):
    code = HERE + "print(answer() == answer(1))"
    assert child.run(code, NUMBA_THREADING_LAYER=layer) == "True\n"


LONG = """
import numpy as np, fastrnn, threading
net, x = fastrnn.RNN(np.float32(0.5), np.float32(0.9)), np.broadcast_to(np.float32(0.1), (4096, 1))
fastrnn.forward(net, x, keep="last", workers=2)
x = np.broadcast_to(np.float32(0.1), (4096, 50_000_000))
print("begun", flush=True)
try:
    fastrnn.forward(net, x, keep="last", workers=2)
except KeyboardInterrupt:
    print(fastrnn.forward(net, x[:, :1], keep="last", workers=2)[0] == np.float32(np.tanh(0.05)))
"""


EXACT = """
import numpy as np, fastrnn
# Weights too far apart for vectors: number by number.
net = fastrnn.RNN(np.eye(2), [[1e-300, 1e300], [0.0, 1e-300]], activation="identity")
x = np.broadcast_to(0.5, (1, 100, 2))
short = fastrnn.backward(net, x, np.ones((1, 2)), scaled=True).w2
print("begun", flush=True)
try:
    fastrnn.backward(net, np.broadcast_to(0.5, (1, 20_000_000, 2)), np.ones((1, 2)), scaled=True)
except KeyboardInterrupt:
    print((fastrnn.backward(net, x, np.ones((1, 2)), scaled=True).w2 == short).all())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGINT to a child here")
@pytest.mark.parametrize("program", [LONG, EXACT], ids=["in vectors", "number by number"])
def test_43_ctrl_c_ends_a_call_and_the_next_one_is_whole(program):
    # A job in a shell's background has Ctrl-C ignored.
    process = child.start(program, before=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    # The call itself would take minutes.
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "True\n"), errors


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarms here")
def test_43_so_does_any_error_out_of_a_signal_handler():
    code = (
        HERE
        + """
import random, signal
class Alarm(Exception): pass
def ring(*_): raise Alarm
signal.signal(signal.SIGALRM, ring)
expected, rung = answer(), 0
for _ in range(400):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-3))
        assert answer() == expected
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        rung += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(rung > 0, answer() == expected)
"""
    )
    assert child.run(code) == "True True\n"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no affinity here")
def test_47_one_core_by_affinity_is_one_worker():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from fastrnn import threads; print(threads.default_workers())"
    assert child.run(code) == "1\n"


def test_47_no_thread_is_left_at_work():
    net = cases.neuron()
    x = cases.inputs(net, 200, 300)
    fastrnn.forward(net, x, workers=2)
    before = threading.active_count()
    for _ in range(20):
        fastrnn.forward(net, x, workers=2)
    assert threading.active_count() == before
