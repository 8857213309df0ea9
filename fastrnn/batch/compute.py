"""The results of one task: a pure function of the sweep's description."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn.batch.sweep import WEIGHTS, Sweep
from fastrnn.batch.tasks import Task, blocks
from fastrnn.checks import FloatArray
from fastrnn.rnn import RNN
from fastrnn.verbs.diagnose import diagnose
from fastrnn.verbs.forward import forward
from fastrnn.verbs.loss_and_grad import loss_and_grad_of_each

# Steps times lanes between two looks at whether to stop: 0.05 to 0.3 s, beside which a net and what
# is said of it cost little (0.02 to 0.1 s: 1 % of the time). Where states of all steps
# are held, it bounds memory: 20 MB, and 100 MB for a diagnosis.
BLOCK_STEPS = 1 << 26
BLOCK_STATES = 1 << 21


class Stopped(Exception):
    """The task was given up half-way, because the run ends."""


def results(
    sweep: Sweep, task: Task, stopped: Callable[[], bool] = lambda: False
) -> dict[str, FloatArray]:
    """Every variable's values in the task's box, with an axis more where it has time."""
    nets = _nets(sweep, task)
    rows = task.box[-1]
    count, width = len(nets["w2"]), rows.stop - rows.start
    found: dict[str, Any] = {
        variable.name: np.empty(
            (count, width, *([len(sweep.times)] if variable.over_time else [])),
            sweep.type_of(variable),
        )
        for variable in sweep.variables
    }
    heavy = {"states", "diagnosis"} & set(sweep.keep)
    limit = BLOCK_STATES if heavy else BLOCK_STEPS
    for part, across in blocks(count, width, sweep.steps, limit):
        if stopped():
            raise Stopped
        weights = {name: values[part] for name, values in nets.items()}
        net = RNN(**weights, activation=sweep.activation)
        own = slice(rows.start + across.start, rows.start + across.stop)
        for name, values in _block(sweep, net, own).items():
            if name in found:
                found[name][part, across] = values
    return {name: values.reshape(*task.shape, *values.shape[2:]) for name, values in found.items()}


def _nets(sweep: Sweep, task: Task) -> dict[str, FloatArray]:
    """Weights of the box's neurons, each (K,), the last axis of the grid running fastest."""
    boxes = dict(zip(sweep.sizes, task.box, strict=True))
    weights = [np.atleast_1d(getattr(sweep, name)[boxes.get(name, ...)]) for name in WEIGHTS]
    grid = np.meshgrid(*weights, indexing="ij")
    return {name: values.ravel() for name, values in zip(WEIGHTS, grid, strict=True)}


def _block(sweep: Sweep, net: RNN, rows: slice) -> dict[str, Any]:
    """Values of some neurons (K,) over some sequences (B,), each (K, B) or (K, B, times)."""
    x, keep = sweep.inputs(rows), set(sweep.keep)
    found: dict[str, Any] = {}
    if "states" in keep:
        states = forward(net, x)
        found |= {"states": states[..., :: sweep.every], "last": states[..., -1]}
    elif "last" in keep:
        found["last"] = forward(net, x, keep="last")
    if keep & {"loss", "gradient"}:
        loss, gradient = loss_and_grad_of_each(net, x, sweep.targets(rows))
        found |= {"loss": loss, "dw1": gradient.w1, "dw2": gradient.w2, "db": gradient.b}
    if "diagnosis" in keep:
        diagnosis = diagnose(net, x)
        first = diagnosis.influence_of_first
        found |= {"influence_log10": first.log10(), "influence_sign": first.sign}
        names = ("horizon", "exponent", "decades", "saturated")
        found |= {name: getattr(diagnosis, name) for name in names}
    return found


def steps_of(sweep: Sweep, task: Task) -> int:
    """Neuron-steps of a task."""
    return math.prod(task.shape) * sweep.steps
