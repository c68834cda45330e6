"""Whether a bright pixel stands out of its surroundings, or lies in an area of raised dark current.

The glow of an amplifier and leaks of light raise the rate of many pixels together. A pixel of such an area is as
bright as its surroundings, seen in one of three ways:

1. The ring of 7 x 7 pixels around it without the middle 3 x 3, which share its charge.
2. Two columns, its own and one beside it, 10 rows up and down: at the border of the frame, and of an area.
3. Two rows, 10 columns to the left and right.

A single hot column or row is no area: at least two beside each other are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from badpix.numerics import neighbors

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

RING = 3  # pixels to each side
STRIP = 10  # pixels along a strip to each side
LOWER = 0.4  # quantile of a strip: one of its two lines alone doesn't raise it
SCATTERS = 3.0  # scatter of the ring from which on a pixel stands out
SHOT_SIGMA = 5.0  # scatters by shot noise from which on it does
CHUNK = 20_000  # pixels looked at together
CROWD = 0.4  # part of 7 x 7 pixels that change alike, from which on an area changes
BLOCK = 16  # pixels of a block in the map of areas
MOST_AREAS = 5  # areas that are told


def measure_level(rate: Float, y: NDArray[np.intp], x: NDArray[np.intp]) -> tuple[Float, Float]:
    """Level and scatter of the surroundings of pixels, in the unit of ``rate`` (ny, nx): (n,) each; 0 without any."""
    level, scatter = np.zeros((2, len(y)), np.float32)
    for start in range(0, len(y), CHUNK):
        here = slice(start, start + CHUNK)
        box = neighbors.gather(rate, y[here], x[here], RING).reshape(2 * RING + 1, 2 * RING + 1, -1)
        box[RING - 1 : RING + 2, RING - 1 : RING + 2] = np.nan
        ring = box.reshape(-1, box.shape[2])
        middle = _pick(ring, 0.5)
        scatter[here] = np.float32(1.4826) * _pick(np.abs(ring - middle), 0.5)
        known = [middle, *(_pick(strip, LOWER) for strip in _strips(rate, y[here], x[here]))]
        level[here] = np.fmax.reduce(known)
    return np.nan_to_num(level), np.nan_to_num(scatter)


def _strips(rate: Float, y: NDArray[np.intp], x: NDArray[np.intp]) -> list[Float]:
    """Values of the four strips along columns and rows, without the pixel and those beside it: (pixels, n) each."""
    along = [k for k in range(-STRIP, STRIP + 1) if abs(k) > 1]
    out = []
    for side in (-1, 1):
        places = [(k, across) for k in along for across in (0, side)]
        out += [_take(rate, y, x, places), _take(rate, y, x, [(b, a) for a, b in places])]
    return out


def _take(rate: Float, y: NDArray[np.intp], x: NDArray[np.intp], offsets: list[tuple[int, int]]) -> Float:
    """Values at offsets (dy, dx) of pixels, NaN beyond the frame: (len(offsets), n)."""
    ny, nx = rate.shape
    out = np.full((len(offsets), len(y)), np.nan, np.float32)
    for k, (dy, dx) in enumerate(offsets):
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        out[k, inside] = rate[y[inside] + dy, x[inside] + dx]
    return out


def _pick(values: Float, quantile: float) -> Float:
    """A quantile along axis 0 of the values that are known; NaN without any."""
    ordered = np.sort(values, axis=0)  # NaN last
    count = np.isfinite(ordered).sum(axis=0)
    at = np.floor(quantile * np.maximum(count - 1, 0)).astype(np.intp)
    found = np.take_along_axis(ordered, at[None], axis=0)[0]
    return np.where(count > 0, found, np.float32(np.nan))


def find_surrounded(rate: Float, bright: Float, places: neighbors.Places, limit: float, shot: Float) -> Bool:
    """Candidates above ``limit`` that don't stand out of their surroundings by as much, and by their shot noise.

    Parameters
    ----------
    rate : ndarray
        (ny, nx) median rates, DN/s; NaN where not measured.
    bright : ndarray
        (candidates,) rates that are judged.
    places : Places
        Where the candidates lie.
    limit : float
        DN/s.
    shot : ndarray
        (candidates,) scatter of the rate of one integration by shot noise, DN/s: large in glow.
    """
    out = np.zeros(len(bright), bool)
    with np.errstate(invalid="ignore"):
        some = np.flatnonzero(bright > limit)
    y, x = np.divmod(places.index[some], rate.shape[1])
    level, scatter = measure_level(rate, y, x)
    level = np.maximum(level, 0)
    excess = bright[some] - level
    of_level = shot[some] * np.sqrt(level / np.maximum(bright[some], level))  # without that of the pixel's own charge
    out[some] = ~((excess > np.maximum(limit, SHOT_SIGMA * of_level)) & (excess > SCATTERS * scatter))
    return out


def find_crowded(changed: Bool, places: neighbors.Places) -> Bool:
    """Candidates that change together with those around them: an area does, not a pixel."""
    image = places.to_map(changed).astype(np.float32)
    out = np.zeros(len(changed), bool)
    some = np.flatnonzero(changed)
    y, x = np.divmod(places.index[some], places.shape[1])
    for start in range(0, len(some), CHUNK):
        here = slice(start, start + CHUNK)
        box = neighbors.gather(image, y[here], x[here], RING)
        known = np.isfinite(box)
        out[some[here]] = np.where(known, box, 0).sum(axis=0) > CROWD * known.sum(axis=0)
    return out


def describe_areas(found: Bool, places: neighbors.Places, rate: Float) -> list[str]:
    """Where the ``found`` candidates gather: ranges of x and y (0-based, in the frame) of the largest areas."""
    from scipy import ndimage  # here: it takes longer to import than all else

    ny, nx = places.shape
    blocks = np.zeros((-(-ny // BLOCK), -(-nx // BLOCK)), int)
    y, x = np.divmod(places.index[found], nx)
    np.add.at(blocks, (y // BLOCK, x // BLOCK), 1)
    labels, number = ndimage.label(blocks >= BLOCK, structure=np.ones((3, 3)))
    of_pixel = labels[y // BLOCK, x // BLOCK]
    told = []
    for k in np.argsort(-np.bincount(of_pixel, minlength=number + 1)[1:], kind="stable")[:MOST_AREAS] + 1:
        mine = of_pixel == k
        level = float(np.nanmedian(rate[y[mine], x[mine]]))
        told.append(f"x {x[mine].min()}-{x[mine].max()}, y {y[mine].min()}-{y[mine].max()} at {level:.3g} DN/s")
    return told
