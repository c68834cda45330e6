"""What the flags of both outlier commands cost, on the terminal (``--preview``) and as a file (``--report``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from badpix.cli.common import option, stack
from badpix.cli.talk import Talk
from badpix.errors import UsageError

if TYPE_CHECKING:
    from badpix.io.associations import Association

ROWS = 20  # of a table on the terminal; the report and the JSON have all
KINDS = (".html", ".json")

output_options = stack(
    option("-o", "--output-dir", metavar="DIR", help="Folder for the _crf files; made if it is missing."),
    option(
        "--preview",
        is_flag=True,
        help="Say what the flags would cost (sources, depth and holes of the stack), and write no exposure.",
    ),
    option(
        "--report",
        metavar="FILE",
        help="Write what was flagged and what it cost: one page (.html), or the summary with all parameters, "
        "the version of the code and the sha256 of each input (.json).",
    ),
)


def check_outputs(options: dict[str, Any], members: Association, inputs: tuple[str, ...]) -> str | None:
    """The folder for the flagged copies, or None in a preview; the report is known to be writable then.

    Raises
    ------
    UsageError
        If no folder is given, or the report can't be written.
    """
    if options["report"]:
        from badpix.io.output import check_target

        if Path(options["report"]).suffix.lower() not in KINDS:
            raise UsageError(f"--report: found {options['report']!r}, expected a name that ends in .html or .json")
        check_target(options["report"], options["overwrite"], [*members.paths, *map(Path, inputs)])
    if options["preview"]:
        return None
    if not options["output_dir"]:
        raise UsageError("no folder for the flagged copies: give --output-dir, or --preview to write none")
    folder: str = options["output_dir"]
    return folder


def wants_cost(options: dict[str, Any]) -> bool:
    """Whether the cost of the flags has to be measured."""
    return bool(options["preview"] or options["report"])


def write_report(
    options: dict[str, Any], command: str, members: Association, talk: Talk, summary: dict[str, Any]
) -> list[str]:
    """Write the report that was asked for; the paths written."""
    path = options["report"]
    if not path:
        return []
    from badpix.io.output import write_text
    from badpix.io.provenance import code_version, hash_inputs

    inputs = [{"path": str(i.path), "sha256": i.sha256, "bytes": i.size} for i in hash_inputs(members.paths)]
    whole = {"command": command, "code": code_version(), "inputs": inputs, **summary}
    if Path(path).suffix.lower() == ".html":
        from badpix.review.outlier_page import make_page

        text = make_page(whole, talk.notes, preview=options["preview"])
    else:
        import json

        text = json.dumps(whole, indent=1, default=str) + "\n"
    write_text(path, text, options["overwrite"])
    return [path]


def _percent(worst: float | None) -> str:
    """The largest loss of a source; losses below 1 % are not listed by every search."""
    return "< 1 %" if worst is None else f"{worst:.2%}"


def tell_cost(talk: Talk, cost: dict[str, Any]) -> None:
    """Tables of what the flags cost: by exposure, by source, and in the stack."""
    from badpix.io.associations import root_name

    talk.table(
        "What the flags cost",
        ["exposure", "sources", "losing 1 %", "worst", "not compared"],
        [
            (root_name(r["exposure"]), r["sources"], r["losing"], _percent(r["worst"]), f"{r['unsearched']:.2%}")
            for r in cost["exposures"]
        ],
    )
    losing = sorted((r for r in cost["sources"] if r["lost"] > 0), key=lambda r: -r["lost"])
    talk.table(
        f"Light of sources on flagged pixels ({len(losing)}, first {min(len(losing), ROWS)})",
        ["exposure", "source", "lost"],
        [(root_name(r["exposure"]), r["source"], f"{r['lost']:.2%}") for r in losing[:ROWS]],
    )
    for depth in cost["depth"]:
        pairs = zip(depth["before"], depth["after"], strict=True)
        talk.table(
            f"Pixels by depth, {depth['stack']}",
            ["exposures left", "before", "after"],
            [(str(number), *pair) for number, pair in enumerate(pairs)],
        )
        share = 1e6 * depth["holes"] / max(depth["covered"], 1)
        talk.say(f"{depth['stack']}: {depth['holes']:,} holes (no exposure left), {share:.0f} per million")
