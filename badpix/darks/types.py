"""The types of bad pixels in darks, from the table of candidates: all searches in their order.

1. Inter-pixel capacitance: given, measured, or the detector's usual value; taken off all linear numbers.
2. RC before HOT: the rate of an RC pixel counts without its decay. Saturated pixels are HOT and nothing else.
3. TELEGRAPH where neither saturated nor RC; NOISY where nothing else explains the noise.
4. Low pedestals where neither HOT nor RC: both change the pedestal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.darks import changes, drops, ramps, searches, surroundings
from badpix.darks import rules as dark_rules
from badpix.darks.candidates import Candidates, correct
from badpix.darks.rules import Decision
from badpix.darks.scores import Population, Setup
from badpix.darks.series import Verdicts
from badpix.darks.stack import Brightness
from badpix.io.evidence import Detection, wait_on_disk
from badpix.numerics import neighbors
from badpix.numerics.clipping import median_mad
from badpix.settings.darks import (
    DarkSettings,
    HotSettings,
    NoisySettings,
    RcSettings,
    TelegraphSettings,
)

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]

FEWEST_IN_AREA = 16  # pixels as bright as their surroundings from which on a note says so
SLOPE_GROUPS = 2  # groups from which a ramp that is cut short has a slope of its own
RATE_GATE = 5.0  # sigma below which a limit in DN/s would call noise hot


@dataclass
class Outcome:
    """Maps and notes; what each search decided on; candidates that nothing can be said of; the part of the
    integrations in which candidates settle that nothing else explains; the pedestal in sigma, and sigma, DN."""

    detection: Detection
    decisions: dict[str, Decision]
    undetermined: Bool
    otherwise: Bool
    born: Bool
    settled: Float
    pedestal_sigma: Float | None = None
    pedestal_spread: float | None = None


def decide(
    table: Candidates,
    maps: Mapping[str, Float],
    setup: Setup,
    population: Population,
    ipc: float,
    bright: Brightness | None,
    flatten: Callable[[Float], Float],
    p: DarkSettings,
    pedestal_spread: float | None = None,
) -> tuple[Outcome, Candidates, Verdicts | None]:
    """All searches in their order: the outcome, the table with charge that leaked in taken off, the order of time.

    ``flatten`` takes the bias of good pixels off the pedestals where no superbias was. ``pedestal_spread`` (DN) is
    that of the maps where it is not given.
    """
    table = correct(table, setup, population, ipc)
    verdicts = changes.judge_time(table, maps["rate"], population, ipc, bright, p)
    result = find_types(table, maps, setup, population, ipc, p, verdicts)
    result.pedestal_spread = pedestal_spread
    find_low(result, table, flatten(maps["pedestal"]), population, ipc, p)
    return result, table, verdicts


def find_types(
    table: Candidates,
    maps: Mapping[str, Float],
    setup: Setup,
    population: Population,
    ipc: float,
    p: DarkSettings,
    verdicts: Verdicts | None = None,
) -> Outcome:
    """All searches among the candidates."""
    pixels, scores, places = table.pixels, table.scores, table.places
    measured = pixels["integrations"] >= p.min_integrations
    full = pixels["saturated_fraction"] >= max(p.max_saturated_fraction, 1e-6)
    saturated = searches.find_saturated(
        pixels, places, fraction=p.max_saturated_fraction, level_fraction=p.saturated_level_fraction
    )
    decisions = {"saturated": Decision(p.max_saturated_fraction, full, saturated)}
    found = {}
    time = changes.Changes.of(verdicts, table, ipc, p)
    settling, bent = find_bent(table, setup, population, p)
    if p.rc_search_type == "shape":
        found["rc"] = settling & measured & ~saturated & ~time.decaying
        decisions["rc"] = Decision(p.rc_sigma_threshold, np.abs(scores["rc"]) > p.rc_sigma_threshold, found["rc"])
    settling = found.get("rc", np.zeros(len(places.index), bool))
    hot = saturated if p.saturated_search_type == "level" else np.zeros_like(saturated)
    bright, areas = find_hot_and_warm(table, maps["rate"], setup, population, ipc, settling, hot, time, p)
    found |= {name: decision.found for name, decision in bright.items()}
    decisions |= bright
    found.setdefault("hot", hot)
    if verdicts is not None:
        found["intermittent"] = time.intermittent & ~(settling | found["hot"])
        above = time.fraction >= p.intermittent_fraction
        decisions["intermittent"] = Decision(p.intermittent_fraction, above, found["intermittent"])
    changing = time.calm | time.decaying | time.born | found.get("intermittent", time.born)
    leaked = searches.leaked_variance(pixels, places, ipc)
    score, otherwise = find_switching(table, setup, population, leaked, bent, p)
    sometimes = find_settled(table, setup, population, ~measured | saturated | found["hot"] | changing, p)
    if "rc" in found:
        found["rc"] = settling = settling | (sometimes > 0)
        decisions["rc"] = replace(decisions["rc"], found=settling)
    if p.telegraph_search:
        found["telegraph"] = (score | otherwise) & measured & ~(saturated | settling | changing)
        with np.errstate(invalid="ignore"):
            above = (pixels["likelihood"] > population.two_levels) | otherwise
        decisions["telegraph"] = Decision(population.two_levels, above, found["telegraph"])
    if p.noisy_search_type == "ramp":
        above, loud = find_loud(table, setup, population, leaked, p)
        found["noisy"] = loud & measured & ~np.any([*found.values(), time.decaying, time.calm], axis=0)
        decisions["noisy"] = Decision(p.noisy_sigma_threshold, above, found["noisy"])
    few = ~measured & ~found["hot"]
    undetermined = few | time.decaying
    result = Outcome(
        Detection({name: places.to_map(column) for name, column in found.items()}),
        decisions,
        undetermined,
        otherwise,
        time.born,
        sometimes,
    )
    result.detection.notes += describe_glow(areas, places, maps["rate"])
    if few.any():
        result.detection.notes.append(
            f"{int(few.sum())} pixels are undetermined: too few usable integrations or groups"
        )
    return result


def find_hot_and_warm(
    table: Candidates,
    rate: Float,
    setup: Setup,
    population: Population,
    ipc: float,
    settling: Bool,
    hot: Bool,
    time: changes.Changes,
    p: HotSettings,
) -> tuple[dict[str, Decision], Bool]:
    """Decisions on ``hot`` and ``warm``, and the bright pixels that only share the glow of their surroundings.

    ``hot`` are those that are saturated throughout; ``time.born`` keeps those that began within the darks.
    """
    limits = {
        "hot": rate_limit(p.hot_sigma_threshold, p.hot_max_rate, population),
        "warm": rate_limit(p.warm_sigma_threshold, None, population),
    }
    own, decisions, areas = table.pixels["hot_rate"], dict[str, Decision](), np.zeros_like(hot)
    shot = searches.shot_scatter(table.pixels)
    for name, limit in limits.items():
        if limit is None:
            continue
        area = surroundings.find_surrounded(rate, own, table.places, limit, shot)
        bright = find_bright(table, setup, population, ipc, settling, limit, p, time.always) & ~(time.gone | area)
        if name == "hot":
            areas = area & (own > limit)
            time.born &= ~(settling | hot | bright)
            found = bright | time.born | hot
        else:
            found = bright & ~(decisions["hot"].found if "hot" in decisions else hot)
        decisions[name] = Decision(limit, own > limit, found)
    return decisions, areas | time.crowded


def describe_glow(areas: Bool, places: neighbors.Places, rate: Float) -> list[str]:
    """A note on the pixels that are as bright as their surroundings, with the areas that they form."""
    if areas.sum() < FEWEST_IN_AREA:
        return []
    told = "; ".join(surroundings.describe_areas(areas, places, rate))
    text = f"{int(areas.sum())} pixels are as bright as their surroundings (glow, light leak), not HOT"
    return [text + (f": {told}" if told else "")]


def find_bent(table: Candidates, setup: Setup, population: Population, p: RcSettings) -> tuple[Bool, Bool]:
    """RC and inverse RC, and all pixels whose ramps bend."""
    if not setup.templates:
        nothing = np.zeros(len(table.places.index), bool)
        return nothing, nothing
    return searches.find_rc(
        table.pixels,
        table.scores,
        setup,
        population,
        sigma=p.rc_sigma_threshold,
        median_sigma=p.rc_median_threshold,
        sign_fraction=p.rc_sign_fraction,
        scatter=p.rc_scatter_limit,
        linear_fraction=p.rc_linear_fraction,
        explained=p.rc_explained_fraction,
        rest=p.rc_rest_limit,
        own_rest=p.rc_own_rest_limit,
    )


def find_settled(table: Candidates, setup: Setup, population: Population, barred: Bool, p: DarkSettings) -> Float:
    """Part of the integrations in which pixels that are not ``barred`` settle; 0 where those are too few for RC."""
    pixels = table.pixels
    if p.rc_search_type != "shape":
        return np.zeros(len(barred), np.float32)
    shot_rules = searches.measure_shot_part(pixels, table.scores["shot"], setup, population) > 1
    with np.errstate(invalid="ignore"):
        enough = pixels["settled"] >= p.intermittent_fraction
    found: Float = np.where(enough & ~barred & ~shot_rules, pixels["settled"], np.float32(0))
    return found


def find_bright(
    table: Candidates,
    setup: Setup,
    population: Population,
    ipc: float,
    rc: Bool,
    limit: float | None,
    p: HotSettings,
    always: Bool,
) -> Bool:
    """HOT or WARM by the dark rate; that of an RC pixel counts without its decay.

    The scatter from dark to dark says nothing against pixels that are bright in ``always`` all of them.
    """
    if limit is None:
        return np.zeros(len(table.places.index), bool)
    pixels = dict(table.pixels)
    settling = np.flatnonzero(rc & (pixels["hot_rate"] > limit))
    if settling.size:
        decay = searches.decay_rate({name: column[settling] for name, column in pixels.items()}, setup)
        pixels["hot_rate"] = pixels["hot_rate"].copy()
        pixels["hot_rate"][settling] -= np.maximum(decay, 0)
    pixels["rate_scatter"] = np.where(always, np.float32(0), pixels["rate_scatter"])
    overrun = searches.find_overrun(
        pixels,
        table.places,
        min_groups=SLOPE_GROUPS,
        fraction=p.hot_overrun_fraction,
        late_fraction=p.hot_late_overrun_fraction,
    )
    leaked = searches.find_leaked(pixels, table.places, fraction=p.hot_leak_fraction * ipc)
    return ~(overrun | leaked) & searches.find_hot(
        pixels,
        setup,
        population,
        limit=limit,
        own_threshold=p.hot_own_threshold,
        late_fraction=p.hot_late_fraction,
    )


def find_switching(
    table: Candidates,
    setup: Setup,
    population: Population,
    leaked: Float,
    bent: Bool,
    p: TelegraphSettings,
) -> tuple[Bool, Bool]:
    """TELEGRAPH by its score, and in other ways."""
    if setup.groups < ramps.SHORTEST_RAMP or not p.telegraph_search:
        return np.zeros(len(table.places.index), bool), np.zeros(len(table.places.index), bool)
    return searches.find_telegraph(
        table.pixels,
        table.scores,
        setup,
        population,
        leaked,
        bent,
        bent_threshold=p.telegraph_bent_threshold,
        min_drops=drops.drops_needed(setup.examined, setup.groups, p.telegraph_drop_sigma),
    )


def find_loud(
    table: Candidates, setup: Setup, population: Population, leaked: Float, p: NoisySettings
) -> tuple[Bool, Bool]:
    """Noisy within the ramp by either measure of noise, and by both."""
    if setup.groups < ramps.SHORTEST_RAMP:
        nothing = np.zeros(len(table.places.index), bool)
        return nothing, nothing
    return searches.find_noisy(
        table.pixels,
        table.scores,
        population,
        leaked,
        sigma=p.noisy_sigma_threshold,
        min_ratio=p.noisy_min_ratio,
    )


def rate_limit(sigma: float | None, rate: float | None, population: Population) -> float | None:
    """The higher of a limit in sigma and one in DN/s, at least what the noise supports; None without both."""
    if sigma is None and rate is None:
        return None
    limits = [(RATE_GATE if sigma is None else sigma) * population.rate_spread]
    limits += [rate] if rate is not None else []
    return max(limits)


def find_low(
    result: Outcome, table: Candidates, pedestal: Float, population: Population, ipc: float, p: DarkSettings
) -> None:
    """Low pedestals, added to the outcome."""
    own = np.zeros(pedestal.shape, np.float32)
    switching = result.detection.maps.get("telegraph", np.zeros(pedestal.shape, bool)).flat[table.places.index]
    own.flat[table.places.index] = searches.pedestal_error(table.pixels, switching, population)
    if p.low_pedestal_search_type != "mean" or not np.isfinite(pedestal).any():
        return
    if result.pedestal_spread is None:
        result.pedestal_spread = median_mad(pedestal)[1]
    found, result.pedestal_sigma = searches.find_low_pedestal(
        pedestal, own, result.pedestal_spread, sigma=p.low_pedestal_sigma_threshold, ipc=ipc
    )
    few = table.pixels["integrations"] < p.min_integrations
    barred = table.places.to_map(few)
    for name in ("hot", "rc"):
        barred |= result.detection.maps.get(name, False)
    result.detection.maps["low_pedestal"] = found & ~barred
    at = table.places.index
    result.decisions["low_pedestal"] = Decision(
        p.low_pedestal_sigma_threshold, found.flat[at], result.detection.maps["low_pedestal"].flat[at]
    )


def add_evidence(result: Outcome, table: Candidates, maps: dict[str, Any], population: Population) -> None:
    """The images and samples that the searches were decided on, added to the detection."""
    kept = result.detection.evidence
    kept.images |= dark_rules.make_images(
        maps, table.places, table.pixels, table.scores, result.decisions, population
    )
    kept.images["telegraph_otherwise"] = dark_rules.sparse(table.places, result.otherwise.astype(np.uint8), 0)
    kept.images["dark_settled"] = dark_rules.sparse(table.places, result.settled)
    sometimes = result.settled > 0
    kept.images["rc_otherwise"] = dark_rules.sparse(table.places, sometimes.astype(np.uint8), 0)
    kept.images["dark_undetermined"] = dark_rules.sparse(table.places, result.undetermined.astype(np.uint8), 0)
    if result.pedestal_sigma is not None:
        kept.images["dark_pedestal_sigma"] = result.pedestal_sigma
    for name in ("dark_rate", "dark_pedestal", "dark_pedestal_sigma"):
        if name in kept.images:
            kept.images[name] = wait_on_disk(kept.images[name])
    total = int(table.pixels["total"].max(initial=0))
    flagged = np.any([image.flat[table.places.index] for image in result.detection.maps.values()], axis=0)
    if total <= dark_rules.MOST_SAMPLES:
        kept.samples |= dark_rules.make_samples(table.places, table.samples, flagged)
