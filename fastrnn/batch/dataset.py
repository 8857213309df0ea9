"""dataset: a grid of neurons over a labelled array, as a labelled Dataset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.batch.compute import results
from fastrnn.batch.extra import sweep_extra
from fastrnn.batch.labels import labels, provenance
from fastrnn.batch.sweep import WEIGHTS, Sweep
from fastrnn.checks import FloatArray

if TYPE_CHECKING:
    import xarray


def dataset(
    x: xarray.DataArray,
    *,
    w2: ArrayLike,
    w1: ArrayLike = 1.0,
    b: ArrayLike = 0.0,
    activation: str = "tanh",
    y: xarray.DataArray | Literal["next"] | None = None,
    keep: Iterable[str] | str = "states",
    every: int = 1,
    dtype: str | None = None,
    dim: str = "time",
) -> xarray.Dataset:
    r"""Run a grid of scalar neurons over a labelled array.

    .. math:: h_t = f(w_1 x_t + w_2 h_{t-1} + b), \qquad t = 1 \dots T

    Parameters
    ----------
    x : xarray.DataArray
        Sequences along the dimension ``dim``, any other dimensions beside it. Where it is a
        Dask array, so is the result: blocks of sequences are computed when they are asked for.
    w1, w2, b, activation, keep, every, dtype
        As of `Sweep`.
    y : xarray.DataArray with the dimensions of x, or "next", optional
        Targets of the loss, as of `Sweep`.
    dim : str
        Dimension of time.

    Returns
    -------
    xarray.Dataset
        The variables of ``keep``, named as in the store of a `Sweep`, with its coordinates and
        those of x. Dimensions are those of the weights that are arrays, then those of x; only
        states have ``dim``. Attributes tell units, and versions and processor.

    Raises
    ------
    ModuleNotFoundError
        If xarray is not installed (``fastrnn[sweep]``).
    ValueError, TypeError
        As `Sweep`; also if x has no dimension ``dim``, or one that is named as a weight.

    Examples
    --------
    >>> import fastrnn
    >>> import xarray
    >>> x = xarray.DataArray([[1.0, 0.0, 0.0]], {"site": ["Uccle"]}, ("site", "time"))
    >>> found = fastrnn.dataset(x, w2=[0.5, 2.0], activation="identity")
    >>> found.states.sel(site="Uccle", w2=2.0).values
    array([1., 2., 4.])
    """
    with sweep_extra():
        import xarray

    if not isinstance(x, xarray.DataArray):
        raise TypeError(f"x must be a labelled xarray.DataArray, got {type(x).__name__}")
    if dim not in x.dims or set(x.dims) & set(WEIGHTS):
        raise ValueError(
            f"x must have the dimension {dim!r} and none named {', '.join(WEIGHTS)}, got {x.dims}"
        )
    options: dict[str, Any] = {"activation": activation, "keep": keep, "every": every}
    options |= {"w2": w2, "w1": w1, "b": b, "dtype": dtype, "tasks": 1}
    arrays = [x] if y is None or isinstance(y, str) else [x, y]

    def sweep_of(rows: FloatArray, *targets: FloatArray) -> Sweep:
        flat = [
            np.broadcast_to(array, rows.shape).reshape(-1, rows.shape[-1])
            for array in (rows, *targets)
        ]
        return Sweep(flat[0], y=flat[1] if targets else y, **options)

    def compute(rows: FloatArray, *targets: FloatArray) -> Any:
        sweep = sweep_of(rows, *targets)
        nets = tuple(sweep.sizes.values())[:-1]
        found = [
            np.moveaxis(values, len(nets), 0).reshape(
                rows.shape[:-1] + nets + values.shape[len(nets) + 1 :]
            )
            for values in results(sweep, sweep.tasks[0]).values()
        ]
        return tuple(found) if len(found) > 1 else found[0]

    # The description, checked on one sequence of zeros before anything is computed.
    zeros = np.zeros((1, x.sizes[dim]), x.dtype)
    sweep = sweep_of(*[zeros for _ in arrays])
    grid = [name for name in sweep.sizes if name in WEIGHTS]
    sizes = {name: sweep.sizes[name] for name in grid}
    if "states" in sweep.keep:
        sizes[dim] = len(sweep.times)
    found = xarray.apply_ufunc(
        compute,
        *[array.chunk({dim: -1}) if array.chunks else array for array in arrays],
        input_core_dims=[[dim] for _ in arrays],
        exclude_dims={dim},
        output_core_dims=[[*grid, dim] if v.over_time else grid for v in sweep.variables],
        output_dtypes=[np.float64 if v.float64 else sweep.dtype for v in sweep.variables],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": sizes},
    )
    found = found if isinstance(found, tuple) else (found,)
    return _labelled(sweep, found, x, dim)


def _labelled(
    sweep: Sweep, found: tuple[xarray.DataArray, ...], x: xarray.DataArray, dim: str
) -> xarray.Dataset:
    import xarray

    data = xarray.Dataset({v.name: a for v, a in zip(sweep.variables, found, strict=True)})
    coordinates: dict[str, Any] = {
        name: ((name,) if name in sweep.sizes else (), getattr(sweep, name), labels(name))
        for name in WEIGHTS
    }
    if "states" in sweep.keep and dim in x.coords:
        coordinates[dim] = x[dim].isel({dim: slice(0, sweep.steps, sweep.every)})
    for name, array in data.data_vars.items():
        array.attrs = labels(str(name))
    data = data.assign_coords(coordinates).assign_attrs(provenance(sweep))
    return data.transpose(
        *[name for name in WEIGHTS if name in sweep.sizes], *x.dims, missing_dims="ignore"
    )
