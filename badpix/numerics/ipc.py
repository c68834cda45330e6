"""Inter-pixel capacitance (IPC): a pixel shows part of the charge of its four side neighbors.

It is stated in two ways. The *fraction* of a pixel's charge that each side neighbor shows (0.5 % for a HAWAII-2RG)
is what a detector has; the *ratio* of a side neighbor's signal to the pixel's own, after it has given away four
fractions, is what an isolated bright pixel of an image shows. Source: Moore, Ninkov & Forrest 2006, Optical
Engineering 45, 076402.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.neighbors import SIDES, Places

Float = NDArray[np.floating[Any]]


def ratio_of(fraction: float) -> float:
    """The ratio of a side neighbor's signal to the pixel's own, from the fraction of charge."""
    return fraction / (1 - 4 * fraction)


def fraction_of(ratio: float) -> float:
    """The fraction of a pixel's charge that each side neighbor shows, from the ratio of their signals."""
    return ratio / (1 + 4 * ratio)


def mix(charge: Float, fraction: float) -> Float:
    """What pixels show of their charge.

    Parameters
    ----------
    charge : ndarray of float, (..., ny, nx)
        Charge of each pixel; what the border pixels give to the outside is lost.
    fraction : float
        Fraction of a pixel's charge that each side neighbor shows.
    """
    out = charge * np.float32(1 - 4 * fraction)
    lent = charge * np.float32(fraction)
    out[..., 1:, :] += lent[..., :-1, :]
    out[..., :-1, :] += lent[..., 1:, :]
    out[..., :, 1:] += lent[..., :, :-1]
    out[..., :, :-1] += lent[..., :, 1:]
    return out


def leaked(values: Float, places: Places, ratio: float) -> Float:
    """What the side neighbors of some pixels leak into them; NaN and infinity leak nothing.

    Parameters
    ----------
    values : ndarray of float, (n,)
        A linear number of each pixel (a rate, a level), in its unit.
    places : Places
        Where the pixels lie.
    ratio : float
        Signal of a side neighbor over that of the pixel.
    """
    known = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    found: Float = np.float32(ratio) * places.neighbors(known, SIDES, 0.0).sum(axis=0)
    return found
