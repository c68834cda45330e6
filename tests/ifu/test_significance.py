"""The significance search: thresholds against their table and against chance, maps against injected truth."""

import numpy as np
import pytest

from badpix.ifu import significance as sg
from badpix.ifu.noise import Level, measure_level, measure_sigma, sample_band
from badpix.ifu.residuals import (
    _chance,
    measure_axes,
    measure_residuals,
    pad,
    solve_hit_limit,
    solve_thresholds,
)

OPTIONS = {
    "kernel_size": (7, 7),
    "min_sigma": 2.5,
    "partial_sigma": 3.0,
    "single": True,
    "lone_exposure": False,
    "lone_sigma": 0.0,
    "hit_limit": solve_hit_limit(1e-5),
    "grow_sigma": 3.0,
    "grow_steps": 4,
    "protect": 1.0,
    "protect_structure": 0.3,
    "window": (3, 7),
    "noise": "both",
}


def _noise(n=4, shape=(90, 100), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype="f4") + np.float32(20) for _ in range(n)]


def _search(sci, false_alarm=1e-5, sigma=None, **options):
    sigma = sigma or [np.ones_like(s) for s in sci]
    sample = sample_band(sci, sigma, (7, 7), slice(0, len(sci[0])))
    level = measure_level([sample], len(sci))
    thresholds = solve_thresholds(len(sci), false_alarm)
    return sg.find_significant(sci, sigma, level=level, thresholds=thresholds, **(OPTIONS | options))


# --- thresholds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("false_alarm", "expected"),
    [
        (
            1e-5,
            {
                (1, 1): 4.51,
                (2, 2): 2.80,
                (2, 3): 2.98,
                (3, 3): 2.01,
                (3, 4): 2.20,
                (4, 4): 1.52,
                (4, 6): 1.85,
                (5, 6): 1.38,
                (6, 6): 0.92,
            },
        ),
        (
            3e-6,
            {
                (1, 1): 4.79,
                (2, 2): 3.00,
                (2, 3): 3.18,
                (3, 3): 2.18,
                (3, 4): 2.37,
                (4, 4): 1.68,
                (4, 6): 1.99,
                (5, 6): 1.51,
                (6, 6): 1.05,
            },
        ),
    ],
)
def test_thresholds(false_alarm, expected):
    found = solve_thresholds(6, false_alarm)
    assert {k: round(float(found[k]), 2) for k in expected} == pytest.approx(expected, abs=0.011)
    assert np.isnan(found[3, 2])  # more than there are
    assert np.isnan(found[2, 6])  # a minority


def test_many_exposures_need_no_threshold():
    assert solve_thresholds(30, 1e-3)[30, 30] == 0


@pytest.mark.parametrize(("limit", "expected"), [(1, 0.1162), (2, 0.01739), (3, 0.001238)])
def test_chance_of_eta_on_noise(limit, expected):
    rng = np.random.default_rng(int(limit))
    sci = pad(rng.standard_normal((1200, 1200), dtype="f4"), 2)
    eta = measure_residuals(sci, np.ones_like(sci))[0].eta
    eta = eta[np.isfinite(eta)]
    for sign in (1, -1):
        found = np.mean(sign * eta > limit)
        # neighboring values of eta are correlated: a generous 8 standard deviations
        assert found == pytest.approx(expected, abs=8 * np.sqrt(expected / eta.size) + 0.01 * expected)
    assert _chance(np.arange(0, 4, 0.02))[50 * limit] == pytest.approx(expected, rel=0.01)


# --- residuals -------------------------------------------------------------------------------------------


def _slow_residual(sci, sigma, axis):
    variance = [np.nan, 1.0, 0.5, 0.449, 0.298]
    out = np.full(sci.shape, np.nan)
    for y in range(2, sci.shape[0] - 2):
        for x in range(2, sci.shape[1] - 2):
            steps = [(d, 0) if axis == 0 else (0, d) for d in (-2, -1, 1, 2)]
            near = [sci[y + dy, x + dx] for dy, dx in steps]
            near = [v for v in near if not np.isnan(v)]
            if near and not np.isnan(sci[y, x]):
                scale = np.sqrt(1.298 / (1 + variance[len(near)]))
                out[y, x] = (sci[y, x] - np.median(near)) / sigma[y, x] * scale
    return out


def test_residuals_against_a_slow_text():
    rng = np.random.default_rng(8)
    sci = rng.normal(0, 1, (22, 25)).astype("f4")
    sci[rng.random(sci.shape) < 0.4] = np.nan
    sci = pad(sci[2:-2, 2:-2], 2)
    sigma = rng.uniform(0.5, 2, sci.shape).astype("f4")
    x, y = (_slow_residual(sci, sigma, axis) for axis in (1, 0))
    found, smaller = measure_residuals(sci, sigma)
    eta = np.where(x * y > 0, np.sign(x) * np.minimum(np.abs(x), np.abs(y)), 0)
    eta[np.isnan(x) | np.isnan(y)] = np.nan
    np.testing.assert_allclose(found.eta, eta, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(found.larger, np.maximum(np.abs(x), np.abs(y)), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(smaller, np.minimum(np.abs(x), np.abs(y)), rtol=2e-5, atol=1e-6)
    for axis, along in zip((x, y), measure_axes(sci, sigma), strict=True):
        np.testing.assert_allclose(along, axis, rtol=2e-5, atol=1e-6)


def test_straight_structure_gives_nothing():
    y, x = np.mgrid[:40, :40]
    for image in (np.exp(-0.5 * ((x - 20.3) / 1.1) ** 2), np.exp(-0.5 * ((y - 20.3) / 1.1) ** 2)):
        sci = pad((1000 * image).astype("f4"), 2)
        eta = measure_residuals(sci, np.ones_like(sci))[0].eta
        assert np.nanmax(np.abs(eta)) == 0


# --- the tests -------------------------------------------------------------------------------------------


def test_injected_truth_comes_back_as_a_whole_map():
    sci = _noise(seed=2)
    before = [s.copy() for s in sci]
    truth = np.zeros((4, 90, 100), np.uint8)
    for y, x, strength in (
        (0, 0, 50),
        (89, 99, 50),
        (0, 60, -50),
        (44, 99, 50),
        (30, 30, 50),
        (30, 31, 50),
        (60, 5, 9),
    ):
        truth[:, y, x] = sg.PERSISTENT
        for s in sci:
            s[y, x] += strength
    for y, x, exposures in ((70, 70, (0, 1, 2)), (15, 80, (1, 2, 3))):
        for e in exposures:
            sci[e][y, x] += 30
            truth[e, y, x] = sg.PARTIAL
    for e, y, x in ((2, 50, 50), (0, 0, 20), (3, 45, 0)):
        sci[e][y, x] += 40
        truth[e, y, x] = sg.SINGLE
    given = [s.copy() for s in sci]
    found, untestable, _ = _search(sci)
    np.testing.assert_array_equal(found, truth)
    assert not untestable.any()
    for s, g in zip(sci, given, strict=True):
        np.testing.assert_array_equal(s, g)
    assert not _search(before)[0].any()


@pytest.mark.parametrize("sign", [1, -1])
def test_bad_in_two_of_four(sign):
    sci = _noise(seed=12)
    for e in (1, 3):
        sci[e][40, 40] += sign * 60
    found = _search(sci)[0]
    assert np.argwhere(found).tolist() == [[1, 40, 40], [3, 40, 40]]


def test_turned_signs_give_the_same_map_but_for_hits():
    sci = _noise(seed=16)
    for e, s in enumerate(sci):
        s[20 + e, 30] += 30
        s[60, 20 + 9 * e : 22 + 9 * e] -= 40
    high = np.zeros((4, *sci[0].shape), bool)
    for e in range(4):
        high[e, 20 + e, 30] = True
    given, turned = (_search(signed)[0] for signed in (sci, [-s for s in sci]))
    np.testing.assert_array_equal(given[~high], turned[~high])  # the low pixels and everything else
    assert (given[high] == sg.SINGLE).all()
    assert np.count_nonzero(turned[high]) >= 2  # against the neighbors alone: no track is that low
    given, turned = (_search(signed, single=False)[0] for signed in (sci, [-s for s in sci]))
    np.testing.assert_array_equal(given, turned)


def test_tracks_grow():
    sci = _noise(seed=3)
    track = [(40, 40), (41, 41), (42, 42), (43, 42), (44, 43)]
    for y, x in track:
        sci[1][y, x] += 40
    found = _search(sci)[0]
    assert {(int(y), int(x)) for y, x in np.argwhere(found[1])} == set(track)
    assert not found[[0, 2, 3]].any()
    assert np.count_nonzero(_search(sci, grow_steps=0)[0]) <= len(track)


def test_lines_on_a_dithered_source_are_left_alone():
    y, x = np.mgrid[:90, :100]
    sci = _noise(seed=4)
    for s, shift in zip(sci, (-3, 2, -1.5, 3), strict=True):
        profile = np.exp(-0.5 * ((x - 50 - shift) / 1.2) ** 2)
        lines = sum(np.exp(-0.5 * ((y - c) / 1.1) ** 2) for c in (20, 45, 70))
        s += (300 * profile * (0.2 + lines)).astype("f4")
    sigma = [np.sqrt(1 + 0.05 * np.maximum(s, 0)).astype("f4") for s in sci]
    assert np.count_nonzero(_search(sci, sigma=sigma)[0]) == 0


def _add_source(s, x0):
    """A sharp source with lines, which hides what lies under it."""
    y, x = np.mgrid[: s.shape[0], : s.shape[1]]
    lines = sum(np.exp(-0.5 * ((y - c) / 1.1) ** 2) for c in range(8, 90, 12))
    s += (600 * np.exp(-0.5 * ((x - x0) / 1.1) ** 2) * (0.2 + lines)).astype("f4")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("covered", "expected"), [(1, sg.PERSISTENT), (2, sg.PERSISTENT), (3, 0)])
def test_a_source_in_some_exposures_does_not_hide_a_persistent_pixel(sign, covered, expected):
    sci, truth = _noise(seed=17), np.zeros((4, 90, 100), np.uint8)
    pixels = [(31, 50), (58, 51), (66, 50)]
    for e, s in enumerate(sci):
        _add_source(s, 50 if e < covered else 10 + 8 * e)
    sigma = [np.sqrt(1 + 0.05 * np.maximum(s - 20, 0)).astype("f4") for s in sci]
    for y, x in pixels:
        truth[:, y, x] = expected
        for s in sci:
            s[y, x] += sign * 15
    found = _search(sci, sigma=sigma, single=False, noise="err")[0]
    if not expected:  # no vote is left, but one of them is a pixel that a line alone would not hide
        found[:, [y for y, _ in pixels], [x for _, x in pixels]] = 0
    np.testing.assert_array_equal(found, truth)


def test_half_of_the_exposures_must_show_a_pixel_that_sources_hide_in_the_others():
    table = np.array([[9, 9, 9, 3, -9], [9, 9, 0, 9, -9], [0, 0, 0, 0, 9], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]], "f4")
    hidden = np.zeros((5, 5), bool)
    hidden[2:4] = True
    finite = np.ones((5, 5), bool)
    finite[4, [0, 2, 3, 4]] = False  # the second pixel: 2 of 5 show it, in 3 it is hidden
    hidden[4, 1] = True
    found = sg._find_partly_hidden(table, finite, hidden, solve_thresholds(5, 1e-5))
    assert found.tolist() == [True, False, False, False, True]


def test_four_exposures_that_show_a_pixel_are_enough():
    table, hidden = np.zeros((12, 2), "f4"), np.ones((12, 2), bool)
    for pixel, shown in enumerate((3, 4)):
        table[:shown, pixel], hidden[:shown, pixel] = 4, False
    found = sg._find_partly_hidden(table, np.ones((12, 2), bool), hidden, solve_thresholds(12, 1e-5))
    assert found.tolist() == [False, True]


def test_gaps_and_what_cannot_be_tested():
    sci = _noise(seed=5)
    for s in sci:
        s[:, 30:40] = np.nan
        s[50:60, 40:52] = np.nan
        s[55, 46] = 20.0  # alone: no neighbor along either axis
        s[10, 29] += 60  # at the edge of a gap
        s[11, 40] += 60
    found, untestable, _ = _search(sci)
    assert (found[:, [10, 11], [29, 40]] == sg.PERSISTENT).all()
    assert np.count_nonzero(found) == 8
    assert np.argwhere(untestable[0]).tolist() == [[55, 46]]


def test_gaps_filled_with_zeros_are_no_measure_of_the_noise():
    sci = _noise(seed=15)
    for s in sci:
        s[:, 20:95] = 0
        s[30, 10] += 30
    found = _search(sci)[0]
    assert np.argwhere(found[0]).tolist() == [[30, 10]]


def test_single_exposure_only_on_request():
    sci = _noise(1, seed=6)
    sci[0][20, 20] += 30
    assert not _search(sci)[0].any()
    found = _search(sci, lone_exposure=True)[0]
    assert np.argwhere(found).tolist() == [[0, 20, 20]]


def test_wrong_scale_of_err_changes_nothing():
    sci = _noise(seed=7)
    rng = np.random.default_rng(1)
    for _ in range(60):
        sci[rng.integers(4)][rng.integers(90), rng.integers(100)] += 12
    expected = _search(sci)[0]
    assert expected.any()
    for factor in (0.5, 2.0):
        sigma = [np.full_like(s, factor) for s in sci]
        np.testing.assert_array_equal(_search(sci, sigma=sigma)[0], expected)
        np.testing.assert_array_equal(_search([s * np.float32(factor) for s in sci], noise="data")[0], expected)


def test_isolated_wrong_err_is_no_detection():
    sci = _noise(seed=9)
    err = [np.ones_like(s) for s in sci]
    for e in err:
        e[10, 10], e[20, 20], e[30, 30], e[40, 40] = 0, np.nan, -1, np.inf
    sigma = [measure_sigma(e, s) for e, s in zip(err, sci, strict=True)]
    assert all((s == 1).all() for s in sigma)
    assert not _search(sci, sigma=sigma)[0].any()


def test_missing_err_on_a_source_is_that_of_its_neighbors():
    """The usual one of the frame would make a detection of the source's photon noise."""
    err = np.ones((30, 30), "f4")
    err[10:20, 10:20] = 9
    sci = np.full((30, 30), 5, "f4")
    err[15, 15], err[10, 10], err[3, 3], err[0, 0], err[29, 5] = np.nan, 0, np.inf, np.nan, -2
    err[24:28, 24:28] = np.nan
    sci[15, 16] = np.nan
    err[15, 16] = np.nan
    sigma = measure_sigma(err, sci)
    expected = np.ones((30, 30), "f4")
    expected[10:20, 10:20] = 9
    expected[15, 16] = sigma[15, 16]
    np.testing.assert_array_equal(sigma, expected)


def test_a_stricter_rate_never_gains_a_pixel():
    sci = _noise(seed=10, shape=(200, 200))
    loose, strict = (_search(sci, rate, min_sigma=0.0)[0] > 0 for rate in (1e-3, 1e-4))
    assert loose.sum() > strict.sum()
    assert not (strict & ~loose).any()


def test_constant_frames():
    sci = [np.full((30, 30), 5, "f4") for _ in range(3)]
    samples = sample_band(sci, [np.ones_like(s) for s in sci], (7, 7), slice(0, 30))
    assert measure_level([samples], 3) is None


def test_shifting_the_image_shifts_the_map():
    sci = _noise(seed=13, shape=(120, 120))
    for e, s in enumerate(sci):
        s[50 + e, 60] += 30
        s[70, 40] += 30
    level = Level(1.0, 0.45)
    thresholds = solve_thresholds(4, 1e-5)

    def search(rows, columns):
        cut = [s[rows, columns].copy() for s in sci]
        ones = [np.ones_like(s) for s in cut]
        return sg.find_significant(cut, ones, level=level, thresholds=thresholds, **OPTIONS)[0]

    whole, part = search(slice(0, 120), slice(0, 120)), search(slice(20, 110), slice(15, 105))
    np.testing.assert_array_equal(part[:, 15:-15, 15:-15], whole[:, 35:95, 30:90])


def test_transposed_frames_give_transposed_maps():
    sci = _noise(seed=14)
    for e, s in enumerate(sci):
        s[50, 60] += 30
        s[20 + 5 * e, 20] += 30
    turned = _search([s.T.copy() for s in sci], across=0)[0]
    np.testing.assert_array_equal(turned.transpose(0, 2, 1), _search(sci)[0])
