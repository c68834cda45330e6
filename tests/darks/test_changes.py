"""What the order of time says beside pixels that saturate in some darks only."""

from __future__ import annotations

import numpy as np
import pytest

from badpix.darks import changes, series
from badpix.numerics.neighbors import Places

SHAPE, IPC = (8, 8), 0.005
CENTER, SIDE = 3 * 8 + 3, 3 * 8 + 4


def judge(center, side, cut=True, **options):
    """Verdict on the pixel beside another one, from their rates by dark."""
    rate = np.array([center, side], np.float32)
    steps = {name: np.zeros_like(rate) for name in series.SERIES}
    steps |= {"rate": rate, "bright": (np.nan_to_num(rate) > 0.05).astype(np.float32), "used": np.ones_like(rate)}
    found = changes.judge(
        steps,
        Places(np.array([CENTER, SIDE]), SHAPE),
        np.ones(2, np.float32),
        np.zeros(2, np.float32),
        np.zeros(SHAPE, np.float32),
        cut=np.array([cut, False]),
        **{"ipc": IPC, "overrun": 0.03, "limit": 0.05, "fraction": 0.2, **options},
    )
    return found.state[1].tolist(), bool(found.intermittent[1] | found.born[1] | found.recovered[1])


def test_charge_that_leaks_from_a_pixel_is_no_change_where_its_rate_is_not_known():
    """It saturates at once in the warm darks, and leaks as much as in the others."""
    assert judge([np.nan, np.nan, 100, np.nan, 100], [0.5] * 5, overrun=0.0) == ([0, 0, 0, 0, 0], False)


@pytest.mark.parametrize("size", [0.6, 2.5])
def test_the_few_groups_beside_a_saturated_pixel_tell_no_change(size):
    leak = 100 * IPC
    side = [leak, leak + size, leak, leak + size, leak]
    assert judge([100.0] * 5, side) == ([0, 0, 0, 0, 0], False)
    assert judge([100.0] * 5, side, cut=False) == ([0, 1, 0, 1, 0], True)


def test_a_pixel_far_brighter_than_what_leaks_changes_beside_a_saturated_one():
    assert judge([100.0] * 5, [0.5, 9.0, 0.5, 9.0, 0.5]) == ([0, 1, 0, 1, 0], True)
