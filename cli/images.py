"""``outlier image``, and the simulation and score of dithered images."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

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
from badpix.cli.outliers import members_option, read_members
from badpix.cli.preview import check_outputs, output_options, tell_cost, wants_cost, write_report
from badpix.cli.talk import Talk
from badpix.errors import UsageError
from badpix.settings.image import ImageSettings
from badpix.simulation.image_setup import PRESETS

AUDIT_ROWS = 20  # of the table on the terminal; the JSON has all


@click.command(
    cls=Command,
    epilog="Examples: outlier image jw01234-o001_image3_asn.json --output-dir flagged; "
    "outlier image 'cal/*_cal.fits' --set documented --snr '5.0 4.0' --output-dir flagged",
)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@output_options
@members_option
@option(
    "--plot", metavar="DIR", help="Draw the strongest outliers and brightest stars of each exposure into this folder."
)
@option(
    "--skip-bad", is_flag=True, help="Leave out members that can't be used, or lie beside the others, and say so."
)
@shared_options
@parameter_options("image")
@click.pass_context
def image(ctx: click.Context, /, inputs: tuple[str, ...], **options: Any) -> None:
    """Flag cosmic rays and blemishes in dithered images (NIRCam, MIRI, NIRISS, NIRSpec, FGS).

    INPUT is an association (JSON) or _cal files: files, folders, quoted globs or @list.txt. Each exposure gets a
    flagged copy, <root>[_<asn_id>]_crf.fits, with DO_NOT_USE and OUTLIER in DQ and NaN in all arrays. Inputs are
    never changed. --set documented gives the flags of the JWST pipeline's step.
    """
    talk = ctx.obj = Talk(options)
    # one process computes one exposure; a BLAS of many threads would only cost memory and time
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that temporary files are removed
    p, _ = collect(ImageSettings, load_files(options), options)
    from badpix.io.workers import keep_memory

    members = read_members(inputs, options["exptypes"], talk)
    folder = check_outputs(options, members, inputs)
    draw = _pictures(options["plot"])
    keep_memory()
    with make_executor(options["workers"], options["dask"], "badpix.image.driver") as executor:
        from badpix.image.driver import DEFAULT_MEMORY, flag_images  # while workers do the same

        memory = memory_of_each(options, DEFAULT_MEMORY)
        outputs, summary = flag_images(
            members,
            p,
            folder,
            executor=executor,
            memory=memory,
            overwrite=options["overwrite"],
            skip_bad=options["skip_bad"],
            cost=wants_cost(options),
        )
    cutouts = summary.pop("cutouts", [])
    if draw is not None:
        summary["pictures"] = draw(cutouts)
    _tell(talk, summary)
    summary |= {"parameters": dict(p.items())}
    beside = write_report(options, "outlier image", members, talk, summary)
    talk.finish("outlier image", outputs, summary, beside)


def _pictures(folder: str | None) -> Any:
    """What draws the cut-outs, or None; a missing matplotlib is told before the work."""
    if not folder:
        return None
    from badpix.image.pictures import draw_cutouts
    from badpix.io.figure import picture_folder

    place = picture_folder(folder)
    return lambda cutouts: draw_cutouts(cutouts, place)


def _tell(talk: Talk, summary: dict[str, Any]) -> None:
    """Tables of what was flagged, by exposure and reason, and of the sources that lost flux."""
    from badpix.io.associations import root_name

    reasons = ("bright", "dark", "trail", "persistent", "single_coverage", "core", "core_taken_back", "flagged")
    rows = [row for row in summary["exposures"] if "flagged" in row]
    shown = [r for r in reasons if any(r in row for row in rows)]
    talk.table(
        "Flagged pixels",
        ["exposure", *(r.replace("_", " ") for r in shown), "newly unusable", "% of pixels"],
        [
            (root_name(row["input"]), *(row.get(r, 0) for r in shown), row["newly_unusable"], row["percent"])
            for row in rows
        ],
    )
    for row in rows:
        talk.detail(
            f"{row['input']}: noise factors {row['noise_factors']}, residual sky {row['residual_sky']:.3g}, "
            f"kernel {'learned, shift ' + str(row['kernel_shift']) if row['sharpened'] else 'not learned'}"
        )
    transients = summary.get("transients", [])
    talk.table(
        f"Transients and moving objects ({len(transients)}, first {min(len(transients), AUDIT_ROWS)})",
        ["kind", "RA", "Dec", "flux in 5x5", "peak, sigma", "arcsec/h", "exposures"],
        [
            (
                r["kind"],
                f"{r['ra']:.6f}",
                f"{r['dec']:.6f}",
                f"{r['flux']:.4g}",
                r["snr"],
                r.get("arcsec_per_hour", ""),
                " ".join(root_name(d["exposure"]) for d in r["detections"]),
            )
            for r in transients[:AUDIT_ROWS]
        ],
    )
    audit = sorted(summary.get("audit", []), key=lambda row: (row["verdict"] == "hit", -row["lost"]))
    talk.table(
        f"Sources that lost flux to flags ({len(audit)}, first {min(len(audit), AUDIT_ROWS)})",
        ["exposure", "source", "x", "y", "RA", "Dec", "others", "lost", "excess", "verdict"],
        [
            (
                root_name(r["exposure"]),
                r["source"],
                r["x"],
                r["y"],
                f"{r['ra']:.6f}",
                f"{r['dec']:.6f}",
                r["others"],
                f"{r['lost']:.1%}",
                f"{r['excess']:.1%}",
                r["verdict"],
            )
            for r in audit[:AUDIT_ROWS]
        ],
    )
    if "cost" in summary:
        tell_cost(talk, summary["cost"])


# --- simulation and score ---------------------------------------------------------------------------------

_SHEET = "What is simulated"


@click.command(cls=Command, epilog="Example: outlier simulate-image sim --scene sw --groups 4 --seed 1")
@click.argument("directory")
@option(
    "--scene",
    "--preset",
    "scene",
    type=click.Choice(list(PRESETS)),
    default="sw",
    metavar="NAME",
    heading=_SHEET,
    help=f"Fields as they should be, and harder ones (docs/outlier-image.md): {', '.join(PRESETS)}.  [default: sw]",
)
@option("--groups", type=click.IntRange(1, 99999), heading=_SHEET, help="Dithered exposures.")
@option("--size", metavar='"NX NY"', heading=_SHEET, help="Columns and rows of the detector.  [default: 1024 1024]")
@option("--fwhm", type=click.FloatRange(0.5, 6), heading=_SHEET, help="Width of the PSF, pixels.")
@option(
    "--distortion", metavar="FILE", heading=_SHEET, help="ASDF file with a GWCS: its detector-to-V2V3 step is used."
)
@option(
    "--seed", type=click.IntRange(0), default=1, heading=_SHEET, help="Equal seeds give equal data.  [default: 1]"
)
@overwrite_option
@talk_options
@click.pass_context
def simulate_image(ctx: click.Context, /, directory: str, **options: Any) -> None:
    """Write a simulated association of dithered images into DIRECTORY, with the truth in DIRECTORY/truth."""
    talk = ctx.obj = Talk(options)
    from badpix.simulation.image import simulate
    from badpix.simulation.image_setup import Setup

    values: dict[str, Any] = {**PRESETS[options["scene"]], "seed": options["seed"]}
    for name in ("groups", "fwhm", "distortion"):
        if options[name] is not None:
            values[name] = options[name]
    if options["size"]:
        values["shape"] = _size(options["size"])
    path = simulate(directory, Setup(**values), overwrite=options["overwrite"])
    talk.finish("outlier simulate-image", [path], {"seed": options["seed"], "scene": options["scene"]})


def _size(text: str) -> tuple[int, int]:
    nx, ny = (int(number) for number in parse_pair(text, "--size"))
    if min(ny, nx) < 64:
        raise UsageError(f"--size: found {text!r}, expected at least 64 pixels an axis")
    return ny, nx


@click.command(cls=Command, epilog="Example: outlier score-image sim flagged")
@click.argument("simulated", metavar="SIMULATED")
@click.argument("flagged", metavar="FLAGGED")
@talk_options
@click.pass_context
def score_image(ctx: click.Context, /, simulated: str, flagged: str, **options: Any) -> None:
    """Compare the _crf files in FLAGGED with the truth of the simulation in SIMULATED.

    Shares are of the pixels that were usable on input; false flags are counted per million usable pixels that no
    hit touched.
    """
    talk = ctx.obj = Talk(options)
    from badpix.simulation.score_image import score_run

    found = score_run(Path(simulated), Path(flagged))
    talk.table("Score", ("measure", "value"), [(name, f"{value:.4f}") for name, value in found.items()])
    talk.finish("outlier score-image", [], {"score": found})
