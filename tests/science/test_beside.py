"""What candidates and the pixels beside them show: lines are told from bad pixels, pattern by pattern."""

from __future__ import annotations

import numpy as np
import pytest

from badpix.numerics.neighbors import Places
from badpix.science import around, beside
from badpix.science.series import measure

NUMBER, PIXELS = 16, 400
VISITS = np.arange(NUMBER) // 4


def compare(own, side, *, seed=1):
    """``own``, ``side``: what a candidate and both pixels beside it show in each exposure, in units of the noise."""
    rng = np.random.default_rng(seed)
    one = np.ones((NUMBER, PIXELS), np.float32)
    z, *sides = ((rng.normal(size=one.shape) + np.asarray(of)[:, None]).astype(np.float32) for of in (own, *side))
    table = measure(z, one, one, VISITS, np.full(NUMBER, 2e-3))
    found = beside.measure_beside(z, one, [(s, one) for s in sides], table)
    return {name: found[f"light_{name}"].mean() for name in beside.PATTERNS}


STEADY, LAST = np.full(NUMBER, 1.6), np.where(VISITS == 3, 3.5, 0.0)
NOTHING = np.zeros(NUMBER)


def test_lines_are_light():
    assert compare(STEADY, [0.7 * STEADY] * 2)["all"] > 0.9
    assert compare(LAST, [0.7 * LAST] * 2)["after"] > 0.9
    assert compare(-STEADY, [-0.7 * STEADY] * 2)["all"] > 0.9


def test_bad_pixels_are_not():
    assert compare(STEADY, [NOTHING, NOTHING])["all"] < 0.03
    assert compare(LAST, [NOTHING, NOTHING])["after"] < 0.03
    assert compare(20 * STEADY, [0.56 * STEADY] * 2)["all"] == 0  # its leak


def test_what_one_side_shows_all_the_time_is_another_bad_pixel():
    assert compare(STEADY, [2 * STEADY, NOTHING])["all"] < 0.3
    assert compare(LAST, [20 * STEADY, NOTHING])["after"] < 0.05


@pytest.mark.parametrize("axis", [0, 1])
def test_sides_lie_across_and_are_mirrored(axis):
    chosen = np.array([0, 7, 25, 59])
    image = np.arange(60).reshape(6, 10)
    padded = np.pad(image, 1, mode="reflect")
    dy, dx = (1, 0) if axis == 1 else (0, 1)
    y, x = np.divmod(chosen, 10)
    for place, sign in zip(beside.find_places(chosen, image.shape, axis), (-1, 1), strict=True):
        np.testing.assert_array_equal(place, padded[y + 1 + sign * dy, x + 1 + sign * dx])


def series_of(values):
    """What is measured of one pixel."""
    z = np.asarray(values, np.float32)[:, None]
    return measure(z, np.ones_like(z), np.ones_like(z), np.arange(len(z)), np.full(len(z), 2e-3))


def test_two_newest_exposures_are_a_birth_where_they_are_alike():
    quiet = np.random.default_rng(4).normal(size=22)
    found = series_of([*quiet, 21.0, 20.6])
    assert found["newest"][0]
    assert found["since"][0] == 22
    assert found["after"][0] == pytest.approx(20.8, abs=0.1)
    assert not series_of([20.6, *quiet, 21.0])["newest"][0]


def test_two_particles_leave_nothing_of_a_birth():
    quiet = np.random.default_rng(5).normal(size=20)
    assert series_of([*quiet, 7.0, 0.3, 8.0, 0.1])["rest_after"][0] < 1.5
    assert series_of([*quiet, 4.0, 4.3, 5.0, 3.1])["rest_after"][0] > 4


@pytest.mark.parametrize("axis", [None, 1])
def test_leaks_are_measured_on_hot_pixels(axis):
    rng = np.random.default_rng(6)
    y, x = (part.ravel() + 5 for part in np.mgrid[0:90:9, 0:90:9])
    mean, ratio = rng.normal(0, 0.2, (100, 100)).astype(np.float32), 0.03
    for dy, dx in around.SIDES:
        shown = ratio * 40.0 - (around.SHIFT[0] if axis is None else 0.0)  # the hot pixel moves the level, too
        mean[y + dy, x + dx] += shown
    one = np.ones(y.size, np.float32)
    table = {"mean": 40 * one, "typical": 40 * one, "least": 40 * one, "noise": one, "noise_error": 0.2 * one}
    found = around.measure_ipc(mean, table, Places(np.sort(y * 100 + x), (100, 100)), 0.015, axis)
    n = around.LEAKING
    assert found == pytest.approx((n * 0.015 + 100 * ratio) / (n + 100), rel=0.05)
    few = {name: values[:0] for name, values in table.items()}
    assert around.measure_ipc(mean, few, Places(np.zeros(0, int), (100, 100)), 0.015, axis) == 0.015


def test_edges_are_those_of_the_light():
    reference = np.zeros((20, 20), bool)
    reference[:, :4] = True
    places = Places(np.array([4, 10 * 20 + 4, 10 * 20 + 5, 10 * 20 + 19]), (20, 20))
    np.testing.assert_array_equal(around.find_edges(places, reference), [True, True, False, True])
