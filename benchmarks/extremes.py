"""How much of x_1 reaches the last state, by fastrnn and others: ``python -m benchmarks.extremes``.

Prints the table of ``docs/extremes.md``: d h_T / d x_1 in float64 of one neuron over T normal
inputs, its true value by mpmath from the inputs on, and whether fastrnn's four digits are right.
"""

import sys

import mpmath as mp
import numpy as np

import fastrnn

from . import cases, exact

CASES = [
    ("tanh", 0.1, 5),
    ("tanh", 0.1, 500),
    ("tanh", 0.9, 10_000),
    ("tanh", 15.0, 3),
    ("tanh", 10.0, 50),
    ("tanh", 1e3, 5),
    ("tanh", 1e8, 5),
    ("identity", 1.1, 10_000),
    ("identity", -2.0, 20_000),
    ("relu", 1e300, 5),
]
MISSING = "not installed"


def by_fastrnn(net, x):
    """Of every input on the last state: [K,] T."""
    return fastrnn.influence(net, x)


def by_torch(net, x):
    """As floats, which may be 0, inf or NaN; None where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    function = {"identity": lambda z: z}.get(net.activation) or getattr(torch, net.activation)
    inputs = torch.tensor(_for_each_net(net, x), requires_grad=True)
    w1, w2, b = (torch.tensor(np.asarray(w).astype(x.dtype)) for w in (net.w1, net.w2, net.b))
    h = torch.zeros(np.shape(net.w2), dtype=inputs.dtype)
    for value in inputs.unbind(-1):
        h = function(w1 * value + w2 * h + b)
    h.sum().backward()
    return inputs.grad.numpy()


def by_jax(net, x):
    """The same of JAX."""
    try:
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    function = {
        "identity": lambda z: z, "tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid,
    }[net.activation]  # fmt: skip
    w1, w2, b = (jnp.asarray(np.asarray(w).astype(x.dtype)) for w in (net.w1, net.w2, net.b))

    def last(columns):
        def step(h, value):
            return function(w1 * value + w2 * h + b), None

        return jax.lax.scan(step, jnp.zeros(w2.shape, x.dtype), columns)[0].sum()

    return np.asarray(jax.jit(jax.grad(last))(jnp.asarray(_for_each_net(net, x).T))).T


def _for_each_net(net, x):
    return np.broadcast_to(x, (*np.shape(net.w2), len(x))).copy()


LIBRARIES = {"fastrnn": by_fastrnn, "PyTorch": by_torch, "JAX": by_jax}


def problem(activation, w2, steps):
    """Net and inputs; positive ones where the state must not fall silent."""
    x = cases.normal(steps)
    return cases.neuron("float64", w2, activation), abs(x) if activation == "relu" else x


def truth(net, x):
    """d h_T / d x_1, from the inputs on."""
    last = np.zeros(len(x))
    last[-1] = 1
    return exact.gradients(net, x, exact.states(net, x), last)[0]["x"][0]


def _text(value):
    if isinstance(value, mp.mpf):
        digits = mp.nstr(value, 4, min_fixed=1, max_fixed=0, strip_zeros=False)
        mantissa, _, power = digits.partition("e")
        return f"{mantissa}e{int(power or 0):+03d}"
    return format(value, ".3e")


def rows():
    """Case, truth and answers as text, and whether fastrnn's is the truth."""
    with mp.workdps(exact.DIGITS):
        for activation, w2, steps in CASES:
            net, x = problem(activation, w2, steps)
            right = _text(truth(net, x))
            found = {name: call(net, x) for name, call in LIBRARIES.items()}
            answers = {
                name: MISSING if answer is None else _text(answer[0])
                for name, answer in found.items()
            }
            yield (activation, f"{w2:g}", f"{steps:,}"), right, answers


def main():
    print("| activation | W2 | T | true value | " + " | ".join(LIBRARIES) + " |")
    print("|---|---|---|---|" + "---|" * len(LIBRARIES))
    wrong = 0
    for case, right, answers in rows():
        wrong += answers["fastrnn"] != right
        print("| " + " | ".join([*case, right, *answers.values()]) + " |", flush=True)
    sys.exit(f"fastrnn is wrong in {wrong} rows" if wrong else 0)


if __name__ == "__main__":
    main()
