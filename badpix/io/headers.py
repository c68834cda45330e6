"""Headers of plain FITS files, read without astropy's header objects: a slope file in a third of a millisecond.

Only what is beyond doubt is read here: files whose extensions are plain images and tables, and plain cards. Anything
else (compression, quotes in texts, odd cards, a file that ends early) is left to astropy, whose word on it counts:
:func:`scan` then gives None.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CARD, BLOCK = 80, 2880  # bytes of a card, of a FITS block
COMMENTS = ("HISTORY", "COMMENT", "")
INTEGER = re.compile(r"[+-]?\d+")
FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=E))(E[+-]?\d+)?")


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
    def shape(self) -> tuple[int, ...]:
        """Shape in numpy's order."""
        return tuple(self.header[f"NAXIS{k}"] for k in range(self.header["NAXIS"], 0, -1))

    @property
    def size(self) -> int:
        """Bytes of the data, with the padding."""
        values = int(np.prod(self.shape, dtype=np.int64)) if self.shape else 0
        heap, groups = self.header.get("PCOUNT", 0), self.header.get("GCOUNT", 1)
        return -(-abs(self.header["BITPIX"]) // 8 * groups * (heap + values) // BLOCK) * BLOCK


def scan(path: Path) -> list[Unit] | None:
    """All HDUs of a file; None where astropy should read it."""
    try:
        with open(path, "rb", buffering=0) as stream:
            return _units(stream.fileno(), os.fstat(stream.fileno()).st_size)
    except (Odd, OSError, KeyError, TypeError, ValueError):
        return None


def _units(handle: int, size: int) -> list[Unit]:
    units: list[Unit] = []
    at = 0
    while at < size:
        text, after = _read_cards(handle, at)
        unit = Unit(parse(text), after)
        _check(unit, first=not units)
        at = after + unit.size
        units.append(unit)
    if at != size or not units:
        raise Odd("ends early, or something follows")
    return units


def _check(unit: Unit, first: bool) -> None:
    kind = unit.header.get("SIMPLE" if first else "XTENSION")
    if kind not in ((True,) if first else ("IMAGE", "BINTABLE", "TABLE")):
        raise Odd("no plain HDU")
    if {"ZIMAGE", "GROUPS", "INHERIT"} & set(unit.header):
        raise Odd("compressed, or a group")


def _read_cards(handle: int, at: int) -> tuple[str, int]:
    """Cards of the header that begins at a byte, up to END, and the byte behind it."""
    found = b""
    while True:
        block = os.pread(handle, 4 * BLOCK, at + len(found))
        if not block:
            raise Odd("no END")
        found += block
        for start in range(max(0, len(found) - len(block)), len(found), CARD):
            if found[start : start + CARD].rstrip() == b"END":
                return found[:start].decode("ascii"), at + -(-(start + CARD) // BLOCK) * BLOCK


def parse(text: str) -> dict[str, Any]:
    """Keywords with a value, texts without blanks around them; the last of equal ones counts."""
    found: dict[str, Any] = {}
    last = ""
    for start in range(0, len(text), CARD):
        card = text[start : start + CARD]
        keyword = card[:8].rstrip()
        if card[8:10] == "= ":
            value, last = _value(card[10:]), keyword
            if value is not None:
                found[keyword] = value
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
