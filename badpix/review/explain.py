"""Why a pixel is flagged, or why not: the evidence of a mask, put into words.

1. The flags are read from the mask, the quantities, limits and votes from the evidence beside it
   (:mod:`badpix.review.readings`).
2. Each flag gets a sentence: the search that set it and by which numbers (:mod:`badpix.review.words`); or where
   else it came from (reference border, manual list, another mask).
3. So does each search that did not find the pixel; those that could not measure it are named together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from badpix import dq
from badpix.errors import UsageError
from badpix.flats.judged import NO_SLOPE, REASONS
from badpix.io.evidence import Evidence, Source
from badpix.io.html import as_table
from badpix.mask import origins, update
from badpix.mask.file import Mask
from badpix.mask.history import find_kind
from badpix.mask.update import State
from badpix.review import words
from badpix.review.history import DECAYS, tell_science, tell_series
from badpix.review.readings import Search, is_undetermined, manual_lists, read_quantities, read_searches

SIDE_FLAGS = ("DO_NOT_USE", "REFERENCE_PIXEL", "NON_SCIENCE", "BAD_REF_PIXEL")


@dataclass
class Explanation:
    """A pixel, explained. ``x``, ``y`` are 0-based, of the full frame.

    ``sentences`` say why it has its flags, ``others`` why the other searches did not find it.
    """

    x: int
    y: int
    value: int
    flags: list[str]
    searches: list[Search]
    sentences: list[str]
    quantities: dict[str, float]
    others: list[str] = field(default_factory=list)
    origins: dict[str, list[tuple[Source, int]]] = field(default_factory=dict)
    updates: dict[str, State] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its flags; *good* where it has none, *unknown* where nobody could tell."""
        return " ".join(self.flags) or ("unknown" if _unknown(self) else "good")

    def summary(self) -> dict[str, Any]:
        """The JSON form."""
        searches = [
            {
                "search": s.name,
                "flags": s.flags,
                "found": s.found,
                "rules": [
                    {**r.rule._asdict(), "value": _number(r.value), "limit_here": _number(r.limit), "holds": r.holds}
                    for r in s.readings
                ],
                "votes": [{**v._asdict(), "values": [_number(x) for x in v.values]} for v in s.votes],
            }
            for s in self.searches
        ]
        quantities = {k: _number(v) for k, v in self.quantities.items()}
        return {
            "x": self.x,
            "y": self.y,
            "value": self.value,
            "flags": self.flags,
            "sentences": self.sentences,
            "others": self.others,
            "searches": searches,
            "quantities": quantities,
            "origins": {
                flag: [{**s._asdict(), "line": line or None} for s, line in found]
                for flag, found in self.origins.items()
            },
            "update": {flag: update.WORDS[state] for flag, state in self.updates.items()},
        }

    def _repr_html_(self) -> str:
        others = [] if self.flags else self.others
        return as_table(f"({self.x}, {self.y})  {self.title}", (), [], [*self.sentences, *others])


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def explain(mask: Mask, evidence: Evidence | None, x: int, y: int) -> Explanation:
    """One pixel.

    Parameters
    ----------
    mask : Mask
        The mask.
    evidence : Evidence or None
        From :func:`badpix.review.readings.read_evidence`.
    x, y : int
        0-based, full frame.

    Raises
    ------
    UsageError
        If the pixel lies outside the mask.
    """
    column, row = x - (mask.window.xstart - 1), y - (mask.window.ystart - 1)
    ny, nx = mask.image.shape
    if not (0 <= column < nx and 0 <= row < ny):
        first = f"({mask.window.xstart - 1}, {mask.window.ystart - 1})"
        last = f"({mask.window.xstart + nx - 2}, {mask.window.ystart + ny - 2})"
        raise UsageError(f"pixel ({x}, {y}) lies outside the mask: x, y from {first} to {last}, counted from 0")
    value = int(mask.image[row, column])
    searches = [] if evidence is None else read_searches(mask, evidence, row, column)
    quantities = {} if evidence is None else read_quantities(evidence, row, column)
    out = Explanation(x, y, value, dq.names(value), searches, [], quantities)
    if evidence is not None:
        out.origins = {flag: origins.find_origins(evidence, row, column, flag) for flag in out.flags}
        out.updates = _read_updates(evidence, row, column)
    reference = bool(mask.reference[row, column])
    out.sentences = _sentences(mask, out, reference, evidence is not None)
    if not reference:
        out.others = _why_not(out)
        if evidence is not None:
            out.sentences += tell_series(evidence, quantities, column, row)
            out.sentences += tell_science(evidence, quantities, column, row)
    return out


def _sentences(mask: Mask, pixel: Explanation, reference: bool, known: bool) -> list[str]:
    out = []
    if not pixel.flags:
        unknown = _unknown(pixel)
        out.append(f"No flag, but nobody knows whether it is good: {unknown}." if unknown else "Good: no flag.")
    for flag in pixel.flags:
        if flag not in SIDE_FLAGS:
            out.append(_why(mask, pixel, flag, known))
    out.append(words.tell_sets(pixel.quantities, _low_limit(pixel)))
    if "RC" in pixel.flags:
        out.append(words.settles(pixel.quantities))
    if "TELEGRAPH" in pixel.flags:
        out.append(words.levels(pixel.quantities))
    if "REFERENCE_PIXEL" in pixel.flags or reference:
        out.append("A reference pixel: it sees no light and is not searched for defects.")
    if "BAD_REF_PIXEL" in pixel.flags:
        out.append("BAD_REF_PIXEL: it was given as a reference pixel that cannot be used.")
    if "NON_SCIENCE" in pixel.flags:
        out.append("NON_SCIENCE: it lies outside the science part of the detector.")
    if "DO_NOT_USE" in pixel.flags:
        reasons = [f for f in pixel.flags if f not in ("DO_NOT_USE", "REFERENCE_PIXEL")]
        out.append(
            f"DO_NOT_USE: set because of {', '.join(reasons)}."
            if reasons
            else "DO_NOT_USE: set without a flag that says why; by hand, or in a mask that was merged."
        )
    for search in pixel.searches:
        if search.found and search.flags and not set(search.flags) & set(pixel.flags):
            winner = "; HOT wins over DEAD" if search.name == "DEAD" and "HOT" in pixel.flags else ""
            out.append(f"The search {search.name} found it, but the mask does not carry its flag{winner}.")
    return [s for s in out + _say_gone(pixel) if s]


def _read_updates(evidence: Evidence, row: int, column: int) -> dict[str, State]:
    """What became of each flag of a pixel when an older mask was brought up to date."""
    states = {}
    for name, image in evidence.images.items():
        if name.startswith("update_") and int(image[row, column]):
            states[name.removeprefix("update_").upper()] = State(int(image[row, column]))
    return states


def _why(mask: Mask, pixel: Explanation, flag: str, known: bool) -> str:
    """The reason of one flag: what its search measured, and where it comes from."""
    start = f"{flag} ({words.lower_first(dq.BY_NAME[flag].description)}): "
    by = [s for s in pixel.searches if flag in s.flags and s.found]
    sources = pixel.origins.get(flag, [])
    if by:
        reasons = "; ".join(words.reason(s, pixel.quantities) for s in by)
        told = words.say_origins([s for s in sources if len(sources) > 1 or s[0].kind not in ("mask", "plain")])
        return start + reasons + (f"; from {told}" if told else "") + _say_update(pixel, flag) + "."
    if sources:
        return start + f"from {words.say_origins(sources)}" + _say_update(pixel, flag) + "."
    if not known:
        return start + "there is no evidence to say why."
    near = [s for s in pixel.searches if flag in s.flags and s.found is None and s.readings]
    if near:
        return start + "; ".join(words.reason(s, pixel.quantities) for s in near) + "."
    lists = ", ".join(manual_lists(mask))
    if lists and find_kind(mask) == "flats":
        return start + f"no search found it; it comes from the manual list {lists}."
    origin = (
        f"the manual list {lists}, or a mask that was merged"
        if lists
        else ("a manual list or a mask that was merged")
    )
    return start + f"no search found it; it comes from {origin}."


def _say_update(pixel: Explanation, flag: str) -> str:
    """Whether an update confirmed the flag, or why it kept it."""
    state = pixel.updates.get(flag)
    if state is None or state in (State.NEW, State.RECOVERED, State.RETYPED):
        return ", new in this update" if state == State.NEW else ""
    if state == State.CONFIRMED:
        return ", confirmed in this update"
    return f"; kept in this update: {update.WORDS[state]}"


def _say_gone(pixel: Explanation) -> list[str]:
    """Flags that an update took off."""
    gone = {
        State.RECOVERED: "recovered: the older mask had it, the new exposures measured a good pixel",
        State.RETYPED: "taken off: the pixel is of another type now",
    }
    return [
        f"{flag}: {gone[state]}."
        for flag, state in pixel.updates.items()
        if state in gone and flag not in pixel.flags
    ]


def _low_limit(pixel: Explanation) -> float:
    """The normalized rate below which flats call a pixel poor."""
    rates = [r.limit for s in pixel.searches for r in s.readings if r.rule.quantity == "flat_norm"]
    return max(rates, default=0.0)


def _unknown(pixel: Explanation) -> str:
    """Why nothing can be said of a pixel without flags; empty where all was measured."""
    reasons = []
    if pixel.quantities.get(DECAYS, 0) > 0:
        reasons.append("the charge of an earlier exposure decays in its darks (persistence)")
    elif is_undetermined(pixel.quantities):
        reasons.append("the darks have too few usable groups or integrations of it")
    elif "dark_noise" not in pixel.quantities and pixel.quantities.get("science_undetermined", 0) > 0:
        reasons.append("too few pointings of the science exposures saw it")
    elif "dark_noise" not in pixel.quantities and pixel.quantities.get("science_decaying", 0) > 0:
        reasons.append("the charge of an earlier exposure decays in its science exposures (persistence)")
    if math.isnan(pixel.quantities.get("flat_norm", 0.0)):
        state = int(pixel.quantities.get("flat_state", NO_SLOPE))
        reasons.append(REASONS.get(state, REASONS[NO_SLOPE]))
    return ", and ".join(reasons)


def _why_not(pixel: Explanation) -> list[str]:
    """Why the other searches did not find it; those that could not measure it in one sentence."""
    types = [f for f in pixel.flags if f not in SIDE_FLAGS]
    silent = [s for s in pixel.searches if s.found is False and not set(s.flags) & set(pixel.flags)]
    out = [words.why_not(s, types, pixel.quantities) for s in silent if words.is_measured(s, pixel.quantities)]
    blind = [words.label(s) for s in silent if not words.is_measured(s, pixel.quantities)]
    return [*out, f"Not measured: {', '.join(blind)}."] if blind else out


def summarize(items: Sequence[Explanation], notes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON form of several pixels."""
    return {"pixels": [item.summary() for item in items], **(notes or {})}
