"""What the searches in the ramps were decided on, as images, rules and samples (:mod:`badpix.io.evidence`).

Images hold what a search compares with its limit: for candidates after charge that leaked in was taken off, for the
rest of the frame as measured (or nothing, where only candidates are looked at closer). A ``withheld`` image marks
candidates above a limit that a further test kept from being flagged. Samples are the rate, pedestal and jumps of each
integration at flagged pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.darks import telegraph
from badpix.darks.scores import Population, level_of
from badpix.darks.stack import NEEDED_MAPS
from badpix.darks.stats import Stats
from badpix.io.evidence import Rule, Samples, Sparse
from badpix.io.spill import DiskTable
from badpix.numerics.neighbors import Places
from badpix.settings.darks import DarkSettings

Bool = NDArray[np.bool_]
MOST_SAMPLES = 200  # integrations up to which samples are kept


@dataclass(frozen=True)
class Decision:
    """What a search in the ramps decided: its limit, the candidates above it, and those it found."""

    limit: float
    above: Bool
    found: Bool


def make_images(
    maps: Mapping[str, Any],
    places: Places,
    pixels: Stats,
    scores: Stats,
    decisions: Mapping[str, Decision],
    population: Population,
) -> dict[str, Any]:
    """All images of the frame by name."""
    images: dict[str, Any] = {f"dark_{name}": image for name, image in maps.items()}
    images["dark_rate"].flat[places.index] = pixels["hot_rate"]
    for name in [name for name in maps if name not in NEEDED_MAPS]:
        column = scores[name] if name in scores else pixels[name]
        images[f"dark_{name}"] = sparse(places, column, maps[name])
    images["dark_residual"] = sparse(places, np.sqrt(pixels["residual"]))
    usual = np.float32(np.exp(population.spread["log_noise"][0])) * level_of(pixels)
    images["dark_noise_ratio"] = sparse(places, scores["noise"] / usual)
    images["dark_residual_ratio"] = sparse(places, np.sqrt(pixels["residual"]) / usual)
    images["dark_noise_z"] = sparse(places, scores["noise_z"])
    images["dark_residual_z"] = sparse(places, scores["log_residual_z"])
    for name in telegraph.COLUMNS:
        images[f"telegraph_{name}"] = sparse(places, pixels[name])
    votes = np.round(pixels["saturated_fraction"] * pixels["total"]).astype(np.uint16)
    images["votes_saturated"] = sparse(places, votes, 0)
    for name, decision in decisions.items():
        images[f"{name}_withheld"] = sparse(places, (decision.above & ~decision.found).astype(np.uint8), 0)
    return images


def sparse(places: Places, values: NDArray[Any], empty: Any = np.nan) -> Sparse:
    """An image of the frame with the candidates' values, ``empty`` (one value, or an image) elsewhere."""
    return Sparse(places.index, values, places.shape, empty)


def make_rules(decisions: Mapping[str, Decision], integrations: int, p: DarkSettings) -> list[Rule]:
    """The comparisons of all searches."""
    rules = []

    def add(search: str, way: int, quantity: str, sign: str, limit: float, unit: str, meaning: str) -> None:
        rules.append(Rule(search, quantity, sign, float(limit), unit, meaning, way))
        if quantity != "dark_born" and f"{search}_withheld" not in (
            quantity,
            *[r.quantity for r in rules if (r.search, r.way) == (search, way)],
        ):
            rules.append(Rule(search, f"{search}_withheld", "<", 1.0, "", WITHHELD[search], way))

    for name in ("hot", "warm"):
        if name in decisions:
            add(name, 1, "dark_rate", ">", decisions[name].limit, "DN/s", "dark rate over its surroundings")
    if p.saturated_search_type == "level":
        need = int(np.ceil(p.max_saturated_fraction * integrations - 1e-9))
        rules.append(Rule("hot", "votes_saturated", ">=", max(need, 1), "integrations", "saturated throughout", 2))
        rules.append(Rule("hot", "saturated_withheld", "<", 1.0, "", WITHHELD["saturated"], 2))
    if "intermittent" in decisions:
        add("hot", 3, "dark_born", ">=", 1.0, "", "hot in the newest darks and in no earlier one")
        limit = decisions["intermittent"].limit
        add("intermittent", 1, "dark_bright_fraction", ">=", limit, "", "fraction of the darks in which it is hot")
    if "rc" in decisions:
        add("rc", 1, "dark_rc", ">", decisions["rc"].limit, "sigma", "contrast of the ramp with a decay")
        add("rc", 2, "dark_rc", "<", -decisions["rc"].limit, "sigma", "contrast of the ramp with a decay")
        add(
            "rc",
            3,
            "rc_otherwise",
            ">=",
            1.0,
            "",
            "settles alike in some of the integrations, nothing else in the others",
        )
    if "telegraph" in decisions:
        limit = decisions["telegraph"].limit
        add("telegraph", 1, "telegraph_likelihood", ">", limit, "", "two levels explain the ramps better than one")
        add("telegraph", 2, "telegraph_otherwise", ">=", 1.0, "", "steps down, or bends that do not repeat")
    if "noisy" in decisions:
        for way, name in enumerate(("noise", "residual"), 1):
            add("noisy", way, f"dark_{name}_z", ">", decisions["noisy"].limit, "sigma", "noise among all pixels")
            ratio = p.noisy_min_ratio
            add("noisy", way, f"dark_{name}_ratio", ">", ratio, "", "noise over the usual one of output and place")
    if "low_pedestal" in decisions:
        limit = -p.low_pedestal_sigma_threshold
        add("low_pedestal", 1, "dark_pedestal_sigma", "<", limit, "sigma", "mean pedestal under its surroundings")
    return rules


WITHHELD = {
    "hot": "own scatter, a slope that stops, a decay, a bright neighbor or bright surroundings explain the rate",
    "warm": "HOT, own scatter, a slope that stops, a decay, a bright neighbor or bright surroundings explain it",
    "intermittent": "HOT, RC, hot once or in the oldest darks alone, decaying, or leaked from a neighbor",
    "saturated": "only the neighbor of a saturated pixel",
    "rc": "too different between integrations, too small beside the signal, or the ramp shows something else",
    "telegraph": "RC, saturated, ruled by shot noise, or leaked from a neighbor",
    "noisy": "HOT, RC, TELEGRAPH, leaked from a neighbor, or loud in its steps or its residuals alone",
    "low_pedestal": "HOT, RC, or too few integrations",
}


def make_samples(places: Places, samples: Mapping[str, DiskTable], flagged: Bool) -> dict[str, Samples]:
    """Values of each integration at flagged candidates."""
    y, x = np.divmod(places.index[flagged], places.shape[1])
    return {
        f"dark_{name}": Samples(x.astype(np.int32), y.astype(np.int32), table.read(np.flatnonzero(flagged)))
        for name, table in samples.items()
    }
