"""Glow and leaks are areas; pixels, pairs, clusters and single columns stand out: against injected maps."""

from __future__ import annotations

import numpy as np
import pytest

from badpix.darks import surroundings
from badpix.numerics.neighbors import Places

LIMIT = 0.05


def make_map(kind):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:120, :160]
    area = {
        "none": np.zeros(y.shape),
        "edge": 0.5 * np.exp(-x / 8) * np.exp(-(((y - 60) / 40) ** 2)),
        "corner": 0.8 * np.exp(-(x + y) / 20),
        "leak": np.where((x >= 80) & (x < 110), 0.3, 0.0),
        "spot": 0.6 * np.exp(-((y - 50) ** 2 + (x - 90) ** 2) / 200),
    }[kind]
    return (area + rng.normal(0, 0.003, y.shape)).astype(np.float32)


@pytest.mark.parametrize("kind", ["none", "edge", "corner", "leak", "spot"])
def test_areas_are_no_pixels_and_hot_pixels_in_them_stay_hot(kind):
    rate = make_map(kind)
    rng = np.random.default_rng(4)
    bad = np.zeros(rate.shape, bool)
    bad[rng.integers(0, 120, 40), rng.integers(0, 160, 40)] = True
    bad[30:33, 40:43] = True  # a cluster
    bad[0, 0] = bad[119, 159] = True
    rate[bad] += 2.0
    above = rate > LIMIT
    places = Places(np.flatnonzero(above), rate.shape)
    found = surroundings.find_surrounded(rate, rate[above], places, LIMIT, np.zeros(above.sum(), np.float32))
    hot = places.to_map(~found)
    assert hot[bad].all()
    assert np.count_nonzero(hot & ~bad) <= (0 if kind in ("none", "leak") else 0.02 * np.count_nonzero(above))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_single_hot_line_is_no_area_but_several_are(axis):
    rate = make_map("none")
    lines = np.moveaxis(rate, axis, 0)
    lines[50] += 1.0
    places = Places(np.flatnonzero(rate > LIMIT), rate.shape)
    none = np.zeros(rate.size, np.float32)
    assert not surroundings.find_surrounded(rate, rate.flat[places.index], places, LIMIT, none).any()
    lines[51:54] += 1.0
    places = Places(np.flatnonzero(rate > LIMIT), rate.shape)
    assert surroundings.find_surrounded(rate, rate.flat[places.index], places, LIMIT, none).all()


def test_shot_noise_of_bright_glow_does_not_stand_out():
    rng = np.random.default_rng(5)
    rate = (3 + 0.05 * rng.normal(size=(60, 60))).astype(np.float32)
    rate[30, 30] += 0.2
    places = Places(np.arange(rate.size), rate.shape)
    bright = rate.ravel().copy()
    shot = np.full(rate.size, 0.05, np.float32)
    assert surroundings.find_surrounded(rate, bright, places, LIMIT, shot).all()
    bright[30 * 60 + 30] += 0.4
    assert np.flatnonzero(~surroundings.find_surrounded(rate, bright, places, LIMIT, shot)) == [30 * 60 + 30]
    rate[:] = 0  # where nothing glows, shot noise is that of the pixel's own charge
    assert not surroundings.find_surrounded(rate, bright, places, LIMIT, 10 * shot).any()


@pytest.mark.slow
def test_the_level_of_pixels_does_not_depend_on_how_many_are_asked(monkeypatch):
    rate = make_map("edge")
    y, x = np.divmod(np.arange(rate.size), rate.shape[1])
    want = surroundings.measure_level(rate, y, x)
    monkeypatch.setattr(surroundings, "CHUNK", 777)
    np.testing.assert_array_equal(want, surroundings.measure_level(rate, y, x))


def test_pixels_that_change_together_are_an_area():
    changed = np.zeros((40, 40), bool)
    changed[10:25, 10:25] = True
    changed[35, 35] = changed[35, 36] = True
    places = Places(np.arange(1600), (40, 40))
    crowded = places.to_map(surroundings.find_crowded(changed.ravel(), places))
    assert crowded[12:23, 12:23].all()
    assert not crowded[35, 35]
    told = surroundings.describe_areas(crowded.ravel(), places, np.ones((40, 40), np.float32))
    assert len(told) == 1
    assert "at 1 DN/s" in told[0]
