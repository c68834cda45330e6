"""Reading exposures: headers and layout once, pixels in bands of rows.

1. A file is opened once: primary header, and for each image extension its place, type and shape
   (:mod:`badpix.headers`; astropy where a file is not plain). The layout must fit the size of the file, so a
   truncated copy is found before any work starts.
2. Bands of rows are read with ``preadv`` straight into the array that the caller works on, and put into native
   byte order in place: no memory maps (a file truncated during the run would kill the process) and no copies. Each
   read compares size and time of the file with those at opening: a file that changed is an error, not bad data.
3. Compressed files (gzip, fpack) can't be read by rows: their pixels are unpacked plane by plane into a private
   temporary folder first, after a look at the free space.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from badpix import detectors, dq, headers
from badpix.errors import BadpixError, DataError, UsageError
from badpix.unpack import first_line, flip_sign, gunzip, is_gzip, need_workdir, unpack_tiles


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


@dataclass(frozen=True)
class Exposure:
    """One file: its path, its primary header, the layout of its image extensions."""

    path: Path
    header: dict[str, Any]
    arrays: dict[str, Layout]

    def __getitem__(self, name: str) -> Layout:
        if name not in self.arrays:
            found = ", ".join(self.arrays) or "none"
            raise DataError(f"{self.path}: extension {name} is missing; found {found}")
        return self.arrays[name]

    @property
    def kind(self) -> str:
        """``fitopt``, ``jump``, ``uncal``, ``rate``, ``rateints`` or ``unknown``, from the extensions."""
        if "PEDESTAL" in self.arrays:
            return "fitopt"
        sci = self.arrays.get("SCI")
        if sci is None:
            return "unknown"
        if sci.dtype.startswith("u") or sci.dtype.startswith("i"):
            return "uncal"
        by_rank = {2: "rate", 3: "rateints", 4: "jump"}
        return by_rank.get(len(sci.shape), "unknown")

    @property
    def detector(self) -> detectors.Detector:
        """The detector that DETECTOR names."""
        try:
            return detectors.get(self.keyword("DETECTOR"))
        except DataError as error:
            raise DataError(f"{self.path}: {str(error).removeprefix(f'{self.path}: ')}") from None

    @property
    def window(self) -> detectors.Window:
        """Place on the detector, from SUBSTRT and SUBSIZE; the size must be that of the image."""
        start = [self.number(k) for k in ("SUBSTRT1", "SUBSTRT2")]
        size = [self.number(k) for k in ("SUBSIZE1", "SUBSIZE2")]
        any_image = self.arrays.get("SCI") or next(iter(self.arrays.values()))
        ny, nx = any_image.shape[-2:]
        irs2 = ny == detectors.IRS2_ROWS and size == [nx, 2048]
        if size != [nx, ny] and not irs2:
            raise DataError(
                f"{self.path}: SUBSIZE1, SUBSIZE2 = {size[0]}, {size[1]}, but the image has {nx} x {ny} pixels"
            )
        return detectors.Window(start[0], start[1], nx, ny)

    def keyword(self, name: str) -> Any:
        """Value of a primary keyword.

        Raises
        ------
        DataError
            If it is missing or blank.
        """
        value = self.header.get(name)
        if value is None or value == "":
            raise DataError(f"{self.path}: keyword {name} is missing from the primary header")
        return value

    def number(self, name: str) -> int:
        """Value of a primary keyword that must be a whole number."""
        value = self.keyword(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise DataError(f"{self.path}: keyword {name} = {value!r}, expected a whole number")
        return int(value)


# --- 1. opening ------------------------------------------------------------------------------------------


@contextmanager
def unpacking() -> Iterator[Path]:
    """A private temporary folder for unpacked files, gone when the block ends however it ends."""
    folder = Path(tempfile.mkdtemp(prefix="badpix-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            with fits.open(source, mode="readonly", memmap=False, lazy_load_hdus=True) as hdus:
                yield hdus
    except BadpixError:
        raise
    except Exception as error:  # a damaged file makes astropy raise nearly anything
        raise DataError(f"{path}: not readable as FITS: {first_line(error)}") from None


def open_exposure(path: str | Path, workdir: Path | None = None, names: Sequence[str] | None = None) -> Exposure:
    """Header and layout of one FITS file.

    Parameters
    ----------
    path : path
        File, also gzipped or fpack-compressed.
    workdir : path, optional
        Where compressed files are unpacked (:func:`unpacking`).
    names : sequence of str, optional
        Extensions that are needed; only these are unpacked. All must be there.

    Raises
    ------
    DataError
        If the file is missing, no FITS, truncated, or lacks an extension.
    """
    path = Path(path)
    source = path
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if is_gzip(path):
        source = gunzip(path, need_workdir(path, workdir))
    units = headers.scan(source)
    if units is not None:
        header, arrays = units[0].header, _plain_layouts(path, source, units[1:])
    else:
        with open_fits(source, path) as hdus:
            header = plain_header(hdus[0].header)
            arrays = _layouts(path, source, hdus, workdir, names)
    exposure = Exposure(path, header, arrays)
    for name in names or ():
        exposure[name]  # raises where it is missing
    return exposure


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


# --- 2. bands --------------------------------------------------------------------------------------------


def read_band(
    layout: Layout,
    start: int,
    stop: int,
    *,
    planes: Sequence[int] | None = None,
    out: NDArray[Any] | None = None,
    native: bool = True,
    step: int = 1,
) -> NDArray[Any]:
    """Rows ``start`` to ``stop`` of all planes of an extension.

    Parameters
    ----------
    layout : Layout
        From :func:`open_exposure`.
    start, stop : int
        Rows, the last one exclusive.
    planes : sequence of int, optional
        Planes in file order (integration * ngroups + group); all, if not given.
    out : ndarray, optional
        Contiguous array of (number of planes, stop - start, nx) in the layout's type, to be reused.
    native : bool
        False leaves the bytes as they are in the file, for a caller whose next step is a copy; floats only.
    step : int
        Read every ``step``-th row only.

    Returns
    -------
    ndarray
        (number of planes, number of rows, nx), native byte order; float32 and unsigned integers as stored.

    Raises
    ------
    DataError
        If the file vanished, changed since it was opened, or can't be read.
    """
    ny, nx = layout.shape[-2:]
    wanted = range(layout.planes) if planes is None else planes
    dtype = np.dtype(layout.dtype)
    if out is None:
        out = np.empty((len(wanted), len(range(start, stop, step)), nx), dtype)
    plane_bytes, row_bytes = ny * nx * dtype.itemsize, nx * dtype.itemsize
    rows = out.shape[1]
    runs = [(0, rows)] if step == 1 else [(k, k + 1) for k in range(rows)]
    room = memoryview(out).cast("B") if out.size else memoryview(b"")  # type: ignore[arg-type]
    try:
        handle = os.open(layout.path, os.O_RDONLY)
        try:
            found = os.fstat(handle)
            if (found.st_size, found.st_mtime_ns) != layout.stamp:
                raise DataError(f"{layout.path}: changed during the run")
            for k, plane in enumerate(wanted):
                first = layout.offset + plane * plane_bytes + start * row_bytes
                for low, high in runs:
                    here = room[(k * rows + low) * row_bytes : (k * rows + high) * row_bytes]
                    _read_into(handle, here, first + low * step * row_bytes, layout.path)
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError(f"{layout.path}: can't be read: {error.strerror}") from None
    stored = out.view(dtype.newbyteorder(">"))
    if not native:
        return stored
    if dtype.itemsize > 1:
        np.copyto(out, stored)  # in place, several times as fast as byteswap(inplace=True)
    flip_sign(out)
    return out


def _read_into(handle: int, target: memoryview, offset: int, path: Path) -> None:
    while len(target):
        got = os.preadv(handle, [target], offset)
        if got == 0:
            raise DataError(f"{path}: truncated during the run at byte {offset}")
        target, offset = target[got:], offset + got


def read_image(layout: Layout, plane: int = 0) -> NDArray[Any]:
    """One whole plane of an extension, in file order: (ny, nx)."""
    return read_band(layout, 0, layout.shape[-2], planes=[plane])[0]


def bands(ny: int, height: int) -> list[tuple[int, int]]:
    """Rows 0 to ``ny`` cut into bands of ``height`` rows: [(start, stop), ...]."""
    return [(y, min(y + height, ny)) for y in range(0, ny, height)]


def band_height(row_bytes: float, limit: float, ny: int) -> int:
    """Rows of a band that stays within ``limit`` bytes, at least one, as a power of two where that many fit.

    Raises
    ------
    UsageError
        If not even one row fits.
    """
    rows = int(limit // row_bytes)
    if rows < 1:
        raise UsageError(
            f"--max-memory: one row of all inputs takes {row_bytes / 1e6:.1f} MB, {limit / 1e6:.1f} MB are left"
        )
    return min(1 << (rows.bit_length() - 1), ny)


# --- reference pixels ------------------------------------------------------------------------------------


def read_reference_pixels(exposure: Exposure) -> NDArray[np.bool_]:
    """Reference pixels of an exposure: (ny, nx) map.

    They come from the DQ (or PIXELDQ) of the exposure and from the detector table: the DQ alone knows the
    interleaved ones of IRS2, the table alone is there when nobody set the flag.

    Raises
    ------
    DataError
        If the DQ does not fit the image, or calls more than a tenth of a frame of normal readout reference pixels:
        a broken DQ.
    """
    window = exposure.window
    border = detectors.measure_border(exposure.detector, window)
    layout = exposure.arrays.get("DQ") or exposure.arrays.get("PIXELDQ")
    if layout is None:
        return border
    if layout.shape[-2:] != border.shape or np.dtype(layout.dtype).kind not in "iu":
        raise DataError(
            f"{exposure.path}: DQ has {layout.shape[-1]} x {layout.shape[-2]} pixels of type {layout.dtype}, "
            f"expected integers and those of the image, {window.xsize} x {window.ysize}"
        )
    plane = read_image(layout)
    flagged = (plane & dq.VALUE["REFERENCE_PIXEL"]) != 0
    if window.ysize != detectors.IRS2_ROWS and flagged.mean() > max(0.1, 2 * border.mean()):
        raise DataError(f"{exposure.path}: DQ calls {flagged.mean():.0%} of the image REFERENCE_PIXEL")
    return border | flagged
