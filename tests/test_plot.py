"""Pictures: what they draw, and that they can draw anything."""

import io
import math

import numpy as np
import pytest

import fastrnn

plot = pytest.importorskip("fastrnn.plot")
X = np.random.default_rng(0).standard_normal(60)


def saved(axes):
    """A picture is drawn when it is saved; warnings are errors."""
    file = io.BytesIO()
    axes.figure.savefig(file)
    assert file.getvalue().startswith(b"\x89PNG")
    return axes


def test_unrolled_influence_has_a_bar_for_each_input():
    net = fastrnn.RNN(1.0, 0.1, activation="identity")
    axes = saved(fastrnn.diagnose(net, np.ones(5)).plot())
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    labels = [text.get_text() for text in axes.texts]
    assert labels == ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"]
    net = fastrnn.RNN(1.0, 2.0, activation="identity")
    assert saved(fastrnn.diagnose(net, np.ones(5)).plot()).texts[0].get_text() == "16 times"


def test_many_inputs_are_a_line_of_logarithms():
    found = fastrnn.diagnose(fastrnn.RNN(1.0, 1e-9), X)
    axes = saved(found.plot())
    np.testing.assert_allclose(axes.lines[0].get_ydata(), found.influence.log10())
    assert "float64: 0" in [text.get_text() for text in axes.texts]


def test_gradient_by_lag_is_relative_to_the_newest():
    found = fastrnn.diagnose(fastrnn.RNN(1.0, np.array([0.5, 1e-20])), X)
    axes = saved(plot.gradient_by_lag(found))
    expected = found.gradient_by_lag - found.gradient_by_lag[:, :1]
    for line, curve in zip(axes.lines, expected, strict=False):
        np.testing.assert_allclose(line.get_ydata(), curve)
    assert [text.get_text() for text in axes.get_legend().texts] == ["$W_2$ = 0.5", "$W_2$ = 1e-20"]


def test_exponent_against_w2_has_an_error_band():
    w2 = np.array([2.0, 0.5, 1.0])
    found = fastrnn.diagnose(fastrnn.RNN(1.0, w2), X)
    axes = saved(found.plot())
    assert axes.lines[0].get_xdata().tolist() == [0.5, 1, 2]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), found.exponent[[1, 2, 0]])
    band = axes.collections[0].get_paths()[0].vertices
    lowest = (found.exponent - 2 * found.exponent_stderr)[[1, 2, 0]]
    for w2_value, low in zip([0.5, 1, 2], lowest, strict=True):
        assert band[np.isclose(band[:, 0], w2_value), 1].min() == pytest.approx(low)


@pytest.mark.parametrize("w2", [0.0, 1e300, -1e-300, [0.5], [1e-300, 1e300], [-2.0, 0.0, 3.0]])
@pytest.mark.parametrize("x", [X, np.zeros(0), [math.nan, 1.0, 2.0]])
def test_anything_can_be_drawn(w2, x):
    found = fastrnn.diagnose(fastrnn.RNN(1.0, w2, activation="identity"), x)
    saved(found.plot())
    saved(plot.gradient_by_lag(found))


def test_layers_are_drawn_and_axes_can_be_given():
    net = fastrnn.RNN(np.ones((2, 1)), 0.5 * np.eye(2))
    many = fastrnn.diagnose(net, X.reshape(3, 20))
    axes = saved(many.plot())
    assert [text.get_text() for text in axes.get_legend().texts] == [
        f"sequence {n}" for n in range(3)
    ]
    assert fastrnn.diagnose(net, X).plot(axes) is axes


def test_what_a_picture_is_not_of():
    many = fastrnn.diagnose(fastrnn.RNN(1.0, [0.5, 1.0]), X)
    with pytest.raises(ValueError, match=r"of one net and one sequence, got shape \(2,\)"):
        plot.unrolled_influence(many)
    with pytest.raises(ValueError, match=r"of a bank of scalar neurons, got RNN\(a scalar neuron"):
        plot.exponent_against_w2(fastrnn.diagnose(fastrnn.RNN(1.0, 0.5), X))
