"""Reading exposures: headers and layout once, pixels in bands of rows.

1. A file is opened once: primary header, and for each image extension its place, type and shape
   (:mod:`badpix.io.layout`).
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import DataError, UsageError
from badpix.io.layout import Layout, read_layouts
from badpix.io.unpack import flip_sign, gunzip, is_gzip, need_workdir


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
    exposure = Exposure(path, *read_layouts(path, source, workdir, names))
    for name in names or ():
        exposure[name]  # raises where it is missing
    return exposure


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
