"""Random jobs over the verbs and options, whose results are held against themselves bit for bit.

`job(seed)` makes a net, its inputs and a verb with options; `differences(job)` runs it in every way
that promise N5 says is the same: other layouts, threads and budgets, each sequence alone and
elsewhere in the batch, with other neighbours, and in parts. ``python -m tests.fuzz FIRST COUNT``
runs as many jobs as wanted and prints the seeds of those that differ.
"""

import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import fastrnn
from fastrnn import engine, reach
from fastrnn.gradient import AXES, split_upstream
from fastrnn.sequences import sequences
from tests import cases, long_doubles, tolerances

SIZES = (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 47, 64)
STEPS = (1, 2, 3, 17, 31, 32, 33, 65, 127, 128, 129, 333, 1000)
# Numbers of a job's states at most, so that each takes a fraction of a second.
MOST_STATES = 60_000
# Sequences of a batch at most: the factor from results of all to those of one.
SHARES = 64
WRT = ("w1", "w2", "b", "x", "h0")


@dataclass(frozen=True)
class Job:
    """A verb with its inputs; every array has its batch axis."""

    seed: int
    net: fastrnn.RNN
    x: np.ndarray  # (B, T[, F])
    h0: np.ndarray | None  # ([K,] B [, H])
    lengths: np.ndarray | None
    other: np.ndarray | None  # y or dh, by ``verb``
    verb: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self):
        net = self.net
        given = [name for name in ("h0", "lengths") if getattr(self, name) is not None]
        return (
            f"seed {self.seed}: {self.verb} {self.options} of {net} {self.x.dtype} "
            f"B={len(self.x)} T={self.x.shape[1]} {' '.join(given)}"
        )

    @property
    def batch_axis(self):
        return int(self.net.is_bank)

    @property
    def per_sequence(self):
        """Whether the weights' gradients and the loss have a batch axis."""
        return self.options.get("per_sequence", True)

    def run(self, **options) -> dict[str, np.ndarray]:
        """Results by name."""
        rest = {"h0": self.h0, "lengths": self.lengths, **self.options, **options}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return VERBS[self.verb](self, rest)

    def of_sequences(self, index, **changes):
        """The job of some sequences of the batch."""
        axis = self.batch_axis
        own = {
            "x": self.x[index],
            "lengths": None if self.lengths is None else self.lengths[index],
            "h0": None if self.h0 is None else self.h0.take(index, self.h0.ndim - self._state_axes),
            "other": None if self.other is None else self.other.take(index, axis),
        }
        return replace(self, **(own | changes))

    @property
    def _state_axes(self):
        """Axes of a state from the batch axis on."""
        return 1 if self.net.is_neuron else 2


def _scaled(prefix, value):
    return {f"{prefix}.mantissa": value.mantissa, f"{prefix}.exponent": value.exponent}


def _forward(job, options):
    found = fastrnn.forward(job.net, job.x, **options)
    return _scaled("states", found) if options.get("scaled") else {"states": found}


def _gradients(grad, scaled):
    found = {}
    for name in ("w1", "w2", "b", "w3", "b3", "x", "h0"):
        value = getattr(grad, name)
        if value is not None:
            found |= _scaled(name, value) if scaled else {name: value}
    return found


def _backward(job, options):
    grad = fastrnn.backward(job.net, job.x, job.other, **options)
    return _gradients(grad, options.get("scaled"))


def _loss_and_grad(job, options):
    loss, grad = fastrnn.loss_and_grad(job.net, job.x, job.other, **options)
    found = _gradients(grad, options.get("scaled"))
    return found | (_scaled("loss", loss) if options.get("scaled") else {"loss": loss})


def _lyapunov(job, options):
    found = fastrnn.lyapunov(job.net, job.x, **options)
    names = ("exponents", "stderr", "converged", "steps")
    return {name: getattr(found, name) for name in names}


def _jacobian_norms(job, options):
    found = fastrnn.jacobian_norms(job.net, job.x, **options)
    names = ("largest", "smallest", "frobenius")
    return {n: a for name in names for n, a in _scaled(name, getattr(found, name)).items()}


VERBS: dict[str, Callable[[Job, dict[str, Any]], dict[str, np.ndarray]]] = {
    "forward": _forward,
    "predict": lambda job, options: {"y": fastrnn.predict(job.net, job.x, **options)},
    "backward": _backward,
    "loss_and_grad": _loss_and_grad,
    "influence": lambda job, options: _scaled("x", fastrnn.influence(job.net, job.x, **options)),
    "lyapunov": _lyapunov,
    "jacobian_norms": _jacobian_norms,
}
WITH_MEMORY = ("backward", "loss_and_grad", "influence")


def job(seed: int) -> Job:
    """A random job."""
    rng = np.random.default_rng(seed)
    dtype = str(rng.choice(cases.DTYPES))
    net = _net(rng, dtype)
    batch_size = int(rng.choice([1, 2, 4, 8, 16, 32, 3, 5, 33, 40]))
    steps = int(rng.choice(STEPS))
    while batch_size * steps * net.bank_size * net.hidden_size > MOST_STATES:
        batch_size, steps = -(-batch_size // 2), max(1, steps * 2 // 3)
    magnitude = 10.0 ** rng.choice([0, 0, 0, -3, 2, 15])
    x = (magnitude * rng.standard_normal((batch_size, steps, net.input_size))).astype(dtype)
    x[rng.random(x.shape) < rng.choice([0, 0, 0.3])] = 0.0
    state = (*((net.bank_size,) if net.is_bank else ()), batch_size)
    state += () if net.is_neuron else (net.hidden_size,)
    h0 = rng.standard_normal(state).astype(dtype) if rng.random() < 0.4 else None
    lengths = None
    if rng.random() < 0.4:
        lengths = rng.integers(0, steps + 1, batch_size)
        lengths[rng.random(batch_size) < 0.3] = steps
    verb = str(rng.choice(list(VERBS)))
    options, other = _options(rng, verb, net, x, dtype, lengths is not None)
    x = x[..., 0] if net.is_neuron else x
    return Job(seed, net, x, h0, lengths, other, verb, options)


def _net(rng, dtype):
    activation = str(rng.choice(cases.ACTIVATIONS))
    bank = int(rng.choice([2, 3, 5, 17, 33])) if rng.random() < 0.4 else None
    far = 300 if dtype == "float64" else 30
    gain = 10.0 ** rng.choice([0, 0, 0, 0, -1, 1, 3, -3, 10, -20, far, -far])
    size = () if bank is None else (bank,)
    if rng.random() < 0.4:
        w1, w2, b, w3, b3 = (rng.standard_normal(size).astype(dtype) for _ in range(5))
        w2 = (w2 * gain).astype(dtype)
    else:
        h, f, o = int(rng.choice(SIZES)), int(rng.choice([1, 1, 2, 3, 17])), int(rng.choice([1, 3]))
        w1, w2, b = (
            rng.standard_normal(size + shape).astype(dtype) for shape in ((h, f), (h, h), (h,))
        )
        w2 = (w2 * (gain / np.sqrt(h))).astype(dtype)
        w3, b3 = (rng.standard_normal(size + shape).astype(dtype) for shape in ((o, h), (o,)))
    b = b * rng.integers(0, 2)
    if rng.random() < 0.5:
        return fastrnn.RNN(w1, w2, b.astype(dtype), activation=activation)
    return fastrnn.RNN(w1, w2, b.astype(dtype), activation=activation, w3=w3, b3=b3)


def _options(rng, verb, net, x, dtype, ragged):
    batch_size, steps, _ = x.shape
    bank = (net.bank_size,) if net.is_bank else ()
    if verb == "forward":
        return {"keep": str(rng.choice(["all", "last"])), "scaled": bool(rng.random() < 0.4)}, None
    if verb == "lyapunov":
        more = [{}, {"local": int(rng.integers(1, steps + 5))}, {"stderr": 0.3}]
        more.append({"transient": int(rng.integers(0, steps + 5))})
        k = int(rng.integers(1, 1 + min(3, net.hidden_size)))
        return {"k": k, **more[rng.integers(len(more))]}, None
    if verb == "jacobian_norms":
        return {"lags": np.arange(min(steps, 5))}, None
    if verb == "influence" and not net.is_neuron:
        return {"v": rng.standard_normal(net.output_size)}, None
    if verb in ("predict", "influence"):
        return {}, None
    options: dict[str, Any] = {
        "per_sequence": bool(rng.random() < 0.5), "scaled": bool(rng.random() < 0.4), "wrt": WRT,
    }  # fmt: skip
    unit = () if net.is_neuron else (net.hidden_size,)
    if verb == "backward":
        shape = (
            (*bank, batch_size, *unit) if rng.random() < 0.3 else (*bank, batch_size, steps, *unit)
        )
        dh = rng.standard_normal(shape) * (rng.random(shape) < rng.choice([1.0, 0.1]))
        return options, dh.astype(dtype)
    if not options["scaled"] and rng.random() < 0.4:
        options |= {"truncate": int(rng.integers(1, steps + 1)), "wrt": ("w1", "w2", "b")}
    out = () if net.is_neuron else (net.output_size,)
    return options, rng.standard_normal((*bank, batch_size, steps, *out)).astype(dtype)


def differences(job: Job) -> list[str]:
    """What differs, in words; nothing where all bits are the same."""
    whole = job.run(workers=1)
    found = []

    def compare(what, other, expected=whole):
        for name, array in expected.items():
            if array.dtype.kind == "f" and what in ("some", "alone"):
                # Of a number below the least normal one, a share is rounded.
                small = abs(array) < SHARES * np.finfo(array.dtype).tiny
                array = np.where(small & (array != other[name]), other[name], array)
            if not same_bits(array, other[name]):
                found.append(f"{what}: {name}, {_first(array, other[name])}")

    compare("two workers", job.run(workers=2))
    for name, arrange in LAYOUTS.items():
        other = None if job.other is None else arrange(job.other)
        compare(f"layout {name}", replace(job, x=arrange(job.x), other=other).run(workers=1))
    if job.verb in WITH_MEMORY:
        least = _least_memory(job)
        compare(f"memory {least}", job.run(workers=1, memory=least))
    rng = np.random.default_rng(job.seed)
    order = rng.permutation(len(job.x))
    some = order[: max(1, len(order) // 2)]
    for what, index in (("shuffled", order), ("some", some), ("alone", order[:1])):
        if not np.log2(_ratio(job, index)).is_integer():
            continue
        compare(what, job.of_sequences(index).run(workers=1), _take(job, whole, index))
    return found


def _ratio(job, index):
    """Factor from results of all sequences to those of some: the loss is a mean over all."""
    if job.verb != "loss_and_grad":
        return 1.0
    lengths = np.full(len(job.x), job.x.shape[1]) if job.lengths is None else job.lengths
    return max(1, lengths.sum()) / max(1, lengths[index].sum())


def _take(job, arrays, index):
    """What some sequences must have alone, by name."""
    taken = {}
    ratio = _ratio(job, index)
    for name, array in arrays.items():
        field_ = name.split(".")[0]
        if not job.per_sequence and field_ not in ("x", "h0"):
            continue
        own = array.take(index, job.batch_axis)
        if name.endswith("exponent"):
            mantissa = arrays[f"{field_}.mantissa"].take(index, job.batch_axis)
            own = np.where(mantissa == 0, own, own + np.log2(ratio))
        elif not name.endswith("mantissa") and ratio != 1.0:
            with np.errstate(over="ignore"):
                own = own * array.dtype.type(ratio)
        taken[name] = own
    return taken


def _least_memory(job):
    try:
        job.run(workers=1, memory=1)
    except ValueError as error:
        return int(re.search(r"at least (\d+) bytes", str(error))[1])
    return 1


def _strided(array):
    wide = np.zeros((*array.shape, 2), array.dtype)
    wide[..., 0] = array
    return wide[..., 0]


def _time_first(array):
    """The same array with its last but one axis outermost in memory."""
    return np.ascontiguousarray(array.T).T


def _reversed(array):
    back = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[back])[back]


LAYOUTS = {"time first": _time_first, "strided": _strided, "reversed": _reversed}


def same_bits(a, b):
    """Whether arrays agree in every bit; one NaN is as good as another."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool((a == b).all())
    bits = f"u{a.dtype.itemsize}"
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return bool(((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))).all())


def _first(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.shape} {a.dtype} and {b.shape} {b.dtype}"
    if a.dtype.kind == "f":
        wrong = ~((a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b)))
    else:
        wrong = a != b
    return f"{wrong.sum()} of {a.size}, as {a[wrong][0]!r} and {b[wrong][0]!r}"


def errors(job: Job) -> list[str]:
    """What is farther from the truth than rounding explains, in words.

    Gradients are held against those in long doubles along the computed states. Jobs whose states,
    or whose truth, leave the range of floats are left to `differences`.
    """
    if job.verb not in ("backward", "loss_and_grad", "influence") or "truncate" in job.options:
        return []
    truth = _truth(job)
    if truth is None:
        return []
    found, wrong = job.run(workers=1), []
    for name in sorted({name.split(".")[0] for name in found}):
        value, error = truth[name]
        if job.options.get("scaled") or job.verb == "influence":
            mantissa, power = found[f"{name}.mantissa"], found[f"{name}.exponent"]
            ours = np.ldexp(mantissa.astype(np.longdouble), power.astype(int))
        else:
            ours = found[name].astype(np.longdouble)
            largest = np.longdouble(np.finfo(found[name].dtype).max)
            value = np.where(abs(value) > largest, np.copysign(np.inf, value), value)
            error = error + np.finfo(found[name].dtype).tiny
        with np.errstate(invalid="ignore"):
            bad = ~((abs(ours - value) <= error) | (ours == value))
        if bad.any():
            first = np.argwhere(bad)[0].tolist()
            wrong.append(
                f"truth: {name}, {bad.sum()} of {bad.size}, at {first} {ours[bad][0]} instead of "
                f"{value[bad][0]} within {error[bad][0]}"
            )
    return wrong


def _truth(job):
    """Values and bounds of all gradients, as the caller sees them; None where they are unknown."""
    own = sequences(job.net, job.x, h0=job.h0, lengths=job.lengths, others=_others(job))
    states, _ = engine.forward(own, keep=True, workers=1)
    scaled = job.options.get("scaled") or job.verb == "influence"
    # Scaled gradients are those along states that floats would lose.
    if not np.isfinite(states).all() or (scaled and reach.forward(own, 1)[1].any()):
        return None
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        walk = long_doubles.walk(own, states)
        if walk is None:
            return None
        scale, sums = 1.0, {}
        dlast = np.zeros_like(own.h0)
        none = np.zeros(states.shape, np.longdouble)
        upstream = long_doubles.Bounded(none, none, none)
        if job.verb == "influence":
            seed = own.output_seed(job.options.get("v"))
            dlast = np.broadcast_to(seed[:, None], own.h0.shape)
        elif job.verb == "backward":
            above, dlast = split_upstream(own, job.other)
            within = (np.arange(own.x.shape[1]) < own.lengths[:, None])[None, :, :, None]
            above = np.where(within, above, 0).astype(np.longdouble)
            upstream = long_doubles.Bounded(above, abs(above), none)
        else:
            scale = np.longdouble(2) / max(1, own.predictions)
            sums, upstream = long_doubles.of_errors(own, states, own.full("y", job.other, "KBTO"))
        found = sums | long_doubles.back_propagate(own, walk, upstream, dlast)
        faded = _faded(own, found["x"].size) and not own.net.is_neuron
    if not all(np.isfinite(part).all() for bounded in found.values() for part in bounded):
        return None
    if ((found["x"].size > 0) & (found["x"].size < long_doubles.LEAST_SIZE)).any():
        return None
    if faded and not scaled:
        return None
    return {name: _seen(job, own, name, bounded, scale) for name, bounded in found.items()}


def _faded(own, size):
    """Whether some numbers on the way may have been too small for all of their digits."""
    least = np.finfo(own.dtype).tiny / np.finfo(own.dtype).eps
    return bool(((size > 0) & (size < least)).any())


def _others(job):
    return () if job.other is None else (job.other,)


def _seen(job, own, name, bounded, scale):
    """A value and its bound with the axes that the caller sees."""
    value, size, error = bounded
    axes = AXES.get(name, "")
    if job.per_sequence or name in ("x", "h0"):
        axes = "KB" + axes
    else:
        error = (error + len(own.x) * tolerances.eps(own.dtype) * size).sum(axis=1)
        value, size, axes = value.sum(axis=1), size.sum(axis=1), "K" + axes
    error = scale * (error + 3 * tolerances.eps(own.dtype) * size)
    return tuple(own.visible(array, axes) for array in (scale * value, error))


def main(first: int, count: int) -> None:
    """Run jobs and print what differs."""
    bad = 0
    for seed in range(first, first + count):
        own = job(seed)
        try:
            found = differences(own) + errors(own)
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"]
        if found:
            bad += 1
            print(own, *found, sep="\n    ", flush=True)
    print(f"{bad} of {count} jobs from seed {first} on differ")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
