"""Fits of dark ramps: against a plain fit, with gaps, and for any way of cutting the frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from badpix.darks import cells, group_flags, hits, ramps, stats

CELLS = cells.Cells(2, (slice(0, 64), slice(64, 128)))


def measure(y, flags=None, fit=None):
    groups = y.shape[0]
    fit = fit or ramps.ramp_fit(groups)
    flags = np.zeros(y.shape, np.uint8) if flags is None else flags
    values, counts = ramps.measure_ramps(y, flags, fit, CELLS)
    return dict(zip(fit.names, values.reshape(len(values), *y.shape[1:]), strict=True)), counts


def plain(y):
    """The numbers of one ramp, the obvious way, in float64."""
    g = np.arange(len(y))
    slope, offset = np.polyfit(g, y, 1)
    r = y - offset - slope * g
    step = np.diff(r)
    kept = np.delete(step, np.argmax(np.abs(step)))
    white = np.sum((kept - kept.mean()) ** 2) / (2 * len(step) * (1 - ramps.largest_share(len(step))))
    lagged = sum(w * np.sum(r[k:] * r[:-k]) for k, w in enumerate(ramps.MEMORY, 1))
    return {
        "slope": slope,
        "residual": np.sum(r**2) / (len(y) - 2),
        "white": white,
        "flatness": np.abs(r).mean() / np.sqrt(np.mean(r**2)),
        "memory": lagged / np.sum(r**2),
        "drop": np.diff(y).min(),
    }


def make(groups=20, seed=0, level=0.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 5, (groups, 4, 128)) + level).astype(np.float32)


def without_drift(y):
    flat = y.copy()
    cells.subtract(flat, cells.measure_drift(y, CELLS), CELLS)
    return flat


@pytest.mark.parametrize("groups", [5, 6, 20, 60])
def test_fits_are_those_of_a_plain_fit(groups):
    y = make(groups, level=8000)
    found, counts = measure(y)
    flat = without_drift(y).astype(np.float64)
    for place in [(0, 0), (1, 127), (2, 64), (3, 5)]:
        for name, value in plain(flat[(slice(None), *place)]).items():
            assert found[name][place] == pytest.approx(value, rel=2e-3, abs=2e-3), name
    assert np.all(counts[0] == groups)


def test_a_ramp_with_gaps_is_fitted_from_the_rest():
    y = make(24)
    flags = np.zeros(y.shape, np.uint8)
    flags[15:, 1, 3] = group_flags.SATURATED
    y[15:, 1, 3] = 50000
    found, counts = measure(y, flags)
    flat = without_drift(y)[:15, 1, 3].astype(np.float64)
    for name, value in plain(flat).items():
        assert found[name][1, 3] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    assert counts[0].reshape(4, 128)[1, 3] == 15
    assert np.isnan(found["contrast_0"][1, 3])


def test_ramps_with_one_or_no_good_group():
    y = make(10)
    y[:, 2, 7] += 300
    flags = np.zeros(y.shape, np.uint8)
    flags[1:, 2, 7] = group_flags.SATURATED
    flags[:, 3, 9] = group_flags.DO_NOT_USE
    found, counts = measure(y, flags)
    assert found["slope"][2, 7] == pytest.approx(300, abs=30)
    assert np.isnan(found["slope"][3, 9])
    assert np.isnan(found["residual"][2, 7])
    assert counts[0].reshape(4, 128)[2, 7] == 1
    assert counts[0].reshape(4, 128)[3, 9] == 0


def test_missing_values_are_left_out():
    y = make(12)
    y[4, 0, 0] = np.nan
    found, counts = measure(y)
    assert counts[0].reshape(4, 128)[0, 0] == 11
    assert np.isfinite(found["slope"]).all()


def test_linear_current_has_no_contrast_and_a_decay_has_its_own():
    fit = ramps.ramp_fit(40)
    g = np.arange(40)
    linear = fit.weights[3:] @ (3.0 + 50.0 * g)
    np.testing.assert_allclose(linear, 0, atol=2e-2)
    for k, tau in enumerate([0.7, 2.2, 7.0, 22.0][: fit.templates]):
        contrasts = np.abs(fit.weights[3:].astype(np.float64) @ np.exp(-g / tau))
        assert np.argmax(contrasts) == k
    np.testing.assert_allclose(np.linalg.norm(fit.weights[3:], axis=1), 1, rtol=1e-6)


def test_contrasts_have_the_noise_of_one_group():
    found, _ = measure(make(30, seed=3))
    for name in ramps.contrast_names(ramps.ramp_fit(30).templates):
        assert found[name].std() == pytest.approx(5, rel=0.15)


def test_white_noise_ignores_one_particle_and_the_tilt_it_makes():
    y = make(60, seed=4)
    quiet, _ = measure(y)
    hit = y.copy()
    hit[20:, 1, 1] += 20000
    found, _ = measure(hit)
    assert found["white"][1, 1] == pytest.approx(quiet["white"][1, 1], rel=0.3)
    assert found["residual"][1, 1] > 100 * quiet["residual"][1, 1]
    assert found["drop"][1, 1] > -60


def test_a_flagged_particle_leaves_the_numbers_beside_hits_alone():
    y = make(60, seed=4)
    flags = np.zeros(y.shape, np.uint8)
    flags[20, 1, 1] = group_flags.JUMP_DET
    found = []
    for size in (300, 20000):
        hit = y.copy()
        hit[20:, 1, 1] += size
        found.append(measure(hit, flags)[0])
    for name, limit in (("calm", 1e-2), ("flatness", 1e-3), ("memory", 1e-2)):
        assert found[0][name][1, 1] == pytest.approx(found[1][name][1, 1], rel=limit)
    quiet, _ = measure(y)
    assert found[0]["calm"][1, 1] == pytest.approx(quiet["residual"][1, 1], rel=0.2)
    np.testing.assert_array_equal(np.delete(quiet["calm"], 129), np.delete(quiet["residual"], 129))


def test_a_particle_that_no_flag_marks_leaves_them_alone_too():
    y = make(60, seed=4)
    quiet, _ = measure(y)
    hit = y.copy()
    hit[20:, 1, 1] += 300
    found, _ = measure(hit)
    assert found["residual"][1, 1] > 5 * quiet["residual"][1, 1]
    assert found["calm"][1, 1] == pytest.approx(quiet["residual"][1, 1], rel=0.2)
    np.testing.assert_array_equal(np.delete(quiet["calm"], 129), np.delete(quiet["residual"], 129))


def test_the_step_that_no_noise_makes_is_a_quantile_of_student():
    from scipy import stats as distributions

    for groups in (8, 10, 20, 60):
        exact = distributions.t.isf(distributions.norm.sf(hits.STEEP), groups - 3)
        assert hits.steep_step(groups) == pytest.approx(exact, rel=0.1)
    assert hits.steep_step(4) == np.inf


def test_white_and_residual_variance_of_white_noise_are_unbiased():
    rng = np.random.default_rng(5)
    y = rng.normal(0, 5, (40, 16, 128)).astype(np.float32)
    found, _ = measure(y)
    assert found["white"].mean() == pytest.approx(25, rel=0.04)
    assert found["residual"].mean() == pytest.approx(25, rel=0.02)
    assert np.median(found["flatness"]) == pytest.approx(0.80, abs=0.01)


def test_drift_that_all_pixels_share_is_taken_off():
    y = make(20, seed=6)
    drift = np.cumsum(np.random.default_rng(7).normal(0, 50, 20)).astype(np.float32)
    still, _ = measure(y)
    moved, _ = measure(y + drift[:, None, None])
    np.testing.assert_allclose(moved["slope"], still["slope"], atol=2e-3)
    np.testing.assert_allclose(moved["residual"], still["residual"], rtol=2e-3)


@settings(max_examples=15, deadline=None)
@given(groups=st.integers(2, 40), rows=st.integers(1, 4), seed=st.integers(0, 1000))
def test_tiles_measured_together_or_alone_give_the_same_bytes(groups, rows, seed):
    rng = np.random.default_rng(seed)
    y = rng.normal(0, 5, (groups, 2 * rows, 128)).astype(np.float32)
    flags = np.where(rng.random(y.shape) < 0.002, group_flags.SATURATED, 0).astype(np.uint8)
    hits = rng.random(y.shape) < 0.003
    flags[hits] |= group_flags.JUMP_DET
    y += np.cumsum(300 * hits, axis=0, dtype=np.float32)
    fit = ramps.ramp_fit(groups)
    together, counts = ramps.measure_ramps(y, flags, fit, CELLS)
    for k in range(rows):
        part = slice(2 * k, 2 * k + 2)
        alone, count = ramps.measure_ramps(y[:, part], flags[:, part], fit, CELLS)
        pixels = slice(256 * k, 256 * k + 256)
        np.testing.assert_array_equal(alone, together[:, pixels])
        np.testing.assert_array_equal(count, counts[:, pixels])


def test_ramps_that_wait_for_others_give_the_same_bytes():
    rng = np.random.default_rng(8)
    y = rng.normal(0, 5, (3, 20, 4, 128)).astype(np.float32)
    hits = rng.random(y.shape) < 0.002
    y += np.cumsum(300 * hits, axis=1, dtype=np.float32) + 40 * np.arange(20)[:, None, None] * (
        rng.random((4, 128)) < 0.02
    )
    y, flags = y.astype(np.float32), np.where(hits, group_flags.JUMP_DET, 0).astype(np.uint8)
    flags[2, 5, 0, :3] |= group_flags.SATURATED
    fit = ramps.ramp_fit(20)
    alone = [ramps.measure_ramps(ramp, bits, fit, CELLS)[0] for ramp, bits in zip(y, flags, strict=True)]
    later = ramps.wait_for(fit)
    together = [
        ramps.measure_ramps(ramp, bits, fit, CELLS, later=later)[0] for ramp, bits in zip(y, flags, strict=True)
    ]
    calm, steady = fit.names.index(ramps.CALM), fit.names.index(ramps.STEADY)
    assert not all(np.array_equal(a[[calm, steady]], b[[calm, steady]]) for a, b in zip(alone, together, strict=True))
    later.finish()
    np.testing.assert_array_equal(np.array(together), np.array(alone))


def test_inputs_stay_as_they_are_and_byte_order_does_not_matter():
    y = make(12)
    flags = np.zeros(y.shape, np.uint8)
    stored, before = y.astype(">f4"), y.copy()
    swapped, _ = ramps.measure_ramps(stored, flags, ramps.ramp_fit(12), CELLS)
    native, _ = ramps.measure_ramps(y, flags, ramps.ramp_fit(12), CELLS)
    np.testing.assert_array_equal(swapped, native)
    np.testing.assert_array_equal(y, before)


def test_groups_that_the_whole_frame_lost_are_not_usable():
    flags = np.zeros((10, 3, 50), np.uint8)
    flags[0], flags[-1] = group_flags.DO_NOT_USE, group_flags.DO_NOT_USE
    flags[0, 0, 0] = 0
    assert ramps.usable_groups(flags, np.ones((3, 50), bool)) == (1, 9)
    flags[:] = group_flags.DO_NOT_USE
    assert ramps.usable_groups(flags, np.ones((3, 50), bool)) == (0, 0)


@pytest.mark.parametrize(("groups", "tolerance"), [(6, 0.08), (10, 0.03), (20, 0.02), (60, 0.02)])
def test_the_mean_white_variance_of_gaussian_ramps_is_theirs(groups, tolerance):
    """The trimmed mean over integrations of what few steps give is too low, and put right."""
    rng = np.random.default_rng(groups)
    fit, white = ramps.ramp_fit(groups), []
    flags = np.zeros((groups, 32, 128), np.uint8)
    for _ in range(8):
        y = rng.normal(0, 3, flags.shape).astype(np.float32)
        values, _ = ramps.measure_ramps(y, flags, fit, CELLS)
        white.append(values[fit.names.index("white")])
    mean = stats.trimmed_mean_of(*stats.sort_stack(np.array(white))).mean() / (1 - stats.WHITE_LOSS / groups**2)
    assert mean == pytest.approx(9, rel=tolerance)


def test_pixels_of_a_mask_in_use_are_looked_at_all_the_same():
    flags = np.zeros((8, 5), np.uint8)
    flags[:, 1] = group_flags.DO_NOT_USE | group_flags.JUMP_DET
    flags[0:4, 2] = group_flags.DO_NOT_USE
    flags[:, 3] = group_flags.SATURATED
    before = flags.copy()
    assert group_flags.clear_masked(flags, np.array([3, 4])).tolist() == []
    assert group_flags.clear_masked(flags, np.array([1, 2, 3])).tolist() == [1]
    before[:, 1] = group_flags.JUMP_DET
    np.testing.assert_array_equal(flags, before)


def test_counts_of_the_flags_alone_are_those_of_the_whole_measurement():
    y = make(20, seed=8, level=8000)
    flags = np.zeros(y.shape, np.uint8)
    flags[12:, 1, 3] = group_flags.SATURATED
    flags[5, 0, 7] = group_flags.DO_NOT_USE
    flags[7, 2, 100:104] = group_flags.JUMP_DET
    flags[9, 2, 101] = group_flags.JUMP_DET
    _, expected = ramps.measure_ramps(y.astype(">f4"), flags, ramps.ramp_fit(20), CELLS)
    counts, jumped, cut = group_flags.count_groups(flags.reshape(20, -1))
    np.testing.assert_array_equal(counts, expected)
    nx = y.shape[2]
    assert jumped.tolist() == [2 * nx + x for x in range(100, 104)]
    assert cut.tolist() == [7, nx + 3]
    assert counts[:, cut].tolist() == [[19, 12], [0, 0]]
    assert counts[1, jumped].tolist() == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("kind", "shape"), [("blocks", (64, 2048)), ("interleaved", (64, 1032)), ("rows", (64, 2048)), ("one", (64, 64))]
)
def test_cells_cover_every_science_column_once(kind, shape):
    nx = shape[1]
    column = {"blocks": np.arange(nx) // 512, "interleaved": np.arange(nx) % 4}.get(kind, np.zeros(nx))
    amplifiers = np.broadcast_to(column.astype(np.uint8), shape)
    reference = np.zeros(shape, bool)
    reference[:, :4] = kind != "one"
    found = cells.make_cells(amplifiers, reference)
    covered = np.zeros(nx, int)
    for columns in found.columns:
        covered[columns] += 1
        assert len(np.unique(amplifiers[0, columns])) == 1
    np.testing.assert_array_equal(covered, (~reference[0]).astype(int))
    assert found.rows % 2 == 0


def test_medians_of_cells_leave_missing_pixels_out():
    values = np.full((2, 4, 128), 7.0, np.float32)
    values[0, 0, :20] = np.nan
    values[1] = np.nan
    medians = cells.measure_medians(values, CELLS)
    assert medians.shape == (2, 2, 2)
    assert np.all(medians[0] == 7)
    assert np.all(medians[1] == 0)


@pytest.mark.parametrize(("first", "good"), [(1.0, 0), (0.5, 0), (2.5, 0), (1.0, 1)])
def test_a_single_good_group_gives_the_rate_since_the_reset(first, good):
    """The first of groups of 4 frames of 5 holds the charge of half a group; a lost first group is counted."""
    rate = np.float32(300.0)
    y = make(6)
    y[:, 1, 5] = rate * (first + np.arange(6))
    flags = np.zeros(y.shape, np.uint8)
    flags[:, 1, 5] = group_flags.SATURATED
    flags[good, 1, 5] = 0
    found, counts = measure(y, flags, replace(ramps.ramp_fit(6), first=first))
    assert counts.reshape(2, 4, 128)[0, 1, 5] == 1
    assert found["slope"][1, 5] == pytest.approx(rate, rel=0.03)
