"""DS9 region files as manual lists: those of ``badpix export``, or drawn by hand.

1. Shapes are ``box`` (upright) and ``point`` in image coordinates, as DS9 saves them: x and y count from 1, whatever
   the counting of other lists. A pixel belongs to a box that holds its center.
2. The flag is a tag (``tag={HOT}``, several are several flags) or the text (``text={HOT}``) of the region.
3. Image coordinates are those of the full frame, unless a comment tells where the image begins on the detector:
   ``# SUBSTRT1 = 1000, SUBSTRT2 = 900``, which ``badpix export`` writes for masks of a window.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from badpix.errors import UsageError
from badpix.mask.combine import flag_value
from badpix.outside import quote

FIRST_LINE = "# Region file format: DS9"
START = re.compile(r"SUBSTRT1 = ([0-9]{1,5}), SUBSTRT2 = ([0-9]{1,5})")
SYSTEM = re.compile(r"[a-z][a-z0-9]*")
NUMBER = r"\s*[+-]?(?:[0-9]{1,9}(?:\.[0-9]*)?|\.[0-9]+)\s*"
SHAPE = re.compile(rf"(box|point)\(({NUMBER}(?:,{NUMBER})*)\)")
NAMES = re.compile(r"(?:tag|text)=\{([^}]*)\}")


def is_region_file(text: str) -> bool:
    """Whether a text is a DS9 region file."""
    return text.lstrip().startswith(FIRST_LINE)


def read_regions(text: str) -> Iterator[tuple[int, slice, slice, str]]:
    """The regions of a file: number of the line, rows and columns (from 0, full frame), flag.

    Raises
    ------
    UsageError
        At a region that can't be understood, without a flag, or in other coordinates; the message begins with the
        line.
    """
    system, shift = "", (0, 0)
    for number, line in enumerate(text.splitlines(), 1):
        content, _, comment = line.partition("#")
        started = START.search(comment) if not content.strip() else None
        if started:
            shift = int(started[1]) - 1, int(started[2]) - 1
        try:
            for piece in filter(None, (p.strip() for p in content.split(";"))):
                if SYSTEM.fullmatch(piece):
                    system = piece
                elif not piece.startswith("global"):
                    yield from _read_region(number, piece, comment, system, shift)
        except UsageError as error:
            raise UsageError(f"line {number}: {error}") from None


def _read_region(
    number: int, piece: str, comment: str, system: str, shift: tuple[int, int]
) -> Iterator[tuple[int, slice, slice, str]]:
    found = SHAPE.fullmatch(piece)
    values = [float(v) for v in found[2].split(",")] if found else []
    upright = len(values) == 2 or (len(values) in (4, 5) and not any(values[4:]))
    if found is None or not upright or (found[1] == "point") != (len(values) == 2):
        raise UsageError(f"found {quote(piece)}, expected box(x,y,width,height,0) or point(x,y)")
    if system != "image":
        raise UsageError(f"coordinates are {quote(system or 'not named')}, expected 'image' (save the regions so)")
    names = [name for name in NAMES.findall(comment) if name.strip()]
    if not names:
        raise UsageError(f"{quote(piece)} names no flag, expected tag={{HOT}} or another flag behind #")
    width, height = values[2:4] if len(values) > 2 else (1.0, 1.0)
    x, y = _span(values[0] + shift[0], width), _span(values[1] + shift[1], height)
    for name in dict.fromkeys(names):
        flag_value(name)  # raises where it is none
        yield number, y, x, name.upper()


def _span(center: float, width: float) -> slice:
    """Pixels (from 0) whose centers lie in a range of image coordinates; the nearest one where none does."""
    first, last = math.ceil(center - width / 2), math.floor(center + width / 2)
    if first > last:
        first = last = math.floor(center + 0.5)
    return slice(first - 1, last)
