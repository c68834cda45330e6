"""The searches on tables of candidates: neighbors, IPC, saturation, drops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from badpix.darks import drops, ramps, scores, searches
from badpix.darks.scores import Population, Setup
from badpix.numerics import clipping, neighbors
from badpix.settings.darks import DarkSettings

SHAPE = (9, 11)


def places(*points):
    return neighbors.Places(np.array(sorted(y * SHAPE[1] + x for y, x in points), np.intp), SHAPE)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 10)), max_size=40))
def test_neighbors_in_the_table_are_those_in_the_image(points):
    table = places(*points)
    image = np.full(SHAPE, -1.0, np.float32)
    image.flat[table.index] = np.arange(len(table.index))
    padded = np.pad(image, 1, constant_values=-1)
    found = table.neighbors(np.arange(len(table.index), dtype=np.float32), neighbors.AROUND, -1.0)
    y, x = np.divmod(table.index, SHAPE[1])
    for k, (dy, dx) in enumerate(neighbors.AROUND):
        np.testing.assert_array_equal(found[k], padded[y + 1 + dy, x + 1 + dx])


def test_leaked_charge_is_taken_off():
    image = np.zeros(SHAPE)
    image[4, 5] = 1e4
    ipc = 0.01
    blurred = image * (1 - 4 * ipc)
    for dy, dx in neighbors.SIDES:
        blurred += ipc * np.roll(image, (dy, dx), (0, 1))
    table = places((4, 5), (3, 5), (5, 5), (4, 4), (4, 6))
    found = searches.correct_ipc(blurred.flat[table.index].astype(np.float32), table, ipc / (1 - 4 * ipc))
    y, x = np.divmod(table.index, SHAPE[1])
    center = (y == 4) & (x == 5)
    assert np.all(np.abs(found[~center]) < 1)
    assert found[center] == pytest.approx(9600, rel=2e-3)


def test_ipc_is_measured_on_isolated_hot_pixels_alone():
    rng = np.random.default_rng(0)
    rate = rng.normal(0, 1, (60, 60)).astype(np.float32)
    for y in range(5, 55, 10):
        for x in range(5, 55, 10):
            rate[y, x] = 5000
            for dy, dx in neighbors.SIDES:
                rate[y + dy, x + dx] += 40
    rate[5, 6] = 4000  # a pair is not isolated
    found, number = searches.measure_ipc(rate, 1.0)
    assert number == 24
    assert found == pytest.approx(0.008, abs=2e-4)
    none, number = searches.measure_ipc(rng.normal(0, 1, (60, 60)).astype(np.float32), 1.0)
    assert np.isnan(none)
    assert number == 0


def test_bright_pixels_say_more_of_the_ipc_than_faint_ones():
    """Sides of 250 sigma show no more than their noise: 12 bright pixels count for more than 24 of these."""
    errors = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rate = rng.normal(0, 1, (72, 72)).astype(np.float32)
        for k, (y, x) in enumerate(np.ndindex(6, 6)):
            y, x, size = 6 + 12 * y, 6 + 12 * x, 8000 if k % 3 == 0 else 250
            rate[y, x] = size
            for dy, dx in neighbors.SIDES:
                rate[y + dy, x + dx] += 0.006 * size
        errors.append(searches.measure_ipc(rate, 1.0)[0] - 0.006)
    assert np.max(np.abs(errors)) < 6e-4


def test_glow_beside_hot_pixels_is_no_ipc():
    rng = np.random.default_rng(0)
    rate = (np.linspace(0, 40, 60) + rng.normal(0, 1, (60, 60))).astype(np.float32)
    for y in range(5, 55, 10):
        for x in range(5, 55, 10):
            rate[y, x] = 2000
            for dy, dx in neighbors.SIDES:
                rate[y + dy, x + dx] += 12
    assert searches.measure_ipc(rate, 1.0)[0] == pytest.approx(0.006, abs=4e-4)


def test_only_pixels_saturated_by_themselves_are_found():
    grown = [(y, x) for y in (3, 4, 5) for x in (4, 5, 6, 7)]
    table = places(*grown, (8, 0), (0, 10))
    level = np.zeros(len(table.index), np.float32)
    y, x = np.divmod(table.index, SHAPE[1])
    true = ((y == 4) & np.isin(x, (5, 6))) | ((y == 8) & (x == 0))  # two that touch, one in the corner
    level[true], level[~true] = 55000, 30
    pixels = {"saturated_fraction": np.where((y == 0) & (x == 10), 0, 1).astype(np.float32), "first_level": level}
    found = searches.find_saturated(pixels, table, fraction=0.5, level_fraction=0.5)
    np.testing.assert_array_equal(found, true)


@pytest.mark.parametrize(("fraction", "want"), [(0.5, True), (0.51, False)])
def test_saturated_fraction_counts_when_equal(fraction, want):
    pixels = {"saturated_fraction": np.array([0.5], np.float32), "first_level": np.array([5e4], np.float32)}
    assert searches.find_saturated(pixels, places((4, 4)), fraction=fraction, level_fraction=0.5)[0] == want


def hot_pixels(**changes):
    rows = {
        "hot_rate": 1.0,
        "white": 25.0,
        "rate_scatter": 0.01,
        "late": 1.0,
        "slope": 1.0,
        "cut_fraction": 0.0,
        **changes,
    }
    return {k: np.array([v], np.float32) for k, v in rows.items()}


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, True),
        ({"hot_rate": 0.5}, False),
        ({"rate_scatter": 0.4}, False),
        ({"rate_scatter": 0.4, "hot_rate": 20.0}, True),
        ({"late": 0.4}, False),
        ({"late": 9.0, "slope": 40.0}, True),  # hits tilt the line: the rate between them is 10 DN a group
        ({"late": np.nan, "cut_fraction": 1.0}, True),
        ({"hot_rate": np.nan}, False),
    ],
)
def test_hot_pixels_stand_out_and_go_on(changes, want):
    setup, population = Setup(30, 10.0, 6, (), 6), Population(rate_spread=0.1)
    found = searches.find_hot(
        hot_pixels(**changes), setup, population, limit=0.5, own_threshold=3.5, late_fraction=0.5
    )
    assert found[0] == want


@pytest.mark.parametrize(("tau", "rate"), [(1.0, 0.0), (1.0, 2.0), (6.0, 0.5), (15.0, 0.0), (30.0, 0.0)])
def test_a_decay_is_told_from_a_current_that_goes_on(tau, rate):
    fit = ramps.ramp_fit(30)
    setup = Setup(30, 10.0, 6, ramps.contrast_names(fit.templates), 6)
    g = np.arange(30)
    values = fit.weights @ (rate * setup.group_time * g - 800 * np.exp(-g / tau)).astype(np.float32)
    pixels = {"white": np.array([25.0]), "examined": np.array([6.0])}
    pixels |= {t + "_median": values[3 + k : 4 + k] for k, t in enumerate(setup.templates)}
    left = values[1] / setup.group_time - searches.decay_rate(pixels, setup)[0]
    assert left < rate + 0.2
    if tau < 10:  # slower ones are nearly straight: the doubt counts against the current
        assert left == pytest.approx(rate, abs=0.2)


def switching(bent=False, **changes):
    """One candidate: found by its likelihood, and in other ways."""
    rows = {"drops": 0, "deepest": -3, "jump_fraction": 0.2, "cut_fraction": 0, "telegraph": 4, "shot": 0.1}
    rows["likelihood"] = np.nan  # not a suspect
    rows |= {"residual": 26.0} | changes
    table = {k: np.array([v], np.float32) for k, v in rows.items()}
    spread = {"log_noise": (np.log(5.0), 0.1), "correlation": (-0.1, changes.get("memory_sigma", 0.5))}
    population = Population(spread=spread, two_levels=5.0)
    score, otherwise = searches.find_telegraph(
        table,
        table,
        Setup(30, 10.0, 6, (), 6),
        population,
        np.array([changes.get("leaked", 0.0)], np.float32),
        np.array([bent]),
        bent_threshold=3.5,
        min_drops=2,
    )
    return bool(score[0]), bool(otherwise[0])


def test_switching_shows_in_the_likelihood_in_drops_or_in_a_bent_ramp():
    assert switching() == (False, False)
    assert switching(telegraph=9.0) == (False, False)
    assert switching(likelihood=4.9) == (False, False)
    assert switching(likelihood=5.1) == (True, False)
    assert switching(drops=2, likelihood=0.5) == (False, True)
    assert switching(drops=2, likelihood=-0.5) == (False, False)  # whatever drops there has no two levels
    assert switching(drops=2) == (False, True)
    assert switching(deepest=-9, jump_fraction=0.5) == (False, True)
    assert switching(bent=True) == (False, True)
    assert switching(bent=True, telegraph=3) == (False, False)
    assert switching(likelihood=5.1, leaked=0.5) == (True, False)
    assert switching(likelihood=5.1, leaked=5.0, residual=900.0) == (True, False)  # its own is far above


@pytest.mark.parametrize(
    "reason", [{"shot": 1e3}, {"leaked": 5.0}, {"leaked": 0.5, "memory_sigma": 0.04}, {"cut_fraction": 0.5}]
)
def test_switching_is_not_claimed_where_something_else_explains_it(reason):
    assert switching(bent=True, likelihood=9, telegraph=9, drops=5, **reason) == (False, False)


def settling(**changes):
    """One candidate that bends by 40 sigma: whether it settles, and whether it bends at all."""
    rows = {
        "c": 200.0,
        "c_median": 200.0,
        "c_z": 40.0,
        "c_median_z": 30.0,
        "c_sign": 1.0,
        "c_scatter": 40.0,
        "c_clean": 190.0,
        "slope": 1.0,
        "cut_fraction": 0.0,
        "share": 0.9,
        "rest": 20.0,
        "white": 25.0,
        "shot": 0.1,
        **changes,
    }
    table = {k: np.array([v], np.float32) for k, v in rows.items()}
    population = Population(spread={"log_noise": (np.log(5.0), 0.1)})
    found = searches.find_rc(
        table,
        table,
        Setup(30, 10.0, 6, ("c",), 6),
        population,
        sigma=5.5,
        median_sigma=4.0,
        sign_fraction=0.75,
        scatter=0.5,
        linear_fraction=0.1,
        explained=0.8,
        rest=2.5,
        own_rest=1.2,
    )
    return tuple(bool(f[0]) for f in found)


def test_ramps_settle_alike_and_the_decay_explains_them():
    assert settling() == (True, True)
    assert settling(c_scatter=110.0) == (False, True)
    assert settling(c_sign=0.6) == (False, True)
    assert settling(share=0.5) == (True, True)  # the rest is quiet
    assert settling(share=0.5, rest=400.0) == (False, True)
    assert settling(share=0.5, rest=400.0, white=390.0) == (True, True)  # as quiet as its own noise lets it be
    assert settling(c_scatter=110.0, white=1e4) == (True, True)  # scatters by its noise alone
    assert settling(share=0.5, rest=400.0, c_scatter=8.0) == (True, True)  # nothing else repeats so well
    assert settling(c_clean=90.0) == (False, True)  # ramps without hits hardly bend
    assert settling(c_clean=np.nan) == (True, True)  # every ramp jumps: settling itself is flagged
    assert settling(c_clean=np.nan, c_scatter=60.0) == (False, True)  # or hits are, which differ
    assert settling(slope=100.0) == (False, False)
    assert settling(c_median_z=2.0) == (False, False)


def test_one_group_of_its_own_charge_is_enough_beside_a_pixel_that_saturates_in_the_second():
    """A member of a cluster at 50 e/s beside one at 800, averaged groups: half of its rate is all that is known."""
    table = neighbors.Places(np.array([44, 45]), (10, 10))
    pixels = {"cut_fraction": np.ones(2), "groups": np.ones(2), "hot_rate": np.array([23, 400], np.float32)}
    p = DarkSettings()
    limits = {"fraction": p.hot_overrun_fraction, "late_fraction": p.hot_late_overrun_fraction}
    assert not searches.find_overrun(pixels, table, min_groups=2, **limits).any()
    pixels["hot_rate"][0] = 8  # what four sides leak at an IPC of 0.5 %
    assert searches.find_overrun(pixels, table, min_groups=2, **limits).tolist() == [True, False]


def test_residuals_leak_with_the_hits_in_them():
    table = places((4, 4), (4, 5))
    pixels = {"residual": np.array([25.0, 25.0]), "whole_residual": np.array([25.0, 1e6], np.float32)}
    leaked = searches.leaked_variance(pixels, table, 0.01)
    np.testing.assert_allclose(leaked, [100, 0.0025])


def test_neighbors_of_a_pixel_that_saturates_early_are_not_hot():
    places = neighbors.Places(np.array([44, 45, 46, 54, 77]), (10, 10))
    pixels = {
        "cut_fraction": np.array([1, 1, 1, 1, 1], np.float32),
        "hot_rate": np.array([140, 7000, 900, 9, 140], np.float32),
        "groups": np.full(5, 3, np.float32),
    }
    limits = {"min_groups": 5, "fraction": 0.1, "late_fraction": 0.015}
    assert searches.find_overrun(pixels, places, **limits).tolist() == [True, False, False, True, False]
    pixels["groups"][:] = 12  # enough to know the rate
    assert searches.find_overrun(pixels, places, **limits).tolist() == [False, False, False, True, False]


def test_what_the_correction_leaves_around_a_very_hot_pixel_is_not_hot():
    places = neighbors.Places(np.array([34, 44, 45, 77]), (10, 10))
    pixels = {"hot_rate": np.array([1.0, 500.0, 2.0, 1.0], np.float32)}
    assert searches.find_leaked(pixels, places, fraction=0.003).tolist() == [True, False, False, False]


def test_what_the_correction_leaves_beside_a_cluster_is_not_hot():
    """Each member leaves its part."""
    places = neighbors.Places(np.array([33, 34, 35, 43, 44, 77]), (10, 10))
    pixels = {"hot_rate": np.array([90, 80, 100, 110, 1.0, 1.0], np.float32)}
    found = searches.find_leaked(pixels, places, fraction=0.003)
    assert found.tolist() == [False, False, False, False, True, False]


def test_a_switching_pixel_has_no_better_mean_pedestal_with_more_integrations():
    pixels = {k: np.array([v, v]) for k, v in (("residual", 625.0), ("white", 25.0), ("integrations", 100.0))}
    error = searches.pedestal_error(
        pixels, np.array([False, True]), Population(spread={"log_noise": (np.log(5.0), 0.1)})
    )
    assert error[1] == pytest.approx(10 * error[0])


@pytest.mark.parametrize(("n", "groups"), [(5, 20), (10, 60), (100, 60), (3, 150)])
def test_drops_needed_are_rarer_than_two_in_a_million(n, groups):
    need = drops.drops_needed(n, groups, 4.5)
    assert 2 <= need <= n
    rng = np.random.default_rng(n)
    chance = 3 * groups * 3.4e-6
    deep = rng.binomial(n, chance, 2_000_000)
    assert np.mean(deep >= need) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("freedom", "deeper"), [(None, False), (10, True), (4, True)])
def test_the_depth_of_steps_follows_the_tails_of_the_noise(freedom, deeper):
    setup = Setup(50, 1.0, 6, (), 6)
    rng = np.random.default_rng(4)

    def deepest(pixels):
        noise = rng.normal(size=(6, 50, pixels)) if freedom is None else rng.standard_t(freedom, (6, 50, pixels))
        noise *= 1.0 if freedom is None else np.sqrt((freedom - 2) / freedom)
        return np.sort(np.diff(noise, axis=1).min(axis=1) / np.sqrt(2), axis=0)

    sample = deepest(40_000)
    sample[:, :40] = -20  # switching pixels
    several, one = drops.choose_depths(
        sample[0].astype(np.float32), sample[1].astype(np.float32), setup.examined, setup.groups, 4.5
    )
    need = drops.drops_needed(setup.examined, setup.groups, 4.5)
    seen = deepest(100_000)
    assert np.mean(seen[need - 1] < -several) < 5e-5
    assert (several > 4.5, one > drops.DEEP) == (deeper, deeper)
    assert several < 15


def test_low_pedestals_stand_out_against_spread_and_own_noise():
    rng = np.random.default_rng(1)
    pedestal = rng.normal(0, 8, (60, 60)).astype(np.float32)
    own = np.zeros_like(pedestal)
    pedestal[10, 10], pedestal[20, 20], pedestal[30, 30] = -80, -80, 80
    own[20, 20] = 40
    found, scaled = searches.find_low_pedestal(pedestal, own, clipping.median_mad(pedestal)[1], sigma=5.0, ipc=0.0)
    want = np.zeros_like(found)
    want[10, 10] = True
    np.testing.assert_array_equal(found, want)
    assert scaled[10, 10] == pytest.approx(-10, rel=0.1)


def test_pedestals_that_hold_the_bias_are_compared_with_their_own_amplifier():
    rng = np.random.default_rng(2)
    bias = np.array([0, 500, 1000, 1500])[np.arange(64) % 4] + rng.normal(0, 10, (64, 64))
    bias[30, 30] -= 200
    flat = searches.flatten_pedestal(bias.astype(np.float32), interleaved=True)
    assert abs(np.median(flat)) < 3
    assert flat[30, 30] == pytest.approx(-200, abs=40)
    assert np.abs(np.delete(flat.ravel(), 30 * 64 + 30)).max() < 60


def loud(noise_z=0.0, residual_z=0.0, **changes):
    """What the noise of one pixel says: above a limit of 4 sigma, and confirmed."""
    population = Population(spread={"log_noise": (0.0, 0.1)})
    table = {"noise": np.exp(0.1 * noise_z), "noise_z": noise_z, "log_residual_z": residual_z}
    pixels = {"residual": np.exp(0.2 * residual_z), "cut_fraction": 0.0} | changes
    pixels, table = ({k: np.array([v], np.float32) for k, v in part.items()} for part in (pixels, table))
    above, found = searches.find_noisy(pixels, table, population, np.zeros(1, np.float32), sigma=4.0, min_ratio=1.2)
    return bool(above[0]), bool(found[0])


def test_one_measure_of_noise_is_confirmed_by_the_other():
    assert loud(4.2, 3.5) == (True, True)
    assert loud(3.5, 4.2) == (True, True)
    assert loud(4.2, 3.0) == (True, False)
    assert loud(3.0, 4.2) == (True, False)
    assert loud(3.9, 3.9) == (False, False)
    assert loud(7.0, 0.0) == (True, True)  # far louder: alone
    assert loud(0.0, 7.0) == (True, True)
    assert loud(4.2, 0.0, cut_fraction=0.5) == (True, True)  # hits are not taken off such residuals


def test_shot_noise_asks_for_more_of_two_levels():
    setup = Setup(60, 10.0, 5, ("c",), 5)
    population = Population(two_levels=5.0, spread={"log_noise": (np.log(5.0), 0.1), "correlation": (0.0, 0.5)})
    nothing, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    pixels = {
        "drops": nothing,
        "deepest": nothing,
        "jump_fraction": nothing,
        "cut_fraction": nothing,
        "residual": 25 * one,
        "likelihood": 8 * one,
    }
    half = 0.5 * 25 / (60 * scores.SHOT_SLOPE)  # shot noise that moves the ramp half as much as read noise does
    for shot, likelihood, want in ((0, 8, True), (half, 8, False), (half, 11, True), (4 * half, 20, False)):
        table = {"shot": shot * one, "telegraph": nothing}
        pixels["likelihood"] = likelihood * one
        found = searches.find_telegraph(
            pixels, table, setup, population, nothing, nothing > 0, bent_threshold=3.5, min_drops=2
        )
        assert bool(found[0][0]) is want
    pixels["likelihood"] = 80 * one  # charge of a hot pixel does not go back
    assert searches.find_telegraph(
        pixels, table, setup, population, nothing, nothing > 0, bent_threshold=3.5, min_drops=2
    )[0][0]
