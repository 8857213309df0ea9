"""Derivatives in mpmath along given states: the truth that kernels are held against."""

import mpmath as mp

from benchmarks.exact import DIGITS, derivative


def back_propagate(w1, w2, b, activation, x, before, dh):
    """dz (T, H), dx (T, F) and dh0 (H) for one net and one sequence.

    x (T, F), states ``before`` each step (T, H) and upstream ``dh`` (T, H) are floats, taken as
    they are; everything else has DIGITS digits.
    """
    with mp.workdps(DIGITS):
        hidden, inputs = len(w1), len(w1[0])

        def exact(matrix):
            return [[mp.mpf(float(value)) for value in row] for row in matrix]

        w1, w2, x, before, dh = (exact(matrix) for matrix in (w1, w2, x, before, dh))
        b = [mp.mpf(float(value)) for value in b]
        carried = [mp.mpf(0)] * hidden
        all_dz, all_dx, all_z = [], [], []
        for t in reversed(range(len(x))):
            z = [
                b[i]
                + mp.fdot(zip(w1[i], x[t], strict=True))
                + mp.fdot(zip(w2[i], before[t], strict=True))
                for i in range(hidden)
            ]
            dz = [(carried[i] + dh[t][i]) * derivative(activation, z[i]) for i in range(hidden)]
            carried = [mp.fsum(w2[i][j] * dz[i] for i in range(hidden)) for j in range(hidden)]
            all_dz.append(dz)
            all_z.append(z)
            all_dx.append([mp.fsum(w1[i][f] * dz[i] for i in range(hidden)) for f in range(inputs)])
        return all_z[::-1], all_dz[::-1], all_dx[::-1], carried
