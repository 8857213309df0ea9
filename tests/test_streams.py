"""Inputs larger than memory: the same bits, read a block of time at a time."""

import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import streams
from fastrnn.kernels.neuron_gradient import SEGMENT

T = 5 * 32 * SEGMENT + 1234
NETS = {
    "neuron": fastrnn.RNN(0.8, 0.9, 0.1),
    "two basins": fastrnn.RNN(0.3, -2.5, 0.1),
    "bank": fastrnn.RNN(0.8, np.linspace(-2, 2, 21), 0.1, w3=2.0, b3=0.5),
    "identity": fastrnn.RNN(0.8, 0.99, activation="identity"),
}


class Chunked:
    """An array of the kind of Zarr's: read by slices, and never whole."""

    chunks = (1000,)

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key):
        return self.array[key]

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("read whole")


@pytest.fixture(params=["float32", "float64"])
def x(request):
    return np.random.default_rng(2).standard_normal((2, T)).astype(request.param)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_NUMBERS", 2 * 2 * streams.SLICE)
    monkeypatch.setattr(streams, "LEAST_BYTES", 0)


def mapped(folder, name, array, mode="r"):
    np.save(folder / f"{name}.npy", array)
    return np.load(folder / f"{name}.npy", mmap_mode=mode)


def assert_same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    for name in ("w1", "w2", "b", "w3", "b3", "h0"):
        np.testing.assert_array_equal(getattr(found[1], name), getattr(expected[1], name))


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("rows", [1, 2])
def test_gradients_have_the_bits_of_those_in_memory(net, rows, x):
    x = x[0] if rows == 1 else x
    options = {
        "wrt": (*net.weight_names, "h0"),
        "h0": fastrnn.forward(net, x[..., :5], keep="last"),
    }
    inputs, targets = x[..., :-1], x[..., 1:]
    expected = fastrnn.loss_and_grad(net, inputs, targets, **options)
    assert_same(fastrnn.loss_and_grad(net, Chunked(inputs), Chunked(targets), **options), expected)
    assert_same(fastrnn.loss_and_grad(net, Chunked(inputs), targets, **options), expected)
    options |= {"per_sequence": True, "workers": 2}
    expected = fastrnn.loss_and_grad(net, inputs, targets, **options)
    assert_same(fastrnn.loss_and_grad(net, Chunked(inputs), Chunked(targets), **options), expected)


@pytest.mark.parametrize("rows", [None, 1, 40])
@pytest.mark.parametrize("outputs", [0, 2])
def test_gradients_of_layers_have_the_bits_of_those_in_memory(outputs, rows, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_NUMBERS", 1 << 12)
    rng = np.random.default_rng(4)
    inputs = 1 if rows is None else 3
    shapes = [(2, 5, inputs), (2, 5, 5), (2, 5), (2, outputs, 5), (2, outputs)]
    weights = [0.4 * rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    names = ("w1", "w2", "b", "w3", "b3")[: 5 if outputs else 3]
    net = fastrnn.RNN(**dict(zip(names, weights, strict=False)))
    of_x = (3000,) if rows is None else (rows, 1000, inputs)
    x = rng.standard_normal(of_x).astype(np.float32)
    y = rng.standard_normal((*of_x[:2], outputs or 5)).astype(np.float32)
    for each in (False, True):
        options = {"wrt": (*net.weight_names, "h0"), "per_sequence": each}
        expected = fastrnn.loss_and_grad(net, x, y, **options)
        assert streams.suit(net, Chunked(x), Chunked(y))
        assert_same(fastrnn.loss_and_grad(net, Chunked(x), Chunked(y), **options), expected)
    last = fastrnn.forward(net, Chunked(x), keep="last")
    np.testing.assert_array_equal(last, fastrnn.forward(net, x, keep="last"))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_mapped_files(mode, x, tmp_path):
    net = NETS["neuron"]
    lazy = mapped(tmp_path, "x", x, mode)
    if mode == "c":
        lazy[0, 3] = x[0, 3] = 0.5
    assert streams.suit(net, lazy[:, :-1], lazy[:, 1:])
    expected = fastrnn.loss_and_grad(net, x[:, :-1], x[:, 1:])
    assert_same(fastrnn.loss_and_grad(net, lazy[:, :-1], lazy[:, 1:]), expected)
    np.testing.assert_array_equal(
        fastrnn.forward(net, lazy, keep="last"), fastrnn.forward(net, x, keep="last")
    )
    assert lazy[0, 3] == x[0, 3]


def test_zarr_arrays(x, tmp_path):
    zarr = pytest.importorskip("zarr")
    lazy = zarr.create_array(tmp_path / "x.zarr", data=x, chunks=(1, 10_000))
    targets = zarr.create_array(tmp_path / "y.zarr", data=2 * x, chunks=(2, 7000))
    net = NETS["bank"]
    assert streams.suit(net, lazy, targets)
    assert_same(fastrnn.loss_and_grad(net, lazy, targets), fastrnn.loss_and_grad(net, x, 2 * x))
    np.testing.assert_array_equal(
        fastrnn.forward(net, lazy, keep="last"), fastrnn.forward(net, x, keep="last")
    )


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("steps", [3 * SEGMENT + 77, 5])
def test_a_diagnosis_is_that_in_memory(steps, net, rows, x, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_NUMBERS", 1)
    x = x[0, :steps] if rows == 1 else x[:, :steps]
    start = fastrnn.forward(net, x[..., :5], keep="last")
    found = fastrnn.diagnose(net, Chunked(x), h0=start)
    expected = fastrnn.diagnose(net, x, h0=start)
    kept = (steps - 1) % SEGMENT + 1
    names = ("steps", "horizon", "exponent", "exponent_stderr", "decades", "regime", "saturated")
    for name in names:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    assert (found.influence == expected.influence[..., -kept:]).all()
    assert np.all(found.influence_of_first == expected.influence_of_first)
    np.testing.assert_array_equal(found.gradient_by_lag, expected.gradient_by_lag[..., :kept])
    np.testing.assert_allclose(
        found.share_of_first, expected.share_of_first, rtol=steps * np.finfo(float).eps, atol=1e-300
    )
    # Sums of up to T terms in another order.
    bound = steps * np.finfo(np.float64).eps
    np.testing.assert_allclose(found.share, expected.share[..., -kept:], rtol=bound, atol=1e-300)
    np.testing.assert_array_equal(found.fixed_points.stable, expected.fixed_points.stable)
    np.testing.assert_allclose(found.fixed_points.h, expected.fixed_points.h, rtol=1e-6)
    if rows == 1 and not net.is_bank:
        assert found.summary().splitlines()[0] == expected.summary().splitlines()[0]
        assert f"of {steps} steps" in found.summary()


def test_targets_are_those_in_memory_whatever_their_type():
    net, x = fastrnn.RNN(np.float32(0.8), np.float32(0.9)), np.ones((2, 50), np.float32)
    for dtype in (np.int16, np.bool_, np.float64):
        y = np.arange(100).reshape(2, 50).astype(dtype)
        found = fastrnn.loss_and_grad(net, Chunked(x), y)
        expected = fastrnn.loss_and_grad(net, x, y)
        assert_same(found, expected)
        assert found[0].dtype == expected[0].dtype
    assert not streams.suit(net, Chunked(x), np.ma.masked_array(x))


def test_a_diagnosis_that_must_be_walked_exactly_is_taken_whole():
    with pytest.raises(AssertionError, match="read whole"):
        fastrnn.diagnose(NETS["neuron"], Chunked(np.array([1.0, np.inf, 1.0])))


@pytest.mark.parametrize("kind", ["neuron", "bank", "layer"])
def test_forward_over_an_iterator_of_blocks(kind, x):
    layer = fastrnn.RNN(np.ones((5, 1)), 0.3 * np.ones((5, 5)), np.arange(5.0))
    net = {**NETS, "layer": layer}[kind]
    x = x[:, :3000]
    cuts = (x[:, a:b] for a, b in [(0, 7), (7, 7), (7, 2500), (2500, 3000)])
    last = fastrnn.forward(net, cuts, keep="last")
    np.testing.assert_array_equal(last, fastrnn.forward(net, x, keep="last"))
    one = fastrnn.forward(net, iter([x[0, :10], x[0, 10:]]), keep="last")
    np.testing.assert_array_equal(one, fastrnn.forward(net, x[0], keep="last"))


def test_what_overflows_is_mended_as_in_memory():
    net = fastrnn.RNN(1.0, 1.5, activation="identity")

    class Readable(Chunked):
        def __array__(self, dtype=None, copy=None):
            return self.array

    x = np.ones(32 * SEGMENT + 100, "float32")
    expected = fastrnn.loss_and_grad(net, x, x)
    found = fastrnn.loss_and_grad(net, Readable(x), Readable(x))
    assert_same(found, expected)
    assert found[1].out_of_range == expected[1].out_of_range


@pytest.mark.parametrize(
    ("blocks", "options", "error", "message"),
    [
        ([], {"keep": "last"}, ValueError, "x must give at least one block"),
        ([0, 1], {"keep": "last"}, ValueError, r"same sequences, \(2,\) in the first, got \(1,\)"),
        ([0], {}, TypeError, "x must be an array, got an iterator of blocks"),
        ([0], {"keep": "last", "lengths": [1, 2]}, TypeError, "without lengths, scaled and out"),
    ],
)
def test_wrong_iterators_are_refused(blocks, options, error, message):
    given = [np.zeros((2, 9)), np.zeros((1, 9))]
    with pytest.raises(error, match=message):
        fastrnn.forward(NETS["neuron"], (given[i] for i in blocks), **options)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 9)),
        [1.0, 2.0],
        type("OfAnotherKind", (), {"chunks": [1, 2]})(),
        Chunked(np.zeros((2, 9), int)),
        Chunked(np.zeros((2, 0))),
        Chunked(np.zeros((2, 3, 4))),
    ],
    ids=["array", "list", "no array", "integers", "no steps", "of a layer"],
)
def test_all_else_is_taken_whole(x):
    assert not streams.is_lazy(NETS["neuron"], x)


def test_a_dask_array_of_unknown_size_gives_what_it_gives_in_memory():
    dask = pytest.importorskip("dask.array")
    x = np.random.default_rng(4).standard_normal((3, 400))
    x[0, 0] = x[0, -1] = 1.0
    columns = dask.from_array(x, chunks=(1, 100))
    columns, known = columns[:, columns[0] > 0], np.ascontiguousarray(x[:, x[0] > 0])
    assert np.isnan(columns.shape[1])
    layer = fastrnn.RNN(np.ones((2, 1)), 0.5 * np.eye(2))
    for net, lazy, array in (
        (NETS["neuron"], columns[0], known[0]),
        (NETS["neuron"], columns, known),
        (NETS["bank"], columns, known),
        (layer, columns[:, :, None], known[:, :, None]),
    ):
        last = fastrnn.forward(net, lazy, keep="last")
        np.testing.assert_array_equal(last, fastrnn.forward(net, array, keep="last"))
        found, expected = fastrnn.diagnose(net, lazy), fastrnn.diagnose(net, array)
        np.testing.assert_array_equal(found.gradient_by_lag, expected.gradient_by_lag)
        np.testing.assert_array_equal(found.exponent, expected.exponent)
    given, right = (columns, columns), (known, known)
    assert_same(*(fastrnn.loss_and_grad(NETS["neuron"], *pair) for pair in (given, right)))


def test_chunked_data_frames_and_labelled_arrays_are_read_as_their_values():
    xarray, dask = pytest.importorskip("xarray"), pytest.importorskip("dask.array")
    x = np.random.default_rng(4).standard_normal((2, T))
    lazy = xarray.DataArray(dask.from_array(x, chunks=(1, 1000)), dims=("place", "time"))
    assert streams.is_lazy(NETS["neuron"], lazy)
    expected = fastrnn.forward(NETS["neuron"], x, keep="last")
    np.testing.assert_array_equal(fastrnn.forward(NETS["neuron"], lazy, keep="last"), expected)


def test_blocks_without_numbers_in_main_memory_are_refused():
    class OnDevice(Chunked):
        def __getitem__(self, key):
            return self

        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    x = np.zeros((2, 9))
    with pytest.raises(
        TypeError, match=r"x must be an array of numbers in main memory .*\.cpu\(\)"
    ):
        fastrnn.forward(NETS["neuron"], OnDevice(x), keep="last")
    with pytest.raises(TypeError, match="y must be an array of numbers in main memory"):
        fastrnn.loss_and_grad(NETS["neuron"], Chunked(x), OnDevice(x))


def test_a_lazy_masked_array_is_refused_as_one_in_memory():
    dask = pytest.importorskip("dask.array")
    x = dask.ma.masked_greater(dask.ones((2, 9), chunks=(1, 3)), 0.5)
    with pytest.raises(TypeError, match="x must not be a masked array"):
        fastrnn.forward(NETS["neuron"], x, keep="last")


def test_many_sequences_of_a_layer_are_taken_whole():
    layer = fastrnn.RNN(np.ones((3, 1)), np.ones((3, 3)))
    for rows in (256, 257):
        x, y = Chunked(np.zeros((rows, 4))), Chunked(np.zeros((rows, 4, 3)))
        assert streams.suit(layer, x, y) == (rows == 256)


def test_a_wrong_name_is_refused_before_anything_is_read():
    x = Chunked(np.zeros((2, 9)))
    with pytest.raises(ValueError, match="wrt must be one of"):
        fastrnn.loss_and_grad(NETS["neuron"], x, x, wrt="w4")


GRADIENT = """
import sys
import numpy as np
import fastrnn

def status(name):
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith(name)]
    return int(line.split()[1]) / 1e3

x = np.load(sys.argv[1], mmap_mode="r")
loss, grad = fastrnn.loss_and_grad(fastrnn.RNN(1.0, 0.9), x[:-1], x[1:])
print(status("VmHWM"))
"""


@pytest.mark.slow
def test_a_gradient_over_1e8_steps_of_a_mapped_file_takes_less_than_200_mb(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (100_000_000,))
    x[:] = np.sin(np.arange(1000.0)).repeat(100)[np.arange(100_000)].repeat(1000)
    np.save(tmp_path / "some.npy", x[:1_000_000])
    del x
    # The first one may compile, which takes more.
    for name in ("some.npy", "x.npy"):
        command = [sys.executable, "-c", GRADIENT, str(tmp_path / name)]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert peak < 200
