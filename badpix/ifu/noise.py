"""The noise of IFU exposures: ERR gives the pattern, the data give the size.

1. *Sigma* of a pixel is ERR. Where ERR can't be right it is the largest of its neighbors, which share a source and
   its photon noise, and of a usual value.
2. The *level* ``c`` of a detector is the smallest of three robust scatters, on a sample of bands: of the residuals
   along x and along y, and of the differences between exposures. Structure only raises them.
3. The *noise* of a pixel is c; where the smaller residual is locally (median over exposures, then in
   ``kernel_size``) larger than usual, the noise is that much larger.

It is step 2 of :mod:`badpix.ifu.significance`. A :class:`Band` holds all exposures of a band with a frame of NaN, so
that neighbors of any pixel can be looked up without asking where the frame ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.ifu.residuals import Residuals, measure_axes, measure_residuals, pad
from badpix.numerics.clipping import median
from badpix.numerics.medians import local_median, lower_median_along, median_along, median_rows, windows_around
from badpix.numerics.neighbors import chunks, offsets

GRID = 3  # the local residual is smooth: its median is taken at every third row and column
REACH = 4  # pixels by which neighbors of neighbors reach over the edge

# Median of the absolute residual along one axis for unit Gaussian noise: 0.6745 * sqrt(1 + 0.298).
_RESIDUAL_MEDIAN = 0.7680
# Difference from the lower median of n exposures and from its 24 neighbors, for unit Gaussian noise (simulated,
# 5e5 pixels an exposure): its 99.9 % quantile over that of a Gaussian; its median, exact zeros left out.
_STACKS = (2, 3, 4, 5, 6, 8, 12, 20, 40)
_TAIL_BETWEEN = (1.285, 1.107, 1.123, 1.076, 1.082, 1.062, 1.052, 1.038, 1.034)
_MEDIAN_BETWEEN = (0.448, 0.633, 0.562, 0.603, 0.597, 0.611, 0.632, 0.653, 0.674)


@dataclass(frozen=True)
class Level:
    """Noise of one detector: ``scale`` is c, ``usual`` the median over the frame of the local residual.

    ``offsets`` holds, for each exposure, by how much it lies above the first one, in the unit of SCI (empty: 0);
    ``sizes`` its usual sigma (empty: equal ones).
    """

    scale: float
    usual: float
    offsets: tuple[float, ...] = ()
    sizes: tuple[float, ...] = ()


def measure_sigma(err: NDArray[Any], sci: NDArray[Any], *, usual: float | None = None) -> NDArray[Any]:
    """Sigma of one exposure: ERR, and the largest one around it, at least a usual value, where ERR can't be right.

    Parameters
    ----------
    err, sci : ndarray of float32, shape (ny, nx)
        Pixels that are NaN in ``sci`` don't matter.
    usual : float, optional
        What replaces ERR where it is not finite or not positive; the median of the others if not given.
    """
    good = np.isfinite(err) & (err > 0)
    used = np.isfinite(sci)
    if not (used & ~good).any():
        return err
    if usual is None:
        usual = float(median(err[good & used])) if (good & used).any() else 1.0
    out = np.where(good, err, np.float32(usual))
    at = np.flatnonzero(used & ~good)
    around = pad(np.where(good, err, np.float32(np.nan)), 1)
    y, x = np.divmod(at, err.shape[1])
    near = ((y + 1) * around.shape[1] + x + 1)[:, None] + offsets(3, 3, around.shape[1])
    out.reshape(-1)[at] = np.fmax(np.fmax.reduce(around.reshape(-1)[near], axis=1), np.float32(usual))
    return out


# --- between exposures -----------------------------------------------------------------------------------


def measure_common(sci: list[NDArray[Any]]) -> NDArray[Any]:
    """What the exposures have in common, for a search for too high values: their lower median.

    NaN where fewer than two are valid. Not the mean of the middle two: a pixel that is too high in 2 of 4 would show
    half its amplitude in the bad exposures and minus half in the good ones. For too low values, turn the signs.
    """
    reference = lower_median_along(sci)
    valid = np.add.reduce([~np.isnan(s) for s in sci], dtype=np.uint16)
    reference[valid < 2] = np.nan
    return reference


def stand_out(difference: NDArray[Any], at: NDArray[Any]) -> NDArray[Any]:
    """Difference between exposures minus its median over the 24 neighbors."""
    around = offsets(5, 5, difference.shape[1])
    flat = difference.reshape(-1)
    out = np.empty(at.size, np.float32)
    for chunk in chunks(at.size):
        out[chunk] = flat[at[chunk]] - median_rows(flat[at[chunk, None] + around])
    return out


def tail_between(exposures: int, sizes: tuple[float, ...] = (), e: int = 0) -> float:
    """By how much the difference of an exposure from all has wider tails than a Gaussian of its own scatter.

    Most of what the tail has beyond 1 is noise of the others: more in a deep exposure among short ones.
    """
    tail = float(np.interp(exposures, _STACKS, _TAIL_BETWEEN))
    if not sizes or sizes[e] == 0:
        return tail
    others = float(np.median(sizes[:e] + sizes[e + 1 :]))
    return max(tail, math.sqrt(1 + (tail**2 - 1) * (others / sizes[e]) ** 2))


# --- the level -------------------------------------------------------------------------------------------


def sample_band(
    sci: list[NDArray[Any]], sigma: list[NDArray[Any]], kernel: tuple[int, int], core: slice
) -> list[NDArray[Any]]:
    """What the noise level is measured on: residuals along x, along y, between exposures; local residuals.

    Behind these four, for each exposure, its differences from the first one; then, for each, sigma.

    Parameters
    ----------
    sci, sigma : list of ndarray, shape (ny, nx)
        One band of all exposures, with neighboring rows.
    kernel : (int, int)
        Window of the local median.
    core : slice
        The rows that count.
    """
    sci = [pad(s, REACH) for s in sci]
    sigma = [pad(s, REACH) for s in sigma]
    rows = slice(core.start + REACH, core.stop + REACH)
    n = len(sci)
    axes = [[np.abs(r) for r in measure_axes(s, e)] for s, e in zip(sci, sigma, strict=True)]
    local = median_along([np.minimum(x, y) for x, y in axes])
    where = _grid(local.shape, 0, 0)
    where[: rows.start] = where[rows.stop :] = False
    wide = local_median(local, kernel, outside=np.nan, where=where)[where]
    between, offsets = [np.empty(0, np.float32)], [(s - sci[0])[rows].reshape(-1)[::7] for s in sci]
    offsets = [d[np.isfinite(d)] for d in offsets]
    if n >= 3:
        level = [median(d) if d.size else np.float32(0) for d in offsets]
        sci = [s - o for s, o in zip(sci, level, strict=True)]
        reference = measure_common(sci)
        inside = np.zeros(reference.shape, bool)
        inside[rows, REACH:-REACH] = True
        for s, e in zip(sci, sigma, strict=True):
            difference = (s - reference) / e
            at = np.flatnonzero(inside & np.isfinite(difference))[::7]
            between.append(np.abs(stand_out(difference, at)))
    samples = [np.concatenate([pair[k][rows].reshape(-1) for pair in axes]) for k in (0, 1)]
    sizes = [e[rows][np.isfinite(s[rows])][::7] for s, e in zip(sci, sigma, strict=True)]
    samples += [np.concatenate(between), wide]
    return [*(_measured(v) for v in samples), *offsets, *sizes]


def _measured(values: NDArray[Any]) -> NDArray[Any]:
    """Without NaN and exact zeros: gaps that were filled with 0 say nothing about the noise."""
    found: NDArray[Any] = values[np.isfinite(values) & (values != 0)]
    return found


def measure_level(samples: list[list[NDArray[Any]]], exposures: int) -> Level | None:
    """The noise level of a detector from the samples of its bands; None where nothing was measured."""
    x, y, between, local, *of_each = (np.concatenate(part) for part in zip(*samples, strict=True))
    scales = [float(median(v)) / _RESIDUAL_MEDIAN for v in (x, y) if v.size]
    if exposures >= 3 and between.size:
        scales.append(float(median(between)) / float(np.interp(exposures, _STACKS, _MEDIAN_BETWEEN)))
    if not scales or not local.size or min(scales) == 0:
        return None
    middles = [float(median(v)) if v.size else 0.0 for v in of_each]
    offsets, sizes = tuple(middles[:exposures]), tuple(middles[exposures:])
    return Level(min(scales), max(float(median(local)), 1e-30), offsets, sizes)


# --- a band ----------------------------------------------------------------------------------------------


@dataclass
class Band:
    """One band of all exposures of a detector, padded, with everything that the tests need."""

    sci: list[NDArray[Any]]
    sigma: list[NDArray[Any]]
    residuals: list[Residuals]
    beside: np.ndarray  # residual across the slices that is nearest to zero, if all have one sign, else 0
    noise: NDArray[Any]
    across: int  # axis across the slices
    offsets: tuple[float, ...]  # of each exposure from the first, in the unit of SCI
    sizes: tuple[float, ...]  # usual sigma of each exposure; empty: equal ones

    @property
    def stride(self) -> int:
        """Distance in memory between rows."""
        found: int = self.noise.shape[1]
        return found

    @property
    def steps(self) -> tuple[int, int]:
        """Distances in memory from a pixel to the next along the dispersion, and across it."""
        return (self.stride, 1) if self.across == 1 else (1, self.stride)

    def around(self, window: tuple[int, int]) -> NDArray[Any]:
        """Distances in memory of a window (along the dispersion, across it), the pixel itself among them."""
        return offsets(*(window if self.across == 1 else window[::-1]), self.stride, center=True)


def _grid(shape: tuple[int, int], y: int, x: int) -> NDArray[Any]:
    """Every fourth pixel of a frame, on a part of it that begins at (y, x)."""
    where = np.zeros(shape, bool)
    where[-y % GRID :: GRID, -x % GRID :: GRID] = True
    return where


def _measure_wide(local: NDArray[Any], kernel: tuple[int, int], y: int, x: int) -> NDArray[Any]:
    """Median in a window around every third pixel, given to the pixels nearest to it."""
    windows = windows_around(local, kernel, np.nan)[-y % GRID :: GRID, -x % GRID :: GRID]
    wide = np.stack([median_rows(row.reshape(len(row), -1)) for row in windows])
    nearest = [
        np.clip((np.arange(size) - start % GRID + GRID // 2) // GRID, 0, count - 1)
        for size, count, start in zip(local.shape, wide.shape, (-y, -x), strict=True)
    ]
    found: NDArray[Any] = np.take(wide[nearest[0]], nearest[1], axis=1)  # [:, columns] would lie across in memory
    return found


def _measure_exposures(
    sci: list[NDArray[Any]], sigma: list[NDArray[Any]], across: int
) -> tuple[list[Residuals], list[NDArray[Any]], NDArray[Any]]:
    """Residuals of all exposures, the smaller of both axes, and the least of all across the slices."""
    residuals, smaller = [], []
    low, high = np.full_like(sci[0], np.inf), np.full_like(sci[0], -np.inf)

    def look(rows: slice, along_x: NDArray[Any], along_y: NDArray[Any]) -> None:
        beside = along_x if across == 1 else along_y
        np.fmin(low[rows], beside, out=low[rows])
        np.fmax(high[rows], beside, out=high[rows])

    for s, e in zip(sci, sigma, strict=True):
        both, least = measure_residuals(s, e, look)
        residuals.append(both)
        smaller.append(least)
    unseen = np.isinf(low)
    low[unseen] = high[unseen] = 0
    np.maximum(low, 0, out=low)
    low += np.minimum(high, 0, out=high)
    return residuals, smaller, low


def prepare_band(
    sci: list[NDArray[Any]],
    sigma: list[NDArray[Any]],
    level: Level,
    kernel: tuple[int, int],
    noise: str,
    width: int,
    across: int = 1,
    first_row: int = 0,
) -> Band:
    """Residuals and noise of a band.

    Parameters
    ----------
    sci, sigma : list of ndarray of float32, shape (ny, nx)
        One band of each exposure; NaN where not usable.
    level : Level
        Noise of the detector.
    kernel : (int, int)
        Window of the local median.
    noise : str
        ``err``: sigma is the noise; else the level and the local residuals count, too.
    width : int
        Pixels of NaN around the frame.
    across : int
        Axis across the slices.
    first_row : int
        Row of the frame that the band begins with.
    """
    sci, sigma = [pad(s, width) for s in sci], [pad(s, width) for s in sigma]
    residuals, smaller, beside = _measure_exposures(sci, sigma, across)
    if noise == "err":
        size = np.ones_like(sci[0])
    else:
        wide = _measure_wide(median_along(smaller), kernel, first_row - width, -width)
        size = np.float32(level.scale) * np.fmax(wide / np.float32(level.usual), np.float32(1))
    above = level.offsets or (0.0,) * len(sci)
    return Band(sci, sigma, residuals, beside, size, across, above, level.sizes)


def measure_eta(
    sci: list[NDArray[Any]], sigma: list[NDArray[Any]], level: Level, kernel: tuple[int, int], noise: str
) -> NDArray[Any]:
    """All finite values of eta in a band, in units of the noise, exact zeros left out."""
    band = prepare_band(sci, sigma, level, kernel, noise, REACH)
    return _measured(np.concatenate([(r.eta / band.noise).reshape(-1) for r in band.residuals]))
