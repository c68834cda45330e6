"""The image outlier search on exposures that are not alike: deeper or shallower than the rest."""

import numpy as np
import pytest
from astropy.io import fits
from notes import heard

from badpix.image import driver as image_driver
from badpix.image.grid import Window
from badpix.image.noise import measure_noise_factors, measure_scatter
from badpix.image.reference import measure_pair_sigma
from badpix.image.stack import Shelf, mosaic_name
from badpix.io.associations import GROUP_KEYWORDS, read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import Setup
from badpix.simulation.score_image import score_run


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    """Four groups of one depth."""
    setup = Setup(seed=61, shape=(320, 320), stars=9000.0, dither=8.0)
    return simulate(tmp_path_factory.mktemp("equal"), setup).parent


def copy_unequal(source, target, shallow, times):
    """The set, with noise added to the exposures of these numbers until their sky has ``times`` as much."""
    (target / "truth").mkdir(parents=True)
    for truth in (source / "truth").iterdir():
        (target / "truth" / truth.name).symlink_to(truth)
    rng = np.random.default_rng(62)
    for number, path in enumerate(sorted(source.glob("*_cal.fits"))):
        with fits.open(path) as hdul:
            if number in shallow:
                sci, err = hdul["SCI"].data, hdul["ERR"].data
                added = np.float32((times**2 - 1) * np.nanmedian(err) ** 2)
                sci += rng.normal(0, np.sqrt(added), sci.shape).astype(np.float32)
                hdul["VAR_RNOISE"].data += added
                np.sqrt(err**2 + added, out=err)
            hdul.writeto(target / path.name)
    return target


def flag(folder, output, parameter_set="default", **options):
    p = ImageSettings.from_values(options, "test", parameter_set)
    with heard() as notes:
        _, summary = image_driver.flag_images(read_inputs(sorted(folder.glob("*_cal.fits"))), p, output)
    return summary, notes, score_run(folder, output)


@pytest.mark.slow
def test_exposures_given_twice_and_flagged_before_are_told(equal, tmp_path):
    copy_unequal(equal, tmp_path, (), 1)
    paths = sorted(tmp_path.glob("*_cal.fits"))
    with fits.open(paths[0]) as first, fits.open(paths[1], mode="update") as second:
        second[0].header.update({k: first[0].header[k] for k in GROUP_KEYWORDS if k in first[0].header})
    fits.setval(paths[2], "S_OUTLIR", value="COMPLETE")
    _, notes, _ = flag(tmp_path, tmp_path / "out")
    assert any(paths[2].name in note and "S_OUTLIR is COMPLETE" in note for note in notes)
    assert any(paths[1].name in note and note.endswith("they count as one exposure") for note in notes)


def test_scatter_is_that_of_the_noisier_one_of_exposure_and_model():
    rng = np.random.default_rng(1)
    sigma = np.full((200, 200), 2, np.float32)
    assert measure_scatter(rng.normal(0, 10, sigma.shape).astype(np.float32), sigma) == pytest.approx(5, rel=0.05)
    assert measure_scatter(rng.normal(0, 1, sigma.shape).astype(np.float32), sigma) == 1
    assert measure_scatter(np.full_like(sigma, np.nan), sigma) == 1


@pytest.mark.parametrize(
    ("noise", "factor", "unusual"), [(1.2, 1.2, []), (5, 5, [3]), (0.5, 0.5, [3]), (30, 10, [3])]
)
def test_noise_factors_are_told_where_they_are_unusual(noise, factor, unusual):
    residual = np.random.default_rng(2).normal(0, noise, (300, 300)).astype(np.float32)
    flat, cover = np.ones(residual.shape, bool), np.full(residual.shape, 3, np.uint8)
    factors, found = measure_noise_factors(residual, np.ones_like(residual), flat, cover)
    assert factors[3] == pytest.approx(factor, rel=0.05)
    assert found == unusual


@pytest.mark.slow
def test_an_exposure_deeper_than_the_others_keeps_its_stars(equal, tmp_path):
    folder = copy_unequal(equal, tmp_path / "deep", shallow=(1, 2, 3), times=4)
    summary, notes, score = flag(folder, tmp_path / "out")
    assert score["sources_damaged"] < 0.01
    assert score["false_per_million"] < 100  # steep pixels made of the others' noise: 280
    assert summary["exposures"][0]["noise_factors"][0] > 2
    assert any("00001_nrcb1_cal.fits: differs from the others by" in note for note in notes)


@pytest.mark.slow
def test_an_exposure_shallower_than_the_others_is_no_reference_for_them(equal, tmp_path):
    folder = copy_unequal(equal, tmp_path / "shallow", shallow=(1,), times=9)
    summary, notes, score = flag(folder, tmp_path / "out")
    all_in, _, all_score = flag(folder, tmp_path / "all", reference_noise=None)
    assert score["false_per_million"] < 0.5 * all_score["false_per_million"]
    assert len(summary["shallow_groups"]) == 1
    assert not all_in["shallow_groups"]
    assert any("00002_nrcb1_cal.fits: 9.0 times as noisy" in note for note in notes)
    assert summary["exposures"][1]["bright"] > 50  # it is searched itself


def test_mosaics_are_compared_past_a_group_that_is_no_reference(tmp_path):
    rng = np.random.default_rng(3)
    shelf, windows = Shelf(tmp_path), [Window(0, 90, 0, 120)] * 3
    for group in (0, 2):
        shelf.write(mosaic_name(group), rng.normal(0, 1, (90, 120)).astype(np.float32))
    shelf.write(mosaic_name(1), np.full((90, 120), np.nan, np.float32))
    assert measure_pair_sigma(shelf, windows, [0, 2]) == pytest.approx(np.sqrt(2), rel=0.1)
    assert measure_pair_sigma(shelf, windows, [0, 1, 2]) == 0


@pytest.mark.slow
def test_two_exposures_stay_each_other_s_reference(equal, tmp_path):
    folder = copy_unequal(equal, tmp_path / "two", shallow=(0,), times=4)
    for path in sorted(folder.glob("*_cal.fits"))[2:]:
        path.unlink()
    summary, notes, _ = flag(folder, tmp_path / "out")
    assert summary["shallow_groups"] == []
    assert not any("as noisy" in note for note in notes)
