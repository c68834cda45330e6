"""The MASK file: header and extensions as the format asks, equal bytes, texts that CRDS takes, no half files."""

from __future__ import annotations

import gzip
import time

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_files import SUB64, SUB160, make_hdus, make_image, make_mask, make_table, write

from badpix import detectors, dq
from badpix.detectors import Window
from badpix.errors import BadpixError, DataError, UsageError
from badpix.mask import file as mask_file
from badpix.mask import header as mask_header
from badpix.mask import rules
from badpix.mask.file import read_mask, write_mask
from badpix.mask.header import Provenance, check_pedigree, check_texts, check_useafter, make_header
from badpix.settings.flats import FlatSettings
from badpix.settings.reference import ReferenceSettings

REFERENCE = ReferenceSettings
SOURCE = {
    "DATE-OBS": "2026-01-03",
    "TIME-OBS": "04:05:06.789",
    "DATE": "2026-02-03T00:00:00.123",
    "READPATT": "RAPID",
}
V = dq.VALUE


def texts(**values):
    return check_texts(REFERENCE.from_values(values, "test"))


def header_of(detector="NRCB1", window=None, sources=(SOURCE,), about=None, **values):
    window = window or detectors.get(detector).full
    return make_header(list(sources), detector, window, texts(**values), about or Provenance("A mask."))


def written(path, detector="MIRIMAGE", window=None, flags=((10, 10, "HOT+DO_NOT_USE"),), sources=(SOURCE,), **values):
    write_mask(path, make_image(detector, window, flags), header_of(detector, window, sources, **values))
    return path


# --- the file --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("detector", detectors.table())
def test_full_frames_of_all_detectors_keep_all_rules(tmp_path, detector):
    path = written(tmp_path / "mask.fits", detector)
    assert [f for f in rules.find_faults(path) if f.severity == "error"] == []
    with fits.open(path, checksum=True) as hdus:
        h = hdus[0].header
        facts = detectors.get(detector)
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "DQ", "DQ_DEF"]
        wanted = {
            "TELESCOP": "JWST",
            "REFTYPE": "MASK",
            "INSTRUME": facts.instrument,
            "DETECTOR": detector,
            "SUBARRAY": "GENERIC",
            "SUBSTRT1": 1,
            "SUBSTRT2": 1,
            "SUBSIZE1": facts.shape[1],
            "SUBSIZE2": facts.shape[0],
            "FASTAXIS": facts.fastaxis,
            "SLOWAXIS": facts.slowaxis,
            "DATAMODL": "MaskModel",
            "AUTHOR": "badpix",
            "PEDIGREE": "INFLIGHT 2026-01-03 2026-01-03",
            "USEAFTER": "2026-01-03T04:05:06",
            "FILENAME": "mask.fits",
            "DATE": "2026-02-03T00:00:00",
        }
        assert {key: h.get(key) for key in wanted} == wanted
        assert h["DESCRIP"]
        assert len(h["DESCRIP"]) <= 65
        dq_header = hdus["DQ"].header
        stored = fits.getheader(path, "DQ")
        assert (stored["BITPIX"], stored["BSCALE"], stored["BZERO"]) == (32, 1, 2**31)
        assert dq_header["NAXIS"] == 2
        table = hdus["DQ_DEF"]
        assert table.columns.names == ["BIT", "VALUE", "NAME", "DESCRIPTION"]
        assert list(table.columns.formats) == ["J", "J", "40A", "80A"]
        assert len(set(table.data["NAME"])) == len(table.data)
        assert all(2 ** int(r["BIT"]) == int(r["VALUE"]) == V[r["NAME"]] for r in table.data)
        assert "GOOD" not in table.data["NAME"]


@pytest.mark.slow
def test_irs2(tmp_path):
    window = Window(1, 1, 2048, 3200)
    path = written(tmp_path / "m.fits", "NRS1", window, flags=[(9, 3000, "DEAD+DO_NOT_USE")])
    header = fits.getheader(path)
    assert (header["SUBSIZE1"], header["SUBSIZE2"]) == (2048, 2048)
    assert header["P_READPA"] == "NRSIRS2|NRSIRS2RAPID|"
    assert header["SUBARRAY"] == "GENERIC"
    assert read_mask(path).window == window


@pytest.mark.parametrize(("detector", "window"), [("MIRIMAGE", SUB64), ("NRCB1", SUB160)])
def test_subarrays(tmp_path, detector, window):
    name = {"MIRIMAGE": "SUB64", "NRCB1": "SUB160"}[detector]
    path = written(tmp_path / "m.fits", detector, window, sources=[{**SOURCE, "SUBARRAY": name}])
    found = read_mask(path)
    assert (found.window, found.is_full, found.header["SUBARRAY"]) == (window, False, name)
    np.testing.assert_array_equal(found.image, make_image(detector, window, [(10, 10, "HOT+DO_NOT_USE")]))


def test_match_keys_of_nirspec_and_fgs():
    assert header_of("NRS1")["P_READPA"] == "NRS|NRSRAPID|"
    assert header_of("NRS1", reference_readpatt="NRSRAPID")["READPATT"] == "NRSRAPID"
    assert header_of("NRS1", sources=[{**SOURCE, "READPATT": "NRSRAPIDD1"}])["READPATT"] == "NRSRAPIDD1"
    assert header_of("GUIDER1")["EXP_TYPE"] == "N/A"
    assert header_of("GUIDER1", reference_exp_type="FGS_IMAGE|FGS_FOCUS")["P_EXP_TY"] == "FGS_IMAGE|FGS_FOCUS|"
    assert not {"READPATT", "P_READPA", "EXP_TYPE", "P_EXP_TY"} & set(header_of("NRCB1"))


@pytest.mark.parametrize(
    ("window", "subarray", "words"),
    [
        (None, "SUB160", "'SUB160' with a full-frame image; expected GENERIC or FULL"),
        (SUB160, "GENERIC", "'GENERIC' for a window of 160 x 160 pixels; expected the name of the subarray"),
        (SUB160, "FULL", "'FULL' for a window"),
        (SUB160, "auto", "None for a window"),
    ],
)
def test_subarray_and_size_must_fit(window, subarray, words):
    with pytest.raises(UsageError) as caught:
        header_of(window=window, reference_subarray=subarray)
    assert words in str(caught.value)


@pytest.mark.parametrize("own", ["SUBX", "FULL"])
def test_a_subarray_of_the_inputs_that_crds_does_not_know(own):
    with pytest.raises(UsageError, match=f"SUBARRAY of the inputs: '{own}'.*give --reference-subarray"):
        header_of(window=SUB160, sources=[{**SOURCE, "SUBARRAY": own}])
    assert header_of(window=SUB160, sources=[{**SOURCE, "SUBARRAY": own}], reference_subarray="SUB160")


def test_full_on_request():
    assert header_of(reference_subarray="FULL")["SUBARRAY"] == "FULL"


@pytest.mark.slow
def test_equal_input_gives_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "m.fits")
        time.sleep(1.1)
    assert (tmp_path / "a" / "m.fits").read_bytes() == (tmp_path / "b" / "m.fits").read_bytes()


def test_history_has_its_topics_and_every_parameter():
    flats = FlatSettings
    values = flats.from_values({"manual_flag_file": "/very/long/" + "x" * 40 + ".txt"}, "test")
    item = mask_header.Input(mask_file.Path("/data/a_rate.fits"), "0" * 64, 5)
    rejected = [(mask_file.Path("b.fits"), "is broken")]
    about = Provenance("What it is.", [values], [item], rejected, ["a note"], ["old"])
    header = header_of(about=about, history="one\ntwo", document="JWST-STScI-001", differences="more pixels")
    whole = " ".join(" ".join(header["HISTORY"]).split())
    for words in (
        "What it is.",
        "DOCUMENT: JWST-STScI-001",
        "SOFTWARE: badpix ",
        "DATA USED:",
        "a_rate.fits",
        "sha256 " + "0" * 64,
        "rejected: b.fits: is broken",
        "DIFFERENCES: more pixels",
        "one",
        "two",
        "Note: a note",
        "old",
        "x" * 40,
    ):
        assert words in whole
    for p in flats.params():
        assert f"flats.{p.name} = " in whole
        assert not p.keyword or p.keyword in header
    assert header["BPFDEDSG"] == 5.0
    assert header["BPFMXDED"] == "none"
    header.tostring()  # nothing in it that FITS can't hold


def test_text_of_others_becomes_ascii():
    about = Provenance("A mask.", notes=["\u03c3\t\u00b5"], rejected=[(mask_file.Path("ä.fits"), "é")])
    assert all(line.isascii() for line in header_of(about=about)["HISTORY"])


# --- the texts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_text", "result"),
    [
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00"),
        ("2019-04-01 00:00:00", "2019-04-01T00:00:00"),
        ("2026-01-01", "2026-01-01T00:00:00"),
        (" 2026-01-01T01:02:03.9 ", "2026-01-01T01:02:03"),
        ("2026-01-01T01:00:00Z", "2026-01-01T01:00:00"),
        ("2026-01-01T01:00:00+02:00", "2025-12-31T23:00:00"),
        (None, None),
    ],
)
def test_useafter(given_text, result):
    assert check_useafter(given_text) == result


@pytest.mark.parametrize(
    "text", ["", "soon", "01/02/2026", "2026-13-01", "2026-02-30T00:00:00", "2026-01-01T25:00:00"]
)
def test_wrong_useafter(text):
    with pytest.raises(UsageError, match=r"reference\.useafter\): found .* expected YYYY-MM-DDThh:mm:ss"):
        check_useafter(text)


@pytest.mark.parametrize(
    ("given_text", "result"),
    [
        ("GROUND", "GROUND"),
        ("dummy", "DUMMY"),
        ("Simulation", "SIMULATION"),
        ("MODEL", "MODEL"),
        ("auto", "AUTO"),
        ("INFLIGHT", "INFLIGHT"),
        ("inflight 2026-01-01  2026-01-02", "INFLIGHT 2026-01-01 2026-01-02"),
        ("INFLIGHT 2026-01-01 2026-01-01", "INFLIGHT 2026-01-01 2026-01-01"),
        ("MODEL 2026-01-01 2026-01-02", "MODEL 2026-01-01 2026-01-02"),
    ],
)
def test_pedigree(given_text, result):
    assert check_pedigree(given_text) == result


@pytest.mark.parametrize(
    "text",
    [
        "",
        "FLIGHT",
        "INFLIGHT 2026-01-02 2026-01-01",
        "INFLIGHT 2026-01-01",
        "INFLIGHT 01/01/2026 02/01/2026",
        "GROUND 2026-01-01 2026-01-02",
        "INFLIGHT 2026-01-01T00:00:00 2026-01-02",
        "INFLIGHT 20260101 20260102",
        "INFLIGHT 2026-02-30 2026-03-01",
        "INFLIGHT 2026-W01-1 2026-W02-1",
    ],
)
def test_wrong_pedigree(text):
    with pytest.raises(UsageError, match=r"reference\.pedigree\): found .* expected GROUND, DUMMY"):
        check_pedigree(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"descrip": "x" * 66}, "descrip): has 66 characters, at most 65 fit"),
        ({"author": "x" * 69}, "author): has 69 characters"),
        ({"author": "Ångström"}, "author): 'Ångström' has characters that a FITS header can't hold"),
        ({"descrip": "tab\there"}, "can't hold"),
        ({"author": "  "}, "author): is blank"),
        ({"descrip": ""}, "descrip): is blank"),
        ({"history": "é"}, "history"),
        ({"reference_subarray": "SUB 160é"}, "reference_subarray"),
        ({"reference_subarray": "SUB161"}, "reference_subarray"),
        ({"reference_readpatt": "é"}, "reference_readpatt"),
        ({"reference_exp_type": "é"}, "reference_exp_type"),
    ],
)
def test_texts_that_are_refused_at_once(values, words):
    with pytest.raises(UsageError) as caught:
        texts(**values)
    assert str(caught.value).startswith("--")
    assert words in str(caught.value)


def test_quotes_and_long_texts_fit(tmp_path):
    path = written(
        tmp_path / "m.fits", author="O'Neill, D'Arcy" + "'" * 53, descrip="'" * 65, history="line one\nline two"
    )
    header = fits.getheader(path)
    assert header["AUTHOR"] == "O'Neill, D'Arcy" + "'" * 53
    assert header["DESCRIP"] == "'" * 65


@pytest.mark.parametrize(
    ("sources", "given_text", "result"),
    [
        ([{"DATE-OBS": "2026-01-05"}, {"DATE-OBS": "2026-01-02"}], "AUTO", "INFLIGHT 2026-01-02 2026-01-05"),
        ([{"DATE-OBS": "2016-01-05"}, {"DATE-OBS": "2026-01-02"}], "AUTO", "GROUND"),
        ([{"DATE-OBS": "2016-01-05"}], "INFLIGHT", "INFLIGHT 2016-01-05 2016-01-05"),
        (
            [{"PEDIGREE": "INFLIGHT 2025-01-01 2025-02-01"}, {"DATE-OBS": "2026-01-02"}],
            "AUTO",
            "INFLIGHT 2025-01-01 2026-01-02",
        ),
        ([{"DATE-OBS": "2026-01-02"}], "SIMULATION", "SIMULATION"),
    ],
)
def test_dates_of_the_pedigree_come_from_the_inputs(sources, given_text, result):
    assert header_of(sources=sources, pedigree=given_text, useafter="2026-01-01")["PEDIGREE"] == result


def test_texts_that_nobody_gives():
    with pytest.raises(UsageError, match="INFLIGHT without dates"):
        header_of(sources=[{}], pedigree="INFLIGHT", useafter="2026-01-01")
    with pytest.raises(UsageError, match="not given, and the inputs have no DATE-OBS"):
        header_of(sources=[{}])
    assert header_of(sources=[{}], useafter="2026-01-01")["PEDIGREE"] == "GROUND"


def test_useafter_is_the_earliest_start():
    sources = [{"DATE-OBS": "2026-01-05", "TIME-OBS": "01:00:00"}, {"DATE-OBS": "2026-01-02"}]
    assert header_of(sources=sources)["USEAFTER"] == "2026-01-02T00:00:00"
    old = {"USEAFTER": "2025-04-01 00:00:00", "DATE-OBS": "2026-01-02"}
    assert header_of(sources=[old])["USEAFTER"] == "2025-04-01T00:00:00"


# --- writing ---------------------------------------------------------------------------------------------


def test_what_would_break_the_format_is_not_written(tmp_path):
    path = tmp_path / "m.fits"
    header = header_of("NRCB1")
    header["PEDIGREE"] = "INFLIGHT"
    with pytest.raises(DataError, match=r"m\.fits: not written, it would break the format: PEDIGREE"):
        write_mask(path, make_image("NRCB1"), header)
    image = make_image("NRCB1")
    image[10, 10] = V["JUMP_DET"]
    with pytest.raises(DataError, match="not written"):
        write_mask(path, image, header_of("NRCB1"))
    with pytest.raises(TypeError, match="expected uint32 with 2"):
        write_mask(path, image.astype(np.int32), header_of("NRCB1"))
    assert list(tmp_path.iterdir()) == []


def test_existing_masks_are_kept(tmp_path):
    path = written(tmp_path / "m.fits")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists; give --overwrite"):
        written(path)
    assert path.read_bytes() == before
    write_mask(path, make_image("MIRIMAGE"), header_of("MIRIMAGE"), overwrite=True)
    assert path.read_bytes() != before


def test_the_header_given_is_not_changed(tmp_path):
    header = header_of("MIRIMAGE")
    before = header.tostring()
    write_mask(tmp_path / "m.fits", make_image("MIRIMAGE"), header)
    assert header.tostring() == before


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(st.integers(4, 60), st.integers(0, 63), st.sets(st.sampled_from(dq.MASK_NAMES[:-1]), min_size=1))
    )
)
def test_every_image_comes_back(tmp_path, points):
    image = make_image("MIRIMAGE", SUB64)
    for x, y, names in points:
        image[y, x] = sum(V[n] for n in names - {"REFERENCE_PIXEL", "BAD_REF_PIXEL"})
    path = tmp_path / "m.fits"
    header = header_of("MIRIMAGE", SUB64, [{**SOURCE, "SUBARRAY": "SUB64"}])
    write_mask(path, image, header, overwrite=True)
    np.testing.assert_array_equal(read_mask(path).image, image)


# --- reading ---------------------------------------------------------------------------------------------


def test_reading_a_sound_mask(tmp_path):
    path = make_mask(tmp_path / "m.fits", "MIRIMAGE", SUB64, [(9, 9, "RC")], SUBARRAY="SUB64")
    found = read_mask(path)
    assert (found.detector, found.window, found.path) == ("MIRIMAGE", SUB64, path)
    assert found.image[9, 9] == V["RC"]
    assert found.reference.sum() == 4 * 64
    assert any("SOFTWARE" in line for line in found.history)


def test_gzipped_masks(tmp_path):
    path = make_mask(tmp_path / "m.fits", "MIRIMAGE", SUB64, SUBARRAY="SUB64")
    packed = tmp_path / "m.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_mask(packed).image, read_mask(path).image)
    assert mask_file.is_mask_file(packed)


def test_what_does_not_decode_is_not_written(tmp_path, monkeypatch):
    hdus = mask_file._hdus
    monkeypatch.setattr(mask_file, "_hdus", lambda image, header: hdus(image ^ np.uint32(dq.VALUE["DEAD"]), header))
    with pytest.raises(DataError, match="does not decode to what was meant"):
        write_mask(tmp_path / "m.fits", make_image("MIRIMAGE"), header_of("MIRIMAGE"))
    assert not list(tmp_path.iterdir())


def test_packed_masks_are_decoded(tmp_path):
    image = np.zeros((64, 72), np.uint8)
    image[5, 5], image[6, 6] = 2, 3
    table = make_table([dq.BY_NAME["DO_NOT_USE"], dq.BY_NAME["HOT"]], BIT=[0, 1], VALUE=[1, 2])
    found = read_mask(write(tmp_path / "m.fits", make_hdus("MIRIMAGE", SUB64, image=image, table=table)))
    assert found.image[5, 5] == V["HOT"]
    assert found.image[6, 6] == V["HOT"] | 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.pop(1), "extension DQ is missing; not a MASK file"),
        (lambda h: h.__setitem__(1, fits.ImageHDU(np.zeros((3, 64, 72), "u4"), name="DQ")), "expected a 2-D image"),
        (lambda h: h.__setitem__(1, fits.ImageHDU(np.zeros((64, 72), "f4"), name="DQ")), "DQ is >f4"),
        (lambda h: h.__setitem__(1, fits.ImageHDU(name="DQ")), "expected a 2-D image"),
        (lambda h: h.__setitem__(2, make_table([dq.BY_NAME["RC"]])), "are set in DQ, but have no row"),
        (
            lambda h: h.__setitem__(
                2, fits.BinTableHDU.from_columns([fits.Column("X", "J", array=[1])], name="DQ_DEF")
            ),
            "not readable",
        ),
    ],
)
def test_masks_that_can_not_be_used(tmp_path, change, words):
    hdus = make_hdus("MIRIMAGE", SUB64, [(9, 9, "HOT")])
    change(hdus)
    hdus.writeto(tmp_path / "bad.fits")
    with pytest.raises(DataError, match=r"bad\.fits") as caught:
        read_mask(tmp_path / "bad.fits")
    assert words in str(caught.value)


@pytest.mark.slow
@settings(max_examples=60)
@given(part=st.floats(0, 0.95), junk=st.none() | st.binary(min_size=1, max_size=30))
def test_damaged_masks(tmp_path, part, junk):
    whole = make_mask(tmp_path / "w.fits", "MIRIMAGE", SUB64, SUBARRAY="SUB64")
    content = bytearray(whole.read_bytes())
    start = int(part * len(content))
    content = content[:start] if junk is None else content[:start] + junk + content[start + len(junk) :]
    path = tmp_path / "d.fits"
    path.write_bytes(bytes(content))
    said = []
    for read in (read_mask, mask_file.is_mask_file, mask_file.read_plain):
        try:
            read(path)
        except BadpixError as error:
            said.append(str(error))
    assert all("d.fits" in words and "\n" not in words for words in said)
    assert said or junk is not None or start % 2880 == 0


def test_placing_a_subarray(tmp_path):
    found = read_mask(make_mask(tmp_path / "m.fits", "MIRIMAGE", SUB64, [(9, 9, "RC")], SUBARRAY="SUB64"))
    placed, covered = mask_file.place(found)
    assert placed.window == detectors.get("MIRIMAGE").full
    assert placed.image.shape == covered.shape == (1024, 1032)
    assert covered.sum() == 64 * 72
    np.testing.assert_array_equal(placed.image[778:842, :72], found.image)
    assert not placed.image[~covered].any()
    outside = mask_file.Mask(found.image, "MIRIMAGE", Window(1000, 1000, 72, 64), path=found.path)
    with pytest.raises(DataError, match="reaches outside MIRIMAGE"):
        mask_file.place(outside)


def test_plain_images(tmp_path):
    fits.PrimaryHDU(np.eye(5, dtype=np.uint8)).writeto(tmp_path / "p.fits")
    image, header = mask_file.read_plain(tmp_path / "p.fits")
    np.testing.assert_array_equal(image, np.eye(5))
    assert not mask_file.is_mask_file(tmp_path / "p.fits")
    fits.PrimaryHDU(np.zeros(5)).writeto(tmp_path / "q.fits")
    with pytest.raises(DataError, match="holds no two-dimensional image"):
        mask_file.read_plain(tmp_path / "q.fits")
    assert "SIMPLE" in header


def test_evidence_is_tied_to_the_mask(tmp_path):
    path = written(tmp_path / "m.fits")
    header = mask_file.evidence_header(path)
    assert header["MASKFILE"] == "m.fits"
    assert header["MASKSUM"] == fits.getheader(path, "DQ")["DATASUM"]


@pytest.mark.parametrize(("place", "sound"), [("data", False), ("table", False), ("header", True)])
def test_data_that_are_not_what_was_written_are_refused(tmp_path, place, sound):
    """An edited header has a wrong CHECKSUM beside a right DATASUM, as has a model that stdatamodels saved."""
    path = tmp_path / "mask.fits"
    written(path, descrip="one text")
    content = bytearray(path.read_bytes())
    with fits.open(path) as hdus:
        starts = {hdu.name: hdu.fileinfo()["datLoc"] for hdu in hdus}
    if place == "data":
        content[starts["DQ"] + 4 * 5000 + 3] ^= 1
    elif place == "table":
        content[starts["DQ_DEF"] + 60] ^= 1  # a letter of a description
    else:
        at = content.index(b"'one text")
        content[at : at + 9] = b"'two text"
    path.write_bytes(bytes(content))
    if sound:
        assert read_mask(path).header["DESCRIP"] == "two text"
    else:
        with pytest.raises(
            DataError, match=r"DATASUM of .* is wrong.*--ignore-checksum .*merge: ignore_checksum: true"
        ):
            read_mask(path)
    assert read_mask(path, check_sums=False).detector == "MIRIMAGE"
