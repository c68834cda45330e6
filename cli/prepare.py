"""``badpix prepare`` and ``badpix ramps``: raw ramps through the pipeline's first stage, and a look at its steps."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click

from badpix.cli.common import (
    Command,
    Option,
    Talk,
    collect,
    load_files,
    make_executor,
    parameter_options,
    shared_options,
)
from badpix.cli.masks import choose_inputs
from badpix.errors import UsageError


@click.command(
    cls=Command,
    epilog="Example: badpix prepare 'raw/*_uncal.fits' --output-dir prepared --steps jump.rejection_threshold=5",
)
@click.argument("uncals", nargs=-1, metavar="UNCAL...")
@click.option("--output-dir", metavar="DIR", cls=Option, heading="General", help="Folder for the products.")
@click.option("--skip-bad", is_flag=True, cls=Option, heading="General",
              help="Leave out exposures that fail, and say so, instead of ending with an error.")  # fmt: skip
@shared_options
@parameter_options("prepare")
@click.pass_context
def prepare(ctx: click.Context, uncals: tuple[str, ...], output_dir: str | None, **options: Any) -> None:
    """Run the JWST pipeline's first stage over raw darks and flats, with the products that the searches need.

    UNCAL are raw ramps: files, folders, quoted globs, or @list.txt. What is there already and would not change is
    not done again; a run that was killed goes on where it ended. Needs the extra 'pipeline'.
    """
    talk = ctx.obj = Talk(options)
    p, inputs = collect("prepare", load_files(options), options)
    if not output_dir:
        raise UsageError("no output: give --output-dir DIR")
    from badpix import prepare as preparing

    preparing.require_pipeline()
    files = choose_inputs(uncals, inputs.get("raw"), ("_uncal",), "raw ramps")
    talk.say(f"prepare: {len(files)} raw exposures")
    cluster = make_executor(1, options["dask"]) if options["dask"] else nullcontext(None)
    with cluster as executor, talk.progress("steps") as tick:
        found = preparing.prepare_all(
            files,
            p,
            output_dir,
            overwrite=options["overwrite"],
            skip_bad=options["skip_bad"],
            workers=options["workers"],
            executor=executor,
            tick=tick,
            say=talk.detail,
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
