"""Where light is steep: how far normalized rates can be trusted, and the excess around low pixels weighted by that.

1. Good pixels are sorted into classes by their light and by its largest step to a side neighbor; the spread of a
   class is the error of its pixels.
2. Errors of neighbors go together (fringes, lines, the edge of a slice): the excess of the side neighbors is counted
   from the median of the ring two pixels away, which shares them.
3. What is left: the weighted excess of the side neighbors of ordinary pixels is measured, and the errors of a class
   are raised until no more of them exceed their 99 percent limit than chance would have; of one in a hundred a side
   neighbor may lie beside a defect.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.clipping import median_mad
from badpix.numerics.medians import median_rows
from badpix.numerics.neighbors import sides_at

LEVELS = 6  # classes of light, equally populated
STEPS = (
    0.05,
    0.15,
    0.3,
    0.5,
)  # largest step to a side neighbor, of the pixel's own light: limits of the other classes
FEWEST = 50  # pixels of a class that tell its spread
RING = tuple((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if max(abs(dy), abs(dx)) == 2)
IN_RING = 8  # pixels of a ring that tell its level
TRIED = 100_000  # pixels at which the excess is measured
TAIL, TAIL_SIGMA = 0.99, 2.326  # share of normal deviates below that many standard deviations

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]
Index = NDArray[np.intp]


def measure_error(norm: Float, light: Float) -> NDArray[np.float32]:
    """Error of the normalized rate of good pixels by their light and its steps: (ny, nx), NaN where not known.

    Parameters
    ----------
    norm, light : ndarray
        (ny, nx) normalized rate, NaN where not judged, and the light, DN/s.
    """
    known = np.isfinite(norm)
    error = np.full(norm.shape, np.nan, np.float32)
    if not known.any():
        return error
    edges = np.quantile(light[known], np.arange(1, LEVELS) / LEVELS)
    kind = (np.digitize(light, edges) * (len(STEPS) + 1) + np.digitize(measure_step(light), STEPS)).astype(np.int8)
    whole = max(median_mad(norm)[1], 1e-6)
    classes = range(LEVELS * (len(STEPS) + 1))
    for one in classes:
        some = known & (kind == one)
        values = norm[some]
        error[some] = median_mad(values)[1] if values.size >= FEWEST else max(whole, 0.3)
    y, x = np.nonzero(known & (np.abs(norm - 1) < 0.5))
    every = slice(None, None, max(y.size // TRIED, 1))
    y, x = y[every], x[every]
    ratio = np.divide(*weighted_excess_at(norm, error, y, x, known, center=1.0))
    for one in classes:
        values = ratio[(kind[y, x] == one) & np.isfinite(ratio)]
        if values.size >= 4 * FEWEST:
            error[known & (kind == one)] *= max(1.0, float(np.quantile(values, TAIL)) / TAIL_SIGMA)
    return error


def measure_step(light: Float) -> NDArray[np.float32]:
    """Largest difference between a pixel's light and that of a side neighbor, as part of it: (ny, nx)."""
    step: Float = np.zeros(light.shape, np.float32)
    for axis in (0, 1):
        change = np.abs(np.diff(np.nan_to_num(light), axis=axis))
        before = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        after = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        step[before] = np.maximum(step[before], change)
        step[after] = np.maximum(step[after], change)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (step / np.maximum(light, 1e-12)).astype(np.float32)


def measure_weighted_excess(
    norm: Float, error: Float, low: Bool, odd: Bool | None = None, *, center: float
) -> tuple[Float, Float]:
    """Mean excess of the good side neighbors of low pixels, weighted by their errors, and its error.

    As :func:`badpix.flats.types.measure_open_excess`: odd and unmeasured neighbors are left out, and twice the mean
    without the one that adds most is an upper limit.

    Returns
    -------
    excess, uncertainty : ndarray of float32
        (ny, nx) each; NaN at other pixels and with fewer than two good neighbors.
    """
    y, x = np.nonzero(low)
    excess, uncertainty = (np.full(norm.shape, np.nan, np.float32) for _ in range(2))
    excess[y, x], uncertainty[y, x] = weighted_excess_at(
        norm, error, y, x, ~(low if odd is None else odd), center=center
    )
    return excess, uncertainty


def weighted_excess_at(
    norm: Float, error: Float, y: Index, x: Index, usable: Bool, *, center: float
) -> tuple[Float, Float]:
    """The same at some pixels, with the neighbors that are ``usable``: (n,) each."""
    sides = sides_at(norm, y, x, np.nan) - ring_at(norm, y, x, usable, center)
    spread = sides_at(error, y, x, np.nan)
    good = np.isfinite(sides) & np.isfinite(spread) & sides_at(usable, y, x, False)
    weight = np.where(good, 1 / np.maximum(spread, 1e-6) ** 2, 0)
    pull = weight * np.where(good, sides, 0)
    total, all_weight = pull.sum(axis=0), weight.sum(axis=0)
    highest = np.where(good, pull, -np.inf).argmax(axis=0)[None]
    of_highest, its_weight = (np.take_along_axis(v, highest, axis=0)[0] for v in (pull, weight))
    with np.errstate(invalid="ignore", divide="ignore"):
        guarded = np.minimum(total / all_weight, 2 * (total - of_highest) / (all_weight - its_weight))
        uncertainty = 1 / np.sqrt(all_weight)
    few = good.sum(axis=0) < 2
    guarded[few], uncertainty[few] = np.nan, np.nan
    return guarded, uncertainty


def ring_at(norm: Float, y: Index, x: Index, usable: Bool, center: float) -> Float:
    """Median of the usable pixels two away from some pixels: (n,); ``center`` where they are too few."""
    ny, nx = norm.shape
    values = np.full((y.size, len(RING)), np.nan, np.float32)
    for k, (dy, dx) in enumerate(RING):
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        at = y[inside] + dy, x[inside] + dx
        values[inside, k] = np.where(usable[at], norm[at], np.nan)
    few = np.isfinite(values).sum(axis=1) < IN_RING
    level: Float = median_rows(values)
    level[few] = center
    return level
