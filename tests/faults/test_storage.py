"""Rows 64 and 66: files made to do harm, and places of any name."""

import os
import pickle

import numpy as np
import pytest

pytest.importorskip("zarr")

import fastrnn
from fastrnn.batch.verify import verify
from tests import sweeps
from tests.faults import child


class Harm:
    """What runs a program when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_64_numbers_that_are_pickled_objects_are_refused_and_not_run(tmp_path):
    harm = tmp_path / "harm"
    np.save(tmp_path / "objects.npy", np.array([Harm(harm)], object))
    (tmp_path / "objects.pkl").write_bytes(pickle.dumps(Harm(harm)))
    np.savez(tmp_path / "objects.npz", x=np.array([Harm(harm)], object))
    for name in ("objects.npy", "objects.pkl", "objects.npz"):
        with pytest.raises(ValueError, match=name):
            fastrnn.load_series(tmp_path / name)
    assert not harm.exists()


@pytest.mark.parametrize("shape", ["(10**20,)", "(1,) * 10**9", "(" * 1000, "(-1,)"])
def test_64_a_header_that_lies_about_its_size_is_refused(shape, tmp_path):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(80)
    (tmp_path / "x.npy").write_bytes(content)
    (tmp_path / "job.toml").write_text('x = "x.npy"\nw2 = 0.5\n')
    for read in (
        lambda: fastrnn.load_series(tmp_path / "x.npy"),
        lambda: fastrnn.Sweep.from_toml(tmp_path / "job.toml"),
    ):
        with pytest.raises(ValueError, match="npy"):
            read()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a." * 3_000_000 + "b = 1", "x = 1\n" * 1_000_000], ids=len
)
def test_64_a_job_of_any_text_ends_in_one_error(text, tmp_path):
    (tmp_path / "job.toml").write_text(text)
    code = "import fastrnn, resource\n"
    code += "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
    code += "try:\n    fastrnn.Sweep.from_toml('job.toml')\n"
    code += "except (ValueError, OSError) as error:\n    print('job.toml' in str(error))\n"
    assert child.run(code, cwd=tmp_path) == "True\n"


@pytest.mark.parametrize("name", ["a b", "Ünïcödé ✓", "x" * 200, "-dash", "100%"])
def test_66_a_sweep_lives_in_a_folder_of_any_name(name, tmp_path):
    sweep = sweeps.small(tasks=2, every=1, keep="last")
    sweep.run(tmp_path / name)
    found = verify(tmp_path / name)
    assert (found.faults, found.not_computed) == ([], 0)


@pytest.mark.skipif(os.name != "posix", reason="links need rights here")
def test_66_a_folder_may_be_reached_by_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    sweeps.small(tasks=2, every=1, keep="last").run(tmp_path / "link")
    assert verify(tmp_path / "real").faults == []


def test_66_a_clock_that_jumps_loses_nothing(tmp_path, monkeypatch):
    sweep = sweeps.small(tasks=4, every=1, keep="last")
    jumps = iter([1e9, 5e9, -1e9, 0.0] * 10_000)
    real = __import__("time").time
    monkeypatch.setattr("time.time", lambda: real() + next(jumps))
    sweep.run(tmp_path / "out")
    assert verify(tmp_path / "out").not_computed == 0
