"""Limits and masks from the evidence of a run that is over: other thresholds, masks for several depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from badpix.errors import DataError, UsageError
from badpix.mask import file as mask_file
from badpix.review import families as making
from badpix.review import readings
from badpix.review import tune as tuning
from badpix.review.tune import Trial
from badpix.settings.families import Family, read_families


def tune(
    mask: str | Path,
    parameter: str,
    values: Sequence[float] = (),
    *,
    complete: float | None = None,
    false_per_million: float | None = None,
    evidence: str | Path | None = None,
) -> list[Trial]:
    """What other values of a parameter would flag, without a new run: :mod:`badpix.review.tune`.

    Parameters
    ----------
    mask : path
        Mask of flats or darks with its evidence.
    parameter : str
        Such as ``hot_sigma_threshold``; all are in :data:`badpix.review.tune.LIMITS`.
    values : sequence of float
        What to try.
    complete : float, optional
        Try also the value with which 90 % of the defects of this strength are found (needs ``depth=True``).
    false_per_million : float, optional
        Try also the value with which so many good pixels in a million are flagged by chance.
    evidence : path, optional
        The evidence, if it does not lie beside the mask.

    Returns
    -------
    list of Trial
        In the order of ``values``, then the wishes: ``value``, ``limit``, ``pixels``, ``gained``, ``lost``, ``both``,
        ``ninety``, ``false``, ``whole``.

    Raises
    ------
    UsageError
        If the parameter can't be tried, or there is nothing to try.
    DataError
        If the evidence is missing or does not hold what a wish needs.
    """
    found = mask_file.read_mask(mask)
    with readings.open_evidence(found, evidence) as (known, note):
        if known is None or note:
            raise DataError(note or f"{mask}: no evidence beside it; make the mask with evidence")
        wanted = [float(value) for value in values]
        if complete is not None:
            wanted.append(tuning.solve_complete(found, known, parameter, complete))
        if false_per_million is not None:
            wanted.append(tuning.solve_false(found, known, parameter, false_per_million))
        if not wanted:
            raise UsageError("nothing to try: give values, complete or false_per_million")
        return tuning.try_values(found, known, parameter, wanted)


def make_families(
    mask: str | Path,
    families: Sequence[Family | Mapping[str, Any]],
    folder: str | Path,
    *,
    evidence: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Masks for exposures of several depths from one run of darks: :mod:`badpix.mask.families`.

    Parameters
    ----------
    mask : path
        Mask of darks, or one that they were merged into, with its evidence.
    families : sequence of mapping
        ``name``, ``readpatt``, ``ngroups`` (a number, or two for a range), ``max_excess`` (1, if not given).
    folder : path
        Where the masks go, and ``<mask>_families.html``, the page that compares them.
    evidence : path, optional
        The evidence, if it does not lie beside the mask.
    overwrite : bool
        Replace what is there.

    Returns
    -------
    dict
        Name of a family -> its mask; ``page`` -> the page.

    Raises
    ------
    UsageError
        At a family that is none, or a file that exists.
    DataError
        If the evidence is missing or does not say how the darks were read.
    """
    wanted = read_families(list(families), "make_families")
    paths, _ = making.make_families(mask, wanted, folder, evidence=evidence, overwrite=overwrite)
    return dict(zip([*(f.name for f in wanted), "page"], paths, strict=True))
