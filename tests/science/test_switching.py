"""Two levels against one: the gain is that of a plain search, and says which pixels switch."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from badpix.science import decide
from badpix.science.decide import GAIN_OVER
from badpix.science.switching import BELOW, TAIL, measure_switching

SHARES = np.full(24, 2e-3)
GAIN = decide.GAIN[0]


def measure(z, pointings=None, weight=None, since=1):
    number = len(z)
    weight = np.ones(z.shape, np.float32) if weight is None else weight
    pointings = np.arange(number) if pointings is None else pointings
    steps = np.full(z.shape[1], since, np.int16)
    return measure_switching(z.astype(np.float32), weight, pointings, SHARES[:1].repeat(number), steps)


def draw(rng, pixels, height, lit):
    return rng.normal(size=(24, pixels)) + height * lit


def test_gain_is_that_of_a_plain_search():
    rng = np.random.default_rng(1)
    z = draw(rng, 12, 5.0, rng.random((24, 12)) < 0.3)
    found = measure(z)
    part, height = np.linspace(0.02, 0.9, 45)[:, None, None], np.linspace(1, 9, 81)[:, None]
    for k in range(12):
        tail = np.where(z[:, k] < 0, BELOW, 1) * TAIL / (TAIL + abs(z[:, k])) ** 2
        plain = (1 - SHARES[0]) * norm.pdf(z[:, k]) + SHARES[0] * tail
        bright = norm.pdf(z[:, k], height, np.hypot(1, 0.03 * height)) / plain
        best = np.log(1 - part + part * bright).sum(axis=2).max()
        assert abs(found["gain"][k] - best) < 0.3


def test_pixels_that_switch_are_told_from_noise_and_particles():
    rng = np.random.default_rng(2)
    lit = rng.random((24, 400)) < 0.35
    assert (measure(draw(rng, 400, 4.5, lit))["gain"] > GAIN).mean() > 0.9
    noise = draw(rng, 40_000, 0, 0)
    hits = rng.random(noise.shape) < 2e-3
    noise[hits] += rng.exponential(15, hits.sum())
    assert (measure(noise)["gain"] > GAIN).sum() <= 1


def test_two_equal_high_values_are_enough_and_two_unequal_ones_are_not():
    rng = np.random.default_rng(3)
    z = draw(rng, 2, 0, 0)
    z[[5, 17], 0] = 90.0, 90.8
    z[[5, 17], 1] = 90.0, 60.0
    gain = measure(z)["gain"]
    assert gain[0] > GAIN > gain[1]


def test_steps_and_lines_of_a_visit_are_no_switching():
    rng = np.random.default_rng(4)
    after = np.arange(24)[:, None] >= 15
    found = measure(draw(rng, 200, 6, after), since=15)
    assert (found["gain"] > GAIN).all()
    assert (found["over_step"] > GAIN_OVER[0]).mean() < 0.05
    visits = np.arange(24) // 6
    found = measure(draw(rng, 200, 6, ((visits == 1) | (visits == 3))[:, None]), visits, since=18)
    assert (found["gain"] > GAIN).all()
    assert (found["over_pointings"] > GAIN_OVER[1]).mean() < 0.05
    found = measure(draw(rng, 200, 6, rng.random((24, 200)) < 0.5), visits)
    assert (found["over_pointings"] > GAIN_OVER[1]).mean() > 0.9


def test_values_that_are_missing_say_nothing():
    rng = np.random.default_rng(5)
    z, weight = draw(rng, 50, 6, rng.random((24, 50)) < 0.3), np.ones((48, 50), np.float32)
    weight[1::2] = 0
    double = np.zeros((48, 50))
    double[::2] = z
    single, found = measure(z), measure(double, weight=weight)
    np.testing.assert_allclose(found["gain"], single["gain"], atol=0.2)
