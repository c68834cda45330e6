"""Resampling without the drizzle package, against it."""

import numpy as np
import pytest

from badpix.image import resample_direct, resample_drizzle
from badpix.image.grid import Window
from badpix.image.pixel_map import PixelMap, evaluate_map

SHAPE = (90, 110)
WINDOW = Window(10, 125, 20, 160)


def turned_map(angle, scale=1.0, skew=0.0, bend=0.0):
    """A pixel map: turned (radians), scaled, skewed, and bent by a second-degree term."""
    ny, nx = SHAPE
    step = scale * np.array([[np.cos(angle), -np.sin(angle) + skew], [np.sin(angle), np.cos(angle)]])
    middle = np.array([90.31, 67.72])
    fit = np.zeros((2, 3, 3))
    for axis in (0, 1):
        fit[axis, 0, 0] = middle[axis] + bend / 2
        fit[axis, 0, 1] = step[axis, 0] * (nx - 1) / 2
        fit[axis, 1, 0] = step[axis, 1] * (ny - 1) / 2
        fit[axis, 2, 0] = bend / 2
    return PixelMap(SHAPE, (0, nx - 1, 0, ny - 1), fit, None, 0.0)


def stars(rng):
    """An image of stars of FWHM 1.5 pixels."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.zeros(SHAPE)
    for sx, sy in rng.uniform(5, 85, (40, 2)):
        image += 1000 * np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / (2 * 0.64**2))
    return image.astype(np.float32)


def by_library(pixel_map, sci, weight, bounds=None):
    drizzle = resample_drizzle.start_drizzle(WINDOW, kernel="square", fillval="NaN")
    positions = evaluate_map(pixel_map, (WINDOW.x0, WINDOW.y0))
    resample_drizzle.add_image(drizzle, sci, weight, positions, bounds, pixfrac=1.0)
    return drizzle.out_img, drizzle.out_wht


def by_areas(pixel_map, sci, weight, size=256):
    inverse = resample_direct.invert_fit(pixel_map, WINDOW)
    total = np.zeros(WINDOW.shape, np.float32), np.zeros(WINDOW.shape, np.float32)
    for rows, needed in resample_direct.split_window(inverse, SHAPE[0], size):
        here = slice(rows.start - WINDOW.y0, rows.stop - WINDOW.y0)
        part = total[0][here], total[1][here]
        resample_direct.add_band(inverse, sci[needed], weight[needed], rows, needed.start, part)
    resample_direct.finish_mosaic(total)
    return total


@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        ({"angle": 0.0}, 2e-6),
        ({"angle": 0.002}, 2e-5),
        ({"angle": -0.02}, 1e-3),
        ({"angle": 0.037}, 5e-3),
        ({"angle": 0.0, "scale": 1.01}, 3e-3),
        ({"angle": 0.005, "scale": 0.995, "skew": 0.004, "bend": 0.1}, 2e-3),
    ],
)
def test_mosaic_is_that_of_the_package_to_second_order(shape, limit):
    rng = np.random.default_rng(3)
    pixel_map, sci = turned_map(**shape), stars(rng)
    weight = rng.uniform(0.8, 1.2, SHAPE).astype(np.float32)
    weight[rng.random(SHAPE) < 0.03] = 0
    sci[weight == 0] = np.nan
    expected, full = by_library(pixel_map, sci, weight)
    found, sums = by_areas(pixel_map, sci, weight)
    use = full > 0.3  # of what is only touched nothing is kept (maskpt)
    assert np.isfinite(found[use]).all()
    # in units of the range of the pixels around: what a shift by a pixel would do
    assert np.abs(found - expected)[use].max() < limit * np.nanmax(sci)
    shared = sums / np.abs(np.linalg.det(slopes_of(pixel_map)))  # the package's weight: shares of image pixels
    assert np.abs(shared - full)[use].max() < 10 * limit + 1e-3


def slopes_of(pixel_map):
    ny, nx = SHAPE
    return np.array([pixel_map.fit[:, 0, 1] * 2 / (nx - 1), pixel_map.fit[:, 1, 0] * 2 / (ny - 1)]).T


def test_bands_change_nothing():
    rng = np.random.default_rng(4)
    pixel_map, sci = turned_map(0.01), stars(rng)
    weight = np.ones(SHAPE, np.float32)
    for a, b in zip(by_areas(pixel_map, sci, weight), by_areas(pixel_map, sci, weight, size=32), strict=True):
        np.testing.assert_array_equal(a, b)


def test_shares_are_the_areas_of_a_turned_pixel():
    """By counting the points of a fine mesh."""
    rng = np.random.default_rng(5)
    s = (np.arange(1200) + 0.5) / 1200 - 0.5
    sx, sy = np.meshgrid(s, s)
    for _ in range(6):
        a, b, c, d = rng.uniform(-0.02, 0.02, 4)
        f, g = rng.uniform(0.05, 0.95, 2)
        x, y = f + (1 + a) * sx + b * sy, g + c * sx + (1 + d) * sy
        right, upper = x > 0.5, y > 0.5
        counted = [np.mean(~right & ~upper), np.mean(right & ~upper), np.mean(~right & upper), np.mean(right & upper)]
        found = resample_direct.share_areas(
            *(np.array([[v]], np.float32) for v in (f, g, a, b, c, d)), resample_direct.Buffers((1, 1))
        )
        np.testing.assert_allclose(np.ravel(found), counted, atol=1e-3)
        assert np.sum(found) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [{"angle": 0.5}, {"angle": 0.0, "scale": 1.2}, {"angle": np.pi / 2}])
def test_turned_images_are_left_to_the_package(shape):
    assert resample_direct.invert_fit(turned_map(**shape), WINDOW) is None


def test_what_is_no_number_has_no_weight():
    pixel_map, weight = turned_map(0.0), np.ones(SHAPE, np.float32)
    sci = np.full(SHAPE, 7, np.float32)
    sci[40, 50], sci[60, 70] = np.nan, np.inf
    found, sums = by_areas(pixel_map, sci, weight)
    np.testing.assert_allclose(found[sums > 0], 7, rtol=1e-6)
    assert np.count_nonzero((sums > 0.01) & (sums < 0.99)) > 6


@pytest.mark.parametrize("angle", [0.0, 0.01, 0.7])
def test_cubic_way_back_is_that_of_the_package(angle):
    rng = np.random.default_rng(6)
    pixel_map = turned_map(angle)
    image = rng.normal(100, 5, WINDOW.shape).astype(np.float32)
    image[rng.random(WINDOW.shape) < 0.01] = np.nan
    positions = evaluate_map(pixel_map)
    expected = resample_drizzle.blot(image, WINDOW, positions, interp="poly3")
    padded = resample_direct.pad_image(image, WINDOW)
    places = resample_direct.place_rows(pixel_map, slice(None), resample_direct.map_columns(pixel_map))
    found, nearest = resample_direct.blot_cubic(padded, *places, resample_direct.Buffers(SHAPE))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    inner = (positions > [WINDOW.x0 + 1, WINDOW.y0 + 1]) & (positions < [WINDOW.x1 - 2, WINDOW.y1 - 2])
    ok = np.isfinite(found) & inner.all(axis=-1)  # at the edges of a grid both guess
    assert np.abs(found - expected)[ok].max() < 0.02  # the package's positions are float32
    numbers = np.arange(image.size, dtype=np.int32).reshape(image.shape) + 1
    expected = np.rint(positions[..., 1] - WINDOW.y0) * image.shape[1] + np.rint(positions[..., 0] - WINDOW.x0) + 1
    inside = (np.rint(positions) >= [WINDOW.x0, WINDOW.y0]) & (np.rint(positions) < [WINDOW.x1, WINDOW.y1])
    at = np.take(resample_direct.pad_zero(numbers), nearest)
    np.testing.assert_array_equal(at[inside.all(axis=-1)], expected[inside.all(axis=-1)])
    assert not at[~inside.all(axis=-1)].any()


def test_places_off_the_map_are_missing():
    pixel_map = PixelMap(SHAPE, (3, 90, 2, 80), turned_map(0.0).fit, None, 0.0)
    padded = resample_direct.pad_image(np.ones(WINDOW.shape, np.float32), WINDOW)
    assert resample_direct.map_columns(pixel_map) is None
    found, _ = resample_direct.blot_cubic(
        padded, *resample_direct.place_rows(pixel_map, slice(0, 90), None), resample_direct.Buffers(SHAPE)
    )
    inside = np.zeros(SHAPE, bool)
    inside[2:81, 3:91] = True
    np.testing.assert_array_equal(np.isfinite(found), inside)
    assert np.abs(found[inside] - 1).max() < 1e-6
