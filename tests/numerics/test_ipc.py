"""Inter-pixel capacitance: the two ways to state it, and the charge that comes and goes."""

from __future__ import annotations

import numpy as np
import pytest

from badpix.numerics import ipc
from badpix.numerics.neighbors import Places


def test_a_lone_pixel_shows_the_ratio():
    charge = np.zeros((5, 5))
    charge[2, 2] = 1000
    shown = ipc.mix(charge, 0.0055)
    assert shown.sum() == pytest.approx(1000)
    assert shown[2, 3] / shown[2, 2] == pytest.approx(ipc.ratio_of(0.0055))
    assert ipc.fraction_of(ipc.ratio_of(0.0055)) == pytest.approx(0.0055)


def test_charge_of_the_border_is_lost_to_the_outside():
    charge = np.zeros((2, 4, 4))
    charge[1, 0, 0] = 100
    shown = ipc.mix(charge, 0.01)
    assert shown[1].sum() == pytest.approx(98)
    assert not shown[0].any()


def test_leaks_come_from_the_sides_alone_and_never_from_nan():
    index = np.array([0, 1, 6, 9])  # of a 5 x 5 image: (0, 0), (0, 1), (1, 1), (1, 4)
    found = ipc.leaked(np.array([10.0, np.nan, 40.0, 80.0]), Places(index, (5, 5)), 0.02)
    np.testing.assert_allclose(found, [0, 0.02 * 50, 0, 0], rtol=1e-6)
