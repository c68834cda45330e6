"""``badpix darks``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from badpix.cli.common import (
    Command,
    collect,
    load_files,
    make_executor,
    option,
    parameter_options,
    share_memory,
    shared_options,
)
from badpix.cli.masks import (
    check_detector,
    choose_inputs,
    choose_output,
    evidence_option,
    input_options,
    output_option,
    report,
)
from badpix.cli.talk import Talk
from badpix.settings.darks import DarkSettings
from badpix.settings.reference import ReferenceSettings

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
    talk = ctx.obj = Talk(options)
    tree = load_files(options)
    p, inputs = collect(DarkSettings, tree, options)
    reference, _ = collect(ReferenceSettings, tree, options)
    check_detector(tree, options)
    share = share_memory(talk, options)
    from badpix.darks import build as darks_build
    from badpix.mask import header as mask_header

    texts = mask_header.check_texts(reference)
    files = choose_inputs(rates, inputs.get("rate"), ("_rateints", "_rate"), "slope images of darks")
    talk.say(f"darks: {len(files)} exposures")
    with make_executor(share.workers, options["dask"]) as executor, talk.progress("darks") as progress:
        product = darks_build.build_darks(
            files,
            p,
            choose_output(options, tree),
            texts=texts,
            named={role: _named(options[role], inputs.get(role), role) for role in COMPANIONS},
            overwrite=options["overwrite"],
            with_evidence=options["evidence"],
            skip_bad=options["skip_bad"],
            executor=executor,
            memory=share.band,
            progress=progress,
            look=_pictures(options["plot"]),
            detector=options["detector"] or tree.get("detector"),
        )
    report(talk, "badpix darks", product)


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
