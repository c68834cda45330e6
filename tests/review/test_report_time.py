"""The order of time in a report: births by date, what they ask of USEAFTER, rates by date."""

from __future__ import annotations

import re

import numpy as np
import pytest
from evidence_files import FLAGS, make_evidence
from mask_files import SUB64, make_mask

from badpix.io import evidence_file
from badpix.io.evidence import Samples
from badpix.mask import file as mask_file
from badpix.mask.file import read_mask
from badpix.review import report, report_time
from badpix.settings.check import CheckSettings

DATES = np.array([61072.0, 61102.5, 61132.0, 61162.0])  # 2026-02-01, 03-03 12:00, 04-02, 05-02


def with_time():
    """Three births at two dates, one recovery, rates of two pixels."""
    made = make_evidence()
    shape = made.images["dark_rate"].shape
    first, last = (np.full(shape, np.nan, np.float32) for _ in range(2))
    born, recovered = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for (y, x), date in (((10, 20), DATES[1]), ((10, 21), DATES[3]), ((10, 26), DATES[3])):
        first[y, x], last[y, x], born[y, x] = date, DATES[3], 1
    first[30, 30], last[30, 30], recovered[30, 30] = DATES[0], DATES[1], 1
    made.images |= {"dark_bright_first": first, "dark_bright_last": last, "dark_born": born}
    made.images["dark_recovered"] = recovered
    made.exposures = [(f"dark{k}.fits", date, 1.0) for k, date in enumerate(DATES)]
    x, y = np.array([20, 30], np.int32), np.array([10, 30], np.int32)
    made.samples["step_rate"] = Samples(x, y, np.array([[0, 5, 5, np.nan], [7, 7, 0, 0]], np.float32))
    made.samples["step_state"] = Samples(x, y, np.array([[0, 1, 1, np.nan], [1, 1, 0, 0]], np.float32))
    return made


@pytest.fixture
def mask(tmp_path):
    path = make_mask(tmp_path / "m.fits", window=SUB64, flags=FLAGS, SUBARRAY="SUB64", USEAFTER="2026-02-01T00:00:00")
    return read_mask(path)


def test_births_by_date_and_the_useafter_they_ask_for(mask):
    block = report_time.time_block(mask, with_time())
    assert "4 darks, 2026-02-01 to 2026-05-02: 3 became hot" in block
    assert "right from USEAFTER 2026-05-02T00:00:00 on" in block
    assert "born at 2 dates" in block
    assert "3 of its hot pixels were still good then" in block
    rows = re.findall(r"<tr><td[^>]*>(2026[^<]*)</td><td[^>]*>(\d+)</td><td[^>]*>(\d+)</td>", block)
    assert rows == [("2026-03-03", "1", "1"), ("2026-05-02", "2", "0")]


def test_a_mask_for_the_newest_darks_alone_flags_nothing_early(mask):
    mask.header["USEAFTER"] = "2026-05-02T00:00:00"
    assert "none of them was good then" in report_time.time_block(mask, with_time())


def test_rates_are_drawn_dark_by_dark(mask):
    block = report_time.time_block(mask, with_time())
    (born,) = re.findall(r"<figure>(.*?)<figcaption>[^<]*became hot</figcaption>", block)
    assert born.count('<circle class="mark"') == 2
    assert born.count('<circle class="dot"') == 1
    (gone,) = re.findall(r"<figure>(?:(?!<figure>).)*?<figcaption>[^<]*recovered</figcaption>", block)
    assert gone.count('<circle class="mark"') == 2
    corner = mask.window.xstart - 1, mask.window.ystart - 1
    assert f"Pixel {20 + corner[0]}, {10 + corner[1]}: became hot" in block


def test_nothing_is_told_where_nothing_is_known(mask):
    assert report_time.time_block(mask, None) == ""
    assert report_time.time_block(mask, make_evidence()) == ""
    quiet = with_time()
    for name in ("dark_born", "dark_recovered"):
        quiet.images[name] = np.zeros_like(quiet.images[name])
    assert "became hot, 0" in report_time.time_block(mask, quiet).replace("0 became", "became")
    assert "USEAFTER" not in report_time.time_block(mask, quiet)


def test_the_page_has_it(tmp_path, mask):
    evidence_file.write(evidence_file.path_beside(mask.path), with_time(), mask_file.evidence_header(mask.path))
    report.write_report(mask.path, tmp_path / "r.html", CheckSettings.in_set())
    assert "In the order of time" in (tmp_path / "r.html").read_text()
