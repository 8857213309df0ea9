"""Every benchmark runs once, and calls what its name says."""

import functools
import importlib
import inspect
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
import fastrnn.accuracy
from benchmarks import cases, exact, extremes, machine, others, series

MODULES = (
    "accuracy",
    "diagnosis",
    "forward",
    "gradient",
    "machine",
    "others",
    "series",
    "startup",
    "sweeps",
)
KINDS = ("time", "timeraw", "peakmem", "track")
# What a benchmark may be named after, and where that is called.
VERBS = {
    name: (fastrnn, name) for name in fastrnn.__all__ if inspect.isfunction(getattr(fastrnn, name))
} | {
    "accuracy": (fastrnn.accuracy, "measure"),
    "sweep": (fastrnn.Sweep, "run"),
}


def benchmarks():
    for name in MODULES:
        module = importlib.import_module(f"benchmarks.{name}")
        for _, case in inspect.getmembers(module, inspect.isclass):
            if case.__module__ == module.__name__:
                for method in dir(case):
                    kind, _, what = method.partition("_")
                    if kind in KINDS:
                        yield pytest.param(case, kind, what, id=f"{case.__name__}.{method}")


ALL = list(benchmarks())


def note_calls(patch, calls):
    """Have each verb append its name to ``calls``."""

    def noting(name, real):
        return lambda *args, **options: (calls.append(name), real(*args, **options))[1]

    for name, (home, attribute) in VERBS.items():
        patch.setattr(home, attribute, noting(name, getattr(home, attribute)))


@pytest.fixture
def called(monkeypatch):
    """Names of verbs, as benchmarks call them."""
    calls = []
    note_calls(monkeypatch, calls)
    return calls


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The smallest jobs beside those of others."""
    neuron = machine.neuron_cells.Cell("small", "float32", 1, 2, 10, 0.9)
    layer = machine.layer_cells.Cell("float32", 2, 1)
    monkeypatch.setattr(series, "ROWS", 1000)
    monkeypatch.setattr(machine.layer_cells, "MOST_STEPS", 64)
    monkeypatch.setattr(machine.peers, "PAUSE", 0)
    monkeypatch.setattr(machine.peers, "TURN", 0)
    for job, (_, contenders) in machine.JOBS.items():
        cell = neuron if job.startswith("neuron") else layer
        monkeypatch.setitem(machine.JOBS, job, (cell, contenders))


@pytest.mark.parametrize(("case", "kind", "what"), ALL)
def test_benchmark(case, kind, what, called):
    choices = itertools.product(*getattr(case, "params", ()))
    # Errors are told of by other tests too; here by some of their parameters.
    errors = getattr(getattr(case, f"{kind}_{what}"), "unit", None) == "rounding units"
    for parameters in itertools.islice(choices, 0, None if errors else 1, 9):
        run_once(case, kind, what, parameters, called)


def run_once(case, kind, what, parameters, called):
    instance = case()
    verb = next((name for name in VERBS if what.startswith(name)), None)
    if hasattr(instance, "setup_cache"):
        kept, calls = setup_cache(case)
        parameters = (kept, *parameters)
        called += calls
    if hasattr(instance, "setup"):
        try:
            instance.setup(*parameters)
        except NotImplementedError:  # asv's word for: not with these
            return
        if not hasattr(instance, "setup_cache"):
            called.clear()
    result = getattr(instance, f"{kind}_{what}")(*parameters)
    if kind == "timeraw":
        assert verb is None
        subprocess.run([sys.executable, "-c", result], check=True)
        name = parameters[0] if what == "first_call" else what.removeprefix("first_")
        assert f"fastrnn.{name}(" in result or what.startswith("import")
    elif kind == "track":
        assert verb in called
        assert 0 <= result < np.inf
        unit = getattr(case, f"{kind}_{what}").unit
        assert result <= {"rounding units": 8, "ULP": 4, "%": 100}.get(unit, np.inf)
    elif what == "baseline":
        assert called == []
    else:
        assert set(called) == {verb}


@functools.cache
def setup_cache(case):
    """What a class keeps for all its benchmarks, and the verbs that it called for that."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        note_calls(patch, calls)
        return case().setup_cache(), calls


def test_names_are_the_dashboards_and_versions_are_fixed():
    names = []
    for case, kind, what in (parameter.values for parameter in ALL):
        benchmark = getattr(case, f"{kind}_{what}")
        names.append(benchmark.pretty_name)
        assert case.version == "1"
        assert kind != "track" or benchmark.unit
    assert len(set(names)) == len(names)


def test_commits_that_compile_other_sources_have_kernels_of_their_own(tmp_path):
    package, root = Path(fastrnn.__file__).parent, Path(__file__).parents[1]
    code = "import benchmarks; from fastrnn.kernels.jit import cache_folder; print(cache_folder())"
    folders = []
    for edit in ("", "# another commit"):
        commit = tmp_path / f"commit{len(folders)}"
        shutil.copytree(package, commit / "fastrnn", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(root / "benchmarks", commit / "benchmarks")
        with open(commit / "fastrnn" / "kernels" / "sums.py", "a") as file:
            file.write(edit)
        environment = os.environ | {"ASV_ENV_DIR": str(tmp_path)}
        command = [sys.executable, "-c", code]
        printed = subprocess.check_output(command, env=environment, cwd=commit, text=True)
        folders.append(Path(printed.strip()))
    assert len(set(folders)) == 2
    assert {folder.parent for folder in folders} == {(tmp_path / "kernels").resolve()}


def test_asv_can_import_all_files_in_its_environments():
    root = Path(__file__).parents[1]
    modules = sorted(path.stem for path in (root / "benchmarks").glob("*.py"))
    code = """
import importlib, sys
absent = "asv", "jax", "matplotlib", "onnxruntime", "pandas", "pytest", "torch", "xarray", "zarr"
for module in absent:
    sys.modules[module] = None
for module in sys.argv[1:]:
    importlib.import_module(f"benchmarks.{module}")
"""
    subprocess.run([sys.executable, "-c", code, *modules], check=True, cwd=root)


@pytest.mark.parametrize(
    ("answer", "lost"), [(0.5, 0), (0.50005, 12), (0.0, 16), (-0.5, 16), (np.nan, 16), (np.inf, 16)]
)
def test_digits_lost(answer, lost):
    with exact.mp.workdps(exact.DIGITS):
        assert round(others.digits_lost(answer, exact.mp.mpf(0.5))) == lost


def test_fastrnn_has_lost_no_answer():
    kept, _ = setup_cache(others.InfluenceRange)
    assert kept["fastrnn"] == (0, 0, 0)


def test_sizes_of_w2():
    assert cases.weight(-300, "-") == -1e-300
    assert cases.weight(0.3) == 10**0.3
    assert set(cases.FEW_SIZES) <= set(cases.SIZES)


def test_the_table_of_extremes_is_right(monkeypatch):
    monkeypatch.setattr(extremes, "LIBRARIES", {"fastrnn": extremes.by_fastrnn})
    page = (Path(__file__).parents[1] / "docs" / "extremes.md").read_text()
    for case, right, answers in extremes.rows():
        assert answers["fastrnn"] == right
        assert f"| {' | '.join([*case, right, right])} |" in page
