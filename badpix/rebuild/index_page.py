"""An index page over all detectors of a rebuild: state, counts, trends, and links to masks and reports.

It is one file that loads nothing; links are relative, so the folder can be moved or served as it is.
"""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from badpix.io.output import write_text
from badpix.mask.depth import NAMES
from badpix.review.page import fill_page

WIDTH, HEIGHT = 150, 34  # of a trend
TRENDS = ("any", "HOT", "DEAD", "TELEGRAPH", "RC", "UNRELIABLE_SLOPE")
BODY = """<header>
<h1>Bad-pixel masks</h1>
<!--HEADLINE-->
</header>
<main>
<!--TABLE-->
</main>"""


def write_index(
    records: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    target: str | Path,
    overwrite: bool = False,
) -> int:
    """Write the page; returns how many detectors it shows.

    Parameters
    ----------
    records : sequence of mapping
        From :func:`badpix.rebuild.record.list_records`, oldest first.
    rows : sequence of mapping
        Their rows, from :func:`badpix.rebuild.record.history_rows`, in the same order.
    target : path
        The HTML file.
    overwrite : bool
        Replace it.
    """
    target = Path(target)
    names = sorted({str(r["detector"]) for r in rows})
    pairs = list(zip(records, rows, strict=True))
    body = "".join(_line(name, [p for p in pairs if p[1]["detector"] == name], target.parent) for name in names)
    head = "".join(
        f"<th>{text}</th>"
        for text in ("Detector", "State", "Made", "Flagged", "Not to be used", "Trends", "Depth", "Last run", "Files")
    )
    newest = max((str(r["finished"]) for r in rows), default="")
    told = (
        f"<p>Detectors: {len(names)}; newest run {html.escape(newest)}. Trends: science pixels with a flag, one "
        "point a mask, oldest to the left.</p>"
    )
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    page = fill_page(BODY, {"TITLE": "Bad-pixel masks", "HEADLINE": told, "TABLE": table})
    write_text(target, page, overwrite)
    return len(names)


def _line(name: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], place: Path) -> str:
    """One detector: its current mask, how its counts went, its last run."""
    current = next((p for p in reversed(pairs) if p[1]["status"] == "current"), None)
    record, row = current or pairs[-1]
    last = pairs[-1][1]
    state = '<span class="state good">current</span>' if current else '<span class="state bad">no mask in use</span>'
    run = html.escape(f"{last['status']}: {last['reason']}" if last["reason"] else str(last["status"]))
    css = "" if last["status"] in ("current", "made", "kept") else ' class="state bad"'
    cells = [
        f"<td><strong>{html.escape(name)}</strong></td><td>{state}</td>",
        f'<td style="white-space: nowrap">{html.escape(str(row["finished"])[:10])}</td>',
        f'<td class="number">{_count(row["flagged"])}</td><td class="number">{_count(row["unusable"])}</td>',
        f"<td>{_trends([p[0] for p in pairs])}</td>",
        f"<td>{_depths([p[1] for p in pairs])}</td>",
        f"<td><span{css}>{run[:160]}</span><br><small>{html.escape(str(last['finished']))}</small></td>",
        f"<td>{_links(record, place) if current else ''}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _count(value: Any) -> str:
    return "-" if value is None else f"{value:,}"


def _trends(records: Sequence[Mapping[str, Any]]) -> str:
    """A small chart for each flag that is common enough, over all masks that were made."""
    counts = [dict(r.get("flags") or {}) for r in records if r.get("flags")]
    out = []
    for flag in TRENDS:
        values = [int(c.get(flag, 0)) for c in counts]
        if any(values):
            label = "any flag" if flag == "any" else flag
            out.append(f"<small>{label} {values[0]:,} to {values[-1]:,}</small>{draw_trend(values, label)}")
    return "".join(out[:3]) or "-"


def _depths(rows: Sequence[Mapping[str, Any]]) -> str:
    """A small chart for each search of the current masks' depth: the strength that 90 % are found at, over time."""
    known = [row["depth"] for row in rows if row.get("depth")]
    out = []
    for search, of in known[-1].items() if known else ():
        values = [d.get(search, {}).get("strength_90") for d in known]
        numbers = [float(v) for v in values if isinstance(v, int | float)]
        if numbers:
            label = f"{NAMES.get(search, search)} {numbers[0]:.3g} to {numbers[-1]:.3g} {of.get('unit', '')}"
            out.append(f"<small>{html.escape(label)}</small>{draw_trend(numbers, f'90 % of {search}')}")
    return "".join(out[:3]) or "-"


def draw_trend(values: Sequence[float], label: str) -> str:
    """Numbers as a line, from zero to their maximum."""
    top = max(values) or 1
    step = (WIDTH - 8) / max(len(values) - 1, 1)
    points = [(4 + k * step, HEIGHT - 4 - v / top * (HEIGHT - 8)) for k, v in enumerate(values)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>' for x, y in points)
    title = html.escape(f"{label}: {', '.join(f'{v:,}' if isinstance(v, int) else f'{v:.3g}' for v in values)}")
    return (
        f'<svg class="trend" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f'<title>{title}</title><path d="{path}"/>{dots}</svg>'
    )


def _links(record: Mapping[str, Any], place: Path) -> str:
    """The mask, its page, its record."""
    folder = Path(str(record["path"])).parent
    mask = folder / str(record["mask"])
    page = folder / (mask.name.removesuffix(".fits") + "_report.html")
    found = [("mask", mask), ("report", page), ("record", Path(str(record["path"])))]
    links = [
        f'<a href="{html.escape(os.path.relpath(path, place))}">{word}</a>' for word, path in found if path.is_file()
    ]
    return "<br>".join(links)
