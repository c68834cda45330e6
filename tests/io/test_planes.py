"""Rows of planes from a file that stays open: what `read_band` gives, into any room; changed files are errors."""

import os

import numpy as np
import pytest
from astropy.io import fits

from badpix.errors import DataError
from badpix.io.exposure import open_exposure
from badpix.io.fits import read_band
from badpix.io.planes import Planes


@pytest.fixture
def layouts(tmp_path):
    rng = np.random.default_rng(3)
    header = fits.Header({"TELESCOP": "JWST", "INSTRUME": "NIRCAM", "DETECTOR": "NRCALONG"})
    shape = (2, 3, 9, 7)
    hdus = [fits.PrimaryHDU(header=header)]
    hdus += [
        fits.ImageHDU(rng.normal(size=shape).astype(kind), name=name) for name, kind in (("SCI", "f4"), ("B", "f8"))
    ]
    hdus += [
        fits.ImageHDU(rng.integers(0, 99, shape).astype(kind), name=n) for n, kind in (("DQ", "u4"), ("G", "u1"))
    ]
    path = tmp_path / "x_jump.fits"
    fits.HDUList(hdus).writeto(path)
    return open_exposure(path, None, ("SCI", "B", "DQ", "G")).arrays


@pytest.mark.parametrize(("name", "kind"), [("SCI", "f4"), ("B", "f4"), ("DQ", "u4"), ("G", "u1")])
def test_planes_are_those_of_bands_in_room_with_gaps(layouts, name, kind):
    room = np.zeros((2, 4, 3, 7), kind)
    with Planes(layouts[name], 4, 7) as planes:
        found = planes.read([1, 5], room[:, 2])
    np.testing.assert_array_equal(found, read_band(layouts[name], 4, 7, planes=[1, 5]).astype(kind))
    assert not room[:, [0, 1, 3]].any()


def test_bytes_may_stay_as_they_are(layouts):
    room = np.zeros((2, 3, 7), np.float32)
    with Planes(layouts["SCI"], 4, 7) as planes:
        found = planes.read([1, 5], room, native=False)
    assert found.dtype == ">f4"
    np.testing.assert_array_equal(found, read_band(layouts["SCI"], 4, 7, planes=[1, 5]))


def test_a_file_that_changed_or_ends_early_is_an_error(layouts):
    layout = layouts["SCI"]
    with Planes(layout, 4, 7) as planes:
        os.truncate(layout.path, layout.offset + 100)
        with pytest.raises(DataError, match="truncated"):
            planes.read([5], np.zeros((1, 3, 7), np.float32))
    with pytest.raises(DataError, match="changed"), Planes(layout, 4, 7):
        pass
    layout.path.unlink()
    with pytest.raises(DataError, match="can't be read"), Planes(layout, 4, 7):
        pass
