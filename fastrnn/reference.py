"""The verbs in plain NumPy: slow, obvious, and the definition of right.

Every function has the arguments and results of the verb of its name, but for ``workers``,
``memory``, ``out`` and ``scaled``, and stores what it needs as it goes. Compare a result with
it, or read it to learn what is computed.
The axes are always (K, B, T, F or H or O): nets, sequences, steps, inputs or units or outputs.

Examples
--------
>>> import numpy as np
>>> import fastrnn
>>> net = fastrnn.RNN(w1=0.5, w2=-1.5, b=0.1)
>>> x = np.sin(np.arange(100.0))
>>> np.allclose(fastrnn.forward(net, x), fastrnn.reference.forward(net, x), rtol=1e-13)
True
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.activations import activate, derivative, derivative_scaled
from fastrnn.checks import FloatArray, choice, sequence_array, wanted_fields
from fastrnn.diagnosis import Diagnosis, diagnosis
from fastrnn.exponents import (
    Estimate,
    Lyapunov,
    batch_lengths,
    directions,
    largest,
    local_rates,
    lyapunov_result,
)
from fastrnn.gradient import Gradient, collect, split_upstream
from fastrnn.kernels import WORKING_PRECISION
from fastrnn.rnn import RNN
from fastrnn.scaled import Scaled
from fastrnn.sequences import Sequences, sequences


def forward(
    net: RNN,
    x: ArrayLike,
    *,
    h0: ArrayLike | None = None,
    keep: str = "all",
    lengths: ArrayLike | None = None,
) -> FloatArray:
    """States: h_t = f(W1 x_t + W2 h_{t-1} + b)."""
    choice("keep", keep, ("all", "last"))
    job = sequences(net, x, h0=h0, lengths=lengths)
    _, after, last = _unroll(job)
    return job.visible(last, "KBH") if keep == "last" else job.visible(after, "KBTH")


def predict(
    net: RNN, x: ArrayLike, *, h0: ArrayLike | None = None, lengths: ArrayLike | None = None
) -> FloatArray:
    """Predictions: y_t = W3 h_t + b3, or h_t."""
    job = sequences(net, x, h0=h0, lengths=lengths)
    _, after, _ = _unroll(job)
    return job.visible(np.where(_within(job), _readout(job, after), 0), "KBTO")


def backward(
    net: RNN,
    x: ArrayLike,
    dh: ArrayLike,
    *,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    wrt: Iterable[str] | str = ("w1", "w2", "b"),
    per_sequence: bool = False,
) -> Gradient:
    """Back-propagation through time of the upstream gradient ``dh``."""
    wanted = wanted_fields(wrt, ("w1", "w2", "b", "x", "h0"))
    upstream = sequence_array("dh", dh)
    job = sequences(net, x, h0=h0, lengths=lengths, others=(upstream,))
    arrays = _back_propagate(job, *split_upstream(job, upstream))
    return collect(job, _sum_batch(arrays, per_sequence), wanted, per_sequence)


def loss_and_grad(
    net: RNN,
    x: ArrayLike,
    y: ArrayLike,
    *,
    loss: str = "mse",
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    wrt: Iterable[str] | str | None = None,
    per_sequence: bool = False,
) -> tuple[FloatArray, Gradient]:
    """Mean squared error of the predictions, and its gradients."""
    choice("loss", loss, ("mse",))
    target = sequence_array("y", y)
    job = sequences(net, x, h0=h0, lengths=lengths, others=(target,))
    weights = job.weight_names
    wanted = wanted_fields(weights if wrt is None else wrt, (*weights, "x", "h0"))

    target = job.full("y", target, "KBTO")
    _, after, _ = _unroll(job)
    count = max(1, job.predictions)
    error = np.where(_within(job), _readout(job, after) - target, 0)
    dy = 2 * error / count
    # Without a read-out the predictions are the states, and so are their gradients.
    dh = np.einsum("koh,kbto->kbth", job.weights.w3, dy) if job.weights.w3.size else dy
    arrays = _back_propagate(job, dh, np.zeros_like(job.h0)) | {
        "loss": (error * error / count).sum(axis=(2, 3)),
        "w3": np.einsum("kbto,kbth->kboh", dy, after),
        "b3": dy.sum(axis=2),
    }
    arrays = _sum_batch(arrays, per_sequence)
    value = job.visible(arrays["loss"], "KB" if per_sequence else "K")
    return value, collect(job, arrays, wanted, per_sequence)


def influence(
    net: RNN,
    x: ArrayLike,
    *,
    v: ArrayLike | None = None,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
) -> Scaled:
    """Derivative of v . y_T by every input, carried as Scaled numbers from step to step."""
    job = sequences(net, x, h0=h0, lengths=lengths)
    by_x, _ = _influence(job, job.output_seed(v))
    return Scaled(job.visible(by_x.mantissa, "KBTX"), job.visible(by_x.exponent, "KBTX"))


def diagnose(
    net: RNN,
    x: ArrayLike,
    *,
    v: ArrayLike | None = None,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
) -> Diagnosis:
    """All of the diagnosis."""
    job = sequences(net, x, h0=h0, lengths=lengths)
    seed = job.output_seed(v)
    _, after, _ = _unroll(job)
    by_x, _ = _influence(job, seed)
    windows = batch_lengths(job.lengths)
    sums = _sums(_growth(job, 1), job.lengths, windows)
    growth = largest(sums, job.lengths, windows, job.net.hidden_size > 1)
    return diagnosis(job, by_x, after, growth)


def lyapunov(
    net: RNN,
    x: ArrayLike,
    k: int = 1,
    transient: int = 0,
    h0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    local: int | None = None,
) -> Lyapunov:
    """Exponents by a QR decomposition each step; of layers only what floats can hold."""
    job = sequences(net, x, h0=h0, lengths=lengths)
    growth = _growth(job, k)[:, :, transient:]
    steps = np.maximum(job.lengths - transient, 0)
    windows = batch_lengths(steps) if local is None else np.full(len(steps), local)
    sums = _sums(growth, steps, windows)
    rates = None if local is None else local_rates(sums, steps, local)
    estimate = Estimate.of(sums, steps, windows)
    return lyapunov_result(job, estimate, np.broadcast_to(steps, job.size("KB")), rates)


def _sums(growth: FloatArray, steps: FloatArray, windows: FloatArray) -> FloatArray:
    """Sums (K, B, W, k) of growth (K, B, T, k) over windows of the sequences."""
    count = int(np.max(-(-steps // windows), initial=0))
    sums = np.zeros((*growth.shape[:2], count, growth.shape[3]))
    for i in range(len(steps)):
        for t in range(steps[i]):
            sums[:, i, t // windows[i]] += growth[:, i, t]
    return sums


def _growth(job: Sequences, k: int) -> FloatArray:
    """log of the diagonal of R in D W2 Q = Q' R of each step (K, B, T, k)."""
    z, _, _ = _unroll(job)
    w2 = job.weights.w2.astype(np.float64)
    slopes = derivative_scaled(job.net.activation, z)
    if job.net.hidden_size == 1:
        return np.asarray((slopes * w2[..., None]).log())
    basis = directions(job.net.hidden_size)[:k].T
    q = np.broadcast_to(basis, (*job.size("KB"), *basis.shape))
    growth = np.zeros((*job.size("KBT"), k))
    for t in range(z.shape[2]):
        slope = slopes.to_float()[:, :, t, :, None]
        terms = slope * (abs(w2[:, None]) @ abs(q))
        q, diagonal = _factorise(slope * (w2[:, None] @ q), terms)
        with np.errstate(divide="ignore"):
            growth[:, :, t] = np.log(diagonal)
    return growth


def _factorise(matrix: FloatArray, terms: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Q and |R|'s diagonal of matrices (K, B, H, k) that are sums of absolute ``terms``.

    The largest rows first: a reflection is then as exact for each row as for the largest. What
    is left of a column that depends on those before it is 0, but for the rounding of its terms.
    """
    rows = np.argsort(-terms.max(axis=-1), axis=-1, kind="stable")[..., None]
    q, r = np.linalg.qr(np.take_along_axis(matrix, rows, axis=-2))
    terms = np.take_along_axis(terms, rows, axis=-2)
    back = np.take_along_axis(q, np.argsort(rows, axis=-2), axis=-2)
    diagonal = abs(np.diagonal(r, axis1=-2, axis2=-1))
    left = np.hypot.accumulate(terms[..., ::-1, :], axis=-2)[..., ::-1, :]
    rounding = matrix.shape[-2] * WORKING_PRECISION
    bound = rounding * np.diagonal(left, axis1=-2, axis2=-1)
    return back, np.where(diagonal <= bound, 0.0, diagonal)


def _unroll(job: Sequences) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Pre-activations and states (K, B, T, H), 0 past a sequence's length, and the last state."""
    w1, w2, b, _, _ = job.weights
    h = job.h0
    z, states = np.zeros(job.size("KBTH"), job.dtype), np.zeros(job.size("KBTH"), job.dtype)
    for t in range(job.x.shape[1]):
        running = (t < job.lengths)[:, None]
        z_t = np.einsum("khf,bf->kbh", w1, job.x[:, t]) + b[:, None]
        z_t = z_t + np.einsum("khj,kbj->kbh", w2, h)
        h = np.where(running, activate(job.net.activation, z_t), h)
        z[:, :, t] = np.where(running, z_t, 0)
        states[:, :, t] = np.where(running, h, 0)
    return z, states, h


def _back_propagate(
    job: Sequences, dstates: FloatArray, dlast: FloatArray
) -> dict[str, FloatArray]:
    """Gradients of each net and sequence (K, B, ...), summed over time."""
    w1, w2, _, _, _ = job.weights
    z, after, _ = _unroll(job)
    before = np.concatenate([job.h0[:, :, None], after], axis=2)
    dz, dh = np.zeros_like(z), dlast
    for t in reversed(range(job.x.shape[1])):
        running = (t < job.lengths)[:, None]
        slope = derivative(job.net.activation, z[:, :, t])
        dz[:, :, t] = np.where(running, (dh + dstates[:, :, t]) * slope, 0)
        dh = np.where(running, np.einsum("khj,kbh->kbj", w2, dz[:, :, t]), dh)
    x = np.where(_within(job)[0], job.x, 0)
    return {
        "w1": _outer(dz, np.broadcast_to(x, (len(dz), *x.shape))),
        "w2": _outer(dz, before[:, :, :-1]),
        "b": dz.sum(axis=2),
        "x": np.einsum("khf,kbth->kbtf", w1, dz),
        "h0": dh,
    }


def _outer(dz: FloatArray, vector: FloatArray) -> FloatArray:
    """Sum over time of dz vector^T; an exact 0 in dz adds nothing, even where vector is inf."""
    with np.errstate(invalid="ignore"):
        product = dz[..., :, None] * vector[..., None, :]
    return np.asarray(np.where(dz[..., :, None] == 0, 0, product).sum(axis=2))


def _influence(job: Sequences, seed: FloatArray) -> tuple[Scaled, Scaled]:
    """d(seed . h_T)/dx (K, B, T, F) and d(seed . h_T)/dh_0 (K, B, H)."""
    w1, w2, _, _, _ = job.weights
    z, _, _ = _unroll(job)
    dh = Scaled(np.broadcast_to(seed[:, None], job.h0.shape))
    mantissa, exponent = np.zeros(job.size("KBTF")), np.zeros(job.size("KBTF"))
    for t in reversed(range(job.x.shape[1])):
        running = (t < job.lengths)[:, None]
        dz = dh * derivative_scaled(job.net.activation, z[:, :, t])
        dx = (dz[..., None] * w1[:, None]).sum(axis=2)
        mantissa[:, :, t] = np.where(running, dx.mantissa, 0)
        exponent[:, :, t] = dx.exponent
        earlier = (dz[..., None] * w2[:, None]).sum(axis=2)
        dh = Scaled(
            np.where(running, earlier.mantissa, dh.mantissa),
            np.where(running, earlier.exponent, dh.exponent),
        )
    return Scaled(mantissa, exponent), dh


def _readout(job: Sequences, states: FloatArray) -> FloatArray:
    if not job.net.has_readout:
        return states
    _, _, _, w3, b3 = job.weights
    return np.einsum("koh,kbth->kbto", w3, states) + b3[:, None, None]


def _within(job: Sequences) -> FloatArray:
    """Whether a step is within its sequence's length (1, B, T, 1)."""
    return (np.arange(job.x.shape[1]) < job.lengths[:, None])[None, :, :, None]


def _sum_batch(arrays: dict[str, FloatArray], per_sequence: bool) -> dict[str, FloatArray]:
    if per_sequence:
        return arrays
    return {
        name: array if name in ("x", "h0") else array.sum(axis=1) for name, array in arrays.items()
    }
