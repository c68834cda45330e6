"""What is told of pixels in science exposures: series in the evidence, dates by `explain`, report and pictures."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from science_files import NOISE, write_program

from badpix.cli.main import badpix
from badpix.io.spill import DiskTable
from badpix.mask.file import read_mask
from badpix.review.readings import read_evidence

BORN, GONE, STEADY, GOOD = (30, 40), (60, 20), (80, 81), (50, 70)  # y, x
WHEN = 14  # exposure of the birth, in the second visit; 2023-03-07 by its EXPSTART
SHIFT = 100  # of the window, as 0-based pixels


def detector(light, k):
    out = light.copy()
    out[STEADY] += 1
    out[BORN] += 0.9 if k >= WHEN else 0
    out[GONE] += 0.8 if k < 8 else 0
    return out


def invoke(*words):
    result = CliRunner().invoke(badpix, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result.output


pytestmark = pytest.mark.slow  # programs of exposures are simulated and searched


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("told")
    write_program(path / "exposures", detector)
    invoke("science", path / "exposures", "-o", path / "m.fits", "--author", "A", "-q", "--plot", path / "pictures")
    return path


def explain(mask, place):
    return invoke("explain", mask, place[1] + SHIFT, place[0] + SHIFT)


def test_series_hold_what_was_put_in(folder):
    found, _ = read_evidence(read_mask(folder / "m.fits"))
    samples = found.samples["science_excess"]
    places = list(zip(samples.y, samples.x, strict=True))
    assert {BORN, GONE, STEADY} <= set(places)
    assert GOOD not in places
    assert len(found.science_exposures) == samples.values.shape[1] == 24
    dates = [mjd for _, mjd, _ in found.science_exposures]
    assert dates == sorted(dates)
    born = samples.values[places.index(BORN)]
    assert np.abs(np.median(born[WHEN:]) - 0.9) < 4 * NOISE
    assert np.abs(np.median(born[:WHEN])) < 4 * NOISE


def test_explain_tells_dates(folder):
    born, gone = explain(folder / "m.fits", BORN), explain(folder / "m.fits", GONE)
    assert "became hot between these science exposures, by 2023-03-07" in born
    assert "Above 4 sigma in 10 of 24 science exposures, first 2023-03-07, last 2023-03-17." in born
    assert "was hot in the older science exposures and is no more, by 2023-03-07" in gone
    assert "2023-02-25 0.8" in gone
    assert "became hot" not in explain(folder / "m.fits", STEADY)
    assert "science exposures" not in explain(folder / "m.fits", GOOD)


def test_dates_survive_a_merge(folder):
    invoke("merge", folder / "m.fits", "-o", folder / "merged.fits", "--author", "A", "-q")
    assert "by 2023-03-07" in explain(folder / "merged.fits", BORN)


def test_report_shows_births_and_series(folder):
    invoke("report", folder / "m.fits", "-o", folder / "m.html", "-q")
    page = (folder / "m.html").read_text()
    assert "Pixels in science exposures" in page
    assert "<td>became hot</td><td>2023-03-07</td>" in page.replace("\n", "")
    assert f"science_hot pixel ({STEADY[1] + SHIFT}, {STEADY[0] + SHIFT})" in page


def test_pictures(folder):
    written = {p.name for p in (folder / "pictures").iterdir()}
    assert written == {
        "science_sigma.png",
        "science_sigma_histogram.png",
        "science_flags.png",
        "series_science_hot.png",
    }


def test_rows_on_disk_come_back():
    rows = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    table = DiskTable(5)
    table.append(rows[:3])
    table.append(rows[3:])
    np.testing.assert_array_equal(table.read(np.array([0, 3, 6])), rows[[0, 3, 6]])
