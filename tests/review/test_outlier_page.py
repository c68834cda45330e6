"""What flags cost, before they are written: `outlier ifu|image --preview`, and the page of `--report`."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from badpix.cli.main import outlier
from badpix.cli.preview import tell_cost
from badpix.cli.talk import Talk
from badpix.ifu.cost import measure_losses
from badpix.numerics.coverage import count_depth
from badpix.review.outlier_page import make_page
from badpix.simulation.ifu_files import write_association
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import PRESETS, Setup


def _call(*words):
    return CliRunner().invoke(outlier, [str(w) for w in words])


@pytest.fixture(scope="module")
def ifu(tmp_path_factory):
    """An association of 3 small MRS exposures."""
    folder = tmp_path_factory.mktemp("ifu")
    return write_association(folder, detectors=["MIRIFUSHORT"], exposures=3, seed=5, shape=(120, 130))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An association of 3 small images."""
    folder = tmp_path_factory.mktemp("image")
    return simulate(folder, Setup(**{**PRESETS["sw"], "groups": 3, "seed": 4, "shape": (96, 96)}))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ifu", "image"])
def test_a_preview_writes_nothing_and_says_what_writing_gives(kind, request, tmp_path, monkeypatch):
    table = request.getfixturevalue(kind)
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in table.parent.iterdir())
    preview = _call(kind, table, "--preview", "--json", "--max-flagged", "50")
    assert preview.exit_code == 0, preview.stderr
    assert sorted(p.name for p in table.parent.iterdir()) == before
    assert list(tmp_path.iterdir()) == []
    told = json.loads(preview.stdout)
    assert told["outputs"] == []
    written = json.loads(_call(kind, table, "-o", tmp_path / "out", "--json", "--max-flagged", "50").stdout)
    assert told["exposures"] == written["exposures"]  # flagged and newly unusable pixels among them
    assert sum(row["newly_unusable"] for row in told["exposures"]) > 0
    assert "cost" not in written
    (depth,) = told["cost"]["depth"]
    assert sum(depth["before"]) == sum(depth["after"])
    assert depth["before"][0] + depth["covered"] == sum(depth["before"])
    assert depth["after"][0] - depth["before"][0] == depth["holes"]


def test_the_tables_fit_80_columns(capsys, monkeypatch):
    name = "jw01234001001_02101_00001_mirifushort_cal.fits"
    cost = {
        "exposures": [{"exposure": name, "sources": 1234, "losing": 567, "worst": 0.5, "unsearched": 1.0}],
        "sources": [{"exposure": name, "source": "123.456789 -12.345678", "lost": 0.5, "verdict": "suspect"}],
        "depth": [count_depth("MIRIFUSHORT", np.array([[1, 2]]), np.array([[0, 2]]))],
    }
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tell_cost(Talk({}), cost)
    told = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)  # colors take no room
    assert "00001_mirifushort" in told
    assert max(len(line.rstrip()) for line in told.splitlines()) <= 80


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ifu", "image"])
def test_one_page(kind, request, tmp_path):
    table = request.getfixturevalue(kind)
    pages = []
    for name in ("a.html", "b.html"):
        result = _call(kind, table, "--preview", "--report", tmp_path / name, "--set", "default")
        assert result.exit_code == 0, result.stderr
        pages.append((tmp_path / name).read_text())
    assert pages[0] == pages[1]
    assert "<!--" not in pages[0].replace("<!DOCTYPE", "")
    assert not re.search(r"(src|href)=\"(?!#|data:)", pages[0])  # loads nothing
    for path in sorted(table.parent.glob("*_cal.fits")):
        assert path.name.removesuffix("_cal.fits") in pages[0]
    again = _call(kind, table, "--preview", "--report", tmp_path / "a.html")
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_texts_of_the_page_are_escaped():
    summary = {
        "command": "outlier image",
        "code": "1 <b>",
        "inputs": [],
        "parameters": {"x": "<script>"},
        "left_out": ["<img>"],
        "exposures": [{"input": "<i>_cal.fits", "flagged": 3, "newly_unusable": 3}],
        "cost": {
            "exposures": [],
            "sources": [{"source": "<u>", "exposure": "<q>_cal.fits", "lost": 0.5}],
            "depth": [count_depth("<s>", np.array([[1, 2]]), np.array([[0, 2]]))],
        },
        "transients": [{"kind": "<tt>", "ra": 1.0, "dec": 2.0, "flux": 3.0, "snr": 40.0, "detections": []}],
    }
    page = make_page(summary, ["<blink>"], preview=False)
    for tag in ("<script>", "<img>", "<i>", "<u>", "<q>", "<s>", "<tt>", "<blink>", "<b>"):
        assert tag not in page
    assert "1 holes" in page


@pytest.mark.parametrize("words", [["-o", "x", "--report", "r.pdf"], []])
def test_calls_at_fault(ifu, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = _call("ifu", ifu, *words)
    assert result.exit_code == 2
    assert "--report" in result.stderr or "--output-dir" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_too_many_flags_are_a_note_of_a_preview(ifu):
    result = _call("ifu", ifu, "--preview", "--max-flagged", "0.01")
    assert result.exit_code == 0
    assert "would stop with exit status 3" in result.stderr


@pytest.mark.parametrize("across", [1, 0])
def test_light_lost_by_slice(across):
    """A trace of 3 pixels in one of two slices: flags on its middle cost half of it, hits are no light."""
    sci = np.full((40, 24), 10.0, np.float32)
    slices = np.zeros((40, 24), int)
    slices[:, 1:11], slices[:, 13:23] = 1, 2
    sci[:, 5:8] += np.array([25.0, 50.0, 25.0], np.float32)
    flagged = np.zeros(sci.shape, bool)
    flagged[10:14, 6] = flagged[20, 15] = True
    sci[flagged] += 1000
    err = np.full(sci.shape, 0.5, np.float32)
    arrays = (a.T if across == 0 else a for a in (sci, err, flagged, slices))
    (row,) = measure_losses(*arrays, across)
    assert row["source"] == "slice 1"
    assert (row["rows"], row["rows_losing"]) == (40, 4)
    assert row["lost"] == pytest.approx(0.5 * 4 / 40)


def test_depth_counts_holes():
    before = np.array([[0, 1, 2], [2, 3, 1]])
    after = np.array([[0, 0, 2], [1, 0, 1]])
    found = count_depth("x", before, after)
    assert found == {"stack": "x", "before": [1, 2, 2, 1], "after": [3, 2, 1, 0], "covered": 5, "holes": 2}
