"""Running sums and lines against plain versions."""

from __future__ import annotations

import numpy as np
import pytest

from badpix.science.rows import measure_lines
from badpix.science.sums import CLIP, Sums


def test_sums_are_those_of_a_plain_version():
    rng = np.random.default_rng(4)
    weight = rng.uniform(0.5, 2, (40, 6, 7)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.1] = 0
    z = np.where(weight > 0, rng.normal(0, 2, weight.shape), 0).astype(np.float32)
    sums = Sums((6, 7), 40)
    for one, w in zip(z[::-1], weight[::-1], strict=True):
        sums.add(one, w, np.flatnonzero(w == 0))
    found, kept, seen = sums.finish(), np.clip(z.astype(float), -CLIP, CLIP), weight > 0
    np.testing.assert_allclose(found.mean, (kept * weight).sum(0) / (weight.astype(float) ** 2).sum(0), atol=1e-5)
    np.testing.assert_allclose(found.error, 1 / np.sqrt((weight.astype(float) ** 2).sum(0)), rtol=1e-5)
    np.testing.assert_allclose(found.square, (kept**2).sum(0) / seen.sum(0), rtol=1e-5)
    np.testing.assert_array_equal(found.usable, seen.sum(0))


@pytest.mark.parametrize("newest", [3, 5, 13, 30])
def test_a_birth_stands_out_whenever_it_was(newest):
    """What was born, as significant as births must be, is a candidate; what is as bright for two exposures is not."""
    z, weight = np.zeros((100, 1, 2), np.float32), np.ones((100, 1, 2), np.float32)
    z[100 - newest :, 0, 0] = 5 / np.sqrt(newest)
    sums = Sums((1, 2), 100)
    for one, w in zip(z[::-1], weight[::-1], strict=True):
        sums.add(one, w, np.empty(0, np.intp))
    found = sums.finish()
    assert found.stands_out.tolist() == [[True, False]]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_shift_of_lines_is_found_beside_sources(axis):
    rng = np.random.default_rng(6)
    shift = rng.normal(0, 0.5, 300)
    weight = rng.uniform(0.5, 1.5, (300, 300)).astype(np.float32)
    value = rng.normal(size=weight.shape) / weight + (shift[:, None] if axis == 1 else shift)
    stars = rng.random(weight.shape) < 0.02
    value[stars] += 50
    weight[rng.random(weight.shape) < 0.02] = 0
    found = measure_lines((value * weight).astype(np.float32), weight, axis).reshape(-1)
    assert np.std(found - shift) < 0.1  # 0.06 of noise
    assert abs(np.mean(found - shift)) < 0.08  # 0.05 of stars at the clip
    assert measure_lines(np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32), 1).tolist() == [[0]] * 3
