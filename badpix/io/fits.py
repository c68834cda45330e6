"""The one reader of FITS files: headers and layout once, pixels in bands of rows.

1. A file is regular, and its structure is sound, before any library sees it (:mod:`badpix.io.structure`).
2. Compressed files (gzip, fpack) can't be read by rows: they are unpacked into a private folder first
   (:mod:`badpix.io.unpack`); the layout is that of the copy.
3. The primary header and the place, type and shape of each image are read without astropy where all cards are plain
   (:mod:`badpix.io.headers`); otherwise its word counts.
4. Types in memory are native, unsigned where BZERO says so; other scaled integers are refused. Flags are bits, in
   whatever integers they were stored: DQ and PIXELDQ come as uint32, GROUPDQ as uint8, never with a sign.
5. Bands of rows are read with ``preadv`` straight into the array that the caller works on, and put into native
   byte order in place: no memory maps (a file truncated during the run would kill the process) and no copies. Each
   read compares identity, size and times of the file with those at opening: a file that changed is an error, not
   bad data.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.io import headers
from badpix.io.handles import Stamp, opened, read_into, stamp_of
from badpix.io.scratch import scratch_folder
from badpix.io.structure import Piece, walk
from badpix.io.unpack import gunzip, is_gzip, make_plain
from badpix.outside import printable, require_regular, understood

if TYPE_CHECKING:
    from astropy.io import fits

FLAG_TYPES = {"DQ": "u4", "PIXELDQ": "u4", "GROUPDQ": "u1"}  # extension: type in memory
STORED = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}  # BITPIX: type


@dataclass(frozen=True)
class Layout:
    """Where and how the pixels of one image extension lie in a file.

    Attributes
    ----------
    path : Path
        File that holds the pixels (the exposure itself, or its unpacked copy).
    offset : int
        First byte.
    dtype : str
        Type in memory: native, unsigned where BZERO says so, and for flags.
    shape : tuple of int
        Numpy order, (..., ny, nx).
    stamp : Stamp
        Of the file when it was opened.
    stored : str
        Type in the file, big-endian; empty: ``dtype``.
    flip : bool
        Whether the highest bit is inverted in the file (BZERO of unsigned integers).
    """

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]
    stamp: Stamp
    stored: str = ""
    flip: bool = False

    @property
    def planes(self) -> int:
        """Number of (ny, nx) planes."""
        return math.prod(self.shape[:-2])


MOST_OF_MASK = 4 << 30  # bytes that a gzipped mask, map or table may unpack to; exposures may be larger


# --- 1 to 4: opening -------------------------------------------------------------------------------------


@contextmanager
def open_fits(path: str | Path, source: str | Path | None = None) -> Iterator[fits.HDUList]:
    """The HDUs of a file for reading, without astropy's warnings; all that goes wrong with them is one message.

    Parameters
    ----------
    path : path
        The file; gzipped ones are unpacked into a temporary folder.
    source : path, optional
        Its unpacked copy, where there is one.

    Raises
    ------
    DataError
        If the file is missing, no regular file, no FITS, or damaged.
    """
    path = Path(path)
    if source is None:
        with unpacked(path) as copy, open_fits(path, copy) as hdus:
            yield hdus
        return
    from astropy.io import fits

    plain = headers.read_units(walk(source, path)) is not None
    with reading(path), fits.open(source, mode="readonly", memmap=False, lazy_load_hdus=True) as hdus:
        if not plain:
            _parse_cards(hdus)
        yield hdus


def _parse_cards(hdus: fits.HDUList) -> None:
    """Let astropy parse all cards now: it would do so when a value is asked for, long after the file was accepted."""
    for hdu in hdus:
        for card in hdu.header.cards:
            card.value  # noqa: B018 (raises where it can't be parsed)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """A block that reads a file, without warnings; all that goes wrong in it is the file's fault.

    Raises
    ------
    DataError
        Naming the file.
    """
    with understood(path, "FITS"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def unpacked(path: str | Path) -> Iterator[Path]:
    """A file without gzip: itself, or its copy in a temporary folder that lives as long as the block."""
    path = Path(path)
    require_regular(path)
    if not is_gzip(path):
        yield path
        return
    with scratch_folder() as folder:
        yield gunzip(path, folder, MOST_OF_MASK)


def as_bits(values: NDArray[Any]) -> NDArray[Any]:
    """Integers that hold flags, without a sign: bits stay where they are."""
    return values.view(f"u{values.dtype.itemsize}") if values.dtype.kind == "i" else values


def read_layouts(
    path: Path, workdir: Path | None, names: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, Layout]]:
    """Keywords of the primary header, and the layout of each image extension by its name.

    Parameters
    ----------
    path : Path
        The file, also gzipped or with fpack-compressed extensions.
    workdir : Path, optional
        Where compressed files are unpacked.
    names : sequence of str, optional
        Compressed extensions that are needed; all, if not given.

    Raises
    ------
    DataError
        If the file is no FITS, damaged or truncated, or its pixels are of a type that is not read.
    """
    require_regular(path)
    stamp = stamp_of(os.stat(path))
    source, pieces = make_plain(path, workdir, names)
    stamp = stamp if source == path else stamp_of(os.stat(source))
    units = headers.read_units(pieces)
    if units is None:
        with open_fits(path, source) as hdus:
            found = zip(same_number(path, hdus, pieces), pieces, strict=True)
            units = [headers.Unit(plain_header(hdu.header), piece.data) for hdu, piece in found]
    layouts: dict[str, Layout] = {}
    for unit in units[1:]:
        if unit.is_image and unit.name not in ("", "PRIMARY", "ASDF", *layouts):
            layouts[unit.name] = make_layout(path, source, stamp, unit.name, unit.header, unit.offset, unit.shape)
    return units[0].header, layouts


def read_keywords(path: Path, source: Path, name: str) -> dict[str, Any]:
    """Keywords of the first extension of a name; ``source`` is the file, or its unpacked copy.

    Raises
    ------
    DataError
        If the file can't be read.
    """
    units = headers.read_units(walk(source, path))
    if units is not None:
        return next(unit.header for unit in units if unit.name == name)
    with open_fits(path, source) as hdus:
        return plain_header(hdus[name].header)


def same_number(path: Path, hdus: fits.HDUList, pieces: Sequence[Piece]) -> fits.HDUList:
    """The HDUs, after making sure that astropy finds as many of them as the walk did.

    Raises
    ------
    DataError
        If not: a header among them is damaged.
    """
    if len(hdus) != len(pieces):
        raise DataError(f"{printable(path)}: a damaged header: {len(pieces)} extensions, {len(hdus)} can be read")
    return hdus


def make_layout(
    path: Path,
    source: Path,
    stamp: Stamp,
    name: str,
    header: Mapping[str, Any] | fits.Header,
    offset: int,
    shape: tuple[int, ...],
) -> Layout:
    """The layout of one image.

    Raises
    ------
    DataError
        If its type is not read.
    """
    bitpix = header["BITPIX"]
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    stored, unsigned = STORED[bitpix], bitpix > 8 and zero == 2 ** (bitpix - 1)
    if scale != 1 or not (zero == 0 or unsigned):
        raise DataError(
            f"{printable(path)}: extension {name}: BSCALE = {scale}, BZERO = {zero} with BITPIX = {bitpix}; "
            "such scaled numbers are not read"
        )
    memory = f"u{bitpix // 8}" if unsigned else stored
    if name in FLAG_TYPES and bitpix > 0:
        memory = FLAG_TYPES[name]
    return Layout(source, offset, memory, shape, stamp, f">{stored}", unsigned)


def plain_header(header: fits.Header) -> dict[str, Any]:
    """Keywords with a value, texts without blanks around them; no comments and history; the first of equal ones."""
    from astropy.io.fits.card import Undefined

    skip = ("HISTORY", "COMMENT", "")
    plain: dict[str, Any] = {}
    for card in header.cards:
        if card.keyword not in skip and not isinstance(card.value, Undefined):
            plain.setdefault(card.keyword, card.value.strip() if isinstance(card.value, str) else card.value)
    return plain


# --- 5: bands --------------------------------------------------------------------------------------------


def read_band(
    layout: Layout,
    start: int,
    stop: int,
    *,
    planes: Sequence[int] | None = None,
    out: NDArray[Any] | None = None,
    native: bool = True,
    step: int = 1,
    handle: int | None = None,
) -> NDArray[Any]:
    """Rows ``start`` to ``stop`` of all planes of an extension.

    Parameters
    ----------
    layout : Layout
        From :func:`read_layouts`.
    start, stop : int
        Rows, the last one exclusive.
    planes : sequence of int, optional
        Planes in file order (integration * ngroups + group); all, if not given.
    out : ndarray, optional
        Contiguous array of (number of planes, stop - start, nx), to be reused.
    native : bool
        False leaves the bytes as they are in the file, for a caller whose next step is a copy; floats only.
    step : int
        Read every ``step``-th row only.
    handle : int, optional
        The open file, from :func:`badpix.io.handles.opened`.

    Returns
    -------
    ndarray
        (number of planes, number of rows, nx), native byte order, of the layout's type or that of ``out``.

    Raises
    ------
    DataError
        If the file vanished, changed since it was opened, or can't be read.
    """
    wanted = range(layout.planes) if planes is None else planes
    if out is None:
        out = np.empty((len(wanted), len(range(start, stop, step)), layout.shape[-1]), layout.dtype)
    stored = np.dtype(layout.stored or np.dtype(layout.dtype).newbyteorder(">"))
    same = out.dtype.itemsize == stored.itemsize and (out.dtype.kind == "f") == (stored.kind == "f")
    room = out if same else np.empty(out.shape, stored)
    _read_rows(layout, start, step, wanted, room, handle)
    found = room.view(stored)
    if not native and same:
        return found
    if not same:
        _convert(found, out, layout.flip)
        return out
    if stored.itemsize > 1:
        np.copyto(out.view(stored.newbyteorder("=")), found)  # in place, faster than byteswap(inplace=True)
    if layout.flip:
        flip_sign(out)
    return out


def _read_rows(
    layout: Layout, start: int, step: int, planes: Sequence[int], out: NDArray[Any], handle: int | None
) -> None:
    """Fill an array with bytes of the file."""
    ny, nx = layout.shape[-2:]
    rows, row_bytes = out.shape[1], nx * out.dtype.itemsize
    runs = [(0, rows)] if step == 1 else [(k, k + 1) for k in range(rows)]
    if out.size == 0:
        return
    if not out.flags.c_contiguous:
        raise ValueError("rows are read into contiguous memory only")
    room = out.reshape(-1).view(np.uint8).data
    with opened(layout.path, layout.stamp) if handle is None else nullcontext(handle) as file:
        for k, plane in enumerate(planes):
            first = layout.offset + (plane * ny + start) * row_bytes
            for low, high in runs:
                here = room[(k * rows + low) * row_bytes : (k * rows + high) * row_bytes]
                read_into(file, here, first + low * step * row_bytes, layout.path)


def _convert(found: NDArray[Any], out: NDArray[Any], flip: bool) -> None:
    """Values of another size: flags are bits (no sign is carried on), numbers keep their value."""
    if flip or (out.dtype.kind == "u" and found.dtype.kind != "f"):
        found = found.astype(found.dtype.newbyteorder("=")).view(f"u{found.dtype.itemsize}")
    if flip:
        flip_sign(found)
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, found, casting="unsafe")


def flip_sign(values: NDArray[Any]) -> None:
    """Turn stored signed integers into the unsigned ones that BZERO means, or back: flip the highest bit."""
    bits = values.view(f"u{values.dtype.itemsize}")
    bits ^= bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))


def read_image(layout: Layout, plane: int = 0) -> NDArray[Any]:
    """One whole plane of an extension, in file order: (ny, nx)."""
    found: NDArray[Any] = read_band(layout, 0, layout.shape[-2], planes=[plane])[0]
    return found


def pack(values: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Values in the type and byte order in which an extension stores them: the inverse of :func:`read_band`."""
    stored = np.dtype(layout.stored)
    if stored.kind == "f":
        return values.astype(stored)
    bits = values.astype(f"u{stored.itemsize}")
    if layout.flip:
        flip_sign(bits)
    return bits.byteswap().view(stored)


def bands(ny: int, height: int) -> list[tuple[int, int]]:
    """Rows 0 to ``ny`` cut into bands of ``height`` rows: [(start, stop), ...]."""
    return [(y, min(y + height, ny)) for y in range(0, ny, height)]
