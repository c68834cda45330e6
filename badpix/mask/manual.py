"""Manual lists of pixels: read, cut to a window, added to a DQ image."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import UsageError
from badpix.io.exposure import Exposure
from badpix.mask import combine, manual, regions
from badpix.mask.combine import flag_value
from badpix.outside import quote, read_text, whole_number

log = logging.getLogger(__name__)

DQ = NDArray[np.uint32]


class ManualRow(NamedTuple):
    """One line of a manual list: rows, columns, flag, number of the line."""

    y: slice
    x: slice
    flag: str
    line: int = 0


def read_manual(path: str | Path, shape: tuple[int, int], one_based: bool = False) -> list[ManualRow]:
    """Lines of a manual list: ``x y flag`` separated by white space, ``#`` starts a comment.

    x and y are whole numbers or ranges inclusive of both ends: ``a:b``, ``a:`` (to the last), ``:b`` (from the
    first), ``:`` (all). A header line ``x y flag`` may stand at the top. A DS9 region file is read, too
    (:mod:`badpix.mask.regions`).

    Parameters
    ----------
    path : path
        The list.
    shape : tuple of int
        Rows and columns of the full image, reference pixels included.
    one_based : bool
        Whether the list counts from 1.

    Raises
    ------
    UsageError
        At a line that can't be understood, an unknown flag, or a pixel outside the image; the message has the line.
    """
    path = Path(path)
    text = read_text(path, "manual list", UsageError)
    if regions.is_region_file(text):
        return _read_regions(path, text, shape)
    rows = []
    names: dict[str, str] = {}  # of flags as they are written: a list may have a million lines
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words or (words[0] in ("x", "X") and [w.lower() for w in words] == ["x", "y", "flag"]):
            continue
        try:
            if len(words) != 3:
                raise UsageError(f"found {quote(line.strip())}, expected 'x y flag'")
            if words[2] not in names:
                flag_value(words[2])
                names[words[2]] = words[2].upper()
            x = parse_range(words[0], shape[1], one_based)
            y = parse_range(words[1], shape[0], one_based)
        except UsageError as error:
            raise UsageError(f"{path}: line {number}: {error}") from None
        rows.append(ManualRow(y, x, names[words[2]], number))
    return rows


def _read_regions(path: Path, text: str, shape: tuple[int, int]) -> list[ManualRow]:
    rows = []
    try:
        for number, y, x, flag in regions.read_regions(text):
            if min(y.start, x.start) < 0 or y.stop > shape[0] or x.stop > shape[1]:
                raise UsageError(f"line {number}: the region reaches outside the {shape[1]} x {shape[0]} pixels")
            rows.append(ManualRow(y, x, flag, number))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return rows


@lru_cache(maxsize=1 << 16)
def parse_range(text: str, size: int, one_based: bool = False) -> slice:
    """The half-open slice meant by ``7``, ``3:7``, ``3:``, ``:7`` or ``:`` (inclusive in the text).

    Raises
    ------
    UsageError
        If it is no range or reaches outside 0 ... size - 1.
    """
    first, colon, last = text.partition(":")
    shift = 1 if one_based else 0
    try:
        low = whole_number(first) - shift if first else 0
        high = (whole_number(last) - shift if last else size - 1) if colon else low
        if not first and not colon:
            raise ValueError
    except ValueError:
        raise UsageError(f"found {quote(text)}, expected a pixel or a range such as 3:7") from None
    if low > high:
        raise UsageError(f"{quote(text)} runs backwards")
    if not (low >= 0 and high < size):
        raise UsageError(f"{quote(text)} lies outside {shift} to {size - 1 + shift}")
    return slice(low, high + 1)


def add_manual(image: DQ, rows: Sequence[ManualRow], do_not_use: Collection[str]) -> DQ:
    """A copy of ``image`` with manual flags added; flags in ``do_not_use`` add DO_NOT_USE."""
    out = image.copy()
    names = sorted({row.flag for row in rows})
    values = [flag_value(n) | (dq.VALUE["DO_NOT_USE"] if n in do_not_use else 0) for n in names]
    value_of = dict(zip(names, values, strict=True))
    y, x, single = find_single(rows)
    flags = np.fromiter((value_of[row.flag] for row in rows), np.uint32, len(rows))
    for value in values:
        at = single & (flags == value)
        out[y[at], x[at]] |= np.uint32(value)
    for k in np.flatnonzero(~single).tolist():
        out[rows[k].y, rows[k].x] |= flags[k]
    return out


def find_single(rows: Sequence[ManualRow]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """First row and column of each line, and which lines name a single pixel: (n,) each."""
    y, y_stop, x, x_stop = (
        np.fromiter((getattr(getattr(row, axis), end) for row in rows), np.intp, len(rows))
        for axis in ("y", "x")
        for end in ("start", "stop")
    )
    return y, x, (y_stop - y == 1) & (x_stop - x == 1)


def find_manual_file(name: str | None, exposure: Exposure) -> Path | None:
    """The manual list: a file, the detector's shipped one (``default``; few have one), or none."""
    if name != "default":
        return Path(name) if name else None
    shipped = f"manual/{exposure.keyword('INSTRUME')}_{exposure.keyword('DETECTOR')}_manual_flags.txt".lower()
    found = Path(str(files("badpix.configs").joinpath(shipped)))
    return found if found.is_file() else None


def read_manual_file(name: str | Path | None, exposure: Exposure) -> list[manual.ManualRow]:
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
    rows = manual.read_manual(name, (max(facts.shape[0], window.ysize), facts.shape[1]))
    return cut_rows(rows, window, str(name))


def cut_rows(rows: Sequence[manual.ManualRow], window: detectors.Window, name: str) -> list[manual.ManualRow]:
    """Manual rows in the coordinates of a window; what lies outside is left out, which a note says of list `name`."""
    if (window.xstart, window.ystart) == (1, 1) and all(
        row.y.stop <= window.ysize and row.x.stop <= window.xsize for row in rows
    ):
        return list(rows)
    out = []
    for row in rows:
        y = _shift(row.y, window.ystart - 1, window.ysize)
        x = _shift(row.x, window.xstart - 1, window.xsize)
        if y.start < y.stop and x.start < x.stop:
            out.append(ManualRow(y, x, row.flag, row.line))
    if len(out) < len(rows):
        log.warning(f"{name}: {len(rows) - len(out)} of {len(rows)} lines lie outside the mask's window: left out")
    return out


def _shift(span: slice, start: int, size: int) -> slice:
    return slice(max(span.start - start, 0), min(span.stop - start, size))


def _add_manual(
    image: NDArray[np.uint32], rows: Sequence[manual.ManualRow], do_not_use: set[str], reference: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Manual flags added, HOT over DEAD again, reference pixels protected."""
    added = combine.resolve_hot_dead(manual.add_manual(image, rows, do_not_use))
    return combine.protect_reference(added, reference)[0]
