"""phase_diagram: where on a plane of weights a neuron forgets, and where its gradient explodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.checks import choice, float_array, integer, require_finite
from fastrnn.kernels import ACTIVATIONS
from fastrnn.phases import PARAMETERS, PhaseDiagram, phases_of

# Halvings of the distance between neighbours, by default.
REFINE = 10


def phase_diagram(
    x: ArrayLike,
    *,
    w1: ArrayLike = 1.0,
    w2: ArrayLike = 1.0,
    b: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    activation: str = "tanh",
    refine: SupportsIndex = REFINE,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> PhaseDiagram:
    r"""Regime, exponent and memory horizon of a scalar neuron over any two of its parameters.

    .. math:: h_t = f(W_1\, s\, x_t + W_2\, h_{t-1} + b)

    Parameters
    ----------
    x : array_like, shape (T,) or (B, T)
        Sequences that drive the neuron from the state 0.
    w1, w2, b, scale : float or array_like, shape (N,)
        Weights, and the scale s of the input. Two of them are arrays: the axes of the plane.
    activation : {"tanh", "relu", "sigmoid", "identity"}
    refine : int, default 10
        Along the boundary of two regimes, halvings of the distance of neighbouring points.
    workers : int, optional
        Threads; see `set_workers`.
    progress : callable, optional
        Called with the number of points done, and of all.

    Returns
    -------
    PhaseDiagram
        ``.regime``, ``.exponent`` and ``.horizon`` at all points, ``.boundary`` between regimes,
        ``.plot()`` a picture, ``.to_columns()`` a table for pandas or polars.

    Raises
    ------
    ValueError, TypeError
        If not just two of the parameters are arrays (N,), if one is not finite, or if x has no
        steps, is not finite, or has another shape.

    Notes
    -----
    All points are computed, none is interpolated; the boundary is known to 2**-refine of the
    distance of neighbouring points. What is measured is that of `diagnose`, which tells it of
    each input; here nothing is stored but the results.

    Examples
    --------
    >>> import fastrnn
    >>> plane = fastrnn.phase_diagram([1.0] * 100, w2=[0.5, 2.0], b=[0.0, 1.0], activation="relu")
    >>> plane.axes, plane.regime
    (('b', 'w2'), array([['vanishing', 'exploding'],
           ['vanishing', 'exploding']], dtype='<U9'))
    >>> plane.boundary[:, 1].round(1)
    array([1., 1.])
    """
    choice("activation", activation, tuple(ACTIVATIONS))
    series = float_array("x", x)
    if series.ndim not in (1, 2) or series.shape[-1] == 0 or series.shape[0] == 0:
        raise ValueError(f"x must have shape (T,) or (B, T) with some steps, got {series.shape}")
    require_finite("x", series)
    given = {"w1": w1, "w2": w2, "b": b, "scale": scale}
    parameters = {name: float_array(name, given[name]).astype(float) for name in PARAMETERS}
    for name, value in parameters.items():
        require_finite(name, value)
        if value.ndim > 1 or value.size == 0:
            raise ValueError(f"{name} must be a number or have shape (N,), got {value.shape}")
    varied = [name for name in given if parameters[name].ndim]
    if len(varied) != 2:
        names = ", ".join(varied) or "none"
        raise ValueError(f"two of w1, w2, b, scale must have shape (N,), got {names}")
    with np.errstate(over="ignore"):
        require_finite("scale * w1", np.multiply.outer(parameters["scale"], parameters["w1"]))
    halvings = integer("refine", refine, 0)
    return phases_of(
        np.atleast_2d(series),
        parameters,
        activation=activation,
        refine=halvings,
        workers=workers,
        progress=progress or (lambda done, total: None),
    )
