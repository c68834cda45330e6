"""Flats in the light of several filters, gratings or lamps: each set searched apart, and what they say joined.

1. *Sets*: exposures whose FILTER, PUPIL, GRATING, LAMP and BAND agree; a keyword that one lacks tells nothing.
2. Each set is searched by itself (:mod:`badpix.flats.search`), with its own light, coupling and errors.
3. *State*: a pixel that any set could judge is judged; of the others the reason that comes closest counts (dim before
   unlit before saturated before no slope).
4. *Type*: of the sets in which a pixel is low, the one whose normalized rate has the smallest error decides. A pixel
   that is low in some sets and good in another is LOW_QE whatever they say: it works, in some light.
5. ADJ_OPEN are the neighbors of what is OPEN then.
6. *Evidence*: the images of the set that decided; of a pixel that is good everywhere those of the set with its lowest
   rate. Of low pixels the rates in all sets are kept (``set_<name>``).

One set is in memory at a time, with one copy of its images for what was joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError, UsageError
from badpix.flats import judged
from badpix.flats import search as flats_search
from badpix.flats.areas import Area, overlap, tell_areas
from badpix.io.depths import Alarm, Depth
from badpix.io.evidence import Detection, Sparse
from badpix.io.exposure import Exposure
from badpix.io.spill import DiskImage
from badpix.io.tasks import Progress, silent
from badpix.mask.depth import describe
from badpix.numerics import neighbors
from badpix.numerics.clipping import median_mad
from badpix.settings.flats import FlatSettings

OPTICS = ("FILTER", "PUPIL", "GRATING", "LAMP", "BAND")  # keywords of the light that flats of one set share
LOW_TYPES = ("DEAD", "LOW_QE", "OPEN")  # codes 1, 2, 3
LOW_QE = 1 + LOW_TYPES.index("LOW_QE")
RATE_IN_SET = "set_"  # images: normalized rate of low pixels in one set
RANKS = (judged.LIT, judged.DIM, judged.UNLIT, judged.SATURATED, judged.NO_SLOPE)  # the first that a set gives counts
RANK_OF = np.array([RANKS.index(s) if s in RANKS else len(RANKS) for s in range(1 + max(RANKS))], np.uint8)
STATE_OF = np.array([*RANKS, judged.REFERENCE], np.uint8)

Bool = NDArray[np.bool_]


class FlatSet(NamedTuple):
    """Flats in one light: its name, slope images, raw ones."""

    name: str
    rates: list[Exposure]
    uncals: list[Exposure]


# --- 1: sets ---------------------------------------------------------------------------------------------


def find_sets(rates: Sequence[Exposure], uncals: Sequence[Exposure] = ()) -> list[FlatSet]:
    """The sets of flats that saw the same light, in order of their first file.

    Parameters
    ----------
    rates, uncals : sequence of Exposure
        Slope images, and raw flats for the flux check.
    """
    sets: list[tuple[dict[str, Any], list[Exposure]]] = []
    for rate in rates:
        own = read_optics(rate)
        for known, members in sets:
            if agrees(own, known):
                known |= own
                members.append(rate)
                break
        else:
            sets.append((own, [rate]))
    told = [key for key in OPTICS if len({known.get(key) for known, _ in sets}) > 1]
    return [
        FlatSet(
            "/".join(str(known[key]) for key in told if key in known) or "all",
            members,
            [raw for raw in uncals if agrees(read_optics(raw), known)],
        )
        for known, members in sets
    ]


def read_optics(exposure: Exposure) -> dict[str, Any]:
    """The keywords of the light that an exposure has."""
    found = {key: exposure.header.get(key) for key in OPTICS}
    return {key: value for key, value in found.items() if value is not None}


def agrees(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether no keyword that both have differs."""
    return all(other.get(key, value) == value for key, value in one.items())


# --- 2: search -------------------------------------------------------------------------------------------


def search(
    sets: Sequence[FlatSet],
    p: FlatSettings,
    *,
    reference: Bool,
    executor: Executor | None = None,
    memory: float = 32e6,
    progress: Progress = silent,
    skip_bad: bool = False,
) -> Detection:
    """Search all sets, and join what they say; one set alone is searched as ever.

    Parameters
    ----------
    sets : sequence of FlatSet
        From :func:`find_sets`.
    p, reference, executor, memory, progress
        See :func:`badpix.flats.search.search`.
    skip_bad : bool
        Leave out files, and sets that can't be searched, with a note.

    Raises
    ------
    DataError
        If a set can't be searched; with ``skip_bad`` if none can.
    UsageError
        If the parameters give each set a limit of its own.
    """
    options: dict[str, Any] = {"reference": reference, "executor": executor, "memory": memory, "skip_bad": skip_bad}
    if len(sets) == 1:
        return flats_search.search(sets[0].rates, p, uncals=sets[0].uncals, progress=progress, **options)
    if p.dead_definition == "search_type" and p.dead_search_type == "sigma_rate":
        raise UsageError(
            "flats.dead_definition: search_type has another limit in each set of flats; give response, or "
            "mixed_optics: mix"
        )
    joined, failed = Joined(p, ~reference), []
    for number, one in enumerate(sets):

        def tell(done: int, total: int, number: int = number) -> None:
            progress(number * total + done, len(sets) * total)

        try:
            found, error = flats_search.search_with_error(one.rates, p, uncals=one.uncals, progress=tell, **options)
        except DataError as problem:
            if not skip_bad:
                raise DataError(f"{one.name}: {problem}") from None
            failed.append(f"left out: {one.name}: {problem}")
            continue
        joined.add(one, found, error)
    if not joined.told:
        raise DataError("; ".join(failed))
    out = joined.finish()
    out.notes[:0] = failed
    return out


# --- 3 to 6: joining -------------------------------------------------------------------------------------


class Joined:
    """What several sets say of each pixel, taken in one after the other.

    Parameters
    ----------
    p : FlatSettings
        Parameters of the searches.
    science : ndarray of bool
        (ny, nx) science pixels.
    """

    def __init__(self, p: FlatSettings, science: Bool) -> None:
        self.p, self.science = p, science
        self.code = np.zeros(science.shape, np.uint8)  # of the set that decides
        self.error = np.full(science.shape, np.inf, np.float32)  # its error
        self.good = np.zeros(science.shape, bool)  # judged, and not low, in some set
        self.rank = np.full(science.shape, len(RANKS), np.uint8)
        self.found = Detection({})
        self.rates: list[tuple[str, DiskImage]] = []
        self.told: list[tuple[str, list[str]]] = []

    def add(self, one: FlatSet, found: Detection, error: NDArray[np.floating[Any]] | None) -> None:
        """Take in a set, whose detection is used up; ``error`` (ny, nx) of its normalized rates, None where all
        have the same one."""
        images = found.evidence.images
        self._say(one, found)
        whole = median_mad(images["flat_norm"])[1] if error is None else error
        lit, code = images["flat_state"] == judged.LIT, code_types(found.maps, self.code.shape)
        error = np.where(lit & np.isfinite(whole), whole, np.inf).astype(np.float32)
        if self.told[1:]:
            with np.errstate(invalid="ignore"):
                lowest = ~self.good | (images["flat_norm"] < self.found.evidence.images["flat_norm"])
            decides = np.where(code > 0, (self.code == 0) | (error < self.error), (self.code == 0) & lit & lowest)
        else:
            decides = np.ones(code.shape, bool)
        self.code[decides], self.error[decides] = code[decides], error[decides]
        self.good |= lit & (code == 0)
        self.rank = np.minimum(self.rank, RANK_OF[images["flat_state"]])
        self.rates.append((one.name, DiskImage((len(code), code.shape[1]))))
        self.rates[-1][1].write_rows(0, images["flat_norm"])
        for name in list(images):
            new, old = images.pop(name), self.found.evidence.images
            if name in old:
                np.copyto(old[name], new, where=decides)
            else:
                old[name] = new
        for name, flagged in found.maps.items():
            self.found.maps[name] = self.found.maps.get(name, False) | flagged

    def _say(self, one: FlatSet, found: Detection) -> None:
        """Counts, notes, areas, rules and depth of a set."""
        counts = judged.count_states(found.evidence.images["flat_state"])
        types = {name: int(flagged.sum()) for name, flagged in found.maps.items()}
        row = {"name": one.name, "flats": len(one.rates), "judged": counts, "searches": types}
        self.found.sets.append(row)
        ours, theirs = self.found.evidence, found.evidence
        told = {*describe(theirs.depth, theirs.alarms), *tell_areas([area_of(area) for area in found.areas])}
        self.told.append((one.name, [note for note in found.notes if note not in told]))
        self.found.areas = join_areas([*self.found.areas, *({**area, "set": one.name} for area in found.areas)])
        if len(self.told) == 1:
            ours.rules, ours.depth, ours.alarms = theirs.rules, theirs.depth, theirs.alarms
            return
        both = zip(ours.depth, theirs.depth, strict=True)
        ours.depth = [Depth(*a[:3], *(m + n for m, n in zip(a[3:], b[3:], strict=True))) for a, b in both]
        alarms = zip(ours.alarms, theirs.alarms, strict=True)
        ours.alarms = [Alarm(*a[:2], a.pixels + b.pixels, a.flagged + b.flagged) for a, b in alarms]

    def finish(self) -> Detection:
        """Maps, evidence and notes of all sets together."""
        found, images = self.found, self.found.evidence.images
        partly = (self.code > 0) & self.good
        if self.p.exclusive_types:
            wanted = list(found.maps)
            self.code[partly] = LOW_QE
            maps = {name: self.code == 1 + k for k, name in enumerate(LOW_TYPES)}
            maps["ADJ_OPEN"] = neighbors.grow(maps["OPEN"]) & (self.code == 0) & self.science
            found.maps = {name: maps[name] for name in wanted}
            images["open_near"] = neighbors.grow(maps["OPEN"])
        images["flat_state"] = STATE_OF[self.rank]
        low = np.flatnonzero(self.code)
        for name, rates in self.rates:
            values = np.asarray(rates).flat[low]
            images[RATE_IN_SET + name.lower()] = Sparse(low, values, rates.shape, np.float32(np.nan))
        found.notes = [
            self._headline(int(partly.sum())),
            *join_notes(self.told),
            *tell_areas([area_of(area) for area in found.areas]),
        ]
        found.notes += describe(found.evidence.depth, found.evidence.alarms)
        return found

    def _headline(self, partly: int) -> str:
        told = ", ".join(
            f"{s['name']} ({s['flats']} flats, judged {judged.judged_percent(s['judged']):.4g} %)"
            for s in self.found.sets
        )
        return (
            f"{len(self.found.sets)} sets of flats, searched apart and joined: {told}; {partly:,} pixels are poor in "
            "some of the sets that judge them and good in others (LOW_QE)"
        )


def code_types(maps: dict[str, Bool], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Number of the low type of each pixel: 0 none, 1 DEAD, 2 LOW_QE, 3 OPEN."""
    code = np.zeros(shape, np.uint8)
    for number, name in reversed(list(enumerate(LOW_TYPES, 1))):
        if name in maps:
            code[maps[name]] = number
    return code


def join_areas(areas: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Areas of several sets, by size: of those of one kind whose outlines overlap the largest."""
    kept: list[dict[str, Any]] = []
    for area in sorted(areas, key=lambda a: -a["pixels"]):
        if not any(area["kind"] == k["kind"] and overlap(area_of(area), area_of(k)) for k in kept):
            kept.append(area)
    return kept


def area_of(row: dict[str, Any]) -> Area:
    """An area as it was before it became a row of the summary."""
    return Area(**{name: row[name] for name in Area._fields})


def join_notes(told: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Notes of several sets: what all of them say once, the rest with the name of its set."""
    common = [note for note in told[0][1] if all(note in notes for _, notes in told)]
    return common + [f"{name}: {note}" for name, notes in told for note in notes if note not in common]
