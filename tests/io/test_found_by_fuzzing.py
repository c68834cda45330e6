"""What runs of the fuzz harness found: each kind by itself, with harmless input."""

from contextlib import suppress

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from make_files import make_flats, make_header, write_rate
from mask_files import make_mask

from badpix import detectors
from badpix.cli.main import badpix
from badpix.darks.inputs import DarkFiles
from badpix.errors import DataError
from badpix.io import evidence_file, flagged_copy
from badpix.io.associations import Association
from badpix.io.exposure import Exposure, open_exposure
from badpix.io.fits import open_fits
from badpix.mask import header as mask_header
from badpix.mask import rules
from badpix.mask.file_as_found import Row, read_file
from badpix.mask.header import Provenance
from badpix.settings.reference import ReferenceSettings


@pytest.mark.parametrize(
    "card", [b"DESCRIP = a mask for tests", b"DESCRIP = 'a mask for tests", b"DESCRIP = =========="]
)
def test_cards_that_can_not_be_parsed_are_found_when_a_file_is_opened(tmp_path, card):
    path = make_mask(tmp_path / "m.fits")
    start = path.read_bytes().index(b"DESCRIP =")
    raw = bytearray(path.read_bytes())
    raw[start : start + 80] = card.ljust(80)
    path.write_bytes(raw)
    with suppress(DataError), open_fits(path) as hdus:  # refused at once, or all of it can be parsed
        [card.value for hdu in hdus for card in hdu.header.cards]
    done = CliRunner().invoke(badpix, ["check", str(path)])
    assert done.exit_code == 3
    assert "internal error" not in done.output


def test_a_file_without_images_has_no_window(tmp_path):
    fits.PrimaryHDU(header=make_header()).writeto(tmp_path / "x_jump.fits")
    with pytest.raises(DataError, match=r"x_jump.fits: holds no image"):
        open_exposure(tmp_path / "x_jump.fits").window  # noqa: B018


@pytest.mark.parametrize("date", [20260101, 2.5, True])
def test_a_date_that_is_a_number_does_no_harm(tmp_path, date):
    for k, image in enumerate(make_flats(3)):
        write_rate(tmp_path / f"f{k}_rate.fits", image, number=k + 1, **({"DATE_OBS": date} if k == 0 else {}))
    done = CliRunner().invoke(badpix, ["flats", str(tmp_path), "-o", str(tmp_path / "m.fits"), "--author", "A"])
    assert "internal error" not in done.output


@pytest.mark.parametrize(
    ("keyword", "value"), [("NFRAMES", "x"), ("NFRAMES", 1.5), ("TGROUP", "x"), ("TGROUP", -1.0)]
)
def test_numbers_of_a_readout_are_numbers(tmp_path, keyword, value):
    rate = Exposure(tmp_path / "a_rate.fits", {"NFRAMES": 1, "TGROUP": 10.7, keyword: value}, {})
    jump = Exposure(tmp_path / "a_jump.fits", {}, {"SCI": np.zeros((1, 5, 2, 2))})
    with pytest.raises(DataError, match=f"a_rate.fits: keyword {keyword} = "):
        DarkFiles(rate, jump, jump).depth  # noqa: B018


def test_a_comparison_that_is_none_is_refused():
    row = {"search": "hot", "quantity": "q", "comparison": "b'<'", "limit": "1", "unit": "", "meaning": "", "way": 1}
    with pytest.raises(ValueError, match="RULES: comparison = "):
        evidence_file._rule(row)


@pytest.mark.parametrize("value", [-5, 1 << 70])
def test_a_value_that_is_no_bit_is_a_fault(tmp_path, value):
    found = read_file(make_mask(tmp_path / "m.fits"), "m.fits")
    found.rows = [Row(1, 0, value, "DO_NOT_USE", "d"), *found.rows[1:]]
    assert "dqdef-value" in {f.rule for f in rules.faults_of(found)}


def test_what_older_headers_hold_is_printable_in_new_ones():
    source = dict(make_header()) | {"BPDM\tSAT": 1, "BPDHOT": "a\x7fb"}
    about = Provenance("Made.", [], [], earlier=["a\nb", "c\x7f"])
    texts = ReferenceSettings.from_values({"author": "A", "useafter": "2026-01-01"}, "test")
    made = mask_header.make_header([source], "NRCB1", detectors.get("NRCB1").full, texts, about)
    assert list(made["HISTORY"])[-2:] == ["a?b", "c?"]
    assert made["BPDHOT"] == "a?b"
    assert not any("\t" in key for key in made)


@pytest.mark.slow
@pytest.mark.parametrize("byte", [0, 9, 10, 27, 127])
@pytest.mark.parametrize("keyword", ["REFTYPE", "DETECTOR", "EXTNAME"])
def test_control_characters_in_cards_are_a_fault_of_the_file(tmp_path, keyword, byte):
    path = make_mask(tmp_path / "m.fits")
    raw = bytearray(path.read_bytes())
    raw[raw.index(keyword.ljust(8).encode() + b"= '") + 12] = byte
    path.write_bytes(raw)
    done = CliRunner().invoke(badpix, ["check", str(path)])
    assert done.exit_code == 3
    assert "internal error" not in done.output


@pytest.mark.parametrize("text", ["\x00", "a\x1bb", "p\u00f6l", "x" * 200])
def test_texts_of_associations_are_printable_in_headers(text):
    association = Association((), table_name=text, pool_name=text)
    values = flagged_copy._header_values(text, association, "COMPLETE")
    assert all(value.isascii() and value.isprintable() for value in values.values())
