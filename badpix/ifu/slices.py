"""A pixel beside its own slice at the same wavelength: what a line explains along the dispersion. Arrays in and out.

Along the dispersion a pixel on the flank of a line differs from its neighbors whatever it is. The pixels beside it in
the slice, at the same wavelength, do so in the same way:

1. *Rise*: the value minus the median of the 4 nearest neighbors along the dispersion, of the pixel and of the 3 on
   either side of it across the slice.
2. *Expected rise*: the median rise of these six, times the ratio of the pixel's neighbors along the dispersion to
   theirs, where they hold enough light (it falls off at the edge of a slice, for a line as for what surrounds it).
3. What is left, in units of the noise, is divided by sqrt(1 + excess), the excess of its squared median size over
   the six beside what noise gives: where they don't share one line nothing is known.

It is the check of step 4 of :mod:`badpix.ifu.significance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.medians import median_along, median_rows
from badpix.numerics.neighbors import chunks

_BESIDE = np.array([-3, -2, -1, 0, 1, 2, 3])
_OTHERS = [0, 1, 2, 4, 5, 6]  # of these, without the pixel itself
_NEAREST = [1, 2, 4, 5]
_ALONG = (-2, -1, 1, 2)
_MIDDLE = 3
_LIGHT = 5.0  # sigma: with less light levels are differences, not ratios
_RATIOS = (0.3, 3.0)
_SPREAD = 1.1  # of what is left, for unit noise, beside that of a residual along one axis
_NOISE = 0.5  # squared median size over the six, for unit noise


@dataclass(frozen=True)
class Beside:
    """What some pixels of one exposure have beyond their slice.

    ``rise``: beside the line (NaN: nothing beside it is known); ``across``: beside the slice alone, along one axis;
    ``inner``: whether there are neighbors on both sides.
    """

    rise: NDArray[Any]
    across: NDArray[Any]
    inner: NDArray[Any]

    @property
    def smaller(self) -> NDArray[Any]:
        """The one nearer to zero if both have one sign, else 0; 0 at the edge of a slice; NaN where unknown."""
        size = np.minimum(np.abs(self.rise), np.abs(self.across))
        out = np.where(self.rise * self.across > 0, np.copysign(size, self.rise), size * 0)
        found: NDArray[Any] = np.where(self.inner, out, out * 0)
        return found


def measure_beside(sci: NDArray[Any], noise: NDArray[Any], at: NDArray[Any], steps: tuple[int, int]) -> Beside:
    """Some pixels of an exposure beside their slice.

    Parameters
    ----------
    sci : ndarray of float32, flat
        NaN where not usable.
    noise : ndarray of float32, shape (n,)
        Of the pixels, in the unit of SCI.
    at : ndarray of int, shape (n,)
        The pixels, flat indices.
    steps : (int, int)
        Distances in memory along the dispersion and across the slice.
    """
    parts = [_measure(sci, noise[chunk], at[chunk], steps) for chunk in chunks(at.size)]
    if not parts:
        none = np.empty(0, np.float32)
        return Beside(none, none, none.astype(bool))
    return Beside(*(np.concatenate(p) for p in zip(*parts, strict=True)))


def _measure(
    sci: NDArray[Any], noise: NDArray[Any], at: NDArray[Any], steps: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    places = at[:, None] + _BESIDE * steps[1]
    around = median_along([sci[places + step * steps[0]] for step in _ALONG])
    values = sci[places]
    rise = values - around
    light, expected = median_rows(around[:, _OTHERS]), median_rows(rise[:, _OTHERS])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.clip(around / light[:, None], *_RATIOS)
    ratio = np.where((light > _LIGHT * noise)[:, None], ratio, np.float32(1))
    left = (rise - ratio * expected[:, None]) / noise[:, None]
    spread = np.nan_to_num(median_rows(np.abs(left[:, _OTHERS])))
    left = left[:, _MIDDLE] / (_SPREAD * np.sqrt(1 + np.maximum(spread**2 - _NOISE, 0)))
    across = (values[:, _MIDDLE] - median_rows(values[:, _NEAREST])) / noise
    finite = np.isfinite(values)
    inner = (finite[:, 1] | finite[:, 2]) & (finite[:, 4] | finite[:, 5])
    return left.astype(np.float32), across, inner
