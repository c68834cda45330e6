"""Headers changed card by card give the bytes that astropy gives; what is not plain is left to it."""

import numpy as np
import pytest
from astropy.io import fits

from badpix.io import cards as io_cards
from badpix.io.cal import Hdu
from badpix.io.flagged_copy import _extension_header, _odd_primary_header, _primary_header
from badpix.io.headers import Odd, parse

VALUES = {"FILENAME": "x_crf.fits", "DATE": "2026-11-29T07:00:00.000", "S_OUTLIR": "COMPLETE", "ASNTABLE": "a.json"}
HISTORY = ["badpix 1", "", "ifu.kernel_size = " + "7 " * 60]


def hdu_of(header):
    content = header.tostring(endcard=False, padding=False).encode("ascii")
    return Hdu("PRIMARY", 1, parse(content.decode()), content, True, 0, 0, 0)


def make_header(rng, *, blanks):
    header = fits.Header()
    header["SIMPLE"] = True
    for k in range(rng.integers(0, 6)):
        header[f"K{k}"] = (rng.choice([1, 2.5, "text", True, "one / two"]), "what it is")
    if rng.random() < 0.5:
        header["FILENAME"] = (rng.choice(["x_cal.fits", "x_crf.fits", ""]), "Name of the file" * rng.integers(0, 4))
    if rng.random() < 0.5:
        header["S_FLAT"] = "COMPLETE"
        header["AFTER"] = 1
    if rng.random() < 0.5:
        header["S_OUTLIR"] = (rng.choice(["SKIPPED", "COMPLETE"]), "Outlier Detection")
    if rng.random() < 0.5:
        header.add_comment("some words")
    if rng.random() < 0.5:
        header.add_history("an older line")
        header["LAST"] = ("x", "behind it")
    header["CHECKSUM"] = "abc"
    for _ in range(blanks):
        header.append(("", "", ""), end=True)
    return header


@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
@pytest.mark.parametrize("seed", range(40))
def test_the_bytes_of_astropy(seed):
    rng = np.random.default_rng(seed)
    hdu = hdu_of(make_header(rng, blanks=seed % 4))
    assert _primary_header(hdu, VALUES, HISTORY) == _odd_primary_header(hdu.full_header, VALUES, HISTORY)


def test_an_extension_keeps_its_cards_but_for_sums_and_sizes():
    header = fits.Header(
        [("XTENSION", "BINTABLE"), ("NAXIS1", 12, "bytes"), ("NAXIS2", 3), ("TFORM1", "12B", "form")]
    )
    header["CHECKSUM"], header["DATASUM"] = "x", "1"
    found = fits.Header.fromstring(
        _extension_header(hdu_of(header), {"NAXIS1": 123456, "NAXIS2": 1, "TFORM1": "123456B"})
    )
    assert [(c.keyword, c.value, c.comment) for c in found.cards] == [
        ("XTENSION", "BINTABLE", ""),
        ("NAXIS1", 123456, "bytes"),
        ("NAXIS2", 1, ""),
        ("TFORM1", "123456B", "form"),
    ]


@pytest.mark.parametrize("value", ["it's", "x" * 80, "ü"])
def test_what_does_not_fit_on_a_plain_card_is_left_to_astropy(value):
    header = fits.Header([("FILENAME", "a")])
    with pytest.raises(Odd):
        io_cards.set_card(io_cards.split_cards(hdu_of(header).cards), "FILENAME", value)


def test_a_text_that_goes_on_over_several_cards_is_left_to_astropy():
    header = fits.Header([("FILENAME", "a" * 100)])
    hdu = hdu_of(header)
    with pytest.raises(Odd):
        io_cards.set_card(io_cards.split_cards(hdu.cards), "FILENAME", "b")
    assert _primary_header(hdu, {"FILENAME": "b"}, []) == _odd_primary_header(hdu.full_header, {"FILENAME": "b"}, [])


def test_no_text_but_printable_ascii():
    with pytest.raises(Odd):
        io_cards.split_cards(b"KEY     = 'a\tb'".ljust(80))
    cards = ["SIMPLE  =                    T".ljust(80)]
    with pytest.raises(Odd):
        io_cards.add_history(cards, "ü")
