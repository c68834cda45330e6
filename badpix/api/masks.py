"""Masks from files and in memory: read, write, merge, check, explain, compare."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from badpix.api.inputs import in_python, python_words
from badpix.api.result import DefectMask, read_back, read_cards
from badpix.errors import UsageError
from badpix.io import evidence_file
from badpix.io.depths import Alarm
from badpix.io.evidence import Detection, Evidence
from badpix.io.exposure import unpacking
from badpix.mask import file as mask_file
from badpix.mask import merge as merging
from badpix.mask.depth import Curve
from badpix.mask.file import Mask
from badpix.mask.header import check_texts
from badpix.mask.product import write_evidence
from badpix.review import check as checking
from badpix.review import compare as comparing
from badpix.review import explain as explaining
from badpix.review import readings
from badpix.review.depth import read_depth
from badpix.settings.check import CheckSettings
from badpix.settings.merge import MergeSettings
from badpix.settings.reference import ReferenceSettings

log = logging.getLogger("badpix")


def read_mask(path: str | Path, *, evidence: bool = False) -> DefectMask:
    """A MASK file, decoded into standard bits through its own DQ_DEF, as the pipeline does.

    Parameters
    ----------
    path : path
        The file, also gzipped.
    evidence : bool
        Read the evidence beside it as well (images of the whole frame).

    Raises
    ------
    DataError
        If it is no MASK file, or a flag would be lost in decoding.
    """
    found = mask_file.read_mask(path)
    known, note = readings.read_evidence(found) if evidence else (None, "")
    return DefectMask(
        found.image,
        found.detector,
        found.window,
        found.header,
        found.history,
        found.path,
        evidence=known or Evidence(),
        notes=[note] if note else [],
        cards=read_cards(Path(path)),
    )


def write_mask(
    mask: DefectMask,
    path: str | Path,
    *,
    history: str | None = None,
    overwrite: bool = False,
    evidence: bool = False,
) -> Path:
    """Write a MASK file, whole or not at all: it is read back, decoded and checked before it appears.

    Parameters
    ----------
    mask : DefectMask
        From a search, :func:`merge` or :func:`read_mask`; a changed one comes from
        ``dataclasses.replace(mask, image=image)``.
    path : path
        The file.
    history : str, optional
        A line that is added to HISTORY, such as what was changed by hand.
    overwrite : bool
        Whether an existing file may be replaced.
    evidence : bool
        Write what the flags were decided on to ``<path>_evidence.fits`` too.

    Returns
    -------
    Path
        The MASK file.

    Raises
    ------
    UsageError
        If the file exists, or the mask was made from arrays without a date.
    DataError
        If the mask would break a rule of the format.
    """
    path = Path(path)
    if mask.cards is None:
        raise UsageError(
            f"{path}: arrays carry no date, and a mask says from when on it counts: make it with header="
            "{'DATE-OBS': 'YYYY-MM-DD'} or texts=ReferenceSettings(useafter='YYYY-MM-DD')"
        )
    cards = mask.cards.copy()
    for line in (history or "").splitlines():
        cards.add_history(line)
    with python_words():
        mask_file.write_mask(path, mask.image, cards, overwrite=overwrite)
        if evidence:
            kept = replace(mask.evidence, images=dict(mask.evidence.images))
            write_evidence(evidence_file.path_beside(path), Detection(dict(mask.maps), kept), path, overwrite)
    return path


@contextmanager
def on_disk(masks: Sequence[DefectMask | str | Path]) -> Iterator[list[Path]]:
    """Masks as files: those in memory lie in a private folder while the block lasts."""
    with unpacking() as folder:
        paths: list[Path] = []
        for mask in masks:
            if isinstance(mask, str | Path):
                paths.append(Path(mask))
                continue
            name = mask.path.name if mask.path else f"{mask.kind}.fits"
            inside = folder / str(len(paths))
            inside.mkdir()
            paths.append(write_mask(mask, inside / name, evidence=bool(mask.evidence.rules)))
        yield paths


def merge(
    masks: Sequence[DefectMask | str | Path],
    settings: MergeSettings | None = None,
    *,
    texts: ReferenceSettings | None = None,
) -> DefectMask:
    """One mask from several (flats, darks, older ones, plain maps) and manual lists: :mod:`badpix.mask.merge`.

    Parameters
    ----------
    masks : sequence of DefectMask or path
        Masks of one detector, in memory or files, in the order in which they count.
    settings : MergeSettings, optional
        ``MergeSettings(manual=["pixels.txt"], prefer="newest")``.
    texts : ReferenceSettings, optional
        AUTHOR, DESCRIP, PEDIGREE, USEAFTER of the mask.

    Returns
    -------
    DefectMask
        With the evidence of all masks that have it.

    Raises
    ------
    UsageError
        If there is no mask, or a manual list can't be understood.
    DataError
        If detectors or windows differ, or a file is no mask.
    """
    p = settings or MergeSettings()
    with python_words(), on_disk(masks) as paths, unpacking() as folder:
        given = [path.name if isinstance(mask, Mask) else str(path) for mask, path in zip(masks, paths, strict=True)]
        named = replace(p, masks=given)
        product = merging.build_merge(
            paths, named, folder / "merge.fits", texts=check_texts(texts or ReferenceSettings()), with_evidence=True
        )
        for note in product.notes:
            log.warning("merge: %s", note)
        found = evidence_file.read(product.evidence)[0] if product.evidence else Evidence()
        return read_back(product, "merge", Detection({}, found))


def check(
    mask: DefectMask | str | Path,
    settings: CheckSettings | None = None,
    *,
    against: DefectMask | str | Path | None = None,
    pipeline: bool = False,
    exposure: str | Path | None = None,
) -> checking.Checked:
    """Is a mask valid and plausible? :mod:`badpix.review.check`.

    Parameters
    ----------
    mask : DefectMask or path
        What is checked.
    settings : CheckSettings, optional
        Limits.
    against : DefectMask or path, optional
        The previous mask of the detector: jumps in the number of pixels are errors.
    pipeline : bool
        Also run the pipeline's DQInitStep with this mask, and ``crds certify`` (extra ``pipeline``).
    exposure : path, optional
        Raw exposure for the pipeline; a synthetic one is made without it.

    Returns
    -------
    Checked
        ``passed``, ``faults``, ``flags``, ``answers``; what is wrong with a mask is in it, and no exception.

    Raises
    ------
    DataError
        If ``against`` can't be read or is of another detector.
    """
    both = [mask] if against is None else [mask, against]
    with on_disk(both) as (path, *older):
        found = checking.check_mask(
            path,
            settings or CheckSettings(),
            against=older[0] if older else None,
            pipeline=pipeline,
            exposure=exposure,
        )
    faults = [fault._replace(message=in_python(fault.message)) for fault in found.faults]
    return replace(found, faults=faults, path=Path(path.name) if isinstance(mask, Mask) else path)


def explain(
    mask: DefectMask | str | Path, x: int, y: int, *, evidence: str | Path | None = None
) -> explaining.Explanation:
    """Why is a pixel flagged, or why not? :mod:`badpix.review.explain`.

    Parameters
    ----------
    mask : DefectMask or path
        The mask; its evidence is that in memory, else that beside its file.
    x, y : int
        Column and row, counted from 0, of the full frame.
    evidence : path, optional
        The evidence file, where it does not lie beside the mask.

    Returns
    -------
    Explanation
        ``title``, ``sentences``, ``flags``, ``quantities``, ``searches``.

    Raises
    ------
    UsageError
        If the pixel lies outside the mask.
    DataError
        If the mask or its evidence can't be read, or the evidence is of another mask.
    """
    x, y = int(x), int(y)
    found: Mask = mask_file.read_mask(mask) if isinstance(mask, str | Path) else mask
    if isinstance(mask, DefectMask) and evidence is None and (mask.evidence.rules or mask.path is None):
        return explaining.explain(mask, _with_maps(mask), x, y)
    with readings.open_evidence(found, evidence) as (known, _):
        return explaining.explain(found, known, x, y)


def _with_maps(mask: DefectMask) -> Evidence | None:
    """The evidence of a mask in memory as its file would hold it: with the map of each search."""
    if not mask.evidence.rules:
        return None
    maps = {f"is_{name.lower()}": found for name, found in mask.maps.items()}
    return replace(mask.evidence, images={**maps, **mask.evidence.images})


def depth(mask: str | Path, evidence: str | Path | None = None) -> tuple[list[Curve], list[Alarm]]:
    """Which defects the exposures behind a mask could have shown: :mod:`badpix.mask.depth`.

    Parameters
    ----------
    mask : path
        The MASK file, made with ``depth=True``.
    evidence : path, optional
        Its evidence; beside it, if not given.

    Returns
    -------
    curves : list of Curve
        A search each: ``levels``, ``completeness``, ``half`` and ``ninety`` (strengths at which 50 and 90 % are
        found), ``unit``.
    alarms : list of Alarm
        False alarms: ``search``, ``estimate``, ``flagged`` of ``pixels``.

    Raises
    ------
    DataError
        If there is no evidence, or it holds no depth.
    """
    return read_depth(mask, evidence)


def compare(
    old: Mask | str | Path, new: Mask | str | Path, region: tuple[slice, slice] | None = None
) -> comparing.Comparison:
    """What changed between two masks of one detector, where both look: :mod:`badpix.review.compare`.

    Parameters
    ----------
    old, new : DefectMask or path
        The masks; a subarray is compared with its window of a full frame.
    region : pair of slice, optional
        Rows and columns of the full frame, counted from 0, to which the comparison is restricted.

    Returns
    -------
    Comparison
        ``changes`` (counts of each flag), ``transitions``, ``appeared``, ``disappeared`` (DQ images), ``pixels()``.

    Raises
    ------
    DataError
        If they are of different detectors or share no pixel.
    """
    first, second = (mask_file.read_mask(m) if isinstance(m, str | Path) else m for m in (old, new))
    return comparing.compare(first, second, region)
