"""The documented IFU search against its literal text, and by bands against the whole frame."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from badpix.ifu import rank as ifu_rank


def _literal_differences(sci, axis):
    left = np.diff(sci, axis=axis, prepend=0)
    right = np.flip(np.diff(np.flip(sci, axis=axis), axis=axis, prepend=0), axis=axis)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmin([np.abs(left), np.abs(right)], axis=0)


def _literal_ratio(smallest, kernel):
    pad = [(k // 2, k // 2) for k in kernel]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(smallest, pad), kernel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        normal = np.nanmedian(windows, axis=(2, 3))
        floor = np.nanmedian(smallest) / 3
        normal[normal < floor] = floor
        return smallest / normal


def _frame(seed, shape=(40, 37)):
    rng = np.random.default_rng(seed)
    sci = rng.normal(5, 2, shape).astype("f4")
    sci[:, 10:14] = np.nan
    sci[rng.random(shape) < 0.05] = np.nan
    sci[rng.random(shape) < 0.02] += 100
    return sci


@pytest.mark.parametrize("axis", [0, 1])
def test_differences(axis):
    sci = _frame(axis)
    before = sci.copy()
    found = ifu_rank.measure_differences(sci, axis)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, _literal_differences(sci, axis))
    np.testing.assert_array_equal(sci, before)


def test_differences_by_hand():
    row = np.array([[3, 5, np.nan, 2, np.nan, 7, np.nan]], "f4")
    expected = [[2, 2, np.nan, np.nan, np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(ifu_rank.measure_differences(row, 1), expected)
    # beyond the frame the value is 0: the last pixel differs from it by its own value
    np.testing.assert_array_equal(ifu_rank.measure_differences(np.array([[9, 1]], "f4"), 1), [[8, 1]])


@pytest.mark.parametrize("kernel", [(7, 7), (3, 5), (6, 2)])
def test_ratio_and_limit(kernel):
    smallest = ifu_rank.measure_differences(_frame(4), 1)
    odd = tuple(k | 1 for k in kernel)
    expected = _literal_ratio(smallest, odd)
    for everywhere in (False, True):
        found = ifu_rank.measure_ratio(smallest, kernel_size=kernel, threshold_percent=98.0, everywhere=everywhere)
        np.testing.assert_array_equal(found.ratio, expected)
        assert found.limit == np.nanpercentile(expected[4:-4, 4:-4], 98.0)
    assert kernel != (7, 7) or not np.isnan(found.normal).any()


def test_nothing_inside_gives_no_limit():
    smallest = np.full((12, 12), np.nan)
    smallest[0, :] = 1.0
    found = ifu_rank.measure_ratio(smallest, kernel_size=(7, 7), threshold_percent=99.8)
    assert np.isnan(found.limit)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), low=st.floats(80, 99), more=st.floats(0, 1))
def test_a_higher_percentile_never_gains_a_pixel(seed, low, more):
    smallest = ifu_rank.measure_differences(_frame(seed, (20, 21)), 0)
    maps = []
    for percent in (low, low + more):
        found = ifu_rank.measure_ratio(smallest, kernel_size=(3, 3), threshold_percent=percent)
        with np.errstate(invalid="ignore"):
            maps.append(found.ratio > found.limit)
    assert not (maps[1] & ~maps[0]).any()
