"""A detector with one exposure: what stands out from its own slices for certain. Arrays in, arrays out.

1. Without other exposures a line or a sharp source looks like a hit. A pixel is flagged where eta, lowered by its 8
   neighbors as in step 3 of :mod:`badpix.ifu.significance`, exceeds the limit of one exposure and ``lone_sigma``.
2. *Searched* is a pixel where a strong hit, 50 times the noise, would be flagged: where its neighbors lower it by
   less than that allows. Its share is counted on every third pixel along both axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.ifu.noise import REACH, Level, prepare_band
from badpix.ifu.protection import NOISE_ETA, NOISE_LARGER, measure_structure
from badpix.numerics.neighbors import offsets

STRONG = 50.0  # sigma of the hit that a searched pixel would show
_STEP = 3  # pixels between those that are asked


def find_certain(at: NDArray[Any], value: NDArray[Any], limit: float) -> NDArray[Any]:
    """Those of some candidates (flat indices) whose protected significance exceeds a limit, of either sign."""
    found: NDArray[Any] = at[np.abs(value) > limit]
    return found


def count_searched(
    sci: NDArray[Any],
    sigma: NDArray[Any],
    rows: slice,
    *,
    level: Level,
    kernel_size: tuple[int, int],
    noise: str,
    protect: float,
    protect_structure: float,
    limit: float,
    first_row: int,
) -> tuple[int, int]:
    """How many of the usable pixels of some rows would show a strong hit, and of how many that is; on a grid.

    Parameters
    ----------
    sci, sigma : ndarray of float32, shape (ny, nx)
        A band of the exposure, with neighboring rows; NaN in ``sci`` where not usable.
    rows : slice
        Those that count.
    level, kernel_size, noise, protect, protect_structure
        As of :func:`badpix.ifu.significance.find_significant`.
    limit : float
        Of :func:`find_certain`.
    first_row : int
        Row of the frame that the band begins with.
    """
    band = prepare_band([sci], [sigma], level, kernel_size, noise, REACH, first_row=first_row)
    (r,) = band.residuals
    asked = np.zeros(band.noise.shape, bool)
    start = rows.start + -(first_row + rows.start) % _STEP  # the same pixels of the frame, however it is cut
    asked[start + REACH : rows.stop + REACH : _STEP, REACH:-REACH:_STEP] = True
    asked &= np.isfinite(r.eta)
    at, around, size = np.flatnonzero(asked), offsets(3, 3, band.stride), band.noise.reshape(-1)
    lowered = measure_structure(r.eta.reshape(-1), size, at, around, strength=protect, noise=NOISE_ETA)
    lowered *= measure_structure(
        r.larger.reshape(-1), size, at, around, strength=protect_structure, noise=NOISE_LARGER
    )
    return int(np.count_nonzero(limit * lowered < STRONG)), at.size
