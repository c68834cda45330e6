"""What is left of the sky: gradients and stripes, on arrays with the truth, and between images."""

from dataclasses import replace

import numpy as np
import pytest

from badpix.image import sky as image_sky
from badpix.image.background import fit_surface, level_residual, measure_cells
from badpix.image.inputs import name_groups, read_members
from badpix.image.members import place_images, set_skies, subtract_slope
from badpix.io.associations import read_inputs
from badpix.io.cal import read_rows
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import Setup


def scene(seed, *, shape=(256, 320), up=0.0, across=0.0, rows=0.0, columns=0.0):
    """White noise of sigma 1 with bad pixels and hits, and what is added to it."""
    rng = np.random.default_rng(seed)
    added = up * np.linspace(-0.5, 0.5, shape[0])[:, None] + across * np.linspace(-0.5, 0.5, shape[1])
    added = added + rng.normal(0, rows, (shape[0], 1)) + rng.normal(0, columns, (1, shape[1]))
    image = rng.normal(0.3, 1, shape) + added
    image[rng.random(shape) < 0.002] += 50
    image[rng.random(shape) < 0.01] = np.nan
    use = np.isfinite(image)
    use[:40, :50] = False
    return image.astype(np.float32), use, added


@pytest.mark.parametrize("seed", range(12))
def test_a_flat_difference_loses_its_level_and_nothing_else(seed):
    image, use, _ = scene(seed)
    before = image.copy()
    level, tilt, striped = level_residual(image, use, 1.0)
    assert level == pytest.approx(0.3, abs=0.05)
    assert (tilt, striped) == (0.0, False)
    np.testing.assert_array_equal(image, before - np.float32(level))


@pytest.mark.parametrize(("up", "across"), [(4.0, 0.0), (0.0, -0.6), (-2.0, 3.0)])
def test_gradients_go(up, across):
    image, use, added = scene(5, up=up, across=across)
    before = image.copy()
    level, tilt, _ = level_residual(image, use, 1.0)
    assert tilt == pytest.approx(np.hypot(up, across), rel=0.15)
    removed = before - image
    good = np.isfinite(removed)
    assert np.abs(removed - 0.3 - added)[good].max() < 0.12
    assert level == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize(("rows", "columns"), [(1.4, 0.0), (0.0, 0.5)])
def test_stripes_go_along_either_axis(rows, columns):
    image, use, added = scene(6, rows=rows, columns=columns)
    before = image.copy()
    _, _, striped = level_residual(image, use, 1.0)
    assert striped
    left = (before - image - added)[np.isfinite(image)]
    assert left.std() < 0.12  # a median of 250 pixels is off by 0.08
    assert not level_residual(image, use, 1.0)[2]


def test_too_few_pixels_tell_nothing():
    image, use, _ = scene(7, shape=(40, 40), up=9.0, rows=3.0)
    use[:, 30:] = False
    _, tilt, _ = level_residual(image, use & (np.arange(40) < 20), 1.0)
    assert tilt == 0
    empty = np.full((64, 64), np.nan, np.float32)
    assert level_residual(empty, np.zeros((64, 64), bool), 1.0) == (0.0, 0.0, False)
    assert fit_surface(np.arange(20.0), np.arange(20.0), np.ones(20)) is None  # all on one line


def test_cells_are_medians_of_every_second_pixel():
    image, use, _ = scene(8, shape=(70, 100))
    y, x, medians = measure_cells(image, use)
    for row, column, value in zip(y, x, medians, strict=True):
        part = (slice(int(row) - 16, int(row) + 16, 2), slice(int(column) - 16, int(column) + 16, 2))
        assert value == pytest.approx(np.median(image[part][use[part]]))
    assert len(y) == 5  # of 2 x 3 one is not filled


def test_planes_of_images_follow_from_the_differences_of_their_cells():
    rng = np.random.default_rng(9)
    columns, n = 900, 4
    across = columns // image_sky.CELL + 3
    cells = (np.arange(1, 27)[:, None] * across + np.arange(1, 27)).ravel()
    y, x = np.divmod(cells, across)
    place = np.stack([x, y], axis=1) * float(image_sky.CELL) - image_sky.CELL / 2
    slopes = rng.normal(0, 1e-4, (n, 2))
    tables = []
    for slope in slopes:
        keep = np.sort(rng.permutation(len(cells))[:500])
        level = 1 + place[keep] @ slope + rng.normal(0, 1e-3, len(keep))
        tables.append(image_sky.Cells(cells[keep], level))
    found = image_sky.match_surfaces(tables, columns)
    slopes_found = found.solutions[:, 2:0:-1] / image_sky.UNIT  # x, y
    np.testing.assert_allclose(slopes_found, slopes - slopes.mean(axis=0), atol=2e-6)
    flat = [
        t._replace(level=t.level - place[np.searchsorted(cells, t.cell)] @ s)
        for t, s in zip(tables, slopes, strict=True)
    ]
    assert image_sky.match_surfaces(flat, columns) is None
    assert image_sky.match_surfaces([tables[0], image_sky.Cells(*np.empty((2, 0)))], columns) is None


def test_bent_skies_follow_from_the_differences_where_images_share_most_of_their_cells():
    rng = np.random.default_rng(10)
    columns = 900
    across = columns // image_sky.CELL + 3
    cells = (np.arange(1, 21)[:, None] * across + np.arange(1, 21)).ravel()
    y, x = np.divmod(cells, across)
    place = np.stack([x, y], axis=1) * float(image_sky.CELL) - image_sky.CELL / 2
    bends = 3e-6 * np.array([1.0, -2.0, 1.0])
    skies = [b * (place[:, 0] - 300) * (place[:, 1] - 300) + rng.normal(0, 1e-3, len(cells)) for b in bends]
    found = image_sky.match_surfaces([image_sky.Cells(cells, s) for s in skies], columns)
    left = [
        s - image_sky.evaluate_surface(f, found.center, place) for s, f in zip(skies, found.solutions, strict=True)
    ]
    assert np.ptp(skies, axis=0).max() > 0.3
    assert np.std(np.array(left) - np.mean(left, axis=0)) < 1.5e-3
    parts = [(slice(first, first + 150), s) for first, s in zip((0, 110, 220), skies, strict=True)]
    few = [image_sky.Cells(cells[part], s[part]) for part, s in parts]
    assert image_sky.match_surfaces(few, columns).solutions.shape == (3, 3)  # planes: a bend would run on unseen


def test_a_sky_that_bends_is_taken_off_and_one_that_does_not_is_left_to_the_plane():
    image, use, _ = scene(11, up=3.0)
    flat = image.copy()
    level_residual(flat, use, 1.0)
    y, x = (np.linspace(-1, 1, n) for n in image.shape)
    bent = image + (2 * y[:, None] * x - 1.5 * x * x).astype(np.float32)
    _, tilt, striped = level_residual(bent, use, 1.0)
    assert tilt > 3
    assert not striped
    assert np.nanstd(bent - flat) < 0.15


@pytest.mark.parametrize("slope", [(0.01, -0.02), (0.01, -0.02, 1e-3, 2e-3, -1e-3)])
def test_the_slope_of_a_band_is_that_of_the_whole(slope):
    class Image:
        class cal:
            shape = (30, 40)

    Image.slope = slope
    whole = np.zeros((30, 40), np.float32)
    subtract_slope(whole, Image)
    band = np.zeros((7, 40), np.float32)
    subtract_slope(band, Image, 11)
    np.testing.assert_array_equal(band, whole[11:18])
    y, x = np.mgrid[:30, :40] - np.array([14.5, 19.5])[:, None, None]
    up, across, yy, yx, xx = (*slope, 0, 0, 0)[:5]
    np.testing.assert_allclose(whole, -(up * y + across * x + yy * y * y + yx * y * x + xx * x * x), atol=1e-5)


@pytest.mark.slow
def test_levels_and_gradients_of_skies_are_taken_off_once(tmp_path):
    """Where gradients are matched, too, the level of each exposure is subtracted once."""
    setup = Setup(
        seed=61, groups=3, shape=(224, 224), stars=150.0, galaxies=0.0, tracks=0.0, hits=0.0, trail=0.0, hot=0.0
    )
    table = simulate(tmp_path, replace(setup, sky_differs=True, gradient=0.3))
    p = ImageSettings.from_values({}, "test", "default")
    association, cals = read_members(read_inputs([table]), tmp_path, skip_bad=False)
    images, grid = place_images(association, cals, name_groups(association, cals), p)
    images, _ = set_skies(images, grid, p, None)
    assert any(any(image.slope) for image in images)
    left = []
    for image in images:
        sci = read_rows(image.cal, "SCI").astype(np.float32) - np.float32(image.subtract)
        subtract_slope(sci, image)
        left.append(float(np.nanmedian(sci)))
    assert np.ptp(left) < 0.004  # the skies themselves differ by ten times that
    assert np.ptp([image.subtract for image in images]) > 0.01
