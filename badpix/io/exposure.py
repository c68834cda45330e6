"""Exposures of the mask commands: what a file holds and what it is an exposure of, height of bands, reference pixels.

1. A file is opened once: primary header, and for each image extension its place, type and shape
   (:mod:`badpix.io.fits`); bands of rows are read later, by the tasks.
2. Bands are as high as memory allows.
3. Reference pixels are those of the detector and those that the exposure's DQ names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import BadpixError, DataError, UsageError
from badpix.io.fits import Layout, read_image, read_layouts
from badpix.io.headers import refuse_stripes
from badpix.io.scratch import scratch_folder
from badpix.outside import quote

WORDS = {  # what a file is, where something is missing in it
    "jump": "ramps (a jump file)",
    "uncal": "raw ramps (an uncal file)",
    "fitopt": "optional results of a ramp fit (a fitopt file)",
    "rate": "slopes (a rate file)",
    "rateints": "slopes by integration (a rateints file)",
}
LARGEST = 1 << 31  # no keyword that is a pixel or a number of things is larger


@dataclass(frozen=True)
class Exposure:
    """One file: its path, its primary header, the layout of its image extensions."""

    path: Path
    header: dict[str, Any]
    arrays: dict[str, Layout]

    def __getitem__(self, name: str) -> Layout:
        if name not in self.arrays:
            found = ", ".join(self.arrays) or "none"
            what = f"{WORDS[self.kind]}; " if self.kind in WORDS else ""
            raise DataError(f"{self.path}: {what}extension {name} is missing; found {found}")
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
        any_image = self.arrays.get("SCI") or next(iter(self.arrays.values()), None)
        if any_image is None:
            raise DataError(f"{self.path}: holds no image; expected an exposure")
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
        whole = (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
        if not whole:
            raise DataError(f"{self.path}: keyword {name} = {quote(value)}, expected a whole number")
        if abs(value) > LARGEST:
            raise DataError(
                f"{self.path}: keyword {name} = {quote(value)} is out of range, expected {LARGEST} at most"
            )
        return int(value)

    def seconds(self, name: str) -> float:
        """Value of a primary keyword that must be a time above 0."""
        value = self.keyword(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise DataError(f"{self.path}: keyword {name} = {quote(value)}, expected seconds above 0")
        return float(value)


# --- 1. opening ------------------------------------------------------------------------------------------


@contextmanager
def unpacking() -> Iterator[Path]:
    """A private temporary folder for unpacked files, gone when the block ends however it ends."""
    with scratch_folder() as folder:
        yield folder


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
    exposure = Exposure(path, *read_layouts(path, workdir, names))
    refuse_stripes(path, exposure.header)
    for name in names or ():
        exposure[name]  # raises where it is missing
    return exposure


def count_pixels(paths: Iterable[str | Path]) -> int:
    """Pixels of a frame of the first file that says it (SUBSIZE1, SUBSIZE2); 0 where none does.

    What is wrong with the others is found when they are opened for work.
    """
    for path in paths:
        try:
            header = open_exposure(path, names=()).header
            return int(header["SUBSIZE1"]) * int(header["SUBSIZE2"])
        except (BadpixError, KeyError, TypeError, ValueError):
            continue
    return 0


# --- 2. heights of bands --------------------------------------------------------------------------------


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
    found: NDArray[np.bool_] = border | flagged
    return found
