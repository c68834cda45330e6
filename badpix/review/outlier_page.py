"""One self-contained page about the flags of an outlier search: what they cost, and what was not compared.

It is made like the page of a mask (:mod:`badpix.review.report`): the same frame, style sheet, tables and charts; one
file that loads nothing, and equal runs give equal pages.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from badpix.io.associations import root_name
from badpix.review.charts import draw_depth
from badpix.review.html_table import Markup, table
from badpix.review.page import fill_page, read_asset
from badpix.settings.values import as_text

LISTED = 300  # sources and transients that are listed


def make_page(summary: Mapping[str, Any], notes: Sequence[str], *, preview: bool) -> str:
    """The page as text.

    Parameters
    ----------
    summary : mapping
        Of a run of `outlier ifu` or `outlier image`, with ``command``, ``code``, ``inputs``, ``parameters``.
    notes : sequence of str
        What the user should know.
    preview : bool
        Whether nothing was written.
    """
    cost = summary.get("cost") or {"exposures": [], "sources": [], "depth": []}
    parts = {
        "TITLE": html.escape(f"{summary['command']}: {_name(summary)}"),
        "HEADLINE": headline(summary, cost, preview),
        "NOTES": note_list(notes, summary),
        "EXPOSURES": exposure_table(summary, cost),
        "SOURCES": source_table(cost["sources"]),
        "DEPTH": depth_block(cost["depth"]),
        "TRANSIENTS": transient_table(summary.get("transients")),
        "INPUTS": table(
            ["file", "bytes", "sha256"],
            [[Path(i["path"]).name, i["bytes"], i["sha256"]] for i in summary["inputs"]],
            "inputs",
        ),
        "PARAMETERS": table(
            ["parameter", "value"], [[k, _text(v)] for k, v in summary["parameters"].items()], "parameters"
        ),
        "CODE": html.escape(str(summary["code"])),
    }
    return fill_page(read_asset("outlier_body.html"), parts)


def _name(summary: Mapping[str, Any]) -> str:
    rows = summary["exposures"]
    return root_name(rows[0]["input"]) if rows else "nothing searched"


def _text(value: Any) -> Markup:
    return Markup(html.escape(as_text(value)))


def headline(summary: Mapping[str, Any], cost: Mapping[str, Any], preview: bool) -> str:
    """What was flagged and what it costs, in two sentences."""
    rows = summary["exposures"]
    lost = sum(row.get("newly_unusable", 0) for row in rows)
    seen = sum(row["sources"] for row in cost["exposures"])
    losing = sum(row["losing"] for row in cost["exposures"])
    holes, covered = (sum(d[key] for d in cost["depth"]) for key in ("holes", "covered"))
    word = "would become" if preview else "became"
    done = "Preview: no exposure was written" if preview else "Flagged copies were written"
    out = f'<p class="eyebrow">{html.escape(summary["command"])}</p><h1>Outlier flags</h1>'
    out += f'<p class="file">{html.escape(_name(summary))}</p>'
    out += f'<p class="lead"><strong>{lost:,}</strong> pixels of {len(rows)} exposures {word} unusable. '
    lose = f"{losing:,} of {seen:,} sources seen in an exposure lose more than 1 % of their light"
    out += lose if seen else "No source was looked at"
    if cost["depth"]:
        out += f"; {holes:,} of {covered:,} pixels of the stack are left without any exposure"
    return out + f'.</p><p><span class="verdict good">{done}</span></p>'


def note_list(notes: Sequence[str], summary: Mapping[str, Any]) -> str:
    """Notes of the run, and members that were left out."""
    left = [f"left out: {name}" for name in summary.get("left_out", [])]
    lines = "".join(f'<li class="warning">{html.escape(text)}</li>' for text in (*notes, *left))
    return f'<ul class="faults">{lines}</ul>' if lines else "<p>None.</p>"


def exposure_table(summary: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """Flags and losses of each exposure."""
    costs = {row["exposure"]: row for row in cost["exposures"]}
    rows = []
    for row in summary["exposures"]:
        name = Path(row["input"]).name
        flagged = row.get("flagged", 0)
        number = sum(flagged.values()) if isinstance(flagged, Mapping) else flagged
        percent = row.get("newly_unusable_percent", row.get("percent", 0.0))
        more = costs.get(name)
        told = (
            [
                more["sources"],
                more["losing"],
                "< 1 %" if more["worst"] is None else f"{100 * more['worst']:.2f} %",
                f"{100 * more['unsearched']:.2f} %",
            ]
            if more
            else ["-"] * 4
        )
        rows.append([root_name(name), number, row.get("newly_unusable", 0), f"{percent:.3f} %", *told])
    return table(
        ["exposure", "flagged", "unusable", "share", "sources", "losing", "worst loss", "not compared"], rows
    )


def source_table(sources: Sequence[Mapping[str, Any]]) -> str:
    """Sources with light on flagged pixels, the worst first."""
    losing = sorted((row for row in sources if row["lost"] > 0), key=lambda row: -row["lost"])
    if not losing:
        return "<p>No source has light on flagged pixels.</p>"
    rows = [
        [
            row["source"],
            root_name(row["exposure"]),
            f"{100 * row['lost']:.2f} %",
            row.get("verdict", _rows_losing(row)),
        ]
        for row in losing[:LISTED]
    ]
    more = f"<p>The worst {LISTED} of {len(losing):,}.</p>" if len(losing) > LISTED else ""
    return more + table(["source", "exposure", "light lost", "what it looks like"], rows)


def _rows_losing(row: Mapping[str, Any]) -> str:
    return f"{row['rows_losing']} of {row['rows']} rows lose more than 1 %" if "rows" in row else ""


def depth_block(depths: Sequence[Mapping[str, Any]]) -> str:
    """Charts and numbers of the depth of each stack."""
    if not depths:
        return "<p>Not measured: there was no stack to compare with.</p>"
    out = ""
    for depth in depths:
        holes = 1e6 * depth["holes"] / max(depth["covered"], 1)
        title = f"{depth['stack']}: {depth['holes']:,} holes, {holes:.0f} per million"
        chart = draw_depth(depth["before"], depth["after"], title)
        out += f"<figure>{chart}<figcaption><strong>{html.escape(title)}</strong></figcaption></figure>"
    rows = [
        [depth["stack"], k, before, after]
        for depth in depths
        for k, (before, after) in enumerate(zip(depth["before"], depth["after"], strict=True))
    ]
    return f'<div class="charts">{out}</div><h3>The same in numbers</h3>' + table(
        ["stack", "exposures", "pixels before", "pixels after"], rows
    )


def transient_table(rows: Sequence[Mapping[str, Any]] | None) -> str:
    """Star-shaped objects that a minority of the exposures show."""
    if rows is None:
        return "<p>Not looked for: images alone are searched for transients.</p>"
    if not rows:
        return "<p>None.</p>"
    columns = ["kind", "RA", "Dec", "flux in 5x5", "peak, sigma", "arcsec/h", "exposures"]
    cells = [
        [
            row["kind"],
            f"{row['ra']:.6f}",
            f"{row['dec']:+.6f}",
            f"{row['flux']:.4g}",
            row["snr"],
            row.get("arcsec_per_hour", "-"),
            " ".join(root_name(d["exposure"]) for d in row["detections"]),
        ]
        for row in rows[:LISTED]
    ]
    return table(columns, cells)
