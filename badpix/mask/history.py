"""What the HISTORY of a mask says, read back: lines, flags of searches, manual lists, what flats judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from badpix import dq
from badpix.mask.file import Mask
from badpix.settings import param

INDENT = "    "  # of a HISTORY card that goes on with the one before
FLATS = ("DEAD", "LOW_QE", "OPEN", "ADJ_OPEN")  # searches of the flats


def join_history(history: Sequence[str]) -> list[str]:
    """HISTORY cards put together again, as :func:`badpix.mask.header.history` broke them.

    A card that starts with four blanks goes on with the line before it, after a blank, unless that card was full and
    so ended within a word. Cards of other writers go on where the one before them is full.
    """
    lines: list[str] = []
    full = False
    for card in history:
        indented = card.startswith(INDENT)
        if lines and (full or indented):
            lines[-1] += ("" if full else " ") + (card[len(INDENT) :] if indented else card)
        else:
            lines.append(card)
        full = len(card) >= 72
    return lines


def flags_of_search(mask: Mask, name: str) -> list[str]:
    """Flags that a search sets: by the mapping that the mask was made with (its HISTORY), else the default one."""
    own = [name.upper()] if name.upper() in dq.VALUE else []
    mapping = dict(param.section("darks").param("flag_values").default)
    mapping |= param.section("science").param("science_flags").default
    for line in join_history(mask.history):
        found = re.search(r"(?:darks\.flag_values|science\.science_flags) = (.*?)(?: \[\w+\])?: ", line)
        if found:
            mapping |= {k.lower(): v.split(",") for k, _, v in (w.partition(":") for w in found[1].split()) if v}
    return [flag.upper() for flag in mapping.get(name.lower(), own)]


def read_judged(mask: Mask) -> tuple[float, str] | None:
    """Percent of the science pixels that the flats of a mask judged, and its line; None where no flats say so.

    Of a mask that was merged from several the first one counts.
    """
    for line in join_history(mask.history):
        found = re.search(r"judged ([\d.]+(?:e[+-]\d+)?) % of [\d,]+ science pixels.*", line)
        if found:
            return float(found[1]), found[0]
    return None


def manual_lists(mask: Mask) -> list[str]:
    """Names of the manual lists that a mask was made with: of flats by their keyword, of merge by its HISTORY."""
    name = str(mask.header.get("BPFMANFL", "none"))
    names = [] if name.lower() in ("none", "") else [Path(name).name]
    for line in join_history(mask.history):
        found = re.search(r"merge\.manual = (.*?)(?: \[\w+\])?: ", line)
        names += [word for word in found[1].split(", ") if word != "none"] if found else []
    return list(dict.fromkeys(names))


def find_kind(mask: Mask) -> str:
    """What a mask was made from: ``flats``, ``darks``, ``science``, ``mask`` (merged, updated, or another tool's)."""
    keys = {key[:3] for key in mask.header}
    if "BPM" in keys:
        return "mask"
    if "BPS" in keys:
        return "science"
    return "darks" if "BPD" in keys else "flats" if "BPF" in keys else "mask"
