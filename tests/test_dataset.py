"""dataset: labelled arrays in, labelled Datasets out."""

import numpy as np
import pytest

import fastrnn

xarray = pytest.importorskip("xarray")

W2 = np.array([0.5, -2.0, 0.9])
RNG = np.random.default_rng(5)


def labelled(dtype="float64"):
    return xarray.DataArray(
        RNG.standard_normal((40, 2, 3)).astype(dtype),
        {"time": np.arange(40) * 0.25, "lat": [10.0, 20.0], "name": ("lon", list("abc"))},
        ("time", "lat", "lon"),
        name="level",
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_go_through(dtype):
    x = labelled(dtype)
    found = fastrnn.dataset(x, w2=W2, b=0.1, keep=("states", "last", "diagnosis"), every=4)
    assert found.states.dims == ("w2", "time", "lat", "lon")
    assert found["last"].dims == ("w2", "lat", "lon")
    np.testing.assert_array_equal(found.w2, W2.astype(dtype))
    np.testing.assert_array_equal(found.time, x.time[::4])
    assert list(found.name.values) == list("abc")
    assert float(found.b) == np.dtype(dtype).type(0.1)
    assert found["last"].attrs == {"long_name": "last state h_T", "units": "1"}
    assert found.w2.attrs["long_name"] == "feedback weight"
    assert {"cpu", "versions", "title"} <= set(found.attrs)
    net = fastrnn.RNN(1.0, W2.astype(dtype), np.full(3, 0.1, dtype))
    one = fastrnn.forward(net, x.sel(lat=20.0).isel(lon=2).values)
    point = found.sel(lat=20.0).isel(lon=2)
    assert point.states.dtype == dtype
    np.testing.assert_array_equal(point.states, one[:, ::4])
    np.testing.assert_array_equal(point["last"], one[:, -1])
    exponent = fastrnn.diagnose(net, x.sel(lat=20.0).isel(lon=2).values).exponent
    np.testing.assert_array_equal(point.exponent, exponent)


def test_one_net_over_one_sequence():
    x = xarray.DataArray([1.0, 0.0, 0.0], dims="step")
    found = fastrnn.dataset(x, w2=0.5, activation="identity", dim="step")
    assert found.states.dims == ("step",)
    assert "step" not in found.coords
    np.testing.assert_array_equal(found.states, [1.0, 0.5, 0.25])
    assert float(fastrnn.dataset(x, w2=0.5, keep="loss", y="next", dim="step").loss) > 0


@pytest.mark.parametrize("own", [False, True])
def test_targets(own):
    x = labelled().transpose("lon", "time", "lat")
    y = 2 * x.isel(lon=0, drop=True) if own else "next"
    found = fastrnn.dataset(x, w2=W2, keep=("loss", "gradient"), y=y)
    assert found.loss.dims == ("w2", "lon", "lat")
    row = x.isel(lon=1, lat=1).values
    inputs, targets = (row, 2 * x.isel(lon=0, lat=1).values) if own else (row[:-1], row[1:])
    loss, grad = fastrnn.loss_and_grad(fastrnn.RNN(1.0, W2), inputs, targets)
    np.testing.assert_array_equal(found.loss.isel(lon=1, lat=1), loss)
    np.testing.assert_array_equal(found.dw2.isel(lon=1, lat=1), grad.w2)


def test_dask_stays_lazy_and_gives_the_same_bits():
    dask = pytest.importorskip("dask.array")
    x = labelled()
    options = {"w2": W2, "w1": [0.5, 1.0], "keep": ("last", "states", "loss"), "y": "next"}
    whole = fastrnn.dataset(x, every=3, **options)

    def untouched(block):
        raise AssertionError("computed before it was asked for")

    fastrnn.dataset(
        x.copy(data=x.chunk({"lon": 1}).data.map_blocks(untouched, dtype=float, meta=np.empty(0))),
        **options,
    )
    chunks = {"lat": 1, "lon": 2, "time": 11}
    lazy = fastrnn.dataset(x.chunk(chunks), every=3, **options)
    assert all(isinstance(values.data, dask.Array) for values in lazy.data_vars.values())
    xarray.testing.assert_identical(lazy.compute(scheduler="threads"), whole)


@pytest.mark.parametrize(
    ("x", "given", "error", "message"),
    [
        (np.zeros(3), {}, TypeError, "x must be a labelled xarray.DataArray, got ndarray"),
        (labelled().rename(time="t"), {}, ValueError, "x must have the dimension 'time' and none"),
        (labelled().rename(lat="w2"), {}, ValueError, "none named w1, w2, b"),
        (labelled(), {"w2": np.nan}, ValueError, "w2 must be finite"),
        (labelled(), {"keep": "loss"}, ValueError, "y must be given for keep 'loss'"),
        (labelled(), {"every": 2, "keep": "last"}, ValueError, "every must come with"),
    ],
)
def test_wrong_input_is_refused(x, given, error, message):
    with pytest.raises(error, match=message):
        fastrnn.dataset(x, **{"w2": 0.5, **given})
