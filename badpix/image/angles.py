"""Exposures at different roll angles: diffraction spikes turn with the telescope.

What one angle shows as a spike is empty sky at another one, so the median of all others is no model there.

1. Groups whose roll angles lie within ``roll_tolerance`` of each other are kin (:func:`sort_angles`).
2. An exposure is compared with its kin where two of them looked. Where only one did, all others are the better model
   if they agree with that one, by more than noise and phase explain, over 3x3 pixels (:func:`prefer_kin`).
3. Where only other angles looked, a pixel can be compared only as far as no spike reaches it. The telescope's own
   pattern turns with it, so what another angle shows around a bright source, turned about that source by the
   difference of the angles, is what this exposure should show: differences count from the largest and the smallest
   of 3x3 turned pixels on, from more of it where the pattern has knots (:func:`measure_slack`). Of several other
   angles the smallest allowance counts (of three or more the mean of the two smallest), as their neighbors of that
   source turn to different places. Where no turned pixel is known, as behind the edge of a mosaic: the largest
   value at the distance from the source, which may not rise outward. A source whose peak is known allows for no more
   than the spikes of a straight-edged mirror can have of it, (w/r)^2 at the distance r (w = twice the width that
   diffraction allows, eight times what theory gives): the light around a speckle or a faint star near a bright one
   is that one's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.resample_drizzle import measure_derivative
from badpix.numerics import clipping
from badpix.numerics.neighbors import gather, grow, locate

BOX_SIGMA = 1.0  # of a pair of mosaics, by which means over 3x3 may differ ...
PIXEL_SIGMA = 3.0  # ... and single pixels, plus
GRADIENT = 0.35  # of the local derivative
BRIGHT = 30.0  # sigma of a pair, above which a peak has spikes that matter
REACH = 160  # pixels to which spikes are followed
BLUR = 0.6  # of the range of these 3x3, by which drizzle lowers a thin spike and an exposure shows more of it
KNOTS = 1.0  # more of what that range has above noise: knots are finer than a pixel, and no angle samples them ...
FINE = 4.0  # ... sigma of a pair, which 3x3 of noise stay below
NOISE = 1.7  # sigma of a pair, which 3x3 of bare sky and that share of their range reach by themselves
MANY = 3  # other angles, of which the mean of the two smallest allowances counts
MAX_HOLE = 2_000  # pixels of a saturated core; what is larger lies outside of the mosaic
# widths of the PSF, w: a straight edge sends (1 / pi)^2 of the peak to a distance of one width, / r^2 beyond
SPIKE = 2.0
SURE = 8.0  # times what theory gives, and
FAINT = 0.3  # sigma of a pair, to which spikes are followed where many pixels are summed: ...
TRACE = 1e-3  # ... an allowance of so many sigma says so, and changes no pixel's verdict
BORDER = 4  # pixels from it, at which a peak may belong to a source outside
MAX_PEAKS = 5_000


def sort_angles(angles: Sequence[float], *, tolerance: float) -> list[int]:
    """The class of each angle (degrees): from the first one on within ``tolerance``; 0 for all of one class."""
    values = np.mod(np.asarray(angles, float), 360)
    ordered = np.sort(values)
    gaps = np.diff(np.concatenate([ordered, ordered[:1] + 360]))
    start = ordered[(int(np.argmax(gaps)) + 1) % len(ordered)]  # behind the widest gap: no class across it
    turned = np.mod(values - start, 360)
    classes, first, found = np.zeros(len(values), int), 0.0, 0
    for i in np.argsort(turned, kind="stable"):
        if turned[i] - first > tolerance:
            first, found = turned[i], found + 1
        classes[i] = found
    return [int(c) for c in classes]


def prefer_kin(everyone: NDArray[Any], kin: NDArray[Any], number: NDArray[Any], *, sigma: float) -> NDArray[Any]:
    """Where the kin are the model (bool): two of them, or one that differs from all others.

    Parameters
    ----------
    everyone, kin : float32 (ny, nx)
        Median of all others, and of those at the same angle.
    number : uint16 (ny, nx)
        Of the kin.
    sigma : float
        Noise of the difference of two mosaics.
    """
    difference = kin - everyone
    with np.errstate(invalid="ignore"):
        phase = np.float32(GRADIENT) * measure_derivative(everyone)
        apart = np.abs(difference) > PIXEL_SIGMA * sigma + phase
        apart |= np.abs(_box_mean(difference)) > BOX_SIGMA * sigma + phase
    out: NDArray[Any] = (number >= 2) | ((number == 1) & grow(apart))
    return out


def _box_mean(image: NDArray[Any]) -> NDArray[Any]:
    """Mean over 3x3, NaN as 0 (float32)."""
    padded = np.pad(np.nan_to_num(image), 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    out: NDArray[Any] = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9)
    return out


class Center(NamedTuple):
    """A source about which spikes turn."""

    y: float
    x: float
    border: bool  # its middle may lie outside
    peak: float  # infinite where it isn't known


class Turned(NamedTuple):
    """What the groups at another angle saw, and where it lies in the exposure that is searched."""

    image: NDArray[Any]  # float32 (ny, nx): their median; NaN = no data
    turn: NDArray[
        Any
    ]  # 2 x 2: offset (x, y) from a source in the searched exposure -> the same detail's in ``image``


def turn_offsets(pc: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Where a detail of the PSF moves, as an offset (x, y) on the grid, if the telescope rolls by ``degrees``.

    Parameters
    ----------
    pc : (2, 2) array
        Of the grid: offset (x, y) to offset (east, north).
    degrees : float
        Position angles grow from north to east.
    """
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    found: NDArray[Any] = np.linalg.inv(pc) @ np.array([[c, s], [-s, c]]) @ pc
    return found


def measure_slack(
    reference: NDArray[Any],
    everyone: NDArray[Any],
    others: Iterable[Turned],
    wanted: NDArray[Any],
    *,
    sigma: float,
    width: float,
) -> NDArray[Any]:
    """By how much the turned spikes of bright sources let a pixel differ from the reference; 0 where not ``wanted``.

    Parameters
    ----------
    reference : float32 (ny, nx)
        What the exposure is compared with.
    everyone : float32 (ny, nx)
        Median of all groups: it tells where bright sources are, without hits, and with round saturated cores.
    others : iterable of Turned
        One for each other angle.
    wanted : bool (ny, nx)
        Pixels that only other angles saw.
    sigma : float
        Noise of the difference of two mosaics.
    width : float
        FWHM of the PSF that diffraction allows, pixels.
    """
    least, second = np.full((2, *wanted.shape), np.inf, np.float32)
    largest = np.zeros(wanted.shape, np.float32)
    number = 0
    level, noise = clipping.median_mad(everyone[::3, ::3])
    spread = max(sigma, noise) if np.isfinite(noise) else np.inf
    centers = _find_centers(everyone, *_find_peaks(everyone, level + BRIGHT * spread))
    for other in others:
        found, silent = _slack_by(reference, everyone, other, centers, level, spread, SPIKE * max(1.0, width))
        np.maximum(largest, found, out=largest)
        found[silent] = np.inf
        np.minimum(second, np.maximum(least, found), out=second)
        np.minimum(least, found, out=least)
        number += 1
    if number >= MANY:  # one of them may have missed a knot that is finer than its pixels
        least = np.where(np.isfinite(second), (least + second) / 2, least)
    return np.where(wanted, np.where(np.isfinite(least), least, largest), np.float32(0))


def _slack_by(
    reference: NDArray[Any],
    everyone: NDArray[Any],
    other: Turned,
    centers: list[Center],
    level: float,
    spread: float,
    spike: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The allowance by one other angle around some sources, float32, 0 elsewhere; where it never saw one of them, and
    says nothing of its spikes (bool). ``spike`` is w in pixels.

    At the border the source's middle may lie outside, about which its spikes turn: its largest value at that distance
    counts there.
    """
    image, turn = other
    out, silent = np.zeros(image.shape, np.float32), np.zeros(image.shape, bool)
    for y, x, border, peak in centers:
        known = math.isfinite(peak)
        most = min(REACH, spike * math.sqrt(max(1.0, (peak - level) / (3 * spread))))
        end = level + 3 * spread
        profile = _ring_profile(image, round(y), round(x), end, most, again=not known)
        if profile is None:
            whole = _ring_profile(everyone, round(y), round(x), end, most)
            reach = 0 if whole is None else len(whole) - 1
            rows, columns = (slice(max(0, round(v) - reach), round(v) + reach + 1) for v in (y, x))
            silent[rows, columns] = True
            continue
        reach = len(profile) - 1
        rows, columns = (slice(max(0, round(v) - reach), round(v) + reach + 1) for v in (y, x))
        part = reference[rows, columns]
        dy, dx = np.meshgrid(
            np.arange(rows.start, rows.start + part.shape[0]) - y,
            np.arange(columns.start, columns.start + part.shape[1]) - x,
            indexing="ij",
        )
        low, high = _turned_range(image, turn[1, 0] * dx + turn[1, 1] * dy + y, turn[0, 0] * dx + turn[0, 1] * dy + x)
        distance = np.hypot(dy, dx)
        ring = np.minimum(np.rint(distance).astype(np.intp), reach)
        slack = np.fmax(high - part, part - low) + np.float32(BLUR) * (high - low) - np.float32(NOISE * spread)
        slack += np.float32(KNOTS) * np.maximum(high - low - np.float32(FINE * spread), 0)
        usual = profile[ring] - np.float32(level)
        slack = np.where(np.isnan(slack), usual, slack)
        slack = np.maximum(slack, usual) if border else slack
        if known:
            slack = np.minimum(slack, (peak - level) * np.minimum(1, (spike / np.maximum(distance, 1)) ** 2))
        inside = distance <= reach
        target = out[rows, columns]
        np.maximum(target, np.where(inside, slack, 0), out=target)
        faint = spike * math.sqrt(max(0.0, (peak - level) / SURE / (FAINT * spread)))
        _mark_around(out, y, x, min(REACH, faint), np.float32(TRACE * spread))
    return out, silent


def _mark_around(image: NDArray[Any], y: float, x: float, reach: float, least: np.float32) -> None:
    """Raise what lies around (y, x) to ``least``, in place."""
    rows, columns = (slice(max(0, round(v - reach)), round(v + reach) + 1) for v in (y, x))
    target = image[rows, columns]
    dy, dx = np.ogrid[: target.shape[0], : target.shape[1]]
    near = (dy + (rows.start - y)) ** 2 + (dx + (columns.start - x)) ** 2 <= reach**2
    np.maximum(target, least, where=near, out=target)


def _turned_range(image: NDArray[Any], y: NDArray[Any], x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Smallest and largest of the 3x3 around places of an image, float32; NaN where the place is not known."""
    shape = y.shape
    ys, xs = np.rint(y).astype(np.intp).ravel(), np.rint(x).astype(np.intp).ravel()
    near = gather(image, ys, xs, 1)
    known = np.isfinite(near[4])
    low = np.where(known, np.fmin.reduce(near), np.float32(np.nan))
    high = np.where(known, np.fmax.reduce(near), np.float32(np.nan))
    return low.reshape(shape), high.reshape(shape)


def _find_centers(image: NDArray[Any], ys: NDArray[Any], xs: NDArray[Any]) -> list[Center]:
    """The peaks, brightest last; of those beside a saturated core its middle, once."""
    from scipy.ndimage import center_of_mass, label

    missing = np.isnan(image)
    holes, _ = label(missing, np.ones((3, 3)))
    size = np.bincount(holes.ravel())
    size[0] = 0
    large = np.take(size > MAX_HOLE, holes)
    outside = np.pad(large, BORDER, constant_values=True).astype(np.float32)
    border: Any = (gather(outside, ys + BORDER, xs + BORDER, BORDER) > 0).any(axis=0)
    names = gather(holes.astype(np.float32), ys, xs, 1)
    inner = np.where(size[np.nan_to_num(names).astype(np.intp)] <= MAX_HOLE, np.nan_to_num(names), 0).max(axis=0)
    beside = inner > 0
    places = zip(ys[~beside], xs[~beside], border[~beside], strict=True)
    found = [
        Center(float(y), float(x), bool(edge), math.inf if edge else float(image[y, x])) for y, x, edge in places
    ]
    single = np.unique(inner[beside]).astype(np.intp)
    centers = center_of_mass(missing, holes, single) if len(single) else []
    return found + [Center(float(y), float(x), False, math.inf) for y, x in centers]


def _find_peaks(image: NDArray[Any], limit: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """The highest pixels of their 7x7 above a limit, also beside saturated cores; the brightest come last."""
    with np.errstate(invalid="ignore"):
        ys, xs = locate(image > limit)
    peak = np.fmax.reduce(gather(image, ys, xs, 3), axis=0, initial=-np.inf) <= image[ys, xs]
    ys, xs = ys[peak], xs[peak]
    order = np.argsort(image[ys, xs], kind="stable")[-MAX_PEAKS:]
    return ys[order], xs[order]


@lru_cache(maxsize=16)
def _sort_rings(ny: int, nx: int, y: int, x: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], int]:
    """The pixels of an image in the order of their distance from one of them, rounded; where each distance begins in
    that order; the distances that occur; the largest one plus 1."""
    dy, dx = np.ogrid[:ny, :nx]
    ring = np.rint(np.hypot(dy - y, dx - x)).astype(np.intp).ravel()
    order = np.argsort(ring, kind="stable")
    start = np.flatnonzero(np.diff(ring[order], prepend=-1))
    return order, start, ring[order[start]], int(ring.max()) + 1


def _ring_profile(
    image: NDArray[Any], y: int, x: int, end: float, farthest: float, *, again: bool = False
) -> NDArray[Any] | None:
    """A source's largest value at each distance in pixels, until it falls below ``end``; never rising.

    With ``again`` twice as far: a thin spike of an exposure stands higher than the drizzled one that is looked at.
    """
    reach = 8
    while True:
        rows, columns = (slice(max(0, v - reach), v + reach + 1) for v in (y, x))
        part = image[rows, columns]
        order, start, ring, number = _sort_rings(*part.shape, y - rows.start, x - columns.start)
        most = np.full(number, -np.inf)
        most[ring] = np.fmax.reduceat(part.ravel()[order], start)
        most = np.where(np.isnan(most), -np.inf, most)[: reach + 1]
        known = np.isfinite(most)
        if not known.any():
            return None
        most = np.minimum.accumulate(np.where(known, most, most[known].max()))
        if reach >= farthest or (most[-1] < end and not again):
            break
        again &= bool(most[-1] >= end)
        reach *= 2
    wide: NDArray[Any] = np.maximum(most, np.concatenate([most[:1], most[:-1]]))  # rings are a pixel wide
    return wide.astype(np.float32)
