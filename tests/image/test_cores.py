"""Hits on the cores of stars, by the profile that all stars share; stars are integrals of Gaussians over pixels."""

from math import erf

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix.cli.main import outlier
from badpix.image import driver as image_driver
from badpix.image.cores import Stamps, cut_stamps, decide_stamps
from badpix.image.pixel_map import PixelMap, invert_map
from badpix.image.star_fit import Visits, learn_profile
from badpix.image.star_profile import HALF, evaluate_profile, fit_profile, stamp_offsets
from badpix.io.associations import read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import Setup

EXPOSURES = 4
SIGMA = 1.0
SCALE = np.array([1.02, 0.99, 1.0, 0.99])
SHIFT = np.array([[0.2, -0.1], [-0.15, 0.1], [0.0, 0.2], [-0.05, -0.2]])


def line(offset, width):
    """Share of a Gaussian of this FWHM in pixels at some distances, along one axis."""
    s = width / 2.3548 * np.sqrt(2)
    share = np.vectorize(lambda v: (erf((v + 0.5) / s) - erf((v - 0.5) / s)) / 2)
    return share(offset)


def star(dx, dy, width=1.3):
    return line(dx, width) * line(dy, width)


@pytest.fixture(scope="module")
def sky():
    """60 stars and 12 galaxies in 4 exposures: list of Stamps, fluxes, light [exposure, source, 25]."""
    rng = np.random.default_rng(5)
    y, x = stamp_offsets()
    number = 72
    flux = np.exp(rng.uniform(np.log(400), np.log(50_000), number))
    width = np.where(np.arange(number) < 60, 1.3, rng.uniform(2.5, 4, number))
    phase, dither = rng.uniform(-0.5, 0.5, (number, 2)), rng.uniform(-0.5, 0.5, (EXPOSURES, 2))
    stamps, lights = [], []
    for k in range(EXPOSURES):
        told = phase + dither[k]
        told -= np.rint(told)
        at = told + SHIFT[k]
        light = np.stack([f * star(x - a, y - b, w) for f, (a, b), w in zip(flux, at, width, strict=True)])
        noise = np.sqrt(SIGMA**2 + light / 100)
        value = rng.normal(SCALE[k] * light, noise)
        none = np.zeros((number, 25), bool)
        turn = np.tile(np.eye(2), (number, 1, 1))
        where = np.arange(number)
        at, wide, others = where * 9 + 4, np.zeros(number), np.full(number, EXPOSURES - 1)
        stamps.append(Stamps(where, at, at, value, noise, none, none, wide, told, turn, others))
        lights.append(light)
    return stamps, flux, np.array(lights)


def decide(stamps, **more):
    """The flags of each exposure [exposure, source, 25]."""
    after = np.array([s.flagged for s in stamps])
    for verdict in decide_stamps(stamps, **{"core_snr": 5.0, "level": True, **more}):
        after[verdict.exposure, verdict.row] = verdict.flagged
    return after


def with_value(stamps, exposure, value, **more):
    changed = list(stamps)
    changed[exposure] = stamps[exposure]._replace(value=value, **more)
    return changed


def test_profile_is_the_function_that_its_samples_come_from():
    rng = np.random.default_rng(1)
    dx, dy = rng.uniform(-HALF, HALF, (2, 20_000))
    profile = fit_profile(star(dx, dy), np.ones(len(dx)), dx, dy)
    x, y = rng.uniform(-2.2, 2.2, (2, 500))
    value, along_x, along_y = evaluate_profile(profile, x, y)
    np.testing.assert_allclose(value, star(x, y), atol=1.5e-3)
    step = 1e-4
    right, up = (star(x + a, y + b) - star(x - a, y - b) for a, b in ((step, 0), (0, step)))
    np.testing.assert_allclose(along_x, right / (2 * step), atol=0.02)
    np.testing.assert_allclose(along_y, up / (2 * step), atol=0.02)


def test_pointing_and_flux_of_exposures_are_learned(sky):
    stamps, _, _ = sky
    parts = [np.array([getattr(s, name) for s in stamps], float) for name in ("value", "noise", "place", "turn")]
    exposure = np.repeat(np.arange(EXPOSURES)[:, None], parts[0].shape[1], axis=1)
    optics = learn_profile(Visits(*parts, exposure), EXPOSURES)
    np.testing.assert_allclose(optics.scale, SCALE, atol=3e-3)
    np.testing.assert_allclose(optics.shift, SHIFT - SHIFT.mean(axis=0), atol=0.01)
    assert optics.errors.max() < 0.005


def test_nothing_is_flagged_without_hits(sky):
    assert decide(sky[0]).sum() <= 1  # 5 sigma in 6,000 pixels


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_hits_of_a_few_percent_of_a_star_are_found_wherever_they_lie(sky, share):
    stamps, flux, _ = sky
    rng = np.random.default_rng(3)
    bright = np.flatnonzero((flux > 2000) & (np.arange(len(flux)) < 60))
    at = rng.choice([6, 7, 8, 11, 12, 13, 16, 17, 18], len(bright))
    value = stamps[2].value.copy()
    value[bright, at] += share * flux[bright]
    flagged = decide(with_value(stamps, 2, value))
    assert flagged[2, bright, at].mean() > 0.97
    flagged[2, bright, at] = False
    assert flagged.sum() <= 2


def test_flags_that_the_profile_explains_are_taken_back_but_hits_stay(sky):
    stamps, flux, _ = sky
    flagged = np.zeros((len(flux), 25), bool)
    flagged[:40, 12] = True
    value = stamps[1].value.copy()
    value[:20, 12] += 0.3 * flux[:20]
    after = decide(with_value(stamps, 1, value, flagged=flagged, ours=flagged))
    assert after[1, :20, 12].all()
    assert not after[1, 20:40, 12].any()
    kept = decide(with_value(stamps, 1, value, flagged=flagged))  # flags of other rules stay
    assert kept[1, :40, 12].all()


def test_light_over_a_star_takes_its_whole_stamp_where_it_counts(sky):
    stamps, flux, _ = sky
    value = stamps[3].value + 2 * SIGMA
    after = decide(with_value(stamps, 3, value))
    stars = np.arange(len(flux)) < 60
    faint, bright = stars & (flux < 1000), stars & (flux > 10_000)
    assert after[3, faint].all(axis=1).mean() > 0.8
    assert not after[3, bright].any()
    assert not after[:3].any()
    assert not decide(with_value(stamps, 3, value), level=False)[3, faint].all(axis=1).any()


def test_a_weak_pixel_beside_a_flagged_hit_is_hit(sky):
    """A hit that the test has flagged counts as one: what it left beside it needs 0.6 of the limit."""
    stamps, flux, light = sky
    stars = np.flatnonzero((np.arange(len(flux)) < 60) & (flux < 5000))
    flagged = np.zeros((len(flux), 25), bool)
    flagged[stars, 12] = True
    value = stamps[2].value.copy()
    value[stars, 13] = SCALE[2] * light[2, stars, 13] + 4 * np.hypot(stamps[2].noise[stars, 13], 0.0015 * flux[stars])
    alone = decide(with_value(stamps, 2, value))[2, stars, 13].mean()
    value[stars, 12] += 0.3 * flux[stars]
    beside = decide(with_value(stamps, 2, value, flagged=flagged))[2, stars, 13].mean()
    assert alone < 0.15
    assert beside > 0.6


def test_a_missing_pixel_is_no_witness_against_a_faint_neighbor(sky):
    """One other exposure shows the neighbor; in two its pixels are missing, beside dark ones."""
    stamps, flux, light = sky
    star_ = int(np.argsort(-flux[:60])[20])
    y, x = stamp_offsets()
    changed = list(stamps)
    for k in range(EXPOSURES):
        value = stamps[k].value.copy()
        place = stamps[k].place[star_] + SHIFT[k]
        near = np.hypot(x - place[0] - 1.6, y - place[1]) < 0.8
        value[star_, near] += 25 * SIGMA + 0.05 * light[k, star_].max()
        if k >= 2:
            value[star_, near] = np.nan
        changed[k] = stamps[k]._replace(value=value)
    assert not decide(changed)[:, star_].any()


def test_stars_that_some_exposures_lack_are_decided_in_the_others(sky):
    """In any unit, and where the edge of a frame or bad pixels take a part of their stamps."""
    stamps, flux, _ = sky
    rng = np.random.default_rng(3)
    bright = np.flatnonzero((flux > 2000) & (np.arange(len(flux)) < 60))
    lost, cut, holed = np.array_split(bright, 3)
    at = rng.choice([6, 7, 8, 11, 12, 13, 16, 17, 18], len(bright))
    parts = []
    for k, one in enumerate(stamps):
        value, noise = one.value / 100, one.noise / 100
        if k == 2:
            value[bright, at] += 0.2 * flux[bright] / 100
        if k == 0:
            value[lost] = np.nan
        if k == 1:  # the first row lies beyond the frame, where there is no noise either
            value[cut, :5] = noise[cut, :5] = np.nan
        value[holed, 5 * k] = np.nan
        parts.append(one._replace(value=value, noise=noise))
    flagged = decide(parts)
    for some in (lost, cut, holed):
        which = np.isin(bright, some)
        assert flagged[2, bright[which], at[which]].mean() > 0.95
    flagged[2, bright, at] = False
    assert flagged.sum() <= 2


def test_stars_that_change_stay(sky):
    stamps, _, light = sky
    value = stamps[0].value.copy()
    value[:12] += 0.3 * light[0, :12]
    assert not decide(with_value(stamps, 0, value))[0, :12].any()


def test_too_few_stars_decide_nothing(sky):
    few = [s._replace(**{n: getattr(s, n)[:8] for n in s._fields}) for s in sky[0]]
    value = few[0].value.copy()
    value[:, 12] += 1e4
    assert not decide_stamps(with_value(few, 0, value), core_snr=5.0, level=True)
    assert not decide_stamps(
        [s._replace(**{n: getattr(s, n)[:0] for n in s._fields}) for s in few], core_snr=5.0, level=True
    )


def test_stamps_are_cut_where_the_map_puts_a_source():
    shape = (40, 50)
    fit = np.zeros((2, 2, 2))
    fit[0, 0] = 24.5 + 10.25, 24.5  # x on the grid = x + 10.25
    fit[1, 0, 0], fit[1, 1, 0] = 19.5 - 3.5, 19.5
    pixel_map = PixelMap(shape, (0, 49, 0, 39), fit, None, 0.0)
    value = np.arange(2000, dtype=np.float32).reshape(shape)
    model = np.zeros(shape, np.float32)
    model[20, 30] = 500
    none = np.zeros(shape, bool)
    flagged = none.copy()
    flagged[21, 30] = True
    cover = (np.arange(2000) % 5).reshape(shape)
    sources = np.array([[40.45, 16.3], [20.0, 5.0]])  # pixel (30.2, 19.8); and one that is too faint
    places = invert_map(pixel_map, *sources.T)
    found = cut_stamps(
        places, pixel_map, value - model, model, np.ones(shape, np.float32), flagged, none, none, cover
    )
    assert (found.source.tolist(), found.y.tolist(), found.x.tolist()) == ([0], [20], [30])
    np.testing.assert_allclose(found.place, [[0.2, -0.2]], atol=1e-6)
    np.testing.assert_allclose(found.turn, np.eye(2)[None], atol=1e-6)
    np.testing.assert_array_equal(found.value.reshape(5, 5), value[18:23, 28:33])
    assert np.flatnonzero(found.flagged[0]).tolist() == [17]
    assert found.others.tolist() == [cover[20, 30]]


@pytest.mark.slow
def test_a_run_counts_what_stars_decided_and_says_it(tmp_path):
    """The sums of the counts are those of the files; with the stars, more hits on their cores are found."""
    setup = Setup(seed=83, groups=3, shape=(256, 256), stars=9000.0, galaxies=0.0, hits=12_000.0, dither=8.0)
    table = simulate(tmp_path / "sim", setup)
    found = {}
    for snr, audit in ((0.0, True), (5.0, False), (5.0, True)):
        values = {"core_snr": snr, "max_flagged": 100.0, "audit": audit}
        p = ImageSettings.from_values(values, "test", "default")
        written, summary = image_driver.flag_images(read_inputs([table]), p, tmp_path / f"out{snr:g}{audit}")
        assert all(("core" in row) == (snr > 0) for row in summary["exposures"])
        flags = [(fits.getdata(path, "DQ") & 16) != 0 for path in written]
        assert [f.sum() for f in flags] == [row["flagged"] for row in summary["exposures"]]
        assert snr not in found or np.array_equal(found[snr], flags)  # the audit only lists
        found[snr] = np.array(flags)
    assert sum(row["core"] for row in summary["exposures"]) == (found[5.0] & ~found[0.0]).sum() > 5
    assert sum(row["core_taken_back"] for row in summary["exposures"]) == (found[0.0] & ~found[5.0]).sum()
    added = []
    for path in sorted((tmp_path / "sim" / "truth").glob("*_truth.fits")):
        added.append(sum(fits.getdata(path, name) for name in ("CR", "TRAIL", "HOT")))
    new = found[5.0] & ~found[0.0]
    assert (np.array(added)[new] > 0.5).mean() > 0.9
    said = CliRunner().invoke(outlier, ["image", str(table), "--preview", "--max-flagged", "100"])
    assert said.exit_code == 0
    assert "core" in said.output
