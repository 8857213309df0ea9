"""Phase diagrams: each point is that of the diagnosis, and boundaries are where regimes change."""

import numpy as np
import pytest

import fastrnn

X = np.random.default_rng(5).standard_normal((3, 60))
PLANES = [
    {"w2": np.array([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0]), "b": np.array([-1.0, 0.0, 2.0])},
    {"w2": np.array([1e-300, 0.9, 1.0, 1e3, 1e300]), "w1": np.array([0.0, 1.0])},
    {"scale": np.array([1e-3, 1.0, 50.0]), "b": np.array([-0.2, 0.3])},
]


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "identity"])
@pytest.mark.parametrize("plane", PLANES)
def test_every_point_is_that_of_the_diagnosis(plane, activation):
    found = fastrnn.phase_diagram(X, **plane, activation=activation, refine=0)
    down, across = found.axes
    for i, j in np.ndindex(found.exponent.shape):
        point = {"w1": 1.0, "w2": 1.0, "b": 0.0, "scale": 1.0}
        point |= {down: plane[down][i], across: plane[across][j]}
        net = fastrnn.RNN(
            point["scale"] * point["w1"], point["w2"], point["b"], activation=activation
        )
        with np.errstate(over="ignore", invalid="ignore"):
            right = fastrnn.diagnose(net, X)
            decades = np.mean(right.decades)
            exponent = np.mean(right.exponent)
        assert found.exponent[i, j] == pytest.approx(exponent, rel=1e-12, abs=1e-12, nan_ok=True)
        if point["w1"] and np.isfinite(right.influence_of_first.log10()).all():
            assert found.decades[i, j] == pytest.approx(decades, rel=1e-11, abs=1e-11, nan_ok=True)
            assert found.horizon[i, j] == np.median(right.horizon)
    table = found.to_columns()
    assert set(table) == {down, across, "exponent", "decades", "horizon", "regime"}
    assert {len(column) for column in table.values()} == {found.exponent.size}


def test_one_step_is_balanced():
    found = fastrnn.phase_diagram([0.3], w2=[0.1, 9.0], b=[0.0, 1.0])
    assert (found.regime == "balanced").all()
    assert (found.decades == 0).all()


@pytest.mark.parametrize("refine", [0, 4, 12])
def test_boundaries_are_found_to_a_fraction_of_the_grid(refine):
    """Of the identity, |w2| ** (T - 1) is a tenth or ten times at known w2."""
    w2, steps = np.linspace(0.5, 1.5, 5), 41
    found = fastrnn.phase_diagram(
        np.ones(steps), w2=w2, b=[0.0, 1.0], activation="identity", refine=refine
    )
    truth = 10.0 ** (np.array([-1.0, 1.0]) / (steps - 1))
    across = found.boundary[:, found.axes.index("w2")].reshape(2, -1)
    assert (abs(across - truth) <= 0.25 / 2 ** (refine + 1) + 1e-12).all()


def test_a_boundary_between_regimes_that_are_no_neighbours_on_the_line():
    found = fastrnn.phase_diagram([1.0] * 30, w2=[0.5, 2.0], b=[0.0], activation="identity")
    assert found.regime.tolist() == [["vanishing", "exploding"]]
    assert found.boundary.shape == (1, 2)


def test_progress_and_cut_of_the_plane(monkeypatch):
    plane = {"w2": np.linspace(-2, 2, 9), "b": np.linspace(-1, 1, 5)}
    whole = fastrnn.phase_diagram(X, **plane)
    monkeypatch.setattr("fastrnn.phases.CALL_STEPS", 7 * X.size)
    seen = []
    cut = fastrnn.phase_diagram(X, **plane, progress=lambda *now: seen.append(now), workers=1)
    assert seen == [(done, 45) for done in (7, 14, 21, 28, 35, 42, 45)]
    for name in ("exponent", "decades", "horizon", "regime", "boundary"):
        assert getattr(cut, name).tobytes() == getattr(whole, name).tobytes()


WRONG = [
    ({}, "two of w1, w2, b, scale must have shape .N,., got none"),
    ({"w2": [1.0, 2.0]}, "got w2"),
    ({"w1": [1.0], "w2": [1.0], "b": [1.0]}, "got w1, w2, b"),
    ({"w2": [[1.0]], "b": [1.0]}, r"w2 must be a number or have shape \(N,\), got \(1, 1\)"),
    ({"w2": [], "b": [1.0]}, r"w2 must be a number or have shape \(N,\), got \(0,\)"),
    ({"w2": [np.nan], "b": [1.0]}, "w2 must be finite, got nan"),
    ({"w1": [1e200], "scale": [1e200]}, r"scale \* w1 must be finite, got inf"),
    ({"w2": [1.0], "b": [1.0], "refine": -1}, "refine must be at least 0, got -1"),
    ({"w2": [1.0], "b": [1.0], "activation": "tahn"}, "did you mean 'tanh'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_planes(options, message):
    with pytest.raises(ValueError, match=message):
        fastrnn.phase_diagram(X, **options)


@pytest.mark.parametrize("refine", [1.5, 2.0, np.float64(2), "3", None, True, [1], np.nan])
def test_refine_is_an_integer(refine):
    with pytest.raises(
        TypeError, match=f"refine must be an integer, got (a )?{type(refine).__name__}"
    ):
        fastrnn.phase_diagram(X, w2=[1.0, 2.0], b=[0.0], refine=refine)


def test_other_wrong_arguments():
    with pytest.raises(TypeError, match="progress must be callable, got int"):
        fastrnn.phase_diagram(X, w2=[1.0, 2.0], b=[0.0], progress=3)
    with pytest.raises(
        TypeError, match=r"x must be an array of numbers, got an iterator \(generator\)"
    ):
        fastrnn.phase_diagram((row for row in X), w2=[1.0, 2.0], b=[0.0])


def test_no_halving_goes_past_the_floats():
    found = fastrnn.phase_diagram(
        [1.0] * 30, w2=[0.5, 2.0], b=[0.0], activation="identity", refine=np.int64(2**62)
    )
    edge = found.boundary[0, 1]
    either = [np.nextafter(edge, 0), edge, np.nextafter(edge, 2)]
    regime = fastrnn.phase_diagram([1.0] * 30, w2=either, b=[0.0], activation="identity").regime
    assert len(np.unique(regime)) == 2


@pytest.mark.parametrize("x", [[], np.zeros((0, 3)), np.zeros((1, 2, 3)), [np.inf]])
def test_wrong_inputs(x):
    with pytest.raises(ValueError, match="x must"):
        fastrnn.phase_diagram(x, w2=[1.0], b=[1.0])


def test_pictures():
    pytest.importorskip("matplotlib")
    found = fastrnn.phase_diagram(X, w2=np.linspace(-2, 2, 9), scale=np.geomspace(0.01, 1, 5))
    axes = found.plot()
    assert axes.get_xlabel() == "feedback weight $W_2$"
    assert axes.get_yscale() == "log"
    names = {text.get_text() for text in axes.texts}
    assert names == set(np.unique(found.regime))
    nothing = fastrnn.phase_diagram(X, w2=[0.0, 0.0], b=[0.0, 1.0], activation="relu")
    nothing.plot().figure.canvas.draw()
