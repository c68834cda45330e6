"""The one reader: plain, gzipped and fpacked files hold the same; flags are bits; a file that changes is an error."""

import gzip
import os
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from badpix.errors import DataError
from badpix.io import unpack
from badpix.io.cal import read_layout, read_rows
from badpix.io.exposure import open_exposure, unpacking
from badpix.io.fits import open_fits, pack, read_band
from badpix.io.unpack import gunzip

RNG = np.random.default_rng(11)
TYPES = ["u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8"]


def numbers(dtype, shape=(2, 3, 7, 5)):
    """Any bit patterns of a type, without NaN."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.nan_to_num(RNG.integers(0, 256, size, np.uint8).view(dtype)).reshape(shape)


def write(path, data, name="SCI", **more):
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name=name)])
    for key, image in more.items():
        hdus.append(fits.ImageHDU(image, name=key))
    hdus.writeto(path, overwrite=True)
    return path


def write_packed(path, images):
    hdus = [fits.CompImageHDU(d, name=n, compression_type="GZIP_2", quantize_level=0) for n, d in images.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("dtype", [t for t in TYPES if t[0] != "f"])
@pytest.mark.parametrize(("name", "memory"), [("DQ", "u4"), ("PIXELDQ", "u4"), ("GROUPDQ", "u1")])
def test_flags_are_bits_in_whatever_integers_they_were_stored(tmp_path, dtype, name, memory):
    data = numbers(dtype)
    layout = open_exposure(write(tmp_path / "a.fits", data, name))[name]
    found = read_band(layout, 2, 6, planes=[5, 0])
    assert found.dtype == memory
    bits = data.view(f"u{data.dtype.itemsize}").reshape(6, 7, 5)[[5, 0], 2:6]
    np.testing.assert_array_equal(found, bits.astype(memory))


@pytest.mark.parametrize("dtype", TYPES)
def test_packing_is_the_inverse_of_reading(tmp_path, dtype):
    data = numbers(dtype)
    layout = open_exposure(write(tmp_path / "a.fits", data))["SCI"]
    whole = read_band(layout, 0, 7)
    np.testing.assert_array_equal(whole, data.reshape(6, 7, 5))
    content = (tmp_path / "a.fits").read_bytes()
    assert pack(whole, layout).tobytes() == content[layout.offset : layout.offset + whole.nbytes]


def test_a_buffer_of_another_type_takes_the_numbers(tmp_path):
    data = numbers("i4", (3, 8, 9))
    layout = open_exposure(write(tmp_path / "a.fits", data))["SCI"]
    out = np.empty((3, 8, 9), np.float64)
    assert read_band(layout, 0, 8, out=out) is out
    np.testing.assert_array_equal(out, data)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u4", "f4", "f8"])
def test_packed_files_hold_the_same(tmp_path, dtype):
    data = numbers(dtype, (6, 7, 5))
    plain = open_exposure(write(tmp_path / "a.fits", data))
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    packed = write_packed(tmp_path / "a.fits.fz", {"SCI": data})
    for path in (tmp_path / "a.fits.gz", packed):
        with unpacking() as workdir:
            layout = open_exposure(path, workdir)["SCI"]
            assert (layout.dtype, layout.shape) == (plain["SCI"].dtype, plain["SCI"].shape)
            np.testing.assert_array_equal(read_band(layout, 0, 7), data)


@pytest.mark.parametrize("form", ["gzip", "fpack"])
def test_outlier_commands_read_packed_exposures(tmp_path, form):
    images = {"SCI": numbers("f4", (20, 30)), "ERR": numbers("f4", (20, 30)), "DQ": numbers("u4", (20, 30))}
    path = write(tmp_path / "a_cal.fits", images["SCI"], ERR=images["ERR"], DQ=images["DQ"])
    if form == "gzip":
        packed = tmp_path / "a_cal.fits.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
    else:
        packed = write_packed(tmp_path / "a_cal.fits.fz", images)
    with pytest.raises(DataError, match="compressed"):
        read_layout(packed)
    with unpacking() as workdir:
        cal = read_layout(packed, workdir)
        assert [hdu.name for hdu in cal.hdus] == ["PRIMARY", "SCI", "ERR", "DQ"]
        for name, image in images.items():
            np.testing.assert_array_equal(read_rows(cal, name, 3, 17), image[3:17])


@pytest.mark.parametrize("change", ["size", "content", "replaced", "gone", "times restored"])
@pytest.mark.parametrize("reader", ["exposure", "cal"])
def test_a_file_that_changes_is_an_error(tmp_path, change, reader):
    path = write(tmp_path / "a.fits", numbers("f4", (20, 30)))
    opened, cal = open_exposure(path), read_layout(path)
    before = path.stat()
    content = bytearray(path.read_bytes())
    if change == "size":
        path.write_bytes(content + b"\0" * 2880)
    elif change == "replaced":
        (tmp_path / "b.fits").write_bytes(content)
        os.utime(tmp_path / "b.fits", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(tmp_path / "b.fits", path)
    elif change == "gone":
        path.unlink()
    else:
        content[6000] ^= 1
        with open(path, "r+b") as stream:
            stream.write(content)
        if change == "times restored":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    words = "can't be read" if change == "gone" else "changed during the run"
    with pytest.raises(DataError, match=rf"a\.fits: {words}"):
        read_band(opened["SCI"], 0, 20) if reader == "exposure" else read_rows(cal, "SCI")


# --- expansion -------------------------------------------------------------------------------------------


def test_several_members_of_gzip_are_one_file(tmp_path):
    content = write(tmp_path / "a.fits", numbers("f4", (400, 500))).read_bytes()
    path = tmp_path / "b.fits.gz"
    path.write_bytes(gzip.compress(content[:70_001]) + gzip.compress(content[70_001:]))
    assert gunzip(path, tmp_path).read_bytes() == content


@pytest.mark.parametrize("spoil", ["cut", "bit", "more", "text"])
def test_damaged_gzip_is_one_message(tmp_path, spoil):
    content = bytearray(gzip.compress(write(tmp_path / "a.fits", numbers("f4", (40, 50))).read_bytes()))
    if spoil == "cut":
        content = content[:-200]
    elif spoil == "bit":
        content[len(content) // 2] ^= 16
    elif spoil == "more":
        content += b"something else"
    else:
        content = bytearray(gzip.compress(b"hello" * 1000))
    path = tmp_path / "a_rate.fits.gz"
    path.write_bytes(content)
    with (
        unpacking() as workdir,
        pytest.raises(DataError, match=r"gz: (not readable as gzip|gzipped, but)"),
    ):
        open_exposure(path, workdir)
    with pytest.raises(DataError, match=r"a_rate.fits.gz: "), open_fits(path):
        pass


def test_unpacking_stops_at_half_of_the_free_space(tmp_path, monkeypatch):
    path = tmp_path / "a_rate.fits.gz"
    path.write_bytes(gzip.compress(write(tmp_path / "a.fits", np.zeros((1000, 1000), "f4")).read_bytes()))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000_000))
    with unpacking() as workdir, pytest.raises(DataError, match="unpacks to more than"):
        open_exposure(path, workdir)


def test_an_exposure_in_stripes_is_refused_by_its_keyword(tmp_path):
    path = write(tmp_path / "a_rate.fits", numbers("f4", (20, 30)))
    fits.setval(path, "MSTR_RD2", value=0)
    open_exposure(path)
    fits.setval(path, "MSTR_RD2", value=41)
    for read in (open_exposure, read_layout):
        with pytest.raises(DataError, match=r"a_rate.fits: MSTR_RD2 = 41: read out in stripes"):
            read(path)


@pytest.mark.parametrize("claimed", [0, 1 << 20])
def test_a_small_file_that_expands_is_unpacked_as_far_as_its_headers_say(tmp_path, claimed):
    header = fits.Header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 1 if claimed else 0})
    if claimed:
        header["NAXIS1"] = claimed
    path = tmp_path / "a.fits.gz"
    with gzip.open(path, "wb", 1) as stream:
        stream.write(header.tostring().encode() + bytes(claimed))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    assert gunzip(path, tmp_path).stat().st_size <= claimed + (3 << 20)


def test_a_claim_that_can_not_be_is_refused_before_all_is_unpacked(tmp_path):
    header = fits.Header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 2, "NAXIS1": 1 << 20, "NAXIS2": 1 << 20})
    path = tmp_path / "a.fits.gz"
    path.write_bytes(gzip.compress(header.tostring().encode() + bytes(8 << 20), 1))
    with pytest.raises(DataError, match=r"a.fits.gz: .*more than any detector's frame has"):
        gunzip(path, tmp_path)
