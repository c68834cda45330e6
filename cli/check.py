"""``badpix check``: is a mask valid and plausible?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from badpix.cli.common import (
    Command,
    collect,
    load_files,
    option,
    parameter_options,
    talk_options,
)
from badpix.cli.talk import Talk, print_tables
from badpix.errors import UsageError
from badpix.outside import printable
from badpix.settings.check import CheckSettings

if TYPE_CHECKING:
    from badpix.review.check import Checked

MARKS = {"error": ("red", "error  "), "warning": ("yellow", "warning"), "note": ("cyan", "note   ")}


@click.command(
    cls=Command,
    epilog="Example: badpix check nrcb1_mask.fits --against nrcb1_mask_2025.fits --pipeline",
)
@click.argument("masks", nargs=-1, required=True, metavar="MASK...")
@option("--against", metavar="OLD", heading="Check", help="Previous mask: jumps in the number of pixels are errors.")
@option(
    "--limits",
    metavar="FILE",
    heading="Check",
    help="YAML with a section check, and detectors: {NAME: {limit: value}} for single ones.",
)
@option(
    "--pipeline",
    is_flag=True,
    heading="Check",
    help="Also run the pipeline's DQInitStep with this mask, and crds certify (extra 'pipeline').",
)
@option(
    "--exposure",
    metavar="FILE",
    heading="Check",
    help="Raw exposure for the pipeline; a synthetic one is made without it.",
)
@parameter_options("check")
@talk_options
@click.pass_context
def check(
    ctx: click.Context,
    /,
    masks: tuple[str, ...],
    against: str | None,
    limits: str | None,
    pipeline: bool,
    exposure: str | None,
    **options: Any,
) -> None:
    """Is a MASK valid and plausible? Exit status 3 if not.

    Every rule of the format is checked on the file, without a network; then the share of flagged pixels, the policy
    of DO_NOT_USE, and what changed since the previous mask.
    """
    talk = ctx.obj = Talk(options)
    p, own = read_limits(limits, options)
    from badpix.io.selection import expand_inputs
    from badpix.review import check as checking

    files = [f for f in expand_inputs(masks, ("_mask", "")) if not f.name.endswith("_evidence.fits")]
    if not files:
        raise UsageError(f"{', '.join(masks)}: evidence, no mask")
    results = []
    for path in files:
        values = checking.limits_for(detector_of(path), own, p, limits or "command line")
        results.append(
            checking.check_mask(
                path, values, against=against, pipeline=pipeline or exposure is not None, exposure=exposure
            )
        )
        if not options["as_json"]:
            print_checked(results[-1], talk)
    passed = all(r.passed for r in results)
    if options["as_json"]:
        summary = {"passed": passed, "masks": [r.summary() for r in results]}
        talk.finish("check", [], summary | ({} if passed else {"status": "failed"}))
    ctx.exit(0 if passed else 3)


def read_limits(limits: str | None, options: dict[str, Any]) -> tuple[CheckSettings, dict[str, Any]]:
    """Checked limits, and the whole tree of the limits file for those of single detectors."""
    tree = load_files({"params_files": [limits] if limits else []})
    known = {"check", "detectors"}
    for key in tree:
        if key not in known:
            raise UsageError(f"{limits}: section {key!r} is not used here; expected {', '.join(sorted(known))}")
    p, _ = collect(CheckSettings, tree, {**options, "params_files": (limits,) if limits else ()})
    return p, tree


def detector_of(path: Path) -> str:
    from badpix.errors import DataError
    from badpix.io.exposure import open_exposure

    try:
        return str(open_exposure(path, names=()).header.get("DETECTOR", ""))
    except DataError:
        return ""


def print_checked(result: Checked, talk: Talk) -> None:
    """What was found in one mask, on stdout."""
    click.secho(f"{printable(result.path)}: {'passed' if result.passed else 'FAILED'}", bold=True)
    for fault in result.faults:
        color, word = MARKS[fault.severity]
        click.echo(f"  {click.style(word, fg=color)}  {fault.rule}: {printable(fault.message)}")
    for answer in result.answers:
        if answer.status == "passed":
            click.echo(f"  {click.style('passed', fg='green')}   {answer.client}")
        for row in answer.rows if not talk.quiet else []:
            click.echo(f"           {row['flag']}: {row['mask']:,} in the mask, {row['pipeline']:,} in PIXELDQ")
        for message in answer.messages if answer.status == "passed" else []:
            click.echo(f"           {message}")
    if result.flags and not talk.quiet:
        old = any("previous" in r for r in result.flags)
        columns = ["flag", "pixels", "% of science", "limit %", *(["previous"] if old else [])]
        rows = [
            [
                r["flag"],
                r["pixels"],
                f"{r['percent']:.4f}",
                f"{r['limit']:g}" if r["limit"] is not None else "-",
                *([r.get("previous", 0)] if old else []),
            ]
            for r in result.flags
        ]
        print_tables([("", columns, rows)])
