"""predict: the read-out of the states."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastrnn import engine
from fastrnn.calls import verb
from fastrnn.checks import FloatArray
from fastrnn.rnn import RNN
from fastrnn.sequences import sequences


@verb
def predict(
    net: RNN,
    x: ArrayLike,
    *,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    workers: int | None = None,
) -> FloatArray:
    r"""Predictions :math:`\hat y_t = W_3 h_t + b_3`, or the states where there is no read-out.

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x : array_like, shape (T,), (B, T), or (B, T, F) for a layer
        B sequences of T steps.
    h0 : array_like, shape of the last state, with or without its bank axis, default 0
        State before the first step.
    lengths : array_like of int, shape (B,), optional
        Steps of each sequence where they differ; what lies past them is never read.
    workers : int, optional
        Threads; see `set_workers`.

    Returns
    -------
    ndarray, shape [K,] [B,] T [,O]
        Predictions; O is H where there is no read-out. Those past a sequence's length are 0.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `forward`.

    Examples
    --------
    >>> import fastrnn
    >>> net = fastrnn.RNN(w1=1.0, w2=0.5, activation="identity", w3=2.0, b3=1.0)
    >>> fastrnn.predict(net, [1.0, 0.0, 0.0])
    array([3. , 2. , 1.5])
    """
    job = sequences(net, x, h0=h0, lengths=lengths, results="KBTH")
    states, _ = engine.forward(job, keep=True, workers=workers)
    if net.has_readout:
        states = engine.readout(job, states, workers=workers)
    predictions: FloatArray = job.visible(states, "KBTO")
    return predictions
