"""One MASK from several: ``badpix merge`` from files to file.

Masks from flats, from darks, older ones, plain maps of other tools and manual lists are read into one frame, joined
(:mod:`badpix.mask.combine`) and written (:mod:`badpix.mask.file`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import DataError, UsageError
from badpix.io import evidence, output
from badpix.io.provenance import hash_inputs
from badpix.mask import combine, manual
from badpix.mask import file as mask_file
from badpix.mask import header as mask_header
from badpix.mask.file import Mask
from badpix.mask.header import Provenance
from badpix.mask.manual import cut_rows
from badpix.mask.product import Product, check_detector, claim_output
from badpix.settings.merge import MergeSettings
from badpix.settings.reference import ReferenceSettings


def build_merge(
    paths: Sequence[Path],
    p: MergeSettings,
    texts: ReferenceSettings,
    target: Path,
    *,
    overwrite: bool = False,
    with_evidence: bool = False,
    detector: str | None = None,
) -> Product:
    """One MASK from several, and from manual lists.

    Parameters
    ----------
    paths : sequence of Path
        MASK files, or plain images of other tools (non-zero means bad) beside at least one MASK file.
    p, texts : mapping
        Checked values of ``settings.merge`` and ``settings.reference``.
    target : Path
        The MASK file.
    overwrite, with_evidence : bool
        Replace the target; join the evidence of the inputs beside it.
    detector : str, optional
        The detector that the masks must be of.

    Raises
    ------
    DataError
        If detectors or windows differ.
    """
    dropped, listed = [combine.find_flag(name) for name in p.drop], _unusable(p)
    masks, notes = read_masks(paths, p)
    check_detector(masks[0].path, detectors.get(masks[0].detector), detector)
    masks, covered = same_frame(masks, p.embed)
    first = masks[0]
    path = claim_output(target, first.header, [*paths, *map(Path, p.manual)], overwrite, with_evidence)
    rows = [row for name in p.manual for row in _manual_of(name, first, p.one_based)]
    if p.prefer == "newest":
        order = sorted(range(len(masks)), key=lambda k: str(masks[k].header.get("USEAFTER", "")))
        image = combine.merge_newest([masks[k].image for k in order], [covered[k] for k in order])
    else:
        image = combine.merge([m.image for m in masks], covered, min_fraction=p.min_fraction)
    for flag in dropped:
        image &= np.uint32(0xFFFFFFFF ^ flag.value)
    image = manual.add_manual(image, rows, listed if p.manual_do_not_use else set())
    image = combine.resolve_hot_dead(image) if p.hot_over_dead else image
    image, freed = combine.protect_reference(image, _reference(first, masks))
    if freed:
        notes.append(f"{freed} good reference pixels carried DO_NOT_USE in the inputs; taken off")
    return _finish_merge(image, masks, paths, p, texts, path, notes, overwrite, with_evidence)


def read_masks(paths: Sequence[Path], p: MergeSettings) -> tuple[list[Mask], list[str]]:
    """All inputs of a merge as masks; plain images take detector and window of the first MASK file."""
    if not paths:
        raise UsageError("no masks to merge")
    real = {path: _read_known(path) for path in paths if mask_file.is_mask_file(path)}
    plain = {path: mask_file.read_plain(path) for path in paths if path not in real}
    notes = []
    listed = _unusable(p)
    host = next(iter(real.values()), None)
    out = []
    for path in paths:
        if path in real:
            out.append(real[path])
            continue
        image, header = plain[path]
        name = str(header.get("DETECTOR") or (host.detector if host else ""))
        if not name:
            raise DataError(f"{path}: keyword DETECTOR is missing, and no MASK file tells the detector")
        if image.shape != (host.image.shape if host else detectors.get(name).shape):
            raise DataError(f"{path}: has {image.shape[1]} x {image.shape[0]} pixels, not those of {name}")
        flags = combine.from_plain(image, p.plain_flag, combine.find_flag(p.plain_flag).name in listed)
        window = host.window if host else detectors.get(name).full
        out.append(Mask(flags, detectors.get(name).name, window, {**header, "DETECTOR": name}, [], path))
        notes.append(f"{path.name}: plain map, {np.count_nonzero(flags)} pixels taken as {p.plain_flag.upper()}")
    return out, notes


def _unusable(p: MergeSettings) -> set[str]:
    """Names of the flags that go with DO_NOT_USE."""
    return {combine.find_flag(name).name for name in p.do_not_use}


def _read_known(path: Path) -> Mask:
    """A MASK file of a detector that we know."""
    found = mask_file.read_mask(path)
    try:
        return replace(found, detector=detectors.get(found.detector).name)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def same_frame(masks: Sequence[Mask], embed: bool) -> tuple[list[Mask], list[NDArray[np.bool_]]]:
    """Masks of one detector in one frame, and what each of them covers.

    Raises
    ------
    DataError
        If detectors differ, or windows without ``embed``.
    """
    first = masks[0]
    for other in masks[1:]:
        if other.detector != first.detector:
            raise DataError(f"{other.path}: DETECTOR = {other.detector!r}, expected {first.detector!r}")
        if other.window != first.window and not embed:
            raise DataError(
                f"{other.path}: window {tuple(other.window)}, expected {tuple(first.window)} as in {first.path}; "
                "--embed places subarrays into the full frame"
            )
    if not embed:
        return list(masks), [np.ones(m.image.shape, bool) for m in masks]
    placed = [mask_file.place(m) for m in masks]
    return [m for m, _ in placed], [c for _, c in placed]


def _manual_of(name: str, first: Mask, one_based: bool) -> list[manual.ManualRow]:
    shape = first.image.shape if first.is_full else detectors.get(first.detector).shape
    return cut_rows(manual.read_manual(name, shape, one_based), first.window)


def _reference(first: Mask, masks: Sequence[Mask]) -> NDArray[np.bool_]:
    """Reference pixels of the merged mask: by geometry; the interleaved ones of IRS2 from the masks.

    A simulated detector of another size (``--size``) has its own border, where geometry sees the inside of the real
    detector: what all masks of a window call reference pixels along its edge are reference pixels.
    """
    border = detectors.measure_border(detectors.get(first.detector), first.window)
    marked = [(m.image & dq.VALUE["REFERENCE_PIXEL"]) != 0 for m in masks]
    if first.window.ysize == detectors.IRS2_ROWS:
        return border | np.any(marked, axis=0)
    if first.is_full:
        return border
    edge = np.ones_like(border)
    edge[4:-4, 4:-4] = False
    return border | (np.all(marked, axis=0) & edge)


def _finish_merge(
    image: NDArray[np.uint32],
    masks: Sequence[Mask],
    paths: Sequence[Path],
    p: MergeSettings,
    texts: ReferenceSettings,
    path: Path,
    notes: list[str],
    overwrite: bool,
    with_evidence: bool,
) -> Product:
    first = masks[0]
    files = [*paths, *(Path(n) for n in p.manual)]
    parts = [
        f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((len(masks), "mask"), (len(p.manual), "manual list"))
    ]
    about = Provenance(
        f"Bad pixel mask of {first.detector}, merged from {' and '.join(parts)}.",
        [p],
        hash_inputs(files),
        notes=notes,
        earlier=[line for m in masks if m.path for line in (f"HISTORY of {m.path.name[:60]}:", *m.history)],
    )
    header = mask_header.make_header([m.header for m in masks], first.detector, first.window, texts, about)
    mask_file.write_mask(path, image, header, overwrite=overwrite)
    beside = _join_evidence(masks, path, overwrite) if with_evidence else None
    science = ~_reference(first, masks)
    counts = combine.count_flags(image, science)
    odd = combine.implausible(counts, int(science.sum()))
    return Product(
        path,
        beside,
        {},
        counts,
        int(science.sum()),
        [f.name for f in files],
        notes=[*notes, *mask_header.note_missing_texts(texts), *([odd] if odd else [])],
    )


def _join_evidence(masks: Sequence[Mask], path: Path, overwrite: bool) -> Path | None:
    """The evidence of all inputs in one file beside the merged mask; None where no input has any."""
    parts = []
    for one in masks:
        beside = evidence.path_beside(one.path) if one.path else None
        if beside is not None and beside.is_file() and evidence.read_shape(beside) in ((), one.image.shape):
            parts.append(beside)
    if not parts:
        return None
    beside = evidence.path_beside(path)
    with output.atomic_path(beside, overwrite) as temporary:
        evidence.join(temporary, parts, mask_file.evidence_header(path))
    return beside
