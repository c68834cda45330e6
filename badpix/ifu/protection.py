"""Where a source explains what stands out: by what the significance of a pixel is divided.

1. Where the 8 neighbors of a pixel don't fit the noise either, the pixel is probably no defect but structure: the
   median of their eta (by ``protect``), of the larger of their residuals (by ``protect_structure``), or of their
   differences between exposures.
2. Where the other exposures have something as significant close by: a line of a dithered source is at the same
   wavelength, a few pixels to the side.

All of them divide by sqrt(1 + strength**2 * excess), the excess of a squared significance over what noise gives. It
is step 3 of :mod:`badpix.ifu.significance`, and the protection of its step 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.ifu.noise import Band, stand_out
from badpix.numerics.medians import lower_median_along, median_rows
from badpix.numerics.neighbors import chunks, offsets

# Squares of what the neighbors' medians are for pure noise: eta, larger residual, difference between exposures.
NOISE_ETA, NOISE_LARGER, _NOISE_BETWEEN = 0.44**2, 1.2, 0.67**2
_NOISE_LINE = 9  # square of the eta up to which other exposures have no line


def _divisor(significance: NDArray[Any], strength: float, noise: float) -> NDArray[Any]:
    """What significance is divided by where that of the surroundings is larger than noise gives (squared)."""
    return np.sqrt(1 + strength**2 * np.fmax(significance**2 - noise, 0))


def measure_structure(
    field: NDArray[Any], size: NDArray[Any], at: NDArray[Any], around: NDArray[Any], *, strength: float, noise: float
) -> NDArray[Any]:
    """What significance is divided by where the neighbors don't fit the noise either.

    Parameters
    ----------
    field : ndarray of float32, flat
        A statistic, such as eta, at all pixels; its size counts.
    size : ndarray of float32, flat
        Its noise.
    at : ndarray of int, shape (n,)
        The pixels.
    around : ndarray of int
        Where their neighbors are: :func:`badpix.numerics.neighbors.offsets`.
    strength : float
        0 protects nothing.
    noise : float
        Square of what the neighbors' median is for pure noise.

    Returns
    -------
    ndarray of float32, shape (n,)
        At least 1.
    """
    out = np.ones(at.size, np.float32)
    if strength == 0:
        return out
    for chunk in chunks(at.size):
        near = at[chunk, None] + around
        out[chunk] = _divisor(median_rows(np.abs(field[near]) / size[near]), strength, noise)
    return out


def measure_between(difference: NDArray[Any], at: NDArray[Any], *, protect: float) -> NDArray[Any]:
    """Significance of the difference between exposures, protected by that of the 8 neighbors.

    Parameters
    ----------
    difference : ndarray of float32, shape (ny, nx)
        Of an exposure from what all have in common, in units of the noise.
    at : ndarray of int, shape (n,)
        The pixels.
    protect : float
        Strength of the protection.

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    around = offsets(3, 3, difference.shape[1])
    out = stand_out(difference, at)
    for chunk in chunks(at.size):
        near = (at[chunk, None] + around).reshape(-1)
        level = np.abs(stand_out(difference, near)).reshape(-1, around.size)
        out[chunk] /= _divisor(median_rows(level), protect, _NOISE_BETWEEN)
    return out


def measure_moved(
    band: Band, e: int, at: NDArray[Any], persistent: NDArray[Any], *, window: tuple[int, int], protect: float
) -> NDArray[Any]:
    """What significance is divided by where the other exposures have something significant close by.

    Parameters
    ----------
    band : Band
        All exposures.
    e : int
        The exposure whose pixels are asked for; the others answer.
    at : ndarray of int, shape (n,)
        The pixels.
    persistent : ndarray of bool, flat
        Defects of all exposures, which are no lines.
    window : (int, int)
        Pixels along the dispersion and across it that are looked at; odd.
    protect : float
        Strength of the protection.

    Returns
    -------
    ndarray of float32, shape (n,)
        At least 1.
    """
    around = band.around(window)
    size = band.noise.reshape(-1)
    out = np.ones(at.size, np.float32)
    for chunk in chunks(at.size):
        near = around[:, None] + at[chunk]
        noise = np.where(persistent[near], np.float32(np.nan), size[near])
        peaks = []
        for other, r in enumerate(band.residuals):
            if other != e:
                near_eta = np.abs(r.eta.reshape(-1)[near])
                near_eta /= noise
                peaks.append(np.fmax.reduce(near_eta, axis=0))
        out[chunk] = _divisor(lower_median_along(peaks), protect, _NOISE_LINE)
    return out
