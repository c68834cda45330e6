"""Reading `_cal` exposures, and their flagged copies, by rows.

A `_cal` file holds SCI, ERR and VAR_* (float32), DQ (uint32, stored as int32 with BZERO 2**31) and an ASDF
extension with metadata and GWCS. The headers of all HDUs and where their data lie are read once
(:func:`read_layout`); pixels are then read by rows, with plain reads (a file that is cut short is an error, not a
crash). Copies are written by :mod:`badpix.io.flagged_copy`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from badpix import dq
from badpix.errors import DataError
from badpix.io import asdf_text
from badpix.io.associations import name_some

DO_NOT_USE = np.uint32(dq.VALUE["DO_NOT_USE"])
FLAGGED = np.uint32(dq.VALUE["DO_NOT_USE"] | dq.VALUE["OUTLIER"])
_SIGN = np.uint32(1 << 31)


@dataclass(frozen=True)
class Hdu:
    """One HDU of a file: its header, and the byte offsets of header, data and end (with padding)."""

    name: str
    version: int
    header: fits.Header
    start: int
    data_start: int
    end: int

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, numpy order."""
        return tuple(self.header[f"NAXIS{i}"] for i in range(self.header["NAXIS"], 0, -1))


@dataclass(frozen=True)
class CalFile:
    """A `_cal` file whose headers have been read and whose pixels have not."""

    path: Path
    hdus: tuple[Hdu, ...]

    @property
    def primary(self) -> fits.Header:
        """The primary header."""
        return self.hdus[0].header

    def find(self, name: str) -> Hdu | None:
        """The first HDU of this name; None where there is none."""
        return next((hdu for hdu in self.hdus if hdu.name == name and hdu.version == 1), None)

    def keyword(self, name: str) -> str:
        """A keyword of the primary header as upper-case text.

        Raises
        ------
        DataError
            If it is missing.
        """
        if name not in self.primary:
            raise DataError(f"{self.path}: no keyword {name} in the primary header")
        return str(self.primary[name]).strip().upper()

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (ny, nx) of SCI."""
        ny, nx = image_hdu(self, "SCI").shape
        return ny, nx


def list_flagged(cals: Iterable[CalFile]) -> list[str]:
    """A remark if outliers have been flagged in some of the files before (their S_OUTLIR is COMPLETE)."""
    names = [cal.path.name for cal in cals if str(cal.primary.get("S_OUTLIR", "")).strip().upper() == "COMPLETE"]
    if not names:
        return []
    return [f"{name_some(names)}: S_OUTLIR is COMPLETE: outliers were flagged before; these pixels stay flagged"]


# --- reading ---------------------------------------------------------------------------------------------


def read_layout(path: str | Path) -> CalFile:
    """The headers of all HDUs of a FITS file, and where their data lie.

    Raises
    ------
    DataError
        If the file is missing, no (uncompressed) FITS, or cut short.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(6)
        if magic != b"SIMPLE":
            packed = "; uncompress it first" if magic[:2] == b"\x1f\x8b" else ""
            raise DataError(f"{path}: not a plain FITS file{packed}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            with fits.open(path, memmap=False, lazy_load_hdus=False, disable_image_compression=True) as hdul:
                hdus = tuple(_hdu(hdul, i) for i in range(len(hdul)))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, KeyError, fits.VerifyError) as error:
        raise DataError(f"{path}: not readable as FITS: {error}") from None
    for hdu in hdus:
        if hdu.end > size:
            name = hdu.name or "PRIMARY"
            raise DataError(f"{path}: cut short: HDU {name} ends at byte {hdu.end}, the file has {size}")
    if _starts_with(path, hdus[-1].end, b"XTENSION"):  # a header that astropy silently leaves out
        raise DataError(f"{path}: cut short in the header of the HDU behind {hdus[-1].name}")
    return CalFile(path, hdus)


def _starts_with(path: Path, position: int, text: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(position)
        return file.read(len(text)) == text


def _hdu(hdul: fits.HDUList, i: int) -> Hdu:
    info = hdul.fileinfo(i)
    hdu = hdul[i]
    start, data = info["hdrLoc"], info["datLoc"]
    return Hdu(hdu.name, int(hdu.ver), hdu.header, start, data, data + info["datSpan"])


def image_hdu(cal: CalFile, name: str) -> Hdu:
    """The HDU of a two-dimensional array.

    Raises
    ------
    DataError
        If it is missing, not two-dimensional, or of a type that `_cal` files don't have.
    """
    hdu = cal.find(name)
    if hdu is None:
        raise DataError(f"{cal.path}: no {name} extension; expected a _cal file with SCI, ERR and DQ")
    if hdu.header["NAXIS"] != 2:
        raise DataError(f"{cal.path}: {name}: found {hdu.header['NAXIS']} axes, expected an image (2)")
    _stored_type(cal, hdu)
    return hdu


def _stored_type(cal: CalFile, hdu: Hdu) -> np.dtype[Any]:
    """The type in the file, big-endian; DQ is one of the two forms of 32-bit integers."""
    bits, zero = hdu.header.get("BITPIX"), hdu.header.get("BZERO", 0)
    if hdu.name == "DQ":
        if bits == 32 and zero in (0, 1 << 31):
            return np.dtype(">u4")
    elif bits in (-32, -64) and zero == 0 and hdu.header.get("BSCALE", 1) == 1:
        return np.dtype(f">f{-bits // 8}")
    kind = "32-bit integers" if hdu.name == "DQ" else "floating point"
    raise DataError(f"{cal.path}: {hdu.name}: found BITPIX {bits}, BZERO {zero}; expected {kind}")


def read_rows(cal: CalFile, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows ``start:stop`` of an array in native byte order.

    Returns
    -------
    ndarray, shape (stop - start, nx)
        uint32 for DQ; float32 (float64 where the file has it) for the others.
    """
    hdu = image_hdu(cal, name)
    stop = hdu.shape[0] if stop is None else stop
    with cal.path.open("rb", buffering=0) as file:
        stored = read_stored(file, cal, hdu, start, stop)
    return to_native(stored, hdu)


def read_stored(file: Any, cal: CalFile, hdu: Hdu, start: int, stop: int) -> np.ndarray:
    """Rows of an array as they are stored.

    Raises
    ------
    DataError
        If the file is cut short.
    """
    kind = _stored_type(cal, hdu)
    nx = hdu.shape[1]
    rows = np.empty((stop - start, nx), kind)
    view = rows.reshape(-1).view("u1").data
    position = hdu.data_start + start * nx * kind.itemsize
    done = 0
    while done < len(view):
        got = os.preadv(file.fileno(), [view[done:]], position + done)
        if not got:
            raise DataError(f"{cal.path}: cut short in {hdu.name}")
        done += got
    return rows


def to_native(stored: np.ndarray, hdu: Hdu) -> np.ndarray:
    """Stored values in native byte order, in the same memory."""
    values = stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
    if hdu.header.get("BZERO", 0):
        values ^= _SIGN
    return values


def to_stored(values: np.ndarray, hdu: Hdu) -> np.ndarray:
    """The inverse of :func:`to_native`; ``values`` is used up."""
    if hdu.header.get("BZERO", 0):
        values ^= _SIGN
    return values.byteswap(inplace=True)


def read_asdf(cal: CalFile) -> bytes | None:
    """The ASDF file inside the ASDF extension; None where there is none."""
    hdu = cal.find("ASDF")
    if hdu is None:
        return None
    with cal.path.open("rb") as file:
        file.seek(hdu.data_start)
        return file.read(hdu.header["NAXIS1"] * hdu.header["NAXIS2"])


def read_wcs(cal: CalFile) -> Any:
    """The GWCS of an exposure (``meta.wcs``); nothing else of the tree is turned into objects.

    Raises
    ------
    DataError
        If there is none, or it can't be read.
    """
    content = read_asdf(cal)
    if content is None:
        raise DataError(f"{cal.path}: no ASDF extension, which holds the GWCS")
    import io

    import asdf

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with asdf.open(io.BytesIO(content), lazy_load=False, memmap=False, lazy_tree=True) as af:
                wcs = af.tree["meta"]["wcs"]
    except Exception as error:
        raise DataError(f"{cal.path}: no readable meta.wcs in the ASDF extension: {error}") from error
    if not hasattr(wcs, "forward_transform"):
        raise DataError(f"{cal.path}: meta.wcs is no GWCS (found {type(wcs).__name__})")
    return wcs


def read_meta(cal: CalFile, path: str) -> str | None:
    """A scalar of the ASDF tree as text, such as ``meta.group_id``; None where there is none."""
    content = read_asdf(cal)
    return None if content is None else asdf_text.read_value(content, path)
