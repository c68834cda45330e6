"""What is left of the sky in the difference of an exposure and its model: a level, a gradient, stripes.

1. Level: median of the flat pixels.
2. Gradient: a plane through the medians of 32 x 32 cells, by least squares from which cells beyond 4 sigma drop out;
   a quadratic surface where that bends by much more than its errors. Scattered light and the thermal background of
   MIRI differ between exposures by more than a constant.
3. Stripes of 1/f noise: medians of rows in parts of 512 columns, as wide as an amplifier, and then of columns in
   parts of 512 rows.

Gradient and stripes are taken off only where they stand out of the noise, so that a flat difference stays as it is
(:func:`level_residual`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.numerics import clipping

CELL = 32  # pixels
CELL_FILLED = 0.3  # of its pixels that must be usable
FEWEST_CELLS = 12
LEVEL_SAMPLE = 250_000  # pixels from which on every fourth of a row is enough
CLIP = 4.0
ROUNDS = 4
SIGNIFICANT = 6.0  # formal errors by which a gradient must stand out ...
TILT = 0.1  # ... and sigma of a pixel, by which it must change the sky over the image
AMPLIFIER = 512  # pixels of a line that share its 1/f noise
LINE_FILLED = 64  # usable pixels that a line needs
STRIPED = 2.0  # times the scatter that white noise gives, from which on lines count as stripes
LIKELY = 0.8  # of that, in clipped means, from which on medians are looked at
BAND = 64  # rows
MEDIAN_ERROR = 1.2533  # of a median, in units of the error of a mean


def level_residual(residual: NDArray[Any], use: NDArray[Any], sigma: float) -> tuple[float, float, bool]:
    """Take level, gradient and stripes off, in place.

    Parameters
    ----------
    residual : float32 (ny, nx)
        SCI - sky - model; NaN on bad pixels.
    use : bool (ny, nx)
        Flat pixels that others saw.
    sigma : float
        Scatter of such a pixel.

    Returns
    -------
    level : float
    tilt : float
        By how much the plane (or surface) that was taken off changes over the image, about; 0 without one.
    striped : bool
    """
    level = _level(residual, use)
    residual -= np.float32(level)
    tilt = _subtract_plane(residual, use, sigma)
    striped = [_subtract_lines(*turned, sigma) for turned in ((residual, use), (residual.T, use.T))]
    return level, tilt, any(striped)


def _level(residual: NDArray[Any], use: NDArray[Any]) -> float:
    step = 4, int(np.clip(residual.size // LEVEL_SAMPLE, 1, 4))
    every = slice(None, None, step[0]), slice(None, None, step[1])
    values = residual[every][use[every]]
    values = values[np.isfinite(values)]
    return float(clipping.median(values)) if values.size else 0.0


def measure_cells(residual: NDArray[Any], use: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Rows, columns (middles) and medians of the cells that are filled enough; every second pixel of each axis."""
    ny, nx = (max(1, n // CELL) for n in residual.shape)
    size = tuple(min(CELL, n) for n in residual.shape)
    inner = slice(0, ny * size[0], 2), slice(0, nx * size[1], 2)
    part = np.where(use[inner], residual[inner], np.float32(np.nan))
    blocks = part.reshape(ny, size[0] // 2, nx, size[1] // 2).swapaxes(1, 2).reshape(ny * nx, -1)
    number = np.isfinite(blocks).sum(axis=1)
    keep = number >= CELL_FILLED * blocks.shape[1]
    ordered = np.sort(blocks[keep], axis=1)  # NaN last
    at = np.arange(len(ordered))
    medians = (ordered[at, (number[keep] - 1) // 2] + ordered[at, number[keep] // 2]) / 2
    y, x = np.divmod(np.flatnonzero(keep), nx)
    return (y + 0.5) * size[0], (x + 0.5) * size[1], medians.astype(float)


class Surface(NamedTuple):
    """A plane or quadratic surface: coefficients of :func:`surface_terms`, their normal matrix, the scatter."""

    solution: NDArray[Any]  # (k,)
    normal: NDArray[Any]  # (k, k)
    scatter: float
    kept: NDArray[Any]  # bool (n,)


def surface_terms(y: NDArray[Any], x: NDArray[Any], degree: int) -> NDArray[Any]:
    """1, y, x, and with degree 2 also y^2, yx, x^2, [n, k]."""
    columns = [np.ones(len(y)), y, x]
    return np.stack(columns if degree == 1 else [*columns, y * y, y * x, x * x], axis=1)


def fit_surface(y: NDArray[Any], x: NDArray[Any], values: NDArray[Any], degree: int = 1) -> Surface | None:
    """The plane (or quadratic surface) through values at some places; None with too few of them."""
    terms = surface_terms(y, x, degree)
    keep = np.ones(len(values), bool)
    for _ in range(ROUNDS):
        matrix = terms[keep]
        if len(matrix) < FEWEST_CELLS * degree or np.linalg.matrix_rank(matrix) < matrix.shape[1]:
            return None
        solution = np.linalg.lstsq(matrix, values[keep], rcond=None)[0]
        left = values - terms @ solution
        scatter = clipping.median_mad(left[keep])[1]
        inside = np.abs(left) <= CLIP * scatter
        if (inside == keep).all():
            break
        keep = inside
    return Surface(solution, matrix.T @ matrix, scatter, keep)


def _subtract_plane(residual: NDArray[Any], use: NDArray[Any], sigma: float) -> float:
    ny, nx = residual.shape
    y, x, values = measure_cells(residual, use)
    fit = fit_surface(y, x, values)
    if fit is None:
        return 0.0
    bend = _measure_bend(y, x, values, fit, residual.shape, sigma)
    if bend is not None:
        at_y, at_x = (2 * (np.arange(n) + 0.5) / n - 1 for n in residual.shape)
        level, up, across, yy, yx, xx = bend
        residual -= (level + (up + yy * at_y) * at_y)[:, None].astype(np.float32)
        residual -= ((across + xx * at_x) * at_x).astype(np.float32)
        residual -= np.outer((yx * at_y).astype(np.float32), at_x.astype(np.float32))
        return float(2 * np.hypot(up, across) + abs(yy) + abs(xx) + 2 * abs(yx))
    level, up, across = fit.solution
    errors = fit.scatter * np.sqrt(np.diag(np.linalg.inv(fit.normal)))
    tilt = float(np.hypot(up * ny, across * nx))
    if tilt < TILT * sigma or np.hypot(up, across) < SIGNIFICANT * np.hypot(*errors[1:]):
        return 0.0
    residual -= (level + up * (np.arange(ny)[:, None] + 0.5)).astype(np.float32)
    residual -= (across * (np.arange(nx) + 0.5)).astype(np.float32)
    return tilt


def _measure_bend(
    y: NDArray[Any], x: NDArray[Any], values: NDArray[Any], plane: Surface, shape: tuple[int, int], sigma: float
) -> NDArray[Any] | None:
    """A quadratic surface through the cells, at positions from -1 to 1; None where it doesn't stand out."""
    y, x = (2 * v / n - 1 for v, n in zip((y, x), shape, strict=True))
    fit = fit_surface(y, x, values, 2)
    if fit is None:
        return None
    errors = fit.scatter * np.sqrt(np.diag(np.linalg.inv(fit.normal)))
    bend = np.abs(fit.solution[3:])
    if bend.max() < TILT * sigma or (bend < SIGNIFICANT * errors[3:]).all() or fit.scatter > plane.scatter:
        return None
    return fit.solution


def _subtract_lines(residual: NDArray[Any], use: NDArray[Any], sigma: float) -> bool:
    """Take the medians of rows, in blocks of 512 columns, off; whether they stood out."""
    striped = False
    for left in range(0, residual.shape[1], AMPLIFIER):
        columns = slice(left, left + AMPLIFIER)
        if not _vary(residual[:, columns], use[:, columns], sigma):
            continue
        part = np.where(use[:, columns], residual[:, columns], np.float32(np.nan))
        number = np.isfinite(part).sum(axis=1)
        full = np.flatnonzero(number >= LINE_FILLED)
        if len(full) < FEWEST_CELLS:
            continue
        ordered = np.sort(part[full], axis=1)
        at = np.arange(len(full))
        medians = (ordered[at, (number[full] - 1) // 2] + ordered[at, number[full] // 2]) / 2
        expected = MEDIAN_ERROR * sigma / np.sqrt(np.median(number[full]))
        if clipping.median_mad(medians)[1] > STRIPED * expected:
            residual[full, columns] -= medians[:, None].astype(np.float32)
            striped = True
    return striped


def _vary(residual: NDArray[Any], use: NDArray[Any], sigma: float) -> bool:
    """Whether the clipped means of the rows scatter enough for a look at their medians, which cost more."""
    total, number = np.zeros(len(residual), np.float32), np.zeros(len(residual))
    for top in range(0, len(residual), BAND):
        rows = slice(top, top + BAND)
        clipped = np.clip(residual[rows], -CLIP * sigma, CLIP * sigma)
        np.copyto(clipped, 0, where=~use[rows] | np.isnan(clipped))
        total[rows] = clipped.sum(axis=1)
        number[rows] = np.count_nonzero(use[rows], axis=1)
    full = number >= LINE_FILLED
    if np.count_nonzero(full) < FEWEST_CELLS:
        return False
    scatter = clipping.median_mad(total[full] / number[full])[1]
    return bool(scatter > LIKELY * STRIPED * sigma / np.sqrt(np.median(number[full])))
