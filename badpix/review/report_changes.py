"""What changed: the report's tables of an update and of the mask before."""

from __future__ import annotations

import html
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from badpix.io.evidence import Evidence
from badpix.mask import update
from badpix.mask.file import Mask
from badpix.review.compare import Comparison
from badpix.review.html_table import table

MOST = 12  # transitions and odd lines that are shown
LISTED = 300  # recovered pixels of a flag that are listed


def update_table(mask: Mask, evidence: Evidence | None) -> str:
    """What became of the flags of the mask that was brought up to date; empty for other masks."""
    if evidence is None:
        return ""
    states = {
        name.removeprefix("update_").upper(): np.asarray(image[:, :])
        for name, image in evidence.images.items()
        if name.startswith("update_")
    }
    counts = update.count_states(states, ~mask.reference)
    if not counts:
        return ""
    rows = [
        [
            name,
            row["confirmed"],
            row["new"],
            row["recovered"],
            row["retyped"],
            row["not_testable"],
            "; ".join(f"{n:,} {why}" for why, n in row["reasons"].items()),
        ]
        for name, row in counts.items()
    ]
    columns = ["Flag", "Confirmed", "New", "Recovered", "Another type", "Not testable", "Why not"]
    return "<h3>The update</h3>" + table(columns, rows) + _recovered_list(states, mask)


def _recovered_list(states: Mapping[str, NDArray[np.uint8]], mask: Mask) -> str:
    """Pixels that recovered, x and y of the full frame, by flag; folded away."""
    corner = mask.window.xstart - 1, mask.window.ystart - 1
    rows: list[tuple[str, int, str]] = []
    for name, state in states.items():
        y, x = np.nonzero((state == update.State.RECOVERED) & ~mask.reference)
        if x.size:
            pixels = [f"({int(a) + corner[0]}, {int(b) + corner[1]})" for a, b in zip(x, y, strict=True)]
            more = f" and {len(pixels) - LISTED:,} more" if len(pixels) > LISTED else ""
            rows.append((name, len(pixels), ", ".join(pixels[:LISTED]) + more))
    if not rows:
        return ""
    total = sum(row[1] for row in rows)
    told = table(["Flag", "Pixels", "x, y"], rows)
    return f"<details><summary>Recovered pixels ({total:,} flags)</summary>{told}</details>"


def transitions_table(pair: Comparison | None, previous: Mask | None) -> str:
    """What changed since the previous mask: the commonest kinds at once, all of them when opened."""
    if pair is None or previous is None:
        return "<p>No previous mask was given (<code>--against</code>).</p>"
    total = sum(t.pixels for t in pair.transitions)
    name = html.escape(previous.path.name if previous.path else "the previous mask")
    out = f"<p>{total:,} pixels changed since {name}.</p>"
    if not total:
        return out
    rows = [[t.old, t.new, t.pixels] for t in pair.transitions]
    out += table(["From", "To", "Pixels"], rows[:MOST])
    rest = rows[MOST:]
    if rest:
        pixels = sum(t.pixels for t in pair.transitions[MOST:])
        out += f"<details><summary>{len(rest)} rarer kinds, {pixels:,} pixels</summary>"
        out += table(["From", "To", "Pixels"], rest) + "</details>"
    return out
