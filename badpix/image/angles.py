"""Exposures at different roll angles: diffraction spikes turn with the telescope.

What one angle shows as a spike is empty sky at another one, so the median of all others is no model there.

1. Groups whose roll angles lie within ``roll_tolerance`` of each other are kin (:func:`sort_angles`).
2. An exposure is compared with its kin where two of them looked. Where only one did, all others are the better model
   if they agree with that one, by more than noise and phase explain, over 3x3 pixels (:func:`prefer_kin`).
3. Where only other angles looked, a pixel can be compared only as far as no spike reaches it. A spike is allowed for
   at any position angle: around each bright source, the largest value at each distance, which may not rise outward
   (:func:`measure_envelope`). Differences count from there on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image.resample import measure_derivative
from badpix.numerics import clipping
from badpix.numerics.neighbors import gather, grow, locate

BOX_SIGMA = 1.0  # of a pair of mosaics, by which means over 3x3 may differ ...
PIXEL_SIGMA = 3.0  # ... and single pixels, plus
GRADIENT = 0.35  # of the local derivative
BRIGHT = 30.0  # sigma of a pair, above which a peak has spikes that matter
REACH = 160  # pixels to which spikes are followed
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


def measure_envelope(images: Iterable[NDArray[Any]], wanted: NDArray[Any], *, sigma: float) -> NDArray[Any]:
    """How far a spike of a turned exposure might lift a pixel above the sky; 0 where not ``wanted``.

    Parameters
    ----------
    images : iterable of float32 (ny, nx)
        The median of each other angle (that of several angles has no spikes); NaN = no data, as in saturated cores.
    wanted : bool (ny, nx)
        Pixels that only other angles saw.
    sigma : float
        Noise of the difference of two mosaics.
    """
    out = np.zeros(wanted.shape, np.float32)
    for image in images:
        level, noise = clipping.median_mad(image[::3, ::3])
        if not np.isfinite(noise):
            continue
        spread = max(sigma, noise)
        highest = np.full(image.shape, level, np.float32)
        for y, x in zip(*_find_peaks(image, level + BRIGHT * spread), strict=True):
            _raise_around(highest, image, int(y), int(x), level, spread)
        np.maximum(out, highest - np.float32(level), out=out)
    out[~wanted] = 0
    return out


def _find_peaks(image: NDArray[Any], limit: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """The highest pixels of their 7x7 above a limit, also beside saturated cores; the brightest come last."""
    with np.errstate(invalid="ignore"):
        ys, xs = locate(image > limit)
    peak = np.fmax.reduce(gather(image, ys, xs, 3), axis=0, initial=-np.inf) <= image[ys, xs]
    ys, xs = ys[peak], xs[peak]
    order = np.argsort(image[ys, xs], kind="stable")[-MAX_PEAKS:]
    return ys[order], xs[order]


def _raise_around(highest: NDArray[Any], image: NDArray[Any], y: int, x: int, level: float, sigma: float) -> None:
    """Raise ``highest`` to a source's largest value at each distance, as far as that stands above the noise."""
    reach = 8
    while True:
        rows, columns = (slice(max(0, v - reach), v + reach + 1) for v in (y, x))
        part = image[rows, columns]
        dy, dx = np.ogrid[: part.shape[0], : part.shape[1]]
        ring = np.rint(np.hypot(dy + rows.start - y, dx + columns.start - x)).astype(np.intp)
        most = np.full(ring.max() + 1, -np.inf)
        np.maximum.at(most, ring.ravel(), np.nan_to_num(part, nan=-np.inf).ravel())
        most = most[: reach + 1]
        known = np.isfinite(most)
        if not known.any():
            return
        most = np.minimum.accumulate(np.where(known, most, most[known].max()))
        if most[-1] < level + 3 * sigma or reach >= REACH:
            break
        reach *= 2
    wide = np.maximum(most, np.concatenate([most[:1], most[:-1]]))  # a pixel inward: rings are a pixel wide
    inside = ring <= reach
    target = highest[rows, columns]
    np.maximum(target, np.where(inside, wide[np.minimum(ring, reach)], -np.inf), out=target)
