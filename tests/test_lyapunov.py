"""Lyapunov exponents against mpmath, eigenvalues, determinants and plain QR."""

import math
import re
from fractions import Fraction
from operator import mul

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from benchmarks.exact import DIGITS, derivative
from fastrnn import growth, lanes
from fastrnn.diagnosis import lag_text
from fastrnn.exponents import directions, error_text
from fastrnn.sequences import sequences
from tests import cases, tolerances

EPS = tolerances.eps("float64")
EXTREME_W2 = np.array([1e-300, 0.3, -0.9, 1.1, -10.0, 1e3, 1e10, -1e300])


def logs_of_layer(net, x, h0=None):
    """log f'(z) (T, H) along the computed states, and |z|, in plain NumPy."""
    h = fastrnn.forward(net, x.reshape(1, len(x), -1), h0=None if h0 is None else h0[None])[0]
    start = np.zeros(net.hidden_size) if h0 is None else h0
    z = np.concatenate([start[None], h[:-1]]) @ net.w2.T + net.b
    z += np.reshape(x, (len(x), -1)) @ net.w1.T
    return fastrnn.reference.derivative_scaled(net.activation, z).log(), abs(z)


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
def test_exponent_of_a_neuron_is_the_mean_of_log_w2_slope(activation):
    """Promise N3: along the computed states, and what rounding the result itself may cost."""
    bank = fastrnn.RNN(0.7, EXTREME_W2, 0.3, activation=activation)
    x = np.random.default_rng(0).standard_normal(100)
    if activation in ("relu", "identity"):
        bank = fastrnn.RNN(0.7, EXTREME_W2[1:4], 0.3, activation=activation)
        x = abs(x)
    found = fastrnn.lyapunov(bank, x)
    states = fastrnn.forward(bank, x)
    for k, w2 in enumerate(bank.w2):
        with mp.workdps(DIGITS):
            before = [0.0, *states[k, :-1].tolist()]
            z = [
                mp.mpf(0.7) * mp.mpf(x_t) + mp.mpf(float(w2)) * mp.mpf(h) + mp.mpf(0.3)
                for x_t, h in zip(x.tolist(), before, strict=True)
            ]
            slopes = [derivative(activation, value) for value in z]
            if 0 in slopes:
                assert found.exponents[k, 0] == -math.inf
                continue
            truth = mp.fsum(mp.log(abs(mp.mpf(float(w2)) * s)) for s in slopes) / len(x)
            rounding = mp.fsum(1 + 2 * abs(value) for value in z) / len(x)
            error = abs(mp.mpf(float(found.exponents[k, 0])) - truth)
        assert error <= EPS * (tolerances.C * rounding + 4 * abs(truth))


def test_float32_neuron_is_exact_along_its_own_states():
    net = cases.neuron("tanh", "float32")
    x = cases.inputs(net, 1, 300, "float32")[0]
    h = fastrnn.forward(net, x).astype(np.float64)
    before = np.concatenate([[0.0], h[:-1]])
    z = float(net.w1) * x.astype(np.float64) + float(net.w2) * before + float(net.b)
    truth = np.mean(np.log(abs(float(net.w2)) / np.cosh(z) ** 2))
    assert fastrnn.lyapunov(net, x).exponents[0] == pytest.approx(truth, rel=1e-13)


def normal_matrix(values, seed=0):
    """A matrix with these eigenvalues, complex ones with their conjugates, in orthogonal blocks."""
    blocks, rows = [], 0
    for value in values:
        block = np.array([[value.real]])
        if value.imag:
            block = np.array([[value.real, value.imag], [-value.imag, value.real]])
        blocks.append(block)
        rows += len(block)
    whole, at = np.zeros((rows, rows)), 0
    for block in blocks:
        whole[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, rows)))[0]
    return basis @ whole @ basis.T


LINEAR = {
    "normal, decaying": normal_matrix([0.9 + 0j, 0.3 + 0.5j, -0.2 + 0j, 0.01 + 0j]),
    "normal, growing": normal_matrix([3 + 0j, -1.5 + 1j, 1 + 0j, 0.5 + 0j]),
    "not normal": np.random.default_rng(4).standard_normal((6, 6)),
    "far apart": normal_matrix([30 + 0j, 1e-1 + 0j, 1e-4 + 0j]),
}


@pytest.mark.parametrize("w2", LINEAR.values(), ids=LINEAR.keys())
def test_exponents_of_a_linear_layer_are_those_of_the_eigenvalues(w2):
    net = fastrnn.RNN(np.zeros((len(w2), 1)), w2, activation="identity")
    found = fastrnn.lyapunov(net, np.zeros(100_000), k=len(w2), transient=1000)
    truth = np.sort(np.log(abs(np.linalg.eigvals(w2))))[::-1]
    assert (abs(found.exponents - truth) <= 3 * found.stderr + 1e-8).all()
    assert (found.stderr < 1e-3).all()
    assert found.converged.all()


@pytest.mark.parametrize("gain", [0.5, 3.0, 1e2, 1e4])
def test_the_sum_of_the_spectrum_is_the_mean_log_determinant(gain):
    """Also where units saturate by hundreds of orders of magnitude."""
    rng = np.random.default_rng(1)
    net = fastrnn.RNN(rng.standard_normal((6, 2)), gain * rng.standard_normal((6, 6)), 0.1)
    x = rng.standard_normal((500, 2))
    found = fastrnn.lyapunov(net, x[None], k=6)
    logs, z = logs_of_layer(net, x)
    truth = logs.sum(axis=1).mean() + np.linalg.slogdet(net.w2)[1]
    # A QR step of H rows is right to some H eps, relative to the smallest factor of W2.
    bound = 6 * 6 * np.linalg.cond(net.w2) * EPS
    bound += tolerances.C * EPS * (1 + 2 * z).sum(axis=1).mean()
    assert found.exponents.sum() == pytest.approx(truth, abs=bound)
    assert (np.diff(found.exponents[0]) < 0).all()


@pytest.mark.parametrize("gain", [0.9, 1.5, 2.5])
def test_a_random_layer_is_silent_or_chaotic(gain):
    """Sompolinsky, Crisanti and Sommers (1988): chaos from a gain of 1 on."""
    rng = np.random.default_rng(2)
    w2 = gain * rng.standard_normal((200, 200)) / math.sqrt(200)
    net = fastrnn.RNN(np.zeros((200, 1)), w2)
    h0 = rng.uniform(-0.5, 0.5, 200)
    x = np.zeros(3000)
    found = fastrnn.lyapunov(net, x, k=2, transient=1000, h0=h0)
    assert (found.exponents[0] > 0) == (gain > 1)
    if gain > 1:
        assert found.exponents[0] > 4 * found.stderr[0]
        assert abs(fastrnn.forward(net, x, h0=h0, keep="last")).max() > 0.1
    else:
        assert abs(fastrnn.forward(net, x, h0=h0, keep="last")).max() < 1e-3
    # Plain QR along the same states: those of a chaotic layer are nobody else's.
    logs, _ = logs_of_layer(net, x, h0)
    q = directions(200)[:2].T
    total = np.zeros(2)
    for t, slopes in enumerate(np.exp(logs)):
        q, r = np.linalg.qr(slopes[:, None] * (w2 @ q))
        if t >= 1000:
            total += np.log(abs(np.diagonal(r)))
    assert found.exponents == pytest.approx(total / 2000, abs=1e-10)


@pytest.mark.parametrize("kind", cases.NETS)
def test_matches_the_reference(kind):
    net = cases.NETS[kind]("tanh", "float64")
    x = cases.inputs(net, 3, 90)
    k = min(3, net.hidden_size)
    arguments = {"k": k, "transient": 7, "lengths": [90, 41, 5]}
    ours = fastrnn.lyapunov(net, x, **arguments, local=4)
    reference = fastrnn.reference.lyapunov(net, x, **arguments, local=4)
    for name in ("exponents", "stderr", "local"):
        np.testing.assert_allclose(
            getattr(ours, name), getattr(reference, name), rtol=1e-9, atol=1e-12
        )
    for name in ("converged", "steps"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(reference, name))
    assert ours.steps.tolist() == reference.steps.tolist()
    assert np.isnan(ours.exponents[..., 2, :]).all()
    assert np.isnan(ours.stderr[..., 2, :]).all()
    assert not ours.converged[..., 2, :].any()


def correlated_inputs(count, steps, memory, seed):
    """Gaussian AR(1) processes of variance 1, from their stationary state."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, steps))
    x[:, 1:] *= math.sqrt(1 - memory**2)
    for t in range(1, steps):
        x[:, t] += memory * x[:, t - 1]
    return x


def test_error_bars_cover_the_truth():
    """500 runs of a neuron that hears its inputs only, whose mean growth is an integral."""
    net = fastrnn.RNN(1.3, 1e-12)
    density = lambda u: mp.exp(-u * u / 2) / mp.sqrt(2 * mp.pi)  # noqa: E731
    slope = mp.quad(lambda u: density(u) * mp.log(mp.sech(1.3 * u) ** 2), [-10, 0, 10])
    truth = float(mp.log(1e-12) + slope)
    found = fastrnn.lyapunov(net, correlated_inputs(500, 3200, 0.7, seed=3))
    assert found.converged.mean() > 0.98
    covered = abs(found.exponents - truth) <= 2 * found.stderr
    assert 0.90 <= covered.mean() <= 0.99


def test_what_drifts_or_is_short_has_not_converged():
    net = fastrnn.RNN(1.0, 0.9)
    rng = np.random.default_rng(5)
    drifting = rng.standard_normal(4000) * np.linspace(0.1, 3, 4000)
    assert not fastrnn.lyapunov(net, drifting).converged[0]
    assert fastrnn.lyapunov(net, rng.standard_normal(4000)).converged[0]
    # Batches much shorter than the input remembers are not independent.
    slow = np.repeat(rng.standard_normal(8), 500)
    assert not fastrnn.lyapunov(net, slow).converged[0]
    few = fastrnn.lyapunov(net, rng.standard_normal(5))
    assert few.stderr[0] > 0
    assert not few.converged[0]
    assert np.isnan(fastrnn.lyapunov(net, [1.0]).stderr[0])


def test_a_derivative_of_0_is_exactly_minus_infinity():
    found = fastrnn.lyapunov(fastrnn.RNN(1.0, 0.5, activation="relu"), -np.ones(100))
    assert (found.exponents[0], found.stderr[0], found.converged[0]) == (-math.inf, 0, True)
    w2 = np.array([[2.0, 0.0], [0.0, 0.5]])
    net = fastrnn.RNN([[1.0], [-1.0]], w2, activation="relu")
    found = fastrnn.lyapunov(net, np.ones(200), k=2, transient=100)
    assert found.exponents[0] == pytest.approx(math.log(2))
    assert found.exponents[1] == -math.inf


def linear_layer(w2, steps=400, **options):
    net = fastrnn.RNN(np.zeros((len(w2), 1)), w2, activation="identity")
    return fastrnn.lyapunov(net, np.zeros(steps), k=len(w2), transient=100, **options)


def low_rank(hidden, rank):
    rng = np.random.default_rng(hidden)
    return rng.standard_normal((hidden, rank)) @ rng.standard_normal((rank, hidden)) / hidden


SINGULAR = {
    "rank 1": ([[0.25, 0.5], [0.5, 1.0]], 1),
    "rank 2 of 9": (low_rank(9, 2), 2),
    "rank 3 of 20": (low_rank(20, 3), 3),
    "an empty row": ([[0.5, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 0.25, 1.0]], 2),
    "an empty column": ([[0.5, 0.0, 2.0], [0.75, 0.0, 0.0], [1.0, 0.0, 1.0]], 2),
    "graded": (np.diag([1.0, 1e-200, 1e200]) @ [[1, 2, 3], [1, 2, 3], [1, 1, 1]], 2),
    "nilpotent": ([[1.0, -1.0], [1.0, -1.0]], 0),
}


@pytest.mark.parametrize(("w2", "rank"), SINGULAR.values(), ids=SINGULAR.keys())
def test_what_a_singular_w2_forgets_has_no_exponent_of_rounding_noise(w2, rank):
    w2 = np.array(w2)
    found = linear_layer(w2)
    gone = np.isneginf(found.exponents)
    assert gone.tolist() == [n >= rank for n in range(len(w2))]
    assert found.converged[gone].all()
    assert (found.stderr[gone] == 0).all()
    net = fastrnn.RNN(np.zeros((len(w2), 1)), w2, activation="identity")
    assert fastrnn.jacobian_norms(net, np.zeros(9), [1, 9]).smallest.sign.tolist() == [0, 0]
    plain = fastrnn.reference.lyapunov(net, np.zeros(400), k=len(w2), transient=100)
    if abs(w2).max() < 1e100:
        assert np.isneginf(plain.exponents).tolist() == gone.tolist()


# Triangular: the exponents are the logarithms of the diagonal, however far its entries lie apart.
GRADED = {
    "above": [[1e-20, 1.0], [0.0, 1e-30]],
    "rows": [[1.0, 1.0], [0.0, 1e-20]],
    "below": [[1e-20, 0.0], [0.5, 1.0]],
    "three": [[1.0, 0.5, 2.0], [0.0, 1e-26, 1e-27], [0.0, 0.0, 1e-52]],
    "far": [[1e200, 1.0, 1.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1e-200]],
    "diagonal": np.diag([3.0, 1e300, 1e-300, 1e-20]),
}


@pytest.mark.parametrize("w2", GRADED.values(), ids=GRADED.keys())
def test_small_exponents_that_the_weights_determine_are_no_rounding(w2):
    truth = np.sort(np.log(np.diagonal(w2)))[::-1]
    assert linear_layer(np.array(w2)).exponents == pytest.approx(truth, rel=1e-13, abs=1e-13)


def exact_exponents(net, x, k, digits):
    """QR of each step by Gram and Schmidt, in so many digits, along the computed states."""
    h = np.concatenate([np.zeros((1, net.hidden_size)), fastrnn.forward(net, x[None])[0][:-1]])
    with mp.workdps(digits):
        w1, w2, b = (mp.matrix(np.atleast_1d(w).tolist()) for w in (net.w1, net.w2, net.b))
        q = mp.matrix(directions(net.hidden_size)[:k].T.tolist())
        total, rounding = [mp.mpf(0)] * k, 0.0
        for x_t, before in zip(x, h, strict=True):
            z = w1 * mp.matrix(x_t.tolist()) + w2 * mp.matrix(before.tolist()) + b
            q = mp.diag([derivative(net.activation, value) for value in z]) * (w2 * q)
            for j in range(k):
                for i in range(j):
                    q[:, j] -= mp.fdot(q[:, i], q[:, j]) * q[:, i]
                size = mp.norm(q[:, j])
                total[j] += mp.log(size)
                q[:, j] /= size
            rounding += float(1 + 2 * max(abs(value) for value in z))
        return np.array([float(value / len(x)) for value in total]), rounding / len(x)


@pytest.mark.parametrize("gain", [1.0, 10.0, 30.0, 60.0])
def test_exponents_of_saturated_units_have_all_their_digits(gain):
    """From -0.4 to -100: what one step keeps of three directions, up to 60 decades apart."""
    rng = np.random.default_rng(1)
    net = fastrnn.RNN(
        rng.standard_normal((5, 2)), gain * rng.standard_normal((5, 5)), 0.1 * np.ones(5)
    )
    x = rng.standard_normal((40, 2))
    truth, rounding = exact_exponents(net, x, 3, 400)
    bound = EPS * (tolerances.C * rounding + 25 * np.linalg.cond(net.w2))
    for verb in (fastrnn.lyapunov, fastrnn.reference.lyapunov):
        assert (abs(verb(net, x[None], k=3).exponents[0] - truth) <= bound).all()
    assert truth[2] < -40 or gain < 30


def exact_relu_states(net, x):
    """States in whole numbers and fractions, of any magnitude."""
    w1, w2 = (
        [[Fraction(float(v)) for v in row] for row in np.atleast_2d(w)] for w in (net.w1, net.w2)
    )
    b = [Fraction(float(v)) for v in np.broadcast_to(net.b, net.hidden_size)]
    h, states = [Fraction(0)] * net.hidden_size, []
    for x_t in np.reshape(x, (len(x), -1)):
        inputs = [Fraction(float(v)) for v in x_t]
        z = [sum(map(mul, w1[i], inputs)) + sum(map(mul, w2[i], h)) + b[i] for i in range(len(h))]
        h = [max(value, Fraction(0)) for value in z]
        states.append(h)
    return states


FAR_LAYERS = {
    "growing": ([[3.0, -1.0], [1.0, 1.0]], [[1.0], [1.0]], 1.0),
    "turning off": ([[2.0, 0.0], [1.0, -4.0]], [[1.0], [-1.0]], 1.0),
    "negative inputs": ([[2.5, -1.0], [-1.0, 1.5]], [[1.0], [0.5]], -1.0),
    "far apart": ([[4.0, 0.0], [0.0, 0.5]], [[1.0], [1e-3]], 1.0),
}


@pytest.mark.parametrize(("dtype", "steps"), [("float32", 200), ("float64", 1030)])
@pytest.mark.parametrize(("w2", "w1", "sign"), FAR_LAYERS.values(), ids=FAR_LAYERS.keys())
def test_relu_layers_whose_states_leave_floats(w2, w1, sign, dtype, steps):
    net = fastrnn.RNN(np.array(w1, dtype), np.array(w2, dtype), activation="relu")
    x = np.where(np.arange(steps) < 3, 1.0, sign).astype(dtype)
    alive = np.array([[value > 0 for value in state] for state in exact_relu_states(net, x)])
    found = fastrnn.lyapunov(net, x, k=2)
    q, total = directions(2).T, np.zeros(2)
    for slopes in alive:
        q, r = np.linalg.qr(slopes[:, None] * (np.array(w2) @ q))
        with np.errstate(divide="ignore"):
            total += np.log(abs(np.diagonal(r)))
    assert found.exponents == pytest.approx(total / steps, rel=1e-12)
    diagnosis = fastrnn.diagnose(net, x)
    assert diagnosis.saturated == pytest.approx((~alive).mean(), abs=1e-15)
    assert "nan" not in diagnosis.summary()
    norms = fastrnn.jacobian_norms(net, x, [1, steps])
    with mp.workdps(30):
        product = mp.eye(2)
        for slopes in alive[::-1]:
            product = product * mp.diag([int(s) for s in slopes]) * mp.matrix(w2)
        truth = mp.svd_r(product, compute_uv=False)[0]
        assert norms.largest.log()[1] == pytest.approx(float(mp.log(truth)), rel=1e-12)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_the_slope_of_the_identity_is_1_beyond_floats(dtype):
    """Whatever inputs and states are there, and of whatever signs."""
    x = np.where(np.arange(3000) % 7 == 0, -1, 1) * np.finfo(dtype).max
    w2 = np.array([[2.0, -1.0], [1.0, 3.0]], dtype)
    net = fastrnn.RNN(np.array([[1.5], [-1.5]], dtype), w2, activation="identity")
    found = fastrnn.lyapunov(net, x.astype(dtype), k=2)
    assert found.exponents.sum() == pytest.approx(math.log(7), rel=1e-13)
    bank = fastrnn.RNN(
        np.full(3, 1.5, dtype), np.array([-3.0, 0.5, 1.0], dtype), activation="identity"
    )
    found = fastrnn.lyapunov(bank, x.astype(dtype))
    assert found.exponents[:, 0] == pytest.approx([math.log(3), math.log(0.5), 0], rel=1e-13)
    assert fastrnn.diagnose(bank, x.astype(dtype)).regime.tolist() == [
        "exploding", "vanishing", "balanced",
    ]  # fmt: skip


def test_the_exponent_of_a_growing_relu_layer():
    """The double eigenvalue 2 of the issue's layer: log 2 and what its Jordan block adds."""
    net = fastrnn.RNN(np.ones((2, 1)), [[3.0, -1.0], [1.0, 1.0]], activation="relu")
    found = fastrnn.lyapunov(net, np.ones(1030), k=2)
    assert found.exponents.sum() == pytest.approx(math.log(4), rel=1e-13)
    assert math.log(2) < found.exponents[0] < math.log(2) + math.log(1030) / 1030


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("w2", [0.999, 1.0, 1.0625, 3.0, -0.5, -3.0])
def test_relu_neurons_whose_inputs_leave_floats(w2, dtype):
    """They come back from there, too."""
    largest = float(np.finfo(dtype).max)
    x = np.full(300, -0.011 * largest, dtype)
    x[:2] = 0.9 * largest
    net = fastrnn.RNN(np.ones((), dtype), np.array(w2, dtype), activation="relu")
    alive = np.array([state[0] > 0 for state in exact_relu_states(net, x)])
    found = fastrnn.lyapunov(net, x, local=1)
    assert np.isfinite(found.local[:, 0]).tolist() == alive.tolist()
    whole = fastrnn.lyapunov(net, x)
    assert np.isneginf(whole.exponents[0]) == (not alive.all())
    assert fastrnn.diagnose(net, x).saturated == pytest.approx((~alive).mean(), abs=1e-15)
    sign = fastrnn.jacobian_norms(net, x, [300]).largest.sign[0]
    assert sign == alive.all()


def test_one_sequence_shorter_than_a_window_does_not_end_the_others():
    rng = np.random.default_rng(8)
    for net in (cases.neuron(), cases.layer(3)):
        short = fastrnn.lyapunov(net, rng.standard_normal(50), local=100)
        assert short.exponents == pytest.approx(short.local[0], rel=1e-13)
        assert np.isnan(short.stderr).all()
        assert not short.converged.any()
        x = rng.standard_normal((2, 2000))
        for options in (
            {"lengths": [2000, 40], "local": 50},
            {"lengths": [2000, 3], "stderr": 0.1},
        ):
            found = fastrnn.lyapunov(net, x, **options)
            for i, length in enumerate(options["lengths"]):
                own = fastrnn.lyapunov(net, x[i, : int(found.steps[i])])
                assert found.exponents[i] == pytest.approx(own.exponents, rel=1e-12)
                assert found.steps[i] <= length


def test_windows_and_transients_longer_than_any_run():
    x = np.random.default_rng(9).standard_normal((2, 30))
    for net in (cases.neuron(), cases.layer(3)):
        found = fastrnn.lyapunov(net, x, local=10**30)
        assert found.local.shape == (2, 1, 1)
        assert found.local[:, 0] == pytest.approx(found.exponents, rel=1e-13)
        assert fastrnn.lyapunov(net, x, transient=10**30).steps.tolist() == [0, 0]


def test_numbers_of_hundreds_of_digits_are_in_scientific_form():
    net = fastrnn.RNN(1.0, 1e300)
    x = np.random.default_rng(10).standard_normal(300)
    text = repr(fastrnn.lyapunov(net, x))
    assert re.fullmatch(r"Lyapunov\(-1\.\d+e\+300 ± \d\.\de\+\d+(, not converged)?\)", text)
    assert max(map(len, fastrnn.diagnose(net, x).summary().splitlines())) < 120
    assert error_text(-1.5e300, 2.5e298) == "-1.5e+300 ± 2.5e+298"
    assert error_text(123456.7, 12.0) == "123457 ± 12"
    assert error_text(1e-300, 1e-302) == "1e-300 ± 1.0e-302"
    assert error_text(0.25, math.nan) == "0.25"
    assert lag_text(7e300) == "7e+300"
    assert lag_text(123456.0) == "123456"


def test_units_that_hear_a_tiny_weight_only_keep_their_exponent():
    net = fastrnn.RNN(np.zeros((2, 1)), np.diag([1e300, 1e-300]), activation="identity")
    found = fastrnn.lyapunov(net, np.zeros(200), k=2, transient=100)
    assert found.exponents == pytest.approx([math.log(1e300), math.log(1e-300)], rel=1e-14)


def test_a_run_stops_at_the_standard_error_that_is_wanted():
    net = fastrnn.RNN(1.0, np.array([0.5, 0.9]))
    x = np.random.default_rng(6).standard_normal((3, 50_000))
    found = fastrnn.lyapunov(net, x, stderr=0.01)
    assert found.converged.all()
    assert (found.stderr <= 0.01).all()
    assert (found.steps < 50_000).all()
    for k, i in np.ndindex(2, 3):
        one = fastrnn.RNN(1.0, net.w2[k])
        alone = fastrnn.lyapunov(one, x[i], stderr=0.01)
        assert alone.steps == found.steps[k, i]
        assert alone.exponents == found.exponents[k, i]
        # What it found is what the steps it took give.
        whole = fastrnn.lyapunov(one, x[i, : alone.steps])
        assert alone.exponents == pytest.approx(whole.exponents, rel=1e-12)
        assert alone.stderr == pytest.approx(whole.stderr, rel=1e-6)
    never = fastrnn.lyapunov(net, x, stderr=1e-9, transient=10)
    assert (never.steps == 49_990).all()
    assert not never.converged.any()
    whole = fastrnn.lyapunov(net, x, transient=10)
    assert never.exponents == pytest.approx(whole.exponents, rel=1e-12)


def test_a_layer_stops_too_and_short_sequences_end_by_themselves():
    net = cases.layer(3)
    x = np.random.default_rng(7).standard_normal((2, 20_000, 1))
    found = fastrnn.lyapunov(net, x, k=2, stderr=0.02, lengths=[20_000, 700])
    assert found.converged[0].all()
    assert found.steps[0] < 20_000
    assert found.steps[1] == 700


@pytest.mark.parametrize("kind", ["bank", "bank of layers"])
def test_same_bits_however_a_job_is_run(kind, monkeypatch):
    net = cases.NETS[kind]("tanh", "float64")
    x = cases.inputs(net, 21, 300)
    lengths = np.arange(280, 301)
    k = min(2, net.hidden_size)

    def bits(x=x, lengths=lengths, **options):
        found = fastrnn.lyapunov(net, x, k, 11, lengths=lengths, **options)
        return found.exponents

    whole = bits()
    assert bits(workers=1).tobytes() == whole.tobytes()
    back = slice(None, None, -1)
    assert bits(x[back], lengths[back])[:, back].tobytes() == whole.tobytes()
    assert bits(x[3:4], lengths[3:4]).tobytes() == whole[:, 3:4].tobytes()
    assert bits(np.asfortranarray(x)).tobytes() == whole.tobytes()
    monkeypatch.setattr(growth, "CALL_WORK", 2000)
    monkeypatch.setattr(growth, "SLICE_BYTES", 20_000)
    monkeypatch.setattr(lanes, "SLICE", 66)
    monkeypatch.setattr(lanes, "LANE_STEPS", 500)
    assert bits().tobytes() == whole.tobytes()


@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_a_nan_stays_in_its_sequence(kind):
    net = cases.NETS[kind]("tanh", "float64")
    x = cases.inputs(net, 5, 64)
    clean = fastrnn.lyapunov(net, x).exponents
    x[2, 30] = np.nan
    found = fastrnn.lyapunov(net, x, local=1)
    assert np.isnan(found.exponents[2]).all()
    assert np.isfinite(found.local[2, :30]).all()
    assert not found.converged[2].any()
    others = [0, 1, 3, 4]
    assert fastrnn.lyapunov(net, x).exponents[others].tobytes() == clean[others].tobytes()


@pytest.mark.parametrize("kind", ["neuron", "bank of layers"])
def test_nothing_gives_nothing(kind):
    net = cases.NETS[kind]("tanh", "float64")
    for shape in ((0, 5), (2, 0)):
        found = fastrnn.lyapunov(net, np.zeros(shape))
        assert np.isnan(found.exponents).all()
        assert found.exponents.shape[-2:] == (shape[0], 1)
        assert not found.converged.any()


def test_inputs_that_take_no_memory():
    found = fastrnn.lyapunov(fastrnn.RNN(1.0, 0.5), np.broadcast_to(0.0, (200_000,)))
    assert found.exponents[0] == pytest.approx(math.log(0.5), rel=1e-14)
    assert repr(found) == "Lyapunov(-0.693147 ± 0)"


WRONG = [
    ({"k": 0}, ValueError, "k must be from 1 to the hidden size 7, got 0"),
    ({"k": 8}, ValueError, "k must be from 1 to the hidden size 7, got 8"),
    ({"k": 1.0}, TypeError, "k must be an integer, got float"),
    ({"k": True}, TypeError, "k must be an integer, got a bool"),
    ({"transient": -1}, ValueError, "transient must be at least 0, got -1"),
    ({"local": 0}, ValueError, "local must be at least 1, got 0"),
    ({"stderr": 0.0}, ValueError, "stderr must be positive, got 0.0"),
    ({"stderr": math.nan}, ValueError, "stderr must be positive, got nan"),
    ({"stderr": "small"}, TypeError, "stderr must be a number, got str"),
    ({"stderr": True}, TypeError, "stderr must be a number, got bool"),
    ({"stderr": [0.1]}, TypeError, "stderr must be a number, got list"),
    ({"transient": 1.5}, TypeError, "transient must be an integer, got float"),
    ({"local": "all"}, TypeError, "local must be an integer, got str"),
    ({"stderr": 0.1, "local": 1}, ValueError, "local must be None where stderr is given"),
    ({"h0": np.zeros(3)}, ValueError, "h0 must have shape"),
]


@pytest.mark.parametrize(("options", "error", "match"), WRONG)
def test_wrong_arguments(options, error, match):
    with pytest.raises(error, match=match):
        fastrnn.lyapunov(cases.layer(7, 2), np.zeros((2, 9, 2)), **options)


def test_jobs_fit_what_they_are_made_of():
    job = sequences(cases.layer(9), np.zeros(3))
    assert growth.Growth(job, 2, None).tangents.shape == (1, 1, 2, 16)


@pytest.mark.parametrize("length", [1, 31, 36, 63, 64, 100, 512])
@pytest.mark.parametrize("steps", [513, 520, 1030, 2100])
def test_short_sequences_in_a_run_that_goes_on(length, steps):
    x = np.tile(np.sin(np.arange(float(steps))), (2, 1))
    net = fastrnn.RNN(1.0, 0.9)
    found = fastrnn.lyapunov(net, x, lengths=[length, steps], stderr=1e-9)
    for i, count in enumerate((length, steps)):
        alone = fastrnn.lyapunov(net, x[i, :count], stderr=1e-9)
        assert found.exponents[i].tobytes() == alone.exponents.tobytes()
        assert found.stderr[i].tobytes() == alone.stderr.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("local", [None, 500])
def test_relu_states_too_small_for_floats_keep_their_slopes(dtype, local):
    x = np.zeros(2000, dtype)
    x[0] = 1.0
    net = fastrnn.RNN(1.0, 0.5, activation="relu")
    found = fastrnn.lyapunov(net, x, local=local)
    assert found.exponents == pytest.approx(np.log(0.5), rel=1e-12)
    w2 = np.array([[0.5, 0.1], [0.1, 0.5]])
    layer = fastrnn.RNN(np.ones((2, 1)), w2, activation="relu")
    line = fastrnn.RNN(np.ones((2, 1)), w2, activation="identity")
    ours, truth = (fastrnn.lyapunov(n, x, k=2, local=local) for n in (layer, line))
    np.testing.assert_allclose(ours.exponents, truth.exponents, rtol=1e-12)
    norms = fastrnn.jacobian_norms(net, x, lags=[1])
    assert norms.largest.to_float() == 0.5
    assert fastrnn.diagnose(net, x).exponent == pytest.approx(np.log(0.5), rel=1e-12)


def test_a_unit_that_is_off_stays_off():
    x = np.zeros(50)
    x[:20] = 1.0
    found = fastrnn.lyapunov(fastrnn.RNN(1.0, 0.5, -0.5, activation="relu"), x)
    assert found.exponents == -np.inf
