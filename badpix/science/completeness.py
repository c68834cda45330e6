"""The depth of a search in science exposures: which bad pixels these exposures could have shown.

1. Pixels on a grid that do not stand out are copied while a band is measured, with the light around them and their
   noise. A kind and a strength fall to each by its place (:func:`make_plan`, :func:`inject`).
2. The copy becomes a defect: an excess in all exposures, in those since a date, or in some of them; a part of the
   light; or more noise. What such a defect leaks into its neighbors is far below their noise.
3. The same sums, series and decisions run over the copies (:func:`count_found`): found is what got its right type,
   flagged any type. The mask does not change.
4. False alarms: pixels as far below their surroundings as the limit is above (:func:`count_below`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.io.depths import Alarm, Depth
from badpix.science import decide
from badpix.science.decide import Verdicts
from badpix.settings.science import ScienceSettings

KINDS = ("science_hot", "science_born", "science_switching", "science_low", "science_noisy")
STEPS = np.array([0.6, 0.8, 1.0, 1.2, 1.6, 3.0])  # strengths over the limit
RESPONSES = np.array([0.25, 0.5, 0.75, 0.9, 1.0, 1.1])  # over `max_low_response`
NOISES = np.array([0.75, 0.9, 1.0, 1.25, 1.6, 2.5])  # over `noisy_scatter`
HEIGHT = 2.5  # noises: of switching pixels that are found in half of the cases, in 20 exposures or so
LEVELS = 6  # strengths of each kind
SPACING = 5  # rows and columns between copies, at least: their surroundings do not touch
SHARE = (0.15, 0.6)  # of the exposures in which a switching pixel is bright

Float = NDArray[np.float32]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Plan:
    """Strengths by kind, (kinds, levels) in their units, those units, and rows and columns between copies."""

    strengths: NDArray[np.float64]
    units: tuple[str, ...]
    spacing: int


class Copies(NamedTuple):
    """Copies of pixels of a band: flat index in the frame, kind, level (copies,), and which of them stand out."""

    where: Index
    kind: Index
    level: Index
    stands_out: NDArray[np.bool_]
    table: dict[str, NDArray[Any]]


def make_plan(noises: Sequence[float], unit: str, shape: tuple[int, int], p: ScienceSettings) -> Plan:
    """Strengths around the limits that the noise of the exposures lets expect.

    Parameters
    ----------
    noises : sequence of float
        Median noise of each exposure, in ``unit``.
    unit : str
        Of the values.
    shape : tuple of int
        Of the frame.
    p : ScienceSettings
    """
    known = np.array([n for n in noises if np.isfinite(n) and n > 0])
    error = 1 / np.sqrt((1 / known**2).sum()) if known.size else 1.0
    one = float(np.median(known)) if known.size else 1.0
    limits = {
        "science_hot": p.science_sigma * error * STEPS,
        "science_born": 2**0.5 * decide.NOW * p.born_sigma * error * STEPS,
        "science_switching": HEIGHT * one * STEPS,
        "science_low": p.max_low_response * RESPONSES,
        "science_noisy": p.noisy_scatter * NOISES,
    }
    spacing = max(SPACING, int(np.ceil(np.sqrt(shape[0] * shape[1] / p.depth_pixels))))
    return Plan(
        np.array([limits[kind] for kind in KINDS]), (unit, unit, unit, "of the light", "of its noise"), spacing
    )


def choose(plan: Plan, free: NDArray[np.bool_], start: int) -> tuple[Index, Index, Index]:
    """Pixels of a band that are copied: flat index in the band, kind, level; the same ones whatever the bands.

    Parameters
    ----------
    free : ndarray of bool
        (ny, nx) pixels that were seen and do not stand out.
    start : int
        First row of the band.
    """
    y, x = np.nonzero(free)
    mine = ((y + start) % plan.spacing == plan.spacing // 2) & (x % plan.spacing == plan.spacing // 2)
    y, x = y[mine], x[mine]
    cell = (7 * ((y + start) // plan.spacing) + 11 * (x // plan.spacing)) % (len(KINDS) * LEVELS)
    return y * free.shape[1] + x, cell // LEVELS, cell % LEVELS


def inject(z: Float, weight: Float, level: Float, kind: Index, strength: NDArray[np.float64], where: Index) -> Float:
    """Residuals of copies with defects: (exposures, copies), in units of the noise.

    Parameters
    ----------
    z, weight, level : ndarray
        (exposures, copies) of the pixels as they are (:mod:`badpix.science.series`).
    kind, strength : ndarray
        (copies,).
    where : ndarray of int
        (copies,) flat index in the frame: what is drawn by lot follows from it.
    """
    number = len(z)
    lots = (
        np.stack([_draw(int(place), number) for place in where], axis=2) if len(where) else np.zeros((2, number, 0))
    )
    share = SHARE[0] + (SHARE[1] - SHARE[0]) * (where * 0.6180339887 % 1)
    since = (0.2 + 0.6 * (where * 0.7548776662 % 1)) * number
    lit = np.ones(z.shape, bool)
    lit[:, kind == 1] = np.arange(number)[:, None] >= since[kind == 1]
    lit[:, kind == 2] = lots[0][:, kind == 2] < share[kind == 2]
    out = z.astype(np.float64)
    bright, low, noisy = kind <= 2, kind == 3, kind == 4
    out[:, bright] += (lit * weight)[:, bright] * strength[bright]
    out[:, low] -= (1 - strength[low]) * (z + level * weight)[:, low]
    out[:, noisy] += np.sqrt(np.maximum(strength[noisy] ** 2 - 1, 0)) * lots[1][:, noisy]
    return np.where(weight > 0, out, 0).astype(np.float32)


def _draw(place: int, number: int) -> NDArray[np.float64]:
    """Uniform and normal numbers of one copy: (2, exposures)."""
    rng = np.random.default_rng(place)
    return np.stack([rng.uniform(size=number), rng.normal(size=number)])


def count_found(plan: Plan, copies: Copies, verdicts: Verdicts) -> list[Depth]:
    """How many copies of each kind and strength got the right type, and how many any."""
    right = np.zeros(len(copies.where), bool)
    flagged = right.copy()
    judged = np.flatnonzero(copies.stands_out)
    types = (verdicts.hot, verdicts.hot, verdicts.switching, verdicts.low, verdicts.noisy)
    right[judged] = np.choose(copies.kind[judged], types)
    flagged[judged] = verdicts.hot | verdicts.low | verdicts.noisy | verdicts.switching
    out = []
    for k, name in enumerate(KINDS):
        for n in range(LEVELS):
            mine = (copies.kind == k) & (copies.level == n)
            counts = (int(part.sum()) for part in (mine, right & mine, flagged & mine))
            out.append(Depth(name, float(plan.strengths[k, n]), plan.units[k], *counts))
    return out


def count_below(
    table: dict[str, NDArray[Any]], seen: int, wider: float, p: ScienceSettings, *, dispersed: bool
) -> list[Alarm]:
    """The sign test of hot pixels: what the rules would call hot if bright were dark, low pixels left out.

    Parameters
    ----------
    table : dict
        Of the candidates of the search.
    seen : int
        Pixels that enough pointings saw.
    wider : float
        From :func:`badpix.science.decide.measure_excess_scatter`.
    p : ScienceSettings
    dispersed : bool
        Whether light is dispersed.
    """
    turned = {name: -table[name] for name in ("mean", "typical", "slope", "excess")}
    turned |= {"least": -table["most"], "least_error": table["most_error"], "without": -table["without_below"]}
    agreed = decide.find_agreed({**table, **turned}, dispersed)
    wider *= decide.LINES if dispersed else 1.0
    by_noise = None if dispersed else table["noise_error"] * np.float32(wider)
    below, _ = decide.find_steady(
        turned["mean"], table["error"] * np.float32(wider), by_noise, agreed, p.science_sigma
    )
    with np.errstate(invalid="ignore"):
        below &= ~(table["deficit"] < p.max_low_response - 1)
    below &= ~table.get("light_all", np.zeros(below.shape, bool))
    return [Alarm("science_hot", "sign", seen, int(below.sum()))]


def join(parts: Sequence[Copies]) -> Copies:
    """Copies of all bands."""
    where, kind, level, out = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:4])
    table = {name: np.concatenate([c.table[name] for c in parts]) for name in parts[0].table}
    return Copies(where, kind, level, out, table)
