"""Memory and cores that a process may use, and what is refused before it is allocated."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import control_groups, memory, threads

GB = 1 << 30


@pytest.fixture(name="system")
def _system(tmp_path):
    """A system's files, as far as a test writes them: folders of groups, and /proc/self."""

    def write(files, cgroup, mounts):
        process = tmp_path / "self"
        process.mkdir()
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (process / "cgroup").write_text(cgroup)
        (process / "mountinfo").write_text(
            "".join(
                f"3{i} 23 0:2{i} {root} {tmp_path / at} rw,relatime - {kind} {kind} rw,{options}\n"
                for i, (root, at, kind, options) in enumerate(mounts)
            )
        )
        return process

    return write


UNIFIED = [("/", "all", "cgroup2", "nsdelegate")]
VERSION_1 = [("/", "cpu,cpuacct", "cgroup", "cpu,cpuacct"), ("/", "memory", "cgroup", "memory")]


@pytest.mark.parametrize(
    ("files", "cgroup", "mounts", "cores"),
    [
        ({"all/cpu.max": "150000 100000\n"}, "0::/\n", UNIFIED, 1.5),
        ({"all/cpu.max": "max 100000\n"}, "0::/\n", UNIFIED, math.inf),
        # The least quota from the own group up to the root, which has none.
        (
            {"all/a/cpu.max": "50000 100000\n", "all/a/b/cpu.max": "max 100000\n"},
            "0::/a/b\n",
            UNIFIED,
            0.5,
        ),
        (
            {"all/a/cpu.max": "400000 100000\n", "all/a/b/cpu.max": "200000 100000\n"},
            "0::/a/b\n",
            UNIFIED,
            2.0,
        ),
        # Another group's quota is not this process'.
        ({"all/c/cpu.max": "50000 100000\n"}, "0::/a\n", UNIFIED, math.inf),
        (
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            "4:memory:/job\n2:cpu,cpuacct:/job\n",
            VERSION_1,
            0.5,
        ),
        # In a container, the mount starts at a group below the root.
        (
            {"all/cpu.max": "300000 100000\n", "all/x/cpu.max": "50000 100000\n"},
            "0::/docker/7/x\n",
            [("/docker/7", "all", "cgroup2", "")],
            0.5,
        ),
        # Both versions side by side: version 1 has the quota.
        (
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "50000\n",
            },
            "2:cpu,cpuacct:/\n0::/\n",
            VERSION_1 + UNIFIED,
            2.0,
        ),
        # Nothing of the kind, and nonsense.
        ({}, "", [], math.inf),
        ({"all/cpu.max": "lots\n"}, "what\n", UNIFIED, math.inf),
    ],
)
def test_the_quota_is_the_least_of_the_groups_that_a_process_is_in(
    system, files, cgroup, mounts, cores
):
    assert control_groups.cpu_quota(system(files, cgroup, mounts)) == cores


def test_half_a_core_is_one_worker(monkeypatch):
    threads._quota.cache_clear()
    monkeypatch.setattr(threads, "cpu_quota", lambda: 0.5)
    try:
        assert threads.available_cores() == 1
    finally:
        threads._quota.cache_clear()


@pytest.mark.parametrize(
    ("files", "cgroup", "mounts", "left"),
    [
        ({"all/memory.max": "max\n", "all/memory.current": "5\n"}, "0::/\n", UNIFIED, math.inf),
        (
            {
                "all/a/memory.max": f"{4 * GB}\n",
                "all/a/memory.current": f"{3 * GB}\n",
                "all/a/b/memory.max": "max\n",
                "all/a/b/memory.current": f"{3 * GB}\n",
            },
            "0::/a/b\n",
            UNIFIED,
            GB,
        ),
        # What files take is given back.
        (
            {
                "all/memory.max": f"{4 * GB}\n",
                "all/memory.current": f"{4 * GB}\n",
                "all/memory.stat": f"anon {GB}\ninactive_file {2 * GB}\nactive_file {GB}\n",
            },
            "0::/\n",
            UNIFIED,
            3 * GB,
        ),
        (
            {
                "memory/job/memory.limit_in_bytes": f"{2 * GB}\n",
                "memory/job/memory.usage_in_bytes": f"{GB + 7}\n",
                "memory/job/memory.stat": "total_inactive_file 5\ninactive_file 3\n",
            },
            "4:memory:/job/step\n2:cpu,cpuacct:/\n",
            VERSION_1,
            GB - 2,
        ),
    ],
)
def test_memory_left_is_the_least_of_the_groups_that_a_process_is_in(
    system, files, cgroup, mounts, left
):
    assert control_groups.memory_left(system(files, cgroup, mounts)) == left


def test_available_memory_is_the_least_of_all_limits(monkeypatch):
    limits = {"_system_memory": 3.0, "memory_left": 2.0, "_within_limits": 1.0}
    for name, value in limits.items():
        monkeypatch.setattr(memory, name, lambda value=value: value)
    assert memory.available_memory() == 1.0
    monkeypatch.setattr(memory, "_within_limits", lambda: math.inf)
    assert memory.available_memory() == 2.0
    monkeypatch.setattr(memory, "memory_left", lambda: -5.0)
    assert memory.available_memory() == 0.0


def test_without_proc_the_memory_of_the_machine_bounds(monkeypatch):
    def missing(self, *_):
        raise FileNotFoundError(self)

    monkeypatch.setattr(memory.Path, "read_text", missing)
    physical = math.inf
    if hasattr(os, "sysconf"):
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory._system_memory() == physical


LIMITED = """
import resource, sys
import numpy as np
import fastrnn
from fastrnn import memory

net, x = fastrnn.RNN(0.5, np.full(20, 0.5)), np.zeros((200, 100_000))
fastrnn.forward(net, x[:1, :5])
resource.setrlimit(getattr(resource, sys.argv[1]), (1 << 31, 1 << 31))
assert 0 < memory.available_memory() < 1 << 31
memory.UNCHECKED = int(sys.argv[2])
for call in (fastrnn.forward, fastrnn.influence):
    try:
        call(net, x)
    except MemoryError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits that Linux keeps")
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
@pytest.mark.parametrize("unchecked", [0, 1 << 60])
def test_an_error_within_limits_of_the_process_says_what_to_do(limit, unchecked):
    # Before anything is allocated, and where NumPy is the first to find out.
    command = [sys.executable, "-c", LIMITED, limit, str(unchecked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    states, influences = done.stdout.splitlines()
    assert "; use fewer sequences or nets a call" in states
    assert "; use fewer sequences or nets a call" in influences
    assert ("Unable to allocate" in states) == (unchecked > 0)


HUGE = """
import resource
import numpy as np
import fastrnn

net, x = fastrnn.RNN(0.5, 0.5), np.broadcast_to(0.0, (1 << 27, 1 << 13))
fastrnn.forward(net, [1.0])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
for call in (
    lambda: fastrnn.forward(net, x),
    lambda: fastrnn.predict(net, x),
    lambda: fastrnn.forward(net, np.broadcast_to(np.float32(0), x.shape), h0=np.zeros(1)),
    lambda: fastrnn.forward(net, np.broadcast_to(0, x.shape)),
    lambda: fastrnn.influence(net, x),
    lambda: fastrnn.diagnose(net, x),
    lambda: fastrnn.jacobian_norms(net, x),
    lambda: fastrnn.backward(net, x, x, wrt="x"),
    lambda: fastrnn.loss_and_grad(net, x, x, wrt="x"),
):
    try:
        call()
    except MemoryError as error:
        assert "; use fewer sequences" in str(error)
    else:
        raise AssertionError("not refused")
print((peak() - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="kilobytes of peak memory")
def test_what_does_not_fit_is_refused_before_lengths_and_states_are_made():
    done = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    # One number a sequence is 1 GB.
    assert int(done.stdout) < 1 << 26


@pytest.mark.parametrize("call", [fastrnn.lyapunov, lambda *a: fastrnn.forward(*a, keep="last")])
def test_states_of_all_sequences_are_held_against_memory(call, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1e9)
    net, x = fastrnn.RNN(0.5, 0.5), np.broadcast_to(0.0, (1 << 27, 1 << 13))
    with pytest.raises(MemoryError, match=r"last states of shape \(1, 134217728, 1\) need 1.07 GB"):
        call(net, x)
    with pytest.raises(MemoryError, match=r"states and lengths of shape \(4, 1, 33554432, 1\)"):
        call(net, x[: 1 << 25])
