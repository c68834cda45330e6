"""Output grid, pixel map, weights, drizzle and blot against exact or obvious references."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from badpix.errors import DataError, UsageError
from badpix.image import grid as grids
from badpix.image import pixel_map as maps
from badpix.image import resample_drizzle as rs
from badpix.image import weights

SCALE = 0.031 / 3600


def make_grid(roll=33.0, parity=-1, shape=(200, 230)):
    return grids.Grid((53.1, -27.8), (101.5, 99.0), SCALE, _pc(roll, parity), shape)


def _pc(roll, parity):
    r = math.radians(roll)
    return ((parity * math.cos(r), math.sin(r)), (-parity * math.sin(r), math.cos(r)))


def fits_wcs(grid):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = grid.crval, [c + 1 for c in grid.crpix]
    wcs.wcs.cdelt, wcs.wcs.pc = [grid.cdelt, grid.cdelt], grid.pc
    return wcs


@pytest.mark.parametrize("parity", [-1, 1])
def test_grid_is_the_fits_tangent_plane(parity):
    grid = make_grid(parity=parity)
    x, y = np.meshgrid(np.linspace(-10, 240, 7), np.linspace(-10, 210, 5))
    lon, lat = grids.grid_to_sky(grid, x, y)
    expected = fits_wcs(grid).all_pix2world(x, y, 0)
    np.testing.assert_allclose([lon, lat], expected, atol=1e-11)
    np.testing.assert_allclose(grids.sky_to_grid(grid, lon, lat), [x, y], atol=1e-7)


def test_opposite_side_of_the_sky_is_nan():
    grid = make_grid()
    assert np.isnan(grids.sky_to_grid(grid, np.array([grid.crval[0] + 180]), np.array([27.8]))).all()


@settings(max_examples=30, deadline=None)
@given(
    roll=st.floats(0, 360),
    parity=st.sampled_from([-1, 1]),
    ra=st.floats(0, 359.9),
    dec=st.floats(-80, 80),
)
def test_built_grid_holds_all_regions_from_pixel_zero(roll, parity, ra, dec):
    step = np.array([[0, 0], [40, 0], [40, 30], [0, 30]]) * SCALE
    step[:, 0] /= math.cos(math.radians(dec))
    regions = [np.mod(np.array([ra, dec]) + step, [360, 1e9]), np.mod(np.array([ra, dec]) + 1.5 * step, [360, 1e9])]
    grid = grids.build_grid(regions, SCALE, roll, 0.0, parity)
    x, y = grids.sky_to_grid(grid, *np.vstack(regions).T)
    assert min(x) == pytest.approx(0, abs=1e-6)
    assert min(y) == pytest.approx(0, abs=1e-6)
    assert grid.shape == (int(y.max() + 0.5), int(x.max() + 0.5))


def test_regions_of_several_polygons_and_broken_ones():
    one = "POLYGON ICRS  1.0 2.0 1.1 2.0 1.1 2.1 1.0 2.1"
    assert grids.parse_region(f"{one} {one}").shape == (8, 2)
    for text in ("", "POLYGON ICRS", "CIRCLE 1 2 3", "POLYGON ICRS 1 2 nan 3 4 5"):
        with pytest.raises(DataError, match="S_REGION"):
            grids.parse_region(text)
    with pytest.raises(DataError, match="tangent plane"):
        grids.build_grid(
            [grids.parse_region(one) + np.array([turn, 0]) for turn in (0, 120, 240)], SCALE, 0.0, 0.0, 1
        )


def distorted(amplitude=3e-6):
    """A sky with smooth distortion: pixel -> degrees."""
    wcs = fits_wcs(make_grid(shape=(120, 150)))

    def sky(x, y):
        u, v = x - 75, y - 60
        return wcs.all_pix2world(x + amplitude * (u * u - u * v), y + amplitude * v * v, 0)

    return sky


def test_fitted_map_is_the_chain_to_a_millionth_of_a_pixel():
    grid, shape = make_grid(roll=50), (120, 150)
    sky = distorted()
    found = maps.fit_pixel_map(sky, grid, shape, None, stepsize=1, order=1)
    assert found.fit is not None
    y, x = np.indices(shape, dtype=float)
    exact = np.dstack(grids.sky_to_grid(grid, *sky(x, y)))
    np.testing.assert_allclose(maps.evaluate_map(found), exact, atol=1e-7)
    np.testing.assert_array_equal(maps.evaluate_map(found, rows=slice(37, 90)), maps.evaluate_map(found)[37:90])
    np.testing.assert_allclose(maps.evaluate_map(found, (17, 40)), exact - [17, 40], atol=1e-7)


def test_a_map_that_no_polynomial_fits_is_evaluated_exactly():
    grid, shape = make_grid(), (60, 70)
    smooth = distorted()

    def sky(x, y):
        return smooth(x + 0.3 * np.floor(x / 20), y)

    found = maps.fit_pixel_map(sky, grid, shape, None, stepsize=1, order=1)
    assert found.fit is None
    y, x = np.indices(shape, dtype=float)
    np.testing.assert_array_equal(maps.evaluate_map(found), np.dstack(grids.sky_to_grid(grid, *sky(x, y))))
    np.testing.assert_array_equal(maps.evaluate_map(found, rows=slice(5, 47)), maps.evaluate_map(found)[5:47])


def test_nothing_is_mapped_outside_the_bounding_box():
    bounds = ((3.5, 66.5), (-0.5, 40.2))
    found = maps.fit_pixel_map(distorted(), make_grid(), (60, 70), bounds, stepsize=1, order=1)
    inside = np.zeros((60, 70), bool)
    inside[:41, 4:67] = True
    np.testing.assert_array_equal(np.isfinite(maps.evaluate_map(found)[..., 0]), inside)
    with pytest.raises(DataError, match="bounding box"):
        maps.fit_pixel_map(distorted(), make_grid(), (60, 70), ((80, 90), (0, 5)), stepsize=1, order=1)


@pytest.mark.parametrize("order", [1, 3])
def test_coarse_map_is_near_the_exact_one_and_travels(order):
    exact = maps.fit_pixel_map(distorted(), make_grid(), (120, 150), None, stepsize=1, order=1)
    coarse = maps.fit_pixel_map(distorted(), make_grid(), (120, 150), None, stepsize=10, order=order)
    coarse = pickle.loads(pickle.dumps(coarse))
    error = np.abs(maps.evaluate_map(coarse) - maps.evaluate_map(exact)).max()
    assert 1e-9 < error < 1e-3


def test_inverted_map_returns_to_the_pixels():
    found = maps.fit_pixel_map(distorted(), make_grid(), (120, 150), None, stepsize=1, order=1)
    x, y = np.array([0.0, 75.3, 149.0, 12.0]), np.array([0.0, 60.1, 119.0, 110.5])
    grid_x, grid_y = grids.sky_to_grid(make_grid(), *distorted()(x, y))
    np.testing.assert_allclose(maps.invert_map(found, grid_x, grid_y), [x, y], atol=1e-5)
    assert np.isnan(maps.invert_map(found, np.array([900.0]), np.array([-50.0]))).all()


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("~DO_NOT_USE", 1),
        ("~DO_NOT_USE+JUMP_DET", 5),
        ("~(1,4)", 5),
        ("HOT | 4", 0xFFFFFFFF ^ 2052),
        (0, 0xFFFFFFFF),
        ("0", 0xFFFFFFFF),
        (None, 0),
        ("", 0),
        ("~0", 0),
    ],
)
def test_good_bits_in_all_documented_forms(text, bad):
    assert weights.parse_good_bits(text) == bad


def test_unknown_flags_and_fill_values_are_refused():
    with pytest.raises(UsageError, match="HOT"):
        weights.parse_good_bits("~HOTT")
    assert rs.parse_fillval("indef") == "NaN"
    assert rs.parse_fillval("-1") == "-1.0"
    with pytest.raises(UsageError, match="fillval"):
        rs.parse_fillval("blank")


def test_weights_by_variance_or_time_zero_where_unusable():
    dq = np.array([[0, 1, 4, 0]], np.uint32)
    var = np.array([[4, 4, 2, np.nan]], np.float32)
    found = {"shape": (1, 4), "bad_bits": 1, "exposure_time": 30.0}
    np.testing.assert_array_equal(weights.measure_weight(dq, var, weight_type="ivm", **found), [[0.25, 0, 0.5, 0]])
    np.testing.assert_array_equal(weights.measure_weight(dq, None, weight_type="ivm", **found), [[1, 0, 1, 1]])
    np.testing.assert_array_equal(weights.measure_weight(dq, var, weight_type="exptime", **found), [[30, 0, 30, 30]])
    zero = weights.measure_weight(None, var * 0, weight_type="ivm", **found)
    assert not zero.any()


def test_weight_limit_is_a_part_of_the_clipped_mean_of_astropy():
    from astropy.stats import sigma_clip

    rng = np.random.default_rng(4)
    values = rng.normal(100, 5, 5001).astype(np.float32)
    values[:300] = rng.uniform(0, 500, 300)
    values[300:400], values[400] = 0, np.nan
    good = values[np.isfinite(values) & (values != 0)]
    expected = np.mean(sigma_clip(good, sigma=3, maxiters=5, masked=False), dtype=float)
    assert weights.measure_weight_limit(values, maskpt=0.7) == pytest.approx(0.7 * expected, rel=1e-7)
    assert math.isnan(weights.measure_weight_limit(np.zeros((3, 3), np.float32), maskpt=0.7))
    assert not weights.find_low_weight(np.zeros((3, 3), np.float32), maskpt=0.7).any()


def plain_derivative(image):
    out = np.full(image.shape, np.nan, image.dtype)
    ny, nx = image.shape
    for y, x in np.ndindex(image.shape):
        if not np.isnan(image[y, x]):
            near = [
                abs(image[y, x] - image[j, i])
                for j, i in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
                if 0 <= j < ny and 0 <= i < nx and not np.isnan(image[j, i])
            ]
            out[y, x] = max(near, default=0)
    return out


def test_derivative_is_the_plain_one():
    rng = np.random.default_rng(5)
    image = rng.normal(size=(75, 9)).astype(np.float32)  # more than two blocks of rows
    image[rng.random(image.shape) < 0.3] = np.nan
    np.testing.assert_array_equal(rs.measure_derivative(image), plain_derivative(image))


def plain_bilinear(image, positions):
    out = np.full(positions.shape[:2], np.nan)
    ny, nx = image.shape
    for at in np.ndindex(out.shape):
        x, y = positions[at]
        if 0 <= x < nx - 1 and 0 <= y < ny - 1:
            i, j = int(x), int(y)
            u, v = x - i, y - j
            cell = image[j : j + 2, i : i + 2]
            out[at] = (np.array([[1 - v], [v]]) * np.array([1 - u, u]) * cell).sum()
    return out


@pytest.mark.parametrize("interp", ["poly3", "poly5"])
def test_cubic_blot_of_a_constant_is_the_constant_up_to_the_edges(interp):
    image = np.full((40, 50), 7, np.float32)
    y, x = np.mgrid[0:40:0.25, 0:50:0.25]
    for _ in range(3):  # what lies beyond the image in memory differs
        np.full(40 * 50 * 4, 1e6, np.float32).sum()
        out = rs.blot(image, grids.Window(0, 40, 0, 50), np.stack([x, y], axis=-1), interp=interp)
        inside = np.isfinite(out)
        assert inside[:157, :197].all()
        np.testing.assert_allclose(out[inside], 7, rtol=1e-5)


def test_linear_blot_is_bilinear_and_a_window_changes_nothing():
    rng = np.random.default_rng(6)
    image = rng.normal(size=(60, 70)).astype(np.float32)
    image[20, 30] = np.nan
    positions = np.stack(np.meshgrid(np.linspace(10.2, 50.7, 31), np.linspace(12.1, 45.4, 29)), axis=-1)
    kept = positions.copy()
    whole = rs.blot(image, grids.Window(0, 60, 0, 70), positions, interp="linear")
    np.testing.assert_array_equal(positions, kept)
    np.testing.assert_allclose(whole, plain_bilinear(image, positions), atol=2e-5)
    window = grids.Window(5, 55, 7, 66)
    part = rs.blot(image[window.slices], window, positions, interp="linear")
    np.testing.assert_array_equal(part, whole)
    cubic = rs.blot(image, grids.Window(0, 60, 0, 70), positions, interp="poly3")
    np.testing.assert_array_equal(np.isnan(cubic), np.isnan(whole))


def test_drizzle_on_a_window_is_the_drizzle_on_the_grid():
    rng = np.random.default_rng(7)
    sci = rng.normal(1, 0.1, (40, 50)).astype(np.float32)
    weight = rng.uniform(1, 2, sci.shape).astype(np.float32)
    weight[10, 10] = 0
    sci[10, 10] = np.nan
    x, y = np.meshgrid(np.arange(50.0), np.arange(40.0))
    positions = np.stack([0.999 * x + 0.01 * y + 20.37, y - 0.01 * x + 15.61], axis=-1)
    whole = rs.start_drizzle(grids.Window(0, 90, 0, 95), kernel="square", fillval="NaN")
    rs.add_image(whole, sci, weight, positions, None, pixfrac=1.0)
    window = grids.Window(12, 70, 17, 80)
    part = rs.start_drizzle(window, kernel="square", fillval="NaN")
    rs.add_image(part, sci, weight, positions - [17, 12], None, pixfrac=1.0)
    np.testing.assert_allclose(part.out_img, whole.out_img[window.slices], rtol=2e-6)
    np.testing.assert_allclose(part.out_wht, whole.out_wht[window.slices], rtol=2e-6, atol=1e-6)
    assert np.nansum(whole.out_wht) == pytest.approx(weight.sum(), rel=1e-4)


@pytest.mark.parametrize("kernel", ["square", "turbo", "point"])
@pytest.mark.parametrize("bounds", [None, ((3.5, 44.5), (-0.5, 39.5)), ((-0.5, 49.5), (5.2, 33.9))])
@pytest.mark.parametrize("height", [3, 7, 16])
def test_drizzle_by_bands_is_the_drizzle_of_the_whole_image(kernel, bounds, height, monkeypatch):
    rng = np.random.default_rng(8)
    sci = rng.normal(1, 0.1, (40, 50)).astype(np.float32)
    weight = rng.uniform(0, 2, sci.shape).astype(np.float32)
    x, y = np.meshgrid(np.arange(50.0), np.arange(40.0))
    positions = np.stack([0.98 * x + 0.11 * y + 1e-3 * x * y + 2.37, y - 0.13 * x + 9.61 + 1e-4 * y * y], axis=-1)
    if bounds:
        (xa, xb), (ya, yb) = bounds
        positions[(x < xa) | (x > xb) | (y < ya) | (y > yb)] = np.nan
    window = grids.Window(0, 70, 0, 80)
    whole = rs.start_drizzle(window, kernel=kernel, fillval="NaN")
    rs.add_image(whole, sci, weight, positions, bounds, pixfrac=0.8)
    monkeypatch.setattr(rs, "DRIZZLE_ROWS", height)
    bands = rs.start_drizzle(window, kernel=kernel, fillval="NaN")
    fitted = maps.PixelMap((40, 50), maps.inner_span((40, 50), bounds), np.zeros((2, 1, 1)), None, 0.0)
    split = rs.split_rows(bounds, fitted)
    assert len(split) >= 2
    assert [len(rs.split_rows(bounds, dataclasses.replace(fitted, fit=None)))] == [1]
    for rows, inner in split:
        rs.add_image(bands, sci[rows], weight[rows], positions[rows], bounds, pixfrac=0.8, rows=inner)
    assert np.count_nonzero(whole.out_wht) > 500
    np.testing.assert_array_equal(bands.out_img, whole.out_img)
    np.testing.assert_array_equal(bands.out_wht, whole.out_wht)


def test_window_holds_the_footprint_with_a_margin():
    grid = make_grid(shape=(300, 300))
    found = maps.fit_pixel_map(distorted(), grid, (120, 150), None, stepsize=1, order=1)
    window = maps.find_window(found, grid)
    positions = maps.evaluate_map(found)
    assert window.x0 <= max(0, positions[..., 0].min() - 3)
    assert window.x1 >= min(300, positions[..., 0].max() + 3)
    far = grid._replace(crpix=(1e5, 1e5))
    assert maps.find_window(maps.fit_pixel_map(distorted(), far, (120, 150), None, stepsize=1, order=1), far) is None
