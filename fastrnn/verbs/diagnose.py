"""diagnose: what W2 does to memory and gradients."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastrnn import engine, engine_scaled, streams
from fastrnn.beyond import Beyond
from fastrnn.calls import verb
from fastrnn.diagnosis import Diagnosis, diagnosis
from fastrnn.growth import largest_exponent
from fastrnn.rnn import RNN, require_net
from fastrnn.sequences import sequences
from fastrnn.streamed_diagnosis import streamed_diagnosis


@verb
def diagnose(
    net: RNN,
    x: ArrayLike,
    *,
    v: ArrayLike | None = None,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    workers: int | None = None,
) -> Diagnosis:
    r"""How far back the last prediction remembers, and whether its gradient survives.

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x : array_like, shape (T,), (B, T), or (B, T, F) for a layer
        B sequences of T steps. Of neurons, a large `numpy.memmap` and a chunked array (Zarr,
        HDF5, Dask) are read block by block, twice, and what the result holds of every step is
        that of the newest alone. Where states or influences leave what a neuron's kernels hold
        (an infinite input; relu and identity past the range of floats), all of it is taken into
        memory instead.
    v : array_like, shape (O,), default all ones
        Weights of a layer's outputs in the sum that is diagnosed.
    h0 : array_like, shape of the last state, with or without its bank axis, default 0
        State before the first step.
    lengths : array_like of int, shape (B,), optional
        Steps of each sequence where they differ.
    workers : int, optional
        Threads; see `set_workers`.

    Returns
    -------
    Diagnosis
        Influence, shares, gradient by lag, memory horizon, exponent with its standard error,
        regime, saturation and fixed points, for every net and sequence. ``.summary()`` tells
        them in words, ``.evidence`` what speaks for the regime, ``.to_columns()`` makes a table
        for pandas or polars, ``.plot()`` a picture.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `influence`.

    Notes
    -----
    The exponent is the largest of `lyapunov`: for a neuron the mean of
    :math:`\log |W_2 f'(z_t)|`, for a layer without the first of 32 batches of steps, in which a
    perturbation turns to where it grows.

    The regime is that of this sequence: vanishing or exploding if the influence of its first
    input is less than a tenth, or more than ten times, that of its last; the same W2 may be
    balanced over ten steps and vanishing over a thousand. For vanishing and exploding gradients
    see Pascanu, Mikolov and Bengio, ICML 2013, section 2.

    Examples
    --------
    Five inputs and no squashing. With W2 = 0.1 the first is forgotten:

    >>> import fastrnn
    >>> x = [1.0, 1.0, 1.0, 1.0, 1.0]
    >>> small = fastrnn.RNN(w1=1.0, w2=0.1, activation="identity")
    >>> print(fastrnn.diagnose(small, x).summary())
    regime            vanishing: x_1 counts 10^-4 times x_5
    growth per step   10^-1 (exponent -2.30259 ± 0)
    influence of x_1  1.000e-04 (0.01 %)
    share of x_1      9e-05
    memory horizon    4 of 5 steps (by the exponent 3)
    saturated steps   0.0%
    fixed points      1.111 stable (under the mean input)

    With W2 = 2 it outweighs all later ones:

    >>> large = fastrnn.RNN(w1=1.0, w2=2.0, activation="identity")
    >>> found = fastrnn.diagnose(large, x)
    >>> found.influence_of_first, found.regime
    (1.600e+01, 'exploding')

    With the usual tanh the same W2 = 2 does the opposite. The neuron saturates, its slope all
    but disappears, and so does its gradient:

    >>> squashed = fastrnn.RNN(w1=1.0, w2=2.0, activation="tanh")
    >>> found = fastrnn.diagnose(squashed, x)
    >>> print(found.summary())
    regime            vanishing: x_1 counts 10^-4.748 times x_5
    growth per step   10^-1.289 (exponent -2.97 ± 0.72, not converged)
    influence of x_1  1.797e-07 (1.797e-05 %)
    share of x_1      1.75e-05
    memory horizon    2 of 5 steps (by the exponent 2)
    saturated steps   80.0%
    fixed points      0.995 stable (under the mean input)
    """
    require_net(net)
    if net.is_neuron and v is None and lengths is None and streams.is_lazy(net, x):
        read = streamed_diagnosis(net, x, h0, workers)
        if read is not None:
            return read
    job = sequences(net, x, h0=h0, lengths=lengths, results="KBTH")
    seed = job.output_seed(v)
    states, _ = engine.forward(job, keep=True, workers=workers)
    Beyond(job, workers).mend(states, 0, job.lengths)
    by_x, _ = engine_scaled.influence(job, seed, workers=workers)
    return diagnosis(job, by_x, states, largest_exponent(job, workers=workers))
