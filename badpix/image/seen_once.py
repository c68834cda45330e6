"""Pixels that one exposure alone saw: flagged where they are sharper than a star can be, and no diffraction ring.

1. Sharpness: v = pixel minus the median of 7x7; b = what is left beside it: the sum of its 8 neighbors, above that
   median, without the two that hold most and lie across from each other (at 135 degrees or more): a track enters by
   one and leaves by the other. T = 1 - b / (6 v): 1 for a single hit and along a thin track, less for a star, whose
   light surrounds its peak.
2. Yardstick: T of the stars of all exposures that others saw too, alone in 15x15; nothing is a star above their 99 %
   quantile plus 0.02, with fewer than 30 of them above their largest plus more. Nor below the T of a star as narrow
   as diffraction allows, centered on a pixel (its peak as a Gaussian, without rings and other losses:
   :func:`expected_sharpness`); with fewer than 5 stars, of one of 0.9 of that width.
3. Candidates: v > 10 sigma (of the pixel, or of the scatter in 7x7 where that is larger, as beside saturated stars),
   in a field that nobody else saw (not in the hole that a saturated core leaves in the others), and brighter than 5 %
   of the brightest pixel in 15x15, whose diffraction ring they might be.
4. Flagged where T exceeds the limit by 3 sigma of the six neighbors, and beside those, twice, where it is at most 0.2
   below: a track that bends surrounds its pixels too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.io.cal import CalFile
from badpix.numerics.medians import median_rows
from badpix.numerics.neighbors import chunks, gather, grow, locate

PEAK_SIGMA = 30.0  # of stars that tell how sharp a star is
SEEN_ELSEWHERE = 0.5
ALONE = 7  # pixels around a yardstick without a brighter one ...
ALONE_MISSING = 4  # ... and with so many missing ones at most
AROUND = 3  # pixels to each side, over which level and holes are measured
SHARP_SIGMA = 10.0
RING = 0.05  # of the brightest pixel around, below which a sharp pixel may be its diffraction ring
SHARP_MARGIN = 3.0
BESIDE = 0.2  # less sharpness is enough beside a hit: where a track bends, light surrounds it too
SHARP_QUANTILE = 0.99
SHARP_OFFSET = 0.02
MIN_PEAKS = 30
FEW_PEAKS = 5
UNSURE = 0.9  # of the width of diffraction, where no star tells
DIFFRACTION = 0.0327  # arcsec a micron of wavelength: the width of the peak, 1.03 wavelengths over 6.5 m
NARROWEST = 0.9  # pixels, where neither filter nor instrument tell the width
_RING = (0, 1, 2, 5, 8, 7, 6, 3)  # of 3x3, in turn
HOLE_SEEN = 24  # pixels of 7x7 that others saw, above which a pixel without others lies in a hole


class Sharpness(NamedTuple):
    """Stars of one exposure as a yardstick, and the pixels without another exposure that it will decide on."""

    stars: NDArray[Any]  # T of unflagged local maxima
    ys: NDArray[Any]
    xs: NDArray[Any]
    height: NDArray[Any]  # v / s0 of the candidates
    sharpness: NDArray[Any]  # their T


def measure_sharpness(
    sci: NDArray[Any], err: NDArray[Any], cover: NDArray[Any], flagged: NDArray[Any], model: NDArray[Any]
) -> Sharpness:
    """The sharpness T of the stars and of the candidates of one exposure.

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
    v, t, _ = _sharpness_at(sci, ys[peak], xs[peak])
    stars = t[v > PEAK_SIGMA * err[ys[peak], xs[peak]]]
    alone = (cover == 0) & np.isfinite(sci)
    with np.errstate(invalid="ignore"):  # the median around a pixel is hardly ever far below the sky
        ys, xs = locate(alone & (sci - level > SHARP_SIGMA / 2 * err))
    v, t, scatter = _sharpness_at(sci, ys, xs)
    height = v / np.fmax(err[ys, xs], scatter)
    keep = (height > SHARP_SIGMA) & _is_open(sci, cover, ys, xs)
    keep[keep] = v[keep] > RING * (_brightest(sci, ys[keep], xs[keep]) - level)
    return Sharpness(stars, ys[keep], xs[keep], height[keep], t[keep])


def _is_open(sci: NDArray[Any], cover: NDArray[Any], ys: NDArray[Any], xs: NDArray[Any]) -> NDArray[Any]:
    """Pixels of a field that nobody else saw: not beside a missing pixel, which may be a saturated core, and not in
    the hole that such a core leaves in the other exposures."""
    whole = ~np.isnan(gather(sci, ys, xs, 1)).any(axis=0)
    seen = (gather(cover.astype(np.float32), ys, xs, AROUND) > 0).sum(axis=0)
    missing = np.isnan(gather(sci, ys, xs, AROUND)).sum(axis=0) - _beyond(sci.shape, ys, xs, AROUND)
    is_open: NDArray[Any] = whole & ((seen <= HOLE_SEEN) | (missing == 0))
    return is_open


def _brightest(sci: NDArray[Any], ys: NDArray[Any], xs: NDArray[Any]) -> NDArray[Any]:
    """The largest value in 15x15 pixels around each."""
    largest = np.empty(len(ys), sci.dtype)
    for part in chunks(len(ys)):
        largest[part] = np.fmax.reduce(gather(sci, ys[part], xs[part], ALONE), axis=0)
    return largest


def _beyond(shape: tuple[int, int], ys: NDArray[Any], xs: NDArray[Any], reach: int) -> NDArray[Any]:
    """How many of the (2 reach + 1)^2 pixels around each lie beyond the frame."""
    inside = [np.minimum(v, reach) + np.minimum(n - 1 - v, reach) + 1 for v, n in ((ys, shape[0]), (xs, shape[1]))]
    found: NDArray[Any] = (2 * reach + 1) ** 2 - inside[0] * inside[1]
    return found


def _is_alone(sci: NDArray[Any], ys: NDArray[Any], xs: NDArray[Any]) -> NDArray[Any]:
    """Peaks without a brighter pixel or a saturated core near: the speckles around a bright star are too sharp."""
    around = gather(sci, ys, xs, ALONE)
    missing = np.isnan(around).sum(axis=0)
    found: NDArray[Any] = (np.fmax.reduce(around, axis=0, initial=-np.inf) <= sci[ys, xs]) & (
        missing <= ALONE_MISSING
    )
    return found


def _middle(image: NDArray[Any]) -> np.float32:
    """Median of a sample of the image; 0 where it is empty."""
    sample = image[::5, ::5]
    return np.float32(np.nanmedian(sample)) if np.isfinite(sample).any() else np.float32(0)


def _sharpness_at(
    sci: NDArray[Any], ys: NDArray[Any], xs: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """v and T of some pixels, and the scatter of the 7x7 around each."""
    v, t, scatter = (np.empty(len(ys), np.float32) for _ in range(3))
    for part in chunks(len(ys)):
        around = np.ascontiguousarray(gather(sci, ys[part], xs[part], AROUND).T)
        level = median_rows(around)
        scatter[part] = 1.4826 * median_rows(np.abs(around - level[:, None]))
        near = gather(sci, ys[part], xs[part], 1) - level
        v[part] = near[4]
        with np.errstate(invalid="ignore", divide="ignore"):
            t[part] = np.minimum(1, 1 - light_beside(near) / (6 * near[4]))
    return v, t, scatter


def light_beside(near: NDArray[Any]) -> NDArray[Any]:
    """Sum of the neighbors without the brightest two across from each other; ``near`` is [9, pixel]."""
    ring = near[list(_RING)]
    most = np.full(near.shape[1], -np.inf, near.dtype)
    for i in range(8):
        for step in (3, 4):  # eighths of a turn
            np.fmax(most, ring[i] + ring[(i + step) % 8], out=most)
    out: NDArray[Any] = np.nansum(ring, axis=0) - most
    return out


# --- the yardstick ----------------------------------------------------------------------------------------


def filter_names(cal: CalFile) -> list[str]:
    """FILTER and PUPIL."""
    return [str(cal.primary.get(k, "")).strip().upper() for k in ("FILTER", "PUPIL")]


def expected_width(names: Sequence[str], scale: float) -> float:
    """FWHM of the PSF's peak, pixels: by the shortest wavelength among filter names such as F200W or F162M.

    Parameters
    ----------
    names : sequence of str
        FILTER and PUPIL.
    scale : float
        Pixel scale, arcsec.
    """
    found = [re.match(r"F(\d{3,4})([WMN]2?)", name) for name in names]
    microns = [int(m[1]) / 100 * (0.7 if m[2] == "W2" else 0.9 if m[2] == "W" else 1.0) for m in found if m]
    return DIFFRACTION * min(microns) / scale if microns else NARROWEST


def expected_sharpness(width: float) -> float:
    """T of a star of this FWHM (pixels, Gaussian peak), centered on a pixel: none is sharper."""
    sigma = width / 2.3548
    half, far = (math.erf(edge / (sigma * math.sqrt(2))) for edge in (0.5, 1.5))
    side = (far - half) / 2 / half  # of the pixel in the middle, along one axis
    return 1 - (2 * side + 4 * side**2) / 6


def sharpness_limit(stars: NDArray[Any], width: float) -> float:
    """T above which nothing is a star; ``width`` is the FWHM that diffraction allows, pixels."""
    if len(stars) < FEW_PEAKS:
        return expected_sharpness(max(NARROWEST, UNSURE * width))
    highest = np.quantile(stars, SHARP_QUANTILE) if len(stars) >= MIN_PEAKS else np.max(stars) + 0.3 / len(stars)
    return max(float(highest) + SHARP_OFFSET, expected_sharpness(width))


def find_sharp(candidates: Sharpness, limit: float, shape: tuple[int, int]) -> NDArray[Any]:
    """Pixels without another exposure that are sharper than any star by 3 sigma, and beside them what nearly is."""
    found, likely = np.zeros(shape, bool), np.zeros(shape, bool)
    excess = np.sqrt(6) * candidates.height * (candidates.sharpness - limit)  # a mean of six has less noise
    hit, near = excess > SHARP_MARGIN, candidates.sharpness > limit - BESIDE
    found[candidates.ys[hit], candidates.xs[hit]] = True
    likely[candidates.ys[near], candidates.xs[near]] = True
    for _ in range(2):
        found |= grow(found) & likely
    return found
