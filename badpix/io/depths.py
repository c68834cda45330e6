"""The depth of a mask as tables in its evidence: which defects were found in copies of pixels, and false alarms; and
how the darks were read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from astropy.io import fits

from badpix.io.output import pack_hdu, table_hdu

TABLES = {
    "DEPTH": {"search": "24A", "level": "D", "unit": "24A", "injected": "J", "found": "J", "flagged": "J"},
    "ALARMS": {"search": "24A", "estimate": "8A", "pixels": "J", "flagged": "J"},
    "READOUT": {
        "readpatt": "24A",
        "groups": "J",
        "frames": "J",
        "skipped": "J",
        "frame_time": "D",
        "noise": "D",
        "shot": "D",
        "gain": "D",
    },
}


class Depth(NamedTuple):
    """Defects of one kind and strength that were put into copies of good pixels, and what the search said of them.

    Attributes
    ----------
    search : str
        Kind of defect, as the search that should find it.
    level : float
        Its strength, in ``unit``.
    unit : str
        DN/s, DN, ...
    injected, found, flagged : int
        Copies; those that got the right type; those that got any.
    """

    search: str
    level: float
    unit: str
    injected: int
    found: int
    flagged: int


class Alarm(NamedTuple):
    """False alarms of a search by one estimate (``sign``, ``tail``, ``time``, ``halves``): how many of how many
    good pixels."""

    search: str
    estimate: str
    pixels: int
    flagged: int


class Readout(NamedTuple):
    """How the darks were read, and what a typical pixel is like.

    Attributes
    ----------
    readpatt : str
        Readout pattern.
    groups : int
        Usable groups of an integration.
    frames, skipped : int
        Frames averaged to a group, frames skipped between groups.
    frame_time : float
        Seconds between frames.
    noise : float
        Typical noise of a group without shot noise, DN.
    shot : float
        Typical variance of the shot noise from group to group, DN^2.
    gain : float
        e/DN, as the variances of bright pixels tell it.
    """

    readpatt: str
    groups: int
    frames: int
    skipped: int
    frame_time: float
    noise: float
    shot: float
    gain: float


def write_tables(
    stream: BinaryIO, depth: Sequence[Depth], alarms: Sequence[Alarm], readouts: Sequence[Readout] = ()
) -> None:
    """The tables that hold anything."""
    tables: dict[str, Sequence[Depth] | Sequence[Alarm] | Sequence[Readout]]
    tables = {"DEPTH": depth, "ALARMS": alarms, "READOUT": readouts}
    for name, rows in tables.items():
        if rows:
            columns = [
                fits.Column(c, form, array=np.array([getattr(row, c) for row in rows]))
                for c, form in TABLES[name].items()
            ]
            stream.write(pack_hdu(table_hdu(columns, name)))


def read_tables(hdus: fits.HDUList) -> tuple[list[Depth], list[Alarm], list[Readout]]:
    """The tables of an open evidence file; nothing where they are missing."""
    depth, alarms = [Depth(*row) for row in _read(hdus, "DEPTH")], [Alarm(*row) for row in _read(hdus, "ALARMS")]
    return depth, alarms, [Readout(*row) for row in _read(hdus, "READOUT")]


def _read(hdus: fits.HDUList, name: str) -> list[list[Any]]:
    if name not in hdus:
        return []
    return [[v.item() if hasattr(v, "item") else str(v).strip() for v in row] for row in hdus[name].data]
