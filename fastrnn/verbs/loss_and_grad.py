"""loss_and_grad: loss of the predictions and its gradients, in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import gradients, streams, truncated
from fastrnn.calls import verb
from fastrnn.checks import (
    FloatArray,
    choice,
    flag,
    positive,
    sequence_array,
    wanted_fields,
)
from fastrnn.gradient import Gradient, collect
from fastrnn.gradients import Found
from fastrnn.memory import byte_budget
from fastrnn.rnn import RNN, require_net
from fastrnn.sequences import sequences


@verb
def loss_and_grad(
    net: RNN,
    x: ArrayLike,
    y: ArrayLike,
    *,
    loss: Literal["mse"] = "mse",
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    wrt: Iterable[str] | str | None = None,
    per_sequence: bool = False,
    scaled: bool = False,
    truncate: int | None = None,
    workers: int | None = None,
    memory: int | None = None,
) -> tuple[Any, Gradient]:
    r"""Loss of the predictions, and its gradients, in one pass that stores no trajectory.

    .. math:: L = \frac{1}{N} \sum_{b,t,o} (\hat y_{bto} - y_{bto})^2

    with N the number of predictions within the sequences' lengths.

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x : array_like, shape (T,), (B, T), or (B, T, F) for a layer
        B sequences of T steps. A large `numpy.memmap` and a chunked array (Zarr, HDF5, Dask) are
        read block by block, twice; of layers, where B is at most 256. A Dask array of unknown
        size is taken into memory.
    y : array_like, shape of the predictions
        Target; its bank axis may be missing.
    loss : {"mse"}
        Mean squared error.
    h0 : array_like, shape of the last state, with or without its bank axis, default 0
        State before the first step.
    lengths : array_like of int, shape (B,), optional
        Steps of each sequence where they differ.
    wrt : iterable of {"w1", "w2", "b", "w3", "b3", "x", "h0"}, default the weights
        The gradients wanted.
    per_sequence : bool
        Keep the batch axis of the loss and of the weights' gradients instead of summing over
        it: each sequence's share of the whole.
    scaled : bool
        Return the loss and every gradient as `Scaled`, with all its digits where floats would
        be 0, inf or NaN. Of neurons it takes as long as plain floats, of layers up to 2 times as
        long, and about 1 us a step and hidden unit where states leave the range of floats.
    truncate : int, optional
        Steps k of truncated back-propagation: in each window of k steps, the state it starts
        from is taken as given. What gradients lose by that, `fastrnn.testing.truncation_error`
        tells.
    workers : int, optional
        Threads; see `set_workers`.
    memory : int, optional
        Bytes of working memory, beside inputs and results; by default some MB a thread. A
        smaller budget costs time, and changes no bit of the result.

    Returns
    -------
    loss : float, ndarray or Scaled, shape [K,] [B]
        B only where ``per_sequence``. 0 where there is nothing to predict.
    gradient : Gradient
        The gradients named in ``wrt``.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `forward`; also if y has not the shape of the predictions.

    Notes
    -----
    See `backward`.

    Examples
    --------
    >>> import fastrnn
    >>> net = fastrnn.RNN(w1=1.0, w2=0.5, activation="identity")
    >>> loss, grad = fastrnn.loss_and_grad(net, [1.0, 0.0], y=[0.0, 0.0])
    >>> float(loss), float(grad.w1), float(grad.w2)
    (0.625, 1.25, 0.5)
    """
    choice("loss", loss, ("mse",))
    require_net(net)
    weights = net.weight_names
    wanted = weights if wrt is None else wanted_fields(wrt, (*weights, "x", "h0"))
    per_sequence, scaled = flag("per_sequence", per_sequence), flag("scaled", scaled)
    if truncate is not None:
        truncate = positive("truncate", truncate)
        if scaled or set(wanted) - set(weights):
            raise ValueError("truncate must be None where scaled=True, and for wrt 'x' and 'h0'")
    whole = lengths is None and not scaled and truncate is None and "x" not in wanted
    if whole and streams.suit(net, x, y):
        read = streams.half_squares(
            net, x, y, h0, scale=2.0 / math.prod(np.shape(y)), each=per_sequence, workers=workers,
            memory=byte_budget(memory),
        )  # fmt: skip
        if read is not None:
            return _seen(read, wanted, False)
    target = sequence_array("y", y)
    new = "KBTF" if "x" in wanted else "KBH"
    job = sequences(net, x, h0=h0, lengths=lengths, others=(target,), results=new)
    target = job.full("y", target, "KBTO")
    # Kernels work on half the sum of squares, whose gradient needs no factor.
    scale = 2.0 / max(1, job.predictions)
    options: dict[str, Any] = {
        "scale": scale,
        "each": per_sequence,
        "workers": workers,
        "memory": byte_budget(memory),
    }
    if truncate is None or truncate >= job.x.shape[1]:
        options |= {"want_dx": "x" in wanted, "scaled": scaled}
        found = gradients.find(job, target, job.zeros, fused=True, **options)
    else:
        found = truncated.in_windows(job, target, truncate, **options)
    return _seen(found, wanted, scaled)


@verb
def loss_and_grad_of_each(net: RNN, x: FloatArray, y: FloatArray) -> tuple[Any, Gradient]:
    """Mean squared error of each sequence by itself, and its gradients: axes [K,] B.

    Unlike each sequence's share of the whole, its bits do not depend on how many others there
    are.
    """
    job = sequences(net, x, others=(y,))
    target = job.full("y", y, "KBTO")
    scale = 2.0 / (job.x.shape[1] * net.output_size)
    found = gradients.find(
        job, target, job.zeros, fused=True, want_dx=False, each=True, scaled=False,
        workers=None, memory=None, scale=scale,
    )  # fmt: skip
    return _seen(found, job.weight_names, False)


def _seen(found: Found, wanted: tuple[str, ...], scaled: bool) -> tuple[Any, Gradient]:
    """Loss and gradients as the caller sees them."""
    job, axes = found.job, "KB" if found.each else "K"
    arrays, shares = found.scaled("h0" in wanted) if scaled else found.floats("h0" in wanted)
    value: Any = arrays["loss"]
    if not scaled and value.dtype != job.dtype:
        with np.errstate(over="ignore"):
            value = value.astype(job.dtype)
    return job.visible(value, axes), collect(job, arrays, wanted, found.each, shares)
