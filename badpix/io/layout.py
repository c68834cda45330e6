"""Where the pixels of a FITS file lie: its header, and place, type and shape of each image extension.

1. A plain file is read without astropy (:mod:`badpix.io.headers`); anything else is left to it, whose word counts.
2. The layout must fit the size of the file, so a truncated copy is found before any work starts.
3. Pixels of fpack-compressed extensions are unpacked first (:mod:`badpix.io.unpack`); the layout is that of the copy.
4. Types in memory are native, unsigned where BZERO says so; other scaled integers are refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from badpix.errors import BadpixError, DataError
from badpix.io import headers
from badpix.io.unpack import first_line, need_workdir, unpack_tiles


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
        Type in memory: native, unsigned where BZERO says so.
    shape : tuple of int
        Numpy order, (..., ny, nx).
    stamp : tuple of int
        Size and modification time when the file was opened.
    """

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]
    stamp: tuple[int, int]

    @property
    def planes(self) -> int:
        """Number of (ny, nx) planes."""
        return int(np.prod(self.shape[:-2], dtype=np.int64))


def read_layouts(
    path: Path, source: Path, workdir: Path | None, names: Sequence[str] | None
) -> tuple[dict[str, Any], dict[str, Layout]]:
    """Keywords of the primary header, and the layout of each image extension by its name.

    Parameters
    ----------
    path : Path
        The file, for messages.
    source : Path
        Where it can be read: the file, or its unpacked copy.
    workdir : Path, optional
        Where compressed extensions are unpacked.
    names : sequence of str, optional
        Compressed extensions that are needed; all, if not given.

    Raises
    ------
    DataError
        If the file is no FITS, damaged or truncated, or its pixels are of a type that is not read.
    """
    units = headers.scan(source)
    if units is not None:
        return units[0].header, _plain_layouts(path, source, units[1:])
    with open_fits(source, path) as hdus:
        return plain_header(hdus[0].header), _layouts(path, source, hdus, workdir, names)


@contextmanager
def open_fits(source: str | Path, path: str | Path | None = None) -> Iterator[fits.HDUList]:
    """The HDUs of a file for reading, without astropy's warnings; all that goes wrong with them is one message.

    Raises
    ------
    DataError
        If the file is missing, no FITS, or damaged; it names ``path``, where ``source`` is its unpacked copy.
    """
    path = path or source
    if not Path(source).is_file():
        raise DataError(f"{path}: no such file")
    with reading(path), fits.open(source, mode="readonly", memmap=False, lazy_load_hdus=True) as hdus:
        yield hdus


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """A block that reads a file, without astropy's warnings; all that goes wrong in it is the file's fault.

    Raises
    ------
    DataError
        Naming the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            yield
    except BadpixError:
        raise
    except Exception as error:  # a damaged file makes astropy raise nearly anything
        raise DataError(f"{path}: not readable as FITS: {first_line(error)}") from None


def plain_header(header: fits.Header) -> dict[str, Any]:
    """Keywords with a value, texts without blanks around them; no comments and history."""
    skip = ("HISTORY", "COMMENT", "")
    plain = {}
    for card in header.cards:
        if card.keyword not in skip and not isinstance(card.value, fits.card.Undefined):
            plain[card.keyword] = card.value.strip() if isinstance(card.value, str) else card.value
    return plain


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _plain_layouts(path: Path, source: Path, units: Sequence[headers.Unit]) -> dict[str, Layout]:
    layouts: dict[str, Layout] = {}
    stamp = _stamp(source)
    for unit in units:
        is_image = unit.header["XTENSION"] == "IMAGE" and unit.header["NAXIS"] >= 2
        if is_image and unit.name not in ("", "PRIMARY", "ASDF", *layouts):
            dtype = _memory_type(path, unit.name, unit.header)
            layouts[unit.name] = Layout(source, unit.offset, dtype, unit.shape, stamp)
    return layouts


def _layouts(
    path: Path, source: Path, hdus: fits.HDUList, workdir: Path | None, names: Sequence[str] | None
) -> dict[str, Layout]:
    layouts: dict[str, Layout] = {}
    size = source.stat().st_size
    for hdu in hdus:
        name = hdu.name.upper()
        if name in layouts or name in ("", "PRIMARY", "ASDF"):
            continue
        if isinstance(hdu, fits.CompImageHDU):
            if names is None or name in names:
                dtype, folder = _memory_type(path, name, hdu.header), need_workdir(path, workdir)
                unpacked = unpack_tiles(path, hdu, dtype, folder)
                layouts[name] = Layout(unpacked, 0, dtype, tuple(hdu.shape), _stamp(unpacked))
            continue
        info = hdu.fileinfo()
        if info["datLoc"] + hdu.size > size:
            raise DataError(
                f"{path}: truncated: extension {name} ends at byte {info['datLoc'] + hdu.size}, the file at {size}"
            )
        if isinstance(hdu, fits.ImageHDU) and len(hdu.shape) >= 2:
            dtype = _memory_type(path, name, hdu.header)
            layouts[name] = Layout(source, info["datLoc"], dtype, tuple(hdu.shape), _stamp(source))
    return layouts


def _memory_type(path: Path, name: str, header: Mapping[str, Any] | fits.Header) -> str:
    bitpix = header["BITPIX"]
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    signed = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}[bitpix]
    if scale == 1 and zero == 0:
        return signed
    if scale == 1 and bitpix in (16, 32) and zero == 2 ** (bitpix - 1):
        return f"u{bitpix // 8}"
    raise DataError(f"{path}: extension {name}: BSCALE = {scale}, BZERO = {zero} with BITPIX = {bitpix} is not read")
