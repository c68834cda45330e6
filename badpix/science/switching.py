"""How much better two levels explain what a pixel showed than one level does: pixels that switch.

1. Without defects a residual is Gaussian, but for a share of each exposure's pixels (particles, what sources leave)
   with a broad tail (:data:`TAIL`).
2. A pixel of two levels is as in 1 in some exposures, and in the others, a part ``p`` of them, higher by ``h``, the
   same each time but for :data:`RELATIVE` of it. Both are found by expectation and maximization, from the mean of the
   highest two, three, ... values.
3. *Gain*: the logarithm of the likelihood ratio of 2 to 1. It weighs number, height and likeness of the bright
   values: two that are high and equal say as much as many faint ones.
4. What a single step in time, or a level of its own in each pointing of several exposures (in dispersed light: a line
   in some visits) would explain as well is no switching: the gain over these, too.

Only pixels are looked at that scatter, and are dark in some exposures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.medians import median_rows

TAIL = 5.0  # sigma: half of what is no Gaussian lies beyond
BELOW = 0.01  # of the tail, below: no particle makes a pixel darker
LEAST_SHARE = 2e-3  # of values that are no Gaussian: two of them that are equal by chance must not say much
RELATIVE = 0.03  # of the height: by how much bright values may differ beside their noise
LOOKED_AT = 1.5  # mean square, of residuals clipped at four, from which a pixel is looked at
DARK = 2.0  # sigma
LEAST_DARK = 0.1  # of the exposures, in which such a pixel is dark
MOST_BRIGHT = 0.9  # of the exposures
GROWTH = 1.4  # of the number of highest values from one start to the next
ROUNDS = 3
FEW = 2  # exposures a pointing, on the average, from which on a level in each would be less than the series itself
A_LEVEL = 1.0  # of the logarithm, that a level of its own is worth

Float = NDArray[np.float32]
Table = dict[str, NDArray[Any]]
NAMES = ("lit", "newest", "gain", "over_step", "over_pointings", "bright_level", "pointings_lit")


def measure_switching(
    z: Float, weight: Float, pointings: NDArray[np.intp], shares: NDArray[np.float64], since: NDArray[np.int16]
) -> Table:
    """Gains of two levels over others, (candidates,) each; 0 where a pixel was not looked at.

    Parameters
    ----------
    z, weight : ndarray of float32
        (exposures, candidates) residuals in units of the noise, and one over the noise; 0 where not usable.
    pointings : ndarray of int
        (exposures,) number of the pointing of each.
    shares : ndarray
        (exposures,) share of all pixels that are bright.
    since : ndarray of int
        (candidates,) first exposure after the step in time that fits best.
    """
    out: Table = {name: np.zeros(z.shape[1], np.float32) for name in NAMES}
    seen = weight > 0
    number = np.maximum(seen.sum(axis=0), 1)
    square = (np.clip(z, -4, 4) ** 2).sum(axis=0) / number
    looked = (square > LOOKED_AT) & ((seen & (z < DARK)).sum(axis=0) >= LEAST_DARK * number) & (z > DARK).any(axis=0)
    chosen = np.flatnonzero(looked)
    if chosen.size:
        found = _compare(z[:, chosen], weight[:, chosen], pointings, shares, since[chosen])
        for name, values in found.items():
            out[name][chosen] = values
    return out


def _compare(
    z: Float, weight: Float, pointings: NDArray[np.intp], shares: NDArray[np.float64], since: NDArray[np.int16]
) -> Table:
    share = np.maximum(shares, LEAST_SHARE).astype(np.float32)[:, None]
    plain = _likelihood(z, share)
    seen = weight > 0
    best = fit_two_levels(z, weight, plain)
    after = np.arange(len(z))[:, None] >= since

    def gain_of(groups: list[NDArray[np.bool_]]) -> Float:
        """Of a level in each group of exposures (the median), over none."""
        level = np.zeros(z.shape, np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.where(seen, z / weight, np.float32(np.nan))
        for group in groups:
            level += np.where(group, _median(np.where(group & seen, value, np.float32(np.nan))), np.float32(0))
        shifted = _likelihood(z - level * weight, share)
        gain: Float = np.where(seen, np.log(shifted / plain), 0).sum(axis=0)
        return gain

    over = best["gain"] - gain_of([after, ~after]) + 2 * A_LEVEL
    own, names = best["gain"], np.unique(pointings)
    if len(names) <= len(z) / FEW:
        members = [np.broadcast_to((pointings == k)[:, None], z.shape) for k in names]
        own = own - gain_of(members) + len(members) * A_LEVEL
    lit = count_groups(best["lit"], pointings)
    return {
        "lit": best["lit"].sum(axis=0),
        "newest": find_newest(best["lit"], seen),
        "gain": best["gain"],
        "over_step": over,
        "over_pointings": own,
        "bright_level": best["height"],
        "pointings_lit": lit,
    }


def group(pointings: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Exposures in the order of their pointings, and where each pointing begins."""
    order = np.argsort(pointings, kind="stable")
    return order, np.flatnonzero(np.diff(pointings[order], prepend=pointings.min() - 1))


def count_groups(chosen: NDArray[np.bool_], pointings: NDArray[np.intp]) -> NDArray[np.int16]:
    """Different pointings among the chosen exposures of each candidate."""
    order, starts = group(pointings)
    out: NDArray[np.int16] = np.logical_or.reduceat(chosen[order], starts, axis=0).sum(axis=0, dtype=np.int16)
    return out


def find_newest(lit: NDArray[np.bool_], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether all exposures since the first lit one are lit, from (exposures, pixels)."""
    since = np.maximum.accumulate(lit, axis=0)
    dark_again = np.any(since & seen & ~lit, axis=0)
    return np.asarray(lit.any(axis=0) & ~dark_again)


def _likelihood(z: Float, share: Float) -> Float:
    """Of residuals from the level of a pixel without defects (step 1)."""
    tail = share * np.float32(TAIL) / (np.float32(TAIL) + np.abs(z)) ** 2
    out: Float = (1 - share) * _gauss(z, np.float32(1)) + np.where(z < 0, np.float32(BELOW) * tail, tail)
    return out


def fit_two_levels(z: Float, weight: Float, plain: Float) -> Table:
    """The gain of two levels, the higher one, and whether each exposure shows it (step 2).

    Parameters
    ----------
    z, weight : ndarray of float32
        (exposures, pixels).
    plain : ndarray of float32
        Likelihood of each value without a defect.

    Returns
    -------
    dict
        ``gain``, ``height``: (pixels,); ``lit``: (exposures, pixels).
    """
    seen, number = weight > 0, np.maximum((weight > 0).sum(axis=0), 1)
    order = np.argsort(np.where(seen, -z, np.inf), axis=0, kind="stable")
    ordered, heavy = (np.take_along_axis(a, order, axis=0) for a in (z, weight))
    above, total = np.cumsum(ordered * heavy, axis=0), np.maximum(np.cumsum(heavy**2, axis=0), np.float32(1e-30))
    best: Table = {"gain": np.zeros(z.shape[1], np.float32), "height": np.zeros(z.shape[1], np.float32)}
    best["lit"] = np.zeros(z.shape, bool)
    many = 2
    while many <= MOST_BRIGHT * len(z):
        height, part = above[many - 1] / total[many - 1], np.minimum(many / number, MOST_BRIGHT).astype(np.float32)
        for _ in range(ROUNDS):
            width = np.sqrt(1 + (np.float32(RELATIVE) * height * weight) ** 2)
            ratio = _gauss(z - height * weight, width) / plain
            lit = np.where(seen, part * ratio / (1 - part + part * ratio), np.float32(0))
            gain = np.where(seen, np.log(1 - part + part * ratio), np.float32(0)).sum(axis=0)
            better = np.flatnonzero(gain > best["gain"])
            best["gain"][better], best["height"][better] = gain[better], height[better]
            best["lit"][:, better] = lit[:, better] > 0.5
            w = lit * (weight / width) ** 2
            with np.errstate(invalid="ignore", divide="ignore"):
                again = (lit * z * weight / width**2).sum(axis=0) / w.sum(axis=0)
            height = np.where(np.isfinite(again), again, height).astype(np.float32)
            part = np.clip(lit.sum(axis=0) / number, 1 / number, MOST_BRIGHT).astype(np.float32)
        many = max(many + 1, int(many * GROWTH))
    return best


def _gauss(z: Float, width: Float | np.float32) -> Float:
    out: Float = np.exp(-0.5 * np.minimum((z / width) ** 2, 170)) * np.float32(0.3989) / width
    return out


def _median(values: Float) -> Float:
    """Of each column, NaN left out; 0 where nothing is left."""
    out: Float = np.nan_to_num(median_rows(np.array(values.T, np.float32, order="C")))
    return out
