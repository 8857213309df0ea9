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


LOSS = {"keep": "loss", "y": "next"}
GRADIENT = {"keep": "gradient", "y": "next"}


@pytest.mark.parametrize(
    ("x", "given", "error", "message"),
    [
        (np.zeros(3), {}, TypeError, "x must be a labelled xarray.DataArray, got ndarray"),
        (labelled().rename(time="t"), {}, ValueError, "x must have the dimension 'time', got"),
        (labelled().rename(lat="w2"), {}, ValueError, "no dimension or coordinate named w1, w2, b"),
        (labelled().rename(lat="last"), {"keep": "last"}, ValueError, "has of its own, got 'last'"),
        (labelled().rename(lat="states"), {}, ValueError, "w1, w2, b, states, which .* 'states'"),
        (labelled().rename(lat="loss"), LOSS, ValueError, "has of its own, got 'loss'"),
        (labelled().rename(name="dw2"), GRADIENT, ValueError, "has of its own, got 'dw2'"),
        (
            labelled().assign_coords(b=3.0),
            {},
            ValueError,
            "has of its own, got 'b': rename or drop",
        ),
        (
            labelled()[:0],
            {},
            ValueError,
            r"x must have steps to compute along 'time', got .*'time': 0",
        ),
        (labelled()[:1], LOSS, ValueError, "x must have steps to compute along 'time', got"),
        (labelled(), {"w2": np.nan}, ValueError, "w2 must be finite"),
        (labelled(), {"keep": "loss"}, ValueError, "y must be given for keep 'loss'"),
        (labelled(), {"every": 2, "keep": "last"}, ValueError, "every must come with"),
    ],
)
def test_wrong_input_is_refused(x, given, error, message):
    with pytest.raises(error, match=message):
        fastrnn.dataset(x, **{"w2": 0.5, **given})


X = labelled()


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (X.values, TypeError, "y must be a labelled xarray.DataArray or 'next', got ndarray"),
        ([1.0], TypeError, "y must be a labelled xarray.DataArray or 'next', got list"),
        (X.isel(time=slice(1, None)), ValueError, "y must have the labels of x, .*time"),
        (X.isel(time=slice(None, None, -1)), ValueError, "y must have the labels of x, .*time"),
        (X.assign_coords(time=X.time + 0.25), ValueError, "y must have the labels of x"),
        (X.drop_vars("time")[:39], ValueError, "y must have the labels of x, .*time"),
        (X.isel(lat=[1, 0]), ValueError, "y must have the labels of x, .*lat"),
        (X.isel(lat=[0]), ValueError, "y must have the labels of x, .*lat"),
        (X.isel(time=0), ValueError, "y must have the dimension 'time', got"),
        (X.expand_dims(level=2), ValueError, "y must have no dimensions but those of x .*'level'"),
        ("last", ValueError, "y must be one of next, got 'last'"),
    ],
    ids=range(11),
)  # fmt: skip
@pytest.mark.parametrize("lazy", [False, True])
def test_targets_with_other_labels_are_refused(y, error, message, lazy):
    x = X
    if lazy:
        pytest.importorskip("dask")
        x = X.chunk(lat=1)
    with pytest.raises(error, match=message):
        fastrnn.dataset(x, w2=W2, y=y, keep="loss")


def test_targets_are_paired_by_name_of_dimension_and_lend_no_labels():
    y = (2 * X).transpose("lon", "time", "lat").assign_coords(w2=7.0, loss=("lon", [1, 2, 3]))
    found = fastrnn.dataset(X, w2=W2, y=y, keep="loss")
    loss, _ = fastrnn.loss_and_grad(fastrnn.RNN(1.0, W2), X[:, 1, 2].values, 2 * X[:, 1, 2].values)
    np.testing.assert_array_equal(found.loss.isel(lat=1, lon=2), loss)
    np.testing.assert_array_equal(found.w2, W2)
    unlabelled = fastrnn.dataset(X, w2=W2, y=y.drop_vars(["time", "w2", "loss"]), keep="loss")
    xarray.testing.assert_identical(unlabelled, found)


@pytest.mark.parametrize("name", ["last", "loss", "states", "sequence", "keep"])
def test_a_dimension_may_have_any_name_that_the_result_leaves_free(name):
    keep = [kept for kept in ("last", "loss", "states") if kept != name]
    x = X.rename(lat=name)
    found = fastrnn.dataset(x, w2=W2, keep=keep, y="next")
    assert set(found.data_vars) == set(keep)
    whole = fastrnn.dataset(X, w2=W2, keep=keep, y="next")
    for kept in keep:
        assert name in found[kept].dims
        np.testing.assert_array_equal(found[kept], whole[kept])


@pytest.mark.parametrize("lazy", [False, True])
def test_no_sequences_give_empty_results(lazy):
    x = X.isel(lat=slice(0))
    if lazy:
        pytest.importorskip("dask")
        x = x.chunk(lon=1)
    found = fastrnn.dataset(
        x, w2=W2, keep=("states", "last", "loss", "diagnosis"), y="next", every=2
    )
    assert found.states.sizes == {"w2": 3, "time": 20, "lat": 0, "lon": 3}
    assert found.exponent.shape == found.loss.shape == (3, 0, 3)
    assert found.load().states.dtype == np.float64


def test_states_keep_all_coordinates_of_time():
    pandas = pytest.importorskip("pandas")
    seasons = xarray.DataArray(np.arange(40) % 4, dims="time")
    x = X.assign_coords(season=seasons, flux=(("time", "lat"), X.values[..., 0]))
    found = fastrnn.dataset(x, w2=W2, every=3)
    np.testing.assert_array_equal(found.season, seasons[::3])
    np.testing.assert_array_equal(found.flux, x.flux[::3])
    last = fastrnn.dataset(x, w2=W2, keep="last")
    assert "season" not in last.coords
    days = pandas.MultiIndex.from_product([range(4), range(10)], names=["year", "day"])
    stacked = X.drop_vars("time").assign_coords(
        xarray.Coordinates.from_pandas_multiindex(days, "time")
    )
    found = fastrnn.dataset(stacked, w2=W2, every=3)
    assert list(found.indexes["time"]) == list(days[::3])
