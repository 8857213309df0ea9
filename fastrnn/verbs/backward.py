"""backward: back-propagation through time of a given gradient."""

from __future__ import annotations

from collections.abc import Iterable

from numpy.typing import ArrayLike

from fastrnn import gradients
from fastrnn.calls import verb
from fastrnn.checks import flag, sequence_array, wanted_fields
from fastrnn.gradient import Gradient, collect, split_upstream
from fastrnn.memory import byte_budget
from fastrnn.rnn import RNN
from fastrnn.sequences import sequences


@verb
def backward(
    net: RNN,
    x: ArrayLike,
    dh: ArrayLike,
    *,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    wrt: Iterable[str] | str = ("w1", "w2", "b"),
    per_sequence: bool = False,
    scaled: bool = False,
    workers: int | None = None,
    memory: int | None = None,
) -> Gradient:
    r"""Vector-Jacobian product of the states with an upstream gradient.

    .. math:: \sum_t \frac{\partial (dh_t \cdot h_t)}{\partial \theta}
        \quad\text{for each}\quad \theta \in \text{wrt}

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x : array_like, shape (T,), (B, T), or (B, T, F) for a layer
        B sequences of T steps.
    dh : array_like, shape of the states, or of the last state
        Upstream gradient. That past a sequence's length is ignored.
    h0 : array_like, shape of the last state, with or without its bank axis, default 0
        State before the first step.
    lengths : array_like of int, shape (B,), optional
        Steps of each sequence where they differ.
    wrt : iterable of {"w1", "w2", "b", "x", "h0"}
        The gradients wanted.
    per_sequence : bool
        Keep the batch axis of the weights' gradients instead of summing over it.
    scaled : bool
        Return every gradient as `Scaled`, with all its digits where floats would be 0, inf or
        NaN. Of neurons it takes as long as plain floats, of layers up to 2 times as long, and
        about 1 us a step and hidden unit where states leave the range of floats.
    workers : int, optional
        Threads; see `set_workers`.
    memory : int, optional
        Bytes of working memory, beside inputs and results; by default some MB a thread. A
        smaller budget costs time, and changes no bit of the result.

    Returns
    -------
    Gradient
        The gradients named in ``wrt``.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `forward`; also if ``wrt`` names something else.

    Notes
    -----
    Back-propagation through time: Werbos, "Backpropagation through time: what it does and how
    to do it", Proc. IEEE 78 (1990), section II. The derivative f' is taken from the
    pre-activation and keeps its digits in saturation. States are recomputed from those before
    tiles or slices of time, which are all that is kept of a trajectory.

    Steps of a neuron whose gradients or states leave the range of floats are walked with exponents,
    and results rounded once, at the end; that takes up to four times as long. Of layers, results
    that are not finite are computed anew; a gradient that faded on the way stays 0, and
    ``scaled=True`` keeps it.

    Examples
    --------
    >>> import fastrnn
    >>> net = fastrnn.RNN(w1=1.0, w2=0.1, activation="identity")
    >>> grad = fastrnn.backward(net, [1.0, 1.0, 1.0], dh=[0.0, 0.0, 1.0], wrt="x")
    >>> grad.x.round(12)
    array([0.01, 0.1 , 1.  ])
    """
    wanted = wanted_fields(wrt, ("w1", "w2", "b", "x", "h0"))
    per_sequence, scaled = flag("per_sequence", per_sequence), flag("scaled", scaled)
    upstream = sequence_array("dh", dh)
    new = "KBTF" if "x" in wanted else "KBH"
    job = sequences(net, x, h0=h0, lengths=lengths, others=(upstream,), results=new)
    upstream, dlast = split_upstream(job, upstream)
    found = gradients.find(
        job, upstream, dlast, fused=False, want_dx="x" in wanted, each=per_sequence, scaled=scaled,
        workers=workers, memory=byte_budget(memory),
    )  # fmt: skip
    arrays, shares = found.scaled("h0" in wanted) if scaled else found.floats("h0" in wanted)
    return collect(job, arrays, wanted, found.each, shares)
