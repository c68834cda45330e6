"""Areas of a flat that are dark or weak as a whole: masks in the light, shadows, voids, clusters.

1. *Low areas*: touching pixels below :data:`LOW` of what they should see, dim or unlit; at least :data:`SMALL`.
2. An area is a *step of light* and no cluster of defects, if it is unlit somewhere; if it has more than
   `max_cluster_pixels` pixels and is not a line (5 x 5 pixels fit into it); or if its edge is soft: most pixels that
   touch it do not see what those further out see. A cluster of dead pixels ends from one pixel to the next. So is a
   smaller area whose light goes on beside it: a corner.
3. In a step of light each pixel is compared with the median of the area's own pixels within 7 x 7: where that is even
   and above `min_light` of the light outside, the pixel is judged by it. On the edge it is judged by the three pixels
   to each side along it, if these agree. All others are dim or unlit, and undetermined.
4. *Weak areas* (voids, blobs): cells of 16 x 16 pixels below :data:`WEAK` of the median of the 9 x 9 cells around
   them, at least :data:`FEW_CELLS` touching ones. They are reported, with place, size and depth, and not flagged as
   areas: their pixels have the types that their own rate tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.flats import judged
from badpix.numerics.medians import local_median, median_rows
from badpix.numerics.neighbors import sides_at

LOW = 0.5  # of what a pixel should see
CORNER = 4  # pixels of a corner of a step of light
GOES_ON = 0.12  # share of the pixels touching a corner that have its light
SMALL = 64  # pixels: fewer are a cluster whatever their edge
DENSE = 12  # low pixels within 16 x 16: fewer everywhere are no area
CORE = 5  # pixels: width of what is more than a line
WITHIN = 3  # pixels to each side whose median is the area's own light
EVEN = 0.15  # scatter of the area's own pixels, of their median, up to which it tells their light
BESIDE = 0.9  # of the light beside an edge: what lies on it sees less
SOFT = 0.7  # of the light further out: pixels that touch an area and see less lie on a soft edge
SHARP = 0.8  # share of the pixels touching a cluster that see more than that
CELL, AROUND = 16, 9  # pixels of a cell; cells to whose median it is compared
WEAK, FEW_CELLS = 0.85, 3
REPORTED = 20  # areas at the most, the largest ones
TOLD = 5  # of them in notes

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]


class Area(NamedTuple):
    """A dark or weak area: its kind, outline (0-based, inclusive, of the image), pixels, and depth."""

    kind: str  # mask, cluster, weak
    x: tuple[int, int]
    y: tuple[int, int]
    pixels: int
    depth: float  # 1 is without light or response

    def text(self) -> str:
        """One line for the summary."""
        what = {"mask": "a step of light", "cluster": "a cluster", "weak": "weak or in a shadow"}[self.kind]
        place = f"x {self.x[0]} to {self.x[1]}, y {self.y[0]} to {self.y[1]}"
        return f"area of {self.pixels:,} pixels ({what}) at {place}: {self.depth:.0%} below its surroundings"


def judge_areas(
    mean: Float, norm: NDArray[np.float32], state: judged.State, *, most: int, min_light: float, rho: float
) -> list[Area]:
    """Find low areas, and judge the pixels of steps of light by the area's own light; in place.

    Parameters
    ----------
    mean : ndarray
        (ny, nx) mean rate, DN/s.
    norm : ndarray of float32
        (ny, nx) normalized rate; NaN afterwards where it can't be judged.
    state : ndarray of uint8
        (ny, nx) states of :mod:`badpix.flats.judged`.
    most : int
        Pixels of the largest cluster of defects.
    min_light : float
        Part of the light outside above which an area's pixels are judged by its own light.
    rho : float
        Coupling to each side neighbor.
    """
    with np.errstate(invalid="ignore"):
        low = (norm < LOW) | (state == judged.UNLIT) | (state == judged.DIM)
    if not _is_dense(low):
        return []
    from scipy import ndimage

    number, _ = ndimage.label(low, np.ones((3, 3), bool))
    sizes = np.bincount(number.ravel())
    found = []
    boxes = ndimage.find_objects(number)
    for one in np.flatnonzero(sizes[1:] >= CORNER) + 1:
        box = tuple(slice(max(s.start - 8, 0), s.stop + 8) for s in boxes[one - 1])
        area = number[box] == one
        is_light = goes_on(mean[box], norm[box], area)
        if sizes[one] >= SMALL:
            is_light |= bool((state[box][area] == judged.UNLIT).any()) or is_step_of_light(mean[box], area, most)
            found.append(_describe(area, mean[box], norm[box], box, "mask" if is_light else "cluster"))
        if is_light:
            _judge(area, mean[box], norm[box], state[box], min_light, rho)
    return sorted(found, key=lambda a: -a.pixels)[:REPORTED]


def _is_dense(low: Bool) -> bool:
    """Whether low pixels lie close enough together anywhere to be an area: in 16 x 16."""
    ny, nx = (n - n % 16 for n in low.shape)
    if not ny or not nx or low.size < 4096:
        return bool(low.sum() >= SMALL)
    rows = np.add.reduceat(low.view(np.uint8), np.arange(0, low.shape[0], 16), axis=0, dtype=np.int32)
    return bool(np.add.reduceat(rows, np.arange(0, low.shape[1], 16), axis=1).max() >= DENSE)


def goes_on(mean: Float, norm: Float, area: Bool) -> bool:
    """Whether the light of a low area goes on beside it in pixels that are not low: a corner of a step of light."""
    from scipy import ndimage

    beside = ndimage.binary_dilation(area, np.ones((3, 3), bool)) & ~area
    inside = mean[area & np.isfinite(mean)]
    if not inside.size or not beside.any():
        return False
    with np.errstate(invalid="ignore", divide="ignore"):
        same = (np.abs(mean[beside] / np.median(inside) - 1) < EVEN) & (norm[beside] > SOFT)
    return bool(same.mean() > GOES_ON)


def is_step_of_light(mean: Float, area: Bool, most: int) -> bool:
    """Whether a low area is dark for want of light: too large for a cluster, or with a soft edge."""
    from scipy import ndimage

    if area.sum() > most and ndimage.binary_erosion(area, np.ones((CORE, CORE), bool)).any():
        return True
    near = ndimage.binary_dilation(area, np.ones((3, 3), bool))
    far = ndimage.binary_dilation(area, np.ones((3, 3), bool), 3)
    outside = mean[ndimage.binary_dilation(far, np.ones((3, 3), bool), 2) & ~far]
    outside, edge = outside[np.isfinite(outside)], mean[near & ~area]
    edge = edge[np.isfinite(edge)]
    return bool(outside.size and edge.size and np.mean(edge > SOFT * np.median(outside)) < SHARP)


def _judge(
    area: Bool, mean: Float, norm: NDArray[np.float32], state: judged.State, min_light: float, rho: float
) -> None:
    """Give the pixels of an area rate and state by the light of the area, in place."""
    y, x = np.nonzero(area)
    own = np.pad(np.where(area, mean, np.nan).astype(np.float32), WITHIN, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(own, (2 * WITHIN + 1, 2 * WITHIN + 1))
    light, scatter = np.empty(y.size, np.float32), np.empty(y.size, np.float32)
    for start in range(0, y.size, 20_000):
        some = slice(start, start + 20_000)
        values = windows[y[some], x[some]].reshape(-1, (2 * WITHIN + 1) ** 2)
        light[some] = median_rows(values.copy())
        scatter[some] = median_rows(np.abs(values - light[some, None]))
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.isfinite(norm)
        outside = np.median(mean[known & ~area]) if (known & ~area).any() else np.inf
        even = (light > min_light * outside) & (1.4826 * scatter < EVEN * light)
        edge = measure_along_edge(mean, y, x)
        on_edge = ~even & (edge > min_light * outside)
        even |= on_edge
        light[on_edge] = edge[on_edge]
        sides = sides_at(mean, y, x, np.nan)
        coupled = rho * 4 * np.where(np.isfinite(sides), sides, 0).sum(axis=0) / np.isfinite(sides).sum(axis=0)
        norm[y, x] = np.where(even, (mean[y, x] - coupled) / (light - coupled), np.nan)
        dark = np.where(light > 0.01 * outside, judged.DIM, judged.UNLIT)
    state[y, x] = np.where(even, judged.LIT, dark)


def measure_along_edge(mean: Float, y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.float32]:
    """Light of some pixels by those three before and after them along the edge they lie on: (n,), NaN where none is.

    Of the four directions the one in which they differ least. Both sides, and the two that touch the pixel, must
    agree within :data:`EVEN`: the lower side counts. It must be below :data:`BESIDE` of the light two pixels beside
    the edge: the corner of a mask sees on both sides what is outside.
    """
    light, least = np.full(y.size, np.nan, np.float32), np.full(y.size, EVEN, np.float32)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        values = _values_at(mean, y, x, [(k * dy, k * dx) for k in (-3, -2, -1, 1, 2, 3)])
        beside = _values_at(mean, y, x, [(-2 * dx, 2 * dy), (2 * dx, -2 * dy)])
        before, after, middle = (median_rows(part.T.copy()) for part in (values[:3], values[3:], values))
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = np.maximum(np.abs(before - after), np.abs(values[2:4] - middle).max(axis=0)) / middle
            apart[np.isnan(values).any(axis=0)] = np.nan
            lower = np.minimum(before, after)
            better = (apart < least) & (lower < BESIDE * np.fmax(*beside))
        light[better], least[better] = lower[better], apart[better]
    return light


def _values_at(
    image: Float, y: NDArray[np.intp], x: NDArray[np.intp], offsets: Sequence[tuple[int, int]]
) -> NDArray[np.float32]:
    """Values of an image at ``offsets`` (dy, dx) from some pixels: (offsets, n); NaN beyond the frame."""
    ny, nx = image.shape
    values = np.full((len(offsets), y.size), np.nan, np.float32)
    for k, (dy, dx) in enumerate(offsets):
        yy, xx = y + dy, x + dx
        inside = (yy >= 0) & (yy < ny) & (xx >= 0) & (xx < nx)
        values[k, inside] = image[yy[inside], xx[inside]]
    return values


def _describe(area: Bool, mean: Float, norm: Float, box: tuple[slice, ...], kind: str) -> Area:
    """An area with its depth: of pixels without a normalized rate that of their rate below the judged ones around."""
    y, x = np.nonzero(area)
    around = mean[np.isfinite(norm) & ~area]
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = mean[area] / np.median(around) if around.size else np.zeros(y.size)
    level = np.nan_to_num(np.where(np.isfinite(norm[area]), norm[area], seen))
    depth = 1 - float(np.clip(np.median(level), 0, 1))
    y, x = y + box[0].start, x + box[1].start
    return Area(kind, (int(x.min()), int(x.max())), (int(y.min()), int(y.max())), int(y.size), depth)


def find_weak_areas(mean: Float) -> list[Area]:
    """Areas whose cells are below the median of the cells around them: voids, blobs, shadows of dust."""
    ratio = _compare_cells(mean)
    with np.errstate(invalid="ignore"):
        weak = ratio < WEAK
    if not weak.any():
        return []
    from scipy import ndimage

    number, _ = ndimage.label(weak, np.ones((3, 3), bool))
    found = []
    for one, box in enumerate(ndimage.find_objects(number), 1):
        cells = number[box] == one
        if cells.sum() < FEW_CELLS:
            continue
        y, x = ((s.start * CELL, s.stop * CELL - 1) for s in box)
        depth = 1 - float(np.quantile(ratio[box][cells], 0.25))
        found.append(Area("weak", x, y, int(cells.sum()) * CELL**2, min(depth, 1.0)))
    return sorted(found, key=lambda area: -area.pixels)[:REPORTED]


def _compare_cells(mean: Float) -> NDArray[np.float32]:
    """Mean of each cell, from every second pixel, over the median of the cells around it: (ny / CELL, nx / CELL)."""
    ny, nx = (n // CELL for n in mean.shape)
    part = mean[: ny * CELL : 2, : nx * CELL : 2]
    known = np.isfinite(part)
    shape = (ny, CELL // 2, nx, CELL // 2)
    total = np.where(known, part, 0).reshape(shape).sum(axis=(1, 3), dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cells = (total / known.reshape(shape).sum(axis=(1, 3))).astype(np.float32)
        around = local_median(cells, (AROUND, AROUND), outside=np.nan, where=np.ones(cells.shape, bool))
        found: NDArray[np.float32] = cells / around
        return found


def moved(area: Area, x: int, y: int) -> Area:
    """The same area in the coordinates of a frame in which its image begins at ``x``, ``y``."""
    return area._replace(x=(area.x[0] + x, area.x[1] + x), y=(area.y[0] + y, area.y[1] + y))


def overlap(a: Area, b: Area) -> bool:
    """Whether the outlines of two areas overlap."""
    return a.x[0] <= b.x[1] and b.x[0] <= a.x[1] and a.y[0] <= b.y[1] and b.y[0] <= a.y[1]


def tell_areas(found: Sequence[Area]) -> list[str]:
    """The largest areas, a line each, and how many more there are."""
    more = len(found) - TOLD
    rest = [f"{more} more areas are listed in the JSON summary"] if more > 0 else []
    return [area.text() for area in found[:TOLD]] + rest
