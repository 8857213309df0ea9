"""The commands diagnose and phase, in this process."""

import csv
import json

import click
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
    (["phase", "sunspots", "--w2", "0.5"], click.UsageError, "A plane needs two ranges LO:HI:N "
     "among --w1, --w2, --b and --scale, got --b -3:3:121: add one, as --scale 0.01:10:81."),
    (["phase", "sunspots", "--w2", "1", "--b", "0"], click.UsageError, "got none: add one"),
    (["phase", "sunspots", "--w1", "0:1:2", "--scale", "1:2:2", "--b", "0:1:2"], click.UsageError,
     "got --w1 0:1:2, --b 0:1:2, --scale 1:2:2: leave some out"),
    (["phase", "sunspots", "--w2", "1:inf:3"], ValueError, "w2 must be finite, got '1:inf:3'"),
    (["phase", "sunspots", "--w2", "nan:1:3"], ValueError, "w2 must be finite, got 'nan:1:3'"),
    (["phase", "sunspots", "--b", "nan"], ValueError, "b must be finite, got 'nan'"),
    (["phase", "sunspots", "--w2=-1e308:1e308:3"], ValueError, "HI - LO below 1.8e308"),
    (["phase", "sunspots", "--w2", "0:1:99999999"], ValueError, "N from 2 to 100000, got"),
    (["phase", "sunspots", "--refine", "99999"], click.UsageError, "not in the range 0<=x<=64"),
    (["phase", "sunspots", "--w2", "2:1:3"], ValueError, "w2 must have LO below HI"),
    (["phase", "sunspots", "--b", "1:2"], ValueError, "b must be a number or LO:HI:N"),
    (["phase", "sunspots", "--b", "1:2:1"], ValueError, "N from 2 to 100000, got '1:2:1'"),
    (["phase", "sunspots", "--scale", "x"], ValueError, "scale must be a number or LO:HI:N"),
]  # fmt: skip


def test_without_matplotlib_the_extra_is_named(run, monkeypatch, tmp_path):
    monkeypatch.setattr("fastrnn.terminal.find_spec", lambda name: None)
    for command in ("diagnose", "phase"):
        axes = ("--w2", "0:1:2", "--b", "0:1:2") if command == "phase" else ()
        result = run(command, "sunspots", *axes)
        assert result.exit_code == 0
        assert result.stderr == (
            f"fastrnn: {command}.png was not drawn: it needs matplotlib: "
            "python -m pip install 'fastrnn[plot]'\n"
        )


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_wrong_options_leave_nothing(arguments, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        cli.main(arguments, standalone_mode=False)
    assert message in getattr(raised.value, "message", str(raised.value))
    assert not list(tmp_path.iterdir())
