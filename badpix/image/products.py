"""Intermediate products (``_outlier_i2d``, ``_median``, ``_blot``) and cut-outs for pictures.

They are written into the run's private directory, and published with the flagged copies (:func:`publish`). Names and
HDUs are the documented ones. Mosaic and median carry the output grid as FITS WCS (TAN) and as GWCS;
keywords that hold for single exposures only (SIP terms, pointing, background) are left out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.grid import Grid, Window, grid_to_sky
from badpix.image.stack import Shelf, read_median
from badpix.io.asdf_text import make_asdf_hdu
from badpix.io.associations import Association, product_name
from badpix.io.cal import CalFile, image_hdu
from badpix.io.output import atomic_path, check_target
from badpix.numerics.neighbors import locate
from badpix.outside import header_text

if TYPE_CHECKING:
    from astropy.io import fits

SUFFIXES = ("outlier_i2d", "median", "blot")
CUTOUT = 10  # pixels to each side
PER_EXPOSURE = 3

# Keywords of one exposure that mean nothing for a mosaic.
_SINGLE = ("BKGLEVEL", "BKGSUB", "BKGMETH", "FILENAME", "CHECKSUM", "DATASUM", "EXTEND", "NEXTEND")
_KEEP_SCI = ("BUNIT", "PHOTMJSR", "PHOTUJA2", "RADESYS")


@dataclass(frozen=True)
class Target:
    """Where intermediate products are written at first, and the association ID in their names."""

    folder: Path
    asn_id: str | None

    def path(self, cal: CalFile, suffix: str) -> Path:
        """Path of a product named after an exposure."""
        return self.folder / product_name(cal.path, self.asn_id, suffix)


def write_mosaic(
    target: Target, cal: CalFile, sci: NDArray[Any], wht: NDArray[Any], window: Window, grid: Grid
) -> None:
    """A group's mosaic on the whole grid, before the weight mask."""
    from astropy.io import fits

    whole = np.full(grid.shape, np.nan, np.float32)
    whole[window.slices] = sci
    weights = np.zeros(grid.shape, np.float32)
    weights[window.slices] = wht
    hdus = [fits.ImageHDU(whole, grid_header(cal, grid), name="SCI"), fits.ImageHDU(weights, name="WHT")]
    _write(target.path(cal, "outlier_i2d"), cal, hdus, grid)


def write_median(target: Target, shelf: Shelf, grid: Grid, cal: CalFile) -> None:
    """The median of all groups."""
    from astropy.io import fits

    median = read_median(shelf, grid.shape, Window(0, grid.shape[0], 0, grid.shape[1]))
    _write(target.path(cal, "median"), cal, [fits.ImageHDU(median, grid_header(cal, grid), name="SCI")], grid)


def write_blot(target: Target, cal: CalFile, model: NDArray[Any]) -> None:
    """The model at an exposure's pixels, before sharpening; the ERR extension is empty, as documented."""
    from astropy.io import fits

    sci = fits.ImageHDU(model, _reduced(image_hdu(cal, "SCI").full_header, ()), name="SCI")
    _write(target.path(cal, "blot"), cal, [sci, fits.ImageHDU(name="ERR")], None)


def write_direct_median(target: Target, cal: CalFile, median: NDArray[Any]) -> None:
    """The median of exposures that were not resampled."""
    from astropy.io import fits

    sci = fits.ImageHDU(median, _reduced(image_hdu(cal, "SCI").full_header, ()), name="SCI")
    _write(target.path(cal, "median"), cal, [sci], None)


def _write(path: Path, cal: CalFile, hdus: list[fits.ImageHDU], grid: Grid | None) -> None:
    from astropy.io import fits

    primary = fits.PrimaryHDU(header=_reduced(cal.hdus[0].full_header, _SINGLE if grid else ("CHECKSUM", "DATASUM")))
    primary.header["FILENAME"] = header_text(path.name)
    if grid is not None:
        primary.header["S_RESAMP"] = "COMPLETE"
        hdus = [*hdus, make_asdf_hdu({"meta": {"wcs": make_gwcs(grid), "filename": path.name}})]
    fits.HDUList([primary, *hdus]).writeto(path)


def open_target(shelf: Shelf, asn_id: str | None) -> Target:
    """A place for products in the run's private directory."""
    folder = shelf.folder / "products"
    folder.mkdir()
    return Target(folder, asn_id)


def check_targets(folder: Path, cals: Sequence[CalFile], association: Association, overwrite: bool) -> None:
    """Refuse before the work what :func:`publish` would refuse after it.

    Raises
    ------
    UsageError
        If a product exists and ``overwrite`` is false.
    """
    for cal in cals:
        for suffix in SUFFIXES:
            check_target(folder / product_name(cal.path, association.asn_id, suffix), overwrite, association.paths)


def publish(target: Target, folder: Path, stack: ExitStack, overwrite: bool) -> None:
    """Let all products appear in ``folder`` when ``stack`` closes without an error."""
    for path in sorted(target.folder.iterdir()):
        temporary = stack.enter_context(atomic_path(folder / path.name, overwrite))
        os.replace(path, temporary)


def _reduced(header: fits.Header, without: tuple[str, ...]) -> fits.Header:
    out = header.copy(strip=True)
    for keyword in (*without, "XTENSION"):
        out.remove(keyword, ignore_missing=True, remove_all=True)
    return out


def grid_header(cal: CalFile, grid: Grid) -> fits.Header:
    """The grid as FITS keywords."""
    from astropy.io import fits

    ny, nx = grid.shape
    (a, b), (c, d) = grid.pc
    header = fits.Header({k: image_hdu(cal, "SCI").header[k] for k in _KEEP_SCI if k in image_hdu(cal, "SCI").header})
    ra, dec = grid_to_sky(
        grid, np.array([-0.5, nx - 0.5, nx - 0.5, -0.5]), np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    )
    header.update(
        {
            "WCSAXES": 2,
            "CRPIX1": grid.crpix[0] + 1,
            "CRPIX2": grid.crpix[1] + 1,
            "CRVAL1": grid.crval[0],
            "CRVAL2": grid.crval[1],
            "CDELT1": grid.cdelt,
            "CDELT2": grid.cdelt,
            "PC1_1": a,
            "PC1_2": b,
            "PC2_1": c,
            "PC2_2": d,
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "PIXAR_A2": (grid.cdelt * 3600) ** 2,
            "PIXAR_SR": np.radians(grid.cdelt) ** 2,
            "S_REGION": "POLYGON ICRS  " + " ".join(f"{v:.9f}" for v in np.stack([ra, dec], 1).ravel()),
        }
    )
    return header


def make_gwcs(grid: Grid) -> Any:
    """The grid as a GWCS (a tangent plane in ICRS)."""
    import gwcs
    from astropy import coordinates, units
    from astropy.modeling.models import Pix2Sky_TAN
    from gwcs import coordinate_frames as cf

    transform = gwcs.FITSImagingWCSTransform(
        Pix2Sky_TAN(), crpix=grid.crpix, crval=grid.crval, cdelt=(grid.cdelt, grid.cdelt), pc=np.array(grid.pc)
    )
    detector = cf.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
    world = cf.CelestialFrame(name="world", reference_frame=coordinates.ICRS(), unit=(units.deg, units.deg))
    wcs = gwcs.WCS([(detector, transform), (world, None)])
    ny, nx = grid.shape
    wcs.bounding_box = ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
    wcs.array_shape = grid.shape
    return wcs


# --- cut-outs ---------------------------------------------------------------------------------------------


class Cutout(NamedTuple):
    """A piece of an exposure around a strong outlier or a bright star, for a picture."""

    kind: str  # "outlier" or "star"
    x: int
    y: int
    significance: float
    sci: NDArray[Any]
    model: NDArray[Any]
    flagged: NDArray[Any]


def cut_out(
    sci: NDArray[Any],
    model: NDArray[Any],
    residual: NDArray[Any],
    noise: NDArray[Any],
    flagged: NDArray[Any],
    stars: tuple[NDArray[Any], NDArray[Any]],
) -> list[Cutout]:
    """The strongest outliers and the brightest stars (x and y in it, NaN outside) of one exposure."""
    ys, xs = locate(flagged & np.isfinite(residual))
    z = residual[ys, xs] / noise[ys, xs]
    places = [("outlier", int(ys[k]), int(xs[k]), float(z[k])) for k in _apart(ys, xs, -z)]
    x, y = (v[:50] for v in stars)
    seen = np.isfinite(x)
    if len(x):
        ys, xs = np.rint(y[seen]).astype(int), np.rint(x[seen]).astype(int)
        places += [("star", int(ys[k]), int(xs[k]), 0.0) for k in _apart(ys, xs, np.arange(len(ys)))]
    out = []
    for kind, row, column, significance in places:
        pieces = (_piece(image, row, column) for image in (sci, model, flagged))
        out.append(Cutout(kind, column, row, significance, *pieces))
    return out


def _piece(image: NDArray[Any], row: int, column: int) -> NDArray[Any]:
    """The pixels around one; NaN (False) beyond the frame."""
    ny, nx = image.shape
    side = 2 * CUTOUT + 1
    out = np.full((side, side), False if image.dtype == bool else np.nan, image.dtype)
    y0, y1, x0, x1 = (
        max(0, row - CUTOUT),
        min(ny, row + CUTOUT + 1),
        max(0, column - CUTOUT),
        min(nx, column + CUTOUT + 1),
    )
    inside = slice(y0 - row + CUTOUT, y1 - row + CUTOUT), slice(x0 - column + CUTOUT, x1 - column + CUTOUT)
    out[inside] = image[y0:y1, x0:x1]
    return out


def _apart(ys: NDArray[Any], xs: NDArray[Any], rank: NDArray[Any]) -> list[int]:
    """The first few by rank that lie apart from each other."""
    chosen: list[int] = []
    for k in np.argsort(rank, kind="stable")[:2000]:
        if all(abs(ys[k] - ys[j]) > CUTOUT or abs(xs[k] - xs[j]) > CUTOUT for j in chosen):
            chosen.append(int(k))
        if len(chosen) == PER_EXPOSURE:
            break
    return chosen
