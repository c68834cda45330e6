"""One output grid for all exposures, and the ways there (drizzle) and back (blot).

Arrays in, arrays out; the numbers are those of the documented image outlier search:

1. Output grid: a tangent-plane grid that holds the S_REGION of all members, with the mean pixel scale and the
   orientation of the first member (:func:`build_grid`).
2. Pixel map: where each pixel of an image falls on the grid. The chain of transforms is evaluated on Chebyshev
   nodes only; the fit is compared with the chain on a second set of points and is replaced by the chain
   itself where it is not good to 1e-6 pixel (:func:`fit_pixel_map`).
3. Weights: inverse read-noise variance or exposure time, zero on pixels that DQ rules out
   (:func:`measure_weight`).
4. Drizzle of all images of one group (:func:`drizzle_group`), weighted mean and weight a grid pixel.
5. Weight mask: grid pixels below ``maskpt`` times the clipped mean weight are no data
   (:func:`find_low_weight`).
6. Blot: the grid image interpolated at the pixels of an exposure (:func:`blot`).

Grid images are kept as *windows*, the rectangle of the grid that a group touches: a mosaic of many pointings
then costs memory and disk by what was observed, not by its outline.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import dq as flags
from badpix.errors import DataError, UsageError

if TYPE_CHECKING:
    from scipy.interpolate import RectBivariateSpline

Sky = Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]  # pixel x, y -> degrees
Bounds = tuple[tuple[float, float], tuple[float, float]]  # ((xmin, xmax), (ymin, ymax)), pixel edges

MAP_TOLERANCE = 1e-6  # pixel; the largest error a fitted pixel map may show at its check points
NODES = (12, 24)  # Chebyshev nodes an axis: first try, second try
DRIZZLE_ROWS, DRIZZLE_HALO = 256, 2  # rows of a band, and more rows on each side
MARGIN = 4  # grid pixels around a footprint that a drizzled pixel may reach
TAIL_CUTS = (
    -2.0,
    -0.1,
    0.1,
    2.0,
)  # standard deviations: below and above are the tails, between the inner two the middle
_ROWS = 32  # rows a block: the temporaries stay in the processor's cache


# --- 1. output grid ---------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """A tangent-plane pixel grid: FITS WCS numbers, but ``crpix`` counts from 0."""

    crval: tuple[float, float]  # degrees
    crpix: tuple[float, float]
    cdelt: float  # degrees, both axes
    pc: tuple[tuple[float, float], tuple[float, float]]
    shape: tuple[int, int]  # (ny, nx)


class Window(NamedTuple):
    """A rectangle of the grid, half open as slices are."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as an index of a grid image."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


def parse_region(text: str) -> NDArray:
    """Vertices of an S_REGION of one or several polygons, shape (n, 2), degrees.

    Raises
    ------
    DataError
        If the text holds no polygon.
    """
    numbers = re.sub(r"[A-Za-z]+", " ", text or "").split()
    try:
        vertices = np.array(numbers, dtype=float).reshape(-1, 2)
    except ValueError:
        vertices = np.empty((0, 2))
    if len(vertices) < 3 or not np.isfinite(vertices).all():
        raise DataError(f"S_REGION: found {text!r}, expected 'POLYGON ICRS ra dec ra dec ra dec ...'")
    return vertices


def measure_scale(sky: Sky, x: float, y: float) -> float:
    """Mean pixel scale at pixel (x, y): root of the product of the steps in x and in y, degrees."""
    lon, lat = (np.radians(v) for v in sky(np.array([x, x + 1, x]), np.array([y, y, y + 1])))
    steps = []
    for i in (1, 2):
        half = np.sin((lat[i] - lat[0]) / 2) ** 2
        half += np.cos(lat[0]) * np.cos(lat[i]) * np.sin((lon[i] - lon[0]) / 2) ** 2
        steps.append(math.degrees(2 * math.asin(math.sqrt(half))))
    return math.sqrt(steps[0] * steps[1])


def build_grid(regions: Sequence[NDArray], scale: float, roll_ref: float, v3i_yang: float, vparity: int) -> Grid:
    """The grid that holds all regions (section 1 of the module's text).

    Parameters
    ----------
    regions : sequence of (n, 2) arrays
        Vertices of all members, degrees.
    scale : float
        Pixel scale, degrees.
    roll_ref, v3i_yang, vparity
        Orientation keywords of the first member, degrees and sign.

    Raises
    ------
    DataError
        If the grid would be smaller than two pixels or lie more than a hemisphere apart.
    """
    vertices = np.vstack(regions)
    crval = _middle(vertices)
    angle = math.radians(roll_ref) - vparity * math.radians(v3i_yang)
    pc = (
        (vparity * math.cos(angle), math.sin(angle)),
        (-vparity * math.sin(angle), math.cos(angle)),
    )
    bare = Grid(crval, (0.0, 0.0), scale, pc, (0, 0))
    x, y = sky_to_grid(bare, vertices[:, 0], vertices[:, 1])
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("S_REGION: the members lie too far apart on the sky for one tangent plane")
    nx, ny = int(np.ptp(x) + 0.5), int(np.ptp(y) + 0.5)
    if min(nx, ny) < 2:
        raise DataError(f"S_REGION: the output grid would be {nx} x {ny} pixels, expected at least 2 x 2")
    return bare._replace(crpix=(float(-x.min()), float(-y.min())), shape=(ny, nx))


def _middle(vertices: NDArray) -> tuple[float, float]:
    """Direction half way between the smallest and largest Cartesian components, degrees."""
    lon, lat = np.radians(vertices).T
    xyz = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    x, y, z = ((v.max() + v.min()) / 2 for v in xyz)
    return float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def sky_to_grid(grid: Grid, lon: NDArray, lat: NDArray) -> tuple[NDArray, NDArray]:
    """Grid pixel of sky positions (degrees); NaN behind the tangent plane."""
    lon0, lat0 = np.radians(grid.crval)
    dlon, lat = np.radians(lon) - lon0, np.radians(lat)
    cosd, sind, cosl = np.cos(lat), np.sin(lat), np.cos(dlon)
    depth = sind * np.sin(lat0) + cosd * np.cos(lat0) * cosl
    depth = np.where(depth > 0, depth, np.nan)
    xi = np.degrees(cosd * np.sin(dlon) / depth)
    eta = np.degrees((sind * np.cos(lat0) - cosd * np.sin(lat0) * cosl) / depth)
    (a, b), (c, d) = grid.pc
    det = (a * d - b * c) * grid.cdelt
    return (d * xi - b * eta) / det + grid.crpix[0], (a * eta - c * xi) / det + grid.crpix[1]


def grid_to_sky(grid: Grid, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """Sky position (degrees) of grid pixels."""
    (a, b), (c, d) = grid.pc
    u, v = np.asarray(x) - grid.crpix[0], np.asarray(y) - grid.crpix[1]
    xi, eta = np.radians((a * u + b * v) * grid.cdelt), np.radians((c * u + d * v) * grid.cdelt)
    lon0, lat0 = np.radians(grid.crval)
    depth = np.cos(lat0) - eta * np.sin(lat0)
    lon = lon0 + np.arctan2(xi, depth)
    lat = np.arctan2(np.sin(lat0) + eta * np.cos(lat0), np.hypot(xi, depth))
    return np.degrees(lon) % 360, np.degrees(lat)


# --- 2. pixel map -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PixelMap:
    """Grid position of every pixel of an image, as a fit or as the chain itself.

    ``span`` = (x0, x1, y0, y1), first and last pixel inside the bounding box; outside, the map is NaN.
    ``fit`` holds the Chebyshev coefficients [2, ny, nx] over the span; None: ``chain`` is evaluated.
    ``error`` is the largest deviation at the check points, pixels.
    """

    shape: tuple[int, int]
    span: tuple[int, int, int, int]
    fit: NDArray | None
    chain: Callable[[NDArray, NDArray], tuple[NDArray, NDArray]] | None
    error: float


@dataclass(frozen=True)
class Chain:
    """Pixel -> sky -> grid; an object, so that it can travel to other processes."""

    sky: Sky
    grid: Grid

    def __call__(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        """Grid positions."""
        return sky_to_grid(self.grid, *self.sky(x, y))


@dataclass(frozen=True)
class Splined:
    """The documented coarse map: splines of x and y through a regular mesh of pixels."""

    x: RectBivariateSpline
    y: RectBivariateSpline

    def __call__(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        """Grid positions of a mesh of pixels or of single ones."""
        if x.ndim == 2:
            return self.x(y[:, 0], x[0]), self.y(y[:, 0], x[0])
        return self.x.ev(y, x), self.y.ev(y, x)


def inner_span(shape: tuple[int, int], bounds: Bounds | None) -> tuple[int, int, int, int]:
    """First and last pixel (x0, x1, y0, y1) whose centre lies inside the bounding box."""
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


def _nodes(low: int, high: int, n: int, shift: float) -> NDArray:
    """Chebyshev nodes (shift 0.5) or the points between them with both ends (shift 0)."""
    k = np.arange(n + (shift == 0)) + shift
    return (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * k / n)


def _fit_chebyshev(chain: Sky, span: tuple[int, int, int, int], n: int) -> NDArray | None:
    """Coefficients [2, n, n] (y first) of the interpolation at n x n Chebyshev nodes; None if any is NaN."""
    x0, x1, y0, y1 = span
    xs, ys = np.meshgrid(_nodes(x0, x1, n, 0.5), _nodes(y0, y1, n, 0.5))
    values = np.stack(chain(xs, ys))
    if not np.isfinite(values).all():
        return None
    # discrete orthogonality: c_k = 2/n sum_j f(node_j) T_k(node_j), half for k = 0
    nodes = -np.cos(np.pi * (np.arange(n) + 0.5) / n)
    project = np.polynomial.chebyshev.chebvander(nodes, n - 1).T * (2 / n)
    project[0] /= 2
    fit: NDArray = np.einsum("ky,cyx,lx->ckl", project, values, project)
    keep = max((int(np.flatnonzero(np.abs(fit).max(axis=(0, a)) > 3e-9)[-1]) for a in (1, 2)), default=0) + 1
    return np.ascontiguousarray(fit[:, :keep, :keep])


def _check_chebyshev(chain: Sky, span: tuple[int, int, int, int], n: int, fit: NDArray) -> float:
    """Largest deviation of the fit from the chain between the nodes and on the border, pixels."""
    x0, x1, y0, y1 = span
    xs, ys = _nodes(x0, x1, n, 0.0), _nodes(y0, y1, n, 0.0)
    exact = np.stack(chain(*np.meshgrid(xs, ys)))
    tx, ty = _basis(xs, x0, x1, fit.shape[2]), _basis(ys, y0, y1, fit.shape[1])
    error = np.abs(np.einsum("yk,ckl,xl->cyx", ty, fit, tx) - exact)
    return float(error.max()) if np.isfinite(exact).all() else np.inf


def _basis(positions: NDArray, low: int, high: int, n: int) -> NDArray:
    """Chebyshev polynomials 0 .. n-1 at pixel positions, [position, degree]."""
    return np.polynomial.chebyshev.chebvander((2 * positions - low - high) / (high - low), n - 1)


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


def evaluate_map(pixel_map: PixelMap, origin: tuple[int, int] = (0, 0), rows: slice = slice(None)) -> NDArray:
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


def _evaluate_fit(pixel_map: PixelMap, origin: tuple[int, int], top: int, out: NDArray) -> None:
    """Fill ``out`` (rows from ``top``): a polynomial in x for each row, in blocks that stay in cache.

    Not by BLAS: its threads cost more than they give here, and its bits may depend on them.
    """
    x0, x1, y0, y1 = pixel_map.span
    fit = pixel_map.fit.copy()  # type: ignore[union-attr]
    fit[:, 0, 0] -= origin
    tx = np.ascontiguousarray(_basis(np.arange(x0, x1 + 1), x0, x1, fit.shape[2]).T)
    ty = _basis(np.arange(top, top + len(out)), y0, y1, fit.shape[1])
    for axis, part in enumerate(fit):
        coefficients = np.einsum("yk,kl->yl", ty, part)
        for i in range(0, len(out), _ROWS):
            out[i : i + _ROWS, :, axis] = np.einsum("yk,kx->yx", coefficients[i : i + _ROWS], tx)


def invert_map(pixel_map: PixelMap, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """Image pixels of grid positions by Newton steps on the map; NaN where they lie off the image."""
    x0, x1, y0, y1 = pixel_map.span
    px, py = np.full(len(x), (x0 + x1) / 2.0), np.full(len(x), (y0 + y1) / 2.0)
    for _ in range(6):
        gx, gy = _map_points(pixel_map, np.clip(px, x0, x1 - 1), np.clip(py, y0, y1 - 1))
        ax, ay = _map_points(pixel_map, np.clip(px, x0, x1 - 1) + 1, np.clip(py, y0, y1 - 1))
        bx, by = _map_points(pixel_map, np.clip(px, x0, x1 - 1), np.clip(py, y0, y1 - 1) + 1)
        a, b, c, d = ax - gx, bx - gx, ay - gy, by - gy
        det = a * d - b * c
        px = np.clip(px, x0, x1 - 1) + (d * (x - gx) - b * (y - gy)) / det
        py = np.clip(py, y0, y1 - 1) + (a * (y - gy) - c * (x - gx)) / det
    inside = (px > x0 - 0.5) & (px < x1 + 0.5) & (py > y0 - 0.5) & (py < y1 + 0.5)
    return np.where(inside, px, np.nan), np.where(inside, py, np.nan)


def _map_points(pixel_map: PixelMap, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """The map at single points inside the span."""
    x0, x1, y0, y1 = pixel_map.span
    if pixel_map.fit is None:
        assert pixel_map.chain is not None
        return pixel_map.chain(x, y)
    tx, ty = _basis(x, x0, x1, pixel_map.fit.shape[2]), _basis(y, y0, y1, pixel_map.fit.shape[1])
    gx, gy = (np.einsum("pl,pl->p", np.einsum("pk,kl->pl", ty, fit), tx) for fit in pixel_map.fit)
    return gx, gy


def find_window(pixel_map: PixelMap, grid: Grid) -> Window | None:
    """The part of the grid that an image touches; None where it misses the grid altogether."""
    x0, x1, y0, y1 = pixel_map.span
    edge = _outline(x0, x1, y0, y1)
    if pixel_map.fit is not None:
        x, y = _map_points(pixel_map, *edge)
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


def _outline(x0: int, x1: int, y0: int, y1: int) -> NDArray:
    """Points along the border of a rectangle, [2, n]."""
    t = np.linspace(0, 1, 65)
    xs, ys = x0 + (x1 - x0) * t, y0 + (y1 - y0) * t
    flat = np.ones_like(t)
    sides = [(xs, y0 * flat), (xs, y1 * flat), (x0 * flat, ys), (x1 * flat, ys)]
    return np.concatenate([np.stack(s) for s in sides], axis=1)


def join_windows(windows: Sequence[Window]) -> Window:
    """The smallest window that holds all of them."""
    y0, y1, x0, x1 = zip(*windows, strict=True)
    return Window(min(y0), max(y1), min(x0), max(x1))


# --- 3. weights -------------------------------------------------------------------------------------------


def parse_good_bits(text: str | int | None) -> int:
    """The bits that make a pixel *bad*, from the documented forms of ``good_bits``.

    ``"~DO_NOT_USE"``: only DO_NOT_USE is bad; ``"HOT+4"`` (also ``,`` and ``|``): all but these; 0: every bit;
    None or an empty text: no bit.

    Raises
    ------
    UsageError
        At an unknown flag.
    """
    if text is None or str(text).strip().upper() in ("", "NONE", "INDEF"):
        return 0
    body = str(text).strip()
    inverted = body.startswith("~")
    body = body.lstrip("~").strip().removeprefix("(").removesuffix(")")
    good = 0
    for word in re.split(r"[+,|]", body):
        word = word.strip().upper()
        if word in flags.VALUE:
            good |= flags.VALUE[word]
        elif word.isdigit():
            good |= int(word)
        else:
            raise UsageError(f"image.good_bits: unknown flag {word!r}{flags.suggest(word)}")
    everything = 0xFFFFFFFF
    return good & everything if inverted else everything & ~good


def measure_weight(
    dq: NDArray | None,
    var_rnoise: NDArray | None,
    *,
    shape: tuple[int, int],
    weight_type: str,
    bad_bits: int,
    exposure_time: float,
) -> NDArray:
    """Drizzle weight of every pixel, float32 (ny, nx): 1/VAR_RNOISE or the exposure time, 0 = not used.

    A missing VAR_RNOISE means weight 1. NaN in SCI is no reason for weight 0 by the documentation.
    """
    if weight_type == "ivm" and var_rnoise is not None and var_rnoise.shape == shape:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            weight = np.divide(np.float32(1), var_rnoise, dtype=np.float32)
        weight[~np.isfinite(weight)] = 0
    else:
        weight = np.full(shape, 1 if weight_type == "ivm" else exposure_time, dtype=np.float32)
    if dq is not None and bad_bits:
        weight[(dq & np.uint32(bad_bits)) != 0] = 0
    return weight


# --- 4. drizzle -------------------------------------------------------------------------------------------


class Drizzled(NamedTuple):
    """A group's mosaic on its window of the grid: weighted mean and summed weight, float32."""

    sci: NDArray
    wht: NDArray


def start_drizzle(window: Window, *, kernel: str, fillval: str):
    """An empty drizzle of a group onto its window (an object of the ``drizzle`` package)."""
    from drizzle.resample import Drizzle

    return Drizzle(kernel=kernel, fillval=fillval, out_shape=window.shape, disable_ctx=True)


def inner_rows(bounds: Bounds | None, ny: int) -> tuple[int, int]:
    """First and last row that drizzle takes from an image with this bounding box."""
    ya, yb = bounds[1] if bounds is not None else (-0.5, ny - 1.5)
    first = max(0, int(ya + 0.5))
    return first, max(first, min(ny - 1, int(yb + 0.5)))


def split_rows(bounds: Bounds | None, pixel_map: PixelMap) -> list[tuple[slice, slice]]:
    """Bands of rows to drizzle one after another: what to read, and which of it to add.

    Drizzle takes the corners of a pixel from its neighbours' positions, so a band holds two more rows at its
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
    drizzle,
    sci: NDArray,
    weight: NDArray,
    positions: NDArray,
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


# --- 5. weight mask ---------------------------------------------------------------------------------------


def measure_weight_limit(weight: NDArray, *, maskpt: float) -> float:
    """``maskpt`` times the 3-sigma clipped mean of the finite weights that are not zero; NaN if there are none."""
    values = weight[np.isfinite(weight) & (weight != 0)]
    return maskpt * clipped_mean(values, sigma=3.0, rounds=5)


def clipped_mean(values: NDArray, *, sigma: float, rounds: int) -> float:
    """Mean after ``rounds`` of clipping about the median at ``sigma`` standard deviations.

    In the type of the input (a mosaic's weights in float64 would double the memory of a run). Only the tails are
    sorted, and the values about the median: clipping takes from the tails, and moves the median by little. Where
    that is not so, all values are sorted.
    """
    if values.size > 1000:
        found = _clipped_mean_by_tails(np.ravel(values), sigma, rounds)
        if found is not None:
            return found
    return _clipped_mean_of_sorted(np.sort(values, axis=None), sigma, rounds)


def _clipped_mean_of_sorted(values: NDArray, sigma: float, rounds: int) -> float:
    for _ in range(rounds):
        n = values.size
        if not n:
            return math.nan
        centre = (float(values[(n - 1) // 2]) + float(values[n // 2])) / 2
        reach = sigma * math.sqrt(_variance(values))
        low = np.searchsorted(values, values.dtype.type(centre - reach), "left")
        high = np.searchsorted(values, values.dtype.type(centre + reach), "right")
        if low == 0 and high == n:
            break
        values = values[low:high]
    return float(values.mean(dtype=float)) if values.size else math.nan


def _clipped_mean_by_tails(values: NDArray, sigma: float, rounds: int) -> float | None:
    """The same from the sorted tails and the middle; None where clipping goes further than these."""
    sample = values[:: max(1, values.size // 50_000)]  # only tells where to cut
    first, spread = float(np.median(sample)), math.sqrt(_variance(sample))
    cuts = [values.dtype.type(first + f * spread) for f in TAIL_CUTS]
    start = np.count_nonzero(values < cuts[1])
    middle = np.sort(values[(values >= cuts[1]) & (values <= cuts[2])])
    lower, upper = np.sort(values[values < cuts[0]]), np.sort(values[values > cuts[3]])
    core = values[(values >= cuts[0]) & (values <= cuts[3])]  # in the order of the input, as the sums are then
    inner = core.mean(dtype=float), _variance(core), core.size
    below, above = 0, upper.size
    for _ in range(rounds):
        tails = np.concatenate([lower[below:], upper[:above]]).astype(float)
        count = inner[2] + tails.size
        mean, variance = _join_moments(inner, tails)
        at = [below + (count - 1) // 2 - start, below + count // 2 - start]
        if at[0] < 0 or at[1] >= middle.size:
            return None
        centre = (float(middle[at[0]]) + float(middle[at[1]])) / 2
        reach = sigma * math.sqrt(variance)
        bounds = values.dtype.type(centre - reach), values.dtype.type(centre + reach)
        if not (bounds[0] <= cuts[0] and bounds[1] >= cuts[3]):
            return None
        before = below, above
        below = max(below, int(np.searchsorted(lower, bounds[0], "left")))
        above = min(above, int(np.searchsorted(upper, bounds[1], "right")))
        if (below, above) == before:
            return mean
    return _join_moments(inner, np.concatenate([lower[below:], upper[:above]]).astype(float))[0]


def _join_moments(inner: tuple[float, float, int], more: NDArray) -> tuple[float, float]:
    """Mean and variance of a set with known mean, variance and number, and of more values."""
    mean, variance, number = inner
    total = number + more.size
    joint = mean + float((more - mean).sum()) / total
    spread = number * (variance + (mean - joint) ** 2) + float(((more - joint) ** 2).sum())
    return joint, spread / total


def _variance(values: NDArray, block: int = 1 << 14) -> float:
    mean = values.mean(dtype=float)
    total = 0.0
    part = np.empty(block)
    for i in range(0, values.size, block):
        n = min(block, values.size - i)
        np.subtract(values[i : i + n], mean, out=part[:n])
        np.multiply(part[:n], part[:n], out=part[:n])
        total += float(part[:n].sum())
    return total / values.size


def find_low_weight(weight: NDArray, *, maskpt: float) -> NDArray:
    """Grid pixels whose weight is strictly below the limit (bool); none if all weights are zero."""
    with np.errstate(invalid="ignore"):
        return weight < np.float32(measure_weight_limit(weight, maskpt=maskpt))


# --- 6. blot ----------------------------------------------------------------------------------------------


def blot(
    image: NDArray, window: Window, positions: NDArray, *, interp: str, filled: NDArray | None = None
) -> NDArray:
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
        The image with 0 instead of NaN, for the others than ``linear``; made here if it isn't given.
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
    filled = np.nan_to_num(image) if filled is None else filled
    blot_image(filled, where, out_img=out, fillval=np.nan, interp=interp)
    out[missing] = np.nan
    return out


def measure_derivative(image: NDArray) -> NDArray:
    """Largest absolute difference to the 4 neighbours, NaN ignored: 0 where none is finite, NaN on NaN."""
    out = np.empty_like(image)
    ny = len(image)
    for top in range(0, ny, _ROWS):  # blocks with one row of the neighbours stay in cache
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
