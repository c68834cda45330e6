"""What a pixel shows beyond the pixels around it, in one exposure, and how much of that a source could be.

1. Values that can't be used are replaced by the median of the usable pixels that touch them, else by the level of the
   exposure, so that every pixel has eight neighbors: in images those around it, in dispersed light four to each side
   along the dispersion.
2. The residual is the value less the level of the eight: in dispersed light their median, in images the mean of the
   second lowest, the middle two and the second highest, which has less noise and bears one bad neighbor, too.
3. A source is sharper than its neighborhood by no more than the point spread function allows: its residual is at most
   the *sharpness* times the range of its neighbors (their second highest less their second lowest: one bad neighbor
   does not count). The range beyond what noise makes, times the sharpness, is the residual that a source may have
   there; it replaces the noise where it is larger. Lines reach across the dispersion: in dispersed light the range is
   that of medians of three across it, which noise widens less.

Source of 3: the idea of the sharpness in DAOFIND (Stetson 1987), turned around: noise instead of a cut, because
pixels in nebulae and crowded fields must be judged too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.neighbors import AROUND

# Range of eight neighbors that noise makes, in units of the noise: of images (mean 1.7, scatter 0.55), of spectra (of
# medians of three: mean 1.15, scatter 0.35).
NOISE_RANGE = (2.4, 1.8)
ALONG = (-4, -3, -2, -1, 1, 2, 3, 4)  # pixels along the dispersion
CHUNK = 32_768  # pixels that are compared at a time: what is made of them stays in the cache
REACH = 4  # of the farthest one
RANKS = (1, 3, 4, 6)  # of eight neighbors: second lowest, the middle two, second highest
SAFETY = 1.3  # the point spread function over its Gaussian
LINE_WIDTH = 1.8  # FWHM of the sharpest line along the dispersion, pixels
TELESCOPE = 6.5  # m
SHARPEST_WAVE = 0.7  # um, of a filter without a number
ARCSEC = 206265e-6  # arcsec of 1 um / 1 m
SCALES = {"NIRCAM": 0.031, "MIRI": 0.11, "NIRISS": 0.066, "FGS": 0.069, "NIRSPEC": 0.1}  # arcsec a pixel
LONG_SCALE = 0.063  # arcsec, NIRCam's long-wave detectors
FILTER = re.compile(r"F(\d{3,4})[A-Z]")

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]


class Residual(NamedTuple):
    """(blocks, ny, nx) each: residual, level of the neighbors, and noise with what a source may add."""

    value: Float
    level: Float
    noise: Float


def offsets_of(axis: int | None) -> tuple[tuple[int, int], ...]:
    """Where the eight neighbors lie, (dy, dx): around (None), or along axis 0 (y) or 1 (x)."""
    if axis is None:
        return AROUND
    return tuple((step, 0) if axis == 0 else (0, step) for step in ALONG)


def reach_of(axis: int | None) -> tuple[int, int]:
    """Rows and columns that neighbors lie away at most."""
    return {None: (1, 1), 0: (REACH, 1), 1: (1, REACH)}[axis]


def fill(image: Float, bad: NDArray[np.intp], level: Float) -> None:
    """Replace values that can't be used (step 1), in place.

    Parameters
    ----------
    image : ndarray of float32
        (..., width), contiguous; NaN where nothing is, and where a value can't be used.
    bad : ndarray of int
        Flat index of the values to replace, none of them at an edge.
    level : ndarray of float32
        (bad,) what stands there where all around is NaN.
    """
    flat = image.reshape(-1)
    steps = np.array([dy * image.shape[-1] + dx for dy, dx in AROUND])
    near = flat.take(bad[:, None] + steps)
    near.sort(axis=1)  # NaN last
    known, row = len(steps) - np.isnan(near).sum(axis=1), np.arange(len(near))
    middle = (near[row, (known - 1) // 2] + near[row, known // 2]) / 2
    flat[bad] = np.where(known > 0, middle, level)


def measure_residual(
    filled: Float, noise: Float, axis: int | None, *, sharpness: Float, start: tuple[int, int] | None = None
) -> Residual:
    """Residual, level and noise of the inner pixels of a filled image (steps 2 and 3).

    Parameters
    ----------
    filled : ndarray of float32
        (blocks, rows, columns), contiguous, with a margin of :func:`reach_of` around the inner pixels or more.
    noise : ndarray of float32
        (blocks, ny, nx) noise of the inner pixels.
    axis : int or None
        Of the dispersion.
    sharpness : ndarray of float32
        (blocks,) see step 3.
    start : tuple of int
        Row and column of the first inner pixel; as far from the edge as needed, if not given.
    """
    (ry, rx), width = reach_of(axis), filled.shape[2]
    (number, ny, nx), (top, left) = noise.shape, start or (ry, rx)
    level, value, wide = (np.empty(noise.shape, np.float32) for _ in range(3))
    height, beyond = max(1, CHUNK // width), np.float32(NOISE_RANGE[axis is not None])
    share, strides = np.float32(0.25 if axis is None else 0.5), (4 * width, 4)
    for block, first in product(range(number), range(0, ny, height)):
        last = min(first + height, ny)
        here = (block, slice(first, last))
        found = compare_around(filled[block, top + first - ry : top + last + ry].reshape(-1), width, axis)
        # rows of the inner pixels; what was found begins at the first pixel that has all neighbors
        middle, spread = (np.ndarray((last - first, nx), np.float32, a, 4 * (left - rx), strides) for a in found)
        np.multiply(middle, share, out=level[here])
        np.subtract(filled[block, top + first : top + last, left : left + nx], level[here], out=value[here])
        allowed = np.multiply(noise[here], beyond, out=wide[here])
        np.subtract(spread, allowed, out=allowed)
        allowed *= sharpness[block]
        np.maximum(allowed, noise[here], out=allowed)
    return Residual(value, level, wide)


def compare_around(flat: Float, width: int, axis: int | None) -> tuple[Float, Float]:
    """Level and range of the eight neighbors of each pixel, of an image of rows of ``width``, one behind the other.

    The level is the sum of its ranks: four of them in images, the middle two in dispersed light (step 2). Entry i
    belongs to the pixel i + ry * width + rx, (ry, rx) as of :func:`reach_of`.
    """
    if axis is None:
        low, level, spare, spread = sort_around(flat, width)
        for rank in (spare, low, spread):
            level += rank
    else:
        along, across = (1, width) if axis else (width, 1)
        _, level, spare, _ = sort_sides(flat[across:-across], along)
        level += spare
        low, _, _, spread = sort_sides(median_across(flat, across), along)
    spread -= low
    return level, spread


def sort_around(flat: Float, width: int) -> tuple[Float, Float, Float, Float]:
    """:data:`RANKS` of the eight pixels around each: three of a column, three of the next but one, two between.

    A column of three is sorted once for both of its sides.

    Parameters
    ----------
    flat : ndarray of float32
        An image of rows of ``width``, one behind the other.
    width : int
        Pixels.

    Returns
    -------
    tuple of ndarray
        Entry i belongs to pixel i + width + 1.
    """
    n = flat.size - 2 * width
    up, here, down = flat[:n], flat[width : width + n], flat[2 * width :]
    least, most = np.minimum(up, down), np.maximum(up, down)
    first, spare = np.minimum(least, here), np.maximum(least, here)
    middle, last = np.minimum(spare, most), np.maximum(spare, most, out=spare)
    a, c, b = (least[1:-1], most[1:-1], np.empty(n - 2, flat.dtype))
    e0, e1 = np.minimum(first[:-2], first[2:]), np.maximum(first[:-2], first[2:])
    e4, e5 = np.minimum(last[:-2], last[2:]), np.maximum(last[:-2], last[2:])
    first, last = first[: n - 2], last[: n - 2]
    e2, e3 = np.minimum(middle[:-2], middle[2:], out=first), np.maximum(middle[:-2], middle[2:], out=last)
    middle = middle[: n - 2]
    # six of both columns in order: e0, then four of e1 to e4, e5
    np.minimum(e1, e4, out=b)
    high = np.maximum(e1, e4, out=e4)
    e1, e2 = np.minimum(e2, b, out=e1), np.maximum(e2, b, out=e2)
    e3, e4 = np.minimum(e3, high, out=b), np.maximum(e3, high, out=high)
    # and the two between, a < c
    low = np.maximum(e0, a, out=e0)
    np.minimum(low, e1, out=low)
    np.minimum(low, c, out=low)
    high = np.minimum(e5, c, out=e5)
    np.maximum(high, e4, out=high)
    np.maximum(high, a, out=high)
    np.maximum(e1, c, out=e1)
    above = np.maximum(e2, c, out=middle)
    below = np.maximum(e2, a, out=e2)
    np.minimum(below, e1, out=below)
    np.minimum(below, e3, out=below)
    np.maximum(e3, a, out=e3)
    np.minimum(above, e3, out=above)
    np.minimum(above, e4, out=above)
    return low, below, above, high


def median_across(flat: Float, step: int) -> Float:
    """Median of each value and those ``step`` before and behind it; entry i belongs to pixel i + step."""
    one, two, three = flat[: -2 * step], flat[step:-step], flat[2 * step :]
    out: Float = np.maximum(one, two)
    np.minimum(out, three, out=out)
    np.maximum(out, np.minimum(one, two), out=out)
    return out


def sort_sides(flat: Float, step: int) -> tuple[Float, Float, Float, Float]:
    """:data:`RANKS` of the four values to each side of each: four in a row are sorted once for both of their sides.

    Parameters
    ----------
    flat : ndarray of float32
        An image, one row behind the other.
    step : int
        From one of the four to the next: 1 along rows, the width of a row along columns.

    Returns
    -------
    tuple of ndarray
        Entry i belongs to pixel i + 4 steps.
    """
    low, high = np.minimum(flat[:-step], flat[step:]), np.maximum(flat[:-step], flat[step:])
    apart = 2 * step
    first, second = np.minimum(low[:-apart], low[apart:]), np.maximum(low[:-apart], low[apart:])
    third, last = np.minimum(high[:-apart], high[apart:]), np.maximum(high[:-apart], high[apart:])
    four = (first, np.minimum(second, third), np.maximum(second, third, out=third), last)
    n = first.size - 5 * step
    (a, b, c, d), (e, f, g, h) = ([line[at : at + n] for line in four] for at in (0, 5 * step))
    spare, lowest, highest = np.empty(n, np.float32), np.maximum(a, e), np.minimum(d, h)
    for line in (b, f):
        np.minimum(lowest, line, out=lowest)
    for line in (c, g):
        np.maximum(highest, line, out=highest)
    pairs = ((a, h), (b, g), (c, f), (d, e))
    below, above = np.minimum(*pairs[0]), np.maximum(*pairs[0])
    for one, other in pairs[1:]:
        np.maximum(below, np.minimum(one, other, out=spare), out=below)
        np.minimum(above, np.maximum(one, other, out=spare), out=above)
    return lowest, below, above, highest


def choose_sharpness(header: Mapping[str, Any], axis: int | None) -> float:
    """The sharpness that the point spread function allows in an exposure, by its keywords."""
    if axis is not None:
        return _sharpness(LINE_WIDTH, True)
    waves = [FILTER.match(str(header.get(key, "")).upper()) for key in ("FILTER", "PUPIL")]
    wave = min((int(found[1]) / 100 for found in waves if found), default=SHARPEST_WAVE)
    instrument = str(header.get("INSTRUME", "")).upper()
    is_long = "LONG" in str(header.get("DETECTOR", "")).upper() and instrument == "NIRCAM"
    scale = LONG_SCALE if is_long else SCALES.get(instrument, LONG_SCALE)
    return _sharpness(1.03 * wave / TELESCOPE * ARCSEC / scale, False)


@cache
def _sharpness(width: float, dispersed: bool) -> float:
    """Largest residual over the range of the neighbors, of a Gaussian at any place in its pixel.

    Parameters
    ----------
    width : float
        FWHM, pixels.
    dispersed : bool
        Whether the neighbors lie along one line.
    """
    from scipy.special import erf

    def share(center: float) -> NDArray[np.float64]:
        edges = (np.arange(-REACH, REACH + 2) - 0.5 - center) * (2.3548 / width / np.sqrt(2))
        found: NDArray[np.float64] = np.diff(erf(edges)) / 2
        return found

    worst = 0.0
    for y in np.linspace(0, 0.5, 6):
        for x in np.linspace(0, 0.5, 6):
            line = share(x)
            image = np.outer(np.ones(2 * REACH + 1) if dispersed else share(y), line)
            near = np.sort([image[REACH + dy, REACH + dx] for dy, dx in offsets_of(1 if dispersed else None)])
            middle = (near[RANKS[1]] + near[RANKS[2]]) / 2
            worst = max(worst, (image[REACH, REACH] - middle) / max(near[RANKS[3]] - near[RANKS[0]], 1e-3))
    return min(SAFETY * worst, 20.0)
