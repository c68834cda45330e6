"""``badpix tune``: other limits without a new run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from badpix import __version__
from badpix.cli.common import Command, evidence_option, option, talk_options
from badpix.cli.talk import Talk
from badpix.errors import UsageError

NAMES = {
    "HOT": "hot_sigma_threshold",
    "RC": "rc_sigma_threshold",
    "LOW_PEDESTAL": "low_pedestal_sigma_threshold",
    "DEAD": "max_dead_norm_signal",
    "LOW_QE": "max_low_qe_norm_signal",
}


@click.command(cls=Command, epilog="Example: badpix tune nrcb1_darks.fits --set hot_sigma_threshold=6,8,10")
@click.argument("mask", type=click.Path())
@option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=A,B,...",
    heading="Values",
    help="Values of a parameter to try; may be repeated.",
)
@option(
    "--complete",
    multiple=True,
    metavar="FLAG=STRENGTH",
    heading="Values",
    help="The limit with which 90 % of this strength are found (needs --depth): HOT=0.2.",
)
@option(
    "--false-per-million",
    "false",
    multiple=True,
    metavar="FLAG=NUMBER",
    heading="Values",
    help="The limit with which so many good pixels per million are flagged by chance (sign test).",
)
@option("--plot", metavar="DIR", heading="Evidence", help="Draw the counts into DIR.")
@evidence_option("Evidence")
@talk_options
@click.pass_context
def tune(
    ctx: click.Context,
    /,
    mask: str,
    sets: tuple[str, ...],
    complete: tuple[str, ...],
    false: tuple[str, ...],
    plot: str | None,
    evidence_file: str | None,
    **options: Any,
) -> None:
    """What would other limits flag?

    MASK is a mask of flats or darks with its evidence. The rules of the run are applied again with other limits, in a
    second or two: pixels flagged, gained and lost against the mask, those that carry another flag too, the strength
    that is found nine times in ten, and false alarms (sign test). Where one value of a parameter is given, the last
    lines are for your parameter file. Limits from wishes: --complete, --false-per-million.
    """
    talk = ctx.obj = Talk(options)
    from badpix.mask import file as mask_file
    from badpix.review import readings
    from badpix.review import tune as tuning

    found = mask_file.read_mask(mask)
    wanted = dict(map(_parse_values, sets))
    with readings.open_evidence(found, evidence_file) as (evidence, note):
        if evidence is None or note:
            raise UsageError(note or f"{mask}: no evidence beside it; make the mask with --evidence")
        for text, solve in [(t, tuning.solve_complete) for t in complete] + [(t, tuning.solve_false) for t in false]:
            name, number = _parse_wish(text)
            wanted.setdefault(name, []).append(solve(found, evidence, name, number))
        if not wanted:
            raise UsageError(f"nothing to try: give --set NAME=A,B, with NAME one of {', '.join(tuning.LIMITS)}")
        trials = {name: tuning.try_values(found, evidence, name, values) for name, values in wanted.items()}
    before = {name: tuning.read_value(found, name) for name in trials}
    title = f"{found.detector}, {Path(mask).name}, badpix {__version__}"
    outputs = [
        tuning.draw_trials(name, rows, before[name], _place(plot) / f"tune_{name}.png", title)
        for name, rows in trials.items()
        if plot
    ]
    if talk.as_json:
        rows = {name: [vars(t) for t in some] for name, some in trials.items()}
        talk.finish("badpix tune", outputs, {"mask": mask, "used": before, "trials": rows})
        return
    for name, some in trials.items():
        _print(name, some, before[name])
    chosen = {name: some[0].value for name, some in trials.items() if len(some) == 1}
    if chosen:
        click.echo("\n" + tuning.write_yaml(chosen), nl=False)
    for path in outputs:
        talk.say(f"wrote {path}")


def _print(name: str, trials: list[Any], before: float) -> None:
    head = ("value", "limit", "pixels", "gained", "lost", "shared", "90 % at", "false/million")
    rows = [
        (f"{t.value:.4g}", f"{t.limit:.4g}", t.pixels, t.gained, t.lost, t.both, _show(t.ninety), _show(t.false))
        for t in trials
    ]
    click.echo(f"{name} (this mask: {before:.4g})")
    widths = [max(len(str(row[k])) for row in (head, *rows)) for k in range(len(head))]
    for row in (head, *rows):
        click.echo("  ".join(str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)))
    if loose := [f"{t.value:.4g}" for t in trials if not t.whole]:
        click.echo(f"{', '.join(loose)}: only pixels that the run kept as candidates are counted: lower limits")


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _place(plot: str) -> Path:
    from badpix.io.figure import picture_folder

    return picture_folder(plot)


def _parse_values(text: str) -> tuple[str, list[float]]:
    name, _, values = text.partition("=")
    try:
        numbers = [float(word) for word in values.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < n < 1e12 for n in numbers):
        raise UsageError(f"--set {text}: found {values!r}, expected positive numbers: NAME=A,B,...")
    return name.strip(), numbers


def _parse_wish(text: str) -> tuple[str, float]:
    flag, _, value = text.partition("=")
    name = NAMES.get(flag.strip().upper(), flag.strip())
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise UsageError(f"{text}: found {value!r}, expected a number: {'|'.join(NAMES)}=NUMBER")
    return name, number
