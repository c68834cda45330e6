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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Variance of the median of k Gaussian values, k = 1 ... 4.
_MEDIAN_VARIANCE = (np.nan, 1.0, 0.5, 0.449, 0.298)
_FACTORS = np.sqrt((1 + _MEDIAN_VARIANCE[4]) / (1 + np.array(_MEDIAN_VARIANCE[::-1]))).astype(
    np.float32
)  # by missing
_HIT_SHARE = 20  # part of the false alarms that hits of one exposure may be
_STRIP = 1 << 15  # pixels
_STEP = 0.02  # sigma, of the integral and of the thresholds


@dataclass
class Residuals:
    """Residuals of one exposure on a padded band: eta, and the larger of both axes' sizes."""

    eta: NDArray[Any]
    larger: NDArray[Any]


def pad(band: NDArray[Any], width: int) -> NDArray[Any]:
    """A band with a frame of NaN."""
    return np.pad(band, width, constant_values=np.nan)


class _Room:
    """Memory for the strips of a band, used again for each."""

    def __init__(self, shape: tuple[int, int]) -> None:
        ny, stride = shape
        self.rows = max(1, min(_STRIP // stride, ny - 4))
        size = (self.rows + 4) * stride
        self.along_x, self.along_y, self.first, self.second, self.third = np.empty((5, size), np.float32)


def measure_residuals(
    sci: NDArray[Any], sigma: NDArray[Any], look: Callable[[slice, NDArray[Any], NDArray[Any]], None] | None = None
) -> tuple[Residuals, NDArray[Any]]:
    """Residuals of one exposure.

    Parameters
    ----------
    sci : ndarray of float32, shape (ny, nx)
        NaN where not usable; with at least 2 pixels of NaN around the frame.
    sigma : ndarray of float32
        Noise; positive where ``sci`` is finite.
    look : callable, optional
        Gets rows, and the residuals along x and along y there, which are overwritten afterwards.

    Returns
    -------
    Residuals
        float32, of the shape of the input; NaN in the outer 2 pixels.
    smaller : ndarray of float32, shape (ny, nx)
        The smaller size of both axes.
    """
    eta, larger, smaller = (np.empty(sci.shape, np.float32) for _ in range(3))
    for values in (eta, larger, smaller):
        values[:2] = values[-2:] = np.nan
    room = _Room(sci.shape)
    for rows, along_x, along_y in _cut_strips(sci, sigma, room):
        if look is not None:
            look(rows, along_x, along_y)
        spare = room.first[: along_x.size].reshape(along_x.shape)
        low = np.minimum(along_x, along_y, out=room.second[: along_x.size].reshape(along_x.shape))
        high = np.maximum(along_x, along_y, out=room.third[: along_x.size].reshape(along_x.shape))
        np.maximum(low, 0, out=eta[rows])
        eta[rows] += np.minimum(high, 0, out=spare)
        np.maximum(np.negative(low, out=low), high, out=larger[rows])
        np.minimum(np.abs(along_x, out=along_x), np.abs(along_y, out=along_y), out=smaller[rows])
    return Residuals(eta, larger), smaller


def measure_axes(sci: NDArray[Any], sigma: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(s - median of 4 neighbors) / sigma along x and along y, scaled to the variance that 4 neighbors give."""
    out: tuple[NDArray[Any], NDArray[Any]]
    out = np.full(sci.shape, np.nan, np.float32), np.full(sci.shape, np.nan, np.float32)
    for rows, *both in _cut_strips(sci, sigma, _Room(sci.shape)):
        for whole, strip in zip(out, both, strict=True):
            whole[rows] = strip
    return out


def _cut_strips(
    sci: NDArray[Any], sigma: NDArray[Any], room: _Room
) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any]]]:
    """Rows, and the residuals along x and along y there; strips stay in the processor's cache."""
    ny, stride = sci.shape
    values, noise = sci.reshape(-1), sigma.reshape(-1)
    for start in range(2, ny - 2, room.rows):
        stop = min(start + room.rows, ny - 2)
        core = slice(start * stride, stop * stride)
        found = []
        for step, out in ((1, room.along_x), (stride, room.along_y)):
            # memory runs on from row to row: beyond an edge lies the frame of NaN
            near = values[core.start - 2 * step : core.stop + 2 * step]
            along = _subtract_median(near, step, out[: core.stop - core.start], room)
            along /= noise[core]
            found.append(along.reshape(-1, stride))
        yield slice(start, stop), found[0], found[1]


def _subtract_median(values: NDArray[Any], step: int, out: NDArray[Any], room: _Room) -> NDArray[Any]:
    """Pixels minus the median of the neighbors 1 and 2 steps away in memory, scaled by the number of these.

    The larger of the smaller ones of two pairs, and the smaller of the larger ones, are the middle two of 4 values;
    with a missing value in each pair, or a pair missing, they are those that are left. Where one of the four is
    missing its partner stands in both, unless it is the median itself: the other one is. The first and last 2 steps
    are left out.
    """
    before, after = slice(None, -3 * step), slice(3 * step, None)  # the pairs before a pixel and behind it
    small = np.fmin(values[:-step], values[step:], out=room.first[: values.size - step])
    large = np.fmax(values[:-step], values[step:], out=room.second[: values.size - step])
    middle = np.fmax(small[before], small[after], out=out)
    other = np.fmin(large[before], large[after], out=room.third[: out.size])
    missing = np.isnan(values).view(np.uint8)
    pairs = missing[:-step] + missing[step:]
    gone = pairs[before] + pairs[after]
    gone *= 1 - missing[2 * step : -2 * step]  # nothing is measured there
    some = np.flatnonzero(gone != 0)  # of bool: in a fifth of the time
    if some.size:
        number = gone[some]
        one = some[number == 1]
        partner = np.where(pairs[before][one] == 1, small[before][one], small[after][one])
        median = middle[one]
        middle[one] = other[one] = np.where(median == partner, other[one], median)
    middle += other
    middle *= np.float32(0.5)
    np.subtract(values[2 * step : -2 * step], middle, out=middle)
    if some.size:
        middle[some] *= _FACTORS[number]
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
    low, high = 0.0, 40.0
    for _ in range(80):  # halved until nothing is left between them
        middle = (low + high) / 2
        if 0.5 * math.erfc(middle / math.sqrt(2)) > false_alarm / _HIT_SHARE:
            low = middle
        else:
            high = middle
    return high
