"""Rows 48 to 56: any processor, any folder, any setting of Numba and of Python."""

import os
import shutil

import pytest

from tests.faults import child

ONE = "import fastrnn; print(fastrnn.forward(fastrnn.RNN(1.0, 0.5), [1.0])[0])\n"
ANSWER = "0.7615941559557649\n"
HITS = """
import numpy as np
from fastrnn.kernels import jit, sums
print(sums.ordered_sum(np.array([[0.25, 0.5]]))[0])
print(sum(sums._add_rows.stats.cache_hits.values()), jit.cache_folder() is not None)
"""


@pytest.fixture(name="cache")
def _cache(tmp_path):
    return tmp_path / "cache"


def hits(cache, **settings):
    """A sum, whether its kernel came from the cache, and whether there is one."""
    return child.run(HITS, FASTRNN_CACHE_DIR=str(cache), **settings).split()


def test_48_without_a_home_kernels_are_compiled_and_not_kept():
    environment = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "", "FASTRNN_CACHE_DIR": ""}
    assert child.run(HITS, "-W", "error", **environment).split() == ["0.75", "0", "False"]


DAMAGE = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "other": lambda content: b"x" * len(content),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_49_a_damaged_kernel_is_compiled_anew(cache, damage):
    assert hits(cache) == ["0.75", "0", "True"]
    (kernel,) = (path for path in cache.iterdir() if "sums._add_rows" in path.name)
    kernel.write_bytes(damage(kernel.read_bytes()))
    assert hits(cache) == ["0.75", "0", "True"]
    assert hits(cache) == ["0.75", "1", "True"]
    assert {path.suffix for path in cache.iterdir()} == {kernel.suffix}


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users here")
@pytest.mark.parametrize("what", ["open to all", "of another user"])
def test_50_a_folder_that_others_may_write_is_ignored_with_a_warning(cache, what):
    cache.mkdir(mode=0o700)
    if what == "open to all":
        cache.chmod(0o777)
    elif os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    else:
        os.chown(cache, 12345, 12345)
    process = child.start(HITS, FASTRNN_CACHE_DIR=str(cache))
    output, errors = process.communicate(timeout=300)
    assert output.split() == ["0.75", "0", "False"]
    assert "fastrnn ignores the kernel cache" in errors
    assert not list(cache.iterdir())


def test_51_kernels_of_another_processor_are_not_used(cache):
    hits(cache)
    other = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    assert hits(cache, **other) == ["0.75", "0", "True"]
    assert hits(cache) == ["0.75", "1", "True"]


def test_52_processes_that_start_together_agree(cache):
    started = [child.start(HITS, FASTRNN_CACHE_DIR=str(cache)) for _ in range(8)]
    found = [process.communicate(timeout=300)[0].split() for process in started]
    assert {answer[0] for answer in found} == {"0.75"}
    assert hits(cache) == ["0.75", "1", "True"]


def test_53_an_edited_helper_in_another_file_makes_no_kernel_stale(cache, tmp_path):
    source = tmp_path / "fastrnn"
    shutil.copytree(child.SOURCE / "fastrnn", source, ignore=shutil.ignore_patterns("__pycache__"))
    settings = {"FASTRNN_CACHE_DIR": str(cache), "PYTHONPATH": str(tmp_path), "cwd": tmp_path}
    assert child.run(HITS, **settings).split()[1] == "0"
    assert child.run(HITS, **settings).split()[1] == "1"
    helper = source / "kernels" / "simd.py"
    helper.write_text(helper.read_text() + "\n# edited\n")
    assert child.run(HITS, **settings).split()[1] == "0"


@pytest.mark.parametrize("setting", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_54_numbas_debugging_modes_give_the_same(setting, cache):
    found = child.run(ONE, **{setting: "1"}, FASTRNN_CACHE_DIR=str(cache))
    assert float(found) == pytest.approx(float(ANSWER), rel=4e-16)


def test_55_import_loads_no_compiler_and_no_optional_dependency():
    heavy = "numba", "llvmlite", "pandas", "xarray", "zarr", "matplotlib"
    code = f"import sys, fastrnn; print([m for m in {heavy} if m in sys.modules])"
    assert child.run(code) == "[]\n"


def test_56_nothing_warns_and_asserts_may_be_off():
    assert child.run(ONE, "-W", "error") == ANSWER
    assert child.run(ONE, "-OO") == ANSWER


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs another user")
def test_48_nor_does_a_user_without_a_home_of_his_own_fail(tmp_path):
    tmp_path.chmod(0o755)

    def become_nobody():
        os.setgid(65534)
        os.setuid(65534)

    try:
        child.run("import numba, fastrnn", before=become_nobody, cwd="/")
    except (AssertionError, PermissionError):
        pytest.skip("Python and the source are not open to other users")
    environment = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "", "FASTRNN_CACHE_DIR": ""}
    assert child.run(HITS, before=become_nobody, cwd="/", **environment).split()[0] == "0.75"
