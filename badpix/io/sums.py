"""CHECKSUM and DATASUM of FITS files, verified over the bytes as they are stored.

1. Both are ones'-complement sums of 32-bit words: DATASUM of the data, CHECKSUM such that the whole HDU adds up to
   zero (FITS standard 4.0, section 4.4.2.7 and appendix J).
2. What is summed are the bytes of the file. The table that holds an fpacked image has sums of its own or none; those
   of the image stand as ZHECKSUM and ZDATASUM, and :func:`check_image` compares the latter with the unpacked pixels.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.io.structure import CARD, Piece, is_compressed, walk
from badpix.outside import open_regular, printable

CHUNK = 1 << 22  # bytes, a multiple of 4
ZERO = (0, 0xFFFFFFFF)  # both mean zero in ones' complement


class Sum(NamedTuple):
    """One sum of one HDU: name of the extension, keyword, and whether it is right (None: missing)."""

    extension: str
    keyword: str
    right: bool | None


def read_sums(path: str | Path, name: str | Path | None = None) -> list[Sum]:
    """The sums of all HDUs of an uncompressed file.

    Parameters
    ----------
    path : path
        The file.
    name : path, optional
        Its name in messages.

    Raises
    ------
    DataError
        If it can't be read.
    """
    pieces = walk(path, name)
    handle = open_regular(path)
    try:
        return [one for number, piece in enumerate(pieces) for one in _sums_of(handle, piece, number)]
    except OSError as error:
        raise DataError(f"{printable(name or path)}: can't be read: {error.strerror}") from None
    finally:
        os.close(handle)


def _sums_of(handle: int, piece: Piece, number: int) -> list[Sum]:
    extension = _name(piece, number)
    check, data = _text(piece.cards, b"CHECKSUM"), _text(piece.cards, b"DATASUM")
    found = {"CHECKSUM": None if check is None else False, "DATASUM": None if data is None else False}
    if check is not None or data is not None:
        of_data = add_words(handle, piece.data, piece.end)
        if data is not None:
            found["DATASUM"] = data.isdigit() and len(data) < 20 and _same(int(data), of_data)
        if check is not None:
            whole = fold(of_data + add_words(handle, piece.start, piece.data))
            found["CHECKSUM"] = whole in ZERO
    needed = not (is_compressed(piece) and _text(piece.cards, b"ZDATASUM"))
    return [Sum(extension, keyword, right) for keyword, right in found.items() if needed or right is not None]


def _name(piece: Piece, number: int) -> str:
    return (_text(piece.cards, b"EXTNAME") or ("PRIMARY" if number == 0 else f"HDU {number}")).upper()


def check_image(path: str | Path, extension: str, image: NDArray[np.uint32]) -> list[Sum]:
    """ZDATASUM of a compressed extension against its unpacked pixels; empty where it is not compressed or has none.

    Parameters
    ----------
    path : path
        The uncompressed file.
    extension : str
        Name of the extension.
    image : uint32 ndarray
        Its pixels, stored as integers with BZERO = 2**31.
    """
    for number, piece in enumerate(walk(path)):
        if is_compressed(piece) and _name(piece, number) == extension:
            text = _text(piece.cards, b"ZDATASUM")
            found = fold(int((image ^ np.uint32(1 << 31)).sum(dtype=np.uint64)))
            right = text is not None and text.isdigit() and len(text) < 20 and _same(int(text), found)
            return [] if text is None else [Sum(extension, "ZDATASUM", right)]
    return []


def _same(one: int, other: int) -> bool:
    return one == other or (one in ZERO and other in ZERO)


def _text(cards: bytes, keyword: bytes) -> str | None:
    """Text of the first card of a keyword; None where there is none."""
    for start in range(0, len(cards), CARD):
        if cards[start : start + 8].rstrip() == keyword and cards[start + 8 : start + 10] == b"= ":
            field = cards[start + 10 : start + CARD].decode("ascii", "replace")
            text = re.match(r"\s*'((?:[^']|'')*)'", field)
            return (text[1].replace("''", "'") if text else field.partition("/")[0]).strip()
    return None


def add_words(handle: int, start: int, stop: int) -> int:
    """Ones'-complement sum of the 32-bit words of some bytes; what the file lacks at its end counts as zeros."""
    total = 0
    while start < stop:
        chunk = os.pread(handle, min(CHUNK, stop - start), start)
        if not chunk:
            break
        words = np.frombuffer(chunk + b"\0" * (-len(chunk) % 4), ">u4")
        total = fold(total + int(words.sum(dtype=np.uint64)))
        start += len(chunk)
    return total


def fold(total: int) -> int:
    """Carries added back in: a sum modulo 2**32 - 1."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total
