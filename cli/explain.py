"""``badpix explain``: why a pixel is flagged, or why not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from badpix import __version__, dq
from badpix.cli.common import Command, evidence_option, ignore_checksum_option, option, talk_options
from badpix.cli.talk import Talk
from badpix.errors import UsageError

if TYPE_CHECKING:
    from badpix.review.explain import Explanation


@click.command(cls=Command, epilog="Example: badpix explain nrcb1_mask.fits 1023 77 --ramps 'darks/*_jump.fits'")
@click.argument("mask")
@click.argument("pixels", nargs=-1, metavar="[X Y | X,Y | @LIST]...")
@option(
    "--radec",
    nargs=2,
    type=float,
    metavar="RA DEC",
    heading="Exposures",
    help="Pixel of an exposure at this position (degrees), through its WCS.",
)
@option(
    "--mask",
    "used_mask",
    metavar="FILE",
    type=click.Path(),
    heading="Exposures",
    help="Mask that an exposure was made with.  [default: R_MASK, in the CRDS cache]",
)
@option("--flag", metavar="NAME", heading="Pixels", help="Explain pixels with this flag.")
@option(
    "--worst",
    type=click.IntRange(1),
    default=None,
    metavar="N",
    heading="Pixels",
    help="How many of --flag: those farthest beyond the limit.  [default: 10]",
)
@option("--one-based", is_flag=True, heading="Pixels", help="Count X and Y from 1 (FITS, DS9) instead of 0.")
@evidence_option("Evidence")
@option(
    "--ramps",
    multiple=True,
    metavar="FILE",
    heading="Evidence",
    help="Exposures with groups (jump or uncal) whose ramps are drawn; may be repeated.",
)
@option("--png", metavar="DIR", heading="Evidence", help="Write the ramps as pictures into DIR.")
@ignore_checksum_option("Evidence")
@option("--numbers", is_flag=True, heading="Evidence", help="Print all quantities, not the sentences alone.")
@talk_options
@click.pass_context
def explain(
    ctx: click.Context,
    /,
    mask: str,
    pixels: tuple[str, ...],
    flag: str | None,
    worst: int | None,
    one_based: bool,
    evidence_file: str | None,
    ramps: tuple[str, ...],
    png: str | None,
    numbers: bool,
    radec: tuple[float, float] | None,
    used_mask: str | None,
    **options: Any,
) -> None:
    """Why is a pixel flagged, or why not?

    X and Y are 0-based, of the full frame. The numbers come from the evidence beside the mask (--evidence of flats,
    darks and science). -v also says why the other searches did not find it.

    MASK may also be an exposure (rate, rateints, cal, crf), with X and Y of its own image or --radec: what the bits
    of its DQ mean, which step set them, and why, where the mask that was used is at hand.
    """
    talk = ctx.obj = Talk(options)
    if _is_exposure(mask):
        _explain_exposure(talk, mask, pixels, radec, one_based, used_mask, numbers)
        return
    if radec or used_mask:
        raise UsageError(f"{mask}: is a mask; --radec and --mask are for exposures")
    from badpix.io.selection import expand_inputs
    from badpix.mask import file as mask_file
    from badpix.review import choose, readings
    from badpix.review import explain as explaining

    found = mask_file.read_mask(mask, check_sums=not options["ignore_checksum"])
    if worst and not flag:
        raise UsageError("--worst needs --flag")
    files = expand_inputs(ramps, ("_jump", "_uncal")) if ramps else []
    with readings.open_evidence(found, evidence_file) as (evidence, note):
        if note:
            talk.note(note)
        chosen = choose.parse_pixels(pixels, one_based)
        chosen += choose.find_worst(found, evidence, flag, worst or 10) if flag else []
        if not chosen and not flag:
            raise UsageError("no pixel: give X Y, or --flag NAME --worst N")
        if flag and not chosen:
            talk.say(f"no pixel has {flag.upper()}")
        items = [explaining.explain(found, evidence, x, y) for x, y in chosen]
    for item in items:
        if not options["as_json"]:
            _print_pixel(item, numbers, talk.verbose)
        if files:
            _show_ramps(talk, files, item, png, options["as_json"])
    if options["as_json"]:
        talk.finish("explain", [], {"mask": mask, **explaining.summarize(items)})


def _is_exposure(name: str) -> bool:
    """Whether a file is an exposure; what can't be read is left to the reader of masks, which says why."""
    from badpix.errors import DataError
    from badpix.mask import file as mask_file

    try:
        return mask_file.is_exposure(name)
    except DataError:
        return False


def _explain_exposure(
    talk: Talk,
    name: str,
    pixels: tuple[str, ...],
    radec: tuple[float, float] | None,
    one_based: bool,
    used_mask: str | None,
    numbers: bool,
) -> None:
    """Pixels of an exposure: values, bits in words, what the mask says."""
    from badpix.review import choose
    from badpix.review import exposure_pixel as lost

    chosen = choose.parse_pixels(pixels, one_based)
    chosen += [lost.find_pixel(name, *radec)] if radec else []
    if not chosen:
        raise UsageError("no pixel: give X Y, or --radec RA DEC")
    items = [lost.explain_pixel(name, x, y, used_mask) for x, y in chosen]
    for item in items:
        for note in item.notes:
            talk.note(note)
        if talk.as_json:
            continue
        flags = " ".join(dq.names(item.value)) or "no flag"
        place = "" if item.full == (item.x, item.y) else f", full frame ({item.full[0]}, {item.full[1]})"
        click.secho(f"({item.x}, {item.y}){place}  {flags}", bold=True)
        for k, (value, error, bits) in enumerate(item.integrations, 1):
            if len(item.integrations) == 1 or numbers:
                label = f"integration {k}: " if len(item.integrations) > 1 else ""
                click.echo(f"  {label}{value:.5g} +- {error:.3g} {item.unit}, DQ = {bits}".rstrip())
        for sentence in item.sentences:
            click.echo(_wrapped(sentence))
        if item.mask is not None and item.mask.flags:
            click.echo(f"  In {item.mask_name}:")
            for sentence in item.mask.sentences:
                click.echo(_wrapped(f"  {sentence}"))
    if talk.as_json:
        talk.finish("explain", [], {"exposure": name, "pixels": [item.summary() for item in items]})


def _print_pixel(item: Explanation, numbers: bool, verbose: bool) -> None:
    """Why it is flagged; why it is not, for a good pixel or with ``-v``."""
    click.secho(f"({item.x}, {item.y})  {item.title}", bold=True)
    for sentence in [*item.sentences, *(item.others if verbose or not item.flags else [])]:
        click.echo(_wrapped(sentence))
    for search in item.searches if numbers else []:
        for votes in search.votes:
            click.echo(
                f"  {votes.quantity} by integration, as measured: " + " ".join(f"{v:.4g}" for v in votes.values)
            )
    if numbers:
        from badpix.review.readings import CANDIDATES_ONLY, is_candidate

        hidden = not is_candidate(item.quantities)
        for name, value in item.quantities.items():
            shown = "not kept (no candidate)" if hidden and name in CANDIDATES_ONLY else f"{value:.6g}"
            click.echo(f"    {name:28s} {shown}")


def _wrapped(sentence: str) -> str:
    """Lines of a terminal's width; one line where another program reads."""
    if not sys.stdout.isatty():
        return f"  {sentence}"
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(sentence, width, initial_indent="  ", subsequent_indent="    ")


def _show_ramps(talk: Talk, files: Sequence[Path], item: Explanation, png: str | None, quiet: bool) -> None:
    """Ramps of a pixel in the terminal (stdout), and as a picture if asked."""
    from badpix.review import pixel_ramps as reading

    found = reading.read_ramps(files, item.x, item.y)
    if not quiet:
        for ramp in found:
            click.echo(reading.draw_text(ramp))
    if png:
        from badpix.io.figure import picture_folder
        from badpix.review.plots_ramps import draw_ramps

        path = picture_folder(png) / f"ramps_x{item.x}_y{item.y}.png"
        talk.say(f"wrote {draw_ramps(found, f'({item.x}, {item.y}) {item.title}', path, f'badpix {__version__}')}")
