"""``badpix deliver`` and ``badpix init``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from badpix.cli.common import Command, option, talk_options
from badpix.cli.talk import Talk

INSTRUMENTS = ("nircam", "miri", "niriss", "nirspec", "fgs")


@click.command(
    cls=Command,
    epilog="Example: badpix deliver nrcb1_mask.fits --against jwst_nircam_mask_0063.fits --output-dir send",
)
@click.argument("mask", type=click.Path())
@option("--output-dir", metavar="DIR", type=click.Path(), required=True, heading="Deliver", help="Folder to write.")
@option(
    "--against",
    metavar="OLD",
    type=click.Path(),
    heading="Deliver",
    help="The mask in use: jumps against it are errors, and the differences are listed.",
)
@option("--limits", metavar="FILE", type=click.Path(), heading="Deliver", help="Limits, as for badpix check.")
@option(
    "--exposure",
    metavar="FILE",
    type=click.Path(),
    heading="Deliver",
    help="Raw exposure for the pipeline; a synthetic one is made without it.",
)
@option(
    "--no-pipeline",
    is_flag=True,
    heading="Deliver",
    help="Don't ask the pipeline and CRDS: the delivery is not complete then.",
)
@option("--overwrite", is_flag=True, heading="Deliver", help="Replace what is in the folder.")
@talk_options
@click.pass_context
def deliver(
    ctx: click.Context,
    /,
    mask: str,
    output_dir: str,
    against: str | None,
    limits: str | None,
    exposure: str | None,
    no_pipeline: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Check a MASK as for a delivery, and write the folder that is sent. Exit status 3 if it must not be.

    All checks, warnings as errors, with the pipeline's DQInitStep and crds certify; an author, a description and
    reasons must be given. The folder gets the mask, its evidence, the report, what changed, what the clients said,
    and the text of the delivery form.
    """
    talk = ctx.obj = Talk(options)
    from badpix.cli.check import detector_of, print_checked, read_limits
    from badpix.review import check as checking
    from badpix.review import deliver as delivering

    p, own = read_limits(limits, options)
    values = checking.limits_for(detector_of(Path(mask)), own, p, limits or "command line")
    old = Path(against) if against else None
    checked = delivering.check_delivery(
        Path(mask), values, against=old, pipeline=not no_pipeline, exposure=Path(exposure) if exposure else None
    )
    if not talk.as_json:
        print_checked(checked, talk)
    if not checked.passed:
        if talk.as_json:
            talk.finish("badpix deliver", [], {**checked.summary(), "status": "failed"})
        else:
            rules = dict.fromkeys(f.rule for f in checked.faults if f.severity != "note")  # warnings count, too
            talk.error(f"{mask}: not delivered ({', '.join(rules)}: see above); nothing was written")
        ctx.exit(3)
    written = delivering.write_delivery(
        Path(mask), Path(output_dir), checked, values, against=old, overwrite=overwrite
    )
    talk.finish("badpix deliver", written, checked.summary())


@click.command(
    cls=Command, epilog="Example: badpix init masks --instrument nircam --detectors NRCB1 --detectors NRCB2"
)
@click.argument("directory", type=click.Path())
@option(
    "--instrument",
    type=click.Choice(INSTRUMENTS, case_sensitive=False),
    required=True,
    heading="Init",
    help="Whose masks are to be made.",
)
@option(
    "--detectors",
    multiple=True,
    metavar="NAME",
    heading="Init",
    help="Only this detector; may be repeated.  [default: all]",
)
@option(
    "--base",
    metavar="FILE",
    type=click.Path(),
    heading="Init",
    help="Mask in use that is brought up to date; {detector} is filled in.",
)
@option("--overwrite", is_flag=True, heading="Init", help="Replace files that are there.")
@talk_options
@click.pass_context
def init(
    ctx: click.Context,
    /,
    directory: str,
    instrument: str,
    detectors: tuple[str, ...],
    base: str | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Make a folder to rebuild masks in: YAML, folders for exposures, manual list, crontab line."""
    talk = ctx.obj = Talk(options)
    from badpix.rebuild.starter import write_start

    names = [name for word in detectors for name in word.replace(",", " ").split()]
    written = write_start(directory, instrument, names, base, overwrite)
    talk.say(f"put exposures into {directory}/flats/ and {directory}/darks/, then: badpix rebuild {written[0]}")
    talk.finish("badpix init", written, {"instrument": instrument})
