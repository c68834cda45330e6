"""Pixels that settle in some of the darks, against injected decays; hits, steps down and noise do not settle."""

from __future__ import annotations

import numpy as np
import pytest

from badpix.darks import group_flags, ramps, settling
from badpix.darks.cells import make_cells

NOISE, GROUPS, NUMBER = 5.0, 50, 10
FIT = ramps.ramp_fit(GROUPS)
NAMES = ramps.contrast_names(FIT.templates)


def settled(change, seed=1, pixels=40):
    """Part of the integrations in which pixels settle alike; ``change`` (NUMBER, GROUPS, pixels) comes on noise."""
    rng = np.random.default_rng(seed)
    cut = make_cells(np.zeros((1, pixels), np.uint8), np.zeros((1, pixels), bool))
    drift = np.zeros((GROUPS, 1, len(cut.columns)), np.float32)
    found = []
    for i in range(NUMBER):
        ramp = (rng.normal(0, NOISE, (GROUPS, 1, pixels)) + change[i][:, None]).astype(np.float32)
        bits = np.zeros(ramp.shape, np.uint8)
        bits[1:][np.diff(ramp, axis=0) > 6 * NOISE] = group_flags.JUMP_DET
        found.append(ramps.measure_ramps(ramp, bits, FIT, cut, drift=drift)[0].reshape(len(FIT.names), -1))
    values = {name: np.array([one[k] for one in found]) for k, name in enumerate(FIT.names)}
    freedom = np.full(values["residual"].shape, GROUPS - 2, np.float32)
    explained = settling.explain(values, NAMES, FIT.bends)
    left = settling.leave(values, explained, freedom, NAMES)
    return settling.count_settled(values, explained, left, freedom, NAMES)


def decays(size, tau):
    return size * np.exp(-np.arange(1, GROUPS + 1) / tau)[:, None]


@pytest.mark.parametrize(("size", "tau"), [(300, 1.5), (-300, 1.5), (200, 6.0), (-3000, 3.0), (3000, 12.0)])
@pytest.mark.parametrize("number", [2, 5])
def test_the_part_of_the_darks_in_which_a_pixel_settles_is_counted(size, tau, number):
    change = np.zeros((NUMBER, GROUPS, 40))
    change[1 : 2 * number : 2] += decays(size, tau)
    assert np.mean(np.isclose(settled(change), number / NUMBER)) > 0.8


def test_other_pixels_do_not_settle():
    rng = np.random.default_rng(2)
    change = np.zeros((NUMBER, GROUPS, 400))
    change[3, :, :40] += decays(500, 4.0)  # once
    for x in range(40, 160):  # hits, two of them in two ramps
        for i in (2, 6):
            change[i, rng.integers(1, GROUPS) :, x] += 10 ** rng.uniform(1.5, 3)
    for x in range(160, 280):  # switches
        state = rng.random(NUMBER) < 0.5
        for g in range(GROUPS):
            change[:, g, x] += 100 * state
            state ^= rng.random(NUMBER) < 0.03
    change[:, :, 280:] = rng.normal(0, 3 * NOISE, (NUMBER, GROUPS, 120))
    assert np.count_nonzero(settled(change, pixels=400)) <= 1


def test_unlike_decays_do_not_count():
    change = np.zeros((NUMBER, GROUPS, 40))
    for i, size in enumerate((200, 700, 300, -400)):
        change[2 * i] += decays(size, 4.0)
    assert not settled(change).any()
