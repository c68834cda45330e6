"""Images that wait on disk come back as they were, NaN where nothing was written."""

import numpy as np

from badpix.io.evidence import Sparse
from badpix.io.spill import DiskImage


def test_rows_come_back_where_they_were_written():
    image = DiskImage((7, 5))
    rows = np.arange(15, dtype=np.float32).reshape(3, 5)
    image.write_rows(4, rows)
    image.write_rows(1, rows[:1] * 2)
    whole = np.full((7, 5), np.nan, np.float32)
    whole[4:], whole[1] = rows, rows[0] * 2
    np.testing.assert_array_equal(np.asarray(image), whole)


def test_an_image_without_rows_is_empty():
    assert np.isnan(np.asarray(DiskImage((3, 2)))).all()


def test_candidates_lie_upon_an_image_on_disk():
    image = DiskImage((2, 3))
    image.write_rows(0, np.ones((2, 3), np.float32))
    both = np.asarray(Sparse(np.array([1, 5]), np.array([7, 8], np.float32), (2, 3), image))
    np.testing.assert_array_equal(both, [[1, 7, 1], [1, 1, 8]])
