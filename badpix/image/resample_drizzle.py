"""There and back: drizzle onto the grid, blot from it.

Arrays in, arrays out, by the ``drizzle`` package; grid, pixel maps and weights have modules of their own in
:mod:`badpix.image`.

1. Drizzle of all images of one group, band by band (:func:`add_image`): weighted mean and weight a grid pixel.
2. Blot: the grid image interpolated at the pixels of an exposure (:func:`blot`).
3. The derivative of an image, by which tests allow for errors of the position (:func:`measure_derivative`).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import UsageError
from badpix.image.grid import Bounds, Window
from badpix.image.pixel_map import PixelMap

DRIZZLE_ROWS, DRIZZLE_HALO = 320, 2  # rows of a band (each goes over the whole mosaic once), and more on each side
_ROWS = 32  # rows a block: the temporaries stay in the processor's cache


# --- drizzle ----------------------------------------------------------------------------------------------


def start_drizzle(window: Window, *, kernel: str, fillval: str) -> Any:
    """An empty drizzle of a group onto its window (an object of the ``drizzle`` package)."""
    from drizzle.resample import Drizzle

    kept = "INDEF" if fillval == "NaN" else fillval  # starts with NaN, which isn't filled in again with every band
    return Drizzle(kernel=kernel, fillval=kept, out_shape=window.shape, disable_ctx=True)


def inner_rows(bounds: Bounds | None, ny: int) -> tuple[int, int]:
    """First and last row that drizzle takes from an image with this bounding box."""
    ya, yb = bounds[1] if bounds is not None else (-0.5, ny - 1.5)
    first = max(0, int(ya + 0.5))
    return first, max(first, min(ny - 1, int(yb + 0.5)))


def split_rows(bounds: Bounds | None, pixel_map: PixelMap) -> list[tuple[slice, slice]]:
    """Bands of rows to drizzle one after another: what to read, and which of it to add.

    Drizzle takes the corners of a pixel from its neighbors' positions, so a band holds two more rows at its
    edges; the mosaic is then the same in every bit as of the whole image at once. It refuses bands without enough
    positions, so these are of equal height, and an image whose map is no fit (which may have holes) stays whole.
    """
    ny = pixel_map.shape[0]
    first, last = inner_rows(bounds, ny)
    number = 1 if pixel_map.fit is None else -(-(last + 1 - first) // DRIZZLE_ROWS)
    edges = [first + (last + 1 - first) * k // number for k in range(number + 1)]
    bands = []
    for top, bottom in itertools.pairwise(edges):
        start = max(0, top - DRIZZLE_HALO)
        bands.append((slice(start, min(ny, bottom + DRIZZLE_HALO)), slice(top - start, bottom - start)))
    return bands


def add_image(
    drizzle: Any,
    sci: NDArray[Any],
    weight: NDArray[Any],
    positions: NDArray[Any],
    bounds: Bounds | None,
    *,
    pixfrac: float,
    rows: slice | None = None,
) -> None:
    """Add one image, or a band of it, to a drizzle.

    Parameters
    ----------
    drizzle
        From :func:`start_drizzle`.
    sci, weight : float32 (ny, nx)
    positions : (ny, nx, 2) array
        From :func:`evaluate_map` at the window's origin.
    bounds : ((xmin, xmax), (ymin, ymax)) or None
        Bounding box of the WCS, pixel edges.
    pixfrac : float
    rows : slice, optional
        The rows of these arrays that are added; without it, those inside of ``bounds``.
    """
    ny, nx = sci.shape
    xa, xb = bounds[0] if bounds is not None else (-0.5, nx - 1.5)
    xmin = max(0, int(xa + 0.5))
    first, last = (rows.start, rows.stop - 1) if rows is not None else inner_rows(bounds, ny)
    drizzle.add_image(
        sci,
        exptime=1.0,
        pixmap=positions,
        weight_map=weight,
        pixfrac=pixfrac,
        in_units="cps",
        xmin=xmin,
        ymin=first,
        xmax=max(xmin, min(nx - 1, int(xb + 0.5))),
        ymax=last,
    )


def parse_fillval(text: str) -> str:
    """``fillval`` as drizzle wants it.

    Raises
    ------
    UsageError
        If it is neither a number nor NAN nor INDEF.
    """
    word = str(text).strip().upper()
    if word in ("", "NAN", "INDEF", "NONE"):
        return "NaN"
    try:
        return str(float(word))
    except ValueError:
        raise UsageError(f"image.fillval: found {text!r}, expected a number, NAN or INDEF") from None


# --- blot -------------------------------------------------------------------------------------------------


def blot(
    image: NDArray[Any], window: Window, positions: NDArray[Any], *, interp: str, filled: NDArray[Any] | None = None
) -> NDArray[Any]:
    """The grid image at the pixels of an exposure, float32 (ny, nx); NaN outside and next to NaN.

    Parameters
    ----------
    image : float32 array
        Of the window's shape; NaN = no data.
    window : Window
    positions : (ny, nx, 2) array
        From :func:`evaluate_map` with origin (0, 0): rounded to float32 on the whole grid first, as in the
        documented blot, so that a window changes nothing. Not modified.
    interp : {"linear", "poly3", "poly5"}
        Only ``linear`` carries NaN by itself; the others are set to NaN where it is.
    filled : float32 array, optional
        From :func:`fill_for_cubic`, for the others than ``linear``; made here if it isn't given.
    """
    from drizzle.resample import blot_image

    where = positions.astype(np.float32).astype(float)
    where[..., 0] -= window.x0
    where[..., 1] -= window.y0
    np.copyto(where, -1, where=np.isnan(where))
    image = np.ascontiguousarray(image, dtype=np.float32)
    out = np.empty(positions.shape[:2], dtype=np.float32)
    blot_image(image, where, out_img=out, fillval=np.nan, interp="linear")
    if interp == "linear":
        return out
    missing = np.isnan(out)
    filled = fill_for_cubic(image) if filled is None else filled
    blot_image(filled, where, out_img=out, fillval=np.nan, interp=interp)
    out[missing] = np.nan
    return out


def fill_for_cubic(image: NDArray[Any]) -> NDArray[Any]:
    """The image with 0 instead of NaN, and its last row twice more.

    Above the last row's centers the cubic of drizzle (2.2, 3.0) takes a row that it never filled: what it gives there
    depends on what the memory held before.
    """
    filled = np.empty((len(image) + 2, image.shape[1]), np.float32)
    filled[:-2] = image
    np.copyto(filled[:-2], 0, where=np.isnan(image))
    filled[-2:] = filled[-3]
    return filled


def measure_derivative(image: NDArray[Any]) -> NDArray[Any]:
    """Largest absolute difference to the 4 neighbors, NaN ignored: 0 where none is finite, NaN on NaN."""
    out = np.empty_like(image)
    ny = len(image)
    for top in range(0, ny, _ROWS):  # blocks with one row of the neighbors stay in cache
        first, last = max(0, top - 1), min(ny, top + _ROWS + 1)
        part = image[first:last]
        steepest = np.zeros_like(part)
        down = np.abs(part[1:] - part[:-1])
        across = np.abs(part[:, 1:] - part[:, :-1])
        for target, step in (
            (steepest[1:], down),
            (steepest[:-1], down),
            (steepest[:, 1:], across),
            (steepest[:, :-1], across),
        ):
            np.fmax(target, step, out=target)
        steepest[np.isnan(part)] = np.nan
        out[top : top + _ROWS] = steepest[top - first : top - first + _ROWS]
    return out
