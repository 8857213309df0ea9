"""The cache of compiled kernels: fresh, private, and never in the way."""

import gc
import logging
import os
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numba
import numpy as np
import pytest

import fastrnn
from fastrnn import terminal
from fastrnn.kernels import jit, layer, private

owners = pytest.mark.skipif(not private.HAS_OWNERS, reason="no owners of files here")

# A kernel with a helper in another file, and the one that compiles soonest.
NEURON = """
import fastrnn
from fastrnn.kernels import jit, neuron
print(float(fastrnn.forward(fastrnn.RNN(1.0, 0.5), [1.0])[0]))
print(sum(neuron.forward.stats.cache_hits.values()), jit.cache_folder())
"""
SUM = """
import numpy as np
from fastrnn.kernels import jit, sums
print(float(sums.ordered_sum(np.array([[0.25, 0.5]]))[0]))
print(sum(sums._add_rows.stats.cache_hits.values()), jit.cache_folder())
"""


@pytest.fixture(name="package")
def _package(tmp_path):
    """A copy of the package that a test may edit."""
    shutil.copytree(
        Path(fastrnn.__file__).parent,
        tmp_path / "fastrnn",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path


def start(package, program=SUM, **environment):
    base = {k: v for k, v in os.environ.items() if k not in ("FASTRNN_CACHE_DIR", "XDG_CACHE_HOME")}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        cwd=package,
        env={**base, "PYTHONPATH": str(package), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    value, rest = out.splitlines()
    hits, folder = rest.split(maxsplit=1)
    return float(value), int(hits), folder


def run(package, program=SUM, **environment):
    return finish(start(package, program, **environment))


@pytest.fixture(name="cache")
def _cache(tmp_path):
    return tmp_path / "cache"


def test_second_process_hits_and_an_edited_helper_misses(package, cache):
    environment = {"FASTRNN_CACHE_DIR": str(cache)}
    first = run(package, NEURON, **environment)
    assert first == (pytest.approx(0.7615941559557649), 0, str(cache))
    assert cache.stat().st_mode & 0o777 == 0o700
    assert run(package, NEURON, **environment) == (first[0], 1, str(cache))

    helper = package / "fastrnn" / "kernels" / "activations.py"
    text = helper.read_text()
    line = "return _signed(_tanh_of(small, p, top / s), z)\n"
    assert line in text
    helper.write_text(text.replace(line, line.replace("return", "return 2.0 *")))
    assert run(package, NEURON, **environment)[:2] == (2 * first[0], 0)


def test_settings_that_change_the_code_miss(package, cache):
    environment = {"FASTRNN_CACHE_DIR": str(cache)}
    run(package, **environment)
    assert run(package, NUMBA_BOUNDSCHECK="1", **environment)[1] == 0
    assert run(package, **environment)[1] == 1


def test_damaged_files_are_compiled_anew(package, cache):
    environment = {"FASTRNN_CACHE_DIR": str(cache)}
    first = run(package, **environment)
    for number, path in enumerate(sorted(cache.glob("*.bin"))):
        content = path.read_bytes()
        middle = len(content) // 2
        damaged = [content[:middle], b"", content[:middle] + b"\0\1" + content[middle + 2 :]]
        path.write_bytes(damaged[number % 3])
    names = sorted(os.listdir(cache))
    assert run(package, **environment)[:2] == (first[0], 0)
    assert run(package, **environment)[:2] == (first[0], 1)
    assert sorted(os.listdir(cache)) == names


def test_home_that_cannot_be_written_costs_only_the_compilation(package):
    value, hits, folder = run(package, HOME="/proc/nowhere")
    assert (value, hits, folder) == (0.75, 0, "None")


def test_processes_that_start_together_agree(package, cache):
    processes = [start(package, FASTRNN_CACHE_DIR=str(cache)) for _ in range(4)]
    assert {finish(process)[0] for process in processes} == {0.75}
    assert not [path for path in cache.iterdir() if path.suffix != ".bin"]


def test_no_jit_gives_the_same_value(package, cache):
    program = NEURON.replace("sum(neuron.forward.stats.cache_hits.values())", "0")
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=package,
        env={
            **os.environ,
            "PYTHONPATH": str(package),
            "NUMBA_DISABLE_JIT": "1",
            "FASTRNN_CACHE_DIR": str(cache),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(result.stdout.split()[0]) == pytest.approx(0.7615941559557649)


@pytest.fixture(name="fresh")
def _fresh():
    jit.cache_folder.cache_clear()
    yield jit
    jit.cache_folder.cache_clear()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_may_write_is_ignored(fresh, monkeypatch, cache, mode):
    cache.mkdir()
    cache.chmod(mode)
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(cache))
    with pytest.warns(RuntimeWarning, match="ignores the kernel cache .* other users may write"):
        assert fresh.cache_folder() is None


@owners
@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_put_another_in_the_place_of_is_ignored(
    fresh, monkeypatch, cache, mode
):
    folder = cache / "of" / "kernels"
    folder.mkdir(parents=True)
    cache.chmod(mode)
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(folder))
    with pytest.warns(RuntimeWarning, match=f"other users may write to {cache} "):
        assert fresh.cache_folder() is None


@owners
def test_in_a_folder_like_tmp_others_cannot_move_it(fresh, monkeypatch, cache):
    cache.mkdir()
    cache.chmod(0o1777)
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(cache / "kernels"))
    assert fresh.cache_folder() == cache / "kernels"


@owners
def test_another_users_folders_are_ignored(cache, monkeypatch):
    cache.mkdir()
    private.check(cache)
    monkeypatch.setattr(os, "getuid", lambda: cache.stat().st_uid + 1)
    monkeypatch.setattr(private, "_trusted_users", lambda: {0})
    with pytest.raises(private.NotPrivate, match=f"{cache} is another user's"):
        private.check(cache)
    with pytest.raises(private.NotPrivate), private.opened(cache):
        pass


@owners
def test_what_is_put_in_the_place_of_the_checked_folder_is_not_read(fresh, monkeypatch, cache):
    """Another's folder, a link, and a folder that others may write to, after the first look."""
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(cache))
    assert fresh.cache_folder() == cache
    assert jit._in_cache(lambda place: place.write("a.bin", b"good")) is None
    assert jit._in_cache(lambda place: place.read("a.bin")) == b"good"

    def swapped(place):
        cache.rename(cache.with_name("old"))
        cache.mkdir()
        (cache / "a.bin").write_bytes(b"bad")
        return place.read("a.bin")

    # A folder that is open stays the same one, whatever its path leads to.
    assert jit._in_cache(swapped) == b"good"
    cache.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="other users may write to"):
        assert jit._in_cache(lambda place: place.read("a.bin")) is None
    cache.rename(cache.with_name("bad"))
    cache.symlink_to(cache.with_name("bad"))
    assert jit._in_cache(lambda place: place.read("a.bin")) is None


@owners
def test_links_and_pipes_in_the_folder_are_not_read(cache, tmp_path):
    cache.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"bad")
    (cache / "link.bin").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(cache / "pipe.bin")
    (cache / "folder.bin").mkdir()
    with private.opened(cache) as place:
        for name in ("link.bin", "pipe.bin", "folder.bin"):
            with pytest.raises(OSError, match=f"{name}|directory"):
                place.read(name)
        with pytest.raises(OSError, match="folder"):
            place.write("folder.bin", b"new")
        # Put in the place of a link, not behind it.
        place.write("link.bin", b"new")
    assert (tmp_path / "elsewhere").read_bytes() == b"bad"
    assert sorted(os.listdir(cache)) == ["folder.bin", "link.bin", "pipe.bin"]


def test_a_full_disk_leaves_nothing_half_written(cache, monkeypatch):
    cache.mkdir()
    with private.opened(cache) as place:
        place.write("a.bin", b"old")

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(private.os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            place.write("a.bin", b"new")
        assert os.listdir(cache) == ["a.bin"]
        assert place.read("a.bin") == b"old"


@owners
def test_where_a_file_cannot_grow_kernels_are_compiled_and_nothing_is_left(package, cache):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    ignored = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    for _ in range(2):
        assert run(package, ignored + limited + SUM, FASTRNN_CACHE_DIR=str(cache))[:2] == (0.75, 0)
        assert not list(cache.iterdir())


@owners
def test_what_killed_processes_left_half_written_is_removed_after_a_day(fresh, monkeypatch, cache):
    cache.mkdir()
    old, new = (cache / f"{name}.bin.0{private.HALF_WRITTEN}" for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(cache))
    assert fresh.cache_folder() == cache
    assert list(cache.iterdir()) == [new]


def test_without_descriptors_of_folders_paths_are_used(cache, monkeypatch):
    monkeypatch.setattr(private, "BY_DESCRIPTOR", False)
    cache.mkdir()
    with private.opened(cache) as place:
        place.tidy(jit.OWN_FILES, 1 << 20)
        place.write("a.bin", b"one")
        place.write("a.bin", b"two")
        assert place.read("a.bin") == b"two"
        assert place.names() == ["a.bin"]
        place.remove("a.bin")
    assert not list(cache.iterdir())


def test_the_folder_is_in_the_users_cache(fresh, monkeypatch, tmp_path):
    monkeypatch.delenv("FASTRNN_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fresh.cache_folder() == tmp_path / "fastrnn"


def test_kernels_are_never_compiled_with_what_changes_bits_or_breaks_threads():
    for path in Path(jit.__file__).parent.glob("*.py"):
        code = path.read_text()
        for forbidden in ("prange", "parallel=True", "fastmath=True", "guvectorize"):
            assert forbidden not in code, path.name


def test_compiling_is_logged_and_said_on_a_terminal(caplog, capsys, monkeypatch):
    @jit.bare
    def one():
        return inner_one()

    @jit.bare
    def inner_one():
        return 1

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(jit, "is_compiling", lambda: True)
    monkeypatch.setattr(terminal.threading, "Timer", Now)
    terminal.tell_of_compiling()
    caplog.set_level(logging.INFO, "fastrnn.kernels.inner")
    assert one() == 1
    # What the kernel calls is no kernel of its own.
    assert [record.args[0].rpartition(".")[2] for record in caplog.records] == ["one"]
    assert capsys.readouterr().err.count("compiling for this processor, once") == 1


class Now(threading.Thread):
    """A timer that does not wait."""

    def __init__(self, _seconds, function):
        super().__init__(target=function)

    def start(self):
        self.run()


def test_what_kernels_call_can_be_called_from_python_too():
    @jit.bare
    def inner_one(x):
        return x + 1

    @jit.bare
    def one(x):
        return inner_one(x)

    assert one(1) == 2
    assert jit.is_inner(next(iter(inner_one.overloads.values())))
    assert inner_one(1) == 2
    assert not jit.is_inner(next(iter(inner_one.overloads.values())))


SOME = """
import fastrnn, logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
fastrnn.fixed_points(fastrnn.RNN(1.0, 2.0)), fastrnn.forward(fastrnn.RNN(1.0, 0.5), [1.0])
print(1.0)
print(0, None)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of files")
def test_processes_that_start_together_compile_once(package, cache):
    processes = [start(package, SOME, FASTRNN_CACHE_DIR=str(cache)) for _ in range(3)]
    logs = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    # Said by all that wait for it; one of them has compiled it, and others found it.
    assert sum(log.count("compiling neuron.forward") for log in logs) == 1
    assert not [path for path in cache.iterdir() if path.suffix != ".bin"]


def test_kernels_depend_on_the_sources_they_are_made_of():
    text = {path.stem: path.read_text() for path in jit.SOURCES.glob("*.py")}
    stamps = {name: jit.source_stamp(name) for name in ("neuron", "layer", "sums")}

    class Source:
        def __init__(self, name):
            self.name = name

        def __truediv__(self, name):
            return Source(name.removesuffix(".py"))

        def is_file(self):
            return self.name in text

        def read_text(self, encoding):
            return text[self.name]

        def read_bytes(self):
            return text[self.name].encode()

    def changed(*modules):
        edited = {name: text[name] + ("#" if name in modules else "") for name in text}
        before = dict(text)
        text.update(edited)
        jit.source_stamp.cache_clear()
        found = {name for name, stamp in stamps.items() if jit.source_stamp(name) != stamp}
        text.update(before)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "SOURCES", Source("kernels"))
        try:
            assert changed() == set()
            assert changed("layer") == {"layer"}
            assert changed("activations") == {"neuron", "layer"}
            assert changed("jit") == changed("inner") == changed("simd") | {"sums"} == set(stamps)
        finally:
            jit.source_stamp.cache_clear()


def test_the_cache_is_bounded(cache):
    cache.mkdir(mode=0o700)
    names = [f"kernels.sums._add_rows-{number:032x}.bin" for number in range(5)]
    # Files of others, in the folder or in a copy of its names, stay.
    others = ["thesis.tar", "kernels.txt", "note-1.bin"]
    with private.opened(cache) as place:
        for number, name in enumerate(names):
            place.write(name, bytes(100))
            os.utime(cache / name, (number * private.DAY,) * 2)
        for name in others:
            place.write(name, bytes(1000))
            os.utime(cache / name, (0, 0))
        place.write(f"note-{0:032x}.bin", b"")
        place.use(names[0])
        place.tidy(jit.OWN_FILES, 500)
        assert len(place.names()) == 9
        place.tidy(jit.OWN_FILES, 250)
        assert sorted(place.names()) == sorted([names[0], names[4], *others])


def test_fields_of_named_tuples_are_part_of_a_kernels_key():
    sums = layer.Sums(*(np.zeros(1) for _ in layer.Sums._fields))
    assert jit._modules_of((numba.typeof(sums),)) == {"layer"}
    assert jit._modules_of((numba.typeof((1, (sums, 2.0))),)) == {"layer"}


def test_a_lock_that_is_never_let_go_costs_a_compilation(monkeypatch, cache):
    monkeypatch.setattr(private, "LOCK_SECONDS", 0.2)
    cache.mkdir(mode=0o700)
    with private.opened(cache) as place, place.locked("a.bin"), place.locked("a.bin"):
        assert len(place.names()) == 1


def test_nets_are_freed_without_a_search_for_garbage():
    net = fastrnn.RNN(np.ones((3, 2)), np.eye(3))
    fastrnn.forward(net, np.ones((2, 4, 2)))
    fastrnn.loss_and_grad(net, np.ones((2, 4, 2)), np.ones((2, 4, 3)))
    assert net._jobs
    gone = weakref.ref(net)
    gc.disable()
    try:
        del net
        assert gone() is None
    finally:
        gc.enable()


def test_warmup_compiles_in_other_processes(monkeypatch, cache):
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(cache))
    jit.cache_folder.cache_clear()
    try:
        told = []
        verbs = ["forward", "fixed_points"]
        fastrnn.warmup(verbs, hidden=[1, 3], progress=lambda *done: told.append(done))
        assert told == [(1, 3), (2, 3), (3, 3)]
        names = " ".join(os.listdir(cache))
        assert "kernels.neuron.forward-" in names
        assert "kernels.layer.forward-" in names
        fastrnn.warmup(verbs, hidden=[1, 3], progress=lambda *done: told.append(done))
        assert told[3:] == [(3, 3)]
    finally:
        jit.cache_folder.cache_clear()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"verbs": "forwards"}, "verbs must be one of .*did you mean 'forward'"),
        ({"hidden": 0}, "hidden must be"),
        ({"dtype": "float16"}, "dtype must be"),
        ({"activation": ["tanh", "tan"]}, "activation must be"),
        ({"batch_size": -1}, "batch_size must be"),
    ],
)
def test_warmup_knows_its_arguments(options, text):
    with pytest.raises(ValueError, match=text):
        fastrnn.warmup(**options)


def test_warmup_as_a_command(monkeypatch, cache):
    environment = {**os.environ, "FASTRNN_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "fastrnn", "warmup"]
    ran = subprocess.run(
        [*command, "fixed_points"], capture_output=True, text=True, env=environment, timeout=300
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"kernels of 1 calls are in {cache}\n"
    ran = subprocess.run(
        [*command, "backwards"], capture_output=True, text=True, env=environment, timeout=300
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("fastrnn: verbs must be")
    assert ran.stderr.count("\n") == 1
