"""Products of small matrices: correct, and every row independent of the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError

from stream_ad.kernels.jit import row_sum
from stream_ad.kernels.matmul import product, products_apart

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 50), st.integers(1, 12).map(lambda eights: 8 * eights))


def multiplied(base, left, right, *, turned=False):
    """Base (one row or all) plus left times right; ``left`` is row-major or, with ``turned``, column-major."""
    (rows, steps), columns = left.shape, right.shape[1]
    out = np.full(3 + rows * columns, np.float32(np.nan))
    kept = np.concatenate([np.full(5, np.nan, np.float32), (left.T if turned else left).ravel()])
    base_row = columns if len(base) > 1 else 0
    strides = (base_row, 1, rows) if turned else (base_row, steps, 1)
    product(out, base.ravel(), kept, right.ravel(), (3, 0, 5, 0), (rows, steps, columns), strides)
    assert np.isnan(out[:3]).all()
    return out[3:].reshape(rows, columns)


def matrices(shape, seed):
    rows, steps, columns = shape
    rng = np.random.default_rng(seed)
    sizes = (rows, columns), (rows, steps), (steps, columns)
    return tuple(rng.normal(size=size).astype(np.float32) for size in sizes)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1))
def test_a_product_is_that_of_its_formula(shape, seed):
    """Products lie within float32 rounding of each step, for any shape, order of ``left``, and number of base rows."""
    base, left, right = matrices(shape, seed)
    exact, most = left.astype(np.float64) @ right, np.abs(left).astype(np.float64) @ np.abs(right)
    for start in (base, base[:1]):
        allowed = shape[1] * np.finfo(np.float32).eps / 2 * 1.01 * (most + np.abs(start))  # 1.01: of rounded sums
        for turned in (False, True):
            computed = multiplied(start, left, right, turned=turned).astype(np.float64)
            assert (np.abs(computed - (start + exact)) <= allowed).all()


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_row_and_a_column_do_not_depend_on_their_neighbours(shape, seed, data):
    """A row or column has the same bits, whatever rows and columns are computed with it."""
    base, left, right = matrices(shape, seed)
    whole = multiplied(base, left, right)
    chosen = np.array(data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=2, max_size=9)))
    assert np.array_equal(multiplied(base[chosen], left[chosen], right), whole[chosen])
    begin = 8 * data.draw(st.integers(0, shape[2] // 8 - 1))
    part = multiplied(np.vstack([base, base])[:, begin:], np.vstack([left, left]), right[:, begin:].copy())
    assert np.array_equal(part[: shape[0]], whole[:, begin:])


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), models=st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_four_rows_with_own_matrices_equal_each_row_alone(shape, seed, models):
    """Four rows have the bits that each has alone, whichever of three matrices each is multiplied by."""
    _, steps, columns = shape
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(4, steps)).astype(np.float32)
    kept = rng.normal(size=(3, (steps + 1) * columns)).astype(np.float32)  # of each: one row of base, then the matrix
    out = np.full(4 * columns, np.float32(np.nan))
    further = tuple(model * kept.shape[1] for model in models)
    products_apart(out, kept.ravel(), left.ravel(), kept.ravel(), (0, columns), (steps, columns), further)
    for row, model in enumerate(models):
        base, right = kept[model, :columns], kept[model, columns:].reshape(steps, columns)
        alone = multiplied(base[None], left[row : row + 1], right)
        assert np.array_equal(out.reshape(4, columns)[row], alone[0])


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_a_row_is_summed_in_four_strands(width, seed):
    """A row sum has the bits of four partial sums added in pairs, on any processor; other layouts are refused."""
    values = np.random.default_rng(seed).normal(size=(3, 8 * width)).astype(np.float32)
    for n, row in enumerate(values):
        strands = [np.float32(0)] * 4
        for k, value in enumerate(row):
            strands[k % 4] = strands[k % 4] + value if k >= 4 else value
        assert row_sum(values, n) == (strands[0] + strands[1]) + (strands[2] + strands[3])
    with pytest.raises(TypingError, match="C-contiguous"):
        row_sum(values[:, ::2], 0)
