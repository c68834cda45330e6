"""``badpix science``."""

from __future__ import annotations

from typing import Any

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
from badpix.settings.science import ScienceSettings


@click.command(
    cls=Command,
    epilog="Example: badpix science 'cal/*_nrcb1_cal.fits' --from flagged -o nrcb1_candidates.fits",
)
@click.argument("files", nargs=-1, metavar="RATE_OR_CAL...")
@option(
    "--from",
    "flagged",
    multiple=True,
    metavar="DIR",
    help="Folder of exposures that `outlier ifu` or `outlier image` flagged; may be repeated.",
)
@output_option
@evidence_option
@input_options
@shared_options
@parameter_options("science", "reference")
@click.pass_context
def science(ctx: click.Context, /, files: tuple[str, ...], flagged: tuple[str, ...], **options: Any) -> None:
    """Find hot, warm, low, noisy and switching pixels in science exposures of any targets.

    RATE_OR_CAL are slope images (rate, cal, or flagged copies of them) of one detector: files, folders, quoted globs,
    or @list.txt. Sources move while the telescope does and pixels do not: the exposures must be of several pointings
    and visits, or the command refuses. What it writes is a MASK for `badpix merge`.
    """
    asked = read_asked(ctx, options, ScienceSettings)
    from badpix.io.workers import keep_memory
    from badpix.science import build

    named = choose_inputs((*files, *flagged), asked.inputs.get("rate"), build.SUFFIXES, "science exposures")
    asked.talk.say(f"science: {len(named)} exposures")
    keep_memory()
    search_and_report(asked, "science", named, build.build_science, look=_pictures(options["plot"]))


def _pictures(folder: str | None) -> Any:
    """What draws the pictures, or None; a missing matplotlib is told before the work."""
    if not folder:
        return None
    from badpix.io.figure import picture_folder
    from badpix.review.plots_science import write_science

    place = picture_folder(folder)
    return lambda found, used, image: write_science(found, used, image, place)
