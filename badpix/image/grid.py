"""The output grid that all exposures share, and windows of it.

1. A tangent-plane grid holds the S_REGION of all members, with the mean pixel scale and the orientation of the
   first member (:func:`build_grid`).
2. Grid images are kept as *windows*, the rectangle of the grid that a group touches: a mosaic of many pointings
   then costs memory and disk by what was observed, not by its outline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError

Sky = Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]  # pixel x, y -> degrees
Bounds = tuple[tuple[float, float], tuple[float, float]]  # ((xmin, xmax), (ymin, ymax)), pixel edges


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

    def within(self, outer: Window) -> tuple[slice, slice]:
        """The window as an index of the image of another one that holds it."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)

    def overlap(self, other: Window) -> Window | None:
        """What two windows have in common; None where that is nothing."""
        y0, y1 = max(self.y0, other.y0), min(self.y1, other.y1)
        x0, x1 = max(self.x0, other.x0), min(self.x1, other.x1)
        return Window(y0, y1, x0, x1) if y0 < y1 and x0 < x1 else None


def parse_region(text: str) -> NDArray[Any]:
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


def build_grid(regions: Sequence[NDArray[Any]], scale: float, roll_ref: float, v3i_yang: float, vparity: int) -> Grid:
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


def _middle(vertices: NDArray[Any]) -> tuple[float, float]:
    """Direction half way between the smallest and largest Cartesian components, degrees."""
    lon, lat = np.radians(vertices).T
    xyz = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    x, y, z = ((v.max() + v.min()) / 2 for v in xyz)
    return float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def sky_to_grid(grid: Grid, lon: NDArray[Any], lat: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
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


def grid_to_sky(grid: Grid, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sky position (degrees) of grid pixels."""
    (a, b), (c, d) = grid.pc
    u, v = np.asarray(x) - grid.crpix[0], np.asarray(y) - grid.crpix[1]
    xi, eta = np.radians((a * u + b * v) * grid.cdelt), np.radians((c * u + d * v) * grid.cdelt)
    lon0, lat0 = np.radians(grid.crval)
    depth = np.cos(lat0) - eta * np.sin(lat0)
    lon = lon0 + np.arctan2(xi, depth)
    lat = np.arctan2(np.sin(lat0) + eta * np.cos(lat0), np.hypot(xi, depth))
    return np.degrees(lon) % 360, np.degrees(lat)


def join_windows(windows: Sequence[Window]) -> Window:
    """The smallest window that holds all of them."""
    y0, y1, x0, x1 = zip(*windows, strict=True)
    return Window(min(y0), max(y1), min(x0), max(x1))


def widen_window(window: Window, margin: int, shape: tuple[int, int]) -> Window:
    """A window with some pixels more on each side, as far as the grid goes."""
    y0, x0 = max(0, window.y0 - margin), max(0, window.x0 - margin)
    return Window(y0, min(shape[0], window.y1 + margin), x0, min(shape[1], window.x1 + margin))
