"""The statistic of the significance search: what is left of a pixel beside its neighbors, and what chance leaves.

1. *Residual* along an axis: a pixel minus the median of its 4 nearest neighbors there, in units of sigma. Where
   some of the 4 are missing it is scaled to the variance that all of them give.
2. ``eta`` is the residual nearer to zero if both axes have one sign, else 0.
3. For independent Gaussian noise the chance of eta > t is the integral of phi(u) Phi((u - t) / 0.546)**2 over u (the
   two medians are independent, the pixel is common to both). From it follow the thresholds t(k, m) that at least k of
   m exposures exceed, with one sign, by a given chance.

It is step 1 of :mod:`badpix.ifu.significance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Variance of the median of k Gaussian values, k = 1 ... 4.
_MEDIAN_VARIANCE = (np.nan, 1.0, 0.5, 0.449, 0.298)
_FACTORS = np.sqrt((1 + _MEDIAN_VARIANCE[4]) / (1 + np.array(_MEDIAN_VARIANCE[::-1]))).astype(
    np.float32
)  # by missing
_HIT_SHARE = 20  # part of the false alarms that hits of one exposure may be
_STRIP = 64  # rows
_STEP = 0.02  # sigma, of the integral and of the thresholds


@dataclass
class Residuals:
    """Residuals of one exposure on a padded band: eta, and the larger of both axes' sizes."""

    eta: NDArray[Any]
    larger: NDArray[Any]


def pad(band: NDArray[Any], width: int) -> NDArray[Any]:
    """A band with a frame of NaN."""
    return np.pad(band, width, constant_values=np.nan)


def combine_axes(along_x: NDArray[Any], along_y: NDArray[Any]) -> tuple[Residuals, NDArray[Any]]:
    """Residuals along both axes in one, and the smaller of their sizes; ``along_x`` and ``along_y`` are used up."""
    low, high = np.minimum(along_x, along_y), np.maximum(along_x, along_y)
    eta = np.maximum(low, 0) + np.minimum(high, 0)
    np.abs(along_x, out=along_x)
    np.abs(along_y, out=along_y)
    larger = np.maximum(np.negative(low, out=low), high, out=high)
    return Residuals(eta, larger), np.minimum(along_x, along_y, out=along_x)


def measure_residuals(sci: NDArray[Any], sigma: NDArray[Any]) -> Residuals:
    """Residuals of one exposure.

    Parameters
    ----------
    sci : ndarray of float32, shape (ny, nx)
        NaN where not usable; with at least 2 pixels of NaN around the frame.
    sigma : ndarray of float32
        Noise; positive where ``sci`` is finite.

    Returns
    -------
    Residuals
        float32, of the shape of the input; NaN in the outer 2 pixels.
    """
    return combine_axes(*measure_axes(sci, sigma))[0]


def measure_axes(sci: NDArray[Any], sigma: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(s - median of 4 neighbors) / sigma along x and along y, scaled to the variance that 4 neighbors give."""
    ny, stride = sci.shape
    out = np.full(sci.shape, np.nan, np.float32), np.full(sci.shape, np.nan, np.float32)
    for start in range(2, ny - 2, _STRIP):  # strips stay in the processor's cache
        stop = min(start + _STRIP, ny - 2)
        values = sci[start - 2 : stop + 2].reshape(-1)
        high, low = np.fmin(values, np.float32(np.inf)), np.fmax(values, np.float32(-np.inf))
        missing = np.isnan(values).view(np.uint8)
        for along, step in zip(out, (1, stride), strict=True):
            # memory runs on from row to row: beyond an edge lies the frame of NaN
            core = slice(2 * step, values.size - 2 * step)
            left = _subtract_median(values, high, low, missing, step)
            left /= sigma[start - 2 : stop + 2].reshape(-1)[core]
            rows = slice(2 * stride - 2 * step, left.size - 2 * stride + 2 * step)
            along[start:stop].reshape(-1)[:] = left[rows]
    return out


def _subtract_median(
    values: NDArray[Any], high: NDArray[Any], low: NDArray[Any], missing: NDArray[Any], step: int
) -> NDArray[Any]:
    """Pixels minus the median of the neighbors 1 and 2 steps away in memory, scaled by the number of these.

    Missing ones are infinite in ``high`` and minus infinite in ``low``. The mean of the second smallest of ``high``
    and the second largest of ``low`` is the median of 4, 3 or 2 values; one alone is put right, none gives NaN.
    The first and last 2 steps are left out.
    """
    before, after = slice(None, -3 * step), slice(3 * step, None)  # the pairs before a pixel and behind it
    small, large = np.minimum(high[:-step], high[step:]), np.maximum(high[:-step], high[step:])
    middle = np.minimum(np.maximum(small[before], small[after]), np.minimum(large[before], large[after]))
    np.minimum(low[:-step], low[step:], out=small)
    np.maximum(low[:-step], low[step:], out=large)
    largest = np.maximum(large[before], large[after])
    second = np.maximum(np.minimum(large[before], large[after]), np.maximum(small[before], small[after]))
    pairs = missing[:-step] + missing[step:]
    gone = pairs[before] + pairs[after]
    alone = np.flatnonzero(gone == 3)
    with np.errstate(invalid="ignore"):
        middle += second
        middle *= np.float32(0.5)
        middle[alone] = largest[alone]
        np.subtract(values[2 * step : -2 * step], middle, out=middle)
        middle *= np.take(_FACTORS, gone, out=second, mode="clip")
    found: NDArray[Any] = middle
    return found


# --- chance ----------------------------------------------------------------------------------------------


def _chance(limits: NDArray[Any]) -> NDArray[Any]:
    """P(eta > t) for unit Gaussian noise: integral of phi(u) Phi((u - t) / 0.546)**2 over u."""
    u = np.arange(-8, 14 + _STEP / 2, _STEP)
    width = math.sqrt(_MEDIAN_VARIANCE[4])
    phi = np.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)
    # u - t takes few different values, as both run in the same steps
    shift = np.arange(-limits.size + 1, u.size) * _STEP - 8
    below = np.array([0.5 * math.erfc(-z / width / math.sqrt(2)) for z in shift]) ** 2
    return np.array([np.sum(phi * below[limits.size - 1 - i :][: u.size]) * _STEP for i in range(limits.size)])


def solve_thresholds(exposures: int, false_alarm: float) -> NDArray[Any]:
    """Thresholds t[k, m]: at least k of m exposures beyond t with one sign happens with ``false_alarm``.

    Parameters
    ----------
    exposures : int
        Largest m.
    false_alarm : float
        Share of good pixels, for independent Gaussian noise.

    Returns
    -------
    ndarray, shape (exposures + 1, exposures + 1)
        Sigma; 0 where even t = 0 happens less often; NaN for k > m and for minorities other than (1, m).
    """
    limits = np.arange(0, 12, _STEP)
    one = _chance(limits)
    out = np.full((exposures + 1, exposures + 1), np.nan)
    for m in range(1, exposures + 1):
        for k in {1, *range(m // 2 + 1, m + 1)}:
            chance = 2 * sum(math.comb(m, j) * one**j * (1 - one) ** (m - j) for j in range(k, m + 1))
            log = np.log(np.maximum(chance, 1e-300))
            out[k, m] = np.interp(-math.log(false_alarm), -log, limits)  # chance falls with the limit
    return out


def solve_hit_limit(false_alarm: float) -> float:
    """Limit on the difference from other exposures alone: a Gaussian exceeds it with a twentieth of ``false_alarm``.

    The difference has wider tails than a Gaussian: with this limit about 1 pixel in a million is flagged on blank sky
    for the default of 1e-5.
    """
    return -NormalDist().inv_cdf(false_alarm / _HIT_SHARE)
