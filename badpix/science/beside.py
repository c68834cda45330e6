"""What the pixels beside a candidate show, across the dispersion: lines and traces reach over them, bad pixels don't.

1. Of each candidate the two pixels beside it, in the same exposures, with the weights of the candidate's own values:
   what counts as a possible source in one of them alone counts alike in all.
2. Three patterns in time: all exposures, those after the step that fits best, those in which the candidate is lit. Of
   the latter two what is shown less what is shown elsewhere.
3. *Light* is what both sides show as well: :data:`SHARE` of it or more, surely.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARE = 0.35  # of what a candidate shows: least mean of both sides, if it is light
LEAST = 0.15  # of that: least one of them, in what does not change: one side alone may be a bad pixel
SURE = 2.2  # sigma
CLIP = 4.0  # sigma of the candidate, of the sides: no particle decides
OWN_CLIP = 8.0  # of its own values: what stands out more is no light that passes for noise
PATTERNS = ("all", "after", "lit")

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
Table = dict[str, NDArray[Any]]


def find_places(chosen: NDArray[np.intp], shape: tuple[int, int], axis: int) -> list[NDArray[np.intp]]:
    """Flat indices of the pixels to both sides across the dispersion, mirrored at the edges of the frame."""
    y, x = np.divmod(chosen, shape[1])
    across, size = (y, shape[0]) if axis == 1 else (x, shape[1])
    sides = np.where(across > 0, across - 1, 1), np.where(across < size - 1, across + 1, size - 2)
    return [side * shape[1] + x if axis == 1 else y * shape[1] + side for side in sides]


def measure_beside(z: Float, weight: Float, sides: list[tuple[Float, Float]], table: Table) -> Table:
    """Whether candidates show light, in each of :data:`PATTERNS`: ``light_all`` and so on, (candidates,) of bool.

    Parameters
    ----------
    z, weight : ndarray of float32
        (exposures, candidates) residuals in units of the noise, and one over the noise; 0 where not usable.
    sides : list of tuple
        ``z`` and ``weight`` of the pixels to both sides.
    table : dict
        ``since``, ``height`` and ``bright_level`` of the candidates.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.where(weight > 0, 1 / weight, np.float32(0))
        own = np.clip(z, -OWN_CLIP, OWN_CLIP) * noise
        values = [np.clip(np.nan_to_num(a / w), -CLIP * noise, CLIP * noise) for a, w in sides]
    level = np.where(table["bright_level"] > 0, table["bright_level"], np.nan_to_num(table["height"], nan=np.inf))
    after = np.arange(len(z))[:, None] >= table["since"]
    masks = (None, after, own > np.minimum(level / 2, CLIP * noise))
    squares = [weight**2 * (w > 0) for _, w in sides]
    return {
        f"light_{name}": _is_light(_contrast(own, weight**2, mask)[0], values, squares, mask)
        for name, mask in zip(PATTERNS, masks, strict=True)
    }


def _is_light(own: Float, values: list[Float], squares: list[Float], mask: Bool | None) -> Bool:
    """Step 3, from what candidates show, and values and squared weights of both sides."""
    found = [_contrast(value, square, mask) for value, square in zip(values, squares, strict=True)]
    means, totals = np.array([m for m, _ in found]), np.array([t for _, t in found])
    with np.errstate(invalid="ignore", divide="ignore"):
        total = totals.sum(axis=0)
        mean = np.where(totals > 0, means * totals, 0).sum(axis=0) / total
        light: Bool = (mean / own > SHARE) & (np.abs(mean) * np.sqrt(total) > SURE)
        if mask is None:
            light &= np.where(totals > 0, means / own, np.inf).min(axis=0) > LEAST
    return light


def _contrast(value: Float, square: Float, mask: Bool | None) -> tuple[Float, Float]:
    """Mean where ``mask`` says so less that elsewhere, one over its squared error; without a mask the mean of all."""
    masks = (np.ones(value.shape, bool),) if mask is None else (mask, ~mask)
    totals = [np.where(m, square, np.float32(0)).sum(axis=0) for m in masks]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [
            np.where(m, square * value, np.float32(0)).sum(axis=0) / t for m, t in zip(masks, totals, strict=True)
        ]
        if mask is None:
            return means[0], totals[0]
        return means[0] - means[1], 1 / (1 / totals[0] + 1 / totals[1])
