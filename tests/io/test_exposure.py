"""Reading exposures: what is read is what astropy reads, and every broken file ends in one message that names it."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from make_files import (
    CORNER,
    INTERIOR,
    make_flats,
    make_hdus,
    pack_gzip,
    pack_tiles,
    write_rate,
    write_rates,
    write_uncal,
)

from badpix.detectors import Window
from badpix.errors import BadpixError, DataError, UsageError
from badpix.flats.build import check_flat
from badpix.io import unpack
from badpix.io.exposure import band_height, open_exposure, read_reference_pixels, unpacking
from badpix.io.fits import bands, read_band, read_image
from badpix.io.selection import check_same, check_state, expand_inputs, root_name, sibling

RNG = np.random.default_rng(1)
IMAGE = RNG.normal(100, 1, (80, 96)).astype(np.float32)
IMAGE[3, 5], IMAGE[4, 5] = np.nan, np.inf
RAMPS = RNG.integers(0, 65536, (2, 5, 80, 96)).astype(np.uint16)


# --- pixels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8"])
def test_bands_equal_astropy_for_every_type(tmp_path, dtype):
    data = np.random.default_rng(1).integers(0, 256, 2 * 3 * 7 * 5 * 8, np.uint8).view(dtype)[: 2 * 3 * 7 * 5]
    data = np.nan_to_num(data).reshape(2, 3, 7, 5)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI")]).writeto(tmp_path / "a.fits")
    layout = open_exposure(tmp_path / "a.fits")["SCI"]
    assert (layout.dtype, layout.shape, layout.planes) == (dtype, (2, 3, 7, 5), 6)
    found = read_band(layout, 2, 6, planes=[5, 0])
    np.testing.assert_array_equal(found, data.reshape(6, 7, 5)[[5, 0], 2:6])
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative


def test_a_buffer_is_reused(tmp_path):
    layout = open_exposure(write_uncal(tmp_path / "u.fits", RAMPS))["SCI"]
    buffer = np.empty((10, 16, 96), np.uint16)
    assert read_band(layout, 16, 32, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, RAMPS.reshape(10, 80, 96)[:, 16:32])


def test_every_fifth_row(tmp_path):
    layout = open_exposure(write_uncal(tmp_path / "u.fits", RAMPS))["SCI"]
    found = read_band(layout, 3, 79, planes=[7, 2], step=5)
    np.testing.assert_array_equal(found, RAMPS.reshape(10, 80, 96)[[7, 2], 3:79:5])


def test_bytes_as_in_the_file(tmp_path):
    layout = open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE))["SCI"]
    stored = read_band(layout, 0, 80, native=False)
    assert stored.dtype == np.dtype(">f4")
    np.testing.assert_array_equal(stored[0], IMAGE)


@pytest.mark.parametrize("pack", [pack_gzip, pack_tiles])
def test_compressed_files_hold_the_same(tmp_path, pack):
    plain = open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE, window=CORNER))
    flags = read_image(plain["DQ"])
    with unpacking() as workdir:
        found = open_exposure(pack(plain.path), workdir, ["SCI", "DQ"])
        assert {k: v for k, v in found.header.items() if "COMP" not in k} == plain.header
        np.testing.assert_array_equal(read_image(found["SCI"]), IMAGE)
        np.testing.assert_array_equal(read_image(found["DQ"]), flags)
        assert found.path.name != found["SCI"].path.name
    assert not workdir.exists()


@pytest.mark.parametrize("pack", [pack_gzip, pack_tiles])
def test_compressed_ramps(tmp_path, pack):
    path = pack(write_uncal(tmp_path / "a_uncal.fits", RAMPS))
    with unpacking() as workdir:
        found = open_exposure(path, workdir, ["SCI"])
        assert found.kind == "uncal"
        np.testing.assert_array_equal(read_band(found["SCI"], 3, 9, planes=[7])[0], RAMPS[1, 2, 3:9])


def test_compressed_files_need_a_folder(tmp_path):
    path = pack_gzip(write_rate(tmp_path / "a_rate.fits", IMAGE))
    with pytest.raises(DataError, match=r"a_rate.fits.gz: compressed"):
        open_exposure(path)


def test_unpacking_looks_at_the_free_space(tmp_path, monkeypatch):
    path = pack_gzip(write_rate(tmp_path / "a_rate.fits", IMAGE))
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with unpacking() as workdir, pytest.raises(DataError, match=r"a_rate.fits.gz: unpacking needs .* set TMPDIR"):
        open_exposure(path, workdir)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a_rate", IMAGE, "rate"),
        ("a_rateints", IMAGE[None], "rateints"),
        ("a_jump", IMAGE[None, None], "jump"),
        ("a_uncal", RAMPS, "uncal"),
        ("a_uncal", RAMPS[0], "uncal"),
    ],
)
def test_kinds(tmp_path, name, data, kind):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI")]).writeto(tmp_path / "f.fits")
    assert open_exposure(tmp_path / "f.fits").kind == kind


def test_kind_of_fitopt_and_of_nothing(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(IMAGE[None], name="PEDESTAL")]).writeto(tmp_path / "f.fits")
    assert open_exposure(tmp_path / "f.fits").kind == "fitopt"
    fits.PrimaryHDU(IMAGE).writeto(tmp_path / "p.fits")
    assert open_exposure(tmp_path / "p.fits").kind == "unknown"


@given(st.integers(1, 300), st.integers(1, 50))
def test_bands_cover_each_row_once(ny, height):
    rows = [y for start, stop in bands(ny, height) for y in range(start, stop)]
    assert rows == list(range(ny))


@given(st.floats(1, 1e6), st.floats(1e6, 1e9), st.integers(1, 4000))
def test_bands_fit_into_memory(row, limit, ny):
    height = band_height(row, limit, ny)
    assert 1 <= height <= ny
    assert height * row <= limit
    assert height == ny or height & (height - 1) == 0


def test_a_row_that_does_not_fit():
    with pytest.raises(UsageError, match="--max-memory: one row of all inputs takes"):
        band_height(100, 99, 10)


# --- broken files ----------------------------------------------------------------------------------------


def refused(path, *words, workdir=None):
    """The one message about a file; it names the file."""
    with pytest.raises(DataError) as caught:
        check_flat(open_exposure(path, workdir, ["SCI", "DQ"]))
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def test_missing_file(tmp_path):
    refused(tmp_path / "gone_rate.fits", "no such file")


def test_a_folder_is_no_file(tmp_path):
    refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"SIMPLE", b"not a FITS file at all\n" * 300, b"\x1f\x8b", b"\0" * 5760])
def test_no_fits_at_all(tmp_path, content):
    path = tmp_path / "odd_rate.fits"
    path.write_bytes(content)
    with unpacking() as workdir:
        refused(path, workdir=workdir)


@pytest.mark.parametrize("name", ["SCI", "DQ"])
def test_missing_extension(tmp_path, name):
    hdus = make_hdus(IMAGE)
    del hdus[name]
    hdus.writeto(tmp_path / "a_rate.fits")
    refused(tmp_path / "a_rate.fits", f"extension {name} is missing; found")


@pytest.mark.parametrize("key", ["DETECTOR", "SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2"])
def test_missing_keyword(tmp_path, key):
    hdus = make_hdus(IMAGE)
    del hdus[0].header[key]
    hdus.writeto(tmp_path / "a_rate.fits")
    refused(tmp_path / "a_rate.fits", f"keyword {key} is missing from the primary header")


@pytest.mark.parametrize("key", ["INSTRUME", "SUBARRAY", "READPATT"])
def test_missing_keyword_of_comparison(tmp_path, key):
    good = open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE))
    without = {"subarray" if key == "SUBARRAY" else key: None}
    bad = open_exposure(write_rate(tmp_path / "b_rate.fits", IMAGE, **without))
    with pytest.raises(DataError, match=rf"b_rate.fits: keyword {key} is missing"):
        check_same([good, bad])


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"s_ramp": "SKIPPED"}, "S_RAMP = 'SKIPPED', expected 'COMPLETE'"),
        ({"s_ramp": None}, "S_RAMP = None, expected 'COMPLETE'"),
        ({"SUBSTRT1": "one"}, "SUBSTRT1 = 'one', expected a whole number"),
        ({"SUBSTRT1": 1.5}, "SUBSTRT1 = 1.5, expected a whole number"),
        ({"SUBSTRT2": True}, "SUBSTRT2 = True, expected a whole number"),
        ({"SUBSTRT1": 10**18 - 1}, f"SUBSTRT1 = {10**18 - 1} is out of range, expected 2147483648 at most"),
        ({"SUBSIZE1": 97}, "SUBSIZE1, SUBSIZE2 = 97, 80, but the image has 96 x 80 pixels"),
        ({"SUBSIZE1": 80, "SUBSIZE2": 96}, "but the image has 96 x 80 pixels"),
    ],
)
def test_wrong_headers(tmp_path, keywords, words):
    refused(write_rate(tmp_path / "a_rate.fits", IMAGE, **keywords), words)


def test_wrong_kinds(tmp_path):
    refused(write_rate(tmp_path / "a_jump.fits", IMAGE[None, None]), "is a jump file, expected rate or rateints")
    hdus = make_hdus(IMAGE)
    hdus["SCI"].data = RAMPS[0]
    hdus.writeto(tmp_path / "a_uncal.fits")
    refused(tmp_path / "a_uncal.fits", "is a uncal file")


def test_state_of_raw_files(tmp_path):
    found = open_exposure(write_uncal(tmp_path / "a_uncal.fits", RAMPS, s_ramp="COMPLETE"))
    with pytest.raises(DataError, match="expected not 'COMPLETE'"):
        check_state(found, "S_RAMP", complete=False)


def test_scaled_integers_are_refused(tmp_path):
    hdu = fits.ImageHDU(np.arange(12, dtype=np.int16).reshape(3, 4), name="SCI")
    hdu.scale("int16", bscale=0.5, bzero=3)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a_rate.fits")
    with pytest.raises(DataError, match=r"a_rate.fits: extension SCI: BSCALE = 0.5, BZERO = 3"):
        open_exposure(tmp_path / "a_rate.fits")


@pytest.mark.parametrize("flags", [np.zeros((40, 96), np.uint32), np.zeros((3, 80, 95), np.uint32)])
def test_dq_of_another_size(tmp_path, flags):
    found = open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE, flags=flags))
    with pytest.raises(DataError, match=r"a_rate.fits: DQ has .* pixels of type u4, expected .* the image, 96 x 80"):
        read_reference_pixels(found)


def test_dq_of_floats(tmp_path):
    found = open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE, flags=np.zeros((80, 96), np.float32)))
    with pytest.raises(DataError, match=r"a_rate.fits: DQ"):
        read_reference_pixels(found)


def test_dq_that_calls_everything_reference(tmp_path):
    found = open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE, flags=np.full((80, 96), 2**31, np.uint32)))
    with pytest.raises(DataError, match="DQ calls 100% of the image REFERENCE_PIXEL"):
        read_reference_pixels(found)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    plain = write_rate(folder / "a_rate.fits", IMAGE)
    packed = pack_gzip(write_rate(folder / "b_rate.fits", IMAGE))
    tiles = pack_tiles(write_rate(folder / "c_rate.fits", IMAGE))
    return {"plain": plain, "gzip": packed, "tiles": tiles}


def read_all(path, workdir):
    """All that a run reads."""
    found = open_exposure(path, workdir, ["SCI", "DQ"])
    check_flat(found)
    return read_image(found["SCI"]), read_reference_pixels(found)


def one_message(path):
    """Reading gives the pixels or one error that names the file, never anything else."""
    caught = None
    with unpacking() as workdir:
        try:
            image, _ = read_all(path, workdir)
        except BadpixError as error:
            caught = str(error)
    if caught is None:
        return image
    assert path.name in caught
    assert "\n" not in caught
    return None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "gzip", "tiles"])
@settings(max_examples=80)
@given(part=st.floats(0, 0.999999))
def test_truncated_at_any_length(tmp_path, sound, kind, part):
    content = sound[kind].read_bytes()
    path = tmp_path / {"plain": "t_rate.fits", "gzip": "t_rate.fits.gz", "tiles": "t_rate.fits.fz"}[kind]
    path.write_bytes(content[: int(part * len(content))])
    found = one_message(path)
    if found is not None:  # only the padding behind the last extension, or what is not needed, was cut
        assert kind != "gzip"
        np.testing.assert_array_equal(found, IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "gzip", "tiles"])
@settings(max_examples=80)
@given(place=st.floats(0, 0.999999), junk=st.binary(min_size=1, max_size=40))
def test_damaged_anywhere(tmp_path, sound, kind, place, junk):
    """Damage to the pixels themselves can't be seen; damage to anything else is one message."""
    content = bytearray(sound[kind].read_bytes())
    start = int(place * len(content))
    content[start : start + len(junk)] = junk
    path = tmp_path / {"plain": "d_rate.fits", "gzip": "d_rate.fits.gz", "tiles": "d_rate.fits.fz"}[kind]
    path.write_bytes(bytes(content))
    one_message(path)


@pytest.mark.slow
@settings(max_examples=60)
@given(place=st.integers(0, 3 * 2880), junk=st.text("ABCSIMPLEXTENSION= '/0123456789-.T", min_size=1, max_size=30))
def test_damaged_headers(tmp_path, sound, place, junk):
    content = bytearray(sound["plain"].read_bytes())
    content[place : place + len(junk)] = junk.encode()
    path = tmp_path / "h_rate.fits"
    path.write_bytes(bytes(content))
    one_message(path)


# --- during the run --------------------------------------------------------------------------------------


def test_a_file_that_changes_during_the_run(tmp_path):
    path = write_rate(tmp_path / "a_rate.fits", IMAGE)
    layout = open_exposure(path)["SCI"]
    read_image(layout)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"a_rate.fits: changed during the run"):
        read_image(layout)


def test_a_file_that_shrinks_during_the_run(tmp_path):
    path = write_rate(tmp_path / "a_rate.fits", IMAGE)
    layout = open_exposure(path)["SCI"]
    os.truncate(path, 20000)
    with pytest.raises(DataError, match=r"a_rate.fits"):
        read_image(layout)


def test_a_file_that_vanishes_during_the_run(tmp_path):
    path = write_rate(tmp_path / "a_rate.fits", IMAGE)
    layout = open_exposure(path)["SCI"]
    path.unlink()
    with pytest.raises(DataError, match=r"a_rate.fits: can't be read: No such file"):
        read_image(layout)


# --- together --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detector": "NRCB2"}, "DETECTOR = 'NRCB2', expected 'NRCB1' as in a_rate.fits"),
        ({"detector": "NIS"}, "INSTRUME = 'NIRISS', expected 'NIRCAM'"),
        ({"subarray": "SUB320"}, "SUBARRAY = 'SUB320', expected 'SUB160'"),
        ({"READPATT": "DEEP8"}, "READPATT = 'DEEP8', expected 'RAPID'"),
        ({"window": Window(1001, 900, 96, 80)}, r"window \(1001, 900, 96, 80\)"),
    ],
)
def test_exposures_that_do_not_belong_together(tmp_path, options, words):
    one = open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE))
    other = open_exposure(write_rate(tmp_path / "b_rate.fits", IMAGE, **options))
    with pytest.raises(DataError, match=rf"b_rate.fits: {words}"):
        check_same([one, one, other])


def test_exposures_of_another_size(tmp_path):
    one = open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE))
    small = Window(INTERIOR.xstart, INTERIOR.ystart, 96, 40)
    other = open_exposure(write_rate(tmp_path / "b_rate.fits", IMAGE[:40], window=small))
    with pytest.raises(DataError, match=r"b_rate.fits: window .* expected \(1000, 900, 96, 80\)"):
        check_same([one, other])


def test_one_exposure_agrees_with_itself(tmp_path):
    check_same([open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE))])


def test_reference_pixels_from_table_and_dq(tmp_path):
    flags = np.zeros((80, 96), np.uint32)
    without = open_exposure(write_rate(tmp_path / "a_rate.fits", IMAGE, window=CORNER, flags=flags))
    border = read_reference_pixels(without)
    assert border[:4].all()
    assert border[:, :4].all()
    assert not border[4:, 4:].any()
    flags[20, 20] = 2**31
    marked = open_exposure(write_rate(tmp_path / "b_rate.fits", IMAGE, window=CORNER, flags=flags))
    assert read_reference_pixels(marked)[20, 20]
    assert read_reference_pixels(marked).sum() == border.sum() + 1


# --- names -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    write_rates(tmp_path / "in", make_flats(3))
    return tmp_path / "in"


def names(found):
    return [p.name for p in found]


ALL = ["exposure01_rate.fits", "exposure02_rate.fits", "exposure03_rate.fits"]


def test_names_folders_globs_and_lists(folder):
    given_list = folder.parent / "list.txt"
    given_list.write_text("# flats\nin/exposure03_rate.fits\n\nin/exposure01_rate.fits  # first\nin/*02_rate.fits\n")
    assert names(expand_inputs([folder])) == ALL
    assert names(expand_inputs([f"{folder}/*_rate.fits"])) == ALL
    assert names(expand_inputs([folder / n for n in reversed(ALL)])) == ALL
    assert names(expand_inputs([f"@{given_list}"])) == ALL


def test_lists_in_lists_start_at_their_own_folder(folder, tmp_path, monkeypatch):
    (folder / "inner.txt").write_text("exposure01_rate.fits\n")
    (tmp_path / "outer.txt").write_text("@in/inner.txt\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert names(expand_inputs(["@../outer.txt"])) == ALL[:1]


def test_a_list_that_names_itself(tmp_path):
    (tmp_path / "a.txt").write_text("@b.txt\n")
    (tmp_path / "b.txt").write_text("@a.txt\n")
    with pytest.raises(UsageError, match=r"@.*\.txt: the list of inputs names itself"):
        expand_inputs([f"@{tmp_path}/a.txt"])


@pytest.mark.parametrize("again", ["exposure01_rate.fits", "./exposure01_rate.fits", "link.fits", "*01*", "."])
def test_a_repeated_input_is_an_error(folder, monkeypatch, again):
    monkeypatch.chdir(folder)
    os.symlink("exposure01_rate.fits", "link.fits")
    with pytest.raises(UsageError, match="is given twice"):
        expand_inputs(["exposure01_rate.fits", again])


@pytest.mark.parametrize(
    ("name", "words"),
    [("nothing.fits", "no such file"), ("*.nothing", "matches no file"), ("@nothing.txt", "can't be read")],
)
def test_names_that_mean_nothing(tmp_path, name, words):
    with pytest.raises(UsageError, match=words):
        expand_inputs([name if name.startswith("@") else str(tmp_path / name)])


def test_empty_lists_and_folders(tmp_path):
    (tmp_path / "l.txt").write_text("# nothing\n\n")
    with pytest.raises(UsageError, match="the list of inputs is empty"):
        expand_inputs([f"@{tmp_path}/l.txt"])
    with pytest.raises(UsageError, match=r"holds no \*_rate.fits or \*_rateints.fits"):
        expand_inputs([tmp_path])
    (tmp_path / "flats").mkdir()
    (tmp_path / "flats" / "a_rate.fits").touch()
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match=r"_rateints.fits; its folder flats does$"):
        expand_inputs([tmp_path])
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="can't be read"):
        expand_inputs([f"@{tmp_path}/b.txt"])


def test_a_folder_gives_one_product_an_exposure(tmp_path):
    for name in "a_rate.fits a_rateints.fits b_rateints.fits.gz a_uncal.fits .c_rate.fits d_rate.txt".split():
        (tmp_path / name).touch()
    assert names(expand_inputs([tmp_path])) == ["a_rate.fits", "b_rateints.fits.gz"]
    assert names(expand_inputs([tmp_path], ("_rateints", "_rate"))) == ["a_rateints.fits", "b_rateints.fits.gz"]


def test_names_with_glob_characters_are_taken_as_they_are(tmp_path):
    (tmp_path / "a[1]_rate.fits").touch()
    assert names(expand_inputs([tmp_path / "a[1]_rate.fits"])) == ["a[1]_rate.fits"]


@pytest.mark.parametrize(
    "name", ["x_rate.fits", "x_rateints.fits.gz", "x_0_ramp_fit.fits", "x_ramp_fit_1.fits", "x_rate.fits.fz"]
)
def test_documented_suffixes(tmp_path, name):
    path = tmp_path / name
    assert root_name(path) == "x"
    assert sibling(path, "_jump") is None
    (tmp_path / "x_jump.fits.gz").touch()
    assert sibling(path, "_jump") == tmp_path / "x_jump.fits.gz"


# --- real files ------------------------------------------------------------------------------------------


def test_real_raw_exposure(real_data):
    found = open_exposure(real_data / "spacetelescope+jwst" / "add_wcs_default_acq1.fits", names=["SCI"])
    assert found.kind == "uncal"
    assert found.window == Window(*(found.header[k] for k in ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")))
    with fits.open(found.path) as hdus:
        wanted = hdus["SCI"].data
    assert wanted.shape == (6, 2, 128, 128)
    np.testing.assert_array_equal(read_band(found["SCI"], 0, 128).reshape(wanted.shape), wanted)


def test_real_rateints(real_data):
    found = open_exposure(next((real_data / "kevin218+Eureka").glob("*_rateints.fits")), names=["SCI", "DQ"])
    check_flat(found)
    with fits.open(found.path) as hdus:
        np.testing.assert_array_equal(read_band(found["SCI"], 100, 200), hdus["SCI"].data[:, 100:200])
        reference = (hdus["DQ"].data[0] & 2**31) != 0
    np.testing.assert_array_equal(read_reference_pixels(found), reference)


def test_real_header_with_an_image_of_one_pixel(real_data):
    found = open_exposure(next((real_data / "spacetelescope+jwst").glob("*nrca2_uncal.fits")))
    with pytest.raises(DataError, match="but the image has 1 x 1 pixels"):
        found.window  # noqa: B018
