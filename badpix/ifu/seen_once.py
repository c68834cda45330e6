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
5. *Again*: what only lines explained is asked for once more without the hits that the other exposures turned out to
   have, which looked like lines.

It is step 6 of :mod:`badpix.ifu.significance`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.ifu.noise import Band, measure_common, tail_between
from badpix.ifu.protection import measure_between, measure_moved
from badpix.ifu.sources import High, find_unexplained, measure_high
from badpix.ifu.surroundings import Differences, measure_peaks
from badpix.numerics.neighbors import distinct, offsets

Found = tuple[NDArray[Any], NDArray[Any]]  # flat indices, values

Asked = tuple[NDArray[Any], NDArray[Any]]  # pixels that sources don't explain, and that only lines do

_AROUND = (7, 7)  # pixels that the neighbors of the 8 neighbors take


@dataclass(frozen=True)
class SingleLimits:
    """Limits of the test, sigma; ``window``: pixels along the dispersion and across it."""

    limit: float  # of step 2
    hit_limit: float  # of step 3
    protect: float
    grow_sigma: float
    grow_steps: int
    window: tuple[int, int]


def measure_differences(band: Band) -> list[NDArray[Any]]:
    """Differences of all exposures from their lower median, in units of the noise (step 1)."""
    level = [s - np.float32(offset) for s, offset in zip(band.sci, band.offsets, strict=True)]
    reference = measure_common(level)
    for e, (values, sigma) in enumerate(zip(level, band.sigma, strict=True)):
        values -= reference
        values /= sigma
        values /= band.noise * np.float32(tail_between(len(level), band.sizes, e))
    return level


def measure_low_differences(band: Band, e: int, at: NDArray[Any]) -> NDArray[Any]:
    """The same for one exposure and its upper median, around some pixels; the rest of the map holds nothing."""
    out = np.full(band.noise.shape, np.nan, np.float32)
    near = distinct(at[:, None] + offsets(*_AROUND, band.stride, center=True))
    level = [s.reshape(-1)[near] - np.float32(o) for s, o in zip(band.sci, band.offsets, strict=True)]
    reference = -measure_common([-values for values in level])
    size = band.noise.reshape(-1)[near] * np.float32(tail_between(len(level), band.sizes, e))
    out.reshape(-1)[near] = (level[e] - reference) / (band.sigma[e].reshape(-1)[near] * size)
    return out


def find_single(
    found: list[Found], band: Band, persistent: NDArray[Any], p: SingleLimits
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
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
    values = measure_differences(band)
    differences = Differences(values, *band.steps, tuple(measure_peaks(v, band.steps, p.window) for v in values))
    firsts = [_search_high(found[e], e, differences, band, [persistent] * len(found), p) for e in range(len(found))]
    hits = [persistent | _mark(np.concatenate([seeds, grown]), band) for seeds, grown, _, _ in firsts]
    out = []
    for e, (seeds, grown, high, doubtful) in enumerate(firsts):
        if doubtful.size:
            seeds, grown = _search_again(seeds, grown, high, doubtful, e, differences, band, hits, p)
        out.append((distinct(seeds, _find_low(found[e], e, band, persistent, p)), grown))
    return out


def _search_high(
    found: Found, e: int, differences: Differences, band: Band, defects: list[NDArray[Any]], p: SingleLimits
) -> tuple[NDArray[Any], NDArray[Any], High, NDArray[Any]]:
    """Pixels of an exposure that are too high; those reached by growth; by how much each is; those lines explain."""
    at = _find_high(differences.values[e], e, band, defects[e], p.grow_sigma)
    high = measure_high(differences, e, at, p.grow_sigma, p.protect)
    seeds, doubtful = _ask(differences, e, high.at, high, p.hit_limit, defects, p)
    seeds = distinct(_confirm(found, e, differences.values[e], band, defects[e], 1, p), seeds)
    ask = partial(_ask, differences, e, high=high, limit=p.grow_sigma, defects=defects, p=p)
    open_to = np.zeros(band.noise.size, bool)
    open_to[high.at[high.value > p.grow_sigma]] = True
    grown, rest = _grow(seeds, ask, open_to, band, p.grow_steps)
    return seeds, grown, high, distinct(doubtful, rest)


def _search_again(
    seeds: NDArray[Any],
    grown: NDArray[Any],
    high: High,
    doubtful: NDArray[Any],
    e: int,
    differences: Differences,
    band: Band,
    hits: list[NDArray[Any]],
    p: SingleLimits,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The pixels of the first search, and those that only hits of other exposures had explained."""
    more, _ = _ask(differences, e, doubtful, high, p.hit_limit, hits, p)
    open_to = np.zeros(band.noise.size, bool)
    open_to[doubtful] = True
    known = distinct(seeds, grown, more)
    ask = partial(_ask, differences, e, high=high, limit=p.grow_sigma, defects=hits, p=p)
    new, _ = _grow(known, ask, open_to, band, p.grow_steps)
    return distinct(seeds, more), distinct(np.setdiff1d(grown, more), new)


def _ask(
    differences: Differences,
    e: int,
    at: NDArray[Any],
    high: High,
    limit: float,
    defects: list[NDArray[Any]],
    p: SingleLimits,
) -> Asked:
    return find_unexplained(
        differences, e, at, high, limit=limit, defects=defects, window=p.window, strength=p.protect
    )


def _mark(at: NDArray[Any], band: Band) -> NDArray[Any]:
    """Pixels and their neighbors, bool, flat."""
    out = np.zeros(band.noise.size, bool)
    out[at[:, None] + offsets(3, 3, band.stride, center=True)] = True
    return out


def _find_low(found: Found, e: int, band: Band, persistent: NDArray[Any], p: SingleLimits) -> NDArray[Any]:
    """Pixels that are too low beside their neighbors and the other exposures (step 2)."""
    at = found[0][(found[1] < -p.limit) & ~persistent[found[0]]]
    if not at.size:
        out: NDArray[Any] = at
        return out
    return _confirm(found, e, measure_low_differences(band, e, at), band, persistent, -1, p)


def _confirm(
    found: Found, e: int, difference: NDArray[Any], band: Band, persistent: NDArray[Any], sign: int, p: SingleLimits
) -> NDArray[Any]:
    """Pixels that stand out from their neighbors and from the other exposures (step 2)."""
    at, value = found
    keep = (sign * value > p.limit) & ~persistent[at]
    if not keep.any():
        return np.empty(0, np.intp)
    at, value = at[keep], value[keep]
    between = sign * measure_between(difference, at, protect=p.protect)
    moved = measure_moved(band, e, at, persistent, window=p.window, protect=0.5 * p.protect)
    out: NDArray[Any] = at[np.minimum(between, sign * value) / moved > p.limit]
    return out


def _find_high(difference: NDArray[Any], e: int, band: Band, persistent: NDArray[Any], limit: float) -> NDArray[Any]:
    """Pixels that are too high by more than ``limit``, whatever sources could give, before any level."""
    with np.errstate(invalid="ignore"):
        # a pixel of a track stands out along one axis at least, whatever the level between exposures
        high = (difference > limit) & (band.residuals[e].larger > np.float32(limit) * band.noise)
    at = np.flatnonzero(high)
    found: NDArray[Any] = at[~persistent[at]]
    return found


def _grow(
    seeds: NDArray[Any], ask: Callable[[NDArray[Any]], Asked], open_to: NDArray[Any], band: Band, steps: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels reached from the seeds through those of their neighbors that sources don't explain; those lines explain.

    All that are in reach through a map of those that may be asked are asked for together.
    """
    reached = _spread(seeds, open_to, band, steps)
    if not reached.size:
        return reached, reached
    kept, rest = ask(reached)
    found = np.zeros(band.noise.size, bool)
    found[kept] = True
    return _spread(seeds, found, band, steps), rest


def _spread(seeds: NDArray[Any], open_to: NDArray[Any], band: Band, steps: int) -> NDArray[Any]:
    """Pixels reached from the seeds in some steps of 8 neighbors, through a map of those that are open."""
    around = offsets(3, 3, band.stride)
    free = open_to.copy()
    free[seeds] = False
    front, out = seeds, [np.empty(0, np.intp)]
    for _ in range(steps):
        at = (front[:, None] + around).reshape(-1)
        front = distinct(at[free[at]])
        if not front.size:
            break
        free[front] = False  # each is looked at once
        out.append(front)
    return np.concatenate(out)
