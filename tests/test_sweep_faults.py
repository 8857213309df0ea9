"""Runs of a sweep in containers, on full, failing and read-only disks, and where nothing locks."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zarr")
pytest.importorskip("xarray")

from fastrnn.batch import held, lock
from fastrnn.batch.export import export
from fastrnn.batch.verify import verify
from tests import sweeps

ROOT = str(Path(__file__).parents[1])
JOB = """
x = "x.npy"
w2 = "0.01:100:60"
keep = "diagnosis"
tasks = 30
"""


@pytest.fixture
def child():
    """Starts a process, in a session that ends with the test."""
    with contextlib.ExitStack() as ending:

        def start(folder, *command):
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                env={**os.environ, "PYTHONPATH": ROOT},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            ending.callback(end, process)
            return process

        def end(process):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

        yield start


SWEEP = (sys.executable, "-W", "error", "-m", "fastrnn", "sweep", "job.toml", "--quiet")


def can_unshare():
    if shutil.which("unshare") is None:
        return False
    made = subprocess.run(["unshare", "--fork", "--pid", "--mount", "true"], capture_output=True)
    return made.returncode == 0


needs_namespaces = pytest.mark.skipif(
    not can_unshare(), reason="namespaces need unshare(1) and a user who may"
)
# As in a container: the run is process number 1, and dies by one signal.
CONTAINER = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(3).standard_normal((20, 20_000)))
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def wait_for_receipts(folder, count, process):
    while len(list(folder.glob("job/receipts/0*.json"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@needs_namespaces
def test_a_container_takes_over_from_one_that_was_killed_and_not_from_one_that_lives(folder, child):
    first = child(folder, *CONTAINER, *SWEEP)
    wait_for_receipts(folder, 2, first)
    os.killpg(first.pid, signal.SIGSTOP)  # so that it does not end by itself
    about = json.loads((folder / "job/receipts/1-of-1.lock").read_text())
    assert about["pid"] == 1
    second = child(folder, *CONTAINER, *SWEEP)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 2
    assert re.fullmatch(r"fastrnn: .*in use by another run, process 1 on host .*\n", errors)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    third = child(folder, *CONTAINER, *SWEEP)
    _, errors = third.communicate(timeout=300)
    assert third.returncode == 0
    assert errors.endswith("which has died\n")
    assert verify(folder / "job") == (30, 0, [])
    assert not list(folder.rglob("*.partial"))


@needs_namespaces
@pytest.mark.parametrize("when", ["at the start", "while it runs"])
def test_a_file_system_that_becomes_read_only_is_one_line_and_loses_nothing(when, folder):
    """On a file system of its own, seen by the child alone."""
    done = f"{sys.executable} -m fastrnn"
    begin = f"{done} sweep job.toml --quiet --shard 1/30 && mount -o remount,ro disk"
    run = {
        "at the start": f"{begin} && {done} sweep job.toml --quiet; status=$?",
        "while it runs": (
            f"{done} sweep job.toml --quiet & "
            "while [ ! -e job/receipts/00000003.json ]; do sleep 0.05; done; "
            "mount -o remount,ro disk 2>/dev/null || mount -o remount,ro,bind disk disk; "
            "wait $!; status=$?"
        ),
    }[when]
    script = (
        "mkdir disk && mount -t tmpfs none disk && cp job.toml x.npy disk && mkdir disk/job && "
        f"ln -s disk/job job && {run}; "
        "mount -o remount,rw disk; "
        f"{done} sweep job.toml --quiet; echo again $? first $status; {done} verify job"
    )
    script = script.replace("job.toml", "disk/job.toml").replace("cp disk/job.toml", "cp job.toml")
    found = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in found.stderr
    assert "30 of 30 tasks computed, 0 files at fault" in found.stdout
    if when == "at the start":
        assert "again 0 first 2" in found.stdout
        assert re.search(r"^fastrnn: .*/receipts/guard: Read-only file system$", found.stderr, re.M)


KILLED = """
import os, pathlib, signal
from fastrnn.sweep.report import Origin, output_folder
with output_folder(pathlib.Path("out"), ["a", "b"], Origin("sweep", "x"), False) as staging:
    (staging / "a").write_text("half")
    os.kill(os.getpid(), signal.{signal})
"""
WHOLE = """
import pathlib
from fastrnn.sweep.report import Origin, output_folder
with output_folder(pathlib.Path("out"), ["a", "b"], Origin("sweep", "x"), False) as staging:
    (staging / "a").write_text("whole")
"""


@pytest.mark.parametrize("container", [pytest.param(True, marks=needs_namespaces), False])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_a_quick_sweep_takes_no_folder_from_one_that_lives(how, container, tmp_path, child):
    """In containers both are process number 1, where signals to oneself do nothing."""
    around = CONTAINER if container else ()
    code = KILLED.format(signal=how)
    if container:
        code = code.replace("os.kill", "import time; time.sleep(60); os.kill")
    first = child(tmp_path, *around, sys.executable, "-c", code)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("out/.partial-*/a")):
        assert time.monotonic() < until, first.communicate()
        time.sleep(0.01)
    if container:
        os.killpg(first.pid, getattr(signal, how))
    if how == "SIGKILL":
        first.wait(60)
    second = child(tmp_path, *around, sys.executable, "-W", "error", "-c", WHOLE)
    assert second.wait(60) == 0
    assert (tmp_path / "out" / "a").read_text() == "whole"
    left = list(tmp_path.glob("out/.partial-*/a"))
    assert len(left) == (how == "SIGSTOP")


def test_a_killed_run_whose_forked_children_live_on_is_taken_over(tmp_path, child):
    """A pool of forked processes outlives its parent, and would hold the parent's lock."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    code = (
        "import os, signal, sys, time\n"
        "from tests import sweeps\n"
        "def end(now):\n"
        "    if now.done == 2:\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(60)\n"
        "            os._exit(0)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "sweeps.small().run(sys.argv[1], executor=1, progress=end)"
    )
    process = child(ROOT, sys.executable, "-c", code, str(tmp_path))
    process.wait(120)
    assert (tmp_path / "receipts" / "1-of-1.lock").exists()
    sweeps.small().run(tmp_path)
    os.killpg(process.pid, 0)  # the forked child lives


@pytest.fixture(params=[errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS], ids=errno.errorcode.get)
def no_locks(request, monkeypatch):
    """A file system without locks, as Lustre may be mounted."""
    fcntl = pytest.importorskip("fcntl")

    def missing(number, what):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", missing)


class Stop(Exception):
    pass


@pytest.mark.usefixtures("no_locks")
def test_where_nothing_locks_signs_of_life_hold(tmp_path, monkeypatch):
    def second(now):
        for call in (
            lambda: sweeps.small().run(tmp_path),
            lambda: sweeps.small().run(tmp_path, shard=(1, 2)),
            lambda: sweeps.small(b=0.2).run(tmp_path, force=True),
        ):
            with pytest.raises(BlockingIOError, match="in use by another run"):
                call()
        raise Stop

    with pytest.raises(Stop):
        sweeps.small().run(tmp_path, progress=second)
    sweeps.small().run(tmp_path)
    assert verify(tmp_path).not_computed == 0
    assert sorted(path.name for path in (tmp_path / "receipts").glob("*[!n]")) == ["guard"]


@pytest.mark.usefixtures("no_locks")
def test_where_nothing_locks_the_guard_of_a_dead_run_gives_way(tmp_path):
    (tmp_path / "receipts").mkdir()
    mark = tmp_path / "receipts" / lock.ALONE
    mark.touch()
    os.utime(mark, (time.time() - lock.SILENT_SECONDS - 60,) * 2)
    sweeps.small().run(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("locks", [True, False])
def test_only_one_at_a_time_is_guarded(locks, tmp_path, monkeypatch):
    import threading

    if not locks:
        monkeypatch.setattr(held, "try_lock", lambda number: None)
    inside, most = [], []

    def enter():
        for _ in range(5):
            with lock.guarded(tmp_path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20


def test_a_touch_that_fails_ends_no_run(tmp_path, monkeypatch):
    touched = []

    def fail(self):
        touched.append(self.path.name)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def slowly(now):
        while now.done == 1 and len(touched) < 3:
            time.sleep(0.01)

    with lock.guarded(tmp_path):
        pass
    monkeypatch.setattr(lock, "TOUCH_SECONDS", 0.01)
    taken = lock.Lock(tmp_path, (1, 1))
    with lock.guarded(tmp_path):
        taken.take(alone=True)
    with monkeypatch.context() as patch:
        patch.setattr(held.HeldFile, "touch", fail)
        deadline = time.monotonic() + 60
        while len(touched) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        taken.require()
    taken.give_back()
    assert len(touched) >= 3
    assert not list(tmp_path.glob("*.lock"))


@pytest.mark.parametrize("locks", [True, False])
def test_a_lock_that_could_not_be_taken_away_does_not_block_its_own_process(
    locks, tmp_path, monkeypatch, caplog
):
    if not locks:
        monkeypatch.setattr(held, "try_lock", lambda number: None)

    def read_only(self, missing_ok=False):
        if self.suffix == ".lock":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return unlink(self, missing_ok)

    unlink = Path.unlink
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", read_only)
        sweeps.small().run(tmp_path)
    assert "could not be taken away: Read-only file system" in caplog.text
    assert (tmp_path / "receipts" / "1-of-1.lock").exists()
    sweeps.small().run(tmp_path)
    assert not (tmp_path / "receipts" / "1-of-1.lock").exists()


def test_a_run_whose_lock_was_taken_over_ends(tmp_path):
    def take_over(now):
        (tmp_path / "receipts" / "1-of-1.lock").unlink(missing_ok=True)
        (tmp_path / "receipts" / "1-of-1.lock").write_text("{}")

    with pytest.raises(OSError, match="was taken over by another run") as info:
        sweeps.small().run(tmp_path, executor=1, progress=take_over)
    assert info.value.filename == str(tmp_path / "receipts" / "1-of-1.lock")
    assert (tmp_path / "receipts" / "1-of-1.lock").read_text() == "{}"


LIMITED = """
import resource, signal, sys
from tests import sweeps
import fastrnn, numpy
sweep = sweeps.small() if sys.argv[2] == "result" else fastrnn.Sweep(numpy.zeros(9000), w2=0.5)
if sys.argv[2] == "result":
    sweep.run(sys.argv[1], executor=1, shard=(1, 8))
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    sweep.run(sys.argv[1], executor=1)
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.parametrize("what", ["input", "result"])
def test_a_limit_of_file_sizes_names_the_file(what, tmp_path, child):
    pytest.importorskip("resource")
    process = child(ROOT, sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path), what)
    output, errors = process.communicate(timeout=120)
    assert errors == ""
    number, name = output.split(maxsplit=1)
    assert int(number) == errno.EFBIG
    assert name.strip().startswith(str(tmp_path / {"input": "inputs", "result": "states"}[what]))
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EFBIG])
def test_an_error_of_the_disk_names_the_file(number, tmp_path, monkeypatch):
    sweeps.small().run(tmp_path, executor=1, shard=(1, 8))
    fsync, calls = os.fsync, []

    def fail(descriptor):
        calls.append(descriptor)
        if len(calls) > 60:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match=re.escape(os.strerror(number))) as info:
            sweeps.small().run(tmp_path, executor=1)
    assert info.value.errno == number
    assert str(info.value.filename).startswith(str(tmp_path))
    assert not list(tmp_path.rglob("*.partial"))
    assert verify(tmp_path).faults == []
    sweeps.small().run(tmp_path)
    assert verify(tmp_path) == (8, 0, [])


def test_a_disk_that_cannot_be_read_names_the_file(tmp_path, monkeypatch):
    out = sweeps.small().run(tmp_path)

    def fail(file, digest):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("hashlib.file_digest", fail)
    with pytest.raises(OSError, match="Input/output error") as info:
        verify(out)
    assert str(info.value.filename).startswith(str(out))


@pytest.mark.parametrize("length", [244, 245, 252, 255])
def test_names_too_long_are_refused_before_any_work(length, tmp_path, monkeypatch):
    out = sweeps.small().run(tmp_path / ("a" * length))
    if length + len("-states.csv") <= 255:
        assert len(export(out, "csv")) == 2
        return

    def work(*given):
        raise AssertionError("read before the name was looked at")

    monkeypatch.setattr("fastrnn.batch.export.verify", work)
    with pytest.raises(OSError, match="File name too long"):
        export(out, "csv")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_an_export_takes_names_up_to_the_longest(tmp_path):
    out = sweeps.small(keep="last", every=1).run(tmp_path / "out")
    longest = tmp_path / ("a" * 251 + ".csv")
    assert export(out, "csv", longest) == [longest]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("where", ["nowhere/x.csv", "folder"])
def test_an_export_to_no_file_is_refused_before_any_work(where, tmp_path, monkeypatch):
    out = sweeps.small().run(tmp_path / "out")
    (tmp_path / "folder").mkdir()

    def work(*given):
        raise AssertionError("read before the place was looked at")

    monkeypatch.setattr("fastrnn.batch.export.verify", work)
    with pytest.raises(OSError, match="No such file or directory|is a folder"):
        export(out, "csv", tmp_path / where)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "out"]


WINDOWS = """
import errno, fcntl, os, sys, types
import dask.array, numba, xarray, zarr, zarr.storage
import fastrnn, fastrnn.kernels.jit

def locking(number, mode, count):
    assert (mode, count, os.lseek(number, 0, os.SEEK_CUR) > 1 << 20) == (2, 1, True)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied")

assert not [name for name in sys.modules if name.startswith("fastrnn.batch.")]
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
sys.modules["fcntl"] = None
for name in ("O_NOFOLLOW", "O_NONBLOCK", "register_at_fork"):
    delattr(os, name)
os.supports_fd.discard(os.utime)
sys.platform = "win32"

from tests import sweeps
from fastrnn.batch.verify import verify

def second(now):
    try:
        sweeps.small().run(sys.argv[1])
    except BlockingIOError as error:
        print("refused" if "in use by another run" in str(error) else error)
    raise SystemExit

try:
    sweeps.small().run(sys.argv[1], progress=second)
except SystemExit:
    pass
print(verify(sweeps.small().run(sys.argv[1])))
print([name for name in os.listdir(sys.argv[1] + "/receipts") if name.endswith("lock")])
"""


def test_a_sweep_runs_without_what_windows_has_not(tmp_path, child):
    """No fcntl, no flags of POSIX, locks of msvcrt; by what is made to look like it."""
    pytest.importorskip("fcntl")
    pytest.importorskip("dask")
    process = child(ROOT, sys.executable, "-c", WINDOWS, str(tmp_path))
    output, errors = process.communicate(timeout=300)
    assert errors == ""
    assert output == "refused\nFindings(tasks=8, not_computed=0, faults=[])\n[]\n"
