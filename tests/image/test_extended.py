"""Wide faint events: halos and trails out of focus, on noise with what else raises an area."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from badpix.image.extended import find_extended, level_covers

SHAPE = (240, 280)


def noise(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1, SHAPE).astype(np.float32)
    z[rng.random(SHAPE) < 0.01] = np.nan
    return rng, z


def halo(y, x, radius, level):
    distance = np.hypot(np.arange(SHAPE[0])[:, None] - y, np.arange(SHAPE[1]) - x)
    return level * np.clip(2 - 2 * distance / radius, 0, 1)


def trail(angle, level, width=12.0):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] - np.array(SHAPE)[:, None, None] / 2
    return level * np.exp(-0.5 * ((x * np.sin(angle) - y * np.cos(angle)) / (width / 2.3548)) ** 2)


@given(st.integers(0, 10_000), st.floats(0, 1.5), st.floats(-6, 6))
@settings(max_examples=25)
def test_noise_stripes_and_gradients_are_no_events(seed, stripes, tilt):
    rng, z = noise(seed)
    z += rng.normal(0, stripes, (SHAPE[0], 1)).astype(np.float32)
    z += (tilt * np.linspace(-0.5, 0.5, SHAPE[1])).astype(np.float32)
    assert not find_extended(z, np.ones(SHAPE, bool), wide_snr=8.0).any()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("level", [1.2, 2.0, 3.0])
def test_halos_are_found_whole_and_no_more(seed, level):
    rng, z = noise(seed)
    event = halo(rng.uniform(60, 180), rng.uniform(60, 200), 22, level)
    found = find_extended(z + event.astype(np.float32), np.ones(SHAPE, bool), wide_snr=8.0)
    known = np.isfinite(z)
    assert found[(event > 0.99) & known].mean() > 0.85
    assert (found & (event == 0)).sum() < 0.15 * (event > 0.5).sum()
    assert not found[~known].any()


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.1, 2.5])
def test_wide_trails_are_found_at_any_angle(angle):
    _, z = noise(4)
    event = trail(angle, 2.0)
    found = find_extended(z + event.astype(np.float32), np.ones(SHAPE, bool), wide_snr=8.0)
    assert found[(event > 1) & np.isfinite(z)].mean() > 0.85
    assert found[event < 0.02].mean() < 0.002


def test_sources_and_what_is_wider_than_an_event_do_not_count():
    _, z = noise(5)
    event = halo(120, 140, 22, 2.0)
    flat = event == 0
    assert not find_extended(z + event.astype(np.float32), flat, wide_snr=8.0)[~flat].any()
    slow = 2 * np.sin(np.linspace(0, 2 * np.pi, SHAPE[1]))
    assert not find_extended(z + slow.astype(np.float32), np.ones(SHAPE, bool), wide_snr=8.0).any()
    assert not find_extended(z, np.zeros(SHAPE, bool), wide_snr=8.0).any()
    assert find_extended(z[:3, :3], np.ones((3, 3), bool), wide_snr=8.0).shape == (3, 3)


def test_a_strip_that_fewer_exposures_saw_is_no_event():
    _, z = noise(6)
    cover = np.full(SHAPE, 3, np.uint8)
    cover[:, -32:] = 1
    z[:, -32:] += 1.5
    every = np.ones(SHAPE, bool)
    assert find_extended(z, every, wide_snr=8.0).any()
    assert not find_extended(level_covers(z, cover, every), every, wide_snr=8.0).any()
    event = halo(120, 140, 22, 2.0)
    found = find_extended(level_covers(z + event.astype(np.float32), cover, every), every, wide_snr=8.0)
    assert found[(event > 0.99) & np.isfinite(z)].mean() > 0.85
