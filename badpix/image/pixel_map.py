"""Pixel maps: where each pixel of an image falls on the grid.

1. The chain of transforms is evaluated on Chebyshev nodes only; the fit is compared with the chain on a second set
   of points and is replaced by the chain itself where it is not good to 1e-6 pixel (:func:`fit_pixel_map`).
2. The documented coarse map (``pixmap_stepsize`` above 1) is a spline through a regular mesh.
3. The way back, from the grid to an image's pixels, by Newton steps on the map (:func:`invert_map`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError, UsageError
from badpix.image.grid import Bounds, Grid, Sky, Window, sky_to_grid

if TYPE_CHECKING:
    from scipy.interpolate import RectBivariateSpline

MAP_TOLERANCE = 1e-6  # pixel; the largest error a fitted pixel map may show at its check points
NODES = (12, 24)  # Chebyshev nodes an axis: first try, second try
MARGIN = 4  # grid pixels around a footprint that a drizzled pixel may reach
_ROWS = 32  # rows a block: the temporaries stay in the processor's cache


@dataclass(frozen=True)
class PixelMap:
    """Grid position of every pixel of an image, as a fit or as the chain itself.

    ``span`` = (x0, x1, y0, y1), first and last pixel inside the bounding box; outside, the map is NaN.
    ``fit`` holds the Chebyshev coefficients [2, ny, nx] over the span; None: ``chain`` is evaluated.
    ``error`` is the largest deviation at the check points, pixels.
    """

    shape: tuple[int, int]
    span: tuple[int, int, int, int]
    fit: NDArray[Any] | None
    chain: Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]] | None
    error: float


@dataclass(frozen=True)
class Chain:
    """Pixel -> sky -> grid; an object, so that it can travel to other processes."""

    sky: Sky
    grid: Grid

    def __call__(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Grid positions."""
        return sky_to_grid(self.grid, *self.sky(x, y))


@dataclass(frozen=True)
class Splined:
    """The documented coarse map: splines of x and y through a regular mesh of pixels."""

    x: RectBivariateSpline
    y: RectBivariateSpline

    def __call__(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Grid positions of a mesh of pixels or of single ones."""
        if x.ndim == 2:
            return self.x(y[:, 0], x[0]), self.y(y[:, 0], x[0])
        return self.x.ev(y, x), self.y.ev(y, x)


def inner_span(shape: tuple[int, int], bounds: Bounds | None) -> tuple[int, int, int, int]:
    """First and last pixel (x0, x1, y0, y1) whose center lies inside the bounding box."""
    ny, nx = shape
    (xa, xb), (ya, yb) = bounds if bounds is not None else ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
    return (
        max(0, math.ceil(xa)),
        min(nx - 1, math.floor(xb)),
        max(0, math.ceil(ya)),
        min(ny - 1, math.floor(yb)),
    )


def fit_pixel_map(
    sky: Sky, grid: Grid, shape: tuple[int, int], bounds: Bounds | None, *, stepsize: float, order: int
) -> PixelMap:
    """The pixel map of one image.

    Parameters
    ----------
    sky : callable
        Pixel to sky (degrees), NaN outside of what the WCS defines.
    grid : Grid
    shape : (ny, nx)
        Of the image.
    bounds : ((xmin, xmax), (ymin, ymax)) or None
        Bounding box of the WCS, pixel edges.
    stepsize, order
        Documented parameters: at ``stepsize`` 1 the map is exact (to 1e-6 pixel); above, a spline of this
        order through every ``stepsize``-th pixel.
    """
    span = inner_span(shape, bounds)
    if span[1] <= span[0] or span[3] <= span[2]:
        raise DataError(f"WCS: the bounding box {bounds} holds no pixel of an image of shape {shape}")

    chain = Chain(sky, grid)
    if stepsize > 1:
        return _spline_map(chain, shape, span, stepsize, order)
    error = np.inf
    for nodes in NODES:
        fit = _fit_chebyshev(chain, span, nodes)
        if fit is None:
            break
        error = _check_chebyshev(chain, span, nodes, fit)
        if error <= MAP_TOLERANCE:
            return PixelMap(shape, span, fit, None, error)
    return PixelMap(shape, span, None, chain, 0.0)


def chebyshev_nodes(low: int, high: int, n: int, shift: float) -> NDArray[Any]:
    """Chebyshev nodes (shift 0.5) or the points between them with both ends (shift 0)."""
    k = np.arange(n + (shift == 0)) + shift
    return (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * k / n)


def _fit_chebyshev(chain: Sky, span: tuple[int, int, int, int], n: int) -> NDArray[Any] | None:
    """Coefficients [2, n, n] (y first) of the interpolation at n x n Chebyshev nodes; None if any is NaN."""
    x0, x1, y0, y1 = span
    xs, ys = np.meshgrid(chebyshev_nodes(x0, x1, n, 0.5), chebyshev_nodes(y0, y1, n, 0.5))
    values = np.stack(chain(xs, ys))
    if not np.isfinite(values).all():
        return None
    # discrete orthogonality: c_k = 2/n sum_j f(node_j) T_k(node_j), half for k = 0
    nodes = -np.cos(np.pi * (np.arange(n) + 0.5) / n)
    project = np.polynomial.chebyshev.chebvander(nodes, n - 1).T * (2 / n)
    project[0] /= 2
    fit: NDArray[Any] = np.einsum("ky,cyx,lx->ckl", project, values, project)
    keep = max((int(np.flatnonzero(np.abs(fit).max(axis=(0, a)) > 3e-9)[-1]) for a in (1, 2)), default=0) + 1
    return np.ascontiguousarray(fit[:, :keep, :keep])


def _check_chebyshev(chain: Sky, span: tuple[int, int, int, int], n: int, fit: NDArray[Any]) -> float:
    """Largest deviation of the fit from the chain between the nodes and on the border, pixels."""
    x0, x1, y0, y1 = span
    xs, ys = chebyshev_nodes(x0, x1, n, 0.0), chebyshev_nodes(y0, y1, n, 0.0)
    exact = np.stack(chain(*np.meshgrid(xs, ys)))
    tx, ty = chebyshev_basis(xs, x0, x1, fit.shape[2]), chebyshev_basis(ys, y0, y1, fit.shape[1])
    error = np.abs(np.einsum("yk,ckl,xl->cyx", ty, fit, tx) - exact)
    return float(error.max()) if np.isfinite(exact).all() else np.inf


def chebyshev_basis(positions: NDArray[Any], low: int, high: int, n: int) -> NDArray[Any]:
    """Chebyshev polynomials 0 .. n-1 at pixel positions, [position, degree]."""
    x = (2 * positions - low - high) / (high - low) + 0.0
    out = np.empty((n, *x.shape))  # by recurrence, as numpy.polynomial does it, whose checks cost more than the sums
    out[0] = x * 0 + 1
    if n > 1:
        out[1] = x
        twice = 2 * x
        for k in range(2, n):
            np.multiply(out[k - 1], twice, out=out[k])
            out[k] -= out[k - 2]
    return np.moveaxis(out, 0, -1)


def _spline_map(
    chain: Sky, shape: tuple[int, int], span: tuple[int, int, int, int], stepsize: float, order: int
) -> PixelMap:
    """The documented coarse map; the chain where a point of the coarse grid is not finite."""
    from scipy.interpolate import RectBivariateSpline

    if order not in (1, 3):
        raise UsageError(f"image.pixmap_order: found {order}, expected 1 or 3")
    x0, x1, y0, y1 = span
    size = [b - a + 1 for a, b in ((x0, x1), (y0, y1))]
    if max(size) <= 10:
        return PixelMap(shape, span, None, chain, 0.0)
    count = [max(math.ceil(n / stepsize), min(10, n)) for n in size]
    xs, ys = np.linspace(x0, x1, count[0]), np.linspace(y0, y1, count[1])
    coarse = chain(*np.meshgrid(xs, ys))
    if not all(np.isfinite(c).all() for c in coarse):
        return PixelMap(shape, span, None, chain, 0.0)
    splines = (RectBivariateSpline(ys, xs, c, kx=order, ky=order) for c in coarse)
    return PixelMap(shape, span, None, Splined(*splines), 0.0)


def evaluate_map(pixel_map: PixelMap, origin: tuple[int, int] = (0, 0), rows: slice = slice(None)) -> NDArray[Any]:
    """Grid positions of the pixels of some rows, [rows, nx, 2], x first, from ``origin`` = (x, y) of a window."""
    first, last, _ = rows.indices(pixel_map.shape[0])
    x0, x1, y0, y1 = pixel_map.span
    top, bottom = max(first, y0), min(last, y1 + 1)
    out = np.empty((last - first, pixel_map.shape[1], 2))
    if (x0, x1, top, bottom) != (0, pixel_map.shape[1] - 1, first, last):
        out.fill(np.nan)
    if bottom <= top:
        return out
    inside = out[top - first : bottom - first, x0 : x1 + 1]
    if pixel_map.fit is not None:
        _evaluate_fit(pixel_map, origin, top, inside)
        return out
    assert pixel_map.chain is not None
    columns = np.arange(x0, x1 + 1, dtype=float)
    for i in range(0, bottom - top, _ROWS):
        part = np.arange(top + i, min(top + i + _ROWS, bottom), dtype=float)
        x, y = pixel_map.chain(*np.meshgrid(columns, part))
        inside[i : i + len(part), :, 0] = x - origin[0]
        inside[i : i + len(part), :, 1] = y - origin[1]
    return out


def _evaluate_fit(pixel_map: PixelMap, origin: tuple[int, int], top: int, out: NDArray[Any]) -> None:
    """Fill ``out`` (rows from ``top``): a polynomial in x for each row, in blocks that stay in cache.

    Not by BLAS: its threads cost more than they give here, and its bits may depend on them.
    """
    x0, x1, y0, y1 = pixel_map.span
    fit = pixel_map.fit.copy()  # type: ignore[union-attr]
    fit[:, 0, 0] -= origin
    tx = np.ascontiguousarray(chebyshev_basis(np.arange(x0, x1 + 1), x0, x1, fit.shape[2]).T)
    ty = chebyshev_basis(np.arange(top, top + len(out)), y0, y1, fit.shape[1])
    for axis, part in enumerate(fit):
        coefficients = np.einsum("yk,kl->yl", ty, part)
        for i in range(0, len(out), _ROWS):
            out[i : i + _ROWS, :, axis] = np.einsum("yk,kx->yx", coefficients[i : i + _ROWS], tx)


def invert_map(pixel_map: PixelMap, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Image pixels of grid positions by Newton steps on the map; NaN where they lie off the image."""
    x0, x1, y0, y1 = pixel_map.span
    px, py = np.full(len(x), (x0 + x1) / 2.0), np.full(len(x), (y0 + y1) / 2.0)
    for _ in range(6):
        gx, gy = map_points(pixel_map, np.clip(px, x0, x1 - 1), np.clip(py, y0, y1 - 1))
        ax, ay = map_points(pixel_map, np.clip(px, x0, x1 - 1) + 1, np.clip(py, y0, y1 - 1))
        bx, by = map_points(pixel_map, np.clip(px, x0, x1 - 1), np.clip(py, y0, y1 - 1) + 1)
        a, b, c, d = ax - gx, bx - gx, ay - gy, by - gy
        det = a * d - b * c
        px = np.clip(px, x0, x1 - 1) + (d * (x - gx) - b * (y - gy)) / det
        py = np.clip(py, y0, y1 - 1) + (a * (y - gy) - c * (x - gx)) / det
    inside = (px > x0 - 0.5) & (px < x1 + 0.5) & (py > y0 - 0.5) & (py < y1 + 0.5)
    return np.where(inside, px, np.nan), np.where(inside, py, np.nan)


def map_points(pixel_map: PixelMap, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The map at single points inside the span."""
    x0, x1, y0, y1 = pixel_map.span
    if pixel_map.fit is None:
        assert pixel_map.chain is not None
        return pixel_map.chain(x, y)
    tx, ty = chebyshev_basis(x, x0, x1, pixel_map.fit.shape[2]), chebyshev_basis(y, y0, y1, pixel_map.fit.shape[1])
    gx, gy = (np.einsum("pl,pl->p", np.einsum("pk,kl->pl", ty, fit), tx) for fit in pixel_map.fit)
    return gx, gy


def find_window(pixel_map: PixelMap, grid: Grid) -> Window | None:
    """The part of the grid that an image touches; None where it misses the grid altogether."""
    x0, x1, y0, y1 = pixel_map.span
    edge = _outline(x0, x1, y0, y1)
    if pixel_map.fit is not None:
        x, y = map_points(pixel_map, *edge)
    else:
        full = evaluate_map(pixel_map)
        x, y = full[..., 0].ravel(), full[..., 1].ravel()
    x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    if not len(x) or not len(y):
        return None
    low = [max(0, math.floor(v.min()) - MARGIN) for v in (y, x)]
    high = [min(n, math.ceil(v.max()) + MARGIN + 1) for v, n in zip((y, x), grid.shape, strict=True)]
    if high[0] <= low[0] or high[1] <= low[1]:
        return None
    return Window(low[0], high[0], low[1], high[1])


def _outline(x0: int, x1: int, y0: int, y1: int) -> NDArray[Any]:
    """Points along the border of a rectangle, [2, n]."""
    t = np.linspace(0, 1, 65)
    xs, ys = x0 + (x1 - x0) * t, y0 + (y1 - y0) * t
    flat = np.ones_like(t)
    sides = [(xs, y0 * flat), (xs, y1 * flat), (x0 * flat, ys), (x1 * flat, ys)]
    return np.concatenate([np.stack(s) for s in sides], axis=1)
