"""Lyapunov exponents against mpmath, eigenvalues, determinants and plain QR."""

import math

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from benchmarks.exact import DIGITS, derivative
from fastrnn import growth, lanes
from fastrnn.exponents import directions
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
