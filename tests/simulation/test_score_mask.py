"""Scores: counted by hand, and intervals against scipy's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from badpix import dq
from badpix.cli.main import badpix
from badpix.settings.simulate import SimulateSettings
from badpix.simulation import score_mask as score
from badpix.simulation.defects import DEFECT
from badpix.simulation.files import simulate

HOT, DEAD, RC, ADJ = (np.uint32(dq.VALUE[k]) for k in ("HOT", "DEAD", "RC", "ADJ_OPEN"))
DO_NOT_USE, REFERENCE = np.uint32(1), np.uint32(dq.VALUE["REFERENCE_PIXEL"])


def example():
    """6 x 6 with a reference column: hot (found), hot (called RC), dead (missed), a false RC beside the dead one."""
    truth = np.zeros((6, 6), np.uint32)
    truth[:, 0] = REFERENCE
    truth[1, 1], truth[2, 4], truth[5, 5] = HOT, HOT, DEAD
    truth[0, 5] = ADJ
    rows = np.array(
        [
            ("HOT", 1, 1, 3.0, "isolated", 0, 0),
            ("HOT", 4, 2, 10.0, "edge", 0, 0),
            ("DEAD", 5, 5, 0.0, "corner", 0, 0),
        ],
        dtype=DEFECT,
    )
    flags = np.zeros_like(truth)
    flags[1, 1] = HOT | DO_NOT_USE
    flags[2, 4] = RC | DO_NOT_USE
    flags[4, 5] = RC
    flags[3, 2] = RC
    flags[0, 5] = ADJ
    flags[5, 5] = DO_NOT_USE
    flags[:, 0] = REFERENCE | HOT  # not science: says nothing
    return flags, truth, rows


def test_counts_by_hand():
    flags, truth, rows = example()
    found = {
        (r.type, r.level, r.setting): (r.injected, r.found, r.flagged)
        for r in score.count_found(flags, truth, rows, score.SEARCHES["all"])
    }
    assert found["HOT", 3.0, "all"] == (1, 1, 1)
    assert found["HOT", 10.0, "all"] == (1, 0, 1)
    assert found["HOT", None, "edge"] == (1, 0, 1)
    assert found["HOT", None, "all"] == (2, 1, 2)
    assert found["DEAD", None, "all"] == (1, 0, 0)  # DO_NOT_USE alone names no type
    assert found["ADJ_OPEN", None, "all"] == (1, 1, 1)
    claimed = {r.flag: r for r in score.count_claimed(flags, truth, score.SEARCHES["all"])}
    assert claimed["HOT"] == score.Claimed("HOT", 1, 1, 0, 0, 0, 26)
    assert claimed["RC"] == score.Claimed("RC", 3, 0, 1, 2, 1, 26)
    assert claimed["ADJ_OPEN"] == score.Claimed("ADJ_OPEN", 1, 1, 0, 0, 0, 26)
    assert claimed["any"].false == 2


def test_noisy_pixels_are_also_counted_by_their_true_noise():
    rows = np.array(
        [
            ("NOISY", 0, 0, 1.5, "isolated", 1.4, 0),
            ("NOISY", 1, 0, 1.5, "isolated", 1.9, 0),
            ("NOISY", 2, 0, 0.0, "natural", 1.8, 0),
            ("NOISY", 3, 0, 3.0, "edge", 3.3, 0),
        ],
        dtype=DEFECT,
    )
    truth = np.full((1, 4), dq.VALUE["UNRELIABLE_SLOPE"], np.uint32)
    flags = truth * np.array([[1, 1, 0, 1]], np.uint32)
    found = {(r.level, r.setting): (r.injected, r.found) for r in score.count_found(flags, truth, rows, ["NOISY"])}
    assert found == {
        (1.5, "all"): (2, 2),
        (3.0, "all"): (1, 1),
        (None, "isolated"): (2, 2),
        (None, "natural"): (1, 0),
        (None, "edge"): (1, 1),
        (None, score.LOUD): (3, 2),
        (None, "all"): (4, 3),
    }


def test_search_limits_types():
    result = score.score([example()], "flats")
    assert {r["flag"] for r in result["flags"]} == {"DEAD", "LOW_QE", "OPEN", "ADJ_OPEN", "any"}
    assert {r["type"] for r in result["completeness"]} <= set(score.SEARCHES["flats"])
    assert next(r for r in result["flags"] if r["flag"] == "any")["false"] == 0


def test_several_masks_add_up():
    one, two = score.score([example()]), score.score([example(), example()])
    for a, b in zip(one["completeness"], two["completeness"], strict=True):
        assert (2 * a["injected"], 2 * a["found"], 2 * a["flagged"]) == (b["injected"], b["found"], b["flagged"])
    for a, b in zip(one["flags"], two["flags"], strict=True):
        assert 2 * a["false"] == b["false"]
        assert a["false_per_million"] == b["false_per_million"]


images = hnp.arrays(np.uint32, (7, 6), elements=st.sampled_from([0, 0, 0, int(HOT), int(DEAD), int(RC | HOT)]))


@pytest.mark.slow
@given(images, images)
def test_flagged_pixels_are_right_other_or_false(flags, truth):
    for row in score.count_claimed(flags, truth, score.SEARCHES["all"]):
        assert row.set == row.right + row.other + row.false
        assert row.near <= row.false
        assert row.good == np.count_nonzero(truth == 0)


@given(images)
def test_the_truth_is_a_perfect_mask(truth):
    for row in score.count_claimed(truth, truth, score.SEARCHES["all"]):
        assert row.set == row.right
        assert row.false == 0


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (3, 100000)])
def test_intervals(k, n):
    test = stats.binomtest(k, n)
    for ours, method in ((score.wilson, "wilson"), (score.clopper_pearson, "exact")):
        theirs = test.proportion_ci(0.95, method=method)
        np.testing.assert_allclose(ours(k, n), (theirs.low, theirs.high), rtol=1e-5, atol=1e-12)


def test_nothing_counted_gives_no_number():
    assert score.wilson(0, 0) == score.clopper_pearson(0, 0) == (0.0, 1.0)
    flags = np.zeros((3, 3), np.uint32)
    result = score.score([(flags, flags, np.empty(0, DEFECT))])
    assert all(r["completeness"] is None for r in result["completeness"])
    assert all(r["purity"] is None for r in result["flags"])


def test_grow_is_the_8_neighbors():
    rng = np.random.default_rng(1)
    bad = rng.random((9, 8)) < 0.1
    expected = np.array(
        [[bad[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any() for x in range(8)] for y in range(9)]
    )
    np.testing.assert_array_equal(score.grow(bad), expected)


@pytest.mark.slow
def test_command(tmp_path):
    p = SimulateSettings.from_values({"size": [64, 64], "flats": 0, "darks": 0}, "test")
    truth = str(simulate(tmp_path, p)["truth"][0])
    mask = str(tmp_path / "mask.fits")
    with fits.open(truth) as hdus:  # what a perfect search would flag
        fits.HDUList([hdu.copy() for hdu in hdus if hdu.name in ("PRIMARY", "DQ", "DQ_DEF")]).writeto(mask)
    result = CliRunner().invoke(badpix, ["score", mask, truth, mask, truth, "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["masks"] == 2
    assert all(r["completeness"] == 1 for r in summary["completeness"] if r["injected"])
    table = CliRunner().invoke(badpix, ["score", mask, truth, "--by-setting"])
    assert "isolated" in table.stdout
    assert "false per million" in table.stdout
    assert CliRunner().invoke(badpix, ["score", truth]).exit_code == 2
    other = tmp_path / "other.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((4, 5), np.uint32), name="DQ")]).writeto(other)
    failed = CliRunner().invoke(badpix, ["score", str(other), truth])
    assert failed.exit_code == 1
    assert "5 x 4" in failed.stderr
