"""Illumination of a flat: what each pixel should see, judged by the pixels around it, not pulled by defects.

1. Coarse illumination: medians of 32 x 32 cells, median-filtered over 5 x 5 cells, interpolated: no cluster smaller
   than about 70 pixels shows in it. Larger ones with sharp edges are told from areas in the dark
   (:func:`find_dark_areas`).
2. Box mean over the pixels that exist and have weight, divided by their number (no padding). Pixels that deviate by
   more than `mask_sigma`, and the 3 x 3 around those below 0.7, get no weight; repeated until nothing changes. Where
   less than a tenth of the box has weight, the coarse illumination takes over.
3. Around pixels that then look low the local median is used instead: at the steep edge of a shadow it follows the
   light. Where it is below 0.15 of the coarse illumination, the patch itself is weak.

Sources: medians of cells, filtered and interpolated, are the background map of Bertin & Arnouts 1996, A&AS 117, 393;
the box mean is that of the jwst_reffiles documentation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics import clipping, neighbors, smoothing
from badpix.numerics.medians import local_median, median_at, median_rows

CELL = 32  # pixels, side of a cell of the coarse illumination
SHADOW = 0.7  # normalized rate below which a pixel's neighbors are left out of the smoothing, too
UNLIT = 0.15  # of the coarse illumination: wide patches below it are weak themselves or get little light
SEEN = 5.0  # standard deviations above zero: less light than that tells nothing
EDGE = 8  # pixels around an area in the dark that belong to its soft edge
SHARP = 0.9  # share of the pixels touching a dead area that see what those further out see
MIN_WEIGHT = 0.1  # share of the box that must have weight for its mean to count
AROUND = np.ones((3, 3), bool)  # a pixel and its eight neighbors

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]


def measure_illumination(mean: Float, *, width: int, mask_sigma: float, iterations: int) -> NDArray[np.float32]:
    """Smooth illumination of a flat that its defects do not pull: (ny, nx), NaN where nothing is near.

    Parameters
    ----------
    mean : ndarray
        (ny, nx) mean rate, NaN where not measured.
    width : int
        Width of the box, odd.
    mask_sigma : float
        Deviation beyond which a pixel gets no weight.
    iterations : int
        Rounds at the most; 0 smooths once with all pixels.
    """
    measured = np.isfinite(mean)
    if iterations == 0:
        return smoothing.measure_box_mean(mean, measured, width)[0]
    coarse = measure_coarse(mean)
    smooth, weight = coarse, np.zeros(mean.shape, bool)
    for _ in range(iterations):
        again = _fitting(mean, smooth, measured, mask_sigma)
        if np.array_equal(again, weight):
            break
        weight = again
        smooth = _box_or_coarse(mean, weight, width, coarse)
    smooth[~np.isfinite(coarse)] = np.nan  # no light there
    return _look_again(mean, smooth, coarse, width)


def _look_again(mean: Float, smooth: Float, coarse: Float, width: int) -> NDArray[np.float32]:
    """The local median instead, around pixels that look low: at the steep edge of a shadow it follows the light."""
    with np.errstate(invalid="ignore", divide="ignore"):
        y, x = np.nonzero(neighbors.grow(mean / smooth < SHADOW))
        local = median_at(mean, (width, width), y, x)
        lit = local > UNLIT * coarse[y, x]
    smooth[y[lit], x[lit]] = local[lit]
    return smooth


def _box_or_coarse(mean: Float, weight: Bool, width: int, coarse: Float) -> NDArray[np.float32]:
    smooth, share = smoothing.measure_box_mean(mean, weight, width)
    np.copyto(smooth, coarse, where=share < MIN_WEIGHT)
    return smooth


def _fitting(mean: Float, smooth: Float, measured: Bool, mask_sigma: float) -> Bool:
    """Pixels that may take part in the smoothing."""
    weight, shadow = measured.copy(), np.empty(mean.shape, bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        center, spread = clipping.median_mad(clipping.thin(mean) / clipping.thin(smooth))
        for rows in smoothing.blocks(len(mean)):
            norm = mean[rows] / smooth[rows]
            np.less(norm, SHADOW, out=shadow[rows])
            weight[rows] &= ~(np.abs(norm - center) > mask_sigma * spread) & np.isfinite(norm)
    weight &= ~neighbors.grow(shadow)
    return weight


def measure_coarse(mean: Float) -> NDArray[np.float32]:
    """Illumination on a mesh of cell medians, interpolated: no defect smaller than a few cells shows."""
    ny, nx = mean.shape
    my, mx = -(-ny // CELL), -(-nx // CELL)
    mesh = np.empty((my, mx), mean.dtype)
    for k in range(my):
        row = np.full((CELL, mx * CELL), np.nan, mean.dtype)
        part = mean[k * CELL : (k + 1) * CELL]
        row[: len(part), :nx] = part
        mesh[k] = median_rows(row.reshape(CELL, mx, CELL).swapaxes(0, 1).reshape(mx, CELL * CELL))
    with np.errstate(invalid="ignore"):
        dark = mesh < UNLIT * np.nanmedian(mesh) if np.isfinite(mesh).any() else np.zeros(mesh.shape, bool)
    if not dark.any():
        return _spread(mesh, mean.shape)
    light = _spread(np.where(dark, np.nan, mesh), mean.shape)
    weak, level, unlit = find_dark_areas(mean, light)
    without = weak | np.isfinite(level)
    for k in range(my):
        share = np.add.reduceat(without[k * CELL : (k + 1) * CELL].sum(axis=0), np.arange(0, nx, CELL))
        mesh[k, share > CELL**2 / 4] = np.nan
    coarse = _spread(mesh, mean.shape)
    np.copyto(coarse, level, where=level > 0)
    coarse[unlit] = np.nan
    return coarse


def find_dark_areas(mean: Float, light: Float) -> tuple[Bool, NDArray[np.float32], Bool]:
    """Large areas with little signal: those that are weak themselves, and the level of those that get little light.

    What is dark for want of light (vignetted, behind a mask) has an edge as wide as the image of that edge; an
    area of weak or dead pixels ends from one pixel to the next: the pixels that touch it see what those four pixels
    further out see. Areas in the dark whose level is not above their noise tell nothing about their pixels.

    Parameters
    ----------
    mean, light : ndarray
        (ny, nx) mean rate, and illumination as it is outside the dark areas.

    Returns
    -------
    weak : ndarray of bool
        (ny, nx).
    level : ndarray of float32
        (ny, nx) median rate of each area in the dark and the soft edge around it, 0 where that tells nothing; NaN
        elsewhere.
    unlit : ndarray of bool
        (ny, nx) areas in the dark whose level tells nothing, without their soft edge and what is dead on it.
    """
    from scipy import ndimage

    with np.errstate(invalid="ignore"):
        number, _ = ndimage.label(mean < UNLIT * light)
    weak, unlit = np.zeros(mean.shape, bool), np.zeros(mean.shape, bool)
    level = np.full(mean.shape, np.nan, np.float32)
    sizes = np.bincount(number.ravel())
    for one in np.flatnonzero(sizes[1:] > CELL**2) + 1:
        area = number == one
        if _is_sharp(mean, area):
            weak |= area
        else:
            center, noise = clipping.median_mad(mean[area])
            seen = center > SEEN * noise
            level[ndimage.binary_dilation(area, AROUND, EDGE)] = center if seen else 0
            if not seen:
                unlit |= area
    return weak, level, unlit


def _is_sharp(mean: Float, area: Bool) -> bool:
    """Whether the pixels that touch an area see what those four pixels further out see."""
    from scipy import ndimage

    touching, near = (ndimage.binary_dilation(area, AROUND, k) for k in (1, 3))
    outside = mean[ndimage.binary_dilation(near, AROUND, 2) & ~near]
    outside, edge = outside[np.isfinite(outside)], mean[touching & ~area]
    return bool(outside.size and edge.size and np.mean(edge > SHADOW * np.median(outside)) > SHARP)


def _spread(mesh: Float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A mesh of cells filled, median-filtered and interpolated to all pixels."""
    ny, nx = shape
    mesh = _fill(local_median(mesh, (5, 5), outside=np.nan, where=np.ones(mesh.shape, bool)))
    tall = _interpolate(mesh.T, ny).T
    out = np.empty((ny, nx), np.float32)
    for rows in smoothing.blocks(ny):
        out[rows] = _interpolate(tall[rows], nx)
    return out


def _interpolate(mesh: Float, n: int) -> Float:
    """Columns of a mesh of cells interpolated to ``n`` pixels; constant beyond the centers of the outer cells."""
    cells = mesh.shape[1]
    edges = np.minimum(np.arange(cells + 1) * CELL, n)
    centers = (edges[:-1] + edges[1:] - 1) / 2
    place = np.interp(np.arange(n), centers, np.arange(cells))
    low = np.minimum(place.astype(int), max(cells - 2, 0))
    left, out = mesh.take(low, axis=1), mesh.take(np.minimum(low + 1, cells - 1), axis=1)
    out -= left
    out *= (place - low).astype(mesh.dtype)
    out += left
    found: Float = out
    return found


def _fill(mesh: Float) -> Float:
    """Cells without a value take that of the nearest cell with one."""
    empty = ~np.isfinite(mesh)
    if not empty.any() or empty.all():
        return mesh
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    found: Float = mesh[tuple(nearest)]
    return found
