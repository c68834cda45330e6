"""Images that wait on disk come back as they were, NaN where nothing was written."""

import numpy as np

from badpix.io import spill
from badpix.io.evidence import Sparse
from badpix.io.spill import DiskImage, DiskTable


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


def test_chosen_rows_of_a_table_come_back(monkeypatch):
    monkeypatch.setattr(spill, "BLOCK", 36)  # three rows
    table, rows = DiskTable(3), np.random.default_rng(1).normal(size=(11, 3)).astype(np.float32)
    table.append(rows[:4])
    table.append(rows[4:])
    for chosen in ([], [0], [2, 3, 4, 10], range(11)):
        at = np.array(chosen, np.intp)
        np.testing.assert_array_equal(table.read(at), rows[at])
