"""The micro-kernel of all products, against sums in its own order."""

import numpy as np
import pytest

from fastrnn.kernels import panels
from fastrnn.kernels.jit import kernel
from fastrnn.kernels.products import add_outer, add_outer_by_number, affine, of_packed, panel_width
from tests import cases, tolerances


@kernel
def _affine(panel, rows, columns, begin, a, offsets, w, inner, b, more, out, stride):
    width = panel_width(panel)
    sources = (
        of_packed(a, offsets, 0, 1, w, 0, inner, width),
        of_packed(b, offsets, 0, 1, more, 0, inner, width),
    )
    affine(panel, rows, columns, begin, 0, 0, sources, out, 0, stride)


@kernel
def _outer(panel, a, w, count, units, scratch, fast, slow):
    add_outer(
        panel, a.shape[1], w.shape[1], a.ravel(), units, 0, a.shape[1], w.ravel(), 0, w.shape[1],
        count, scratch, fast,
    )  # fmt: skip
    add_outer_by_number(
        panel, a.shape[1], w.shape[1], a.ravel(), units, 0, a.shape[1], w.ravel(), 0, w.shape[1],
        count, slow,
    )  # fmt: skip


def random(*shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8, 15, 16, 17, 31, 47, 64])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 16])
def test_affine(rows, columns, dtype):
    inner = 9
    a, b = random(2, rows, inner, dtype=dtype)
    w, more = random(2, inner, columns, dtype=dtype, seed=1)
    begin = random(columns, dtype=dtype, seed=2)
    panel = panels.panel_for(columns, rows, a.dtype)
    out = np.zeros((rows, columns + 3), dtype)
    _affine(
        panel, rows, columns, begin, a.ravel(), np.arange(rows) * inner,
        panels.packed(w, panel), inner, b.ravel(), panels.packed(more, panel), out.ravel(),
        columns + 3,
    )  # fmt: skip
    exact = [v.astype(float) for v in (begin, a, w, b, more)]
    expected = exact[0] + exact[1] @ exact[2] + exact[3] @ exact[4]
    terms = abs(exact[0]) + abs(exact[1]) @ abs(exact[2]) + abs(exact[3]) @ abs(exact[4])
    bound = (2 * inner + 1) * tolerances.eps(dtype) * terms
    assert (abs(out[:, :columns] - expected) <= bound).all()
    assert (out[:, columns:] == 0).all()


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (7, 16), (47, 47), (3, 64)])
def test_outer_products_summed_over_samples(rows, columns, dtype):
    count = 50
    a, w = random(count, rows, dtype=dtype), random(count, columns, dtype=dtype, seed=1)
    panel = panels.panel_for(columns, rows, a.dtype)
    width = panels.width(panel)
    fast, slow = np.zeros((2, panels.count(columns, panel) * rows * width))
    _outer(panel, a, w, count, np.arange(rows), np.zeros(8 * width, dtype), fast, slow)
    assert fast.tobytes() == slow.tobytes()
    found = panels.unpacked(fast, rows, columns, panel)
    terms = abs(a.T.astype(float)) @ abs(w.astype(float))
    expected = a.T.astype(float) @ w.astype(float)
    assert (abs(found - expected) <= count * tolerances.eps(dtype) * terms).all()


def test_a_factor_of_zero_adds_nothing_to_outer_products_where_others_are_infinite():
    a, w = np.zeros((4, 2)), np.full((4, 3), np.inf)
    a[1, 0], w[1] = 2.0, 3.0
    panel = panels.panel_for(3, 2, a.dtype)
    fast, slow = np.zeros((2, 6))
    _outer(panel, a, w, 4, np.arange(2), np.zeros(8), fast, slow)
    assert (panels.unpacked(slow, 2, 3, panel) == [[6, 6, 6], [0, 0, 0]]).all()


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (4, 16), (4, 47), (1, 1)])
def test_packing_holds_every_column(shape):
    w = random(*shape, dtype="float32")
    panel = panels.panel_for(shape[-1], 16, w.dtype)
    packed = panels.packed(w, panel)
    assert packed.ctypes.data % panels.LINE_BYTES == 0
    assert (panels.unpacked(packed, *shape[-2:], panel) == w).all()
