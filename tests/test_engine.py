"""Threads: the same bits for any number of them, and calls from anywhere."""

import multiprocessing
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn
from fastrnn import engine, exact_walks, lanes, layers, threads
from tests import cases


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Many blocks even for small jobs."""
    monkeypatch.setattr(layers, "CALL_WORK", 2000)
    monkeypatch.setattr(lanes, "LANE_STEPS", 500)


@pytest.mark.parametrize("kind", cases.NETS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_same_bits_for_any_number_of_workers(kind, dtype):
    net = cases.NETS[kind]("tanh", dtype)
    x = cases.inputs(net, 40, 30, dtype)
    y = np.zeros_like(fastrnn.predict(net, x))

    def everything(workers):
        loss, grad = fastrnn.loss_and_grad(net, x, y, workers=workers, wrt=("w1", "w2", "b", "x"))
        influence = fastrnn.influence(net, x, workers=workers)
        arrays = [fastrnn.forward(net, x, workers=workers), loss, influence.mantissa]
        return [a.tobytes() for a in (*arrays, grad.w1, grad.w2, grad.b, grad.x)]

    one = everything(1)
    assert everything(2) == one
    assert everything(7) == one


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("per_sequence", [False, True])
def test_same_bits_of_a_layer_for_any_slice_of_time(dtype, per_sequence, monkeypatch):
    net = cases.layer(5, 2, dtype=dtype, outputs=2)
    x = cases.inputs(net, 50, 700, dtype)
    lengths = np.random.default_rng(0).integers(0, 701, 50)
    options = {"lengths": lengths, "per_sequence": per_sequence, "wrt": ("w1", "w2", "w3", "x")}
    results = set()
    for work in (1, 1 << 22, 1 << 40):
        for size in (1, 1 << 18, 1 << 30):
            monkeypatch.setattr(layers, "CALL_WORK", work)
            monkeypatch.setattr(layers, "SLICE_BYTES", size)
            states = fastrnn.forward(net, x, lengths=lengths)
            loss, grad = fastrnn.loss_and_grad(net, x, np.ones((50, 700, 2), dtype), **options)
            influence = fastrnn.influence(net, x, lengths=lengths)
            arrays = states, loss, grad.w1, grad.w2, grad.w3, grad.x, influence.mantissa
            results.add(tuple(array.tobytes() for array in arrays))
    assert len(results) == 1


def test_same_bits_for_any_tile(monkeypatch):
    net = cases.neuron("tanh", "float32")
    x = cases.inputs(net, 3, 5000, "float32")
    results = set()
    for tile in (64, 192, 2112, 8448):
        monkeypatch.setattr(lanes, "BACK", lanes.Block(4, tile))
        _, grad = fastrnn.loss_and_grad(net, x, np.zeros_like(x), wrt=("w2", "x"))
        influence = fastrnn.influence(net, x).mantissa
        results.add((grad.w2.tobytes(), grad.x.tobytes(), influence.tobytes()))
    assert len(results) == 1


def test_same_bits_of_a_layers_influence_for_any_tile(monkeypatch):
    # Weights too far apart for vectors: number by number.
    net = fastrnn.RNN(np.eye(2), [[1e-300, 1e300], [0.0, 1e-300]], activation="identity")
    x = cases.inputs(net, 3, 300)
    results = set()
    for tile in (32, 64, 1000):
        monkeypatch.setattr(exact_walks, "tile", lambda job, tile=tile: tile)
        results.add(fastrnn.influence(net, x).mantissa.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("kind", ["neuron", "bank", "layer"])
def test_same_bits_in_any_memory(kind):
    net = cases.NETS[kind]("tanh", "float32")
    x = cases.inputs(net, 40, 1500, "float32")
    y = np.zeros_like(fastrnn.predict(net, x))

    def of_loss(memory):
        _, grad = fastrnn.loss_and_grad(net, x, y, wrt=("w2", "x"), workers=2, memory=memory)
        return grad.w2.tobytes() + grad.x.tobytes()

    def of_states(memory):
        return fastrnn.backward(net, x, y + 1, memory=memory).w1.tobytes()

    def scaled(memory):
        up = fastrnn.backward(net, x, y + 1, wrt=("w2", "x"), scaled=True, memory=memory)
        return up.w2.mantissa.tobytes() + up.x.mantissa.tobytes()

    def influence(memory):
        return fastrnn.influence(net, x, workers=2, memory=memory).mantissa.tobytes()

    for call in (of_loss, of_states, scaled, influence):
        with pytest.raises(ValueError, match="memory must be at least") as error:
            call(1)
        least = int(str(error.value).split()[5])
        assert call(least) == call(8 * least) == call(1 << 30) == call(None)
        with pytest.raises(ValueError, match=f"least {least} bytes for this job, got {least - 1}"):
            call(least - 1)


def test_same_bits_of_one_sequence_in_any_memory():
    net = fastrnn.RNN(0.5, 0.9)
    x = cases.inputs(net, 1, 100_000)
    results = {
        fastrnn.loss_and_grad(net, x, x, memory=memory)[1].w2.tobytes()
        for memory in (200_000, 400_000, 1_000_000, None)
    }
    assert len(results) == 1


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_same_bits_for_any_slice_of_time(dtype, monkeypatch):
    net = cases.neuron("tanh", dtype)
    x = cases.inputs(net, 3, 9000, dtype)
    lengths = [9000, 4224, 10]
    results = set()
    for steps in (lanes.SLICE, 2112, 4224):
        monkeypatch.setattr(lanes, "SLICE", steps)
        states = fastrnn.forward(net, x, lengths=lengths)
        _, grad = fastrnn.loss_and_grad(net, x, x, lengths=lengths, wrt=("w1", "w2", "b", "x"))
        influence = fastrnn.influence(net, x, lengths=lengths)
        arrays = states, grad.w1, grad.w2, grad.b, grad.x, influence.mantissa, influence.exponent
        results.add(tuple(a.tobytes() for a in arrays))
    assert len(results) == 1


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_same_bits_alone_and_at_any_place_in_a_batch(dtype):
    net = cases.neuron("tanh", dtype)
    x = cases.inputs(net, 70, 100, dtype)
    y = np.zeros_like(x)
    together = fastrnn.forward(net, x)
    _, grad = fastrnn.loss_and_grad(net, x, y, per_sequence=True)
    for i in (0, 1, 15, 16, 17, 63, 64, 69):
        assert fastrnn.forward(net, x[i]).tobytes() == together[i].tobytes()
        _, alone = fastrnn.loss_and_grad(net, x[i], y[i])
        assert alone.w2 / 70 == pytest.approx(grad.w2[i], rel=4 * float(np.finfo(dtype).eps))
    for size in range(1, 18):
        assert fastrnn.forward(net, x[:size]).tobytes() == together[:size].tobytes()


@pytest.mark.parametrize("bank", [None, 3, 20])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_same_bits_of_any_number_of_lanes_side_by_side(bank, dtype):
    net = cases.neuron("tanh", dtype, bank=bank)
    x = cases.inputs(net, 70, 100, dtype)
    lengths = np.arange(31, 101)
    states = fastrnn.forward(net, x)
    padded = fastrnn.forward(net, x, lengths=lengths)
    options = {"per_sequence": True, "wrt": ("w2", "x", "h0")}
    grad = fastrnn.backward(net, x, states, **options)
    for size in (*range(1, 34), 70):
        rows = np.ascontiguousarray(x[:size].T).T
        up = states[..., :size, :]
        found = fastrnn.forward(net, rows)
        assert found.tobytes() == up.tobytes()
        some = fastrnn.backward(net, rows, found, **options)
        assert some.w2.tobytes() == grad.w2[..., :size].tobytes()
        assert some.x.tobytes() == grad.x[..., :size, :].tobytes()
        assert some.h0.tobytes() == grad.h0[..., :size].tobytes()
        found = fastrnn.forward(net, rows, lengths=lengths[:size])
        assert found.tobytes() == padded[..., :size, :].tobytes()


@pytest.mark.parametrize("kind", cases.NETS)
@pytest.mark.parametrize("batch_size", [0, 1, 5, 40, 300])
def test_every_lane_is_computed_once(kind, batch_size):
    net = cases.NETS[kind]("tanh", "float64")
    job = fastrnn.sequences.sequences(net, cases.inputs(net, batch_size, 30))
    count = np.zeros(job.size("KB"), int)
    if net.is_neuron:
        order = engine.lanes(job, 3)._order
        np.add.at(count.ravel(), order, 1)
    else:
        own = engine.layers(job, 3)
        for part in own.parts:
            count[part.net, own.rows(part)] += 1
    assert (count == 1).all()


def test_eight_threads_call_at_once():
    net = cases.neuron()
    x = cases.inputs(net, 20, 100)
    expected = fastrnn.forward(net, x).tobytes()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: fastrnn.forward(net, x, workers=2).tobytes(), range(32)))
    assert set(results) == {expected}


def _in_child(connection):
    net = cases.neuron()
    x = cases.inputs(net, 40, 30)
    result = fastrnn.forward(net, x, workers=2).tobytes()
    connection.send((threads.default_workers(), result))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_process_computes_after_the_parent_did(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    net = cases.neuron()
    expected = fastrnn.forward(net, cases.inputs(net, 40, 30), workers=2).tobytes()
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=_in_child, args=(theirs,))
    child.start()
    assert ours.poll(60)
    assert ours.recv() == (1, expected)
    child.join(10)
    assert child.exitcode == 0


def test_default_workers_are_the_usable_cores_and_1_in_a_pool(monkeypatch):
    assert threads.default_workers() == threads.available_cores()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(threads.default_workers).result() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert threads.default_workers() == 1


def test_set_workers_is_a_context():
    with fastrnn.set_workers(3):
        assert threads.default_workers() == 3
        with fastrnn.set_workers(-1):
            assert threads.default_workers() == threads.available_cores()
        assert threads.default_workers() == 3
        with fastrnn.set_workers(None):
            assert threads.default_workers() == threads.available_cores()
    assert threads.default_workers() == threads.available_cores()
    with pytest.raises(ValueError, match="workers must be positive"), fastrnn.set_workers(0):
        pass


def test_set_workers_is_a_statement():
    try:
        fastrnn.set_workers(3)
        assert threads.default_workers() == 3
        # It holds for its own thread: in another the default is 1 as before.
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(threads.default_workers).result() == 1
        with fastrnn.set_workers(2):
            fastrnn.set_workers(5)
            assert threads.default_workers() == 5
        assert threads.default_workers() == 3
        with pytest.raises(ValueError, match="workers must be positive"):
            fastrnn.set_workers(0)
        assert threads.default_workers() == 3
    finally:
        fastrnn.set_workers(None)
    assert threads.default_workers() == threads.available_cores()


def test_an_error_in_a_block_is_raised(monkeypatch):
    net = cases.neuron()

    def broken(part):
        raise RuntimeError(f"part {part}")

    for workers in (1, 2, 5):
        with pytest.raises(RuntimeError, match="part"):
            threads.run(broken, list(range(9)), workers)
    # The crews and their helpers go on. A count of threads lags behind: one that has been started
    # is counted when it first runs.
    before = [len(crew.gates) for crew in threads._crews]
    fastrnn.forward(net, cases.inputs(net, 40, 30), workers=2)
    assert [len(crew.gates) for crew in threads._crews] == before


def test_every_part_is_called_once_by_helpers_that_wake_late():
    for _ in range(200):
        called = []
        threads.run(called.append, list(range(20)), 3)
        assert sorted(called) == list(range(20))


def test_helpers_let_go_of_the_callers_arrays():
    class Call:
        def __call__(self, part):
            time.sleep(1e-4)

    call = Call()
    gone = weakref.ref(call)
    threads.run(call, list(range(20)), 3)
    del call
    until = time.monotonic() + 5
    while gone() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert gone() is None


def test_a_crew_survives_ctrl_c():
    """The interrupted job ends before its arrays are freed, and the next one is whole."""

    def stop(part):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        threads.run(stop, list(range(9)), 3)
    called = []
    threads.run(called.append, list(range(9)), 3)
    assert sorted(called) == list(range(9))


@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_small_jobs_have_one_thread(monkeypatch, kind):
    monkeypatch.undo()
    net = cases.NETS[kind]("tanh", np.float64)
    counted = []
    share = threads.share

    def counting(call, blocks, workers, held=()):
        counted.append(workers)
        share(call, blocks, workers, held)

    monkeypatch.setattr(lanes, "share", counting)
    monkeypatch.setattr(threads, "share", counting)
    fastrnn.forward(net, cases.inputs(net, 64, 10), workers=4)
    assert counted == [1]
    fastrnn.forward(net, cases.inputs(net, 64, 20_000), workers=4)
    assert counted[-1] == 4
