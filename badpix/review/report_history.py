"""How a mask was made: the report's tables from its HISTORY, and the glossary."""

from __future__ import annotations

import html
import re
from typing import Any

import numpy as np

from badpix import dq
from badpix.mask.file import Mask
from badpix.mask.history import join_history
from badpix.review.html_table import Markup, table

TOPICS = ("DOCUMENT:", "SOFTWARE:", "DATA USED:", "DIFFERENCES:", "Parameter values and descriptions:", "Note:")


def parameters_table(mask: Mask) -> str:
    """Parameters of the searches, from HISTORY."""
    pattern = re.compile(r"^(?:Input history: )?(\w+)\.(\w+) = (.*?)(?: \[(\w+)\])?: (.*)$")
    found = [m.groups() for m in map(pattern.match, join_history(mask.history)) if m]
    if not found:
        return "<p>The mask does not say.</p>"
    rows = [[section, name, value, meaning] for section, name, value, _, meaning in found]
    return table(["Command", "Parameter", "Value", "Meaning"], rows, "parameters")


def inputs_block(mask: Mask) -> str:
    """Files that the mask was made from, and those that were rejected with the reason."""
    rows: list[list[Any]] = []
    inside = False
    for line in join_history(mask.history):
        if any(line.startswith(topic) for topic in TOPICS):
            inside = line.startswith("DATA USED:")
            first = line.removeprefix("DATA USED:").strip() if inside else ""
            if first:
                rows.append([first, "used", ""])
            continue
        text = line.strip()
        if not inside or not line.startswith(("  ", "sha256 ")):
            continue
        if text.startswith("rejected:"):
            name, _, why = text.removeprefix("rejected:").strip().partition(":")
            rows.append([name, "rejected", why.strip()])
        elif text.startswith("sha256") and rows:
            rows[-1][2] = Markup(f"<code>{html.escape(text.split()[-1][:16])}…</code>")
        else:
            rows.append([text, "used", ""])
    return table(["File", "", "sha256, or the reason"], rows, "inputs") if rows else "<p>The mask does not say.</p>"


def history_block(mask: Mask) -> str:
    """The whole HISTORY, as it stands in the file."""
    return f"<pre>{html.escape(chr(10).join(join_history(mask.history)))}</pre>"


def glossary(mask: Mask) -> str:
    """The flags that a mask may carry, in words; those of this mask first."""
    used = int(np.bitwise_or.reduce(mask.image, axis=None))
    rows = [
        [f.name, f"{f.bit}", f"{f.value:,}", f.description, "yes" if used & f.value else ""]
        for f in sorted(dq.FLAGS, key=lambda f: not used & f.value)
        if f.use == "mask" or used & f.value
    ]
    return table(["Flag", "Bit", "Value", "Meaning", "In this mask"], rows)
