"""The documented searches: each rule where it counts, and against a plain program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dark_files import make_ramps, write_darks

from badpix.darks import documented
from badpix.darks import inputs as dark_inputs
from badpix.darks import search as darks_search
from badpix.errors import UsageError
from badpix.settings.darks import DarkSettings

SECTION = DarkSettings


def rules(**changes):
    return documented.make_rules(20, replace(SECTION.in_set("documented"), **changes))


def flags(**jumps):
    out = np.zeros((20, 1, len(jumps)), np.uint8)
    for x, groups in enumerate(jumps.values()):
        out[list(groups), 0, x] = documented.JUMP_DET
    return out


def test_many_and_early_jumps():
    dq = flags(early=range(1, 12), even=range(1, 20), few=range(1, 10), ten=[1, 2, 3, 4, *range(15, 20), 10])
    zero = np.zeros((1, 4), np.float32)
    votes, clean = documented.count_votes(dq, zero, zero, (0.0, 1.0), rules())
    np.testing.assert_array_equal(votes["many_jumps"][0], [True, True, False, True])
    np.testing.assert_array_equal(votes["early_jumps"][0], [True, False, False, False])
    assert not clean.any()


def test_a_jump_limit_that_is_given_is_used():
    dq = flags(three=[1, 2, 3])
    zero = np.zeros((1, 1), np.float32)
    assert documented.count_votes(dq, zero, zero, (0, 1), rules(max_jump_limit=3))[0]["many_jumps"][0, 0]
    assert not documented.count_votes(dq, zero, zero, (0, 1), rules(max_jump_limit=4))[0]["many_jumps"][0, 0]


def test_pedestals_above_and_below():
    dq = np.zeros((20, 1, 4), np.uint8)
    dq[0, 0, 2:] = documented.SATURATED
    fitted = np.array([[6.0, -6.0, -6.0, 0.0]], np.float32)
    votes, _ = documented.count_votes(dq, fitted, fitted, (0.0, 1.0), rules())
    np.testing.assert_array_equal(votes["high_pedestal"][0], [True, False, False, False])
    np.testing.assert_array_equal(votes["low_pedestal"][0], [False, True, False, False])
    np.testing.assert_array_equal(votes["saturated"][0], [False, False, False, True])


def test_too_few_groups_for_an_early_part_are_an_error():
    with pytest.raises(UsageError, match="early_cutoff_fraction"):
        documented.make_rules(3, SECTION.in_set("documented"))


def test_fractions_count_as_documented():
    counts = {name: np.array([[4, 5]], np.uint16) for name in documented.VOTES}
    found = documented.find_by_votes(counts, 5, max_saturated=0.8, rc=0.8, low_pedestal=0.8, high_cr=0.8)
    np.testing.assert_array_equal(found["hot"][0], [True, True])
    for name in ("rc", "low_pedestal", "high_cr"):
        np.testing.assert_array_equal(found[name][0], [False, True])


@pytest.mark.parametrize(("outliers", "size"), [(40, 500), (1500, 1e5), (2600, 1e7), (1, 9)])
def test_clipping_around_the_mean_is_that_of_scipy(outliers, size):
    from scipy.stats import sigmaclip

    values = np.random.default_rng(0).normal(10, 3, 5000).astype(np.float32)
    values[:outliers] += np.geomspace(5, size, outliers).astype(np.float32)
    kept = sigmaclip(values.astype(np.float64), 3.0, 3.0).clipped
    assert documented.clip_mean(values, 3.0) == pytest.approx((kept.mean(), kept.std()))


def test_clipped_mean_of_nothing_and_of_equal_values():
    assert np.isnan(documented.clip_mean(np.full(3, np.nan), 3.0)).all()
    assert documented.clip_mean(np.full(9, 7.0, np.float32), 3.0) == (7.0, 0.0)


def test_noisy_needs_clean_slopes():
    scatter = np.random.default_rng(0).normal(1, 0.05, (40, 40)).astype(np.float32)
    number = np.full(scatter.shape, 6, np.uint16)
    scatter[3, 3], number[5, 5] = 9.0, 4
    options = {"clip_sigma": 5, "clip_iterations": 5, "threshold": 5, "min_slopes": 5}
    noisy, few, limit = documented.find_scattered(scatter, number, np.ones(scatter.shape, bool), **options)
    assert np.argwhere(noisy).tolist() == [[3, 3]]
    assert np.argwhere(few).tolist() == [[5, 5]]
    assert limit == pytest.approx(1.25, abs=0.03)


@pytest.mark.parametrize("without_data", [True, False])
def test_whole_search_is_that_of_a_plain_program(tmp_path, without_data):
    rates = write_darks(tmp_path, exposures=4, integrations=2)
    p = SECTION.from_values({"noisy_without_data": without_data}, "test", "documented")
    opened = dark_inputs.open_darks(rates, {})
    found = darks_search.search(opened, p, memory=3e5)
    science = ~opened.reference_pixels()
    stacks = [make_ramps(k, 2) for k in range(1, 5)]
    flags = np.concatenate([s[1] for s in stacks])
    jumps = ((flags & documented.JUMP_DET) != 0).sum(axis=1)
    np.testing.assert_array_equal(found.maps["high_cr"], ((jumps >= 10).mean(axis=0) > 0.8) & science)
    from astropy.io import fits

    slopes = np.concatenate([fits.getdata(r, "SCI") for r in rates]).astype(np.float64)
    slopes[jumps > 0] = np.nan
    number = np.isfinite(slopes).sum(axis=0)
    np.testing.assert_array_equal(found.evidence.images["votes_clean_slopes"], number)
    scatter = np.where(number >= 5, np.nanstd(np.where(number > 0, slopes, 0), axis=0), np.nan)
    few = science & (number < 5)
    assert found.maps["noisy"][few].all() == without_data
    known = np.isfinite(scatter)
    np.testing.assert_allclose(found.evidence.images["clean_slope_scatter"][known], scatter[known], rtol=1e-4)
