"""Illumination of a dispersed flat: smooth along the dispersion, sharp across it, in slices, slits or traces.

Images are (n, m) with the dispersion along the first axis; a *path* is where light of one point of a slice or slit
falls, one pixel of it a row.

1. *Inclination* of the paths, pixels across per pixel along (:mod:`badpix.flats.paths`): on a mesh, rows 4, 8 and 12
   pixels apart are shifted against each other until they agree (sum of absolute differences of square roots, all
   inclinations from -0.35 to 0.35); cells without contrast take it from the nearest one. Summed along the dispersion
   it gives the paths, so curved slices and traces are followed without being told where they are.
2. *Light along the path*: median of 13 pixels within 10 rows, interpolated across. No defect of up to six rows and
   no edge of a slice pulls it.
3. *Lines, bands and fringes* (:mod:`badpix.flats.lines`): what is left is divided by its median over 13 pixels
   across, on lines as they incline, of those that are bright for their slice, for what all of them share is light and
   no defect. Then step 2 is repeated without the lines and without odd pixels, and step 3 after it.
4. *Edges and gaps*, where interpolation blurs: pixels there that look low are looked at again, with the median
   of those pixels within 20 rows whose path meets a pixel's center to a quarter, and not above what the three pixels
   before and the three after on the path see, dead ones left out: light that goes on low along its path is an edge.
   Beside strong lines, where stray light counts, not above what the rows around tell of stray and line.

Sources: the traces of the instruments are described in the JWST User Documentation (MIRI MRS, NIRSpec IFU, MOS and
fixed slits, NIRISS SOSS); the light of a spectrograph as profile times spectrum is that of Horne 1986, PASP 98, 609.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.flats.lines import (
    HALF,
    HOT,
    compare_bright,
    drop_odd,
    find_black,
    follow_lines,
    measure_lines,
    measure_rest,
)
from badpix.flats.paths import follow_paths, measure_along, sample_path
from badpix.numerics.medians import median_rows
from badpix.numerics.neighbors import grow

SEEN = 0.03  # of the bright light: fainter pixels tell no lines
LEAST = 0.2  # lines below that are no light to divide by
ON_EDGE = 0.7  # of the brightest light within HALF pixels across: fainter ones lie on an edge or in a gap
ENDS = 0.5  # of the smooth light: lines below that are the end of a trace
LOW = 0.6  # of the light: pixels that are looked at again
FAR = 20  # rows of that look
MEETS = 0.25  # pixels between a path and the center of a pixel that it meets
BEFORE, AFTER = (-3, -2, -1), (1, 2, 3)
AROUND = tuple(k for k in range(-8, 9) if k)  # rows in which stray light is told from lines
STRONG = 1.5  # times as much light in the brightest of them: less tells nothing

Float = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Index = NDArray[np.intp]


def measure_light(mean: Float, axis: int) -> Float32:
    """What each pixel of a dispersed flat should see.

    Parameters
    ----------
    mean : ndarray
        (ny, nx) mean rate, DN/s, NaN where not measured.
    axis : int
        Axis of the array along which light is dispersed: 0 (y) or 1 (x).

    Returns
    -------
    ndarray of float32
        (ny, nx) DN/s; NaN where nothing was measured nearby.
    """
    image = fill_gaps(np.ascontiguousarray(mean if axis == 0 else mean.T, np.float32))
    path = follow_paths(image)
    light = measure_along(image, path)
    seen = SEEN * measure_bright(light)
    alive = np.where(find_black(image, light), np.float32(np.nan), image)
    across = follow_lines(compare_bright(alive, light, seen))
    lines = measure_lines(alive, light, seen, across)
    plain = drop_odd((image / np.maximum(lines, LEAST)).astype(np.float32), light, seen)
    before, light = light * lines, measure_along(plain, path)
    good = np.where(np.isnan(plain), np.float32(np.nan), alive)
    del plain
    lines = measure_lines(good, light, seen, across, before)
    light *= lines
    rest = measure_rest(good, light, lines, seen, across)
    del good, across, before
    lines *= rest
    light *= rest
    look_again(image, alive, light, path, np.maximum(lines, LEAST, out=lines))
    return light if axis == 0 else np.ascontiguousarray(light.T)


def measure_bright(light: Float) -> float:
    """Level of the bright light, the 95th percentile of what is lit: the scale of *dim*; NaN without light."""
    values = light[np.isfinite(light)]
    if not values.size:
        return float("nan")
    lit = values[values > 0.05 * np.quantile(values, 0.999)]
    return float(np.quantile(lit, 0.95)) if lit.size else float("nan")


def fill_gaps(image: Float32) -> Float32:
    """Pixels that were not measured take the median of those within four rows; what is left stays NaN.

    So do the neighbors that show a saturated one's charge, :data:`HOT` times as much.
    """
    lost = ~np.isfinite(image)
    if not lost.any():
        return image
    out = np.where(lost, np.float32(np.nan), image)
    y, x = np.nonzero(grow(lost) & ~lost)
    level = _median_within_rows(out, y, x)
    with np.errstate(invalid="ignore"):
        hot = out[y, x] > HOT * level
    out[y[hot], x[hot]] = level[hot]
    y, x = np.nonzero(lost)
    out[y, x] = _median_within_rows(out, y, x)
    return out


def _median_within_rows(image: Float32, y: Index, x: Index) -> Float32:
    """Median of the pixels within four rows of some pixels, without these: (n,)."""
    near = np.full((y.size, 8), np.nan, np.float32)
    for k, step in enumerate((-4, -3, -2, -1, 1, 2, 3, 4)):
        inside = (y + step >= 0) & (y + step < len(image))
        near[inside, k] = image[y[inside] + step, x[inside]]
    found: Float32 = median_rows(near)
    return found


# --- 4: edges and gaps -----------------------------------------------------------------------------------


def look_again(image: Float32, alive: Float32, light: Float32, path: Float32, lines: Float32) -> None:
    """Replace the light of low pixels on edges and in gaps by what their own path sees, in place.

    ``alive``: (n, m) the image without clusters of dead pixels, which tell no edge; ``lines``: (n, m) what the pixels
    of a slice share: the pixels of the path are compared without it.
    """
    from scipy.ndimage import maximum_filter1d

    peak = maximum_filter1d(np.nan_to_num(light), 2 * HALF + 1, axis=1, mode="nearest")
    with np.errstate(invalid="ignore"):
        y, x = np.nonzero((image < LOW * light) & ((light < ON_EDGE * peak) | (lines < ENDS)))
        chunk, plain = 100_000, image / lines
        lit = alive / lines
    for start in range(0, y.size, chunk):
        yy, xx = y[start : start + chunk], x[start : start + chunk]
        exact = median_rows(sample_path(plain, path, yy, xx, range(-FAR, FAR + 1), MEETS)) * lines[yy, xx]
        exact = np.where(np.isfinite(exact), exact, light[yy, xx])
        sides = [median_rows(sample_path(lit, path, yy, xx, near, 0.5)) * lines[yy, xx] for near in (BEFORE, AFTER)]
        light[yy, xx] = np.fmin.reduce([exact, *sides, measure_stray(image, lines, path, yy, xx)])


def measure_stray(image: Float32, lines: Float32, path: Float32, y: Index, x: Index) -> Float32:
    """Light of some pixels beside strong lines, where part of it may be stray, without the lines: (n,).

    On the path the rate is ``a + b * lines``: b is the median slope between rows that see much and rows that see
    little of the line, a the median of what is left, at least 0. NaN where the lines differ too little to tell.
    """
    rates, seen = (sample_path(of, path, y, x, AROUND, 0.5) for of in (image, lines))
    order = np.argsort(np.where(np.isnan(rates), np.inf, seen), axis=1)
    rates, seen = (np.take_along_axis(of, order, axis=1) for of in (rates, seen))
    half, own = len(AROUND) // 2, lines[y, x]
    with np.errstate(invalid="ignore", divide="ignore"):
        least, most = np.fmin.reduce(seen, axis=1), np.fmax.reduce(seen, axis=1)
        slopes = (rates[:, half:, None] - rates[:, None, :half]) / (seen[:, half:, None] - seen[:, None, :half])
        slopes[~np.isfinite(slopes)] = np.nan
        slope = np.maximum(median_rows(slopes.reshape(y.size, -1)), 0)
        slope[~(most >= STRONG * least)] = 0  # the pixel's own line is the only one
        level = np.maximum(median_rows(rates - slope[:, None] * seen), 0)
        light: Float32 = level + slope * own
        light[~(np.fmax(most, own) >= STRONG * least)] = np.nan
    return light
