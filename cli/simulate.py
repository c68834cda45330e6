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
    overwrite_option,
    parameter_options,
    parse_size,
    shared_options,
    talk_options,
)
from badpix.cli.talk import Talk
from badpix.errors import DataError, UsageError
from badpix.settings.simulate import SimulateSettings
from badpix.settings.simulate_science import ScienceProgramSettings


@click.command(
    cls=Command,
    epilog="Example: badpix simulate sim --detector MIRIMAGE --size '256 256' --flats 5 --darks 10 --dark-groups 50",
)
@click.argument("directory")
@parameter_options("simulate")
@shared_options
@click.pass_context
def simulate(ctx: click.Context, /, directory: str, **options: Any) -> None:
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
    with make_executor(options["workers"], options["dask"]) as executor, talk.progress("exposures") as progress:
        written = write(directory, values, executor, options["overwrite"], progress)
    rows = [(kind, len(paths), str(paths[0].parent) if paths else "-") for kind, paths in written.items()]
    talk.table("Files", ("kind", "files", "folder"), rows)
    talk.finish("simulate", written["truth"], {"files": {k: [str(p) for p in v] for k, v in written.items()}})


@click.command(cls=Command, epilog="Example: badpix simulate-science sim --scene crowded --seed 3")
@click.argument("directory")
@parameter_options("simulate_science")
@overwrite_option
@talk_options
@click.pass_context
def simulate_science(ctx: click.Context, /, directory: str, **options: Any) -> None:
    """Write simulated science exposures of one detector into DIRECTORY, with the truth beside them.

    Hot, low, switching and newborn pixels are put in at several levels. `badpix score --search science` compares.
    """
    talk = ctx.obj = Talk(options)
    values, _ = collect(ScienceProgramSettings, {}, options)
    from badpix.simulation.science import simulate as write

    written = write(directory, values, overwrite=options["overwrite"])
    talk.finish("simulate-science", written["truth"], {"files": {k: [str(p) for p in v] for k, v in written.items()}})


@click.command(cls=Command, epilog="Example: badpix score nrcalong_mask.fits sim/nrcalong_truth.fits --search flats")
@click.argument("files", nargs=-1, required=True, metavar="MASK TRUTH [MASK TRUTH]...")
@option(
    "--search",
    type=click.Choice(["all", "flats", "darks", "science"]),
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
def score(ctx: click.Context, /, files: tuple[str, ...], search: str, by_setting: bool, **options: Any) -> None:
    """Compare a MASK with the TRUTH of its simulation: completeness, purity, false positives.

    Several pairs are counted together. Good pixels are those without any injected defect, ADJ_OPEN included. Where a
    mask's evidence lies beside it and the truth has dates (`simulate --condition`), those are compared too.
    """
    talk = ctx.obj = Talk(options)
    if len(files) % 2:
        raise UsageError(f"files come in pairs MASK TRUTH; found {len(files)}")
    from badpix.mask import file as mask_file
    from badpix.simulation import score_mask as scoring
    from badpix.simulation.score_dates import add_dated, count_in_files
    from badpix.simulation.truth_file import read_light, read_truth

    masks, dates, lights = [], [], []
    for mask, truth_file in zip(files[::2], files[1::2], strict=True):
        flags = mask_file.read_mask(mask).image
        header, truth, defects = read_truth(truth_file)
        if flags.shape != truth.shape:
            raise DataError(
                f"{mask}: image is {flags.shape[1]} x {flags.shape[0]}, expected "
                f"{truth.shape[1]} x {truth.shape[0]} as in {truth_file}"
            )
        masks.append((flags, truth, defects))
        dates.append(count_in_files(flags, mask, truth_file))
        lights.append(None if search == "science" else read_light(truth_file))
        talk.detail(f"{mask}: {header['DETECTOR']}, {len(defects)} defects")
    result = {**scoring.score(masks, search, lights), "dates": [vars(row) for row in add_dated(dates)]}
    if options["as_json"]:
        talk.finish("score", [], result)
    else:
        _print_tables(result, by_setting)


def _print_tables(result: Any, by_setting: bool) -> None:
    """The result, on stdout, within 80 columns: false positives come first, purity with its density."""
    from badpix.simulation.score_mask import LOUD

    click.secho("Flags: false per million good pixels (false positives), with their 95 % interval", bold=True)
    click.echo(f"{'flag':<17}{'per million':>12}{'interval':>16}{'false':>7}{'set':>9}{'right':>9}{'purity %':>10}")
    for row in result["flags"]:
        low, high = row["false_per_million_interval"]
        known = row["false_per_million"] is not None
        rate = f"{row['false_per_million']:.1f}" if known else "-"
        span = f"{low:.1f} - {high:.1f}" if known else "-"
        purity = "-" if row["purity"] is None else f"{100 * row['purity']:.1f}"
        counts = f"{row['false']:>7,}{row['set']:>9,}{row['right']:>9,}"
        click.echo(f"{row['flag']:<17}{rate:>12}{span:>16}{counts}{purity:>10}")
    whole = [r for r in result["completeness"] if r["setting"] == "all" and r["level"] is None]
    injected = sum(r["injected"] for r in whole)
    good = max((r["good"] for r in result["flags"]), default=0)
    if injected and good:
        click.echo(
            f"Purity holds for the density of defects here, {1e6 * injected / good:,.0f} per million good pixels."
        )
    click.echo()
    click.secho("Completeness: found with the right flag, flagged with any, of those injected", bold=True)
    head = f"{'type':<13}{'level':<20}{'injected':>9}{'found':>7}{'flagged':>9}{'%':>7}{'95 % interval':>15}"
    click.echo(head)
    for row in result["completeness"]:
        if row["injected"] and (by_setting or row["setting"] in ("all", "natural", LOUD) or "poor" in row["setting"]):
            low, high = row["interval"]
            level = f"{row['level']:g} {row['unit']}" if row["level"] is not None else row["setting"]
            counts = f"{row['injected']:>9,}{row['found']:>7,}{row['flagged']:>9,}"
            share = f"{100 * row['completeness']:>7.1f}{f'{100 * low:.1f} - {100 * high:.1f}':>15}"
            click.echo(f"{row['type']:<13}{level:<20}{counts}{share}")
    if result["dates"]:
        click.echo()
        click.secho("Dates: pixels with one, and with the right set of darks", bold=True)
        click.echo(f"{'type':<13}{'injected':>9}{'dated':>7}{'right':>7}{'to one set':>12}")
        for row in result["dates"]:
            counts = f"{row['injected']:>9,}{row['told']:>7,}{row['right']:>7,}{row['near']:>12,}"
            click.echo(f"{row['type']:<13}{counts}")
    _print_light(result["light"])


def _print_light(rows: Any) -> None:
    """What was found among lit, dim and unlit pixels, where not all are lit."""
    if {row["light"] for row in rows} <= {"lit"}:
        return
    click.echo()
    click.secho("By light: found, flagged at all, and false per million good pixels of that light", bold=True)
    click.echo(
        f"{'light':<7}{'type':<12}{'injected':>9}{'found':>7}{'flagged':>9}{'%':>7}{'false':>7}{'per million':>13}"
    )
    for row in rows:
        if not row["injected"] and not row["false"]:
            continue
        share = "-" if row["completeness"] is None else f"{100 * row['completeness']:.1f}"
        text = (
            f"{row['light']:<7}{row['type']:<12}{row['injected']:>9,}{row['found']:>7,}{row['flagged']:>9,}{share:>7}"
        )
        known = row["type"] == "any" and row["false_per_million"] is not None
        click.echo(text + (f"{row['false']:>7,}{row['false_per_million']:>13.1f}" if known else ""))
