"""A mask made ready for delivery: everything that is checked, and a folder with everything that is sent.

1. All checks, warnings as errors: rules, levels, policy, texts, jumps against the mask in use, the pipeline's own
   DQInitStep and ``crds certify``. A delivery also needs an author, a description and reasons (:func:`find_missing`).
2. Only then the folder is written: the mask, its evidence, the page, what changed, what the clients said, and the
   text of the delivery form (:func:`make_form`), whose differences come from the comparison.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from badpix.errors import UsageError
from badpix.io import evidence_file
from badpix.io.output import check_directory, check_place, copy_file, write_text
from badpix.mask import file as mask_file
from badpix.mask.file import Mask
from badpix.mask.header import NOBODY
from badpix.mask.history import join_history
from badpix.mask.rules import Fault
from badpix.review import check, compare, export_changes, report
from badpix.review.check import Checked
from badpix.review.compare import Comparison
from badpix.settings.check import CheckSettings

FORM, PAGE = "delivery_form.txt", "report.html"
OTHERS = (PAGE, "check.json", "clients.txt", FORM)  # what a delivery holds besides mask, evidence and changes


def check_delivery(
    path: Path, limits: CheckSettings, *, against: Path | None, pipeline: bool, exposure: Path | None = None
) -> Checked:
    """All checks of a mask that is to be delivered; its faults include what a delivery needs besides."""
    checked = check.check_mask(
        path, replace(limits, strict=True), against=against, pipeline=pipeline, exposure=exposure
    )
    told = {f.rule for f in checked.faults}
    if not any(f.severity == "error" and f.rule == "decode" for f in checked.faults):
        checked.faults += [f for f in find_missing(mask_file.read_mask(path)) if f.rule not in told]
    return checked


def find_missing(mask: Mask) -> list[Fault]:
    """What a delivery needs and the mask's header does not say."""
    found = []
    header, lines = mask.header, join_history(mask.history)
    if str(header.get("AUTHOR", NOBODY)).strip().lower() in ("", NOBODY):
        found.append(Fault("error", "author", "AUTHOR names nobody; give --author"))
    if str(header.get("DESCRIP", "")).strip() in ("", f"Bad pixel mask of {mask.detector}"):
        found.append(Fault("error", "descrip", "DESCRIP says nothing; give --descrip"))
    own = [line for line in lines[: _first_input(lines)] if line.strip()]
    stated = next((line for line in own if line.startswith("DIFFERENCES:")), "DIFFERENCES: not stated")
    if stated.removeprefix("DIFFERENCES:").strip() in ("", "not stated"):
        text = "HISTORY gives no reasons: DIFFERENCES is not stated; give --differences (and --history)"
        found.append(Fault("error", "history", text))
    return found


def _first_input(lines: Sequence[str]) -> int:
    return next((k for k, line in enumerate(lines) if line.startswith("HISTORY of ")), len(lines))


def write_delivery(
    path: Path, folder: Path, checked: Checked, limits: CheckSettings, *, against: Path | None, overwrite: bool
) -> list[Path]:
    """The folder of a delivery.

    Parameters
    ----------
    path : Path
        The mask, which passed.
    folder : Path
        Gets everything; made if it is missing.
    checked : Checked
        From :func:`check_delivery`.
    limits : CheckSettings
        Limits that the page shows.
    against : Path, optional
        The mask in use.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    UsageError
        If the folder holds something and ``overwrite`` is false.
    """
    place = check_directory(folder)
    if not overwrite and any(place.iterdir()):
        raise UsageError(f"{folder}: is not empty; give --overwrite to replace what is in it")
    mask = mask_file.read_mask(path)
    target = place / path.name
    names = [
        target,
        evidence_file.path_beside(target),
        *(place / name for name in (PAGE, FORM, "check.json", "clients.txt")),
    ]
    for name in names:
        check_place(name, [against] if against else [])
    if path.resolve() != target.resolve():
        copy_file(path, target, overwrite=True)
    written = [target]
    beside = evidence_file.path_beside(path)
    if beside.is_file():
        copy_file(beside, evidence_file.path_beside(target), overwrite=True)
        written.append(evidence_file.path_beside(target))
    page = place / PAGE
    report.write_report(path, page, limits, against=against, overwrite=True)
    pair = compare.compare(mask_file.read_mask(against), mask) if against else None
    if pair is not None:
        written += export_changes.write_comparison(pair, place / "changes", mask.detector, overwrite=True)
    write_text(place / "check.json", json.dumps(checked.summary(), indent=1, default=str) + "\n", overwrite=True)
    write_text(place / "clients.txt", say_clients(checked), overwrite=True)
    write_text(place / FORM, make_form(mask, checked, pair, against), overwrite=True)
    return [*written, page, place / "check.json", place / "clients.txt", place / FORM]


def say_clients(checked: Checked) -> str:
    """What the pipeline and CRDS said, as text."""
    lines = []
    for answer in checked.answers:
        lines.append(f"{answer.client}: {answer.status}")
        lines += [f"  {message}" for message in answer.messages]
        lines += [f"  {r['flag']}: {r['mask']} in the mask, {r['pipeline']} in PIXELDQ" for r in answer.rows]
    return "\n".join(lines or ["The pipeline and CRDS were not asked."]) + "\n"


def make_form(mask: Mask, checked: Checked, pair: Comparison | None, against: Path | None) -> str:
    """The text of the delivery form: what is asked for, from the mask's header, the checks and the comparison."""
    header = mask.header
    lines = join_history(mask.history)
    own = lines[: _first_input(lines)]
    stated = next((x.removeprefix("DIFFERENCES:").strip() for x in own if x.startswith("DIFFERENCES:")), "")
    document = next((x.removeprefix("DOCUMENT:").strip() for x in own if x.startswith("DOCUMENT:")), "")
    clients = ", ".join(f"{a.client} {a.status}" for a in checked.answers) or "not asked"
    rows = {
        "Deliverer": header.get("AUTHOR"),
        "Files": mask.path.name if mask.path else "",
        "Instrument": header.get("INSTRUME"),
        "Detector": mask.detector,
        "Reference type": "MASK",
        "Replaces": against.name if against else "nothing",
        "Description": header.get("DESCRIP"),
        "Pedigree": header.get("PEDIGREE"),
        "Use after": header.get("USEAFTER"),
        "History": "filled in the header: inputs with sha256, parameters, reasons",
        "Document": document,
        "Checked": f"badpix check --strict: {'passed' if checked.passed else 'FAILED'}; {clients}",
        "Differences": stated,
    }
    out = [f"{name}: {value}" for name, value in rows.items()]
    if pair is not None and against is not None:
        out += ["", f"Differences to {against.name} in numbers (science pixels that both cover):"]
        out += [
            f"  {c.flag}: {c.old:,} -> {c.new:,} ({c.appeared:,} appeared, {c.disappeared:,} gone)"
            for c in pair.changes
        ]
    return "\n".join(out) + "\n"
