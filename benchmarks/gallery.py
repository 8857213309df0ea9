"""The gallery: each picture beside the lines that made it, ``python -m benchmarks.gallery``.

Writes docs/gallery.md and its pictures: what stands on the page is what was run.
"""

from pathlib import Path
from textwrap import dedent

DOCS = Path(__file__).parents[1] / "docs"

HEAD = """# Gallery

Every picture of fastrnn, and the lines that made it. They follow matplotlib's `ax=` convention: each draws into the axes it is given, or into a new figure, and returns the axes; `.figure.savefig(path)` writes it. The page is made by `python -m benchmarks.gallery`.

```python
import numpy as np, fastrnn

sunspots = fastrnn.load_series("sunspots")
x = (sunspots - sunspots.mean()) / sunspots.std()
```
"""

# Name of the file, heading, what is seen, lines that leave axes in ``ax``.
PICTURES = [
    (
        "unrolled-forgets",
        "How much of each input reaches the last prediction",
        "Five inputs and W2 = 0.1: of x_1 a ten-thousandth is left.",
        """
        net = fastrnn.RNN(w1=1.0, w2=0.1, activation="identity")
        ax = fastrnn.diagnose(net, np.ones(5)).plot()
        """,
    ),
    (
        "unrolled-explodes",
        "The same with W2 = 2",
        "The oldest input counts 16 times as much as the newest.",
        """
        net = fastrnn.RNN(w1=1.0, w2=2.0, activation="identity")
        ax = fastrnn.diagnose(net, np.ones(5)).plot()
        """,
    ),
    (
        "by-lag",
        "Gradient by lag",
        "The sunspot series of 309 years; grey is where float64 knows nothing but 0. The dotted line is a thousandth of the newest input's influence: the memory horizon.",
        """
        bank = fastrnn.RNN(w1=1.0, w2=[0.1, 0.5, 0.9, 1.1, 2.0, 10.0])
        ax = fastrnn.plot.gradient_by_lag(fastrnn.diagnose(bank, x))
        """,
    ),
    (
        "exponent",
        "Exponent against W2",
        "Below 0 the neuron forgets, with tanh at every W2: nearest to 0 it remembers longest. The band is two standard errors to either side.",
        """
        bank = fastrnn.RNN(w1=0.3, w2=np.linspace(-4, 4, 401))
        ax = fastrnn.diagnose(bank, x).plot()
        """,
    ),
    (
        "phase",
        "Phase diagram: W2 and the scale of the input",
        "White keeps memory, purple loses it. `fastrnn phase sunspots --w2 -3:3:241 --b 0 --scale 0.01:3:161` draws the same plane, with even steps of the scale.",
        """
        plane = fastrnn.phase_diagram(x, w2=np.linspace(-3, 3, 241), scale=np.geomspace(0.01, 3, 161))
        ax = plane.plot()
        """,
    ),
    (
        "phase-relu",
        "Phase diagram: a relu's W2 and bias",
        "Above W2 = 1 gradients explode, if the unit is on; below, and where it is off, they vanish.",
        """
        plane = fastrnn.phase_diagram(
            x, w2=np.linspace(0, 2, 201), b=np.linspace(-3, 3, 151), activation="relu"
        )
        ax = plane.plot()
        """,
    ),
]

TAIL = """
## Sweep overview

![Loss, gradient, growth and influence against the feedback weight, for yearly sunspot numbers](sweep-sunspots.png)

The picture that `fastrnn sweep sunspots` leaves in its folder: error of the next value, growth of the gradient per step, size of the gradients, and influence by lag, with the regimes shaded.
"""


def main():
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    names = {}
    exec(HEAD.split("```python")[1].split("```")[0], names)
    page = HEAD
    for name, heading, seen, lines in PICTURES:
        code = dedent(lines).strip()
        exec(code, names)
        names["ax"].figure.savefig(folder / f"{name}.png")
        page += f"\n## {heading}\n\n![{heading}](gallery/{name}.png)\n\n{seen}\n\n"
        page += f"```python\n{code}\n```\n"
    (DOCS / "gallery.md").write_text(page + TAIL)


if __name__ == "__main__":
    main()
