"""``badpix prepare`` and ``badpix ramps``: raw ramps through the pipeline's first stage, and a look at its steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from badpix.cli.common import (
    Command,
    collect,
    load_files,
    make_executor,
    option,
    parameter_options,
    shared_options,
    talk_options,
)
from badpix.cli.masks import choose_inputs
from badpix.cli.talk import Talk
from badpix.errors import UsageError
from badpix.settings.prepare import PrepareSettings


@click.command(
    cls=Command,
    epilog="Example: badpix prepare 'raw/*_uncal.fits' --output-dir prepared --steps jump.rejection_threshold=5",
)
@click.argument("uncals", nargs=-1, metavar="UNCAL...")
@option("--output-dir", metavar="DIR", help="Folder for the products.")
@option(
    "--skip-bad", is_flag=True, help="Leave out exposures that fail, and say so, instead of ending with an error."
)
@shared_options
@parameter_options("prepare")
@click.pass_context
def prepare(ctx: click.Context, /, uncals: tuple[str, ...], output_dir: str | None, **options: Any) -> None:
    """Run the JWST pipeline's first stage over raw darks and flats, with the products that the searches need.

    UNCAL are raw ramps: files, folders, quoted globs, or @list.txt. What is there already and would not change is
    not done again; a run that was killed goes on where it ended. Needs the extra 'pipeline'.
    """
    talk = ctx.obj = Talk(options)
    p, inputs = collect(PrepareSettings, load_files(options), options)
    if not output_dir:
        raise UsageError("no output: give --output-dir DIR")
    from badpix.prepare import driver as preparing

    preparing.require_pipeline()
    files = choose_inputs(uncals, inputs.get("raw"), ("_uncal",), "raw ramps")
    talk.say(f"prepare: {len(files)} raw exposures")
    cluster = make_executor(1, options["dask"]) if options["dask"] else nullcontext(None)
    with cluster as executor, talk.progress("steps") as progress:
        found = preparing.prepare_all(
            files,
            p,
            output_dir,
            overwrite=options["overwrite"],
            skip_bad=options["skip_bad"],
            workers=options["workers"],
            executor=executor,
            progress=progress,
        )
    for path, why in found.failed:
        talk.note(f"left out: {path}: {why}")
    _report(talk, found)


def _report(talk: Talk, found: Any) -> None:
    first = found.records[0]
    versions = ", ".join(f"{k} {v}" for k, v in first["versions"].items() if k in ("jwst", "crds"))
    talk.say(f"{versions}; reference files: {first['references']}, CRDS context {first['context_used']}")
    talk.say(f"{len(found.done)} exposures run, {len(found.reused)} ready before")
    talk.table("Products", ("product", "files"), [(name, len(paths)) for name, paths in found.products.items()])
    summary = {
        "done": found.done,
        "reused": found.reused,
        "rejected": [{"file": str(path), "reason": why} for path, why in found.failed],
        "versions": first["versions"],
        "context": first["context_used"],
        "products": {name: [str(p) for p in paths] for name, paths in found.products.items()},
    }
    talk.finish("badpix prepare", [p for paths in found.products.values() for p in paths], summary)


@click.command(
    cls=Command, epilog="Example: badpix ramps prepared/jw09001002001_02101_00001_nrcb1_jump.fits --plot pictures"
)
@click.argument("files", nargs=-1, metavar="FILE...")
@option("--plot", metavar="DIR", heading="Ramps", help="Write pictures into DIR (PNG).")
@option(
    "--pixel",
    "pixels",
    nargs=2,
    type=int,
    multiple=True,
    metavar="X Y",
    heading="Ramps",
    help="Draw the ramp of a pixel after each step (x, y of the image, from 0); repeatable.",
)
@option(
    "--integration",
    type=click.IntRange(1),
    default=1,
    heading="Ramps",
    help="Integration that levels and pictures are of.  [default: 1]",
)
@talk_options
@click.pass_context
def ramps(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    plot: str | None,
    pixels: tuple[tuple[int, int], ...],
    integration: int,
    **options: Any,
) -> None:
    """Look at exposures on their way through the pipeline's first stage, step by step.

    FILE is any product of an exposure (_uncal, _dq_init, ..., _jump, _rate, _fitopt); the others are found beside
    it. Flags after dq_init, saturation, levels before and after superbias and refpix, linearity, jumps, and the
    reasons for slopes that are zero or NaN.
    """
    talk = ctx.obj = Talk(options)
    if pixels and not plot:
        raise UsageError("--pixel draws pictures: give --plot DIR as well")
    from badpix.io import exposure as exposures
    from badpix.io import selection
    from badpix.io.figure import picture_folder
    from badpix.prepare.products import SUFFIXES, find_products, open_products
    from badpix.review.exposure_ramps import look, table_rows

    if plot:
        picture_folder(plot)
    found = find_products(selection.expand_inputs(files, [f"_{s}" for s in SUFFIXES]))
    summary, pictures = [], []
    with exposures.unpacking() as workdir:
        for root, paths in found.items():
            opened = open_products(paths, workdir)
            steps = look(opened, integration - 1)
            summary.append({"exposure": root, "products": list(paths), "steps": {s.name: s.numbers for s in steps}})
            if not talk.as_json:
                _print_steps(root, table_rows(steps))
            if plot:
                from badpix.review import plots_exposure

                pictures += plots_exposure.write_ramps(opened, pixels, root, Path(plot), integration - 1)
    talk.finish("badpix ramps", pictures, {"exposures": summary})


def _print_steps(root: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """The table on stdout: it is the result."""
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table(title=root, title_justify="left", title_style="bold")
    for column, justify in (("step", "left"), ("quantity", "left"), ("value", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    last = ""
    for step, quantity, value in rows:
        if last and step != last:
            table.add_section()
        table.add_row(step if step != last else "", quantity, value)
        last = step
    Console(width=None if sys.stdout.isatty() else 118, markup=False, emoji=False).print(table)
