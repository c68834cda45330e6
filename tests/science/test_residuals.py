"""Residuals against a plain slow version; the sharpness of real point spread functions."""

from __future__ import annotations

import numpy as np
import pytest
from science_files import draw_stars

from badpix.science import residuals


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("levels", [3, 1000])
def test_equal_to_a_plain_version(axis, levels):
    """With many equal values, too; in two blocks with more margin than needed."""
    rng = np.random.default_rng(1)
    ry, rx = residuals.reach_of(axis)
    image = rng.integers(0, levels, (2, 13 + 2 * ry, 16 + 2 * rx)).astype(np.float32)
    noise = np.full((2, 11, 9), 0.2, np.float32)
    found = residuals.measure_residual(
        image, noise, axis, sharpness=np.full(2, 2, np.float32), start=(ry + 1, rx + 3)
    )
    across = None if axis is None else 2 - axis  # of (blocks, y, x): lines reach over three
    wide = image if axis is None else np.median([np.roll(image, k, across) for k in (-1, 0, 1)], axis=0)
    for block, y, x in np.ndindex(noise.shape):
        cell = (block, y + ry + 1, x + rx + 3)
        near, broad = (
            np.sort([of[block, cell[1] + dy, cell[2] + dx] for dy, dx in residuals.offsets_of(axis)])
            for of in (image, wide)
        )
        level = near[[1, 3, 4, 6]].mean() if axis is None else np.median(near)
        assert found.level[block, y, x] == level
        assert found.value[block, y, x] == image[cell] - level
        spread = broad[6] - broad[1] - 0.2 * residuals.NOISE_RANGE[axis is not None]
        assert found.noise[block, y, x] == pytest.approx(max(0.2, 2 * spread), abs=1e-4)


def test_what_is_missing_is_the_median_of_what_touches_it():
    image = np.random.default_rng(2).normal(size=(8, 8)).astype(np.float32)
    before, bad = image.copy(), np.array([3 * 8 + 3, 3 * 8 + 4, 5 * 8 + 6])
    image.reshape(-1)[bad] = np.nan
    residuals.fill(image, bad, np.full(3, 7, np.float32))
    for place in bad:
        y, x = divmod(place, 8)
        near = [before[y + dy, x + dx] for dy, dx in residuals.offsets_of(None) if (y + dy) * 8 + x + dx not in bad]
        assert image[y, x] == pytest.approx(np.median(near), abs=1e-6)
    image.reshape(-1)[bad] = before.reshape(-1)[bad]
    np.testing.assert_array_equal(image, before)


def test_what_has_no_neighbors_is_the_level():
    image = np.full((5, 5), np.nan, np.float32)
    residuals.fill(image, np.array([12]), np.array([7], np.float32))
    assert image[2, 2] == 7


@pytest.mark.parametrize("fwhm", [1.3, 2.0, 3.0])
def test_a_star_is_within_what_its_neighbors_allow(fwhm):
    rng = np.random.default_rng(3)
    sharpness = np.array([residuals._sharpness(fwhm, False)], np.float32)
    for _ in range(40):
        y, x = 10 + rng.uniform(-0.5, 0.5, 2)
        star = draw_stars((21, 21), [y], [x], [1000.0], fwhm).astype(np.float32)
        noise = np.full((1, 19, 19), 0.01, np.float32)
        found = residuals.measure_residual(star[None], noise, None, sharpness=sharpness)
        assert (found.value / found.noise).max() < 1.5


def test_a_bad_pixel_is_not():
    image = np.zeros((9, 9), np.float32)
    image[4, 4] = 5
    noise = np.full((1, 7, 7), 0.1, np.float32)
    found = residuals.measure_residual(image[None], noise, None, sharpness=np.array([3], np.float32))
    assert found.value[0, 3, 3] / found.noise[0, 3, 3] == pytest.approx(50)
    assert (found.noise == np.float32(0.1)).all()
