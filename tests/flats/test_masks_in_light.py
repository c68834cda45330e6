"""Masks in the light of an imager, and lines on the edges of slices: what is dark is no defect."""

from __future__ import annotations

import numpy as np
from make_files import couple
from scipy.special import erf

from badpix import detectors
from badpix.flats import dispersed, judged, light, types
from badpix.settings.flats import FlatSettings
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.files import make_recipe
from badpix.simulation.illumination import measure_illumination

PLACES = [(20, 30), (60, 150), (130, 20), (40, 100)]  # in good light


def search_mask(name, **changes):
    """A mean flat of 200 x 200 pixels with a mask in its light, and what is found in it."""
    p = SimulateSettings.from_values({"detector": "NRCALONG", "illumination": name, "size": [200, 200]}, "test")
    rng = np.random.default_rng(4)
    image = measure_illumination(make_recipe(p)).astype(float) * (1 + 0.012 * rng.normal(size=(200, 200)))
    for place in PLACES:
        image[place] *= 0.01
    detector = detectors.get("NRCALONG")
    mean = (500 * couple(image, detector.ipc) + rng.normal(size=image.shape)).astype(np.float32)
    settings = FlatSettings(**changes)
    found = light.normalize_light(mean, settings, detector.ipc, detectors.Mode("imager", None, 95))
    return found, types.find_flat_types(found.norm, settings, detector, found.steep).maps, image


def test_what_a_mask_darkens_is_no_defect():
    """Bar, squares and the holder's edge: nothing but the dead pixels is flagged; the dark is undetermined."""
    found, maps, image = search_mask("wedge")
    wanted = np.zeros(image.shape, bool)
    for place in PLACES:
        wanted[place] = True
    np.testing.assert_array_equal(maps["DEAD"], wanted)
    assert not maps["LOW_QE"].any()
    assert not maps["OPEN"].any()
    dark = (image < 0.02) & ~wanted
    assert np.isin(found.state[dark], (judged.DIM, judged.UNLIT)).all()
    assert (found.state[image > 0.8] == judged.LIT).all()


def test_dim_light_of_an_imager():
    """A wide area at 5 % of the light tells nothing unless min_light says so; at 20 % it does."""
    for level, lit in ((0.05, False), (0.2, True)):
        state = np.full((120, 130), judged.LIT, np.uint8)
        mean = np.full(state.shape, 100, np.float32)
        mean[:, 90:] *= level
        norm = np.ones(state.shape, np.float32)
        judged.mark_dim(mean, norm, state, 0.1)
        assert (state[:, :90] == judged.LIT).all()
        assert (state[:, 90:] == (judged.LIT if lit else judged.DIM)).all()
        assert np.isnan(norm[:, 90:]).all() != lit
        unchanged = np.full(state.shape, judged.LIT, np.uint8)
        judged.mark_dim(mean, np.ones(state.shape, np.float32), unchanged, 0.0)
        assert (unchanged == judged.LIT).all()


def test_weak_pixels_in_a_line_on_an_edge():
    """The light of an edge has the lines of its slice: a weak pixel there is seen."""
    y, x = np.mgrid[:120, :90].astype(float)
    profile = np.clip(1.3 - np.abs(x % 30 - 15) / 10, 0, 1)
    image = (100 * profile * (0.3 + 2.0 * np.exp(-(((y - 60) / 1.6) ** 2)))).astype(np.float32)
    truth = image.copy()
    edge = (60, 24)
    assert 0.2 < profile[edge] < 0.6
    image[edge] *= 0.2
    found = dispersed.measure_light(image, 0)
    assert image[edge] / found[edge] < 0.35
    assert abs(found[edge] / truth[edge] - 1) < 0.4


def test_dead_pixels_on_and_beside_the_edge_of_a_mask():
    """They are judged by the light along the edge; the edge itself and its corners are no defects."""
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:220, :230].astype(float)
    for detector, soft in (("MIRIMAGE", 1.2), ("NRCALONG", 0.4)):
        dark = band(y - 110, 80, soft) * band(x - 120, 90, soft)
        image = (1 - dark) * rng.normal(1, 0.012, y.shape)
        edge = int(np.argmin(np.abs(1 - dark[110] - 0.3)[:100]))  # column that sees some 0.3 of the light
        places = [(100, edge), (130, edge - 1), (90, edge - 3), (66, 120), (64, 90), (140, 172)]
        for place in places:
            image[place] *= 0.01
        ipc = detectors.get(detector).ipc
        mean = (500 * couple(image, ipc) + rng.normal(size=image.shape)).astype(np.float32)
        found = light.normalize_light(mean, FlatSettings(), ipc, detectors.Mode("imager", None, 95))
        maps = types.find_flat_types(found.norm, FlatSettings(), detectors.get(detector), found.steep).maps
        wanted = np.zeros(y.shape, bool)
        for place in places:
            wanted[place] = True
        np.testing.assert_array_equal(maps["DEAD"], wanted)
        assert not (maps["LOW_QE"] | maps["OPEN"]).any()


def band(u, width, soft):
    """Light across a slit of that width around u = 0, with soft edges."""
    return 0.25 * (1 + erf((u + width / 2) / soft)) * (1 + erf((width / 2 - u) / soft))
