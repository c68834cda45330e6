"""What `outlier ifu` and `outlier image` put aside goes into `badpix science --from`, with their flags."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix import dq
from badpix.cli.main import badpix, outlier
from badpix.mask.file import read_mask

pytestmark = pytest.mark.slow  # programs are simulated and searched
OUTLIER, OTHER = dq.VALUE["OUTLIER"], dq.VALUE["OTHER_BAD_PIXEL"]
ALONE = ("--min-pointings", "1", "--min-visits", "1")  # one association has one visit


def invoke(command, *words):
    result = CliRunner().invoke(command, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_pixels_that_outlier_ifu_flags_in_all_exposures(tmp_path):
    size = ("--size", "128 128", "--detector", "MIRIFUSHORT")
    invoke(outlier, "simulate-ifu", tmp_path / "sim", *size, "-q")
    table = next((tmp_path / "sim").glob("*asn.json"))
    invoke(outlier, "ifu", table, "--output-dir", tmp_path / "flagged", "-q")
    words = ("--reference-subarray", "MASK1550", "--author", "A", "-q")
    invoke(badpix, "science", "--from", tmp_path / "flagged", *ALONE, *words, "-o", tmp_path / "m.fits")
    exposures = sorted((tmp_path / "flagged").glob("*crf.fits"))
    flagged = np.all([fits.getdata(f, "DQ") & OUTLIER for f in exposures], axis=0)
    truth = [fits.getdata(f, "AMPLITUDE") != 0 for f in sorted((tmp_path / "sim" / "truth").glob("*.fits"))]
    found = (read_mask(tmp_path / "m.fits").image & OTHER) != 0
    assert flagged.sum() > 20
    assert (found & flagged).sum() > 0.95 * flagged.sum()
    assert (found & (np.mean(truth, axis=0) >= 0.5)).sum() > 0.9 * found.sum()
    y, x = np.argwhere(found)[0]
    assert "fraction flagged as outliers" in invoke(badpix, "explain", tmp_path / "m.fits", x, y)
    told = CliRunner().invoke(
        badpix, ["science", "--from", str(tmp_path / "flagged"), "-o", str(tmp_path / "n.fits")]
    )
    assert told.exit_code == 1
    assert "one pointing" in told.output


def test_exposures_of_outlier_image(tmp_path):
    invoke(outlier, "simulate-image", tmp_path / "sim", "--size", "128 128", "-q")
    invoke(outlier, "image", next((tmp_path / "sim").glob("*asn.json")), "--output-dir", tmp_path / "flagged", "-q")
    words = ("--reference-subarray", "SUB320A335R", "--author", "A", "-q", *ALONE)
    invoke(badpix, "science", "--from", tmp_path / "flagged", *words, "-o", tmp_path / "m.fits")
    mask = read_mask(tmp_path / "m.fits")
    assert ((mask.image != 0) & ~mask.reference).mean() < 0.003  # its exposures share few bad pixels
