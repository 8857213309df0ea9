"""Hidden layers in fastrnn and elsewhere: the problems that ``benchmarks.peers`` measures.

Contenders are as in ``benchmarks.neuron_cells``. A layer has one input, and its states are
predictions: the loss is their mean squared distance from targets. Figures are for a step of all
sequences.
"""

from dataclasses import dataclass

import numpy as np

import fastrnn

from .neuron_cells import WORKERS, onnxruntime_forward

# Multiply-adds of a forward pass, some 10 to 300 ms, and the bounds of its steps.
WORK, LEAST_STEPS, MOST_STEPS = 2**28, 64, 8000


@dataclass(frozen=True)
class Cell:
    """One problem: H hidden units, B sequences, and what is to be reached."""

    dtype: str
    hidden_size: int
    batch_size: int
    goal_forward: float = 1
    goal_gradient: float = 1

    @property
    def name(self):
        return f"{self.dtype}, H={self.hidden_size}, B={self.batch_size}"

    @property
    def steps(self):
        work = self.batch_size * self.hidden_size * (self.hidden_size + 16)
        return int(np.clip(WORK // work, LEAST_STEPS, MOST_STEPS))

    @property
    def lane_steps(self):
        return self.steps

    def problem(self):
        """Weights (H, 1), (H, H), (H,), inputs (T, B, 1) and targets (T, B, H)."""
        rng = np.random.default_rng(0)

        def normal(*shape):
            return rng.standard_normal(shape).astype(self.dtype)

        h = self.hidden_size
        weights = normal(h, 1), normal(h, h) / np.sqrt(h).astype(self.dtype), normal(h)
        x, y = (normal(self.steps, self.batch_size, size) for size in (1, h))
        return *weights, x, y


CELLS = [
    Cell("float32", 4, 64, 3, 6),
    Cell("float32", 16, 64, 3, 6),
    Cell("float32", 64, 64, 2.2, 3),
    Cell("float32", 256, 64, 1.8, 2),
    Cell("float32", 512, 64, 1.3, 1.4),
    Cell("float32", 64, 1, 2.5, 5),
    Cell("float32", 47, 33, 2.5, 3.5),
    Cell("float64", 64, 64, 2.2, 4),
]
GRID = [
    Cell(dtype, h, b)
    for dtype in ("float32", "float64")
    for h in (2, 4, 8, 16, 32, 64, 128, 256, 512)
    for b in (1, 16, 64, 256)
]


def fastrnn_calls(cell):
    w1, w2, b, x, y = cell.problem()
    own = (np.ascontiguousarray(array.swapaxes(0, 1)) for array in (x, y))
    return _fastrnn_calls(w1, w2, b, *own)


def fastrnn_time_first_calls(cell):
    """The same of arrays that lie in memory as peers want them, the steps one after the other."""
    w1, w2, b, x, y = cell.problem()
    if cell.batch_size == 1:
        return None  # the same
    return _fastrnn_calls(w1, w2, b, x.swapaxes(0, 1), y.swapaxes(0, 1))


def _fastrnn_calls(w1, w2, b, x, y):
    net = fastrnn.RNN(w1, w2, b)
    return (
        lambda: fastrnn.forward(net, x, workers=WORKERS),
        lambda: fastrnn.loss_and_grad(net, x, y, workers=WORKERS),
    )


def numpy_calls(cell):
    w1, w2, b, x, y = cell.problem()
    back = np.ascontiguousarray(w2.T)

    def forward():
        states = np.empty_like(y)
        h = np.zeros_like(y[0])
        for t, x_t in enumerate(x):
            h = states[t] = np.tanh(x_t @ w1.T + h @ back + b)
        return states

    def gradient():
        states = forward()
        dz, dh = np.empty_like(y), 0
        for t in reversed(range(cell.steps)):
            dz[t] = (dh + states[t] - y[t]) * (1 - states[t] * states[t])
            dh = dz[t] @ w2
        rows = dz.reshape(-1, dz.shape[2])
        before = states[:-1].reshape(-1, dz.shape[2])
        dw2 = dz[1:].reshape(before.shape).T @ before
        return rows.T @ x.reshape(len(rows), -1), dw2, rows.sum(0)

    return forward, gradient


def jax_calls(cell):
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    w1, w2, b, x, y = (jnp.asarray(array) for array in cell.problem())

    def states(w1, w2, b, x):
        def step(h, x_t):
            h = jnp.tanh(x_t @ w1.T + h @ w2.T + b)
            return h, h

        return jax.lax.scan(step, jnp.zeros_like(y[0]), x)[1]

    def loss(w1, w2, b, x, y):
        return jnp.mean((states(w1, w2, b, x) - y) ** 2)

    forward, gradient = jax.jit(states), jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    return (
        lambda: jax.block_until_ready(forward(w1, w2, b, x)),
        lambda: jax.block_until_ready(gradient(w1, w2, b, x, y)),
    )


def torch_calls(cell):
    import torch

    torch.set_num_threads(WORKERS)
    w1, w2, b, x, y = (torch.from_numpy(array) for array in cell.problem())
    net = torch.nn.RNN(1, cell.hidden_size, dtype=getattr(torch, cell.dtype))
    with torch.no_grad():
        net.weight_ih_l0.copy_(w1)
        net.weight_hh_l0.copy_(w2)
        net.bias_ih_l0.copy_(b)
        net.bias_hh_l0.zero_()

    def forward():
        with torch.no_grad():
            return net(x)

    def gradient():
        net.zero_grad()
        torch.nn.functional.mse_loss(net(x)[0], y).backward()

    return forward, gradient


def onnxruntime_calls(cell):
    if cell.dtype != "float32":
        return None  # its RNN is float32 alone
    w1, w2, b, x, _ = cell.problem()
    weights = {"W": w1[None], "R": w2[None], "B": np.concatenate([b, np.zeros_like(b)])[None]}
    return onnxruntime_forward(weights, x), None


CONTENDERS = {
    "fastrnn": fastrnn_calls,
    "fastrnn, time first": fastrnn_time_first_calls,
    "PyTorch": torch_calls,
    "JAX": jax_calls,
    "ONNX Runtime": onnxruntime_calls,
    "NumPy": numpy_calls,
}
