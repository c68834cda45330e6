"""``badpix report`` and ``export``: a mask as a page, a list, an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from badpix.cli.check import detector_of, read_limits
from badpix.cli.common import (
    Command,
    evidence_option,
    ignore_checksum_option,
    option,
    talk_options,
)
from badpix.cli.talk import Talk
from badpix.settings.check import CheckSettings


@click.command(cls=Command, epilog="Example: badpix report nrcb1_mask.fits --against old_mask.fits -o report.html")
@click.argument("mask")
@option("-o", "--output", metavar="FILE", required=True, heading="Report", help="HTML page to write.")
@option("--against", metavar="OLD", heading="Report", help="Previous mask, shown beside the new numbers.")
@evidence_option("Report")
@option(
    "--ramps",
    multiple=True,
    metavar="FILE",
    heading="Report",
    help="Exposures with groups (jump or uncal) for examples of ramps per type.",
)
@option("--limits", metavar="FILE", heading="Report", help="Limits of the check, as for badpix check.")
@option("--overwrite", is_flag=True, heading="Report", help="Replace an existing page.")
@talk_options
@click.pass_context
def report(
    ctx: click.Context,
    /,
    mask: str,
    output: str,
    against: str | None,
    evidence_file: str | None,
    ramps: tuple[str, ...],
    limits: str | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Write one self-contained page about a MASK: counts, map, evidence, checks.

    The page needs no network: it can be mailed and opened years later.
    """
    talk = ctx.obj = Talk(options)
    from badpix.io.evidence_file import path_beside
    from badpix.io.output import check_page
    from badpix.io.selection import expand_inputs
    from badpix.review import check as checking
    from badpix.review import report as reporting

    given = [mask, evidence_file or path_beside(mask), *([against] if against else []), *([limits] if limits else [])]
    files = expand_inputs(ramps, ("_jump", "_uncal")) if ramps else []
    target = check_page(output, "-o", overwrite, [*given, *files])
    p, own = read_limits(limits, {**options, **dict.fromkeys(CheckSettings.names())})
    p = checking.limits_for(detector_of(Path(mask)), own, p, limits or "defaults")
    size = reporting.write_report(
        mask, target, p, against=against, evidence=evidence_file, ramps=files, overwrite=overwrite
    )
    talk.finish("report", [target], {"mask": mask, "bytes": size})


@click.command(cls=Command, epilog="Example: badpix export nrcb1_mask.fits -o nrcb1_bad.reg --flag HOT --flag RC")
@click.argument("mask")
@option("-o", "--output", metavar="FILE", required=True, heading="Export", help="File to write.")
@option(
    "--format",
    "form",
    type=click.Choice(["list", "ds9", "fits", "csv"]),
    default=None,
    heading="Export",
    help="Form.  [default: by the ending: .txt list, .reg ds9, .fits boolean image, .csv]",
)
@option(
    "--flag",
    "flags",
    multiple=True,
    metavar="NAME",
    heading="Export",
    help="Only these flags; may be repeated.  [default: all; DO_NOT_USE for fits]",
)
@option("--one-based", is_flag=True, heading="Export", help="Count x and y of list and csv from 1.")
@option("--overwrite", is_flag=True, heading="Export", help="Replace an existing file.")
@ignore_checksum_option("Export")
@talk_options
@click.pass_context
def export(
    ctx: click.Context,
    /,
    mask: str,
    output: str,
    form: str | None,
    flags: tuple[str, ...],
    one_based: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Write a MASK as a list (x y flag), DS9 regions, a boolean image, or a table.

    The list holds every flag of every pixel in the form of a manual list: badpix merge --manual reads it back.
    """
    talk = ctx.obj = Talk(options)
    from badpix.mask import file as mask_file
    from badpix.review import export as exporting
    from badpix.review.readings import open_evidence

    kind = exporting.choose_format(output, form)
    found = mask_file.read_mask(mask, check_sums=not options["ignore_checksum"])
    with open_evidence(found) as (numbers, _):
        n = exporting.write(
            found, output, kind, flags=flags, evidence=numbers, one_based=one_based, overwrite=overwrite
        )
    talk.finish("export", [output], {"mask": mask, "format": kind, "pixels": n})
