"""Tables and arrays on their side: which axis is time."""

import re
import warnings

import numpy as np
import pytest

import fastrnn
from tests import cases

NET = cases.neuron()
TABLE = np.random.default_rng(0).standard_normal((20, 3))
LIBRARIES = {
    "pandas": lambda values: pytest.importorskip("pandas").DataFrame(
        values, columns=[f"c{i}" for i in range(values.shape[1])]
    ),
    "polars": lambda values: pytest.importorskip("polars").DataFrame(
        {f"c{i}": column for i, column in enumerate(values.T)}
    ),
}


@pytest.fixture(params=LIBRARIES)
def table(request):
    return LIBRARIES[request.param](TABLE)


def numbers(result):
    """The numbers of a result, whatever it is."""
    if isinstance(result, tuple):
        return [part for each in result for part in numbers(each)]
    if isinstance(result, np.ndarray | np.generic):
        return [result.tobytes()]
    if isinstance(result, fastrnn.Scaled):
        return [result.mantissa.tobytes(), result.exponent.tobytes()]
    names = [name for name in ("w2", "exponents", "frobenius", "regime") if hasattr(result, name)]
    return [part for name in names for part in numbers(getattr(result, name))]


VERBS = {
    "forward": lambda x, of=fastrnn: of.forward(NET, x),
    "predict": lambda x, of=fastrnn: of.predict(NET, x),
    "loss_and_grad": lambda x, of=fastrnn: of.loss_and_grad(NET, x, x),
    "backward": lambda x, of=fastrnn: of.backward(NET, x, x),
    "influence": lambda x, of=fastrnn: of.influence(NET, x),
    "diagnose": lambda x, of=fastrnn: of.diagnose(NET, x),
    "lyapunov": lambda x, of=fastrnn: of.lyapunov(NET, x),
}
OWN_VERBS = {
    "jacobian_norms": lambda x: fastrnn.jacobian_norms(NET, x),
    "phase_diagram": lambda x: fastrnn.phase_diagram(x, w2=[0.5, 2.0], b=[0.0, 1.0]),
    "truncate": lambda x: fastrnn.loss_and_grad(NET, x, x, truncate=5),
    "scaled": lambda x: fastrnn.forward(NET, x, scaled=True),
}


@pytest.mark.parametrize("verb", VERBS | OWN_VERBS)
def test_columns_of_a_table_are_sequences_and_its_rows_steps(verb, table):
    run = (VERBS | OWN_VERBS)[verb]
    found = numbers(run(table))
    assert found == numbers(run(TABLE.T))
    assert len(found) > 0


@pytest.mark.parametrize("verb", VERBS)
def test_so_does_the_reference(verb, table):
    run = VERBS[verb]
    assert numbers(run(table, fastrnn.reference)) == numbers(run(TABLE.T, fastrnn.reference))


def test_results_are_numpy_arrays(table):
    assert type(fastrnn.forward(NET, table)) is np.ndarray


def test_a_series_is_one_sequence_and_one_column_a_batch_of_one():
    for library in ("pandas", "polars"):
        series = pytest.importorskip(library).Series(TABLE[:, 0])
        assert fastrnn.forward(NET, series).shape == (20,)
        assert fastrnn.forward(NET, LIBRARIES[library](TABLE[:, :1])).shape == (1, 20)


def test_a_table_for_the_weights_is_taken_as_it_is():
    pandas = pytest.importorskip("pandas")
    net = fastrnn.RNN(pandas.DataFrame(np.ones((4, 2))), np.eye(4))
    assert net.input_size == 2


def test_a_table_for_a_layer_of_several_inputs_is_refused_with_the_shape_that_fits():
    net = fastrnn.RNN(np.ones((4, 3)), np.eye(4))
    table = LIBRARIES["pandas"](TABLE)
    with pytest.raises(ValueError, match=r"a single sequence has the shape \(1, 20, 3\)"):
        fastrnn.forward(net, table)


def test_a_column_without_numbers_is_named_by_what_it_holds():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"x": [1.0, 2.0], "day": pandas.date_range("2020", periods=2)})
    with pytest.raises(TypeError, match="with Timestamp in it: pass its columns of numbers only"):
        fastrnn.forward(NET, table)


def warned(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return found


@pytest.mark.parametrize("verb", VERBS | OWN_VERBS)
def test_every_verb_warns_of_an_array_on_its_side(verb):
    found = warned(lambda: (VERBS | OWN_VERBS)[verb](np.zeros((1000, 3))))
    assert found
    assert {warning.category for warning in found} == {UserWarning}
    text = re.escape("x of shape (1000, 3) is taken as 1000 sequences of 3 steps") + ".*pass x.T;"
    assert all(re.match(text, str(warning.message)) for warning in found)
    if verb in VERBS:
        # It points to the call.
        assert found[0].filename == __file__


def test_a_time_major_array_for_a_layer_is_swapped():
    found = warned(lambda: fastrnn.forward(cases.layer(4, 2), np.zeros((500, 5, 2))))
    assert ["x.swapaxes(0, 1)" in str(warning.message) for warning in found] == [True]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1024, 10), {}),
        ((100_000, 10), {}),
        ((899, 9), {}),
        ((99, 1), {}),
        ((1000,), {}),
        ((1000, 0), {}),
        ((3, 1000), {}),
        ((1000, 3), {"h0": np.zeros(1000)}),
        ((1000, 3), {"lengths": np.full(1000, 3)}),
    ],
)
def test_ordinary_batches_do_not_warn(shape, options):
    assert not warned(lambda: fastrnn.forward(NET, np.zeros(shape), keep="last", **options))


def test_blocks_of_time_may_be_short():
    blocks = iter([np.zeros((1000, 2))] * 3)
    assert not warned(lambda: fastrnn.forward(NET, blocks, keep="last"))


def test_a_table_does_not_warn(table):
    assert not warned(lambda: fastrnn.forward(NET, table))


@pytest.mark.parametrize("shape", [(900, 9), (100, 1), (1 << 14, 4)])
def test_where_the_warning_begins(shape):
    assert len(warned(lambda: fastrnn.forward(NET, np.zeros(shape), keep="last"))) == 1
