"""Hits of one exposure: whole tracks on blank sky, nothing along dithered sources, what sources could do by hand."""

from dataclasses import replace

import numpy as np
import pytest
from ifu_search import blank, search

from badpix.ifu import sources, surroundings

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


@pytest.mark.parametrize("sizes", [(1, 0.3), (1, 1, 0.3), (1, 1, 0.35, 1.8), (0.4, 1, 1, 1, 1, 1)])
def test_a_deep_exposure_among_short_ones_has_the_noise_of_these_in_its_differences(sizes):
    rng = np.random.default_rng(3)
    shape = (300, 300)
    sci = [(20 + size * rng.standard_normal(shape)).astype("f4") for size in sizes]
    sigma = [np.full(shape, size, "f4") for size in sizes]
    deepest = int(np.argmin(sizes))
    sci[deepest][100, 100] += 9
    found = search(sci, sigma)
    assert found[deepest, 100, 100]
    assert np.count_nonzero(found) <= 5


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


def test_a_long_track_along_the_dispersion_is_no_trace():
    sci, sigma = dithered(35)
    track = [(y, x + (y > 58)) for y in range(50, 67) for x in (20, 21)]  # two pixels wide
    for y, x in track:
        sci[2][y, x] += 40 * sigma[2][y, x]
    found = search(sci, sigma)
    assert sum(found[2, y, x] > 0 for y, x in track) >= len(track) - 1
    assert np.count_nonzero(found) <= len(track) + 1


def wide_track(y, x, rows, slope):
    """A track two to three pixels wide that drifts across: its share of each pixel."""
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = (yy >= y) & (yy < y + rows)
    return np.where(inside, np.exp(-0.5 * ((xx - x - slope * (yy - y)) / 0.55) ** 2), 0)


def test_a_wide_track_nearly_along_the_dispersion_is_no_trace():
    """It ends somewhere, which traces don't."""
    sci, sigma = dithered(41)
    track = 60 * wide_track(40, 25, 24, 0.25)
    sci[1] += track
    found = search(sci, sigma) > 0
    assert np.mean(found[1][track > 15]) > 0.93
    assert np.count_nonzero(found[1] & (track < 1)) + np.count_nonzero(found[[0, 2, 3]]) <= 2


def test_a_wide_track_over_a_faint_trace_is_no_line_of_its_source():
    sci, sigma = dithered(43, peak=50, width=1.2)
    track = 80 * wide_track(58, 54, 7, 1.5)
    sci[2] += track
    found = search(sci, sigma) > 0
    assert np.mean(found[2][track > 80 / 3]) > 0.85
    assert np.count_nonzero(found[2] & (track < 1)) + np.count_nonzero(found[[0, 1, 3]]) == 0


@pytest.mark.parametrize("width", [1.0, 1.6, 2.5])
def test_clouds_of_line_emission_that_one_exposure_sees_are_no_hits(width):
    sci = blank(4, seed=45)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rng = np.random.default_rng(46)
    cloud = np.zeros(SHAPE)
    for row, column, peak in zip(range(8, 105, 12), rng.uniform(10, 110, 9), rng.uniform(15, 80, 9), strict=True):
        cloud += peak * np.exp(-0.5 * (((x - column) / (1.6 * width)) ** 2 + ((y - row) / width) ** 2))
    sci[3] += cloud
    sigma = [np.ones(SHAPE, "f4")] * 3 + [np.sqrt(1 + 0.08 * cloud).astype("f4")]
    assert np.count_nonzero(search(sci, sigma)) <= 1


def test_tracks_at_one_place_do_not_explain_each_other():
    """Each looks like a line of a dithered source to the other one; parts of both in full view tell."""
    sci, sigma = dithered(36)
    first, second = [(50 + k, 20 + k) for k in range(5)], [(53 - k, 22 + k) for k in range(5)]
    for e, track in ((0, first), (1, second)):
        for y, x in track:
            sci[e][y - 1 : y + 1, x] += 60 * sigma[e][y, x]
    found = search(sci, sigma) > 0
    for e, track in ((0, first), (1, second)):
        assert sum(found[e, y, x] for y, x in track) == len(track)


# --- what sources could do, by hand ----------------------------------------------------------------------

PAD = 18  # pixels, as far as sources are looked for


def differences(n=3, seed=3, shape=(41, 39), across=1):
    rng = np.random.default_rng(seed)
    values = [np.pad(rng.normal(0, 3, shape).astype("f4"), PAD, constant_values=np.nan) for _ in range(n)]
    for v in values:
        v[rng.random(v.shape) < 0.1] = np.nan
    stride = values[0].shape[1]
    return surroundings.Differences(values, *((stride, 1) if across == 1 else (1, stride)))


def pixels(d, number=60):
    finite = np.flatnonzero(np.isfinite(d.values[0]))
    return np.sort(np.random.default_rng(1).choice(finite, number, replace=False))


def _median(values):
    values = [v for v in np.ravel(values) if not np.isnan(v)]
    return float(np.median(values)) if values else 0.0


def test_trace_by_hand():
    d = differences()
    at = pixels(d)
    found = (f(d, 0, at) for f in (surroundings.measure_run, surroundings.measure_least, surroundings.measure_level))
    v = d.values[0]
    for k, common, least, level in zip(at, *found, strict=True):
        y, x = divmod(int(k), d.along)
        groups = [
            [v[y + s * r, x - wide : x + wide + 1] for r in rows]
            for rows, wide in (((4, 5, 6, 7, 8), 1), ((12, 13, 14, 15, 16), 2))
            for s in (-1, 1)
        ]
        groups = [[max(line[~np.isnan(line)], default=np.inf) for line in g] for g in groups]
        tops = sorted(t for g in groups for t in g if np.isfinite(t))
        assert common == pytest.approx(tops[(len(tops) - 1) // 2] if tops else 0.0, abs=1e-5)
        lowest = min(sorted(g)[2] for g in groups)
        assert least == pytest.approx(lowest if np.isfinite(lowest) else 0.0, abs=1e-5)
        rows = [y + s * r for r in (4, 5, 6, 7, 8) for s in (-1, 1)]
        sides = (_median(v[rows][:, [x + 4, x + 5]]), _median(v[rows][:, [x - 4, x - 5]]))
        assert level == pytest.approx(min(*sides, 0), abs=1e-5)


def test_neighbors_by_hand():
    d = differences()
    at = pixels(d)
    v = d.values[0]
    blobs, lows = surroundings.measure_blob(d, 0, at)
    for k, blob, low, across in zip(at, blobs, lows, surroundings.measure_across(d, 0, at), strict=True):
        y, x = divmod(int(k), d.along)
        near = np.delete(v[y - 1 : y + 2, x - 1 : x + 2].ravel(), 4)
        assert blob == pytest.approx(_median(np.abs(near)), abs=1e-5)
        finite = np.sort(near[np.isfinite(near)])
        assert low == pytest.approx(max(finite[1], 0) if finite.size > 1 else 0, abs=1e-5)
        sides = [v[y, x + 2 : x + 5], v[y, x - 4 : x - 1]]
        known = [_median(side) for side in sides if np.isfinite(side).any()]
        assert across == pytest.approx(min(known, default=0), abs=1e-5)


def test_line_by_hand():
    d = differences()
    at = pixels(d)
    own = np.random.default_rng(8).uniform(0, 9, at.size).astype("f4")
    defects = [np.random.default_rng(7 + e).random(d.values[0].size) < 0.05 for e in range(3)]
    line, traces = surroundings.measure_line(d, 0, at, own, defects, (3, 7))
    for n, k in enumerate(at):
        y, x = divmod(int(k), d.along)
        best = highest = 0.0
        for values, skip in zip(d.values[1:], defects[1:], strict=True):
            v = np.where(skip.reshape(values.shape), np.nan, values)
            sizes = []
            for c in range(x - 3, x + 4):
                trace = _median(v[[*range(y - 5, y - 1), *range(y + 2, y + 6)], c])
                share = min(1, 8 * max(own[n], 2.2) / trace) if trace > 0 else 1
                sizes += [share * abs(t - trace) for t in v[y - 1 : y + 2, c] if not np.isnan(t)]
                highest = max(highest, trace)
            best = max([best, *sorted(sizes)[-3:-2]])
        assert line[n] == pytest.approx(best, rel=1e-5, abs=1e-5)
        assert traces[n] == pytest.approx(highest, abs=1e-5)


def as_high(d, at, value):
    value = np.broadcast_to(np.float32(value), at.shape)
    return sources.High(at, value, surroundings.measure_run(d, 0, at), surroundings.measure_least(d, 0, at))


def look_around(d, at):
    high = as_high(d, at, 0)
    return sources.look_around(d, 0, at, high.common, high.least)


def explain(d, at, room=0.0):
    own = look_around(d, at)
    nowhere = [np.zeros(d.values[0].size, bool)] * len(d.values)
    return sources.explain(d, 0, at, own, np.full(at.size, room, "f4"), nowhere, (3, 7))


@pytest.mark.parametrize("across", [0, 1])
def test_what_can_not_matter_is_not_measured(across):
    """The largest differences around bound what lines can do: the same pixels are explained."""
    d = differences(across=across)
    steps = (d.along, d.across)
    bounded = replace(d, peaks=tuple(surroundings.measure_peaks(v, steps, (3, 7)) for v in d.values))
    at = pixels(d, 400)
    own = look_around(d, at)
    exact = explain(d, at)
    for room in (1.0, 20.0, 200.0):
        np.testing.assert_array_equal(explain(bounded, at, room) < room, exact < room)
        assert not (exact < room)[own.floor() >= room].any()
    assert (explain(bounded, at, 200.0) > exact).any()


def test_peaks_by_hand():
    d = differences()
    v = d.values[0]
    peaks = surroundings.measure_peaks(v, (d.along, d.across), (3, 7))
    for pool in pixels(d) // surroundings.POOL:
        places = [divmod(int(k), d.along) for k in range(pool * surroundings.POOL, (pool + 1) * surroundings.POOL)]
        sizes = [np.nanmax(np.abs(v[max(y - 5, 0) : y + 6, max(x - 3, 0) : x + 4]), initial=0) for y, x in places]
        assert peaks[pool] >= max(sizes)


def test_explained_variance_is_the_same_for_a_turned_frame():
    d = differences()
    turned = surroundings.Differences([v.T.copy() for v in d.values], 1, d.values[0].shape[0])
    at = pixels(d)
    y, x = np.divmod(at, d.values[0].shape[1])
    expected = explain(d, at)
    assert expected.max() > 1
    there = x * d.values[0].shape[0] + y
    order = np.argsort(there)
    np.testing.assert_allclose(explain(turned, there[order]), expected[order])


@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0, 2.0])
def test_unexplained_are_those_that_exceed_noise_and_sources(strength):
    d = differences()
    at = pixels(d, 300)
    value = np.random.default_rng(4).uniform(2, 60, at.size).astype("f4")
    options = {"defects": [np.zeros(d.values[0].size, bool)] * 3, "window": (3, 7), "strength": strength}
    found, rest = sources.find_unexplained(d, 0, at, as_high(d, at, value), limit=5.0, **options)
    variance = explain(d, at) + sources.explain_beside(d, 0, at)
    expected = at[value > 5 * np.sqrt(1 + strength**2 * variance)]
    assert 0 < expected.size < at.size
    np.testing.assert_array_equal(found, expected)
    assert not np.isin(rest, found).any()


@pytest.mark.parametrize(("row", "explained"), [(22, True), (26, False)])
def test_the_flank_of_a_line_that_peaks_beside_the_window_is_no_hit(row, explained):
    """High neighbors around (20, 20); another exposure has a line two rows away, or six."""
    values = [np.random.default_rng(k).standard_normal((41, 41), dtype="f4") for k in range(3)]
    values[0][19:22, 19:22] += [[5, 12, 5], [12, 30, 12], [5, 12, 5]]
    values[1][row, 17:24] += 60
    side = 41 + 2 * PAD
    d = surroundings.Differences([np.pad(v, PAD, constant_values=np.nan) for v in values], side, 1)
    at = np.array([(20 + PAD) * side + 20 + PAD])
    options = {"limit": 5.0, "defects": [np.zeros(side**2, bool)] * 3, "window": (3, 7), "strength": 1.0}
    found, rest = sources.find_unexplained(d, 0, at, as_high(d, at, 30.0), **options)
    assert (found.size == 0) == explained
    assert (rest.size == 1) == explained


def test_a_faint_trace_that_fades_is_still_a_trace():
    """Exposures of one pointing differ by a little where a source is steep; a broad line there is no track."""
    values = [np.random.default_rng(k).normal(0, 0.3, (61, 41)).astype("f4") for k in range(3)]
    values[0][:, 20] += 1.5
    values[0][18:43, 20] += 4
    side = 41 + 2 * PAD
    d = surroundings.Differences([np.pad(v, PAD, constant_values=np.nan) for v in values], side, 1)
    at = (np.arange(26, 35) + PAD) * side + 20 + PAD
    options = {"limit": 3.0, "defects": [np.zeros(d.values[0].size, bool)] * 3, "window": (3, 7), "strength": 1.0}
    assert sources.find_unexplained(d, 0, at, as_high(d, at, 6.5), **options)[0].size == 0


def test_noise_alone_explains_next_to_nothing():
    rng = np.random.default_rng(11)
    values = [rng.standard_normal((90, 90), dtype="f4") for _ in range(4)]
    d = surroundings.Differences([np.pad(v, PAD, constant_values=np.nan) for v in values], 90 + 2 * PAD, 1)
    found = explain(d, np.flatnonzero(np.isfinite(d.values[0])))
    assert np.median(found) == 0
    assert np.percentile(found, 99) < 0.5


def test_a_trace_allows_for_a_blob_without_low_neighbors_and_bare_sky_does_not():
    """A sharp source: its neighbors along the dispersion are as high as its trace, those at its sides are not."""
    trace, nothing = (np.array([value], np.float32) for value in (100.0, 0.0))
    narrow = sources.Own(common=trace, least=trace, blob=np.array([90.0], np.float32), low=nothing, across=nothing)
    on_trace, low = narrow.beyond(trace, trace)
    on_sky, _ = narrow.beyond(nothing, nothing)
    assert on_trace > 0.3 * trace
    assert low == 0
    assert on_sky < 5
