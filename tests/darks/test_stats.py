"""Statistics over integrations: order statistics, robustness against cosmic rays, candidates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from badpix.darks import ramps, scores, stats

STACKS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 50), st.integers(1, 6)),
    elements=st.one_of(st.floats(-1e6, 1e6, width=32), st.just(np.float32(np.nan))),
)


@settings(max_examples=60, deadline=None)
@given(STACKS)
def test_medians_are_those_of_numpy(values):
    known = [column[np.isfinite(column)].astype(np.float64) for column in values.T]
    want = [np.median(column) if column.size else np.nan for column in known]
    np.testing.assert_allclose(stats.median_stack(values), want, rtol=1e-5, atol=1e-3)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(STACKS)
def test_trimmed_means_are_those_of_a_plain_loop(values):
    found = stats.trimmed_mean_of(*stats.sort_stack(values))
    for column, got in zip(values.T, found, strict=True):
        known = np.sort(column[np.isfinite(column)].astype(np.float64))
        cut = max(1, int(0.2 * len(known) + 1e-9)) if len(known) >= 3 else 0
        kept = known[cut : len(known) - cut]
        want = kept.mean() if len(kept) else np.nan
        assert got == pytest.approx(want, rel=1e-5, abs=1e-2, nan_ok=True)


def test_long_stacks_are_sorted_like_short_ones():
    values = np.random.default_rng(0).normal(size=(90, 700)).astype(np.float32)
    values[3, 5] = np.nan
    ordered, count = stats.sort_stack(values)
    assert count[5] == 89
    np.testing.assert_array_equal(ordered[:, 4], np.sort(values[:, 4]))
    np.testing.assert_array_equal(ordered[:89, 5], np.sort(values[:, 5])[:89])


def make_tile(n=6, pixels=50, seed=0, scatter=0.01, **values):
    rng = np.random.default_rng(seed)
    rows = {
        "slope": 0.0,
        "late": 0.0,
        "contrast_0": 0.0,
        "residual": 25.0,
        "white": 25.0,
        "flatness": 0.8,
        "memory": -0.1,
        "drop": -15.0,
        "calm": 25.0,
        "rate": 0.0,
        "pedestal": 0.0,
    }
    made = {k: (v + scatter * rng.normal(size=(n, pixels))).astype(np.float32) for k, v in rows.items()}
    for name, change in values.items():
        made[name][:, 0] = change
    return stats.Integrations(
        made.pop("rate"),
        made.pop("pedestal"),
        made,
        np.arange(n),
        np.full((n, pixels), 20, np.uint16),
        np.zeros((n, pixels), np.uint16),
        np.zeros((n, pixels), bool),
        np.zeros(pixels, np.float32),
        np.full(pixels, np.nan, np.float32),
        np.zeros(pixels, bool),
    )


OPTIONS = {"groups": 1000, "min_groups": 5, "hot_fraction": 0.5, "drop_sigma": 4.5, "templates": ("contrast_0",)}


@pytest.mark.parametrize(("votes", "high"), [(2, False), (3, True), (4, True)])
def test_hot_rate_is_reached_in_the_wanted_fraction_of_integrations(votes, high):
    tile = make_tile(rate=np.r_[np.full(votes, 9.0), np.zeros(6 - votes)])
    found = stats.combine_integrations(tile, **OPTIONS)
    assert (found["hot_rate"][0] > 5) == high


def test_one_cosmic_ray_in_six_integrations_changes_nothing():
    for name in ("contrast_0", "pedestal", "white"):
        hit = make_tile(**{name: np.r_[1e5, np.full(5, 25.0 if name == "white" else 0.0)]})
        found = stats.combine_integrations(hit, **OPTIONS)
        assert found[name][0] == pytest.approx(np.median(found[name][1:]), abs=0.1)


def test_residuals_are_means_without_the_tenth_that_is_largest():
    tile = make_tile(n=20, memory=np.r_[0.9, 0.9, np.full(18, -0.1)], calm=np.r_[1e4, 900, np.full(18, 25)])
    tile.groups[2, 0] = 3
    found = stats.combine_integrations(tile, **OPTIONS)
    assert found["kept"][0] == 18  # of 19 that count, one tenth is left out: one integration
    assert found["kept"][1] == 18
    assert found["memory"][0] == pytest.approx((0.9 - 17 * 0.1) / 18, abs=1e-2)
    assert found["residual"][0] == pytest.approx((900 + 17 * 25) / 18, rel=1e-2)
    assert found["residual"][1] == pytest.approx(25, abs=0.1)


def test_one_of_three_integrations_is_left_out_and_none_of_two():
    for n, kept in ((3, 2), (2, 2)):
        found = stats.combine_integrations(make_tile(n=n, calm=np.arange(25.0, 25 + n)), **OPTIONS)
        assert found["kept"][0] == kept
        assert found["residual"][0] == pytest.approx(25.5)


def test_deep_steps_down_are_counted_in_units_of_own_noise():
    tile = make_tile(drop=np.array([-60.0, -10.0, -60.0, -10.0, -10.0, -60.0]))
    found = stats.combine_integrations(tile, **OPTIONS)
    assert found["drops"][0] == 3
    assert found["drops"][1:].sum() == 0
    assert found["deepest"][0] == pytest.approx(-60 / np.sqrt(50), rel=0.01)


def test_integrations_with_few_groups_do_not_count():
    tile = make_tile()
    tile.groups[:4, 0] = 3
    found = stats.combine_integrations(tile, **OPTIONS)
    assert found["integrations"][0] == 2
    assert found["cut_fraction"][0] == pytest.approx(4 / 6)


def test_scores_do_not_depend_on_the_unit_of_the_data():
    """All limits follow from noise in the same data: ten times the DN gives the same scores."""
    setup = scores.Setup(20, 10.0, 6, ("contrast_0",), 6)
    found = []
    for scale in (1.0, 10.0):
        tile = make_tile(pixels=400, seed=3, scatter=0.1, contrast_0=30.0)
        for name, values in [*tile.shapes.items(), ("rate", tile.rate), ("pedestal", tile.pedestal)]:
            power = 2 if name in ("residual", "calm", "white") else 0 if name in ("flatness", "memory") else 1
            values *= np.float32(scale**power)
        pixels = stats.combine_integrations(tile, **OPTIONS)
        population = scores.measure_population(pixels, setup, 0.01 * scale)
        found.append(scores.score_pixels(pixels, setup, population))
    for name in ("noise_z", "rc", "telegraph", "contrast_0_z"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=2e-3, atol=2e-3)
    assert found[0]["rc"][0] > 10


def test_evidence_is_a_length_and_noise_alone_is_not_enough():
    def join(*values):
        return float(scores.join_evidence(*(np.array([v], np.float32) for v in values))[0])

    assert join(-5, -5, -5) == 0
    assert join(5, -9, 0) == 5
    assert join(0, 6, -3) == 6
    assert join(3, 4, 0) == 5
    assert join(0, 0, 50) == join(0, 0, scores.LOUD) < 4
    assert join(3, 0, 2) == pytest.approx(np.hypot(3.5, 2))


def test_what_all_pixels_share_does_not_make_noisy_pixels_remember():
    """Slow noise of the whole frame raises everybody's memory; in a pixel of ten times the noise it is lost."""
    setup, rng, g = scores.Setup(40, 10.0, 8, (), 8), np.random.default_rng(5), np.arange(40)
    noise = np.where(np.arange(600) < 100, 50.0, 5.0)[:, None]
    line = np.stack([np.ones(40), g - g.mean()], axis=1)
    ramps = noise * rng.normal(size=(8, 600, 40)) + 3 * np.sin(g / 4 + rng.uniform(0, 6, (8, 600, 1)))
    r = ramps - ramps @ np.linalg.pinv(line).T @ line.T
    squares = np.sum(r**2, axis=-1)
    lagged = sum(w * np.sum(r[..., k:] * r[..., :-k], axis=-1) for k, w in enumerate((1.0, 0.7, 0.5), 1))
    tile = make_tile(n=8, pixels=600)
    tile.shapes["memory"][:] = lagged / squares
    tile.shapes["calm"][:] = tile.shapes["residual"][:] = tile.shapes["white"][:] = squares / 38
    pixels = stats.combine_integrations(tile, **{**OPTIONS, "templates": ()})
    found = scores.score_pixels(pixels, setup, scores.measure_population(pixels, setup, 0.01))
    quiet, noisy = found["correlation_z"][100:], found["correlation_z"][:100]
    assert abs(np.median(quiet)) < 0.1
    assert abs(np.median(noisy)) < 0.3


def test_the_walk_of_contrasts_is_that_of_simulated_random_walks():
    rng = np.random.default_rng(8)
    fit = ramps.ramp_fit(30)
    walks = np.cumsum(rng.normal(0, 1, (30, 20_000)), axis=0)
    measured = np.var(fit.weights[3:].astype(float) @ walks, axis=1)
    found = [scores.describe_contrast(30, name) for name in ramps.contrast_names(fit.templates)]
    np.testing.assert_allclose([walk for walk, _ in found], measured, rtol=0.05)
    decay = np.exp(-np.arange(30) / 0.7) * 100  # the fastest
    slope, contrast = fit.weights[1] @ decay, fit.weights[3] @ decay
    np.testing.assert_allclose(found[0][1], abs(slope / contrast), rtol=1e-3)
