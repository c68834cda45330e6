"""A group's mosaic: its images drizzled onto its window of the grid, low weights masked, on the shelf.

A task that any process can do. Persistent hot pixels get no weight; a group that is no reference for the others
leaves an empty mosaic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image import products as image_products
from badpix.image import resample
from badpix.image.grid import Window
from badpix.image.members import Image, subtract_slope
from badpix.image.persistence import detector_key
from badpix.image.pixel_map import evaluate_map
from badpix.image.plan import Plan
from badpix.image.stack import mosaic_name
from badpix.image.weights import measure_weight, measure_weight_limit, parse_good_bits
from badpix.io import cal as io_cal
from badpix.io.cal import CalFile
from badpix.settings.image import DrizzleSettings


def drizzle_group(task: tuple[Plan, list[Image]]) -> float:
    """Task: drizzle one group, mask low weights, put the mosaic on the shelf; the weight limit.

    A group that is no reference for the others leaves an empty mosaic.
    """
    plan, images = task
    p, window = plan.p, plan.windows[images[0].group]
    drizzle = resample.start_drizzle(window, kernel=p.kernel, fillval=resample.parse_fillval(p.fillval))
    for image in images:
        assert image.pixel_map is not None
        hot = plan.persistent.get(detector_key(image.cal)) if plan.persistent else None
        for rows, inner in resample.split_rows(image.bounds, image.pixel_map):
            _drizzle_rows(drizzle, image, window, p, rows, inner, hot)
    mosaic, weight = drizzle.out_img, drizzle.out_wht
    if plan.products is not None:
        image_products.write_mosaic(plan.products, images[0].cal, mosaic, weight, window, plan.grid)
    limit = measure_weight_limit(weight, maskpt=p.maskpt)
    with np.errstate(invalid="ignore"):
        mosaic[weight < np.float32(limit)] = np.nan
    if images[0].group in plan.shallow:
        mosaic[:] = np.nan
    plan.shelf.write(mosaic_name(images[0].group), mosaic)
    return limit


def _drizzle_rows(
    drizzle: Any,
    image: Image,
    window: Window,
    p: DrizzleSettings,
    rows: slice,
    inner: slice,
    hot: tuple[NDArray[Any], NDArray[Any]] | None,
) -> None:
    """Add a band of an exposure, but its persistent hot pixels, to its group's drizzle."""
    sci = io_cal.read_rows(image.cal, "SCI", rows.start, rows.stop).astype(np.float32, copy=False)
    if image.subtract:
        sci -= np.float32(image.subtract)
    subtract_slope(sci, image, rows.start)
    assert image.pixel_map is not None
    positions = evaluate_map(image.pixel_map, (window.x0, window.y0), rows)
    weight = read_weight(image.cal, p, rows)
    if hot is not None:
        here = (hot[0] >= rows.start) & (hot[0] < rows.stop)
        weight[hot[0][here] - rows.start, hot[1][here]] = 0
    resample.add_image(drizzle, sci, weight, positions, image.bounds, pixfrac=p.pixfrac, rows=inner)


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
