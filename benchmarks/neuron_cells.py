"""Scalar neurons in fastrnn and elsewhere: the problems that ``benchmarks.peers`` measures.

A contender is a function of a cell that returns two calls, forward and forward with gradient of
W1, W2, b (None where it cannot), or None where the cell is none of its. Time is first in peers'
arrays, as they like it best.
"""

from dataclasses import dataclass

import numpy as np

import fastrnn

WORKERS = 2
# A NumPy loop over longer sequences says nothing new and takes minutes.
MOST_NUMPY_STEPS = 10_000


@dataclass(frozen=True)
class Cell:
    """One problem: K nets, B sequences, T steps; w2 None is a range of them."""

    name: str
    dtype: str
    nets: int
    batch_size: int
    steps: int
    w2: float | None
    goal_forward: float = 1
    goal_gradient: float = 1

    @property
    def lane_steps(self):
        return self.nets * self.batch_size * self.steps

    def problem(self):
        rng = np.random.default_rng(0)
        x, y = (rng.standard_normal((self.batch_size, self.steps), dtype=self.dtype) for _ in "xy")
        w2 = np.linspace(-1.5, 1.5, self.nets) if self.w2 is None else np.full(self.nets, self.w2)
        return x, y, w2.astype(self.dtype)


CELLS = [
    Cell("float32, B=1024, T=1000", "float32", 1, 1024, 1000, 0.9, 3, 12),
    Cell("float64, B=1024, T=1000", "float64", 1, 1024, 1000, 0.9, 5, 6),
    Cell("float32, B=8192, T=1000", "float32", 1, 8192, 1000, 0.9, 2.5, 15),
    Cell("float32, bank 256 x B=16, T=1000", "float32", 256, 16, 1000, None, 10, 20),
    Cell("float32, one sequence, T=1e6, W2=0.9", "float32", 1, 1, 1_000_000, 0.9, 25, 15),
    Cell("float32, one sequence, T=1e6, W2=-2", "float32", 1, 1, 1_000_000, -2.0, 8, 8),
    Cell("float32, one sequence, T=1e6, W2=5", "float32", 1, 1, 1_000_000, 5.0, 8, 8),
]
W1, BIAS = 0.5, 0.1


def fastrnn_calls(cell):
    return _fastrnn_calls(cell, *cell.problem())


def fastrnn_time_first_calls(cell):
    """The same of arrays that lie in memory as peers want them, the steps one after the other."""
    x, y, w2 = cell.problem()
    if len(x) == 1:
        return None  # the same
    return _fastrnn_calls(cell, np.ascontiguousarray(x.T).T, np.ascontiguousarray(y.T).T, w2)


def _fastrnn_calls(cell, x, y, w2):
    number = np.dtype(cell.dtype).type
    net = fastrnn.RNN(number(W1), w2 if cell.nets > 1 else w2[0], number(BIAS))
    return (
        lambda: fastrnn.forward(net, x, workers=WORKERS),
        lambda: fastrnn.loss_and_grad(net, x, y, workers=WORKERS),
    )


def numpy_calls(cell):
    if cell.steps > MOST_NUMPY_STEPS:
        return None
    x, y, w2 = cell.problem()
    columns, target = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    number = np.dtype(cell.dtype).type

    def forward():
        h = np.zeros((cell.nets, cell.batch_size), cell.dtype)
        states = np.empty((cell.steps, *h.shape), cell.dtype)
        for t, x_t in enumerate(columns):
            h = states[t] = np.tanh(number(W1) * x_t + w2[:, None] * h + number(BIAS))
        return states

    def gradient():
        states = forward()
        dh, dw1, dw2, db = 0, 0, 0, 0
        for t in reversed(range(cell.steps)):
            error = states[t] - target[t]
            dz = (dh + error) * (1 - states[t] * states[t])
            dw1, db = dw1 + (dz * columns[t]).sum(1), db + dz.sum(1)
            dw2 = dw2 + (dz * (states[t - 1] if t else 0)).sum(1)
            dh = w2[:, None] * dz
        return dw1, dw2, db

    return forward, gradient


def jax_calls(cell):
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    x, y, w2 = cell.problem()
    columns, target = jnp.asarray(x.T), jnp.asarray(y.T)

    def states(w1, w2, b, columns):
        def step(h, x_t):
            h = jnp.tanh(w1 * x_t + w2 * h + b)
            return h, h

        return jax.lax.scan(step, jnp.zeros(cell.batch_size, cell.dtype), columns)[1]

    def loss(w1, w2, b, columns, target):
        return jnp.mean((states(w1, w2, b, columns) - target) ** 2)

    gradient = jax.value_and_grad(loss, argnums=(0, 1, 2))
    number = np.dtype(cell.dtype).type
    weights, forward = (number(W1), w2[0], number(BIAS)), states
    if cell.nets > 1:
        weights = number(W1), jnp.asarray(w2), number(BIAS)
        forward = jax.vmap(states, in_axes=(None, 0, None, None))
        gradient = jax.vmap(gradient, in_axes=(None, 0, None, None, None))
    forward, gradient = jax.jit(forward), jax.jit(gradient)
    return (
        lambda: jax.block_until_ready(forward(*weights, columns)),
        lambda: jax.block_until_ready(gradient(*weights, columns, target)),
    )


def torch_calls(cell):
    import torch

    torch.set_num_threads(WORKERS)
    if cell.nets > 1:
        return None  # no banks
    x, y, w2 = cell.problem()
    net = torch.nn.RNN(1, 1, dtype=getattr(torch, cell.dtype))
    with torch.no_grad():
        net.weight_ih_l0.fill_(W1)
        net.weight_hh_l0.fill_(float(w2[0]))
        net.bias_ih_l0.fill_(BIAS)
        net.bias_hh_l0.zero_()
    columns = torch.tensor(np.ascontiguousarray(x.T)[..., None])
    target = torch.tensor(np.ascontiguousarray(y.T)[..., None])

    def forward():
        with torch.no_grad():
            return net(columns)

    def gradient():
        net.zero_grad()
        torch.nn.functional.mse_loss(net(columns)[0], target).backward()

    return forward, gradient


def onnxruntime_calls(cell):
    if cell.nets > 1 or cell.dtype != "float32":
        return None  # no banks, and its RNN is float32 alone
    x, _, w2 = cell.problem()
    weights = {"W": [[[W1]]], "R": [[[float(w2[0])]]], "B": [[BIAS, 0.0]]}
    return onnxruntime_forward(weights, np.ascontiguousarray(x.T)[..., None]), None


def onnxruntime_forward(weights, columns):
    """A call that runs an RNN of some weights over inputs (T, B, 1)."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    arrays = {name: np.array(value, np.float32) for name, value in weights.items()}
    hidden_size = arrays["R"].shape[-1]
    graph = helper.make_graph(
        [helper.make_node("RNN", ["X", *arrays], ["Y"], hidden_size=hidden_size)],
        "net",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, columns.shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = WORKERS
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(["Y"], {"X": columns})


CONTENDERS = {
    "fastrnn": fastrnn_calls,
    "fastrnn, time first": fastrnn_time_first_calls,
    "PyTorch": torch_calls,
    "JAX": jax_calls,
    "ONNX Runtime": onnxruntime_calls,
    "NumPy": numpy_calls,
}
