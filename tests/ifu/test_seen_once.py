"""Hits of one exposure: whole tracks on blank sky, nothing along dithered sources, what sources could do by hand."""

import numpy as np
import pytest
from ifu_search import blank, search

from badpix.ifu import sources

SHAPE = (110, 120)


def dithered(seed, n=4, peak=2000, width=0.9):
    """Traces of a bright, sharp source, and ERR as its light makes it."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sci = []
    for s, shift in zip(blank(n, seed), (-3, 2, -1.5, 3.4, 0.6, -0.3), strict=False):
        profile = np.exp(-0.5 * ((x - 60 - shift - 0.02 * (y - 50)) / width) ** 2)
        lines = sum(np.exp(-0.5 * ((y - c) / 1.1) ** 2) for c in (20, 45, 70))
        light = peak * profile * (0.3 + 0.002 * y + lines)
        sci.append((s - 20) * np.sqrt(1 + 0.08 * light) + 20 + light)
    return [s.astype("f4") for s in sci], [np.sqrt(1 + 0.08 * np.maximum(s - 20, 0)).astype("f4") for s in sci]


TRACKS = {
    "staircase": [(40, 40), (41, 40), (41, 41), (42, 41), (42, 42)],
    "along the dispersion": [(40 + k, 50) for k in range(7)],
    "across": [(60, 40 + k) for k in range(7)],
    "thick": [(y, x) for y in (30, 31) for x in (70, 71, 72)],
    "at the frame": [(0, 3), (1, 3), (2, 4), (3, 4)],
}


@pytest.mark.parametrize("n", [2, 3, 4, 8])
@pytest.mark.parametrize("strength", [12, 645])
def test_tracks_on_blank_sky_are_flagged_whole(n, strength):
    sci = blank(n, seed=n + strength)
    truth = np.zeros((n, *SHAPE), bool)
    for k, track in enumerate(TRACKS.values()):
        for y, x in track:
            sci[k % n][y, x] += strength
            truth[k % n, y, x] = True
    found = search(sci) > 0
    np.testing.assert_array_equal(found[truth], True)
    assert np.count_nonzero(found & ~truth) <= 2  # neighbors of tracks that noise raises by 3 sigma


def test_a_level_between_exposures_changes_nothing():
    sci = blank(4, seed=21)
    for y, x in TRACKS["staircase"]:
        sci[2][y, x] += 30
    expected = search(sci)
    for e, level in enumerate((-30, 8, 0, 55)):
        sci[e] = sci[e] + np.float32(level)
    assert np.count_nonzero(expected[2]) == 5
    assert np.mean(search(sci) != expected) < 1e-5


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("width", [0.55, 0.9, 1.3])
def test_nothing_grows_along_dithered_traces(width, half):
    sci, sigma = dithered(31, width=width)
    bad = np.zeros((4, *SHAPE), bool)
    rng = np.random.default_rng(5)
    if half:
        for p in rng.choice(sci[0].size, 130, replace=False):
            for e in rng.permutation(4)[:2]:
                sci[e].flat[p] += 100 * sigma[e].flat[p]
                bad[e].flat[p] = True
    found = search(sci, sigma) > 0
    x = np.arange(SHAPE[1])
    near = (np.abs(x - 60) < 9) & ~bad.any(axis=0)
    # a pixel an exposure of 2000: less than 0.2 % of the rows
    assert np.count_nonzero(found & near) <= (4 if width < 0.6 else 1)
    if half:
        assert np.mean(found[bad & (np.abs(x - 60) > 12)]) > 0.95


def test_a_track_beside_a_source_is_found_and_the_source_spared():
    sci, sigma = dithered(33)
    track = [(55, 66), (56, 67), (57, 67), (58, 68), (59, 69)]
    for y, x in track:  # where two of the other exposures have their trace
        sci[0][y, x] += 900
    found = search(sci, sigma)
    assert all(found[0, y, x] for y, x in track)
    assert np.count_nonzero(found) == len(track)


# --- what sources could do, by hand ----------------------------------------------------------------------


def differences(n=3, seed=3, shape=(41, 39), across=1):
    rng = np.random.default_rng(seed)
    values = [np.pad(rng.normal(0, 3, shape).astype("f4"), 9, constant_values=np.nan) for _ in range(n)]
    for v in values:
        v[rng.random(v.shape) < 0.1] = np.nan
    stride = values[0].shape[1]
    return sources.Differences(values, *((stride, 1) if across == 1 else (1, stride)))


def pixels(d, number=60):
    finite = np.flatnonzero(np.isfinite(d.values[0]))
    return np.random.default_rng(1).choice(finite, number, replace=False)


def _median(values):
    values = [v for v in np.ravel(values) if not np.isnan(v)]
    return float(np.median(values)) if values else 0.0


def measure_trace(d, at):
    return np.maximum(sources.measure_run(d, 0, at) - sources.measure_level(d, 0, at), 0)


def test_trace_by_hand():
    d = differences()
    at = pixels(d)
    for k, found in zip(at, measure_trace(d, at), strict=True):
        y, x = divmod(int(k), d.along)
        rows = [y + s * r for r in (4, 5, 6, 7, 8) for s in (-1, 1)]
        v = d.values[0]
        tops = [max((t for t in v[r, x - 1 : x + 2] if not np.isnan(t)), default=np.nan) for r in rows]
        level = min(_median(v[rows][:, [x + 4, x + 5]]), _median(v[rows][:, [x - 4, x - 5]]), 0)
        assert found == pytest.approx(max(_median(tops) - level, 0), abs=1e-5)


def test_line_by_hand():
    d = differences()
    at = pixels(d)
    defects = np.random.default_rng(7).random(d.values[0].size) < 0.05
    for k, found in zip(at, sources.measure_line(d, 0, at, defects, (3, 7)), strict=True):
        y, x = divmod(int(k), d.along)
        best = 0.0
        for values in d.values[1:]:
            v = np.where(defects.reshape(values.shape), np.nan, values)
            sizes = []
            for c in range(x - 3, x + 4):
                trace = _median(v[[*range(y - 5, y - 1), *range(y + 2, y + 6)], c])
                sizes += [abs(t - trace) for t in v[y - 1 : y + 2, c] if not np.isnan(t)]
            best = max([best, *sorted(sizes)[-3:-2]])
        assert found == pytest.approx(best, abs=1e-5)


def explain(d, at):
    trace = measure_trace(d, at)
    nowhere = np.zeros(d.values[0].size, bool)
    return sources.explain(d, 0, at, trace, np.zeros(at.size, "f4"), nowhere, (3, 7))


def test_explained_variance_is_the_same_for_a_turned_frame():
    d = differences()
    turned = sources.Differences([v.T.copy() for v in d.values], 1, d.values[0].shape[0])
    at = pixels(d)
    y, x = np.divmod(at, d.values[0].shape[1])
    expected = explain(d, at)
    assert expected.max() > 1
    np.testing.assert_allclose(explain(turned, x * d.values[0].shape[0] + y), expected)


@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0, 2.0])
def test_unexplained_are_those_that_exceed_noise_and_sources(strength):
    d = differences()
    at = pixels(d, 300)
    value = np.random.default_rng(4).uniform(2, 60, at.size).astype("f4")
    options = {"defects": np.zeros(d.values[0].size, bool), "window": (3, 7), "strength": strength}
    found = sources.find_unexplained(d, 0, at, value, limit=5.0, **options)
    expected = at[value > 5 * np.sqrt(1 + strength**2 * explain(d, at))]
    assert 0 < expected.size < at.size
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("row", "explained"), [(22, True), (26, False)])
def test_the_flank_of_a_line_that_peaks_beside_the_window_is_no_hit(row, explained):
    """High neighbors around (20, 20); another exposure has a line two rows away, or six."""
    values = [np.random.default_rng(k).standard_normal((41, 41), dtype="f4") for k in range(3)]
    values[0][19:22, 19:22] += 30
    values[1][row, 17:24] += 60
    d = sources.Differences([np.pad(v, 9, constant_values=np.nan) for v in values], 59, 1)
    at = np.array([29 * 59 + 29])
    options = {"limit": 5.0, "defects": np.zeros(59 * 59, bool), "window": (3, 7), "strength": 1.0}
    found = sources.find_unexplained(d, 0, at, np.array([30.0], "f4"), **options)
    assert (found.size == 0) == explained


def test_noise_alone_explains_next_to_nothing():
    rng = np.random.default_rng(11)
    values = [rng.standard_normal((90, 90), dtype="f4") for _ in range(4)]
    d = sources.Differences([np.pad(v, 9, constant_values=np.nan) for v in values], 108, 1)
    found = explain(d, np.flatnonzero(np.isfinite(d.values[0])))
    assert np.median(found) == 0
    assert np.percentile(found, 99) < 0.5
