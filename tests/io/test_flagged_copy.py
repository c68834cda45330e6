"""Reading `_cal` files by rows and writing `_crf` copies: every HDU kept, masks matched, metadata updated."""

import hashlib
import io
import re

import asdf
import astropy.units as u
import numpy as np
import pytest
from astropy import coordinates
from astropy.io import fits
from astropy.modeling import models

from badpix.errors import DataError
from badpix.io import asdf_text, flagged_copy
from badpix.io import cal as io_cal
from badpix.io.associations import Association, Member
from badpix.io.output import atomic_path

SHAPE = (70, 33)


@pytest.fixture
def cal_path(tmp_path):
    """A `_cal` file with NaN in single arrays, DQ flags, an unknown table and an ASDF tree with a binary block."""
    rng = np.random.default_rng(5)
    sci, err, var = (rng.normal(10, 1, SHAPE).astype("f4") for _ in range(3))
    sci[5, 6] = err[7, 8] = var[0, 0] = np.nan
    dq = np.zeros(SHAPE, "u4")
    dq[9, 10], dq[11, 12], dq[69, 32] = 1, 4, 1 << 31
    tree = {
        "meta": {"cal_step": {"flat_field": "COMPLETE"}, "filename": "x_cal.fits", "asn": {}},
        "table": np.arange(100.0),
    }
    buffer = io.BytesIO()
    asdf.AsdfFile(tree).write_to(buffer)
    content = np.frombuffer(buffer.getvalue(), "u1")
    column = fits.Column("ASDF_METADATA", f"{content.size}B", array=content[None])
    primary = fits.PrimaryHDU()
    primary.header["FILENAME"] = "x_cal.fits"
    primary.header["S_FLAT"] = "COMPLETE"
    primary.header["ZZZ"] = 1
    hdus = fits.HDUList(
        [
            primary,
            fits.ImageHDU(sci, name="SCI"),
            fits.ImageHDU(err, name="ERR"),
            fits.ImageHDU(dq, name="DQ"),
            fits.ImageHDU(var, name="VAR_POISSON"),
            fits.ImageHDU(var[:5], name="VAR_FLAT"),
            fits.ImageHDU(np.arange(6, dtype="i2"), name="MINE"),
            fits.BinTableHDU.from_columns([column], name="ASDF"),
        ]
    )
    path = tmp_path / "x_cal.fits"
    hdus.writeto(path, checksum=True)
    return path


def _asn(path, **more):
    return Association((Member(path),), **more)


def _write(path, target, flagged, **more):
    options = {"association": _asn(path), "status": "COMPLETE", "history": ["said so"]}
    with atomic_path(target) as temporary:
        return flagged_copy.write_copy(
            io_cal.read_layout(path), temporary, target.name, flagged=flagged, **(options | more)
        )


def test_rows_are_read_as_astropy_reads_them(cal_path):
    cal = io_cal.read_layout(cal_path)
    assert cal.shape == SHAPE
    for name in ("SCI", "ERR", "DQ", "VAR_POISSON"):
        expected = fits.getdata(cal_path, name)
        found = io_cal.read_rows(cal, name, 3, 70)
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, expected[3:])
    assert io_cal.read_rows(cal, "DQ").dtype == np.uint32


def test_copy_keeps_everything_and_matches_the_masks(cal_path, tmp_path):
    before = hashlib.sha256(cal_path.read_bytes()).hexdigest()
    flagged = np.zeros(SHAPE, bool)
    flagged[0, 5] = flagged[69, 32] = flagged[9, 10] = True
    counts = _write(cal_path, tmp_path / "x_crf.fits", flagged)
    assert hashlib.sha256(cal_path.read_bytes()).hexdigest() == before

    bad = flagged.copy()
    for y, x in ((5, 6), (7, 8), (0, 0), (9, 10)):
        bad[y, x] = True
    assert counts == {"flagged": 3, "newly_unusable": 5, "unusable": 6}
    with fits.open(cal_path) as old, fits.open(tmp_path / "x_crf.fits") as new:
        new.verify("exception")
        assert [h.name for h in new] == [h.name for h in old]
        expected = old["DQ"].data.copy()
        expected[bad] |= 1
        expected[flagged] |= 17
        np.testing.assert_array_equal(new["DQ"].data, expected)
        for name in ("SCI", "ERR", "VAR_POISSON"):
            np.testing.assert_array_equal(new[name].data, np.where(bad, np.nan, old[name].data))
        for name in ("VAR_FLAT", "MINE"):
            np.testing.assert_array_equal(new[name].data, old[name].data)
            assert new[name].header["DATASUM"] == old[name].header["DATASUM"]
        assert "DATASUM" not in new["SCI"].header


def test_primary_header_and_tree_say_what_was_done(cal_path, tmp_path):
    asn = _asn(cal_path, asn_id="a3001", pool_name="the pool", table_name="t_asn.json")
    cal = io_cal.read_layout(cal_path)
    target = flagged_copy.crf_path(tmp_path, cal, asn)
    assert target.name == "x_a3001_crf.fits"
    _write(cal_path, target, np.zeros(SHAPE, bool), association=asn)
    header = fits.getheader(target)
    assert header["S_OUTLIR"] == "COMPLETE"
    assert header["FILENAME"] == target.name
    assert (header["ASNPOOL"], header["ASNTABLE"]) == ("the pool", "t_asn.json")
    assert "said so" in str(header["HISTORY"])
    assert list(header).index("S_OUTLIR") == list(header).index("S_FLAT") + 1
    with asdf.open(io.BytesIO(io_cal.read_asdf(io_cal.read_layout(target)))) as af:
        meta = af["meta"]
        assert meta["cal_step"] == {"outlier_detection": "COMPLETE", "flat_field": "COMPLETE"}
        assert meta["asn"] == {"exptype": "science", "pool_name": "the pool", "table_name": "t_asn.json"}
        assert meta["filename"] == target.name
        np.testing.assert_array_equal(af["table"], np.arange(100.0))
    assert io_cal.read_meta(io_cal.read_layout(target), "meta.cal_step.flat_field") == "COMPLETE"
    assert io_cal.read_meta(io_cal.read_layout(target), "meta.group_id") is None


def test_a_value_outside_ascii_is_named_with_its_file(cal_path, tmp_path):
    fits.setval(cal_path, "OBSLABEL", value="QQQ")
    cal_path.write_bytes(cal_path.read_bytes().replace(b"'QQQ ", b"'Q\xffQ ", 1))
    with pytest.raises(DataError, match=r"_cal\.fits: a card of its headers can't be copied"):
        _write(cal_path, tmp_path / "x_crf.fits", np.zeros(SHAPE, bool))


@pytest.mark.parametrize(("letters", "comment"), [(20, "Name of the file"), (52, ""), (75, "")])
def test_a_comment_that_does_not_fit_is_dropped(cal_path, tmp_path, letters, comment):
    fits.setval(cal_path, "FILENAME", value="x_cal.fits", comment="Name of the file")
    target = tmp_path / ("x" * (letters - len("_crf.fits")) + "_crf.fits")
    _write(cal_path, target, np.zeros(SHAPE, bool))  # warnings are errors
    header = fits.getheader(target)
    assert (header["FILENAME"], header.comments["FILENAME"]) == (target.name, comment)


def test_skipped_exposures_keep_their_pixels(cal_path, tmp_path):
    assert _write(cal_path, tmp_path / "x_crf.fits", None, status="SKIPPED") == {}
    with fits.open(cal_path) as old, fits.open(tmp_path / "x_crf.fits") as new:
        for name in ("SCI", "ERR", "DQ"):
            np.testing.assert_array_equal(new[name].data, old[name].data)
        assert new[0].header["S_OUTLIR"] == "SKIPPED"


def test_broken_files(cal_path, tmp_path):
    content = cal_path.read_bytes()
    short = tmp_path / "short.fits"
    short.write_bytes(content[:12000])
    with pytest.raises(DataError, match="truncated"):
        io_cal.read_layout(short)
    with pytest.raises(DataError, match="no such file"):
        io_cal.read_layout(tmp_path / "none.fits")
    text = tmp_path / "text.fits"
    text.write_text("hello")
    with pytest.raises(DataError, match="not readable as FITS"):
        io_cal.read_layout(text)
    text.write_bytes(b"\x1f\x8b...")
    with pytest.raises(DataError, match="compressed"):
        io_cal.read_layout(text)
    cube = tmp_path / "cube.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 3, 4), "f4"), name="SCI")]).writeto(cube)
    with pytest.raises(DataError, match="3 axes"):
        _ = io_cal.read_layout(cube).shape
    with pytest.raises(DataError, match="no DQ extension"):
        io_cal.read_rows(io_cal.read_layout(cube), "DQ")
    integers = tmp_path / "integers.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((3, 4), "i2"), name="SCI")]).writeto(integers)
    with pytest.raises(DataError, match="BITPIX 16"):
        _ = io_cal.read_layout(integers).shape


@pytest.mark.parametrize(
    "tree",
    [
        {"meta": {"asn": None, "cal_step": {}, "deep": {"a": [1, 2, {"b": "ä, ü"}]}}},
        {"meta": {"other": "x"}, "block": np.arange(5)},
        {"first": np.arange(3), "meta": {"asn": {"table_name": "it's: old"}, "filename": ""}},
        {"nothing": 1},
    ],
)
def test_tree_values_are_replaced_or_added_in_any_style(tree):
    buffer = io.BytesIO()
    asdf.AsdfFile(tree).write_to(buffer)
    changes = {"meta.asn.table_name": "a: 'b'", "meta.cal_step.outlier_detection": "COMPLETE", "meta.filename": "no"}
    for _ in range(2):  # added, then replaced
        changed = asdf_text.update(buffer.getvalue(), changes)
        with asdf.open(io.BytesIO(changed)) as af:
            assert af["meta"]["asn"]["table_name"] == "a: 'b'"
            assert af["meta"]["cal_step"]["outlier_detection"] == "COMPLETE"
            assert af["meta"]["filename"] == "no"
            for name in ("block", "first"):
                if name in tree:
                    np.testing.assert_array_equal(af[name], tree[name])
            if "deep" in tree.get("meta", {}):
                assert af["meta"]["deep"]["a"][2] == {"b": "ä, ü"}
        buffer = io.BytesIO(changed)


def test_no_asdf():
    with pytest.raises(ValueError):
        asdf_text.split(b"nothing")


def test_trees_are_written_alike_in_every_process():
    """The package lists the extensions it used in the order of a set; here they are sorted, and the file opens."""
    model = models.Shift(2.0) & models.Shift(3.0) | models.Pix2Sky_TAN()
    content = asdf_text.write({"meta": {"model": model, "frame": coordinates.ICRS(), "unit": u.DN, "value": 3}})
    used = re.findall(r"extension_uri: (\S+)", asdf_text.split(content)[0])
    assert len(used) >= 4
    assert used == sorted(used)
    with asdf.open(io.BytesIO(content), lazy_load=False) as file:
        assert file["meta"]["value"] == 3
        assert file["meta"]["model"].n_submodels == 3
