"""Paths of dispersed light, and medians along them.

Images are (n, m) with the dispersion along the first axis; a *path* is where light of one point of a slice or slit
falls, one pixel of it a row. A path through (y, x) is at ``x + path[y + k, x] - path[y, x]`` in row ``y + k``.

Source: rows are compared by the sum of absolute differences, as in block matching (Jain & Jain 1981, IEEE Trans.
Commun. 29, 1799).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.medians import local_median, median_filled

MESH = 16  # pixels between the cells of the inclination
INCLINATIONS = np.arange(-14, 15) * 0.025  # pixels across per pixel along
LAGS = (-12, -8, -4, 4, 8, 12)  # rows between the profiles that are compared
WIDE = 49  # pixels across over which their agreement is judged
CONTRAST = 0.1  # of the light: less difference between inclinations tells nothing
FAINT = 0.02  # of the bright light: below it profiles are noise
STEPS = (-10, -8, -6, -5, -3, -1, 0, 1, 3, 5, 6, 8, 10)  # rows of the median along a path
ROWS = 64  # worked on at a time

Float32 = NDArray[np.float32]
Index = NDArray[np.intp]


def follow_paths(image: Float32) -> Float32:
    """Paths as the inclination of each column, summed from row 0 on: (n, m) pixels across."""
    inclination = measure_inclination(np.nan_to_num(image))
    return np.cumsum(inclination, axis=0, dtype=np.float64).astype(np.float32)


def measure_inclination(image: Float32) -> Float32:
    """Inclination of the paths, pixels across per pixel along: (n, m)."""
    n, m = image.shape
    rows = np.minimum(np.arange(MESH // 2, max(n, MESH), MESH), n - 1)
    columns = np.minimum(np.arange(MESH // 2, max(m, MESH), MESH), m - 1)
    smooth = image.copy()
    if n > 2:
        smooth[1:-1] = _middle_of_three(image[:-2], image[1:-1], image[2:])
    cost, light = compare_profiles(smooth, rows)
    cost, light = cost[:, :, columns], light[:, columns]
    mesh = _minimum(cost)
    mesh[cost.max(axis=0) - cost.min(axis=0) <= CONTRAST * light] = np.nan
    if not np.isfinite(mesh).any():
        return np.zeros(image.shape, np.float32)
    return spread_mesh(mesh, rows, columns, image.shape)


def compare_profiles(image: Float32, rows: Index) -> tuple[Float32, Float32]:
    """Disagreement of rows near ``rows`` by inclination, (inclinations, rows, m), and the light there, (rows, m).

    In square roots of the rate, so that bright pixels do not decide alone; rows are brought to one level first.
    """
    from scipy.ndimage import uniform_filter1d

    here = image[rows]
    floor = np.float32(FAINT * max(float(np.quantile(here, 0.98)), 0) + 1e-12)
    root, level = np.sqrt(np.maximum(here, 0) + floor), uniform_filter1d(here, WIDE, axis=1, mode="nearest") + floor
    cost = np.zeros((len(INCLINATIONS), *here.shape), np.float32)
    for lag in LAGS:
        inside = ((rows + lag >= 0) & (rows + lag < len(image)))[:, None]
        there = image[np.clip(rows + lag, 0, len(image) - 1)]
        for k, inclination in enumerate(INCLINATIONS):
            moved = _shift(there, inclination * lag)
            moved *= level / np.maximum(uniform_filter1d(moved, WIDE, axis=1, mode="nearest") + floor, floor)
            cost[k] += np.abs(np.sqrt(np.maximum(moved, 0) + floor) - root) * inside
    cost = uniform_filter1d(uniform_filter1d(cost, WIDE, axis=2, mode="nearest"), 3, axis=1, mode="nearest")
    return cost, uniform_filter1d(root, WIDE, axis=1, mode="nearest")


def _minimum(cost: Float32) -> Float32:
    """Inclination of least disagreement, by a parabola through the three lowest: (rows, columns)."""
    best = np.clip(cost.argmin(axis=0), 1, len(cost) - 2)
    before, at, after = (np.take_along_axis(cost, (best + k)[None], axis=0)[0] for k in (-1, 0, 1))
    bend = before - 2 * at + after
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(bend > 0, np.clip((before - after) / (2 * bend), -0.5, 0.5), 0)
    out: Float32 = (INCLINATIONS[best] + part * (INCLINATIONS[1] - INCLINATIONS[0])).astype(np.float32)
    return out


def spread_mesh(mesh: Float32, rows: Index, columns: Index, shape: tuple[int, ...]) -> Float32:
    """A mesh with missing cells filled, smoothed and interpolated to all pixels."""
    from scipy import ndimage

    mesh = local_median(mesh, (3, 3), outside=np.nan, where=np.ones(mesh.shape, bool))
    empty = ~np.isfinite(mesh)
    if empty.any():
        nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
        mesh = mesh[tuple(nearest)]
    mesh = ndimage.uniform_filter(mesh, 3, mode="nearest")
    tall = np.stack([np.interp(np.arange(shape[0]), rows, column) for column in mesh.T], axis=1)
    return np.stack([np.interp(np.arange(shape[1]), columns, row) for row in tall]).astype(np.float32)


def _middle_of_three(a: Float32, b: Float32, c: Float32) -> Float32:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _shift(rows: Float32, by: float) -> Float32:
    """Rows read ``by`` pixels further on, interpolated; the outermost pixel beyond the frame."""
    whole = int(np.floor(by))
    place = np.arange(rows.shape[1]) + whole
    low, high = (np.take(rows, np.clip(place + k, 0, rows.shape[1] - 1), axis=1) for k in (0, 1))
    low += (high - low) * np.float32(by - whole)
    return low


def measure_along(image: Float32, path: Float32) -> Float32:
    """Median along the path through each pixel (:data:`STEPS`): (n, m), NaN where nothing was measured."""
    n, m = image.shape
    columns, flat = np.arange(m, dtype=np.float32), image.ravel()
    out = np.empty_like(image)
    for start in range(0, n, ROWS):
        rows = np.arange(start, min(start + ROWS, n))
        lines, missing = [], np.zeros((rows.size, m), np.uint16)
        for step in STEPS:
            other = np.clip(rows + step, 0, n - 1)
            place = path[other]
            place -= path[rows]
            place += columns
            values = interpolate(flat, other[:, None] * m, place, m)
            lost = np.isnan(values)
            lost[rows + step != other] = True
            np.copyto(values, np.inf, where=lost)
            missing += lost
            lines.append(values)
        out[rows] = median_filled(lines, missing)
    return out


def interpolate(flat: Float32, base: Index, place: Float32, m: int) -> Float32:
    """Values between two pixels of rows that begin at ``base``; NaN more than half a pixel beyond the frame."""
    low = np.clip(place.astype(np.int32), 0, max(m - 2, 0))
    part = np.clip(place - low, 0, 1)
    index = base + low
    values = flat.take(index)
    values += (flat.take(index + min(1, m - 1)) - values) * part
    values[(place < -0.5) | (place > m - 0.5)] = np.nan
    return values


def sample_path(image: Float32, path: Float32, y: Index, x: Index, steps: Any, meets: float) -> Float32:
    """Values on the paths through some pixels, (pixels, steps): where a path passes a pixel's center that closely.

    Interpolated between the two pixels it passes; NaN elsewhere and beyond the frame.
    """
    n, m = image.shape
    flat, out = image.ravel(), np.empty((y.size, len(steps)), np.float32)
    for k, step in enumerate(steps):
        other = np.clip(y + step, 0, n - 1)
        place = path[other, x] - path[y, x] + x.astype(np.float32)
        values = interpolate(flat, other * m, place, m)
        values[(other != y + step) | (np.abs(place - np.rint(place)) > meets)] = np.nan
        out[:, k] = values
    return out
