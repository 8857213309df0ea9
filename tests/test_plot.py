"""Pictures: what they draw, and that they can draw anything."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest

import fastrnn

pytest.importorskip("matplotlib")
plot = fastrnn.plot
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


W2 = [0.0, 1e300, -1e-300, [0.5], [1e-300, 1e300], [-2.0, 0.0, 3.0], [5e-324, 1.7e308, -1.7e308]]
FEW = [X, np.zeros(0), [math.nan, 1.0, 2.0], np.zeros((0, 4)), [[math.nan] * 2, [1.0, 2.0]]]


@pytest.mark.parametrize("w2", W2, ids=str)
@pytest.mark.parametrize("x", FEW, ids=lambda x: str(np.shape(x)))
def test_anything_can_be_drawn(w2, x):
    found = fastrnn.diagnose(fastrnn.RNN(1.0, w2, activation="identity"), x)
    saved(found.plot())
    saved(plot.gradient_by_lag(found))


EXTREMES = {
    "tiny to huge": [1e-300, 1.0, 1e300],
    "of both signs": [-1e300, -1e-300, 0.0, 1e-300, 1e300],
    "the ends of float64": [1.7e308, -1.7e308, 5e-324],
    "neighbours": [1.0, 1.0 + 2**-52],
    "one": [1e300],
    "equal": [0.0, 0.0],
    "in no order": [3.0, -1.0, 2.0],
}


@pytest.mark.parametrize("activation", ["tanh", "identity"])
@pytest.mark.parametrize("w2", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("b", [[0.0, 1.0], [1e-300, 1e300]], ids=str)
def test_any_plane_can_be_drawn(activation, w2, b):
    found = fastrnn.phase_diagram(X[:20], w2=w2, b=b, activation=activation, refine=1)
    axes = saved(found.plot())
    mesh = axes.collections[0]
    assert mesh.get_array().shape == (2, len(w2))
    left, right = axes.get_xlim()
    assert all(left <= x <= right for line in axes.lines for x in line.get_xdata())


def test_a_plane_is_drawn_in_the_order_of_its_values():
    """The picture of unsorted values is that of sorted ones."""
    w2, b = np.array([2.0, -0.5, 0.5]), np.array([1.0, 0.0])
    found = fastrnn.phase_diagram(X, w2=w2, b=b)
    of_sorted = fastrnn.phase_diagram(X, w2=np.sort(w2), b=np.sort(b))
    ours, theirs = (picture.plot().collections[0] for picture in (found, of_sorted))
    np.testing.assert_array_equal(ours.get_coordinates(), theirs.get_coordinates())
    np.testing.assert_allclose(ours.get_array(), theirs.get_array(), rtol=1e-12)


def test_cells_lie_around_their_values():
    found = fastrnn.phase_diagram(X, w2=[-1.0, 0.0, 2.0], scale=[0.01, 0.1, 1.0])
    corners = found.plot().collections[0].get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [-1.5, -0.5, 1.0, 3.0])
    np.testing.assert_allclose(corners[:, 0, 1], 10.0 ** np.array([-2.5, -1.5, -0.5, 0.5]))


def test_what_is_past_the_axes_of_matplotlib_lies_by_logarithm_or_rank():
    positive = fastrnn.phase_diagram(X, w2=[1e-300, 1e300], b=[0.0, 1.0]).plot()
    assert positive.get_xlabel() == "log$_{10}$ of the feedback weight $W_2$"
    assert positive.get_xlim() == (-600.0, 600.0)
    signed = fastrnn.phase_diagram(X, w2=[1.0, -1e300, 1e300], b=[0.0, 1.0]).plot()
    assert signed.get_xlabel() == "rank of the feedback weight $W_2$, from 0"
    assert signed.get_xlim() == (-0.5, 2.5)


WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
import fastrnn
plot = fastrnn.plot
found = {
    "one": fastrnn.diagnose(fastrnn.RNN(1.0, 0.5), [1.0, 2.0]),
    "bank": fastrnn.diagnose(fastrnn.RNN(1.0, [0.5, 1.0]), [1.0, 2.0]),
    "batch": fastrnn.diagnose(fastrnn.RNN(1.0, 0.5), [[1.0, 2.0]] * 2),
    "plane": fastrnn.phase_diagram([1.0, 2.0], w2=[0.5, 1.0], b=[0.0, 1.0]),
}
for result in found.values():
    try:
        result.plot()
    except ModuleNotFoundError as error:
        print(error, error.name)
"""


def test_a_picture_without_matplotlib_names_the_extra():
    command = [sys.executable, "-W", "error", "-c", WITHOUT_MATPLOTLIB]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = 'pictures need matplotlib: python -m pip install "fastrnn[plot]" matplotlib\n'
    assert output == 4 * line


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


def test_units_that_are_off_do_not_hide_how_fast_others_grow():
    axes = np.linspace(0, 2, 9), np.linspace(-3, 3, 9)
    x = np.sin(np.arange(60.0))
    found = fastrnn.phase_diagram(x, w2=axes[0], b=axes[1], activation="relu", refine=2)
    assert np.isneginf(found.exponent).any()
    mesh = found.plot().collections[0]
    finite = found.exponent[np.isfinite(found.exponent)]
    assert mesh.get_clim()[1] <= max(1.0, abs(finite).max() / np.log(10))
