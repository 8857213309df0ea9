"""All that is compiled. Nothing in here knows of users, threads or files.

The names of the activations stand here, so that they can be read without loading the compiler.
"""

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
TANH, RELU, SIGMOID, IDENTITY = range(len(ACTIVATIONS))
