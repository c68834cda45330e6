"""``outlier ifu``, and the simulation and score of IFU associations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from badpix.cli.common import (
    Command,
    collect,
    load_files,
    make_executor,
    memory_of_each,
    option,
    overwrite_option,
    parameter_options,
    parse_pair,
    shared_options,
    talk_options,
)
from badpix.cli.preview import check_outputs, output_options, tell_cost, wants_cost, write_report
from badpix.cli.talk import Talk
from badpix.errors import UsageError
from badpix.settings.ifu import IfuSettings

if TYPE_CHECKING:
    from badpix.ifu.search import Found
    from badpix.io.associations import Association


members_option = option(
    "--exptype",
    "exptypes",
    multiple=True,
    default=("science",),
    metavar="TYPE",
    help="Members of an association to use; may be repeated (such as background).  [default: science]",
)


def read_members(inputs: tuple[str, ...], exptypes: tuple[str, ...], talk: Talk) -> Association:
    """The association, or the `_cal` files, that a command is called with."""
    from badpix.io.associations import is_association, read_inputs
    from badpix.io.selection import expand_inputs

    if not inputs:
        raise UsageError("no input: name an association (.json) or _cal files")
    tables = [name for name in inputs if is_association(name)]
    found = read_inputs(tables or expand_inputs(inputs, ("_cal",)), exptypes)
    if tables and len(inputs) > 1:
        raise UsageError(f"{tables[0]}: an association is the only input of a run; found {len(inputs)} inputs")
    for text in found.remarks:
        talk.note(text)
    if found.left_out:
        kinds = ", ".join(sorted({member.exptype for member in found.left_out}))
        talk.note(f"{len(found.left_out)} members of exptype {kinds} are left out (see --exptype)")
    return found


@click.command(
    cls=Command,
    epilog="Examples: outlier ifu jw01234-o001_spec3_asn.json --output-dir flagged; "
    "outlier ifu 'cal/*_cal.fits' --set documented --output-dir flagged",
)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@output_options
@members_option
@option("--plot", metavar="DIR", help="Draw flagged pixels and the test statistic of each detector into this folder.")
@shared_options
@parameter_options("ifu")
@click.pass_context
def ifu(ctx: click.Context, /, inputs: tuple[str, ...], **options: Any) -> None:
    """Flag pixels that are consistently wrong in IFU exposures (MIRI MRS, NIRSpec).

    INPUT is an association (JSON) or _cal files: files, folders, quoted globs or @list.txt. Each exposure gets a
    flagged copy, <root>[_<asn_id>]_crf.fits, with DO_NOT_USE and OUTLIER in DQ and NaN in all arrays. Inputs are
    never changed. --set documented gives the result of the JWST pipeline, bit for bit.
    """
    talk = ctx.obj = Talk(options)
    p, _ = collect(IfuSettings, load_files(options), options)
    members = read_members(inputs, options["exptypes"], talk)
    from badpix.ifu.driver import BASE_MEMORY, LEAST_MEMORY, USUAL_MEMORY, flag_association, history_lines
    from badpix.io.workers import keep_memory

    memory = memory_of_each(options, USUAL_MEMORY, LEAST_MEMORY)
    folder = check_outputs(options, members, inputs)
    keep_memory(1 << 30)  # all of a band: the next one takes as much

    with make_executor(options["workers"], options["dask"], "badpix.ifu.driver") as executor:
        summary = flag_association(
            members,
            p,
            folder,
            overwrite=options["overwrite"],
            history=history_lines(p),
            executor=executor,
            memory=memory - BASE_MEMORY,
            by_slice=bool(talk.as_json or talk.verbose or options["report"]),
            cost=wants_cost(options),
            look=_pictures(options["plot"]),
        )
    _tell(talk, summary)
    summary |= {"parameters": dict(p.items())}
    beside = write_report(options, "outlier ifu", members, talk, summary)
    outputs = summary.pop("outputs")
    talk.finish("outlier ifu", outputs, summary, beside)


def _pictures(folder: str | None) -> Callable[[Found], None] | None:
    """What draws the pictures, or None; a missing matplotlib is told before the work."""
    if not folder:
        return None
    from badpix.ifu.products import plot_detector
    from badpix.io.associations import root_name
    from badpix.io.figure import picture_folder

    place = picture_folder(folder)
    return lambda found: plot_detector(found, place / f"{root_name(found.exposures[0].cal.path)}_outliers.png")


def _tell(talk: Talk, summary: dict[str, Any]) -> None:
    """Tables of what was flagged, by exposure and reason, and by slice."""
    from badpix.io.associations import root_name

    rows = summary["exposures"]
    reasons = list(rows[0]["flagged"]) if rows else []
    talk.table(
        "Flagged pixels",
        ["exposure", *reasons, "newly unusable", "% of usable"],
        [
            (
                root_name(r["input"]),
                *(r["flagged"][k] for k in reasons),
                r["newly_unusable"],
                f"{r['newly_unusable_percent']:.3f}",
            )
            for r in rows
        ],
    )
    for detector, numbers in summary["detectors"].items():
        for line in describe_search(numbers):
            talk.say(f"{detector}: {line}")
    if "cost" in summary:
        tell_cost(talk, summary["cost"])
    if talk.verbose:
        for r in rows:
            *slices, between = r["by_slice"]
            told = " ".join(str(v) for v in slices)
            talk.detail(f"{Path(r['input']).name}: flagged in slices 1-{len(slices)}: {told}; elsewhere {between}")


def describe_search(numbers: dict[str, Any]) -> list[str]:
    """What a detector's search was like, in words."""
    if "limit_ratio" in numbers:
        return [f"flagged above {numbers['limit_ratio']:.3g} times the local median of the smallest difference"]
    limits = (
        f"flagged beyond {numbers['limit_single']:g} sigma in one exposure, {numbers['limit_persistent']:g} in all"
    )
    lines = [
        f"noise {numbers['noise_over_err']:g} times ERR; {numbers['noisy_percent']:g} % of the pixels are noisier",
        f"chance alone gives {numbers['expected_false_per_exposure']:g} false flags an exposure",
    ]
    if "searched_percent" not in numbers:
        lines.insert(0, limits)
    untestable = sum(numbers["untestable"])
    if untestable:
        lines.append(f"{untestable:,} pixels without a neighbor could not be tested")
    return lines


# --- simulation and score --------------------------------------------------------------------------------

_SHEET = "What is simulated"


@click.command(cls=Command, epilog="Example: outlier simulate-ifu sim --instrument miri --exposures 4 --seed 1")
@click.argument("directory")
@option(
    "--instrument",
    type=click.Choice(["miri", "nirspec"]),
    default="miri",
    heading=_SHEET,
    help="MRS (MIRIFUSHORT, MIRIFULONG) or NIRSpec (NRS1, NRS2).  [default: miri]",
)
@option(
    "--detector",
    "detectors",
    multiple=True,
    metavar="NAME",
    heading=_SHEET,
    help="One of its detectors; may be repeated.  [default: both]",
)
@option(
    "--exposures",
    type=click.IntRange(1, 1000),
    default=4,
    heading=_SHEET,
    help="Exposures of each detector.  [default: 4]",
)
@option(
    "--seed", type=click.IntRange(0), default=1, heading=_SHEET, help="Equal seeds give equal data.  [default: 1]"
)
@option(
    "--scene",
    type=click.Choice(["spectra", "bright", "flat", "sharp", "lines", "knots", "half-bad"]),
    default="spectra",
    heading=_SHEET,
    help="Slices with lines and sources; with very bright, sharper sources; noise on an even level, without "
    "slices; undersampled sources; strong lines; knots of line emission; pixels bad in half of the exposures.  "
    "[default: spectra]",
)
@option(
    "--dither/--no-dither",
    default=True,
    heading=_SHEET,
    help="Whether the exposures are shifted against each other.  [default: dither]",
)
@option(
    "--in-all",
    type=click.FloatRange(0, 0.5),
    default=0.003,
    heading=_SHEET,
    help="Share of pixels that are bad in all exposures.  [default: 0.003]",
)
@option(
    "--in-some",
    type=click.FloatRange(0, 0.5),
    default=0.001,
    heading=_SHEET,
    help="Share of pixels that are bad in some exposures.  [default: 0.001]",
)
@option(
    "--rays",
    type=click.FloatRange(0, 0.5),
    default=0.0005,
    heading=_SHEET,
    help="Cosmic-ray tracks per pixel and exposure.  [default: 0.0005]",
)
@option(
    "--strength",
    metavar='"LOW HIGH"',
    heading=_SHEET,
    help="Range of all defects (sigma, log-uniform) instead of the range of each kind.",
)
@option(
    "--size",
    metavar='"NX NY"',
    heading=_SHEET,
    help="Columns and rows of a smaller detector, for quick tests.",
)
@overwrite_option
@talk_options
@click.pass_context
def simulate_ifu(ctx: click.Context, /, directory: str, **options: Any) -> None:
    """Write a simulated IFU association into DIRECTORY, with the truth in DIRECTORY/truth."""
    talk = ctx.obj = Talk(options)
    from badpix.simulation.ifu_defects import HALF_BAD, Defects, with_strength
    from badpix.simulation.ifu_files import write_association
    from badpix.simulation.ifu_optics import DETECTORS, SETS
    from badpix.simulation.ifu_scene import SCENES, without_dither

    detectors = [name.upper() for name in options["detectors"]] or list(SETS[options["instrument"]])
    shares = {"in_all": options["in_all"], "in_some": options["in_some"], "cosmic_rays": options["rays"]}
    defects = Defects(**shares, in_half=HALF_BAD if options["scene"] == "half-bad" else 0.0)
    if options["strength"]:
        defects = with_strength(defects, parse_pair(options["strength"], "--strength"))
    sky = SCENES[options["scene"]]
    size = [int(number) for number in parse_pair(options["size"], "--size")] if options["size"] else []
    along_x = detectors[0] in DETECTORS and DETECTORS[detectors[0]].transposed  # the dispersion
    path = write_association(
        directory,
        detectors=detectors,
        exposures=options["exposures"],
        seed=options["seed"],
        overwrite=options["overwrite"],
        sky=sky if options["dither"] else without_dither(sky),
        defects=defects,
        slices=options["scene"] != "flat",
        shape=((size[0], size[1]) if along_x else (size[1], size[0])) if size else None,
    )
    talk.finish("outlier simulate-ifu", [path], {"detectors": detectors, "seed": options["seed"]})


@click.command(cls=Command, epilog="Example: outlier score-ifu sim flagged")
@click.argument("simulated", metavar="SIMULATED")
@click.argument("flagged", metavar="FLAGGED")
@talk_options
@click.pass_context
def score_ifu(ctx: click.Context, /, simulated: str, flagged: str, **options: Any) -> None:
    """Compare the _crf files in FLAGGED with the truth of the simulation in SIMULATED.

    Shares are of the pixels that are usable on input, inside slices; false flags are counted per million pixels
    without any defect.
    """
    talk = ctx.obj = Talk(options)
    from badpix.simulation.score_ifu import score

    folder = Path(simulated)
    found = score(sorted(folder.glob("*_cal.fits")), Path(flagged), folder / "truth")
    talk.table("Score", ("measure", "value"), [(name, f"{value:.4f}") for name, value in found.items()])
    talk.finish("outlier score-ifu", [], {"score": found})
