"""The GWCS of simulated IFU exposures says where their pixels look, as their optics do."""

import numpy as np
import pytest

from badpix.simulation.ifu_optics import DETECTORS, make_optics, place_channels
from badpix.simulation.ifu_wcs import ARCSEC_PER_PIXEL, WAVELENGTHS, label_pixels, list_slices, make_wcs


@pytest.mark.parametrize("name", DETECTORS)
def test_each_pixel_looks_where_the_optics_say(name):
    det = DETECTORS[name]
    size = (90, det.shape[1] // 2)  # dispersion, spatial
    optics = make_optics(det, size, True)
    shape = size[::-1] if det.transposed else size
    wcs = make_wcs(det, shape, (0.0, 0.0))
    y, x = np.mgrid[: shape[0], : shape[1]]
    frame = "slicer" if det.transposed else "alpha_beta"
    found = wcs.get_transform("detector", frame)(x, y)
    alpha, beta, wave = (v.T for v in (found[1], found[0], found[2])) if det.transposed else found
    lit = optics.strip > 0
    assert np.isnan(alpha[~lit]).all()
    np.testing.assert_allclose(alpha[lit] / ARCSEC_PER_PIXEL, optics.along[lit], atol=1e-3)
    for k, channel in enumerate(place_channels(det, size[1])):
        mine = lit & (optics.strip > channel.before) & (optics.strip <= channel.before + channel.slices)
        expected = ARCSEC_PER_PIXEL * (optics.strip[mine] - channel.before - (channel.slices + 1) / 2)
        np.testing.assert_allclose(beta[mine], expected)
        in_pixels = (wave[mine] - WAVELENGTHS[0] - k * WAVELENGTHS[1]) * size[0]
        np.testing.assert_allclose(in_pixels, optics.wave[mine], atol=1e-3)


def test_a_source_stays_where_it_is_in_dithered_exposures():
    """What lies along + shift in one exposure has the same right ascension and declination as along in the other."""
    det, shape = DETECTORS["MIRIFUSHORT"], (90, 1032)
    labels = label_pixels(det.name, shape, True)
    one = next(s for s in list_slices(det, shape, True) if s.label == 105)
    other = next(s for s in list_slices(det, shape, True) if s.label == 106)
    y, x = (int(np.median(axis)) for axis in np.nonzero(labels == one.label))
    beside = x + (list_middle(other) - list_middle(one))  # the same place along the next slice
    still, moved = make_wcs(det, shape, (0.0, 0.0)), make_wcs(det, shape, (3.0, 1.0))
    first, second = still(x, y), moved(beside + 3.0, y)
    np.testing.assert_allclose(second[:2], first[:2], atol=1e-9)


def list_middle(one):
    """Pixel of the middle of a slice at the first wavelength: where alpha is 0."""
    return -one.alpha["c0_0"] / ARCSEC_PER_PIXEL


def test_labels_are_those_of_the_pipeline():
    assert sorted(set(np.unique(label_pixels("MIRIFULONG", (40, 1032), True)).tolist()) - {0}) == [
        *range(301, 317),
        *range(401, 413),
    ]
    found = label_pixels("NRS1", (2048, 40), True)
    assert set(np.unique(found).tolist()) == set(range(31))
    rows = {label: np.nonzero(found == label)[0].mean() for label in range(1, 31)}
    assert 0 < rows[3] - rows[1] < 100  # neighbors in the slicer: cube_build takes a slice's width from them


def test_one_slice_fills_the_detector_without_slices():
    wcs = make_wcs(DETECTORS["NRS1"], (30, 40), (0.0, 0.0), slices=False)
    y, x = np.mgrid[:30, :40]
    assert all(np.isfinite(v).all() for v in wcs(x, y))
