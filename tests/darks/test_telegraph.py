"""Two levels or one: the likelihood of switching ramps against plain loops, and what it tells apart."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from badpix.darks import chain, level_ratio, levels, telegraph
from badpix.darks.group_flags import DO_NOT_USE, JUMP_DET, SATURATED
from badpix.darks.ramps import ramp_fit

NOISE, SPREAD = 5.0, 0.13


def make_noise(rng, n, groups, pixels):
    """(n, G, pixels) ramps of white noise with an offset and a slope each, no flags."""
    ramps = rng.normal(0, NOISE, (n, groups, pixels)) + rng.normal(0, 20, (n, 1, pixels))
    ramps += 0.03 * rng.normal(size=pixels) * np.arange(groups)[None, :, None]
    return ramps.astype(np.float32), np.zeros((n, groups, pixels), np.uint8)


def add_switching(ramps, rng, separation, low, high):
    """Two levels with these mean stays, in place."""
    n, groups, pixels = ramps.shape
    state = rng.random((n, pixels)) < high / (low + high)
    for g in range(groups):
        ramps[:, g] += np.float32(separation) * state
        state ^= rng.random((n, pixels)) < np.where(state, 1 / high, 1 / low)


def judge(ramps, flags, **options):
    pixels = ramps.shape[2]
    noise = telegraph.Noise(np.full(pixels, NOISE), np.zeros(pixels), SPREAD)
    return telegraph.judge_ramps(ramps, flags, noise, templates=ramp_fit(ramps.shape[1]).weights[3:], **options)


def make_pieces(rng, groups=9, columns=7, gaps=True):
    ramps = rng.normal(0, NOISE, (groups, columns, 1)).astype(np.float32)
    flags = np.zeros(ramps.shape, np.uint8)
    if gaps:
        flags[:2, 1], flags[4, 2], flags[6:, 3] = DO_NOT_USE, SATURATED, DO_NOT_USE
    return telegraph.cut_pieces(ramps, flags, np.array([NOISE]), averaged=False)


# --- pieces ----------------------------------------------------------------------------------------------


def test_ramps_are_cut_at_hits_and_gaps():
    rng = np.random.default_rng(1)
    ramps, flags = make_noise(rng, 2, 12, 3)
    ramps[0, 5:, 1] += 500
    flags[0, 5, 1] = JUMP_DET
    flags[1, 7, 1] = JUMP_DET
    ramps[1, 7:, 1] -= 20  # down: no hit
    flags[1, 3, 2] = DO_NOT_USE
    flags[:, :, 0] = SATURATED
    pieces = telegraph.cut_pieces(
        ramps.transpose(1, 0, 2), flags.transpose(1, 0, 2), np.full(3, NOISE), averaged=False
    )
    assert pieces.pixel.tolist() == [0, 1, 1, 1, 2, 2]
    assert pieces.first.tolist() == [0, 1, 4]
    assert pieces.usable.sum(axis=0).tolist() == [0, 5, 12, 7, 12, 11]
    assert np.all(pieces.values[pieces.usable == 0] == 0)
    for c, (i, x, keep) in {1: (0, 1, slice(0, 5)), 3: (0, 1, slice(5, 12)), 2: (1, 1, slice(0, 12))}.items():
        own = ramps[i, keep, x] / NOISE
        np.testing.assert_allclose(pieces.values[keep, c], own - own.mean(), atol=2e-4)
        assert pieces.middle[c] == np.mean(np.arange(12)[keep])


def test_averaged_groups_lose_the_group_of_the_hit():
    rng = np.random.default_rng(2)
    ramps, flags = make_noise(rng, 1, 12, 1)
    ramps[0, 6:] += 300
    flags[0, 6] = JUMP_DET
    args = ramps.transpose(1, 0, 2), flags.transpose(1, 0, 2), np.full(1, NOISE)
    assert telegraph.cut_pieces(*args, averaged=False).length.tolist() == [6, 6]
    assert telegraph.cut_pieces(*args, averaged=True).length.tolist() == [6, 5]


def test_rises_of_a_pixel_that_steps_down_as_far_are_its_own():
    ramps = np.zeros((10, 1, 1), np.float32)
    ramps[3:6] = 60
    flags = np.zeros(ramps.shape, np.uint8)
    flags[3] = flags[6] = JUMP_DET
    assert telegraph.cut_pieces(ramps, flags, np.full(1, NOISE), averaged=False).length.tolist() == [10]
    ramps[8:], flags[8] = 1000, JUMP_DET  # far beyond its levels: a hit (its two groups are too few)
    assert telegraph.cut_pieces(ramps, flags, np.full(1, NOISE), averaged=False).length.tolist() == [8]


# --- the kernels, against plain loops --------------------------------------------------------------------


def plain_paths(values, groups):
    """All sequences of states of a piece of that many groups."""
    return [[(k >> g) & 1 for g in range(groups)] for k in range(2**groups)]


def plain_chain(x, levels, up, down, noise):
    """Joint densities of all paths through two states, and the paths; without the Gaussian's norm."""
    move = np.array([[1 - up, up], [down, 1 - down]])
    start = np.array([down, up]) / (up + down)
    paths = np.array(plain_paths(x, len(x)))
    density = []
    for path in paths:
        p = start[path[0]] * np.prod([move[a, b] for a, b in pairwise(path)])
        density.append(
            p * np.prod([np.exp(-((v - levels[s]) ** 2) / (2 * noise**2)) for v, s in zip(x, path, strict=True)])
        )
    return np.array(density), paths


def test_states_are_those_of_all_paths_together():
    rng = np.random.default_rng(3)
    pieces = make_pieces(rng, gaps=False)
    separation, up, down, noise = (np.array([v]) for v in (1.7, 0.2, 0.4, 0.9))
    offset = rng.normal(-0.8, 0.2, 7).astype(np.float32)
    high, likelihood, ups = chain.find_states(pieces, offset, separation, up, down, noise)
    for c in range(7):
        x = pieces.values[:, c].astype(float)
        density, paths = plain_chain(x, (offset[c], offset[c] + 1.7), 0.2, 0.4, 0.9)
        low = np.prod(np.exp(-((x - offset[c]) ** 2) / (2 * 0.9**2)))
        assert likelihood[c] == pytest.approx(np.log(density.sum() / low), abs=1e-4)
        weight = density / density.sum()
        np.testing.assert_allclose(high[:, c], weight @ paths, atol=1e-5)
        rises = (np.diff(paths, axis=1) == 1).sum(axis=1)
        assert ups[c] == pytest.approx(weight @ rises, abs=1e-5)


@pytest.mark.slow
def test_scan_is_the_sum_over_paths_and_offsets():
    rng = np.random.default_rng(4)
    pieces = make_pieces(rng)
    fractions = (np.arange(33) / 32).astype(np.float32)
    total, best = chain.scan_offsets(pieces, np.array([2.0]), 0.15, np.array([1.1]), fractions)
    for c in range(len(pieces.pixel)):
        keep = slice(None) if pieces.usable is None else pieces.usable[:, c] > 0
        x = pieces.values[:, c][keep].astype(float)
        if c == 2:
            continue  # a gap inside: the chain moves on through it
        sums = [plain_chain(x, (-2.0 * f, 2.0 - 2.0 * f), 0.15, 0.15, 1.1)[0].sum() for f in fractions]
        one = np.prod(np.exp(-(x**2) / (2 * 1.1**2))) * np.sqrt(2 * np.pi / len(x)) * 1.1
        assert total[c] == pytest.approx(np.log(np.sum(sums) * 2.0 / 32 / one), abs=2e-3)
        assert best[c] == fractions[np.argmax(sums)]


@pytest.mark.slow
@pytest.mark.parametrize("two", [False, True])
def test_offsets_are_summed_over_all_levels(two, monkeypatch):
    monkeypatch.setattr(chain, "FLOOR", 0.0)
    rng = np.random.default_rng(5)
    pieces = make_pieces(rng, gaps=False)
    bins = chain.Bins(-12, 25, np.array([0.4]))
    switching = chain.Switching(4, np.array([0.2]), np.array([0.4])) if two else None
    zero = np.zeros(1)
    found = chain.integrate_offsets(pieces, bins, switching, np.ones(1), zero, 0.0)
    for c in range(7):
        x = pieces.values[:, c].astype(float)
        total = 0.0
        for level in (np.arange(25) - 12) * 0.4:
            if two:
                total += plain_chain(x, (level, level + 1.6), 0.2, 0.4, 1.0)[0].sum()
            else:
                total += np.prod(np.exp(-((x - level) ** 2) / 2))
        assert found[c] == pytest.approx(np.log(total * 0.4), abs=1e-3)


def test_a_walking_offset_is_likelier_where_the_ramp_walks():
    rng = np.random.default_rng(6)
    ramps, flags = make_noise(rng, 6, 40, 60)
    ramps[:, :, 30:] += np.cumsum(rng.normal(0, 0.25 * NOISE, (6, 40, 30)), axis=1).astype(np.float32)
    pieces = telegraph.cut_pieces(
        ramps.transpose(1, 0, 2), flags.transpose(1, 0, 2), np.full(60, NOISE), averaged=False
    )
    one = levels.fit_one_level(pieces, SPREAD)
    flat = levels.take_line_off(pieces, one.slope)
    gain = level_ratio.integrate_one(flat, one, np.ones(60), np.full(60, 0.25**2), SPREAD)
    gain -= level_ratio.integrate_one(flat, one, np.ones(60), np.zeros(60), SPREAD)
    assert np.all(gain[:30] < 0)
    assert np.mean(gain[30:] > 3) > 0.7


# --- what it tells apart ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "groups", "separation", "least"), [(5, 60, 15, 0.97), (5, 20, 15, 0.6), (10, 60, 8, 0.65)]
)
def test_switching_pixels_are_told_from_noise(n, groups, separation, least):
    rng = np.random.default_rng(7)
    ramps, flags = make_noise(rng, n, groups, 600)
    assert np.max(judge(ramps, flags)["likelihood"]) < 4.5
    ramps, flags = make_noise(rng, n, groups, 120)
    add_switching(ramps, rng, separation, 5.0, 8.0)
    found = judge(ramps, flags)
    clear = found["likelihood"] > 5
    assert clear.mean() > least
    assert np.median(found["separation"][clear]) == pytest.approx(separation, rel=0.1)
    near = 0.2 if separation == 15 else 0.4  # at 1.6 sigma short stays and noise are not told apart
    assert np.median(found["dwell_low"][clear]) == pytest.approx(5, rel=near)
    assert np.median(found["dwell_high"][clear]) == pytest.approx(8, rel=near)


def test_noise_with_tails_does_not_switch():
    """Student's t with 4 degrees of freedom: some groups of each pixel lie 5 sigma off, and its core is quieter."""
    rng = np.random.default_rng(11)
    ramps = (rng.standard_t(4, (5, 60, 600)) * NOISE / np.sqrt(2)).astype(np.float32)
    found = judge(ramps, np.zeros(ramps.shape, np.uint8))["likelihood"]
    assert np.sum(found > 4.5) <= 3
    assert np.max(found) < 7
    add_switching(ramps[:, :, :120], rng, 15, 5.0, 8.0)
    assert np.mean(judge(ramps[:, :, :120], np.zeros((5, 60, 120), np.uint8))["likelihood"] > 5) > 0.95


@pytest.mark.parametrize("size", [40, 100, 600])
def test_bright_switching_survives_its_own_jump_flags(size):
    rng = np.random.default_rng(8)
    ramps, flags = make_noise(rng, 5, 40, 40)
    add_switching(ramps, rng, size, 4.0, 6.0)
    step = np.diff(ramps, axis=1)
    flags[:, 1:][np.abs(step) > 5.7 * NOISE] = JUMP_DET
    found = judge(ramps, flags)
    assert np.all(found["likelihood"] > 30)
    np.testing.assert_allclose(found["separation"], size, rtol=0.1)


@pytest.mark.parametrize(("size", "hit", "least"), [(600, 0, 0.95), (900, 200, 0.75)])
def test_a_few_switches_between_levels_far_apart_are_enough(size, hit, least):
    """Averaged groups, ramps of 10 with stays of as many groups, and in one ramp a hit that no flag marks."""
    rng = np.random.default_rng(14)
    ramps, flags = make_noise(rng, 5, 10, 200)
    add_switching(ramps, rng, size, 8.0, 12.0)
    ramps[1, 5:] += hit
    downs = (np.diff(ramps, axis=1) < -size / 2).any(axis=1).sum(axis=0)
    found = judge(ramps, flags, averaged=True)["likelihood"]
    assert np.mean(found[downs >= 3] > 4.5) > least


def test_one_switch_each_way_between_levels_far_apart_is_enough():
    """Levels 36 sigma apart, a ramp on the upper one but for one group, two that rise: their scatter is 9 sigma."""
    rng = np.random.default_rng(16)
    ramps, flags = make_noise(rng, 5, 20, 60)
    ramps[1, 11:] += 180
    ramps[3, 4:] += 180
    ramps[4, :7] += 180
    ramps[4, 8:] += 180
    flags[1, 11] = flags[3, 4] = flags[4, 7] = flags[4, 8] = JUMP_DET
    found = judge(ramps, flags)
    assert np.mean(found["likelihood"] > 0) > 0.9
    np.testing.assert_allclose(found["separation"], 180, rtol=0.1)


def test_switches_within_averaged_groups_leave_the_levels_as_they_are():
    """Eight frames a group, stays of half a group to two: many groups lie between the levels."""
    rng = np.random.default_rng(17)
    frames = np.zeros((5, 80, 200), np.float32)
    add_switching(frames, rng, 240, 12.0, 20.0)
    ramps, flags = make_noise(rng, 5, 10, 200)
    ramps = ramps * np.float32(0.4) + frames.reshape(5, 10, 8, 200).mean(axis=2)
    flags[:, 1:][np.abs(np.diff(ramps, axis=1)) > 12] = JUMP_DET
    noise = telegraph.Noise(np.full(200, 2.0), np.zeros(200), SPREAD)
    shapes = ramp_fit(10).weights[3:]
    found = telegraph.judge_ramps(ramps, flags, noise, templates=shapes, averaged=True)
    assert np.mean(found["likelihood"] > 5) > 0.8
    assert np.median(found["separation"]) == pytest.approx(240, rel=0.1)


def test_steps_up_alone_are_no_levels_however_large():
    """Two hits in each of two ramps of five; no flag marks them."""
    rng = np.random.default_rng(15)
    ramps, flags = make_noise(rng, 5, 20, 200)
    for x in range(200):
        for i in range(2):
            for at in rng.integers(2, 19, 2):
                ramps[i, at:, x] += 10 ** rng.uniform(1.5, 3)
    assert np.mean(judge(ramps, flags)["likelihood"] > 4.5) <= 0.01


def test_other_pixels_do_not_switch():
    rng = np.random.default_rng(9)
    ramps, flags = make_noise(rng, 5, 50, 500)
    g = np.arange(50)
    hit = rng.integers(2, 48, 100)
    for x in range(100):  # a hit of 2 to 8 sigma without a flag
        ramps[x % 5, hit[x] :, x] += NOISE * (2 + 6 * x / 100)
    for x in range(100, 200):  # flagged hits
        ramps[x % 5, hit[x - 100] :, x] += 2000
        flags[x % 5, hit[x - 100], x] = JUMP_DET
    ramps[:, :, 200:300] *= 3  # noisy
    ramps[:, :, 300:400] += (60 * np.exp(-g / 3))[None, :, None]  # settles alike in all ramps
    ramps[:, :, 400:] += (40 * g)[None, :, None]  # hot (the shot noise apart)
    assert np.nanmax(judge(ramps, flags)["likelihood"]) < 5


def test_a_pixel_is_judged_by_itself():
    rng = np.random.default_rng(10)
    ramps, flags = make_noise(rng, 4, 30, 40)
    add_switching(ramps[:, :, ::3], rng, 15, 5, 5)
    flags[2, 9, 5], flags[1, :4, 8] = JUMP_DET, DO_NOT_USE
    flags[:, :, 11] = DO_NOT_USE
    together = judge(ramps, flags)
    assert np.isnan(together["likelihood"][11])
    for x in (0, 3, 5, 8, 20):
        for some in ([x, 39], [1, x, 7, 30]):
            alone = judge(ramps[:, :, some], flags[:, :, some])
            for name in telegraph.COLUMNS:
                assert alone[name][some.index(x)] == together[name][x], name


def test_limit_is_that_of_the_tail_whatever_switches():
    rng = np.random.default_rng(11)
    scores = rng.exponential(1.2, 200_000) - 4
    scores = np.sort(scores)[-8000:]
    expected = -4 + 1.2 * np.log(1 / telegraph.FALSE_ALARMS)
    tail = telegraph.find_limit(scores, 200_000, 2.0)
    assert tail.limit == pytest.approx(expected, abs=0.6)
    assert tail.above == pytest.approx(telegraph.FALSE_ALARMS, rel=1e-6)
    scores[:100] = rng.uniform(10, 300, 100)
    assert telegraph.find_limit(scores, 200_000, 2.0).limit == pytest.approx(expected, abs=0.8)
    far = telegraph.find_limit(scores, 200_000, 12.0)
    assert far.limit == 12.0
    assert far.above == pytest.approx(np.exp(-16 / 1.2), rel=0.6)
    few = telegraph.find_limit(scores[:50], 1000, 5.0)
    assert few.limit == 5.0
    assert np.isnan(few.above)


@pytest.mark.parametrize(("slope", "part"), [(0.7, 0), (0.7, 0.01), (1.2, 0), (1.2, 0.01), (2.5, 0), (2.5, 0.004)])
def test_limit_does_not_rise_among_the_many_pixels_that_switch(part, slope):
    rng = np.random.default_rng(12)
    number = 65_000
    good = np.sort(rng.exponential(slope, number) - 8 * slope / 2.5)[-round(0.03 * number) :]
    switching = rng.uniform(-4, 150, round(part * number))
    tail = telegraph.find_limit(np.concatenate([good, switching]), number, 4.5)
    expected = max(4.5, slope * (np.log(1 / telegraph.FALSE_ALARMS) - 3.2))
    assert tail.limit == pytest.approx(expected, abs=0.8 if not part else 5.5)
    if expected > 4.5:
        assert tail.above == pytest.approx(telegraph.FALSE_ALARMS, rel=0.01)
