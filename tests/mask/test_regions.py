"""DS9 region files as manual lists."""

import numpy as np
import pytest

from badpix import dq
from badpix.errors import UsageError
from badpix.mask.manual import add_manual, read_manual

HEAD = "# Region file format: DS9 version 4.1\nglobal color=red\n"


def paint(tmp_path, text, shape=(12, 16)):
    path = tmp_path / "r.reg"
    path.write_text(HEAD + text)
    return add_manual(np.zeros(shape, np.uint32), read_manual(path, shape), [])


@pytest.mark.parametrize(
    ("region", "pixels"),
    [
        ("image\nbox(5,6,1,1,0) # tag={HOT}", (slice(5, 6), slice(4, 5))),
        ("image; box(5,6,1,1) # color=red tag={HOT}", (slice(5, 6), slice(4, 5))),
        ("image;point(5.2,5.9) # point=x text={hot}", (slice(5, 6), slice(4, 5))),
        ("image\nbox(5.5,6,2,3,0) # tag={HOT}", (slice(4, 7), slice(4, 6))),
        ("image\nbox(5.3,6,.2,.2,0) # tag={HOT}", (slice(5, 6), slice(4, 5))),
        ("# SUBSTRT1 = 4, SUBSTRT2 = 3\nimage\nbox(1,1,1,1,0) # tag={HOT}", (slice(2, 3), slice(3, 4))),
    ],
)
def test_boxes_and_points_are_pixels(tmp_path, region, pixels):
    wanted = np.zeros((12, 16), np.uint32)
    wanted[pixels] = dq.VALUE["HOT"]
    np.testing.assert_array_equal(paint(tmp_path, region), wanted)


def test_several_tags_are_several_flags(tmp_path):
    found = paint(tmp_path, "image\nbox(5,6,1,1,0) # tag={HOT} tag={RC}")
    assert found[5, 4] == dq.VALUE["HOT"] | dq.VALUE["RC"]


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ("image\ncircle(5,6,1) # tag={HOT}", "line 4: found 'circle(5,6,1)', expected box"),
        ("image\n-box(5,6,1,1,0) # tag={HOT}", "expected box"),
        ("image\nbox(5,6,1,1,45) # tag={HOT}", "expected box"),
        ("image\nbox(5,6,1,1,0)", "line 4: 'box(5,6,1,1,0)' names no flag"),
        ("image\nbox(5,6,1,1,0) # tag={NOISY}", "line 4: flag 'NOISY' is unknown"),
        ("fk5\nbox(5,6,1,1,0) # tag={HOT}", "coordinates are 'fk5', expected 'image'"),
        ("box(5,6,1,1,0) # tag={HOT}", "coordinates are 'not named'"),
        ("image\nbox(17,6,1,1,0) # tag={HOT}", "line 4: the region reaches outside the 16 x 12 pixels"),
        ("image\nbox(\u0665,6,1,1,0) # tag={HOT}", "expected box"),
        ("image\nbox(1e9,6,1,1,0) # tag={HOT}", "expected box"),
    ],
)
def test_regions_that_are_wrong(tmp_path, region, words):
    with pytest.raises(UsageError) as caught:
        paint(tmp_path, region)
    assert words in str(caught.value)
    assert f"{tmp_path}/r.reg: line " in str(caught.value)
