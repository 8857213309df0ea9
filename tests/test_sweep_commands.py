"""Batch jobs by the command line, in processes of their own: killed, stopped, in shards."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("zarr")
xarray = pytest.importorskip("xarray")

import fastrnn  # noqa: E402
from fastrnn.batch.commands import parse_shard  # noqa: E402
from fastrnn.batch.verify import verify  # noqa: E402
from fastrnn.cli import cli  # noqa: E402
from tests import sweeps  # noqa: E402

ROOT = str(Path(__file__).parents[1])
JOB = """
x = "x.npy"
w2 = "0.01:100:60"
y = "next"
keep = ["last", "loss", "gradient", "states", "diagnosis"]
every = 100
tasks = 30
"""


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(3).standard_normal((4, 2000)))
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def start(folder, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "fastrnn", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ROOT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, *arguments, **environment):
    process = start(folder, *arguments, **environment)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def large(folder, steps):
    """Make the job so long that it does not end by itself while it is watched."""
    np.save(folder / "x.npy", np.random.default_rng(3).standard_normal((20, steps)))


def wait_for_receipts(folder, count):
    while len(list(folder.glob("job/receipts/0*.json"))) < count:
        time.sleep(0.01)


def command(*arguments):
    """What a command prints, run in this process."""
    result = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    return result.exit_code, result.stdout


def test_a_job_from_start_to_export(folder, monkeypatch):
    monkeypatch.chdir(folder)
    status, output, errors = run(folder, "sweep", "job.toml")
    assert (status, errors) == (0, "")
    assert re.fullmatch(
        r"job\.toml: Sweep\(60 w2 x 4 sequences of 1999 steps, .*, 30 tasks\)\n"
        r"all tasks are in job \(.* s\)\n",
        output,
    )
    assert command("verify", "job") == (0, "30 of 30 tasks computed, 0 files at fault\n")
    assert command("sweep", "job.toml", "--quiet") == (0, "")
    assert command("export", "job", "--to", "csv") == (0, "job.csv\njob-states.csv\n")
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(folder / "job.csv", index_col=["w2", "sequence"])
    data = xarray.open_zarr(folder / "job").load()
    assert len(table) == 240
    for name in ("loss", "dw2", "exponent"):
        np.testing.assert_array_equal(table[name].to_numpy(), data[name].values.ravel())
    states = pandas.read_csv(folder / "job-states.csv")
    np.testing.assert_array_equal(states["states"], data["states"].values.ravel())
    assert states["time"].max() == 1900


def test_verify_names_files_at_fault(folder, monkeypatch):
    monkeypatch.chdir(folder)
    command("sweep", "job.toml", "--quiet", "--shard", "1/3")
    assert command("verify", "job") == (1, "10 of 30 tasks computed, 0 files at fault\n")
    (folder / "job" / "loss" / "c.3.0").unlink()
    status, output = command("verify", "job")
    assert status == 1
    assert output.splitlines() == [
        "loss/c.3.0: missing",
        "10 of 30 tasks computed, 1 file at fault",
    ]


@pytest.mark.parametrize(("kind", "library"), [("parquet", "pyarrow"), ("netcdf", "scipy")])
def test_export_to_other_kinds(kind, library, tmp_path):
    pytest.importorskip(library)
    from fastrnn.batch.export import export

    out = sweeps.small().run(tmp_path / "out")
    data = xarray.open_zarr(out).load().drop_vars("computed")
    files = export(out, kind)
    if kind == "netcdf":
        with xarray.open_dataset(files[0]) as found:
            xarray.testing.assert_equal(found, data)
        return
    pandas = pytest.importorskip("pandas")
    table, states = map(pandas.read_parquet, files)
    np.testing.assert_array_equal(table["loss"], data["loss"].values.ravel())
    np.testing.assert_array_equal(states["states"], data["states"].values.ravel())
    assert len(list(tmp_path.iterdir())) == 3


def test_a_sweeps_folder_is_written_to_by_its_job_alone(folder, monkeypatch):
    monkeypatch.chdir(folder)
    sweeps.small(tasks=2, every=1, keep="last").run("out")
    before = sweeps.content(folder / "out")
    for arguments in (
        ["export", "out", "--to", "csv", "--file", "out/zarr.json"],
        ["sweep", "sunspots", "--w2", "1", "--out", "out", "--force"],
    ):
        with pytest.raises((ValueError, OSError), match="out"):
            cli.main(arguments, standalone_mode=False)
    assert sweeps.content(folder / "out") == before


def test_export_refuses_what_is_not_done_or_damaged(tmp_path):
    from fastrnn.batch.export import export

    out = sweeps.small(keep="last", every=1).run(tmp_path / "out")
    with pytest.raises(ValueError, match="kind must be one of csv, parquet, netcdf, got 'xls'"):
        export(out, "xls")
    (out / "receipts" / "00000001.json").unlink()
    for name in ("last", "computed"):
        (out / name / "c.0.1.0").unlink()
    with pytest.raises(ValueError, match="is not done, 1 of 8 tasks are missing"):
        export(out, "csv")
    (file,) = export(out, "csv", partial=True)
    header, *rows = file.read_text().splitlines()
    missing, computed = (header.split(",").index(name) for name in ("last", "computed"))
    cells = [row.split(",") for row in rows]
    assert {(row[missing] == "", row[computed]) for row in cells} == {(1, "False"), (0, "True")}
    (out / "last" / "c.0.0.0").unlink()
    with pytest.raises(ValueError, match="is damaged, see fastrnn verify: last/c"):
        export(out, "csv", partial=True)
    assert len(list(tmp_path.iterdir())) == 2


def held_by(folder):
    """Process that has locked the job; None where it is not begun."""
    try:
        return json.loads((folder / "job" / "receipts" / "1-of-1.lock").read_text())["pid"]
    except (FileNotFoundError, ValueError):
        return None


def kill_and_go_on(folder, kills, seconds):
    """Kill runs of a job at random moments, and go on; as often as it takes anew from its start."""
    random = np.random.default_rng(kills)
    killed = 0
    while killed < kills:
        process = start(folder, "sweep", "job.toml")
        while process.poll() is None and held_by(folder) != process.pid:
            time.sleep(0.001)
        try:
            process.communicate(timeout=random.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
        else:
            assert process.returncode == 0
            check_whole(folder)
            shutil.rmtree(folder / "job")
    status, _, errors = run(folder, "sweep", "job.toml", "--quiet")
    assert status == 0
    assert not errors or errors.endswith("which has died\n")
    check_whole(folder)


def check_whole(folder):
    if not (folder / "whole").exists():
        fastrnn.Sweep.from_toml(folder / "job.toml").run(folder / "whole")
    assert sweeps.content(folder / "job") == sweeps.content(folder / "whole")
    assert not list(folder.rglob("*.partial"))


def test_a_job_killed_twice_is_bit_equal_to_one_that_was_not(folder):
    large(folder, 3000)
    kill_and_go_on(folder, 2, seconds=1.0)


@pytest.mark.slow
def test_a_job_killed_thirty_times_is_bit_equal_to_one_that_was_not(folder):
    large(folder, 12_000)
    kill_and_go_on(folder, 30, seconds=2.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_job_keeps_what_is_done(number, folder):
    large(folder, 60_000)
    process = start(folder, "sweep", "job.toml")
    wait_for_receipts(folder, 2)
    process.send_signal(number)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + number
    assert errors == "fastrnn: stopped; what is done is kept: run the same to go on\n"
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("*.lock"))
    found = verify(folder / "job")
    assert found.faults == []
    assert 0 < found.not_computed < 30


def test_sigterm_stops_a_python_program_in_a_run(folder):
    large(folder, 60_000)
    code = "import fastrnn; fastrnn.Sweep.from_toml('job.toml').run('job')"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stderr=subprocess.PIPE)
    wait_for_receipts(folder, 1)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(folder.rglob("*.lock"))


def test_shards_in_processes_that_start_together_make_one_store(folder):
    array = {"COUNT": "2", "MIN": "0", "MAX": "2", "STEP": "2"}
    slurm = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
    shards = [
        start(folder, "sweep", "job.toml", "--shard", "1/2"),
        start(folder, "sweep", "job.toml", **slurm, SLURM_ARRAY_TASK_ID="2"),
    ]
    for number, shard in enumerate(shards):
        output, errors = shard.communicate(timeout=300)
        said = "fastrnn: computes shard 2 of 2 only, as element 2 of a Slurm array; "
        assert (shard.returncode, errors.startswith(said)) == (0, number == 1)
        assert f"all tasks, shard {number + 1} of 2 are in job" in output
    check_whole(folder)


WHOLE_ARRAY = {"ID": "3", "COUNT": "2", "MIN": "3", "MAX": "4", "STEP": "1"}
NO_ARRAY = [
    ({"MAX": "7"}, "for a Slurm array with gaps"),
    ({"ID": "2"}, "for a Slurm array with gaps"),
    ({"MIN": None}, r"\(--shard i/n\) where SLURM_ARRAY_TASK_MIN is not set"),
    ({"COUNT": None}, r"\(--shard i/n\) where SLURM_ARRAY_TASK_COUNT is not set"),
    ({"COUNT": "0"}, r"\(--shard i/n\) where SLURM_ARRAY_TASK_COUNT is 0"),
    ({"STEP": "0"}, r"\(--shard i/n\) where SLURM_ARRAY_TASK_STEP is 0"),
    ({"ID": "-3"}, r"\(--shard i/n\) where SLURM_ARRAY_TASK_ID is -3"),
    ({"ID": ""}, r"\(--shard i/n\) where SLURM_ARRAY_TASK_ID is "),
]


@pytest.mark.parametrize(("changes", "message"), NO_ARRAY, ids=str)
def test_a_slurm_array_that_says_too_little_needs_a_shard(changes, message):
    array = {
        f"SLURM_ARRAY_TASK_{name}": value
        for name, value in (WHOLE_ARRAY | changes).items()
        if value is not None
    }
    with pytest.raises(ValueError, match=f"shard must be given {message}"):
        parse_shard(None, array)
    assert parse_shard("1/1", array) == (1, 1)


def test_an_array_whose_elements_have_jobs_of_their_own_says_that_each_is_in_part(folder):
    array = {f"SLURM_ARRAY_TASK_{name}": value for name, value in WHOLE_ARRAY.items()}
    status, output, errors = run(folder, "sweep", "job.toml", "--quiet", **array)
    assert (status, output) == (0, "")
    assert errors == (
        "fastrnn: computes shard 1 of 2 only, as element 3 of a Slurm array; all of it: "
        "--shard 1/1\n"
    )
    assert verify(folder / "job").not_computed == 15
    assert run(folder, "sweep", "job.toml", "--quiet", "--shard", "1/1", **array) == (0, "", "")
    assert verify(folder / "job").not_computed == 0


WRONG = [
    (["sweep", "nowhere.toml"], "No such file or directory: 'nowhere.toml'"),
    (["sweep", "bad.toml"], "bad.toml, line 2: tahn is no key of a sweep"),
    (["sweep", "job.toml", "--w2", "1"], "--w2 must stand in job.toml"),
    (["sweep", "job.toml", "--raw"], "--normalize must stand in job.toml"),
    (["sweep", "job.toml", "--shard", "4"], "shard must be i/n as 1/4, got '4'"),
    (["sweep", "job.toml", "--shard", "5/4"], "shard must be i/n with i from 1 to n, got '5/4'"),
    (["sweep", "job.toml", "--workers", "0"], "workers must be positive"),
    (["sweep", "job.toml", "--out", "x.npy"], "is a file, not a folder"),
    (["sweep", "job.toml", "--out", "."], "must be a new or empty folder, or one of a sweep"),
    (["sweep", "sunspots", "--shard", "1/2"], "--shard is for a job (SERIES ending in .toml)"),
    (["sweep", "job.toml", "--out", "s3://bucket/x"], "out must be a path in the file system, got"),
    (["verify", "s3://bucket/x"], "out must be a path in the file system, got the URL"),
    (["export", "gs://bucket/x", "--to", "csv"], "out must be a path in the file system, got"),
    (["verify", "x.npy"], "x.npy holds no sweep"),
    (["export", "nowhere", "--to", "csv"], "nowhere holds no sweep"),
    (["export", "nowhere", "--to", "xls"], "'xls' is not one of 'csv', 'parquet', 'netcdf'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 'x.npy'\nw2 = 1\nkeep = 'loss'", "job.toml: y must be given for keep 'loss'.*"),
        ("x = 'x.npy'\nw2 = 1\nwindow = 3\n", "job.toml, line 3: window must come with .*"),
        ("x = 'none.npy'\nw2 = 1", "none.npy: No such file or directory"),
        ("x = 'x.npy'\nw2 = 1\ndtype = 'f32'", "job.toml, line 3: dtype must be one of float32,.*"),
        ("x = 'x.npy'\nw1 = '1:2:1000000'\nw2 = '1:2:1000000'", "job.toml: tasks must be at .*"),
        ("\ufeffx = 'x.npy'\nw2 = true", "job.toml, line 2: w2 must be a number.*"),
        ("a." * 100_000 + "a = 1", "job.toml must have no keys with dots.*"),
    ],
    ids=range(7),
)
def test_an_error_of_a_job_is_one_line_in_the_commands_words(text, message, folder):
    (folder / "job.toml").write_text(text, encoding="utf-8")
    status, output, errors = run(folder, "sweep", "job.toml")
    assert (status, output) == (2, "")
    assert re.fullmatch(f"fastrnn: {message}\n", errors)
    assert not (folder / "job").exists()


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=str)
def test_bad_input_is_refused_and_leaves_nothing(arguments, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "bad.toml").write_text("x = 'sunspots'\ntahn = 1\n")
    before = sweeps.content(folder)
    with pytest.raises((ValueError, OSError, click.UsageError)) as info:
        cli.main(arguments, standalone_mode=False)
    assert message in str(info.value)
    assert sweeps.content(folder) == before


def test_a_bar_on_a_terminal(folder):
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fastrnn", "sweep", "job.toml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.DEVNULL,
        stderr=child,
    )
    process.wait(120)
    os.set_blocking(parent, False)
    shown = ""
    with contextlib.suppress(BlockingIOError):
        while True:
            shown += os.read(parent, 100_000).decode()
    os.close(parent)
    os.close(child)
    assert "30/30" in shown
    assert re.search(r"\d steps/s, 0:\d\d:\d\d left", shown)
