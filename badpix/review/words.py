"""The evidence of a pixel in words.

1. A search that found the pixel: the rules of a way all of which hold, with the votes of their quantities.
2. A search that did not: of each way the first rule that fails. Where only a further test speaks against it, the
   rules that are passed, and that test.
3. A value that the darks keep of candidates alone is no missing value: the pixel lay clearly below the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from badpix import dq
from badpix.io.evidence import Rule, Source
from badpix.review.readings import (
    CANDIDATES_ONLY,
    CORRECTED,
    MAIN_QUANTITY,
    OTHERWISE,
    WITHHELD,
    Reading,
    Search,
    Votes,
    is_candidate,
)

COMPARED = {"<": "below", "<=": "at or below", ">": "above", ">=": "at or above"}
COUNTED = {"<": "fewer than", "<=": "at most", ">": "more than", ">=": "at least"}
NEGATED = {"<": ">=", ">": "<=", "<=": ">", ">=": "<"}
OPPOSITE = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
YES_NO = {
    "open_near": ("touches an OPEN pixel", "touches no OPEN pixel"),
    "dark_born": ("became hot within the darks", "did not become hot within the darks"),
}
SET = "set_"  # beginning of quantities that are rates in one set of flats
COUNTS = "votes_"  # beginning of quantities that count integrations


def label(search: Search) -> str:
    """Name of a search, as its flag where it is one."""
    return search.name.upper() if search.name.upper() in dq.VALUE else search.name


def lower_first(text: str) -> str:
    """A sentence's start inside a sentence; abbreviations stay as they are."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


# --- found -----------------------------------------------------------------------------------------------


def reason(search: Search, quantities: Mapping[str, float]) -> str:
    """What a search found, with the numbers of a way all of whose rules hold."""
    start = f"found by the search {search.name}"
    for way in search.ways:
        if all(r.holds for r in way):
            return f"{start}, {join(way, search.votes) or 'all its tests passed'}{count_votes(way, search.votes)}"
    passed = [r for r in search.readings if r.holds]
    if join(passed):
        return f"{start}, {join(passed, search.votes)}{count_votes(passed, search.votes)}"
    if search.readings:
        return f"{start} by a test that the evidence does not list ({join(search.readings)})"
    main = MAIN_QUANTITY.get(search.name, "")
    return start + (f", {spell(main)} {quantities[main]:.4g}" if main in quantities else "")


KINDS = {
    "flats": "the flats of",
    "darks": "the darks of",
    "science": "the science exposures of",
    "manual": "the manual list",
    "plain": "the map",
    "mask": "the mask",
}


def say_origins(sources: Sequence[tuple[Source, int]]) -> str:
    """Where a flag comes from: files, lists with the line, the older mask that brought it here."""
    told = []
    for source, line in sources:
        text = f"{KINDS.get(source.kind, source.kind)} {source.name}"
        text += f", line {line}" if line else ""
        text += f" (USEAFTER {source.date})" if source.date and source.kind != "manual" else ""
        told.append(text + (f" by way of {source.via}" if source.via and source.via != source.name else ""))
    return " and ".join(told)


def count_votes(told: Sequence[Reading], votes: Sequence[Votes]) -> str:
    """In how many integrations the quantities that were told pass their limits."""
    names = {r.rule.quantity for r in told}
    counts = [
        f", in {v.passed} of {len(v.values)} integrations"
        for v in votes
        if v.passed is not None and v.quantity in names
    ]
    return "".join(counts)


def levels(quantities: Mapping[str, float]) -> str:
    """The two levels of a pixel that switches; empty where they were not measured."""
    names = ("telegraph_separation", "telegraph_dwell_low", "telegraph_dwell_high")
    apart, low, high = (quantities.get(name, math.nan) for name in names)
    if math.isnan(apart + low + high):
        return ""
    return (
        f"Its levels are {apart:.3g} DN apart; it stays {low:.2g} groups in the lower, {high:.2g} in the upper one."
    )


def settles(quantities: Mapping[str, float]) -> str:
    """In which part of the integrations a pixel settles alike; empty where it does in all or in none of them."""
    part = quantities.get("dark_settled", math.nan)
    return f"It settles alike in {100 * part:.0f} % of the integrations." if 0 < part < 1 else ""


def tell_sets(quantities: Mapping[str, float], low: float) -> str:
    """In which sets of flats (filters, gratings, lamps) a pixel is poor, and in which it is good.

    ``quantities``: with ``set_<name>``, its normalized rate in each set, NaN where that could not judge it; ``low``
    the rate below which it is poor. Empty where the sets were not told apart, or the pixel is good in all.
    """
    rates = {k.removeprefix(SET).upper(): v for k, v in quantities.items() if k.startswith(SET)}
    poor = [f"{name} ({v:.3g} of the light)" for name, v in rates.items() if v < low]
    good = [f"{name} ({v:.3g})" for name, v in rates.items() if v >= low]
    blind = [name for name, v in rates.items() if math.isnan(v)]
    if not poor:
        return ""
    parts = [("poor in", poor), ("good in", good), ("not judged in", blind)]
    return "In sets of flats: " + "; ".join(f"{word} {', '.join(names)}" for word, names in parts if names) + "."


# --- not found -------------------------------------------------------------------------------------------


def why_not(search: Search, flags: Sequence[str], quantities: Mapping[str, float]) -> str:
    """Why a search did not find the pixel; ``flags`` are those that it has because of other searches."""
    start = f"Not {label(search)}"
    if not search.readings:
        main = MAIN_QUANTITY.get(search.name, "")
        value = quantities.get(main, math.nan)
        return start + (f": {spell(main)} {value:.4g}." if not math.isnan(value) else ".")
    if all(r.holds for r in search.readings):
        winner = f"{', '.join(flags)} took precedence" if flags else "another test speaks against it"
        return f"{start}, although its limits are passed: {winner}."
    deciding = [r for way in search.ways for r in _deciding(way)]
    parts = [join([r for r in deciding if not r.withholds and not _is_unknown(r)], search.votes)]
    parts += [_unknown(r, quantities) for r in deciding if _is_unknown(r)]
    parts += [_withheld(way, search.votes) for way in search.ways]
    told = [p for p in dict.fromkeys(parts) if p]
    return f"{start}: {'; '.join(told)}." if told else f"{start}."


def is_measured(search: Search, quantities: Mapping[str, float]) -> bool:
    """Whether the evidence tells why a search did not find the pixel: False where it was just not measured."""
    deciding = [r for way in search.ways for r in _deciding(way)]
    hidden = () if is_candidate(quantities) else CANDIDATES_ONLY
    telling = [r for r in deciding if r.holds or not r.rule.quantity.endswith(OTHERWISE)]
    return not deciding or any(not _is_unknown(r) or r.rule.quantity in hidden for r in telling)


def _deciding(way: Sequence[Reading]) -> list[Reading]:
    """What speaks against a way: its first rule that was measured and fails, else a further test that withholds."""
    failed = [r for r in way if not r.holds]
    measured = [r for r in failed if not r.withholds and not _is_unknown(r)]
    unknown = [r for r in failed if _is_unknown(r)]
    return measured[:1] or unknown[:1] or failed[:1]


def _is_unknown(r: Reading) -> bool:
    return math.isnan(r.value)


def _unknown(r: Reading, quantities: Mapping[str, float]) -> str:
    """A value that is not there: below the cuts of all searches, or not measured."""
    name = spell(r.rule.quantity)
    if r.rule.quantity in CANDIDATES_ONLY and not is_candidate(quantities):
        return f"{name} is clearly {COMPARED[OPPOSITE[r.rule.comparison]]} {limit(r)} ({r.rule.meaning})"
    return f"{name} was not measured"


def _withheld(way: Sequence[Reading], votes: Sequence[Votes]) -> str:
    """A way all of whose limits are passed, and the further test that keeps the flag back."""
    against = [r for r in way if not r.holds]
    if not against or not all(r.withholds for r in against):
        return ""
    passed = join([r for r in way if r.holds], votes)
    return (f"{passed}, but " if passed else "") + f"withheld ({against[0].rule.meaning})"


# --- rules -----------------------------------------------------------------------------------------------


def join(readings: Sequence[Reading], votes: Sequence[Votes] = ()) -> str:
    """Comparisons joined by *and*, each once; two limits of one quantity in one phrase."""
    phrases: dict[str, None] = {}
    for reading in readings:
        twin = _twin(reading, readings)
        text = compare(reading, votes) if twin is None else _neither(reading, twin)
        if text and not (twin is not None and readings.index(twin) < readings.index(reading)):
            phrases[text] = None
    return " and ".join(phrases)


def compare(r: Reading, votes: Sequence[Votes] = ()) -> str:
    """One rule in words. Yes-or-no quantities speak only where they decide: ``withheld`` when it holds a flag
    back, ``otherwise`` when it gives one."""
    quantity = r.rule.quantity
    if quantity.endswith(WITHHELD):
        return f"withheld ({r.rule.meaning})" if r.withholds else ""
    if quantity.endswith(OTHERWISE):
        return r.rule.meaning if r.holds else ""
    if math.isnan(r.value):
        return f"{spell(quantity)} was not measured"
    if quantity.startswith(COUNTS):
        counted = COUNTED[r.rule.comparison if r.holds else NEGATED[r.rule.comparison]]
        return f"{r.rule.meaning} in {r.value:.0f} integrations, {counted} {r.limit:.4g}"
    if quantity in YES_NO:
        return YES_NO[quantity][not r.holds]
    word = COMPARED[r.rule.comparison] if r.holds else f"not {COMPARED[r.rule.comparison]}"
    leaked = _before_correction(r, votes)
    return f"{spell(quantity)} {r.value:.4g} is {word} {limit(r)} ({r.rule.meaning}{leaked})"


def _before_correction(r: Reading, votes: Sequence[Votes]) -> str:
    """What the integrations showed, where charge that leaked in from neighbors makes a difference."""
    measured = next((v.middle for v in votes if v.quantity == r.rule.quantity), math.nan)
    if r.rule.quantity not in CORRECTED or not abs(measured - r.value) > max(abs(r.limit), abs(r.value) / 2):
        return ""
    return f"; {measured:.4g} before charge that leaked in from its neighbors was taken off"


def _twin(reading: Reading, readings: Sequence[Reading]) -> Reading | None:
    """Another failed rule of the same quantity with the opposite comparison: a limit on the other side."""
    for other in readings:
        rule: Rule = other.rule
        same = rule.quantity == reading.rule.quantity and rule.comparison == OPPOSITE[reading.rule.comparison]
        if same and not other.holds and not reading.holds and not math.isnan(reading.value):
            return other
    return None


def _neither(first: Reading, second: Reading) -> str:
    name, unit = spell(first.rule.quantity), f" {first.rule.unit}" if first.rule.unit else ""
    limits = [f"{COMPARED[r.rule.comparison]} {r.limit:.4g}" for r in (first, second)]
    return f"{name} {first.value:.4g} is neither {limits[0]} nor {limits[1]}{unit} ({first.rule.meaning})"


def limit(r: Reading) -> str:
    """A limit with its unit."""
    return f"{r.limit:.4g}" + (f" {r.rule.unit}" if r.rule.unit else "")


def spell(quantity: str) -> str:
    """A quantity as it is read."""
    return quantity.replace("_", " ")
