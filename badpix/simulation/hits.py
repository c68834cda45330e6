"""Particles that hit a simulated detector: tracks, snowballs, hits in the middle of averaged groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.simulation.recipe import Recipe

SOLAR = 14  # times the cosmic rays at solar maximum
HIT = np.dtype([("integration", "i4"), ("y", "i4"), ("group", "i4"), ("x", "i4"), ("charge", "f4")])


def make_cosmic_rays(recipe: Recipe, ngroups: int, rng: np.random.Generator) -> NDArray[Any]:
    """Cosmic rays of all integrations: one row per pixel hit, sorted by integration and row.

    Straight tracks with the length of a random incidence angle; ``recipe.cosmic_rays`` hits per cm2 and second;
    charge per pixel log-normal around 600 e. Snowballs come on top.
    """
    pixel = 25e-4 if recipe.detector.instrument == "MIRI" else 18e-4
    area = recipe.shape[0] * recipe.shape[1] * pixel**2
    flux = recipe.cosmic_rays * (SOLAR if "solar" in recipe.conditions else 1)
    n = rng.poisson(flux * area * ngroups * recipe.group_time * recipe.nints)
    length = np.minimum(0.3 + 1.2 * rng.pareto(2.5, n), 40.0)
    angle, charge = rng.uniform(0, 2 * np.pi, n), 600 * np.exp(0.9 * rng.normal(size=n))
    y0, x0 = rng.uniform(0, recipe.shape[0], n), rng.uniform(0, recipe.shape[1], n)
    group, integration = rng.integers(0, ngroups, n), rng.integers(0, recipe.nints, n)
    points = np.ceil(length).astype(int) + 1
    which = np.repeat(np.arange(n), points)
    step = np.arange(points.sum()) - np.repeat(np.cumsum(points) - points, points)
    along = step / np.maximum(points[which] - 1, 1) * length[which]
    hits = np.empty(len(which), HIT)
    hits["integration"], hits["group"] = integration[which], group[which]
    hits["y"] = np.floor(y0[which] + along * np.sin(angle[which]))
    hits["x"] = np.floor(x0[which] + along * np.cos(angle[which]))
    hits["charge"] = charge[which] * rng.gamma(2.0, 0.5, len(which))
    hits = np.concatenate([hits, make_snowballs(recipe, ngroups, rng)])
    inside = (hits["y"] >= 0) & (hits["y"] < recipe.shape[0]) & (hits["x"] >= 0) & (hits["x"] < recipe.shape[1])
    hits = hits[inside]
    if "averaged" in recipe.conditions:
        hits = split_hits(hits, recipe, ngroups, rng)
    return hits[np.lexsort((hits["y"], hits["integration"]))]


def split_hits(hits: NDArray[Any], recipe: Recipe, ngroups: int, rng: np.random.Generator) -> NDArray[Any]:
    """Hits in the middle of a group of averaged frames: a part of the charge in this group, the rest in the next."""
    averaged, skipped = recipe.frames
    before = rng.integers(0, averaged + skipped, len(hits))  # frames of the group that are read before the hit
    part = np.maximum(averaged - before, 0) / averaged
    later = hits[(part < 1) & (hits["group"] < ngroups - 1)]
    later["charge"] *= (1 - part)[(part < 1) & (hits["group"] < ngroups - 1)]
    later["group"] += 1
    now = hits.copy()
    now["charge"] *= part
    return np.concatenate([now[part > 0], later])


def make_snowballs(recipe: Recipe, ngroups: int, rng: np.random.Generator) -> NDArray[Any]:
    """Large events of the near-infrared detectors: a saturated core of 2 to 8 pixels' radius and a faint halo.

    ``recipe.snowballs`` is their number per second on 2048 x 2048 pixels.
    """
    ny, nx = recipe.shape
    number = rng.poisson(recipe.snowballs * ny * nx / 2048**2 * ngroups * recipe.group_time * recipe.nints)
    out = [np.empty(0, HIT)]
    for _ in range(number):
        radius = min(2.0 * (1 + rng.pareto(2.0)), 8.0)
        reach = int(6 * radius)
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        distance = np.hypot(y, x)
        charge = 3e5 / (1 + np.exp(2 * (distance - radius))) + 1500 * np.exp(-distance / (1.5 * radius))
        one = np.empty(np.count_nonzero(charge > 20), HIT)
        one["charge"] = charge[charge > 20]
        one["y"] = y[charge > 20] + rng.integers(ny)
        one["x"] = x[charge > 20] + rng.integers(nx)
        one["integration"], one["group"] = rng.integers(recipe.nints), rng.integers(ngroups)
        out.append(one)
    return np.concatenate(out)
