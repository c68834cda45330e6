"""Residuals of ramps that particles may have hit: what is left beside the line and one or two steps up.

1. A hit is the largest step up of the residuals. A step there (0 before it, 1 from it on), made orthogonal to
   constant and line, is taken off: the fit of line and step together. Ramps with several jumps lose a second step.
2. What is left gives the residual variance, flatness and memory of the ramp, as if there had been no hit. Fitting a
   step takes some memory from white noise too: that is added again.

A pixel that switches loses a step up or two, and keeps the others and all its steps down: no particle makes one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
HIT_SIZE = 5.0  # least size of a hit over the mean size of the other steps: 4 sigma of Gaussian noise
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


def measure_memory(r: NDArray[np.floating], weights: tuple[float, ...]) -> NDArray[np.floating]:
    """Weighted sum of products of groups at lags 1, 2, ...: (pixels,) of (G, pixels)."""
    return np.sum([w * np.einsum("gp,gp->p", r[k:], r[:-k]) for k, w in enumerate(weights, 1)], axis=0)


def measure_hits(r: Array, jumps: NDArray[np.uint16], weights: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """Residual variance, flatness and memory of ramps beside line and hits.

    Parameters
    ----------
    r : ndarray
        (G, pixels) float32 residuals of the line, every group good, at least 6; overwritten. At least 2 pixels: numpy
        adds up a single column in another order.
    jumps : ndarray
        (pixels,) number of jumps, 1 at least; with two and more a second step is fitted.
    weights : tuple of float
        Weights of the lags of the memory.
    """
    groups = len(r)
    before = line_memory(groups, weights)
    step, fitted = _take_step_off(r)
    lost = before - measure_memory(step, weights)
    several = np.flatnonzero(jumps > 1)
    if several.size:
        pixels = np.resize(several, max(several.size, 2))
        rest = r[:, pixels]
        second, found = _take_step_off(rest, step[:, pixels])
        r[:, pixels] = rest
        lost[pixels] -= measure_memory(second, weights)
        fitted[pixels] += found
    squares = np.einsum("gp,gp->p", r, r)
    flatness = np.abs(r).sum(axis=0) / np.sqrt(squares * np.float32(groups))
    freedom = groups - 2 - fitted
    memory = measure_memory(r, weights) / squares + before / (groups - 2) - lost / freedom
    return (squares / freedom).astype(np.float32), flatness, memory.astype(np.float32)


def _take_step_off(r: Array, earlier: Array | None = None) -> tuple[Array, NDArray[np.floating]]:
    """Fit the largest step up of each pixel of (G, pixels) residuals, and take it off in place.

    Two columns: the steps, without line and ``earlier`` step, of norm 1, 0 where no rise is large enough; and 1 where
    there is a step, 0 elsewhere.
    """
    rise = r[1:] - r[:-1]
    at, highest = rise.argmax(axis=0), rise.max(axis=0)
    tilt = (rise.sum(axis=0) - highest) / np.float32(len(r) - 2)  # of the other steps: the hit bent the line
    rise -= tilt
    highest -= tilt
    others = (np.abs(rise).sum(axis=0) - np.abs(highest)) / np.float32(len(r) - 2)
    step = np.ascontiguousarray(step_templates(len(r))[at].T) * (highest > HIT_SIZE * others)
    if earlier is not None:
        step -= earlier * np.einsum("gp,gp->p", earlier, step)
    norm = np.sqrt(np.einsum("gp,gp->p", step, step))
    step = np.where(norm > LEAST_NORM, step / np.maximum(norm, LEAST_NORM), np.float32(0))
    r -= step * np.einsum("gp,gp->p", step, r)
    return step, (norm > LEAST_NORM).astype(np.float64)
