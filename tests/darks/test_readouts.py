"""Darks of different depth in one set: what is examined, how rates weigh, and what is found of injected truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from dark_files import DEFECTS, JUMP, SHAPE, make_ramps, write_dark, write_darks

from badpix.darks import inputs, plan, readouts
from badpix.darks.integrations import Integrations
from badpix.darks.readouts import Depth
from badpix.darks.search import search
from badpix.darks.stats import combine_rates
from badpix.errors import DataError
from badpix.settings.darks import DarkSettings

LONG, SHORT = Depth(60, 10.0, 1, "RAPID"), Depth(20, 10.0, 1, "RAPID")
AVERAGED = Depth(10, 52.0, 4, "SHALLOW4")
SHALLOW = {"NFRAMES": 4, "READPATT": "SHALLOW4"}


def run(rates, **changes):
    opened = inputs.open_darks(rates, {})
    return search(opened, DarkSettings.from_values(changes, "test"), memory=48e6)


def truth(*kinds):
    image = np.zeros(SHAPE, bool)
    for kind in kinds:
        for place in DEFECTS[kind]:
            image[place] = True
    return np.argwhere(image)


@pytest.mark.parametrize(
    ("darks", "number", "want"),
    [
        ([LONG, SHORT], [5, 5], LONG),
        ([LONG, SHORT], [2, 10], SHORT),  # 12 ramps of 20 groups tell more than 2 of 60
        ([LONG, AVERAGED], [5, 30], LONG),
        ([LONG, AVERAGED], [2, 3], AVERAGED),  # two integrations are too few for a search
        ([Depth(4, 10.0, 1, "RAPID"), AVERAGED], [30, 5], AVERAGED),  # four groups show no shape
    ],
)
def test_the_depth_of_most_groups_is_examined(darks, number, want):
    assert readouts.choose_depth(darks, number, least=3, most=32) == want


def test_weighted_quantiles_are_plain_ones_where_weights_are_equal():
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (7, 400)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, 5] = np.nan
    one = np.ones(7, np.float32)
    stats = dict.fromkeys(("pedestal", "shapes", "examined", "groups", "jumps", "saturated", "poisson"))
    plain = Integrations(values, **stats, first_level=None, masked=None)
    for fraction in (0.2, 0.5, 0.8, 1.0):
        np.testing.assert_array_equal(
            readouts.pick_weighted(values, one, fraction), combine_rates(plain, fraction)[1], err_msg=str(fraction)
        )


def test_weighted_quantiles_against_values_that_are_repeated():
    rng = np.random.default_rng(4)
    values = rng.normal(0, 1, (4, 200)).astype(np.float32)
    weights = np.array([1, 3, 2, 5], np.float32)
    often = np.repeat(values, weights.astype(int), axis=0)
    found, want = (
        readouts.pick_weighted(v, w, 0.5) for v, w in ((values, weights), (often, np.ones(11, np.float32)))
    )
    np.testing.assert_array_equal(found, want)


def test_weights_follow_the_scatter():
    np.testing.assert_allclose(readouts.weigh(np.array([0.1, 0.2, np.nan, 0.0])), [1, 0.25, 0, 0], rtol=1e-6)


@pytest.mark.slow
def test_ramps_of_one_readout_are_joined_over_their_common_groups(tmp_path):
    rates = write_darks(tmp_path / "long", exposures=4, groups=30)
    rates += write_darks(tmp_path / "short", exposures=4, groups=24, seed=20)
    found = run(rates)
    opened = inputs.open_darks(rates, {})
    job = plan.prepare_job(opened, opened.reference_pixels(), DarkSettings())
    assert (job.setup.groups, job.setup.examined, job.fit.stop) == (24, 8, 24)
    for name, kinds in (
        ("hot", ("hot", "saturated")),
        ("rc", ("rc", "inverse_rc")),
        ("telegraph", ("telegraph",)),
        ("noisy", ("noisy",)),
        ("low_pedestal", ("low_pedestal",)),
    ):
        np.testing.assert_array_equal(np.argwhere(found.maps[name]), truth(*kinds), err_msg=name)
    note = next(n for n in found.notes if "joined" in n)
    assert "4 integrations of 30 groups" in note
    assert "4 integrations of 24 groups" in note
    assert note.count("first 24 groups") == 2


def shallow(folder, number, seed, rate=0.0, place=(15, 60)):
    """A dark of averaged frames: half the noise, few groups, its own hot pixel."""
    ramps, flags, reset = make_ramps(seed, 1, groups=8, defects={"hot": DEFECTS["hot"]})
    mean = ramps.mean(axis=1, keepdims=True)
    ramps = (mean + (ramps - mean) * np.float32(0.5)).astype(np.float32)
    ramps[:, :, *place] += rate * np.arange(8, dtype=np.float32)
    return write_dark(folder, number, ramps, flags, reset, **SHALLOW)


@pytest.mark.slow
def test_other_readouts_give_their_rates_and_no_shapes(tmp_path):
    rates = write_darks(tmp_path, exposures=5, groups=30)
    rates += [shallow(tmp_path, 6 + k, 50 + k) for k in range(5)]
    found = run(rates)
    np.testing.assert_array_equal(np.argwhere(found.maps["telegraph"]), truth("telegraph"))
    np.testing.assert_array_equal(np.argwhere(found.maps["noisy"]), truth("noisy"))
    hot = found.maps["hot"]
    assert all(hot[place] for place in DEFECTS["hot"])
    note = next(n for n in found.notes if "joined" in n)
    assert "5 integrations of 8 groups of 4 frames (SHALLOW4, 10 s) for rates" in note


@pytest.mark.slow
def test_a_pixel_born_in_darks_of_another_readout_is_hot(tmp_path):
    rates = write_darks(tmp_path, exposures=5, groups=30)
    rates += [shallow(tmp_path, 6 + k, 50 + k, rate=400.0) for k in range(4)]
    found = run(rates)
    assert found.maps["hot"][15, 60]
    assert any("became hot" in note for note in found.notes)


def test_one_depth_says_nothing_of_joining(tmp_path):
    assert not any("joined" in note for note in run(write_darks(tmp_path, exposures=3, groups=12)).notes)


def test_irs2_and_other_patterns_are_not_joined(tmp_path):
    rates = [*write_darks(tmp_path, exposures=3, groups=12), shallow(tmp_path, 9, 9)]
    one = write_darks(tmp_path / "irs2", exposures=1, groups=12, READPATT="NRSIRS2")
    with pytest.raises(DataError, match="READPATT = 'NRSIRS2'"):
        inputs.open_darks([*rates, *one], {})
    kept = inputs.open_darks([*rates, *one], {}, skip_bad=True)
    assert len(kept.files) == 4


def test_the_documented_rules_count_each_depth_by_its_own_groups(tmp_path):
    """Ten jumps in the first quarter of 40 groups are early; of the first 24 groups they are not all."""
    rates = write_darks(tmp_path / "long", exposures=4, groups=40, defects={})
    rates += write_darks(tmp_path / "short", exposures=4, groups=24, seed=20, defects={})
    for path, last in [(p, 11) for p in rates[:4]] + [(p, 7) for p in rates[4:]]:
        with fits.open(str(path).replace("_rateints", "_jump"), mode="update") as hdus:
            hdus["GROUPDQ"].data[:, 1:last, 20, 30] |= JUMP
    opened = inputs.open_darks(rates, {})
    found = search(opened, replace(DarkSettings.in_set("documented"), max_jump_limit=6), memory=48e6)
    assert found.maps["rc"][20, 30]
    assert found.maps["rc"].sum() == 1
