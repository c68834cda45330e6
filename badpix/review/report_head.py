"""What a mask is and whether it passed: the head of the report, its keywords and its checks."""

from __future__ import annotations

import html

from badpix.mask.combine import count_flags
from badpix.mask.file import Mask
from badpix.mask.history import read_judged
from badpix.review.check import Checked, common_part
from badpix.review.html_table import percent, table

FACTS = {
    "DETECTOR": "Detector",
    "INSTRUME": "Instrument",
    "SUBARRAY": "Subarray",
    "READPATT": "Readout pattern",
    "P_READPA": "Readout patterns",
    "EXP_TYPE": "Exposure type",
    "P_EXP_TY": "Exposure types",
    "AUTHOR": "Author",
    "DESCRIP": "Description",
    "PEDIGREE": "Pedigree",
    "USEAFTER": "Use after",
    "DATE": "Date",
    "BPVERSN": "Made by",
}


def headline(mask: Mask, checked: Checked, previous: Mask | None) -> str:
    """One sentence with the numbers that matter, and whether the checks passed."""
    science = ~mask.reference
    counts = count_flags(mask.image, science)
    n = int(science.sum())
    errors = sum(f.severity == "error" for f in checked.faults)
    warnings = sum(f.severity == "warning" for f in checked.faults)
    verdict = "Checks passed" if checked.passed else "Checks failed"
    detail = ", ".join(
        f"{k} {word}{'s' if k != 1 else ''}" for k, word in ((errors, "error"), (warnings, "warning")) if k
    )
    name = html.escape(mask.path.name if mask.path else "")
    out = f'<p class="eyebrow">Bad-pixel mask</p><h1>{html.escape(mask.detector)}</h1><p class="file">{name}</p>'
    out += (
        f'<p class="lead"><strong>{counts["any"]:,}</strong> of {n:,} science pixels are flagged '
        f"(<strong>{percent(counts['any'], n)}</strong>), {counts.get('DO_NOT_USE', 0):,} are not to be used "
        f"({percent(counts.get('DO_NOT_USE', 0), n)})."
    )
    if previous is not None:
        old, new, shared = common_part(previous, mask)
        before = count_flags(old, shared)["any"]
        now = count_flags(new, shared)["any"]
        out += f" The previous mask flagged {before:,} ({now - before:+,} now)."
    css = "good" if checked.passed else "bad"
    return out + f'</p><p><span class="verdict {css}">{verdict}</span> {html.escape(detail)}</p>'


def facts_table(mask: Mask) -> str:
    """Keywords that say what the mask is, and its window."""
    rows = [[label, str(mask.header[key])] for key, label in FACTS.items() if mask.header.get(key) not in (None, "")]
    w = mask.window
    judged = read_judged(mask)
    if judged:
        rows.append(["Flats", judged[1]])
    rows.append(["Window", f"{w.xsize} x {w.ysize} pixels, from ({w.xstart}, {w.ystart}) counted from 1"])
    return table(["", ""], rows, "facts")


def check_list(checked: Checked) -> str:
    """Errors and warnings of the checks."""
    if not checked.faults:
        return f"<p>Nothing found. Checked: {html.escape(', '.join(checked.done))}.</p>"
    rows = "".join(
        f'<li class="{f.severity}"><strong>{f.severity.capitalize()}</strong> '
        f"<code>{html.escape(f.rule)}</code> {html.escape(f.message)}</li>"
        for f in checked.faults
    )
    return f'<ul class="faults">{rows}</ul><p>Checked: {html.escape(", ".join(checked.done))}.</p>'
