"""A MASK file as it stands on disk, broken or not, and what is called a fault in it.

Where :mod:`badpix.mask.file` gives masks that are sound, this reads as much as can be read, so that
:mod:`badpix.mask.rules` can say what is wrong. It opens FITS files (``astropy.io.fits``) itself for that reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import detectors
from badpix.detectors import IRS2_ROWS, Detector, Window
from badpix.errors import DataError
from badpix.io.fits import as_bits, open_fits, unpacked
from badpix.io.sums import Sum, check_image, read_sums

COLUMNS = {"BIT": "J", "VALUE": "J", "NAME": "40A", "DESCRIPTION": "80A"}


class Fault(NamedTuple):
    """One broken rule: ``error``, ``warning`` or ``note``, a short name of it, what was found and what is expected.

    A note is never held against a file.
    """

    severity: str
    rule: str
    message: str


Faults = Iterator[Fault]


def error(rule: str, message: str) -> Fault:
    """A rule that a file must not break."""
    return Fault("error", rule, message)


def warning(rule: str, message: str) -> Fault:
    """Something legal that deserves a look."""
    return Fault("warning", rule, message)


def note(rule: str, message: str) -> Fault:
    """Something that is as it may be, and good to know."""
    return Fault("note", rule, message)


def describe_exposure(header: Mapping[str, Any], names: Collection[str]) -> str:
    """What is wrong where an exposure stands in place of a MASK: it has science data and no REFTYPE; else empty."""
    if header.get("REFTYPE") or "SCI" not in names:
        return ""
    return (
        f"found an exposure ({header.get('DATAMODL', 'extension SCI')}), expected a MASK file; badpix explain "
        "EXPOSURE X Y tells what the bits of an exposure mean"
    )


class Row(NamedTuple):
    """One row of DQ_DEF as it stands in the file."""

    number: int
    bit: int
    value: int
    name: str
    description: str


@dataclass
class MaskFile:
    """What a file holds, as far as it could be read; None for what could not.

    ``reference`` and ``detector`` are known only where DETECTOR and the window make sense.
    """

    name: str
    header: fits.Header
    hdus: list[tuple[str, str]]  # extension name, kind: image, table, other
    dq_header: fits.Header | None = None
    image: NDArray[Any] | None = None
    table_header: fits.Header | None = None
    columns: list[str] | None = None
    rows: list[Row] | None = None
    has_primary_data: bool = False
    sums: tuple[Sum, ...] = ()

    @property
    def detector(self) -> Detector | None:
        """The detector, if DETECTOR names one."""
        try:
            return detectors.get(str(self.header.get("DETECTOR")))
        except DataError:
            return None

    @property
    def table(self) -> dict[str, int]:
        """DQ_DEF as flag names and their values; empty where there is none."""
        return {row.name: row.value for row in self.rows or ()}

    @property
    def window(self) -> Window | None:
        """Place on the detector: SUBSTRT and the size of the image; None where a keyword is no whole number."""
        start = [self.header.get(k) for k in ("SUBSTRT1", "SUBSTRT2")]
        if self.image is None or self.image.ndim != 2 or not all(type(v) is int for v in start):
            return None
        ny, nx = self.image.shape
        return Window(start[0], start[1], nx, ny)  # type: ignore[arg-type]

    @property
    def is_full(self) -> bool:
        """Whether the image has the size of the whole detector."""
        if self.detector is None or self.image is None:
            return False
        ny, nx = self.detector.shape
        return self.image.shape in ((ny, nx), (IRS2_ROWS, nx))

    @property
    def is_irs2(self) -> bool:
        """Whether the image is a NIRSpec frame with interleaved reference pixels."""
        nirspec = self.detector is not None and self.detector.instrument == "NIRSPEC"
        return nirspec and self.image is not None and self.image.shape[0] == IRS2_ROWS


# --- reading ---------------------------------------------------------------------------------------------


def read_file(path: Path, name: str) -> MaskFile:
    """What a file holds, broken or not; before any rule is applied.

    Raises
    ------
    DataError
        If it is no FITS file, or a part of it is missing; without the file's name.
    """
    try:
        with unpacked(path) as source:
            return _read(path, source, name)
    except DataError as problem:
        raise DataError(str(problem).removeprefix(f"{path}: ")) from None


def _read(path: Path, source: Path, name: str) -> MaskFile:
    sums = tuple(read_sums(source, path))
    with open_fits(path, source) as hdus:
        kinds = [(hdu.name.upper(), _kind(hdu)) for hdu in hdus]
        found = MaskFile(name, hdus[0].header.copy(), kinds, sums=sums)
        found.has_primary_data = hdus[0].header.get("NAXIS", 0) != 0
        for hdu in hdus[1:]:
            _take(found, hdu)
    if found.image is not None and found.image.dtype == np.uint32:
        found.sums += tuple(check_image(source, "DQ", found.image))
    return found


def _kind(hdu: Any) -> str:
    if isinstance(hdu, fits.CompImageHDU):
        return "compressed image"
    return "image" if hdu.is_image else "table" if isinstance(hdu, fits.BinTableHDU) else "other"


def _take(found: MaskFile, hdu: Any) -> None:
    """Keep the first DQ image and the first DQ_DEF table."""
    name = hdu.name.upper()
    if name == "DQ" and found.dq_header is None:
        found.dq_header = hdu.header.copy()
        data = hdu.data if hdu.is_image else None
        found.image = None if data is None else as_bits(np.asarray(data))
    if name == "DQ_DEF" and found.table_header is None and isinstance(hdu, fits.BinTableHDU):
        found.table_header = hdu.header.copy()
        found.columns = [c.upper() for c in hdu.columns.names]
        if set(COLUMNS) <= set(found.columns):
            found.rows = [_row(n, row) for n, row in enumerate(hdu.data, 1)]


def _row(number: int, row: Any) -> Row:
    bit, value = (int(row[k]) for k in ("BIT", "VALUE"))
    name, description = (str(row[k]).rstrip() for k in ("NAME", "DESCRIPTION"))
    return Row(number, bit, value, name, description)
