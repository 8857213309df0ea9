"""Numerical promises against mpmath, closed forms, complex steps and PyTorch."""

import dataclasses
import math

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from fastrnn.sequences import sequences
from tests import cases, exact, tolerances
from tests.cases import ACTIVATIONS
from tests.compiled import scaled_slope, value_and_slope

EXTREME_W2 = [
    sign * size
    for size in (1e-300, 1e-10, 0.1, 0.9, 1.0, 1.1, 2.0, 10.0, 1e3, 1e10, 1e100, 1e300)
    for sign in (1, -1)
]


def _ulps(ours, truth):
    """Distance in units in the last place of the truth, in the type of ``ours``."""
    if truth == 0:
        return 0.0 if ours == 0 else math.inf
    unit = np.spacing(abs(np.asarray(float(truth), ours.dtype)))
    return float(abs(mp.mpf(float(ours)) - truth) / mp.mpf(float(unit)))


def _exactly(mantissa, exponent):
    return mp.ldexp(mp.mpf(float(mantissa)), int(exponent))


def _pre_activations(dtype):
    rng = np.random.default_rng(0)
    last = 110 if dtype == "float32" else 760
    binades = rng.uniform(1, 2, 300) * 2.0 ** rng.integers(-1074, 9, 300)
    lines = [rng.uniform(-20, 20, 1000), rng.uniform(-1, 1, 1000), rng.uniform(-last, last, 500)]
    edges = [
        0.0,
        10.0,
        15.0,
        19.0,
        19.1,
        25.0,
        52.0,
        88.7,
        103.9,
        300.0,
        354.0,
        372.5,
        709.0,
        745.0,
    ]
    return np.concatenate([*lines, binades, -binades, edges]).astype(dtype)


TRUTH = {
    "tanh": mp.tanh,
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "relu": lambda z: max(z, mp.mpf(0)),
    "identity": lambda z: z,
}


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_is_right_to_2_and_its_derivative_to_4_ulp(activation, dtype):
    z = _pre_activations(dtype)
    values, slopes = value_and_slope(activation, z)
    with mp.workdps(400):  # sigmoid(-745) has 323 zeros
        exactly = [mp.mpf(float(v)) for v in z]
        worst = max(_ulps(v, TRUTH[activation](e)) for v, e in zip(values, exactly, strict=True))
        assert worst <= tolerances.ACTIVATION_ULP
    with mp.workdps(exact.DIGITS):
        worst = max(
            _ulps(s, exact.derivative(activation, e)) for s, e in zip(slopes, exactly, strict=True)
        )
        assert worst <= 4


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_activation_is_right_to_2_ulp_for_every_float32(activation):
    """Against float64, whose own error is 1e-8 of a float32's last place."""
    worst = 0.0
    for start in range(0, 1 << 32, 1 << 24):
        z = np.arange(start, start + (1 << 24), dtype=np.uint32).view(np.float32)
        z = z[np.isfinite(z)]
        if not z.size:
            continue
        values, _ = value_and_slope(activation, z)
        wide = z.astype(np.float64)
        with np.errstate(over="ignore"):
            truth = np.tanh(wide) if activation == "tanh" else 1 / (1 + np.exp(-wide))
        unit = np.spacing(abs(truth.astype(np.float32))).astype(np.float64)
        worst = max(worst, float((abs(values - truth) / unit).max()))
        assert (abs(values) <= 1).all()
    assert worst <= tolerances.ACTIVATION_ULP


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_activation_never_falls_from_one_float32_to_the_next(activation, sign):
    before = -math.inf
    for start in range(0, 0x7F800000, 1 << 24):
        sizes = np.arange(start, start + (1 << 24), dtype=np.uint32).view(np.float32)
        sizes = sizes[sizes < math.inf]
        rising = sign * value_and_slope(activation, sign * sizes)[0]
        assert before <= rising[0]
        assert (np.diff(rising) >= 0).all()
        before = rising[-1]


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_activation_never_falls(activation, dtype):
    """Between neighbours, at every change of exp's power of two, and over the whole line."""
    rng, bits = np.random.default_rng(), f"u{np.dtype(dtype).itemsize}"
    rate, last = (2, 20.0) if activation == "tanh" else (1, 750.0)
    changes = (np.arange(last * rate / math.log(2)) + 0.75) * math.log(2) / rate
    places = [rng.uniform(low, high, 100) for low, high in [(0, 0.3), (0.2, 1), (1, 20)]]
    places = np.concatenate([changes, *places, last * rng.uniform(0, 1, 100)]).astype(dtype)
    neighbours = places.view(bits)[:, None] + np.arange(-512, 512).astype(bits)
    for z in (neighbours.view(dtype), np.sort(rng.uniform(-25, 25, (1, 400_000)).astype(dtype))):
        for sign in (1, -1):
            values = sign * value_and_slope(activation, (sign * z).ravel())[0].reshape(z.shape)
            falls = z[:, 1:][np.diff(values) < 0]
            assert not falls.size, f"{falls.size} falls, one of them at {falls[0]!r}"


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize(
    "z", [0.0, 1.0, 19.0, 400.0, 1e4, 1e6, 1e8, 1e12, 1.1e15, 3.05e15, 9.1e15, 1e18, 1e300]
)
def test_scaled_derivative_is_a_number_at_any_saturation(activation, z):
    (mantissa,), (exponent,) = scaled_slope(activation, -z)
    with mp.workdps(exact.DIGITS):
        ours = mp.log(mp.mpf(mantissa)) + int(exponent) * mp.log(2)
        rate, factor = (2, 4) if activation == "tanh" else (1, 1)
        truth = mp.log(factor) - rate * mp.mpf(z) - 2 * mp.log(1 + mp.exp(-rate * mp.mpf(z)))
        assert abs(ours - truth) <= 4 * tolerances.eps(np.float64) * (1 + 2 * mp.mpf(z))


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_activations_of_special_values(dtype):
    tiny = float(np.finfo(dtype).smallest_subnormal)
    z = np.array([math.nan, math.inf, -math.inf, -0.0, tiny, -tiny], dtype)
    expected = {
        "tanh": ([math.nan, 1, -1, -0.0, tiny, -tiny], [math.nan, 0, 0, 1, 1, 1]),
        "sigmoid": ([math.nan, 1, 0, 0.5, 0.5, 0.5], [math.nan, 0, 0, 0.25, 0.25, 0.25]),
        "relu": ([math.nan, math.inf, 0, -0.0, tiny, 0], [math.nan, 1, 0, 0, 1, 0]),
        "identity": ([math.nan, math.inf, -math.inf, -0.0, tiny, -tiny], [1] * 6),
    }
    for activation, (values, slopes) in expected.items():
        ours, slope = value_and_slope(activation, z)
        np.testing.assert_array_equal(ours, np.array(values, dtype), err_msg=activation)
        np.testing.assert_array_equal(slope, np.array(slopes, dtype), err_msg=activation)
        assert np.signbit(ours[3]) == (activation != "sigmoid")
    assert scaled_slope("tanh", [math.inf])[0] == 0
    assert np.isnan(scaled_slope("tanh", [math.nan])[0])


@pytest.mark.parametrize("kind", ["neuron", "layer", "reference"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("saturation", [10.0, 18.0, 19.1, 30.0, 300.0])
def test_saturated_gradients_keep_their_digits(kind, activation, saturation):
    """Neither 1 - h*h nor h*(1 - h) does."""
    verbs = fastrnn.reference if kind == "reference" else fastrnn
    weights = ([[0.5]], [[0.5]]) if kind == "layer" else (0.5, 0.5)
    net = fastrnn.RNN(*weights, saturation, activation=activation)
    grad = verbs.backward(net, [0.0], [1.0] if kind != "layer" else [[1.0]])
    with mp.workdps(exact.DIGITS):
        truth = exact.derivative(activation, mp.mpf(saturation))
        assert _ulps(np.ravel(grad.b)[0], truth) <= 4


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("steps", [1, 5, 100, pytest.param(500, marks=pytest.mark.slow)])
def test_influence_matches_mpmath_at_extreme_w2(activation, steps, dtype):
    values = [w2 for w2 in EXTREME_W2 if dtype == "float64" or 1e-30 < abs(w2) < 1e30]
    w2 = np.array(values, dtype)
    net = fastrnn.RNN(0.7, w2, 0.1, activation=activation)
    x = np.random.default_rng(3).standard_normal(steps).astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        states = fastrnn.forward(net, x)
    result = fastrnn.influence(net, x)
    assert result.dtype == dtype
    w1, _, b = (float(np.asarray(v, dtype)) for v in (0.7, 0, 0.1))
    for k in range(len(w2)):
        if not np.isfinite(states[k]).all():
            continue  # identity and relu: see the closed form below
        before = np.concatenate([[0.0], states[k, :-1].astype(np.float64)])
        with mp.workdps(exact.DIGITS):
            seed = [[0.0]] * (steps - 1) + [[1.0]]
            z, _, dx, _ = exact.back_propagate(
                [[w1]], [[float(w2[k])]], [b], activation, x[:, None], before[:, None], seed
            )
            for t in range(steps):
                truth = dx[t][0]
                if truth == 0:
                    assert result.sign[k, t] == 0
                    continue
                ratio = _exactly(result.mantissa[k, t], result.exponent[k, t]) / truth
                bound = tolerances.C * tolerances.eps(dtype)
                bound *= mp.fsum(1 + 2 * abs(z[s][0]) for s in range(t, steps))
                assert abs(mp.log(ratio)) <= bound


# A relu with negative feedback is off after the first step.
CLOSED_FORMS = [("identity", w2) for w2 in EXTREME_W2] + [
    ("relu", abs(w2)) for w2 in EXTREME_W2[::2]
]


@pytest.mark.parametrize("steps", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("activation", "w2"), CLOSED_FORMS)
def test_influence_has_its_closed_form_over_a_long_sequence(activation, w2, steps):
    net = fastrnn.RNN(0.5, w2, activation=activation)
    result = fastrnn.influence(net, np.ones(steps))[0]
    with mp.workdps(exact.DIGITS):
        ratio = _exactly(result.mantissa, result.exponent) / (
            mp.mpf(0.5) * mp.mpf(w2) ** (steps - 1)
        )
        assert abs(ratio - 1) <= tolerances.C * tolerances.eps(np.float64) * steps


def test_components_of_a_layer_keep_their_own_magnitudes():
    net = fastrnn.RNN(np.eye(2), np.diag([0.1, 2.0]), activation="identity")
    result = fastrnn.influence(net, np.ones((1, 3000, 2)))[0, 0]
    assert result.log10() == pytest.approx([-2999, 2999 * math.log10(2)], rel=1e-12)
    mixed = fastrnn.RNN(np.eye(2), [[1e-300, 1e300], [0.0, 1e-300]], activation="identity")
    result = fastrnn.influence(mixed, np.ones((1, 3, 2)), v=[1.0, 0.0])[0, 0]
    with mp.workdps(exact.DIGITS):
        low, high = mp.mpf(1e-300), mp.mpf(1e300)
        truth = [low * low, 2 * low * high]
        for f in range(2):
            ratio = _exactly(result.mantissa[f], result.exponent[f]) / truth[f]
            assert abs(ratio - 1) < 1e-15


@pytest.mark.parametrize("size", [1e300, 1e-300])
def test_a_direction_past_float32(size):
    unit = np.eye(2, dtype=np.float32)
    net = fastrnn.RNN(unit, unit, activation="identity")
    x = np.ones((1, 3, 2), np.float32)
    result = fastrnn.influence(net, x, v=[size, size / 2])[0]
    assert (result.mantissa == result.mantissa.astype(np.float32)).all()
    assert result.log10()[0] == pytest.approx(np.log10([size, size / 2]), abs=1e-6)
    apart = fastrnn.influence(net, x, v=[1.0, size])[0]
    assert apart.log10()[0] == pytest.approx([0, math.log10(size)], abs=1e-6)


@pytest.mark.parametrize("w2", [9e307, 1.7e308, -1.7e308, 5e-324])
@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_the_ends_of_the_range_of_w2(activation, w2):
    net = fastrnn.RNN(1.0, w2, activation=activation)
    with np.errstate(over="ignore"):
        result = fastrnn.influence(net, [0.5, 0.5, 0.5])
    # tanh: past the range of exponents, but neither NaN nor taken for 0.
    assert (abs(result.sign) == 1).all()
    assert not np.isnan(result.log10()).any()
    if activation == "identity":
        assert result[0].log10() == pytest.approx(2 * math.log10(abs(w2)), rel=1e-14)


def test_zero_influence_is_zero_and_not_tiny():
    off = fastrnn.influence(fastrnn.RNN(1.0, 0.5, activation="relu"), [1.0, -9.0, 1.0])
    cut = fastrnn.influence(fastrnn.RNN(1.0, 0.0), [1.0, 1.0])
    assert off.sign.tolist() == [0, 0, 1]
    assert off.log10().tolist() == [-np.inf, -np.inf, 0]
    assert cut.sign.tolist() == [0, 1]


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_gradient_matches_mpmath(kind, activation, dtype):
    steps = 60
    net = cases.NETS[kind](activation, dtype)
    x = cases.inputs(net, 1, steps, dtype)
    job = sequences(net, x)
    dh = np.random.default_rng(8).standard_normal(job.size("KBTH")).astype(dtype)
    names = ("w1", "w2", "b", "x", "h0")
    result = fastrnn.backward(net, x, job.visible(dh, "KBTH"), wrt=names, per_sequence=True)
    states = fastrnn.forward(net, x).reshape(job.size("KBTH"))[0, 0]
    before = np.concatenate([job.h0[0], states[:-1]])
    w1, w2, b, _, _ = job.weights
    _, dz, dx, dh0 = exact.back_propagate(
        w1[0], w2[0], b[0], activation, job.x[0], before, dh[0, 0]
    )
    with mp.workdps(exact.DIGITS):

        def outer(vectors):
            return [
                [
                    mp.fsum(dz[t][i] * mp.mpf(float(vectors[t][j])) for t in range(steps))
                    for j in range(vectors.shape[1])
                ]
                for i in range(net.hidden_size)
            ]

        truth = {
            "w1": outer(job.x[0]),
            "w2": outer(before),
            "b": outer(np.ones((steps, 1))),
            "x": dx,
            "h0": dh0,
        }
    bounds = tolerances.gradient_bound(job, dh)
    for name in names:
        bound = bounds[name]
        ours = getattr(result, name).astype(np.float64).reshape(bound.shape)
        exactly = np.array(truth[name], dtype=object).astype(np.float64).reshape(bound.shape)
        assert (abs(ours - exactly) <= bound).all(), name


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", cases.NETS)
def test_gradient_matches_complex_step(kind, activation):
    net = cases.NETS[kind](activation, "float64")
    x = cases.inputs(net, 3, 100)
    job = sequences(net, x)
    y = job.visible(np.random.default_rng(4).standard_normal(job.size("KBTO")), "KBTO")
    errors = fastrnn.testing.gradcheck(net, x, y, lengths=[100, 40, 0], rtol=1e-12)
    assert set(errors) == set(job.weight_names)


def test_gradcheck_names_a_wrong_gradient(monkeypatch):
    real = fastrnn.testing.loss_and_grad

    def wrong(*args, **options):
        loss, grad = real(*args, **options)
        return loss, dataclasses.replace(grad, w2=1.001 * grad.w2)

    monkeypatch.setattr(fastrnn.testing, "loss_and_grad", wrong)
    with pytest.raises(AssertionError, match=r"the gradient by w2 is .*, by a complex step"):
        fastrnn.testing.gradcheck(cases.neuron(), np.sin(np.arange(50)))


def test_one_step_has_its_closed_form():
    net = fastrnn.RNN(0.5, 3.0, 0.25)
    h = math.tanh(0.5 * 2.0 + 0.25)
    loss, grad = fastrnn.loss_and_grad(net, [2.0], [0.0], wrt=("w1", "w2", "b", "x", "h0"))
    slope = 1 / math.cosh(1.25) ** 2
    assert fastrnn.forward(net, [2.0])[0] == pytest.approx(h, rel=4e-16)
    assert loss == pytest.approx(h * h, rel=1e-15)
    for name, factor in {"w1": 2.0, "w2": 0.0, "b": 1.0, "x": 0.5, "h0": 3.0}.items():
        assert np.ravel(getattr(grad, name))[0] == pytest.approx(2 * h * slope * factor, rel=2e-15)


def test_five_inputs_of_the_textbook():
    x = [3.0, 1.0, 4.0, 1.0, 5.0]
    small = fastrnn.influence(fastrnn.RNN(1.0, 0.1, activation="identity"), x)[0]
    large = fastrnn.influence(fastrnn.RNN(1.0, 2.0, activation="identity"), x)[0]
    assert small.to_float() == pytest.approx(0.0001, rel=1e-15)
    assert large.to_float() == 16.0


def test_overflow_comes_at_the_first_step_that_leaves_the_range():
    net = fastrnn.RNN(1.0, 2.0, activation="identity")
    x = np.zeros(1100)
    x[0] = 1.0
    states = fastrnn.forward(net, x)
    assert np.isfinite(states[:1024]).all()
    assert np.isinf(states[1024:]).all()
    assert fastrnn.influence(net, x)[0].log() == pytest.approx(1099 * math.log(2), rel=1e-12)


def test_vanished_gradient_keeps_its_logarithm():
    net = fastrnn.RNN(1.0, 0.5, activation="identity")
    result = fastrnn.influence(net, np.zeros(100_000))[0]
    assert result.to_float() == 0
    assert result.log() == pytest.approx(-99_999 * math.log(2), rel=1e-12)


def test_infinite_input_saturates_and_has_no_gradient():
    grad = fastrnn.backward(
        fastrnn.RNN(1.0, 0.5), [math.inf, 0.0], [1.0, 0.0], wrt=("w1", "w2", "b")
    )
    assert fastrnn.forward(fastrnn.RNN(1.0, 0.5), [math.inf])[0] == 1.0
    assert (grad.w1, grad.w2, grad.b) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["neuron", "bank", "layer", "bank of layers"])
def test_nan_stays_in_its_sequence_from_its_step_on(kind):
    net = cases.NETS[kind]("tanh", "float64")
    clean = cases.inputs(net, 6, 40)
    dirty = clean.copy()
    dirty[2, 17] = np.nan
    job = sequences(net, clean)
    before, after = (fastrnn.forward(net, x).reshape(job.size("KBTH")) for x in (clean, dirty))
    assert np.isnan(after[:, 2, 17:]).all()
    after[:, 2, 17:] = before[:, 2, 17:]
    assert before.tobytes() == after.tobytes()
    y = job.visible(np.zeros(job.size("KBTO")), "KBTO")
    grads = [
        fastrnn.loss_and_grad(net, x, y, per_sequence=True)[1].w2.reshape(job.size("KBHH"))
        for x in (clean, dirty)
    ]
    assert np.isnan(grads[1][:, 2]).all()
    np.testing.assert_array_equal(np.delete(grads[0], 2, 1), np.delete(grads[1], 2, 1))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_layer_agrees_with_torch(activation):
    torch = pytest.importorskip("torch")
    net = cases.layer(9, 4, activation, outputs=2)
    x = cases.inputs(net, 5, 33)
    y = np.random.default_rng(2).standard_normal((5, 33, 2))
    cell = torch.nn.RNN(4, 9, nonlinearity=activation, batch_first=True, dtype=torch.float64)
    head = torch.nn.Linear(9, 2, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih_l0[:] = torch.tensor(net.w1)
        cell.weight_hh_l0[:] = torch.tensor(net.w2)
        cell.bias_ih_l0[:] = torch.tensor(net.b)
        cell.bias_hh_l0.zero_()
        head.weight[:] = torch.tensor(net.w3)
        head.bias[:] = torch.tensor(net.b3)
    inputs = torch.tensor(x, requires_grad=True)
    states, _ = cell(inputs)
    expected = torch.nn.functional.mse_loss(head(states), torch.tensor(y))
    expected.backward()
    wrt = ("w1", "w2", "b", "w3", "b3", "x")
    loss, grad = fastrnn.loss_and_grad(net, x, y, wrt=wrt)
    np.testing.assert_allclose(fastrnn.forward(net, x), states.detach(), rtol=1e-12, atol=1e-14)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    theirs = {
        "w1": cell.weight_ih_l0,
        "w2": cell.weight_hh_l0,
        "b": cell.bias_ih_l0,
        "w3": head.weight,
        "b3": head.bias,
        "x": inputs,
    }
    for name in wrt:
        np.testing.assert_allclose(getattr(grad, name), theirs[name].grad, rtol=1e-12, atol=1e-14)
