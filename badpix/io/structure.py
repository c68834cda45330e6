"""The structure of a FITS file, walked and checked byte by byte before any library sees the file.

1. Headers are found by their END card, in blocks; one is at most :data:`HEADER_LIMIT` bytes long.
2. The cards that say where data lie (BITPIX, NAXIS, NAXISn, PCOUNT, GCOUNT; those of compressed images; widths of
   tables) stand once, in fixed format, and hold whole numbers that make sense.
3. Data lie within the file, so a truncated copy is found before any work starts.
4. No image is larger than a detector's frame, whatever a compressed one claims; there are as many tiles as it needs.

What cards mean beyond that, and whether tables and images make sense, is for others.
"""

from __future__ import annotations

import os
import re
from math import prod
from pathlib import Path
from typing import NamedTuple

from badpix.errors import DataError
from badpix.outside import MOST_DIGITS, open_regular, printable, quote

CARD, BLOCK = 80, 2880  # bytes of a card, of a FITS block
CHUNK = 4 * BLOCK  # bytes that a header is read by at first
HEADER_LIMIT = 8 << 20  # bytes of one header: a hundred thousand cards
HDU_LIMIT = 10_000
MOST_AXES = 999  # of the standard
FRAME_PIXELS = 3200 * 2048  # the largest readout (IRS2); no frame has more pixels
BITPIX = (8, 16, 32, 64, -32, -64)
TABLE_BYTES = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "E": 4, "K": 8, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}

_STRUCTURAL = re.compile(
    rb"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|ZIMAGE|ZBITPIX|ZNAXIS\d*|ZTILE\d+|TFIELDS|TFORM\d+"
)
_FIRST = b"SXBNPGZT"  # letters that their names begin with
_WHOLE = re.compile(rb"[+-]?\d{1,%d}" % MOST_DIGITS)
_TFORM = re.compile(r"(\d{0,9})([LXBAIJKEDCMPQ])")


class Piece(NamedTuple):
    """One HDU: its cards up to END, and where header, data and padded end lie."""

    cards: bytes
    start: int
    data: int
    size: int  # bytes of the data without the padding

    @property
    def end(self) -> int:
        """First byte behind the padded data."""
        return self.data + -(-self.size // BLOCK) * BLOCK


def walk(path: str | Path, name: str | Path | None = None) -> list[Piece]:
    """All HDUs of an uncompressed FITS file.

    Parameters
    ----------
    path : path
        The file; regular, or it is not opened.
    name : path, optional
        Its name in messages, where ``path`` is an unpacked copy.

    Raises
    ------
    DataError
        If the file is no FITS, truncated, or claims what can't be.
    """
    handle = open_regular(path)
    try:
        return walk_open(handle)
    except DataError as error:
        raise DataError(f"{printable(name or path)}: {error}") from None
    except OSError as error:
        raise DataError(f"{printable(name or path)}: can't be read: {error.strerror}") from None
    finally:
        os.close(handle)


def walk_open(handle: int) -> list[Piece]:
    """All HDUs of an open file, as :func:`walk`; messages are without its name."""
    size = os.fstat(handle).st_size
    pieces: list[Piece] = []
    at = 0
    while at < size:
        if len(pieces) == HDU_LIMIT:
            raise DataError(f"more than {HDU_LIMIT} extensions")
        found = _read_header(handle, at, first=not pieces)
        if found is None:  # whatever follows the last HDU
            break
        cards, after = found
        length = measure_data(cards, first=not pieces)
        if after + length > size:
            end = after + length
            raise DataError(f"truncated: {_label(cards, len(pieces))} ends at byte {end}, the file at {size}")
        pieces.append(Piece(cards, at, after, length))
        at = pieces[-1].end
    if not pieces:
        raise DataError("not readable as FITS: it is empty")
    return pieces


class Growing:
    """A file that is being written from a stream: from where on nothing belongs to it, by what its headers claim.

    Parameters
    ----------
    handle : int
        Open for reading.
    """

    def __init__(self, handle: int) -> None:
        self.handle, self.at, self.number, self.need = handle, 0, 0, CHUNK

    def is_whole(self, size: int) -> bool:
        """Whether the file ends within its first ``size`` bytes, whatever follows.

        Raises
        ------
        DataError
            If a header claims what can't be; without the file's name.
        """
        while size >= self.need:
            try:
                found = _read_header(self.handle, self.at, first=self.number == 0)
            except DataError as error:
                if not str(error).startswith("truncated"):
                    raise
                self.need = size + max(CHUNK, size - self.at)
                return False
            if found is None or self.number == HDU_LIMIT:
                return True
            length = measure_data(found[0], first=self.number == 0)
            self.at = found[1] + -(-length // BLOCK) * BLOCK
            self.number, self.need = self.number + 1, self.at + CHUNK
        return False


def _read_header(handle: int, at: int, *, first: bool) -> tuple[bytes, int] | None:
    """Cards of the header that begins at a byte, and the byte behind it; None where no extension begins there."""
    found = bytearray(os.pread(handle, CHUNK, at))
    magic = b"SIMPLE  =" if first else b"XTENSION"
    if not found.startswith(magic):
        if first:
            raise DataError(f"not readable as FITS: it begins with {quote(bytes(found[:16]))}")
        if magic.startswith(found):
            raise DataError(f"truncated: the header at byte {at} has no END")
        return None
    looked = 0
    while True:
        for start in range(looked, len(found) - CARD + 1, CARD):
            if found[start : start + 3] == b"END" and not found[start + 3 : start + CARD].strip():
                return bytes(found[:start]), at + -(-(start + CARD) // BLOCK) * BLOCK
        looked = len(found) - len(found) % CARD
        if len(found) > HEADER_LIMIT:
            raise DataError(f"header at byte {at}: no END within {HEADER_LIMIT >> 20} MB")
        more = os.pread(handle, max(CHUNK, len(found)), at + len(found))
        if not more:
            raise DataError(f"truncated: the header at byte {at} has no END")
        found += more


def _label(cards: bytes, number: int) -> str:
    """Name of an HDU for messages."""
    name = re.search(rb"EXTNAME = '([^']*)'", cards)
    return f"extension {printable(name[1].decode('ascii', 'replace').strip())}" if name else f"HDU {number}"


def is_compressed(piece: Piece) -> bool:
    """Whether an HDU is an fpack-compressed image."""
    return b"ZIMAGE" in piece.cards and _structural(piece.cards).get(b"ZIMAGE") == b"T"


# --- 2 to 4: what the cards claim ------------------------------------------------------------------------


def measure_data(cards: bytes, *, first: bool = False) -> int:
    """Bytes of the data that a header's cards claim, without the padding.

    Parameters
    ----------
    cards : bytes
        Of one header, up to END.
    first : bool
        Whether it is the primary header.

    Raises
    ------
    DataError
        If the claims can't be; the message is without the file's name.
    """
    values = _structural(cards)
    label = _label(cards, 0)
    bits = _number(values, b"BITPIX", label)
    if bits not in BITPIX:
        raise DataError(f"{label}: BITPIX = {bits}, expected one of {', '.join(map(str, BITPIX))}")
    axes = _axes(values, b"NAXIS", label)
    heap, groups = (_size(values, key, label, usual) for key, usual in ((b"PCOUNT", 0), (b"GCOUNT", 1)))
    if first and values.get(b"GROUPS") == b"T":
        raise DataError("random groups are not read")
    kind = values.get(b"XTENSION", b"'IMAGE'").strip(b"' ")
    if kind == b"IMAGE":
        _check_frame(axes, label)
    elif kind == b"BINTABLE":
        _check_table(values, axes, label)
        if values.get(b"ZIMAGE") == b"T":
            _check_tiles(values, axes, label)
    return abs(bits) // 8 * groups * (heap + (prod(axes) if axes else 0))


def _structural(cards: bytes) -> dict[bytes, bytes]:
    """Value fields of the cards that say where data lie, without comments and blanks."""
    found: dict[bytes, bytes] = {}
    for start in range(0, len(cards), CARD):
        if cards[start] not in _FIRST and not (cards[start] == 0x20 or cards[start] > 0x60):
            continue
        word = cards[start : start + 8]
        key = word.partition(b"=")[0].strip().upper()
        if not _STRUCTURAL.fullmatch(key):
            continue
        card = cards[start : start + CARD]
        if word.rstrip() != key or card[8:10] != b"= ":
            raise DataError(f"card {quote(card)} is not in fixed format")
        if key in found:
            raise DataError(f"keyword {key.decode()} stands twice in one header")
        found[key] = _value(card[10:])
    return found


def _value(field: bytes) -> bytes:
    """A value field without its comment."""
    text = field.strip()
    if text.startswith(b"'"):
        return text[: text.find(b"'", 1) + 1]
    return text.partition(b"/")[0].strip()


def _number(values: dict[bytes, bytes], key: bytes, label: str) -> int:
    value = values.get(key)
    if value is None:
        raise DataError(f"{label}: keyword {key.decode()} is missing")
    if not _WHOLE.fullmatch(value):
        what = f"at most {MOST_DIGITS} digits" if re.fullmatch(rb"[+-]?\d+", value) else "a whole number"
        raise DataError(f"{label}: {key.decode()} = {quote(value)}, expected {what}")
    return int(value)


def _size(values: dict[bytes, bytes], key: bytes, label: str, usual: int | None = None) -> int:
    """A number that can't be negative."""
    if usual is not None and key not in values:
        return usual
    number = _number(values, key, label)
    if number < 0:
        raise DataError(f"{label}: {key.decode()} = {number}, expected no negative number")
    return number


def _axes(values: dict[bytes, bytes], key: bytes, label: str) -> list[int]:
    """Lengths of all axes, the fastest first."""
    number = _size(values, key, label)
    if number > MOST_AXES:
        raise DataError(f"{label}: {key.decode()} = {number}, expected at most {MOST_AXES} axes")
    return [_size(values, key + str(k).encode(), label) for k in range(1, number + 1)]


def _check_frame(axes: list[int], label: str) -> None:
    if len(axes) > 1 and axes[0] * axes[1] > FRAME_PIXELS:
        raise DataError(f"{label}: claims {axes[0]} x {axes[1]} pixels, more than any detector's frame has")


def _check_table(values: dict[bytes, bytes], axes: list[int], label: str) -> None:
    """Columns must fit into the rows that NAXIS1 claims."""
    fields = _size(values, b"TFIELDS", label)
    if fields > MOST_AXES or len(axes) != 2:
        raise DataError(f"{label}: a table with TFIELDS = {fields} and NAXIS = {len(axes)}")
    width = 0
    for k in range(1, fields + 1):
        text = values.get(b"TFORM" + str(k).encode(), b"").strip(b"' ").decode("ascii", "replace")
        form = _TFORM.match(text)
        if form is None:
            raise DataError(f"{label}: TFORM{k} = {quote(text)}, expected a column's format")
        repeat, letter = int(form[1] or 1), form[2]
        width += -(-repeat // 8) if letter == "X" else repeat * TABLE_BYTES[letter]
    if width > axes[0]:
        raise DataError(f"{label}: columns of {width} bytes in rows of NAXIS1 = {axes[0]}")


def _check_tiles(values: dict[bytes, bytes], axes: list[int], label: str) -> None:
    """A compressed image is no larger than frames are, and each tile has its row."""
    shape = _axes(values, b"ZNAXIS", label)
    _check_frame(shape, label)
    usual = [shape[0] if shape else 0, *[1] * len(shape)]
    tile = [_size(values, b"ZTILE" + str(k + 1).encode(), label, usual[k]) for k in range(len(shape))]
    if _number(values, b"ZBITPIX", label) not in BITPIX:
        raise DataError(f"{label}: ZBITPIX is none of {', '.join(map(str, BITPIX))}")
    if not shape or min(shape) < 1 or min(tile) < 1 or prod(tile) > 2 * FRAME_PIXELS:
        raise DataError(f"{label}: tiles of {tile} pixels in a compressed image of {shape}")
    number = prod(-(-n // t) for n, t in zip(shape, tile, strict=True))
    if number != axes[1]:
        raise DataError(f"{label}: {axes[1]} tiles in the table, a compressed image of {shape} has {number}")
