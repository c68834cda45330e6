"""What the pixels of a slice or slit share beyond smooth light: lines of the lamp, absorption, fringes.

Images are (n, m) with the dispersion along the first axis.

1. Pixels far above the light, with their side neighbors, and pixels far below it tell no lines.
2. Lines and fringes may *incline* across a slice: by how much is measured as the inclination of paths is, with the
   axes exchanged.
3. Median over 13 pixels across, on the inclined lines, of those that are bright for their slice. A dip of one row is
   no line: spectrographs sample theirs by two.
4. A last median over seven ordinary pixels may change the result by a tenth, and by what half a row more or less
   makes of the lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from badpix.flats.paths import measure_inclination
from badpix.numerics.medians import median_filled
from badpix.numerics.neighbors import count_sides

HALF = 6  # pixels to each side of the median across
CLOSE, LITTLE = 3, 0.1  # a last look at closer pixels, which may change the light by that part
STEEPEST = 0.3  # more where lines are steep, at the most
FEWEST = 3  # pixels that a median across needs
LINE = 0.55  # of the rows before and after: no spectral line is narrower
SHORT, BLACK = 10, 0.15  # rows of a dip, and part of the light around: darker ones are dead pixels
LOW, HOT = 0.6, 3.0  # of the light: pixels beyond are odd
FEW_ODD = 0.17  # share of odd pixels within 5 x 5 beyond which the light is odd, not the pixels
ROWS = 64  # worked on at a time

Float32 = NDArray[np.float32]


def drop_odd(image: Float32, light: Float32, floor: float) -> Float32:
    """The image without pixels that are far from the light where most around them are not; of hot ones without the
    side neighbors.

    Half of a short median may be theirs, and what a hot pixel gives to its neighbors shows the coupling: it must not
    be taken for light.
    """
    from scipy.ndimage import uniform_filter

    with np.errstate(invalid="ignore"):
        hot, low = (image > HOT * light) & (light > floor), (image < LOW * light) & (light > floor)
    alone = uniform_filter((hot | low).astype(np.float32), 5, mode="nearest") < FEW_ODD
    hot &= alone
    out = image.copy()
    out[hot | (low & alone) | (count_sides(hot) > 0)] = np.nan
    return out


def measure_lines(
    image: Float32, light: Float32, floor: float, path: Float32 | None, before: Float32 | None = None
) -> Float32:
    """What the bright pixels of a slice share beyond the smooth light: (n, m), 1 where it can't be told.

    ``path``: (n, m) from :func:`follow_lines`; None takes lines as they lie across. ``before``: (n, m) light of an
    earlier look, which counts where too few pixels are left.
    """
    lines = without_rows(median_across(compare_bright(image, light, floor), HALF, path))
    if before is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            np.copyto(lines, before / light, where=np.isnan(lines) & (light > floor))
    return _filled(lines)


def _filled(lines: Float32) -> Float32:
    """1 where nothing is known."""
    lines[np.isnan(lines)] = 1
    return lines


def compare_bright(image: Float32, light: Float32, floor: float) -> Float32:
    """The image over the light, NaN in pixels that are not bright for their slice."""
    from scipy.ndimage import maximum_filter1d

    peak = maximum_filter1d(np.nan_to_num(light), 2 * HALF + 1, axis=1, mode="nearest")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((light > 0.5 * peak) & (light > floor), image / light, np.float32(np.nan)).astype(np.float32)


def follow_lines(ratio: Float32) -> Float32 | None:
    """Rows by which lines and fringes incline, summed across: (n, m); None where all lie across."""
    known = np.where(np.isfinite(ratio), ratio, np.float32(1))
    tilt = measure_inclination(np.ascontiguousarray(known.T)).T
    return np.cumsum(tilt, axis=1, dtype=np.float64).astype(np.float32) if tilt.any() else None


def measure_rest(image: Float32, light: Float32, lines: Float32, floor: float, path: Float32 | None) -> Float32:
    """What the ordinary pixels next to each one still share: (n, m)."""
    steep = np.zeros_like(lines)
    if len(lines) > 2:
        steep[1:-1] = np.abs(lines[2:] - lines[:-2]) / (4 * np.maximum(lines[1:-1], LITTLE))
    most = LITTLE + np.minimum(steep, STEEPEST)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(light > floor, image / light, np.float32(np.nan))
        ratio[np.abs(ratio - 1) > 3 * most] = np.nan
    return np.clip(_filled(median_across(ratio, CLOSE, path)), 1 - most, 1 + most)


def median_across(ratio: Float32, half: int, path: Float32 | None = None) -> Float32:
    """Median of the pixels within ``half`` across: (n, m), NaN where fewer than :data:`FEWEST` are known.

    With ``path`` pixel ``x + k`` is read at row ``y + path[y, x + k] - path[y, x]``.
    """
    n, m = ratio.shape
    read = _Rows(ratio, half) if path is None else _Inclined(ratio, path)
    out = np.empty((n, m), np.float32)
    for start in range(0, n, ROWS):
        stop = min(start + ROWS, n)
        lines = [read(start, stop, k) for k in range(-half, half + 1)]
        missing = np.zeros((stop - start, m), np.uint16)
        for values in lines:
            lost = np.isnan(values)
            missing += lost
            values[lost] = np.inf
        few = len(lines) - missing < FEWEST
        middle = median_filled(lines, missing)
        middle[few | ~np.isfinite(middle)] = np.nan
        out[start:stop] = middle
    return out


class _Rows:
    """Pixels some columns further on, as they lie; NaN beyond the frame."""

    def __init__(self, ratio: Float32, half: int) -> None:
        self.half, self.width = half, ratio.shape[1]
        self.wide = np.pad(ratio, ((0, 0), (half, half)), constant_values=np.nan)

    def __call__(self, start: int, stop: int, step: int) -> Float32:
        first = self.half + step
        return self.wide[start:stop, first : first + self.width].copy()


class _Inclined:
    """Pixels some columns further on, on inclined lines: interpolated between rows, with their curvature."""

    def __init__(self, ratio: Float32, path: Float32) -> None:
        (self.n, self.m), self.path, self.values = ratio.shape, path, ratio
        self.step, self.bend = np.zeros_like(ratio), np.zeros_like(ratio)
        self.step[:-1] = ratio[1:] - ratio[:-1]
        self.bend[1:-2] = (ratio[:-3] - ratio[1:-2] - ratio[2:-1] + ratio[3:]) / 4
        self.step[~np.isfinite(self.step)] = 0
        self.bend[~np.isfinite(self.bend)] = 0

    def __call__(self, start: int, stop: int, step: int) -> Float32:
        column = np.clip(np.arange(self.m) + step, 0, self.m - 1)
        place = self.path[start:stop, column] - self.path[start:stop]
        place += np.arange(start, stop, dtype=np.float32)[:, None]
        low = np.clip(place.astype(np.int32), 0, self.n - 1)
        part = np.clip(place - low, 0, 1)
        index = low * self.m + column
        values: Float32 = self.values.take(index)
        values += part * (self.step.take(index) - (1 - part) * self.bend.take(index))
        values[(place < -0.5) | (place > self.n - 0.5)] = np.nan
        values[:, np.arange(self.m) + step != column] = np.nan
        return values


def without_rows(lines: Float32) -> Float32:
    """Dips of one row raised to what the rows before and after, where known, allow: no line is that narrow."""
    out = lines.copy()
    if len(lines) > 2:
        least = LINE * np.minimum(lines[:-2], lines[2:])  # NaN if one of them is
        np.copyto(out[1:-1], least, where=out[1:-1] < least)
    return out


def find_black(image: Float32, light: Float32) -> NDArray[np.bool_]:
    """Pixels that are dead, not in the dark: (n, m), black runs of up to :data:`SHORT` rows along the dispersion.

    Over half of a slice they would pass for absorption; but none leaves less than :data:`BLACK` of the light around.
    """
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    bright = maximum_filter1d(np.nan_to_num(light), 2 * SHORT + 1, axis=0, mode="nearest")
    bright *= np.float32(BLACK)
    with np.errstate(invalid="ignore"):
        black = image < bright
    dark = np.pad(black.view(np.uint8), ((SHORT, SHORT), (0, 0)), constant_values=1)  # so it is beyond the frame
    dark = minimum_filter1d(dark, SHORT + 1, axis=0, mode="nearest")
    dark = maximum_filter1d(dark, SHORT + 1, axis=0, mode="nearest")[SHORT:-SHORT]
    found: NDArray[np.bool_] = black & (dark == 0)
    return found
