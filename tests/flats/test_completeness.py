"""The depth of flats: responses put into copies of the normalized image."""

import numpy as np
import pytest

from badpix import detectors
from badpix.flats.completeness import choose_pixels, measure_depth, put_defects
from badpix.mask.depth import make_curves
from badpix.settings.flats import FlatSettings

NRC = detectors.get("NRCB1")


@pytest.fixture
def norm():
    return np.random.default_rng(3).normal(1, 0.01, (256, 256)).astype(np.float32)


def test_curves_turn_at_the_limits(norm):
    before, lit, none = norm.copy(), np.ones(norm.shape, bool), np.zeros(norm.shape, bool)
    p = FlatSettings(depth=True, depth_pixels=3000)
    rows, alarms = measure_depth(norm, none, lit, None, p, NRC)
    np.testing.assert_array_equal(norm, before)
    curves = {c.search: c for c in make_curves(rows)}
    assert list(curves) == ["DEAD", "LOW_QE", "OPEN"]
    assert curves["DEAD"].half == pytest.approx(0.05, rel=0.1)
    assert curves["LOW_QE"].half == pytest.approx(0.5, rel=0.02)
    assert curves["OPEN"].completeness[0] < 0.1
    assert curves["OPEN"].completeness[-1] > 0.95
    assert {(a.search, a.flagged) for a in alarms} == {("DEAD", 0), ("LOW_QE", 0)}


def test_only_good_lit_pixels_with_good_neighbors_are_used(norm):
    flagged, lit = np.zeros(norm.shape, bool), np.ones(norm.shape, bool)
    flagged[:, 100:140] = True
    lit[200:] = False
    rows, _ = measure_depth(norm, flagged, lit, None, FlatSettings(depth=True), NRC)
    good = lit & ~flagged
    good[:, [99, 140]] = False
    assert sum(row.injected for row in rows) == len(choose_pixels(good, 20000)[0])


def test_bright_pixels_are_the_sign_test(norm):
    norm[5, 5:9] = 1.6
    none, lit = np.zeros(norm.shape, bool), np.ones(norm.shape, bool)
    _, alarms = measure_depth(norm, none, lit, None, FlatSettings(), NRC)
    assert {a.search: a.flagged for a in alarms} == {"DEAD": 0, "LOW_QE": 4}


def test_an_open_pixel_gives_to_its_sides():
    image = np.ones((5, 5), np.float32)
    put_defects(image, np.array([2]), np.array([2]), np.array([0.2], np.float32), "OPEN")
    assert image[2, 2] == np.float32(0.1)
    np.testing.assert_allclose(image[[1, 3, 2, 2], [2, 2, 1, 3]], 1.2)
    assert (image == 1).sum() == 20
