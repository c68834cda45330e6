"""There and back without the ``drizzle`` package, in a quarter of its time: arrays that pass once through the cache.

1. Mosaic (:func:`add_band`): a pixel of the grid takes from the four pixels of the image that it shares area with.
   The shared areas are exact to first order in a, b, c, d, by which the step of the image's pixels differs from that
   of the grid's (rotation, scale, skew; :func:`share_areas`). Images whose pixels are turned or scaled by more than
   :data:`MOST_TURNED` are left to the package (:func:`invert_fit` gives None), as are other kernels.
2. The way back (:func:`blot_cubic`): the cubic through 4 x 4 grid pixels, the package's ``poly3``.

Positions are polynomials in planes of their own, x and y (:func:`evaluate_axis`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.grid import Window
from badpix.image.pixel_map import PixelMap, chebyshev_basis, chebyshev_nodes, evaluate_map, map_points

MOST_TURNED = 0.04  # of a pixel's step; areas are then off by the square of it
INVERSE_ERROR = 1e-4  # pixel
_NODES = 12
_DROPPED = 1e-6  # pixel, of the polynomial's coefficients that count for nothing
ROWS = 32  # of a band: its temporaries stay in the processor's cache
_RING = 2  # pixels without weight around an image
_NEWTON = 8

Planes = tuple[NDArray[Any], NDArray[Any]]


class Inverse(NamedTuple):
    """Pixels of an image as polynomials of grid positions in its window."""

    window: Window
    fit: NDArray[Any]  # [2, ny, nx] Chebyshev coefficients of x and y
    error: float  # pixels, at the check points


def invert_fit(pixel_map: PixelMap, window: Window) -> Inverse | None:
    """The inverse of a pixel map; None where it is no polynomial, or too far from a shift for :func:`share_areas`."""
    if pixel_map.fit is None:
        return None
    ends = (window.x0, window.x1 - 1), (window.y0, window.y1 - 1)
    if any(b <= a for a, b in ends):
        return None
    nodes = [chebyshev_nodes(a, b, _NODES, 0.5) for a, b in ends]
    values = _solve(pixel_map, *(v.ravel() for v in np.meshgrid(*nodes)))
    if values is None:
        return None
    unit = -np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    project = np.polynomial.chebyshev.chebvander(unit, _NODES - 1).T * (2 / _NODES)
    project[0] /= 2
    fit = np.einsum("ky,cyx,lx->ckl", project, values.reshape(2, _NODES, _NODES), project)
    fit = trim(fit)
    error = _check(pixel_map, window, fit)
    slopes = measure_slopes(Inverse(window, fit, error), np.linspace(window.y0, window.y1 - 1, 9))
    if error > INVERSE_ERROR or max(float(np.abs(s).max()) for s in slopes) > MOST_TURNED:
        return None
    return Inverse(window, fit, error)


def trim(fit: NDArray[Any]) -> NDArray[Any]:
    """Coefficients without the last rows and columns that count for nothing."""
    ny, nx = (max(2, int(np.flatnonzero(np.abs(fit).max(axis=(0, k)) > _DROPPED)[-1]) + 1) for k in (2, 1))
    return np.ascontiguousarray(fit[:, :ny, :nx])


def _solve(pixel_map: PixelMap, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any] | None:
    """Pixels (x, y) of an image that fall on grid positions, also a little outside of it; None without a solution."""
    x0, x1, y0, y1 = pixel_map.span
    at = np.stack([np.full(len(x), (x0 + x1) / 2), np.full(len(y), (y0 + y1) / 2)])
    for _ in range(_NEWTON):
        middle, right, up = (np.stack(map_points(pixel_map, *(at + step))) for step in np.eye(3, 2, -1)[:, :, None])
        (a, c), (b, d) = right - middle, up - middle
        off = np.stack([x, y]) - middle
        at = at + np.stack([d * off[0] - b * off[1], a * off[1] - c * off[0]]) / (a * d - b * c)
    return at if np.isfinite(at).all() and np.abs(off).max() < INVERSE_ERROR else None


def _check(pixel_map: PixelMap, window: Window, fit: NDArray[Any]) -> float:
    """Largest distance between grid positions and where the map puts their pixels."""
    xs = chebyshev_nodes(window.x0, window.x1 - 1, _NODES, 0.0)
    ys = chebyshev_nodes(window.y0, window.y1 - 1, _NODES, 0.0)
    inverse = Inverse(window, fit, 0.0)
    px, py = (evaluate_axis(f, ys, _columns(inverse, xs), (window.y0, window.y1 - 1)) for f in fit)
    gx, gy = map_points(pixel_map, px.ravel(), py.ravel())
    off = np.hypot(gx.reshape(px.shape) - xs, gy.reshape(py.shape) - ys[:, None])
    return float(off.max()) if np.isfinite(off).all() else np.inf


def _columns(inverse: Inverse, xs: NDArray[Any] | None = None) -> NDArray[Any]:
    """Chebyshev polynomials of the columns of a window, [degree, column]."""
    window = inverse.window
    xs = np.arange(window.x0, window.x1) if xs is None else xs
    basis = chebyshev_basis(xs, window.x0, window.x1 - 1, inverse.fit.shape[2])
    return np.ascontiguousarray(basis.T)


def evaluate_axis(fit: NDArray[Any], rows: NDArray[Any], tx: NDArray[Any], span: tuple[int, int]) -> NDArray[Any]:
    """A polynomial [ny, nx] at rows of a span and at columns whose polynomials are ``tx``, float64 [row, column].

    Not by BLAS: its bits may depend on its threads.
    """
    ty = chebyshev_basis(rows, *span, fit.shape[0])
    found: NDArray[Any] = np.einsum("yk,kx->yx", np.einsum("yk,kl->yl", ty, fit), tx)
    return found


def measure_slopes(inverse: Inverse, rows: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """a, b, c, d by which a step on the grid differs from one in the image, [row, column] each.

    A step in x is (1 + a, c) pixels of the image, one in y (b, 1 + d).
    """
    window, tx = inverse.window, _columns(inverse)
    out = []
    for axis, fit in enumerate(inverse.fit):
        for along in (1, 0):
            low, high = (window.x0, window.x1 - 1) if along else (window.y0, window.y1 - 1)
            slope = np.polynomial.chebyshev.chebder(fit, axis=along) * (2 / (high - low))
            part = tx[: slope.shape[1]]
            out.append(evaluate_axis(slope, rows, part, (window.y0, window.y1 - 1)) - (axis != along))
    return tuple(out)


# --- mosaic -----------------------------------------------------------------------------------------------


def split_window(inverse: Inverse, ny: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Bands of rows of the window, and the rows of an image of ``ny`` rows that each of them needs."""
    window = inverse.window
    tx = _columns(inverse)
    for top in range(window.y0, window.y1, size):
        bottom = min(top + size, window.y1)
        y = evaluate_axis(
            inverse.fit[1], np.array([top, (top + bottom - 1) / 2, bottom - 1]), tx, (window.y0, window.y1 - 1)
        )
        first, last = int(np.floor(y.min())) - 1, int(np.ceil(y.max())) + 3
        yield slice(top, bottom), slice(min(max(first, 0), ny), min(max(last, 0), ny))


def pad_band(sci: NDArray[Any], weight: NDArray[Any]) -> Planes:
    """Weight times value, and weight, with a ring of no weight around; what is no number has none (float32)."""
    shape = sci.shape[0] + 2 * _RING, sci.shape[1] + 2 * _RING
    product, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    inner = slice(_RING, -_RING), slice(_RING, -_RING)
    product[inner] = sci
    weights[inner] = weight
    nothing = ~np.isfinite(product[inner]) | (weights[inner] == 0)
    product[inner][nothing] = 0
    weights[inner][nothing] = 0
    product *= weights
    return product, weights


def add_band(
    inverse: Inverse, sci: NDArray[Any], weight: NDArray[Any], rows: slice, first: int, total: Planes
) -> None:
    """Add rows of an image to rows of a mosaic.

    Parameters
    ----------
    inverse : Inverse
    sci, weight : float32 (rows, nx)
        Rows of the image from ``first`` on, as many as :func:`split_window` says.
    rows : slice
        Of the grid.
    first : int
    total : two float32 arrays (rows, columns of the window)
        Sums of weight times value, and of weights; added to.
    """
    if not len(sci):
        return
    window, tx = inverse.window, _columns(inverse)
    product, weights = pad_band(sci, weight)
    width = product.shape[1]
    flat = product.reshape(-1), weights.reshape(-1)
    last = len(flat[0])
    tops = range(rows.start, rows.stop, ROWS)
    slopes = measure_slopes(inverse, np.minimum(np.array(tops) + ROWS // 2, rows.stop - 1))
    buffers = Buffers((ROWS, window.shape[1]))
    for k, top in enumerate(tops):
        part = np.arange(top, min(top + ROWS, rows.stop), dtype=float)
        x, y = (evaluate_axis(fit, part, tx, (window.y0, window.y1 - 1)) for fit in inverse.fit)
        buffers.start(len(part))
        index, f, g = split_places(x, y, (first, len(sci)), sci.shape[1], width)
        here = slice(top - rows.start, top - rows.start + len(part))
        a, b, c, d = (s[k].astype(np.float32) for s in slopes)
        areas = share_areas(f, g, a, b, c, d, buffers)
        taken = buffers.next()
        for step, area in zip((0, 1, width, width + 1), areas, strict=True):
            for values, into in zip(flat, total, strict=True):
                np.take(values[step:last], index, out=taken, mode="clip")
                taken *= area
                into[here] += taken


class Buffers:
    """Arrays that are used again and again: new ones would cost more than the sums that they hold."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._arrays: list[NDArray[Any]] = []
        self._used, self._rows = 0, shape[0]

    def start(self, rows: int) -> None:
        """All are free again, from now on with so many rows."""
        self._used, self._rows = 0, rows

    def next(self) -> NDArray[Any]:
        """A free float32 array (rows, columns), with anything in it."""
        if self._used == len(self._arrays):
            self._arrays.append(np.empty(self._shape, np.float32))
        self._used += 1
        return self._arrays[self._used - 1][: self._rows]


def split_places(
    x: NDArray[Any], y: NDArray[Any], rows: tuple[int, int], columns: int, width: int
) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]:
    """Where places lie in a padded image: the index of the pixel below, and what is left in x and y (float32).

    ``rows`` is the first row and their number; what lies outside falls on the ring. ``x`` and ``y`` are used up.
    """
    np.clip(x, -_RING, columns, out=x)
    y -= rows[0]
    np.clip(y, -_RING, rows[1], out=y)
    left, below = np.floor(x), np.floor(y)
    x -= left
    y -= below
    below += _RING
    below *= width
    below += left
    below += _RING
    return below.astype(np.intp), x.astype(np.float32), y.astype(np.float32)


def share_areas(
    f: NDArray[Any],
    g: NDArray[Any],
    a: NDArray[Any],
    b: NDArray[Any],
    c: NDArray[Any],
    d: NDArray[Any],
    buffers: Buffers,
) -> tuple[NDArray[Any], ...]:
    """Shares of a grid pixel in the pixel (0, 0) below it, (1, 0), (0, 1) and (1, 1) (x first).

    Its center lies f, g beyond that of the first one; a step in x is (1 + a, c), in y (b, 1 + d). The border at s_x =
    1/2 - f is shifted by a s_x + b s_y, so the left share is, integrated over the pixel,

        F = 1 - f - a (1/2 - f),  G = 1 - g - d (1/2 - g),  F G + (b g (1 - g) + c f (1 - f)) / 2

    for the first one, to first order, and what is left of F, G and 1 for the others. Their sum is 1.
    """
    one, half = np.float32(1), np.float32(0.5)
    left, low, first, turned = (buffers.next() for _ in range(4))
    for share, place, other, slope, stretch in ((first, g, low, b, d), (turned, f, left, c, a)):
        np.subtract(one, place, out=share)
        share *= place
        share *= half * slope
        np.multiply(place, stretch - one, out=other)
        other += one - half * stretch
    first += turned
    np.multiply(left, low, out=turned)
    first += turned
    left -= first
    low -= first
    np.subtract(one, first, out=turned)
    turned -= left
    turned -= low
    return first, low, left, turned


def finish_mosaic(total: Planes) -> None:
    """Sums become the mean, NaN where there is no weight, in place."""
    values, weights = total
    with np.errstate(divide="ignore", invalid="ignore"):
        values /= weights
    values[weights == 0] = np.nan


# --- the way back -----------------------------------------------------------------------------------------


class Padded(NamedTuple):
    """A grid image that the way back starts from, with two more pixels on each side."""

    window: Window
    values: NDArray[Any]  # float32, 0 instead of NaN, flat
    missing: NDArray[Any]  # bool, flat: one of the pixel, its right, upper and upper right neighbor is NaN
    width: int


def pad_image(image: NDArray[Any], window: Window) -> Padded:
    """A grid image (float32, NaN where there is nothing) made ready for :func:`blot_cubic`; edges are repeated."""
    values = np.pad(image, _RING, mode="edge")
    empty = np.isnan(values)
    values[empty] = 0
    missing = empty.copy()
    missing[:, :-1] |= empty[:, 1:]
    missing[:-1] |= missing[1:].copy()
    missing[:_RING] = missing[-_RING:] = True
    missing[:, :_RING] = missing[:, -_RING:] = True
    return Padded(window, values.reshape(-1), missing.reshape(-1), values.shape[1])


def pad_zero(image: NDArray[Any]) -> NDArray[Any]:
    """Any grid image, flat, with zeros where a padded one has its edges."""
    return np.pad(image, _RING).reshape(-1)


def cubic_weights(f: NDArray[Any], buffers: Buffers) -> tuple[NDArray[Any], ...]:
    """Weights of the cubic through pixels -1, 0, 1, 2 at ``f`` beyond pixel 0 (Everett's form; float32)."""
    one, sixth = np.float32(1), np.float32(1 / 6)
    t, before, here, beside, after = (buffers.next() for _ in range(5))
    np.subtract(one, f, out=t)
    for v, out in ((t, before), (f, after)):
        np.multiply(v, v, out=out)
        out -= one
        out *= v
        out *= sixth
    for v, out, own, other in ((t, here, before, after), (f, beside, after, before)):
        np.subtract(v, own, out=out)
        out -= own
        out += other
    return before, here, beside, after


def blot_cubic(
    padded: Padded, x: NDArray[Any], y: NDArray[Any], buffers: Buffers
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The grid image at places of the grid, float32; NaN outside and beside NaN. And the nearest pixels.

    Parameters
    ----------
    padded : Padded
    x, y : float64 (rows, columns)
        Used up. NaN is outside.
    buffers : Buffers
        Of this shape or more rows.

    Returns
    -------
    values : float32 (rows, columns)
        Good until the next call.
    nearest : int (rows, columns)
        Index of the nearest pixel in a padded image.
    """
    ny, nx = padded.window.shape
    x -= padded.window.x0
    np.copyto(x, -1, where=np.isnan(x))
    np.copyto(y, padded.window.y0 - 1, where=np.isnan(y))
    index, f, g = split_places(x, y, (padded.window.y0, ny), nx, padded.width)
    missing = np.take(padded.missing, index, mode="clip")
    nearest = index + (f > 0.5)
    nearest += padded.width * (g > 0.5)
    index -= 1 + padded.width
    buffers.start(len(x))
    across, upward = cubic_weights(f, buffers), cubic_weights(g, buffers)
    out, line, taken = (buffers.next() for _ in range(3))
    for j, up in enumerate(upward):
        for i, weight in enumerate(across):
            into = taken if i else line
            np.take(padded.values[j * padded.width + i :], index, out=into, mode="clip")
            into *= weight
            if i:
                line += taken
        np.multiply(line, up, out=line if j else out)
        if j:
            out += line
    out[missing] = np.nan
    return out, nearest


def place_rows(pixel_map: PixelMap, rows: slice, tx: NDArray[Any] | None) -> Planes:
    """Grid positions of the pixels of some rows, x and y in planes of their own.

    ``tx`` is that of :func:`map_columns`; None: the map is no polynomial, or holds less than the image.
    """
    first, last, _ = rows.indices(pixel_map.shape[0])
    if tx is None or pixel_map.fit is None:
        positions = evaluate_map(pixel_map, rows=rows)
        return positions[..., 0].copy(), positions[..., 1].copy()
    number = np.arange(first, last, dtype=float)
    fit = trim(pixel_map.fit)
    x, y = (evaluate_axis(part, number, tx, pixel_map.span[2:]) for part in fit)
    return x, y


def map_columns(pixel_map: PixelMap) -> NDArray[Any] | None:
    """Chebyshev polynomials of the columns of an image whose map is a polynomial on all of it, else None."""
    ny, nx = pixel_map.shape
    if pixel_map.fit is None or pixel_map.span != (0, nx - 1, 0, ny - 1):
        return None
    basis = chebyshev_basis(np.arange(nx), 0, nx - 1, trim(pixel_map.fit).shape[2])
    return np.ascontiguousarray(basis.T)
