"""``badpix compare``: what changed between masks?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from badpix.cli.common import (
    Command,
    ignore_checksum_option,
    option,
    talk_options,
)
from badpix.cli.talk import Talk, print_tables
from badpix.errors import UsageError

if TYPE_CHECKING:
    from badpix.review.compare import Comparison, History


@click.command(cls=Command, epilog="Example: badpix compare nrcb1_2025.fits nrcb1_2026.fits --output-dir changes")
@click.argument("masks", nargs=-1, required=True, metavar="OLD NEW [NEWER...]")
@option(
    "--regions",
    multiple=True,
    metavar="WORD",
    heading="Compare",
    help="Count by region too: amplifiers, quadrants, or NAME=x0:x1,y0:y1; may be repeated.",
)
@option(
    "--output-dir",
    metavar="DIR",
    heading="Compare",
    help="Write lists and images of what appeared and disappeared into DIR.",
)
@option("--top", type=click.IntRange(1), default=20, heading="Compare", help="Transitions to show.  [default: 20]")
@option("--overwrite", is_flag=True, heading="Compare", help="Replace existing outputs.")
@ignore_checksum_option("Compare")
@talk_options
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    masks: tuple[str, ...],
    regions: tuple[str, ...],
    output_dir: str | None,
    top: int,
    overwrite: bool,
    **options: Any,
) -> None:
    """What changed between masks of one detector?

    Two masks: transitions, and what appeared and disappeared, where both look; so a subarray mask is compared with
    its window of a full frame. Three and more: each pixel's history by USEAFTER: born, died, intermittent. Plain
    maps of other tools are taken as badpix merge takes them.
    """
    talk = ctx.obj = Talk(options)
    if len(masks) < 2:
        raise UsageError("masks: one given, expected two or more")
    from badpix.mask.merge import read_masks
    from badpix.review import compare as comparing
    from badpix.review.export_changes import write_comparison, write_history
    from badpix.settings.merge import MergeSettings

    p = MergeSettings().changed({"ignore_checksum": options["ignore_checksum"]}, "compare")
    found, notes = read_masks([Path(m) for m in masks], p)
    for note in notes:
        talk.note(note)
    boxes = comparing.parse_regions(regions, found[0].detector)
    written: list[Path] = []
    if len(found) == 2:
        old, new = found
        pair = comparing.compare(old, new)
        parts = {name: comparing.compare(old, new, region=box) for name, box in boxes.items()}
        summary = {**pair.summary(), "regions": {name: part.summary() for name, part in parts.items()}}
        if not options["as_json"]:
            _print_comparison(pair, parts, top)
        if output_dir:
            written = write_comparison(pair, output_dir, old.detector, overwrite)
    else:
        if regions:
            raise UsageError("--regions: for two masks only")
        history = comparing.follow(found)
        summary = history.summary()
        if not options["as_json"]:
            _print_history(history)
        if output_dir:
            written = write_history(history, output_dir, overwrite)
    if options["as_json"]:
        talk.finish("compare", written, {"masks": list(masks), **summary})
    elif written:
        talk.finish("compare", written, {})


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.4f}" if whole else "-"


def _print_comparison(found: Comparison, parts: dict[str, Comparison], top: int) -> None:
    n = int(found.science.sum())
    rows = [
        [
            c.flag,
            c.old,
            c.new,
            c.appeared,
            c.disappeared,
            c.kept,
            _percent(c.new, n),
            "-" if c.agreement is None else f"{c.agreement:.3f}",
        ]
        for c in found.changes
    ]
    columns = ["flag", "old", "new", "appeared", "disappeared", "kept", "new %", "agreement"]
    shown = found.transitions[:top]
    total = sum(t.pixels for t in found.transitions)
    title = f"Transitions: {total:,} pixels changed"
    if len(shown) < len(found.transitions):
        title += f", {len(shown)} of {len(found.transitions)} kinds shown"
    blocks: list[Any] = [(f"{n:,} science pixels compared", columns, rows)]
    blocks.append((title, ["from", "to", "pixels"], [[t.old, t.new, t.pixels] for t in shown]))
    for name, part in parts.items():
        rows = [[c.flag, c.old, c.new, c.appeared, c.disappeared, c.kept] for c in part.changes]
        blocks.append((f"{name}: {int(part.science.sum()):,} science pixels", columns[:6], rows))
    print_tables(blocks)


def _print_history(found: History) -> None:
    def rate(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    columns = ["flag", "always", "born", "died", "intermittent", "born / month", "died / month"]
    rows = [
        [
            life.flag,
            life.always,
            life.born,
            life.died,
            life.intermittent,
            rate(life.born_per_month),
            rate(life.died_per_month),
        ]
        for life in found.lives
    ]
    counts = [[life.flag, *life.counts] for life in found.lives]
    days = [d[:10] for d in found.dates]
    title = f"{len(days)} masks over {found.months:.1f} months"
    print_tables([(title, columns, rows), ("Science pixels by date", ["flag", *days], counts)])
