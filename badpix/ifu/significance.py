"""Pixels of IFU exposures that stand out by more than their noise allows: arrays in, reasons out.

All statistics ignore NaN (pixels that can't be used) and cut their windows at the frame and at gaps, so the
border is searched like the middle. ``sigma`` below is ERR, or 1.

1. *Residual* of one exposure: each pixel minus the median of its 4 nearest neighbors along x, in units of
   sigma, and the same along y. ``eta`` is the one nearer to zero if both have one sign, else 0. A trace along
   the dispersion, or a line across the slice, cancels along one of the axes; a defect stands out along both.
2. *Noise*: sigma gives the pattern, the data give the size. The level ``c`` is the smallest of three robust
   scatters (along x, along y, between exposures): structure only raises them. Where the smaller residual is locally
   (median over exposures, then in ``kernel_size``) larger than usual, the noise is that much larger.
3. *Protection*: where the 8 neighbors of a pixel don't fit the noise either, its significance is lowered in
   proportion (by ``protect`` for their eta, by ``protect_structure`` for the larger of their residuals).
4. *Persistent*: in all m exposures that measure the pixel, one sign, each beyond the threshold t(m, m) at which
   Gaussian noise gives ``false_alarm``, and beyond ``min_sigma``. Flagged in all exposures. A source that covers the
   pixel in some exposures hides it there (step 3 with strength 1 divides by more than 3). The c others (half of m, at
   least 2; 4 are always enough) then do alone, if each is beyond t(c, c), ``min_sigma`` and 3.5.
   So do pixels on lines, whose residual along the dispersion says nothing: where exposures are dithered, beyond 3.5
   sigma across the slice in all of them, and beside the rise that the slice's own pixels have at this wavelength
   (:mod:`badpix.ifu.slices`). Pixels at the edge of a slice whose rise is that of their line are no defects.
5. *Partial*: the same for k of m exposures, k a majority; flagged where it exceeds ``partial_sigma``.
6. *Single*: in one exposure or a minority, beyond t(1, 1) against the other exposures: either against the neighbors
   as well, or too high by more than sources could give, which the other exposures close by, and this one further
   along the dispersion, tell. Tracks of cosmic rays grow from there.

Step 1 is in :mod:`badpix.ifu.residuals`, with the thresholds, which come from the distribution of eta for independent
Gaussian noise; step 2 in :mod:`badpix.ifu.noise`, step 3 in :mod:`badpix.ifu.protection`, step 6 in
:mod:`badpix.ifu.seen_once`. The other tests are here. A detector with one exposure has a search of its own:
:mod:`badpix.ifu.one_exposure`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.ifu.noise import GRID, REACH, Band, Level, prepare_band
from badpix.ifu.one_exposure import find_certain
from badpix.ifu.protection import NOISE_ETA, NOISE_LARGER, measure_structure
from badpix.ifu.seen_once import SingleLimits, find_single
from badpix.ifu.slices import Beside, measure_beside
from badpix.ifu.surroundings import reach
from badpix.numerics.neighbors import offsets

# Reasons, in order of precedence.
REASONS = ("persistent", "partial", "single", "grown")
PERSISTENT, PARTIAL, SINGLE, GROWN = 1, 2, 3, 4

_HIDDEN = 3.0  # divisor by structure, at strength 1, above which a source hides a pixel
_SHOWN = (2, 4)  # half of the exposures must show it then: at least 2, and 4 are always enough
_SHOWN_SIGMA = 3.5  # lowest threshold where only some exposures show the pixel


def find_significant(
    sci: list[NDArray[Any]],
    sigma: list[NDArray[Any]],
    *,
    level: Level,
    thresholds: NDArray[Any],
    hit_limit: float,
    kernel_size: tuple[int, int],
    min_sigma: float,
    partial_sigma: float,
    single: bool,
    lone_exposure: bool,
    lone_sigma: float,
    grow_sigma: float,
    grow_steps: int,
    protect: float,
    protect_structure: float,
    window: tuple[int, int],
    noise: str,
    across: int = 1,
    dithered: bool = True,
    first_row: int = 0,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Which pixels of a band are flagged in which exposure, and why.

    Parameters
    ----------
    sci : list of ndarray of float32, shape (ny, nx)
        One band of each exposure; NaN where not usable.
    sigma : list of ndarray of float32
        From :func:`badpix.ifu.noise.measure_sigma`.
    level : Level
        Noise of the detector.
    thresholds : ndarray
        From :func:`badpix.ifu.residuals.solve_thresholds`.
    hit_limit : float
        From :func:`badpix.ifu.residuals.solve_hit_limit`.
    window : (int, int)
        Pixels along the dispersion and across it in which lines of other exposures protect.
    across : int
        Axis across the slices.
    dithered : bool
        Whether sources move on the detector; if not, they stand still on lines like bad pixels do.
    first_row : int
        Row of the frame that the band begins with.
    **others
        Parameters of ``outlier ifu``.

    Returns
    -------
    reasons : ndarray of uint8, shape (n, ny, nx)
        0: not flagged; else a reason (``PERSISTENT`` ...).
    untestable : ndarray of bool, shape (n, ny, nx)
        Finite pixels without a valid neighbor along one of the axes.
    noisy : ndarray of bool, shape (ny, nx)
        Pixels whose noise is more than 1.3 times the usual one.
    """
    width = max(REACH, reach(window))
    band = prepare_band(sci, sigma, level, kernel_size, noise, width, across, first_row)
    n, (ny, nx) = len(sci), sci[0].shape
    inside = (slice(width, width + ny), slice(width, width + nx))
    first = float(thresholds[1, 1])
    found = _find_candidates(band, min(first, min_sigma), first, protect, protect_structure)
    reasons = np.zeros((n, band.noise.size), np.uint8)
    if n >= 2:
        _flag_repeated(reasons, found, band, thresholds, min_sigma, partial_sigma)
        _spare_edges(reasons, band, min_sigma)
        if dithered:
            reasons[:, _find_on_lines(reasons, band, thresholds, min_sigma)] = PERSISTENT
        if single:
            persistent = (reasons == PERSISTENT).any(axis=0)
            p = SingleLimits(first, hit_limit, protect, grow_sigma, grow_steps, window)
            for e, (at, grown) in enumerate(find_single(found, band, persistent, p)):
                _fill(reasons[e], at, SINGLE)
                _fill(reasons[e], grown, GROWN)
    elif lone_exposure:
        reasons[0, find_certain(*found[0], max(first, lone_sigma))] = SINGLE
    maps = reasons.reshape(n, *band.noise.shape)[:, *inside]
    untestable = np.stack(
        [np.isfinite(s) & np.isnan(r.eta[inside]) for s, r in zip(sci, band.residuals, strict=True)]
    )
    return maps, untestable, band.noise[inside] > 1.3 * level.scale


# --- the tests -------------------------------------------------------------------------------------------


def _find_candidates(
    band: Band, floor: float, first: float, protect: float, protect_structure: float
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Per exposure: pixels (flat indices) that a test may ask for, and their protected significance.

    These have eta beyond ``floor`` sigma in two exposures or more, or beyond ``first`` in this one.
    """
    around = offsets(3, 3, band.stride)
    size = band.noise.reshape(-1)
    low, limit = np.float32(floor) * size, np.float32(first) * size
    times = np.zeros(size.size, np.uint16)
    for r in band.residuals:
        times += np.abs(r.eta.reshape(-1)) > low
    np.copyto(limit, low, where=times >= 2)
    out = []
    for r in band.residuals:
        eta = r.eta.reshape(-1)
        at = np.flatnonzero(np.abs(eta) > limit)
        value = eta[at] / size[at]
        value /= measure_structure(eta, size, at, around, strength=protect, noise=NOISE_ETA)
        larger = r.larger.reshape(-1)
        value /= measure_structure(larger, size, at, around, strength=protect_structure, noise=NOISE_LARGER)
        out.append((at, value))
    return out


def _flag_repeated(
    reasons: NDArray[Any],
    found: list[tuple[NDArray[Any], NDArray[Any]]],
    band: Band,
    thresholds: NDArray[Any],
    min_sigma: float,
    partial_sigma: float,
) -> None:
    """Tests for persistent and partly persistent pixels (steps 4 and 5), into ``reasons``."""
    n = len(found)
    pixels, table = _tabulate(found, band.noise.size)
    finite = np.stack([np.isfinite(r.eta.reshape(-1)[pixels]) for r in band.residuals])
    measured = finite.sum(axis=0)
    limits = np.maximum(thresholds, min_sigma)
    for sign in (1, -1):
        signed = sign * table
        ranked = -np.sort(-signed, axis=0)
        for m in range(2, n + 1):
            of_m = measured == m
            for k in range(m // 2 + 1, m):
                hit = of_m & (ranked[k - 1] > limits[k, m])
                for e in range(n):
                    on = pixels[hit & (signed[e] > partial_sigma)]
                    reasons[e, on] = PARTIAL
            reasons[:, pixels[of_m & (ranked[m - 1] > limits[m, m])]] = PERSISTENT
    reasons[:, pixels[_find_partly_hidden(table, finite, _find_hidden(band, pixels), limits)]] = PERSISTENT


def _tabulate(found: list[tuple[NDArray[Any], NDArray[Any]]], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Candidates of 2 or more exposures (flat indices), and their significance in each exposure, else 0."""
    times = np.zeros(size, np.uint16)
    for at, _ in found:
        times[at] += 1
    pixels = np.flatnonzero(times >= 2)
    table = np.zeros((len(found), pixels.size), np.float32)
    for e, (at, value) in enumerate(found):
        mine = times[at] >= 2
        table[e, np.searchsorted(pixels, at[mine])] = value[mine]
    return pixels, table


def _find_hidden(band: Band, pixels: NDArray[Any]) -> NDArray[Any]:
    """In which exposures a source hides which of the pixels, shape (n, pixels)."""
    around, size = offsets(3, 3, band.stride), band.noise.reshape(-1)
    divisors = [
        measure_structure(r.larger.reshape(-1), size, pixels, around, strength=1.0, noise=NOISE_LARGER)
        for r in band.residuals
    ]
    return np.stack(divisors) > _HIDDEN


def _find_partly_hidden(
    table: NDArray[Any], finite: NDArray[Any], hidden: NDArray[Any], limits: NDArray[Any]
) -> NDArray[Any]:
    """Pixels that a source hides in some exposures, and that stand out in all others (enough), with one sign."""
    shown = finite & ~hidden
    count = shown.sum(axis=0)
    limit = np.maximum(limits.diagonal()[count], _SHOWN_SIGMA)
    high, low = (np.where(shown, sign * table, np.inf).min(axis=0) for sign in (1, -1))
    measured = finite.sum(axis=0)
    enough = (count < measured) & (count >= np.clip((measured + 1) // 2, *_SHOWN))
    found: NDArray[Any] = enough & (np.maximum(high, low) > limit)
    return found


def _spare_edges(reasons: NDArray[Any], band: Band, limit: float) -> None:
    """Take back repeated pixels at the edge of a slice that the slice explains: less light falls there, in all."""
    pixels = np.flatnonzero(((reasons == PERSISTENT) | (reasons == PARTIAL)).any(axis=0))
    all_beside = _measure_all_beside(band, pixels)
    edge = ~np.logical_or.reduce([b.inner for b in all_beside])
    with np.errstate(invalid="ignore"):
        explained = np.stack([np.abs(b.rise) < limit for b in all_beside])
    spared = edge & (2 * explained.sum(axis=0) >= len(all_beside))
    reasons[:, pixels[spared]] = 0


def _find_on_lines(reasons: NDArray[Any], band: Band, thresholds: NDArray[Any], min_sigma: float) -> NDArray[Any]:
    """Persistent pixels that stand out across the slice in all exposures, and that no line explains."""
    size = band.noise.reshape(-1)
    pixels = np.flatnonzero(np.abs(band.beside.reshape(-1)) > np.float32(_SHOWN_SIGMA) * size)
    pixels = pixels[~(reasons[:, pixels] == PERSISTENT).any(axis=0)]
    values = np.stack([b.smaller for b in _measure_all_beside(band, pixels)])
    measured = np.isfinite(values).sum(axis=0)
    limit = np.fmax(np.maximum(thresholds.diagonal()[measured], min_sigma), _SHOWN_SIGMA)
    high, low = np.fmin.reduce(values, axis=0), np.fmin.reduce(-values, axis=0)
    found: NDArray[Any] = pixels[(measured >= 2) & (np.fmax(high, low) > limit)]
    return found


def _measure_all_beside(band: Band, pixels: NDArray[Any]) -> list[Beside]:
    size = band.noise.reshape(-1)[pixels]
    return [
        measure_beside(s.reshape(-1), e.reshape(-1)[pixels] * size, pixels, band.steps)
        for s, e in zip(band.sci, band.sigma, strict=True)
    ]


def _fill(reasons: NDArray[Any], at: NDArray[Any], reason: int) -> None:
    reasons[at] = np.where(reasons[at] == 0, reason, reasons[at])


def halo(kernel_size: tuple[int, int], window: tuple[int, int], grow_steps: int) -> int:
    """Rows that a band needs beyond its own so that its result is that of the whole frame."""
    return grow_steps + reach(window) + GRID // 2 + max(kernel_size) // 2 + 3
