"""The numeric kernels against astropy, scipy and plain loops."""

import warnings

import numpy as np
import pytest
from astropy.stats import sigma_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from badpix.numerics import clipping as numerics_clipping
from badpix.numerics import neighbors, smoothing

ODD = st.sampled_from([np.nan, np.inf, -np.inf])
USUAL = st.floats(-1e6, 1e6, width=32)
ROUND = st.sampled_from([0.0, 1.0, 1.0, 1.0, 2.0, 100.0, -100.0])


def plain_clip(samples, sigma, iterations):
    """The definition: astropy in float64, NaN statistics, rounded to float32."""
    values = samples.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = sigma_clip(values, sigma=sigma, maxiters=iterations, axis=0, masked=False, copy=True)
        kept[~np.isfinite(kept)] = np.nan
        mean = np.nanmean(kept, axis=0)
    return mean.astype(np.float32), np.isfinite(kept).sum(axis=0)


def same_clip(samples, sigma=3.0, iterations=5):
    before = samples.copy()
    mean, count = numerics_clipping.clip_stack(samples, sigma=sigma, iterations=iterations)
    np.testing.assert_array_equal(samples, before)
    assert (mean.dtype, count.dtype) == (np.float32, np.int16)
    wanted, wanted_count = plain_clip(samples, sigma, iterations)
    np.testing.assert_array_equal(count, wanted_count)
    np.testing.assert_allclose(mean, wanted, rtol=1.2e-7, atol=1e-30)  # the last bit: sums in another order


@pytest.mark.parametrize("n", range(1, 31))
def test_clip_equals_astropy(n):
    rng = np.random.default_rng(n)
    samples = rng.normal(100, 3, (n, 700)).astype(np.float32)
    samples[rng.random(samples.shape) < 0.06] *= 5
    samples[rng.random(samples.shape) < 0.06] = np.nan
    samples[rng.random(samples.shape) < 0.02] = np.inf
    samples[rng.random(samples.shape) < 0.02] = -np.inf
    samples[:, 0], samples[:, 1], samples[:, 2] = np.nan, 7.0, np.inf
    same_clip(samples)
    same_clip(samples, sigma=1.5, iterations=2)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    hnp.arrays("f4", st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.one_of(ODD, ROUND, USUAL)),
    st.sampled_from([1.0, 1.7, 2.2, 3.0]),
    st.integers(1, 5),
)
def test_clip_of_anything(samples, sigma, iterations):
    """Values close to a limit may fall on either side in the last bit; everything else is equal."""
    mean, count = numerics_clipping.clip_stack(samples, sigma=sigma, iterations=iterations)
    inner = numerics_clipping.clip_stack(samples, sigma=sigma * (1 - 1e-6), iterations=iterations)
    outer = numerics_clipping.clip_stack(samples, sigma=sigma * (1 + 1e-6), iterations=iterations)
    clear = (inner[1] == count) & (outer[1] == count)
    wanted = plain_clip(samples, sigma, iterations)
    np.testing.assert_array_equal(count[clear], wanted[1][clear])
    largest = float(np.max(np.abs(samples[np.isfinite(samples)]), initial=1))
    np.testing.assert_allclose(mean[clear], wanted[0][clear], rtol=2e-7, atol=1e-12 * largest)


@pytest.mark.parametrize("level", [0.0, 1.0, 3e4, 1e6])
@pytest.mark.parametrize("n", [2, 5, 11, 20, 300])
def test_clip_where_the_values_sit_close_to_the_limit(n, level):
    """The look at the ends must leave to the exact test whatever float32 rounding could decide."""
    rng = np.random.default_rng(n)
    samples = (level + rng.normal(0, 3, (n, 3000))).astype(np.float32)
    median, std = np.median(samples[1:], axis=0), samples[1:].std(axis=0)
    reach = (std * rng.uniform(2.5, 4.5, std.size)).astype(np.float32)
    samples[0] = median + np.where(rng.random(std.size) < 0.5, reach, -reach)
    same_clip(samples)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    hnp.arrays("f4", st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.one_of(ODD, ROUND, USUAL)),
    st.sampled_from([0.3, 1.0, 1.7, 2.2, 3.0]),
)
def test_pixels_that_do_not_clip_are_certain(samples, sigma):
    _, clipping = numerics_clipping.find_clipping(samples, sigma=sigma)
    kept = plain_clip(samples, sigma, 1)[1]
    assert (clipping | (kept == len(samples))).all()


def test_few_pixels_are_looked_at_twice():
    samples = np.random.default_rng(1).normal(100, 1, (20, 20000)).astype(np.float32)
    _, clipping = numerics_clipping.find_clipping(samples, sigma=3)
    clipped = plain_clip(samples, 3, 1)[1] < 20
    assert clipped.sum() <= clipping.sum() < 1.5 * clipped.sum()


def test_clip_works_in_chunks(monkeypatch):
    samples = np.random.default_rng(3).standard_t(2, (9, 13, 17)).astype(np.float32)
    whole = numerics_clipping.clip_stack(samples, sigma=2.5, iterations=5)
    monkeypatch.setattr(numerics_clipping, "CHUNK", 7)
    for a, b in zip(whole, numerics_clipping.clip_stack(samples, sigma=2.5, iterations=5), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape == (13, 17)


def test_lone_outlier_of_seven_cannot_be_clipped():
    """Its deviation stays below (n - 1) / sqrt(n): 3.02 standard deviations need eleven samples."""
    samples = np.linspace(1, 1.01, 11, dtype=np.float32)[:, None]
    samples[3] = 1e6
    assert numerics_clipping.clip_stack(samples[:7], sigma=3, iterations=5)[1] == 7
    assert numerics_clipping.clip_stack(samples, sigma=3, iterations=5)[1] == 10


@pytest.mark.slow
@settings(max_examples=100)
@given(hnp.arrays("f4", hnp.array_shapes(min_dims=1, max_dims=2, max_side=30), elements=st.one_of(ODD, USUAL)))
def test_clip_values_equals_astropy(values):
    good = values[np.isfinite(values)].astype(np.float64)
    mean, std = numerics_clipping.clip_values(values, sigma=2.0, iterations=5)
    if not good.size:
        assert np.isnan(mean)
        assert np.isnan(std)
        return
    kept = sigma_clip(good, sigma=2.0, maxiters=5, masked=False)
    slack = 1e-9 * np.abs(good).max()
    wide, narrow = (numerics_clipping.clip_values(values, sigma=2.0 * f, iterations=5) for f in (1 + 1e-9, 1 - 1e-9))
    if np.allclose(wide, narrow, rtol=1e-12, atol=slack):  # no value sits on a limit
        assert mean == pytest.approx(kept.mean(), rel=1e-9, abs=slack)
        assert std == pytest.approx(kept.std(), rel=1e-9, abs=1e3 * slack)


def test_clip_values_until_nothing_is_dropped():
    values = np.random.default_rng(2).standard_t(1.5, 5000)
    kept = sigma_clip(values, sigma=2, maxiters=None, masked=False)
    assert numerics_clipping.clip_values(values, sigma=2) == pytest.approx((kept.mean(), kept.std()))


def test_median_mad():
    values = np.array([1.0, 2, 3, np.nan, 4, 100, np.inf])
    assert numerics_clipping.median_mad(values) == pytest.approx((3.0, 1.482602218505602))
    assert np.isnan(numerics_clipping.median_mad(np.full(3, np.nan))).all()


@pytest.mark.slow
@given(hnp.arrays(st.sampled_from(["f4", "f8"]), st.integers(1, 40), elements=USUAL))
def test_median_is_that_of_numpy(values):
    before = values.copy()
    found = numerics_clipping.median(values)
    assert found == np.median(values)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(values, before)


def test_scatter_beside_knows_no_gradient():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 2, (100, 400))
    glow = 60 * np.exp(-np.arange(400) / 80)
    assert numerics_clipping.scatter_beside(noise.ravel()) == pytest.approx(2, rel=0.03)
    assert numerics_clipping.scatter_beside((noise + glow).ravel()) == pytest.approx(2, rel=0.05)
    noise[:, ::7] = np.nan
    assert numerics_clipping.scatter_beside((noise + glow).ravel()) == pytest.approx(2, rel=0.05)
    alone = np.array([1.0, np.nan, 2.0, np.nan, 4.0])
    assert numerics_clipping.scatter_beside(alone) == pytest.approx(1.4826, rel=1e-3)


def test_median_mad_of_a_large_image_meets_all_amplifiers():
    image = np.random.default_rng(1).normal(5, 2, (1200, 1032)).astype(np.float32)
    center, spread = numerics_clipping.median_mad(image)
    assert center == pytest.approx(5, abs=0.02)
    assert spread == pytest.approx(2, abs=0.02)
    assert {x % 4 for x in range(0, 1032, 5)} == {0, 1, 2, 3}


def plain_box(image, weight, width):
    ny, nx = image.shape
    half = width // 2
    mean, share = np.full(image.shape, np.nan), np.zeros(image.shape)
    for y in range(ny):
        for x in range(nx):
            box = (slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1))
            use = weight[box]
            share[y, x] = use.sum() / width**2
            if use.any():
                mean[y, x] = image[box][use].astype(np.float64).mean()
    return mean, share


@pytest.mark.parametrize("width", [1, 3, 5, 7, 15, 31, 33])
@pytest.mark.parametrize("shape", [(13, 29), (40, 8)])
def test_box_mean_equals_plain_loops(width, shape):
    rng = np.random.default_rng(width)
    image = rng.normal(100, 5, shape).astype(np.float32)
    image[rng.random(shape) < 0.2] = np.nan
    image[2:9, 3:7] = np.nan
    weight = np.isfinite(image) & (rng.random(shape) < 0.8)
    before = image.copy()
    mean, share = smoothing.measure_box_mean(image, weight, width)
    wanted, wanted_share = plain_box(image, weight, width)
    np.testing.assert_allclose(mean, wanted, rtol=1e-6)
    np.testing.assert_allclose(share, wanted_share, rtol=1e-6)
    np.testing.assert_array_equal(image, before)


def test_box_mean_does_not_depend_on_the_blocks(monkeypatch):
    image = np.random.default_rng(5).normal(3, 1, (60, 21)).astype(np.float32)
    weight = image > 1.5
    whole = smoothing.measure_box_mean(image, weight, 9)
    monkeypatch.setattr(smoothing, "BLOCK", 7)
    for a, b in zip(whole, smoothing.measure_box_mean(image, weight, 9), strict=True):
        np.testing.assert_array_equal(a, b)


def test_box_mean_leaves_no_trace_of_a_bright_pixel():
    """Running sums that subtract again would leave rounding errors behind a pixel of 1e30."""
    image = np.ones((5, 60), np.float32)
    image[2, 10] = 1e30
    mean, _ = smoothing.measure_box_mean(image, np.ones(image.shape, bool), 5)
    assert (mean[:, 13:] == 1).all()


@pytest.mark.slow
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_grow_equals_scipy(found):
    before = found.copy()
    np.testing.assert_array_equal(neighbors.grow(found), ndimage.binary_dilation(found, np.ones((3, 3))))
    np.testing.assert_array_equal(found, before)


@pytest.mark.slow
@given(hnp.arrays("f4", hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=USUAL))
def test_sides_equal_a_padded_image(image):
    y, x = (a.ravel() for a in np.indices(image.shape))
    padded = np.pad(image, 1, constant_values=np.float32(-5))
    wanted = [padded[y, x + 1], padded[y + 2, x + 1], padded[y + 1, x], padded[y + 1, x + 2]]
    np.testing.assert_array_equal(neighbors.sides_at(image, y, x, -5), wanted)


@pytest.mark.slow
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_counted_sides_are_those_of_each_pixel(found):
    y, x = (a.ravel() for a in np.indices(found.shape))
    np.testing.assert_array_equal(
        neighbors.count_sides(found).ravel(), neighbors.sides_at(found, y, x, False).sum(axis=0)
    )


def test_sides_of_no_pixel():
    none = np.empty(0, np.intp)
    assert neighbors.sides_at(np.ones((3, 3)), none, none, 0).shape == (4, 0)
