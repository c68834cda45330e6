"""Headers of plain FITS files, read without astropy's header objects: a slope file in a third of a millisecond.

Only what is beyond doubt is read here: extensions that are plain images and tables, and plain cards. Anything else
(quotes in texts, odd cards) is left to astropy, whose word on it counts: :func:`read_units` then gives None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from badpix.errors import DataError
from badpix.io.structure import CARD, Piece
from badpix.outside import printable

COMMENTS = ("HISTORY", "COMMENT", "")
INTEGER = re.compile(r"[+-]?[0-9]+")
FLOAT = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=E))(E[+-]?[0-9]+)?")


STRIPES = ("MSTR_RD1", "MSTR_RD2", "SSTR_NST")  # keywords of readouts in stripes; 0 or absent in all others


class Odd(Exception):
    """Something that astropy should look at."""


class Unit(NamedTuple):
    """One HDU: keywords with a value, first byte of its data."""

    header: dict[str, Any]
    offset: int

    @property
    def name(self) -> str:
        """EXTNAME in capitals."""
        return str(self.header.get("EXTNAME", "")).upper()

    @property
    def is_image(self) -> bool:
        """Whether it is an image extension of two or more axes."""
        return self.header.get("XTENSION") == "IMAGE" and self.header["NAXIS"] >= 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in numpy's order."""
        return tuple(self.header[f"NAXIS{k}"] for k in range(self.header["NAXIS"], 0, -1))


def read_units(pieces: Sequence[Piece]) -> list[Unit] | None:
    """Headers of all HDUs of a file; None where astropy should read it."""
    try:
        units = [Unit(parse(piece.cards.decode("ascii")), piece.data) for piece in pieces]
        for number, unit in enumerate(units):
            _check(unit, first=number == 0)
    except (Odd, ValueError, OverflowError):
        return None
    return units


def refuse_stripes(path: Path, header: Mapping[str, Any]) -> None:
    """Refuse an exposure whose rows are stripes from several places of the detector (NIRCam DHS, NIRISS SOSS).

    Raises
    ------
    DataError
        With the keyword that says so.
    """
    for keyword in STRIPES:
        value = header.get(keyword)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            raise DataError(
                f"{printable(path)}: {keyword} = {value}: read out in stripes from several places of the detector; "
                "such rows are not placed, expected a contiguous window"
            )


def _check(unit: Unit, first: bool) -> None:
    kind = unit.header.get("SIMPLE" if first else "XTENSION")
    if kind not in ((True,) if first else ("IMAGE", "BINTABLE", "TABLE")):
        raise Odd("no plain HDU")
    if "INHERIT" in unit.header:
        raise Odd("keywords of the primary header count here too")


def parse(text: str) -> dict[str, Any]:
    """Keywords with a value, texts without blanks around them; the first of equal ones counts, as in astropy."""
    found: dict[str, Any] = {}
    last = ""  # keyword that a CONTINUE card belongs to
    if not text.isprintable():  # astropy takes no control characters in texts
        raise Odd("a control character")
    for start in range(0, len(text), CARD):
        card = text[start : start + CARD]
        keyword = card[:8].rstrip()
        if card[8:10] == "= ":
            value, last = _value(card[10:]), keyword
            if keyword in found:
                last = ""
            elif value is not None:
                found[keyword] = value
        elif keyword == "CONTINUE" and not last:
            continue
        elif keyword == "CONTINUE" and str(found.get(last)).endswith("&"):
            found[last] = found[last][:-1] + str(_value(card[8:]))
        elif keyword not in COMMENTS:
            raise Odd(f"card {card!r}")
    return {key: value.strip() if isinstance(value, str) else value for key, value in found.items()}


def _value(field: str) -> str | bool | int | float | None:
    """What a card's value field holds; None where it is undefined."""
    text = field.lstrip()
    if text.startswith("'"):
        value, quote, rest = text[1:].partition("'")
        if not quote or (rest.strip() and not rest.lstrip().startswith("/")) or rest.startswith("'"):
            raise Odd(f"text {text!r}")
        return value.rstrip()
    word = text.partition("/")[0].strip()
    if word in ("T", "F"):
        return word == "T"
    if INTEGER.fullmatch(word):
        return int(word)
    if FLOAT.fullmatch(word):
        return float(word)
    if word:
        raise Odd(f"value {word!r}")
    return None
