"""Medians of cells: what pixels share, whatever hits do."""

import numpy as np

from badpix.darks import cells


def test_hits_in_most_ramps_do_not_move_the_drift_of_their_cell():
    rng = np.random.default_rng(3)
    groups, rows, nx = 60, 2, 256
    shared = np.cumsum(rng.normal(0, 2, groups)).astype(np.float32)
    y = rng.normal(0, 5, (groups, rows, nx)).astype(np.float32) + shared[:, None, None]
    times, hit = rng.integers(1, groups, (rows, nx)), rng.random((rows, nx)) < 0.6
    plain = cells.measure_drift(y, cells.Cells(rows, (slice(0, nx),)))[:, 0, 0]
    y += 200 * (hit & (np.arange(groups)[:, None, None] >= times))
    found = cells.measure_drift(y, cells.Cells(rows, (slice(0, nx),)))[:, 0, 0]
    error = (found - found.mean()) - (plain - plain.mean())
    assert np.sqrt(np.mean(error**2)) < 1.2  # of 51 pixels instead of 128; 60 and more with all of them
    slow = error.reshape(6, 10).mean(axis=1)
    assert np.abs(slow).max() < 1.0


def test_the_drift_is_a_plain_median_of_ramps_without_hits_where_groups_are_missing():
    rng = np.random.default_rng(4)
    y = rng.normal(0, 5, (20, 2, 64)).astype(np.float32)
    hit = rng.random((2, 64)) < 0.3
    y += 500 * (hit & (np.arange(20)[:, None, None] >= 7))
    y[12:, 0, 10:40] = np.nan  # of ramps with hits, too
    found = cells.measure_drift(y, cells.Cells(2, (slice(0, 64),)))[:, 0, 0]
    quiet = y.reshape(20, -1)[:, ~hit.ravel()]
    rise = np.sort(quiet - quiet[0], axis=1)  # NaN last
    plain = [line[(np.isfinite(line).sum() - 1) // 2] for line in rise]
    first = np.sort(y[0].ravel())[63]
    np.testing.assert_array_equal(found, np.float32(plain) + first)
