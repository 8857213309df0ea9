"""Gradients as mantissa and exponent, at any W2, against mpmath and closed forms."""

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from benchmarks.exact import derivative, gradients, number
from fastrnn import gradients as module
from fastrnn.sequences import sequences
from tests import cases, exact, tolerances
from tests.cases import ACTIVATIONS
from tests.test_exactness import EXTREME_W2

NAMES = ("w1", "w2", "b", "x", "h0")


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("steps", [1, 5, 100, pytest.param(500, marks=pytest.mark.slow)])
def test_gradients_match_mpmath_at_extreme_w2(activation, steps, dtype):
    values = [w2 for w2 in EXTREME_W2 if dtype == "float64" or 1e-30 < abs(w2) < 1e30]
    rng = np.random.default_rng(3)
    x, last = rng.standard_normal(steps).astype(dtype), np.zeros(steps, dtype)
    last[-1] = 1
    for w2 in values:
        one = np.dtype(dtype).type
        net = fastrnn.RNN(one(0.7), one(w2), one(0.1), activation=activation)
        found = fastrnn.forward(net, x, scaled=True)
        grad = fastrnn.backward(net, x, last, wrt=NAMES, scaled=True)
        with mp.workdps(exact.DIGITS):
            states = [number(state) for state in found]
            values_, sizes, rounding = gradients(net, x, states, last)
            bound = tolerances.C * tolerances.eps(dtype) * rounding
            for name in NAMES[:3]:
                ours, theirs = number(getattr(grad, name)), values_[name]
                if bound > 1:
                    # The bound is one of logarithms: a saturated f' has as many digits as z.
                    assert abs(mp.log(abs(ours / theirs))) <= bound, (w2, name)
                    continue
                # Of terms whose logarithms are wrong by that much.
                assert abs(ours - theirs) <= mp.expm1(bound) * sizes[name], (w2, name)
                if sizes[name]:
                    left = abs(values_[name]) / sizes[name]
                    error = abs(getattr(grad.cancellation, name) - left)
                    assert error <= 2 * mp.expm1(bound), (w2, name)
            if values_["h0"] == 0:
                assert grad.h0.sign == 0
            else:
                assert abs(mp.log(number(grad.h0) / values_["h0"])) <= bound
            for ours, theirs in zip(grad.x, values_["x"], strict=True):
                if theirs == 0:
                    assert ours.sign == 0
                else:
                    assert abs(mp.log(number(ours) / theirs)) <= bound


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", cases.NETS)
def test_scaled_is_plain_where_floats_reach(kind, activation, dtype):
    net = cases.NETS[kind](activation, dtype)
    x = cases.inputs(net, 3, 40, dtype)
    options = {"lengths": [40, 0, 17]}
    plain = fastrnn.forward(net, x, **options)
    found = fastrnn.forward(net, x, scaled=True, **options)
    assert found.dtype == dtype
    assert found.to_float().tobytes() == (plain + 0.0).tobytes()
    found = fastrnn.forward(net, x, keep="last", scaled=True, **options)
    assert (found.to_float() == fastrnn.forward(net, x, keep="last", **options)).all()
    job = sequences(net, x, **options)
    y = np.random.default_rng(5).standard_normal(job.size("KBTO")).astype(dtype)
    y = job.visible(y, "KBTO")
    dh = np.random.default_rng(8).standard_normal(job.size("KBTH")).astype(dtype)
    bounds = tolerances.gradient_bound(job, dh)
    wrt = ("w1", "w2", "b", "x", "h0")
    ours = fastrnn.backward(
        net, x, job.visible(dh, "KBTH"), wrt=wrt, scaled=True, per_sequence=True, **options
    )
    theirs = fastrnn.backward(
        net, x, job.visible(dh, "KBTH"), wrt=wrt, per_sequence=True, **options
    )
    for name in wrt:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        difference = abs(a.to_float().astype(float) - b).reshape(bounds[name].shape)
        assert (difference <= 2 * bounds[name]).all(), name
    wrt = job.weight_names
    loss, ours = fastrnn.loss_and_grad(net, x, y, wrt=wrt, scaled=True, **options)
    plain_loss, theirs = fastrnn.loss_and_grad(net, x, y, wrt=wrt, **options)
    rtol = 1e-11 if dtype == "float64" else 2e-3
    np.testing.assert_allclose(loss.to_float(), plain_loss, rtol=rtol)
    for name in wrt:
        expected = getattr(theirs, name)
        np.testing.assert_allclose(
            getattr(ours, name).to_float(), expected, rtol=rtol, atol=rtol * abs(expected).max()
        )
        left = getattr(ours.cancellation, name)
        assert ((left >= 0) & (left <= 1 + 1e-6)).all()


@pytest.mark.parametrize("w2", [2.0, -3.0, 0.5, 1e300, 1e-300])
def test_states_beyond_the_range_have_their_closed_form(w2):
    steps = 3000
    x = np.zeros(steps)
    x[0] = 1.0
    net = fastrnn.RNN(0.5, w2, activation="identity")
    last = fastrnn.forward(net, x, keep="last", scaled=True)
    up = np.zeros(steps)
    up[-1] = 1.0
    grad = fastrnn.backward(net, x, up, scaled=True)
    with mp.workdps(exact.DIGITS):
        bound = tolerances.C * tolerances.eps(np.float64) * steps
        power = mp.mpf(w2) ** (steps - 2)
        assert abs(number(last) / (power * w2 / 2) - 1) <= bound
        assert abs(number(grad.w1) / (power * w2) - 1) <= bound
        assert abs(number(grad.w2) / ((steps - 1) * power / 2) - 1) <= bound


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_same_bits_alone_and_in_a_bank_and_a_batch(activation, dtype):
    one = np.dtype(dtype).type
    w2 = [w for w in EXTREME_W2 if dtype == "float64" or 1e-30 < abs(w) < 1e30]
    lengths = [300, 0, 7, 77, 300]
    rng = np.random.default_rng(1)
    x, dh = rng.standard_normal((2, 5, 300)).astype(dtype)
    x[3, 20:] = 0
    x[4] = dh[4] = 0
    x[4, 3] = dh[4, -1] = 1

    def found(w2, x, dh, lengths):
        net = fastrnn.RNN(one(0.7), np.asarray(w2, dtype), one(0.1), activation=activation)
        grad = fastrnn.backward(
            net, x, dh, wrt=NAMES, scaled=True, per_sequence=True, lengths=lengths
        )
        return {name: getattr(grad, name) for name in NAMES}

    all_dh = np.broadcast_to(dh, (len(w2), *dh.shape))
    every = found(w2, x, all_dh, lengths)
    for k, weight in enumerate(w2):
        for i, length in enumerate(lengths):
            alone = found(weight, x[i : i + 1, :length], dh[i : i + 1, :length], None)
            for name in NAMES:
                ours = every[name][k, i]
                ours = ours[:length] if name == "x" else ours
                assert ours.mantissa.tobytes() == alone[name][0].mantissa.tobytes(), name
                assert ours.exponent.tobytes() == alone[name][0].exponent.tobytes(), name


@pytest.mark.parametrize("activation", ["tanh", "identity"])
@pytest.mark.parametrize("w2", [0.01, 3.0])
def test_an_early_impulse_and_a_late_gradient(w2, activation):
    """Their product spans more than floats do; so do gradients that start at every step."""
    steps = 700
    x, last = np.zeros((2, steps))
    x[0] = last[-1] = 1e-3
    for up in (last, np.full(steps, 1e-3)):
        net = fastrnn.RNN(0.7, w2, activation=activation)
        states = fastrnn.forward(net, x, scaled=True)
        grad = fastrnn.backward(net, x, up, wrt=NAMES, scaled=True)
        with mp.workdps(exact.DIGITS):
            values, sizes, rounding = gradients(net, x, [number(state) for state in states], up)
            bound = tolerances.C * tolerances.eps(np.float64) * rounding
            for name in ("w1", "w2", "b"):
                ours = number(getattr(grad, name))
                assert abs(ours - values[name]) <= mp.expm1(bound) * sizes[name], name
            for ours, theirs in zip(grad.x, values["x"], strict=True):
                assert abs(mp.log(number(ours) / theirs)) <= bound


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "steps", [1, 5, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (100, 500))]
)
def test_layers_match_mpmath_at_extreme_w2(activation, steps, dtype):
    hidden = 8
    rng = np.random.default_rng(7)
    w1, direction = rng.standard_normal((hidden, 1)), rng.standard_normal((hidden, hidden)) / 3
    b = np.full(hidden, 0.1)
    x = rng.standard_normal((1, steps, 1)).astype(dtype)
    up = np.zeros((1, steps, hidden), dtype)
    up[0, -1] = 1
    for w2 in EXTREME_W2:
        if dtype == "float32" and not 1e-30 < abs(w2) < 1e30:
            continue
        weights = (w1.astype(dtype), (w2 * direction).astype(dtype), b.astype(dtype))
        net = fastrnn.RNN(*weights, activation=activation)
        states = fastrnn.forward(net, x, scaled=True)[0]
        grad = fastrnn.backward(net, x, up, wrt=NAMES, scaled=True)
        with mp.workdps(exact.DIGITS):
            values, sizes, rounding = layer_truth(net, x[0], states, up[0])
            bound = tolerances.C * tolerances.eps(dtype) * rounding
            for name in NAMES:
                ours = getattr(grad, name)
                ours = ours[0] if name in ("x", "h0") else ours
                for index in np.ndindex(ours.shape):
                    error = abs(number(ours[index]) - values[name][index])
                    if bound <= 1:
                        assert error <= mp.expm1(bound) * sizes[name][index], (w2, name)
                    elif values[name][index] == sizes[name][index] == 0:
                        assert ours[index].sign == 0
                    else:
                        assert ours[index].sign != 0
                        ratio = abs(number(ours[index])) / sizes[name][index]
                        assert mp.log(ratio) <= bound, (w2, name)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("gain", [0.05, 4.0])
def test_sums_of_a_batch_whose_sequences_are_worlds_apart(gain, activation, dtype):
    """Vanishing, exploding, saturated, late and short ones: each alone, and all in one sum."""
    hidden, steps, lengths = 5, 60, [60, 60, 60, 21, 60]
    rng = np.random.default_rng(11)
    weights = (
        rng.standard_normal((hidden, 1)),
        gain * rng.standard_normal((hidden, hidden)) / np.sqrt(hidden),
        rng.standard_normal(hidden) / 10,
    )
    net = fastrnn.RNN(*(w.astype(dtype) for w in weights), activation=activation)
    x = rng.standard_normal((len(lengths), steps, 1)).astype(dtype)
    x[2] *= 1e4
    up = rng.standard_normal((len(lengths), steps, hidden)).astype(dtype)
    up[1, :-1] = 0
    up[4, ::3] *= 1e-12
    options = {"wrt": NAMES, "scaled": True, "lengths": lengths}
    states = fastrnn.forward(net, x, scaled=True, lengths=lengths)
    each = fastrnn.backward(net, x, up, per_sequence=True, **options)
    every = fastrnn.backward(net, x, up, **options)
    sums = {name: [0, 0] for name in NAMES[:3]}
    with mp.workdps(exact.DIGITS):
        for i, length in enumerate(lengths):
            values, sizes, rounding = layer_truth(net, x[i, :length], states[i], up[i, :length])
            error = mp.expm1(tolerances.C * tolerances.eps(dtype) * rounding)
            for name in NAMES:
                ours = getattr(each, name)[i]
                for index in np.ndindex(values[name].shape):
                    difference = abs(number(ours[index]) - values[name][index])
                    assert difference <= error * sizes[name][index], (i, name)
            for name, found in sums.items():
                found[0] = found[0] + values[name]
                found[1] = found[1] + error * sizes[name]
        for name, (value, error) in sums.items():
            for index in np.ndindex(value.shape):
                difference = abs(number(getattr(every, name)[index]) - value[index])
                assert difference <= error[index], name


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_layer_has_the_same_bits_alone_and_beside_the_saturated(dtype):
    rng = np.random.default_rng(2)
    net = fastrnn.RNN(
        *(rng.standard_normal(shape).astype(dtype) for shape in ((8, 2), (8, 8), (8,)))
    )
    x = rng.standard_normal((6, 200, 2)).astype(dtype)
    x[1], x[4] = 1e5 * x[1], np.nan
    up = rng.standard_normal((6, 200, 8)).astype(dtype)
    grads = [
        fastrnn.backward(net, xs, ups, wrt=NAMES, scaled=True, per_sequence=True)
        for xs, ups in [(x, up), *((x[i : i + 1], up[i : i + 1]) for i in range(6))]
    ]
    for name in NAMES:
        every, *alone = (getattr(grad, name) for grad in grads)
        for i, one in enumerate(alone):
            assert every[i].mantissa.tobytes() == one[0].mantissa.tobytes(), (name, i)
            assert every[i].exponent.tobytes() == one[0].exponent.tobytes(), (name, i)
        assert np.isnan(every[4].mantissa).all()
        assert np.isfinite(every[[0, 1, 2, 3, 5]].mantissa).all()


@pytest.mark.parametrize("hidden", [2, 3, 5, 16])
@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_a_narrow_layer_has_the_same_bits_alone_and_in_a_batch(activation, hidden):
    # One sequence has a kernel of its own, and what lies behind its rows is looked at too.
    rng = np.random.default_rng(hidden)
    shapes = (hidden, 2), (hidden, hidden), (hidden,)
    weights = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    net = fastrnn.RNN(*weights, activation=activation)
    x = rng.standard_normal((3, 60, 2)).astype(np.float32)
    dh = rng.standard_normal((3, 60, hidden)).astype(np.float32)
    options = {"wrt": NAMES, "scaled": True, "per_sequence": True}
    together = fastrnn.backward(net, x, dh, **options)
    reached = fastrnn.influence(net, x)
    for _ in range(3):  # what room was used for before differs
        for i in range(3):
            own = slice(i, i + 1)
            alone = fastrnn.backward(net, x[own], dh[own], **options)
            pairs = [(getattr(together, name)[i], getattr(alone, name)[0]) for name in NAMES]
            pairs.append((reached[i], fastrnn.influence(net, x[own])[0]))
            for ours, other in pairs:
                assert ours.mantissa.tobytes() == other.mantissa.tobytes()
                assert ours.exponent.tobytes() == other.exponent.tobytes()


def layer_truth(net, x, states, up):
    """As `gradients`, of a layer; sizes are those of |W2| and of absolute terms throughout."""
    steps, hidden = up.shape
    exact_array = np.vectorize(lambda value: mp.mpf(float(value)), otypes=[object])
    w1, w2, b, x, up = (exact_array(array) for array in (net.w1, net.w2, net.b, x, up))
    zero = exact_array(np.zeros(hidden))
    h = [zero] + [np.array([number(unit) for unit in state], object) for state in states]
    values = {
        "w1": 0 * w1, "w2": 0 * w2, "b": 0 * b, "x": [None] * steps, "h0": zero,
    }  # fmt: skip
    sizes = {name: list(value) if name == "x" else value for name, value in values.items()}
    carried = size = zero
    rounding = mp.mpf(0)
    homogeneous = net.activation in ("identity", "relu")
    for t in reversed(range(steps)):
        z = w1 @ x[t] + w2 @ h[t] + b
        terms = abs(w1) @ abs(x[t]) + abs(w2) @ abs(h[t]) + abs(b)
        slope = np.array([derivative(net.activation, unit) for unit in z], object)
        dz, size_z = (carried + up[t]) * slope, (size + abs(up[t])) * slope
        for into, d, h_t, x_t in (
            (values, dz, h[t], x[t]), (sizes, size_z, abs(h[t]), abs(x[t])),
        ):  # fmt: skip
            into["w1"] = into["w1"] + np.outer(d, x_t)
            into["w2"] = into["w2"] + np.outer(d, h_t)
            into["b"] = into["b"] + d
        values["x"][t], sizes["x"][t] = w1.T @ dz, abs(w1).T @ size_z
        carried, size = w2.T @ dz, abs(w2).T @ size_z
        rounding += hidden + (0 if homogeneous else 2 * max(terms))
    for found in (values, sizes):
        found["x"] = np.array(found["x"], object)
    return values | {"h0": carried}, sizes | {"h0": size}, rounding


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_cancellation_of_a_layer(dtype):
    """Of a layer without feedback, whose terms are known: every product of dz = dh and x."""
    rng = np.random.default_rng(4)
    net = fastrnn.RNN(np.ones((4, 2), dtype), np.zeros((4, 4), dtype), activation="identity")
    x, dh = (rng.standard_normal((7, 30, size)).astype(dtype) for size in (2, 4))
    grad = fastrnn.backward(net, x, dh, scaled=True)
    terms = np.einsum("bth,btf->bthf", dh, x, dtype=np.float64)
    left = abs(terms.sum(axis=(0, 1))) / abs(terms).sum(axis=(0, 1))
    # Each of the two sums is of 210 terms.
    np.testing.assert_allclose(grad.cancellation.w1, left, atol=2 * 210 * np.finfo(dtype).eps)


def test_cancellation_tells_how_many_digits_are_gone():
    net = fastrnn.RNN(1.0, 0.0, activation="identity")
    x = np.array([1.0, -1.0, 1e-9])
    grad = fastrnn.backward(net, x, np.ones(3), scaled=True)
    assert grad.w1.to_float() == pytest.approx(1e-9, rel=1e-15)
    assert grad.cancellation.w1 == pytest.approx(5e-10)
    assert grad.cancellation.b == 1


def test_nan_and_infinity_pass():
    net = fastrnn.RNN(1.0, 0.5)
    assert np.isnan(fastrnn.forward(net, [1.0, np.nan], scaled=True).to_float()).tolist() == [
        False,
        True,
    ]
    grad = fastrnn.backward(net, [np.inf, 1.0], [0.0, 1.0], scaled=True, wrt=("w1", "x"))
    assert grad.w1.to_float() == fastrnn.backward(net, [np.inf, 1.0], [0.0, 1.0]).w1
    assert grad.x.sign.tolist() == [0, 1]


def test_options_that_scaled_does_not_know():
    with pytest.raises(ValueError, match="out must be None where scaled=True"):
        fastrnn.forward(fastrnn.RNN(1.0, 0.5), [1.0], scaled=True, out=np.empty(1))


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_plain_gradients_are_infinite_where_the_truth_is_too_large_and_never_nan(activation, dtype):
    one = np.dtype(dtype).type
    w2 = [w for w in EXTREME_W2 if dtype == "float64" or 1e-30 < abs(w) < 1e30]
    net = fastrnn.RNN(one(0.7), np.array(w2, dtype), one(0.1), activation=activation)
    x = cases.inputs(net, 5, 400, dtype)
    dh = np.ones((len(w2), 5, 400), dtype)
    options = {"wrt": NAMES, "per_sequence": True}
    plain = fastrnn.backward(net, x, dh, **options)
    scaled = fastrnn.backward(net, x, dh, scaled=True, **options)
    for name in NAMES:
        ours, true = getattr(plain, name), getattr(scaled, name).to_float()
        assert not np.isnan(ours).any()
        # At the very end of the range, a rounding may tell.
        clear = abs(getattr(scaled, name).log() - np.log(np.finfo(dtype).max)) > 0.1
        assert (np.isinf(ours) == np.isinf(true))[clear].all()
        assert (name in plain.out_of_range) == np.isinf(ours).any()
    assert scaled.out_of_range == ()
    assert (activation in ("identity", "relu")) == ("x" in plain.out_of_range)


@pytest.mark.parametrize("per_sequence", [False, True])
def test_no_sequences_have_no_gradient(per_sequence):
    none = np.zeros((0, 5))
    options = {"scaled": True, "per_sequence": per_sequence}
    loss, grad = fastrnn.loss_and_grad(fastrnn.RNN(1.0, 0.5), none, none, **options)
    shape = (0,) if per_sequence else ()
    assert loss.shape == grad.w2.shape == grad.cancellation.w2.shape == shape
    assert (loss.to_float() == 0).all()


def test_an_infinite_input_has_a_scaled_gradient_without_a_warning():
    x = np.ones((2, 40))
    x[0, 3] = np.inf
    net = fastrnn.RNN(1.0, 0.9, activation="identity")
    loss, _ = fastrnn.loss_and_grad(net, x, np.zeros_like(x), scaled=True)
    assert not np.isfinite(loss.to_float())


@pytest.mark.parametrize("wrt", ["w1", ("w1", "w2", "b"), ("x", "h0")])
def test_a_gradient_that_may_fade_and_grow_is_there_for_any_wish(wrt):
    x = np.random.default_rng(0).standard_normal((2, 50))
    net = fastrnn.RNN(1.0, [1.5, -1.2])
    last = np.ones((2, 2))
    plain = fastrnn.backward(net, x, last, wrt=wrt)
    scaled = fastrnn.backward(net, x, last, wrt=wrt, scaled=True)
    for name in [wrt] if isinstance(wrt, str) else wrt:
        ours, true = getattr(plain, name), getattr(scaled, name).to_float()
        assert ours == pytest.approx(true, rel=1e-12)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_plain_gradient_says_what_is_too_small_for_floats(dtype):
    x = np.ones(1200, dtype)
    last = np.zeros_like(x)
    last[-1] = 1
    net = fastrnn.RNN(*(np.array(w, dtype) for w in (1, 0.5, 0)), activation="identity")
    grad = fastrnn.backward(net, x, last, wrt=NAMES)
    assert grad.underflow == ("x", "h0")
    assert fastrnn.backward(net, x, last, wrt=NAMES, scaled=True).underflow == ()
    short = fastrnn.backward(net, x[-100:], last[-100:], wrt=NAMES)
    assert short.underflow == ()
    # The least normal float has all its digits, half of it has not.
    steps = -np.finfo(dtype).minexp + 1
    assert fastrnn.backward(net, x[-steps:], last[-steps:], wrt="x").underflow == ()
    assert fastrnn.backward(net, x[-steps - 1 :], last[-steps - 1 :], wrt="x").underflow == ("x",)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_plain_gradient_that_fades_and_grows_again_is_not_lost(activation, dtype):
    """Saturated by the last inputs to less than floats hold, and not at all before."""
    steepest = fastrnn.reference.derivative(activation, np.zeros(1))[0]
    grow, deep = (130, 60.0) if dtype == "float32" else (900, 500.0)
    one = np.dtype(dtype).type
    net = fastrnn.RNN(one(1), [one(2 / steepest), one(0.5)], one(0), activation=activation)
    x = np.zeros((2, grow + 2), dtype)
    # Where h_t = f(x_t + w2 h_{t-1}) stays at z = 0, of slope w2 f'(0) = 2.
    offset = float(net.w2[0]) * float(fastrnn.reference.activate(activation, np.zeros(1))[0])
    x[:, 1:-1] = -offset
    x[0, -1] = deep / np.sqrt(steepest) - offset
    last = np.zeros((2, *x.shape), dtype)
    last[..., -1] = 1
    options = {"wrt": ("w1", "w2", "b", "x", "h0"), "per_sequence": True}
    true = fastrnn.backward(net, x, last, **options, scaled=True)
    for dh in (last[..., -1], last):
        for per_sequence in (True, False):
            options["per_sequence"] = per_sequence
            own = fastrnn.backward(net, x, dh, **options, scaled=True)
            grad = fastrnn.backward(net, x, dh, **options)
            for name in options["wrt"]:
                right, ours = getattr(own, name).to_float(), getattr(grad, name)
                assert np.allclose(ours, right, rtol=1e3 * tolerances.eps(dtype), atol=0), name
    # It did fade: what the last step lets through of it is no float of this type.
    faded = true.x[0, 0, -1].log10() < np.log10(np.finfo(dtype).smallest_subnormal)
    assert faded
    assert grad.x[0, 0, 1] > np.finfo(dtype).tiny
    alone = fastrnn.backward(
        fastrnn.RNN(one(1), net.w2[1], one(0), activation=activation), x, dh[1]
    )
    assert alone.w2 == grad.w2[1]


def test_infinities_of_the_inputs_are_no_overflow_to_be_mended():
    net = fastrnn.RNN(1.0, 3.0, activation="identity")
    x = np.ones((2, 1000))
    x[0, 3] = np.nan
    grad = fastrnn.backward(net, x, np.ones_like(x), per_sequence=True)
    assert np.isnan(grad.w1[0])
    assert grad.w1[1] == np.inf


@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_nan_in_one_of_many_sequences_costs_no_second_gradient(kind, monkeypatch):
    net = cases.NETS[kind]("tanh", "float64")
    x = cases.inputs(net, 256, 20)
    y = np.zeros_like(fastrnn.predict(net, x))
    _, clean = fastrnn.loss_and_grad(net, x, y, per_sequence=True)
    for again in ("_pull_exact", "_mended"):
        monkeypatch.setattr(module, again, None)
    x[7, 3] = np.nan
    _, whole = fastrnn.loss_and_grad(net, x, y, wrt=("w2", "x", "h0"))
    assert np.isnan(whole.w2).all()
    _, each = fastrnn.loss_and_grad(net, x, y, per_sequence=True)
    assert np.isnan(each.w2[7]).all()
    others = np.arange(256) != 7
    assert each.w2[others].tobytes() == clean.w2[others].tobytes()


def test_zeros_of_scaled_results_are_positive():
    """However lanes are arranged: units that are off, saturated and past a sequence's end."""
    for activation, big in (("relu", -1.0), ("sigmoid", 1e300), ("tanh", 1e300)):
        net = fastrnn.RNN(-1.0, -0.5, big, activation=activation)
        x = cases.inputs(net, 33, 40)
        lengths = np.arange(33)
        found = fastrnn.influence(net, x, lengths=lengths)
        grad = fastrnn.backward(net, x, -np.ones_like(x), lengths=lengths, wrt="x", scaled=True)
        for mantissa in (found.mantissa, grad.x.mantissa):
            assert not np.signbit(mantissa[mantissa == 0]).any()


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("z", [1e14, 1.1e15, 3.05e15, 4.6e15, 9.1e15, 1e18])
def test_far_saturation_has_whole_exponents(dtype, z):
    for net, factor in (
        (fastrnn.RNN(1.0, 0.5), 2),
        (fastrnn.RNN(1.0, 0.5, activation="sigmoid"), 1),
        (fastrnn.RNN([[1.0], [1.0]], np.eye(2) / 2), 2),
    ):
        x = np.array([z], dtype)
        (found,) = fastrnn.influence(net, x).log()
        units = 1 if net.is_neuron else 2
        truth = -factor * float(x[0]) + np.log(units * (4 if factor == 2 else 1))
        assert abs(found - truth) <= 4 * tolerances.eps(np.float64) * abs(truth)
