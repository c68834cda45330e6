"""``badpix update``: an older mask brought up to date by new flats and darks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from badpix.cli.common import Command, collect, load_files, option, parameter_options, shared_options
from badpix.cli.masks import check_detector, choose_output, evidence_option, output_option, report, say_number
from badpix.cli.talk import Talk
from badpix.errors import UsageError
from badpix.settings.merge import MergeSettings
from badpix.settings.reference import ReferenceSettings


@click.command(
    cls=Command,
    epilog="Example: badpix update nrcb1_2025.fits --flats flats.fits --darks darks.fits --manual pixels.txt "
    "-o nrcb1_2026.fits",
)
@click.argument("old", required=False, metavar="OLD", type=click.Path())
@option(
    "--flats",
    "flats",
    multiple=True,
    metavar="MASK",
    type=click.Path(),
    heading="New masks",
    help="Mask that badpix flats made from new flats; may be repeated.",
)
@option(
    "--darks",
    "darks",
    multiple=True,
    metavar="MASK",
    type=click.Path(),
    heading="New masks",
    help="Mask that badpix darks made from new darks; may be repeated.",
)
@option(
    "--science",
    "science",
    multiple=True,
    metavar="MASK",
    type=click.Path(),
    heading="New masks",
    help="Mask that badpix science made from new exposures; may be repeated.",
)
@option(
    "--manual",
    "manual_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    heading="New masks",
    help="Manual list to add (x y flag); may be repeated.",
)
@output_option
@evidence_option
@shared_options
@parameter_options("merge", "reference", without=("manual", "masks", "base", "prefer", "min_fraction"))
@click.pass_context
def update(
    ctx: click.Context,
    /,
    old: str | None,
    flats: tuple[str, ...],
    darks: tuple[str, ...],
    science: tuple[str, ...],
    manual_files: tuple[str, ...],
    **options: Any,
) -> None:
    """Bring an older MASK up to date: new where it was measured, old where it was not.

    Each pixel of each flag is confirmed, new, recovered, or not testable, with the reason: the new exposures could
    not measure it, no search looks for this type, it lies outside their window, it was given by hand, or it is too
    faint for the new exposures to be sure that it is gone. What is not testable keeps its flag. The evidence tells
    of each pixel what became of it (badpix explain), the summary counts them.
    """
    talk = ctx.obj = Talk(options)
    tree = load_files(options)
    p, inputs = collect(MergeSettings, tree, options)
    base = old or p.base
    reference, _ = collect(ReferenceSettings, tree, options)
    check_detector(tree, options)
    if not base:
        raise UsageError("no mask to update: give OLD, or merge: {base: OLD} in the YAML")
    from badpix.io.selection import expand_inputs
    from badpix.mask import header as mask_header
    from badpix.mask import merge as merging

    texts = mask_header.check_texts(reference)
    named = [*flats, *darks, *science] or p.masks or inputs.get("masks") or []
    if not named:
        raise UsageError(
            "no new masks: give --flats, --darks or --science MASK (the commands of these names make them)"
        )
    files = expand_inputs(named, ("_mask", ""))
    lists = list(manual_files) or p.manual or list(inputs.get("manual") or [])
    product = merging.build_merge(
        files,
        replace(p, base=base, manual=lists, masks=[str(f) for f in files]),
        choose_output(options, tree),
        texts=texts,
        overwrite=options["overwrite"],
        with_evidence=options["evidence"],
        detector=tree.get("detector"),
    )
    talk.say(f"{Path(base).name} updated by {', '.join(f.name for f in files)}")
    counted = say_number(1 + len(files), "mask") + (f", {say_number(len(lists), 'manual list')}" if lists else "")
    report(talk, "badpix update", product, counted)
