"""The exposures of an IFU search: that they belong together, how they were pointed, and their usable pixels.

1. The members of an association must be IFU exposures of one instrument, one unit and one size.
2. Each detector is searched by itself, along the axis across its slices.
3. Exposures are dithered if their offsets (or their pointings) differ, or if their headers don't say.
4. Usable is what is finite and not DO_NOT_USE. Rows are read on demand: nothing here holds a frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.ifu.rank import BORDER
from badpix.io import cal as io_cal
from badpix.io.associations import Association, Member, group_id, list_repeated, name_some
from badpix.io.cal import CalFile

# Exposure types, and the axis across the slices (that of the neighbor differences).
ACROSS = {"MIR_MRS": 1, "NRS_IFU": 0}

_ONE_POINTING = 0.05  # arcsec


@dataclass(frozen=True)
class Exposure:
    """One member of an association, with its headers."""

    cal: CalFile
    member: Member


def read_exposures(association: Association, workdir: Path | None = None) -> list[Exposure]:
    """Headers of all members, after making sure that they belong together; compressed ones go into ``workdir``.

    Raises
    ------
    DataError
        If a member is no IFU exposure, lacks an array, or differs from the first in instrument, size or unit.
    """
    exposures = [Exposure(io_cal.read_layout(member.path, workdir), member) for member in association.members]
    first = exposures[0].cal
    for exposure in exposures:
        cal = exposure.cal
        kind = cal.keyword("EXP_TYPE")
        if kind not in ACROSS:
            raise DataError(f"{cal.path}: EXP_TYPE = {kind!r}, expected an IFU exposure ({' or '.join(ACROSS)})")
        for keyword in ("EXP_TYPE", "INSTRUME"):
            if cal.keyword(keyword) != first.keyword(keyword):
                raise DataError(
                    f"{cal.path}: {keyword} = {cal.keyword(keyword)!r}, expected {first.keyword(keyword)!r} as in "
                    f"{first.path.name}"
                )
        cal.keyword("DETECTOR")
        for name in ("SCI", "ERR", "DQ"):
            shape = io_cal.image_hdu(cal, name).shape
            if shape != first.shape:
                raise DataError(
                    f"{cal.path}: {name} has shape {shape}, expected {first.shape} as in {first.path.name}"
                )
    if min(first.shape) <= 2 * BORDER:
        raise DataError(f"{first.path}: shape {first.shape} is too small; expected more than {2 * BORDER} pixels")
    _check_units(exposures)
    return exposures


def _unit(exposure: Exposure) -> str:
    """BUNIT of SCI; empty where there is none."""
    return str(io_cal.image_hdu(exposure.cal, "SCI").header.get("BUNIT", "")).strip()


def _check_units(exposures: list[Exposure]) -> None:
    """Values in different units can't be compared. A missing unit is no contradiction."""
    first = next((e for e in exposures if _unit(e)), exposures[0])
    for exposure in exposures:
        if _unit(exposure) not in ("", _unit(first)):
            raise DataError(
                f"{exposure.cal.path}: BUNIT of SCI: found {_unit(exposure)}, expected {_unit(first)} "
                f"as in {first.cal.path.name}"
            )


def list_remarks(exposures: list[Exposure]) -> list[str]:
    """What the headers of exposures say that the user should know, a line each."""
    remarks = io_cal.list_flagged(e.cal for e in exposures)
    unit = next((_unit(e) for e in exposures if _unit(e)), "")
    without = [e.cal.path.name for e in exposures if not _unit(e)]
    if unit and without:
        remarks.append(f"{name_some(without)}: no BUNIT in SCI; taken to be {unit} as in the other exposures")
    keys = [(e.cal.path, e.cal.keyword("DETECTOR"), group_id(e.cal.primary, i)) for i, e in enumerate(exposures)]
    remarks += [f"{text}; is it one exposure given twice? Each counts" for text in list_repeated(keys)]
    return remarks


def by_detector(exposures: Iterable[Exposure]) -> dict[str, list[Exposure]]:
    """Exposures of each detector, detectors in alphabetical order."""
    groups: dict[str, list[Exposure]] = {}
    for exposure in exposures:
        groups.setdefault(exposure.cal.keyword("DETECTOR"), []).append(exposure)
    return dict(sorted(groups.items()))


def axis_across(exposures: list[Exposure]) -> int:
    """Axis across the slices: 1 (x) for MIRI, 0 (y) for NIRSpec."""
    return ACROSS[exposures[0].cal.keyword("EXP_TYPE")]


# --- pointings -------------------------------------------------------------------------------------------


def is_dithered(exposures: list[Exposure]) -> bool:
    """Whether the exposures of a detector have more than one pointing; True where the headers don't say."""
    if len(exposures) < 2:
        return False
    known = _known_spreads(exposures)
    return not known or max(known) > _ONE_POINTING


def has_pointings(exposures: list[Exposure]) -> bool:
    """Whether the headers of all exposures of a detector say how it was pointed."""
    return bool(_known_spreads(exposures))


def _known_spreads(exposures: list[Exposure]) -> list[float]:
    spreads = [_spread(exposures, *keywords) for keywords in (("XOFFSET", "YOFFSET"), ("RA_V1", "DEC_V1"))]
    return [spread for spread in spreads if spread is not None]


def _spread(exposures: list[Exposure], x: str, y: str) -> float | None:
    """Largest difference between pointings, arcsec; None where a header lacks a keyword."""
    points = []
    for exposure in exposures:
        sci = io_cal.image_hdu(exposure.cal, "SCI").header
        point = [exposure.cal.primary.get(k, sci.get(k)) for k in (x, y)]
        if not all(isinstance(v, int | float) for v in point):
            return None
        points.append(point)
    spread = np.ptp(np.array(points, float), axis=0)
    if x == "RA_V1":
        spread *= np.array([np.cos(np.radians(points[0][1])), 1]) * 3600
    return float(spread.max())


# --- pixels ----------------------------------------------------------------------------------------------


def read_usable(cal: CalFile, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """SCI of some rows, NaN where DO_NOT_USE; values that are not finite become NaN."""
    sci = io_cal.read_rows(cal, "SCI", start, stop)
    np.putmask(sci, (io_cal.read_rows(cal, "DQ", start, stop) & io_cal.DO_NOT_USE) > 0, np.nan)
    return sci


def check_usable(exposures: list[Exposure], usable: Iterable[int]) -> None:
    for exposure, count in zip(exposures, usable, strict=True):
        if count == 0:
            raise DataError(f"{exposure.cal.path}: no usable pixel: SCI is NaN or DQ is DO_NOT_USE everywhere")
