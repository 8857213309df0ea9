"""Runs of a sweep: stored, stopped, resumed, refused, checked."""

import errno
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zarr")
xarray = pytest.importorskip("xarray")

import fastrnn  # noqa: E402
from fastrnn.batch import lock  # noqa: E402
from fastrnn.batch.description import describe  # noqa: E402
from fastrnn.batch.run import TasksFailed, compute  # noqa: E402
from fastrnn.batch.store import Store  # noqa: E402
from fastrnn.batch.verify import verify  # noqa: E402
from tests import sweeps  # noqa: E402

TASKS = 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Content of the store of an uninterrupted run."""
    return sweeps.content(sweeps.small().run(tmp_path_factory.mktemp("whole")))


class Stop(Exception):
    pass


def stop_after(count):
    """A progress that ends the run when so many tasks are done."""

    def progress(now):
        if now.done >= count:
            raise Stop

    return progress


def interrupted(out, count=3):
    with pytest.raises(Stop):
        sweeps.small().run(out, executor=1, progress=stop_after(count))
    return verify(out).not_computed


def test_a_store_opens_in_xarray(tmp_path):
    sweep = sweeps.small()
    assert len(sweep.tasks) == TASKS
    data = xarray.open_zarr(sweep.run(tmp_path / "a night"))
    assert dict(data.sizes) == {"w1": 2, "w2": 7, "sequence": 5, "time": 9}
    assert data.states.dims == ("w1", "w2", "sequence", "time")
    np.testing.assert_array_equal(data.w2, sweep.w2)
    np.testing.assert_array_equal(data.time, range(0, 59, 7))
    assert float(data.b) == 0.1
    assert data["last"].attrs == {"long_name": "last state h_T", "units": "1"}
    assert {"cpu", "versions"} <= set(data.attrs)
    assert data.attrs["inputs"].startswith("inputs/x.npy ")
    for name, values in data.data_vars.items():
        assert not values.isnull().any(), name


@pytest.mark.parametrize("y", ["next", None, np.ones((5, 60))], ids=["next", "none", "own"])
def test_a_store_knows_its_sweep(y, tmp_path):
    keep = "last" if y is None else ("last", "loss")
    sweep = sweeps.small(y=y, keep=keep, every=1, dtype="float32")
    assert describe(Store.open(sweep.run(tmp_path)).sweep) == describe(sweep)


def test_the_smallest_store_has_all_its_files(tmp_path):
    out = fastrnn.Sweep([0.0], w2=0.0, w1=0.0, keep=("last", "states")).run(tmp_path)
    assert verify(out) == (1, 0, [])
    data = xarray.open_zarr(out)
    assert (data.sequence.values, data.time.values, data.states.values) == ([0], [0], [[0.0]])
    (out / "time" / "c.0").unlink()
    assert verify(out).faults == ["time/c.0: missing"]


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "identity"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_weight_or_input_leads_to_a_warning(activation, dtype, tmp_path):
    """Warnings are errors in all tests."""
    x = np.random.default_rng(0).standard_normal((3, 300))
    x[1] *= 1e30
    x[2, 5] = np.nan
    largest = 1e38 if dtype == "float32" else 1e300
    w2 = [-largest, -1.0, 0.0, 1 / largest, 1.0, 30.0, largest]
    sweep = fastrnn.Sweep(
        x, w2=w2, w1=[0.0, 1e30], y="next", keep=sweeps.EVERYTHING, every=100,
        activation=activation, dtype=dtype,
    )  # fmt: skip
    assert verify(sweep.run(tmp_path)).faults == []
    data = xarray.open_zarr(tmp_path)
    assert data["computed"].all()
    assert np.isfinite(data["last"].isel(w1=0, sequence=0, w2=slice(1, 5))).all()


def test_chunks_are_checked_by_zarr_itself(tmp_path):
    out = sweeps.small().run(tmp_path)
    flip_a_bit(out / "last" / "c.0.1.0")
    with pytest.raises(Exception, match="checksum"):
        xarray.open_zarr(out)["last"].load()


def test_what_is_not_computed_is_nan(tmp_path):
    left = interrupted(tmp_path)
    assert 0 < left < TASKS
    data = xarray.open_zarr(tmp_path)
    missing = data["last"].isnull().sum()
    assert 0 < missing < data["last"].size
    # No result of this sweep is NaN.
    np.testing.assert_array_equal(data["last"].isnull(), ~data["computed"])


def test_results_that_are_all_nan_are_stored(tmp_path):
    sweep = fastrnn.Sweep(np.full((2, 9), np.nan), w2=[0.5, 0.9], tasks=2)
    out = sweep.run(tmp_path)
    assert verify(out) == (2, 0, [])
    assert len(list((out / "last").glob("c.*"))) == 2
    data = xarray.open_zarr(out)
    assert data["last"].isnull().all()
    assert data["computed"].all()


def test_receipts_are_small_and_say_what_was_stored(tmp_path):
    out = sweeps.small().run(tmp_path)
    receipts = sorted((out / "receipts").glob("0*.json"))
    assert len(receipts) == TASKS
    for number, receipt in enumerate(receipts):
        assert len(receipt.read_bytes()) < 1000
        about = json.loads(receipt.read_text())
        assert about["task"] == number
        assert len(about["files"]) == 13
        assert about["cpu"]


def test_a_run_goes_on_where_it_was_stopped(tmp_path, whole, monkeypatch):
    left = interrupted(tmp_path)
    (tmp_path / "last" / "c.1.9.0.0123456789abcdef.partial").write_bytes(b"not of a task")
    for name in ("last/c.1.3.0", "receipts/00000007.json"):
        (tmp_path / f"{name}.0123456789abcdef.partial").write_bytes(b"half")
    computed = counted(monkeypatch)
    sweeps.small().run(tmp_path)
    assert len(computed) == left
    (tmp_path / "last" / "c.1.9.0.0123456789abcdef.partial").unlink()
    assert sweeps.content(tmp_path) == whole
    sweeps.small().run(tmp_path)
    assert len(computed) == left


def counted(monkeypatch):
    computed = []

    def counting(path, identity, number, *stopped):
        computed.append(number)
        return compute(path, identity, number, *stopped)

    monkeypatch.setattr("fastrnn.batch.run.compute", counting)
    return computed


@pytest.mark.parametrize("name", ["inputs/x.npy", "zarr.json", "w2/c.0", "receipts/sweep.json"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_damaged_beginnings_are_named_and_mended(name, damage, tmp_path, whole, monkeypatch):
    out = sweeps.small().run(tmp_path)
    if damage == "missing":
        (out / name).unlink()
    else:
        flip_a_bit(out / name)
    (fault,) = verify(out).faults
    assert fault.startswith(name)
    computed = counted(monkeypatch)
    sweeps.small().run(out)
    assert computed == []
    assert sweeps.content(out) == whole


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_verify_names_exactly_what_is_damaged_and_a_run_mends_just_that(
    tmp_path, whole, monkeypatch
):
    out = sweeps.small().run(tmp_path)
    assert verify(out) == (TASKS, 0, [])
    flip_a_bit(out / "last" / "c.0.1.0")
    (out / "loss" / "c.1.0.0").write_bytes((out / "loss" / "c.1.0.0").read_bytes()[:-1])
    (out / "states" / "c.1.3.0.0").unlink()
    flip_a_bit(out / "receipts" / "00000003.json")
    assert sorted(verify(out).faults) == [
        "last/c.0.1.0: damaged",
        "loss/c.1.0.0: damaged",
        "receipts/00000003.json: damaged",
        "states/c.1.3.0.0: missing",
    ]
    computed = counted(monkeypatch)
    sweeps.small().run(out)
    assert sorted(computed) == [1, 3, 4, 7]
    assert verify(out) == (TASKS, 0, [])
    assert sweeps.content(out) == whole


def test_a_receipt_that_is_gone_is_a_task_not_computed(tmp_path):
    out = sweeps.small().run(tmp_path)
    (out / "receipts" / "00000002.json").unlink()
    assert verify(out) == (TASKS, 1, [])


def test_another_sweep_is_refused_unless_forced(tmp_path):
    out = sweeps.small().run(tmp_path)
    (out / "notes.txt").write_text("mine")
    before = sweeps.content(out)
    other = sweeps.small(w2=[0.5], keep="last", every=1)
    with pytest.raises(FileExistsError, match=r"another sweep \(w2 of shape \(7,\) .* here, keep"):
        other.run(out)
    assert sweeps.content(out) == before
    other.run(out, force=True)
    data = xarray.open_zarr(out)
    assert set(data.data_vars) == {"computed", "last"}
    assert verify(out) == (10, 0, [])
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "states").exists()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_place_that_is_no_store_is_refused(what, tmp_path):
    out = tmp_path / "out"
    if what == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="is a file, not a folder|must be a new or empty folder"):
        sweeps.small().run(out)
    assert len(list(tmp_path.rglob("*"))) == (1 if what == "file" else 2)
    with pytest.raises(FileNotFoundError, match="holds no sweep"):
        verify(out)


def test_a_second_run_is_refused(tmp_path):
    def second(now):
        with pytest.raises(BlockingIOError, match=f"in use by another run, process {os.getpid()}"):
            sweeps.small().run(tmp_path)
        with pytest.raises(BlockingIOError):
            sweeps.small().run(tmp_path, shard=(1, 2))
        with pytest.raises(BlockingIOError):
            sweeps.small(b=0.2).run(tmp_path, force=True)
        raise Stop

    with pytest.raises(Stop):
        sweeps.small().run(tmp_path, progress=second)
    sweeps.small().run(tmp_path)
    assert not list((tmp_path / "receipts").glob("*.lock"))


def test_two_shards_may_run_at_once_but_not_one_twice(tmp_path, whole):
    def second(now):
        with pytest.raises(BlockingIOError):
            sweeps.small().run(tmp_path, shard=(1, 2))
        sweeps.small().run(tmp_path, shard=(2, 2))
        raise Stop

    with pytest.raises(Stop):
        sweeps.small().run(tmp_path, shard=(1, 2), progress=second)
    sweeps.small().run(tmp_path, shard=(1, 2))
    assert sweeps.content(tmp_path) == whole


def leave_lock(folder, content, silence=0.0):
    (folder / "receipts").mkdir()
    path = folder / "receipts" / "1-of-1.lock"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    os.utime(path, (time.time() - silence,) * 2)


def of_here(**holder):
    """What a run of this machine leaves that held its lock by the file system."""
    return {"host": "here", "pid": 1, "machine": lock._machine(), "locked": True, **holder}


DEAD = {
    "a process number that lives": (of_here(pid=os.getpid()), 0),
    "a process number of a container": (of_here(pid=1), 0),
    "no process number": (of_here(pid=-1), 0),
    "none of this size": (of_here(pid=1 << 40), 0),
    "this process, which gave it up": (of_here(process=lock._process, claim="1", locked=None), 0),
    "not written yet": (b"", 0),
    "elsewhere, silent": ({"host": "elsewhere", "pid": 1}, lock.SILENT_SECONDS + 60),
    "damaged, silent": (b"[" * 4000, lock.SILENT_SECONDS + 60),
}


@pytest.mark.parametrize("left", DEAD)
def test_the_lock_of_a_dead_run_is_taken_over(left, tmp_path, whole, caplog):
    leave_lock(tmp_path, *DEAD[left])
    sweeps.small().run(tmp_path)
    assert "which has died" in caplog.text
    assert sweeps.content(tmp_path) == whole


ALIVE = {
    "elsewhere": ({"host": "elsewhere", "pid": 1}, "process 1 on host elsewhere, last heard of"),
    "where the file system does not lock": (of_here(locked=None), "process 1 on host here"),
    "a number beyond all": ({"pid": 1 << 40}, "process 1099511627776 on host"),
    "a number of none": ({"pid": -1}, "process -1 on host"),
    "nested": (b"[" * 4000, r"process \? on host \?"),
    "nested, and beyond what is read": (b'{"pid":' * 100_000, r"process \? on host \?"),
    "digits": (b"9" * 100_000, r"process \? on host \?"),
    "long": ({"pid": "1" * 3000, "host": "a"}, "process 1{80} on host a,"),
    "no text": (b"\xff\x00" * 50, r"process \? on host \?"),
}


@pytest.mark.parametrize("left", ALIVE)
def test_a_lock_whose_holder_may_live_is_not_taken_over(left, tmp_path):
    content, message = ALIVE[left]
    leave_lock(tmp_path, content)
    with pytest.raises(BlockingIOError, match=message) as info:
        sweeps.small().run(tmp_path)
    assert len(str(info.value)) < 500


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_give_the_same_bits(method, tmp_path, whole):
    if method == "fork" and sys.version_info >= (3, 12):
        pytest.skip("warns of threads in the parent")
    with ProcessPoolExecutor(2, get_context(method)) as pool:
        sweeps.small().run(tmp_path, executor=pool)
    assert sweeps.content(tmp_path) == whole


def dies(path, identity, number):
    if number == 4:
        os.kill(os.getpid(), 9)
    return compute(path, identity, number)


def test_a_dead_process_costs_its_tasks_only(tmp_path, whole, monkeypatch):
    monkeypatch.setattr("fastrnn.batch.run.compute", dies)
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        with pytest.raises(TasksFailed, match=r"of 8 tasks failed.*\n.*BrokenProcessPool"):
            sweeps.small().run(tmp_path, executor=pool)
    monkeypatch.undo()
    assert verify(tmp_path).faults == []
    sweeps.small().run(tmp_path)
    assert sweeps.content(tmp_path) == whole


def test_a_failing_task_is_named_and_all_others_are_done(tmp_path, whole, monkeypatch):
    def failing(path, identity, number, *stopped):
        if number == 5:
            raise ZeroDivisionError("as it happens")
        return compute(path, identity, number, *stopped)

    monkeypatch.setattr("fastrnn.batch.run.compute", failing)
    message = (
        r"1 of 8 tasks failed; all others are stored.*\n"
        r"task 5 \(w1 1:2, w2 2:4, sequence 0:5\): ZeroDivisionError: as it happens"
    )
    with pytest.raises(TasksFailed, match=message):
        sweeps.small().run(tmp_path)
    assert verify(tmp_path) == (TASKS, 1, [])
    monkeypatch.undo()
    sweeps.small().run(tmp_path)
    assert sweeps.content(tmp_path) == whole


def test_a_full_disk_keeps_what_is_done_and_says_what_is_needed(tmp_path, whole, monkeypatch):
    begin = sweeps.small()
    interrupted(tmp_path, count=0)
    fsync, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) > 150:  # of some 44 at the start and 26 a task
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        OSError, match=r"no space left .* \d+ bytes are still to be written"
    ) as info:
        begin.run(tmp_path, executor=1)
    assert info.value.filename == str(tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.partial"))
    assert verify(tmp_path).faults == []
    assert 0 < verify(tmp_path).not_computed < TASKS
    begin.run(tmp_path)
    assert sweeps.content(tmp_path) == whole


def test_too_small_a_disk_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"bytes are still to be written, 1000 are free"):
        sweeps.small().run(tmp_path / "out")


def test_progress_counts_tasks_and_steps(tmp_path):
    seen = []
    sweeps.small().run(tmp_path, progress=seen.append)
    assert [now.done for now in seen if now.done] == sorted(now.done for now in seen if now.done)
    assert (seen[0].done, seen[0].steps, seen[0].rate) == (0, 0, 0.0)
    assert seen[0].seconds_left == float("inf")
    last = seen[-1]
    assert (last.done, last.tasks, last.steps, last.steps_left) == (8, 8, 2 * 7 * 5 * 59, 0)
    assert last.rate > 0
    assert last.seconds_left == 0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"executor": 0}, ValueError, "executor must be at least 1 thread, got 0"),
        ({"executor": True}, TypeError, "executor must be a number of threads or"),
        ({"executor": "dask"}, TypeError, "got str"),
        ({"shard": (0, 4)}, ValueError, r"shard must be \(i, n\) with i from 1 to n"),
        ({"shard": (5, 4)}, ValueError, r"got \(5, 4\)"),
        ({"shard": 3}, TypeError, r"shard must be two integers \(i, n\), got 3"),
        ({"shard": (1,)}, TypeError, r"shard must be two integers \(i, n\), got \(1,\)"),
        ({"shard": (1.0, 2)}, TypeError, r"shard must be two integers \(i, n\), got \(1.0, 2\)"),
        ({"shard": "12"}, TypeError, r"shard must be two integers \(i, n\), got '12'"),
        ({"executor": np.True_}, TypeError, "executor must be a number of threads or"),
        ({"executor": 1.0}, TypeError, "executor must be a number of threads or"),
    ],
)
def test_wrong_arguments_leave_nothing(given, error, message, tmp_path):
    with pytest.raises(error, match=message):
        sweeps.small().run(tmp_path / "out", **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "out", ["s3://bucket/x", "file:///x", "memory://x", Path("https://host/x"), 3, b"x", "", "a\0b"]
)
def test_what_is_no_path_of_the_file_system_is_refused(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError), match="out must be a path"):
        sweeps.small().run(out)
    assert not list(tmp_path.iterdir())


def test_threads_may_be_any_integer(tmp_path, whole):
    sweeps.small().run(tmp_path, executor=np.int64(2), shard=(np.int64(1), np.int8(1)))
    assert sweeps.content(tmp_path) == whole


def test_an_executor_of_ones_own_is_left_open(tmp_path, whole):
    with ThreadPoolExecutor(2) as pool:
        sweeps.small().run(tmp_path, executor=pool)
        assert pool.submit(int).result() == 0
    assert sweeps.content(tmp_path) == whole


def test_without_zarr_the_way_to_install_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    for name in ("run", "store", "claim", "metadata"):
        monkeypatch.delitem(sys.modules, f"fastrnn.batch.{name}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"sweeps need zarr: .*'fastrnn\[sweep\]'"):
        sweeps.small().run(tmp_path)
