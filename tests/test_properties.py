"""Laws that hold for any net and input."""

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import reference
from fastrnn.sequences import sequences
from tests import cases, tolerances

settings.register_profile(
    "fastrnn", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fastrnn")

kinds = st.sampled_from(sorted(cases.NETS))
activations = st.sampled_from(cases.ACTIVATIONS)
dtypes = st.sampled_from(cases.DTYPES)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 20), st.integers(1, 80))


@given(kinds, activations, dtypes, sizes, seeds)
def test_permuting_the_batch_permutes_the_results_bit_for_bit(kind, activation, dtype, size, seed):
    net = cases.NETS[kind](activation, dtype)
    x = cases.inputs(net, *size, dtype, seed=seed)
    order = np.random.default_rng(seed).permutation(size[0])
    y = np.zeros_like(fastrnn.predict(net, x))
    axis = int(net.is_bank)
    permuted = fastrnn.forward(net, x[order])
    assert permuted.tobytes() == np.take(fastrnn.forward(net, x), order, axis).tobytes()
    ours, theirs = (
        fastrnn.loss_and_grad(net, batch, y, per_sequence=True, wrt=("w2", "x"))[1]
        for batch in (x, x[order])
    )
    assert np.take(ours.w2, order, axis).tobytes() == theirs.w2.tobytes()
    assert np.take(ours.x, order, axis).tobytes() == theirs.x.tobytes()


@given(kinds, activations, dtypes, sizes, seeds, st.integers(0, 80))
def test_a_sequence_can_be_split_anywhere_and_the_state_carried(
    kind, activation, dtype, size, seed, cut
):
    net = cases.NETS[kind](activation, dtype)
    x = cases.inputs(net, *size, dtype, seed=seed)
    first, second = x[:, :cut], x[:, cut:]
    middle = fastrnn.forward(net, first, keep="last")
    pieces = [fastrnn.forward(net, first), fastrnn.forward(net, second, h0=middle)]
    time = 1 + int(net.is_bank)
    assert np.concatenate(pieces, time).tobytes() == fastrnn.forward(net, x).tobytes()


@given(st.sampled_from(["tanh", "identity"]), dtypes, sizes, seeds)
def test_odd_activations_are_odd_bit_for_bit(activation, dtype, size, seed):
    rng = np.random.default_rng(seed)
    net = fastrnn.RNN(rng.normal(), rng.normal(), activation=activation)
    x = rng.standard_normal(size).astype(dtype)
    x[rng.random(size) < 0.2] = 0.0
    h0 = rng.standard_normal(size[0]).astype(dtype)
    positive, negative = fastrnn.forward(net, x, h0=h0), fastrnn.forward(net, -x, h0=-h0)
    assert negative.tobytes() == (-positive).tobytes()


@given(kinds, sizes, seeds)
def test_identity_activation_is_linear_in_x(kind, size, seed):
    net = cases.NETS[kind]("identity", "float64")
    x, v = (cases.inputs(net, *size, seed=seed + i) for i in range(2))
    difference = fastrnn.forward(net, x + v) - fastrnn.forward(net, x)
    silent = fastrnn.RNN(net.w1, net.w2, activation="identity")
    job = sequences(net, abs(x) + abs(v))
    bound = 3 * job.visible(tolerances.forward_bound(job), "KBTH")
    assert (abs(difference - fastrnn.forward(silent, v)) <= bound).all()


@given(kinds, activations, sizes, seeds)
def test_backward_is_the_adjoint_of_the_tangent(kind, activation, size, seed):
    """<J v, u> = <v, J^T u> for the Jacobian J of the states by x."""
    net = cases.NETS[kind](activation, "float64")
    x, v = (cases.inputs(net, *size, seed=seed + i) for i in range(2))
    job = sequences(net, x)
    u = np.random.default_rng(seed).standard_normal(job.size("KBTH"))
    grad = fastrnn.backward(net, x, job.visible(u, "KBTH"), wrt="x").x

    z, _, _ = tolerances.unrolled(job)
    slope = reference.derivative(activation, z)
    tangent, h = np.zeros_like(z), np.zeros_like(job.h0)
    direction = v.reshape(job.x.shape)
    for t in range(size[1]):
        h = np.einsum("khj,kbj->kbh", job.weights.w2, h)
        h = slope[:, :, t] * (h + np.einsum("khf,bf->kbh", job.weights.w1, direction[:, t]))
        tangent[:, :, t] = h
    left, right = (tangent * u).sum(), (grad.reshape(job.size("KBTF")) * direction).sum()
    scale = (abs(tangent) * abs(u)).sum()
    scale += (tolerances.gradient_bound(job, u)["x"] * abs(direction)).sum()
    assert abs(left - right) <= tolerances.rounding(job).max() * scale


@given(kinds, activations, dtypes, sizes, seeds)
def test_gradient_of_the_whole_is_the_sum_over_sequences(kind, activation, dtype, size, seed):
    net = cases.NETS[kind](activation, dtype)
    x = cases.inputs(net, *size, dtype, seed=seed)
    y = np.ones_like(fastrnn.predict(net, x))
    loss, grad = fastrnn.loss_and_grad(net, x, y)
    losses, grads = fastrnn.loss_and_grad(net, x, y, per_sequence=True)
    axis = int(net.is_bank)
    # Both sum the same terms, in different orders: n terms lose at most n units of rounding in
    # each order, and the factor 2/N, the sum's own factor and the conversion one unit more each.
    steps = size[0] * size[1]
    unit = tolerances.eps(dtype) * np.array([steps * net.output_size + 3, steps + 3])
    np.testing.assert_allclose(losses.sum(axis), loss, rtol=unit[0])
    _, scaled = fastrnn.loss_and_grad(net, x, y, per_sequence=True, scaled=True)
    # A sum that cancels to exactly 0 does not say how large its terms are.
    assume((scaled.cancellation.w2 > 0).all())
    terms = (abs(scaled.w2).to_float() / scaled.cancellation.w2).sum(axis)
    error = abs(grads.w2.sum(axis) - grad.w2)
    assert (error <= unit[1] * terms).all()


@given(st.sampled_from(["tanh", "sigmoid"]), dtypes, seeds)
def test_a_bank_has_the_bits_of_its_nets(activation, dtype, seed):
    bank = cases.neuron(activation, dtype, bank=6, readout=True, seed=seed)
    x = cases.inputs(bank, 3, 50, dtype, seed=seed)
    y = np.zeros((3, 50), dtype)
    loss, grad = fastrnn.loss_and_grad(bank, x, y)
    for k in range(6):
        weights = {name: getattr(bank, name)[k] for name in ("w1", "w2", "b", "w3", "b3")}
        one_loss, one = fastrnn.loss_and_grad(fastrnn.RNN(**weights, activation=activation), x, y)
        assert one_loss == loss[k]
        assert (one.w1, one.w2, one.b) == (grad.w1[k], grad.w2[k], grad.b[k])


@given(activations, dtypes, seeds)
def test_a_layer_of_one_has_the_bits_of_a_neuron(activation, dtype, seed):
    neuron = cases.neuron(activation, dtype, readout=True, seed=seed)
    layer = fastrnn.RNN(
        neuron.w1.reshape(1, 1),
        neuron.w2.reshape(1, 1),
        neuron.b.reshape(1),
        activation=activation,
        w3=neuron.w3.reshape(1, 1),
        b3=neuron.b3.reshape(1),
    )
    x = cases.inputs(neuron, 4, 70, dtype, seed=seed)
    assert fastrnn.forward(neuron, x).tobytes() == fastrnn.forward(layer, x).tobytes()
    assert fastrnn.predict(neuron, x).tobytes() == fastrnn.predict(layer, x).tobytes()
