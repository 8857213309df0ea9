"""dataset: a grid of neurons over a labelled array, as a labelled Dataset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

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
    dtype: DTypeLike | None = None,
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
    y : xarray.DataArray, or "next", optional
        Targets of the loss, as of `Sweep`. Its dimensions are ``dim`` and any of x, and its labels
        those of x in the same order: nothing is paired by position that is labelled otherwise.
    dim : str
        Dimension of time.

    Returns
    -------
    xarray.Dataset
        The variables of ``keep``, named as in the store of a `Sweep`, with its coordinates and
        those of x, which along ``dim`` only states have. Dimensions are those of the weights that
        are arrays, then those of x. Attributes tell units, and versions and processor.

    Raises
    ------
    ModuleNotFoundError
        If xarray is not installed (``fastrnn[sweep]``).
    ValueError, TypeError
        As `Sweep`; also if x or y has no dimension ``dim``, y has other labels than x, or x a
        dimension or coordinate that is named as a weight or a result.

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

    _require_dimension("x", x, dim)
    if y is not None and not isinstance(y, str):
        y = _matched(y, x, dim)
    if x.sizes[dim] < (2 if isinstance(y, str) else 1):
        raise ValueError(f"x must have steps to compute along {dim!r}, got {dict(x.sizes)}")
    options: dict[str, Any] = {"activation": activation, "keep": keep, "every": every}
    options |= {"w2": w2, "w1": w1, "b": b, "dtype": dtype, "tasks": 1}
    arrays = [x] if y is None or isinstance(y, str) else [x, y]

    def sweep_of(rows: FloatArray, *targets: FloatArray) -> Sweep:
        flat = [
            np.broadcast_to(array, rows.shape).reshape(-1, rows.shape[-1])
            for array in (rows, *targets)
        ]
        return Sweep(flat[0], y=flat[1] if targets else y, **options)

    # The description, checked on one sequence of zeros before anything is computed.
    sweep = sweep_of(
        *[np.broadcast_to(np.zeros((), array.dtype), (1, x.sizes[dim])) for array in arrays]
    )
    _require_names(x, [*WEIGHTS, *(variable.name for variable in sweep.variables)])
    nets = tuple(sweep.sizes.values())[:-1]
    none = [
        np.empty((*nets, 0, len(sweep.times))[: None if v.over_time else -1], sweep.type_of(v))
        for v in sweep.variables
    ]

    def compute(rows: FloatArray, *targets: FloatArray) -> Any:
        part = sweep_of(rows, *targets) if rows.size else None
        values = none if part is None else results(part, part.tasks[0]).values()
        found = [
            np.moveaxis(value, len(nets), 0).reshape(
                rows.shape[:-1] + nets + value.shape[len(nets) + 1 :]
            )
            for value in values
        ]
        return tuple(found) if len(found) > 1 else found[0]

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
        output_dtypes=[sweep.type_of(v) for v in sweep.variables],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": sizes},
    )
    found = found if isinstance(found, tuple) else (found,)
    return _labelled(sweep, found, x, dim)


def _require_dimension(name: str, array: object, dim: str) -> None:
    import xarray

    if not isinstance(array, xarray.DataArray):
        other = "" if name == "x" else " or 'next'"
        what = f"{name} must be a labelled xarray.DataArray{other}, got {type(array).__name__}"
        raise TypeError(what)
    if dim not in array.dims:
        raise ValueError(f"{name} must have the dimension {dim!r}, got {array.dims}")


def _require_names(x: xarray.DataArray, names: list[str]) -> None:
    """No name of x is one of the result's own."""
    taken = [str(name) for name in (*x.dims, *x.coords) if name in names]
    if taken:
        raise ValueError(
            f"x must have no dimension or coordinate named {', '.join(names)}, which the result "
            f"has of its own, got {taken[0]!r}: rename or drop it"
        )


def _matched(y: object, x: xarray.DataArray, dim: str) -> xarray.DataArray:
    """y without labels, if they are those of x in every dimension."""
    import xarray

    _require_dimension("y", y, dim)
    assert isinstance(y, xarray.DataArray)
    if more := set(y.dims) - set(x.dims):
        raise ValueError(
            f"y must have no dimensions but those of x {x.dims}, got {sorted(map(str, more))[0]!r}"
        )
    try:
        xarray.align(x, y, join="exact", copy=False)
    except ValueError as error:
        raise ValueError(
            "y must have the labels of x, in their order, in every dimension (see xarray.align "
            f"and reindex_like): {error}"
        ) from None
    return xarray.DataArray(y.variable)


def _labelled(
    sweep: Sweep, found: tuple[xarray.DataArray, ...], x: xarray.DataArray, dim: str
) -> xarray.Dataset:
    import xarray

    data = xarray.Dataset({v.name: a for v, a in zip(sweep.variables, found, strict=True)})
    coordinates: dict[str, Any] = {
        name: ((name,) if name in sweep.sizes else (), getattr(sweep, name), labels(name))
        for name in WEIGHTS
    }
    for name, array in data.data_vars.items():
        array.attrs = labels(str(name))
    if "states" in sweep.keep:
        stored = x.isel({dim: slice(0, sweep.steps, sweep.every)})
        data = data.assign_coords(stored.coords)
    data = data.assign_coords(coordinates).assign_attrs(provenance(sweep))
    return data.transpose(
        *[name for name in WEIGHTS if name in sweep.sizes], *x.dims, missing_dims="ignore"
    )
