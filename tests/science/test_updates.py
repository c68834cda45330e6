"""Masks from science exposures that update older ones: what shallow exposures can't see stays flagged."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from science_files import write_program

from badpix import dq
from badpix.cli.main import badpix
from badpix.mask.file import read_mask

STRONG, FAINT, LEFT, SWITCHING = (30, 40), (60, 20), (80, 81), (15, 70)  # y, x
HOT, SLOPE, LOW = (np.uint32(dq.VALUE[name]) for name in ("HOT", "UNRELIABLE_SLOPE", "LOW_QE"))


def old_detector(light, k):
    out = light.copy()
    out[STRONG] += 0.5
    out[LEFT] += 0.5
    out[FAINT] += 0.06  # nine errors of 24 exposures, and below five of six
    out[SWITCHING] += 0.8 * (k % 3 == 0)
    return out


def new_detector(light, k):
    out = light.copy()
    out[LEFT] += 0.5
    return out


def invoke(*words):
    result = CliRunner().invoke(badpix, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result.output


def flags(path, place):
    return read_mask(path).image[place]


pytestmark = pytest.mark.slow  # programs of exposures are simulated and searched


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("updates")
    quiet = ("--author", "A", "-q")
    invoke("science", *write_program(path / "old", old_detector), "-o", path / "old.fits", *quiet)
    shallow = write_program(path / "few", new_detector, exposures=2, seed=7)
    invoke("science", *shallow, "-o", path / "shallow.fits", *quiet)
    deep = write_program(path / "many", new_detector, exposures=12, seed=8)
    invoke("science", *deep, "-o", path / "deep.fits", *quiet)
    for name in ("shallow", "deep"):
        new = path / f"{name}.fits"
        invoke("update", path / "old.fits", "--science", new, "-o", path / f"by_{name}.fits", *quiet)
    return path


def test_what_was_there(folder):
    for place, flag in ((STRONG, HOT), (LEFT, HOT), (FAINT, HOT), (SWITCHING, SLOPE)):
        assert flags(folder / "old.fits", place) & flag, place


def test_shallow_exposures_let_strong_pixels_recover_alone(folder):
    mask = folder / "by_shallow.fits"
    assert flags(mask, STRONG) == 0
    assert flags(mask, LEFT) & HOT
    assert flags(mask, FAINT) & HOT
    assert flags(mask, SWITCHING) & SLOPE
    told = invoke("explain", mask, FAINT[1] + 100, FAINT[0] + 100)
    assert "too faint for the new exposures to be sure that it is gone" in told


def test_deep_exposures_let_all_recover(folder):
    mask = folder / "by_deep.fits"
    assert [int(flags(mask, place)) for place in (STRONG, FAINT, SWITCHING)] == [0, 0, 0]
    assert flags(mask, LEFT) & HOT


def test_flags_of_darks_stay(folder):
    """The dark reference has taken the excess of a pixel that darks found hot off science exposures."""
    with fits.open(folder / "old.fits") as hdus:
        history = [line for line in hdus[0].header["HISTORY"] if "science" not in line]
        del hdus[0].header["HISTORY"]
        for line in history:
            hdus[0].header.add_history(line)
        hdus.writeto(folder / "foreign.fits", checksum=True)
    invoke(
        "update", folder / "foreign.fits", "--science", folder / "deep.fits", "-o", folder / "f.fits",
        "--author", "A", "-q",
    )  # fmt: skip
    assert flags(folder / "f.fits", STRONG) & HOT
    assert flags(folder / "f.fits", FAINT) & HOT


def test_a_new_mask_without_evidence_proves_nothing(folder):
    new = folder / "bare.fits"
    invoke("science", folder / "many", "-o", new, "--author", "A", "-q", "--no-evidence")
    invoke("update", folder / "old.fits", "--science", new, "-o", folder / "b.fits", "--author", "A", "-q")
    assert flags(folder / "b.fits", STRONG) & HOT
