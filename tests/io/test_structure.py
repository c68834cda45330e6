"""The structure of FITS files: what is walked is what astropy finds; what can't be is refused before it is asked."""

import os
import time

import numpy as np
import pytest
from astropy.io import fits

from badpix.errors import DataError
from badpix.io import structure
from badpix.io.structure import BLOCK, CARD, measure_data, walk
from badpix.outside import open_regular


def cards(**values):
    """Header text of some cards, END left out; values as they stand in the value field."""
    rows = [f"{key:8s}= {value:>20s}" for key, value in values.items()]
    return "".join(f"{row:{CARD}s}" for row in rows).encode()


def image(**more):
    return cards(**({"XTENSION": "'IMAGE   '", "BITPIX": "-32", "NAXIS": "2", "NAXIS1": "64", "NAXIS2": "48"} | more))


def table(**more):
    usual = {
        "XTENSION": "'BINTABLE'",
        "BITPIX": "8",
        "NAXIS": "2",
        "NAXIS1": "8",
        "NAXIS2": "48",
        "PCOUNT": "900",
        "GCOUNT": "1",
        "TFIELDS": "1",
        "TFORM1": "'1PB(20) '",
    }
    return cards(**(usual | more))


TILES = {"ZIMAGE": "T", "ZBITPIX": "-32", "ZNAXIS": "2", "ZNAXIS1": "64", "ZNAXIS2": "48"}

IMPOSSIBLE = {
    "no BITPIX": (cards(XTENSION="'IMAGE   '", NAXIS="0"), "BITPIX is missing"),
    "odd BITPIX": (image(BITPIX="12"), "BITPIX = 12"),
    "no NAXIS": (cards(XTENSION="'IMAGE   '", BITPIX="8"), "NAXIS is missing"),
    "textual NAXIS": (image(NAXIS="'two'"), "NAXIS = .*whole number"),
    "negative NAXIS": (image(NAXIS="-1"), "NAXIS = -1"),
    "too many axes": (image(NAXIS="1000"), "at most 999 axes"),
    "missing axis": (image(NAXIS="3"), "NAXIS3 is missing"),
    "fractional size": (image(NAXIS1="64.5"), "NAXIS1 = '64.5', expected a whole number"),
    "exponent": (image(NAXIS1="1E3"), "NAXIS1 = '1E3'"),
    "beyond 64 bits": (image(NAXIS1="9" * 20), "NAXIS1 = '9{20}', expected at most 18 digits"),
    "underscore": (image(NAXIS1="1_0"), "NAXIS1 = '1_0'"),
    "negative size": (image(NAXIS2="-48"), "NAXIS2 = -48"),
    "negative heap": (image(PCOUNT="-4"), "PCOUNT = -4"),
    "negative groups": (image(GCOUNT="-1"), "GCOUNT = -1"),
    "a frame too large": (image(NAXIS1="3201", NAXIS2="2048"), "claims 3201 x 2048 pixels"),
    "size given twice": (image() + cards(NAXIS1="64"), "NAXIS1 stands twice"),
    "free format": (image()[:-CARD] + b"NAXIS2=48".ljust(CARD), "fixed format"),
    "lower case": (image() + b"naxis1  =   640000".ljust(CARD), "fixed format"),
    "table of three axes": (table(NAXIS="3", NAXIS3="2"), "NAXIS = 3"),
    "no TFIELDS": (cards(XTENSION="'BINTABLE'", BITPIX="8", NAXIS="2", NAXIS1="8", NAXIS2="1"), "TFIELDS is missing"),
    "wide columns": (table(TFORM1="'999J'"), "columns of 3996 bytes in rows of NAXIS1 = 8"),
    "odd column": (table(TFORM1="'many'"), "TFORM1 = 'many'"),
    "packed frame too large": (table(**TILES | {"ZNAXIS1": "1000000", "ZNAXIS2": "1000000"}), "claims 1000000 x"),
    "too few tiles": (table(**TILES | {"ZNAXIS": "3", "ZNAXIS3": "1000"}), "48 tiles in the table"),
    "empty tiles": (table(**TILES | {"ZTILE1": "0"}), "tiles of"),
    "enormous tiles": (table(**TILES | {"ZTILE1": "90000000"}), "tiles of"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_claims_are_refused(name):
    text, words = IMPOSSIBLE[name]
    with pytest.raises(DataError, match=words):
        measure_data(text)


def test_possible_claims_are_measured():
    assert measure_data(image()) == 64 * 48 * 4
    assert measure_data(image(NAXIS="0")) == 0
    assert measure_data(image(NAXIS2="0")) == 0
    assert measure_data(image(NAXIS1="2048", NAXIS2="3200")) == 3200 * 2048 * 4
    assert measure_data(table()) == 8 * 48 + 900
    assert measure_data(table(**TILES)) == 8 * 48 + 900


def test_the_guard_reads_what_astropy_reads(tmp_path):
    rng = np.random.default_rng(3)
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(rng.normal(size=(3, 5, 7)), name="SCI")])
    hdus.append(fits.CompImageHDU(np.arange(24, dtype="i4").reshape(4, 6), name="DQ"))
    hdus.append(fits.BinTableHDU.from_columns([fits.Column("a", "20A", array=["x", "y"])], name="DQ_DEF"))
    hdus[0].header.extend([("HISTORY", "x" * 60)] * 900)
    hdus.writeto(tmp_path / "a.fits")
    pieces = walk(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", disable_image_compression=True) as found:
        infos = [found.fileinfo(k) for k in range(len(found))]
    assert [(p.start, p.data, p.end) for p in pieces] == [
        (i["hdrLoc"], i["datLoc"], i["datLoc"] + i["datSpan"]) for i in infos
    ]


@pytest.mark.parametrize("cut", [1, 40, BLOCK - 1, BLOCK + 7, 3 * BLOCK - 100])
def test_truncated_files_are_refused(tmp_path, cut):
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((30, 48), "f4"), name="SCI")]).writeto(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"a.fits: (truncated|not readable as FITS)"):
        walk(path)


def test_a_last_block_without_padding_is_whole(tmp_path):
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((10, 10), "u1"), name="SCI")]).writeto(path)
    path.write_bytes(path.read_bytes()[: -BLOCK + 100])
    assert walk(path)[1].size == 100


def test_a_header_without_end_is_refused_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(structure, "HEADER_LIMIT", 1 << 20)
    path = tmp_path / "a.fits"
    path.write_bytes((f"{'SIMPLE  =                    T':80s}" + f"{'COMMENT x':80s}" * 20_000).encode())
    begun = time.monotonic()
    with pytest.raises(DataError, match="no END within 1 MB"):
        walk(path)
    assert time.monotonic() - begun < 5


def test_what_is_no_fits_is_quoted_shortly(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"PK\x03\x04" * 1000)
    with pytest.raises(DataError, match="not readable as FITS: it begins with") as caught:
        walk(path)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", ["pipe", "folder", "nothing", "loop", "device"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = tmp_path / "x_rate.fits"
    make = {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "nothing": lambda: None,
        "loop": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    make[kind]()
    with pytest.raises(DataError, match=r"x_rate.fits: (is a|no such file|can't be read)"):
        open_regular(path)
    with pytest.raises(DataError, match=r"x_rate.fits"):
        walk(path)
