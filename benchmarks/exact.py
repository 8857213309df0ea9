"""Derivatives in mpmath: the truth that fastrnn and its peers are held against."""

import mpmath as mp

DIGITS = 40


def activate(activation, z):
    if activation == "tanh":
        return mp.tanh(z)
    if activation == "sigmoid":
        return 1 / (1 + mp.exp(-z))
    return max(z, mp.mpf(0)) if activation == "relu" else z


def derivative(activation, z):
    if activation == "tanh":
        tail = mp.exp(-2 * abs(z))
        return 4 * tail / (1 + tail) ** 2
    if activation == "sigmoid":
        tail = mp.exp(-abs(z))
        return tail / (1 + tail) ** 2
    if activation == "relu":
        return mp.mpf(1) if z > 0 else mp.mpf(0)
    return mp.mpf(1)


def number(scaled):
    """A Scaled number."""
    return mp.ldexp(mp.mpf(float(scaled.mantissa)), int(scaled.exponent))


def _weights(net):
    return (mp.mpf(float(w)) for w in (net.w1, net.w2, net.b))


def states(net, x):
    """h_1 ... h_T of one neuron over one sequence."""
    w1, w2, b = _weights(net)
    h, found = mp.mpf(0), []
    for value in x:
        h = activate(net.activation, w1 * mp.mpf(float(value)) + w2 * h + b)
        found.append(h)
    return found


def gradients(net, x, states, dh):
    """Gradients of one neuron and sequence along given states, and what rounding may do to them.

    The second result holds the sums of the weights' absolute terms, the third sum(1 + 2|z_t|).
    """
    w1, w2, b = _weights(net)
    carried, rounding = mp.mpf(0), mp.mpf(0)
    values = dict.fromkeys(("w1", "w2", "b"), mp.mpf(0))
    sizes, dx = dict(values), []
    homogeneous = net.activation in ("identity", "relu")
    for t in reversed(range(len(x))):
        before, x_t = states[t - 1] if t else mp.mpf(0), mp.mpf(float(x[t]))
        z = b + w1 * x_t + w2 * before
        dz = (carried + mp.mpf(float(dh[t]))) * derivative(net.activation, z)
        for name, factor in (("w1", x_t), ("w2", before), ("b", mp.mpf(1))):
            values[name] += dz * factor
            sizes[name] += abs(dz * factor)
        dx.append(w1 * dz)
        carried = w2 * dz
        rounding += 1 if homogeneous else 1 + 2 * abs(z)
    return values | {"x": dx[::-1], "h0": carried}, sizes, rounding
