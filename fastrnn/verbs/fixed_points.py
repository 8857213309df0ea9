"""fixed_points: where a scalar neuron comes to rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.calls import verb
from fastrnn.checks import float_array, require_finite
from fastrnn.equilibria import FixedPoints, fixed_points_of
from fastrnn.rnn import RNN


@verb
def fixed_points(net: RNN, x: ArrayLike = 0.0) -> FixedPoints:
    r"""Fixed points of a scalar neuron under constant inputs, and their stability.

    .. math:: h = f(W_1 x + W_2 h + b)

    tanh has one fixed point up to W2 = 1. Above it may have three: two that each hold a bit of
    memory, and one between them that no state stays at.

    Parameters
    ----------
    net : RNN
        A scalar neuron or a bank of K.
    x : array_like of any shape, default 0
        Constant inputs.

    Returns
    -------
    FixedPoints
        ``.h``, ``.multiplier`` and ``.stable``, of shape [K,] (shape of x), 3, and
        ``.continuum``, of shape [K,] (shape of x).

    Raises
    ------
    ValueError, TypeError
        If the net is a layer, or x is not finite.

    Notes
    -----
    A fixed point is stable where :math:`|W_2 f'(z)| < 1`; at exactly 1 it is called unstable. At
    the kink of relu the side on which deviations go on decides: a state of 0 under no input is
    unstable from W2 = 1 on. With W2 = 1 and no input every h is a fixed point of the identity, and
    every h from 0 on one of relu: ``.continuum`` says so, and 0 stands for them. Two roots of tanh
    or sigmoid that are about to meet and vanish, nearer to that than the rounding of the weights,
    are one, with the multiplier 1. See Strogatz, "Nonlinear dynamics and chaos", section 10.1.

    Examples
    --------
    >>> import fastrnn
    >>> found = fastrnn.fixed_points(fastrnn.RNN(w1=1.0, w2=2.0))
    >>> found.h.round(4)
    array([-0.9575,  0.    ,  0.9575])
    >>> found.stable
    array([ True, False,  True])
    """
    if not isinstance(net, RNN):
        raise TypeError(f"net must be a fastrnn.RNN, got {type(net).__name__}")
    if not net.is_neuron:
        raise ValueError(f"net must be a scalar neuron, got a layer of {net.hidden_size} units")
    inputs = float_array("x", x).astype(np.float64)
    require_finite("x", inputs)
    w1, w2, b = (
        np.asarray(weight, np.float64).reshape(np.shape(weight) + (1,) * inputs.ndim)
        for weight in (net.w1, net.w2, net.b)
    )
    with np.errstate(over="ignore"):
        a, own_w2 = np.broadcast_arrays(w1 * inputs + b, w2)
    return fixed_points_of(net.activation, a, own_w2)
