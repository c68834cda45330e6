"""The share of pixels that flats could judge reaches `check`, the report and the pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from make_files import make_flats, write_rates

from badpix.cli.main import badpix
from badpix.detectors import Window
from badpix.mask.file import read_mask
from badpix.mask.history import read_judged
from badpix.review import check
from badpix.settings.check import CheckSettings


@pytest.fixture(scope="module")
def half_lit(tmp_path_factory):
    """The mask of three flats that light 60 of 96 columns, with its pictures."""
    place = tmp_path_factory.mktemp("half")
    y, x = np.mgrid[:80, :96]
    stack = make_flats(3, level=1.0) * np.where(x < 60, 1 + 0.3 * np.sin(y / 30), 0.001) * 100
    window = Window(300, 300, 96, 80)
    write_rates(place / "flats", stack, detector="MIRIFULONG", window=window, subarray="SUB64")
    words = ["flats", place / "flats", "-o", place / "m.fits", "--plot", place / "pictures", "--author", "A"]
    done = CliRunner().invoke(badpix, [*map(str, words), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return place


@pytest.mark.slow
def test_check_knows_the_share(half_lit):
    """A note says it; below the limit it is a warning; all judged says nothing."""
    mask = read_mask(half_lit / "m.fits")
    percent, line = read_judged(mask)
    assert percent == pytest.approx(62.5, abs=1.5)
    assert "2,880 dim" in line
    p = CheckSettings.in_set()
    checked = check.check_mask(half_lit / "m.fits", p)
    assert checked.summary()["judged_percent"] == percent
    (fault,) = (f for f in checked.faults if f.rule == "judged")
    assert fault.severity == "note"
    assert f"judged {percent:g} % of 7,680 science pixels" in fault.message
    strict = check.check_mask(half_lit / "m.fits", replace(p, min_judged_percent=80.0))
    (fault,) = (f for f in strict.faults if f.rule == "judged")
    assert fault.severity == "warning"
    assert "at least 80 %" in fault.message
    assert check.check_judged(99.0, "judged 99 % of 10 science pixels", p) == []


@pytest.mark.slow
def test_report_and_picture_show_it(half_lit):
    assert (half_lit / "pictures" / "flat_state.png").stat().st_size > 1000
    page = half_lit / "r.html"
    words = ["report", half_lit / "m.fits", "-o", page]
    done = CliRunner().invoke(badpix, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "% of 7,680 science pixels; undetermined:" in page.read_text()


@pytest.mark.slow
def test_merging_keeps_it(half_lit):
    words = ["merge", half_lit / "m.fits", "-o", half_lit / "merged.fits", "--author", "A", "--json"]
    done = CliRunner().invoke(badpix, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
    assert read_judged(read_mask(half_lit / "merged.fits")) == read_judged(read_mask(half_lit / "m.fits"))
