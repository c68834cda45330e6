"""``badpix families``: masks for exposures of several depths from one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from badpix.cli.common import Command, evidence_option, option, talk_options
from badpix.cli.talk import Talk
from badpix.errors import UsageError


@click.command(
    cls=Command,
    epilog="Example: badpix families mirimage_mask.fits mirimage.yml -o masks\n\n"
    "Example: badpix families mask.fits --family short:FASTR1:5:1 --family long:FASTR1:40-150:0.5",
)
@click.argument("mask", type=click.Path())
@click.argument("file", required=False, metavar="[FILE.yml]", type=click.Path())
@option(
    "--family",
    "texts",
    multiple=True,
    metavar="NAME:READPATT:NGROUPS[:EXCESS]",
    heading="Families",
    help="A family beside those of the file; NGROUPS is a number or a range such as 6-40, EXCESS 1 if not given.",
)
@option("-o", "--output", metavar="DIR", heading="Files", help="Where the masks go.  [default: beside MASK]")
@option("--overwrite", is_flag=True, heading="Files", help="Replace files that are there.")
@evidence_option("Evidence")
@talk_options
@click.pass_context
def families(
    ctx: click.Context,
    /,
    mask: str,
    file: str | None,
    texts: tuple[str, ...],
    output: str | None,
    overwrite: bool,
    evidence_file: str | None,
    **options: Any,
) -> None:
    """Make a mask for each depth of exposure from the evidence of one run.

    MASK is a mask of darks, or one that they were merged into, with its evidence. FILE.yml has the section families:
    a list of name, readpatt, ngroups (a number, or two for a range), max_excess. A pixel that darks flag by its noise
    is unusable where it makes the slope's variance more than 1 + max_excess times that of a typical pixel in an
    exposure of that depth. Each mask carries the READPATT and NGROUPS that CRDS matches by (MIRI), and one page
    compares them.
    """
    talk = ctx.obj = Talk(options)
    from badpix.io.output import check_directory
    from badpix.mask import file as mask_file
    from badpix.review import families as making
    from badpix.settings.families import read_families
    from badpix.settings.files import load_file

    tree = list(load_file(file).get("families") or []) if file else []
    if not tree and not texts:
        raise UsageError("no families: give FILE.yml with the section families, or --family NAME:READPATT:NGROUPS")
    wanted = read_families([*tree, *map(_parse, texts)], file or "--family")
    folder = check_directory(output) if output else Path(mask).parent
    paths, members = making.make_families(mask, wanted, folder, evidence=evidence_file, overwrite=overwrite)
    if talk.as_json:
        talk.finish(
            "badpix families", paths, {"mask": mask, **making.describe_json(members, mask_file.read_mask(mask))}
        )
        return
    rows = [tuple(map(str, row)) for row in (making.COLUMNS, *making.list_rows(members))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for path in paths:
        talk.say(f"wrote {path}")


def _parse(text: str) -> dict[str, Any]:
    """One family of the command line."""
    words = text.split(":")
    if not 3 <= len(words) <= 4:
        raise UsageError(f"--family {text}: expected NAME:READPATT:NGROUPS[:EXCESS]")
    try:
        groups = [int(n) for n in words[2].split("-")]
        excess = float(words[3]) if len(words) == 4 else 1.0
    except ValueError:
        raise UsageError(f"--family {text}: expected numbers: NAME:READPATT:6-40:0.5") from None
    return {
        "name": words[0],
        "readpatt": words[1],
        "ngroups": groups if len(groups) > 1 else groups[0],
        "max_excess": excess,
    }
