"""Images compressed in tiles: read back by astropy, pixel by pixel and whole, with the sums of the table."""

import numpy as np
import pytest
from astropy.io import fits

from badpix.io import sums, tiles
from badpix.io.output import pack_hdu

RNG = np.random.default_rng(5)
IMAGES = {
    "noise": RNG.normal(0, 1, (53, 37)).astype(np.float32),
    "double": RNG.normal(0, 1, (16, 5)),
    "empty": np.where(RNG.random((70, 64)) < 0.01, 1.5, np.nan).astype(np.float32),
    "flags": RNG.integers(0, 2**32, (33, 20), dtype=np.uint32),
    "counts": RNG.integers(0, 2**16, (17, 9), dtype=np.uint16),
    "signed": RNG.integers(-(2**31), 2**31, (15, 8), dtype=np.int32),
    "bytes": np.zeros((40, 1), np.uint8),
    "one": np.full((1, 1), 3.0, np.float32),
}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "tiles.fits"
    with open(path, "wb") as stream:
        stream.write(pack_hdu(fits.PrimaryHDU()))
        for name, image in IMAGES.items():
            tiles.write_image(stream, name.upper(), image)
    return path


def test_astropy_reads_what_was_written(written):
    with fits.open(written) as hdus:
        for hdu, (name, image) in zip(hdus[1:], IMAGES.items(), strict=True):
            assert isinstance(hdu, fits.CompImageHDU)
            assert hdu.name == name.upper()
            part = hdu.section[min(20, len(image) - 1), :]
            np.testing.assert_array_equal(part, image[min(20, len(image) - 1)])
            np.testing.assert_array_equal(hdu.data, image)
            assert hdu.data.dtype.kind == image.dtype.kind
            assert hdu.data.dtype.itemsize == image.dtype.itemsize


def test_the_sums_are_those_of_the_tables(written):
    found = {s.extension: s.right for s in sums.read_sums(written) if s.keyword == "DATASUM"}
    assert all(found[name.upper()] for name in IMAGES)
    with fits.open(written, disable_image_compression=True) as hdus:
        for hdu in hdus[1:]:
            assert hdu.verify_datasum() == 1


def test_a_changed_byte_breaks_the_sum(written):
    data = bytearray(written.read_bytes())
    with fits.open(written, disable_image_compression=True) as hdus:
        place = hdus["FLAGS"].fileinfo()["datLoc"] + 100
    data[place] ^= 4
    written.write_bytes(data)
    found = {s.extension: s.right for s in sums.read_sums(written) if s.keyword == "DATASUM"}
    assert found["FLAGS"] is False


def test_parts_add_up_like_the_whole():
    parts = [b"abc", b"", b"defgh" * 7, b"x"]
    whole = b"".join(parts)
    words = np.frombuffer(whole + b"\0" * (-len(whole) % 4), ">u4")
    assert tiles.add_parts(parts) == sums.fold(int(words.sum(dtype=np.uint64)))


def test_equal_images_give_equal_bytes():
    assert tiles.pack_tile(IMAGES["noise"]) == tiles.pack_tile(IMAGES["noise"].copy())
