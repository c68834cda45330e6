"""Illumination of a dispersed flat: smooth along the dispersion, sharp across it, in slices, slits or traces.

Images are (n, m) with the dispersion along the first axis; a *path* is where light of one point of a slice or slit
falls, one pixel of it a row.

1. *Inclination* of the paths, pixels across per pixel along: on a mesh, rows 4, 8 and 12 pixels apart are shifted
   against each other until they agree (sum of absolute differences of square roots, all inclinations from -0.35
   to 0.35); cells without contrast take it from the nearest one. Summed along the dispersion it gives the paths, so
   curved slices and traces are followed without being told where they are.
2. *Light along the path*: median of 13 pixels within 10 rows, interpolated across. No defect of up to six rows and
   no edge of a slice pulls it.
3. *Lines, bands and fringes*: what is left is divided by its median over 13 pixels across, of those that are bright
   for their slice, for what all of them share is light and no defect. A dip of one row is no line: spectrographs
   sample theirs by two. Then step 2 is repeated without the lines.
   Fringes incline across a slice: a median over seven ordinary pixels may change the result by a tenth at the most.
4. *Edges and gaps*, where interpolation blurs: pixels there that look low are looked at again, with the median
   of those pixels within 20 rows whose path meets a pixel's center to a quarter, and not above what the three pixels
   before and after on the path see: light that goes on low along its path is an edge, not a defect.

Sources: the traces of the instruments are described in the JWST User Documentation (MIRI MRS, NIRSpec IFU, MOS and
fixed slits, NIRISS SOSS); the light of a spectrograph as profile times spectrum is that of Horne 1986, PASP 98, 609.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.medians import local_median, median_filled, median_rows
from badpix.numerics.neighbors import count_sides

MESH = 16  # pixels between the cells of the inclination
INCLINATIONS = np.arange(-14, 15) * 0.025  # pixels across per pixel along
LAGS = (-12, -8, -4, 4, 8, 12)  # rows between the profiles that are compared
WIDE = 49  # pixels across over which their agreement is judged
CONTRAST = 0.1  # of the light: less difference between inclinations tells nothing
FAINT = 0.02  # of the bright light: below it profiles are noise
STEPS = (-10, -8, -6, -5, -3, -1, 0, 1, 3, 5, 6, 8, 10)  # rows of the median along a path
HALF = 6  # pixels to each side of the median across
CLOSE, LITTLE = 3, 0.1  # a last look at closer pixels, which may change the light by that part
STEEPEST = 0.3  # more where lines are steep, at the most
SEEN = 0.03  # of the bright light: fainter pixels tell no lines
FEWEST = 3  # pixels that a median across needs
LINE = 0.55  # of the rows before and after: no spectral line is narrower
ON_EDGE = 0.7  # of the brightest light within HALF pixels across: fainter ones lie on an edge or in a gap
HOT, FEW_HOT = 3.0, 0.25  # times the light; share of such pixels within 5 x 5 beyond which it is light
LOW = 0.6  # of the light: pixels that are looked at again
FAR = 20  # rows of that look
MEETS = 0.25  # pixels between a path and the center of a pixel that it meets
NEAR = (-3, -2, -1, 1, 2, 3)
AROUND = tuple(k for k in range(-8, 9) if k)  # rows in which stray light is told from lines
STRONG = 1.5  # times as much light in the brightest of them: less tells nothing
ROWS = 64  # worked on at a time

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
    bright = measure_bright(light)
    lines = measure_lines(image, light, SEEN * bright)
    plain = drop_hot((image / np.maximum(lines, 0.2)).astype(np.float32), light, SEEN * bright)
    light = measure_along(plain, path)
    good = np.where(np.isnan(plain), np.float32(np.nan), image)
    lines = measure_lines(good, light, SEEN * bright)
    light *= lines
    rest = measure_rest(good, light, lines, SEEN * bright)
    lines *= rest
    light *= rest
    look_again(image, light, path, np.maximum(lines, 0.2, out=lines))
    return light if axis == 0 else np.ascontiguousarray(light.T)


def measure_bright(light: Float) -> float:
    """Level of the bright light, the 95th percentile of what is lit: the scale of *dim*; NaN without light."""
    values = light[np.isfinite(light)]
    if not values.size:
        return float("nan")
    lit = values[values > 0.05 * np.quantile(values, 0.999)]
    return float(np.quantile(lit, 0.95)) if lit.size else float("nan")


def fill_gaps(image: Float32) -> Float32:
    """Pixels that were not measured take the median of those within four rows; what is left stays NaN."""
    y, x = np.nonzero(~np.isfinite(image))
    if not y.size:
        return image
    out = image.copy()
    out[y, x] = np.nan
    near = np.full((y.size, 8), np.nan, np.float32)
    for k, step in enumerate((-4, -3, -2, -1, 1, 2, 3, 4)):
        inside = (y + step >= 0) & (y + step < len(image))
        near[inside, k] = out[y[inside] + step, x[inside]]
    out[y, x] = median_rows(near)
    return out


# --- 1: paths --------------------------------------------------------------------------------------------


def follow_paths(image: Float32) -> Float32:
    """Place across of the light that row 0 sees at each pixel, less that pixel's own: (n, m), the summed inclination.

    A path through (y, x) is at ``x + path[y + k, x] - path[y, x]`` in row ``y + k``.
    """
    inclination = measure_inclination(np.nan_to_num(image))
    return np.cumsum(inclination, axis=0, dtype=np.float64).astype(np.float32)


def measure_inclination(image: Float32) -> Float32:
    """Inclination of the paths, pixels across per pixel along: (n, m)."""
    n, m = image.shape
    rows = np.minimum(np.arange(MESH // 2, max(n, MESH), MESH), n - 1)
    columns = np.minimum(np.arange(MESH // 2, max(m, MESH), MESH), m - 1)
    smooth = image.copy()
    if n > 2:
        smooth[1:-1] = _middle_of_three(image[:-2], image[1:-1], image[2:])
    cost, light = compare_profiles(smooth, rows)
    cost, light = cost[:, :, columns], light[:, columns]
    mesh = _minimum(cost)
    mesh[cost.max(axis=0) - cost.min(axis=0) <= CONTRAST * light] = np.nan
    if not np.isfinite(mesh).any():
        return np.zeros(image.shape, np.float32)
    return spread_mesh(mesh, rows, columns, image.shape)


def compare_profiles(image: Float32, rows: Index) -> tuple[Float32, Float32]:
    """Disagreement of rows near ``rows`` by inclination, (inclinations, rows, m), and the light there, (rows, m).

    In square roots of the rate, so that bright pixels do not decide alone; rows are brought to one level first.
    """
    from scipy.ndimage import uniform_filter1d

    here = image[rows]
    floor = np.float32(FAINT * max(float(np.quantile(here, 0.98)), 0) + 1e-12)
    root, level = np.sqrt(np.maximum(here, 0) + floor), uniform_filter1d(here, WIDE, axis=1, mode="nearest") + floor
    cost = np.zeros((len(INCLINATIONS), *here.shape), np.float32)
    for lag in LAGS:
        inside = ((rows + lag >= 0) & (rows + lag < len(image)))[:, None]
        there = image[np.clip(rows + lag, 0, len(image) - 1)]
        for k, inclination in enumerate(INCLINATIONS):
            moved = _shift(there, inclination * lag)
            moved *= level / np.maximum(uniform_filter1d(moved, WIDE, axis=1, mode="nearest") + floor, floor)
            cost[k] += np.abs(np.sqrt(np.maximum(moved, 0) + floor) - root) * inside
    cost = uniform_filter1d(uniform_filter1d(cost, WIDE, axis=2, mode="nearest"), 3, axis=1, mode="nearest")
    return cost, uniform_filter1d(root, WIDE, axis=1, mode="nearest")


def _minimum(cost: Float32) -> Float32:
    """Inclination of least disagreement, by a parabola through the three lowest: (rows, columns)."""
    best = np.clip(cost.argmin(axis=0), 1, len(cost) - 2)
    before, at, after = (np.take_along_axis(cost, (best + k)[None], axis=0)[0] for k in (-1, 0, 1))
    bend = before - 2 * at + after
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(bend > 0, np.clip((before - after) / (2 * bend), -0.5, 0.5), 0)
    out: Float32 = (INCLINATIONS[best] + part * (INCLINATIONS[1] - INCLINATIONS[0])).astype(np.float32)
    return out


def spread_mesh(mesh: Float32, rows: Index, columns: Index, shape: tuple[int, ...]) -> Float32:
    """A mesh with missing cells filled, smoothed and interpolated to all pixels."""
    from scipy import ndimage

    mesh = local_median(mesh, (3, 3), outside=np.nan, where=np.ones(mesh.shape, bool))
    empty = ~np.isfinite(mesh)
    if empty.any():
        nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
        mesh = mesh[tuple(nearest)]
    mesh = ndimage.uniform_filter(mesh, 3, mode="nearest")
    tall = np.stack([np.interp(np.arange(shape[0]), rows, column) for column in mesh.T], axis=1)
    return np.stack([np.interp(np.arange(shape[1]), columns, row) for row in tall]).astype(np.float32)


def _middle_of_three(a: Float32, b: Float32, c: Float32) -> Float32:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _shift(rows: Float32, by: float) -> Float32:
    """Rows read ``by`` pixels further on, interpolated; the outermost pixel beyond the frame."""
    whole = int(np.floor(by))
    place = np.arange(rows.shape[1]) + whole
    low, high = (np.take(rows, np.clip(place + k, 0, rows.shape[1] - 1), axis=1) for k in (0, 1))
    low += (high - low) * np.float32(by - whole)
    return low


# --- 2: along the paths ----------------------------------------------------------------------------------


def measure_along(image: Float32, path: Float32) -> Float32:
    """Median along the path through each pixel (:data:`STEPS`): (n, m), NaN where nothing was measured."""
    n, m = image.shape
    columns, flat = np.arange(m, dtype=np.float32), image.ravel()
    out = np.empty_like(image)
    for start in range(0, n, ROWS):
        rows = np.arange(start, min(start + ROWS, n))
        lines, missing = [], np.zeros((rows.size, m), np.uint16)
        for step in STEPS:
            other = np.clip(rows + step, 0, n - 1)
            place = path[other]
            place -= path[rows]
            place += columns
            values = _interpolate(flat, other[:, None] * m, place, m)
            lost = np.isnan(values)
            lost[rows + step != other] = True
            np.copyto(values, np.inf, where=lost)
            missing += lost
            lines.append(values)
        out[rows] = median_filled(lines, missing)
    return out


def _interpolate(flat: Float32, base: Index, place: Float32, m: int) -> Float32:
    """Values between two pixels of rows that begin at ``base``; NaN more than half a pixel beyond the frame."""
    low = np.clip(place.astype(np.int32), 0, max(m - 2, 0))
    part = np.clip(place - low, 0, 1)
    index = base + low
    values = flat.take(index)
    values += (flat.take(index + min(1, m - 1)) - values) * part
    values[(place < -0.5) | (place > m - 0.5)] = np.nan
    return values


def drop_hot(image: Float32, light: Float32, floor: float) -> Float32:
    """The image without pixels far above the light where few around them are, and without their side neighbors.

    These show the coupling between pixels, which must not be taken for light: half of a short median may be theirs.
    """
    from scipy.ndimage import uniform_filter

    with np.errstate(invalid="ignore"):
        hot = (image > HOT * light) & (light > floor)
    if not hot.any():
        return image
    hot &= uniform_filter(hot.astype(np.float32), 5, mode="constant") < FEW_HOT
    out = image.copy()
    out[hot | (count_sides(hot) > 0)] = np.nan
    return out


# --- 3: lines --------------------------------------------------------------------------------------------


def measure_lines(image: Float32, light: Float32, floor: float) -> Float32:
    """What the bright pixels of a slice share beyond the smooth light: (n, m), 1 where it can't be told."""
    from scipy.ndimage import maximum_filter1d

    peak = maximum_filter1d(np.nan_to_num(light), 2 * HALF + 1, axis=1, mode="nearest")
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where((light > 0.5 * peak) & (light > floor), image / light, np.float32(np.nan))
    return without_rows(median_across(ratio, HALF))


def measure_rest(image: Float32, light: Float32, lines: Float32, floor: float) -> Float32:
    """What the ordinary pixels next to each one still share: (n, m).

    Cut at :data:`LITTLE`, and at what half a row more or less makes of the lines, which may incline across a slice.
    """
    steep = np.zeros_like(lines)
    if len(lines) > 2:
        steep[1:-1] = np.abs(lines[2:] - lines[:-2]) / (4 * np.maximum(lines[1:-1], LITTLE))
    most = LITTLE + np.minimum(steep, STEEPEST)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(light > floor, image / light, np.float32(np.nan))
        ratio[np.abs(ratio - 1) > 3 * most] = np.nan
    return np.clip(median_across(ratio, CLOSE), 1 - most, 1 + most)


def median_across(ratio: Float32, half: int) -> Float32:
    """Median of the pixels within ``half`` across: (n, m), 1 where fewer than :data:`FEWEST` are known."""
    n, m = ratio.shape
    ratio = np.pad(ratio, ((0, 0), (half, half)), constant_values=np.nan)
    out = np.empty((n, m), np.float32)
    for start in range(0, n, ROWS):
        band = ratio[start : start + ROWS]
        lines = [band[:, k : k + m].copy() for k in range(2 * half + 1)]
        missing = np.zeros(lines[0].shape, np.uint16)
        for values in lines:
            lost = np.isnan(values)
            missing += lost
            values[lost] = np.inf
        few = len(lines) - missing < FEWEST
        middle = median_filled(lines, missing)
        middle[few | ~np.isfinite(middle)] = 1
        out[start : start + ROWS] = middle
    return out


def without_rows(lines: Float32) -> Float32:
    """Dips of one row raised to what the rows before and after allow: no spectral line is that narrow."""
    out = lines.copy()
    if len(lines) > 2:
        out[1:-1] = np.maximum(out[1:-1], LINE * np.minimum(lines[:-2], lines[2:]))
    return out


# --- 4: edges and gaps -----------------------------------------------------------------------------------


def look_again(image: Float32, light: Float32, path: Float32, lines: Float32) -> None:
    """Replace the light of low pixels on edges and in gaps by what their own path sees, in place.

    ``lines``: (n, m) what the pixels of a slice share: the pixels of the path are compared without it.
    """
    from scipy.ndimage import maximum_filter1d

    peak = maximum_filter1d(np.nan_to_num(light), 2 * HALF + 1, axis=1, mode="nearest")
    with np.errstate(invalid="ignore"):
        y, x = np.nonzero((image < LOW * light) & (light < ON_EDGE * peak))
    chunk, plain = 100_000, image / lines
    for start in range(0, y.size, chunk):
        yy, xx = y[start : start + chunk], x[start : start + chunk]
        exact = median_rows(sample_path(plain, path, yy, xx, range(-FAR, FAR + 1), MEETS)) * lines[yy, xx]
        exact = np.where(np.isfinite(exact), exact, light[yy, xx])
        near = median_rows(sample_path(plain, path, yy, xx, NEAR, 0.5)) * lines[yy, xx]
        light[yy, xx] = np.fmin(np.fmin(exact, near), measure_stray(image, lines, path, yy, xx))


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


def sample_path(image: Float32, path: Float32, y: Index, x: Index, steps: Any, meets: float) -> Float32:
    """Values on the paths through some pixels, (pixels, steps): where a path passes a pixel's center that closely.

    Interpolated between the two pixels it passes; NaN elsewhere and beyond the frame.
    """
    n, m = image.shape
    flat, out = image.ravel(), np.empty((y.size, len(steps)), np.float32)
    for k, step in enumerate(steps):
        other = np.clip(y + step, 0, n - 1)
        place = path[other, x] - path[y, x] + x.astype(np.float32)
        values = _interpolate(flat, other * m, place, m)
        values[(other != y + step) | (np.abs(place - np.rint(place)) > meets)] = np.nan
        out[:, k] = values
    return out
