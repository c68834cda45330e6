"""``badpix science``."""

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
    share_memory,
    shared_options,
)
from badpix.cli.masks import (
    check_detector,
    choose_inputs,
    choose_output,
    evidence_option,
    output_option,
    report,
)
from badpix.cli.talk import Talk
from badpix.settings.reference import ReferenceSettings
from badpix.settings.science import ScienceSettings


@click.command(
    cls=Command,
    epilog="Example: badpix science 'cal/*_nrcb1_cal.fits' --from flagged -o nrcb1_candidates.fits",
)
@click.argument("files", nargs=-1, metavar="RATE_OR_CAL...")
@option(
    "--from",
    "flagged",
    multiple=True,
    metavar="DIR",
    help="Folder of exposures that `outlier ifu` or `outlier image` flagged; may be repeated.",
)
@output_option
@evidence_option
@option("--skip-bad", is_flag=True, help="Leave out files that can't be used, and say so, instead of stopping.")
@option("--detector", metavar="NAME", help="Detector that the files must be of; with --skip-bad others are left out.")
@shared_options
@parameter_options("science", "reference")
@click.pass_context
def science(ctx: click.Context, /, files: tuple[str, ...], flagged: tuple[str, ...], **options: Any) -> None:
    """Find hot, warm, low, noisy and switching pixels in science exposures of any targets.

    RATE_OR_CAL are slope images (rate, cal, or flagged copies of them) of one detector: files, folders, quoted globs,
    or @list.txt. Sources move while the telescope does and pixels do not: the exposures must be of several pointings
    and visits, or the command refuses. What it writes is a MASK for `badpix merge`.
    """
    talk = ctx.obj = Talk(options)
    tree = load_files(options)
    p, inputs = collect(ScienceSettings, tree, options)
    reference, _ = collect(ReferenceSettings, tree, options)
    check_detector(tree, options)
    share = share_memory(talk, options)
    from badpix.mask import header as mask_header
    from badpix.science import build

    texts = mask_header.check_texts(reference)
    named = choose_inputs((*files, *flagged), inputs.get("rate"), build.SUFFIXES, "science exposures")
    talk.say(f"science: {len(named)} exposures")
    with make_executor(share.workers, options["dask"]) as executor, talk.progress("science") as progress:
        product = build.build_science(
            named,
            p,
            choose_output(options, tree),
            texts=texts,
            overwrite=options["overwrite"],
            with_evidence=options["evidence"],
            skip_bad=options["skip_bad"],
            executor=executor,
            memory=share.band,
            progress=progress,
            detector=options["detector"] or tree.get("detector"),
        )
    report(talk, "badpix science", product)
