"""All that is compiled. Nothing in here knows of users, threads or files.

The activations stand here, so that they can be named without loading the compiler.
"""

from typing import Any


class Activation:
    """An activation function; to the compiler, each of them is a type of its own."""

    _numba_type_: Any

    def __init__(self, name: str) -> None:
        self.name = name


ACTIVATIONS = {name: Activation(name) for name in ("tanh", "relu", "sigmoid", "identity")}
# Times H, what is left of the terms of a sum beside them where it is no more than rounding: W2 is
# singular to working precision. It may have been rounded once or twice before it came here.
WORKING_PRECISION = 4 * 2.0**-52
# Those whose states never leave the range of floats.
BOUNDED = ("tanh", "sigmoid")
