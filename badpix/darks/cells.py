"""Cells: the pixels of one amplifier in a few rows, over whose median the pixels of a dark are measured.

Offsets of amplifiers, what the pipeline left of the 1/f noise, and drifts that all pixels share are the same for
the pixels of a cell, and go with its median. A frame is cut into *tiles* of a few rows at fixed places, and each
tile into cells, so what is measured of a pixel does not depend on how the frame is cut into bands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.columns import take_columns

CELL_PIXELS = 512  # aimed at in a cell
SAMPLE_PIXELS = 128  # of these for the median: it adds 1.2 % to the variance of a ramp's noise
MAX_TILE_ROWS = 16
QUIET_PART, HIT = 0.2, 4.5  # part of a cell's pixels surely without a hit; sigma of a step from which on it is one
LEAST_GROUPS = 5  # in which steps tell hits from noise
LEAST_SAMPLE = 24  # pixels without hits from which on the others are left out

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Cells:
    """How a frame is cut for the medians: tiles of ``rows`` rows, and in each the columns of every cell."""

    rows: int
    columns: tuple[slice, ...]


def make_cells(amplifiers: NDArray[np.uint8], reference: NDArray[np.bool_]) -> Cells:
    """Cells of a frame: one amplifier each, at least 512 pixels where the frame is large enough.

    Parameters
    ----------
    amplifiers : ndarray
        (ny, nx) number of the amplifier of each pixel.
    reference : ndarray
        (ny, nx) bool; columns of reference pixels alone belong to no cell.
    """
    science = np.flatnonzero(~reference.all(axis=0))
    first, last = (int(science[0]), int(science[-1]) + 1) if len(science) else (0, reference.shape[1])
    row = amplifiers[len(amplifiers) // 2, first:last]
    if np.any(np.diff(row.astype(int)) < 0):  # interleaved: every fourth column
        columns = tuple(slice(first + k, last, 4) for k in range(4))
    else:
        edges = [0, *(np.flatnonzero(np.diff(row)) + 1), len(row)]
        columns = tuple(part for a, b in pairwise(edges) for part in _split(first + int(a), first + int(b)))
    narrowest = min(len(range(c.start, c.stop, c.step or 1)) for c in columns)
    rows = 2
    while rows < MAX_TILE_ROWS and rows * narrowest < CELL_PIXELS:
        rows *= 2
    return Cells(rows, columns)


def _split(start: int, stop: int) -> list[slice]:
    """Equal runs of about 512 columns."""
    parts = max(1, round((stop - start) / CELL_PIXELS))
    edges = [start + (stop - start) * k // parts for k in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def measure_medians(values: Array, cells: Cells) -> Array:
    """Median of each plane over each cell: (planes, number of tiles, number of cells in a tile).

    ``values`` is (planes, rows, nx) in any byte order, a whole number of tiles except at the end of the frame; about
    128 pixels of a cell are used, NaN are left out. A cell without any finite value gives 0.
    """
    return _over_tiles(values, cells, _median)


def measure_drift(ramps: Array, cells: Cells) -> Array:
    """Median over each cell of (group - first group), plus that of the first group: (groups, tiles, cells).

    Ramps with hits are left out: where most have some, the median of all would wander with them, and with it every
    pixel of the cell, as if it switched.
    """
    return _over_tiles(ramps, cells, _median_drift)


def _over_tiles(values: Array, cells: Cells, measure: Callable[[Array], Array]) -> Array:
    """``measure`` of the sampled pixels of all cells, many cells and tiles in one call."""
    planes, height, nx = values.shape
    flat, whole = values.reshape(planes, -1), height // cells.rows
    found = np.empty((planes, -(-height // cells.rows), len(cells.columns)), np.float32)
    edges = tuple((c.start, c.stop, c.step or 1) for c in cells.columns)
    for first, tiles, rows in ((0, whole, cells.rows), (whole, 1, height - whole * cells.rows)):
        if not tiles or not rows:
            continue
        for which, places in _choose_places(edges, rows, nx):
            at = np.arange(first, first + tiles)[:, None, None] * (cells.rows * nx) + places
            sample = take_columns(flat, at.reshape(-1))  # swapped afterwards: both steps are fast
            found[:, first : first + tiles, which] = measure(
                sample.astype(np.float32, copy=False).reshape(planes, tiles, *places.shape)
            )
    return found


@lru_cache(maxsize=16)
def _choose_places(
    columns: tuple[tuple[int, int, int], ...], rows: int, nx: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Evenly spaced pixels of the cells of a tile: cells of as many, and their flat indices (cells, pixels)."""
    chosen: dict[int, list[tuple[int, NDArray[np.intp]]]] = {}
    for k, (start, stop, step) in enumerate(columns):
        x = np.arange(start, stop, step)
        x = x[:: max(-(-rows * len(x) // SAMPLE_PIXELS), 1)]
        places = (np.arange(rows)[:, None] * nx + x).reshape(-1)
        chosen.setdefault(len(places), []).append((k, places))
    return [(np.array([k for k, _ in some]), np.stack([p for _, p in some])) for some in chosen.values()]


def _median_drift(sample: Array) -> Array:
    level = _median(sample[:1].copy())
    sample -= sample[0].copy()
    if len(sample) < LEAST_GROUPS:
        return _median(sample) + level
    hit = _find_hits(sample)
    sample += np.where(hit, np.float32(np.inf), np.float32(0))
    sample.sort(axis=-1)
    if np.isnan(sample[..., -1]).any():
        return _lower_middle(sample, np.isfinite(sample).sum(axis=-1)) + level
    middle = (sample.shape[-1] - hit.sum(axis=-1).reshape(-1) - 1) // 2
    at = np.arange(middle.size) * sample.shape[-1] + middle
    found: Array = sample.reshape(len(sample), -1).take(at, axis=1).reshape(sample.shape[:-1])
    return found + level


def _find_hits(sample: Array) -> NDArray[np.bool_]:
    """Ramps (groups, tiles, cells, pixels) with a step up beyond those of quiet ones: (tiles, cells, pixels)."""
    with np.errstate(invalid="ignore"):
        largest = np.fmax.reduce(np.subtract(sample[1:], sample[:-1]), axis=0)
        ordered = np.sort(largest, axis=-1)
        usual = NormalDist().inv_cdf(QUIET_PART ** (1 / (len(sample) - 1)))  # sigma: the largest step of a quiet ramp
        hit: NDArray[np.bool_] = (
            largest > np.float32(HIT / usual) * ordered[..., int(QUIET_PART * ordered.shape[-1]), None]
        )
    hit &= (~hit).sum(axis=-1, keepdims=True) >= LEAST_SAMPLE
    return hit


def _median(sample: Array) -> Array:
    """Lower median along the last axis without NaN; 0 where there is nothing else. The sample is sorted."""
    sample.sort(axis=-1)
    last = sample.shape[-1] - 1
    if not np.isnan(sample[..., last]).any():
        return sample[..., last // 2].copy()
    return _lower_middle(sample, last + 1 - np.isnan(sample).sum(axis=-1))


def _lower_middle(ordered: Array, count: NDArray[np.intp]) -> Array:
    """Lower median of the first ``count`` values along the last axis; 0 where there is none."""
    found = np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None] // 2, axis=-1)[..., 0]
    return np.where(count > 0, found, np.float32(0))


def subtract(values: Array, medians: Array, cells: Cells) -> None:
    """Take the medians of their cells off ``values`` (planes, rows, nx), in place."""
    for t, y in enumerate(range(0, values.shape[1], cells.rows)):
        subtract_tile(values[:, y : y + cells.rows], medians[:, t], cells)


def subtract_tile(tile: Array, medians: Array, cells: Cells) -> None:
    """Take its medians (planes, cells) off a tile (planes, rows, nx), in place."""
    tile -= spread(medians, cells, np.zeros((len(tile), tile.shape[2]), np.float32))[:, None]


def spread(medians: Array, cells: Cells, out: Array) -> Array:
    """Medians (planes, cells) at the columns of their cells: ``out`` (planes, nx), whose other columns stay."""
    for k, columns in enumerate(cells.columns):
        out[:, columns] = medians[:, k, None]
    return out


def subtract_lines(lines: Array, offset: Array) -> None:
    """Take ``offset`` (planes, nx) off lines (planes, n * nx), in place."""
    rows = lines.reshape(len(offset), -1, offset.shape[1])
    rows -= offset[:, None]


def take(values: Array, pixels: NDArray[np.intp], medians: Array, cells: Cells) -> Array:
    """Some pixels of ``values`` (flat indices) minus the medians of their cells: (planes, number of pixels)."""
    out = take_columns(values.reshape(len(values), -1), pixels).astype(np.float32)
    out -= pick(medians, pixels, values.shape[2], cells)
    return out


def pick(medians: Array, pixels: NDArray[np.intp], nx: int, cells: Cells) -> Array:
    """The medians (..., tiles, cells) at some pixels (flat indices), 0 in columns without a cell: (..., pixels)."""
    of_column = np.full(nx, -1)
    for k, columns in enumerate(cells.columns):
        of_column[columns] = k
    cell, tile = of_column[pixels % nx], pixels // (nx * cells.rows)
    return np.where(cell >= 0, medians[..., tile, cell], np.float32(0))
