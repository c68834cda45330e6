"""``badpix depth``: which defects the exposures behind a mask could have shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from badpix import __version__
from badpix.cli.common import Command, evidence_option, option, talk_options
from badpix.cli.talk import Talk


@click.command(cls=Command, epilog="Example: badpix depth nrcb1_darks_mask.fits --plot pictures")
@click.argument("mask", type=click.Path())
@evidence_option("Evidence")
@option("--plot", metavar="DIR", heading="Evidence", help="Draw the curves into DIR.")
@option(
    "--through-pipeline",
    "raws",
    multiple=True,
    metavar="RAW",
    heading="Through the pipeline",
    help="Raw ramps (_uncal) of the same darks, or a quoted glob: defects are put into copies of them, and the "
    "pipeline's first stage and the search run over these. Slow and exact; may be repeated.",
)
@option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=1,
    heading="Through the pipeline",
    help="Rounds, each with other pixels.  [default: 1]",
)
@option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=1,
    heading="Through the pipeline",
    help="Processes of the pipeline.  [default: 1]",
)
@option(
    "-p",
    "--params",
    "params_files",
    multiple=True,
    metavar="FILE.yml",
    heading="Through the pipeline",
    help="Parameters of darks and prepare that the mask was made with.",
)
@talk_options
@click.pass_context
def depth(
    ctx: click.Context,
    /,
    mask: str,
    evidence_file: str | None,
    plot: str | None,
    raws: tuple[str, ...],
    rounds: int,
    workers: int,
    **options: Any,
) -> None:
    """Which defects could the exposures behind a mask have shown, and how many good pixels are flagged by chance?

    For each search the strength at which half and nine tenths of the defects are found, measured by putting defects
    into copies of good pixels (flats and darks with --depth), and false alarms per million good pixels with their
    interval, by the sign test (as far below as the limit is above) or the time test (groups shuffled).
    --through-pipeline measures the same with the real jump step and ramp fit, beside what the run predicted.
    """
    talk = ctx.obj = Talk(options)
    if raws:
        _go_through(talk, mask, evidence_file, raws, rounds, workers, options)
        return
    from badpix.review import depth as depths

    if plot:
        from badpix.io.figure import picture_folder

        place = picture_folder(plot)
    curves, alarms = depths.read_depth(mask, evidence_file)
    outputs = []
    if plot:
        name = Path(mask).name.removesuffix(".fits")
        outputs.append(
            depths.draw_curves(curves, f"{Path(mask).name}, badpix {__version__}", place / f"depth_{name}.png")
        )
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


def _go_through(
    talk: Talk,
    mask: str,
    evidence: str | None,
    raws: tuple[str, ...],
    rounds: int,
    workers: int,
    options: dict[str, Any],
) -> None:
    """The same through the pipeline: a table of found and predicted percent."""
    from dataclasses import asdict

    from badpix.cli.common import load_files
    from badpix.io.selection import expand_inputs
    from badpix.review import through_pipeline
    from badpix.settings.darks import DarkSettings
    from badpix.settings.files import section_values
    from badpix.settings.prepare import PrepareSettings

    tree = load_files(options)
    chosen = tree.get("set") or "default"
    darks = DarkSettings.from_values(section_values(tree, DarkSettings, "depth")[0], "depth", chosen)
    prepare = PrepareSettings.from_values(section_values(tree, PrepareSettings, "depth")[0], "depth", chosen)
    files = expand_inputs(list(raws), ("_uncal",))
    pairs, _ = through_pipeline.measure(
        mask, files, darks, prepare, rounds=rounds, workers=workers, evidence=evidence
    )
    if talk.as_json:
        talk.finish("badpix depth", [], {"mask": mask, "through_pipeline": [asdict(pair) for pair in pairs]})
        return
    head = ("search", "strength", "unit", "defects", "found, %", "predicted, %")
    rows = [
        (
            pair.search,
            f"{pair.level:.3g}",
            pair.unit,
            pair.injected,
            f"{100 * pair.found / pair.injected:.0f}",
            f"{100 * pair.predicted:.0f}",
        )
        for pair in pairs
    ]
    widths = [max(len(str(row[k])) for row in (head, *rows)) for k in range(len(head))]
    for row in (head, *rows):
        click.echo("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
