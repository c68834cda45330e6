"""The statistic of the significance search: what is left of a pixel beside its neighbours, and what chance leaves.

1. *Residual* along an axis: a pixel minus the median of its 4 nearest neighbours there, in units of sigma. Where
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

import numpy as np

from badpix.numerics.medians import median_filled

# Variance of the median of k Gaussian values, k = 1 ... 4.
_MEDIAN_VARIANCE = (np.nan, 1.0, 0.5, 0.449, 0.298)
_FACTORS = np.sqrt((1 + _MEDIAN_VARIANCE[4]) / (1 + np.array(_MEDIAN_VARIANCE))).astype(np.float32)
_HIT_SHARE = 20  # part of the false alarms that hits of one exposure may be
_STEP = 0.02  # sigma, of the integral and of the thresholds


@dataclass
class Residuals:
    """Residuals of one exposure on a padded band: eta, and the larger and smaller of both axes' sizes."""

    eta: np.ndarray
    larger: np.ndarray
    smaller: np.ndarray


def pad(band: np.ndarray, width: int) -> np.ndarray:
    """A band with a frame of NaN."""
    return np.pad(band, width, constant_values=np.nan)


def combine_axes(along_x: np.ndarray, along_y: np.ndarray) -> Residuals:
    """Residuals along both axes in one; ``along_x`` and ``along_y`` are used up."""
    low, high = np.minimum(along_x, along_y), np.maximum(along_x, along_y)
    eta = np.maximum(low, 0) + np.minimum(high, 0)
    np.abs(along_x, out=along_x)
    np.abs(along_y, out=along_y)
    return Residuals(eta, np.maximum(-low, high), np.minimum(along_x, along_y, out=along_x))


def measure_residuals(sci: np.ndarray, sigma: np.ndarray) -> Residuals:
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
    return combine_axes(*measure_axes(sci, sigma))


def measure_axes(sci: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(s - median of 4 neighbours) / sigma along x and along y, scaled to the variance that 4 neighbours give."""
    missing = np.isnan(sci)
    filled = np.where(missing, np.float32(np.inf), sci)
    return tuple(_residual(sci, sigma, missing, filled, axis) for axis in (1, 0))  # type: ignore[return-value]


def _residual(sci: np.ndarray, sigma: np.ndarray, missing: np.ndarray, filled: np.ndarray, axis: int) -> np.ndarray:
    ny, nx = sci.shape
    core = (slice(2, ny - 2), slice(2, nx - 2))
    views = []
    for d in (-2, -1, 1, 2):
        dy, dx = (d, 0) if axis == 0 else (0, d)
        views.append((slice(2 + dy, ny - 2 + dy), slice(2 + dx, nx - 2 + dx)))
    gone = np.add.reduce([missing[v] for v in views], dtype=np.uint8)
    gone[missing[core]] = 0  # no residual there anyway
    middle = median_filled([filled[v].copy() for v in views], gone)
    out = np.full(sci.shape, np.nan, np.float32)
    inner = out[core]
    np.subtract(sci[core], middle, out=inner)
    np.divide(inner, sigma[core], out=inner)
    y, x = np.nonzero(gone)
    inner[y, x] *= _FACTORS[4 - gone[y, x]]
    return out


# --- chance ----------------------------------------------------------------------------------------------


def _chance(limits: np.ndarray) -> np.ndarray:
    """P(eta > t) for unit Gaussian noise: integral of phi(u) Phi((u - t) / 0.546)**2 over u."""
    u = np.arange(-8, 14 + _STEP / 2, _STEP)
    width = math.sqrt(_MEDIAN_VARIANCE[4])
    phi = np.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)
    # u - t takes few different values, as both run in the same steps
    shift = np.arange(-limits.size + 1, u.size) * _STEP - 8
    below = np.array([0.5 * math.erfc(-z / width / math.sqrt(2)) for z in shift]) ** 2
    return np.array([np.sum(phi * below[limits.size - 1 - i :][: u.size]) * _STEP for i in range(limits.size)])


def solve_thresholds(exposures: int, false_alarm: float) -> np.ndarray:
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
