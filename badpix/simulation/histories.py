"""Pixels of a simulation that change from dark to dark, and clusters: places, rates by dark, first and last date.

1. :func:`place_changes` puts pixels of the types that the conditions ask for at isolated places, apart from all other
   defects. Level is the part of the sets in which a pixel is hot or settles (INTERMITTENT, NEWLY_HOT, RECOVERED,
   RC_SOMETIMES), its usual rate in e/s (DRIFTING), its mean dwell in sets (SWITCHED).
2. :func:`make_history` draws in which sets each of them is active, and its rate in every dark.
3. :func:`place_clusters`: clumps of touching hot pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.simulation.defects import DEFECT, Defects
from badpix.simulation.recipe import Recipe

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]

TYPE_OF = {
    "intermittent": "INTERMITTENT",
    "born": "NEWLY_HOT",
    "recovered": "RECOVERED",
    "drift": "DRIFTING",
    "switching": "SWITCHED",
    "settling": "RC_SOMETIMES",
}
PARTS = {"INTERMITTENT": (0.2, 0.3, 0.4, 0.5), "NEWLY_HOT": (0.2, 0.3, 0.4), "RECOVERED": (0.2, 0.3, 0.4)}
PARTS_OF_SETS = (0.1, 0.3, 0.5, 0.7, 0.9)  # born and recovered in a longer time
CLUSTER_LEVELS = (50.0, 200.0, 800.0)  # e/s; 5 times that on MIRI
SETTLING = 800.0  # DN, of RC_SOMETIMES
DRIFT = float(np.log(0.3)), float(np.log(3.0))  # range of the factor of a rate
TRIES = 100


@dataclass(frozen=True)
class History:
    """Pixels that change: their ``rows`` of :data:`badpix.simulation.defects.DEFECT`; in each dark their ``rate``
    (pixels, darks) e/s above the usual dark current, and whether they are ``active`` (pixels, darks)."""

    rows: NDArray[Any]
    rate: Float
    active: Bool

    def settling(self, number: int, low: int, high: int) -> NDArray[Any]:
        """The rows of the RC_SOMETIMES that settle in this dark, in rows ``low`` to ``high`` (exclusive)."""
        keep = (self.rows["type"] == "RC_SOMETIMES") & self.active[:, number - 1]
        found: NDArray[Any] = self.rows[keep & (self.rows["y"] >= low) & (self.rows["y"] < high)]
        return found


def levels(recipe: Recipe) -> list[tuple[str, float]]:
    """Types and levels that the conditions ask for."""
    steady = recipe.physics.hot_levels
    several = {
        **PARTS,
        **(dict.fromkeys(("NEWLY_HOT", "RECOVERED"), PARTS_OF_SETS) if recipe.sets else {}),
        "DRIFTING": (steady[1], 5 * steady[1]),
        "SWITCHED": (2.0, 4.0),
        "RC_SOMETIMES": (0.3, 0.5),
    }
    names = [TYPE_OF[name] for name in recipe.conditions if name in TYPE_OF]
    return [(name, level) for name in names for level in several[name]]


def count_of(recipe: Recipe) -> int:
    """Pixels of each type and level."""
    if recipe.defects_per_level is not None:
        return recipe.defects_per_level
    return max(2, round(recipe.shape[0] * recipe.shape[1] / 20_000))


def place_changes(recipe: Recipe, taken: Bool, rng: np.random.Generator) -> Defects:
    """Isolated pixels of all types that change; ``taken`` (ny, nx) gets them too.

    EXTRA1: rate in e/s between the second and fourth HOT level; RC_SOMETIMES: time constant in groups.
    """
    low, high = np.log(recipe.physics.hot_levels[1]), np.log(recipe.physics.hot_levels[3])
    rows = []
    for name, level in levels(recipe) * count_of(recipe):
        place = _find_place(taken, 3, rng)
        if place is None:
            continue
        taken[place] = True
        u = rng.random()
        extra = {"RC_SOMETIMES": 1 + 11 * u, "DRIFTING": level}.get(name, np.exp(low + u * (high - low)))
        rows.append((name, place[1], place[0], level, "isolated", extra, 0))
    return Defects(np.array(rows, DEFECT))


def place_clusters(recipe: Recipe, taken: Bool, rng: np.random.Generator) -> Defects:
    """Clumps of 5 to 12 touching hot pixels; ``taken`` (ny, nx) gets them too."""
    factor = 5.0 if recipe.detector.instrument == "MIRI" else 1.0
    rows = []
    for _ in range(max(2, count_of(recipe) // 2)):
        place = _find_place(taken, 6, rng)
        if place is None:
            continue
        members = {place}
        while len(members) < rng.integers(5, 13):
            y, x = sorted(members)[rng.integers(len(members))]
            step = ((0, 1), (1, 0), (0, -1), (-1, 0))[rng.integers(4)]
            y, x = y + step[0], x + step[1]
            if 0 <= y < taken.shape[0] and 0 <= x < taken.shape[1] and not taken[y, x]:
                members.add((y, x))
        for y, x in sorted(members):
            taken[y, x] = True
            rows.append(("CLUSTER", x, y, factor * CLUSTER_LEVELS[rng.integers(3)], "cluster", 0, 0))
    return Defects(np.array(rows, DEFECT))


def _find_place(taken: Bool, margin: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """A pixel that is free for ``margin`` pixels around; None where none was found."""
    for _ in range(2 * TRIES):
        y, x = int(rng.integers(taken.shape[0])), int(rng.integers(taken.shape[1]))
        near = taken[max(y - margin, 0) : y + margin + 1, max(x - margin, 0) : x + margin + 1]
        if not near.any():
            return y, x
    return None


def make_history(recipe: Recipe, rows: NDArray[Any], rng: np.random.Generator) -> History:
    """In which darks the changing pixels among ``rows`` are active, and how bright."""
    sets = recipe.number_of_sets
    of_dark = np.array([recipe.set_of(k + 1) for k in range(recipe.darks)], int)
    rows = rows[np.isin(rows["type"], list(TYPE_OF.values()))]
    active, rate = np.zeros((len(rows), sets), bool), np.zeros((len(rows), sets), np.float32)
    for k, row in enumerate(rows):
        name, level = str(row["type"]), float(row["level"])
        active[k] = draw_activity(name, level, sets, rng)
        factor = np.exp(rng.uniform(*DRIFT, size=sets)) if name == "DRIFTING" else 1.0
        if name != "RC_SOMETIMES":
            rate[k] = active[k] * row["extra1"] * factor
    return History(rows, rate[:, of_dark], active[:, of_dark])


def draw_activity(name: str, level: float, sets: int, rng: np.random.Generator) -> Bool:
    """The sets in which a pixel is hot or settles: (sets,) bool."""
    number, order = min(max(1, round(level * sets)), max(sets - 1, 1)), np.arange(sets)
    if name == "NEWLY_HOT":
        return np.asarray(order >= sets - number)
    if name == "RECOVERED":
        return np.asarray(order < number)
    if name == "DRIFTING":
        return np.ones(sets, bool)
    found = np.zeros(sets, bool)
    for _ in range(TRIES):
        if name == "SWITCHED":
            found = np.asarray(rng.integers(2) + np.cumsum(rng.random(sets) < 1 / level)) % 2 == 1
        else:
            found = np.isin(order, rng.permutation(sets)[:number])
        if found.any() and not found.all() and (np.count_nonzero(np.diff(found.astype(int))) > 1 or sets < 4):
            break  # neither always so, nor once and for all
    return found
