"""Reading `_cal` exposures, and their flagged copies, by rows.

A `_cal` file holds SCI, ERR and VAR_* (float32), DQ (uint32, stored as int32 with BZERO 2**31) and an ASDF
extension with metadata and GWCS. The headers of all HDUs and where their data lie are read once
(:func:`read_layout`), from an unpacked copy where the file is gzipped or fpacked; pixels are then read by rows
(:mod:`badpix.io.fits`). Copies are written by :mod:`badpix.io.flagged_copy`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import DataError
from badpix.io import asdf_text, headers
from badpix.io.associations import name_some
from badpix.io.fits import Layout, make_layout, open_fits, plain_header, read_band, same_number
from badpix.io.handles import Stamp, stamp_of
from badpix.io.headers import refuse_stripes
from badpix.io.structure import Piece
from badpix.io.unpack import make_plain
from badpix.outside import require_regular, understood

if TYPE_CHECKING:
    from astropy.io import fits

DO_NOT_USE = np.uint32(dq.VALUE["DO_NOT_USE"])
FLAGGED = np.uint32(dq.VALUE["DO_NOT_USE"] | dq.VALUE["OUTLIER"])


@dataclass(frozen=True)
class Hdu:
    """One HDU of a file: its header, and the byte offsets of header, data and end (with padding).

    ``header`` holds the keywords with a value; ``cards`` are its bytes up to END; they are ``plain`` where no card
    asks for astropy.
    """

    name: str
    version: int
    header: Mapping[str, Any]
    cards: bytes
    plain: bool
    start: int
    data_start: int
    end: int

    @property
    def full_header(self) -> fits.Header:
        """The header with comments and history, as astropy has it."""
        from astropy.io import fits

        return fits.Header.fromstring(self.cards)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, numpy order."""
        return tuple(self.header[f"NAXIS{i}"] for i in range(self.header["NAXIS"], 0, -1))


@dataclass(frozen=True)
class CalFile:
    """A `_cal` file whose headers have been read and whose pixels have not.

    ``source`` is the file to read: the exposure itself, or its unpacked copy; ``stamp`` tells whether it changed.
    """

    path: Path
    hdus: tuple[Hdu, ...]
    source: Path
    stamp: Stamp

    @property
    def primary(self) -> Mapping[str, Any]:
        """The keywords of the primary header."""
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


def read_layout(path: str | Path, workdir: Path | None = None) -> CalFile:
    """The headers of all HDUs of a FITS file, and where their data lie.

    Parameters
    ----------
    path : path
        The file; gzipped and fpacked ones need a ``workdir`` (:func:`badpix.io.exposure.unpacking`).
    workdir : Path, optional
        Where to unpack.

    Raises
    ------
    DataError
        If the file is missing, no FITS, truncated, or read out in stripes.
    """
    path = Path(path)
    require_regular(path)
    stamp = stamp_of(os.stat(path))
    source, pieces = make_plain(path, workdir)
    stamp = stamp if source == path else stamp_of(os.stat(source))
    units = headers.read_units(pieces)
    if units is None:
        with open_fits(path, source) as hdul:
            found = list(zip(same_number(path, hdul, pieces), pieces, strict=True))
            hdus = tuple(_hdu(plain_header(hdu.header), piece, plain=False) for hdu, piece in found)
    else:
        hdus = tuple(_hdu(unit.header, piece, plain=True) for unit, piece in zip(units, pieces, strict=True))
    refuse_stripes(path, hdus[0].header)
    return CalFile(path, hdus, source, stamp)


def _hdu(header: Mapping[str, Any], piece: Piece, *, plain: bool) -> Hdu:
    name = str(header.get("EXTNAME", "" if "XTENSION" in header else "PRIMARY")).upper()
    version = header.get("EXTVER", 1)
    version = version if isinstance(version, int) else 1
    return Hdu(name, version, header, piece.cards, plain, piece.start, piece.data, piece.end)


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
    layout_of(cal, hdu)
    return hdu


def layout_of(cal: CalFile, hdu: Hdu) -> Layout:
    """Where and how the pixels of an image lie.

    Raises
    ------
    DataError
        At a type that `_cal` files don't have: DQ holds integers, everything else floating-point numbers.
    """
    layout = make_layout(cal.path, cal.source, cal.stamp, hdu.name, hdu.header, hdu.data_start, hdu.shape)
    integers = layout.dtype[0] != "f"
    if integers != (hdu.name == "DQ"):
        kind = "integers" if hdu.name == "DQ" else "floating point"
        raise DataError(f"{cal.path}: {hdu.name}: found BITPIX {hdu.header['BITPIX']}; expected {kind}")
    return layout


def read_rows(cal: CalFile, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Rows ``start:stop`` of an array in native byte order.

    Returns
    -------
    ndarray, shape (stop - start, nx)
        uint32 for DQ; float32 (float64 where the file has it) for the others.
    """
    hdu = image_hdu(cal, name)
    rows: NDArray[Any] = read_band(layout_of(cal, hdu), start, hdu.shape[0] if stop is None else stop)[0]
    return rows


def read_asdf(cal: CalFile) -> bytes | None:
    """The ASDF file inside the ASDF extension; None where there is none."""
    hdu = cal.find("ASDF")
    if hdu is None:
        return None
    with cal.source.open("rb") as file:
        file.seek(hdu.data_start)
        return file.read(int(np.prod(hdu.shape)))


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

    with understood(cal.path, "ASDF with a GWCS (meta.wcs)"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with asdf.open(io.BytesIO(content), lazy_load=False, memmap=False, lazy_tree=True) as af:
            wcs = af.tree["meta"]["wcs"]
    if not hasattr(wcs, "forward_transform"):
        raise DataError(f"{cal.path}: meta.wcs is no GWCS (found {type(wcs).__name__})")
    return wcs


def read_meta(cal: CalFile, path: str) -> str | None:
    """A scalar of the ASDF tree as text, such as ``meta.group_id``; None where there is none."""
    content = read_asdf(cal)
    with understood(cal.path, "ASDF"):
        return None if content is None else asdf_text.read_value(content, path)
