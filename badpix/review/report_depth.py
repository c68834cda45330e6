"""The depth of a mask in its report: curves and false alarms."""

from __future__ import annotations

from badpix.io.evidence import Evidence
from badpix.mask.depth import NAMES, make_curves
from badpix.review import charts
from badpix.review.depth import list_rows
from badpix.review.html_table import table

COLUMNS = ("Search", "50 % found", "90 % found", "Unit", "Copies", "False per million, test")


def depth_block(evidence: Evidence | None) -> str:
    """Table and curves; a sentence where the depth was not measured, nothing without evidence."""
    if evidence is None:
        return ""
    head = "<h3>Depth: what these exposures could have shown</h3>"
    if not evidence.depth:
        return head + "<p>Not measured: make the masks with <code>--depth</code>.</p>"
    curves = make_curves(evidence.depth)
    told = (
        "<p>Defects of known strength were put into copies of good pixels and searched in the same run. False "
        "alarms: good pixels as far below as the limit is above (sign), or flagged with shuffled groups (time), or "
        "flags that half of the exposures does not bear out (halves); in brackets the interval of 68 %.</p>"
    )
    pictures = "".join(charts.draw_curve(c, f"{NAMES.get(c.search, c.search)}: found by strength") for c in curves)
    return f'{head}{told}{table(COLUMNS, list_rows(curves, evidence.alarms))}<div class="charts">{pictures}</div>'
