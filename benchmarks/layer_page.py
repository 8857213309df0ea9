"""The page about layers beside others, of what ``benchmarks.peers --grid --json`` measured.

``python -m benchmarks.layer_page FIGURES DATE MACHINE`` writes ``docs/layers.md`` and ``.png``.
"""

import json
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
KINDS = {"forward": "forward", "gradient": "forward and gradient"}
# Okabe and Ito's colours, which all eyes tell apart, for batch sizes.
COLOURS = {1: "#0072B2", 16: "#E69F00", 64: "#009E73", 256: "#CC79A7"}
MARKERS = {1: "o", 16: "s", 64: "^", 256: "D"}


def draw(cells, path):
    """Times as fast as the best peer, against H."""
    from matplotlib import pyplot as plt  # not in the environments of asv, which imports all here

    dtypes = list(dict.fromkeys(cell["dtype"] for cell in cells))
    figure, axes = plt.subplots(
        2, len(dtypes), figsize=(9, 6.5), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for row, (kind, title) in zip(axes, KINDS.items(), strict=True):
        for ax, dtype in zip(row, dtypes, strict=True):
            for batch_size, colour in COLOURS.items():
                some = [c for c in cells if (c["dtype"], c["batch_size"]) == (dtype, batch_size)]
                ax.plot(
                    [c["hidden_size"] for c in some], [c[f"{kind}_ratio"] for c in some],
                    color=colour, marker=MARKERS[batch_size], label=f"B = {batch_size}",
                )  # fmt: skip
            ax.axhline(1, color="black", linewidth=1)
            ax.set(title=f"{title}, {dtype}", xscale="log", yscale="log")
            ax.set_xticks([2, 4, 8, 16, 32, 64, 128, 256, 512], minor=False)
            ax.set_xticks([], minor=True)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.set_yticks([0.2, 0.5, 1, 2, 5, 10])
            ax.yaxis.set_major_formatter("{x:g}")
            ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("hidden units H")
    for row in axes:
        row[0].set_ylabel("times as fast as the best peer")
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)


def microseconds(value):
    return f"{value / 1000:.3g}"


def table(cells):
    """Rows of Markdown, a cell each."""
    yield (
        "| | H | B | "
        + " | ".join(
            f"{title}: fastrnn, µs | best peer, µs | times as fast" for title in KINDS.values()
        )
        + " |"
    )
    yield "|---|---|---|" + "---|" * 6
    for cell in cells:
        row = [cell["dtype"], str(cell["hidden_size"]), str(cell["batch_size"])]
        for kind in KINDS:
            peers = {name: ns for name, ns in cell[kind].items() if not name.startswith("fastrnn")}
            best = min(peers, key=peers.get)
            own = min(ns for name, ns in cell[kind].items() if name not in peers)
            row += [
                microseconds(own), f"{microseconds(peers[best])} ({best})",
                f"{cell[f'{kind}_ratio']:.1f}",
            ]  # fmt: skip
        yield "| " + " | ".join(row) + " |"


def multiply_table(rates):
    """Shares of NumPy's multiply rate."""
    names = [name for name in rates["float32"] if name != "numpy"]
    yield "| | NumPy, GFLOP/s | " + " | ".join(f"{name}" for name in names) + " |"
    yield "|---|---|" + "---|" * len(names)
    for dtype, found in rates.items():
        shares = (f"{found[name] / found['numpy']:.2f}" for name in names)
        yield f"| {dtype} | {found['numpy']:.0f} | " + " | ".join(shares) + " |"


def main():
    path, date, machine = sys.argv[1:]
    figures = json.loads(Path(path).read_text())
    cells = figures["cells"]
    draw(cells, DOCS / "layers.png")
    lines = [
        "# Hidden layers beside PyTorch, JAX, ONNX Runtime and NumPy",
        "",
        "![Times as fast as the best of the four, against the number of hidden units](layers.png)",
        "",
        "Microseconds a step of all B sequences of a layer of H hidden units and one input, tanh, "
        "all states stored; gradient: of W1, W2 and b, of the mean squared distance of the states "
        "from targets. Medians, two threads, all in one run, interleaved; fastrnn with the better "
        f"of two memory layouts. Made by `python -m benchmarks.peers --grid --json` and "
        f"`python -m benchmarks.layer_page` on {date}, on {machine}.",
        "",
        *table(cells),
        "",
        "Of the rate at which NumPy multiplies large matrices (2048 by 2048, two threads), layers "
        "with B = 64 reach, counting the products of a step alone (one forward, three with "
        "gradient):",
        "",
        *multiply_table(figures["machine"]["multiply"]),
    ]
    (DOCS / "layers.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
