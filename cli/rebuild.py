"""``badpix rebuild`` and ``badpix history``."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from badpix.cli.common import Command, option, parse_size, stack, talk_options
from badpix.cli.talk import Talk
from badpix.errors import BadpixError, UsageError
from badpix.outside import printable

if TYPE_CHECKING:
    from badpix.rebuild.driver import Outcome
    from badpix.rebuild.jobs import Job
    from badpix.rebuild.searches import Options

RUN = "Run"
ENDED = {KeyboardInterrupt: 130, SystemExit: 143}


# how it runs, never what it makes
run_options = stack(
    option("--force", is_flag=True, heading=RUN, help="Make everything again."),
    option("--dry-run", is_flag=True, heading=RUN, help="Say what would be done, and why; write nothing."),
    option(
        "--accept",
        is_flag=True,
        heading=RUN,
        help="Let a mask pass that was rejected for its jump against the previous one.",
    ),
    option(
        "--only",
        metavar="DETECTOR",
        multiple=True,
        heading=RUN,
        help="Only this detector of the files; may be repeated.",
    ),
    option(
        "--workers",
        type=click.IntRange(1, 1024),
        default=1,
        heading=RUN,
        help="Processes to use: detectors first, then bands of rows.  [default: 1]",
    ),
    option("--dask", metavar="ADDRESS", heading=RUN, help="Dask scheduler for the bands of rows (extra 'cluster')."),
    option(
        "--at-once",
        type=click.IntRange(1, 64),
        heading=RUN,
        help="Detectors worked on at once.  [default: as many as workers; with --dask: processors]",
    ),
    option(
        "--max-memory",
        metavar="SIZE",
        heading=RUN,
        help="Memory that the whole run may take, all detectors and workers included, such as 2G.",
    ),
    option(
        "--status-file",
        metavar="FILE",
        heading=RUN,
        help="Keep one line for monitoring in FILE: RUNNING, then OK or FAILED with counts.",
    ),
)


@click.command(
    cls=Command,
    epilog="Example: badpix rebuild nircam.yml --workers 8 --status-file masks/status --log-file rebuild.log",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE.yml...")
@run_options
@talk_options
@click.pass_context
def rebuild(ctx: click.Context, /, files: tuple[str, ...], **options: Any) -> None:
    """Bring the masks of one or many detectors up to date: flats, darks, merge, check, replace.

    A FILE describes one detector, or many (detectors: and defaults:). Only what is needed is made; where nothing
    changed nothing is done. A new mask replaces the current one only if it passes the checks; otherwise it stays
    beside it (exit status 3). One detector's failure does not stop the others.
    """
    talk = ctx.obj = Talk(options)
    from badpix.rebuild import jobs, supervise

    found, failed = jobs.read_jobs([Path(f) for f in files])
    found = _choose(found, options["only"])
    if not found and failed:
        raise failed[0][1]
    for _, error in failed:
        talk.error(str(error))
    if options["dry_run"]:
        ctx.exit(max(_preview(talk, found, options["force"]), *(e.exit_code for _, e in failed), 0))
    begun = time.monotonic()
    _status(talk, options, "RUNNING", {"detectors": len(found)}, None, 0.0, files)
    at_once = options["at_once"] or (os.cpu_count() or 1 if options["dask"] else options["workers"])
    try:
        outcomes = supervise.run(found, _run_options(options), at_once)
    except BaseException as error:  # interrupted, asked to end, or a fault of ours: the last word is not RUNNING
        code = error.exit_code if isinstance(error, BadpixError) else ENDED.get(type(error), 1)
        _status(talk, options, "FAILED", {"detectors": len(found)}, code, time.monotonic() - begun)
        raise
    counts = supervise.count(outcomes)
    counts["failed"] += len(failed)
    code = max(supervise.exit_code(outcomes), *(e.exit_code for _, e in failed), 0)
    _status(talk, options, "OK" if code == 0 else "FAILED", counts, code, time.monotonic() - begun)
    _report(talk, outcomes, failed, counts, code)
    ctx.exit(code)


def _choose(found: list[Job], only: tuple[str, ...]) -> list[Job]:
    known = {job.detector for job in found}
    for name in only:
        if name.upper() not in known:
            raise UsageError(f"--only {name}: not in the files; there are {', '.join(sorted(known))}")
    return [job for job in found if not only or job.detector in {n.upper() for n in only}]


def _run_options(options: dict[str, Any]) -> Options:
    from badpix.rebuild.searches import Options

    text = options["max_memory"]
    memory = parse_size(text, text) if text else None
    return Options(options["force"], options["accept"], options["workers"], options["dask"], memory)


def _status(
    talk: Talk,
    options: dict[str, Any],
    word: str,
    counts: dict[str, int],
    code: int | None,
    seconds: float,
    inputs: tuple[str, ...] = (),
) -> None:
    from badpix.io.output import check_log
    from badpix.rebuild.supervise import write_status

    if options["status_file"]:
        check_log(options["status_file"], "--status-file", inputs)
        try:
            write_status(options["status_file"], word, counts, code, seconds)
        except (OSError, BadpixError) as error:
            talk.note(f"--status-file: {error}")


def _preview(talk: Talk, found: list[Job], force: bool) -> int:
    """What would be done, one line a detector on stdout (or the JSON); returns the exit status."""
    from badpix.rebuild import driver as rebuild_driver

    rows, code = [], 0
    for job in found:
        try:
            outcome = rebuild_driver.preview(job, force)
            rows.append((job.detector, outcome.status, outcome.reasons))
        except BadpixError as error:
            rows.append((job.detector, "failed", [str(error)]))
            code = max(code, error.exit_code)
    if talk.as_json:
        described = [{"detector": n, "status": s, "reasons": r} for n, s, r in rows]
        click.echo(json.dumps({"command": "badpix rebuild --dry-run", "detectors": described}, indent=1))
    else:
        for name, status, reasons in rows:
            end = " (failed)" if status == "failed" else ""
            click.echo(printable(f"{name}: {'; '.join(reasons) or 'nothing to do'}{end}"))
    return code


def _report(
    talk: Talk, outcomes: list[Outcome], failed: list[tuple[Path, BadpixError]], counts: dict[str, int], code: int
) -> None:
    """The summary of the whole run; on stdout the masks that are new and current. A failure is told once."""
    for outcome in outcomes:
        for note in outcome.notes:
            talk.note(f"{outcome.detector}: {note}")
        if outcome.exit_code:
            talk.error(f"{outcome.detector}: {outcome.status}: {'; '.join(outcome.reasons)}")
    rows = [
        (o.detector, o.status, o.seconds, o.peak_memory_mb, "" if o.exit_code else "; ".join(o.reasons))
        for o in outcomes
    ]
    talk.table("Detectors", ["detector", "outcome", "seconds", "MB", "why"], rows)
    described = [
        {
            "detector": o.detector,
            "status": o.status,
            "reasons": o.reasons,
            "mask": str(o.mask) if o.mask else None,
            "record": str(o.record) if o.record else None,
            "seconds": o.seconds,
            "peak_memory_mb": o.peak_memory_mb,
            "exit": o.exit_code,
        }
        for o in outcomes
    ]
    summary = {
        "status": "done" if code == 0 else "failed",
        "exit": code,
        "counts": counts,
        "detectors": described,
        "refused_files": [{"file": str(path), "error": str(error)} for path, error in failed],
    }
    talk.say(", ".join(f"{v} {k}" for k, v in counts.items()))
    talk.finish("badpix rebuild", [o.mask for o in outcomes if o.status == "rebuilt" and o.mask], summary)


@click.command(cls=Command, epilog="Example: badpix history masks --detector NRCB1 --last 10")
@click.argument("directory", metavar="DIR")
@option("--detector", metavar="DETECTOR", heading="Choice", help="Only this detector.")
@option("--last", type=click.IntRange(1), heading="Choice", help="Only the newest so many.")
@option(
    "--html",
    "page",
    metavar="FILE",
    type=click.Path(),
    heading="Page",
    help="Write an index page over all detectors: state, counts, trends, links.",
)
@option("--overwrite", is_flag=True, heading="Page", help="Replace an existing page.")
@option("--depth", is_flag=True, heading="Choice", help="The depth of each mask: strengths that 90 % are found at.")
@talk_options
@click.pass_context
def history(
    ctx: click.Context,
    /,
    directory: str,
    detector: str | None,
    last: int | None,
    page: str | None,
    overwrite: bool,
    depth: bool,
    **options: Any,
) -> None:
    """List what was rebuilt in DIR, refused or failed: one line each, oldest first.

    From the records beside the products and the logs; `current` marks the masks in use.
    """
    talk = ctx.obj = Talk(options)
    from badpix.rebuild import record

    if not Path(directory).is_dir():
        raise UsageError(f"{directory}: no such directory")
    records = record.list_records(directory)
    rows = record.history_rows(records)
    if page:
        from badpix.io.output import check_page
        from badpix.rebuild.index_page import write_index

        check_page(page, "--html", overwrite)
        number = write_index(records, rows, page, overwrite)
        talk.finish("badpix history", [page], {"detectors": number})
        return
    rows = [r for r in rows if not detector or r["detector"] == detector.upper()]
    rows = rows[-last:] if last else rows
    if talk.as_json:
        click.echo(json.dumps({"command": "badpix history", "records": rows}, indent=1))
    elif not rows:
        talk.say(f"{directory}: no records")
    elif depth:
        click.echo(_as_depths(rows))
    else:
        columns = ("finished", "detector", "status", "inputs", "rejected", "flagged", "unusable", "seconds", "reason")
        click.echo(_as_table(columns, rows))


def _as_depths(rows: list[dict[str, Any]]) -> str:
    """The strength that 90 % are found at, a column a search, for masks that state it."""
    rows = [row for row in rows if row["depth"]]
    searches = list(dict.fromkeys(name for row in rows for name in row["depth"]))
    units = {name: of["unit"] for row in rows for name, of in row["depth"].items()}
    told = [
        {
            **{key: row[key] for key in ("finished", "detector", "status")},
            **{f"{n}, {units[n]}": _strength(row["depth"].get(n)) for n in searches},
        }
        for row in rows
    ]
    columns = ("finished", "detector", "status", *(f"{n}, {units[n]}" for n in searches))
    return _as_table(columns, told) if told else "no mask here states its depth"


def _strength(of: dict[str, Any] | None) -> str | None:
    value = (of or {}).get("strength_90")
    return f"{value:.3g}" if isinstance(value, int | float) else None


def _as_table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    """Aligned columns, plain text: the result of ``badpix history``."""
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(len(line[k]) for line in [list(columns), *cells]) for k in range(len(columns))]
    numbers = {*columns} - {"finished", "detector", "status", "reason"}
    lines = []
    for line in [list(columns), *cells]:
        padded = [c.rjust(w) if n in numbers else c.ljust(w) for c, w, n in zip(line, widths, columns, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."
