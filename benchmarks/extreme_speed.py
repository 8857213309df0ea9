"""Time over that at W2 = 0.9, at extreme W2: ``python -m benchmarks.extreme_speed``.

Prints the tables of ``docs/extremes.md``, draws its picture into a folder that is named, and tracks
the worst ratios. Both times of a ratio are measured in turns, so that a machine that slows down
slows both.
"""

import sys
import time
from pathlib import Path

import numpy as np

import fastrnn

from .cases import Benchmark, named, normal, reduced

ORDINARY = 0.9
ROUNDS = 5
ACTIVATIONS = ("tanh", "sigmoid", "relu", "identity")
DTYPES = ("float32", "float64")
# Sizes of W2 of a neuron; of a layer, W2 is normal, times a gain over the root of its units.
SIZES = (1e-300, 1e-30, 1e-3, 5.0, 1e3, 1e10, 1e100, 1e300)
NEURON = 256, 500
GAINS = (0.1, 5.0, 30.0, 1e4, 1e10)
UNITS = (8, 32, 128)
LAYER = 32, 200


def _last(net, x, y):
    return fastrnn.backward(net, x, y[:, -1], workers=1)


VERBS = {
    "loss and gradient": lambda net, x, y: fastrnn.loss_and_grad(net, x, y, workers=1),
    "the same, scaled": lambda net, x, y: fastrnn.loss_and_grad(net, x, y, scaled=True, workers=1),
    "gradient of the last state": _last,
    "influence": lambda net, x, y: fastrnn.influence(net, x, workers=1),
}


def neuron(activation, dtype, w2):
    """A neuron and its arrays."""
    number = np.dtype(dtype).type
    net = fastrnn.RNN(number(1), number(w2), activation=activation)
    return net, *normal(2, *NEURON, dtype=dtype)


def layer(activation, dtype, units, gain):
    """A layer and its arrays."""
    w1, w2 = normal(units, 4, dtype=dtype), normal(units, units, dtype=dtype)
    b = np.zeros(units, dtype)
    net = fastrnn.RNN(w1, w2 * np.dtype(dtype).type(gain / units**0.5), b, activation=activation)
    return net, normal(*LAYER, 4, dtype=dtype), normal(*LAYER, units, dtype=dtype)


def ratio(verb, extreme, ordinary):
    """Time of a verb over that of an ordinary net."""

    def seconds(case):
        began = time.perf_counter()
        VERBS[verb](*case)
        return time.perf_counter() - began

    for case in (ordinary, extreme):
        seconds(case)
    both = np.median([[seconds(case) for case in (ordinary, extreme)] for _ in range(ROUNDS)], 0)
    return float(both[1] / both[0])


def sizes(dtype):
    """Those of W2 that are numbers of a type."""
    return [
        size for size in SIZES if float(np.finfo(dtype).tiny) <= size <= float(np.finfo(dtype).max)
    ]


def of_neuron(verb, activation, dtype, size):
    """The larger ratio of both signs."""
    ordinary = neuron(activation, dtype, ORDINARY)
    return max(ratio(verb, neuron(activation, dtype, s * size), ordinary) for s in (1, -1))


def of_layer(verb, activation, dtype, units, gain):
    """The ratio of a layer."""
    ordinary = layer(activation, dtype, units, ORDINARY)
    return ratio(verb, layer(activation, dtype, units, gain), ordinary)


class ExtremeSpeed(Benchmark):
    """The worst ratio over all sizes of W2."""

    param_names = ("activation", "dtype")
    params = (reduced(1, ["identity", "tanh"]), list(DTYPES))

    @named("Loss and gradient at extreme W2: time over that at 0.9, at most", "ratio")
    def track_worst_ratio(self, activation, dtype):
        some = reduced(4, sizes(dtype))
        return max(of_neuron("loss and gradient", activation, dtype, size) for size in some)


class ExtremeSpeedOfLayers(Benchmark):
    """The same of layers, over all gains."""

    param_names = ("activation", "units")
    params = (["tanh", "relu"], reduced(1, [32, 8]))

    @named("Loss and gradient of a layer at extreme W2: time over that at 0.9, at most", "ratio")
    def track_worst_ratio(self, activation, units):
        some = reduced(2, [30.0, 1e10, 1e4])
        return max(of_layer("loss and gradient", activation, "float32", units, g) for g in some)


def main():
    """Print the tables, and draw the picture where a folder is named."""
    rows = {
        (verb, activation, dtype): [of_neuron(verb, activation, dtype, s) for s in sizes(dtype)]
        for dtype in DTYPES
        for activation in ACTIVATIONS
        for verb in VERBS
    }
    layers = {
        (verb, activation, units): [
            max(of_layer(verb, activation, dtype, units, gain) for dtype in DTYPES)
            for gain in GAINS
        ]
        for activation in ("tanh", "relu")
        for units in UNITS
        for verb in VERBS
    }
    _print(
        SIZES,
        {
            f"{activation}, {dtype}": [""] * (SIZES.index(sizes(dtype)[0]))
            + [f"{max(column):.1f}" for column in _of_verbs(rows, activation, dtype)]
            for dtype in DTYPES
            for activation in ACTIVATIONS
        },
    )
    _print(
        GAINS,
        {
            f"{activation}, {units} units": [
                f"{max(column):.1f}" for column in _of_verbs(layers, activation, units)
            ]
            for activation in ("tanh", "relu")
            for units in UNITS
        },
    )
    for verb in VERBS:
        worst = [
            max(max(r) for key, r in table.items() if key[0] == verb) for table in (rows, layers)
        ]
        print(f"{verb}: at most {worst[0]:.1f} (neurons), {worst[1]:.1f} (layers)")
    if len(sys.argv) > 1:
        _draw(rows, layers, Path(sys.argv[1]) / "extreme-speed.png")


def _of_verbs(rows, *kind):
    return list(zip(*(row for key, row in rows.items() if key[1:] == kind), strict=True))


def _print(heads, rows):
    print("| |" + "".join(f" {head:.0e} |" for head in heads))
    print("|---" * (len(heads) + 1) + "|")
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells + [""] * (len(heads) - len(cells))) + " |")
    print()


def _draw(rows, layers, path):
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 3.4), sharey=True, layout="constrained", width_ratios=(3, 2)
    )
    for activation in ACTIVATIONS:
        columns = _of_verbs(rows, activation, "float64")
        left.plot(np.log10(SIZES), [max(c) for c in columns], "o-", label=activation, ms=3)
    for activation, dashes in (("tanh", "-"), ("relu", "--")):
        for units, shade in zip(UNITS, ("#9ecae1", "#4292c6", "#08306b"), strict=True):
            columns = _of_verbs(layers, activation, units)
            right.plot(
                np.log10(GAINS), [max(c) for c in columns], dashes, marker="o", ms=3, color=shade,
                label=f"{activation}, H = {units}",
            )  # fmt: skip
    of_float64 = [row for key, row in rows.items() if key[2] == "float64"]
    worst = [max(max(row) for row in table) for table in (of_float64, layers.values())]
    left.set(
        title=f"Neurons, float64: at most {worst[0]:.1f}", xlabel="log10 |W2|",
        ylabel="time over that at W2 = 0.9", ylim=(0, 10),
    )  # fmt: skip
    right.set(title=f"Layers: at most {worst[1]:.1f}", xlabel="log10 of the gain of W2")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
        axes.axhline(1, color="0.7", lw=0.8, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
