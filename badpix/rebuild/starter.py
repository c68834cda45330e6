"""``badpix init``: a folder to rebuild masks in, with everything but the exposures.

The YAML names the detectors that are asked for; beside it are folders for flats and darks by detector, a manual list,
and the crontab line with the paths of this folder filled in.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from badpix import detectors, errors
from badpix.errors import UsageError
from badpix.io.output import check_directory, check_target, write_text

log = logging.getLogger("badpix")

INSTRUMENTS = {
    "nircam": ["NRCA1", "NRCA2", "NRCA3", "NRCA4", "NRCALONG", "NRCB1", "NRCB2", "NRCB3", "NRCB4", "NRCBLONG"],
    "miri": ["MIRIMAGE", "MIRIFULONG", "MIRIFUSHORT"],
    "niriss": ["NIS"],
    "nirspec": ["NRS1", "NRS2"],
    "fgs": ["GUIDER1", "GUIDER2"],
}


def write_start(
    folder: str | Path, instrument: str, chosen: Sequence[str], base: str | None, overwrite: bool
) -> list[Path]:
    """Everything that a rebuild needs, but the exposures.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    instrument : str
        ``nircam``, ``miri``, ``niriss``, ``nirspec`` or ``fgs``.
    chosen : sequence of str
        Detectors; all of the instrument, if empty.
    base : str, optional
        Folder or name of the masks in use, ``{detector}`` filled in: they are brought up to date.
    overwrite : bool
        Replace files that are there.

    Raises
    ------
    UsageError
        At an unknown instrument or detector, or files that are there.
    """
    name = instrument.lower()
    if name not in INSTRUMENTS:
        raise UsageError(f"--instrument: {instrument!r} is unknown{errors.nearest(name, INSTRUMENTS)}")
    known = INSTRUMENTS[name]
    wanted = [detectors.choose(d, "--detectors").name for d in chosen] or known
    for detector in wanted:
        if detector not in known:
            raise UsageError(f"--detectors: {detector} is none of {name}: {', '.join(known)}")
    place = check_directory(folder)
    texts = {f"{name}.yml": make_yaml(name, wanted, base), "pixels.txt": PIXELS, "crontab": make_crontab(place, name)}
    paths = [check_target(place / file, overwrite) for file in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text, overwrite)
    for detector in wanted:
        for kind in ("flats", "darks"):
            check_directory(place / kind / detector.lower(), told=False)
    check_directory(place / "masks", told=False)
    log.info(f"made flats/ and darks/ with a folder for each of {', '.join(wanted)}, and masks/")
    return paths


PIXELS = "x y flag\n# x and y are 0-based, ranges as 384:385; flags as in `badpix params merge`\n"


def make_yaml(name: str, wanted: Sequence[str], base: str | None) -> str:
    """The YAML of a rebuild."""
    lines = [
        f"# badpix rebuild {name}.yml: masks of {', '.join(wanted)}.",
        "# Exposures: flats/<detector>/ (_rate) and darks/<detector>/ (_rateints; _jump and _fitopt beside them;",
        "# badpix prepare makes all three from _uncal). Paths start at the folder of this file.",
        "defaults:",
        "  reference:",
        '    author: "Your name"          # goes into every mask: change it',
        f'    descrip: "{name.upper()} bad pixel mask of {{detector}}"',
        '    useafter: "2022-01-01T00:00:00"',
        '    differences: "not stated"   # what is new in these masks, and why',
        "  flats:",
        '    inputs: {rate: "flats/{detector}/*_rate.fits"}',
        "  darks:",
        '    inputs: {rate: "darks/{detector}/*_rateints.fits"}',
    ]
    manual = 'manual: ["pixels.txt"]' if len(wanted) == 1 else ""
    entries = ", ".join(part for part in (manual, f'base: "{base}"' if base else "") if part)
    lines += [f"  merge: {{{entries}}}"] if entries else []
    if len(wanted) > 1:
        lines.append(
            "# A manual list belongs to one detector: - {detector: NAME, merge: {manual: [pixels.txt]}} below."
        )
    lines += [
        '  output: "masks/{instrument}_{detector}_mask_{date}.fits"',
        "  rebuild: {settle: 60, keep: 12}   # exposures must be quiet for a minute; twelve masks are kept",
        f"detectors: [{', '.join(wanted)}]",
    ]
    return "\n".join(lines) + "\n"


def make_crontab(place: Path, name: str) -> str:
    """The line for cron: every night at two, with the program and the folder of this run."""
    found = shutil.which("badpix")
    program = Path(found) if found else Path(sys.executable).with_name("badpix")
    here = os.path.abspath(place)
    command = f"cd {here} && {program} rebuild {name}.yml --status-file masks/status --log-file rebuild.log -q"
    return f"# crontab -e, and add:\n0 2 * * * {command}\n"
