"""``badpix depth``: which defects the exposures behind a mask could have shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from badpix.cli.common import Command, evidence_option, option, talk_options
from badpix.cli.talk import Talk


@click.command(cls=Command, epilog="Example: badpix depth nrcb1_darks_mask.fits --plot pictures")
@click.argument("mask", type=click.Path())
@evidence_option("Evidence")
@option("--plot", metavar="DIR", heading="Evidence", help="Draw the curves into DIR.")
@talk_options
@click.pass_context
def depth(ctx: click.Context, /, mask: str, evidence_file: str | None, plot: str | None, **options: Any) -> None:
    """Which defects could the exposures behind a mask have shown, and how many good pixels are flagged by chance?

    For each search the strength at which half and nine tenths of the defects are found, measured by putting defects
    into copies of good pixels (flats and darks with --depth), and false alarms per million good pixels with their
    interval, by the sign test (as far below as the limit is above) or the time test (groups shuffled).
    """
    talk = ctx.obj = Talk(options)
    from badpix.review import depth as depths

    if plot:
        from badpix.io.figure import picture_folder

        place = picture_folder(plot)
    curves, alarms = depths.read_depth(mask, evidence_file)
    outputs = []
    if plot:
        name = Path(mask).name.removesuffix(".fits")
        outputs.append(depths.draw_curves(curves, Path(mask).name, place / f"depth_{name}.png"))
    if talk.as_json:
        talk.finish("badpix depth", outputs, {"mask": mask, **depths.describe_json(curves, alarms)})
        return
    rows = depths.list_rows(curves, alarms)
    head = ("search", "50 %", "90 %", "unit", "copies", "false per million (68 %), test")
    widths = [max(len(str(row[k])) for row in (head, *rows)) for k in range(len(head))]
    for row in (head, *rows):
        click.echo("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for path in outputs:
        talk.say(f"wrote {path}")
