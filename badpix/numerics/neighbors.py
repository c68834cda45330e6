"""Neighbors of chosen pixels, looked up by their places in memory: arrays in, arrays out.

Most of a frame is ruled out by simple limits; what is left is looked at closely, with the pixels around it. Pixels
are flat indices, or rows and columns.

1. A frame as it is: :func:`locate` the pixels, then :func:`gather` what surrounds them; NaN beyond the frame.
2. A frame with a border of NaN as wide as any window: a neighbor is a pixel plus one of the :func:`offsets` of its
   window, in :func:`chunks` that bound the memory of a gathered table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 20_000  # pixels whose neighbors are gathered at a time


def locate(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and columns of the true pixels of a map, as ``np.nonzero`` gives them, in a third of its time."""
    ys, xs = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return ys, xs


def gather(image: NDArray[Any], ys: NDArray[Any], xs: NDArray[Any], reach: int) -> NDArray[Any]:
    """The (2 reach + 1)^2 neighbors of some pixels, [neighbor, pixel]; NaN beyond the frame.

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
    out = np.empty(((2 * reach + 1) ** 2, len(ys)), image.dtype)
    flat = np.ravel(image)
    at = np.multiply(ys, nx, dtype=np.intp)
    at += xs
    edge = np.flatnonzero((ys < reach) | (ys >= ny - reach) | (xs < reach) | (xs >= nx - reach))
    there = np.empty_like(at)
    for k, (dy, dx) in enumerate(np.ndindex(2 * reach + 1, 2 * reach + 1)):
        np.add(at, (dy - reach) * nx + dx - reach, out=there)
        np.take(flat, there, out=out[k], mode="clip")
        if len(edge):
            y, x = ys[edge] + dy - reach, xs[edge] + dx - reach
            out[k, edge[(y < 0) | (y >= ny) | (x < 0) | (x >= nx)]] = np.nan
    return out


def offsets(rows: int, columns: int, stride: int, *, center: bool = False) -> NDArray[np.intp]:
    """Distances in memory from a pixel to the others of a window around it.

    Parameters
    ----------
    rows, columns : int
        Odd size of the window.
    stride : int
        Distance in memory between rows.
    center : bool
        Whether the pixel itself is one of them.
    """
    y, x = np.mgrid[-(rows // 2) : rows // 2 + 1, -(columns // 2) : columns // 2 + 1]
    flat = (y * stride + x).reshape(-1)
    found: NDArray[np.intp] = flat if center else flat[flat != 0]
    return found


def chunks(size: int) -> list[slice]:
    """Slices that cut ``size`` pixels into parts whose neighbors fit into the memory together."""
    return [slice(i, i + _CHUNK) for i in range(0, size, _CHUNK)]


def distinct(*places: NDArray[np.intp]) -> NDArray[np.intp]:
    """The different ones among some places, in order: ``np.unique``, without the import of ``numpy.ma``."""
    ordered = np.sort(np.concatenate([np.ravel(p) for p in places]))
    first = np.ones(ordered.size, bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    found: NDArray[np.intp] = ordered[first]
    return found


SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))
AROUND = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))
Bool = NDArray[np.bool_]
Float = NDArray[np.float32]


def sides_at(image: NDArray[Any], y: NDArray[np.intp], x: NDArray[np.intp], outside: Any) -> NDArray[Any]:
    """Values of the four side neighbors of some pixels: (4, n), ``outside`` beyond the frame."""
    ny, nx = image.shape
    out = np.full((4, len(y)), outside, image.dtype)
    for k, (dy, dx) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
        yy, xx = y + dy, x + dx
        inside = (yy >= 0) & (yy < ny) & (xx >= 0) & (xx < nx)
        out[k, inside] = image[yy[inside], xx[inside]]
    return out


def grow(found: Bool) -> Bool:
    """A boolean map with the eight neighbors of each True pixel set as well, cut at the frame."""
    tall = found.copy()
    tall[1:] |= found[:-1]
    tall[:-1] |= found[1:]
    wide = tall.copy()
    wide[:, 1:] |= tall[:, :-1]
    wide[:, :-1] |= tall[:, 1:]
    return wide


def clear_of(found: Bool) -> Bool:
    """Pixels that are not True and touch none that is."""
    return ~grow(found)


def count_sides(found: Bool) -> NDArray[np.uint8]:
    """How many of the four side neighbors of each pixel are True: (ny, nx)."""
    count = np.zeros(found.shape, np.uint8)
    count[1:] += found[:-1]
    count[:-1] += found[1:]
    count[:, 1:] += found[:, :-1]
    count[:, :-1] += found[:, 1:]
    return count


@dataclass(frozen=True)
class Places:
    """Where candidates lie: ascending flat indices into a frame of ``shape``."""

    index: NDArray[np.intp]
    shape: tuple[int, int]

    def neighbors(
        self, values: NDArray[np.floating[Any]], offsets: tuple[tuple[int, int], ...], missing: float
    ) -> Float:
        """Values of the candidates at ``offsets`` (dy, dx) from each: (len(offsets), n); ``missing`` elsewhere."""
        ny, nx = self.shape
        y, x = np.divmod(self.index, nx)
        out = np.full((len(offsets), len(self.index)), missing, np.float32)
        for k, (dy, dx) in enumerate(offsets):
            inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
            wanted = self.index + dy * nx + dx
            at = np.minimum(np.searchsorted(self.index, wanted), len(self.index) - 1)
            known = inside & (self.index[at] == wanted) if len(self.index) else inside
            out[k, known] = values[at[known]]
        return out

    def to_map(self, found: Bool) -> Bool:
        """A boolean map of the frame, True at the candidates that were found."""
        out = np.zeros(self.shape, bool)
        out.flat[self.index[found]] = True
        return out
