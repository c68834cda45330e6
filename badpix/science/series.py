"""What the exposures say of candidates, in the order of time: arrays in, one value a candidate out.

All tables are (exposures, candidates), oldest exposure first; ``z`` are residuals in units of their noise, ``weight``
one over the noise; 0 where a value is not usable.

1. *Mean*: values within :data:`CLIP` robust scatters of the median, weighted by the inverse variance; its error from
   the noise, or from the scatter where that is larger.
2. *Scatter*: 1.4826 times the median distance from the median, in units of the noise.
3. *Pointings*: means of each pointing; their median is what most of them say, whatever one of them saw; the least
   one (its error put on it) is what contradicts a steady excess.
4. *Response*: the slope of the residual against the level of the neighbors, with and without an excess beside it. A
   pixel of response 0.7 misses 0.3 of whatever falls on it; a hot one shows the same excess on any background.
5. *Step in time*: the place that parts the series best into before and after; means, medians and errors of both; what
   is left after it without the two values that say most. Steps so late that two exposures alone show them, lit alike,
   come from :mod:`badpix.science.switching`.
6. *Bright*: values of more than :data:`BRIGHT` sigma; number, first, last, longest run, pointings, and how equal they
   are. Chance: how likely so many of them are, if every pixel is bright as often as the others of each exposure.
7. *Decay*: :func:`badpix.numerics.decay.find_decay`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.clipping import MAD_TO_SIGMA
from badpix.numerics.decay import find_decay
from badpix.numerics.medians import median_rows
from badpix.science.switching import count_groups, group, measure_switching

CLIP = 4.0  # robust scatters
STEP_CLIP = 8.0  # sigma, of values while the step in time is looked for
BRIGHT, DARK = 4.0, 2.0  # sigma
FAR_BELOW = 3.0  # sigma
CONSISTENT = 3.0  # errors within which two measurements agree
MEDIAN_ERROR = 1.25  # of a median, over that of a mean
STRAY = 5.0  # sigma from the median of a side of a step
FEWEST = 3  # exposures on each side of a step in time
CHUNK = 16_384  # candidates at a time

Float = NDArray[np.float32]
Table = dict[str, NDArray[Any]]


def measure(z: Float, weight: Float, level: Float, pointings: NDArray[np.intp], bright: NDArray[np.float64]) -> Table:
    """Everything that is measured of candidates: name to (candidates,) array.

    Parameters
    ----------
    z, weight, level : ndarray of float32
        (exposures, candidates).
    pointings : ndarray of int
        (exposures,) number of the pointing of each.
    bright : ndarray
        (exposures,) share of all pixels that are bright.
    """
    parts = [slice(k, k + CHUNK) for k in range(0, max(z.shape[1], 1), CHUNK)]
    tables = [_measure(z[:, s], weight[:, s], level[:, s], pointings, bright) for s in parts]
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}


def _measure(
    z: Float, weight: Float, level: Float, pointings: NDArray[np.intp], bright: NDArray[np.float64]
) -> Table:
    seen = weight > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(seen, z / weight, np.float32(np.nan))
    kept, scatter = find_kept(value, weight)
    mean, error, noise_error = measure_mean(value, weight, kept)
    table: Table = {
        "mean": mean,
        "error": error,
        "noise_error": noise_error,
        "scatter": scatter,
        "number": seen.sum(axis=0).astype(np.int16),
        "noise": _middle(np.where(seen, 1 / np.maximum(weight, 1e-30), np.nan)),
    }
    table |= measure_pointings(value, weight, kept, pointings)
    table |= measure_response(value, weight, level, kept)
    table |= measure_step(z, value, weight, pointings)
    table |= measure_bright(z, value, seen, pointings, bright)
    table |= measure_switching(z, weight, pointings, bright, table["since"])
    table |= put_newest(table, seen)
    table["decaying"] = measure_decay(z, seen)
    return table


def _middle(values: NDArray[np.floating[Any]]) -> Float:
    """Median of each column, NaN left out."""
    return median_rows(np.array(values.T, np.float32, order="C"))


def find_kept(value: Float, weight: Float) -> tuple[NDArray[np.bool_], Float]:
    """Values that count for the mean, and the robust scatter in units of the noise (steps 1 and 2)."""
    with np.errstate(invalid="ignore"):
        apart = np.abs((value - _middle(value)) * weight)
        scatter = np.float32(MAD_TO_SIGMA) * _middle(apart)
        kept = apart <= CLIP * np.maximum(scatter, 1)
    return kept, scatter


def measure_mean(value: Float, weight: Float, kept: NDArray[np.bool_]) -> tuple[Float, Float, Float]:
    """Weighted mean of the values kept, its error, and its error by the noise alone."""
    w = np.where(kept, weight, np.float32(0)) ** 2
    total, number = w.sum(axis=0, dtype=np.float64), kept.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(kept, value * w, 0).sum(axis=0, dtype=np.float64) / total
        square = (np.where(kept, (value - mean) * weight, 0) ** 2).sum(axis=0) / np.maximum(number - 1, 1)
        error = np.sqrt(np.fmax(square, 1) / total)
        by_noise = 1 / np.sqrt(total)
    return mean.astype(np.float32), error.astype(np.float32), by_noise.astype(np.float32)


def measure_pointings(value: Float, weight: Float, kept: NDArray[np.bool_], pointings: NDArray[np.intp]) -> Table:
    """Of the means of each pointing: their median (``typical``), the least and the most with their errors.

    ``without``, ``without_below``: significance of the mean without the pointing that lifts it most, that lowers it
    most; without bounds where there is one alone.
    """
    w = np.where(kept, weight, np.float32(0)) ** 2
    order, starts = group(pointings)
    total = np.add.reduceat(w[order], starts, axis=0)
    above = np.add.reduceat(np.where(kept, value * w, np.float32(0))[order], starts, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means, errors = above / total, 1 / np.sqrt(total)
        rest = (above.sum(axis=0) - above) / np.sqrt(np.maximum(total.sum(axis=0) - total, np.float32(1e-30)))
    ends = (rest.min(axis=0), rest.max(axis=0)) if len(starts) > 1 else (above[0] + np.inf, above[0] - np.inf)
    table: Table = {"typical": _middle(means), "without": ends[0], "without_below": ends[1]}
    for name, sign in (("least", 1), ("most", -1)):
        with np.errstate(invalid="ignore"):
            end = np.nan_to_num(sign * means + CONSISTENT * errors, nan=np.inf).argmin(axis=0)[None]
        table[name], table[f"{name}_error"] = (np.take_along_axis(a, end, axis=0)[0] for a in (means, errors))
    return table


def measure_response(value: Float, weight: Float, level: Float, kept: NDArray[np.bool_]) -> Table:
    """Deficit by the level alone, and beside an excess (step 4).

    Returns
    -------
    dict
        ``deficit``, ``deficit_error``: slope through zero; ``slope``, ``slope_error``, ``excess``, ``excess_error``:
        of the line with an excess.
    """
    w = np.where(kept, weight, np.float32(0)).astype(np.float64) ** 2
    r, x = np.where(kept, value, 0).astype(np.float64), level.astype(np.float64)
    total, by_x, by_r = w.sum(axis=0), (w * x).sum(axis=0), (w * r).sum(axis=0)
    square, product = (w * x * x).sum(axis=0), (w * x * r).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = square - by_x**2 / total
        spread = np.where(spread > 1e-12 * square, spread, 0)
        slope = (product - by_x * by_r / total) / spread
        excess = (by_r - slope * by_x) / total
        excess_error = np.sqrt(1 / total + (by_x / total) ** 2 / spread)
        found = {
            "deficit": product / square,
            "deficit_error": 1 / np.sqrt(square),
            "slope": slope,
            "slope_error": 1 / np.sqrt(spread),
            "excess": excess,
            "excess_error": excess_error,
        }
    return {name: values.astype(np.float32) for name, values in found.items()}


def measure_step(z: Float, value: Float, weight: Float, pointings: NDArray[np.intp]) -> Table:
    """The step in time that parts each series best (step 5).

    Returns
    -------
    dict
        ``step``: significance, negative where the pixel got fainter; ``since``: first exposure after it; of both
        sides ``before`` and ``after`` (medians), their errors, the share of values that stray from them, the weighted
        means of the others, and ``pointings_after``.
    """
    n = len(z)
    w, r = weight**2, np.clip(z, -STEP_CLIP, STEP_CLIP) * weight
    sum_w, sum_r = np.cumsum(w, axis=0, dtype=np.float64), np.cumsum(r, axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        rest_w, rest_r = sum_w[-1] - sum_w, sum_r[-1] - sum_r
        part = (rest_r / rest_w - sum_r / sum_w) / np.sqrt(1 / rest_w + 1 / sum_w)
    seen = np.cumsum(weight > 0, axis=0)
    part = np.where((seen >= FEWEST) & (seen[-1] - seen >= FEWEST), np.nan_to_num(part), 0)
    best = np.abs(part).argmax(axis=0)
    columns = np.arange(z.shape[1])
    after = np.arange(n)[:, None] > best
    out: Table = {"step": part[best, columns].astype(np.float32), "since": (best + 1).astype(np.int16)}
    for name, side in (("before", ~after), ("after", after)):
        total = np.where(side, w, np.float32(0)).sum(axis=0)
        with np.errstate(divide="ignore"):
            out[f"{name}_error"] = (MEDIAN_ERROR / np.sqrt(total)).astype(np.float32)  # of a median
        out[name] = _middle(np.where(side, value, np.nan))
        with np.errstate(invalid="ignore"):
            stray = side & (np.abs((value - out[name]) * weight) > STRAY)
            known = np.where(side & ~stray, w, np.float32(0))
            agreed = (known * np.nan_to_num(value)).sum(axis=0) / known.sum(axis=0)
        out[f"{name}_mean"] = agreed.astype(np.float32)
        out[f"{name}_strays"] = (stray.sum(axis=0) / np.maximum((side & (weight > 0)).sum(axis=0), 1)).astype(
            np.float32
        )
    out["rest_after"] = measure_rest(np.where(after, r, np.float32(-np.inf)), np.where(after, w, np.float32(0)))
    out["pointings_after"] = count_groups(after & (weight > 0), pointings)
    return out


def put_newest(table: Table, seen: NDArray[np.bool_]) -> Table:
    """The step in time of pixels that the newest exposures alone show lit, fewer than :data:`FEWEST` of them."""
    few = (table["newest"] > 0) & (table["lit"] > 1) & (table["lit"] < FEWEST)
    left = np.cumsum(seen[::-1], axis=0)[::-1]
    since = len(seen) - 1 - (left[::-1] >= table["lit"]).argmax(axis=0)  # as many usable ones are left as are lit
    root, level = np.sqrt(np.maximum(table["lit"], 1)), table["bright_level"]
    error = MEDIAN_ERROR * table["noise"] / root
    found = {"since": since, "step": level * root / table["noise"], "after_error": error}
    found |= {"after": level, "after_mean": level}
    out = {name: np.where(few, values, table[name]).astype(table[name].dtype) for name, values in found.items()}
    return out | {"newest": few}


def measure_rest(weighted: Float, weight: Float) -> Float:
    """Significance of what is left of some values without the two that say most: two particles leave nothing.

    Parameters
    ----------
    weighted, weight : ndarray
        (exposures, candidates) values times their weights, minus infinity where they do not belong to them; weights.
    """
    most = np.argpartition(weighted, -2, axis=0)[-2:]
    rest, left = np.where(np.isfinite(weighted), weighted, np.float32(0)), weight.copy()
    np.put_along_axis(rest, most, 0, axis=0)
    np.put_along_axis(left, most, 0, axis=0)
    total = left.sum(axis=0)
    out: Float = rest.sum(axis=0) / np.sqrt(np.maximum(total, np.float32(1e-30)))
    return out


def measure_bright(
    z: Float, value: Float, seen: NDArray[np.bool_], pointings: NDArray[np.intp], share: NDArray[np.float64]
) -> Table:
    """Bright and dark exposures of each candidate (step 6)."""
    from scipy.special import gammainc

    bright = seen & (z > BRIGHT)
    number, used = bright.sum(axis=0), seen.sum(axis=0)
    steps = np.arange(len(z))[:, None]
    expected = (seen * share[:, None]).sum(axis=0)
    height = _middle(np.where(bright, value, np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.abs(value - height)
        beyond = np.maximum(apart - np.abs(value / z), 0)  # what the noise does not explain
        unequal = _middle(np.where(bright, beyond, np.nan)) / height
    return {
        "bright": number.astype(np.int16),
        "dark": (seen & (z < DARK)).sum(axis=0).astype(np.int16),
        "below": (seen & (z < -FAR_BELOW)).sum(axis=0).astype(np.int16),
        "fraction": (number / np.maximum(used, 1)).astype(np.float32),
        "first": np.where(number > 0, bright.argmax(axis=0), -1).astype(np.int16),
        "last": np.where(number > 0, (bright * steps).max(axis=0), -1).astype(np.int16),
        "run": _longest_run(bright),
        "pointings_bright": count_groups(bright, pointings),
        "elsewhere": (number - _count_most(bright, pointings)).astype(np.int16),
        "chance": np.where(number > 0, gammainc(np.maximum(number, 1), expected), 1).astype(np.float32),
        "height": height,
        "base": _middle(np.where(seen & (z < DARK), value, np.nan)),
        "unequal": unequal.astype(np.float32),
    }


def _longest_run(bright: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Longest run of bright exposures of each candidate."""
    steps = np.arange(1, len(bright) + 1, dtype=np.int16)[:, None]
    last_dark = np.maximum.accumulate(np.where(bright, np.int16(0), steps), axis=0)
    out: NDArray[np.int16] = (steps - last_dark).max(axis=0)
    return out


def _count_most(chosen: NDArray[np.bool_], pointings: NDArray[np.intp]) -> NDArray[np.intp]:
    """The most chosen exposures that one pointing has, of each candidate."""
    order, starts = group(pointings)
    out: NDArray[np.intp] = np.add.reduceat(chosen[order].astype(np.intp), starts, axis=0).max(axis=0)
    return out


def measure_decay(z: Float, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Candidates that are bright once and shrink from exposure to exposure."""
    rate = np.ascontiguousarray(z.T)
    state = np.where(seen.T, (rate > BRIGHT).astype(np.float32), np.float32(np.nan))
    if not len(rate):
        return np.zeros(0, bool)
    return find_decay(rate, np.zeros_like(rate), state, np.ones(len(rate), np.float32), 2 * BRIGHT)
