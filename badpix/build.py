"""From input files to a mask file: the flow of the mask commands.

Every one of them reads (:mod:`exposures`), searches (:mod:`flats`, :mod:`darks`), combines (:mod:`mask`) and
writes (:mod:`crds`, :mod:`evidence`); ``merge`` enters at the combination. The command line and ``badpix
rebuild`` call the same functions, with values that have been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import crds, crds_header, detectors, dq, evidence, exposures, flats, mask, output, params, selection
from badpix.crds_header import Provenance
from badpix.errors import DataError, UsageError
from badpix.evidence import Detection
from badpix.exposures import Exposure
from badpix.provenance import hash_inputs


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

    def summary(self) -> dict[str, Any]:
        """The part of the JSON summary that describes the product."""
        n = max(self.science_pixels, 1)
        return {
            "inputs": self.inputs,
            "rejected": [{"file": name, "reason": why} for name, why in self.rejected],
            "science_pixels": self.science_pixels,
            "searches": {k: {"pixels": v, "percent": round(100 * v / n, 5)} for k, v in self.searches.items()},
            "flags": {k: {"pixels": v, "percent": round(100 * v / n, 5)} for k, v in self.flags.items()},
            "limits": self.limits,
            "evidence": str(self.evidence) if self.evidence else None,
        }


# --- flats -----------------------------------------------------------------------------------------------


def build_flats(
    rates: Sequence[Path],
    p: Mapping[str, Any],
    texts: Mapping[str, Any],
    target: Path,
    *,
    uncals: Sequence[Path] = (),
    overwrite: bool = False,
    with_evidence: bool = False,
    skip_bad: bool = False,
    executor: Executor | None = None,
    memory: float = 32e6,
    tick: Callable[[int, int], None] = flats.quiet,
    look: Callable[[Detection, NDArray[np.uint32]], None] | None = None,
    detector: str | None = None,
) -> Product:
    """A MASK from flats: see :mod:`badpix.flats`.

    Parameters
    ----------
    rates, uncals : sequence of Path
        Slope images; raw flats for the flux check.
    p, texts : mapping
        Checked values of ``settings.flats``, and of ``settings.reference`` (:func:`crds_header.check_texts`).
    target : Path
        The MASK file; ``{instrument}``, ``{detector}``, ``{date}`` are filled in.
    overwrite, with_evidence, skip_bad : bool
        Replace the target; write the evidence; leave out files that can't be used instead of stopping.
    executor, memory, tick
        See :func:`flats.search`.
    look : callable, optional
        Called with the detection and the mask before anything is written (pictures).
    detector : str, optional
        The detector that the files must be of.
    """
    if p["ipc_correction"] == "given" and p["ipc_coupling"] is None:
        raise UsageError("flats.ipc_coupling: found none, but ipc_correction is 'given'; expected a number")
    with exposures.unpacking() as workdir:
        used, rejected = open_all(rates, workdir, ["SCI", "DQ"], check_flat, skip_bad)
        raws = _open_uncals(used, uncals, p, workdir) if p["run_dead_flux_check"] else []
        check_detector(used[0].path, used[0].detector, detector)
        path = claim_output(target, used[0].header, [*rates, *uncals], overwrite, with_evidence)
        manual = find_manual_file(p["manual_flag_file"], used[0])
        rows = read_manual_file(manual, used[0])
        reference = exposures.read_reference_pixels(used[0])
        found = flats.search(used, p, reference=reference, uncals=raws, executor=executor, memory=memory, tick=tick)
    listed = set(p["flat_do_not_use"]) or (set(dq.UNUSABLE) if p["do_not_use_policy"] == "all" else set())
    if look is None and not with_evidence:
        found.evidence.images.clear()  # nobody asks for them any more: memory for the mask
    image = mask.combine(found.maps, flag_values={}, do_not_use=listed, reference=reference)
    image = _add_manual(image, rows, listed, reference)
    if look is not None:
        look(found, image)
    if not with_evidence:
        found.evidence.images.clear()
    inputs = hash_inputs([e.path for e in (*used, *raws)] + ([manual] if manual else []))
    about = Provenance(
        f"Bad pixel mask of {used[0].keyword('DETECTOR')} from {len(used)} flat-field exposures: "
        "DEAD, LOW_QE, OPEN, ADJ_OPEN.",
        [(params.section("flats"), {**p, "max_dead_norm_signal": _limit_used(p, used[0])})],
        inputs,
        rejected,
        found.notes,
    )
    return finish(found, image, reference, used, texts, about, path, overwrite, with_evidence)


def _limit_used(p: Mapping[str, Any], exposure: Exposure) -> float:
    """What `max_dead_norm_signal: none` stands for, for the record."""
    return flats.dead_limit(p, detectors.get(exposure.keyword("DETECTOR")))


def check_detector(path: Path | None, found: detectors.Detector, expected: str | None) -> None:
    """Make sure that a file is of the detector that the parameter file names.

    Raises
    ------
    DataError
        If it is of another one.
    """
    if expected and found != detectors.get(expected):
        raise DataError(f"{path}: DETECTOR = {found.name!r}, expected {expected!r} as in the parameter file")


def check_flat(exposure: Exposure) -> None:
    """Make sure that a file is a slope image of a flat in the right state.

    Raises
    ------
    DataError
        If not.
    """
    if exposure.kind not in ("rate", "rateints"):
        raise DataError(f"{exposure.path}: is a {exposure.kind} file, expected rate or rateints")
    selection.check_state(exposure, "S_RAMP")
    exposure.detector, exposure.window  # noqa: B018 (raise where the keywords do not fit)


def _open_uncals(
    used: Sequence[Exposure], given: Sequence[Path], p: Mapping[str, Any], workdir: Path
) -> list[Exposure]:
    """The raw flats of the flux check: named, in the parameters, or beside the slope files."""
    names = list(given) or selection.expand_inputs(p["dead_flux_check_files"] or (), ("_uncal",))
    if not names:
        beside = [selection.sibling(e.path, "_uncal") for e in used]
        names = [b for b in beside if b is not None]
    found = [exposures.open_exposure(n, workdir, ["SCI"]) for n in names]
    for exposure in found:
        selection.check_state(exposure, "S_RAMP", complete=False)
        if len(exposure["SCI"].shape) not in (3, 4):
            raise DataError(
                f"{exposure.path}: SCI has {len(exposure['SCI'].shape)} axes, expected raw groups (3 or 4)"
            )
    if found:
        selection.check_same([used[0], *found], ("INSTRUME", "DETECTOR", "SUBARRAY"))
    return found


# --- shared by flats and darks ---------------------------------------------------------------------------


def open_all(
    paths: Sequence[Path],
    workdir: Path,
    names: Sequence[str],
    check: Callable[[Exposure], None],
    skip_bad: bool,
) -> tuple[list[Exposure], list[tuple[Path, str]]]:
    """All usable exposures, and the others with the reason; all of one detector, subarray and readout.

    Raises
    ------
    DataError
        If one can't be used and ``skip_bad`` is false, or none is left.
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
            selection.check_same([*used[:1], exposure])
        except DataError as error:
            if not skip_bad:
                raise
            rejected.append((path, str(error).removeprefix(f"{path}: ")))
        else:
            used.append(exposure)
    if not used:
        raise DataError(f"none of the {len(paths)} inputs can be used; the first: {rejected[0][0]}: {rejected[0][1]}")
    return used, rejected


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
    for out in (path, evidence.path_beside(path)) if with_evidence else (path,):
        output.check_target(out, overwrite)
        if out.exists() and any(Path(name).exists() and out.samefile(name) for name in inputs):
            raise UsageError(f"{out}: is also an input; inputs are never modified")
    return path


def fill_name(target: Path, header: Mapping[str, Any]) -> Path:
    """The output path with ``{instrument}``, ``{detector}`` and ``{date}`` (day of the first input, of
    a mask its USEAFTER) filled in.

    Raises
    ------
    UsageError
        At an unknown field.
    """
    fields = {
        "instrument": str(header.get("INSTRUME", "")).lower(),
        "detector": str(header.get("DETECTOR", "")).lower(),
        "date": str(header.get("DATE-OBS") or header.get("USEAFTER") or "")[:10].replace("-", ""),
    }
    try:
        return Path(str(target).format(**fields))
    except (KeyError, IndexError, ValueError, AttributeError):
        raise UsageError(f"output: {target} has an unknown field; known are {', '.join(fields)}") from None


def find_manual_file(name: str | None, exposure: Exposure) -> Path | None:
    """The manual list: a file, the detector's shipped one (``default``; few have one), or none."""
    if name != "default":
        return Path(name) if name else None
    shipped = f"manual/{exposure.keyword('INSTRUME')}_{exposure.keyword('DETECTOR')}_manual_flags.txt".lower()
    found = Path(str(files("badpix.configs").joinpath(shipped)))
    return found if found.is_file() else None


def read_manual_file(name: str | Path | None, exposure: Exposure) -> list[mask.ManualRow]:
    """Rows of a manual list (full-frame coordinates), cut to the window of an exposure.

    Raises
    ------
    UsageError
        If a line can't be understood.
    """
    if not name:
        return []
    facts = exposure.detector
    window = exposure.window
    return cut_rows(mask.read_manual(name, (max(facts.shape[0], window.ysize), facts.shape[1])), window)


def cut_rows(rows: Sequence[mask.ManualRow], window: detectors.Window) -> list[mask.ManualRow]:
    """Manual rows in the coordinates of a window; what lies outside is left out."""
    out = []
    for row in rows:
        y = _shift(row.y, window.ystart - 1, window.ysize)
        x = _shift(row.x, window.xstart - 1, window.xsize)
        if y.start < y.stop and x.start < x.stop:
            out.append(mask.ManualRow(y, x, row.flag))
    return out


def _shift(span: slice, start: int, size: int) -> slice:
    return slice(max(span.start - start, 0), min(span.stop - start, size))


def _add_manual(
    image: NDArray[np.uint32], rows: Sequence[mask.ManualRow], do_not_use: set[str], reference: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Manual flags added, HOT over DEAD again, reference pixels protected."""
    added = mask.resolve_hot_dead(mask.add_manual(image, rows, do_not_use))
    return mask.protect_reference(added, reference)[0]


def finish(
    found: Detection,
    image: NDArray[np.uint32],
    reference: NDArray[np.bool_],
    used: Sequence[Exposure],
    texts: Mapping[str, Any],
    about: Provenance,
    path: Path,
    overwrite: bool,
    with_evidence: bool,
) -> Product:
    """Write the mask, and its evidence beside it, and say what is in it."""
    window = used[0].window
    header = crds_header.make_header(
        crds_header.source_headers(used), used[0].keyword("DETECTOR"), window, texts, about
    )
    beside = evidence.path_beside(path) if with_evidence else None
    if beside is not None:
        output.check_target(beside, overwrite)
    crds.write_mask(path, image, header, overwrite=overwrite)
    if beside is not None:
        write_evidence(beside, found, path, overwrite)
    counts = mask.count_flags(image, ~reference)
    notes = list(found.notes)
    odd = mask.implausible(counts, int((~reference).sum()))
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
    header = crds.evidence_header(mask_path)
    for name, flagged in found.maps.items():
        found.evidence.images.setdefault(f"is_{name.lower()}", flagged)
    with output.atomic_path(path, overwrite) as temporary:
        evidence.write(temporary, found.evidence, header)
