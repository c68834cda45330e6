"""``badpix simulate`` and ``badpix score``: exposures with known defects, and how many of them a mask has."""

from __future__ import annotations

from typing import Any

import click

from badpix.cli.common import (
    Command,
    collect,
    load_files,
    make_executor,
    option,
    parameter_options,
    parse_size,
    shared_options,
    talk_options,
)
from badpix.cli.talk import Talk
from badpix.errors import DataError, UsageError
from badpix.settings.simulate import SimulateSettings


@click.command(
    cls=Command,
    epilog="Example: badpix simulate sim --detector MIRIMAGE --size '256 256' --flats 5 --darks 10 --dark-groups 50",
)
@click.argument("directory")
@parameter_options("simulate")
@shared_options
@click.pass_context
def simulate(ctx: click.Context, directory: str, **options: Any) -> None:
    """Write simulated flats and darks of one detector into DIRECTORY, with the truth beside them.

    Defects of all types are put in at several levels: isolated, touching, in clusters, along the edges and in the
    corners. Equal seeds give equal files, whatever the number of workers.
    """
    talk = ctx.obj = Talk(options)
    values, _ = collect(SimulateSettings, load_files(options), options)
    from badpix.simulation.files import make_recipe
    from badpix.simulation.files import simulate as write

    recipe = make_recipe(values)
    ny, nx = recipe.shape
    need = 105_000_000 + 50 * nx * ny  # imports and bands; the detector's maps
    if options["max_memory"] and parse_size(options["max_memory"], "2G") < need:
        raise UsageError(f"--max-memory {options['max_memory']}: {nx} x {ny} pixels need {need / 1e6:.0f}M a process")
    talk.say(f"simulating {recipe.detector.name}, {nx} x {ny} pixels, {values.flats} flats, {values.darks} darks")
    with make_executor(options["workers"], options["dask"]) as executor, talk.progress("exposures") as tick:
        written = write(directory, values, executor, options["overwrite"], tick)
    rows = [(kind, len(paths), str(paths[0].parent) if paths else "-") for kind, paths in written.items()]
    talk.table("Files", ("kind", "files", "folder"), rows)
    talk.finish("simulate", written["truth"], {"files": {k: [str(p) for p in v] for k, v in written.items()}})


@click.command(cls=Command, epilog="Example: badpix score nrcalong_mask.fits sim/nrcalong_truth.fits --search flats")
@click.argument("files", nargs=-1, required=True, metavar="MASK TRUTH [MASK TRUTH]...")
@option(
    "--search",
    type=click.Choice(["all", "flats", "darks"]),
    default="all",
    heading="Score",
    help="Types to count.  [default: all]",
)
@option(
    "--by-setting",
    is_flag=True,
    heading="Score",
    help="Also where the defects stand: isolated, edge, corner, pair, cluster.",
)
@talk_options
@click.pass_context
def score(ctx: click.Context, files: tuple[str, ...], search: str, by_setting: bool, **options: Any) -> None:
    """Compare a MASK with the TRUTH of its simulation: completeness, purity, false positives.

    Several pairs are counted together. Good pixels are those without any injected defect, ADJ_OPEN included.
    """  # fmt: skip
    talk = ctx.obj = Talk(options)
    if len(files) % 2:
        raise UsageError(f"files come in pairs MASK TRUTH; found {len(files)}")
    from badpix.mask import file as mask_file
    from badpix.simulation import score_mask as scoring
    from badpix.simulation.files import read_truth

    masks = []
    for mask, truth_file in zip(files[::2], files[1::2], strict=True):
        flags = mask_file.read_mask(mask).image
        header, truth, defects = read_truth(truth_file)
        if flags.shape != truth.shape:
            raise DataError(f"{mask}: image is {flags.shape[1]} x {flags.shape[0]}, expected "
                            f"{truth.shape[1]} x {truth.shape[0]} as in {truth_file}")  # fmt: skip
        masks.append((flags, truth, defects))
        talk.detail(f"{mask}: {header['DETECTOR']}, {len(defects)} defects")
    result = scoring.score(masks, search)
    if options["as_json"]:
        talk.finish("score", [], result)
    else:
        _print_tables(result, by_setting)


def _print_tables(result: Any, by_setting: bool) -> None:
    """The two tables on stdout: they are the result."""
    import sys

    from rich.console import Console
    from rich.table import Table

    from badpix.simulation.score_mask import LOUD

    console = Console(width=None if sys.stdout.isatty() else 118)
    table = Table(title="Completeness", title_justify="left", title_style="bold")
    for column in ("type", "level", "injected", "found", "flagged", "%", "95 % interval"):
        table.add_column(column, justify="left" if column == "type" else "right")
    for row in result["completeness"]:
        if row["injected"] and (by_setting or row["setting"] in ("all", "natural", LOUD)):
            low, high = row["interval"]
            level = f"{row['level']:g} {row['unit']}" if row["level"] is not None else row["setting"]
            table.add_row(
                row["type"], level, f"{row['injected']:,}", f"{row['found']:,}", f"{row['flagged']:,}",
                f"{100 * row['completeness']:.1f}", f"{100 * low:.1f} - {100 * high:.1f}",
            )  # fmt: skip
    console.print(table)
    table = Table(title="Flags", title_justify="left", title_style="bold")
    columns = ("flag", "set", "right", "other defect", "false", "beside a defect", "purity %", "false per million")
    for column in columns:
        table.add_column(column, justify="left" if column == "flag" else "right")
    for row in result["flags"]:
        low, high = row["false_per_million_interval"]
        purity = "-" if row["purity"] is None else f"{100 * row['purity']:.1f}"
        rate = "-" if row["false_per_million"] is None else f"{row['false_per_million']:.1f} ({low:.1f} - {high:.1f})"
        counts = [f"{row[k]:,}" for k in ("set", "right", "other_defect", "false", "false_beside_defect")]
        table.add_row(row["flag"], *counts, purity, rate)
    console.print(table)
