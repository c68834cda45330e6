"""From input files to a mask file: the flow of the mask commands.

Every one of them reads (:mod:`exposures`), searches (:mod:`flats`, :mod:`darks`), combines (:mod:`mask`) and
writes (:mod:`crds`, :mod:`evidence`); ``merge`` enters at the combination. The command line and ``badpix
rebuild`` call the same functions, with values that have been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors
from badpix.errors import DataError, UsageError
from badpix.io import evidence_file, output, selection
from badpix.io import exposure as exposures
from badpix.io.evidence import Detection
from badpix.io.exposure import Exposure
from badpix.mask import combine
from badpix.mask import file as mask_file
from badpix.mask import header as mask_header
from badpix.mask.header import Provenance
from badpix.settings.reference import ReferenceSettings


@dataclass(frozen=True)
class Product:
    """A mask that was written, and what a summary says about it."""

    path: Path
    evidence: Path | None
    searches: dict[str, int]
    flags: dict[str, int]
    science_pixels: int
    inputs: list[str]
    rejected: list[tuple[str, str]] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    judged: dict[str, int] = field(default_factory=dict)  # of flats: science pixels by what could be said of them
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed_pixels: list[dict[str, Any]] = field(default_factory=list)
    areas: list[dict[str, Any]] = field(default_factory=list)  # of flats: dark or weak as a whole
    sets: list[dict[str, Any]] = field(default_factory=list)  # of flats: searched apart and joined

    def summary(self) -> dict[str, Any]:
        """The part of the JSON summary that describes the product."""
        n = max(self.science_pixels, 1)
        return {
            "inputs": self.inputs,
            "rejected": [{"file": name, "reason": why} for name, why in self.rejected],
            "science_pixels": self.science_pixels,
            **({"judged": self.judged, "areas": self.areas} if self.judged else {}),
            **({"sets": self.sets} if self.sets else {}),
            "searches": {k: {"pixels": v, "percent": round(100 * v / n, 5)} for k, v in self.searches.items()},
            "flags": {k: {"pixels": v, "percent": round(100 * v / n, 5)} for k, v in self.flags.items()},
            "limits": self.limits,
            "evidence": str(self.evidence) if self.evidence else None,
            **({"update": {"flags": self.changes, "pixels": self.changed_pixels}} if self.changes else {}),
        }


# --- flats -----------------------------------------------------------------------------------------------


def check_detector(path: Path | None, found: detectors.Detector, expected: str | None) -> None:
    """Make sure that a file is of the detector that the parameter file names.

    Raises
    ------
    DataError
        If it is of another one.
    """
    if expected and found != detectors.get(expected):
        raise DataError(
            f"{path}: DETECTOR = {found.name!r}, expected {expected!r} as in the parameter file or --detector"
        )


# --- shared by flats and darks ---------------------------------------------------------------------------


def open_all(
    paths: Sequence[Path],
    workdir: Path,
    names: Sequence[str],
    check: Callable[[Exposure], None],
    skip_bad: bool,
    detector: str | None = None,
    most_left_out: float = selection.MOST_LEFT_OUT,
    same: Sequence[str] = selection.SAME_KEYWORDS,
) -> tuple[list[Exposure], list[tuple[Path, str]]]:
    """All usable exposures, and the others with the reason; all of one detector, subarray and readout.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    workdir : Path
        Where compressed ones are unpacked.
    names : sequence of str
        Extensions that are needed.
    check : callable
        Raises DataError where an exposure can't be used.
    skip_bad : bool
        Leave out those that can't be used, and those that differ from the set that most files agree on.
    detector : str, optional
        The detector that is meant; with ``skip_bad`` exposures of others are left out.
    most_left_out : float
        Part of the files that may be left out.
    same : sequence of str
        Keywords that all exposures share, beside the window.

    Raises
    ------
    DataError
        If one can't be used and ``skip_bad`` is false, or too many would be left out.
    UsageError
        If there is none.
    """
    if not paths:
        raise UsageError("no input files")
    used: list[Exposure] = []
    rejected: list[tuple[Path, str]] = []
    for path in paths:
        try:
            exposure = exposures.open_exposure(path, workdir, names)
            check(exposure)
            check_detector(path, exposure.detector, detector)
            if not skip_bad:
                selection.check_same([*used[:1], exposure], same)
        except DataError as error:
            if not skip_bad:
                raise
            rejected.append((path, str(error).removeprefix(f"{path}: ")))
        else:
            used.append(exposure)
    if not used:
        raise DataError(f"none of the {len(paths)} inputs can be used; the first: {rejected[0][0]}: {rejected[0][1]}")
    if skip_bad:
        used, rejected = _keep_set(used, rejected, most_left_out, same)
    return used, rejected


def _keep_set(
    used: Sequence[Exposure], rejected: Sequence[tuple[Path, str]], most: float, same: Sequence[str]
) -> tuple[list[Exposure], list[tuple[Path, str]]]:
    """The exposures of the set that most of them agree on; the others join those that were rejected."""
    reasons = selection.keep_largest_set(used, same, most_left_out=most)
    kept = [e for e, why in zip(used, reasons, strict=True) if not why]
    left = [*rejected, *((e.path, why) for e, why in zip(used, reasons, strict=True) if why)]
    if left:
        selection.check_left_out(len(left), len(kept) + len(left), f"{left[0][0]}: {left[0][1]}", most)
    return kept, sorted(left)


def claim_output(
    target: Path, header: Mapping[str, Any], inputs: Sequence[Path], overwrite: bool, with_evidence: bool
) -> Path:
    """Where the mask goes, after making sure that it and its evidence can be written and are no inputs.

    Raises
    ------
    UsageError
        If not.
    """
    path = fill_name(target, header)
    for out in (path, evidence_file.path_beside(path)) if with_evidence else (path,):
        output.check_target(out, overwrite, inputs)
    return path


def fill_name(target: Path, header: Mapping[str, Any]) -> Path:
    """The output path with ``{instrument}``, ``{detector}`` and ``{date}`` (day of the first input, of
    a mask its USEAFTER) filled in.

    Raises
    ------
    UsageError
        At an unknown field.
    DataError
        If a keyword can't be a part of a file name.
    """
    text = str(target)
    words = {
        "instrument": ("INSTRUME", str(header.get("INSTRUME", "")).lower()),
        "detector": ("DETECTOR", str(header.get("DETECTOR", "")).lower()),
        "date": ("DATE-OBS", str(header.get("DATE-OBS") or header.get("USEAFTER") or "")[:10].replace("-", "")),
    }
    fields = {
        name: output.plain_word(word, keyword) if word and f"{{{name}}}" in text else word
        for name, (keyword, word) in words.items()
    }
    return Path(output.fill_template(text, fields))


def finish(
    found: Detection,
    image: NDArray[np.uint32],
    reference: NDArray[np.bool_],
    used: Sequence[Exposure],
    texts: ReferenceSettings,
    about: Provenance,
    path: Path,
    overwrite: bool,
    with_evidence: bool,
) -> Product:
    """Write the mask, and its evidence beside it, and say what is in it."""
    window = used[0].window
    header = mask_header.make_header(
        mask_header.source_headers(used), used[0].keyword("DETECTOR"), window, texts, about
    )
    beside = evidence_file.path_beside(path) if with_evidence else None
    if beside is not None:
        output.check_target(beside, overwrite)
    mask_file.write_mask(path, image, header, overwrite=overwrite)
    if beside is not None:
        write_evidence(beside, found, path, overwrite)
    counts = combine.count_flags(image, ~reference)
    notes = [*found.notes, *mask_header.note_missing_texts(texts)]
    odd = combine.implausible(counts, int((~reference).sum()))
    return Product(
        path,
        beside,
        {name: int(m.sum()) for name, m in found.maps.items()},
        counts,
        int((~reference).sum()),
        [e.path.name for e in used],
        [(p.name, why) for p, why in about.rejected],
        [rule._asdict() for rule in found.evidence.rules],
        notes + ([odd] if odd else []),
    )


def write_evidence(path: Path, found: Detection, mask_path: Path, overwrite: bool) -> None:
    """The evidence of a mask, tied to it by the checksum of its DQ."""
    header = mask_file.evidence_header(mask_path)
    for name, flagged in found.maps.items():
        found.evidence.images.setdefault(f"is_{name.lower()}", flagged)
    with output.atomic_path(path, overwrite) as temporary:
        evidence_file.write(temporary, found.evidence, header)
