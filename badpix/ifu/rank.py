"""The documented search for outliers in IFU exposures: a rank cut on neighbor differences. Arrays in, arrays out.

The rule of the JWST pipeline, bit for bit, for the exposures of one detector:

1. Pixels with DO_NOT_USE become NaN in SCI.
2. Differences of each pixel to its two neighbors across the slice (MIRI: along x, NIRSpec: along y), in float64;
   beyond the frame the value 0 is implied. The smaller absolute difference counts; NaN if both are NaN.
3. The smallest difference over all exposures, ignoring NaN.
4. It is divided by its median in ``kernel_size`` (outside the frame: zeros), which is at least a third of the
   median over the frame.
5. Pixels above the ``threshold_percent`` percentile of this ratio (taken without the outer 4 pixels) are flagged
   in all exposures; with ``ifu_second_check`` also the pixels without any difference.

A rank cut flags the same number of pixels whatever the data: see :mod:`badpix.ifu.significance` for a better rule.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.clipping import median
from badpix.numerics.medians import local_median

BORDER = 4  # pixels at the frame's edge that the percentile leaves out


def measure_differences(sci: NDArray[Any], axis: int) -> NDArray[Any]:
    """The smaller absolute difference of each pixel to its two neighbors along an axis.

    Parameters
    ----------
    sci : ndarray of float32, shape (ny, nx)
        NaN where not usable.
    axis : int
        1: along x; 0: along y.

    Returns
    -------
    ndarray of float64, shape (ny, nx)
        NaN where both differences are NaN. Neighbors outside the frame count as 0.
    """
    steps = np.abs(np.diff(sci.astype(np.float64), axis=axis, prepend=0, append=0))
    if axis == 1:
        return np.fmin(steps[:, :-1], steps[:, 1:])
    return np.fmin(steps[:-1], steps[1:])


@dataclass(frozen=True)
class Ranked:
    """The documented statistic of one detector: its local median, the ratio, and the limit on the ratio."""

    normal: NDArray[Any]
    ratio: NDArray[Any]
    limit: float


def measure_ratio(
    smallest: NDArray[Any],
    *,
    kernel_size: tuple[int, int],
    threshold_percent: float,
    everywhere: bool = False,
    threads: ThreadPoolExecutor | None = None,
) -> Ranked:
    """Ratio of the smallest difference to its local median, and its percentile (steps 4 and 5).

    Parameters
    ----------
    smallest : ndarray of float64, shape (ny, nx)
        NaN where there is no difference.
    kernel_size : (int, int)
        Rows and columns of the window; even numbers are raised by one.
    threshold_percent : float
        Percentile of the ratio.
    everywhere : bool
        Whether the median is wanted where the difference is NaN, too.
    threads : ThreadPoolExecutor, optional
        For the local median.
    """
    measured = np.isfinite(smallest)
    where = np.ones_like(measured) if everywhere else measured
    rows, columns = odd(kernel_size)
    normal = local_median(smallest, (rows, columns), outside=0.0, where=where, threads=threads)
    floor = median(smallest[~np.isnan(smallest)]) / 3
    normal[normal < floor] = floor
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = smallest / normal
    inner = ratio[BORDER:-BORDER, BORDER:-BORDER]
    inner = inner[~np.isnan(inner)]
    limit = float(np.percentile(inner, threshold_percent)) if inner.size else np.nan
    return Ranked(normal, ratio, limit)


def odd(size: tuple[int, int]) -> tuple[int, int]:
    """A window with even sizes raised by one."""
    return size[0] | 1, size[1] | 1
