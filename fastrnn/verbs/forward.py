"""forward: the states of the unrolled net."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from numpy.typing import ArrayLike

from fastrnn import engine, engine_scaled, streams
from fastrnn.calls import verb
from fastrnn.checks import FloatArray, choice, flag, output_array
from fastrnn.rnn import RNN, require_net
from fastrnn.sequences import sequences


@verb
def forward(
    net: RNN,
    x: ArrayLike | Iterator[ArrayLike],
    *,
    h0: ArrayLike | None = None,
    keep: Literal["all", "last"] = "all",
    lengths: ArrayLike | None = None,
    scaled: bool = False,
    workers: int | None = None,
    out: FloatArray | None = None,
) -> Any:
    r"""Run the net over every sequence and return its states.

    .. math:: h_t = f(W_1 x_t + W_2 h_{t-1} + b), \qquad t = 1 \dots T

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x : array_like, shape (T,), (B, T), or (B, T, F) for a layer
        B sequences of T steps; any strides, never copied where it is a float array. Each column
        of a table (pandas, polars) is a sequence. With
        ``keep="last"`` also an iterator of such, blocks of time one after the other; a large
        `numpy.memmap` and a chunked array (Zarr, HDF5, Dask) are then read block by block, but
        for a Dask array of unknown size.
    h0 : array_like, shape of the last state, with or without its bank axis, default 0
        State before the first step.
    keep : {"all", "last"}
        Return the states of all steps, or only the last (then no other is stored).
    lengths : array_like of int, shape (B,), optional
        Steps of each sequence where they differ; what lies past them is never read.
    scaled : bool
        Return the states as `Scaled`, right where states, or sums on the way to them, leave
        the range of floats: such sequences take some 20 ns a step and product of W2.
    workers : int, optional
        Threads, by default as many as cores this process may use; see `set_workers`.
    out : ndarray, shape and type of the result, optional
        Array of any layout to write the result to, which is then returned. New memory costs
        the system as much time as the states themselves.

    Returns
    -------
    ndarray or Scaled, shape [K,] [B,] T [,H], or [K,] [B] [,H] where only the last is kept
        States, of the wider float type of net, x and h0. The axis K is there for a bank, B
        where x has it, H for a layer. States past a sequence's length are 0; the last state is
        that of its own last step, h0 where it has none.

    Warns
    -----
    UserWarning
        If x has far more sequences than steps, as an array (T, columns) on its side would.

    Raises
    ------
    ValueError
        If a shape does not fit, ``keep`` is unknown, or ``out`` shares memory with an input.
    TypeError
        If x is neither float32, float64 nor integer, or a masked array.
    MemoryError
        If the states would not fit into memory.

    Notes
    -----
    A NaN in x reaches the states of its own sequence from that step on, and no others.

    A few long sequences of a neuron are run as a batch of their chunks, with the same bits; the
    logger ``fastrnn.chunks`` tells, at level INFO, which way was taken.

    Examples
    --------
    >>> import fastrnn
    >>> net = fastrnn.RNN(w1=1.0, w2=0.5, activation="identity")
    >>> fastrnn.forward(net, [1.0, 0.0, 0.0, 0.0])
    array([1.   , 0.5  , 0.25 , 0.125])
    >>> fastrnn.forward(net, [[1.0, 0.0], [0.0, 1.0]], keep="last")
    array([0.5, 1. ])
    """
    require_net(net)
    choice("keep", keep, ("all", "last"))
    scaled = flag("scaled", scaled)
    if isinstance(x, Iterator) or streams.is_lazy(net, x):
        if keep == "last" and lengths is None and not scaled and out is None:
            return streams.last_state(net, x, h0, workers)
        if isinstance(x, Iterator):
            raise TypeError(
                "x must be an array, got an iterator of blocks, which is for keep='last' without "
                "lengths, scaled and out"
            )
    axes = "KBH" if keep == "last" else "KBTH"
    new = axes if out is None else "KBH"
    job = sequences(net, x, h0=h0, lengths=lengths, results=new)
    if scaled:
        if out is not None:
            raise ValueError("out must be None where scaled=True")
        every, last = engine_scaled.forward(job, keep=keep == "all", workers=workers)
        return job.visible(last if keep == "last" else every, axes)
    into = None
    if out is not None:
        shape = job.size(job.seen(axes))
        into = job.whole(output_array("out", out, shape, job.dtype, job.x), axes)
    states, end = engine.forward(job, keep=keep == "all", workers=workers, states=into)
    result = job.visible(end if keep == "last" else states, axes)
    if out is None:
        return result
    if keep == "last":
        out[...] = result
    return out
