"""A group's mosaic: its images drizzled onto its window of the grid, low weights masked, on the shelf.

A task that any process can do. Persistent hot pixels get no weight; a group that is no reference for the others
leaves an empty mosaic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image import products as image_products
from badpix.image import resample_direct, resample_drizzle
from badpix.image.grid import Window
from badpix.image.members import Image, subtract_slope
from badpix.image.persistence import detector_key
from badpix.image.pixel_map import evaluate_map
from badpix.image.plan import Plan
from badpix.image.stack import mosaic_name
from badpix.image.weights import measure_weight, measure_weight_limit, parse_good_bits
from badpix.io import cal as io_cal
from badpix.io.cal import CalFile
from badpix.settings.image import DrizzleSettings, ImageSettings

BAND_ROWS = 256  # of the grid, that are added at a time
LIMIT_STEP = 4  # rows, of which one tells the usual weight; the documented rule takes all


def drizzle_group(task: tuple[Plan, list[Image]]) -> float:
    """Task: drizzle one group, mask low weights, put the mosaic on the shelf; the weight limit.

    A group that is no reference for the others leaves an empty mosaic.
    """
    plan, images = task
    p, window = plan.p, plan.windows[images[0].group]
    inverses = _invert_all(images, p)
    mosaic, weight = (
        _drizzle_all(plan, images, window) if inverses is None else _add_all(plan, images, inverses, window)
    )
    if plan.products is not None:
        image_products.write_mosaic(plan.products, images[0].cal, mosaic, weight, window, plan.grid)
    every = 1 if inverses is None else LIMIT_STEP
    limit = measure_weight_limit(weight[::every], maskpt=p.maskpt)
    with np.errstate(invalid="ignore"):
        mosaic[weight < np.float32(limit)] = np.nan
    if images[0].group in plan.shallow:
        mosaic[:] = np.nan
    plan.shelf.write(mosaic_name(images[0].group), mosaic)
    return limit


def _invert_all(images: list[Image], p: ImageSettings) -> list[resample_direct.Inverse] | None:
    """The inverse map of each image; None where the ``drizzle`` package has to make the mosaic."""
    usual = p.kernel == "square" and p.pixfrac == 1 and resample_drizzle.parse_fillval(p.fillval) == "NaN"
    if p.resampler != "direct" or not usual:
        return None
    inverses = [
        resample_direct.invert_fit(i.pixel_map, i.window) if i.pixel_map and i.window else None for i in images
    ]
    return [i for i in inverses if i is not None] if all(i is not None for i in inverses) else None


def _add_all(
    plan: Plan, images: list[Image], inverses: list[resample_direct.Inverse], window: Window
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mosaic and weight of a group, from the inverse maps of its images."""
    total = np.zeros(window.shape, np.float32), np.zeros(window.shape, np.float32)
    for image, inverse in zip(images, inverses, strict=True):
        hot = plan.persistent.get(detector_key(image.cal)) if plan.persistent else None
        columns = inverse.window.within(window)[1]
        for rows, needed in resample_direct.split_window(inverse, image.cal.shape[0], BAND_ROWS):
            here = slice(rows.start - window.y0, rows.stop - window.y0)
            sci, weight = _read_rows(image, plan.p, needed, hot)
            _close_bounds(weight, image, needed.start)
            part = total[0][here, columns], total[1][here, columns]
            resample_direct.add_band(inverse, sci, weight, rows, needed.start, part)
    resample_direct.finish_mosaic(total)
    return total


def _close_bounds(weight: NDArray[Any], image: Image, first: int) -> None:
    """No weight outside of the bounding box of the WCS, in rows from ``first`` on; in place."""
    bounds, (ny, nx) = image.bounds, image.cal.shape
    if bounds is None:
        return
    low, high = resample_drizzle.inner_rows(bounds, ny)
    left, right = resample_drizzle.inner_rows((bounds[1], bounds[0]), nx)
    weight[: max(0, low - first)] = 0
    weight[max(0, high + 1 - first) :] = 0
    weight[:, :left] = 0
    weight[:, right + 1 :] = 0


def _drizzle_all(plan: Plan, images: list[Image], window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mosaic and weight of a group, by the ``drizzle`` package."""
    p = plan.p
    drizzle = resample_drizzle.start_drizzle(
        window, kernel=p.kernel, fillval=resample_drizzle.parse_fillval(p.fillval)
    )
    for image in images:
        assert image.pixel_map is not None
        hot = plan.persistent.get(detector_key(image.cal)) if plan.persistent else None
        for rows, inner in resample_drizzle.split_rows(image.bounds, image.pixel_map):
            sci, weight = _read_rows(image, p, rows, hot)
            positions = evaluate_map(image.pixel_map, (window.x0, window.y0), rows)
            resample_drizzle.add_image(drizzle, sci, weight, positions, image.bounds, pixfrac=p.pixfrac, rows=inner)
    return drizzle.out_img, drizzle.out_wht


def _read_rows(
    image: Image, p: DrizzleSettings, rows: slice, hot: tuple[NDArray[Any], NDArray[Any]] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A band of an exposure without its sky, and its weight: none on its persistent hot pixels."""
    sci = io_cal.read_rows(image.cal, "SCI", rows.start, rows.stop).astype(np.float32, copy=False)
    if image.subtract:
        sci -= np.float32(image.subtract)
    subtract_slope(sci, image, rows.start)
    weight = read_weight(image.cal, p, rows)
    if hot is not None:
        here = (hot[0] >= rows.start) & (hot[0] < rows.stop)
        weight[hot[0][here] - rows.start, hot[1][here]] = 0
    return sci, weight


def read_weight(cal: CalFile, p: DrizzleSettings, rows: slice = slice(None)) -> NDArray[Any]:
    """Drizzle weights of rows of one image."""
    bad_bits = parse_good_bits(p.good_bits)
    use_variance = p.weight_type == "ivm" and cal.find("VAR_RNOISE") is not None
    seconds = cal.primary.get("TMEASURE", cal.primary.get("EFFEXPTM", 1.0))
    start, stop, _ = rows.indices(cal.shape[0])
    return measure_weight(
        io_cal.read_rows(cal, "DQ", start, stop) if bad_bits else None,
        io_cal.read_rows(cal, "VAR_RNOISE", start, stop) if use_variance else None,
        shape=(stop - start, cal.shape[1]),
        weight_type=p.weight_type,
        bad_bits=bad_bits,
        exposure_time=float(seconds),
    )
