"""The commands diagnose and phase, in this process."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

import fastrnn
from fastrnn.cli import cli

pytest.importorskip("matplotlib")


@pytest.fixture(name="run")
def _run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(cli, arguments)

    return run


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def sunspots():
    series = fastrnn.load_series("sunspots")
    return ((series - series.mean()) / series.std())[:-1]


def test_one_neuron_is_told_in_words(run, tmp_path):
    result = run("diagnose", "sunspots")
    assert result.exit_code == 0, result.output
    found = fastrnn.diagnose(fastrnn.RNN(1.0, 0.9), sunspots())
    assert found.summary() in result.stdout
    (row,) = rows(tmp_path / "diagnose-sunspots" / "diagnose.csv")
    assert float(row["exponent"]) == found.exponent
    assert row["regime"] == found.regime
    assert {path.name for path in (tmp_path / "diagnose-sunspots").iterdir()} == {
        "diagnose.csv",
        "diagnose.png",
        "run.json",
    }
    assert json.loads((tmp_path / "diagnose-sunspots" / "run.json").read_text())["w2"] == [0.9]


def test_json_of_a_bank(run, tmp_path):
    options = ("--w2", "1e-300,0,2", "--activation", "identity", "--out", "out", "--json")
    result = run("diagnose", "sunspots", *options)
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)
    assert table["regime"] == ["vanishing", "vanishing", "exploding"]
    assert table["decades"][1] == "-inf"
    assert len(rows(tmp_path / "out" / "diagnose.csv")) == 3


def test_a_bank_in_parts_is_the_whole_bank(run, tmp_path, monkeypatch):
    options = ("--w2", "0.1:10:7", "--window", "50", "--json", "--out", "out")
    whole = run("diagnose", "sunspots", *options)
    monkeypatch.setattr("fastrnn.sweep.run.CHUNK_STEPS", 1000)
    parts = run("diagnose", "sunspots", *options)
    assert parts.exit_code == 0, parts.output
    assert parts.stdout == whole.stdout
    assert len(json.loads(whole.stdout)["regime"]) == 7 * 6


def test_a_plane(run, tmp_path):
    result = run("phase", "sunspots", "--w2=-2:2:5", "--scale", "0.1:1:3", "--b", "0.5")
    assert result.exit_code == 0, result.output
    assert "15 points, w2 against scale" in result.stdout
    plane = fastrnn.phase_diagram(
        sunspots(), w2=np.linspace(-2, 2, 5), scale=np.linspace(0.1, 1, 3), b=0.5
    )
    table = rows(tmp_path / "phase-sunspots" / "phase.csv")
    assert [float(row["exponent"]) for row in table] == plane.exponent.ravel().tolist()
    assert (tmp_path / "phase-sunspots" / "phase.png").stat().st_size > 10_000


def test_one_axis_is_set_beside_the_usual_other(run, tmp_path):
    result = run("phase", "sunspots", "--w2", "0:2:2", "--window", "30", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert len(rows(tmp_path / "phase-sunspots" / "phase.csv")) == 2 * 121


WRONG = [
    (["diagnose", "sunspts"], OSError, "no such file"),
    (["diagnose", "sunspots", "--w2", "a"], ValueError, "w2 must be numbers"),
    (["phase", "sunspots", "--w2", "1"], ValueError, "two of w1, w2, b, scale"),
    (["phase", "sunspots", "--w2", "2:1:3"], ValueError, "w2 must have LO below HI"),
    (["phase", "sunspots", "--b", "1:2"], ValueError, "b must be a number or LO:HI:N"),
    (["phase", "sunspots", "--b", "1:2:1"], ValueError, "N from 2 on, got '1:2:1'"),
    (["phase", "sunspots", "--scale", "x"], ValueError, "scale must be a number or LO:HI:N"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_wrong_options_leave_nothing(arguments, error, message, run, tmp_path):
    result = run(*arguments)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())
