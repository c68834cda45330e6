"""Neighbours of chosen pixels, looked up by their places in memory: arrays in, arrays out.

Most of a frame is ruled out by simple limits; what is left is looked at closely, with the pixels around it. Pixels
are flat indices, or rows and columns.

1. A frame as it is: :func:`locate` the pixels, then :func:`gather` what surrounds them; NaN beyond the frame.
2. A frame with a border of NaN as wide as any window: a neighbour is a pixel plus one of the :func:`offsets` of its
   window, in :func:`chunks` that bound the memory of a gathered table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHUNK = 20_000  # pixels whose neighbours are gathered at a time


def locate(mask: NDArray) -> tuple[NDArray, NDArray]:
    """Rows and columns of the true pixels of a map, as ``np.nonzero`` gives them, in a third of its time."""
    ys, xs = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return ys, xs


def gather(image: NDArray, ys: NDArray, xs: NDArray, reach: int) -> NDArray:
    """The (2 reach + 1)^2 neighbours of some pixels, [neighbour, pixel]; NaN beyond the frame.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
    ys, xs : ndarray of int, shape (n,)
        Rows and columns of the pixels.
    reach : int
        Pixels to each side.

    Returns
    -------
    ndarray, shape ((2 reach + 1)^2, n)
        In the image's type; the pixel itself is the middle one.
    """
    ny, nx = image.shape
    out = np.full(((2 * reach + 1) ** 2, len(ys)), np.nan, image.dtype)
    inside = (ys >= reach) & (ys < ny - reach) & (xs >= reach) & (xs < nx - reach)
    flat = np.ravel(image)
    at = ys.astype(np.intp) * nx + xs
    everywhere = inside.all()
    for k, (dy, dx) in enumerate(np.ndindex(2 * reach + 1, 2 * reach + 1)):
        step = (dy - reach) * nx + dx - reach
        if everywhere:
            np.take(flat, at + step, out=out[k], mode="clip")
        else:
            y, x = ys + dy - reach, xs + dx - reach
            ok = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
            out[k, ok] = flat[(at + step)[ok]]
    return out


def offsets(rows: int, columns: int, stride: int, *, centre: bool = False) -> NDArray[np.intp]:
    """Distances in memory from a pixel to the others of a window around it.

    Parameters
    ----------
    rows, columns : int
        Odd size of the window.
    stride : int
        Distance in memory between rows.
    centre : bool
        Whether the pixel itself is one of them.
    """
    y, x = np.mgrid[-(rows // 2) : rows // 2 + 1, -(columns // 2) : columns // 2 + 1]
    flat = (y * stride + x).reshape(-1)
    return flat if centre else flat[flat != 0]


def chunks(size: int) -> list[slice]:
    """Slices that cut ``size`` pixels into parts whose neighbours fit into the memory together."""
    return [slice(i, i + _CHUNK) for i in range(0, size, _CHUNK)]
