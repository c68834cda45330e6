"""The quick reader of headers against astropy, and what it must leave to astropy."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from checkout import ROOT
from hypothesis import given
from hypothesis import strategies as st
from make_files import make_hdus, write_rate

from badpix.io import headers
from badpix.io.exposure import open_exposure
from badpix.io.fits import plain_header
from badpix.io.structure import walk

DATA = ROOT.parent / "shared" / "data"
REAL = sorted(DATA.rglob("*.fits")) if DATA.is_dir() else []
IMAGE = np.arange(80 * 96, dtype=np.float32).reshape(80, 96)
TEXT = st.text("abc '/&=01.ET", max_size=30)
VALUES = st.one_of(
    TEXT, st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False)
)


def same_as_astropy(path):
    pieces = walk(path)
    units = headers.read_units(pieces)
    assert units is not None
    with fits.open(path, memmap=False) as hdus:
        assert len(units) == len(hdus)
        for unit, piece, hdu in zip(units, pieces, hdus, strict=True):
            wanted = plain_header(hdu.header)
            assert {**wanted, "EXTEND": None} == {**unit.header, "EXTEND": None}  # astropy adds that one
            info = hdu.fileinfo()
            assert (unit.offset, piece.end - piece.data) == (info["datLoc"], info["datSpan"])
            assert unit.name == ("" if hdu.name == "PRIMARY" else hdu.name)


@pytest.mark.parametrize("path", REAL or [None], ids=lambda p: getattr(p, "name", "none"))
def test_real_files(path):
    if path is None:
        pytest.skip("no real files here")
    same_as_astropy(path)


@pytest.mark.parametrize("shape", [(80, 96), (3, 80, 96), (2, 3, 80, 96)])
def test_slope_files_with_tables_and_long_texts(tmp_path, shape):
    hdus = make_hdus(np.zeros(shape, np.float32), S_REGION="POLYGON ICRS " + "1.234567890 " * 30)
    column = fits.Column("ASDF", "PB()", array=np.array([np.frombuffer(b"x" * 5000, np.uint8)], dtype=object))
    hdus.append(fits.BinTableHDU.from_columns([column], name="ASDF"))
    hdus.writeto(tmp_path / "a.fits")
    same_as_astropy(tmp_path / "a.fits")


@pytest.mark.slow
@given(st.dictionaries(st.from_regex(r"\A[A-Z][A-Z0-9_-]{2,6}Q\Z"), VALUES, max_size=8))
def test_values_are_those_of_astropy_or_left_to_it(values):
    header = fits.Header()
    for key, value in values.items():
        header[key] = (value, "a / comment")
    header["NOTHING"] = None
    text = header.tostring(endcard=False, padding=False)
    again = plain_header(fits.Header.fromstring(text))
    try:
        assert headers.parse(text) == again
    except headers.Odd:
        assert any("'" in str(v) or "&" in str(v) for v in values.values())


@pytest.mark.parametrize(
    "card",
    [
        "HIERARCH ESO DET = 1",
        "BLAH    no value",
        "ODD     = 'text",
        "ODD     = 1 2",
        "ODD     = (1, 2)",
        "ODD     = 'a\x1bb'",
        "ODD     = 'a'\x7f",
        "COMMENT \0",
    ],
)
def test_odd_cards_are_left_to_astropy(card):
    with pytest.raises(headers.Odd):
        headers.parse(card.ljust(80))


def test_both_ways_give_one_exposure(tmp_path, monkeypatch):
    path = write_rate(tmp_path / "a_rate.fits", IMAGE)
    quick = open_exposure(path)
    monkeypatch.setattr(headers, "read_units", lambda pieces: None)
    slow = open_exposure(path)
    assert quick.arrays == slow.arrays
    assert {k: v for k, v in slow.header.items() if k != "EXTEND"} == {
        k: v for k, v in quick.header.items() if k != "EXTEND"
    }
