"""The command line, through a real process."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import fastrnn
from fastrnn.cli import FILES, cli

pytest.importorskip("matplotlib")

SHORT = ["--w2", "0.1:10:5"]


def run(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastrnn", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def rows(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def assert_agrees_with_reference(folder, series, activation="tanh"):
    series = np.atleast_2d(series)
    x, y = series[:, :-1], series[:, 1:]
    for row in rows(folder):
        net = fastrnn.RNN(1.0, float(row["w2"]), activation=activation)
        loss, grad = fastrnn.reference.loss_and_grad(net, x, y)
        assert float(row["loss"]) == pytest.approx(loss, rel=1e-10)
        for name in ("w1", "w2", "b"):
            assert float(row[f"d{name}"]) == pytest.approx(
                getattr(grad, name), rel=1e-10, abs=1e-14
            )
        found = fastrnn.reference.diagnose(net, x)
        middle = np.argsort(found.exponent)[(len(x) - 1) // 2]
        log10 = found.influence_of_first.log10()[middle]
        assert float(row["influence_log10"]) == pytest.approx(log10, rel=1e-10)
        assert float(row["influence_sign"]) == found.influence_of_first.sign[middle]
        assert float(row["exponent"]) == pytest.approx(found.exponent[middle], rel=1e-10)
        assert float(row["horizon"]) == found.horizon[middle]
        assert row["regime"] == found.regime[middle]


def normalised(series):
    return (series - series.mean()) / series.std()


@pytest.mark.parametrize("series", ["sunspots", "elnino", "co2"])
def test_sweep_of_a_bundled_series(series, tmp_path):
    fill = ["--fill", "interpolate"] if series == "co2" else []
    result = run("sweep", series, *SHORT, *fill, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "vanishing: W2 from 0.1 to 10" in result.stdout
    assert "lowest loss" in result.stdout
    folder = tmp_path / f"sweep-{series}"
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "sweep.csv", "sweep.png"]
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert len(rows(folder)) == 5
    values = fastrnn.load_series(series, fill="interpolate" if fill else None)
    if series == "sunspots":
        assert_agrees_with_reference(folder, normalised(values))
    record = json.loads((folder / "run.json").read_text())
    assert record["w2"] == np.geomspace(0.1, 10, 5).tolist()
    assert record["steps"] == len(values) - 1
    assert record["mean"] == [values.mean()]
    assert record["versions"]["numba"]
    assert record["seconds"] > 0


def test_sweep_of_windows(tmp_path):
    result = run("sweep", "elnino", *SHORT, "--window", 50, "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    values = normalised(fastrnn.load_series("elnino"))
    windows = np.stack([values[start : start + 51] for start in range(0, len(values) - 50, 50)])
    assert_agrees_with_reference(tmp_path / "out", windows)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["sequences"], record["steps"]) == (14, 50)
    assert record["values_left_out"] == len(values) - (14 * 50 + 1)


def test_sweep_of_a_file_with_negative_w2_raw_and_quiet(tmp_path):
    series = np.sin(np.arange(60.0)).reshape(2, 30)
    np.save(tmp_path / "waves.npy", series)
    options = ["--w2", "-2,-0.5,0,0.5", "--raw", "--quiet", "--activation", "identity"]
    result = run("sweep", "waves.npy", *options, "--workers", 1, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    folder = tmp_path / "sweep-waves"
    assert_agrees_with_reference(folder, series, "identity")
    assert [row["w2"] for row in rows(folder)] == ["-2.0", "-0.5", "0.0", "0.5"]
    assert rows(folder)[0]["regime"] == "exploding"
    assert rows(folder)[2]["influence_log10"] == "-inf"


def test_a_second_sweep_replaces_the_first_and_leaves_other_files(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for count in (3, 2):
        run("sweep", "sunspots", "--w2", f"0.1:1:{count}", "--out", "out", cwd=tmp_path)
    assert len(rows(tmp_path / "out")) == 2
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_overflow_is_reported_as_inf_and_the_influence_as_a_number(tmp_path):
    options = ["--activation", "identity", "--w2", "1000", "--out", "out"]
    result = run("sweep", "sunspots", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (row,) = rows(tmp_path / "out")
    assert row["loss"] == "inf"
    assert float(row["influence_log10"]) == pytest.approx(3 * 307, rel=1e-12)


def test_any_layout_of_a_file_and_overflow_in_float32(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(np.full((3, 230), 2.0)))
    options = ["--raw", "--dtype", "float32", "--activation", "identity", "--w2", "1.3,2"]
    result = run("sweep", "x.npy", *options, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


def test_float32(tmp_path):
    result = run("sweep", "sunspots", *SHORT, "--dtype", "float32", "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert float(rows(tmp_path / "out")[0]["loss"]) == pytest.approx(0.425, rel=1e-3)


@pytest.mark.parametrize("w2", ["1e-300:1e300:61", "-1e300,1", "1.7e308", "1,1", "0", "1e60,1"])
@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_any_finite_w2_gives_a_table_and_a_picture(w2, activation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--w2", w2, "--activation", activation, "--out", "out"]
    result = CliRunner().invoke(cli, ["sweep", "sunspots", *options])
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / "out" / "sweep.png").exists()
    assert max(map(len, result.stdout.splitlines())) < 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_leaves_nothing(number, tmp_path):
    np.save(tmp_path / "long.npy", np.random.default_rng(0).standard_normal((20, 100_000)))
    command = [sys.executable, "-u", "-m", "fastrnn", "sweep", "long.npy", "--out", "out"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith(
        "long.npy: tanh neuron, 20 sequences of 99999 steps"
    )
    while not (tmp_path / "out").exists():
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["long.npy"]


WRONG = [
    (["nowhere.csv"], "series 'nowhere.csv': no such file"),
    (["bad.csv"], "bad.csv, line 3, column 'x': expected a number, got 'two'"),
    (["good.csv", "--column", "y"], "column must be one of x, got 'y'"),
    (["co2"], "the series has gaps, 59 in 2284 values: choose fill= (on the command line --fill)"),
    (["co2", "--fill", "guess"], "fill must be one of interpolate, drop, got 'guess'"),
    (["sunspots", "--w2", "10:0.1:5"], "w2 must have LO below HI, got '10:0.1:5'"),
    (["sunspots", "--w2", "-1:1:5"], "w2 must have LO and HI of one sign"),
    (["sunspots", "--w2", "0.1:1"], "w2 must be numbers or LO:HI:N, got '0.1:1'"),
    (["sunspots", "--w2", "0.1:1:x"], "w2 must have N from 2"),
    (["sunspots", "--w2", "0.1:1:99999999999"], "w2 must have N from 2"),
    (["sunspots", "--w2", "1,two"], "w2 must be numbers or LO:HI:N, got 'two'"),
    (["sunspots", "--w2", "nan"], "w2 must be finite, got 'nan'"),
    (["sunspots", "--w2", ""], "w2 must be numbers or LO:HI:N, got ''"),
    (["sunspots", "--w1", "inf"], "w1 must be finite, got inf"),
    (["sunspots", "--activation", "tahn"], "did you mean 'tanh'"),
    (["sunspots", "--dtype", "float16"], "float16"),
    (["sunspots", "--dtype", "float32", "--w2", "1e-60"], "w2 must be representable in float32"),
    (["sunspots", "--window", "0"], "window must be at least 1, got 0"),
    (["sunspots", "--window", "400"], "a window of 400 steps needs 401 values"),
    (["sunspots", "--workers", "0"], "workers must be positive"),
    (["constant.csv"], "cannot be normalised"),
    (["one.csv", "--raw"], "needs 2 values"),
    (["sunspots", "--out", "good.csv"], "good.csv is a file, not a folder"),
    (["sunspots", "--out", "good.csv/deeper"], "good.csv/deeper: Not a directory"),
    (["sunspots", "--out", "/proc/nowhere"], "/proc/nowhere"),
    (["sunspots", "--unknown"], "Try 'fastrnn sweep --help'."),
    (["latin.csv"], "latin.csv is no UTF-8 text, it has the byte 0xe9: choose its encoding, as"),
    (["utf16.csv"], "utf16.csv is UTF-16 text: choose encoding='utf-16' (on the command line --"),
    (["comma.csv"], "choose decimal=',' or separator=',' (on the command line --decimal ,"),
    (["zero.csv"], "header=True or header=False (on the command line --header or --no-header)"),
    (["good.csv", "--encoding", "no"], "encoding must be a text encoding that Python knows"),
    (["sunspots", "--encoding", "utf-8"], "encoding is for text files, got 'utf-8' for the"),
    (["big.csv", "--raw", "--dtype", "float32"], "the series must be representable in float32"),
    ([], "fastrnn: Missing argument 'SERIES'. Try 'fastrnn sweep --help'."),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value))
def test_bad_input_is_one_line_and_status_2_and_leaves_nothing(arguments, message, tmp_path):
    (tmp_path / "good.csv").write_text("x\n1\n2\n3\n")
    (tmp_path / "bad.csv").write_text("x\n1\ntwo\n3\n")
    (tmp_path / "constant.csv").write_text("x\n1\n1\n1\n")
    (tmp_path / "one.csv").write_text("x\n1\n")
    (tmp_path / "latin.csv").write_bytes("é\n1\n2\n".encode("latin-1"))
    (tmp_path / "utf16.csv").write_bytes("x\n1\n2\n".encode("utf-16"))
    (tmp_path / "comma.csv").write_text("1,5\n2,5\n3,5")
    (tmp_path / "zero.csv").write_text("0\n0.5\n1.5\n")
    (tmp_path / "big.csv").write_text("x\n1e300\n-1e300\n2\n")
    before = sorted(tmp_path.rglob("*"))
    result = run("sweep", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("fastrnn: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    (tmp_path / "out" / "sweep.png").mkdir(parents=True)
    result = run("sweep", "sunspots", *SHORT, "--out", "out", cwd=tmp_path)
    assert result.returncode == 2
    assert "out/sweep.png is a folder" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sweep.png"]


def test_without_matplotlib_all_else_is_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "sweep.png").write_text("an earlier picture")
    monkeypatch.setattr("fastrnn.terminal.find_spec", lambda name: None)
    cli.main(["sweep", "sunspots", *SHORT, "--out", str(tmp_path)], standalone_mode=False)
    # The picture of an earlier sweep would be another's.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "sweep.csv"]
    missing = (
        "sweep.png was not drawn: it needs matplotlib: python -m pip install 'fastrnn[plot]'\n"
    )
    assert capsys.readouterr().err == f"fastrnn: {missing}"


def test_what_was_read_is_printed_and_recorded(tmp_path):
    (tmp_path / "own.csv").write_bytes("t;é\n1;1,5\n2;2,5\n3;-999\n4;4,5\n".encode("latin-1"))
    options = ["--encoding", "latin-1", "--na", "-999", "--fill", "interpolate", "--w2", "0.5"]
    result = run("sweep", "own.csv", *options, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1] == (
        "own.csv: 4 values of column 'é', number 2 of 2; header in line 1, decimal comma; "
        "1 gap interpolated"
    )
    record = json.loads((tmp_path / "sweep-own" / "run.json").read_text(encoding="utf-8"))
    assert record["mean"] == [3.0]
    assert (record["encoding"], record["na"]) == ("latin-1", ["-999"])
    assert record["source"] == str((tmp_path / "own.csv").resolve())


@pytest.fixture(name="call")
def _call(tmp_path, monkeypatch):
    """The command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **how: CliRunner().invoke(cli, arguments, **how)


def test_another_series_of_the_same_name_is_not_overwritten(call, tmp_path):
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.csv").write_text(f"x\n1\n2\n{ord(folder)}\n")
    assert call("sweep", "A/x.csv", "--w2", "0.5").exit_code == 0
    first = (tmp_path / "sweep-x" / "sweep.csv").read_bytes()
    other = call("sweep", "B/x.csv", "--w2", "0.5")
    assert isinstance(other.exception, FileExistsError)
    assert str(other.exception) == (
        f"sweep-x holds the sweep of {tmp_path / 'A' / 'x.csv'}: choose another folder (--out), or "
        "--force to overwrite it"
    )
    assert (tmp_path / "sweep-x" / "sweep.csv").read_bytes() == first
    (tmp_path / "A" / "x.csv").write_text("x\n1\n2\n9\n")
    assert call("sweep", str(tmp_path / "A" / "x.csv"), "--w2", "0.5").exit_code == 0
    assert (tmp_path / "sweep-x" / "sweep.csv").read_bytes() != first
    assert call("sweep", "B/x.csv", "--w2", "0.5", "--force").exit_code == 0
    record = json.loads((tmp_path / "sweep-x" / "run.json").read_text(encoding="utf-8"))
    assert record["source"] == str(tmp_path / "B" / "x.csv")


def test_another_command_does_not_overwrite_a_record(call, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    result = call("sweep", "sunspots", "--w2", "0.5", "--out", "out")
    assert str(result.exception).startswith("out holds a run.json of something else: choose")
    assert call("sweep", "sunspots", "--w2", "0.5", "--out", "out", "--force").exit_code == 0
    for command in (["diagnose"], ["phase", "--w2", "0:1:2", "--b", "0:1:2"]):
        result = call(*command, "sunspots", "--out", "out")
        assert str(result.exception).startswith("out holds the sweep of sunspots: choose another")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


def test_a_series_from_a_pipe(call, tmp_path):
    result = call("sweep", "-", "--w2", "0.5", input="x\n1\n2\n4\n")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        "standard input: tanh neuron, 2 steps, normalised\n"
        "standard input: 3 values of column 'x'; header in line 1\n"
    )
    assert len(rows(tmp_path / "sweep-stdin")) == 1
    other = call("sweep", "-", "--w2", "0.5", input="x\n1\n2\n5\n")
    assert "sweep-stdin holds the sweep of a pipe, values with sha256" in str(other.exception)
    assert call("sweep", "-", "--w2", "0.5", input="x\n1\n2\n4\n").exit_code == 0


@pytest.mark.parametrize("name", [os.fsdecode(b"a\xff.csv"), "\N{CJK UNIFIED IDEOGRAPH-6570}.csv"])
def test_any_file_name_is_drawn_and_recorded(name, tmp_path):
    (tmp_path / name).write_text("x\n1\n2\n4\n")
    for _ in range(2):
        result = run("sweep", name, "--w2", "0.5", "--out", "out", "--quiet", cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["series"] == name
    assert (tmp_path / "out" / "sweep.png").exists()


def test_compressed_files_and_tabs(call, tmp_path):
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"t\tx\n1\t5\n2\t6\n"))
    assert call("sweep", "x.csv.gz", "--w2", "0.5", "--separator", r"\t").exit_code == 0
    assert (tmp_path / "sweep-x" / "sweep.csv").exists()


def test_a_file_and_a_bundled_series_of_one_name(call, tmp_path):
    (tmp_path / "sunspots").write_text("x\n1\n2\n4\n")
    assert "'./sunspots' is the file" in str(call("sweep", "sunspots").exception)
    assert "2 steps" in call("sweep", "./sunspots", "--w2", "0.5").stdout


def test_the_command_alone_prints_its_help(tmp_path):
    result = run(cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == run("--help", cwd=tmp_path).stdout
    assert result.stdout.startswith("Usage: fastrnn [OPTIONS] [COMMAND]")
    assert "\n  sweep " in result.stdout


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("sweep", ["  x_1 on y_T    derivative of the last prediction by the first input",
                   "  horizon       memory: the first lag whose influence is below 1/1000 of the"]),
        ("phase", ["  fastrnn phase sunspots --scale 0.01:10:81 --b 0",
                   "  fastrnn phase sunspots --activation relu --w2 0:2:81"]),
    ],
)  # fmt: skip
def test_help_keeps_the_lines_of_glossaries_and_examples(command, lines, call):
    shown = call(command, "--help").stdout
    assert "\\b" not in shown
    assert "\n".join(lines) in shown


@pytest.mark.parametrize("command", ["sweep", "diagnose", "phase", "info", "accuracy", "verify"])
def test_a_usage_error_is_one_line_and_says_where_to_read_on(command, tmp_path):
    result = run(command, "--nonsense", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("fastrnn: No such option '--nonsense'.")
    assert line.endswith(f"Try 'fastrnn {command} --help'.")


def test_an_unknown_command_says_where_to_read_on(tmp_path):
    result = run("swep", cwd=tmp_path)
    assert result.stderr.startswith("fastrnn: No such command 'swep'.")
    assert result.stderr.endswith("Try 'fastrnn --help'.\n")


def test_info(tmp_path):
    result = run("info", cwd=tmp_path)
    assert result.returncode == 0
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert facts["fastrnn"] == fastrnn.__version__
    assert set(facts) >= {"python", "numpy", "numba", "cpu", "cores", "workers", "kernel"}


def test_accuracy(tmp_path):
    result = run("accuracy", "--points", "20000", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()[3:7]] == [
        "tanh", "tanh'", "sigmoid", "sigmoid'",
    ]  # fmt: skip
    rows = json.loads(run("accuracy", "--points", "20000", "--json", cwd=tmp_path).stdout)
    assert {row["dtype"] for row in rows} >= {"float32"}
    for row in rows:
        assert 0 < row["mean"] < row["largest"] <= (4 if row["function"].endswith("'") else 2)


def test_version_and_help(tmp_path):
    assert run("--version", cwd=tmp_path).stdout == f"fastrnn, version {fastrnn.__version__}\n"
    assert "sweep" in run("--help", cwd=tmp_path).stdout


def test_progress_bar_on_a_terminal(tmp_path):
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "fastrnn", "sweep", "sunspots", *SHORT, "--out", "out"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.DEVNULL,
        stderr=child,
    )
    process.wait(120)
    os.set_blocking(parent, False)
    shown = os.read(parent, 100_000).decode()
    os.close(parent)
    os.close(child)
    assert "W2 values" in shown
    assert "100%" in shown


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGINT to a child here")
def test_a_stop_waits_for_no_compilation(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.getcwd(),
        "FASTRNN_CACHE_DIR": str(tmp_path / "k"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "fastrnn", "sweep", "sunspots"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    # The first kernels are kept, and others are being compiled: for half a minute.
    while not list(tmp_path.glob("k/*.bin")):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGINT
    assert errors == "fastrnn: interrupted\n"


@pytest.mark.parametrize(
    "options", [["--activation", "rellu"], ["--workers", "0"], ["--w1", "nan"], ["--b", "inf"]]
)
def test_what_is_wrong_is_the_only_line(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "fastrnn", "sweep", "sunspots", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (found.returncode, found.stdout) == (2, "")
    assert len(found.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
