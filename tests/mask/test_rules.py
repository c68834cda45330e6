"""Every rule of the MASK format: a sound file has no fault, a broken one has the right one."""

import gzip
import re
import shutil

import numpy as np
import pytest
from astropy.io import fits
from mask_files import SUB64, SUB160, make_hdus, make_image, make_mask, make_table, write

from badpix import detectors, dq
from badpix.detectors import Window
from badpix.mask import rules
from badpix.mask.file import read_mask

IRS2 = Window(1, 1, 2048, 3200)
HOT = (100, 100, "HOT+DO_NOT_USE")


def errors(path, name=None):
    return [f for f in rules.find_faults(path, name) if f.severity == "error"]


@pytest.mark.slow
@pytest.mark.parametrize("detector", sorted(detectors.table()))
def test_a_sound_full_frame_mask_has_no_fault(tmp_path, detector):
    assert rules.find_faults(make_mask(tmp_path / "mask.fits", detector, flags=[HOT])) == []


@pytest.mark.parametrize(
    ("detector", "window", "subarray"),
    [("MIRIMAGE", SUB64, "SUB64"), ("NRCA1", SUB160, "SUB160"), ("NRS1", IRS2, "GENERIC")],
)
def test_a_sound_subarray_or_irs2_mask_has_no_fault(tmp_path, detector, window, subarray):
    path = make_mask(tmp_path / "mask.fits", detector, window, [(40, 40, "HOT+DO_NOT_USE")], SUBARRAY=subarray)
    assert rules.find_faults(path) == []


def test_interleaved_reference_pixels_of_irs2_are_legal(tmp_path):
    path = make_mask(tmp_path / "mask.fits", "NRS1", IRS2, [(50, 50, "REFERENCE_PIXEL")])
    assert rules.find_faults(path) == []


def with_image(change, **options):
    def breaker(hdus):
        image = hdus["DQ"].data.copy()
        image = change(image)
        hdus["DQ"] = fits.ImageHDU(image, name="DQ")

    return breaker


def set_pixels(*flags):
    """Set flags in the image: (x, y, names)."""

    def change(image):
        for x, y, names in flags:
            image[y, x] |= np.uint32(sum(dq.VALUE[n] for n in names.split("+")))
        return image

    return with_image(change)


def with_table(**changes):
    def breaker(hdus):
        hdus["DQ_DEF"] = make_table(**changes)

    return breaker


def with_key(key, value):
    def breaker(hdus):
        if value is None:
            del hdus[0].header[key]
        else:
            hdus[0].header[key] = value

    return breaker


def without_topic(topic):
    def breaker(hdus):
        lines = [line for line in hdus[0].header["HISTORY"] if not line.startswith(topic)]
        del hdus[0].header["HISTORY"]
        for line in lines:
            hdus[0].header.add_history(line)

    return breaker


def primary_data(hdus):
    hdus[0].data = np.zeros((2, 2), np.float32)


def no_dq(hdus):
    del hdus["DQ"]


def no_table(hdus):
    del hdus["DQ_DEF"]


def asdf(hdus):
    hdus.append(fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])], name="ASDF"))


def another(hdus):
    hdus.append(fits.ImageHDU(np.zeros((2, 2)), name="ERR"))


def two_images(hdus):
    hdus.append(fits.ImageHDU(hdus["DQ"].data.copy(), name="DQ"))


def table_first(hdus):
    image = hdus.pop(1)
    hdus.append(image)


def compressed(hdus):
    hdus["DQ"] = fits.CompImageHDU(hdus["DQ"].data.astype(np.int32), name="DQ", compression_type="GZIP_1")


def table_as_image(hdus):
    hdus["DQ_DEF"] = fits.ImageHDU(np.zeros((2, 2), np.int32), name="DQ_DEF")


def reordered(hdus):
    c = hdus["DQ_DEF"].columns
    columns = [c["BIT"], c["NAME"], c["VALUE"], c["DESCRIPTION"]]
    hdus["DQ_DEF"] = fits.BinTableHDU.from_columns(columns, name="DQ_DEF")


def three_columns(hdus):
    columns = list(hdus["DQ_DEF"].columns)[:3]
    hdus["DQ_DEF"] = fits.BinTableHDU.from_columns(columns, name="DQ_DEF")


def signed_value(hdus):
    rows = [f for f in dq.FLAGS if f.use == "mask" and f.bit < 31]
    columns = list(make_table(rows).columns)
    columns[1] = fits.Column("VALUE", "J", array=np.array([f.value for f in rows], np.int32))
    hdus["DQ_DEF"] = fits.BinTableHDU.from_columns(columns, name="DQ_DEF")
    set_pixels()(hdus)


def short_name(hdus):
    columns = list(hdus["DQ_DEF"].columns)
    columns[2] = fits.Column("NAME", "20A", array=hdus["DQ_DEF"].data["NAME"])
    hdus["DQ_DEF"] = fits.BinTableHDU.from_columns(columns, name="DQ_DEF")


def renumbered(hdus):
    """Flags packed to low bits, image and table alike: decoded, and misread by whoever reads the file directly."""
    rows = [dq.BY_NAME["DO_NOT_USE"], dq.BY_NAME["HOT"], dq.BY_NAME["REFERENCE_PIXEL"]]
    hdus["DQ_DEF"] = make_table(rows, BIT=np.arange(3, dtype=np.int32), VALUE=np.array([1, 2, 4], np.uint32))
    image = np.where(hdus["DQ"].data >= 2**31, 4, 0).astype(np.uint32)
    hdus["DQ"] = fits.ImageHDU(image, name="DQ")


MASK_FLAGS = [f for f in dq.FLAGS if f.use == "mask"]
NAMES = [f.name for f in MASK_FLAGS]
BITS = np.array([f.bit for f in MASK_FLAGS], np.int32)
VALUES = np.array([f.value for f in MASK_FLAGS], np.uint32)
EXPOSURE = [*MASK_FLAGS, *[f for f in dq.FLAGS if f.use in ("exposure", "other")]]


def renamed(old, new):
    return with_table(NAME=np.array([new if n == old else n for n in NAMES]))


def exposure_flag(name):
    def breaker(hdus):
        hdus["DQ_DEF"] = make_table(EXPOSURE)
        set_pixels((100, 100, name))(hdus)

    return breaker


BROKEN = {
    # structure
    "primary data": (primary_data, "primary-data", "expected no data"),
    "no DQ": (no_dq, "extension", "extension DQ is missing"),
    "no DQ_DEF": (no_table, "extension", "extension DQ_DEF is missing"),
    "ASDF": (asdf, "extension", "ASDF found; CRDS refuses"),
    "another extension": (another, "extension", "extension ERR found"),
    "DQ twice": (two_images, "extension", "DQ is there 2 times"),
    "DQ_DEF first": (table_first, "extension", "DQ_DEF stands before DQ"),
    # encoding
    "float DQ": (with_image(lambda i: i.astype(np.float32)), "dq-type", "BITPIX = -32.*expected unsigned 32-bit"),
    "signed DQ": (with_image(lambda i: (i & 0xFFFF).astype(np.int32)), "dq-type", "BZERO = 0"),
    "16-bit DQ": (with_image(lambda i: (i & 0xFF).astype(np.uint16)), "dq-type", "BITPIX = 16"),
    "3-D DQ": (with_image(lambda i: i[None]), "dq-axes", "NAXIS = 3, expected 2"),
    "compressed DQ": (compressed, "dq-type", "BZERO = 0, expected unsigned"),
    # DQ_DEF
    "DQ_DEF no table": (table_as_image, "dqdef-type", "DQ_DEF is of kind image, expected"),
    "columns reordered": (reordered, "dqdef-columns", "BIT, NAME, VALUE, DESCRIPTION, expected BIT, VALUE"),
    "column missing": (three_columns, "dqdef-columns", "columns BIT, VALUE, NAME, expected"),
    "signed VALUE": (signed_value, "dqdef-format", "TZERO2 = None, expected 2147483648"),
    "short NAME": (short_name, "dqdef-format", "TFORM3 = '20A', expected '40A'"),
    "GOOD row": (
        with_table(NAME=np.array(["GOOD", *NAMES[1:]]), VALUE=np.array([0, *VALUES[1:]], np.uint32)),
        "dqdef-good",
        "row 1: GOOD with VALUE 0",
    ),
    "VALUE not 2**BIT": (
        with_table(VALUE=np.array([*VALUES[:3], 8192 * 4096, *VALUES[4:]], np.uint32)),
        "dqdef-value",
        r"row 4: VALUE = 33554432, expected 2\*\*BIT = 2048 for HOT",
    ),
    "name twice": (renamed("WARM", "HOT"), "dqdef-repeated", "NAME HOT stands in 2 rows"),
    "bit twice": (
        with_table(BIT=np.array([*BITS[:3], BITS[4], *BITS[4:]], np.int32)),
        "dqdef-repeated",
        "BIT 12 stands in 2 rows",
    ),
    "NOISY": (renamed("UNRELIABLE_SLOPE", "NOISY"), "dqdef-name", "'NOISY' is no JWST flag.*mean UNRELIABLE_SLOPE"),
    "LOW_PEDESTAL": (renamed("OTHER_BAD_PIXEL", "LOW_PEDESTAL"), "dqdef-name", "mean OTHER_BAD_PIXEL"),
    "lower case name": (renamed("HOT", "hot"), "dqdef-name", "'hot' is no JWST flag.*mean HOT"),
    "retired name": (renamed("WARM", "RESERVED"), "dqdef-name", "RESERVED is retired"),
    # DQ against DQ_DEF
    "bit without row": (
        set_pixels((100, 100, "SATURATED")),
        "dq-undefined",
        "bit 1 .standard name SATURATED. is set",
    ),
    "jump in a mask": (exposure_flag("JUMP_DET"), "dq-flag", "JUMP_DET is set in 1 pixel; it belongs to single"),
    "A/D floor in a mask": (exposure_flag("AD_FLOOR"), "dq-flag", "AD_FLOOR is set in 1 pixel"),
    # identity
    "telescope": (with_key("TELESCOP", "HST"), "telescop", "'HST', expected 'JWST'"),
    "type": (with_key("REFTYPE", "BPM"), "reftype", "'BPM', expected 'MASK'"),
    "no model": (with_key("DATAMODL", None), "datamodl", "DATAMODL = None, expected 'MaskModel'"),
    "instrument": (with_key("INSTRUME", "NICMOS"), "instrume", "'NICMOS', expected one of FGS, MIRI"),
    "detector": (with_key("DETECTOR", "MIRIMAG"), "detector", "did you mean 'MIRIMAGE'"),
    "detector of another": (
        with_key("DETECTOR", "NRS1"),
        "detector",
        "'NRS1' belongs to NIRSPEC, but INSTRUME = 'MIRI'",
    ),
    # geometry
    "fast axis": (with_key("FASTAXIS", 2), "axes", "FASTAXIS = 2, expected 1 for MIRIMAGE"),
    "no slow axis": (with_key("SLOWAXIS", None), "axes", "SLOWAXIS = None, expected 2"),
    "no start": (with_key("SUBSTRT1", None), "window", "SUBSTRT1 = None, expected a whole number"),
    "start as text": (with_key("SUBSTRT2", "1"), "window", "SUBSTRT2 = '1', expected a whole number"),
    "size": (with_key("SUBSIZE1", 1024), "window", "SUBSIZE1, SUBSIZE2 = 1024, 1024, but DQ has 1032 x 1024"),
    "start outside": (with_key("SUBSTRT1", 3), "window", "reaches to pixel 1034, 1024 of MIRIMAGE"),
    "no subarray": (with_key("SUBARRAY", None), "subarray", "SUBARRAY is missing"),
    "full frame called SUB64": (with_key("SUBARRAY", "SUB64"), "subarray", "'SUB64', but DQ is a full frame"),
    "subarray of another": (with_key("SUBARRAY", "SUB160"), "subarray", "'SUB160' is no subarray of MIRI"),
    # texts
    "no author": (with_key("AUTHOR", None), "author", "AUTHOR is missing"),
    "no description": (with_key("DESCRIP", None), "descrip", "DESCRIP is missing"),
    "long description": (with_key("DESCRIP", "x" * 66), "descrip", "66 characters, expected at most 65"),
    "INFLIGHT alone": (with_key("PEDIGREE", "INFLIGHT"), "pedigree", "'INFLIGHT', expected GROUND"),
    "slashed dates": (with_key("PEDIGREE", "INFLIGHT 01/01/2026 02/01/2026"), "pedigree", "expected GROUND"),
    "GROUND with dates": (with_key("PEDIGREE", "GROUND 2026-01-01 2026-01-02"), "pedigree", "expected GROUND"),
    "dates turned": (with_key("PEDIGREE", "INFLIGHT 2026-02-01 2026-01-01"), "pedigree", "starts after it ends"),
    "no such day": (with_key("PEDIGREE", "INFLIGHT 2026-02-30 2026-03-01"), "pedigree", "expected GROUND"),
    "useafter with a space": (
        with_key("USEAFTER", "2026-01-01 00:00:00"),
        "useafter",
        "expected YYYY-MM-DDThh:mm:ss",
    ),
    "useafter without time": (with_key("USEAFTER", "2026-01-01"), "useafter", "expected YYYY-MM-DDThh:mm:ss"),
    "useafter no date": (with_key("USEAFTER", "2026-13-01T00:00:00"), "useafter", "expected YYYY-MM-DDThh:mm:ss"),
    # history
    "no history": (without_topic(""), "history", "HISTORY is missing"),
    "no document": (without_topic("DOCUMENT"), "history", "topic 'DOCUMENT:' is missing"),
    "no software": (without_topic("SOFTWARE"), "history", "topic 'SOFTWARE:' is missing"),
    "no data used": (without_topic("DATA"), "history", "topic 'DATA USED:' is missing"),
    "no differences": (without_topic("DIFFER"), "history", "topic 'DIFFERENCES:' is missing"),
    "no words on how": (without_topic("Made"), "history", "starts with 'DOCUMENT: NONE', expected a description"),
    # reference pixels
    "border not flagged": (
        with_image(lambda i: np.where(np.arange(1032) < 4, 0, i).astype(np.uint32)),
        "reference",
        r"4,096 pixels of the reference border without REFERENCE_PIXEL: \(0, 0\)",
    ),
    "good reference pixel unusable": (
        set_pixels((0, 7, "DO_NOT_USE")),
        "reference",
        r"1 pixel, all good reference pixels, with DO_NOT_USE: \(0, 7\)",
    ),
    "reference pixel inside": (
        set_pixels((500, 600, "REFERENCE_PIXEL")),
        "reference",
        r"outside the reference border.*\(500, 600\)",
    ),
    "bad reference pixel inside": (set_pixels((500, 600, "BAD_REF_PIXEL")), "reference", "but no reference pixels"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_mask_is_refused_with_the_right_message(tmp_path, fault):
    breaker, rule, message = BROKEN[fault]
    hdus = make_hdus()
    breaker(hdus)
    found = errors(write(tmp_path / "mask.fits", hdus))
    same = [f for f in found if f.rule == rule]
    assert same, found
    assert any(re.search(message, f.message) for f in same), same


# Faults that can't be made without breaking something else on the way; all others must be reported alone.
TOGETHER = {
    "no DQ",
    "no DQ_DEF",
    "start outside",
    "DQ_DEF no table",
    "columns reordered",
    "column missing",
    "float DQ",
    "signed DQ",
    "16-bit DQ",
    "3-D DQ",
    "compressed DQ",
    "GOOD row",
    "VALUE not 2**BIT",
    "name twice",
    "bit twice",
    "instrument",
    "detector of another",
    "detector",
    "retired name",
    "signed VALUE",
    "type",
    "no history",
    "INFLIGHT alone",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", sorted(set(BROKEN) - TOGETHER))
def test_a_fault_brings_no_others_with_it(tmp_path, fault):
    breaker, rule, _ = BROKEN[fault]
    hdus = make_hdus()
    breaker(hdus)
    assert {f.rule for f in errors(write(tmp_path / "mask.fits", hdus))} == {rule}


# --- other detectors -------------------------------------------------------------------------------------

MATCH = {
    "NIRSpec without a pattern": ("NRS1", {"P_READPA": None}, "READPATT or P_READPA is missing"),
    "pattern without bars": ("NRS1", {"P_READPA": "NRS|NRSRAPID"}, r"expected a \| after every value"),
    "unknown pattern": ("NRS2", {"P_READPA": "NRS|RAPIDO|"}, "'RAPIDO' is no READPATT of NIRSPEC"),
    "IRS2 pattern, other frame": ("NRS1", {"P_READPA": "NRSIRS2|"}, "but DQ is no IRS2 frame"),
    "FGS without a type": ("GUIDER1", {"EXP_TYPE": None}, "EXP_TYPE or P_EXP_TY is missing"),
    "FGS with a wrong type": ("GUIDER2", {"EXP_TYPE": "NRC_IMAGE"}, "'NRC_IMAGE' is no EXP_TYPE of FGS"),
}


@pytest.mark.parametrize("fault", MATCH)
def test_match_keys(tmp_path, fault):
    detector, keywords, message = MATCH[fault]
    found = errors(make_mask(tmp_path / "mask.fits", detector, **keywords))
    assert [f.rule for f in found] == ["match-key"]
    assert re.search(message, found[0].message), found


def test_irs2_frame_with_traditional_pattern(tmp_path):
    found = errors(make_mask(tmp_path / "mask.fits", "NRS1", IRS2, P_READPA="NRS|NRSRAPID|"))
    assert [f.message for f in found] == ["readout patterns NRS, NRSRAPID, but DQ is an IRS2 frame (3200 rows)"]


def test_a_subarray_must_not_be_called_generic(tmp_path):
    found = errors(make_mask(tmp_path / "mask.fits", "NRCA1", SUB160, SUBARRAY="GENERIC"))
    assert [f.message for f in found] == ["SUBARRAY = 'GENERIC', but DQ has 160 x 160 pixels, not 2048 x 2048"]


def test_axes_of_the_sister_detector(tmp_path):
    found = errors(make_mask(tmp_path / "mask.fits", "NRCA1", SUB160, SUBARRAY="SUB160", FASTAXIS=1, SLOWAXIS=-2))
    assert [f.rule for f in found] == ["axes", "axes"]


# --- names and sums --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jwst_niriss_mask_0001.fits", "my_miri_dark_1.fits"])
def test_a_name_that_crds_would_believe(tmp_path, name):
    found = errors(make_mask(tmp_path / name))
    assert [f.rule for f in found] == ["file-name"]
    assert "choose another name" in found[0].message


def test_a_delivered_name_is_fine(tmp_path):
    assert rules.find_faults(make_mask(tmp_path / "jwst_miri_mask_0042.fits")) == []


def test_the_final_name_counts_when_the_file_is_a_temporary_one(tmp_path):
    path = make_mask(tmp_path / "temporary.fits", FILENAME="mask.fits")
    assert rules.find_faults(path, name="mask.fits") == []
    assert [f.rule for f in rules.find_faults(path)] == ["filename"]


def test_missing_checksums(tmp_path):
    path = tmp_path / "mask.fits"
    make_hdus().writeto(path)
    found = errors(path)
    assert {f.rule for f in found} == {"checksum"}
    assert len(found) == 6  # two keywords in three HDUs


def test_a_keyword_edited_after_writing_breaks_the_checksum(tmp_path):
    path = make_mask(tmp_path / "mask.fits")
    path.write_bytes(path.read_bytes().replace(b"'tests   '", b"'texts   '"))
    assert [f.message for f in errors(path)] == [
        "PRIMARY: CHECKSUM is wrong: the extension was changed after it was written"
    ]


def test_pixels_edited_after_writing_break_both_sums(tmp_path):
    path = make_mask(tmp_path / "mask.fits")
    with fits.open(path) as hdus:
        place = hdus["DQ"].fileinfo()["datLoc"] + 4 * (500 * 1032 + 500)
    raw = bytearray(path.read_bytes())
    raw[place + 3] ^= 1
    path.write_bytes(raw)
    assert [f.message.split(" is")[0] for f in errors(path)] == ["DQ: CHECKSUM", "DQ: DATASUM"]


# --- files that can't be read ----------------------------------------------------------------------------


def test_no_fits_and_truncated_files(tmp_path):
    text = tmp_path / "text.fits"
    text.write_text("no FITS file")
    whole = make_mask(tmp_path / "whole.fits")
    cut = tmp_path / "cut.fits"
    cut.write_bytes(whole.read_bytes()[:1_000_000])
    for path in (text, cut, tmp_path / "missing.fits"):
        found = errors(path)
        assert [f.rule for f in found] == ["readable"], path
    assert "truncated" in errors(cut)[0].message


def test_a_gzipped_mask_is_read(tmp_path):
    path = make_mask(tmp_path / "mask.fits")
    with open(path, "rb") as plain, gzip.open(tmp_path / "mask.fits.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    assert rules.find_faults(tmp_path / "mask.fits.gz", name="mask.fits") == []


# --- notes -----------------------------------------------------------------------------------------------


def test_other_bits_than_the_standard_ones_are_what_the_table_is_for(tmp_path):
    hdus = make_hdus()
    renumbered(hdus)
    path = write(tmp_path / "mask.fits", hdus)
    found = rules.find_faults(path)
    assert {(f.severity, f.rule) for f in found} == {("note", "dqdef-bit")}
    assert found[0].message == "DQ_DEF row 2: HOT has BIT 1, in the pipeline 11; readers go by DQ_DEF"
    assert read_mask(path).image[0, 0] == dq.VALUE["REFERENCE_PIXEL"]


@pytest.mark.parametrize("own_sums", [False, True])
def test_a_compressed_mask_is_as_good_as_its_image(tmp_path, own_sums):
    plain = make_mask(tmp_path / "mask.fits", flags=[HOT])
    with fits.open(plain) as hdus:
        packed = fits.CompImageHDU(hdus["DQ"].data, hdus["DQ"].header, name="DQ")
        path = tmp_path / "mask.fits.fz"
        fits.HDUList([hdus[0].copy(), packed, hdus["DQ_DEF"].copy()]).writeto(path, checksum=own_sums)
    assert [(f.severity, f.rule) for f in rules.find_faults(path)] == [("note", "dq-compressed")]
    path.write_bytes(path.read_bytes().replace(b"ZDATASUM= '5", b"ZDATASUM= '6"))
    assert "DQ: ZDATASUM is wrong" in errors(path)[0].message + errors(path)[-1].message


# --- warnings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "rule"),
    [
        ({"SUBARRAY": "FULL"}, "subarray"),
        ({"P_FILTER": "F560W|"}, "match-key"),
        ({"DATE": None}, "date"),
        ({"FILENAME": "other.fits"}, "filename"),
    ],
)
def test_legal_but_odd(tmp_path, keywords, rule):
    path = tmp_path / "mask.fits"
    hdus = make_hdus(**keywords)
    found = rules.find_faults(write(path, hdus))
    assert [(f.severity, f.rule) for f in found] == [("warning", rule)]


def test_bad_reference_pixels_are_legal_with_do_not_use(tmp_path):
    flags = [(0, 10, "BAD_REF_PIXEL+DO_NOT_USE"), (1, 10, "BAD_REF_PIXEL")]
    found = rules.find_faults(make_mask(tmp_path / "mask.fits", flags=flags))
    assert [(f.severity, f.rule) for f in found] == [("warning", "reference")]
    assert "(1, 10)" in found[0].message


def test_the_edge_of_a_scaled_detector_is_a_warning(tmp_path):
    window = Window(1, 1, 256, 256)
    image = make_image(window=window)
    image[:, -4:] = dq.VALUE["REFERENCE_PIXEL"]
    hdus = make_hdus(window=window, image=image, SUBARRAY="SUB256")
    found = rules.find_faults(write(tmp_path / "mask.fits", hdus))
    assert [(f.severity, f.rule) for f in found] == [("warning", "reference")]


def test_at_least_thirty_faults_are_tried():
    assert len(BROKEN) + len(MATCH) >= 30
