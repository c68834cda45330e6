"""The image outlier search: stack, model, test and driver, on arrays and on small simulated associations."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import asdf
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from notes import heard
from scipy.ndimage import binary_dilation

from badpix.cli.main import outlier
from badpix.errors import DataError, UsageError
from badpix.image import audit as image_audit
from badpix.image import decide as image_test
from badpix.image import driver as image_driver
from badpix.image import seen_once
from badpix.image import sky as image_sky
from badpix.image.grid import Window
from badpix.image.noise import measure_expected_noise, replace_bad_error
from badpix.image.reference import combine_others, fill_holes
from badpix.image.resample_drizzle import measure_derivative
from badpix.image.sharpening import apply_sharpening, fit_sharpening
from badpix.image.stack import (
    PLANES,
    Shelf,
    median_of,
    middle_of_others,
    mosaic_name,
    open_shelf,
    read_median,
    sort_planes,
)
from badpix.io import cal as io_cal
from badpix.io.associations import read_inputs
from badpix.numerics import clipping
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import Setup
from badpix.simulation.score_image import score_run

SMALL = {"shape": (256, 272), "stars": 2500.0, "galaxies": 100.0, "dither": 10.0}
SECTION = ImageSettings


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four dithered groups of one detector."""
    return simulate(tmp_path_factory.mktemp("four"), Setup(seed=51, **SMALL))


@pytest.fixture(scope="module")
def skies(tmp_path_factory):
    """Three groups of two detectors whose skies differ, without keywords."""
    setup = Setup(seed=52, groups=3, detectors=("NRCB1", "NRCB2"), sky_differs=True, roll_step=0.5, **SMALL)
    return simulate(tmp_path_factory.mktemp("skies"), setup)


def values(parameter_set="default", **options):
    return SECTION.from_values(options, "test", parameter_set)


def flag(table, output, parameter_set="default", executor=None, memory=image_driver.DEFAULT_MEMORY, **options):
    members = read_inputs([table] if isinstance(table, Path) else table)
    p = values(parameter_set, **options)
    with heard() as notes:
        outputs, summary = image_driver.flag_images(members, p, output, executor=executor, memory=memory)
    return outputs, summary, notes


def read_flags(path):
    with fits.open(path) as hdul:
        return (hdul["DQ"].data & 16) != 0


# --- stack ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 10_000), ties=st.booleans())
def test_planes_give_the_median_of_all_and_of_all_but_one(n, seed, ties):
    rng = np.random.default_rng(seed)
    stack = (rng.integers(0, 4, (n, 5, 6)) if ties else rng.normal(size=(n, 5, 6))).astype(np.float32)
    stack[rng.random(stack.shape) < 0.25] = np.nan
    planes = sort_planes(stack.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        np.testing.assert_array_equal(median_of(*planes), np.nanmedian(stack, axis=0))
    for g in range(n):
        a, b, m = middle_of_others(*planes, stack[g])
        for at in np.ndindex(5, 6):
            others = np.sort([v for v in np.delete(stack[(slice(None), *at)], g) if not np.isnan(v)])
            assert m[at] == len(others)
            if len(others):
                assert (a[at], b[at]) == (others[(len(others) - 1) // 2], others[len(others) // 2])
            else:
                assert np.isnan(a[at])
                assert np.isnan(b[at])


def _write_and_stop(shelf):
    shelf.write("a", np.arange(12, dtype=np.float32).reshape(3, 4))
    np.testing.assert_array_equal(shelf.read("a", (3, 4), slice(1, 3)), [[4, 5, 6, 7], [8, 9, 10, 11]])
    raise KeyboardInterrupt


def test_shelf_is_gone_after_an_error_and_says_when_space_runs_out(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt), open_shelf(tmp_path) as shelf:
        _write_and_stop(shelf)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="temporary space"):
        Shelf(Path("/dev/full").parent / "missing").write("x", np.zeros(3))


# --- model ------------------------------------------------------------------------------------------------


def test_lower_value_counts_only_where_the_others_disagree():
    a = np.full((9, 9), 1, np.float32)
    b = np.full((9, 9), 1.2, np.float32)
    b[4, 4] = 9
    found = combine_others(a, b, limit=0.5, agree_gradient=0.7)
    expected = np.full((9, 9), 1.1, np.float32)
    expected[4, 4] = 1
    np.testing.assert_allclose(found, expected)


def test_holes_are_filled_on_smooth_sky_and_left_in_cores():
    image = np.full((9, 12), 2, np.float32)
    image[4, 3] = image[0, 0] = np.nan
    image[3:6, 8:11] = [[20, 60, 20], [60, np.nan, 60], [20, 60, 20]]
    found = fill_holes(image.copy(), smooth=5.0)
    assert found[4, 3] == 2
    assert np.isnan(found[4, 9])
    assert np.isnan(found[0, 0])  # three neighbors only


def test_sharpening_learns_the_blur_and_conserves_flux():
    rng = np.random.default_rng(3)
    truth = np.zeros((200, 200))
    truth[rng.integers(5, 195, 900), rng.integers(5, 195, 900)] = rng.uniform(100, 900, 900)
    kernel = np.outer([1, 4, 1], [1, 4, 1]) / 36
    sharp = sum(np.roll(truth, (j, i), (0, 1)) * kernel[j + 1, i + 1] for j in (-1, 0, 1) for i in (-1, 0, 1))
    blur = np.outer([1, 6, 1], [1, 6, 1]) / 64
    model = sum(np.roll(sharp, (j, i), (0, 1)) * blur[j + 1, i + 1] for j in (-1, 0, 1) for i in (-1, 0, 1)).astype(
        "f4"
    )
    sci = (sharp + rng.normal(0, 1, sharp.shape)).astype(np.float32)
    sigma = np.ones_like(sci)
    fit = fit_sharpening(sci - model, model, sigma, measure_derivative(model), size=5)
    assert abs(fit.kernel.sum()) < 1e-9
    assert max(map(abs, fit.shift)) < 0.01
    better = apply_sharpening(model, fit, np.ones(model.shape, bool))
    assert np.std(sci - better) < 0.2 * np.std(sci - model)
    assert fit_sharpening(sci - model, model, sigma, np.zeros_like(model), size=5) is None


def test_a_hit_does_not_hide_in_its_own_error():
    rng = np.random.default_rng(4)
    model = rng.uniform(1, 50, (120, 120)).astype(np.float32)
    poisson = model * np.float32(0.01)
    read = np.full_like(model, 0.04)
    poisson[50, 60] += 30
    err = np.sqrt(read + poisson)
    read[7, 7] = np.nan
    expected = measure_expected_noise(model, err, read, poisson, np.isfinite(err))
    plain = np.sqrt(0.04 + model * 0.01)
    assert expected[50, 60] == pytest.approx(plain[50, 60], rel=0.1)
    np.testing.assert_allclose(
        np.delete(expected.ravel(), 50 * 120 + 60), np.delete(plain.ravel(), 50 * 120 + 60), rtol=0.15
    )
    assert (expected <= err).all()


def test_error_of_zero_or_nan_is_replaced():
    err = np.array([[1, 0, np.nan, -1, 1]], np.float32)
    var = np.array([[0.5, 2, np.nan, 8, 0.5]], np.float32)
    np.testing.assert_allclose(replace_bad_error(err, var, var), [[1, 2, 1, 4, 1]])
    np.testing.assert_allclose(replace_bad_error(err, None, None), [[1, 1, 1, 1, 1]])


# --- test -------------------------------------------------------------------------------------------------


def plain_documented(sci, err, model, background, snr, scale):
    noise = np.nan_to_num(err)
    derivative = measure_derivative(model)
    difference = np.abs(sci - model - background)
    with np.errstate(invalid="ignore"):
        first = difference > scale[0] * derivative + snr[0] * noise
        second = difference > scale[1] * derivative + snr[1] * noise
    return binary_dilation(first, np.ones((3, 3))) & second


def test_documented_rule_in_bands_is_the_plain_one():
    rng = np.random.default_rng(8)
    sci, model = rng.normal(0, 1, (2, 150, 40)).astype(np.float32)
    sci[rng.random(sci.shape) < 0.05] += 8
    err = np.ones_like(sci)
    err[3, 3] = np.nan
    model[rng.random(sci.shape) < 0.02] = np.nan
    found = image_test.find_documented(sci, err, model, 0.1, snr=(5, 4), scale=(1.2, 0.7))
    expected = plain_documented(sci, err, model, 0.1, (5, 4), (1.2, 0.7))
    np.testing.assert_array_equal(found, expected)
    assert found.any()


LIMITS = {
    "snr": (4.5, 3.0),
    "scale": (0.6, 0.4),
    "snr_dark": 6.0,
    "conserve": 0.8,
    "protect_sources": 0.9,
    "stand_out": 2.5,
    "trail_snr": 8.0,
}


def hits(residual, model=None, cover=3, saturated=False, **changes):
    residual = residual.astype(np.float32)
    model = np.zeros_like(residual) if model is None else model.astype(np.float32)
    one = np.ones_like(residual)
    cover, saturated = (
        np.broadcast_to(v, residual.shape).astype(kind) for v, kind in ((cover, "u1"), (saturated, bool))
    )
    return image_test.find_hits(residual, model, one, one, cover, saturated, **{**LIMITS, **changes})


def test_hits_with_their_neighbors_on_flat_sky_edges_included():
    residual = np.zeros((20, 24))
    for y, x in ((0, 0), (19, 23), (10, 0), (10, 12)):
        residual[y, x] = 9
    residual[10, 13] = residual[10, 14] = 3.5  # grown twice
    residual[10, 15] = residual[5, 5] = 3.5  # too far, alone
    residual[15, 5] = 4.5  # not above
    expected = np.zeros(residual.shape, bool)
    for y, x in ((0, 0), (19, 23), (10, 0), (10, 12), (10, 13), (10, 14)):
        expected[y, x] = True
    np.testing.assert_array_equal(hits(residual).bright, expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(1.05, 3), shift=st.integers(1, 5))
def test_stricter_limits_never_gain_and_shifts_shift(seed, factor, shift):
    rng = np.random.default_rng(seed)
    residual = rng.normal(0, 2, (40, 40))
    residual[:8] = residual[-8:] = residual[:, :8] = residual[:, -8:] = 0
    found = hits(residual, trail_snr=0.0)
    strict = hits(residual, trail_snr=0.0, snr=(4.5 * factor, 3.0 * factor), snr_dark=6.0 * factor)
    assert not (strict.bright & ~found.bright).any()
    assert not (strict.dark & ~found.dark).any()
    moved = hits(np.roll(residual, shift, 1), trail_snr=0.0)
    np.testing.assert_array_equal(moved.bright, np.roll(found.bright, shift, 1))
    assert not hits(np.zeros((9, 9))).bright.any()


def test_flux_that_moved_within_a_star_is_no_hit_and_added_charge_is():
    model = np.zeros((15, 15))
    model[7, 7], model[7, 6], model[7, 8] = 100, 40, 40
    moved = np.zeros_like(model)
    moved[7, 7], moved[7, 6], moved[7, 8] = 90, -40, -40
    assert not hits(moved, model, protect_sources=0.0).bright.any()
    assert hits(moved, model, protect_sources=0.0, conserve=0.0, stand_out=0.0).bright[7, 7]
    added = np.zeros_like(model)
    added[7, 7] = 150
    assert hits(added, model).bright[7, 7]
    added[7, 7] = 100  # above scale, below what a core needs
    guarded = hits(added, model)
    assert not guarded.bright.any()
    assert guarded.guarded == 1


def test_the_only_valid_core_of_a_star_is_kept():
    model = np.zeros((15, 15))
    model[7, 7], model[7, 6], model[7, 8] = 100, 40, 40
    residual = np.zeros_like(model)
    residual[7, 7] = 150
    beside_hole = np.full(model.shape, 3)
    beside_hole[6, 7] = 1  # saturated in two of the others
    assert not hits(residual, model, cover=beside_hole, saturated=True).bright.any()
    assert hits(residual, model, cover=beside_hole).bright[7, 7]
    assert hits(residual, model, saturated=True).bright[7, 7]
    assert hits(residual, model * 0, cover=beside_hole, saturated=True).bright[7, 7]  # no core: a hit that saturated
    assert hits(residual, model, cover=beside_hole, saturated=True, protect_sources=0.0).bright[7, 7]


def test_faint_stars_have_phases_too():
    model = np.zeros((15, 15))
    model[7, 7] = 2.0  # not steep, but tilted
    faint, moved, hit = (np.zeros_like(model) for _ in range(3))
    faint[7, 7] = hit[7, 7] = 5.0  # below hypot(4.5, 0.9 (1 + 1/3) 2) = 5.1
    moved[7, 7], moved[7, 6], moved[7, 8] = 5.5, -1, -1
    assert not hits(faint, model).bright.any()
    assert not hits(moved, model).bright.any()
    assert hits(moved, model, conserve=0.6).bright.any()
    hit[7, 7] = 5.2
    assert hits(hit, model).bright.sum() == 1
    assert hits(faint, model / 2).bright.sum() == 1  # as on flat sky
    assert hits(1e30 * hit, 1e30 * model).bright.sum() == 1


def test_flags_on_steep_pixels_must_stand_out_unless_in_company():
    model = np.tile(40.0 * np.arange(21), (21, 1))  # steep everywhere
    wrong = np.random.default_rng(3).uniform(-20, 20, model.shape)  # up to half of a derivative
    wrong[10, 9], wrong[10, 11] = 20, -20
    lone, strong, track = wrong.copy(), wrong.copy(), wrong.copy()
    lone[10, 10], strong[10, 10] = 45, 60
    track[10, 6:15] = 45
    options = {"protect_sources": 0.0, "conserve": 0.0, "scale": (0.6, 0.6)}
    assert hits(lone, model, stand_out=0.0, **options).bright.sum() == 1
    gone = hits(lone, model, **options)
    assert not gone.bright.any()
    assert gone.common == 1
    assert hits(strong, model, **options).bright[10, 10]
    assert hits(track, model, **options).bright[10, 8:13].all()
    assert hits(lone, model * 0, **options).bright[10, 10]  # flat: nothing to compare with


def test_dark_pixels_need_two_other_exposures():
    residual = np.zeros((9, 9))
    residual[4, 4] = -8
    assert hits(residual).dark[4, 4]
    assert not hits(residual, cover=1).dark.any()
    assert not hits(residual, snr_dark=0.0).dark.any()
    assert not hits(-residual, cover=0).bright.any()


def test_trail_below_the_pixel_limit_is_found_along_its_length():
    rng = np.random.default_rng(9)
    residual = rng.normal(0, 1, (80, 80))
    y, x = np.mgrid[:80, :80]
    on = np.abs(y - 0.7 * x - 10) < 1.2
    residual[on] += 4
    found = hits(residual)
    assert (found.trail | found.bright)[on].mean() > 0.8
    assert found.trail[~binary_dilation(on, np.ones((3, 3)))].sum() <= 2
    assert not hits(residual, trail_snr=0.0).trail.any()


@pytest.mark.parametrize("width", [0.9, 1.3, 2.0, 3.0])
def test_no_star_is_sharper_than_expected_of_its_width(width):
    rng = np.random.default_rng(11)
    sigma = width / 2.3548
    y, x = (np.mgrid[:90, :90] - 44.5) / 10
    near = np.empty((9, 60), np.float32)
    for k in range(60):
        j, i = rng.uniform(-0.5, 0.5, 2) if k else (0, 0)
        star = np.exp(-((y - j) ** 2 + (x - i) ** 2) / (2 * sigma**2)).reshape(9, 10, 9, 10).mean(axis=(1, 3))
        near[:, k] = star[3:6, 3:6].ravel()
    sharpness = 1 - seen_once.light_beside(near) / (6 * near[4])
    assert sharpness.max() <= seen_once.expected_sharpness(width) + 0.01
    assert sharpness[0] == pytest.approx(seen_once.expected_sharpness(width), abs=0.01)


def testlight_beside_leaves_out_a_track_and_nothing_else():
    near = np.zeros((9, 4), np.float32)
    near[4] = 100
    near[[3, 5], 0] = 100  # straight
    near[[3, 2], 1] = 100  # bent
    near[[1, 3], 2] = 100  # round a corner: half of it stays
    near[[0, 1, 2, 3, 5, 6, 7, 8], 3] = 50  # a wide star
    assert seen_once.light_beside(near).tolist() == [0, 0, 100, 300]


def test_the_width_of_the_psf_comes_from_the_shortest_wavelength_of_the_filters():
    assert seen_once.expected_width(["F150W2", "F162M"], 0.031) == pytest.approx(0.0327 * 1.05 / 0.031)
    assert seen_once.expected_width(["CLEAR", "F115W"], 0.065) == pytest.approx(0.0327 * 1.035 / 0.065)
    assert seen_once.expected_width(["F1000W", ""], 0.11) == pytest.approx(0.0327 * 9 / 0.11)
    assert seen_once.expected_width(["", ""], 0.07) == seen_once.NARROWEST


def test_stripes_are_no_trails():
    rng = np.random.default_rng(12)
    flat = np.ones((300, 300), bool)
    noise = rng.normal(0, 1, flat.shape).astype(np.float32)
    striped = noise + np.repeat(rng.normal(0, 1, (300, 1)), 300, axis=1).astype(np.float32)
    assert image_test.find_trails(noise, flat, trail_snr=8.0).sum() <= 1
    assert image_test.find_trails(striped, flat, trail_snr=8.0).sum() <= 5
    on = np.eye(300, dtype=bool)
    trail = image_test.find_trails(striped + 5 * on.astype(np.float32), flat, trail_snr=8.0)
    assert trail[on].mean() > 0.8


def test_infinite_values_count_in_the_documented_median():
    stack = np.array([1, 2, np.inf, np.nan], np.float32).reshape(4, 1, 1)
    *planes, count = sort_planes(stack.copy(), infinite=True)
    assert (median_of(*planes, count)[0, 0], count[0, 0]) == (2, 3)
    *planes, count = sort_planes(stack.copy())
    assert (median_of(*planes, count)[0, 0], count[0, 0]) == (1.5, 2)


def test_single_coverage_takes_what_is_sharper_than_any_star():
    rng = np.random.default_rng(10)
    sci = rng.normal(0, 1, (300, 300)).astype(np.float32)
    y, x = np.mgrid[-4:5, -4:5]
    for _ in range(220):
        j, i = rng.uniform(10, 290, 2)
        jj, ii = round(j), round(i)
        star = 200 * np.exp(-((y - j + jj) ** 2 + (x - i + ii) ** 2) / 1.6)
        sci[jj - 4 : jj + 5, ii - 4 : ii + 5] += star
    stars = sci.copy()
    cover = np.ones(sci.shape, np.uint8)
    cover[:, :60] = 0
    sci[rng.integers(10, 290, 30), rng.integers(70, 290, 30)] += 200  # hits that the test missed are no yardstick
    sci[150, 30] += 300
    flagged = np.zeros(sci.shape, bool)
    found = seen_once.measure_sharpness(sci, np.ones_like(sci), cover, flagged, stars)
    limit = seen_once.sharpness_limit(found.stars, 1.5)
    assert 0.6 < limit < 0.95
    sharp = seen_once.find_sharp(found, limit, sci.shape)
    sci[150, 29] = np.nan
    beside = seen_once.measure_sharpness(sci, np.ones_like(sci), cover, flagged, stars)
    assert (150, 30) not in set(zip(beside.ys.tolist(), beside.xs.tolist(), strict=True))
    sci[150, 29] = 0
    sci[150, 28] = np.nan  # a saturated core ...
    cover[:, :60] = 1
    cover[147:154, 28:31] = 0  # ... and the hole that it left in the others
    hole = seen_once.measure_sharpness(sci, np.ones_like(sci), cover, flagged, stars)
    assert (150, 30) not in set(zip(hole.ys.tolist(), hole.xs.tolist(), strict=True))
    sci[150, 28] = 0
    lone = seen_once.measure_sharpness(sci, np.ones_like(sci), cover, flagged, stars)
    assert (150, 30) in set(zip(lone.ys.tolist(), lone.xs.tolist(), strict=True))
    assert sharp[150, 30]
    assert sharp.sum() == 1
    sci[155, 34] = 8000  # a bright star: what is sharp beside it is its diffraction
    ring = seen_once.measure_sharpness(sci, np.ones_like(sci), cover, flagged, stars)
    assert (150, 30) not in set(zip(ring.ys.tolist(), ring.xs.tolist(), strict=True))
    for few in (0, 4, 12, 60):  # with fewer stars less is decided, but no star
        assert seen_once.sharpness_limit(found.stars[:few], 1.5) > found.stars.mean() + 0.1


def test_without_stars_the_filter_tells_how_sharp_a_star_can_be():
    """A mosaic of two tiles that hardly overlap: charge of a hit that diffused is sharper than F150W allows."""
    none = np.empty(0)
    limit = seen_once.sharpness_limit(none, 1.42)
    assert seen_once.expected_sharpness(1.42) < limit < 0.87
    narrow = seen_once.sharpness_limit(none, 0.5)
    assert narrow == seen_once.expected_sharpness(seen_once.NARROWEST)


# --- sky and audit ----------------------------------------------------------------------------------------


def test_sky_levels_of_two_separate_sets():
    rng = np.random.default_rng(11)
    levels = [0.3, -0.1, 0.25, 5.0, 5.4, 9.0]
    where = [(0, 40), (20, 60), (30, 70), (200, 240), (210, 250), (900, 930)]
    tables = [
        image_sky.Cells(np.arange(*span), 1 + level + rng.normal(0, 1e-3, span[1] - span[0]))
        for level, span in zip(levels, where, strict=True)
    ]
    found = image_sky.match_levels(tables)
    np.testing.assert_allclose(found.levels[:3], np.array(levels[:3]) - np.mean(levels[:3]), atol=1e-3)
    np.testing.assert_allclose(found.levels[3:5], [-0.2, 0.2], atol=1e-3)
    assert found.levels[5] == pytest.approx(0, abs=1e-9)
    assert found.sets == 3


@pytest.mark.slow
def test_sources_are_the_peaks_that_photutils_finds():
    from photutils.detection import find_peaks

    rng = np.random.default_rng(21)
    image = rng.normal(1.0, 0.1, (300, 310)).astype(np.float32)
    ys, xs = rng.integers(0, 300, 400), rng.integers(0, 310, 400)
    image[ys, xs] += rng.integers(1, 20, 400).astype(
        np.float32
    )  # some beside each other, some equal, some on the edge
    image[rng.random(image.shape) < 0.01] = np.nan
    x, y, height = image_audit.find_peaks(image, 6.0)
    assert len(x) > 150
    limit = np.full(image.shape, np.inf, np.float32)
    for tile in ((slice(i, i + 256), slice(j, j + 256)) for i in (0, 256) for j in (0, 256)):
        level, noise = clipping.median_mad(image[tile][::2, ::2])
        limit[tile] = level + 6 * noise
    expected = find_peaks(np.nan_to_num(image, nan=-1e30), limit, box_size=5)
    np.testing.assert_array_equal(x, expected["x_peak"])
    np.testing.assert_array_equal(y, expected["y_peak"])
    np.testing.assert_array_equal(height, expected["peak_value"])


def test_audit_verdicts():
    row = image_audit.Loss(0, 1.0, 1.0, 500.0, 3, 0.3, 0.6, 0.5, 1.3, 1)
    assert image_audit.judge([row], {0: 1}) == ["hit"]
    assert image_audit.judge([row._replace(excess=0.2)], {0: 1}) == ["suspect"]
    assert image_audit.judge([row._replace(sum5=0.01)], {0: 1}) == ["suspect"]
    assert image_audit.judge([row], {0: 2}) == ["repeated"]


# --- driver -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_default_search_finds_hits_and_spares_stars(four, tmp_path):
    flag(four, tmp_path / "ours")
    flag(four, tmp_path / "documented", "documented")
    ours, documented = (score_run(four.parent, tmp_path / d) for d in ("ours", "documented"))
    assert ours["cr5"] > 0.96
    assert ours["cr20_covered"] > 0.99
    assert ours["trail5"] > documented["trail5"]
    assert ours["false_per_million"] < 0.7 * documented["false_per_million"]  # a crowded field, one star saturated
    assert ours["sources_damaged"] < 0.3 * documented["sources_damaged"]


@pytest.mark.slow
def test_inputs_stay_and_outputs_follow_the_rules(four, tmp_path):
    before = {p: p.read_bytes() for p in sorted(four.parent.glob("*_cal.fits"))}
    outputs, summary, _ = flag(four, tmp_path / "out")
    assert {p: p.read_bytes() for p in before} == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in outputs)
    for cal, path, row in zip(before, outputs, summary["exposures"], strict=True):
        assert path.name == cal.name.replace("_cal", "_a3001_crf")
        with fits.open(cal) as a, fits.open(path) as b:
            assert [h.name for h in a] == [h.name for h in b]
            assert b[0].header["S_OUTLIR"] == "COMPLETE"
            assert ((b["DQ"].data & a["DQ"].data) == a["DQ"].data).all()
            unusable = (b["DQ"].data & 1) != 0
            for name in ("SCI", "ERR", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT"):
                np.testing.assert_array_equal(np.isnan(b[name].data), unusable)
                np.testing.assert_array_equal(a[name].data[~unusable], b[name].data[~unusable])
            assert row["flagged"] == ((b["DQ"].data & 16) != 0).sum()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_equal_bytes_for_any_executor(skies, tmp_path, kind):
    plain, _, _ = flag(skies, tmp_path / "plain")
    threads = kind == "threads"
    with ThreadPoolExecutor(3) if threads else ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        other, _, _ = flag(skies, tmp_path / "other", executor=pool)
    for a, b in zip(plain, other, strict=True):
        np.testing.assert_array_equal(read_flags(a), read_flags(b))


@pytest.mark.slow
def test_order_of_files_and_memory_change_nothing(four, tmp_path):
    paths = sorted(four.parent.glob("*_cal.fits"))
    one, _, _ = flag(paths, tmp_path / "one", memory=2 << 30)
    two, _, _ = flag([str(p) for p in paths], tmp_path / "two", memory=260 << 20)
    for a, b in zip(one, two, strict=True):
        assert a.name.endswith("nrcb1_crf.fits")
        np.testing.assert_array_equal(read_flags(a), read_flags(b))


@pytest.mark.slow
def test_unequal_skies_are_matched(skies, tmp_path):
    _, summary, _ = flag(skies, tmp_path / "ours")
    assert summary["sky"]["matched"]
    assert score_run(skies.parent, tmp_path / "ours")["false_per_million"] < 150
    truth = []
    for path in sorted(skies.parent.glob("*_cal.fits")):
        with fits.open(skies.parent / "truth" / path.name.replace("_cal", "_truth")) as hdul:
            truth.append(float(np.quantile(hdul["MODEL"].data, 0.05)))
    np.testing.assert_allclose(
        np.array(summary["sky"]["levels"]) - np.mean(summary["sky"]["levels"]),
        np.array(truth) - np.mean(truth),
        atol=3e-3,
    )


def rewrite(path, target, change):
    with fits.open(path) as hdul:
        change(hdul)
        hdul.writeto(target / path.name, overwrite=True)
    return target / path.name


@pytest.mark.slow
def test_files_without_asdf_use_their_fits_wcs(four, tmp_path):
    """A tangent plane without distortion, in the header instead of a GWCS: the flags hardly change."""

    def drop(hdul):
        del hdul["ASDF"]
        del hdul["SCI"].header["S_REGION"]

    bare = tmp_path / "bare"
    bare.mkdir()
    paths = [rewrite(p, bare, drop) for p in sorted(four.parent.glob("*_cal.fits"))]
    outputs, _, notes = flag(paths, tmp_path / "out")
    whole, _, _ = flag(sorted(four.parent.glob("*_cal.fits")), tmp_path / "whole")
    assert any("S_REGION" in n for n in notes)
    assert any("FITS WCS" in n for n in notes)
    for a, b in zip(outputs, whole, strict=True):
        assert (read_flags(a) != read_flags(b)).sum() < 0.1 * read_flags(b).sum()


BROKEN = {
    "filter": (lambda h: h[0].header.set("FILTER", "F090W"), "FILTER"),
    "type": (lambda h: h[0].header.set("EXP_TYPE", "MIR_MRS"), "outlier ifu"),
    "wcs": (lambda h: (h.__delitem__("ASDF"), h["SCI"].header.update({"CTYPE1": "X", "CTYPE2": "Y"})), "WCS"),
    "region": (lambda h: h["SCI"].header.set("S_REGION", "POLYGON ICRS x"), "S_REGION"),
    "array": (lambda h: h.__delitem__("ERR"), "ERR"),
    "unit": (lambda h: h["SCI"].header.set("BUNIT", "DN/s"), "BUNIT of SCI: found 'DN/s', expected 'MJy/sr'"),
    "nan": (lambda h: h["SCI"].data.fill(np.nan), "no usable pixel"),
    "unusable": (lambda h: np.bitwise_or(h["DQ"].data, 1, out=h["DQ"].data), "no usable pixel"),
    "asdf": (lambda h: h["ASDF"].data["ASDF_METADATA"].__setitem__((0, slice(0, 5)), 0), "ASDF"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(BROKEN))
def test_broken_members_are_named_and_nothing_is_written(four, tmp_path, kind):
    change, word = BROKEN[kind]
    paths = sorted(four.parent.glob("*_cal.fits"))
    paths[1] = rewrite(paths[1], tmp_path, change)
    with pytest.raises(DataError, match=word) as caught:
        flag(paths, tmp_path / "out")
    assert paths[1].name in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.slow
def test_one_group_is_copied_as_skipped(four, tmp_path):
    paths = sorted(four.parent.glob("*_cal.fits"))[:1]
    outputs, summary, notes = flag(paths, tmp_path / "out")
    assert summary["search"] == "skipped"
    assert "one group" in notes[0]
    with fits.open(paths[0]) as a, fits.open(outputs[0]) as b:
        assert b[0].header["S_OUTLIR"] == "SKIPPED"
        np.testing.assert_array_equal(a["DQ"].data, b["DQ"].data)


@pytest.mark.slow
def test_images_of_hardly_a_pixel_and_of_no_weight_pass(four, tmp_path):
    def blank(hdul):
        for name in ("SCI", "ERR", "VAR_RNOISE", "VAR_POISSON", "VAR_FLAT"):
            hdul[name].data[:-1] = np.nan
        hdul["DQ"].data[:-1] |= 1
        hdul["DQ"].data[-1, ::2] = 0

    def weightless(hdul):
        hdul["VAR_RNOISE"].data[:] = 0

    paths = sorted(four.parent.glob("*_cal.fits"))
    paths[0] = rewrite(paths[0], tmp_path, blank)
    paths[1] = rewrite(paths[1], tmp_path, weightless)
    for parameter_set in ("default", "documented"):
        outputs, _, _ = flag(paths, tmp_path / parameter_set, parameter_set)
        with fits.open(outputs[0]) as hdul:
            assert (hdul["DQ"].data[:-1] & 1).all()
            assert not (hdul["DQ"].data[:-1] & 16).any()
        assert read_flags(outputs[2]).sum() > 50


@pytest.mark.slow
def test_an_exposure_beside_all_others_is_told(four, tmp_path):
    aside = simulate(tmp_path / "aside", Setup(seed=53, target=(53.166, -27.79), groups=1, program="08888", **SMALL))
    paths = sorted(four.parent.glob("*_cal.fits"))[:2] + sorted(aside.parent.glob("*_cal.fits"))
    for parameter_set in ("default", "documented"):
        _, _, notes = flag(paths, tmp_path / parameter_set, parameter_set)
        assert [n for n in notes if "overlaps" in n] == [
            f"{paths[2].name}: no exposure of another group overlaps; nothing to compare with"
        ]


@pytest.mark.slow
def test_two_groups_are_not_told_to_lack_steep_pixels(four, tmp_path):
    _, summary, notes = flag(sorted(four.parent.glob("*_cal.fits"))[:2], tmp_path / "two")
    assert not any("steep" in n for n in notes)
    assert not any(e["sharpened"] for e in summary["exposures"])
    empty = simulate(tmp_path / "empty", Setup(seed=54, **{**SMALL, "stars": 0.0, "galaxies": 0.0}))
    _, _, notes = flag(empty, tmp_path / "out")
    assert any("4 exposures have too few steep pixels" in n for n in notes)


@pytest.mark.slow
def test_pointings_that_do_not_overlap_are_refused(four, tmp_path):
    far = simulate(tmp_path / "far", Setup(seed=53, target=(53.20, -27.79), groups=1, program="08888", **SMALL))
    paths = [sorted(four.parent.glob("*_cal.fits"))[0], *sorted(far.parent.glob("*_cal.fits"))]
    with pytest.raises(DataError, match="overlap"):
        flag(paths, tmp_path / "out", memory=2 << 30)
    with pytest.raises(DataError, match="memory"):
        flag(four, tmp_path / "out", memory=70 << 20)
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_told_before_the_work(four, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage._replace(free=1 << 20))
    with pytest.raises(DataError, match="MB of disk needed"):
        flag(four, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_bad_values_are_refused(four, tmp_path):
    for bad in ({"good_bits": "~NOPE"}, {"fillval": "zero"}, {"pixmap_order": 2}, {"sharpen_size": 4}):
        with pytest.raises(UsageError, match=f"image.{next(iter(bad))}"):
            flag(four, tmp_path / "out", **bad)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["miriwcs", "nircamwcs", "nrcb1-wcs", "nrcb5-wcs"])
def test_simulated_images_take_the_optics_of_real_files(real_data, tmp_path, name):
    real = next(real_data.glob(f"*/{name}.asdf"))
    table = simulate(tmp_path, Setup(seed=5, groups=2, distortion=str(real), **{**SMALL, "shape": (128, 136)}))
    cal = io_cal.read_layout(next(tmp_path.glob("*_cal.fits")))
    scale = {"miriwcs": 0.11, "nircamwcs": 0.0637, "nrcb1-wcs": 0.0309, "nrcb5-wcs": 0.0642}[name]
    header = io_cal.image_hdu(cal, "SCI").header
    assert header["PIXAR_A2"] == pytest.approx(scale**2, rel=0.02)
    assert header["VPARITY"] == -1
    assert header["V3I_YANG"] == pytest.approx(4.7 if name == "miriwcs" else 0.0, abs=1.5)
    sci = io_cal.read_rows(cal, "SCI")
    assert np.nanmax(sci) > 10 * np.nanmedian(sci)  # the detector looks at the field of stars
    _, summary, _ = flag(table, tmp_path / "out")
    assert summary["map_error_pixels"] < 1e-6
    assert np.array(summary["grid"]["shape"]).max() < 220
    score = score_run(tmp_path, tmp_path / "out")
    assert score["cr20_covered"] > 0.9
    assert score["false_per_million"] < 300


def test_distortion_of_no_image_is_refused(tmp_path):
    (tmp_path / "text.asdf").write_text("no ASDF")
    asdf.AsdfFile({"wcs": 1}).write_to(tmp_path / "none.asdf")
    for name in ("missing.asdf", "text.asdf", "none.asdf"):
        with pytest.raises(DataError, match=name):
            simulate(tmp_path / "sim", Setup(distortion=str(tmp_path / name)))
    with pytest.raises(UsageError, match="one detector"):
        simulate(tmp_path / "sim", Setup(distortion="x", detectors=("NRCB1", "NRCB2")))
    assert not (tmp_path / "sim").exists()


def test_unresampled_images_must_have_one_shape(four, tmp_path):
    _, summary, _ = flag(four, tmp_path / "out", resample_data=False)
    assert "not resampled" in summary["search"]

    def cut(hdul):
        for hdu in hdul[1:7]:
            hdu.data = hdu.data[:-1]

    paths = sorted(four.parent.glob("*_cal.fits"))
    paths[2] = rewrite(paths[2], tmp_path, cut)
    with pytest.raises(DataError, match="shape"):
        flag(paths, tmp_path / "other", resample_data=False)


@pytest.mark.slow
def test_command_speaks_json_and_draws(four, tmp_path):
    out = tmp_path / "out"
    call = [
        "image",
        str(four),
        "--output_dir",
        str(out),
        "--snr",
        "5.0 4.0",
        "--plot",
        str(tmp_path / "png"),
        "--json",
    ]
    result = CliRunner().invoke(outlier, call)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert len(summary["outputs"]) == len(list(out.glob("*_crf.fits"))) == 4
    assert summary["parameters"]["snr"] == [5.0, 4.0]
    assert {"source", "lost", "verdict", "ra"} <= set(summary["audit"][0])
    assert len(list((tmp_path / "png").glob("*.png"))) == 4
    again = CliRunner().invoke(outlier, call)
    assert again.exit_code == 2
    wrong = CliRunner().invoke(outlier, [*call, "--overwrite", "--snr", "5"])
    assert wrong.exit_code == 2
    assert "two numbers" in wrong.stderr


@pytest.mark.slow
def test_intermediate_products_carry_the_grid(four, tmp_path):
    flag(four, tmp_path / "out", save_intermediate_results=True)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert [sum(n.endswith(f"_{k}.fits") for n in names) for k in ("crf", "blot", "median", "outlier_i2d")] == [
        4,
        4,
        1,
        4,
    ]
    with fits.open(next((tmp_path / "out").glob("*_median.fits"))) as hdul:
        assert [h.name for h in hdul] == ["PRIMARY", "SCI", "ASDF"]
        assert hdul["SCI"].header["CTYPE1"] == "RA---TAN"
        assert "BKGLEVEL" not in hdul[0].header


INTERRUPTED = """
import os, sys
from badpix.image import driver, output
from badpix.cli.main import outlier
stage, sign = sys.argv.pop(1), int(sys.argv.pop(1))
place = driver if hasattr(driver, stage) else output
real = getattr(place, stage)
calls = []
def stopped(*args, **options):
    result = real(*args, **options)
    calls.append(stage)
    if len(calls) == 2 or stage == "write_planes":
        os.kill(os.getpid(), sign)
    return result
setattr(place, stage, stopped)
outlier()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "sign", "workers"),
    [
        ("drizzle_group", signal.SIGTERM, "1"),
        ("search_exposure", signal.SIGINT, "1"),
        ("write_exposure", signal.SIGTERM, "1"),
        ("write_planes", signal.SIGTERM, "2"),
    ],
)
def test_an_interrupted_run_leaves_nothing_behind(four, tmp_path, stage, sign, workers):
    """The run sends the signal to itself, after the second group or exposure of a stage."""
    out = tmp_path / "out"
    call = ["image", str(four), "--output-dir", str(out), "--workers", workers]
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, stage, str(int(sign)), *call],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 128 + sign, run.stderr
    assert not out.exists() or sorted(out.iterdir()) == [], "all outputs, or none"


def test_planes_on_the_shelf_are_those_of_the_whole_stack(tmp_path):
    rng = np.random.default_rng(12)
    windows = [Window(0, 30, 0, 40), Window(5, 44, 3, 50), Window(10, 50, 8, 47)]
    whole = np.full((3, 50, 50), np.nan, np.float32)
    with open_shelf(tmp_path) as shelf:
        for g, window in enumerate(windows):
            image = rng.normal(size=window.shape).astype(np.float32)
            whole[g][window.slices] = image
            shelf.write(mosaic_name(g), image)
        image_driver.write_planes(shelf, windows, (50, 50), rows=8, others=True)
        expected = sort_planes(whole.copy())
        touched = np.zeros((50, 50), bool)
        for window in windows:
            touched[window.slices] = True
        median = read_median(shelf, (50, 50), Window(0, 50, 0, 50))
        np.testing.assert_array_equal(median, median_of(*expected))
        for name, plane in zip(PLANES, expected, strict=False):
            np.testing.assert_array_equal(shelf.read(name, (50, 50), slice(None))[touched], plane[touched])
        np.testing.assert_array_equal(shelf.read("count", (50, 50), slice(None), np.uint16), expected[3])
