"""How good a mask is, against the truth of a simulation.

1. Science pixels are those that are no reference pixels in the truth. A pixel is good if the truth has no flag for it
   (ADJ_OPEN counts as a flag); good pixels beside a defect are good too, and counted as such.
2. Completeness, per type and level: defects that carry the flag of their type (``found``), and defects that carry any
   flag (``flagged``). ADJ_OPEN pixels are a type of their own. Where a good mask has no flag (RECOVERED,
   PERSISTENCE) those without any are the ones that are right (``found``).
3. Purity, per flag: of the science pixels with this flag, those whose truth has it as well. A wrong flag on
   a real defect (a noisy pixel called TELEGRAPH) lowers the purity and is no false positive.
4. False positives: good pixels with a flag, per million good pixels; how many of them touch a defect.
5. By light, where the truth tells it: defects and good pixels that are lit, dim and unlit, each by itself. Defects
   that are poor in some filters only (LOW_FILTER) are counted by the number of these filters.
6. Counts of several masks add up. Intervals hold 95 %: Wilson's for fractions of defects and flags, the exact
   (Clopper-Pearson) one for false positives, which are rare.

DO_NOT_USE and REFERENCE_PIXEL say nothing about a pixel's type and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.simulation.defects import FLAG_OF, NOISY_LIMIT, UNIT_OF, flag_value
from badpix.simulation.illumination import STATES

Flags = NDArray[np.uint32]

SEARCHES = {
    "flats": ("DEAD", "LOW_QE", "LOW_FILTER", "OPEN", "ADJ_OPEN"),
    "darks": ("HOT", "SATURATED", "WARM", "RC", "IRC", "TELEGRAPH", "NOISY", "LOW_PEDESTAL"),
}
SEARCHES["all"] = SEARCHES["flats"] + SEARCHES["darks"]
SEARCHES["science"] = ("STEADY", "BORN", "LOW_QE", "SWITCHING")

CHANGING = (
    "INTERMITTENT",
    "NEWLY_HOT",
    "RECOVERED",
    "DRIFTING",
    "SWITCHED",
    "RC_SOMETIMES",
    "CLUSTER",
    "PERSISTENCE",
)
OF_CONDITIONS = {"flats": ("VOID",), "darks": CHANGING, "all": (*CHANGING, "VOID"), "science": ()}

LOUD = f"above {NOISY_LIMIT:g} x median"

# What a mask says about single pixels.
TYPE_FLAGS = tuple(
    name for name in dq.MASK_NAMES if name not in ("DO_NOT_USE", "NON_SCIENCE", "REFERENCE_PIXEL", "BAD_REF_PIXEL")
)


@dataclass(frozen=True)
class Found:
    """How many defects of one type and level were found."""

    type: str
    level: float | None
    unit: str
    setting: str  # "all", or where they stand, or LOUD
    injected: int
    found: int  # with the flag of their type
    flagged: int  # with any flag


@dataclass(frozen=True)
class Claimed:
    """What one flag was set on."""

    flag: str  # "any" for all together
    set: int
    right: int  # the truth has this flag too
    other: int  # the pixel has another defect
    false: int  # good pixels
    near: int  # of these, beside a defect
    good: int  # good pixels there are


def count_found(flags: Flags, truth: Flags, defects: NDArray[Any], types: Sequence[str]) -> list[Found]:
    """Completeness per type, level and setting.

    Parameters
    ----------
    flags, truth : uint32 array (ny, nx)
        Mask and truth in standard bits.
    defects : structured array
        The injected defects (see :data:`badpix.simulation.defects.DEFECT`).
    types : sequence of str
        Types to count.
    """
    bad = (flags & np.uint32(flag_bits(TYPE_FLAGS))) != 0
    out = []
    for name in types:
        bit = np.uint32(flag_value(name))
        if name == "ADJ_OPEN":
            at = (truth & bit) != 0
            hits = int(np.count_nonzero(flags[at] & bit)), int(np.count_nonzero(bad[at]))
            out.append(Found(name, None, "", "all", int(at.sum()), *hits))
            continue
        mine = defects[defects["type"] == name]
        any_flag = bad[mine["y"], mine["x"]]
        here = flags[mine["y"], mine["x"]] & bit != 0 if bit else ~any_flag
        for level, setting, keep in split(mine):
            counts = int(keep.sum()), int((here & keep).sum()), int((any_flag & keep).sum())
            out.append(Found(name, level, UNIT_OF[name], setting, *counts))
    return out


def split(mine: NDArray[Any]) -> Iterator[tuple[float | None, str, NDArray[np.bool_]]]:
    """Groups of the defects of one type: level, setting, and which belong to it."""
    placed = mine["setting"] != "natural"
    for level in np.unique(mine["level"][placed]):
        yield round(float(level), 4), "all", placed & (mine["level"] == level)
    for setting in np.unique(mine["setting"]):
        yield None, str(setting), mine["setting"] == setting
    if len(mine) and mine["type"][0] == "LOW_FILTER":
        for number in np.unique(mine["extra2"]):
            yield None, f"poor in {number:.0f}", mine["extra2"] == number
    if len(mine) and mine["type"][0] == "NOISY":
        yield None, LOUD, mine["extra1"] > NOISY_LIMIT
    yield None, "all", np.ones(len(mine), bool)


def count_claimed(flags: Flags, truth: Flags, types: Sequence[str]) -> list[Claimed]:
    """Purity and false positives per flag of these types, and of all of them together ("any").

    Parameters
    ----------
    flags, truth : uint32 array (ny, nx)
        Mask and truth in standard bits.
    types : sequence of str
        Types whose flags are counted.
    """
    science = (truth & np.uint32(dq.VALUE["REFERENCE_PIXEL"])) == 0
    good = science & (truth == 0)
    near = grow(science & ~good)
    names = list(dict.fromkeys(FLAG_OF[name] for name in types if FLAG_OF[name]))
    out = []
    for label, bits in [(name, dq.VALUE[name]) for name in names] + [("any", flag_bits(names))]:
        bit = np.uint32(bits)
        mine = science & (flags & bit != 0)
        right = mine & (truth & bit != 0)
        false = mine & good
        counts = [int(np.count_nonzero(m)) for m in (mine, right, mine & ~right & ~false, false, false & near, good)]
        out.append(Claimed(label, *counts))
    return out


@dataclass(frozen=True)
class InLight:
    """What was found, and flagged falsely, among pixels that get light of one kind."""

    light: str  # lit, dim, unlit
    type: str  # "any" for all together, with the false ones
    injected: int
    found: int
    flagged: int
    good: int
    false: int
    unusable: int  # of the false ones: with DO_NOT_USE


def count_light(
    flags: Flags, truth: Flags, defects: NDArray[Any], light: NDArray[np.uint8], types: Sequence[str]
) -> list[InLight]:
    """Completeness and false positives of lit, dim and unlit pixels.

    Parameters
    ----------
    flags, truth, defects, types
        As in :func:`count_found`.
    light : ndarray of uint8
        (ny, nx) states of :mod:`badpix.simulation.illumination`.
    """
    names = list(dict.fromkeys(FLAG_OF[name] for name in types))
    bad = (flags & np.uint32(flag_bits(names))) != 0
    unusable = bad & ((flags & np.uint32(dq.VALUE["DO_NOT_USE"])) != 0)
    good = (truth == 0) & (light > 0)
    out = []
    for state, word in STATES.items():
        here = good & (light == state)
        mine = defects[light[defects["y"], defects["x"]] == state]
        total = np.zeros(3, int)
        for name in types:
            some = mine[mine["type"] == name]
            at = some["y"], some["x"]
            right = int(np.count_nonzero(flags[at] & np.uint32(dq.VALUE[FLAG_OF[name]])))
            out.append(InLight(word, name, len(some), right, int(bad[at].sum()), 0, 0, 0))
            total += len(some), right, int(bad[at].sum())
        good_here, false, never = (int((part & here).sum()) for part in (good, bad, unusable))
        out.append(InLight(word, "any", int(total[0]), int(total[1]), int(total[2]), good_here, false, never))
    return [row for row in out if row.injected or row.good]


def add_light(many: Iterable[Sequence[InLight]]) -> list[InLight]:
    """Sum of the counts of several masks, by light and type."""
    total: dict[tuple[str, str], NDArray[np.int64]] = {}
    for rows in many:
        for r in rows:
            counts = np.array([r.injected, r.found, r.flagged, r.good, r.false, r.unusable])
            total[r.light, r.type] = total.get((r.light, r.type), np.zeros(6, np.int64)) + counts
    return [InLight(*key, *(int(c) for c in counts)) for key, counts in total.items()]


def light_row(r: InLight) -> dict[str, Any]:
    """Numbers of one row of the table by light."""
    low, high = clopper_pearson(r.false, r.good) if r.good else (0.0, 1.0)
    return {
        **asdict(r),
        "completeness": r.found / r.injected if r.injected else None,
        "interval": wilson(r.found, r.injected),
        "false_per_million": 1e6 * r.false / r.good if r.good else None,
        "false_per_million_interval": (1e6 * low, 1e6 * high),
    }


def flag_bits(names: Iterable[str]) -> int:
    """All bits of these flags."""
    return sum({dq.VALUE[name] for name in names})


def grow(bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A map with the 8 neighbors of every True pixel."""
    wide = bad.copy()
    wide[1:] |= bad[:-1]
    wide[:-1] |= bad[1:]
    out = wide.copy()
    out[:, 1:] |= wide[:, :-1]
    out[:, :-1] |= wide[:, 1:]
    return out


def add_found(many: Iterable[Sequence[Found]]) -> list[Found]:
    """Sum of the counts of several masks, by type, level and setting, in order of first appearance."""
    total: dict[tuple[str, float | None, str], Found] = {}
    for rows in many:
        for r in rows:
            key = (r.type, r.level, r.setting)
            old = total.get(key)
            counts = (r.injected, r.found, r.flagged)
            if old:
                counts = (old.injected + r.injected, old.found + r.found, old.flagged + r.flagged)
            total[key] = Found(r.type, r.level, r.unit, r.setting, *counts)
    return list(total.values())


def add_claimed(many: Iterable[Sequence[Claimed]]) -> list[Claimed]:
    """Sum of the counts of several masks, by flag."""
    total: dict[str, NDArray[np.int64]] = {}
    for rows in many:
        for r in rows:
            counts = np.array([r.set, r.right, r.other, r.false, r.near, r.good])
            total[r.flag] = total.get(r.flag, np.zeros(6, np.int64)) + counts
    return [Claimed(flag, *(int(c) for c in counts)) for flag, counts in total.items()]


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a fraction; (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    share, weight = successes / trials, z * z / trials
    center = (share + weight / 2) / (1 + weight)
    half = z * np.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return max(0.0, float(center - half)), min(1.0, float(center + half))


def clopper_pearson(successes: int, trials: int, outside: float = 0.05) -> tuple[float, float]:
    """The exact 95 % interval of a fraction; (0, 1) without trials."""
    from scipy.special import betaincinv

    low = float(betaincinv(successes, trials - successes + 1, outside / 2)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - outside / 2)) if successes < trials else 1.0
    return low, high


def found_row(r: Found) -> dict[str, Any]:
    """Numbers of one row of the completeness table; fractions with their intervals, None without defects."""
    share = r.found / r.injected if r.injected else None
    return {
        "type": r.type,
        "level": r.level,
        "unit": r.unit,
        "setting": r.setting,
        "injected": r.injected,
        "found": r.found,
        "flagged": r.flagged,
        "completeness": share,
        "interval": wilson(r.found, r.injected),
    }


def claimed_row(r: Claimed) -> dict[str, Any]:
    """Numbers of one row of the purity table; purity None where nothing was flagged."""
    low, high = clopper_pearson(r.false, r.good) if r.good else (0.0, 1.0)
    return {
        "flag": r.flag,
        "set": r.set,
        "right": r.right,
        "other_defect": r.other,
        "false": r.false,
        "false_beside_defect": r.near,
        "purity": r.right / r.set if r.set else None,
        "purity_interval": wilson(r.right, r.set),
        "good": r.good,
        "false_per_million": 1e6 * r.false / r.good if r.good else None,
        "false_per_million_interval": (1e6 * low, 1e6 * high),
    }


def known_conditions(search: str, masks: Sequence[tuple[Flags, Flags, NDArray[Any]]]) -> list[str]:
    """The types of conditions of the simulation that this search sees and that were put in."""
    return [name for name in OF_CONDITIONS[search] if any(name in defects["type"] for _, _, defects in masks)]


def score(
    masks: Sequence[tuple[Flags, Flags, NDArray[Any]]],
    search: str = "all",
    lights: Sequence[NDArray[np.uint8] | None] = (),
) -> Mapping[str, Any]:
    """Score of one or several masks together.

    Parameters
    ----------
    masks : sequence of (flags, truth, defects)
        Mask and truth as uint32 images in standard bits, and the table of defects.
    search : str
        "flats", "darks", "science" or "all": which types are counted.
    lights : sequence of ndarray
        What light each truth's pixels get, of those that tell it.

    Returns
    -------
    mapping
        ``masks`` (number), ``completeness``, ``flags`` and ``light``: lists of rows.
    """
    types = (*SEARCHES[search], *known_conditions(search, masks))
    found = add_found(count_found(flags, truth, defects, types) for flags, truth, defects in masks)
    claimed = add_claimed(count_claimed(flags, truth, types) for flags, truth, _ in masks)
    flat_types = [name for name in types if name in SEARCHES["flats"] and name != "ADJ_OPEN"]
    by_light = add_light(
        count_light(*mask, light, flat_types) for mask, light in zip(masks, lights, strict=False) if light is not None
    )
    return {
        "masks": len(masks),
        "search": search,
        "completeness": [found_row(r) for r in found],
        "flags": [claimed_row(r) for r in claimed],
        "light": [light_row(r) for r in by_light] if flat_types else [],
    }
