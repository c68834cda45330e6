"""``badpix flats`` and ``badpix merge``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from badpix.cli.common import (
    Command,
    collect,
    load_files,
    make_executor,
    option,
    parameter_options,
    parse_size,
    share_memory,
    shared_options,
    stack,
)
from badpix.cli.talk import Talk
from badpix.errors import UsageError
from badpix.settings.flats import FlatSettings
from badpix.settings.merge import MergeSettings
from badpix.settings.reference import ReferenceSettings

if TYPE_CHECKING:
    from pathlib import Path

    from badpix.io.workers import Share
    from badpix.mask.product import Product
    from badpix.settings.param import Settings


# of the commands that write one mask
output_option = option(
    "-o", "--output", metavar="FILE", help="MASK file to write; {instrument}, {detector} and {date} are filled in."
)
evidence_option = option(
    "--evidence/--no-evidence", default=True, help="Write what each flag was decided on beside the mask."
)
input_options = stack(
    option("--skip-bad", is_flag=True, help="Leave out files that can't be used, and say so, instead of stopping."),
    option("--plot", metavar="DIR", help="Write pictures into DIR (PNG)."),
    option(
        "--detector", metavar="NAME", help="Detector that the files must be of; with --skip-bad others are left out."
    ),
)


@dataclass(frozen=True)
class Asked:
    """What the command line and the YAML of a command that searches say: parameters, named inputs, texts, memory."""

    talk: Talk
    options: Mapping[str, Any]
    tree: Mapping[str, Any]
    p: Any
    inputs: Mapping[str, Any]
    texts: ReferenceSettings
    share: Share


def read_asked(ctx: click.Context, options: dict[str, Any], settings: type[Settings]) -> Asked:
    """Check everything that can be checked before files are opened.

    Raises
    ------
    UsageError
        At parameters that are wrong.
    """
    talk = ctx.obj = Talk(options)
    tree = load_files(options)
    p, inputs = collect(settings, tree, options)
    reference, _ = collect(ReferenceSettings, tree, options)
    check_detector(tree, options)
    share = share_memory(talk, options)
    from badpix.mask import header as mask_header

    return Asked(talk, options, tree, p, inputs, mask_header.check_texts(reference), share)


def search_and_report(
    asked: Asked, name: str, files: list[Path], build: Callable[..., Product], module: str = "", **more: Any
) -> None:
    """Run a search, show how far it is, and report what it wrote.

    Parameters
    ----------
    asked : Asked
        From :func:`read_asked`.
    name : str
        Of the command.
    files : list of Path
        Exposures.
    build : callable
        ``build(files, p, target, ...)`` of the search.
    module : str
        That of its tasks, for workers that keep their memory (:func:`badpix.io.workers.make_executor`).
    **more
        What this search alone takes.
    """
    from badpix.io.exposure import count_pixels
    from badpix.io.workers import check_memory

    options, talk = asked.options, asked.talk
    total = parse_size(options["max_memory"], "") if options["max_memory"] and not options["dask"] else None
    check_memory(total, name, count_pixels(files) if total else 0, evidence=options["evidence"])
    with make_executor(asked.share.workers, options["dask"], module) as executor, talk.progress(name) as progress:
        product = build(
            files,
            asked.p,
            choose_output(options, asked.tree),
            texts=asked.texts,
            overwrite=options["overwrite"],
            with_evidence=options["evidence"],
            skip_bad=options["skip_bad"],
            executor=executor,
            memory=asked.share.band,
            progress=progress,
            detector=options["detector"] or asked.tree.get("detector"),
            **more,
        )
    report(talk, f"badpix {name}", product)


def choose_output(options: Mapping[str, Any], tree: Mapping[str, Any]) -> Path:
    """Where the mask goes: ``-o``, else ``output`` of the YAML.

    Raises
    ------
    UsageError
        If neither says it: nothing is written to the current directory unasked.
    """
    name = options.get("output") or tree.get("output")
    if not name:
        raise UsageError("no output: give -o FILE, or output: in the YAML")
    from pathlib import Path

    return Path(name)


def choose_inputs(given: tuple[str, ...], named: Any, suffixes: tuple[str, ...], what: str) -> list[Path]:
    """Input files: those of the command line, else those of the YAML.

    Raises
    ------
    UsageError
        If there is none.
    """
    from badpix.io.selection import expand_inputs

    names = list(given) or ([named] if isinstance(named, str) else list(named or []))
    if not names:
        raise UsageError(f"no {what}: name files, folders or quoted globs, or give them in the YAML")
    return expand_inputs(names, suffixes)


def check_detector(tree: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Nothing yet read tells the detector, but a wrong name in the YAML is refused at once."""
    from badpix import detectors

    for name, where in ((tree.get("detector"), "detector"), (options.get("detector"), "--detector")):
        if name:
            source = f"{', '.join(options['params_files'])}: {where}" if where == "detector" else where
            detectors.choose(str(name), source)


def say_number(number: int, word: str) -> str:
    """A number and what it counts: 1 mask, 2 masks."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def report(talk: Talk, command: str, product: Product, inputs: str = "") -> None:
    """The summary of a mask command: inputs, counts, limits, notes, and the result on stdout.

    A search is listed beside the flags where its name or its number is not that of a flag.
    """
    if product.judged:
        from badpix.flats.judged import headline

        talk.say(headline(product.judged))
    for name, why in product.rejected:
        talk.note(f"rejected: {name}: {why}")
    for note in product.notes:
        talk.note(note)
    talk.say(f"{inputs or say_number(len(product.inputs), 'input')}, {product.science_pixels:,} science pixels")
    n = max(product.science_pixels, 1)
    searches = {k: v for k, v in product.searches.items() if product.flags.get(k.upper()) != v}
    kinds = {"flag": product.flags, "search": searches}
    rows = [(kind, k, v, f"{100 * v / n:.4f}") for kind, found in kinds.items() for k, v in found.items()]
    talk.table("Flagged pixels", ["", "type", "pixels", "% of science"], rows)
    limits = [
        (
            r["search"],
            r["quantity"],
            f"{r['comparison']} {r['limit']:.6g}"
            if not isinstance(r["limit"], str)
            else f"{r['comparison']} {r['limit']}",
            r["unit"],
        )
        for r in product.limits
    ]
    changes = [
        (name, *(row[k] for k in ("confirmed", "new", "recovered", "retyped", "not_testable")))
        for name, row in product.changes.items()
    ]
    columns = ["flag", "confirmed", "new", "recovered", "other type", "not testable"]
    talk.table("Against the older mask", columns, changes)
    for name, row in product.changes.items():
        for why, n in row["reasons"].items():
            talk.say(f"  {name}: {n:,} not testable: {why}")
    if talk.verbose:
        talk.table("limits", ["search", "quantity", "limit", "unit"], limits)
    beside = [product.evidence] if product.evidence else []
    talk.finish(command, [product.path], product.summary(), beside)


@click.command(cls=Command, epilog="Example: badpix flats 'flats/*_rate.fits' --manual pixels.txt -o nrcb1_mask.fits")
@click.argument("rates", nargs=-1, metavar="RATE...")
@option("--uncal", multiple=True, metavar="FILE", help="Raw flats (flux check).")
@option(
    "--manual",
    "manual_flag",
    metavar="FILE",
    help="List of pixels to add (x y flag): the same as --manual-flag-file.",
)
@output_option
@evidence_option
@input_options
@shared_options
@parameter_options("flats", "reference")
@click.pass_context
def flats(ctx: click.Context, /, rates: tuple[str, ...], uncal: tuple[str, ...], **options: Any) -> None:
    """Find DEAD, LOW_QE, OPEN and ADJ_OPEN pixels in flat-field exposures.

    RATE are slope images (rate or rateints) of one detector: files, folders, quoted globs, or @list.txt.
    """
    options["manual_flag_file"] = options.pop("manual_flag") or options["manual_flag_file"]
    asked = read_asked(ctx, options, FlatSettings)
    from badpix.flats import build

    files = choose_inputs(rates, asked.inputs.get("rate"), ("_rate", "_rateints"), "slope images of flats")
    named = asked.inputs.get("uncal")
    raws = choose_inputs(uncal, named, ("_uncal",), "raw flats") if uncal or named else []
    asked.talk.say(f"flats: {say_number(len(files), 'slope image')}")
    look = _pictures(options["plot"])
    search_and_report(asked, "flats", files, build.build_flats, uncals=raws, look=look)


def _pictures(folder: str | None) -> Any:
    """What draws the pictures, or None; a missing matplotlib is told before the work."""
    if not folder:
        return None
    from badpix.io.figure import picture_folder
    from badpix.review.plots import describe, write_flats

    place = picture_folder(folder)
    return lambda found, used, image: write_flats(found, image, place, describe(used))


@click.command(
    cls=Command, epilog="Example: badpix merge flats.fits darks.fits --manual pixels.txt -o nrcb1_mask.fits"
)
@click.argument("masks", nargs=-1, metavar="MASK...")
@output_option
@evidence_option
@shared_options
@option(
    "--manual", "manual_files", multiple=True, metavar="FILE", help="Manual list to add (x y flag); may be repeated."
)
@parameter_options("merge", "reference", without=("manual", "masks"))
@click.pass_context
def merge(ctx: click.Context, /, masks: tuple[str, ...], manual_files: tuple[str, ...], **options: Any) -> None:
    """Combine masks (from flats, from darks, older ones) and manual lists into one MASK.

    MASK may also be a plain bad-pixel image of another tool; all its non-zero pixels get --plain-flag. HOT wins
    over DEAD.
    """
    talk = ctx.obj = Talk(options)
    tree = load_files(options)
    p, inputs = collect(MergeSettings, tree, options)
    lists = list(manual_files) or p.manual or list(inputs.get("manual") or [])
    reference, _ = collect(ReferenceSettings, tree, options)
    check_detector(tree, options)
    from badpix.mask import header as mask_header
    from badpix.mask import merge as merging

    texts = mask_header.check_texts(reference)
    files = choose_inputs(masks, p.masks or inputs.get("masks"), ("_mask", ""), "masks")
    product = merging.build_merge(
        files,
        replace(p, manual=lists, masks=[str(f) for f in files]),
        choose_output(options, tree),
        texts=texts,
        overwrite=options["overwrite"],
        with_evidence=options["evidence"],
        detector=tree.get("detector"),
    )
    counted = say_number(len(files), "mask") + (f", {say_number(len(lists), 'manual list')}" if lists else "")
    report(talk, "badpix merge", product, counted)
