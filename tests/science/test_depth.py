"""The depth of science exposures: predicted completeness against real defects at the same strengths."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from science_files import NOISE, write_program

from badpix.api.science import find_science_defects
from badpix.cli.main import badpix
from badpix.mask.depth import make_curves
from badpix.science import completeness, decide, series
from badpix.settings.science import ScienceSettings

pytestmark = pytest.mark.slow  # programs of exposures are simulated and searched
GRID = [(y + 3 * (x // 7) % 7, x) for y in range(4, 85, 7) for x in range(5, 92, 7)]  # 156 places, two in a row
Y, X = np.transpose(GRID)


def add(height):
    def detector(light, k):
        out = light.copy()
        out[Y, X] += height
        return out

    return detector


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_program(tmp_path_factory.mktemp("good"), lambda light, k: light, seed=11)


@pytest.fixture(scope="module")
def found(good):
    return find_science_defects(good, ScienceSettings(depth=True))


def test_a_mask_is_the_same_with_depth(good, found):
    plain = find_science_defects(good)
    np.testing.assert_array_equal(plain.image, found.image)
    assert not plain.evidence.depth


def test_equal_whatever_the_bands(good, found):
    other = find_science_defects(good, ScienceSettings(depth=True), memory=1.2e6)
    assert other.evidence.depth == found.evidence.depth
    assert other.evidence.alarms == found.evidence.alarms


def test_curves_rise_to_all(found):
    curves = {c.search: c for c in make_curves(found.evidence.depth)}
    for name in ("science_hot", "science_born", "science_switching", "science_low"):
        ends = curves[name].completeness[0], curves[name].completeness[-1]
        assert min(ends) < 0.1, name
        assert max(ends) > 0.9, name
    stack = 1.08 * NOISE / np.sqrt(24)
    assert 4 * stack < curves["science_hot"].half < 5.5 * stack


def test_real_hot_pixels_are_found_as_predicted(found, tmp_path):
    curve = next(c for c in make_curves(found.evidence.depth) if c.search == "science_hot")
    levels = np.resize(curve.levels, len(Y))  # 26 real pixels of each strength, in the same light
    real = find_science_defects(write_program(tmp_path, add(levels), seed=11))
    share = (real.maps["science_hot"] | real.maps["science_warm"])[Y, X].mean()
    assert abs(share - np.mean(curve.completeness)) < 0.15  # three errors of 72 copies and 156 real ones


def test_the_depth_is_told(good, tmp_path):
    mask = tmp_path / "m.fits"
    words = ["science", *map(str, good), "-o", str(mask), "--author", "A", "-q", "--depth"]
    assert CliRunner().invoke(badpix, words).exit_code == 0
    told = CliRunner().invoke(badpix, ["depth", str(mask)])
    assert told.exit_code == 0, told.output
    assert "hot in science exposures" in told.output


@pytest.mark.parametrize("dispersed", [False, True])
def test_the_sign_test_asks_what_the_rules_ask(dispersed):
    """Dark pixels count as alarms where the same pixels, bright, would be hot; a dark line in one visit is none."""
    rng = np.random.default_rng(8)
    z = rng.normal(size=(16, 600)).astype(np.float32)
    z[:, :100] -= 2  # steady
    z[:4, 100:200] -= 8  # in one visit of four
    weight, level = np.ones_like(z), np.full_like(z, 1000.0)
    visits, shares, p = np.arange(16) // 4, np.full(16, 1e-3), ScienceSettings()
    dark, bright = (series.measure(sign * z, weight, level, visits, shares) for sign in (1, -1))
    wider = decide.LINES if dispersed else 1.0
    agreed = decide.find_agreed(bright, dispersed)
    by_noise = None if dispersed else bright["noise_error"]
    hot, _ = decide.find_steady(
        bright["mean"], bright["error"] * np.float32(wider), by_noise, agreed, p.science_sigma
    )
    (alarm,) = completeness.count_below(dark, 600, 1.0, p, dispersed=dispersed)
    assert alarm.flagged == hot.sum()
    assert 90 <= alarm.flagged <= 103
