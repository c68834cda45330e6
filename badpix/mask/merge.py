"""One MASK from several: ``badpix merge`` from files to file.

Masks from flats, from darks, older ones, plain maps of other tools and manual lists are read into one frame, joined
(:mod:`badpix.mask.combine`) and written (:mod:`badpix.mask.file`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import DataError, UsageError
from badpix.io import evidence, evidence_file, output
from badpix.io.provenance import hash_inputs
from badpix.mask import combine, manual, origins, update_step
from badpix.mask import file as mask_file
from badpix.mask import header as mask_header
from badpix.mask.file import Mask
from badpix.mask.header import Provenance
from badpix.mask.history import find_kind
from badpix.mask.manual import cut_rows
from badpix.mask.product import Product, check_detector, claim_output
from badpix.mask.update import count_states, list_states
from badpix.settings.merge import MergeSettings
from badpix.settings.reference import ReferenceSettings

UNUSABLE = np.uint32(dq.VALUE["DO_NOT_USE"] | dq.VALUE["REFERENCE_PIXEL"])
LARGEST_PLAIN = 1 << 16  # value of a bad pixel in a plain map
MOST_PLAIN = 0.5  # share of its pixels that are bad


def build_merge(
    paths: Sequence[Path],
    p: MergeSettings,
    target: Path,
    *,
    texts: ReferenceSettings,
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
    given, notes = read_masks(paths, p)
    check_detector(given[0].path, detectors.get(given[0].detector), detector)
    base = _read_known(Path(p.base), p) if p.base else None
    every = [*given, *([base] if base else [])]
    placed, covered = same_frame(every, p.embed or (base is not None and len({m.window for m in every}) > 1))
    masks, first = placed[: len(given)], placed[0]
    files = [*paths, *([Path(p.base)] if p.base else []), *map(Path, p.manual)]
    path = claim_output(target, first.header, files, overwrite, with_evidence)
    lists = {name: _manual_of(name, first, p.one_based) for name in p.manual}
    image = _combine(masks, covered[: len(masks)], p)
    for flag in dropped:
        image &= np.uint32(0xFFFFFFFF ^ flag.value)
    notes += _note_lost(masks, image, p) if base is None else []
    by_hand = listed if p.manual_do_not_use else set()
    for rows in lists.values():
        image = manual.add_manual(image, rows, by_hand)
    layers = [one for m in given for one in _layers_of(m, first, paths, p)]
    layers += [origins.list_layer(name, rows, image.shape, by_hand) for name, rows in lists.items()]
    renewed = None
    if base is not None:
        older = _layers_of(base, first, [], p)
        renewed = update_step.renew(base, given, covered[: len(given)], image, first.window, older, p)
        image = renewed.image
        layers += [replace(one, flags=one.flags & renewed.kept) for one in older]
        notes += renewed.notes
    image = combine.resolve_hot_dead(image) if p.hot_over_dead else image
    reference = _reference(first, placed)
    image, freed = combine.protect_reference(image, reference)
    if freed:
        notes.append(f"{freed} good reference pixels carried DO_NOT_USE in the inputs; taken off")
    own = origins.keep_layers(layers, image, reference)
    own.images |= renewed.images() if renewed else {}
    merged = _Merged(image, reference, first, masks, base, renewed, own)
    return _finish_merge(merged, files, p, texts, path, notes, overwrite, with_evidence)


def _combine(masks: Sequence[Mask], covered: Sequence[NDArray[np.bool_]], p: MergeSettings) -> NDArray[np.uint32]:
    """The masks of one frame joined as the parameters ask for."""
    if p.prefer == "newest":
        order = sorted(range(len(masks)), key=lambda k: str(masks[k].header.get("USEAFTER", "")))
        return combine.merge_newest([masks[k].image for k in order], [covered[k] for k in order])
    return combine.merge([m.image for m in masks], covered, min_fraction=p.min_fraction)


def _note_lost(masks: Sequence[Mask], image: NDArray[np.uint32], p: MergeSettings) -> list[str]:
    """What a merge did that is rarely meant: types that no pixel kept, flags of an older mask that can't leave."""
    either = np.bitwise_or.reduce([m.image for m in masks])
    gone = [f.name for f in dq.FLAGS if np.any(either & f.value) and not np.any(image & f.value)]
    gone = [name for name in gone if name not in p.drop]
    hint = "badpix update takes new where it was measured and old elsewhere"
    notes = [f"no pixel keeps {', '.join(gone)}: prefer {p.prefer}, min_fraction {p.min_fraction:g}; {hint}"]
    notes = notes if gone else []
    older, fresh = ([m for m in masks if (find_kind(m) == "mask") is kind] for kind in (True, False))
    if older and fresh and p.prefer == "all" and p.min_fraction == 0:
        rest = np.bitwise_or.reduce([m.image for m in fresh])
        alone = np.count_nonzero(np.bitwise_or.reduce([m.image for m in older]) & ~rest & ~UNUSABLE)
        names = ", ".join(m.path.name for m in older if m.path)
        notes.append(f"{alone:,} pixels have flags of {names} alone, which a merge never takes off; {hint}")
    return notes


def _layers_of(one: Mask, first: Mask, paths: Sequence[Path], p: MergeSettings) -> list[origins.Layer]:
    """The origins of a mask's flags, in the frame of the first one."""
    plain = one.path is not None and one.path in paths and not mask_file.is_mask_file(one.path)
    return [origins.place_layer(layer, one.window, first.window) for layer in origins.read_layers(one, plain)]


@dataclass
class _Merged:
    """What was merged: the image and its reference pixels, the masks in one frame, the updated base, origins."""

    image: NDArray[np.uint32]
    reference: NDArray[np.bool_]
    first: Mask
    masks: Sequence[Mask]
    base: Mask | None
    renewed: update_step.Renewed | None
    own: evidence.Evidence


def read_masks(paths: Sequence[Path], p: MergeSettings) -> tuple[list[Mask], list[str]]:
    """All inputs of a merge as masks; plain images take detector and window of the first MASK file."""
    if not paths:
        raise UsageError("no masks to merge")
    real = {path: _read_known(path, p) for path in paths if mask_file.is_mask_file(path)}
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
        _check_plain(path, image, p.force_plain)
        flags = combine.from_plain(image, p.plain_flag, combine.find_flag(p.plain_flag).name in listed)
        window = host.window if host else detectors.get(name).full
        out.append(Mask(flags, detectors.get(name).name, window, {**header, "DETECTOR": name}, [], path))
        notes.append(f"{path.name}: plain map, {np.count_nonzero(flags)} pixels taken as {p.plain_flag.upper()}")
    return out, notes


def _unusable(p: MergeSettings) -> set[str]:
    """Names of the flags that go with DO_NOT_USE."""
    return {combine.find_flag(name).name for name in p.do_not_use}


def _check_plain(path: Path, image: NDArray[Any], force: bool) -> None:
    """Make sure that a plain map is one: boolean or small whole numbers, less than half of its pixels bad.

    Raises
    ------
    DataError
        If not; with ``force`` only at numbers that are not whole.
    """
    finite = np.isfinite(image)
    values = image[finite]
    whole = image.dtype.kind in "biu" or bool((values == np.trunc(values)).all())
    if not whole or (values.size and np.abs(values).max() > LARGEST_PLAIN and not force):
        raise DataError(
            f"{path}: is no MASK (no DQ extension), and its image of {image.dtype} no map of bad pixels; expected 0 "
            "for good pixels and small whole numbers for bad ones"
        )
    share = 1 - np.count_nonzero(values == 0) / image.size
    if share >= MOST_PLAIN and not force:
        raise DataError(
            f"{path}: plain map in which {share:.1%} of the pixels are bad (not 0): inverted (1 = good)? "
            "--force-plain takes it as it is"
        )


def _read_known(path: Path, p: MergeSettings) -> Mask:
    """A MASK file of a detector that we know."""
    found = mask_file.read_mask(path, check_sums=not p.ignore_checksum)
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
    return cut_rows(manual.read_manual(name, shape, one_based), first.window, name)


def _reference(first: Mask, masks: Sequence[Mask]) -> NDArray[np.bool_]:
    """Reference pixels of the merged mask: by geometry; the interleaved ones of IRS2 from the masks.

    A simulated detector of another size (``--size``) has its own border, where geometry sees the inside of the real
    detector: what all masks of a window call reference pixels along its edge are reference pixels.
    """
    border = detectors.measure_border(detectors.get(first.detector), first.window)
    marked = [(m.image & dq.VALUE["REFERENCE_PIXEL"]) != 0 for m in masks]
    if first.window.ysize == detectors.IRS2_ROWS:
        found: NDArray[np.bool_] = border | np.any(marked, axis=0)
        return found
    if first.is_full:
        return border
    edge = np.ones_like(border)
    edge[4:-4, 4:-4] = False
    found = border | (np.all(marked, axis=0) & edge)
    return found


def _finish_merge(
    merged: _Merged,
    files: Sequence[Path],
    p: MergeSettings,
    texts: ReferenceSettings,
    path: Path,
    notes: list[str],
    overwrite: bool,
    with_evidence: bool,
) -> Product:
    """Header, mask, evidence and summary."""
    first, renewed, science = merged.first, merged.renewed, ~merged.reference
    changes = count_states(renewed.states, science) if renewed else {}
    about = Provenance(
        _describe(merged, p),
        [replace(p, base=Path(p.base).name if p.base else None)],
        hash_inputs(files),
        notes=[*notes, *(f"update: {line}" for line in update_step.say_counts(changes))],
        earlier=_earlier(merged),
    )
    headers = [m.header for m in merged.masks]
    header = mask_header.make_header(headers, first.detector, first.window, texts, about)
    mask_file.write_mask(path, merged.image, header, overwrite=overwrite)
    beside = _join_evidence(merged.masks, path, merged.own, overwrite) if with_evidence else None
    counts = combine.count_flags(merged.image, science)
    odd = combine.implausible(counts, int(science.sum()))
    corner = first.window.xstart - 1, first.window.ystart - 1
    return Product(
        path,
        beside,
        {},
        counts,
        int(science.sum()),
        [f.name for f in files],
        notes=[*notes, *mask_header.note_missing_texts(texts), *([odd] if odd else [])],
        changes=changes,
        changed_pixels=list_states(renewed.states, science, corner) if renewed else [],
    )


def _describe(merged: _Merged, p: MergeSettings) -> str:
    """The first line of HISTORY."""
    parts = [
        f"{n} {word}{'' if n == 1 else 's'}"
        for n, word in ((len(merged.masks), "mask"), (len(p.manual), "manual list"))
        if n
    ]
    if merged.base is not None and merged.base.path is not None:
        done = f"{merged.base.path.name} updated by {' and '.join(parts)}"
        return f"Bad pixel mask of {merged.first.detector}: {done}."
    return f"Bad pixel mask of {merged.first.detector}, merged from {' and '.join(parts)}."


def _earlier(merged: _Merged) -> list[str]:
    """HISTORY of the inputs; of a mask that is updated its own part, without those that it came from."""
    out = [line for m in merged.masks if m.path for line in (f"HISTORY of {m.path.name[:60]}:", *m.history)]
    if merged.base is not None and merged.base.path is not None:
        own = takewhile(lambda line: not line.startswith("HISTORY of "), merged.base.history)
        out += [f"HISTORY of {merged.base.path.name[:60]}:", *own]
    return out


def _join_evidence(masks: Sequence[Mask], path: Path, own: evidence.Evidence, overwrite: bool) -> Path | None:
    """The evidence of all inputs in one file beside the merged mask, with the origins of its flags."""
    parts = []
    for one in masks:
        beside = evidence_file.path_beside(one.path) if one.path else None
        if beside is not None and beside.is_file() and evidence_file.read_shape(beside) in ((), one.image.shape):
            parts.append(beside)
    beside = evidence_file.path_beside(path)
    with output.atomic_path(beside, overwrite) as temporary:
        evidence_file.join(temporary, parts, mask_file.evidence_header(path), own)
    return beside
