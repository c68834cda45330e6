"""Where light is steep: what the neighbors of a low pixel collect beyond their light, in parts of *its* light.

An OPEN pixel gives a part of its own light to each neighbor, whether that sees much light or none: the bright middle
of a slice, its edge, the dark beside it.

1. The light is known to some percent only, and its error goes on along the dispersion (the edge of a slice, fringes
   less so): what each neighbor shows beyond its light is counted from the median of what the pixels two and three
   before and after the low one show, along the dispersion.
2. Pixels that are judged, and those beside them, are sorted into classes by the brightest light within 3 x 3 and by
   their part of it; the spread of that, over the brightest light, is their error.
3. What is left: the excess of the side neighbors of ordinary pixels is measured, and each class has its error raised
   until no more of them exceed their 99 percent limit than chance would have; of one in a hundred a side neighbor may
   lie beside a defect.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.clipping import median_mad
from badpix.numerics.medians import median_filled, median_rows
from badpix.numerics.neighbors import SIDES, grow, sides_at

LEVELS = 6  # classes of light, equally populated
PARTS = (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)  # of the brightest light within 3 x 3: limits of the other classes
ODD = 0.5  # of the light: pixels that show that much less or more tell no error
FEWEST = 50  # pixels of a class that tell its spread
LEAST = 0.004  # of a pixel's light: no neighbor is known better
MOST = 0.7  # of a pixel's light: no neighbor collects more
APART = (-3, -2, 2, 3)  # pixels along the dispersion: those between collect charge of the low pixel
AT_CORNERS = 0.25  # charge that a corner collects, of that of a side neighbor
RING = tuple((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if max(abs(dy), abs(dx)) == 2)
IN_RING = 8  # pixels of a ring that tell its level
TRIED = 100_000  # pixels at which the excess is measured
TAIL, TAIL_SIGMA = 0.99, 2.326  # share of normal deviates below that many standard deviations

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]
Index = NDArray[np.intp]


class Steep(NamedTuple):
    """Light that varies from pixel to pixel: (ny, nx) images, DN/s.

    Attributes
    ----------
    own : ndarray
        Light of each pixel without coupled charge.
    beside : ndarray
        Charge beyond the light of pixels beside those that are judged; NaN at all others.
    error : ndarray
        Error of the charge beyond the light; NaN where it is not known.
    factor : ndarray
        What the error of the neighbors' mean is raised by (no unit).
    axis : int
        Axis along which light is dispersed.
    """

    own: Float
    beside: Float
    error: Float
    factor: Float
    axis: int


def measure_steep(norm: Float, charge: Float, own: Float, light: Float, axis: int) -> Steep:
    """Errors by class of light.

    Parameters
    ----------
    norm : ndarray
        (ny, nx) normalized rate, NaN where not judged.
    charge, own, light : ndarray
        (ny, nx) rate beyond the light, light without coupled charge, and with it; DN/s.
    axis : int
        Axis along which light is dispersed.
    """
    known = np.isfinite(norm)
    near = grow(known) & np.isfinite(charge)
    bright = brightest(light)
    kind = sort_classes(own, bright, near)
    classes = LEVELS * (len(PARTS) + 1)
    whole = max(median_mad(norm)[1], 1e-6)
    spread = np.full(classes, max(whole, 0.3), np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = (charge - level_along(np.where(near, charge, np.float32(np.nan)), axis))[near] / bright[near]
    for one, values in split(relative, kind[near], classes):
        if values.size >= FEWEST:
            spread[one] = median_mad(values)[1]
    error = np.where(near, spread[kind] * bright, np.float32(np.nan)).astype(np.float32)
    beside = np.where(near & ~known, charge, np.float32(np.nan)).astype(np.float32)
    steep = Steep(own.astype(np.float32), beside, error, np.ones(norm.shape, np.float32), axis)
    with np.errstate(invalid="ignore"):
        ordinary = known & (np.abs(norm - 1) < ODD)
        usable = ordinary | (near & ~known & (np.abs(charge) < ODD * bright) & ~(charge < -ODD * own))
    y, x = np.nonzero(ordinary)
    every = slice(None, None, max(y.size // TRIED, 1))
    y, x = y[every], x[every]
    ratio = np.divide(*guarded_mean(*charges_at(norm, steep, y, x, usable, center=1.0)))
    factor = np.ones(classes, np.float32)
    told = np.isfinite(ratio)
    for one, values in split(ratio[told], kind[y[told], x[told]], classes):
        if values.size >= 4 * FEWEST:
            factor[one] = max(1.0, float(np.quantile(values, TAIL)) / TAIL_SIGMA)
    return steep._replace(factor=factor[kind])


def relative_error(steep: Steep) -> NDArray[np.float32]:
    """Error of the normalized rate of good pixels: (ny, nx)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (steep.error / steep.own).astype(np.float32)


def brightest(light: Float) -> NDArray[np.float32]:
    """Brightest light within 3 x 3: (ny, nx)."""
    out = np.nan_to_num(light).astype(np.float32)
    for axis in (0, 1):
        before, after = (np.moveaxis(out, axis, 0)[cut] for cut in (slice(None, -1), slice(1, None)))
        larger = np.maximum(before, after)
        np.maximum(before, larger, out=before)
        np.maximum(after, larger, out=after)
    return out


def sort_classes(own: Float, bright: Float, near: Bool) -> NDArray[np.uint8]:
    """Class of each pixel by the brightest light around it and its part of that: (ny, nx)."""
    if not near.any():
        return np.zeros(own.shape, np.uint8)
    edges = np.quantile(bright[near], np.arange(1, LEVELS) / LEVELS)
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.digitize(own / bright, PARTS).astype(np.uint8)
    return np.digitize(bright, edges).astype(np.uint8) * np.uint8(len(PARTS) + 1) + part


def level_along(charge: Float, axis: int) -> Float:
    """Median of the pixels :data:`APART` from each along the dispersion, of those that are known: (ny, nx)."""
    values = np.moveaxis(charge, axis, 0)
    lines, missing = [], np.zeros(values.shape, np.uint16)
    for n in APART:
        one = np.full(values.shape, np.inf, np.float32)
        one[max(-n, 0) : len(one) - max(n, 0)] = values[max(n, 0) : len(one) + min(n, 0)]
        lost = ~np.isfinite(one)
        one[lost] = np.inf
        missing += lost
        lines.append(one)
    found: Float = np.moveaxis(median_filled(lines, missing), 0, axis)
    return found


def split(values: Float, kind: NDArray[np.uint8], classes: int) -> list[tuple[int, Float]]:
    """The values of each class that has some."""
    order = np.argsort(kind, kind="stable")
    ends = np.searchsorted(kind[order], np.arange(classes + 1))
    return [(k, values[order[a:b]]) for k, (a, b) in enumerate(pairwise(ends)) if b > a]


def charges_at(
    norm: Float, steep: Steep | None, y: Index, x: Index, usable: Bool, *, center: float, spread: float = 1.0
) -> tuple[Float, Float]:
    """What the side neighbors of some pixels collect beyond their light, in parts of the pixels', and its error.

    Parameters
    ----------
    norm : ndarray
        (ny, nx) normalized rate.
    steep : Steep or None
        None where light is even: all pixels see the same, with one error, ``spread``.
    y, x : ndarray
        (n,) places of the pixels.
    usable : ndarray of bool
        (ny, nx) pixels that tell something.
    center, spread : float
        Of the normalized rates of good pixels.

    Returns
    -------
    charge, error : ndarray
        (4, n) each; NaN where a neighbor tells nothing.
    """
    if steep is not None:
        return _charges_in_steep(norm, steep, y, x, usable, center)
    sides, told = sides_at(norm, y, x, np.nan), sides_at(usable, y, x, False)
    told &= np.isfinite(sides)
    # the bright middle of a shadow of dust is no charge: it shows at the corners, too
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(told, sides, 0).sum(axis=0) / told.sum(axis=0)
        corners = (corners_at(norm, y, x, usable) - AT_CORNERS * mean) / (1 - AT_CORNERS)
    level = np.fmax(np.fmax(ring_at(norm, y, x, usable, center), center), corners)
    charge = sides - level
    return _without(charge, np.full_like(charge, spread), told)


def _charges_in_steep(
    norm: Float, steep: Steep, y: Index, x: Index, usable: Bool, center: float
) -> tuple[Float, Float]:
    """The same in steep light."""
    charge = np.empty((4, len(y)), np.float32)
    way = np.eye(2, dtype=np.intp)[steep.axis]
    for k, side in enumerate(SIDES):
        first = np.array(side) * (1 - way)  # the neighbor's place across
        around = [
            _beyond_light(norm, steep, y + first[0] + n * way[0], x + first[1] + n * way[1], usable, center)
            for n in APART
        ]
        there = _beyond_light(norm, steep, y + side[0], x + side[1], usable, center)
        charge[k] = there - median_rows(np.stack(around, axis=1))
    own = steep.own[y, x]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.maximum(sides_at(steep.error, y, x, np.nan) / own, LEAST)
        charge /= own
    return _without(charge, error, sides_at(usable, y, x, False))


def _beyond_light(norm: Float, steep: Steep, y: Index, x: Index, usable: Bool, center: float) -> Float:
    """What pixels show beyond their light, DN/s: (n,); NaN beyond the frame and where it tells nothing."""
    ny, nx = norm.shape
    out = np.full(len(y), np.nan, np.float32)
    inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    at = y[inside], x[inside]
    values = np.where(np.isfinite(norm[at]), (norm[at] - center) * steep.own[at], steep.beside[at])
    out[inside] = np.where(usable[at], values, np.nan)
    return out


def _without(charge: Float, error: Float, usable: Bool) -> tuple[Float, Float]:
    """NaN where a neighbor tells nothing, or shows more than it can have from the pixel."""
    with np.errstate(invalid="ignore"):
        lost = ~(usable & np.isfinite(charge) & np.isfinite(error) & (charge < MOST))
    charge[lost], error[lost] = np.nan, np.nan
    return charge, error


def guarded_mean(charge: Float, error: Float) -> tuple[Float, Float]:
    """Mean of the charge of the neighbors, weighted by their errors, and its error: (n,) each.

    At most twice the mean without the neighbor that adds most: charge of an OPEN pixel goes to all sides. NaN with
    fewer than two neighbors.
    """
    good = np.isfinite(charge)
    weight = np.where(good, 1 / np.where(good, error, 1) ** 2, 0)
    pull = weight * np.where(good, charge, 0)
    total, all_weight = pull.sum(axis=0), weight.sum(axis=0)
    highest = np.where(good, pull, -np.inf).argmax(axis=0)[None]
    of_highest, its_weight = (np.take_along_axis(v, highest, axis=0)[0] for v in (pull, weight))
    with np.errstate(invalid="ignore", divide="ignore"):
        guarded = np.minimum(total / all_weight, 2 * (total - of_highest) / (all_weight - its_weight))
        uncertainty = 1 / np.sqrt(all_weight)
    few = good.sum(axis=0) < 2
    guarded[few], uncertainty[few] = np.nan, np.nan
    return guarded, uncertainty


def corners_at(norm: Float, y: Index, x: Index, usable: Bool) -> Float:
    """Median of the usable diagonal neighbors of some pixels that lie beside no other odd one: (n,), NaN without."""
    ny, nx = norm.shape
    values = np.full((y.size, 4), np.nan, np.float32)
    for k, (dy, dx) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
        b, a = y + dy, x + dx
        inside = (b >= 0) & (b < ny) & (a >= 0) & (a < nx)
        b, a = b[inside], a[inside]
        alone = usable[b, a] & sides_at(usable, b, a, True).all(axis=0)
        values[inside, k] = np.where(alone, norm[b, a], np.nan)
    found: Float = median_rows(values)
    return found


def ring_at(norm: Float, y: Index, x: Index, usable: Bool, center: float) -> Float:
    """Median of the usable pixels two away from some pixels: (n,); ``center`` where they are too few."""
    ny, nx = norm.shape
    values = np.full((y.size, len(RING)), np.nan, np.float32)
    for k, (dy, dx) in enumerate(RING):
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        at = y[inside] + dy, x[inside] + dx
        values[inside, k] = np.where(usable[at], norm[at], np.nan)
    few = np.isfinite(values).sum(axis=1) < IN_RING
    level: Float = median_rows(values)
    level[few] = center
    return level
