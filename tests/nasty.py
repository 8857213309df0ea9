"""Random neurons and inputs built to be nasty, and their true gradients in mpmath.

`case(seed)` makes one: errors that are exactly 0, latched states, NaN and inf in the padding, dh
that is 0 but at a few steps, sequences of no step or one, magnitudes from 1e-300 to 1e300 within a
sequence, relu dead and alive, inputs that all but undo W2. `failures(case)` holds what the verbs
find against the truth along the computed states, and `depends_on_others(case)` whose bits a batch
changes. ``python -m tests.nasty FIRST COUNT`` runs as many as wanted.
"""

import sys
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np

import fastrnn
from benchmarks.exact import DIGITS, derivative

# Of promise N3.
C = 8
SUMS = ("w1", "w2", "b", "w3", "b3", "loss")
# How fast the logarithm of f' changes with z.
STEEPNESS = {"tanh": 2, "sigmoid": 1, "relu": 0, "identity": 0}


@dataclass(frozen=True)
class Case:
    """A neuron over B sequences; ``other`` is y where ``fused``, else dh."""

    seed: int
    net: fastrnn.RNN
    x: np.ndarray
    h0: np.ndarray
    lengths: np.ndarray
    other: np.ndarray
    fused: bool

    def __str__(self):
        kind = "loss_and_grad" if self.fused else "backward"
        return f"seed {self.seed}: {kind} of {self.net} {self.x.dtype} {self.x.shape}"


def case(seed: int) -> Case:
    """A random one."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(rng.choice(["float32", "float64"]))
    decades = 30 if dtype == np.float32 else 290
    activation = str(rng.choice(["tanh", "sigmoid", "relu", "identity"]))

    def weight(mild):
        if rng.random() < mild:
            return rng.choice([0.3, 0.9, 1.0, 1.1, 2.0, 5.0, 20.0, 90.5]) * rng.choice([-1, 1])
        return 10.0 ** rng.uniform(-decades, decades) * rng.choice([-1, 1]) * (rng.random() > 0.05)

    options: dict[str, Any] = {"activation": activation}
    if rng.random() < 0.4:
        options |= {"w3": dtype.type(weight(0.6)), "b3": dtype.type(rng.choice([0.0, 0.5]))}
    b = dtype.type(rng.choice([0.0, 0.0, 0.3, -2.0, 51.5]))
    w1, w2 = dtype.type(weight(0.8)), dtype.type(weight(0.6))
    if rng.random() < 0.3:
        w2 = dtype.type(rng.choice([1.5, 31.7, 50.0, 1e3, 1e6, 1e10, 1e-3]) * rng.choice([-1, 1]))
    net = fastrnn.RNN(w1, w2, b, **options)
    batch_size = int(rng.choice([1, 2, 3, 17]))
    steps = int(rng.choice([1, 2, 31, 33, 70, 120, 200]))
    x = _series(rng, (batch_size, steps), decades).astype(dtype)
    if rng.random() < 0.1 and abs(float(w2)) < float(np.finfo(dtype).max) * abs(float(w1)):
        # Saturated and not, by turns.
        x = (-(abs(w2) - rng.uniform(0, 25, x.shape)) / w1).astype(dtype)
    h0 = np.where(rng.random(batch_size) < 0.5, 0, rng.standard_normal(batch_size)).astype(dtype)
    h0 *= dtype.type(rng.choice([1.0, 1.0, 10.0 ** (0.8 * decades)]))
    lengths = np.full(batch_size, steps)
    if rng.random() < 0.4:
        lengths = rng.integers(0, steps + 1, batch_size)
    fused = bool(rng.random() < 0.6)
    other = _series(rng, (batch_size, steps), decades).astype(dtype)
    if fused and rng.random() < 0.4:
        own = fastrnn.predict(net, x, h0=h0, lengths=lengths)
        masked = np.isfinite(own) & (rng.random((batch_size, steps)) < rng.choice([0.3, 0.95, 1.0]))
        other = np.where(masked, own, other)
    beyond = np.arange(steps) >= lengths[:, None]
    x[beyond], other[beyond] = rng.choice([0, np.nan, np.inf]), rng.choice([0, np.nan, np.inf])
    return Case(seed, net, x, h0, lengths, other, fused)


def _series(rng, shape, decades):
    values = rng.standard_normal(shape)
    kind = rng.choice(["plain", "plain", "sparse", "zero", "wide", "small", "large", "last"])
    if kind == "sparse":
        values *= 20 * (rng.random(shape) < 0.05)
    elif kind == "zero":
        values *= 0
    elif kind == "last":
        values[:, :-1] = 0
    elif kind == "wide":
        values *= 10.0 ** (
            rng.uniform(-decades / 2, decades / 2, shape) * (rng.random(shape) < 0.1)
        )
    elif kind in ("small", "large"):
        values *= 10.0 ** (decades / 3 * (1 if kind == "large" else -1))
    return values


@dataclass
class Truth:
    """Values, sizes of all terms and how often they were rounded, of one sequence."""

    sums: dict[str, Any]
    sizes: dict[str, Any]
    x: list[Any]
    x_sizes: list[Any]
    h0: Any
    h0_size: Any
    roundings: Any


def truth(case: Case, states: fastrnn.Scaled, i: int) -> Truth:
    """The gradients of sequence i along the states."""
    net, steps = case.net, int(case.lengths[i])
    w1, w2, b = (mp.mpf(float(np.ravel(w)[0])) for w in (net.w1, net.w2, net.b))
    w3, b3 = mp.mpf(1), mp.mpf(0)
    if net.w3 is not None:
        w3, b3 = mp.mpf(float(np.ravel(net.w3)[0])), mp.mpf(float(np.ravel(net.b3)[0]))
    x = [mp.mpf(float(v)) for v in case.x[i, :steps]]
    other = [mp.mpf(float(v)) for v in case.other[i, :steps]]
    h = [mp.mpf(float(case.h0[i]))]
    for t in range(steps):
        m, e = float(states.mantissa[i, t]), float(states.exponent[i, t])
        h.append(mp.ldexp(mp.mpf(m), int(e)))
    sums, sizes = ({name: mp.mpf(0) for name in SUMS} for _ in range(2))
    dh = dh_size = mp.mpf(0)
    all_dx, dx_sizes, roundings = [], [], mp.mpf(8)
    steepness = STEEPNESS[net.activation]
    for t in reversed(range(steps)):
        z = w1 * x[t] + w2 * h[t] + b
        z_size = abs(w1 * x[t]) + abs(w2 * h[t]) + abs(b)
        roundings += 1 + steepness * z_size
        up, up_size = other[t], abs(other[t])
        if case.fused:
            error = w3 * h[t + 1] + b3 - other[t]
            size = abs(w3 * h[t + 1]) + abs(b3) + abs(other[t])
            if net.w3 is None and error == 0:
                # Floats find it to be exactly 0 too.
                size = mp.mpf(0)
            for name, value, own in (
                ("w3", error * h[t + 1], size * abs(h[t + 1])),
                ("b3", error, size),
                ("loss", error * error / 2, size * size),
            ):
                sums[name] += value
                sizes[name] += own
            up, up_size = w3 * error, abs(w3) * size
        slope = derivative(net.activation, z)
        info = np.finfo(case.x.dtype)
        if net.activation == "relu" and abs(z) <= float(info.eps) * z_size + float(info.tiny):
            # Rounding decides on which side of 0 it is.
            slope = mp.mpf(h[t + 1] > 0)
        dz, dz_size = (dh + up) * slope, (dh_size + up_size) * slope
        for name, factor in (("w1", x[t]), ("w2", h[t]), ("b", mp.mpf(1))):
            sums[name] += dz * factor
            sizes[name] += dz_size * abs(factor)
        all_dx.append(w1 * dz)
        dx_sizes.append(abs(w1) * dz_size)
        dh, dh_size = w2 * dz, abs(w2) * dz_size
    return Truth(sums, sizes, all_dx[::-1], dx_sizes[::-1], dh, dh_size, roundings)


def failures(case: Case) -> list[str]:
    """What is wrong with the gradients of a case, plain and scaled."""
    options: dict[str, Any] = {"h0": case.h0, "lengths": case.lengths}
    states = fastrnn.forward(case.net, case.x, scaled=True, **options)
    names = [
        name for name in SUMS[:5] if (case.fused and (case.net.w3 is not None)) or name in SUMS[:3]
    ]
    options |= {"wrt": (*names, "x", "h0"), "per_sequence": True}
    found = {}
    for scaled in (True, False):
        if case.fused:
            loss, grad = fastrnn.loss_and_grad(
                case.net, case.x, case.other, scaled=scaled, **options
            )
            found[scaled] = {"loss": loss} | {n: getattr(grad, n) for n in options["wrt"]}
        else:
            grad = fastrnn.backward(case.net, case.x, case.other, scaled=scaled, **options)
            found[scaled] = {n: getattr(grad, n) for n in options["wrt"]}
    wrong = []
    scale = mp.mpf(1)
    with mp.workdps(DIGITS):
        if case.fused:
            scale = mp.mpf(2) / max(1, int(case.lengths.sum()))
        for i in range(len(case.x)):
            true = truth(case, states, i)
            values = {n: (true.sums[n], true.sizes[n]) for n in (*names, *(["loss"] * case.fused))}
            values["h0"] = true.h0, true.h0_size
            for name, (value, size) in values.items():
                _compare(case, found, name, (i,), scale * value, scale * size, true, wrong)
            for t in range(int(case.lengths[i])):
                _compare(
                    case,
                    found,
                    "x",
                    (i, t),
                    scale * true.x[t],
                    scale * true.x_sizes[t],
                    true,
                    wrong,
                )
    beyond = grad.out_of_range
    infinite = {n for n in options["wrt"] if np.isinf(found[False][n]).any()}
    if set(beyond) != infinite:
        wrong.append(f"out_of_range {beyond}, infinite {infinite}")
    return wrong


def depends_on_others(case: Case) -> list[int]:
    """Sequences whose gradients are other bits in the batch than alone, without padding."""
    names = ("w1", "w2", "b", "x", "h0")
    options: dict[str, Any] = {"wrt": names, "scaled": True, "per_sequence": True}
    every = fastrnn.backward(
        case.net, case.x, case.other, h0=case.h0, lengths=case.lengths, **options
    )
    changed = []
    for i, steps in enumerate(case.lengths.tolist()):
        own = slice(i, i + 1)
        x, dh = case.x[own, :steps], case.other[own, :steps]
        alone = fastrnn.backward(case.net, x, dh, h0=case.h0[own], **options)
        for name in names:
            ours, theirs = getattr(every, name)[i], getattr(alone, name)[0]
            ours = ours[:steps] if name == "x" else ours
            if not all(
                np.array_equal(getattr(ours, part), getattr(theirs, part), equal_nan=True)
                for part in ("mantissa", "exponent")
            ):
                changed.append(i)
                break
    return changed


def _compare(case, found, name, index, value, size, true, wrong):
    info = np.finfo(case.x.dtype)
    unit = C * float(info.eps) * true.roundings
    if unit > 0.1:
        return
    bound = unit * size
    scaled = found[True][name][index]
    m, e = float(scaled.mantissa), float(scaled.exponent)
    got = mp.ldexp(mp.mpf(m), int(e)) if np.isfinite(m) else mp.mpf(m)
    if not abs(got - value) <= bound:
        wrong.append(f"scaled {name}{index}: {mp.nstr(got, 9)}, true {mp.nstr(value, 9)}")
    plain = float(found[False][name][index])
    least, most = mp.mpf(float(info.smallest_subnormal)), mp.mpf(float(info.max))
    if abs(value) - bound > most * (1 + float(info.eps)):
        right = np.isinf(plain) and (plain > 0) == (value > 0)
    elif abs(value) + bound > most:
        right = np.isinf(plain) or abs(mp.mpf(plain) - value) <= bound
    else:
        right = np.isfinite(plain) and abs(mp.mpf(plain) - value) <= bound + least + abs(
            value
        ) * float(info.eps)
    if not right:
        wrong.append(f"plain {name}{index}: {plain}, true {mp.nstr(value, 9)}")


if __name__ == "__main__":
    first, count = map(int, sys.argv[1:])
    bad = 0
    for seed in range(first, first + count):
        one = case(seed)
        found = failures(one)
        if others := depends_on_others(one):
            found.append(f"sequences {others} depend on others")
        if found:
            bad += 1
            print(one, *found[:3], sep="\n    ", flush=True)
    print(f"{bad} of {count} wrong")
