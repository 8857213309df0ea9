"""Time over that at W2 = 0.9, at extreme W2: ``python -m benchmarks.extreme_speed``.

Prints the table of ``docs/extremes.md``, and tracks its worst ratio. Both are measured in turns, so
that a machine that slows down slows both.
"""

import time

import numpy as np

import fastrnn

from .cases import Benchmark, named, normal, reduced

SIZES = (1e-300, 1e-30, 1e-3, 5.0, 1e3, 1e10, 1e100, 1e300)
ORDINARY = 0.9
BATCH_SIZE, STEPS = 256, 500
ROUNDS = 5
KINDS = [
    (activation, dtype) for dtype in ("float32", "float64") for activation in ("tanh", "identity")
]


def ratio(activation, dtype, w2):
    """Time of loss and gradient at W2 over that at W2 = 0.9."""
    number = np.dtype(dtype).type
    x, y = normal(2, BATCH_SIZE, STEPS, dtype=dtype)

    def seconds(net):
        began = time.perf_counter()
        fastrnn.loss_and_grad(net, x, y, workers=1)
        return time.perf_counter() - began

    nets = [fastrnn.RNN(number(1), number(size), activation=activation) for size in (ORDINARY, w2)]
    for net in nets:
        seconds(net)
    ordinary, extreme = np.median([[seconds(net) for net in nets] for _ in range(ROUNDS)], axis=0)
    return float(extreme / ordinary)


def sizes(dtype):
    """Those of W2 that are numbers of a type."""
    return [
        size for size in SIZES if float(np.finfo(dtype).tiny) <= size <= float(np.finfo(dtype).max)
    ]


def worst(activation, dtype, w2):
    """The larger ratio of both signs."""
    return max(ratio(activation, dtype, sign * w2) for sign in (1, -1))


class ExtremeSpeed(Benchmark):
    """The worst ratio over all sizes of W2."""

    param_names = ("activation", "dtype")
    params = (reduced(1, ["identity", "tanh"]), ["float32", "float64"])

    @named("Loss and gradient at extreme W2: time over that at 0.9, at most", "ratio")
    def track_worst_ratio(self, activation, dtype):
        return max(worst(activation, dtype, size) for size in sizes(dtype))


def main():
    """Print the table."""
    print("| |" + "".join(f" {size:.0e} |" for size in SIZES))
    print("|---" * (len(SIZES) + 1) + "|")
    for activation, dtype in KINDS:
        known = sizes(dtype)
        cells = [f"{worst(activation, dtype, s):.1f}" if s in known else "" for s in SIZES]
        print(f"| {activation}, {dtype} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
