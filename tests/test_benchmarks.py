"""Every benchmark runs once, and calls what its name says."""

import importlib
import inspect
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from benchmarks import extremes

MODULES = ("accuracy", "forward", "gradient", "influence", "startup")


def benchmarks():
    for name in MODULES:
        module = importlib.import_module(f"benchmarks.{name}")
        for _, case in inspect.getmembers(module, inspect.isclass):
            if case.__module__ == module.__name__:
                for method in dir(case):
                    kind, _, what = method.partition("_")
                    if kind in ("time", "timeraw", "peakmem", "track"):
                        yield pytest.param(case, kind, what, id=f"{case.__name__}.{method}")


@pytest.mark.parametrize(("case", "kind", "what"), list(benchmarks()))
def test_benchmark(case, kind, what, monkeypatch):
    parameters = list(itertools.product(*getattr(case, "params", ())))
    errors = getattr(case, "unit", None) == "rounding units"
    # Errors are told of by other tests too; here by some of their parameters.
    for chosen in parameters[::7] if errors else parameters[:1]:
        run_once(case, kind, what, chosen, monkeypatch)


def run_once(case, kind, what, parameters, monkeypatch):
    instance = case()
    if hasattr(instance, "setup"):
        try:
            instance.setup(*parameters)
        except NotImplementedError:  # asv's word for: not with these
            return
    verb = next((name for name in fastrnn.__all__ if what.startswith(name)), None)
    called = []
    if verb is not None:
        real = getattr(fastrnn, verb)
        monkeypatch.setattr(
            fastrnn, verb, lambda *args, **options: (called.append(verb), real(*args, **options))[1]
        )
    result = getattr(instance, f"{kind}_{what}")(*parameters)
    if kind == "timeraw":
        subprocess.run([sys.executable, "-c", result], check=True)
    elif kind == "track":
        assert verb in called
        assert 0 <= result < np.inf
        assert result <= 8 or getattr(case, "unit", None) != "rounding units"
    elif what != "baseline":
        assert called == [verb]


def test_versions_are_fixed():
    for parameter in benchmarks():
        assert parameter.values[0].version == "1"


def test_the_table_of_extremes_is_right(monkeypatch):
    monkeypatch.setattr(extremes, "LIBRARIES", {"fastrnn": extremes.by_fastrnn})
    page = (Path(__file__).parents[1] / "docs" / "extremes.md").read_text()
    for case, right, answers in extremes.rows():
        assert answers["fastrnn"] == right
        assert f"| {' | '.join([*case, right, right])} |" in page
