"""Sky levels of overlapping exposures, where no keyword tells them.

1. Each image is divided by the cells (32 x 32 pixels) of the output grid; a cell's level is the median of its
   good pixels (every second pixel of every second row), kept where more than half of the cell is there.
2. For each pair of images with at least 5 common cells: the median difference, with a weight from its scatter.
3. Levels by weighted least squares, sum zero in every connected set of images. Images are matched, not groups:
   the detectors of one exposure have skies of their own.

4. Gradients that differ: a quadratic surface (a plane, where the images share less than 0.6 of their cells) through
   the differences of each pair (:func:`badpix.image.background.fit_surface`), joined by least squares to a surface of
   each image (:func:`match_surfaces`); only if one of them changes the sky over its image by three times the scatter
   of the cells' differences.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.background import fit_surface, surface_terms
from badpix.image.pixel_map import PixelMap, evaluate_map
from badpix.numerics.clipping import median_mad

CELL = 32  # grid pixels
STRIDE = 2  # pixels
MIN_COMMON = 5
UNIT = 1000.0  # grid pixels, in which positions are counted while planes are fitted
SHARED = 0.6  # of the cells of each image, from which on surfaces may bend
STANDS_OUT = 3.0  # scatters of the cells' differences
_ROWS = 256


class Cells(NamedTuple):
    """Median level of the grid cells that an image covers; ``cell`` is sorted."""

    cell: NDArray[Any]
    level: NDArray[Any]


class Matched(NamedTuple):
    """Sky of each image relative to the mean of its connected set, and the number of these sets."""

    levels: NDArray[Any]
    sets: int


def measure_cells(sci: NDArray[Any], good: NDArray[Any], pixel_map: PixelMap, columns: int) -> Cells:
    """Cell levels of one image (float32, NaN ignored); ``columns`` is the grid's width in pixels."""
    across = columns // CELL + 3
    values, cells = [], []
    for top in range(0, sci.shape[0], _ROWS):
        rows = slice(top, min(top + _ROWS, sci.shape[0]))
        where = evaluate_map(pixel_map, rows=rows)[::STRIDE, ::STRIDE]
        value = sci[rows][::STRIDE, ::STRIDE]
        use = good[rows][::STRIDE, ::STRIDE] & np.isfinite(value) & np.isfinite(where[..., 0])
        x, y = where[use].T
        cells.append((np.floor(y / CELL) + 1).astype(np.int64) * across + (np.floor(x / CELL) + 1).astype(np.int64))
        values.append(value[use])
    return _cell_medians(np.concatenate(cells), np.concatenate(values))


def _cell_medians(cells: NDArray[Any], values: NDArray[Any]) -> Cells:
    order = np.lexsort((values, cells))
    cells, values = cells[order], values[order]
    index, first, number = np.unique(cells, return_index=True, return_counts=True)
    keep = number > (CELL / STRIDE) ** 2 / 2
    index, first, number = index[keep], first[keep], number[keep]
    level = (values[first + (number - 1) // 2].astype(float) + values[first + number // 2]) / 2
    return Cells(index, level)


class Surfaces(NamedTuple):
    """Gradients of the images' skies: sums of :func:`surface_terms` at (position - center) / UNIT on the grid."""

    solutions: NDArray[Any]  # (n, 3 or 6)
    center: NDArray[Any]  # (x, y) on the grid, pixels


def evaluate_surface(solution: NDArray[Any], center: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """The sky of an image at places (x, y) [n, 2] on the grid."""
    x, y = ((places - center) / UNIT).T
    found: NDArray[Any] = surface_terms(y, x, 1 if len(solution) == 3 else 2) @ solution
    return found


def match_surfaces(tables: list[Cells], columns: int) -> Surfaces | None:
    """What differs between the skies of images beyond their levels, from their cells; None if that is nothing.

    The cells are those without these levels. Sums over images are zero: what all have in common stays. ``columns`` is
    the grid's width in pixels.
    """
    across = columns // CELL + 3
    places = [np.stack(np.divmod(t.cell, across)[::-1]).T * float(CELL) - CELL / 2 for t in tables]
    center = np.concatenate(places).mean(axis=0)
    n, degree = len(tables), 2 if _share_most(tables) else 1
    k = 3 if degree == 1 else 6
    normal, target = np.zeros((n, k, n, k)), np.zeros((n, k))
    scatters = []
    for i, j in combinations(range(n), 2):
        _, at, to = np.intersect1d(tables[i].cell, tables[j].cell, assume_unique=True, return_indices=True)
        x, y = ((places[i][at] - center) / UNIT).T
        fit = fit_surface(y, x, tables[i].level[at] - tables[j].level[to], degree)
        if fit is None or not fit.scatter > 0:
            continue
        part = fit.normal / fit.scatter**2
        scatters.append(fit.scatter)
        normal[i, :, i] += part
        normal[j, :, j] += part
        normal[i, :, j] -= part
        normal[j, :, i] -= part
        target[i] += part @ fit.solution
        target[j] -= part @ fit.solution
    if not scatters:
        return None
    solutions = np.linalg.lstsq(normal.reshape(k * n, k * n), target.ravel(), rcond=1e-10)[0].reshape(n, k)
    change = [
        np.ptp(evaluate_surface(s, center, p)) if len(p) else 0.0 for p, s in zip(places, solutions, strict=True)
    ]
    return Surfaces(solutions, center) if max(change) > STANDS_OUT * np.median(scatters) else None


def _share_most(tables: list[Cells]) -> bool:
    """Whether others saw most of the cells of every image: a bent surface must not run on far from what is known."""
    cells, number = np.unique(np.concatenate([t.cell for t in tables]), return_counts=True)
    common = cells[number >= 2]
    return all(np.isin(t.cell, common).sum() >= SHARED * len(t.cell) for t in tables)


def match_levels(tables: list[Cells]) -> Matched:
    """Relative sky levels of all images from their cells; an image that overlaps nothing keeps 0."""
    n = len(tables)
    rows, target = [], []
    links = np.arange(n)
    for i in range(n):
        for j in range(i + 1, n):
            one, two = tables[i], tables[j]
            if not len(one.cell) or not len(two.cell) or one.cell[0] > two.cell[-1] or two.cell[0] > one.cell[-1]:
                continue
            _, at, to = np.intersect1d(one.cell, two.cell, assume_unique=True, return_indices=True)
            if len(at) < MIN_COMMON:
                continue
            middle, scatter = median_mad(one.level[at] - two.level[to])
            weight = np.sqrt(len(at)) / max(scatter, 1e-12 + 1e-6 * abs(middle))
            row = np.zeros(n)
            row[i], row[j] = weight, -weight
            rows.append(row)
            target.append(weight * middle)
            links[links == links[j]] = links[i]
    if not rows:
        return Matched(np.zeros(n), n)
    names = np.unique(links)
    strong = max(np.abs(row).max() for row in rows)
    for name in names:
        rows.append((links == name) * strong)
        target.append(0.0)
    levels = np.linalg.lstsq(np.array(rows), np.array(target), rcond=None)[0]
    return Matched(levels, len(names))
