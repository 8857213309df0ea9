"""Sweep: the description of a batch job, in Python and in TOML."""

import dataclasses
import mmap
import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn.batch.compute import results
from fastrnn.batch.description import describe
from fastrnn.batch.tasks import blocks, box_shape, cut
from tests import sweeps

X = np.random.default_rng(1).standard_normal((3, 50))


def whole(sweep):
    """Results of all tasks, put together."""
    found = {}
    for task in sweep.tasks:
        for name, values in results(sweep, task).items():
            shape = (*sweep.sizes.values(), *values.shape[len(task.shape) :])
            found.setdefault(name, np.full(shape, np.nan, values.dtype))[task.box] = values
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_results_are_those_of_the_verbs(dtype, activation):
    sweep = sweeps.small(dtype=dtype, activation=activation)
    found = whole(sweep)
    x = sweep.x.astype(dtype)
    for i, w1 in enumerate(sweep.w1):
        net = fastrnn.RNN(np.full(7, w1), sweep.w2, np.full(7, sweep.b), activation=activation)
        states = fastrnn.forward(net, x[:, :-1])
        np.testing.assert_array_equal(found["states"][i], states[..., ::7])
        np.testing.assert_array_equal(found["last"][i], states[..., -1])
        diagnosis = fastrnn.diagnose(net, x[:, :-1])
        np.testing.assert_array_equal(
            found["influence_log10"][i], diagnosis.influence_of_first.log10()
        )
        np.testing.assert_array_equal(found["horizon"][i], diagnosis.horizon)
        for row in range(len(x)):
            loss, grad = fastrnn.loss_and_grad(net, x[row, :-1], x[row, 1:])
            np.testing.assert_array_equal(found["loss"][i, :, row], loss)
            for name in ("w1", "w2", "b"):
                np.testing.assert_array_equal(found[f"d{name}"][i, :, row], getattr(grad, name))


def test_results_have_the_same_bits_in_any_number_of_tasks(monkeypatch):
    one, many = whole(sweeps.small(tasks=1)), whole(sweeps.small(tasks=64))
    monkeypatch.setattr("fastrnn.batch.compute.BLOCK_STATES", 100)
    in_blocks = whole(sweeps.small(tasks=3))
    for name, values in one.items():
        np.testing.assert_array_equal(many[name], values)
        np.testing.assert_array_equal(in_blocks[name], values)


def test_targets_of_ones_own():
    sweep = fastrnn.Sweep(X, w2=0.5, y=2 * X, keep="loss")
    (task,) = [task for task in sweep.tasks if task.box[0].start == 1]
    loss, _ = fastrnn.loss_and_grad(fastrnn.RNN(1.0, 0.5), X[1], 2 * X[1])
    assert results(sweep, task)["loss"][0] == loss


@pytest.mark.parametrize("sizes", [(1,), (1000,), (3, 7), (2, 1000, 5), (13, 1, 17, 4)])
@pytest.mark.parametrize("tasks", [1, 2, 10, 97, 100_000])
def test_tasks_cover_the_grid_once(sizes, tasks):
    boxes = cut(sizes, box_shape(sizes, tasks))
    assert 1 <= len(boxes) <= tasks
    assert [box.number for box in boxes] == list(range(len(boxes)))
    times = np.zeros(sizes, int)
    for box in boxes:
        times[box.box] += 1
        assert times[box.box].shape == box.shape
    assert (times == 1).all()
    assert box_shape(sizes, len(boxes)) == box_shape(sizes, tasks)


@pytest.mark.parametrize(("nets", "rows", "steps"), [(1, 1, 10), (7, 5, 10), (100, 3, 1000)])
@pytest.mark.parametrize("limit", [1, 100, 10_000])
def test_blocks_cover_a_task_once(nets, rows, steps, limit):
    times = np.zeros((nets, rows), int)
    for part, across in blocks(nets, rows, steps, limit):
        times[part, across] += 1
        assert times[part, across].size in (1, *range(2, limit // steps + 1))
    assert (times == 1).all()


def test_a_sweep_is_frozen_and_leaves_its_inputs_alone():
    x = X.copy()
    sweep = fastrnn.Sweep(x, w2=[0.5])
    with pytest.raises(dataclasses.FrozenInstanceError):
        sweep.w2 = 1.0
    with pytest.raises(ValueError, match="read-only"):
        sweep.x[0, 0] = 1.0
    assert pickle.loads(pickle.dumps(sweep)).sizes == sweep.sizes


@pytest.mark.parametrize("name", ["x", "y", "w2"])
def test_later_changes_of_an_input_do_not_reach_a_sweep(name):
    given = {"x": X.copy(), "y": X.copy(), "w2": np.array([0.5, 0.9])}
    sweep = fastrnn.Sweep(**given, keep="loss")
    before = describe(sweep)
    given[name][...] = 7.0
    assert describe(sweep) == before


def test_a_mapped_file_is_not_copied_and_a_broadcast_array_stored_once(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for x in (mapped, mapped[1:, ::2]):
        assert np.shares_memory(fastrnn.Sweep(x, w2=0.5).x, mapped)
    one = np.arange(50.0)
    sweep = fastrnn.Sweep(np.broadcast_to(one, (1000, 50)), w2=0.5)
    one[:] = 0.0
    assert sweep.x.strides[0] == 0
    np.testing.assert_array_equal(sweep.x[999], np.arange(50.0))


@pytest.mark.parametrize("dtype", [np.float32, np.dtype("float32"), "float32", "f4"])
def test_a_dtype_may_be_named_in_any_way_of_numpy(dtype):
    assert fastrnn.Sweep(X, w2=0.5, dtype=dtype).dtype == np.float32


def test_tasks_by_default_are_neither_few_nor_huge():
    assert len(fastrnn.Sweep(X, w2=np.ones(100)).tasks) > 10
    shared = np.broadcast_to(np.float32(0), (1000, 10_000))
    sweep = fastrnn.Sweep(shared, w2=np.ones(1000), keep="states", every=10)
    assert sweep.task_bytes <= 1 << 26
    assert repr(sweep).startswith("Sweep(1000 w2 x 1000 sequences of 10000 steps, keep=('states',)")


WRONG = [
    (dict(x=np.zeros((2, 3, 4))), ValueError, r"x must have shape \(T,\) or \(B, T\)"),
    (dict(x=np.zeros((2, 0))), ValueError, "x must have steps to compute"),
    (dict(x=[1.0], y="next"), ValueError, "x must have steps to compute"),
    (dict(x=[1j]), TypeError, "x must be float32 or float64"),
    (dict(w2=np.ones((2, 2))), ValueError, r"w2 must be a number or have shape \(K,\)"),
    (dict(w2=[]), ValueError, r"w2 must be a number or have shape \(K,\), got shape \(0,\)"),
    (dict(b=np.nan), ValueError, "b must be finite, got nan"),
    (dict(w1=1e-60, dtype="float32"), ValueError, "w1 must be representable in float32"),
    (dict(activation="tahn"), ValueError, "did you mean 'tanh'"),
    (dict(keep="lost"), ValueError, "keep must be one of .*; did you mean '"),
    (dict(keep=()), ValueError, "keep must name some of"),
    (dict(keep=3), TypeError, "keep must be names of"),
    (dict(keep="loss"), ValueError, "y must be given for keep 'loss'"),
    (dict(y="last"), ValueError, "y must be one of next, got 'last'"),
    (dict(y=[1.0]), ValueError, r"y must have shape .* = \(1, 2\), got \(1, 1\)"),
    (dict(every=2), ValueError, "every must come with keep 'states'"),
    (dict(every=0, keep="states"), ValueError, "every must be at least 1, got 0"),
    (dict(tasks=True), TypeError, "tasks must be an integer, got a bool"),
    (dict(tasks=1.5), TypeError, "tasks must be an integer, got float"),
    (dict(dtype="float16"), ValueError, "dtype must be one of float32, float64"),
    (dict(dtype=np.int64), ValueError, "dtype must be one of float32, float64, got 'int64'"),
    (dict(dtype="flaot32"), ValueError, "dtype must be one of .*; did you mean 'float32'"),
    (
        dict(w1=np.ones(10**6), w2=np.ones(10**6), tasks=10**12),
        ValueError,
        "tasks must be at most 1000000, got 1000000000000 for a grid of 1000000000000",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("given", "error", "message"), WRONG, ids=str)
def test_a_wrong_description_is_refused(given, error, message):
    given = {"x": [1.0, 2.0], "w2": 0.5, **given}
    with pytest.raises(error, match=message):
        fastrnn.Sweep(given.pop("x"), **given)


def written(folder, text):
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_toml_describes_the_same(tmp_path):
    np.save(tmp_path / "x.npy", X)
    text = """
    x = "x.npy"
    w1 = [0.5, 1]
    w2 = "0.1:10:5,-1"   # geometric, and one more
    b = 0.25
    activation = "sigmoid"
    y = "next"
    keep = ["loss", "last"]
    dtype = "float32"
    tasks = 6
    """
    sweep = fastrnn.Sweep.from_toml(written(tmp_path, text))
    same = fastrnn.Sweep(
        X, w1=[0.5, 1.0], w2=[*np.geomspace(0.1, 10, 5), -1.0], b=0.25, activation="sigmoid",
        y="next", keep=("last", "loss"), dtype="float32", tasks=6,
    )  # fmt: skip
    assert describe(sweep) == describe(same)
    memory = sweep.x
    while isinstance(memory, np.ndarray):
        memory = memory.base
    assert isinstance(memory, mmap.mmap)


def test_toml_prepares_a_series(tmp_path):
    text = 'x = "sunspots"\nnormalize = true\nwindow = 100\nw2 = 0.5\ny = "next"\nkeep = "loss"'
    sweep = fastrnn.Sweep.from_toml(written(tmp_path, text))
    series = fastrnn.load_series("sunspots")
    assert sweep.x.shape == (3, 101)
    np.testing.assert_array_equal(sweep.x[0], ((series - series.mean()) / series.std())[:101])


def test_toml_says_how_a_text_is_read(tmp_path):
    (tmp_path / "x.csv").write_bytes("Jahr;Wert é\n1;1,5\n2;fehlt\n3;3,5\n".encode("latin-1"))
    text = (
        'x = "x.csv"\nw2 = 0.5\ncolumn = "Wert é"\nseparator = ";"\ndecimal = ","\n'
        'header = true\nna = ["fehlt"]\nfill = "drop"\nencoding = "latin-1"'
    )
    sweep = fastrnn.Sweep.from_toml(written(tmp_path, text))
    np.testing.assert_array_equal(np.ravel(sweep.x), [1.5, 3.5])


def test_advice_in_a_job_is_for_its_keys(tmp_path):
    (tmp_path / "x.csv").write_bytes("é\n1\n2\n".encode("latin-1"))
    path = written(tmp_path, 'x = "x.csv"\nw2 = 0.5')
    with pytest.raises(ValueError, match="as encoding='latin-1' for western European text$"):
        fastrnn.Sweep.from_toml(path)


WRONG_TOML = [
    ("x = 'sunspots'\n\nw22 = 1.0", "job.toml, line 3: w22 is no key .*; did you mean 'w2'"),
    ("x = 'sunspots'\n[w2]\na = 1", "job.toml, line 2: w2 must be a number, a list, or"),
    ("x = 'sunspots'\n[[grid]]\na = 1", "job.toml, line 2: grid is no key"),
    ("x = 'sunspots'\n'w2' = true", "job.toml, line 2: w2 must be a number.*, got True"),
    ("w2 = 1\nx = 5", "job.toml, line 2: x must be the name of a series or a file, got 5"),
    ("w2 = nan\nx = 'sunspots'", "job.toml, line 1: w2 must be finite, got nan"),
    ("x = 'sunspots'\nw2 = [1, inf]", "job.toml, line 2: w2 must be finite, got inf"),
    ("x = 'sunspots'\nw2 = [1, 'a']", "job.toml, line 2: w2 must be float32 or float64"),
    ("x = 'sunspots'\nw2 = 1\nb = '1:2'", "job.toml, line 3: b must be numbers or LO:HI:N"),
    ("x = 'sunspots'\nw2 = 1\nw2 = 2", r"job.toml is not TOML: .* a value \(at line 3"),
    ("x = 'sunspots'\nw2 = ", r"job.toml is not TOML: Invalid value \(at line 2"),
    ("x = 'sunspots'", "job.toml: w2 is missing"),
    ("x = 'sunspots'\nw2 = 1\ntasks = 1.5", "job.toml, line 3: tasks must be an integer, got 1.5"),
    ("x = 'sunspots'\nw2 = 1\nkeep = 'loss'", "job.toml: y must be given for keep 'loss'"),
    ("x = 'sunspots'\nw2 = 1\nwindow = 9", "job.toml, line 3: window must come with y = 'next'"),
    ("x = 'co2'\nw2 = 1", "job.toml: the series has gaps"),
    ("x = 'job.toml'\nw2 = 1", "job.toml: job.toml, line 2"),
    ("x = 'bad.npy'\nw2 = 1", "job.toml, line 1: x must be a readable .npy array of numbers"),
    ("x = 'objects.npy'\nw2 = 1", "job.toml, line 1: x must be a readable .npy array of numbers"),
    ("x = " + "[" * 100_000, "job.toml is not TOML"),
]  # fmt: skip


BILLIONS = "x = 'sunspots'\n" + "\n".join(f"{name} = '1:2:1000000'" for name in ("w1", "w2", "b"))
NESTED = "must have no keys with dots, which a sweep has none of"
ENDLESS = [
    ("a." * 200_000 + "a = 1", NESTED),
    ("\n".join("[" + "a." * depth + f"b{depth}]" for depth in range(1400)), NESTED),
    ("1 . " * 200_000 + "1 = 1", NESTED),
    ("a = " + "{a = " * 100_000, "is not TOML: maximum recursion depth"),
    ("\n" * 1_000_000 + "w2 = true", "line 1000001: w2 must be a number"),
    (" " * 2_000_000 + "\nw2 = true", "line 2: w2 must be a number"),
    ("a" * 100_000 + " = 1", ": a{80}... is no key of a sweep"),
    ("#" * 5_000_000, "must have at most 4194304 bytes, got 5000000"),
    (BILLIONS, "tasks must be at most 1000000, got 2000000000000 for a grid of 10{18} neurons"),
    ("x = 'sunspots'\nw2 = '" + "1:2:1000000," * 999 + "1'", "line 2: w2 must have at most 10{6}"),
    ("x = 'sunspots'\nw2 = '1:2:" + "9" * 5000 + "'", "line 2: w2 must have N from 2 to"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), ENDLESS, ids=lambda text: text[:20])
def test_toml_that_would_not_end_is_refused(text, message, tmp_path):
    """In a process of 4 GB and a minute of processor time, where it would end by itself."""
    path = written(tmp_path, text)
    code = (
        "import resource, sys, fastrnn\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))\n"
        "fastrnn.Sweep.from_toml(sys.argv[1])"
    )
    pytest.importorskip("resource")
    child = [sys.executable, "-W", "error", "-c", code, str(path)]
    found = subprocess.run(child, capture_output=True, text=True)
    assert found.returncode == 1
    *_, last = found.stderr.splitlines()
    assert re.match(rf"(ValueError|TypeError): job\.toml.*{message}", last), last


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_toml_may_begin_with_a_byte_order_mark_and_have_lines_of_windows(mark, tmp_path):
    path = tmp_path / "job.toml"
    path.write_bytes(f"{mark}x = 'sunspots'\r\nw2 = [0.5,\r\n0.9]\r\n".encode())
    assert fastrnn.Sweep.from_toml(path).sizes == {"w2": 2, "sequence": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_toml_in_another_encoding_is_named(encoding, tmp_path):
    path = tmp_path / "job.toml"
    path.write_bytes("# é\nx = 'sunspots'\nw2 = 1".encode(encoding))
    with pytest.raises(ValueError, match=r"^job.toml is not TOML: it must be text in UTF-8"):
        fastrnn.Sweep.from_toml(path)


def npy(header):
    """A .npy file of a header as it stands."""
    content = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(content)) + content


HEADERS = [
    npy(
        "{'descr': " + "(" * 900 + "'<f8'" + ")" * 900 + ", 'fortran_order': False, 'shape': (1,)}"
    ),
    npy("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "[" * 900),
    npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10**9,"),
    npy("{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,)}"),
    npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"),
    npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
    npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1L, " * 100),
    npy("-" * 9000 + "1"),
    npy(" " * 100_000),
    b"\x93NUMPY\x09\x00",
    b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
    b"PK\x03\x04",
    b"",
]


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("content", HEADERS, ids=range(len(HEADERS)))
def test_a_malformed_npy_is_one_clear_error(content, name, tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / f"{name}.npy").write_bytes(content)
    text = "x = 'x.npy'\ny = 'y.npy'\nw2 = 1\nkeep = 'loss'"
    message = rf"job.toml, line \d: {name} must be a readable .npy array of numbers: {name}.npy"
    with pytest.raises(ValueError, match=message):
        fastrnn.Sweep.from_toml(written(tmp_path, text))


@pytest.mark.parametrize("name", ["job.toml", "x.npy"])
def test_a_pipe_is_refused_where_a_file_is_read(name, tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    if name == "x.npy":
        written(tmp_path, "x = 'x.npy'\nw2 = 1")
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="is no regular file") as info:
        fastrnn.Sweep.from_toml(tmp_path / "job.toml")
    assert info.value.filename == str(tmp_path / name)


@pytest.mark.parametrize(("text", "message"), WRONG_TOML, ids=lambda text: text[:40])
def test_wrong_toml_names_key_and_line(text, message, tmp_path):
    (tmp_path / "bad.npy").write_bytes(b"no array")
    np.save(tmp_path / "objects.npy", np.array([os.getcwd(), None], object), allow_pickle=True)
    with pytest.raises((ValueError, TypeError), match=message):
        fastrnn.Sweep.from_toml(written(tmp_path, text))


def test_toml_of_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        fastrnn.Sweep.from_toml(tmp_path / "nowhere.toml")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        fastrnn.Sweep.from_toml(written(tmp_path, "x = 'nowhere.csv'\nw2 = 1"))


def test_the_job_in_the_docs_is_one(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text()
    text = page.split("```toml\n")[1].split("```")[0]
    sweep = fastrnn.Sweep.from_toml(written(tmp_path, text))
    assert f"night.toml: {sweep}\n" in page
