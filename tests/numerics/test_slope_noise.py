"""Variances of slopes against plain least squares and against a written-out chain."""

import numpy as np
import pytest

from badpix.numerics.jumps import measure_jumps
from badpix.numerics.ramp_fit import JUMP_DET, Constants, fit_ramps
from badpix.numerics.slope_noise import Noise, Readout, draw_levels, expect_variance, fit_slopes, measure_variance

RAPID = Readout(1, 0, 10.0)


def pixels(n, read=5.0, shot=0.0, separation=0.0, low=50.0, high=50.0):
    return Noise(*(np.full(n, v, np.float32) for v in (read, shot, separation, low, high)))


@pytest.mark.parametrize("groups", [3, 5, 20, 150])
def test_white_noise_gives_the_textbook_variance(groups):
    expected = 12 * 25 / (groups**3 - groups) / 100
    assert expect_variance(pixels(1), RAPID, groups, 2.0)[0] == pytest.approx(expected, rel=1e-5)


def test_averaged_frames_lower_read_noise_and_lengthen_the_group():
    deep = Readout(8, 12, 10.0)
    expected = 12 * 25 / 8 / (10**3 - 10) / 200**2
    assert expect_variance(pixels(1), deep, 10, 2.0)[0] == pytest.approx(expected, rel=1e-5)


def test_shot_noise_of_faint_pixels_gives_six_fifths_of_the_rate_over_the_time():
    groups, shot = 400, 1e-4
    found = (
        expect_variance(pixels(1, read=5.0, shot=shot), RAPID, groups, 2.0)[0]
        - expect_variance(pixels(1), RAPID, groups, 2.0)[0]
    )
    assert found == pytest.approx(1.2 * shot / (10.0 * groups), rel=0.02)


def test_shot_noise_of_bright_pixels_is_that_of_the_ends():
    """The weights of the highest class use both ends alone: the rate over the time."""
    groups, shot = 50, 200.0
    found = expect_variance(pixels(1, read=5.0, shot=shot), RAPID, groups, 2.0)[0]
    assert shot / (10.0 * groups) < found < 1.12 * shot / (10.0 * groups)


@pytest.mark.parametrize("kind", ["white", "shot", "both"])
def test_drawn_ramps_agree_with_the_formula(kind):
    noise = pixels(40, read=5.0 if kind != "shot" else 0.5, shot=0.0 if kind == "white" else 0.3)
    usual = np.full(40, 5.0, np.float32)
    found = measure_variance(noise, usual, RAPID, 20, 2.0, draws=400, rng=np.random.default_rng(3)).mean()
    # the drawn ramps have no mean rate, so their weights are those of the lowest class
    expected = expect_variance(noise, RAPID, 20, 1e-6)[0]
    assert found == pytest.approx(expected, rel=0.05)


def test_two_levels_have_their_share_and_their_correlation():
    noise = pixels(20000, separation=30.0, low=40.0, high=120.0)
    found = draw_levels(noise, RAPID, 12, np.random.default_rng(5))
    assert set(np.unique(found)) == {0.0, 30.0}
    assert found.mean() == pytest.approx(30 * 120 / 160, rel=0.02)
    centered = found - found.mean()
    lag = (centered[1:] * centered[:-1]).mean() / (centered**2).mean()
    assert lag == pytest.approx(np.exp(-10 * (1 / 40 + 1 / 120)), abs=0.01)


def test_averaged_levels_lie_between():
    found = draw_levels(
        pixels(500, separation=30.0, low=5.0, high=5.0), Readout(4, 1, 10.0), 6, np.random.default_rng(5)
    )
    assert set(np.unique(found)) <= {0.0, 7.5, 15.0, 22.5, 30.0}
    assert len(np.unique(found)) == 5


def test_a_step_that_the_jump_step_sees_leaves_the_slope_alone():
    rng = np.random.default_rng(8)
    ramps = rng.normal(0, 5, (30, 50)).astype(np.float32)
    stepped = ramps.copy()
    stepped[15:] += 200
    slopes = fit_slopes(stepped, np.full(50, 5, np.float32), RAPID, 2.0)
    first, second = (np.polyfit(np.arange(15), part, 1)[0] / 10 for part in (stepped[:15], stepped[15:]))
    np.testing.assert_allclose(slopes, (first + second) / 2, atol=1e-4)


def test_slopes_are_those_of_the_ramp_fit():
    """Against the kernels that stand in for the pipeline's fit, with steps that the jump step sees."""
    rng = np.random.default_rng(9)
    ramps = rng.normal(0, 5, (25, 300)).astype(np.float32)
    at = rng.integers(2, 24, 300)
    for k in range(300):
        ramps[at[k] :, k] += 150 * (k % 3)
    read = np.full(300, 5, np.float32)
    ratio, known = measure_jumps(np.diff(ramps, axis=0), np.ones((24, 300), bool), read, 2.0)
    flags = np.zeros(ramps.shape, np.uint8)
    flags[1:][known & (ratio > 4)] = JUMP_DET
    typical = np.zeros((1, 300), np.float32)
    fit = fit_ramps(ramps[:, None], flags[:, None], slice(None), typical, read[None], Constants(1e-6, 10.0, 1.0))
    np.testing.assert_allclose(fit_slopes(ramps, read, RAPID, 2.0), fit.rate[0], atol=2e-5)
