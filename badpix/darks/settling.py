"""Ramps of candidates that settle: what decays explain of them, and in how many integrations that is so.

1. The decays of all contrasts together explain a part of what is left beside the line (:func:`explain`).
2. An integration *settles* if that part is far above its noise, is most of what is left or leaves it quiet, and is
   still there beside the steps up of particles (:func:`count_settled`). Integrations that settle alike, by sign and
   size, are counted, if the others are quiet: a pixel may settle now and then.

Source of the decays: docs/darks-methods.md, step 5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Bool = NDArray[np.bool_]

SETTLES = 12.0  # sigma that decays explain of an integration that settles by itself
BESIDE = 5.0  # sigma that are left of it beside hits
FITS = 0.95  # part of the residuals that decays explain, at least,
RESTS = 2.5  # or noise variances that they leave, at most
ALIKE = 0.15  # scatter of the contrasts of such integrations over their mean, at most: no switching repeats so well
QUIET_PART = 0.3  # quantile of the integrations' white noise that is the pixel's own, though it settles in some


def explain(values: dict[str, Array], templates: tuple[str, ...], bends: NDArray[np.float64]) -> Array:
    """Part of the residual sum of squares that all decays together explain: (n, pixels) DN^2.

    ``values`` holds the contrasts of each integration; ``bends`` makes them independent, of norm 1.
    """
    found = np.zeros_like(values[templates[0]])
    for k, bend in enumerate(bends.astype(np.float32)):
        part = bend[0] * values[templates[0]]
        for t in range(1, k + 1):
            part += bend[t] * values[templates[t]]
        found += part**2
    return found


def leave(values: dict[str, Array], explained: Array, freedom: Array, templates: tuple[str, ...]) -> Array:
    """Residual variance without what decays explain: (n, pixels) DN^2."""
    total = values["residual"] * freedom
    found: Array = ((total - explained) / np.maximum(freedom - len(templates), 1)).astype(np.float32)
    return found


def remains(values: dict[str, Array], left: Array, freedom: Array) -> Bool:
    """Integrations (n, pixels) that decays explain better than the steps up of particles do."""
    with np.errstate(invalid="ignore"):
        found: Bool = (values["calm"] - left) * freedom > np.float32(BESIDE**2) * left
    return found


def count_settled(
    values: dict[str, Array], explained: Array, left: Array, freedom: Array, templates: tuple[str, ...]
) -> Array:
    """Part of the integrations in which pixels settle alike, (pixels,); 0 where fewer than two do.

    Parameters
    ----------
    values : dict
        (n, pixels) of each integration: contrasts, ``residual``, ``calm``, ``white`` (DN^2), NaN where not measured.
    explained, left : ndarray
        (n, pixels) from :func:`explain` and :func:`leave`.
    freedom : ndarray
        (n, pixels) degrees of freedom of the residuals of the line.
    templates : tuple of str
        Names of the contrasts.
    """
    known = np.isfinite(values["residual"])
    number = known.sum(axis=0)
    ordered = np.sort(np.where(known, values["white"], np.float32(np.inf)), axis=0)
    at = (QUIET_PART * np.maximum(number - 1, 0)).astype(np.intp)
    white = np.take_along_axis(ordered, at[None], axis=0)[0]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        settles = (explained > np.float32(SETTLES**2) * white) & remains(values, left, freedom)
        settles &= (explained > np.float32(FITS) * values["residual"] * freedom) | (left < np.float32(RESTS) * white)
    sizes = np.stack([np.where(settles, np.abs(values[name]), 0).sum(axis=0) for name in templates])
    best = np.choose(sizes.argmax(axis=0), [values[name] for name in templates])
    sign = np.where(settles, np.sign(best), 0).sum(axis=0)
    settles &= np.sign(best) == np.sign(sign)
    count = settles.sum(axis=0)
    mean = np.where(settles, best, 0).sum(axis=0) / np.maximum(count, 1)
    scatter = np.sqrt(np.where(settles, (best - mean) ** 2, 0).sum(axis=0) / np.maximum(count - 1, 1))
    others = known & ~settles
    with np.errstate(invalid="ignore"):
        calm = np.where(others, values["calm"] > np.float32(RESTS) * white, False).sum(axis=0)
    accepted = (count >= 2) & (scatter**2 < (ALIKE * mean) ** 2 + white) & (calm <= 0.2 * others.sum(axis=0))
    return np.where(accepted, count / np.maximum(number, 1), 0).astype(np.float32)
