"""Medians compared with numpy's, with NaN and infinities in all patterns."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from badpix.numerics import medians

VALUES = st.sampled_from([np.nan, -np.inf, np.inf, 0.0, -1.0, 1.0, 2.5, 7.0])


def _nanmedian(values, axis):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(values, axis=axis)


def _lower(values):
    finite = sorted(v for v in values if not np.isnan(v))
    return finite[(len(finite) - 1) // 2] if finite else np.nan


@pytest.mark.parametrize("n", range(1, 20))
def test_networks_sort(n):
    lines = np.random.default_rng(n).integers(0, 9, (n, 400)).astype("f4")
    found = medians.sort_lines(list(lines.copy()), range(n))
    np.testing.assert_array_equal(found, np.sort(lines, axis=0))
    for rank in range(n):
        np.testing.assert_array_equal(medians.sort_lines(list(lines.copy()), [rank])[0], np.sort(lines, axis=0)[rank])


@pytest.mark.slow
@given(hnp.arrays("f4", st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=VALUES))
def test_along_a_stack(stack):
    before = stack.copy()
    np.testing.assert_array_equal(medians.median_along(stack), _nanmedian(stack, 0))
    lower = [_lower(column) for column in stack.T]
    np.testing.assert_array_equal(medians.lower_median_along(stack), np.array(lower, "f4"))
    np.testing.assert_array_equal(stack, before)


@pytest.mark.slow
@given(hnp.arrays("f8", st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=VALUES))
def test_in_rows(values):
    expected = _nanmedian(values, 1)
    lower = [_lower(row) for row in values]
    np.testing.assert_array_equal(medians.median_rows(values.copy()), expected)
    np.testing.assert_array_equal(medians.median_rows(values.copy(), lower=True), lower)


@pytest.mark.parametrize("size", [(7, 7), (3, 5), (15, 15)])
def test_at_single_pixels(size):
    rng = np.random.default_rng(4)
    image = rng.normal(0, 1, (23, 31)).astype("f4")
    image[rng.random(image.shape) < 0.3] = np.nan
    image[:, 8:17] = np.nan
    where = rng.random(image.shape) < 0.4
    found = medians.median_at(image, size, *np.nonzero(where))
    np.testing.assert_array_equal(found, medians.local_median(image, size, outside=np.nan, where=where)[where])
    assert medians.median_at(image, size, *np.nonzero(where & False)).shape == (0,)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("outside", [0.0, np.nan])
@pytest.mark.parametrize("size", [(7, 7), (3, 5), (1, 1)])
def test_in_windows(dtype, outside, size):
    rng = np.random.default_rng(3)
    image = rng.normal(0, 1, (23, 31)).astype(dtype)
    image[rng.random(image.shape) < 0.3] = np.nan
    image[:, 8:17] = np.nan
    where = rng.random(image.shape) < 0.7
    pad = [(s // 2, s // 2) for s in size]
    frame = np.pad(image, pad, constant_values=outside)
    expected = np.full(image.shape, np.nan, dtype)
    for y, x in zip(*np.nonzero(where), strict=True):
        expected[y, x] = _nanmedian(frame[y : y + size[0], x : x + size[1]], None)
    found = medians.local_median(image, size, outside=outside, where=where)
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, expected)
