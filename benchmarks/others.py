"""What fastrnn, PyTorch and JAX answer to the same question: how much of x_1 reaches h_100?

All in float64. Each W2 is a net of one bank, so that a library is asked once.
"""

import mpmath as mp
import numpy as np

import fastrnn

from . import cases, exact, extremes
from .cases import SIGNS, SIZES, Benchmark, named

STEPS = 100
# Significant digits of a float64.
DIGITS = 16.0
# Right: as many digits as one reads off a graph or a table, and some more.
RIGHT = 1e-6
# Powers of ten, each a net, in which libraries are asked whether they are right.
RANGE = np.arange(-300, 301)


def digits_lost(answer, true):
    """Of 16, of a number or, where it has more, of its logarithm.

    Where |W2| is very large, a number's own digits are those of a rounding of z_t: then its
    logarithm is what can be known. 0, inf and NaN have lost all of either.
    """
    ours = exact.number(answer) if isinstance(answer, fastrnn.Scaled) else mp.mpf(float(answer))
    if not mp.isfinite(ours) or ours == 0 or (ours > 0) != (true > 0):
        return DIGITS
    log = mp.log(abs(true))
    errors = abs(ours / true - 1), abs(mp.log(abs(ours)) / log - 1)
    return max(0.0, min(DIGITS, float(mp.log10(min(errors) + mp.mpf(10) ** -DIGITS)) + DIGITS))


def bank(activation, weights):
    """Neurons of several W2, and their inputs."""
    return extremes.problem(activation, np.asarray(weights, np.float64), STEPS)


class InfluenceAtW2(Benchmark):
    """Digits of d h_100 / d x_1 that are lost, of 16."""

    param_names = ("log10 |W2|", "sign", "activation", "library")
    params = (SIZES, SIGNS, ["identity", "tanh"], list(extremes.LIBRARIES))

    def setup_cache(self):
        """Lost digits, as {(size, sign, activation, library): digits}."""
        places = [(size, sign) for sign in SIGNS for size in SIZES]
        found = {}
        for activation in self.params[2]:
            net, x = bank(activation, [cases.weight(*place) for place in places])
            with mp.workdps(exact.DIGITS):
                one = [extremes.problem(activation, w2, STEPS)[0] for w2 in net.w2]
                truths = [extremes.truth(each, x) for each in one]
                for library, ask in extremes.LIBRARIES.items():
                    if (answers := ask(net, x)) is None:
                        continue
                    for place, answer, true in zip(places, answers, truths, strict=True):
                        found[(*place, activation, library)] = digits_lost(answer[0], true)
        return found

    def setup(self, found, *place):
        if place not in found:
            raise NotImplementedError("not installed")

    @named("Influence of x_1 by W2: digits lost", "digits")
    def track_influence_digits_lost(self, found, *place):
        return found[place]


class InfluenceRange(Benchmark):
    """How much of the range of W2, 1e-300 to 1e300, a library has answers for."""

    param_names = ("library",)
    params = (list(extremes.LIBRARIES),)

    def setup_cache(self):
        """Decades lost, and per cent of the answers: {library: (decades, infinite, none)}."""
        net, x = bank("identity", 10.0**RANGE)
        with mp.workdps(exact.DIGITS):
            w1 = mp.mpf(float(net.w1))
            truths = [w1 * mp.mpf(float(w2)) ** (STEPS - 1) for w2 in net.w2]
            most = float(mp.log10(RIGHT)) + DIGITS
            found = {}
            for library, ask in extremes.LIBRARIES.items():
                if (answers := ask(net, x)) is None:
                    continue
                lost = [digits_lost(a[0], true) for a, true in zip(answers, truths, strict=True)]
                finite, zero = classes(answers)
                found[library] = (
                    sum(digits > most for digits in lost),
                    100 * float(np.mean(~finite)),
                    100 * float(np.mean(~finite | zero)),
                )
        return found

    def setup(self, found, library):
        if library not in found:
            raise NotImplementedError("not installed")

    @named("Influence of x_1: decades of W2 lost, of 601", "decades")
    def track_influence_decades_lost(self, found, library):
        return found[library][0]

    @named("Influence of inputs: answers that are inf or NaN", "%")
    def track_influence_not_finite(self, found, library):
        return found[library][1]

    @named("Influence of inputs: answers 0, inf or NaN", "%")
    def track_influence_without_answer(self, found, library):
        return found[library][2]


def classes(answers):
    """Which answers are finite, and which are 0."""
    if isinstance(answers, fastrnn.Scaled):
        finite = np.isfinite(answers.mantissa) & np.isfinite(answers.exponent)
        return finite, answers.mantissa == 0
    return np.isfinite(answers), answers == 0
