"""Masks for several depths from one run, and one page that compares them.

1. Each family's mask is decided from the evidence of the run's mask (:mod:`badpix.mask.family_masks`).
2. The masks are written beside each other, ``<mask root>_<family>.fits``, all or none.
3. The page (``<mask root>_families.html``) tells how many pixels each takes out, by flag and against each other, and
   how the excess over a typical pixel is spread.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from badpix.errors import DataError
from badpix.io.output import check_target, write_text
from badpix.mask import family_masks
from badpix.mask import file as mask_file
from badpix.mask.family_masks import UNUSABLE, Member
from badpix.mask.file import Mask
from badpix.review import charts
from badpix.review.html_table import table
from badpix.review.page import fill_page, read_asset
from badpix.review.readings import open_evidence
from badpix.settings.families import Family

LEAST_EXCESS, LARGEST_EXCESS = 0.05, 1e5  # ends of the chart
MATCHED = ("MIRI",)  # instruments whose masks CRDS matches by READPATT and NGROUPS


def make_families(
    mask: str | Path,
    wanted: Sequence[Family],
    folder: str | Path,
    *,
    evidence: str | Path | None = None,
    overwrite: bool = False,
) -> tuple[list[Path], list[Member]]:
    """The masks of all families and the page that compares them.

    Parameters
    ----------
    mask : path
        Mask of darks, or one that they were merged into, with its evidence beside it.
    wanted : sequence of Family
    folder : path
        Where the masks go.
    evidence : path, optional
        The evidence, if it does not lie beside the mask.
    overwrite : bool
        Replace what is there.

    Returns
    -------
    paths : list of Path
        The masks in the order of the families, then the page.
    members : list of Member
        What became of them.

    Raises
    ------
    DataError
        If the evidence is missing, of another mask, or older than this.
    """
    found = mask_file.read_mask(mask)
    root = Path(mask).name.removesuffix(".gz").removesuffix(".fits")
    paths = [Path(folder) / f"{root}_{f.name}.fits" for f in wanted]
    page = Path(folder) / f"{root}_families.html"
    for path in (*paths, page):
        check_target(path, overwrite, [mask])
    with open_evidence(found, evidence) as (known, note):
        if known is None or note:
            raise DataError(note or f"{mask}: no evidence beside it; make the mask with --evidence")
        members = [family_masks.make_member(found, known, f) for f in wanted]
    for path, member in zip(paths, members, strict=True):
        family_masks.write_member(found, member, path, overwrite)
    write_text(page, make_page(found, members, [p.name for p in paths]), overwrite)
    return [*paths, page], members


def list_rows(members: Sequence[Member]) -> list[tuple[Any, ...]]:
    """Rows of a table: family, pattern, groups, limit, error of a typical slope, unusable, freed, added."""
    rows = []
    for m in members:
        errors = " to ".join(f"{e:.3g}" for e in dict.fromkeys(m.typical))
        unusable = int(((m.image & UNUSABLE) != 0).sum())
        f = m.family
        rows.append((f.name, f.readpatt, f.span, f"{f.max_excess:g}", errors, unusable, m.freed, m.added))
    return rows


COLUMNS = (
    "family",
    "READPATT",
    "NGROUPS",
    "max excess",
    "typical error, DN/s",
    "DO_NOT_USE",
    "usable again",
    "taken out",
)


def describe_json(members: Sequence[Member], mask: Mask) -> dict[str, Any]:
    """The same for a program."""
    names = ("name", "readpatt", "ngroups", "max_excess", "typical", "unusable", "freed", "added")
    rows = [dict(zip(names, row, strict=True)) for row in list_rows(members)]
    for row, m in zip(rows, members, strict=True):
        row["ngroups"], row["max_excess"], row["typical"] = m.family.ngroups, m.family.max_excess, m.typical
    return {"families": rows, "by_flag": family_masks.count_states(members, mask)}


def make_page(mask: Mask, members: Sequence[Member], names: Sequence[str]) -> str:
    """The page that compares the families."""
    parts = {
        "TITLE": html.escape(f"{mask.detector}: masks for several depths"),
        "HEADLINE": _headline(mask, members),
        "FAMILIES": table(("file", *COLUMNS), [(n, *r) for n, r in zip(names, list_rows(members), strict=True)]),
        "FLAGS": _flag_table(mask, members),
        "PAIRS": _pair_table(members),
        "CHARTS": "".join(
            f"<figure>{_draw_excess(m)}<figcaption>{html.escape(m.family.name)}</figcaption></figure>"
            for m in members
        ),
    }
    return fill_page(read_asset("families_body.html"), parts)


def _headline(mask: Mask, members: Sequence[Member]) -> str:
    name = html.escape(mask.path.name if mask.path else mask.detector)
    counts = [int(((m.image & UNUSABLE) != 0).sum()) for m in members]
    told = ", ".join(f"{html.escape(m.family.name)} {n:,}" for m, n in zip(members, counts, strict=True))
    was = int(((mask.image & UNUSABLE) != 0).sum())
    out = f'<p class="eyebrow">{html.escape(mask.detector)}</p><h1>Masks for several depths</h1>'
    out += f'<p class="file">{name}</p><p class="lead">Pixels with DO_NOT_USE: {told}; '
    out += f"{was:,} in the mask of the run.</p>"
    if str(mask.header.get("INSTRUME")) not in MATCHED:
        out += "<p>CRDS does not match the masks of this instrument by NGROUPS: give them as overrides.</p>"
    return out


def _flag_table(mask: Mask, members: Sequence[Member]) -> str:
    counts = family_masks.count_states(members, mask)
    if not counts:
        return "<p>The darks flagged no pixel by its noise.</p>"
    rows = [(name, *row.values()) for name, row in counts.items()]
    return table(("flag", "in the run", *(m.family.name for m in members)), rows)


def _pair_table(members: Sequence[Member]) -> str:
    """Of the pixels that the family of the row takes out, those that the family of the column uses."""
    if len(members) < 2:
        return "<p>There is one family alone.</p>"
    out = [(m.image & UNUSABLE) != 0 for m in members]
    rows = [
        (m.family.name, *(int((mine & ~other).sum()) if other is not mine else "" for other in out))
        for m, mine in zip(members, out, strict=True)
    ]
    return table(("taken out by, used by", *(m.family.name for m in members)), rows)


def _draw_excess(member: Member) -> str:
    """Candidates by their excess: how many lie above."""
    title = f"{member.family.name}: candidates with more than this excess of the slope's variance"
    limits = np.geomspace(LEAST_EXCESS, LARGEST_EXCESS, 80)
    counts = np.array([(member.excess > limit).sum() for limit in limits], float)
    with np.errstate(divide="ignore"):
        heights = np.where(counts > 0, np.log10(counts), np.nan)
    top = float(np.nanmax(heights, initial=1.0)) + 0.1
    return charts.draw_counts(np.log10(limits), heights, float(np.log10(member.family.max_excess)), top, title)
