"""influence: how much of every input reaches the last prediction."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastrnn import engine_scaled
from fastrnn.calls import verb
from fastrnn.memory import byte_budget
from fastrnn.rnn import RNN
from fastrnn.scaled import Scaled
from fastrnn.sequences import sequences


@verb
def influence(
    net: RNN,
    x: ArrayLike,
    *,
    v: ArrayLike | None = None,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    workers: int | None = None,
    memory: int | None = None,
) -> Scaled:
    r"""Derivative of the last prediction by every input, at any magnitude.

    .. math:: \frac{\partial\, (v \cdot \hat y_T)}{\partial x_t}, \qquad t = 1 \dots T

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x : array_like, shape (T,), (B, T), or (B, T, F) for a layer
        B sequences of T steps.
    v : array_like, shape (O,), default all ones
        Weights of a layer's outputs in the sum that is differentiated.
    h0 : array_like, shape of the last state, with or without its bank axis, default 0
        State before the first step.
    lengths : array_like of int, shape (B,), optional
        Steps of each sequence where they differ; T is each sequence's own last step.
    workers : int, optional
        Threads; see `set_workers`.
    memory : int, optional
        Bytes of working memory, beside inputs and results; by default some MB a thread. A
        smaller budget costs time, and changes no bit of the result.

    Returns
    -------
    Scaled, shape of x, after the bank axis K where the net is a bank
        Never 0 or inf for want of range; 0 past a sequence's length.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `forward`; also if v does not fit, or is given for a neuron.

    Notes
    -----
    For the scalar neuron this is :math:`W_3 W_1 f'(z_t) \prod_{s>t} W_2 f'(z_s)`: Pascanu,
    Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
    section 2.

    Examples
    --------
    Of the first of five inputs, one ten-thousandth reaches the fifth prediction:

    >>> import fastrnn
    >>> net = fastrnn.RNN(w1=1.0, w2=0.1, activation="identity")
    >>> fastrnn.influence(net, [1.0, 2.0, 3.0, 4.0, 5.0])
    [1.000e-04, 1.000e-03, 1.000e-02, 1.000e-01, 1.000e+00]

    The same over two hundred thousand:

    >>> fastrnn.influence(net, [1.0] * 200_001)[0]
    1.000e-200000
    """
    job = sequences(net, x, h0=h0, lengths=lengths, results="KBTF")
    by_x, _ = engine_scaled.influence(
        job, job.output_seed(v), workers=workers, memory=byte_budget(memory)
    )
    result: Scaled = job.visible(by_x, "KBTX")
    return result
