"""What asv's own pages cannot show: ``python -m benchmarks.summary [RESULTS]`` after ``asv run``.

Writes ``docs/dashboard.md`` and its pictures from the results of the newest commit, and of the
ones before it for the history: errors against W2 for all libraries in one picture, speed and
memory in another.
"""

import ast
import itertools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / ".asv" / "results", ROOT / "docs"
# Okabe and Ito's colours, which all eyes tell apart.
COLOURS = {"fastrnn": "#0072B2", "PyTorch": "#E69F00", "JAX": "#009E73"}
MARKERS = {"fastrnn": "o", "PyTorch": "s", "JAX": "^"}
OTHER_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
FORWARD_AT_W2 = "forward.ForwardAtW2.track_forward_over_ordinary"
GRADIENT_AT_W2 = "gradient.LossAndGradAtW2.track_loss_and_grad_over_ordinary"
DIGITS_LOST = "others.InfluenceAtW2.track_influence_digits_lost"
GRADIENT_ERROR = "accuracy.GradientError.track_backward_error"
MEMORY = "gradient.LossAndGradMemory.peakmem_"
RANGE = "others.InfluenceRange.track_influence_"
JOBS = {
    "forward": "forward.ForwardCells.track_forward_nanoseconds",
    "loss and gradient": "gradient.LossAndGradCells.track_loss_and_grad_nanoseconds",
}
NEEDED = (
    FORWARD_AT_W2, GRADIENT_AT_W2, DIGITS_LOST, GRADIENT_ERROR, *JOBS.values(),
    MEMORY + "baseline", MEMORY + "loss_and_grad", RANGE + "decades_lost",
)  # fmt: skip
# Least error of a picture: a float64 has no more digits.
LEAST = 1e-16


def commits():
    """Hashes of the branch, oldest first."""
    command = ["git", "-C", str(ROOT), "rev-list", "--first-parent", "--reverse", "HEAD"]
    return subprocess.check_output(command, text=True).split()


def history(folder):
    """Results by commit, oldest first; of several environments that with most of them."""
    from asv.results import iter_results

    found = {}
    for result in iter_results(str(folder)):
        others = found.get(result.commit_hash)
        if others is None or len(result.get_all_result_keys()) > len(others.get_all_result_keys()):
            found[result.commit_hash] = result
    return {commit: found[commit] for commit in commits() if commit in found}


def values(result, name):
    """{parameters: value} of a benchmark, without what was skipped or failed."""
    if name not in result.get_all_result_keys():
        return {}
    params = result.get_result_params(name)
    places = itertools.product(*([ast.literal_eval(text) for text in axis] for axis in params))
    numbers = result.get_result_value(name, params)
    pairs = zip(places, numbers, strict=True)
    return {place: value for place, value in pairs if value is not None and value == value}


def line(found, chosen):
    """Points (first parameter, value) where the other parameters are as chosen; the worst."""
    points = {}
    for (first, *rest), value in found.items():
        if all(want in (None, have) for want, have in zip(chosen, rest, strict=True)):
            points[first] = max(value, points.get(first, value))
    return sorted(points), [points[first] for first in sorted(points)]


def w2_axis(ax):
    """Decades of W2, close ones apart from each other too."""
    ticks = [-300, -30, -3, -0.3, 0, 0.3, 3, 30, 300]
    ax.set_xscale("symlog", linthresh=0.1, linscale=0.4)
    labels = [f"$10^{{{tick:g}}}$" if tick else "1" for tick in ticks]
    ax.set_xticks(ticks, labels, minor=False)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("|W2|")
    ax.grid(alpha=0.3)


def draw_accuracy(result, figure):
    """Relative error of d h_100 / d x_1 against W2, of all libraries."""
    found = values(result, DIGITS_LOST)
    for ax, activation in zip(
        figure.subplots(1, 2, sharey=True), ("identity", "tanh"), strict=True
    ):
        for library, colour in reversed(COLOURS.items()):
            places, lost = line(found, (None, activation, library))
            errors = [LEAST * 10**digits for digits in lost]
            marker, width = MARKERS[library], 2.5 if library == "fastrnn" else 1.5
            ax.plot(places, errors, marker, ls="-", lw=width, ms=4, color=colour, label=library)
        ax.set(yscale="log", title=f"{activation}", ylim=(LEAST / 3, 6))
        w2_axis(ax)
    figure.axes[0].set_ylabel("error of ∂h_100/∂x_1\n1: nothing is right")
    figure.axes[0].legend(loc="center")


def draw_speed(result, figure):
    """Time of a step against W2, over that at an ordinary one."""
    lines = {
        "forward, float32": (FORWARD_AT_W2, (None, "float32")),
        "forward, float64": (FORWARD_AT_W2, (None, "float64")),
        "loss and gradient, float64": (GRADIENT_AT_W2, (None, False)),
        "the same, scaled: at any magnitude": (GRADIENT_AT_W2, (None, True)),
    }
    ax = figure.subplots()
    for (label, (name, chosen)), colour in zip(lines.items(), OTHER_COLOURS, strict=True):
        places, times = line(values(result, name), chosen)
        ax.plot(places, times, "o-", ms=4, color=colour, label=label)
    ax.set(yscale="log", ylim=(0.5, max(8 * ax.get_ylim()[1], 8)))
    ax.set_ylabel("time over that at W2 = 0.9")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend(ncols=2, loc="upper left", fontsize="small")
    w2_axis(ax)


def draw_memory(result, figure):
    """Peak memory of a gradient above that of its inputs, against T."""
    above = memory(result)
    ax = figure.subplots()
    for library, colour in COLOURS.items():
        steps, sizes = line(above, (library,))
        megabytes = [max(size / 1e6, 0.1) for size in sizes]
        ax.plot(steps, megabytes, marker=MARKERS[library], color=colour, label=library)
    ax.set(xscale="log", yscale="log", xlabel="steps T")
    ax.set_ylabel("MB above the inputs")
    ax.legend()
    ax.grid(alpha=0.3)


def memory(result):
    """Bytes above the inputs."""
    peaks = values(result, MEMORY + "loss_and_grad")
    held = values(result, MEMORY + "baseline")
    return {place: peak - held[place] for place, peak in peaks.items() if place in held}


def draw_history(results, figure):
    """Speed and error, commit by commit."""
    speed, error = figure.subplots(2, 1, sharex=True)
    labels = [commit[:7] for commit in results]
    at = range(len(labels))
    colours = iter(OTHER_COLOURS)
    for kind, name in JOBS.items():
        for job in ("1024 sequences", "256 nets, 16 sequences"):
            times = [values(r, name).get(("float32", job), float("nan")) for r in results.values()]
            speed.plot(at, times, "o-", ms=4, color=next(colours), label=f"{kind}, {job}")
    # Commits are compared by what all of them measured.
    errors = [values(result, GRADIENT_ERROR) for result in results.values()]
    common = set.intersection(*(set(found) for found in errors if found))
    for dtype, colour in zip(("float32", "float64"), OTHER_COLOURS, strict=False):
        worst = [
            max((found[p] for p in common if found and p[-1] == dtype), default=float("nan"))
            for found in errors
        ]
        error.plot(at, worst, "o-", ms=4, color=colour, label=dtype)
    error.axhline(8, color="black", lw=1, ls="--", label="promise: 8")
    speed.set_ylabel("ns a step and lane, float32")
    speed.set_ylim(0, 1.5 * speed.get_ylim()[1])
    error.set(yscale="log", xlabel="commit")
    error.set_ylabel("largest error of gradients\nat any W2, rounding units")
    error.set_xticks(list(at), labels, rotation=60, fontsize="small")
    for ax in (speed, error):
        ax.grid(alpha=0.3)
        ax.legend(ncols=2, fontsize="small", loc="upper left" if ax is speed else "center left")


def flatness(result, name, chosen):
    """The slowest W2 over the fastest."""
    times = line(values(result, name), chosen)[1]
    return f"{max(times) / min(times):.2f}" if times else "-"


def range_table(result):
    """Rows of Markdown: how much of the range of W2 has an answer."""
    yield "| | fastrnn | PyTorch | JAX |"
    yield "|---|---|---|---|"
    rows = {
        "decades of W2 without a right answer, of 601": ("decades_lost", "{:.0f}"),
        "of all answers inf or NaN": ("not_finite", "{:.1f} %"),
        "of all answers 0, inf or NaN": ("without_answer", "{:.1f} %"),
    }
    for label, (name, form) in rows.items():
        found = values(result, RANGE + name)
        cells = (
            form.format(found[library,]) if (library,) in found else "-" for library in COLOURS
        )
        yield f"| {label} | {' | '.join(cells)} |"


def memory_table(result):
    """Rows of Markdown: MB above the inputs."""
    above = memory(result)
    steps = sorted({place[0] for place in above})
    yield "| | " + " | ".join(f"T = {count:,}" for count in steps) + " |"
    yield "|---|" + "---|" * len(steps)
    for library in COLOURS:
        cells = (
            f"{above[count, library] / 1e6:.1f}" if (count, library) in above else "-"
            for count in steps
        )  # fmt: skip
        yield f"| {library}, MB | {' | '.join(cells)} |"


def page(results):
    """The lines of the page."""
    newest = list(results.values())[-1]
    machine = newest.params
    gradient_error = max(line(values(newest, GRADIENT_ERROR), (None, None, None))[1], default=0)
    return [
        "# Dashboard: speed, accuracy and memory, from asv's results",
        "",
        f"Made by `python -m benchmarks.summary` of commit {newest.commit_hash[:7]} and "
        f"{len(results) - 1} of those before it, on {machine.get('num_cpu')} cores of "
        f"{machine.get('cpu')}. "
        "The machine was shared and busy: times are noisy, some by more than twice; errors are "
        "not. "
        "`asv publish && asv preview` shows every benchmark and commit.",
        "",
        "## Accuracy at extreme W2",
        "",
        "How much of the first input is in the state after 100 steps, ∂h_100/∂x_1, of a neuron in "
        "float64. The error is relative, of the number or of its logarithm, whichever is less, "
        "against mpmath with 40 digits from the inputs on; 1 where the answer is 0, inf or NaN.",
        "",
        "![Error against W2 of fastrnn, PyTorch and JAX, without squashing and with tanh]"
        "(dashboard-accuracy.png)",
        "",
        "Without squashing (identity), for |W2| = 1e-300 ... 1e300, a net for each decade:",
        "",
        *range_table(newest),
        "",
        f"Along the computed states, errors of all gradients are at most {gradient_error:.2f} "
        "rounding units eps·Σ(1 + 2|z_t|) for any W2 in ±[1e-300, 1e300]; promised are 8 (N3).",
        "",
        "## Speed",
        "",
        "256 sequences of 1000 steps, one core: the time at each W2 over that at W2 = 0.9, taken "
        "in turns, the fastest of 25 calls each. Between the slowest and the fastest W2 from "
        "1e-300 to 1e300 (1e-3 to 1e3 in float32): "
        f"{flatness(newest, FORWARD_AT_W2, (None, 'float32'))} (forward, float32), "
        f"{flatness(newest, FORWARD_AT_W2, (None, 'float64'))} (forward, float64), "
        f"{flatness(newest, GRADIENT_AT_W2, (None, False))} (loss and gradient, float64), "
        f"{flatness(newest, GRADIENT_AT_W2, (None, True))} (scaled, where numbers of a magnitude "
        "like 1e300 are multiplied exactly).",
        "",
        "![Time of a step against W2](dashboard-speed.png)",
        "",
        "## Memory",
        "",
        "Peak memory of the loss and gradient of a neuron over 64 float32 sequences of T steps, "
        "above the peak of making its inputs. fastrnn stores no trajectory. PyTorch's and JAX's "
        "inputs are laid out anew, so that some of their memory is hidden by that peak; what a "
        "first call of a small job loads is not counted.",
        "",
        "![Memory above the inputs against T](dashboard-memory.png)",
        "",
        *memory_table(newest),
        "",
        "## History",
        "",
        "![Speed and error commit by commit](dashboard-history.png)",
    ]


def main():
    from matplotlib import pyplot as plt

    results = history(Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
    if not results:
        sys.exit("no results of this branch: run `asv run` first")
    newest = list(results.values())[-1]
    if missing := [name for name in NEEDED if not values(newest, name)]:
        sys.exit(f"no results of {newest.commit_hash[:7]} for {', '.join(missing)}: run them first")
    pictures = {
        "accuracy": (draw_accuracy, newest, (9, 3.6)),
        "speed": (draw_speed, newest, (7, 3.6)),
        "memory": (draw_memory, newest, (7, 3.6)),
        "history": (draw_history, results, (8, 5.5)),
    }
    for name, (draw, data, size) in pictures.items():
        figure = plt.figure(figsize=size, layout="constrained")
        draw(data, figure)
        figure.savefig(DOCS / f"dashboard-{name}.png", dpi=100)
    (DOCS / "dashboard.md").write_text("\n".join(page(results)) + "\n")


if __name__ == "__main__":
    main()
