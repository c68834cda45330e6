"""What a pixel shows beyond the pixels around it, in one exposure, and how much of that a source could be.

1. Values that can't be used are replaced by the median of the usable pixels that touch them, else by the level of the
   exposure, so that every pixel has eight neighbors: in images those around it, in dispersed light four to each side
   along the dispersion.
2. The residual is the value less the median of the eight.
3. A source is sharper than its neighborhood by no more than the point spread function allows: its residual is at most
   the *sharpness* times the range of its neighbors (their second highest less their second lowest: one bad neighbor
   does not count). The range beyond what noise makes, times the sharpness, is the residual that a source may have
   there; it replaces the noise where it is larger.

Source of 3: the idea of the sharpness in DAOFIND (Stetson 1987), turned around: noise instead of a cut, because
pixels in nebulae and crowded fields must be judged too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.medians import median_rows, sort_lines
from badpix.numerics.neighbors import AROUND

# Range of eight neighbors that noise makes, in units of the noise (mean 1.7, scatter 0.55); of images, of spectra.
NOISE_RANGE = (2.4, 2.0)
ALONG = (-4, -3, -2, -1, 1, 2, 3, 4)  # pixels along the dispersion
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
    """(ny, nx) each: residual, level of the neighbors, and noise with what a source may add."""

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
    return {None: (1, 1), 0: (REACH, 0), 1: (0, REACH)}[axis]


def fill(values: Float, usable: Bool, level: float) -> Float:
    """Values with those that can't be used replaced (step 1): (ny, nx)."""
    out = values.copy()
    bad = np.flatnonzero(~usable)
    if not bad.size:
        return out
    ny, nx = values.shape
    flat = out.reshape(-1)
    flat[bad] = np.nan
    steps = np.array([dy * nx + dx for dy, dx in AROUND])
    near = flat.take(bad[:, None] + steps, mode="clip")
    y, x = np.divmod(bad, nx)
    edge = np.flatnonzero((y == 0) | (y == ny - 1) | (x == 0) | (x == nx - 1))
    for k, (dy, dx) in enumerate(AROUND):
        outside = (y[edge] < -dy) | (y[edge] >= ny - dy) | (x[edge] < -dx) | (x[edge] >= nx - dx)
        near[edge[outside], k] = np.nan
    middle = median_rows(near)
    flat[bad] = np.where(np.isnan(middle), np.float32(level), middle)
    return out


def measure_residual(filled: Float, noise: Float, axis: int | None, *, sharpness: float) -> Residual:
    """Residual, level and noise of the inner pixels of a filled image (steps 2 and 3).

    Parameters
    ----------
    filled : ndarray of float32
        (..., ny + 2 ry, nx + 2 rx), with a margin of :func:`reach_of` around.
    noise : ndarray of float32
        (..., ny, nx) noise of the inner pixels.
    axis : int or None
        Of the dispersion.
    sharpness : float
        See step 3.
    """
    ry, rx = reach_of(axis)
    ny, nx = noise.shape[-2:]
    lines = [filled[..., ry + dy : ry + dy + ny, rx + dx : rx + dx + nx].copy() for dy, dx in offsets_of(axis)]
    low, below, above, high = sort_lines(lines, RANKS)
    below += above
    below *= np.float32(0.5)
    high -= low
    high -= np.multiply(noise, np.float32(NOISE_RANGE[axis is not None]), out=above)
    high *= np.float32(sharpness)
    value = np.subtract(filled[..., ry : ry + ny, rx : rx + nx], below, out=low)
    return Residual(value, below, np.maximum(noise, high, out=high))


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
