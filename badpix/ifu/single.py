"""Pixels of one exposure, or of a minority, that differ from the other exposures: arrays in, arrays out.

1. The *difference* of a pixel is its value minus the lower median of all exposures (for too low values: the upper
   one), in units of the noise. Its median over the 24 neighbors is taken off.
2. *Against the neighbors*: beyond the limit both in eta and in the difference, each lowered by its 8 neighbors,
   unless other exposures have something as significant close by (a line of a dithered source is at the same
   wavelength, a few pixels to the side).
3. *Against the sources*: too high beyond the limit in the difference alone, after what sources could give
   (:mod:`badpix.ifu.sources`) has been added to the noise. On blank sky nothing is added, so that a track is
   found whole however it lies.
4. *Growth*: step by step from the pixels of 2 (where too high) and 3, into neighbors that test 3 finds at
   ``grow_sigma``.

It is step 6 of :mod:`badpix.ifu.significance`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from badpix.ifu.noise import Band, measure_common, stand_out, tail_between
from badpix.ifu.protection import measure_between, measure_moved
from badpix.ifu.sources import Differences, explain
from badpix.numerics.neighbors import offsets

Found = tuple[np.ndarray, np.ndarray]  # flat indices, values


@dataclass(frozen=True)
class SingleLimits:
    """Limits of the test, sigma; ``window``: pixels along the dispersion and across it."""

    limit: float  # of step 2
    hit_limit: float  # of step 3
    protect: float
    grow_sigma: float
    grow_steps: int
    window: tuple[int, int]


def measure_differences(band: Band, sign: int) -> list[np.ndarray]:
    """Differences of all exposures from what they have in common, in units of the noise (step 1)."""
    size = band.noise * np.float32(tail_between(len(band.sci)))
    level = [s - np.float32(offset) for s, offset in zip(band.sci, band.offsets, strict=True)]
    reference = sign * measure_common([sign * s for s in level])
    return [(s - reference) / (e * size) for s, e in zip(level, band.sigma, strict=True)]


def find_single(
    found: list[Found], band: Band, persistent: np.ndarray, p: SingleLimits
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pixels that only one exposure, or a minority, has.

    Parameters
    ----------
    found : list of (ndarray, ndarray)
        For each exposure the pixels (flat indices) that stand out, and their protected significance.
    band : Band
        All exposures.
    persistent : ndarray of bool, flat
        Pixels that are left out.
    p : SingleLimits
        Limits.

    Returns
    -------
    list of (ndarray, ndarray)
        For each exposure the flat indices of the pixels found, and of those that were reached by growth.
    """
    low = [_confirm(found, e, d, band, persistent, -1, p) for e, d in enumerate(measure_differences(band, -1))]
    values = measure_differences(band, 1)
    differences = Differences(values, *band.steps)
    out = []
    for e, difference in enumerate(values):
        high = _confirm(found, e, difference, band, persistent, 1, p)
        at, significance = _measure_hits(differences, e, band, persistent, p)
        seeds = np.union1d(high, at[significance > p.hit_limit])
        reached = _grow(seeds, at[significance > p.grow_sigma], band, p.grow_steps)
        out.append((np.union1d(seeds, low[e]), reached))
    return out


def _confirm(
    found: list[Found],
    e: int,
    difference: np.ndarray,
    band: Band,
    persistent: np.ndarray,
    sign: int,
    p: SingleLimits,
) -> np.ndarray:
    """Pixels that stand out from their neighbors and from the other exposures (step 2)."""
    at, value = found[e]
    keep = (sign * value > p.limit) & ~persistent[at]
    if not keep.any():
        return np.empty(0, np.intp)
    at, value = at[keep], value[keep]
    between = sign * measure_between(difference, at, protect=p.protect)
    moved = measure_moved(band, e, at, persistent, window=p.window, protect=0.5 * p.protect)
    return at[np.minimum(between, sign * value) / moved > p.limit]  # NaN compares false


def _measure_hits(
    differences: Differences, e: int, band: Band, persistent: np.ndarray, p: SingleLimits
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that are too high, and by how much, beside the noise and what sources could give (step 3)."""
    difference = differences.values[e]
    with np.errstate(invalid="ignore"):
        # a pixel of a track stands out along one axis at least, whatever the level between exposures
        high = (difference > p.grow_sigma) & (band.residuals[e].larger > np.float32(p.grow_sigma) * band.noise)
    at = np.flatnonzero(high)
    at = at[~persistent[at]]
    value = stand_out(difference, at)
    at, value = at[value > p.grow_sigma], value[value > p.grow_sigma]
    variance = explain(differences, e, at, defects=persistent, window=p.window, strength=p.protect)
    return at, value / np.sqrt(1 + variance)


def _grow(seeds: np.ndarray, high: np.ndarray, band: Band, steps: int) -> np.ndarray:
    """Pixels of ``high`` that are reached from the seeds in some steps."""
    around = offsets(3, 3, band.stride)
    free = np.zeros(band.noise.size, bool)
    free[high] = True
    free[seeds] = False
    front, grown = seeds, [np.empty(0, np.intp)]
    for _ in range(steps):
        at = np.unique((front[:, None] + around).reshape(-1))
        front = at[free[at]]
        if not front.size:
            break
        free[front] = False
        grown.append(front)
    return np.concatenate(grown)
