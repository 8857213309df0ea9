"""Gradients as mantissa and exponent, at any W2, against mpmath and closed forms."""

import mpmath as mp
import numpy as np
import pytest

import fastrnn
from fastrnn.sequences import sequences
from tests import cases, exact, tolerances
from tests.cases import ACTIVATIONS
from tests.test_exactness import EXTREME_W2

NAMES = ("w1", "w2", "b", "x", "h0")


def number(scaled):
    return mp.ldexp(mp.mpf(float(scaled.mantissa)), int(scaled.exponent))


def truth(net, x, states, dh):
    """Gradients, the sums of their absolute terms, and sum(1 + 2|z|), of one net and sequence."""
    w1, w2, b = (mp.mpf(float(w)) for w in (net.w1, net.w2, net.b))
    carried, values, sizes, rounding = mp.mpf(0), dict.fromkeys(NAMES[:3], mp.mpf(0)), {}, mp.mpf(0)
    sizes |= values
    dx = []
    for t in reversed(range(len(x))):
        before = states[t - 1] if t else mp.mpf(0)
        z = b + w1 * mp.mpf(float(x[t])) + w2 * before
        dz = (carried + mp.mpf(float(dh[t]))) * exact.derivative(net.activation, z)
        for name, factor in (("w1", mp.mpf(float(x[t]))), ("w2", before), ("b", mp.mpf(1))):
            values[name] += dz * factor
            sizes[name] += abs(dz * factor)
        dx.append(w1 * dz)
        carried = w2 * dz
        homogeneous = net.activation in ("identity", "relu")
        rounding += 1 if homogeneous else 1 + 2 * abs(z)
    values |= {"x": dx[::-1], "h0": carried}
    return values, sizes, rounding


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
            values_, sizes, rounding = truth(net, x, states, last)
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
    with pytest.raises(ValueError, match="memory must be None where scaled=True"):
        fastrnn.backward(fastrnn.RNN(1.0, 0.5), [1.0], [1.0], scaled=True, memory=1 << 20)
    with pytest.raises(ValueError, match="out must be None where scaled=True"):
        fastrnn.forward(fastrnn.RNN(1.0, 0.5), [1.0], scaled=True, out=np.empty(1))
