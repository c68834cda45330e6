"""Geometry, compared with the table of the pipeline's documentation."""

import numpy as np
import pytest

from badpix import detectors
from badpix.detectors import Window
from badpix.errors import DataError

AXES = {
    "NRCA1": (-1, 2),
    "NRCA3": (-1, 2),
    "NRCALONG": (-1, 2),
    "NRCA2": (1, -2),
    "NRCA4": (1, -2),
    "NRCB2": (-1, 2),
    "NRCB4": (-1, 2),
    "NRCB1": (1, -2),
    "NRCB3": (1, -2),
    "NRCBLONG": (1, -2),
    "NIS": (-2, -1),
    "GUIDER1": (-2, -1),
    "GUIDER2": (2, -1),
    "NRS1": (2, 1),
    "NRS2": (-2, -1),
    "MIRIMAGE": (1, 2),
    "MIRIFULONG": (1, 2),
    "MIRIFUSHORT": (1, 2),
}
DEAD_RATES = {
    "NRCA1": 25,
    "NRCA2": 25,
    "NRCA3": 30,
    "NRCA4": 30,
    "NRCALONG": 40,
    "NRCB1": 25,
    "NRCB2": 25,
    "NRCB3": 25,
    "NRCB4": 25,
    "NRCBLONG": 50,
}


def test_axes():
    assert {name: (d.fastaxis, d.slowaxis) for name, d in detectors.table().items()} == AXES


def test_documented_dead_rates():
    found = {name: d.max_dead_rate for name, d in detectors.table().items() if d.max_dead_rate is not None}
    assert found == DEAD_RATES


@pytest.mark.parametrize("name", AXES)
def test_full_frames(name):
    d = detectors.get(name)
    miri = d.instrument == "MIRI"
    assert d.shape == ((1024, 1032) if miri else (2048, 2048))
    border = detectors.measure_border(d, d.full)
    assert border.shape == d.shape
    assert border.sum() == (8192 if miri else 32704)  # 0.78 % of the frame
    inside = border[:, 4:-4] if miri else border[4:-4, 4:-4]
    assert not inside.any()


def test_names_in_any_case_and_aliases():
    assert detectors.get("nrca5").name == "NRCALONG"
    assert detectors.get(" NRCB5 ").name == "NRCBLONG"
    with pytest.raises(DataError, match="'NRCB11' is unknown; did you mean 'NRCB1'"):
        detectors.get("NRCB11")


@pytest.mark.parametrize("name", ["NRCB1", "MIRIMAGE"])
@pytest.mark.parametrize(("x", "y"), [(1, 1), (3, 700), (500, 600), (1, 1000), (1017, 999)])
def test_windows_are_cut_out_of_the_full_frame(name, x, y):
    d = detectors.get(name)
    window = Window(x, y, 16, 20)
    part = (slice(y - 1, y + 19), slice(x - 1, x + 15))
    np.testing.assert_array_equal(detectors.measure_border(d, window), detectors.measure_border(d, d.full)[part])
    np.testing.assert_array_equal(detectors.amplifier_map(d, window), detectors.amplifier_map(d, d.full)[part])


def test_interior_subarray_has_no_reference_pixels():
    assert not detectors.measure_border(detectors.get("NRCA1"), Window(1000, 1000, 160, 160)).any()


def test_irs2_border_ends_at_row_3200():
    border = detectors.measure_border(detectors.get("NRS1"), Window(1, 1, 2048, 3200))
    assert border.shape == (3200, 2048)
    assert border[3196:].all()
    assert not border[4:3196, 4:2044].any()


@pytest.mark.parametrize(("name", "axis"), [("NRCB1", 1), ("NRS1", 0)])
def test_amplifiers_are_stripes_of_512(name, axis):
    d = detectors.get(name)
    amplifiers = detectors.amplifier_map(d, d.full)
    line = amplifiers[0] if axis == 1 else amplifiers[:, 0]
    np.testing.assert_array_equal(line, np.repeat(np.arange(4), 512))
    assert (amplifiers == (line[None, :] if axis == 1 else line[:, None])).all()


def test_amplifiers_of_miri_are_interleaved():
    d = detectors.get("MIRIMAGE")
    assert detectors.amplifier_map(d, d.full)[5, :6].tolist() == [0, 1, 2, 3, 0, 1]
