"""Images compressed in tiles, as a FITS file keeps them in a table: written band by band, without loss.

1. A tile is :data:`ROWS` whole rows: one pixel costs one tile to read, and an image few calls to write.
2. Tiles are big-endian, unsigned integers with their highest bit flipped (BZERO), and packed by gzip at its fastest
   level: images that are nearly empty shrink at any level. Tiles of measured values lose a twelfth at the best, for
   ten times the time: they are stored in the stream as they are.
3. The table holds length and place of each tile; DATASUM is that of the table (FITS standard 4.0, sections 4.4.2.7,
   10.1 and 10.4.2).

astropy packs tiles one by one at gzip's slowest level through a table of Python objects, which took longer than the
search that the images came from.
"""

from __future__ import annotations

import zlib
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix.io.sums import fold

ROWS = 16  # of a tile
LEVEL = 1  # of compression
GZIP = 31  # zlib's number for a gzip stream with the largest window
REPEATS = 0.5  # part of the pixels equal to the one before, up to which a tile is not compressed
BLOCK = 2880  # bytes of a FITS block


def write_image(stream: BinaryIO, name: str, image: Any) -> None:
    """Write one image as a tile-compressed extension.

    Parameters
    ----------
    stream : file
        Open for writing, at the end of an HDU.
    name : str
        EXTNAME.
    image : ndarray
        (ny, nx) float32 or float64, or integers of 1, 2 or 4 bytes; unsigned ones and signed ones keep their values,
        but FITS has no signed bytes. Or what has shape and dtype, and gives such rows for a slice.
    """
    tiles = [pack_tile(image[k : k + ROWS]) for k in range(0, image.shape[0], ROWS)]
    sizes = np.array([len(tile) for tile in tiles], np.int64)
    table = np.stack([sizes, np.cumsum(sizes) - sizes], axis=1).astype(">i4").tobytes()
    length = len(table) + int(sizes.sum())
    padding = b"\0" * (-length % BLOCK)
    header = make_header(name, image, sizes)
    header["DATASUM"] = (str(add_parts([table, *tiles, padding])), "of the table")
    stream.write(header.tostring().encode("ascii"))
    for part in (table, *tiles, padding):
        stream.write(part)


def pack_tile(rows: NDArray[Any]) -> bytes:
    """The bytes of a tile: a gzip stream without name and time."""
    stored = rows.astype(rows.dtype.newbyteorder(">"))
    if is_flipped(rows.dtype):
        stored ^= stored.dtype.type(1 << (8 * rows.dtype.itemsize - 1))
    bits = stored.view(f"u{stored.dtype.itemsize}")
    repeats = np.count_nonzero(bits[:, 1:] == bits[:, :-1]) > REPEATS * bits.size
    packer = zlib.compressobj(LEVEL if repeats else 0, zlib.DEFLATED, GZIP)
    return packer.compress(stored.data) + packer.flush()


def is_flipped(dtype: np.dtype[Any]) -> bool:
    """Whether integers are stored with a BZERO: unsigned ones of more than a byte."""
    return dtype.kind == "u" and dtype.itemsize > 1


def make_header(name: str, image: Any, sizes: NDArray[np.int64]) -> fits.Header:
    """The header of the table that holds the tiles of ``sizes`` bytes."""
    bits = 8 * image.dtype.itemsize * (-1 if image.dtype.kind == "f" else 1)
    ny, nx = image.shape
    cards = [("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", 8), ("NAXIS2", len(sizes))]
    cards += [("PCOUNT", int(sizes.sum())), ("GCOUNT", 1), ("TFIELDS", 1)]
    cards += [("TTYPE1", "COMPRESSED_DATA"), ("TFORM1", f"1PB({sizes.max(initial=0)})")]
    cards += [("ZIMAGE", True), ("ZTENSION", "IMAGE"), ("ZBITPIX", bits), ("ZPCOUNT", 0), ("ZGCOUNT", 1)]
    cards += [("ZNAXIS", 2), ("ZNAXIS1", nx), ("ZNAXIS2", ny), ("ZTILE1", nx), ("ZTILE2", min(ROWS, ny))]
    cards += [("ZCMPTYPE", "GZIP_1"), ("EXTNAME", name)]
    if bits < 0:
        cards.append(("ZQUANTIZ", "NONE"))
    if is_flipped(image.dtype):
        cards += [("BZERO", 1 << (bits - 1)), ("BSCALE", 1)]
    return fits.Header(cards)


def add_parts(parts: list[bytes]) -> int:
    """Ones'-complement sum of the 32-bit words of parts that follow each other; the whole is padded to words."""
    total, rest = 0, b""
    for part in parts:
        part = rest + part
        whole = len(part) - len(part) % 4
        total = fold(total + int(np.frombuffer(part[:whole], ">u4").sum(dtype=np.uint64)))
        rest = part[whole:]
    return fold(total + int.from_bytes(rest + b"\0" * (-len(rest) % 4), "big"))
