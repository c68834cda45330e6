"""The normalized flat: clipped mean, illumination that defects do not pull, coupling between pixels."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.convolution import Box2DKernel, convolve
from astropy.stats import sigma_clip
from make_files import couple, make_flats, make_hdus, write_rate, write_rates
from scipy import ndimage

from badpix import detectors
from badpix.errors import DataError
from badpix.flats import normalize
from badpix.flats import samples as flat_samples
from badpix.flats.illumination import find_dark_areas, measure_coarse, measure_illumination
from badpix.flats.light import normalize_light
from badpix.flats.normalize import correct_ipc, measure_ipc, measure_ipc_of_bright, measure_normalized
from badpix.io.exposure import open_exposure
from badpix.settings.flats import FlatSettings

DEFAULT = {
    "method": "smoothed",
    "smoothing": "Box2D",
    "width": 15,
    "edges": "renormalized",
    "sigma": 3.0,
    "mask_sigma": 4.0,
    "iterations": 4,
}


def samples_of(folder, stack, scaling="median", **options):
    rates = [open_exposure(p) for p in write_rates(folder, stack, **options)]
    return flat_samples.measure_samples(rates, np.ones(stack.shape[-2:], bool), scaling)


def mean_of(samples, memory=1e9):
    return flat_samples.measure_mean(samples, sigma=3, memory=memory, executor=None, progress=lambda *_: None)


# --- the mean --------------------------------------------------------------------------------------------


def test_mean_equals_astropy_with_each_file_once(tmp_path):
    """A peer stacks the first file twice, which with few files weights it double."""
    stack = make_flats(4, noise=0.1)
    stack[0] += 40
    stack[1, 3, 4] = np.nan
    stack[:, 5, 6] = np.nan
    mean, count = mean_of(samples_of(tmp_path, stack, "none"))
    clipped = sigma_clip(np.ma.masked_invalid(stack.astype(np.float64)), sigma=3, maxiters=5, axis=0)
    np.testing.assert_allclose(mean, clipped.mean(axis=0).filled(np.nan).astype(np.float32), rtol=1e-6)
    np.testing.assert_array_equal(count, clipped.count(axis=0))


def test_a_cosmic_ray_among_eleven_samples_is_clipped(tmp_path):
    stack = make_flats(11, noise=0.001)
    clean, _ = mean_of(samples_of(tmp_path / "a", stack))
    stack[4, 20, 30] *= 50
    hit, count = mean_of(samples_of(tmp_path / "b", stack))
    assert count[20, 30] == 10
    assert hit[20, 30] == pytest.approx(clean[20, 30], rel=1e-3)


def test_integrations_are_samples(tmp_path):
    stack = make_flats(6)
    whole, _ = mean_of(samples_of(tmp_path / "a", stack))
    cubes, count = mean_of(samples_of(tmp_path / "b", stack.reshape(2, 3, *stack.shape[1:]), suffix="rateints"))
    np.testing.assert_array_equal(whole, cubes)
    assert count.max() == 6


def test_files_of_another_precision(tmp_path):
    stack = make_flats(4)
    write_rates(tmp_path, stack)
    make_hdus(stack[2].astype(np.float64)).writeto(tmp_path / "double.fits")
    rates = [open_exposure(p) for p in sorted(tmp_path.glob("*.fits"))]
    samples = flat_samples.measure_samples(rates, np.ones(stack.shape[-2:], bool), "none")
    mean, count = mean_of(samples)
    wanted = stack[[0, 1, 2, 2, 3]].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(mean[count == 5], wanted[count == 5], rtol=1e-6)


def test_lamp_drift_is_taken_out(tmp_path):
    steady = make_flats(6, noise=0.001)
    factors = np.array([1, 0.5, 2, 1.2, 0.9, 1.1], np.float32)[:, None, None]
    mean, count = mean_of(samples_of(tmp_path, steady * factors))
    flat = steady.mean(axis=0)
    np.testing.assert_allclose(mean / np.median(mean), flat / np.median(flat), rtol=5e-3)
    assert count.min() >= 5
    assert np.median(mean) == pytest.approx(100 * np.median(factors), rel=0.02)  # still DN/s


@pytest.mark.parametrize("height", [1, 2, 64])
def test_bands_do_not_matter(tmp_path, height):
    stack = make_flats(5, noise=0.2)
    samples = samples_of(tmp_path, stack)
    whole, counts = mean_of(samples)
    mean, count = mean_of(samples, memory=height * 5 * 96 * 4)
    np.testing.assert_array_equal(mean, whole)
    np.testing.assert_array_equal(count, counts)


def test_flats_without_light(tmp_path):
    with pytest.raises(DataError, match=r"exposure01_rate\.fits: integration 1: no science pixel has a finite slope"):
        samples_of(tmp_path / "a", np.full((2, 80, 96), np.nan))
    with pytest.raises(DataError, match=r"exposure02_rate\.fits: integration 1: no science pixel has a finite"):
        samples_of(tmp_path / "b", np.stack([make_flats(1)[0], np.full((80, 96), np.inf, np.float32)]))
    with pytest.raises(DataError, match=r"exposure01_rate\.fits: integration 1: median rate 0 DN/s; not a flat"):
        samples_of(tmp_path / "c", np.zeros((1, 80, 96)))
    with pytest.raises(DataError, match=r"median rate -5 DN/s; not a flat"):
        samples_of(tmp_path / "d", np.full((1, 80, 96), -5.0))


def test_reference_pixels_do_not_enter_the_level(tmp_path):
    image = make_flats(1)[0]
    image[:, :40] = 1e6
    science = np.ones(image.shape, bool)
    science[:, :40] = False
    rate = open_exposure(write_rate(tmp_path / "a_rate.fits", image))
    half = flat_samples.measure_samples([rate, rate], science, "median")
    assert half[0].scale == 1.0
    assert flat_samples._median_level(half[0].layout, 0, science) == pytest.approx(np.median(image[:, 40:]), rel=1e-6)


# --- illumination ----------------------------------------------------------------------------------------


def lamp(shape=(200, 240), slope=0.12, noise=0.01):
    """Steeper than any real lamp: over 2048 pixels it would be a factor of two."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 100 * (1 + slope * (x / shape[1] - 0.5) - slope / 2 * (y / shape[0] - 0.5))
    return (light * np.random.default_rng(4).normal(1, noise, shape)).astype(np.float32)


def test_constant_flats_stay_constant():
    image = np.full((50, 60), 7.0, np.float32)
    for options in ({}, {"edges": "padded"}, {"smoothing": "Median"}, {"method": "mean"}, {"iterations": 0}):
        np.testing.assert_allclose(measure_normalized(image, **{**DEFAULT, **options}), 1, rtol=1e-6)
    np.testing.assert_array_equal(measure_normalized(image, **{**DEFAULT, "method": "none"}), image)


def test_a_lamp_gradient_leaves_no_border():
    """Padding with one constant biases the border; a mean over the pixels that exist follows the gradient."""
    image = lamp()
    border = np.ones(image.shape, bool)
    border[7:-7, 7:-7] = False
    spread = {}
    for edges in ("renormalized", "padded"):
        norm = measure_normalized(image, **{**DEFAULT, "edges": edges})
        smooth = ndimage.uniform_filter(norm, 5)
        spread[edges] = np.abs(smooth[border] - 1).max()
    assert spread["renormalized"] < 0.025
    assert spread["padded"] > 2 * spread["renormalized"]


def test_padded_smoothing_equals_astropy():
    rng = np.random.default_rng(1)
    image = lamp(noise=0.05)
    image[rng.random(image.shape) < 0.01] = np.nan
    wanted = convolve(image, Box2DKernel(15), boundary="fill", fill_value=np.nanmedian(image))
    np.testing.assert_allclose(normalize.measure_padded(image, 15), wanted, rtol=1e-5)


def test_median_smoothing_equals_scipy():
    image = lamp(noise=0.05)
    wanted = image / ndimage.median_filter(image, 7, mode="reflect")
    for edges in ("padded", "renormalized"):
        found = measure_normalized(image, **{**DEFAULT, "smoothing": "Median", "width": 7, "edges": edges})
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_median_smoothing_with_unmeasured_pixels():
    image = lamp()
    image[50:53, 60:62] = np.nan
    norm = measure_normalized(image, **{**DEFAULT, "smoothing": "Median"})
    assert np.isnan(norm[50:53, 60:62]).all()
    assert np.isfinite(norm).sum() == norm.size - 6
    assert np.nanmax(np.abs(norm - 1)) < 0.07


def test_mean_normalization_is_the_clipped_mean():
    image = np.random.default_rng(1).normal(50, 1, (60, 70)).astype(np.float32)
    image[3, 4] = 1e5
    kept = sigma_clip(image.astype(np.float64), sigma=3, maxiters=5, masked=False)
    found = measure_normalized(image, **{**DEFAULT, "method": "mean"})
    np.testing.assert_allclose(found, image / np.nanmean(kept), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("width", [15, 64])
def test_background_mesh_follows_the_lamp(width):
    image = lamp()
    image[80:90, 90:100] = 0
    image[10, 10] = np.nan
    norm = measure_normalized(image, **{**DEFAULT, "method": "mesh", "width": width})
    assert np.isnan(norm[10, 10])
    good = np.isfinite(norm) & (image > 0)
    assert np.abs(norm[good] - 1).max() < 0.1
    assert (norm[80:90, 90:100] == 0).all()


def test_even_widths_are_raised_by_one():
    image = lamp()
    np.testing.assert_array_equal(
        measure_normalized(image, **{**DEFAULT, "width": 14}), measure_normalized(image, **DEFAULT)
    )


@pytest.mark.parametrize("size", [8, 20, 60])
def test_clusters_do_not_pull_the_illumination(size):
    image = lamp()
    clean = measure_illumination(image, width=15, mask_sigma=4, iterations=4)
    image[70 : 70 + size, 90 : 90 + size] = 0.5
    found = measure_illumination(image, width=15, mask_sigma=4, iterations=4)
    assert np.abs(found / clean - 1).max() < 0.05


def test_bright_defects_do_not_pull_the_illumination():
    image = lamp(slope=0)
    image[100, 100] = 1e6
    found = measure_illumination(image, width=15, mask_sigma=4, iterations=4)
    np.testing.assert_allclose(found, 100, rtol=0.02)


def test_unmeasured_stretches_have_an_illumination_but_no_rate():
    image = lamp()
    image[:, 100:160] = np.nan
    norm = measure_normalized(image, **DEFAULT)
    assert np.isnan(norm[:, 100:160]).all()
    assert np.abs(norm[:, :100] - 1).max() < 0.07
    assert np.isfinite(measure_coarse(image)).all()


@pytest.mark.parametrize("shape", [(3, 5), (16, 16), (31, 33), (64, 64), (65, 20)])
def test_frames_of_any_size(shape):
    image = np.full(shape, 9.0, np.float32)
    np.testing.assert_allclose(measure_coarse(image), 9)
    np.testing.assert_allclose(measure_normalized(image, **DEFAULT), 1)


def test_inputs_are_not_modified():
    image = lamp()
    image[5, 6], image[8:12, 9:13] = np.nan, 0
    before = image.copy()
    for options in ({}, {"edges": "padded"}, {"smoothing": "Median"}, {"method": "mean"}, {"method": "none"}):
        norm = measure_normalized(image, **{**DEFAULT, **options})
        correct_ipc(norm, 0.01)
        np.testing.assert_array_equal(image, before)
    norm = measure_normalized(image, **{**DEFAULT, "method": "none"})
    norm[:] = 0
    np.testing.assert_array_equal(image, before)


# --- coupling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0055, 0.0154])
def test_dead_pixels_are_dead_again(alpha):
    truth = np.random.default_rng(1).normal(1, 0.01, (60, 70)).astype(np.float32)
    truth[10, 10] = truth[0, 30] = truth[30, 69] = truth[40, 40:42] = 0
    truth[20, 20], truth[22, 50] = 0.3, 0.06
    seen = couple(truth, alpha).astype(np.float32)
    assert seen[10, 10] > 3.9 * alpha
    back = correct_ipc(seen, alpha)
    np.testing.assert_allclose(back, truth, atol=20 * alpha**2 + 1e-3)
    assert np.abs(back[10, 10]) < 0.003


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("dispersed", [False, True])
def test_a_hot_pixel_takes_nothing_from_the_ring_two_pixels_away(saturated, dispersed):
    """Corrected by what its neighbors show, which is the hot one's, good pixels there looked dead (MIRI)."""
    truth = np.random.default_rng(1).normal(1, 0.005, (30, 40)).astype(np.float32)
    truth[12, 17], truth[20, 30], truth[20, 33] = 4000, 0, 0.3
    light = np.linspace(1, 3, 40, dtype=np.float32) * np.ones((30, 1), np.float32)
    seen = couple(truth * light, 0.0165).astype(np.float32)
    if saturated:
        seen[12, 17] = np.nan
    rate, own = normalize.correct_ipc_of_light(seen, light, 0.0165)
    back = rate / own if dispersed else correct_ipc(seen / light, 0.0165)
    beside = np.hypot(*(np.indices(truth.shape) - np.array([12, 17])[:, None, None])) < 1.5
    np.testing.assert_allclose(back[~beside], truth[~beside], atol=0.04)


def test_unmeasured_neighbors_count_as_one():
    norm = np.ones((9, 9), np.float32)
    norm[4, 4] = np.nan
    back = correct_ipc(norm, 0.01)
    assert np.isnan(back[4, 4])
    np.testing.assert_allclose(back[2:7, 2:7][np.isfinite(back[2:7, 2:7])], 1, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.0055, 0.03])
def test_coupling_is_measured_from_bright_pixels(alpha):
    """Where it is larger than the table says, dead pixels would look like LOW_QE."""
    rng = np.random.default_rng(1)
    truth = rng.normal(1, 0.01, (120, 130)).astype(np.float32)
    truth[10:110:15, 10:120:20] = rng.uniform(5, 60, (7, 6))
    truth[17:110:15, 20:120:20] = 0
    truth[50, 51:53] = 30  # two that touch tell nothing
    seen = couple(truth, alpha).astype(np.float32)
    assert measure_ipc_of_bright(seen) == pytest.approx(alpha, abs=4e-4)
    back = correct_ipc(seen, measure_ipc_of_bright(seen))
    assert np.abs(back[17:110:15, 20:120:20]).max() < 0.02


def test_coupling_without_bright_pixels_is_not_measured():
    truth = np.random.default_rng(1).normal(1, 0.01, (60, 70)).astype(np.float32)
    truth[20, 20] = truth[40, 40] = 30
    assert measure_ipc_of_bright(truth) is None


def test_coupling_is_measured_from_dead_pixels():
    truth = np.random.default_rng(1).normal(1, 0.005, (80, 90)).astype(np.float32)
    truth[10:70:10, 10:80:10] = 0
    assert measure_ipc(couple(truth, 0.003).astype(np.float32), 0.0055) == pytest.approx(0.003, abs=2e-4)
    assert measure_ipc(truth, 0.0055) == pytest.approx(0, abs=1e-4)
    assert measure_ipc(np.ones((20, 20), np.float32), 0.0055) == 0.0055  # nothing to measure it with
    few = couple(truth, 0.0055).astype(np.float32)
    few[10, 10:40:10] = 0.004  # three that read less, on a wrong light, are not what 33 others say
    assert measure_ipc(few, 0.0055) == 0.0055


def dark_area(blur):
    """A lamp with a gradient, areas without signal up to 320 pixels wide, and where they are."""
    image = lamp((700, 720))
    area = np.zeros(image.shape, bool)
    area[60:380, 300:620] = True
    area[500:, :220] = True  # in a corner
    lit = ndimage.gaussian_filter((~area).astype(np.float32), blur) if blur else ~area
    noise = np.random.default_rng(5).normal(0, 0.02, image.shape)
    return (image * lit + noise).astype(np.float32), area


@pytest.mark.slow
def test_a_large_dead_area_is_dead():
    image, area = dark_area(0)
    norm = measure_normalized(image, **DEFAULT)
    np.testing.assert_array_equal(norm < 0.05, area)
    weak, level, unlit = find_dark_areas(image, lamp(image.shape))
    np.testing.assert_array_equal(weak, area)
    assert np.isnan(level).all()
    assert not unlit.any()


@pytest.mark.slow
def test_a_large_weak_area_is_low_qe():
    image, area = dark_area(0)
    norm = measure_normalized(image + np.where(area, 0.1 * lamp(image.shape), 0).astype(np.float32), **DEFAULT)
    np.testing.assert_array_equal((norm < 0.5) & (norm > 0.05), area)


@pytest.mark.slow
@pytest.mark.parametrize("blur", [0.8, 2, 6])
def test_a_large_area_without_light_is_not_dead(blur):
    """What ends in a soft edge is the image of something before the detector."""
    image, area = dark_area(blur)
    norm = normalize_light(image, FlatSettings(), 0.0, detectors.Mode("imager", None, 95)).norm
    assert not (norm < 0.5).any()
    assert np.isnan(norm[ndimage.binary_erosion(area, np.ones((3, 3)), 2 * int(blur))]).all()
    assert np.isfinite(norm[~ndimage.binary_dilation(area, np.ones((3, 3)), 9)]).all()


def test_a_dim_area_is_searched():
    """A twentieth of the light is light: there are pixels that see it, and one that does not."""
    image = lamp((700, 720))
    image[60:380, 300:620] *= 0.04
    image = ndimage.gaussian_filter(image, 3)
    image += np.random.default_rng(5).normal(0, 0.02, image.shape).astype(np.float32)
    image[200, 400] = 0
    norm = measure_normalized(image, **DEFAULT)
    assert sorted(zip(*np.nonzero((norm < 0.5)[80:360, 320:600]), strict=True)) == [(120, 80)]


def test_the_steep_edge_of_a_shadow_is_no_defect():
    """A corner at 0.4 of the light with an edge of ten pixels: 13,400 false LOW_QE per million before."""
    y, x = np.mgrid[:256, :256]
    depth = np.clip((x + y - 420) / 10.0, 0, 1)
    rng = np.random.default_rng(3)
    mean = (100 * (1 - 0.6 * depth) * rng.normal(1, 0.01, depth.shape)).astype(np.float32)
    dead = [(240, 200), (230, 200), (250, 250), (252, 180)]
    for place in dead:
        mean[place] = 0
    smooth = measure_illumination(mean, width=15, mask_sigma=4.0, iterations=4)
    low = mean / smooth < 0.5
    assert sorted(zip(*np.nonzero(low), strict=True)) == sorted(dead)
