"""Sweep folders that somebody else made: nothing is executed, or touched outside of them."""

import json
import os
import pickle
import re

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")
pytest.importorskip("xarray")

from zarr.codecs import BytesCodec  # noqa: E402
from zarr.registry import register_codec  # noqa: E402

from fastrnn.batch import receipts  # noqa: E402
from fastrnn.batch.export import export  # noqa: E402
from fastrnn.batch.store import Store  # noqa: E402
from fastrnn.batch.verify import verify  # noqa: E402
from tests import sweeps  # noqa: E402


class Executed(Exception):
    pass


class Executes(BytesCodec):
    """A codec that runs code where a store asks for it."""

    @classmethod
    def from_dict(cls, data):
        raise Executed


register_codec("executes", Executes)


def small():
    return sweeps.small(keep=("last", "states"))


@pytest.fixture
def out(tmp_path):
    return small().run(tmp_path / "out")


def readers(out):
    """All that reads a folder."""
    return {
        "run": lambda: small().run(out),
        "export": lambda: export(out, "csv"),
        "open": lambda: Store.open(out),
        "verify": lambda: verify(out),
    }


def changed(path, change):
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def with_codec(meta):
    meta["codecs"] = [{"name": "executes"}, *meta["codecs"]]


def in_the_group(change):
    return lambda meta: change(meta["consolidated_metadata"]["metadata"]["last"])


CRAFTED = {
    "a codec": ("last/zarr.json", with_codec, "codecs"),
    "a codec of the grid": ("w2/zarr.json", with_codec, "codecs"),
    "a codec in the group": ("zarr.json", in_the_group(with_codec), "codecs"),
    "an index codec": (
        "last/zarr.json",
        lambda meta: meta.update(
            codecs=[
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": [1, 2, 5],
                        "codecs": [{"name": "executes"}],
                        "index_codecs": [{"name": "bytes"}],
                    },
                }
            ]
        ),
        "codecs",
    ),
    "a data type": ("last/zarr.json", lambda meta: meta.update(data_type="variable"), "data_type"),
    "a transformer": (
        "last/zarr.json",
        lambda meta: meta.update(storage_transformers=[{"name": "executes"}]),
        "storage_transformers",
    ),
    "another format": ("last/zarr.json", lambda meta: meta.update(zarr_format=2), "zarr_format 2"),
    "a group of format 2": ("zarr.json", lambda meta: meta.update(zarr_format=2), "zarr_format 2"),
    "a shape": ("last/zarr.json", lambda meta: meta.update(shape=[1 << 40, 7, 5]), "shape"),
    "a chunk": (
        "last/zarr.json",
        lambda meta: meta["chunk_grid"]["configuration"].update(chunk_shape=[1 << 40, 1, 1]),
        "chunk_grid",
    ),
    "an attribute": (
        "last/zarr.json",
        lambda meta: meta["attributes"].update(units="days since 1970-01-01"),
        "attributes",
    ),
    "attributes of the group": (
        "zarr.json",
        lambda meta: meta["attributes"].update(more={"a": [1]}),
        "attributes that are not text",
    ),
    "something more": ("last/zarr.json", lambda meta: meta.update(more=1), "more 1"),
    "an array more": (
        "zarr.json",
        lambda meta: meta["consolidated_metadata"]["metadata"].update(more={}),
        "other arrays",
    ),
    "no list of arrays": (
        "zarr.json",
        lambda meta: meta.pop("consolidated_metadata"),
        "other keys",
    ),
}


@pytest.mark.parametrize("reader", ["run", "export", "open", "verify"])
@pytest.mark.parametrize("crafted", CRAFTED)
def test_a_store_that_fastrnn_would_not_have_written_is_refused_by_name(crafted, reader, out):
    name, change, message = CRAFTED[crafted]
    changed(out / name, change)
    (out / "receipts" / "00000001.json").unlink()
    sweeps.seal(out)
    refused = rf"{re.escape(str(out / name))} is not of a store that fastrnn wrote: .*{message}"
    with pytest.raises(ValueError, match=refused):
        export(out, "csv", partial=True) if reader == "export" else readers(out)[reader]()


def test_the_crafted_codec_would_run():
    """Else the test above could not fail."""
    store = zarr.storage.MemoryStore()
    zarr.create_array(store, shape=(1,), chunks=(1,), dtype="float64", zarr_format=3)
    meta = json.loads(store._store_dict["zarr.json"].to_bytes())
    with_codec(meta)
    store._store_dict["zarr.json"] = zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(
        json.dumps(meta).encode()
    )
    with pytest.raises(Executed):
        zarr.open_array(store, mode="r")


class Touches:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("reader", ["run", "export", "open", "verify"])
@pytest.mark.parametrize("kept", [True, False], ids=["beside format 3", "alone"])
def test_zarr_format_2_with_a_pickle_is_never_read(kept, reader, out, tmp_path):
    about = {
        "zarr_format": 2, "shape": [7], "chunks": [7], "dtype": "|O", "fill_value": None,
        "order": "C", "compressor": None, "filters": [{"id": "pickle", "protocol": 4}],
    }  # fmt: skip
    mark = tmp_path / "mark"
    (out / ".zgroup").write_text('{"zarr_format": 2}')
    for name in ("w2", "last"):
        (out / name / ".zarray").write_text(json.dumps(about))
        (out / name / "0").write_bytes(pickle.dumps(Touches(mark)))
        (out / name / "c.0").write_bytes(pickle.dumps(Touches(mark)))
    if not kept:
        for path in (out / "zarr.json", *out.glob("*/zarr.json")):
            path.unlink()
    sweeps.seal(out)
    try:
        readers(out)[reader]()
    except (ValueError, OSError):
        assert reader != "run" or kept
    else:  # without its own metadata the store is made anew, its results kept
        assert reader in ("run", "verify")
        assert bool(verify(out).faults) == (reader == "verify")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["zarr.json", "last/zarr.json", "w2/c.0", "inputs/x.npy"])
def test_files_without_end_are_not_read(name, out):
    size = 1 << 50
    with (out / name).open("r+b") as file:
        try:
            file.truncate(size)
        except OSError:
            file.truncate(1 << 43)
    assert verify(out).faults == [f"{name}: damaged"]
    small().run(out)
    assert verify(out).faults == []


ABOUTS = [
    lambda about: about["description"].update(tasks=10**12),
    lambda about: about["description"].update(tasks=3),
    lambda about: about["description"].update(tasks=True),
    lambda about: about["description"].update(keep=["last", "../../etc"]),
    lambda about: about["description"].update(keep=[]),
    lambda about: about["description"].update(keep={}),
    lambda about: about["description"].update(activation=["tanh"]),
    lambda about: about["description"].update(every=0),
    lambda about: about["description"].update(x=None),
    lambda about: about["description"]["x"].update(shape=[5]),
    lambda about: about["description"]["x"].update(shape=[5, 1]),
    lambda about: about["description"]["w2"].update(dtype="O"),
    lambda about: about["description"].update(more=1),
    lambda about: about.update(description=[]),
    lambda about: about["files"].update({"../../x": "00"}),
    lambda about: about["files"].pop("zarr.json"),
    lambda about: about["files"].update({"zarr.json": "../x"}),
    lambda about: about.update(files=[]),
]


@pytest.mark.parametrize("change", ABOUTS, ids=range(len(ABOUTS)))
def test_a_description_that_no_sweep_has_is_damage(change, out):
    path = out / "receipts" / "sweep.json"
    about = json.loads(path.read_bytes())
    del about["hash"]
    change(about)
    about["sweep"] = receipts.identity_of(about["description"])
    path.write_bytes(receipts._sealed(about))
    assert verify(out) == (0, 0, ["receipts/sweep.json: missing or damaged"])
    with pytest.raises(FileNotFoundError, match="holds no sweep"):
        Store.open(out)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b"\xff", b"[]", b"1", b""]
)
@pytest.mark.parametrize("name", ["sweep.json", "00000002.json"])
def test_a_receipt_that_is_no_json_is_damage(name, content, out):
    (out / "receipts" / name).write_bytes(content)
    (fault,) = verify(out).faults
    assert fault.startswith(f"receipts/{name}: ")
    assert fault.endswith("damaged")


def outside(out):
    folder = out.parent / "outside"
    folder.mkdir()
    for name in ("c.0.0.0", "00000000.json", "guard", "x.npy", "1-of-1.lock", "zarr.json"):
        (folder / name).write_text("of somebody else")
    return folder


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["inputs", "last", "computed", "w2", "receipts", "zarr.json"])
def test_a_link_in_a_sweeps_folder_is_refused_and_nothing_outside_touched(name, force, out):
    target = outside(out)
    if name == "zarr.json":
        target = target / "zarr.json"
        (out / name).unlink()
    else:
        (out / name).rename(out.parent / "moved")
    (out / name).symlink_to(target)
    before = sweeps.content(out.parent / "outside")
    run = [
        lambda: small().run(out, force=force),
        lambda: sweeps.small(b=0.5).run(out, force=force),
        lambda: verify(out),
        lambda: export(out, "csv"),
    ]
    for call in run:
        with pytest.raises(OSError, match="is a symbolic link") as info:
            call()
        assert info.value.filename == str(out / name)
    assert sweeps.content(out.parent / "outside") == before


@pytest.mark.parametrize("name", ["last/c.0.0.0", "receipts/00000000.json", "inputs/x.npy"])
def test_a_file_that_is_a_link_is_damage_and_replaced(name, out):
    target = out.parent / "elsewhere"
    (out / name).rename(target)
    content = target.read_bytes()
    (out / name).symlink_to(target)
    assert verify(out).faults == [f"{name}: damaged"]
    small().run(out)
    assert verify(out).faults == []
    assert not (out / name).is_symlink()
    assert target.read_bytes() == content


@pytest.mark.parametrize("name", ["guard", "1-of-1.lock"])
def test_a_lock_that_is_a_link_is_refused(name, out):
    path = out / "receipts" / name
    path.unlink(missing_ok=True)
    target = out.parent / "elsewhere"
    target.write_text("of somebody else")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic link|symlink") as info:
        small().run(out)
    assert str(info.value.filename) == str(path)
    assert target.read_text() == "of somebody else"


@pytest.mark.parametrize(
    "name", ["last/c.0.0.0", "receipts/00000000.json", "w2/c.0", "zarr.json", "receipts/sweep.json"]
)
def test_a_pipe_in_a_sweeps_folder_is_damage_and_does_not_hang(name, out):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    (out / name).unlink()
    os.mkfifo(out / name)
    (fault,) = verify(out).faults
    assert fault.startswith(f"{name}: ")
    small().run(out)
    assert verify(out).faults == []


OTHER_FILES = [
    ["../../outside"],
    ["/etc/passwd"],
    ["/dev/zero"],
    ["last/c.0.1.0"],
    ["last/c.0.0.0", "last/c.0.0.0/../../../x"],
    [],
]


@pytest.mark.parametrize("names", OTHER_FILES, ids=str)
def test_a_receipt_that_names_other_files_is_damage_and_reads_none(names, out, monkeypatch):
    path = out / "receipts" / "00000000.json"
    receipt = json.loads(path.read_bytes())
    del receipt["hash"]
    receipt["files"] = dict.fromkeys(names, "00")
    path.write_bytes(receipts._sealed(receipt))
    assert verify(out).faults == ["receipts/00000000.json: damaged"]


def test_a_mapped_input_is_as_the_description_says(out):
    path = out / "inputs" / "x.npy"
    np.save(path, np.zeros((5, 59)))
    sweeps.seal(out)
    with pytest.raises(OSError, match="is damaged") as info:
        Store.open(out)
    assert info.value.filename == str(path)
