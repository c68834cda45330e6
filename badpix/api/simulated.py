"""How many of the defects of a simulation a mask has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from badpix.errors import DataError, UsageError, nearest
from badpix.io.html import as_table
from badpix.mask import file as mask_file
from badpix.mask.file import Mask
from badpix.simulation import score_dates, score_mask
from badpix.simulation.truth_file import read_truth


@dataclass(frozen=True)
class Score:
    """Completeness, purity and false positives.

    Attributes
    ----------
    completeness : list of dict
        A row a type, level and setting: defects ``injected``, ``found`` (with the flag of their type), ``flagged``
        (with any flag), ``completeness`` and its 95 % ``interval``.
    flags : list of dict
        A row a flag: pixels ``set``, ``right``, on an ``other_defect``, ``false`` (good pixels), ``purity``,
        ``false_per_million`` good pixels, and 95 % intervals.
    masks : int
        Masks that were counted together.
    search : str
        Which types were counted.
    dates : list of dict
        A row a type that changes with time, of masks with evidence beside them: pixels ``injected``, ``told`` (with a
        date), ``right`` (of the same set of darks), ``near`` (at most one set off).
    """

    completeness: list[dict[str, Any]]
    flags: list[dict[str, Any]]
    masks: int
    search: str
    dates: list[dict[str, Any]] = field(default_factory=list)

    def _repr_html_(self) -> str:
        wanted = [row for row in self.completeness if row["injected"] and row["setting"] == "all"]
        found = as_table(
            f"Completeness of {self.masks} mask{'s' * (self.masks != 1)}",
            ("type", "level", "injected", "found", "%"),
            [
                (
                    row["type"],
                    "all" if row["level"] is None else f"{row['level']:g} {row['unit']}",
                    row["injected"],
                    row["found"],
                    100.0 * row["completeness"],
                )
                for row in wanted
            ],
        )
        claimed = as_table(
            "Flags",
            ("flag", "set", "right", "other defect", "false", "false per million"),
            [
                (row["flag"], row["set"], row["right"], row["other_defect"], row["false"], row["false_per_million"])
                for row in self.flags
            ],
        )
        return found + claimed


def score(
    masks: Mask | str | Path | Sequence[Mask | str | Path],
    truths: str | Path | Sequence[str | Path],
    *,
    search: str = "all",
) -> Score:
    """Compare masks with the truth of their simulation: :mod:`badpix.simulation.score_mask`.

    Parameters
    ----------
    masks : DefectMask or path, or a sequence
        The masks, which are counted together.
    truths : path, or a sequence
        The ``_truth.fits`` file of each.
    search : str
        ``flats``, ``darks`` or ``all``: which types are counted.

    Returns
    -------
    Score

    Raises
    ------
    UsageError
        If there are more masks than truths, or no such search.
    DataError
        If a mask is no mask, a truth no truth, or their shapes differ.
    """
    many = [masks] if isinstance(masks, Mask | str | Path) else list(masks)
    files = [truths] if isinstance(truths, str | Path) else list(truths)
    if len(many) != len(files) or not many:
        raise UsageError(f"found {len(many)} masks and {len(files)} truths, expected one truth for each mask")
    if search not in score_mask.SEARCHES:
        raise UsageError(f"search {search!r} is unknown{nearest(search, score_mask.SEARCHES)}")
    rows, dates = [], []
    for mask, truth_file in zip(many, files, strict=True):
        found = mask_file.read_mask(mask) if isinstance(mask, str | Path) else mask
        _, truth, defects = read_truth(truth_file)
        if found.image.shape != truth.shape:
            raise DataError(f"mask: found shape {found.image.shape}, expected {truth.shape} as in {truth_file}")
        rows.append((found.image, truth, defects))
        if found.path is not None:
            dates.append(score_dates.count_in_files(found.image, found.path, truth_file))
    result = score_mask.score(rows, search)
    told = [vars(row) for row in score_dates.add_dated(dates)]
    return Score(result["completeness"], result["flags"], result["masks"], result["search"], told)
