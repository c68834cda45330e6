"""Residuals against a plain slow version; the sharpness of real point spread functions."""

from __future__ import annotations

import numpy as np
import pytest
from science_files import draw_stars

from badpix.science import residuals


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_equal_to_a_plain_version(axis):
    rng = np.random.default_rng(1)
    ry, rx = residuals.reach_of(axis)
    image = rng.normal(size=(11 + 2 * ry, 9 + 2 * rx)).astype(np.float32)
    noise = np.full((11, 9), 0.2, np.float32)
    found = residuals.measure_residual(image, noise, axis, sharpness=2.0)
    for y in range(11):
        for x in range(9):
            near = np.sort([image[y + ry + dy, x + rx + dx] for dy, dx in residuals.offsets_of(axis)])
            assert found.level[y, x] == pytest.approx(np.median(near), abs=1e-6)
            assert found.value[y, x] == pytest.approx(image[y + ry, x + rx] - np.median(near), abs=1e-6)
            spread = near[6] - near[1] - 0.2 * residuals.NOISE_RANGE[axis is not None]
            assert found.noise[y, x] == pytest.approx(max(0.2, 2 * spread), abs=1e-5)


def test_input_is_not_modified():
    image = np.random.default_rng(2).normal(size=(8, 8)).astype(np.float32)
    before = image.copy()
    residuals.measure_residual(image, np.ones((6, 6), np.float32), None, sharpness=2.0)
    usable = image > 0
    filled = residuals.fill(image, usable, 7.0)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(filled[usable], image[usable])
    assert np.isfinite(filled).all()


@pytest.mark.parametrize("fwhm", [1.3, 2.0, 3.0])
def test_a_star_is_within_what_its_neighbors_allow(fwhm):
    rng = np.random.default_rng(3)
    sharpness = residuals._sharpness(fwhm, False)
    for _ in range(40):
        y, x = 10 + rng.uniform(-0.5, 0.5, 2)
        star = draw_stars((21, 21), [y], [x], [1000.0], fwhm).astype(np.float32)
        found = residuals.measure_residual(star, np.full((19, 19), 0.01, np.float32), None, sharpness=sharpness)
        assert (found.value / found.noise).max() < 1.5


def test_a_bad_pixel_is_not():
    image = np.zeros((9, 9), np.float32)
    image[4, 4] = 5
    found = residuals.measure_residual(image, np.full((7, 7), 0.1, np.float32), None, sharpness=3.0)
    assert found.value[3, 3] / found.noise[3, 3] == pytest.approx(50)
    assert (found.noise == np.float32(0.1)).all()
