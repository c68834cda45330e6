"""Residuals beside hits: against a plain fit, unbiased for noise, and without pity for switching."""

from __future__ import annotations

import numpy as np
import pytest

from badpix.darks import hits

WEIGHTS = (1.0, 0.7, 0.5)


def residuals(y):
    g = np.arange(len(y))
    return (y - np.polynomial.polynomial.polyval(g, np.polynomial.polynomial.polyfit(g, y, 1)).T).astype(np.float32)


def plain(y, steps):
    """Residual variance and flatness of one ramp beside its line and steps at known groups, by least squares."""
    g = np.arange(len(y))
    design = np.stack([np.ones(len(y)), g, *((g >= k) * 1.0 for k in steps)], axis=1)
    r = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return np.sum(r**2) / (len(y) - design.shape[1]), np.abs(r).mean() / np.sqrt(np.mean(r**2))


@pytest.mark.parametrize("steps", [(), (7,), (12, 30), (1, 39)])
def test_hits_are_fitted_as_by_least_squares(steps):
    y = np.random.default_rng(0).normal(0, 5, (40, 6)) + 3.0 * np.arange(40)[:, None]
    for size, group in zip((900, 400), steps, strict=False):
        y[group:] += size
    jumps = np.full(6, len(steps), np.uint16)
    variance, flatness, _, white = hits.measure_hits(residuals(y), jumps, WEIGHTS, most=2, averaged=False)
    for k in range(6):
        want = plain(y[:, k], steps)
        assert variance[k] == pytest.approx(want[0], rel=1e-3)
        assert flatness[k] == pytest.approx(want[1], rel=1e-3)
    assert np.isfinite(white).all() == (len(steps) > 0)


def test_noise_that_looks_like_a_jump_stays_as_large():
    y = np.random.default_rng(1).normal(0, 5, (60, 3000))
    r = residuals(y)
    variance, *_ = hits.measure_hits(r.copy(), np.full(3000, 2, np.uint16), WEIGHTS, most=2, averaged=False)
    same = np.isclose(variance, np.sum(r**2, axis=0) / 58, rtol=1e-3)
    assert same.mean() > 0.8  # a step of three sigma among 59
    assert variance.mean() == pytest.approx(25, rel=0.01)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_both_steps_of_a_hit_between_averaged_frames_are_taken_off(number):
    rng = np.random.default_rng(5)
    y, group = rng.normal(0, 5, (60, 4000)), np.arange(60)[:, None]
    for k in range(number):
        at, size, part = 8 + 12 * k + rng.integers(0, 4, 4000), rng.uniform(80, 3000, 4000), rng.random(4000)
        y += size * (part * (group >= at) + (1 - part) * (group > at))
    jumps = np.full(4000, 2 * number, np.uint16)
    once, *_ = hits.measure_hits(residuals(y), jumps, WEIGHTS, most=number, averaged=False)
    variance, _, memory, white = hits.measure_hits(residuals(y), jumps, WEIGHTS, most=number, averaged=True)
    none = hits.line_memory(60, WEIGHTS) / 58
    assert np.mean(variance) == pytest.approx(25, rel=0.03)
    assert np.nanmean(white) == pytest.approx(25, rel=0.03)
    assert np.median(memory) == pytest.approx(none, abs=0.03)
    assert np.mean(once) > 100  # one step a hit leaves the other half


@pytest.mark.parametrize("groups", [7, 8, 10])
def test_equal_halves_of_a_hit_in_a_few_averaged_groups_are_taken_off(groups):
    rng = np.random.default_rng(6)
    y, group = rng.normal(0, 5, (groups, 4000)), np.arange(groups)[:, None]
    at = rng.integers(1, groups - 1, 4000)
    y += 1000 * (0.5 * (group >= at) + 0.5 * (group > at))
    jumps = np.full(4000, 2, np.uint16)
    variance, *_, white = hits.measure_hits(residuals(y), jumps, WEIGHTS, most=2, averaged=True)
    assert np.quantile(variance, 0.99) < 200
    assert 5 < np.median(white) < 30  # noise loses its largest step in search of a second hit


@pytest.mark.parametrize(("mean", "most"), [(0.0, 2), (0.05, 2), (0.3, 4), (1.0, 6)])
def test_as_many_hits_are_taken_off_as_good_pixels_have(mean, most):
    assert hits.most_hits(np.exp(-mean), 100) == most
    rng = np.random.default_rng(1)
    assert np.mean(rng.poisson(mean, 400_000) > most) < 3e-4
    assert hits.most_hits(np.exp(-mean), 12) == 2  # a short ramp keeps its groups


@pytest.mark.parametrize("number", [0, 1, 2])
def test_noise_has_the_same_memory_and_size_with_and_without_hits(number):
    rng = np.random.default_rng(2)
    y = rng.normal(0, 5, (40, 20_000))
    for _ in range(number):
        group = rng.integers(1, 40, 20_000)
        y += rng.uniform(200, 5000, 20_000) * (np.arange(40)[:, None] >= group)
    variance, flatness, memory, _ = hits.measure_hits(
        residuals(y), np.full(20_000, number, np.uint16), WEIGHTS, most=2, averaged=False
    )
    none = hits.line_memory(40, WEIGHTS) / 38
    assert variance.mean() == pytest.approx(25, rel=0.01)
    assert flatness.mean() == pytest.approx(0.80, abs=0.01)
    assert memory.mean() == pytest.approx(none, abs=0.01)


def test_switching_keeps_its_memory():
    rng = np.random.default_rng(3)
    state = np.cumsum(rng.random((60, 500)) < 0.1, axis=0) % 2
    y = rng.normal(0, 5, (60, 500)) + 60 * state
    _, _, memory, _ = hits.measure_hits(residuals(y), np.full(500, 2, np.uint16), WEIGHTS, most=6, averaged=True)
    assert np.median(memory) > 0.8
