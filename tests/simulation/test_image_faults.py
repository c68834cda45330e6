"""Hard scenes of images: each fault leaves what it says, and nothing where it is off."""

import json
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from badpix.simulation import image_faults
from badpix.simulation.image import simulate
from badpix.simulation.image_scene import make_psf
from badpix.simulation.image_setup import PRESETS, Setup
from badpix.simulation.score_image import score_events

SMALL = Setup(seed=3, groups=2, shape=(96, 96), stars=500.0, galaxies=0.0)


def test_every_preset_is_a_setup():
    for name, values in PRESETS.items():
        assert Setup(**values) != Setup() or name == "sw"


def test_without_faults_nothing_is_added():
    assert not image_faults.make_background(SMALL, 0).any()
    assert not image_faults.make_halos(SMALL, 0).any()
    assert len(image_faults.make_clouds(SMALL)) == 0
    assert image_faults.make_events(0.3, SMALL) == []
    stars = np.ones((4, 3))
    assert image_faults.add_saturated(stars, 0.3, SMALL) is not stars
    np.testing.assert_array_equal(image_faults.add_saturated(stars, 0.3, SMALL), stars)
    arrays = {
        name: np.full((4, 4), 2, np.float32) for name in ("SCI", "ERR", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT")
    }
    image_faults.spoil(arrays, SMALL, 0)
    assert all((values == 2).all() for values in arrays.values())


def test_faults_are_as_large_as_they_say():
    sigma = image_faults.usual_sigma(SMALL)
    hard = replace(SMALL, stripes=1.4, gradient=0.3, snowballs=5000.0, saturated=2, shape=(256, 256))
    stripes = image_faults.make_background(replace(hard, gradient=0.0), 1)
    assert np.ptp(stripes, axis=1).max() < 1e-12
    assert stripes[:, 0].std() == pytest.approx(1.4 * sigma, rel=0.15)
    tilts = [np.ptp(image_faults.make_background(replace(hard, stripes=0.0), n)) for n in range(40)]
    assert np.mean(tilts) == pytest.approx(0.3 * hard.sky * 1.6, rel=0.25)  # of the sum of two absolute normals
    halo = image_faults.make_halos(replace(hard, snowballs=30.0), 2)
    assert 0.9 < halo.max() < 7
    psf = make_psf(hard)
    stars = image_faults.add_saturated(np.empty((0, 3)), float(psf.max()), hard)
    assert len(stars) == 2
    assert stars[:, 2] * psf.max() == pytest.approx(8 * hard.saturation)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    setup = replace(SMALL, transients=((200.0, (1,)),), movers=((100.0, 8.0),))
    return simulate(tmp_path_factory.mktemp("events"), setup).parent, setup


def test_transients_shine_in_their_groups_where_the_truth_says(events):
    folder, _ = events
    first, second = (fits.getdata(p, "CHANGING") for p in sorted((folder / "truth").glob("*_truth.fits")))
    assert first.max() == pytest.approx(100, rel=0.5)
    assert second.max() == pytest.approx(200, rel=0.5)
    assert len(json.loads((folder / "truth" / "events.json").read_text())) == 2


@pytest.mark.slow
def test_listed_events_are_counted_and_others_are_wrong(events):
    folder, setup = events
    rows = json.loads((folder / "truth" / "events.json").read_text())
    at = setup.target[0] + rows[0]["east"] / 3600 / np.cos(np.radians(setup.target[1]))
    right = {"ra": at, "dec": setup.target[1] + rows[0]["north"] / 3600}
    wrong = {"ra": at, "dec": setup.target[1] + (rows[0]["north"] + 1) / 3600}
    found = score_events(folder, [{"detections": [right]}, {"detections": [wrong]}], setup)
    assert found == {"events": 2, "listed": 1, "wrong": 1}
    assert score_events(folder / "nowhere", [], setup) == {"events": 0, "listed": 0, "wrong": 0}
