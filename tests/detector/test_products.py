"""Products of small matrices: what they are, and that rows stand alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ad.detector.products import product

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 50), st.integers(1, 12).map(lambda eights: 8 * eights))


def multiplied(base, left, right, *, turned=False):
    """Base, of one row or of all, and left times right, ``left`` handed over row after row or column after column."""
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
    """Within float32's rounding of each step, for any shape, both orders of the left matrix, one base row or many."""
    base, left, right = matrices(shape, seed)
    exact, most = left.astype(np.float64) @ right, np.abs(left).astype(np.float64) @ np.abs(right)
    for start in (base, base[:1]):
        allowed = shape[1] * np.finfo(np.float32).eps / 2 * 1.01 * (most + np.abs(start))  # 1.01: of rounded sums
        for turned in (False, True):
            found = multiplied(start, left, right, turned=turned).astype(np.float64)
            assert (np.abs(found - (start + exact)) <= allowed).all()


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_row_and_a_column_do_not_depend_on_what_stands_beside_them(shape, seed, data):
    """Bit for bit, whatever rows are computed with a row, and whatever columns with a column."""
    base, left, right = matrices(shape, seed)
    whole = multiplied(base, left, right)
    some = np.array(data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=2, max_size=9)))
    assert np.array_equal(multiplied(base[some], left[some], right), whole[some])
    begin = 8 * data.draw(st.integers(0, shape[2] // 8 - 1))
    part = multiplied(np.vstack([base, base])[:, begin:], np.vstack([left, left]), right[:, begin:].copy())
    assert np.array_equal(part[: shape[0]], whole[:, begin:])
