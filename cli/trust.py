"""``badpix check``, ``compare``, ``report``, ``export``: what is in a mask, and can it be trusted?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from badpix.cli.common import (
    Command,
    collect,
    evidence_option,
    ignore_checksum_option,
    load_files,
    option,
    parameter_options,
    talk_options,
)
from badpix.cli.talk import Talk
from badpix.errors import UsageError
from badpix.outside import printable
from badpix.settings.check import CheckSettings

if TYPE_CHECKING:
    from badpix.review.check import Checked
    from badpix.review.compare import Comparison, History

MARKS = {"error": ("red", "error  "), "warning": ("yellow", "warning"), "note": ("cyan", "note   ")}


def _tables(blocks: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Any]]]]) -> None:
    """Tables on stdout: they are the result."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False, emoji=False)
    for title, columns, rows in blocks:
        if not rows:
            console.print(title, style="bold")
            continue
        room = (0, 1 if console.width >= 100 else 0)  # names stay whole on narrow terminals
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=room)
        for k, column in enumerate(columns):
            left = k == 0 or any(isinstance(r[k], str) and not r[k][:1].isdigit() and r[k] != "-" for r in rows)
            table.add_column(column, justify="left" if left else "right")
        for row in rows:
            table.add_row(*[f"{v:,}" if isinstance(v, int) else printable(v) for v in row])
        console.print(table)


# --- check -----------------------------------------------------------------------------------------------


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
        _tables([("", columns, rows)])


# --- compare ---------------------------------------------------------------------------------------------


@click.command(cls=Command, epilog="Example: badpix compare nrcb1_2025.fits nrcb1_2026.fits --output-dir changes")
@click.argument("masks", nargs=-1, required=True, metavar="OLD NEW [NEWER...]")
@option(
    "--regions",
    multiple=True,
    metavar="WORD",
    heading="Compare",
    help="Count by region too: amplifiers, quadrants, or NAME=x0:x1,y0:y1; may be repeated.",
)
@option(
    "--output-dir",
    metavar="DIR",
    heading="Compare",
    help="Write lists and images of what appeared and disappeared into DIR.",
)
@option("--top", type=click.IntRange(1), default=20, heading="Compare", help="Transitions to show.  [default: 20]")
@option("--overwrite", is_flag=True, heading="Compare", help="Replace existing outputs.")
@ignore_checksum_option("Compare")
@talk_options
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    masks: tuple[str, ...],
    regions: tuple[str, ...],
    output_dir: str | None,
    top: int,
    overwrite: bool,
    **options: Any,
) -> None:
    """What changed between masks of one detector?

    Two masks: transitions, and what appeared and disappeared, where both look; so a subarray mask is compared with
    its window of a full frame. Three and more: each pixel's history by USEAFTER: born, died, intermittent. Plain
    maps of other tools are taken as badpix merge takes them.
    """
    talk = ctx.obj = Talk(options)
    if len(masks) < 2:
        raise UsageError("masks: one given, expected two or more")
    from badpix.mask.merge import read_masks
    from badpix.review import compare as comparing
    from badpix.review.export_changes import write_comparison, write_history
    from badpix.settings.merge import MergeSettings

    p = MergeSettings().changed({"ignore_checksum": options["ignore_checksum"]}, "compare")
    found, notes = read_masks([Path(m) for m in masks], p)
    for note in notes:
        talk.note(note)
    boxes = comparing.parse_regions(regions, found[0].detector)
    written: list[Path] = []
    if len(found) == 2:
        old, new = found
        pair = comparing.compare(old, new)
        parts = {name: comparing.compare(old, new, region=box) for name, box in boxes.items()}
        summary = {**pair.summary(), "regions": {name: part.summary() for name, part in parts.items()}}
        if not options["as_json"]:
            _print_comparison(pair, parts, top)
        if output_dir:
            written = write_comparison(pair, output_dir, old.detector, overwrite)
    else:
        if regions:
            raise UsageError("--regions: for two masks only")
        history = comparing.follow(found)
        summary = history.summary()
        if not options["as_json"]:
            _print_history(history)
        if output_dir:
            written = write_history(history, output_dir, overwrite)
    if options["as_json"]:
        talk.finish("compare", written, {"masks": list(masks), **summary})
    elif written:
        talk.finish("compare", written, {})


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.4f}" if whole else "-"


def _print_comparison(found: Comparison, parts: dict[str, Comparison], top: int) -> None:
    n = int(found.science.sum())
    rows = [
        [
            c.flag,
            c.old,
            c.new,
            c.appeared,
            c.disappeared,
            c.kept,
            _percent(c.new, n),
            "-" if c.agreement is None else f"{c.agreement:.3f}",
        ]
        for c in found.changes
    ]
    columns = ["flag", "old", "new", "appeared", "disappeared", "kept", "new %", "agreement"]
    shown = found.transitions[:top]
    total = sum(t.pixels for t in found.transitions)
    title = f"Transitions: {total:,} pixels changed"
    if len(shown) < len(found.transitions):
        title += f", {len(shown)} of {len(found.transitions)} kinds shown"
    blocks: list[Any] = [(f"{n:,} science pixels compared", columns, rows)]
    blocks.append((title, ["from", "to", "pixels"], [[t.old, t.new, t.pixels] for t in shown]))
    for name, part in parts.items():
        rows = [[c.flag, c.old, c.new, c.appeared, c.disappeared, c.kept] for c in part.changes]
        blocks.append((f"{name}: {int(part.science.sum()):,} science pixels", columns[:6], rows))
    _tables(blocks)


def _print_history(found: History) -> None:
    def rate(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    columns = ["flag", "always", "born", "died", "intermittent", "born / month", "died / month"]
    rows = [
        [
            life.flag,
            life.always,
            life.born,
            life.died,
            life.intermittent,
            rate(life.born_per_month),
            rate(life.died_per_month),
        ]
        for life in found.lives
    ]
    counts = [[life.flag, *life.counts] for life in found.lives]
    days = [d[:10] for d in found.dates]
    title = f"{len(days)} masks over {found.months:.1f} months"
    _tables([(title, columns, rows), ("Science pixels by date", ["flag", *days], counts)])


# --- report ----------------------------------------------------------------------------------------------


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
    if Path(output).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {output}: the report is an HTML page; expected a name that ends in .html")
    from badpix.io.evidence import path_beside
    from badpix.io.output import check_target
    from badpix.io.selection import expand_inputs
    from badpix.review import check as checking
    from badpix.review import report as reporting

    given = [mask, evidence_file or path_beside(mask), *([against] if against else []), *([limits] if limits else [])]
    files = expand_inputs(ramps, ("_jump", "_uncal")) if ramps else []
    target = check_target(output, overwrite, [*given, *files])
    p, own = read_limits(limits, {**options, **dict.fromkeys(CheckSettings.names())})
    p = checking.limits_for(detector_of(Path(mask)), own, p, limits or "defaults")
    size = reporting.write_report(
        mask, target, p, against=against, evidence=evidence_file, ramps=files, overwrite=overwrite
    )
    talk.finish("report", [target], {"mask": mask, "bytes": size})


# --- export ----------------------------------------------------------------------------------------------


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
