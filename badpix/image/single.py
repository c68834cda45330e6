"""Pixels that one exposure alone saw: flagged where they are sharper than any star, and no star's diffraction ring.

1. Sharpness T = 1 - min over the two axes of (mean of the opposite neighbours)/v, v = SCI - median of 7x7.
2. Yardstick: T of the stars of all exposures that others saw too, alone in 15x15; nothing is a star above their 99 %
   quantile plus 0.05 (not decided with fewer than 100 stars).
3. Candidates: v > 10 sigma, in a field that nobody else saw (not in the hole that a saturated core leaves in the
   others), and brighter than 5 % of the brightest pixel in 15x15, whose diffraction ring they might be.
4. Flagged where T exceeds the limit by 3 sigma.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.medians import median_rows
from badpix.numerics.neighbors import chunks, gather, locate

PEAK_SIGMA = 30.0  # of stars that tell how sharp a star is
SEEN_ELSEWHERE = 0.5
ALONE = 7  # pixels around a yardstick without a brighter one ...
ALONE_MISSING = 4  # ... and with so many missing ones at most
AROUND = 3  # pixels to each side, over which level and holes are measured
SHARP_SIGMA = 10.0
RING = 0.05  # of the brightest pixel around, below which a sharp pixel may be its diffraction ring
SHARP_MARGIN = 3.0
SHARP_QUANTILE = 0.99
SHARP_OFFSET = 0.05
MIN_PEAKS = 100
HOLE_SEEN = 24  # pixels of 7x7 that others saw, above which a pixel without others lies in a hole


class Sharpness(NamedTuple):
    """Stars of one exposure as a yardstick, and the pixels without another exposure that it will decide on."""

    stars: NDArray  # T of unflagged local maxima
    ys: NDArray
    xs: NDArray
    height: NDArray  # v / s0 of the candidates
    sharpness: NDArray  # their T


def measure_sharpness(sci: NDArray, err: NDArray, cover: NDArray, flagged: NDArray, model: NDArray) -> Sharpness:
    """T = 1 - min over the two axes of (mean of the opposite neighbours)/v, v = SCI - median of 7x7.

    Parameters
    ----------
    sci : float32 (ny, nx)
        NaN on bad pixels.
    err : float32 (ny, nx)
        Positive noise.
    cover : uint8 (ny, nx)
        m.
    flagged : bool (ny, nx)
        What the test flagged.
    model : float32 (ny, nx)
        A yardstick must be seen by the others too: half of its height at least.
    """
    level, floor = _middle(sci), _middle(model)
    with np.errstate(invalid="ignore"):
        ys, xs = locate((sci - level > PEAK_SIGMA * err) & (cover > 0) & ~flagged)
        near = gather(sci, ys, xs, 1)
        clean = ~(gather(flagged.astype(np.float32), ys, xs, 1) > 0).any(axis=0)
        clean &= model[ys, xs] - floor > SEEN_ELSEWHERE * (sci[ys, xs] - level)
        peak = (near[4] >= np.nanmax(near, axis=0)) & np.isfinite(near).all(axis=0) & clean if len(ys) else clean
    peak[peak] = _is_alone(sci, ys[peak], xs[peak])
    v, t = _sharpness_at(sci, ys[peak], xs[peak])
    stars = t[v > PEAK_SIGMA * err[ys[peak], xs[peak]]]
    alone = (cover == 0) & np.isfinite(sci)
    with np.errstate(invalid="ignore"):  # the median around a pixel is hardly ever far below the sky
        ys, xs = locate(alone & (sci - level > SHARP_SIGMA / 2 * err))
    v, t = _sharpness_at(sci, ys, xs)
    height = v / err[ys, xs]
    keep = (height > SHARP_SIGMA) & _is_open(sci, cover, ys, xs)
    keep[keep] = v[keep] > RING * (_brightest(sci, ys[keep], xs[keep]) - level)
    return Sharpness(stars, ys[keep], xs[keep], height[keep], t[keep])


def _is_open(sci: NDArray, cover: NDArray, ys: NDArray, xs: NDArray) -> NDArray:
    """Pixels of a field that nobody else saw: not beside a missing pixel, which may be a saturated core, and not in
    the hole that such a core leaves in the other exposures."""
    whole = ~np.isnan(gather(sci, ys, xs, 1)).any(axis=0)
    seen = (gather(cover.astype(np.float32), ys, xs, AROUND) > 0).sum(axis=0)
    missing = np.isnan(gather(sci, ys, xs, AROUND)).sum(axis=0) - _beyond(sci.shape, ys, xs, AROUND)
    is_open: NDArray = whole & ((seen <= HOLE_SEEN) | (missing == 0))
    return is_open


def _brightest(sci: NDArray, ys: NDArray, xs: NDArray) -> NDArray:
    """The largest value in 15x15 pixels around each."""
    largest = np.empty(len(ys), sci.dtype)
    for part in chunks(len(ys)):
        largest[part] = np.fmax.reduce(gather(sci, ys[part], xs[part], ALONE), axis=0)
    return largest


def _beyond(shape: tuple[int, int], ys: NDArray, xs: NDArray, reach: int) -> NDArray:
    """How many of the (2 reach + 1)^2 pixels around each lie beyond the frame."""
    inside = [np.minimum(v, reach) + np.minimum(n - 1 - v, reach) + 1 for v, n in ((ys, shape[0]), (xs, shape[1]))]
    return (2 * reach + 1) ** 2 - inside[0] * inside[1]


def _is_alone(sci: NDArray, ys: NDArray, xs: NDArray) -> NDArray:
    """Peaks without a brighter pixel or a saturated core near: the speckles around a bright star are too sharp."""
    around = gather(sci, ys, xs, ALONE)
    missing = np.isnan(around).sum(axis=0)
    return (np.fmax.reduce(around, axis=0, initial=-np.inf) <= sci[ys, xs]) & (missing <= ALONE_MISSING)


def _middle(image: NDArray) -> np.float32:
    """Median of a sample of the image; 0 where it is empty."""
    sample = image[::5, ::5]
    return np.float32(np.nanmedian(sample)) if np.isfinite(sample).any() else np.float32(0)


def _sharpness_at(sci: NDArray, ys: NDArray, xs: NDArray) -> tuple[NDArray, NDArray]:
    """v and T of some pixels."""
    v, t = np.empty(len(ys), np.float32), np.empty(len(ys), np.float32)
    for part in chunks(len(ys)):
        level = median_rows(np.ascontiguousarray(gather(sci, ys[part], xs[part], AROUND).T))
        near = gather(sci, ys[part], xs[part], 1) - level
        centre = near[4]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = np.stack([_opposite_mean(near[3], near[5]), _opposite_mean(near[1], near[7])]) / centre
        v[part] = centre
        t[part] = 1 - np.min(np.where(np.isfinite(ratios), ratios, 1), axis=0)
    return v, t


def _opposite_mean(a: NDArray, b: NDArray) -> NDArray:
    """Mean of two values, one of them where the other is missing."""
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, (a + b) / 2))


def sharpness_limit(stars: NDArray) -> float | None:
    """T above which nothing is a star: the 99 % quantile plus 0.05; None with fewer than 100 stars."""
    if len(stars) < MIN_PEAKS:
        return None
    return float(np.quantile(stars, SHARP_QUANTILE)) + SHARP_OFFSET


def find_sharp(candidates: Sharpness, limit: float, shape: tuple[int, int]) -> NDArray:
    """Pixels without another exposure that are sharper than any star by 3 sigma."""
    found = np.zeros(shape, bool)
    hit = candidates.height * (candidates.sharpness - limit) > SHARP_MARGIN
    found[candidates.ys[hit], candidates.xs[hit]] = True
    return found
