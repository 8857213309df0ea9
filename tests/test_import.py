"""What ``import fastrnn`` loads and shows."""

import subprocess
import sys

import pytest

import fastrnn


def run(code):
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "module", ["numba", "llvmlite", "matplotlib", "click", "pandas", "xarray", "zarr"]
)
def test_import_does_not_load(module):
    code = "import sys, fastrnn; fastrnn.RNN(1, 1); fastrnn.Scaled(1); fastrnn.Sweep([1], w2=1)"
    assert run(f"{code}; print({module!r} in sys.modules)") == "False\n"


def test_verbs_are_functions_whatever_was_imported_before():
    code = "import fastrnn.verbs.forward, fastrnn.verbs.predict, fastrnn.cli, fastrnn"
    assert (
        run(f"{code}; print(callable(fastrnn.forward), callable(fastrnn.predict))") == "True True\n"
    )


def test_pictures_are_there_without_an_import_of_their_own():
    code = "import sys, fastrnn; fastrnn.plot.phase_diagram; print('matplotlib' in sys.modules)"
    assert run(code) == "False\n"


def test_every_public_name_is_there_and_documented():
    for name in fastrnn.__all__:
        value = getattr(fastrnn, name)
        assert name == "__version__" or value.__doc__
    assert set(fastrnn.__all__) == set(dir(fastrnn))
    assert {*fastrnn._HOME, *fastrnn._MODULES, "__version__"} == set(fastrnn.__all__)


def test_runs_without_docstrings_and_asserts():
    code = "from fastrnn import RNN, forward; print(forward(RNN(1, 1, activation='relu'), [1.0]))"
    command = [sys.executable, "-OO", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[1.]\n"
