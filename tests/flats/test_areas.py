"""Masks, spots, frames, voids and clusters: dark for want of light, weak as a whole, or defects."""

from __future__ import annotations

import numpy as np
import pytest
from make_files import make_flats, write_rates
from scipy import ndimage

from badpix import detectors
from badpix.flats import areas, judged, search
from badpix.flats.light import normalize_light
from badpix.io.exposure import open_exposure
from badpix.settings.flats import FlatSettings

SHAPE = (256, 272)
IMAGER = detectors.Mode("imager", None, 95)


def spot(y0, x0, radius, blur=0.0):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = (np.hypot(y - y0, x - x0) >= radius).astype(float)
    return ndimage.gaussian_filter(light, blur) if blur else light


def square(blur, level):
    light = np.ones(SHAPE)
    light[60:130, 90:170] = level
    return ndimage.gaussian_filter(light, blur) if blur else light


def wedge(blur):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = (np.abs(y - 100 - 0.05 * x) > 1.5 + 10 * x / SHAPE[1]).astype(float)
    return ndimage.gaussian_filter(light, blur) if blur else light


LIGHTS = {
    "square, sharp": (square(0, 0.001), 5),
    "square, soft": (square(1.0, 0.001), 5),
    "square, a third of the light": (square(0, 0.3), 5),
    "square, a third, soft": (square(1.0, 0.3), 40),
    "wedge, sharp": (wedge(0), 5),
    "wedge, soft": (wedge(0.7), 5),
    "spot, soft": (spot(120, 130, 9, 1.2), 5),
    "spot, large and sharp": (spot(120, 130, 20), 5),
}


def make_mean(light, seed=1, dead=()):
    rng = np.random.default_rng(seed)
    mean = 100 * light * rng.normal(1, 0.01, SHAPE) + rng.normal(0, 0.3, SHAPE)
    for y, x in dead:
        mean[y, x] = 0
    return mean.astype(np.float32)


@pytest.mark.parametrize("name", LIGHTS)
def test_masks_in_the_light_are_no_defects(name):
    """Steps of light are not flagged; dead pixels beside and inside them are."""
    light, most = LIGHTS[name]
    dead = [(20, 30), (200, 220), (30, 250), (240, 10)] + ([(95, 130)] if "third" in name else [])
    found = normalize_light(make_mean(light, dead=dead), FlatSettings(), 0.0, IMAGER)
    low = found.norm < 0.5
    for y, x in dead:
        assert found.norm[y, x] < 0.05
        low[y, x] = False
    assert low.sum() <= most
    dark = light < 0.02
    assert (np.isnan(found.norm) & (found.state != judged.LIT) & dark).sum() >= 0.99 * dark.sum()
    assert np.isfinite(found.norm[light > 0.99]).all()


def test_a_mask_that_lets_some_light_through_is_said_to():
    """It was called 100 % below its surroundings whatever its light."""
    y, x = np.indices(SHAPE)
    light = np.where((np.abs(y - 100) < 30) & (np.abs(x - 140) < 30), 0.07, 1.0)
    (area,) = normalize_light(make_mean(light), FlatSettings(), 0.0, IMAGER).areas
    assert area.depth == pytest.approx(0.93, abs=0.01)
    assert "93% below its surroundings" in area.text()


def test_flagging_them_is_a_policy():
    """The test above can fail."""
    mean = make_mean(square(0, 0.001))
    found = normalize_light(mean, FlatSettings(large_areas="flag"), 0.0, IMAGER)
    assert (found.norm < 0.05).sum() == 70 * 80
    assert found.areas == []


def test_a_cluster_of_dead_pixels_is_dead():
    light = np.ones(SHAPE)
    light[100:112, 120:131] = 0.01  # 132 pixels, from one pixel to the next
    light[:, 40:42] = 0.0  # a dead pair of columns is a line, however long
    found = normalize_light(make_mean(light), FlatSettings(), 0.0, IMAGER)
    np.testing.assert_array_equal(found.norm < 0.05, light < 0.05)
    assert {a.kind for a in found.areas} == {"cluster"}


@pytest.mark.parametrize("depth", [0.3, 0.42])
def test_a_void_is_reported_and_not_flagged(depth):
    light = 1 - depth * (1 - spot(100, 140, 23))
    found = normalize_light(make_mean(light), FlatSettings(), 0.0, IMAGER)
    assert not (found.norm < 0.5).any()
    (area,) = found.areas
    assert area.kind == "weak"
    assert area.x[0] < 140 < area.x[1]
    assert area.y[0] < 100 < area.y[1]
    assert area.depth == pytest.approx(depth, abs=0.06)
    assert area.pixels == pytest.approx(np.pi * 23**2, rel=0.6)


def test_areas_in_the_coordinates_of_the_frame(tmp_path):
    stack = make_flats(3, (128, 160))
    stack[:, 30:70, 50:90] *= 0.001
    rates = [open_exposure(p) for p in write_rates(tmp_path, stack, window=detectors.Window(1001, 901, 160, 128))]
    found = search.search(rates, FlatSettings())
    assert found.areas[0] | {"depth": 1.0} == {
        "kind": "mask",
        "x": (1050, 1089),
        "y": (930, 969),
        "pixels": 1600,
        "depth": 1.0,
    }
    assert any(
        "area of 1,600 pixels (a step of light) at x 1050 to 1089, y 930 to 969" in note for note in found.notes
    )
    assert not any(m.any() for m in found.maps.values())
    counts = judged.count_states(found.evidence.images["flat_state"])
    assert counts["judged"] == 128 * 160 - 1600
    assert counts["dim"] + counts["unlit"] == 1600


def test_ordinary_frames_have_no_areas():
    assert areas.find_weak_areas(make_mean(np.ones(SHAPE))) == []
    assert normalize_light(make_mean(np.ones(SHAPE)), FlatSettings(), 0.0, IMAGER).areas == []
