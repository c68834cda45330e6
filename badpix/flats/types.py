"""DEAD, LOW_QE, OPEN and ADJ_OPEN in a normalized flat: the decisions, arrays in, maps out (steps 2 to 6 of
:mod:`badpix.flats.search`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors
from badpix.flats import steep
from badpix.io.evidence import Detection, Evidence, Rule
from badpix.numerics import clipping, neighbors
from badpix.settings.flats import FlatSettings

STEEP_EXCESS = 1.3  # times `min_open_excess` in steep light: it has tails that its spread does not tell
SHINES = 10.0  # normalized rate from which on what a pixel gives to its neighbors hides an excess of theirs
OPEN_CONTRAST = 0.08  # excess around an open pixel; noisier flats can not show it

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]


def find_below(norm: Float, *, limit: float) -> Bool:
    """Pixels strictly below a limit; NaN is not."""
    with np.errstate(invalid="ignore"):
        found: Bool = norm < limit
    return found


def find_odd(norm: Float, low: Bool) -> Bool:
    """Pixels whose excess tells nothing of a neighbor that may be OPEN: low ones, and those that touch a hot one.

    What a hot pixel gives to its neighbors is known to a tenth of it only.
    """
    with np.errstate(invalid="ignore"):
        hot = norm > SHINES
    return low | neighbors.grow(hot) if hot.any() else low


def measure_open_excess(
    norm: Float, low: Bool, odd: Bool | None = None, *, center: float
) -> tuple[Float, NDArray[np.int8]]:
    """Mean excess of the good side neighbors of low pixels, and their number: (ny, nx), NaN and 0 elsewhere.

    Neighbors that are missing, unmeasured, or ``odd`` (:func:`find_odd`; the low ones, if not given) are left out.
    The excess is the smaller one of the mean of all of them and twice the mean without the highest: charge of an open
    pixel goes to all sides.
    """
    y, x = np.nonzero(low)
    sides = neighbors.sides_at(norm, y, x, np.nan) - np.float32(center)
    sides[neighbors.sides_at(low if odd is None else odd, y, x, True)] = np.nan
    good = np.isfinite(sides)
    count = good.sum(axis=0)
    total = np.where(good, sides, 0).sum(axis=0)
    highest = np.where(good, sides, -np.inf).max(axis=0, initial=-np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        guarded = np.minimum(total / count, 2 * (total - highest) / (count - 1))
    excess = np.full(norm.shape, np.nan, np.float32)
    number = np.zeros(norm.shape, np.int8)
    excess[y, x], number[y, x] = np.where(count >= 2, guarded, np.nan), count
    return excess, number


def measure_own_excess(norm: Float, odd: Bool, brighter: Bool, excess: Float, *, center: float) -> Float:
    """Mean excess of the side neighbors that a pixel shares with no other one that may be OPEN: (ny, nx).

    Two of the side neighbors of a pixel diagonal to an OPEN one collect that one's charge. Where all good ones
    are shared, ``excess`` stays; NaN where a pixel is not one of ``brighter``, the low pixels with bright neighbors.
    """
    y, x = np.nonzero(brighter)
    touching = neighbors.count_sides(brighter)
    sides = neighbors.sides_at(norm, y, x, np.nan) - np.float32(center)
    sides[neighbors.sides_at(odd, y, x, True) | (neighbors.sides_at(touching, y, x, 0) > 1)] = np.nan
    good = np.isfinite(sides)
    count = good.sum(axis=0)
    own = np.full(norm.shape, np.nan, np.float32)
    own[y, x] = np.where(count > 0, np.where(good, sides, 0).sum(axis=0) / np.maximum(count, 1), excess[y, x])
    return own


def measure_lowest_side(norm: Float, candidates: Bool) -> NDArray[np.float32]:
    """Lowest side neighbor of some pixels, of those inside the frame: (ny, nx), NaN elsewhere or next to a NaN."""
    y, x = np.nonzero(candidates)
    lowest = np.full(norm.shape, np.nan, np.float32)
    lowest[y, x] = neighbors.sides_at(norm, y, x, np.inf).min(axis=0, initial=np.inf)
    return lowest


def find_above(values: Float, *, limit: float) -> Bool:
    """Pixels strictly above a limit; NaN is not."""
    with np.errstate(invalid="ignore"):
        found: Bool = values > limit
    return found


def find_types_exclusive(is_open: Bool, dead: Bool, low: Bool) -> dict[str, Bool]:
    """One type a pixel: OPEN before DEAD before LOW_QE before ADJ_OPEN."""
    adjacent = neighbors.grow(is_open) & ~is_open & ~dead & ~low
    return {"DEAD": dead & ~is_open, "LOW_QE": low & ~is_open & ~dead, "OPEN": is_open, "ADJ_OPEN": adjacent}


def find_types_documented(is_open: Bool, dead: Bool, candidates: Bool) -> dict[str, Bool]:
    """Types as documented: LOW_QE and OPEN may be DEAD as well; ADJ_OPEN never on an OPEN pixel."""
    adjacent = neighbors.grow(is_open) & ~is_open
    return {"DEAD": dead, "LOW_QE": candidates & ~is_open, "OPEN": is_open, "ADJ_OPEN": adjacent}


def find_flat_types(
    norm: Float, p: FlatSettings, detector: detectors.Detector, error: Float | None = None
) -> Detection:
    """All four types in a normalized flat, with the rules and images they were decided on.

    ``error``: (ny, nx) standard deviation of the normalized rate of good pixels, where it varies over the frame.
    """
    max_dead, max_low = dead_limit(p, detector), p.max_low_qe_norm_signal
    unit = "DN/s" if p.flat_mean_normalization_method == "none" else "of the surroundings"
    dead_level = max_dead
    if p.dead_definition == "search_type" and p.dead_search_type == "sigma_rate":
        mu, sd = clipping.clip_values(norm, sigma=p.flat_mean_sigma_threshold, iterations=5)
        dead_level = mu - p.dead_sigma_threshold * sd
    dead, low = find_below(norm, limit=dead_level), find_below(norm, limit=max_low)
    little = "responds to less of the light than this"
    rules = [
        Rule("DEAD", "flat_norm", "<", float(dead_level), unit, little),
        Rule("LOW_QE", "flat_norm", "<", float(max_low), unit, little),
        Rule("OPEN", "flat_norm", "<", float(max_low), unit, little),
    ]
    found = Detection({}, Evidence({"flat_norm": norm}, rules))
    candidates = low & ~find_below(norm, limit=max_dead)
    is_open = _find_open(norm, low, candidates, p, found, error)
    found.evidence.images["open_near"] = neighbors.grow(is_open)
    rules.append(Rule("ADJ_OPEN", "open_near", ">", 0.0, "", "touches an OPEN pixel"))
    if p.exclusive_types:
        found.maps |= find_types_exclusive(is_open, dead, low)
    else:
        found.maps |= find_types_documented(is_open, dead, candidates)
    return found


def _find_open(
    norm: Float, low: Bool, candidates: Bool, p: FlatSettings, found: Detection, error: Float | None
) -> Bool:
    """OPEN pixels by the chosen test; its images, rules and notes go into ``found``."""
    images, rules = found.evidence.images, found.evidence.rules
    if p.open_test == "neighbors":
        images["lowest_side"] = measure_lowest_side(norm, candidates)
        limit = p.max_open_adj_norm_signal
        rules.append(Rule("OPEN", "lowest_side", ">", limit, "", "all side neighbors are brighter than this"))
        return find_above(images["lowest_side"], limit=limit)
    center, spread = clipping.median_mad(norm)
    odd = find_odd(norm, low)
    excess, number = measure_open_excess(norm, low, odd, center=center)
    limits, least = np.full(norm.shape, np.nan, np.float32), p.min_open_excess
    uncertain: Any = spread / np.sqrt(np.maximum(number[low], 1))
    if error is not None:
        excess, uncertainty = steep.measure_weighted_excess(norm, error, low, odd, center=center)
        uncertain, least = uncertainty[low], STEEP_EXCESS * least
    limits[low] = np.maximum(least, p.open_sigma * uncertain)
    images |= {"open_excess": excess, "open_limit": limits}
    rules.append(Rule("OPEN", "open_excess", ">", "open_limit", "", "its side neighbors collect its charge"))
    if p.open_sigma * spread / 2 > OPEN_CONTRAST:
        found.notes.append(f"too noisy to tell OPEN from LOW_QE: good pixels of the flat scatter by {spread:.1%}")
    brighter = low.copy()
    brighter[low] = excess[low] > limits[low]
    images["open_own"] = measure_own_excess(norm, odd, brighter, excess, center=center)
    text = "so do those that touch no other OPEN pixel"
    rules.append(Rule("OPEN", "open_own", ">", p.min_open_excess, "", text))
    return brighter & find_above(images["open_own"], limit=p.min_open_excess)


def dead_limit(p: FlatSettings, detector: detectors.Detector) -> float:
    """The value of `max_dead_norm_signal`, or what none stands for at this detector."""
    if p.max_dead_norm_signal is not None:
        return float(p.max_dead_norm_signal)
    plain = p.flat_mean_normalization_method == "none"
    return detector.max_dead_rate if plain and detector.max_dead_rate is not None else 0.05
