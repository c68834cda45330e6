"""Other forms of a mask: the list reads back to the same mask."""

import csv
import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mask_files import SUB64, SUB160, make_mask

from badpix import detectors, dq
from badpix.cli.main import badpix
from badpix.mask import file as mask_file
from badpix.mask.manual import add_manual, read_manual
from badpix.review import export

FLAGS = [
    (20, 30, "HOT+DO_NOT_USE"),
    (21, 30, "HOT+DO_NOT_USE"),
    (20, 31, "HOT"),
    (4, 0, "DEAD+DO_NOT_USE"),
    (1027, 1023, "RC"),
    (0, 17, "BAD_REF_PIXEL+DO_NOT_USE"),
    (600, 600, "DO_NOT_USE"),
]


def run(*args):
    return CliRunner().invoke(badpix, ["export", *map(str, args)])


def read_back(path, mask, one_based=False):
    facts = detectors.get(mask.detector)
    return add_manual(np.zeros(facts.shape, np.uint32), read_manual(path, facts.shape, one_based), [])


@pytest.mark.parametrize("one_based", [False, True])
def test_the_list_reads_back_to_the_same_mask(tmp_path, one_based):
    mask = mask_file.read_mask(make_mask(tmp_path / "mask.fits", flags=FLAGS))
    export.write(mask, tmp_path / "list.txt", "list", one_based=one_based)
    assert np.array_equal(read_back(tmp_path / "list.txt", mask, one_based), mask.image)


def test_the_list_of_a_subarray_is_in_full_frame_coordinates(tmp_path):
    mask = mask_file.read_mask(make_mask(tmp_path / "mask.fits", "NRCA1", SUB160, [(3, 5, "HOT")], SUBARRAY="SUB160"))
    export.write(mask, tmp_path / "list.txt", "list")
    assert (tmp_path / "list.txt").read_text().splitlines()[-1] == "1002 1004 HOT"


@pytest.mark.slow
def test_a_random_mask_reads_back(tmp_path):
    rng = np.random.default_rng(3)
    values = np.array([f.value for f in dq.FLAGS if f.use == "mask" and f.name != "REFERENCE_PIXEL"], np.uint32)
    mask = mask_file.read_mask(make_mask(tmp_path / "mask.fits"))
    inside = rng.random(mask.image.shape) < 0.02
    mask.image[inside] |= rng.choice(values, inside.sum())
    export.write(mask, tmp_path / "list.txt", "list")
    assert np.array_equal(read_back(tmp_path / "list.txt", mask), mask.image)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 9))))
def test_boxes_cover_a_map_exactly_once(flagged):
    count = np.zeros(flagged.shape, int)
    for y, y1, x, x1 in export.find_boxes(flagged):
        count[y : y1 + 1, x : x1 + 1] += 1
    assert np.array_equal(count, flagged.astype(int))


@pytest.mark.slow
def test_the_reference_border_takes_few_lines(tmp_path):
    mask = mask_file.read_mask(make_mask(tmp_path / "mask.fits", "NRCA1"))
    lines = export.make_list(mask, mask.image).splitlines()
    assert lines[2:] == [
        "0:2047 0:3 REFERENCE_PIXEL",
        "0:3 4:2043 REFERENCE_PIXEL",
        "2044:2047 4:2043 REFERENCE_PIXEL",
        "0:2047 2044:2047 REFERENCE_PIXEL",
    ]


def test_ds9_regions_count_from_one_in_the_image(tmp_path):
    flags = [(10, 5, "HOT+DO_NOT_USE+RC")]
    mask = mask_file.read_mask(make_mask(tmp_path / "mask.fits", window=SUB64, flags=flags, SUBARRAY="SUB64"))
    export.write(mask, tmp_path / "mask.reg", "ds9")
    lines = (tmp_path / "mask.reg").read_text().splitlines()
    assert lines[3] == "image"
    assert lines[4:] == ["box(11,6,1,1,0) # color=#D55E00 tag={HOT} tag={RC}"]


@pytest.mark.parametrize(("detector", "window"), [("MIRIMAGE", None), ("NRCA1", SUB160)])
def test_the_regions_read_back_to_the_flags_of_the_science_pixels(tmp_path, detector, window):
    flags = [(20, 30, "HOT+DO_NOT_USE"), (21, 30, "HOT+RC"), (100, 101, "DEAD+DO_NOT_USE")]
    mask = mask_file.read_mask(make_mask(tmp_path / "mask.fits", detector, window, flags))
    export.write(mask, tmp_path / "m.reg", "ds9")
    place = (slice(mask.window.ystart - 1, None), slice(mask.window.xstart - 1, None))
    found = read_back(tmp_path / "m.reg", mask)[place][: mask.image.shape[0], : mask.image.shape[1]]
    wanted = np.where(mask.reference, 0, mask.image & ~np.uint32(dq.VALUE["DO_NOT_USE"]))
    np.testing.assert_array_equal(found, wanted)


def test_the_boolean_image_is_do_not_use_by_default(tmp_path):
    mask = mask_file.read_mask(make_mask(tmp_path / "mask.fits", flags=FLAGS))
    for flags, chosen in (((), "DO_NOT_USE"), (("hot",), "HOT")):
        export.write(mask, tmp_path / "bad.fits", "fits", flags=flags, overwrite=True)
        with fits.open(tmp_path / "bad.fits") as hdus:
            assert hdus[0].data.dtype == np.uint8
            assert np.array_equal(hdus[0].data != 0, (mask.image & dq.VALUE[chosen]) != 0)
            assert hdus[0].header["BADFLAGS"] == chosen


def test_the_table_has_every_science_pixel(tmp_path):
    mask = mask_file.read_mask(make_mask(tmp_path / "mask.fits", flags=FLAGS))
    export.write(mask, tmp_path / "mask.csv", "csv")
    rows = list(csv.DictReader((tmp_path / "mask.csv").read_text().splitlines()))
    assert {(int(r["x"]), int(r["y"])): r["flags"] for r in rows} == {
        (20, 30): "DO_NOT_USE|HOT",
        (21, 30): "DO_NOT_USE|HOT",
        (20, 31): "HOT",
        (4, 0): "DO_NOT_USE|DEAD",
        (1027, 1023): "RC",
        (0, 17): "DO_NOT_USE|BAD_REF_PIXEL|REFERENCE_PIXEL",
        (600, 600): "DO_NOT_USE",
    }


@pytest.mark.slow
def test_command(tmp_path):
    path = make_mask(tmp_path / "mask.fits", flags=FLAGS)
    result = run(path, "-o", tmp_path / "list.txt", "--flag", "hot", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["pixels"] == 3
    assert (tmp_path / "list.txt").read_text().splitlines()[2:] == ["20:21 30 HOT", "20 31 HOT"]
    assert run(path, "-o", tmp_path / "list.txt").exit_code == 2  # exists
    unknown = run(path, "-o", tmp_path / "list.dat.x")
    assert unknown.exit_code == 2
    assert "tells no format" in unknown.stderr
    wrong = run(path, "-o", tmp_path / "l.txt", "--flag", "HOTT")
    assert wrong.exit_code == 2
    assert "did you mean HOT" in wrong.stderr
