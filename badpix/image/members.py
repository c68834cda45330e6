"""The members of an association: checked, grouped, placed on the grid, with the sky that is taken off each.

1. Headers of all members and their groups (:mod:`badpix.image.inputs`).
2. Exposures that followed a moving target are aligned on it (:mod:`badpix.image.moving`).
3. Grid, pixel maps and windows (:func:`place_images`, :func:`find_windows`).
4. What fits neither memory nor disk is refused before the work (:func:`check_room`).
5. Skies: from keywords, or matched between overlapping images (:func:`set_skies`).
6. Groups much noisier than the others are no reference for these (:func:`find_shallow`).
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.image import sky as image_sky
from badpix.image.angles import sort_angles
from badpix.image.background import surface_terms
from badpix.image.grid import Bounds, Grid, Window, join_windows
from badpix.image.moving import follow_target
from badpix.image.pixel_map import PixelMap, find_window, fit_pixel_map, map_points
from badpix.image.stack import TILE_COLUMNS, touched_tiles
from badpix.image.wcs import Geometry, make_output_grid, measure_region, read_geometry, read_roll
from badpix.image.weights import parse_good_bits
from badpix.io import cal as io_cal
from badpix.io.associations import Association
from badpix.io.cal import CalFile
from badpix.io.tasks import run_in_order
from badpix.numerics import clipping
from badpix.settings.image import ImageSettings, ModelSettings

log = logging.getLogger(__name__)

# Memory of a run, measured (bench_image.py): imports, then bytes a pixel of an exposure and of a group's window.
BASE_MEMORY = 80 << 20
LIBRARY_MEMORY = 130 << 20  # of the GWCS library, where it had to be taken
DRIZZLE_BYTES = (0, 20)
PLAIN_BYTES = (18, 8)  # the documented rule alone
SEARCH_BYTES = (44, 8)
TILE_MEMORY = 16 << 20
NOISE_ROWS = 128, 32  # of so many rows, so many tell how deep an exposure is
PLANE_BYTES = 18  # median, lo, mid, hi and count of a grid pixel


@dataclass(frozen=True)
class Image:
    """One exposure of one detector, and where it lies."""

    cal: CalFile
    exptype: str
    number: int
    group: int
    bounds: Bounds | None
    pixel_map: PixelMap | None = None  # None: not resampled
    window: Window | None = None  # None: misses the grid
    subtract: float = 0.0  # sky, taken off before the drizzle
    compare: float = 0.0  # background that the documented rule adds to the model
    roll: float = 0.0  # degrees
    slope: tuple[float, ...] = ()  # of that sky from the middle of the image, pixels: y, x and perhaps y^2, yx, x^2


def place_images(
    association: Association,
    cals: Sequence[CalFile],
    group_names: Sequence[str],
    p: ImageSettings,
) -> tuple[list[Image], Grid]:
    """The output grid, and each image with its pixel map and window on it."""
    order = list(dict.fromkeys(group_names))
    geometries = follow_target(cals, [read_geometry(cal) for cal in cals], align=p.moving_target == "auto")
    grid = make_output_grid(cals[0], geometries[0], _read_regions(cals, geometries))
    images = []
    for number, (cal, geometry, member) in enumerate(zip(cals, geometries, association.members, strict=True)):
        try:
            pixel_map = fit_pixel_map(
                geometry.sky,
                grid,
                cal.shape,
                geometry.bounds,
                stepsize=p.pixmap_stepsize,
                order=p.pixmap_order,
            )
        except DataError as error:
            raise DataError(f"{cal.path}: {error}") from None
        window = find_window(pixel_map, grid)
        subtract, compare = read_background(cal, p.backg, documented=p.test == "documented")
        group = order.index(group_names[number])
        roll = read_roll(cal, geometry)
        images.append(
            Image(cal, member.exptype, number, group, geometry.bounds, pixel_map, window, subtract, compare, roll)
        )
    missing = [i.cal.path.name for i in images if i.window is None]
    if missing:
        raise DataError(
            f"{missing[0]}: its WCS puts no pixel on the output grid that S_REGION of the members outlines"
        )
    return images, grid


def find_rolls(images: Sequence[Image]) -> list[float]:
    """The roll angle of each group, degrees: that of its first image."""
    groups = max(i.group for i in images) + 1
    return [next(i.roll for i in images if i.group == g) for g in range(groups)]


def find_angles(rolls: Sequence[float], p: ModelSettings) -> list[int]:
    """The class of roll angles of each group."""
    if p.roll_tolerance is None or p.reference != "others":
        return [0] * len(rolls)
    classes = sort_angles(rolls, tolerance=p.roll_tolerance)
    if any(classes):
        means = [float(np.median([r for r, c in zip(rolls, classes, strict=True) if c == k])) for k in set(classes)]
        told = ", ".join(f"{classes.count(k)} at {m:.1f}" for k, m in zip(sorted(set(classes)), means, strict=True))
        log.warning(
            f"groups at {len(means)} roll angles ({told} degrees): diffraction spikes turn with the telescope, so an "
            f"exposure is compared with its own angle where that looked twice or differs"
        )
    return classes


def _read_regions(cals: Sequence[CalFile], geometries: Sequence[Geometry]) -> list[NDArray[Any]]:
    regions, untold = [], []
    for cal, geometry in zip(cals, geometries, strict=True):
        region, told = measure_region(cal, geometry)
        regions.append(region)
        if not told:
            untold.append(cal.path.name)
    if untold:
        log.warning(f"{len(untold)} exposures have no S_REGION ({untold[0]}, ...); taken from their WCS")
    if any(g.kind == "FITS" for g in geometries):
        log.warning("exposures without a GWCS: the FITS WCS of their SCI header is used (its distortion terms only)")
    return regions


def read_background(cal: CalFile, backg: float, *, documented: bool) -> tuple[float, float]:
    """The sky to take off before drizzling, and the background to add to the model when comparing.

    The documented rule adds BKGLEVEL only where BKGSUB is false, not where it is missing; ours adds what it took
    off.
    """
    level = cal.primary.get("BKGLEVEL", io_cal.image_hdu(cal, "SCI").header.get("BKGLEVEL"))
    done = cal.primary.get("BKGSUB", io_cal.image_hdu(cal, "SCI").header.get("BKGSUB"))
    if not isinstance(level, int | float) or isinstance(level, bool):
        return 0.0, backg if documented else 0.0
    subtract = 0.0 if done is True else float(level)
    if documented:
        return subtract, float(level) if done is False else backg
    return subtract, subtract


def find_windows(images: Sequence[Image]) -> list[Window]:
    """The part of the grid that each group touches; checks that groups overlap at all, and notes images that don't.

    Raises
    ------
    DataError
        If no two groups overlap.
    """
    groups = max(i.group for i in images) + 1
    windows = [join_windows([i.window for i in images if i.group == g and i.window]) for g in range(groups)]
    lonely = [
        i.cal.path.name
        for i in images
        if i.window and not any(i.window.overlap(w) for g, w in enumerate(windows) if g != i.group)
    ]
    if len(lonely) == len(images):
        raise DataError(
            "no two groups overlap on the sky: nothing can be compared; check the members and their S_REGION"
        )
    if lonely:
        log.warning(f"{', '.join(lonely)}: no exposure of another group overlaps; nothing to compare with")
    return windows


def check_room(
    images: Sequence[Image],
    windows: Sequence[Window],
    grid: Grid,
    output_dir: Path,
    max_memory: int,
    *,
    plain: bool,
) -> int:
    """Rows of a tile of the sort; refuses before work what fits neither memory nor disk.

    Raises
    ------
    DataError
        With the sizes.
    """
    pixels = max(i.cal.shape[0] * i.cal.shape[1] for i in images)
    area = max(w.shape[0] * w.shape[1] for w in windows)
    base = BASE_MEMORY + (LIBRARY_MEMORY if "gwcs" in sys.modules else 0)
    stages = DRIZZLE_BYTES, PLAIN_BYTES if plain else SEARCH_BYTES
    need = base + max(a * pixels + b * area for a, b in stages)
    ny, nx = grid.shape
    if need > max_memory:
        raise DataError(
            f"output grid of {nx} x {ny} pixels, groups of up to {area / 1e6:.1f} million: "
            f"{_mb(need)} of memory needed, "
            f"--max-memory allows {_mb(max_memory)}"
        )
    rows = tile_rows(len(windows), max_memory - base)
    observed = sum(t.shape[0] * t.shape[1] for t in touched_tiles(windows, rows))
    disk = 4 * sum(w.shape[0] * w.shape[1] for w in windows) + PLANE_BYTES * observed + pixels // 8 * len(images)
    disk += sum(i.cal.path.stat().st_size for i in images)
    free = shutil.disk_usage(output_dir).free
    if disk > free:
        raise DataError(
            f"{output_dir}: output grid of {nx} x {ny} pixels, {len(windows)} groups: {_mb(disk)} of disk needed for "
            f"mosaics and outputs, {_mb(free)} free"
        )
    return rows


def tile_rows(groups: int, room: int) -> int:
    """Rows of a tile of the sort, so that many groups take no more memory than few."""
    row = (PLANE_BYTES + 4 * (groups + 8)) * TILE_COLUMNS
    return int(np.clip(min(TILE_MEMORY, room // 2) // row, 8, 256))


def _mb(size: float) -> str:
    return f"{size / (1 << 20):,.0f} MB"


def set_skies(
    images: list[Image], grid: Grid, p: ImageSettings, executor: Executor | None
) -> tuple[list[Image], dict[str, Any]]:
    """The images with the sky that is taken off each: from keywords, or matched."""
    told = [_has_level(image.cal) for image in images]
    match = p.sky_match == "always" or (p.sky_match == "auto" and not all(told))
    if not match:
        return images, {"matched": False, "levels": [i.subtract for i in images]}
    tables = list(run_in_order(executor, measure_sky_cells, [(image, grid.shape[1], p) for image in images]))
    matched = image_sky.match_levels(tables)
    log.info(f"sky levels matched: from {matched.levels.min():.4g} to {matched.levels.max():.4g}")
    if matched.sets > 1:
        log.warning(f"{matched.sets} sets of exposures don't overlap each other; skies are matched within each set")
    levels = [float(v) for v in matched.levels]
    placed = [replace(i, subtract=level, compare=level) for i, level in zip(images, levels, strict=True)]
    level_tables = [t._replace(level=t.level - level) for t, level in zip(tables, levels, strict=True)]
    surfaces = image_sky.match_surfaces(level_tables, grid.shape[1])
    if surfaces is not None:
        placed = [tilt_sky(i, s, surfaces.center) for i, s in zip(placed, surfaces.solutions, strict=True)]
        log.info("sky gradients differ between exposures: matched")
    return placed, {"matched": True, "levels": [i.subtract for i in placed], "sets": matched.sets}


def tilt_sky(image: Image, solution: NDArray[Any], center: NDArray[Any]) -> Image:
    """An image whose sky has this surface (on the grid, besides its level) as well, as one of its own pixels."""
    assert image.pixel_map is not None
    x0, x1, y0, y1 = image.pixel_map.span
    middle = np.array([(image.cal.shape[1] - 1) / 2, (image.cal.shape[0] - 1) / 2])
    xs, ys = (np.array([low, at, high]) for low, at, high in ((x0, middle[0], x1), (y0, middle[1], y1)))
    places = np.stack([v.ravel() for v in np.meshgrid(xs, ys)], axis=1)
    sky = image_sky.evaluate_surface(solution, center, np.stack(map_points(image.pixel_map, *places.T), axis=1))
    x, y = (places - middle).T
    terms = surface_terms(y, x, 1 if len(solution) == 3 else 2)
    size = np.abs(terms).max(axis=0)
    level, *slope = (np.linalg.lstsq(terms / size, sky, rcond=None)[0] / size).tolist()
    level += image.subtract
    return replace(image, subtract=level, compare=level, slope=tuple(slope))


def subtract_slope(sci: NDArray[Any], image: Image, first: int = 0) -> None:
    """Take the gradient of an image's sky off rows from ``first`` on, in place."""
    if not any(image.slope):
        return
    ny, nx = image.cal.shape
    y, x = np.arange(first, first + len(sci)) - (ny - 1) / 2, np.arange(nx) - (nx - 1) / 2
    up, across, yy, yx, xx = (*image.slope, 0.0, 0.0, 0.0)[:5]
    sci -= ((up + yy * y) * y).astype(np.float32)[:, None]
    sci -= ((across + xx * x) * x).astype(np.float32)
    if yx:
        sci -= np.outer((yx * y).astype(np.float32), x.astype(np.float32))


def find_shallow(images: Sequence[Image], p: ModelSettings, executor: Executor | None) -> frozenset[int]:
    """Groups whose median ERR exceeds ``reference_noise`` times the median over groups.

    Where the median of the others is the mean of two, or the lower one of them, one shallow exposure sets its noise.
    """
    groups = max(i.group for i in images) + 1
    if p.reference_noise is None or p.reference != "others" or groups < 3:
        return frozenset()
    levels = np.array(list(run_in_order(executor, measure_noise_level, [i.cal for i in images])))
    members = np.array([i.group for i in images])
    noise = np.array([np.median(levels[members == g]) for g in range(groups)])
    ratio = noise / clipping.median_mad(noise)[0]
    shallow = np.flatnonzero(ratio > p.reference_noise)
    for g in shallow:
        first = images[int(np.argmax(members == g))].cal.path.name
        log.warning(f"{first}: {ratio[g]:.1f} times as noisy as the others, which are compared without its group")
    return frozenset(int(g) for g in shallow)


def measure_noise_level(cal: CalFile) -> float:
    """Task: median of the positive ERR of one image, in a sample of its rows; NaN where there is none."""
    tops = range(0, cal.shape[0], NOISE_ROWS[0])
    err = np.concatenate([io_cal.read_rows(cal, "ERR", top, min(top + NOISE_ROWS[1], cal.shape[0])) for top in tops])
    err = err[:, ::4]
    err = err[np.isfinite(err) & (err > 0)]
    return float(np.median(err)) if err.size else np.nan


def _has_level(cal: CalFile) -> bool:
    headers = cal.primary, io_cal.image_hdu(cal, "SCI").header
    return any(isinstance(h.get("BKGLEVEL"), int | float) for h in headers) or any(
        h.get("BKGSUB") is True for h in headers
    )


def measure_sky_cells(task: tuple[Image, int, ImageSettings]) -> image_sky.Cells:
    """Task: the cell levels of one image."""
    image, columns, p = task
    sci = io_cal.read_rows(image.cal, "SCI").astype(np.float32, copy=False)
    bad = np.uint32(parse_good_bits(p.good_bits))
    good = (io_cal.read_rows(image.cal, "DQ") & bad) == 0
    assert image.pixel_map is not None
    return image_sky.measure_cells(sci, good, image.pixel_map, columns)
