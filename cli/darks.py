"""``badpix darks``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from badpix.cli.common import Command, option, parameter_options, shared_options
from badpix.cli.masks import (
    choose_inputs,
    evidence_option,
    input_options,
    output_option,
    read_asked,
    search_and_report,
)
from badpix.settings.darks import DarkSettings

if TYPE_CHECKING:
    from pathlib import Path

COMPANIONS = ("jump", "fitopt", "uncal")


@click.command(
    cls=Command,
    epilog="Example: badpix darks 'darks/*_rateints.fits' --workers 2 -o nrcb1_darks_mask.fits",
)
@click.argument("rates", nargs=-1, metavar="RATE...")
@option(
    "--jump",
    multiple=True,
    metavar="FILE",
    help="Ramps with jumps flagged; beside the rate files (_jump) unless named.",
)
@option(
    "--fitopt",
    multiple=True,
    metavar="FILE",
    help="Optional output of the ramp fit; beside the rate files (_fitopt) unless named.",
)
@option(
    "--uncal",
    multiple=True,
    metavar="FILE",
    help="Raw ramps (documented search of MIRI); beside the rate files (_uncal) unless named.",
)
@output_option
@evidence_option
@input_options
@shared_options
@parameter_options("darks", "reference")
@click.pass_context
def darks(ctx: click.Context, /, rates: tuple[str, ...], **options: Any) -> None:
    """Find HOT, noisy, RC, TELEGRAPH and low-pedestal pixels in dark ramps.

    RATE are slope images (rateints, or rate of single integrations) of one detector: files, folders, quoted globs, or
    @list.txt. Beside each lie its _jump and _fitopt files. Any number of exposures and integrations is read in bands
    of rows within --max-memory.
    """
    asked = read_asked(ctx, options, DarkSettings)
    from badpix.darks import build as darks_build

    files = choose_inputs(rates, asked.inputs.get("rate"), ("_rateints", "_rate"), "slope images of darks")
    asked.talk.say(f"darks: {len(files)} exposures")
    named = {role: _named(options[role], asked.inputs.get(role), role) for role in COMPANIONS}
    look = _pictures(options["plot"])
    search_and_report(asked, "darks", files, darks_build.build_darks, "badpix.darks.build", named=named, look=look)


def _named(given: tuple[str, ...], in_file: Any, role: str) -> list[Path]:
    """Companions that the user named; none where they lie beside the rate files."""
    if not given and not in_file:
        return []
    return choose_inputs(given, in_file, (f"_{role}",), f"{role} files")


def _pictures(folder: str | None) -> Any:
    """What draws the pictures, or None; a missing matplotlib is told before the work."""
    if not folder:
        return None
    from badpix.io.figure import picture_folder
    from badpix.review.plots_darks import write_darks

    place = picture_folder(folder)
    return lambda found, opened, image: write_darks(found, opened, image, place)
