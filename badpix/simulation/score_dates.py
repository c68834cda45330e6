"""How well a search dates pixels that change: against the CHANGES of a simulation's truth.

A pixel that became hot is *told* if the mask has it HOT and the evidence the first dark in which it was bright; one
that recovered if the evidence has the last one; an intermittent one if it has both. A date is right if it is in the
same set of darks as the true one (without sets: the same dark), and near if it is at most one set off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.io import evidence_file
from badpix.simulation.truth_file import read_changes

Mjd = NDArray[np.floating[Any]]

WHICH = {"NEWLY_HOT": ("FIRST",), "RECOVERED": ("LAST",), "INTERMITTENT": ("FIRST", "LAST")}


@dataclass(frozen=True)
class Dated:
    """Pixels of one type: how many there are, how many have a date, and the right one (or one set off)."""

    type: str
    injected: int
    told: int
    right: int
    near: int


def count_dated(
    flags: NDArray[np.uint32], changes: NDArray[Any], darks: NDArray[Any], first: Mjd, last: Mjd
) -> list[Dated]:
    """Pixels that change by type, and how their dates agree.

    Parameters
    ----------
    flags : uint32 array (ny, nx)
        The mask.
    changes, darks : structured array
        From :func:`badpix.simulation.truth_file.read_changes`.
    first, last : array (ny, nx)
        MJD of the first and last bright dark; NaN where not known.
    """
    out = []
    for name, ends in WHICH.items():
        mine = changes[changes["TYPE"] == name]
        if not len(mine):
            continue
        y, x = mine["Y"], mine["X"]
        told, off = np.ones(len(mine), bool), np.zeros(len(mine), int)
        if name == "NEWLY_HOT":
            told &= (flags[y, x] & np.uint32(dq.VALUE["HOT"])) != 0
        for end in ends:
            found = np.asarray((first if end == "FIRST" else last)[y, x], float)
            told &= np.isfinite(found)
            off = np.maximum(off, np.abs(set_at(found, darks) - set_at(mine[end], darks)))
        counts = (told & (off == 0)).sum(), (told & (off <= 1)).sum()
        out.append(Dated(name, len(mine), int(told.sum()), *(int(c) for c in counts)))
    return out


def count_in_files(flags: NDArray[np.uint32], mask: str | Path, truth: str | Path) -> list[Dated]:
    """The same for a mask file with its evidence beside it; nothing without evidence or without changes."""
    known, beside = read_changes(truth), evidence_file.path_beside(mask)
    if known is None or not beside.is_file():
        return []
    with evidence_file.opened(beside) as (found, _):
        names = ("dark_bright_first", "dark_bright_last")
        if not set(names) <= set(found.images):
            return []
        first, last = (np.asarray(found.images[name][:, :]) for name in names)
    return count_dated(flags, *known, first, last)


def set_at(mjd: Mjd, darks: NDArray[Any]) -> NDArray[np.intp]:
    """The set of the dark that is nearest in time."""
    away = np.abs(np.nan_to_num(np.asarray(mjd, float))[:, None] - darks["MJD"][None, :])
    return np.asarray(darks["DARKSET"][away.argmin(axis=1)], np.intp)


def add_dated(many: Iterable[Sequence[Dated]]) -> list[Dated]:
    """Sum of the counts of several masks, by type."""
    total: dict[str, NDArray[np.int64]] = {}
    for rows in many:
        for r in rows:
            total[r.type] = total.get(r.type, np.zeros(4, np.int64)) + np.array([r.injected, r.told, r.right, r.near])
    return [Dated(name, *(int(c) for c in counts)) for name, counts in total.items()]
