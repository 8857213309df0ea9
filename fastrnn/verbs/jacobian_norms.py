"""jacobian_norms: how much an earlier state can still change the last."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import engine
from fastrnn.beyond import Beyond
from fastrnn.calls import verb
from fastrnn.jacobians import JacobianNorms, jacobian_norms_of
from fastrnn.rnn import RNN
from fastrnn.sequences import sequences

# So many lags by default, evenly spread in their logarithm.
DEFAULT_LAGS = 64


@verb
def jacobian_norms(
    net: RNN,
    x: ArrayLike,
    lags: ArrayLike | None = None,
    *,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    workers: int | None = None,
) -> JacobianNorms:
    r"""Norms of the derivative of the last state by earlier ones, at any magnitude.

    .. math:: \frac{\partial h_T}{\partial h_{T-l}}
        = \prod_{t=T}^{T-l+1} \mathrm{diag}(f'(z_t))\, W_2

    `influence` tells what one output feels of each input; this tells what any output may feel
    of any earlier state: the largest singular value bounds it from above, the smallest from
    below.

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x : array_like, shape (T,), (B, T), or (B, T, F) for a layer
        B sequences of T steps.
    lags : array_like of int, shape (L,), optional
        Steps back from the last, from 0 to T, by default 64 of them, even in their logarithm.
    h0 : array_like, shape of the last state, with or without its bank axis, default 0
        State before the first step.
    lengths : array_like of int, shape (B,), optional
        Steps of each sequence where they differ; T is each sequence's own last step.
    workers : int, optional
        Threads of the forward pass; see `set_workers`.

    Returns
    -------
    JacobianNorms
        ``.largest`` and ``.smallest`` singular value where H <= 64, and the ``.frobenius`` norm.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `forward`; also if lags are not integers from 0 to T.

    Notes
    -----
    Pascanu, Mikolov and Bengio, ICML 2013, section 2.1: gradients vanish where the largest
    singular value does, and explode only if it does. All states are stored. A step of a layer
    takes some H**3 multiplications in NumPy, that of a neuron one. The relative error of the
    smallest singular value is some lag * eps times the condition number of W2, its rows and
    columns brought to one size first.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> net = fastrnn.RNN(np.zeros((2, 1)), np.diag([2.0, 0.1]), activation="identity")
    >>> norms = fastrnn.jacobian_norms(net, np.zeros(2000), lags=[0, 1, 2000])
    >>> norms.largest
    [1.000e+00, 2.000e+00, 1.148e+602]
    >>> norms.smallest
    [1.000e+00, 1.000e-01, 1.000e-2000]
    """
    job = sequences(net, x, h0=h0, lengths=lengths, results="KBTH")
    wanted = _lags(lags, job.x.shape[1])
    states, _ = engine.forward(job, keep=True, workers=workers)
    Beyond(job, workers).mend(states, 0, job.lengths)
    return jacobian_norms_of(job, states, wanted)


def _lags(lags: ArrayLike | None, steps: int) -> np.ndarray:
    if lags is None:
        some = np.geomspace(1, max(1, steps), DEFAULT_LAGS - 1).round()
        return np.unique([0, *some[some <= steps]]).astype(np.int64)
    try:
        array = np.asarray(lags)
    except ValueError:
        raise ValueError("lags must have shape (L,), got a ragged array") from None
    if array.ndim != 1:
        raise ValueError(f"lags must have shape (L,), got {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"lags must be integers, got {array.dtype}")
    wrong = (array < 0) | (array > steps)
    if wrong.any():
        raise ValueError(f"lags must be from 0 to T = {steps}, got {array[wrong][0]}")
    return array.astype(np.int64)
