"""Places in memory, looked up and put together."""

import numpy as np

from badpix.numerics.neighbors import distinct


def test_distinct_places_are_those_of_unique():
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 30, (5, 8)), rng.integers(0, 30, 9)
    np.testing.assert_array_equal(distinct(a, b), np.unique(np.concatenate([a.ravel(), b])))
    assert distinct(np.empty(0, np.intp)).size == 0
