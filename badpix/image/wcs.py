"""Where the pixels of an image look: its GWCS, or the FITS WCS of files that have none.

1. The GWCS of the ASDF extension, with its bounding box; positions outside are NaN. The usual transforms are
   evaluated from the tree itself (:mod:`badpix.image.chain`), anything else by the GWCS library.
2. Without an ASDF extension: the FITS WCS of the SCI header (TAN, SIP), with the image as bounding box.
3. Orientation and reference position from the pointing keywords (RA_REF, ROLL_REF, VPARITY, V3I_YANG); where
   these are missing, from the WCS at the middle of the image.
4. S_REGION as the header says it (its nine decimals decide the documented output grid); where it is missing,
   the corners of the bounding box.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from yaml import YAMLError

from badpix.errors import DataError
from badpix.image.chain import Chain, Operation, Unknown, evaluate, read_chain
from badpix.image.grid import Bounds, Grid, Sky, build_grid, measure_scale, parse_region
from badpix.image.pixel_map import inner_span
from badpix.io import cal as io_cal
from badpix.io.cal import CalFile


@dataclass(frozen=True)
class ChainSky:
    """Pixel to sky by a chain of known transforms; travels to other processes."""

    operations: tuple[Operation, ...]
    bounds: Bounds | None  # outside: NaN

    def __call__(self, x: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Degrees."""
        lon, lat = evaluate(self.operations, x, y)
        if self.bounds is None:
            return lon, lat
        (xa, xb), (ya, yb) = self.bounds
        inside = (xa <= x) & (x <= xb) & (ya <= y) & (y <= yb)
        return np.where(inside, lon, np.nan), np.where(inside, lat, np.nan)


@dataclass(frozen=True)
class GwcsSky:
    """Pixel to sky by a GWCS, in or without its bounding box; travels to other processes."""

    wcs: Any
    boxed: bool

    def __call__(self, x: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Degrees; NaN outside the bounding box if it counts."""
        lon, lat = self.wcs(x, y, with_bounding_box=self.boxed)
        return np.asarray(lon), np.asarray(lat)


@dataclass(frozen=True)
class FitsSky:
    """Pixel to sky by a FITS WCS."""

    wcs: Any

    def __call__(self, x: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Degrees."""
        lon, lat = self.wcs.all_pix2world(x, y, 0)
        return np.asarray(lon), np.asarray(lat)


@dataclass(frozen=True)
class Geometry:
    """The WCS of one image; ``sky`` maps pixels to degrees, NaN outside of ``bounds``."""

    sky: Sky
    open_sky: Sky  # without bounding box
    invert: Callable[[float, float], tuple[float, float]]
    bounds: Bounds | None
    kind: str  # "GWCS" or "FITS"
    follows: bool = False  # ends in the frame of a moving target
    shift: tuple[float, float] = (0.0, 0.0)  # RA, Dec, degrees: what was added to follow one


def read_geometry(cal: CalFile) -> Geometry:
    """The WCS of an image.

    Raises
    ------
    DataError
        If the file has neither a GWCS nor a celestial FITS WCS.
    """
    content = io_cal.read_asdf(cal)
    if content is None:
        return _from_header(cal)
    try:
        geometry = _from_chain(read_chain(content))
    except (Unknown, ValueError, YAMLError):
        geometry = _from_gwcs(cal)
    return replace(geometry, follows=b"name: moving_target" in content)


def _from_chain(chain: Chain) -> Geometry:
    def invert(ra: float, dec: float) -> tuple[float, float]:
        x, y = evaluate(chain.backward, ra, dec)
        return float(x), float(y)

    return Geometry(
        ChainSky(chain.forward, chain.bounds), ChainSky(chain.forward, None), invert, chain.bounds, "GWCS"
    )


def _from_gwcs(cal: CalFile) -> Geometry:
    wcs = io_cal.read_wcs(cal)
    axes = tuple(getattr(wcs.output_frame, "axes_type", ()))
    if axes != ("SPATIAL", "SPATIAL"):
        raise DataError(f"{cal.path}: meta.wcs: found output axes {axes}, expected two celestial axes (an image)")
    box = wcs.bounding_box
    bounds = None
    if box is not None:
        (xa, xb), (ya, yb) = box.bounding_box(order="F") if hasattr(box, "bounding_box") else box
        bounds = ((float(xa), float(xb)), (float(ya), float(yb)))

    def invert(ra: float, dec: float) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "invalid value", RuntimeWarning)
            x, y = wcs.invert(ra, dec, with_bounding_box=False)
        return float(x), float(y)

    return Geometry(GwcsSky(wcs, True), GwcsSky(wcs, False), invert, bounds, "GWCS")


def _from_header(cal: CalFile) -> Geometry:
    from astropy.wcs import WCS, FITSFixedWarning

    header = io_cal.image_hdu(cal, "SCI").header
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs = WCS(header, naxis=2)
    except Exception as error:
        raise DataError(f"{cal.path}: SCI: the FITS WCS is not readable: {error}") from error
    if not wcs.has_celestial:
        raise DataError(f"{cal.path}: no ASDF extension with a GWCS, and no celestial WCS in the SCI header")

    def invert(ra: float, dec: float) -> tuple[float, float]:
        x, y = wcs.all_world2pix([ra], [dec], 0)
        return float(x[0]), float(y[0])

    return Geometry(FitsSky(wcs), FitsSky(wcs), invert, None, "FITS")


def measure_region(cal: CalFile, geometry: Geometry) -> tuple[NDArray[Any], bool]:
    """Vertices of the image on the sky, and whether S_REGION told them."""
    header = io_cal.image_hdu(cal, "SCI").header
    text = header.get("S_REGION")
    if text:
        try:
            return parse_region(str(text)) + np.array(geometry.shift), True
        except DataError as error:
            raise DataError(f"{cal.path}: SCI: {error}") from None
    x0, x1, y0, y1 = inner_span(cal.shape, geometry.bounds)
    xs, ys = np.array([x0, x0, x1, x1], float), np.array([y0, y1, y1, y0], float)
    return np.stack([np.asarray(v) for v in geometry.sky(xs, ys)], axis=1), False


def make_output_grid(cal: CalFile, geometry: Geometry, regions: list[NDArray[Any]]) -> Grid:
    """The output grid that all groups share, oriented and scaled as the first member (``cal``).

    Raises
    ------
    DataError
        If the first member's WCS is undefined at its own reference position.
    """
    header = io_cal.image_hdu(cal, "SCI").header
    x, y = _reference_pixel(cal, geometry)
    with np.errstate(invalid="ignore"):
        scale = measure_scale(geometry.open_sky, x, y)
    if not (math.isfinite(scale) and scale > 0):
        raise DataError(f"{cal.path}: the WCS gives no pixel scale at its reference position (found {scale})")
    keys = ("ROLL_REF", "V3I_YANG", "VPARITY")
    if all(isinstance(header.get(k), int | float) for k in keys):
        roll, yang, parity = (header[k] for k in keys)
    else:
        roll, parity = _orientation(geometry, x, y)
        yang = 0.0
    return build_grid(regions, scale, float(roll), float(yang), int(parity))


def read_roll(cal: CalFile, geometry: Geometry) -> float:
    """Roll of the telescope, degrees: ROLL_REF; without it, the direction of the image's y axis."""
    roll = io_cal.image_hdu(cal, "SCI").header.get("ROLL_REF")
    if isinstance(roll, int | float) and math.isfinite(roll):
        return float(roll)
    return _orientation(geometry, *_reference_pixel(cal, geometry))[0]


def _reference_pixel(cal: CalFile, geometry: Geometry) -> tuple[float, float]:
    header = io_cal.image_hdu(cal, "SCI").header
    if isinstance(header.get("RA_REF"), int | float) and isinstance(header.get("DEC_REF"), int | float):
        x, y = geometry.invert(header["RA_REF"], header["DEC_REF"])
        if math.isfinite(x) and math.isfinite(y):
            return x, y
    ny, nx = cal.shape
    return (nx - 1) / 2, (ny - 1) / 2


def _orientation(geometry: Geometry, x: float, y: float) -> tuple[float, int]:
    """Direction of the y axis (degrees, north over east) and the handedness at a pixel."""
    ra, dec = (np.asarray(v) for v in geometry.open_sky(np.array([x, x + 1, x]), np.array([y, y, y + 1])))
    east = (np.mod(ra - ra[0] + 180, 360) - 180) * np.cos(np.radians(dec[0]))
    north = dec - dec[0]
    roll = math.degrees(math.atan2(east[2], north[2]))
    return roll, 1 if east[1] * north[2] - east[2] * north[1] > 0 else -1
