"""Residuals of ramps that particles may have hit: what is left beside the line and the steps up.

1. A hit is the largest step up of the residuals, above 3 sigma of the others. A step there (0 before it, 1 from it
   on), made orthogonal to constant and line, is taken off: the fit of line and step together.
2. Where a group is the mean of several frames, a hit between them makes two steps in a row: the larger of the steps
   beside the first one is fitted, too.
3. Ramps with several jumps lose as many hits, up to the number that particles alone make of good pixels
   (:func:`most_hits`): 2, and more in long exposures and at solar maximum. A step that no noise makes
   (:func:`steep_step`) is a hit without a flag: jump steps with a high threshold leave many.
4. What is left gives the residual variance, flatness and memory of the ramp, as if there had been no hit, and the
   steps that are left the variance of white noise. Fitting a step takes some memory from white noise: that is added.

A pixel that switches loses some steps up, and keeps the others and all its steps down: no particle makes one.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
HIT_SIZE = 3.6  # least size of a hit over the mean size of the other steps: 2.9 sigma of Gaussian noise
STEEP, UNFLAGGED = 5.0, 2  # sigma of a step up from which on it is a hit without a flag; hits looked for there
OTHER_HALF = 0.25  # of a hit's step in averaged groups, from which on the one beside it is a part of the hit
RARE = 1e-4  # fraction of good ramps with more hits than are looked for
LEAST_NORM = np.float32(0.1)  # of a step beside line and earlier step: below it they hold it already


@lru_cache(maxsize=4)
def step_templates(groups: int) -> Array:
    """Steps before each group but the first, without line, norm 1 (0 where the line holds them): (G - 1, G)."""
    g = np.arange(groups)
    line, _ = np.linalg.qr(np.stack([np.ones(groups), g - g.mean()], axis=1))
    steps = (g >= g[1:, None]).astype(float)
    steps -= (steps @ line) @ line.T
    norm = np.linalg.norm(steps, axis=1, keepdims=True)
    return np.where(norm > 1e-6, steps / np.maximum(norm, 1e-6), 0.0).astype(np.float32)


@lru_cache(maxsize=4)
def line_memory(groups: int, weights: tuple[float, ...]) -> float:
    """Mean memory of the residuals of white noise, times their degrees of freedom (groups - 2)."""
    g = np.arange(groups)
    line, _ = np.linalg.qr(np.stack([np.ones(groups), g - g.mean()], axis=1))
    return -float(measure_memory(line, weights).sum())


def measure_memory(r: NDArray[np.floating[Any]], weights: tuple[float, ...]) -> NDArray[np.floating[Any]]:
    """Weighted sum of products of groups at lags 1, 2, ...: (pixels,) of (G, pixels)."""
    found: NDArray[np.floating[Any]] = np.sum(
        [w * np.einsum("gp,gp->p", r[k:], r[:-k]) for k, w in enumerate(weights, 1)], axis=0
    )
    return found


@lru_cache(maxsize=4)
def step_slopes(groups: int) -> Array:
    """What a unit of each of :func:`step_templates` adds to the slope of the line, DN per group: (G - 1,)."""
    g = np.arange(groups) - (groups - 1) / 2
    steps = (np.arange(groups) >= np.arange(1, groups)[:, None]).astype(float)
    line, _ = np.linalg.qr(np.stack([np.ones(groups), g], axis=1))
    norm = np.linalg.norm(steps - (steps @ line) @ line.T, axis=1)
    slope = steps @ g / np.sum(g**2)
    return np.where(norm > 1e-6, slope / np.maximum(norm, 1e-6), 0.0).astype(np.float32)


def steady_slope(r: Array, slope: Array) -> Array:
    """Slope of ramps beside the one step up that explains most of their residuals (G, pixels): DN per group.

    At least 2 pixels: numpy adds up a single column in another order. And no product of matrices: where BLAS puts a
    pixel among the others changes its last bit on some processors (OpenBLAS 0.3.31 on AMD's EPYC).
    """
    size = np.einsum("kg,gp->kp", step_templates(len(r)), r)
    at = size.argmax(axis=0)
    height = np.maximum(np.take_along_axis(size, at[None], axis=0)[0], 0)
    found: Array = (slope - height * step_slopes(len(r))[at]).astype(np.float32)
    return found


def measure_hits(
    r: Array, jumps: NDArray[np.uint16], weights: tuple[float, ...], *, most: int, averaged: bool
) -> tuple[Array, Array, Array, Array]:
    """Residual variance, flatness, memory and white variance of ramps beside line and hits.

    Parameters
    ----------
    r : ndarray
        (G, pixels) float32 residuals of the line, every group good, at least 6; overwritten. At least 2 pixels: numpy
        adds up a single column in another order.
    jumps : ndarray
        (pixels,) number of jumps, 1 at least: as many hits are looked for.
    weights : tuple of float
        Weights of the lags of the memory.
    most : int
        Hits that are looked for at most (:func:`most_hits`).
    averaged : bool
        Whether a group is the mean of several frames: a hit then makes two steps.

    Returns
    -------
    tuple of ndarray
        (pixels,) float32 each; the white variance is NaN where no step was taken off.
    """
    groups = len(r)
    before = line_memory(groups, weights)
    gone = np.zeros((groups - 1, r.shape[1]), bool)
    lost, fitted = np.full(r.shape[1], before), np.zeros(r.shape[1])
    rest, pixels = r, np.arange(r.shape[1])
    earlier: list[Array] = []
    for number in range(most):
        if number:
            again = np.flatnonzero(jumps[pixels] > number)
            if not again.size:
                break
            again = np.resize(again, max(again.size, 2))
            rest, pixels, earlier = rest[:, again], pixels[again], [step[:, again] for step in earlier]
        places = _find_steps(rest, gone[:, pixels], averaged)
        if averaged:
            places = np.concatenate([places, _find_beside(rest, places[0])])
        for place in places:
            step = _take_step_off(rest, place, earlier)
            earlier.append(step)
            found = place >= 0
            gone[place[found], pixels[found]] = True
            lost[pixels] -= measure_memory(step, weights)
            fitted[pixels] += np.einsum("gp,gp->p", step, step)
        r[:, pixels] = rest
    squares = np.einsum("gp,gp->p", r, r)
    flatness = np.abs(r).sum(axis=0) / np.sqrt(squares * np.float32(groups))
    freedom = groups - 2 - fitted
    memory = measure_memory(r, weights) / squares + before / (groups - 2) - lost / freedom
    white = np.where(gone.any(axis=0), _measure_white(r, gone), np.float32(np.nan))
    return (squares / freedom).astype(np.float32), flatness, memory.astype(np.float32), white.astype(np.float32)


def most_hits(clean: float, groups: int) -> int:
    """Hits that good pixels have in one ramp, but for one ramp in 10,000; 2 at least, a sixth of the groups at most.

    ``clean`` is the fraction of ramps without a jump: exp(-mean number) if hits fall at random.
    """
    mean = -math.log(min(max(clean, 0.02), 1.0))
    rare, term, k = 1 - math.exp(-mean), math.exp(-mean), 0
    while rare > RARE and k < groups:
        k += 1
        term *= mean / k
        rare -= term
    return max(2, min(k, groups // 6))


@cache
def steep_step(groups: int) -> float:
    """Step, in units of the noise of the others, that is as rare as one of :data:`STEEP` sigma of known noise.

    An approximation of the quantile of Student's t, good to a few percent from 8 groups on.
    """
    n = groups - 3
    return math.sqrt(n * math.expm1(STEEP**2 * (n - 1.5) / (n - 1) ** 2)) if n > 1.5 else math.inf


def _find_steps(r: Array, gone: NDArray[np.bool_], averaged: bool) -> NDArray[np.intp]:
    """The largest rise of each pixel of (G, pixels) residuals that is not ``gone``, (1, pixels); -1: too small.

    In averaged groups the other half of a hit is none of the steps that it is held against: in a few groups it would
    be most of them.
    """
    rise = np.where(gone, np.float32(0), r[1:] - r[:-1])
    at, highest = rise.argmax(axis=0), rise.max(axis=0)
    if averaged:
        pixels, beside = np.arange(r.shape[1]), _find_beside(r, at)[0]
        half = np.flatnonzero(rise[beside, pixels] > OTHER_HALF * highest)
        gone = gone.copy()
        gone[beside[half], half] = True
        rise = np.where(gone, np.float32(0), rise)
    others = np.maximum((~gone).sum(axis=0) - 1, 1).astype(np.float32)
    tilt = (rise.sum(axis=0) - highest) / others  # the hit bent the line
    rise = np.where(gone, np.float32(0), rise - tilt)
    highest -= tilt
    size = (np.abs(rise).sum(axis=0) - np.abs(highest)) / others
    return np.where(highest > HIT_SIZE * size, at, -1)[None]


def _find_beside(r: Array, at: NDArray[np.intp]) -> NDArray[np.intp]:
    """The larger of the rises before and after ``at``, (1, pixels); -1 where ``at`` is: the other half of a hit."""
    last, pixels = len(r) - 2, np.arange(r.shape[1])
    before, after = np.maximum(at - 1, 0), np.clip(at + 1, 0, last)

    def rise(k: NDArray[np.intp]) -> Array:
        return np.where(k == at, np.float32(-np.inf), r[k + 1, pixels] - r[k, pixels])

    return np.where(at >= 0, np.where(rise(before) > rise(after), before, after), -1)[None]


def _take_step_off(r: Array, at: NDArray[np.intp], earlier: list[Array]) -> Array:
    """Fit a step at ``at`` to each pixel of (G, pixels) residuals, and take it off in place.

    Returned are the steps, without line and ``earlier`` steps, of norm 1; 0 where ``at`` is -1.
    """
    step = np.ascontiguousarray(step_templates(len(r))[at].T) * (at >= 0)
    for other in earlier:
        step -= other * np.einsum("gp,gp->p", other, step)
    norm = np.sqrt(np.einsum("gp,gp->p", step, step))
    step = np.where(norm > LEAST_NORM, step / np.maximum(norm, LEAST_NORM), np.float32(0)).astype(np.float32)
    r -= step * np.einsum("gp,gp->p", step, r)
    return step


def _measure_white(r: Array, gone: NDArray[np.bool_]) -> NDArray[np.floating[Any]]:
    """Variance of white noise from the steps of residuals (G, pixels), without those that are ``gone``."""
    step = np.where(gone, np.float32(0), r[1:] - r[:-1])
    number = np.maximum((~gone).sum(axis=0), 2)
    mean = step.sum(axis=0) / number
    found: NDArray[np.floating[Any]] = (np.einsum("gp,gp->p", step, step) - number * mean**2) / (2 * number)
    return found
