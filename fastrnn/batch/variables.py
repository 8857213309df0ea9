"""What a sweep may store, as it is named in the store."""

from __future__ import annotations

from typing import NamedTuple

# Which points of the grid are computed: there NaN is a result, elsewhere it stands for none.
COMPUTED = "computed"
KEEP = ("last", "states", "loss", "gradient", "diagnosis")


class Variable(NamedTuple):
    """An array of the store, with the axes of the grid, of sequences and maybe of time."""

    name: str
    keep: str
    """What the user asks for to have it."""
    long_name: str
    over_time: bool = False
    float64: bool = False
    """Whether it is float64 whatever the sweep computes in."""


VARIABLES = (
    Variable("last", "last", "last state h_T"),
    Variable("states", "states", "state h_t", over_time=True),
    Variable("loss", "loss", "mean squared error of the prediction h_t"),
    Variable("dw1", "gradient", "derivative of the mean squared error by w1"),
    Variable("dw2", "gradient", "derivative of the mean squared error by w2"),
    Variable("db", "gradient", "derivative of the mean squared error by b"),
    Variable("influence_log10", "diagnosis", "log10 of |dh_T/dx_1|", float64=True),
    Variable("influence_sign", "diagnosis", "sign of dh_T/dx_1", float64=True),
    Variable("horizon", "diagnosis", "first lag with less than 1/1000 influence", float64=True),
    Variable("exponent", "diagnosis", "mean log growth of the gradient a step", float64=True),
    Variable("decades", "diagnosis", "log10 of |dh_T/dx_1| / |dh_T/dx_T|", float64=True),
    Variable("saturated", "diagnosis", "share of steps in saturation", float64=True),
)
