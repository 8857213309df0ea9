"""Checks that a user can run on their own nets, and that the test-suite runs on ours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.checks import FloatArray, sequence_array
from fastrnn.rnn import RNN
from fastrnn.sequences import Sequences, sequences
from fastrnn.verbs.loss_and_grad import loss_and_grad

# Of a complex step: its square is nothing beside 1, so there is no error of a difference.
STEP = 1e-30


def gradcheck(
    net: RNN,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    rtol: float = 1e-7,
) -> dict[str, float]:
    """Hold the gradients of `loss_and_grad` against complex steps of a plain NumPy forward pass.

    Every weight is moved by itself, so that the time grows with their number. All is computed in
    float64, of weights and inputs as they are.

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x, y, h0, lengths
        As in `loss_and_grad`; y is 0 by default.
    rtol : float
        Error allowed, relative to the sum of a gradient's absolute terms. Nets that are chaotic,
        or large W2 over many steps, need more: both passes then follow orbits of their own.

    Returns
    -------
    dict of str to float
        The largest such error of each weight.

    Raises
    ------
    AssertionError
        If one is larger than ``rtol``, or not a number; it names the weight and both values.

    Notes
    -----
    Squire and Trapp, "Using complex variables to estimate derivatives of real functions", SIAM
    Review 40 (1998).

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn.testing
    >>> net = fastrnn.RNN(w1=0.5, w2=-1.5, b=0.1)
    >>> errors = fastrnn.testing.gradcheck(net, np.sin(np.arange(100.0)))
    >>> sorted(errors), max(errors.values()) < 1e-12
    (['b', 'w1', 'w2'], True)
    """
    x = sequence_array("x", x).astype(np.float64)
    job = sequences(net, x, h0=h0, lengths=lengths)
    if y is None:
        y = job.visible(np.zeros(job.size("KBTO")), "KBTO")
    target = job.full("y", y, "KBTO")
    _, grad = loss_and_grad(net, x, y, h0=h0, lengths=lengths)
    # Of these, the sums of absolute terms.
    _, exact = loss_and_grad(net, x, y, h0=h0, lengths=lengths, scaled=True)
    errors = {}
    for name in job.weight_names:
        theirs = _by_complex_step(job, name, target)
        ours, left = getattr(grad, name), getattr(exact.cancellation, name)
        theirs = theirs.reshape(ours.shape)
        terms = abs(getattr(exact, name)).to_float() / np.where(left > 0, left, 1)
        error = abs(ours - theirs) / np.where(terms > 0, terms, 1)
        errors[name] = float(np.max(error, initial=0.0))
        if not (error <= rtol).all():
            worst = np.unravel_index(
                np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape
            )
            raise AssertionError(
                f"the gradient by {name}{list(map(int, worst)) or ''} is {ours[worst]:.17g}, by a "
                f"complex step {theirs[worst]:.17g}: an error of {error[worst]:.3g} of its terms, "
                f"allowed are {rtol:.3g}"
            )
    return errors


def truncation_error(
    net: RNN,
    x: ArrayLike,
    y: ArrayLike,
    truncate: int,
    *,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    workers: int | None = None,
) -> dict[str, float]:
    """How far truncated gradients are from the full ones.

    Parameters
    ----------
    net : RNN
        One net or a bank of K nets.
    x, y, truncate, h0, lengths, workers
        As in `loss_and_grad`.

    Returns
    -------
    dict of str to float
        Of each weight, the Euclidean norm of the difference over that of the full gradient; the
        largest of a bank.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn.testing
    >>> x = np.sin(np.arange(1000.0))
    >>> net = fastrnn.RNN(w1=1.0, w2=0.5)
    >>> for k in (4, 16, 64):
    ...     print(k, f"{fastrnn.testing.truncation_error(net, x[:-1], x[1:], k)['w2']:.0e}")
    4 4e-03
    16 1e-03
    64 1e-04
    """
    given: dict[str, Any] = {"h0": h0, "lengths": lengths, "workers": workers}
    _, full = loss_and_grad(net, x, y, **given)
    _, short = loss_and_grad(net, x, y, truncate=truncate, **given)
    errors = {}
    for name in net.weight_names:
        whole = np.atleast_1d(getattr(full, name))
        count = net.bank_size
        lost = (np.atleast_1d(getattr(short, name)) - whole).reshape(count, -1)
        size = np.linalg.norm(whole.reshape(count, -1), axis=1)
        share = np.linalg.norm(lost, axis=1) / np.where(size > 0, size, 1)
        errors[name] = float(np.max(share))
    return errors


def _by_complex_step(job: Sequences, name: str, target: FloatArray) -> FloatArray:
    """Derivative of each net's mean squared error by every number of one weight (K, ...)."""
    weights = {key: value.astype(complex) for key, value in job.weights._asdict().items()}
    weight = weights[name]
    found = np.empty(weight.shape)
    for index in np.ndindex(weight.shape[1:]):
        moved = weight.copy()
        moved[(slice(None), *index)] += 1j * STEP
        loss = _loss(job, {**weights, name: moved}, target)
        found[(slice(None), *index)] = loss.imag / STEP
    return found


def _loss(
    job: Sequences, weights: dict[str, NDArray[np.complex128]], target: FloatArray
) -> NDArray[np.complex128]:
    """Mean squared error of each net (K,)."""
    h = job.h0.astype(complex)
    total = np.zeros(len(h), complex)
    for t in range(job.x.shape[1]):
        z = np.einsum("khf,bf->kbh", weights["w1"], job.x[:, t]) + weights["b"][:, None]
        z = z + np.einsum("khj,kbj->kbh", weights["w2"], h)
        running = (t < job.lengths)[:, None]
        h = np.where(running, _activate(job.net.activation, z), h)
        y = h
        if job.net.has_readout:
            y = np.einsum("koh,kbh->kbo", weights["w3"], h) + weights["b3"][:, None]
        total += np.where(running, (y - target[:, :, t]) ** 2, 0).sum(axis=(1, 2))
    return np.asarray(total / max(1, job.predictions), complex)


def _activate(activation: str, z: Any) -> Any:
    if activation == "tanh":
        return np.tanh(z)
    if activation == "sigmoid":
        return 0.5 + 0.5 * np.tanh(0.5 * z)
    if activation == "relu":
        return np.where(z.real > 0, z, 0)
    return z
