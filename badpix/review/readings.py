"""What the evidence of a mask says about a pixel: rules with values and limits, votes by integration.

1. The evidence lies beside its mask and is tied to it by the checksum of DQ.
2. For each search: did it find the pixel (its map ``is_<search>``), and for each of its rules the value, the limit
   and whether the comparison holds. Rules with one ``way`` are joined by *and*, different ways by *or*.
3. Some images of the darks hold candidates alone (:data:`CANDIDATES_ONLY`): a pixel without a value there that was
   measured otherwise lay below the first cuts of all searches. Others are what is left when charge that leaked in
   from neighbors is taken off (:data:`CORRECTED`), while their samples are as measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from badpix.io.evidence import COMPARISONS, NO_QUANTITY, OTHERWISE, WITHHELD, Evidence, Rule, holds
from badpix.mask.beside import CANDIDATES_ONLY, open_evidence, search_names
from badpix.mask.file import Mask
from badpix.mask.history import flags_of_search, manual_lists

__all__ = [
    "CANDIDATES_ONLY",
    "OTHERWISE",
    "WITHHELD",
    "flags_of_search",
    "manual_lists",
    "open_evidence",
    "search_names",
]

# What a search of the darks looked at first, where the evidence lists no rule of it.
MAIN_QUANTITY = {
    "hot": "dark_rate",
    "warm": "dark_rate",
    "intermittent": "dark_bright_fraction",
    "rc": "dark_rc",
    "telegraph": "telegraph_likelihood",
    "noisy": "dark_noise",
    "low_pedestal": "dark_pedestal",
    "science_hot": "science_sigma",
    "science_warm": "science_sigma",
    "science_low": "science_sigma",
    "science_noisy": "science_scatter",
    "science_switching": "science_bright",
    "science_outlier": "science_flagged",
}
CORRECTED = ("dark_rate",)


class Reading(NamedTuple):
    """One rule at one pixel."""

    rule: Rule
    value: float
    limit: float
    holds: bool

    @property
    def withholds(self) -> bool:
        """Whether it is a further test that keeps the flag back."""
        return self.rule.quantity.endswith(WITHHELD) and not self.holds


def is_veto(quantity: str) -> bool:
    """Whether a quantity is only the yes or no of further tests."""
    return quantity.endswith((WITHHELD, OTHERWISE))


class Votes(NamedTuple):
    """Values of a quantity by integration, and how many pass the limit (None without one)."""

    quantity: str
    values: list[float]
    passed: int | None

    @property
    def middle(self) -> float:
        """Median of the integrations that were measured."""
        known = [v for v in self.values if not math.isnan(v)]
        return float(np.median(known)) if known else math.nan


SCALES = ("_z", "_ratio")  # endings of one measurement on two scales, each with a limit that has to be passed


@dataclass
class Search:
    """What one search says about a pixel; ``found`` is None where the evidence holds no map of it."""

    name: str
    flags: list[str]
    found: bool | None
    readings: list[Reading] = field(default_factory=list)
    votes: list[Votes] = field(default_factory=list)

    @property
    def ways(self) -> list[list[Reading]]:
        """The rules by their alternatives; of limits on one measurement (:data:`SCALES`) the one that decides."""
        ways: dict[int, dict[str, Reading]] = {}
        for reading in self.readings:
            rules = ways.setdefault(reading.rule.way, {})
            key = _measured(reading.rule)
            rules[key] = min(rules[key], reading, key=_margin) if key in rules else reading
        return [list(rules.values()) for rules in ways.values()]


def _measured(rule: Rule) -> str:
    """What a rule compares, whatever its scale; rules of other quantities, or on the other side, stay apart."""
    for ending in SCALES:
        if rule.quantity.endswith(ending):
            return rule.quantity.removesuffix(ending) + rule.comparison
    return rule.quantity + rule.comparison


def _margin(reading: Reading) -> float:
    """How far beyond its (positive, lower) limit a value lies, as a factor: below 1 it fails."""
    return -math.inf if math.isnan(reading.value) else reading.value / reading.limit


# --- the evidence of a mask ------------------------------------------------------------------------------


def read_evidence(mask: Mask, path: str | Path | None = None) -> tuple[Evidence | None, str]:
    """The evidence of a mask (None where there is none), and what is to be said about it.

    Parameters
    ----------
    mask : Mask
        From :func:`crds.read_mask`.
    path : path, optional
        The evidence file; it lies beside the mask without one.

    Raises
    ------
    DataError
        If it can't be read or has another shape.
    """
    with open_evidence(mask, path) as (found, note):
        if found is not None:
            found.images = {name: np.asarray(image[:, :]) for name, image in found.images.items()}
        return found, note


# --- one pixel -------------------------------------------------------------------------------------------


def read_searches(mask: Mask, evidence: Evidence, row: int, column: int) -> list[Search]:
    """What all searches say about a pixel of the mask's image."""
    return [_read_search(mask, evidence, name, row, column) for name in search_names(evidence)]


def read_quantities(evidence: Evidence, row: int, column: int) -> dict[str, float]:
    """All that was measured of a pixel of the mask's image."""
    images = {name: image for name, image in evidence.images.items() if not name.startswith(NO_QUANTITY)}
    return {name: float(image[row, column]) for name, image in images.items()}


def is_candidate(quantities: Mapping[str, float]) -> bool:
    """Whether darks or science exposures looked at a pixel closer; one that could not be measured counts as such."""
    if "dark_noise" not in quantities and "science_sigma" in quantities:
        unknown = math.isnan(quantities["science_sigma"]) or quantities.get("science_undetermined", 0) > 0
        return unknown or not math.isnan(quantities.get("science_mean", math.nan))
    measured = not math.isnan(quantities.get("dark_noise", math.nan)) and not is_undetermined(quantities)
    return not measured or any(not math.isnan(quantities.get(name, math.nan)) for name in CANDIDATES_ONLY)


def is_undetermined(quantities: Mapping[str, float]) -> bool:
    """Whether the darks could not tell what a pixel is."""
    return quantities.get("dark_undetermined", 0) > 0


def _read_search(mask: Mask, evidence: Evidence, name: str, row: int, column: int) -> Search:
    found = evidence.images.get(f"is_{name.lower()}")
    out = Search(name, flags_of_search(mask, name), None if found is None else bool(found[row, column]))
    for rule in evidence.rules:
        if rule.search != name or rule.quantity not in evidence.images:
            continue
        if isinstance(rule.limit, str) and rule.limit not in evidence.images:
            continue
        out.readings.append(Reading(rule, *holds(rule, evidence, row, column)))
        votes = _votes(evidence, rule, row, column)
        if votes is not None and votes.quantity not in {v.quantity for v in out.votes}:
            out.votes.append(votes)
    return out


def _votes(evidence: Evidence, rule: Rule, row: int, column: int) -> Votes | None:
    """Values by integration of the quantity of a rule (or of the search itself)."""
    for name in (rule.quantity, rule.search.lower()):
        samples = evidence.samples.get(name)
        if samples is None:
            continue
        here = np.flatnonzero((samples.x == column) & (samples.y == row))
        if here.size:
            values = samples.values[here[0]].astype(float)
            passed = None
            if name == rule.quantity and not isinstance(rule.limit, str):
                passed = int(COMPARISONS[rule.comparison](values, np.float64(rule.limit)).sum())  # type: ignore[attr-defined]
            return Votes(name, [float(v) for v in values], passed)
    return None
