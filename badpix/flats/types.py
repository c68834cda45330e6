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
IN_CLUSTER, CLUSTER_EXCESS = 2, 2.0  # odd neighbors; the others collect more, and must so many times as much
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


def measure_own_excess(charge: Float, error: Float, shared: Bool, excess: Float) -> Float:
    """Mean charge of the side neighbors that a pixel shares with no other one that may be OPEN: (n,).

    Two of the side neighbors of a pixel diagonal to an OPEN one collect that one's charge. Where all good ones
    are shared, ``excess`` stays.

    Parameters
    ----------
    charge, error : ndarray
        (4, n) from :func:`badpix.flats.steep.charges_at`.
    shared : ndarray of bool
        (4, n) neighbors that touch another such pixel.
    excess : ndarray
        (n,) mean of all of them.
    """
    own = np.isfinite(charge) & ~shared
    weight = np.where(own, 1 / np.where(own, error, 1) ** 2, 0)
    total = (weight * np.where(own, charge, 0)).sum(axis=0)
    all_weight = weight.sum(axis=0)
    return np.where(all_weight > 0, total / np.where(all_weight > 0, all_weight, 1), excess)


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
    norm: Float, p: FlatSettings, detector: detectors.Detector, light: steep.Steep | None = None
) -> Detection:
    """All four types in a normalized flat, with the rules and images they were decided on.

    ``light``: what the pixels see, where it is steep.
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
    is_open = _find_open(norm, low, candidates, p, found, light)
    found.evidence.images["open_near"] = neighbors.grow(is_open)
    rules.append(Rule("ADJ_OPEN", "open_near", ">", 0.0, "", "touches an OPEN pixel"))
    if p.exclusive_types:
        found.maps |= find_types_exclusive(is_open, dead, low)
    else:
        found.maps |= find_types_documented(is_open, dead, candidates)
    return found


def _find_open(
    norm: Float, low: Bool, candidates: Bool, p: FlatSettings, found: Detection, light: steep.Steep | None
) -> Bool:
    """OPEN pixels by the chosen test; its images, rules and notes go into ``found``."""
    images, rules = found.evidence.images, found.evidence.rules
    if p.open_test == "neighbors":
        images["lowest_side"] = measure_lowest_side(norm, candidates)
        limit = p.max_open_adj_norm_signal
        rules.append(Rule("OPEN", "lowest_side", ">", limit, "", "all side neighbors are brighter than this"))
        return find_above(images["lowest_side"], limit=limit)
    center, spread = clipping.median_mad(norm)
    y, x = np.nonzero(low)
    usable = ~find_odd(norm, low)
    charge, error = steep.charges_at(norm, light, y, x, usable, center=center, spread=spread)
    excess, uncertain = steep.guarded_mean(charge, error)
    least: Any = p.min_open_excess if light is None else STEEP_EXCESS * p.min_open_excess
    if light is not None:
        uncertain = uncertain * light.factor[y, x]
    in_cluster = (~neighbors.sides_at(usable, y, x, True)).sum(axis=0) >= IN_CLUSTER
    least = np.where(in_cluster, CLUSTER_EXCESS * least, least)
    limit = np.fmax(least, p.open_sigma * uncertain)
    found.notes += _note_on_noise(p.open_sigma * spread / 2, spread)
    brighter = find_above(excess - limit, limit=0)
    others = np.zeros(norm.shape, bool)
    others[y[brighter], x[brighter]] = True
    shared = neighbors.sides_at(neighbors.count_sides(others), y, x, 0) > 1
    own = measure_own_excess(charge, error, shared, excess)
    for name, values in (
        ("open_excess", excess),
        ("open_limit", limit),
        ("open_own", np.where(brighter, own, np.nan)),
    ):
        images[name] = np.full(norm.shape, np.nan, np.float32)
        images[name][y, x] = values
    rules.append(Rule("OPEN", "open_excess", ">", "open_limit", "", "its side neighbors collect its charge"))
    text = "so do those that touch no other OPEN pixel"
    rules.append(Rule("OPEN", "open_own", ">", p.min_open_excess, "", text))
    return others & find_above(images["open_own"], limit=p.min_open_excess)


def _note_on_noise(contrast: float, spread: float) -> list[str]:
    told = f"too noisy to tell OPEN from LOW_QE: good pixels of the flat scatter by {spread:.1%}"
    return [told] if contrast > OPEN_CONTRAST else []


def dead_limit(p: FlatSettings, detector: detectors.Detector) -> float:
    """The value of `max_dead_norm_signal`, or what none stands for at this detector."""
    if p.max_dead_norm_signal is not None:
        return float(p.max_dead_norm_signal)
    plain = p.flat_mean_normalization_method == "none"
    return detector.max_dead_rate if plain and detector.max_dead_rate is not None else 0.05
