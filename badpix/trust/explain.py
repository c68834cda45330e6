"""Why a pixel is flagged, or why not: the evidence of a mask, put into words.

1. The flags are read from the mask, the quantities, limits and votes from the evidence beside it.
2. For each search: did it find the pixel (its map ``is_<search>``), and for each of its rules the value, the limit
   and whether the comparison holds. Rules with one ``way`` are joined by *and*, different ways by *or*.
3. Each flag gets a sentence: the search that set it and by which numbers; or where else it came from (reference
   border, manual list, another mask).
4. The worst pixels of a type are those whose deciding quantity lies farthest beyond its limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import dq, params
from badpix import evidence as evidence_files
from badpix.crds import Mask
from badpix.errors import DataError, UsageError
from badpix.evidence import COMPARISONS, Evidence, Rule, holds

# What a search of the darks looked at first, where the evidence lists no rule of it.
MAIN_QUANTITY = {
    "hot": "dark_rate",
    "warm": "dark_rate",
    "rc": "dark_rc",
    "telegraph": "dark_telegraph",
    "noisy": "dark_noise",
    "low_pedestal": "dark_pedestal",
}
WITHHELD, OTHERWISE = "_withheld", "_otherwise"  # endings of quantities that are a yes or no of further tests
WORDS = {"<": "below", "<=": "at or below", ">": "above", ">=": "at or above"}
SIDE_FLAGS = ("DO_NOT_USE", "REFERENCE_PIXEL", "NON_SCIENCE", "BAD_REF_PIXEL")


class Reading(NamedTuple):
    """One rule at one pixel."""

    rule: Rule
    value: float
    limit: float
    holds: bool


class Votes(NamedTuple):
    """Values of a quantity by integration, and how many pass the limit (None without one)."""

    quantity: str
    values: list[float]
    passed: int | None


@dataclass
class Search:
    """What one search says about a pixel; ``found`` is None where the evidence holds no map of it."""

    name: str
    flags: list[str]
    found: bool | None
    readings: list[Reading] = field(default_factory=list)
    votes: list[Votes] = field(default_factory=list)


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
            "x": self.x, "y": self.y, "value": self.value, "flags": self.flags, "sentences": self.sentences,
            "others": self.others,
            "searches": searches, "quantities": quantities,
        }  # fmt: skip


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


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


@contextmanager
def open_evidence(mask: Mask, path: str | Path | None = None) -> Iterator[tuple[Evidence | None, str]]:
    """The same, with images that are unpacked where they are indexed: for a few pixels (:func:`evidence.opened`)."""
    beside = None if mask.path is None else evidence_files.path_beside(mask.path)
    if path is None and (beside is None or not beside.is_file()):
        yield None, "no evidence beside the mask: make it with --evidence to see the numbers behind the flags"
        return
    place = Path(path if path is not None else beside)  # type: ignore[arg-type]
    with evidence_files.opened(place) as (found, header):
        for name, image in found.images.items():
            if tuple(image.shape) != mask.image.shape:
                raise DataError(f"{place}: image {name} has the shape {image.shape}, the mask {mask.image.shape}")
        same = mask.path is None or _dq_sum(mask.path) == str(header.get("MASKSUM", ""))
        yield (
            found,
            "" if same else f"{place.name} belongs to another version of this mask (its DQ has changed since)",
        )


def _dq_sum(path: Path) -> str:
    from badpix.crds import evidence_header

    try:
        return str(evidence_header(path)["MASKSUM"])
    except KeyError:
        return ""


def join_history(history: Sequence[str]) -> list[str]:
    """HISTORY cards put together again: a card that is full goes on in the next one."""
    lines: list[str] = []
    full = False
    for card in history:
        if full and lines:
            lines[-1] += card
        else:
            lines.append(card)
        full = len(card) >= 72
    return lines


def flags_of_search(mask: Mask, name: str) -> list[str]:
    """Flags that a search sets: by the mapping that the mask was made with (its HISTORY), else the default one."""
    own = [name.upper()] if name.upper() in dq.VALUE else []
    mapping = dict(params.section("darks")["flag_values"].default)
    for line in join_history(mask.history):
        found = re.search(r"darks\.flag_values = (.*?)(?: \[\w+\])?: ", line)
        if found:
            mapping |= {k.lower(): v.split(",") for k, _, v in (w.partition(":") for w in found[1].split()) if v}
    return [flag.upper() for flag in mapping.get(name.lower(), own)]


def explain(mask: Mask, evidence: Evidence | None, x: int, y: int) -> Explanation:
    """One pixel.

    Parameters
    ----------
    mask : Mask
        The mask.
    evidence : Evidence or None
        From :func:`read_evidence`.
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
    searches = [] if evidence is None else [
        _read_search(mask, evidence, name, row, column) for name in search_names(evidence)
    ]  # fmt: skip
    quantities = {} if evidence is None else {
        name: float(image[row, column]) for name, image in evidence.images.items() if not name.startswith("is_")
    }  # fmt: skip
    out = Explanation(x, y, value, dq.names(value), searches, [], quantities)
    reference = bool(mask.reference[row, column])
    out.sentences = _sentences(mask, out, reference, evidence is not None)
    if not reference:
        out.others = [_why_not(s, out) for s in searches if s.found is False and not set(s.flags) & set(out.flags)]
    return out


def search_names(evidence: Evidence) -> list[str]:
    """All searches that the evidence knows, by their rules and maps."""
    names = {r.search.lower(): r.search for r in evidence.rules}
    for image in evidence.images:
        if image.startswith("is_"):
            names.setdefault(image.removeprefix("is_"), image.removeprefix("is_"))
    return list(names.values())


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


# --- words -----------------------------------------------------------------------------------------------


def _sentences(mask: Mask, pixel: Explanation, reference: bool, known: bool) -> list[str]:
    out = []
    if not pixel.flags:
        out.append("Good: no flag.")
    for flag in pixel.flags:
        if flag not in SIDE_FLAGS:
            out.append(_why(mask, pixel, flag, known))
    if "REFERENCE_PIXEL" in pixel.flags or reference:
        out.append("A reference pixel: it sees no light and is not searched for defects.")
    if "BAD_REF_PIXEL" in pixel.flags:
        out.append("BAD_REF_PIXEL: it was given as a reference pixel that cannot be used.")
    if "NON_SCIENCE" in pixel.flags:
        out.append("NON_SCIENCE: it lies outside the science part of the detector.")
    if "DO_NOT_USE" in pixel.flags:
        reasons = [f for f in pixel.flags if f not in ("DO_NOT_USE", "REFERENCE_PIXEL")]
        out.append(
            f"DO_NOT_USE: set because of {', '.join(reasons)}." if reasons
            else "DO_NOT_USE: set without a flag that says why; by hand, or in a mask that was merged."
        )  # fmt: skip
    for search in pixel.searches:
        if search.found and search.flags and not set(search.flags) & set(pixel.flags):
            winner = "; HOT wins over DEAD" if search.name == "DEAD" and "HOT" in pixel.flags else ""
            out.append(f"The search {search.name} found it, but the mask does not carry its flag{winner}.")
    return [s for s in out if s]


def _why(mask: Mask, pixel: Explanation, flag: str, known: bool) -> str:
    meaning = lower_first(dq.BY_NAME[flag].description)
    by = [s for s in pixel.searches if flag in s.flags and s.found]
    if by:
        return f"{flag} ({meaning}): " + "; ".join(_reason(s, pixel.quantities) for s in by) + "."
    if not known:
        return f"{flag} ({meaning}): there is no evidence to say why."
    near = [s for s in pixel.searches if flag in s.flags and s.found is None and s.readings]
    if near:
        return f"{flag} ({meaning}): " + "; ".join(_reason(s, pixel.quantities) for s in near) + "."
    origin = "a manual list or a mask that was merged"
    if str(mask.header.get("BPFMANFL", "none")).lower() not in ("none", ""):
        origin = f"the manual list {Path(str(mask.header['BPFMANFL'])).name}, or a mask that was merged"
    return f"{flag} ({meaning}): no search found it; it comes from {origin}."


def lower_first(text: str) -> str:
    """A sentence's start inside a sentence; abbreviations stay as they are."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _reason(search: Search, quantities: Mapping[str, float]) -> str:
    """What a search found, with the numbers of a way all of whose rules hold."""
    start = f"found by the search {search.name}"
    votes = "".join(_vote_words(v) for v in search.votes)
    for way in _ways(search):
        if all(r.holds for r in way):
            return start + ", " + (_join(way) or "all its tests passed") + votes
    passed = [r for r in search.readings if r.holds]
    if _join(passed):
        return f"{start}, {_join(passed)}{votes}"
    if search.readings:
        return f"{start} by a test that the evidence does not list ({_join(search.readings)}){votes}"
    main = MAIN_QUANTITY.get(search.name, "")
    shown = f", {main.replace('_', ' ')} {quantities[main]:.4g}" if main in quantities else ""
    return start + shown + votes


def _ways(search: Search) -> list[list[Reading]]:
    """The rules of a search by their alternatives."""
    ways: dict[int, list[Reading]] = {}
    for reading in search.readings:
        ways.setdefault(reading.rule.way, []).append(reading)
    return list(ways.values())


def _join(readings: Sequence[Reading]) -> str:
    """Comparisons joined by *and*, each once; two limits of one quantity in one phrase."""
    phrases: dict[str, None] = {}
    for reading in readings:
        twin = _twin(reading, readings)
        text = _comparison(reading) if twin is None else _neither(reading, twin)
        if text and not (twin is not None and readings.index(twin) < readings.index(reading)):
            phrases[text] = None
    return " and ".join(phrases)


def _twin(reading: Reading, readings: Sequence[Reading]) -> Reading | None:
    """Another failed rule of the same quantity with the opposite comparison: a limit on the other side."""
    opposite = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}[reading.rule.comparison]
    for other in readings:
        same = other.rule.quantity == reading.rule.quantity and other.rule.comparison == opposite
        if same and not other.holds and not reading.holds and not math.isnan(reading.value):
            return other
    return None


def _neither(first: Reading, second: Reading) -> str:
    name, unit = first.rule.quantity.replace("_", " "), f" {first.rule.unit}" if first.rule.unit else ""
    limits = [f"{WORDS[r.rule.comparison]} {r.limit:.4g}" for r in (first, second)]
    return f"{name} {first.value:.4g} is neither {limits[0]} nor {limits[1]}{unit} ({first.rule.meaning})"


def _comparison(r: Reading) -> str:
    """One rule in words. Yes-or-no quantities speak only where they decide: ``withheld`` when it holds a flag
    back, ``otherwise`` when it gives one."""
    if r.rule.quantity.endswith(WITHHELD):
        return "" if r.holds else f"withheld ({r.rule.meaning})"
    if r.rule.quantity.endswith(OTHERWISE):
        return r.rule.meaning if r.holds else ""
    unit = f" {r.rule.unit}" if r.rule.unit else ""
    name = r.rule.quantity.replace("_", " ")
    if math.isnan(r.value):
        return f"{name} was not measured"
    word = WORDS[r.rule.comparison] if r.holds else f"not {WORDS[r.rule.comparison]}"
    return f"{name} {r.value:.4g} is {word} {r.limit:.4g}{unit} ({r.rule.meaning})"


def _vote_words(votes: Votes) -> str:
    if votes.passed is None:
        return ""
    return f", in {votes.passed} of {len(votes.values)} integrations"


def _why_not(search: Search, pixel: Explanation) -> str:
    """Why a search did not find the pixel."""
    label = search.name.upper() if search.name.upper() in dq.VALUE else search.name
    if not search.readings:
        main = MAIN_QUANTITY.get(search.name, "")
        value = pixel.quantities.get(main, math.nan)
        return f"Not {label}" + (f": {main.replace('_', ' ')} {value:.4g}." if not math.isnan(value) else ".")
    failed = [r for r in search.readings if not r.holds]
    if not failed:
        types = [f for f in pixel.flags if f not in SIDE_FLAGS]
        winner = f"{', '.join(types)} took precedence" if types else "another test speaks against it"
        return f"Not {label}, although its limits are passed: {winner}."
    return f"Not {label}: {_join(failed)}."


# --- choosing pixels -------------------------------------------------------------------------------------


def find_worst(mask: Mask, evidence: Evidence | None, flag: str, number: int) -> list[tuple[int, int]]:
    """The pixels with a flag that lie farthest beyond the limit, as (x, y) of the full frame.

    Without evidence (or without a rule for the flag) the first ones are given, row by row.

    Raises
    ------
    UsageError
        If the flag is unknown.
    """
    name = flag.strip().upper()
    if name not in dq.VALUE:
        raise UsageError(f"--flag: {flag!r} is unknown{dq.suggest(flag)}")
    y, x = np.nonzero((mask.image & np.uint32(dq.VALUE[name])) != 0)
    if evidence is not None and x.size:
        order = np.argsort(-_excess(mask, evidence, name)[y, x], kind="stable")
        y, x = y[order], x[order]
    x0, y0 = mask.window.xstart - 1, mask.window.ystart - 1
    return [(int(a) + x0, int(b) + y0) for a, b in zip(x[:number], y[:number], strict=True)]


def _excess(mask: Mask, evidence: Evidence, flag: str) -> NDArray[np.float64]:
    """How far each pixel lies beyond the limits of the searches of a flag, in units of the limit."""
    out = np.full(mask.image.shape, -np.inf)
    for rule in evidence.rules:
        limit_known = not isinstance(rule.limit, str) or rule.limit in evidence.images
        if flag not in flags_of_search(mask, rule.search) or rule.quantity not in evidence.images or not limit_known:
            continue
        limit = evidence.images[rule.limit][:, :] if isinstance(rule.limit, str) else rule.limit
        values = evidence.images[rule.quantity][:, :].astype(np.float64)
        sign = 1.0 if rule.comparison.startswith(">") else -1.0
        scale = np.where(np.abs(limit) > 0, np.abs(limit), 1.0)
        out = np.fmax(out, sign * (values - limit) / scale)
    for search, quantity in MAIN_QUANTITY.items():
        ruled = any(r.search == search for r in evidence.rules)
        if not ruled and quantity in evidence.images and flag in flags_of_search(mask, search):
            values = np.abs(evidence.images[quantity][:, :].astype(np.float64))
            out = np.fmax(out, values)
    return out


def parse_pixels(words: Sequence[str], one_based: bool = False) -> list[tuple[int, int]]:
    """Pixels from ``X Y [X Y ...]``, ``X,Y`` or ``@file`` (two columns, more are ignored).

    Raises
    ------
    UsageError
        If they are no pairs of whole numbers.
    """
    numbers: list[str] = []
    for word in words:
        if word.startswith("@"):
            numbers += _pixel_file(Path(word[1:]))
        else:
            numbers += word.replace(",", " ").split()
    try:
        values = [int(n) - int(one_based) for n in numbers]
    except ValueError:
        raise UsageError(f"pixels: found {' '.join(words)!r}, expected X Y, X,Y or @list") from None
    if len(values) % 2:
        raise UsageError(f"pixels: {len(values)} numbers, expected pairs X Y")
    return list(zip(values[::2], values[1::2], strict=True))


def _pixel_file(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"@{path}: list of pixels can't be read: {error}") from None
    rows = [line.split("#")[0].replace(",", " ").split() for line in lines]
    return [n for row in rows if len(row) >= 2 and row[0].lower() != "x" for n in row[:2]]


def summarise(items: Sequence[Explanation], notes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON form of several pixels."""
    return {"pixels": [item.summary() for item in items], **(notes or {})}
