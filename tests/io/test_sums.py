"""Sums over the bytes of a file are those that astropy writes and verifies, for whatever it writes."""

import numpy as np
import pytest
from astropy.io import fits

from badpix.io.sums import read_sums


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(2)
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(rng.integers(0, 99, (37, 41), np.uint32), name="DQ")])
    hdus.append(fits.BinTableHDU.from_columns([fits.Column("a", "5A", array=["x", "yy"])], name="DQ_DEF"))
    hdus.append(fits.CompImageHDU(np.arange(600, dtype="i4").reshape(20, 30), name="PACKED"))
    hdus.writeto(tmp_path / "a.fits", checksum=True)
    return tmp_path / "a.fits"


def test_what_astropy_wrote_is_right(path):
    found = read_sums(path)
    assert [(s.extension, s.keyword) for s in found] == [
        (name, key) for name in ("PRIMARY", "DQ", "DQ_DEF", "PACKED") for key in ("CHECKSUM", "DATASUM")
    ]
    assert all(s.right for s in found), found


@pytest.mark.parametrize("where", ["header", "data"])
def test_one_bit_is_noticed(path, where):
    content = bytearray(path.read_bytes())
    at = content.index(b"DQ      ") if where == "header" else content.index(b"END" + b" " * 77, 2880) + 3000
    content[at] ^= 1
    path.write_bytes(content)
    wrong = {(s.extension, s.keyword) for s in read_sums(path) if not s.right}
    assert {keyword for _, keyword in wrong} == ({"CHECKSUM"} if where == "header" else {"CHECKSUM", "DATASUM"})


def test_missing_sums_are_not_wrong(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((3, 4), "i2"), name="DQ")]).writeto(tmp_path / "a.fits")
    assert {s.right for s in read_sums(tmp_path / "a.fits")} == {None}
