"""The exposures of a run: their headers, whether they belong together, and their groups.

1. Each member by itself: exposure type, arrays of one shape, a usable pixel, a WCS (:func:`check_member`).
2. All together: the instrument, filter and unit that most of them share (:func:`read_members`). A member that can't
   be used is an error that names it, or is left out with a note (``skip_bad``).
3. Groups: all detectors of one exposure (:func:`name_groups`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from badpix.errors import DataError
from badpix.image.wcs import read_geometry
from badpix.io import associations
from badpix.io import cal as io_cal
from badpix.io.associations import Association, Member
from badpix.io.cal import CalFile

log = logging.getLogger(__name__)

EXP_TYPES = ("NRC_IMAGE", "MIR_IMAGE", "NRS_IMAGE", "NIS_IMAGE", "FGS_IMAGE")
SAME = ("TELESCOP", "INSTRUME", "EXP_TYPE", "FILTER", "PUPIL")  # keywords that the members share


def read_members(
    association: Association, workdir: Path | None = None, *, skip_bad: bool = False
) -> tuple[Association, list[CalFile]]:
    """Headers of all members, checked to belong together; compressed ones are unpacked into ``workdir``.

    Returns
    -------
    Association, list of CalFile
        Without the members that were left out.

    Raises
    ------
    DataError
        At other exposure types, mixed instruments, filters or units, missing arrays, no WCS, and where no pixel is
        usable; with ``skip_bad`` only if nothing is left.
    """
    good: list[tuple[Member, CalFile]] = []
    reasons: list[str] = []
    for member in association.members:
        try:
            cal = io_cal.read_layout(member.path, workdir)
            check_member(cal, geometry=skip_bad)
            good.append((member, cal))
        except DataError as error:
            reasons.append(str(error))
    units = Counter(unit for _, cal in good if (unit := _unit(cal)))
    unit = units.most_common(1)[0][0] if units else ""
    usual = _most_usual([_shared(cal, unit) for _, cal in good])
    reasons += [_difference(cal, unit, usual) for _, cal in good if _shared(cal, unit) != usual]
    if reasons and not skip_bad:
        more = f" (and {len(reasons) - 1} more members that can't be used)" if len(reasons) > 1 else ""
        raise DataError(reasons[0] + more)
    for reason in reasons:
        log.warning(f"left out: {reason}")
    good = [(member, cal) for member, cal in good if _shared(cal, unit) == usual]
    if not good:
        raise DataError("no member can be used")
    return leave_out(association, [member for member, _ in good]), [cal for _, cal in good]


def leave_out(association: Association, kept: Sequence[Member]) -> Association:
    """The association with these members alone."""
    gone = tuple(member for member in association.members if member not in kept)
    return replace(association, members=tuple(kept), left_out=association.left_out + gone)


def check_member(cal: CalFile, *, geometry: bool = False) -> None:
    """Refuse an exposure that the search can't use by itself; with ``geometry`` also for its WCS.

    Raises
    ------
    DataError
        With the file, what was found and what was expected.
    """
    kind = cal.keyword("EXP_TYPE")
    if kind not in EXP_TYPES:
        hint = "; use 'outlier ifu'" if kind in ("NRS_IFU", "MIR_MRS") else ""
        raise DataError(f"{cal.path}: EXP_TYPE = {kind!r}, expected one of {', '.join(EXP_TYPES)}{hint}")
    for name in ("SCI", "ERR", "DQ"):
        shape = io_cal.image_hdu(cal, name).shape
        if shape != cal.shape:
            raise DataError(f"{cal.path}: {name}: found shape {shape}, expected {cal.shape}")
    if not _has_usable_pixel(cal):
        raise DataError(f"{cal.path}: no usable pixel: SCI is NaN or DQ is DO_NOT_USE everywhere")
    if geometry:
        read_geometry(cal)


def _unit(cal: CalFile) -> str:
    return str(io_cal.image_hdu(cal, "SCI").header.get("BUNIT", "")).strip()


def _shared(cal: CalFile, unit: str) -> tuple[str, ...]:
    """What the members must agree in; ``unit`` where a member tells none."""
    return *(str(cal.primary.get(k, "")).strip().upper() for k in SAME), _unit(cal) or unit


def _most_usual(values: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The most frequent one; the first of those that are equally frequent."""
    number = Counter(values)
    return max(values, key=lambda v: number[v], default=())


def _difference(cal: CalFile, unit: str, usual: tuple[str, ...]) -> str:
    """What a member differs in from the others, as a message."""
    for keyword, mine, theirs in zip((*SAME, "BUNIT of SCI"), _shared(cal, unit), usual, strict=True):
        if mine != theirs:
            return f"{cal.path}: {keyword}: found {mine!r}, expected {theirs!r} as in the others"
    return ""


def _has_usable_pixel(cal: CalFile, rows: int = 64) -> bool:
    """In bands of rows: nearly always the first one tells."""
    for top in range(0, cal.shape[0], rows):
        bottom = min(top + rows, cal.shape[0])
        use = (io_cal.read_rows(cal, "DQ", top, bottom) & io_cal.DO_NOT_USE) == 0
        if (use & np.isfinite(io_cal.read_rows(cal, "SCI", top, bottom))).any():
            return True
    return False


def name_groups(association: Association, cals: Sequence[CalFile]) -> list[str]:
    """The group id of each member.

    Raises
    ------
    DataError
        If an ASDF extension is not readable.
    """
    names = []
    for i, (cal, member) in enumerate(zip(cals, association.members, strict=True)):
        try:
            told = member.group_id or io_cal.read_meta(cal, "meta.group_id")
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(f"{cal.path}: the ASDF extension is not readable: {error}") from None
        names.append(associations.group_id(cal.primary, i, told))
    return names


def list_remarks(cals: Sequence[CalFile], groups: Sequence[str]) -> list[str]:
    """What the headers say that the user should know: outliers flagged before, exposures that seem to be one."""
    keys = [(cal.path, cal.keyword("DETECTOR"), group) for cal, group in zip(cals, groups, strict=True)]
    repeated = [f"{text}; they count as one exposure" for text in associations.list_repeated(keys)]
    return [*io_cal.list_flagged(cals), *repeated]
