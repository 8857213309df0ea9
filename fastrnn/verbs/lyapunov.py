"""lyapunov: exponents of the driven net, with error bars."""

from __future__ import annotations

from numbers import Real
from typing import Any

from numpy.typing import ArrayLike

from fastrnn.calls import verb
from fastrnn.checks import integer
from fastrnn.exponents import Lyapunov
from fastrnn.growth import lyapunov_of
from fastrnn.rnn import RNN
from fastrnn.sequences import sequences


@verb
def lyapunov(
    net: RNN,
    x: ArrayLike,
    k: int = 1,
    transient: int = 0,
    h0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    local: int | None = None,
    stderr: float | None = None,
    workers: int | None = None,
) -> Lyapunov:
    r"""Largest k Lyapunov exponents of a net along the states it runs through.

    .. math:: \lambda_i = \lim_{T \to \infty} \frac{1}{T} \sum_{t=1}^{T} \log |R_{t,ii}|,
        \qquad \mathrm{diag}(f'(z_t))\, W_2\, Q_{t-1} = Q_t R_t

    For a neuron the mean of :math:`\log |W_2 f'(z_t)|`. Below 0 the net forgets: what differs
    between two states, and every gradient, shrinks by :math:`e^{\lambda_1}` a step.

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x : array_like, shape (T,), (B, T), or (B, T, F) for a layer
        B sequences of T steps that drive the net. For one without input, zeros: ``x =
        np.broadcast_to(0.0, (T,))`` takes no memory.
    k : int
        Exponents wanted, at most the hidden size H, which gives the whole spectrum.
    transient : int
        Steps at the beginning that are run but not averaged over.
    h0 : array_like, shape of the last state, with or without its bank axis, default 0
        State before the first step.
    lengths : array_like of int, shape (B,), optional
        Steps of each sequence where they differ.
    local : int, optional
        Return local growth too: means over windows of so many steps, 1 for each step's own.
    stderr : float, optional
        Standard error that is enough. Each sequence is then looked at after 512, 1024, 2048, ...
        and all of its steps, and the first look is kept at which the standard errors of all k
        exponents are reliable and at most this; ``.steps`` holds how many steps it took,
        ``.converged`` whether it was reached. Not together with ``local``.
    workers : int, optional
        Threads; see `set_workers`.

    Returns
    -------
    Lyapunov
        ``.exponents``, ``.stderr``, ``.converged``, each [K,] [B,] k, in natural logarithms per
        step, ``.steps`` and ``.local``. The truth lies within two standard errors in about 95 %
        of all runs that are converged.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `forward`; also if k is not from 1 to H, or another argument out of its range.

    Notes
    -----
    Benettin, Galgani, Giorgilli and Strelcyn, Meccanica 15 (1980), part 2; Geist, Parlitz and
    Lauterborn, Prog. Theor. Phys. 83 (1990), section 3. Of recurrent nets: Engelken, Wolf and
    Abbott, Phys. Rev. Research 5 (2023). Products are carried as mantissa and exponent: nothing
    under- or overflows at any W2. The standard error is that of the means of 32 batches of
    neighbouring steps (batch means: Law and Carson, Operations Research 27 (1979)). It is held
    to be reliable if the two halves of the run agree within six of it (three of their
    difference), and batches are long enough that neighbours are correlated by less than 0.5.

    An exponent of -inf says that a perturbation is forgotten altogether: a derivative is 0, or W2
    is singular to working precision, so that what is left of a tangent vector once those before
    it are taken out is no more than rounding. Rows of D W2 that differ by any orders of
    magnitude are no such case. relu layers may leave the range of floats: their slopes need no
    more than the signs of the states, which are then found number by number.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> x = np.random.default_rng(0).standard_normal(100_000)
    >>> fastrnn.lyapunov(fastrnn.RNN(w1=1.0, w2=0.9), x)
    Lyapunov(-1.0727 ± 0.0034)

    A layer of random weights without input is chaotic if they are large enough:

    >>> w2 = 2 * np.random.default_rng(0).standard_normal((50, 50)) / np.sqrt(50)
    >>> net = fastrnn.RNN(w1=np.zeros((50, 1)), w2=w2)
    >>> found = fastrnn.lyapunov(net, np.zeros(4000), transient=1000, h0=np.full(50, 0.1))
    >>> bool(found.exponents[0] > 0)
    True
    """
    job = sequences(net, x, h0=h0, lengths=lengths)
    hidden = net.hidden_size
    k = integer("k", k, 1, f"from 1 to the hidden size {hidden}")
    if k > hidden:
        raise ValueError(f"k must be from 1 to the hidden size {hidden}, got {k}")
    transient = integer("transient", transient, 0)
    if local is not None:
        local = integer("local", local, 1)
        if stderr is not None:
            raise ValueError("local must be None where stderr is given: steps are not known before")
    if stderr is not None:
        stderr = _positive("stderr", stderr)
    return lyapunov_of(job, k=k, transient=transient, local=local, stderr=stderr, workers=workers)


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    number = float(value)
    if not number > 0:
        raise ValueError(f"{name} must be positive, got {number}")
    return number
