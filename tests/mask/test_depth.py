"""Curves of a depth table: levels, the sequence that never falls, intervals of counts."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from badpix.io.depths import Alarm, Depth
from badpix.mask import depth


def row(level, found, search="hot", injected=100):
    return Depth(search, level, "DN/s", injected, found, found)


def test_between_strengths_the_curve_is_that_of_a_gaussian_error():
    """Found where the logarithm of the strength and an error of 0.3 together exceed a limit."""
    error = NormalDist(0.0, 0.3)
    rows = [row(level, round(1e4 * error.cdf(math.log(level / 2))), injected=10_000) for level in (1, 1.7, 2.4, 4)]
    (curve,) = depth.make_curves(rows)
    assert curve.half == pytest.approx(2, rel=0.01)
    assert curve.ninety == pytest.approx(2 * math.exp(0.3 * 1.2816), rel=0.01)
    for level in (1.3, 2.0, 2.2, 3.0):
        assert curve.at(level) == pytest.approx(error.cdf(math.log(level / 2)), abs=0.01)
    assert curve.at(0.1) == curve.completeness[0]
    assert curve.at(100) == curve.completeness[-1]
    assert curve.injected == 40_000


def test_a_curve_that_ends_below_has_no_level():
    (curve,) = depth.make_curves([row(1, 0), row(2, 60)])
    assert curve.half is not None
    assert curve.ninety is None
    assert "90 % are not reached" in depth.describe([row(1, 0), row(2, 60)], [])[0]


def test_darker_pixels_are_found_more_easily():
    (curve,) = depth.make_curves([row(0.02, 100, "DEAD"), row(0.04, 100, "DEAD"), row(0.08, 0, "DEAD")])
    assert curve.falls
    assert 0.04 < curve.ninety < curve.half < 0.08


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50)), min_size=1, max_size=12))
def test_the_sequence_rises_keeps_the_sum_and_leaves_rising_ones(pairs):
    values, weights = (np.array(part, float) for part in zip(*pairs, strict=True))
    found = depth.rise(values, weights)
    assert (np.diff(found) >= -1e-12).all()
    assert (found * weights).sum() == pytest.approx((values * weights).sum())
    ordered = np.sort(values)
    np.testing.assert_allclose(depth.rise(ordered, weights), ordered)


@pytest.mark.parametrize(("n", "low", "high"), [(0, 0.0, 1.841), (1, 0.173, 3.300), (10, 6.891, 14.267)])
def test_intervals_are_those_of_gehrels(n, low, high):
    value, a, b = depth.per_million(Alarm("hot", "sign", 1_000_000, n))
    assert value == n
    assert a == pytest.approx(low, abs=0.03)
    assert b == pytest.approx(high, rel=0.02)
