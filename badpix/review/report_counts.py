"""How many pixels: the report's tables by flag, by search and by source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from badpix import dq
from badpix.io.evidence import Evidence, Rule
from badpix.mask.file import Mask
from badpix.review import readings
from badpix.review.check import Checked
from badpix.review.compare import Comparison
from badpix.review.html_table import Markup, table


def count_table(mask: Mask, checked: Checked, pair: Comparison | None, colors: Mapping[str, str]) -> str:
    """Science pixels by flag, how many are unusable; of the previous mask how many stayed, appeared and went."""
    science = ~mask.reference
    inside = mask.image[science]
    unusable = (inside & np.uint32(dq.VALUE["DO_NOT_USE"])) != 0
    changes = {c.flag: c for c in pair.changes} if pair is not None else {}
    rows = []
    for row in checked.flags:
        name = row["flag"]
        value = dq.VALUE.get(name, 0xFFFFFFFF)
        swatch = f'<span class="swatch" style="background:{colors[name]}"></span>' if name in colors else ""
        label = "any flag" if name == "any" else name
        cells: list[Any] = [
            Markup(f'{swatch}<span data-flag="{name}">{label}</span>'),
            row["pixels"],
            f"{row['percent']:.4f} %",
        ]
        cells.append(int((unusable & ((inside & np.uint32(value)) != 0)).sum()))
        if pair is not None:
            one = changes.get(name)
            cells += [one.old, f"+{one.appeared:,}", f"-{one.disappeared:,}"] if one else [0, "+0", "-0"]
        rows.append(cells)
    columns = ["Flag", "Pixels", "Share of science", "Not to be used"]
    return table(columns + (["Previous", "Appeared", "Gone"] if pair is not None else []), rows, "counts")


def search_table(mask: Mask, evidence: Evidence | None) -> str:
    """What each search found, from its map, and by which limits."""
    if evidence is None:
        return "<p>No evidence beside the mask: its searches are not known here.</p>"
    rows = []
    for name in readings.search_names(evidence):
        found = evidence.images.get(f"is_{name.lower()}")
        own = [r for r in evidence.rules if r.search == name and not readings.is_veto(r.quantity)]
        limits = "; ".join(dict.fromkeys(_limit_words(r) for r in own))
        count = "-" if found is None else int(np.count_nonzero(found[:, :]))
        rows.append([name, count, ", ".join(readings.flags_of_search(mask, name)), limits])
    return table(["Search", "Pixels", "Sets", "Limits"], rows) + source_table(mask, evidence)


def source_table(mask: Mask, evidence: Evidence) -> str:
    """How many flags of each type come from where: searches, manual lists, older masks."""
    if not evidence.sources:
        return ""
    science = ~mask.reference
    rows = []
    for source in evidence.sources:
        flags = np.asarray(evidence.images[f"from_{source.number}"][:, :])[science]
        counts = {
            f.name: int(np.count_nonzero(flags & np.uint32(f.value))) for f in dq.FLAGS if f.name != "DO_NOT_USE"
        }
        told = ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "DO_NOT_USE alone"
        via = f" (by way of {source.via})" if source.via else ""
        rows.append([source.kind, f"{source.name}{via}", source.date, int(np.count_nonzero(flags)), told])
    head = "<h3>Where the flags come from</h3>"
    return head + table(["Kind", "Source", "Use after", "Pixels", "Flags"], rows)


def _limit_words(rule: Rule) -> str:
    limit = rule.limit if isinstance(rule.limit, str) else f"{rule.limit:.4g}"
    return f"{rule.quantity} {rule.comparison} {limit} {rule.unit}".strip()
