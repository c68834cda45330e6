"""What an exposure is compared with: the other groups, on the grid and at the exposure's pixels.

1. Reference on the grid: the two middle values (a, b) of the *other* groups; their mean where they agree, the
   lower one where they don't (b - a > agree_sigma * s_d + agree_gradient * D(a): the higher one is a hit in
   another group). s_d is the noise of the difference of two mosaics. Groups that are too shallow
   (``reference_noise``) are not among the others.
2. Holes of a pixel or two are filled from their 3x3 neighbors, so that interpolation doesn't widen them.
3. Blot to the exposure's pixels; m = number of other groups there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image import resample_direct as blots
from badpix.image import resample_drizzle
from badpix.image.angles import prefer_kin
from badpix.image.grid import Window
from badpix.image.pixel_map import PixelMap, evaluate_map
from badpix.image.resample_drizzle import measure_derivative
from badpix.image.stack import Shelf, middle_of_others, mosaic_name, read_planes, read_window
from badpix.numerics import clipping
from badpix.numerics.neighbors import gather, locate

ONE_KIN, FOREIGN = 1, 2
_ROWS = 64  # rows of a band: its temporaries stay in the processor's cache
_PAIR_ROWS = 256  # rows of a pair of mosaics that are compared
_FILL_NEIGHBORS = 4  # of 9 that a hole must have to be filled
_FILL_SMOOTH = 10.0  # sigma of a pair of mosaics by which these may differ


def combine_others(a: NDArray[Any], b: NDArray[Any], *, limit: float, agree_gradient: float) -> NDArray[Any]:
    """Mean of the two middle values where they agree, the lower one where not (float32 images)."""
    with np.errstate(invalid="ignore"):
        apart = b - a > limit + agree_gradient * measure_derivative(a)
        return np.where(apart, a, (a + b) / np.float32(2))


def fill_holes(image: NDArray[Any], *, smooth: float) -> NDArray[Any]:
    """NaN pixels replaced by the mean of their 3x3, twice; in place.

    Only where at least 4 of the 9 exist and differ by less than ``smooth``: a hole in the core of a star can't be
    told from its neighbors.
    """
    for _ in range(2):
        ys, xs = locate(np.isnan(image))
        if not len(ys):
            return image
        values = gather(image, ys, xs, 1)
        number = np.isfinite(values).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.nansum(values, axis=0, dtype=float) / number
            spread = np.fmax.reduce(values) - np.fmin.reduce(values)
        fill = (number >= _FILL_NEIGHBORS) & (spread < smooth)
        image[ys[fill], xs[fill]] = mean[fill]
    return image


def measure_pair_sigma(shelf: Shelf, windows: list[Window], groups: Sequence[int], *, pairs: int = 12) -> float:
    """1.4826 MAD of the difference of two mosaics, median over successive pairs of ``groups``; 0 without overlap."""
    found = []
    for pair in pairwise(groups[: pairs + 1]):
        both = windows[pair[0]].overlap(windows[pair[1]])
        if both is None:
            continue
        parts = []
        step = max(1, both.shape[0] // _PAIR_ROWS)
        for group in pair:
            window = windows[group]
            rows, columns = both.within(window)
            lines = shelf.read_every(mosaic_name(group), window.shape, range(rows.start, rows.stop, step))
            parts.append(lines[:, columns][:, ::3])
        found.append(clipping.median_mad(parts[0] - parts[1])[1])
    found = [s for s in found if np.isfinite(s)]
    return float(np.median(found)) if found else 0.0


def build_reference(
    shelf: Shelf,
    windows: list[Window],
    group: int,
    shape: tuple[int, int],
    *,
    others: bool,
    agree_sigma: float,
    agree_gradient: float,
    pair_sigma: float,
    kin: str = "",
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """The image a group is compared with, on its window, and the number m of other groups (uint16).

    With ``others`` false the median of all groups, holes left as they are. ``kin`` is the suffix of the planes of the
    groups at the same roll angle, where there are several angles; then a third map is given (uint8): :data:`FOREIGN`
    where other angles alone looked, :data:`ONE_KIN` where one group at the same angle is the model.
    """
    window = windows[group]
    out = np.empty(window.shape, np.float32)
    cover = np.empty(window.shape, np.uint16)
    foreign = np.zeros(window.shape, np.uint8) if kin else None
    halo = (5 if kin else 3) if others else 0
    for top in range(0, window.shape[0], _ROWS):
        bottom = min(top + _ROWS, window.shape[0])
        y0, y1 = max(0, top - halo), min(window.shape[0], bottom + halo)
        part = Window(window.y0 + y0, window.y0 + y1, window.x0, window.x1)
        own = shelf.read(mosaic_name(group), window.shape, slice(y0, y1))
        if others:
            limit = agree_sigma * pair_sigma
            a, b, m = middle_of_others(*read_planes(shelf, shape, part), own)
            image = combine_others(a, b, limit=limit, agree_gradient=agree_gradient)
            if foreign is not None:
                a, b, number = middle_of_others(*read_planes(shelf, shape, part, kin), own)
                near = combine_others(a, b, limit=limit, agree_gradient=agree_gradient)
                use = prefer_kin(image, near, number, sigma=pair_sigma)
                image, m = np.where(use, near, image), np.where(use, number, m)
                which = np.where(use & (number == 1), ONE_KIN, np.where((number == 0) & (m > 0), FOREIGN, 0))
                foreign[top:bottom] = which[top - y0 : bottom - y0]
            image = fill_holes(image, smooth=_FILL_SMOOTH * pair_sigma)
        else:
            image = read_window(shelf, "median", shape, part)
            m = read_window(shelf, "count", shape, part, np.uint16) - np.isfinite(own)
        inner = slice(top - y0, bottom - y0)
        out[top:bottom], cover[top:bottom] = image[inner], m[inner]
    return out, cover, foreign


# --- 3. blot ----------------------------------------------------------------------------------------------


def blot_bands(
    image: NDArray[Any],
    cover: NDArray[Any] | None,
    window: Window,
    pixel_map: PixelMap,
    *,
    interp: str,
    direct: bool = False,
    slack: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """The reference at an exposure's pixels (float32), m there (uint8, at most 255), and the slack, band by band."""
    ny, nx = pixel_map.shape
    loose = None if slack is None else np.zeros((ny, nx), np.float32)
    model = np.empty((ny, nx), np.float32)
    others = np.zeros((ny, nx), np.uint8)
    if direct and interp == "poly3":
        _blot_direct(image, cover, window, pixel_map, slack, (model, others, loose))
        return model, others, loose
    filled = None if interp == "linear" else resample_drizzle.fill_for_cubic(image)
    for top in range(0, ny, _ROWS):
        rows = slice(top, min(top + _ROWS, ny))
        positions = evaluate_map(pixel_map, rows=rows)
        model[rows] = resample_drizzle.blot(image, window, positions, interp=interp, filled=filled)
        if cover is not None:
            others[rows] = np.minimum(_nearest(cover, window, positions), 255)
        if slack is not None and loose is not None:
            loose[rows] = _nearest(slack, window, positions)
    return model, others, loose


def _blot_direct(
    image: NDArray[Any],
    cover: NDArray[Any] | None,
    window: Window,
    pixel_map: PixelMap,
    slack: NDArray[Any] | None,
    out: tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None],
) -> None:
    """The same by :mod:`badpix.image.resample_direct`, into arrays."""
    model, others, loose = out
    padded, tx = blots.pad_image(image, window), blots.map_columns(pixel_map)
    number = None if cover is None else blots.pad_zero(np.minimum(cover, 255).astype(np.uint8))
    allowed = None if slack is None else blots.pad_zero(slack)
    buffers = blots.Buffers((blots.ROWS, model.shape[1]))
    for top in range(0, len(model), blots.ROWS):
        rows = slice(top, min(top + blots.ROWS, len(model)))
        model[rows], nearest = blots.blot_cubic(padded, *blots.place_rows(pixel_map, rows, tx), buffers)
        if number is not None:
            np.take(number, nearest, out=others[rows], mode="clip")
        if allowed is not None and loose is not None:
            np.take(allowed, nearest, out=loose[rows], mode="clip")


def _nearest(image: NDArray[Any], window: Window, positions: NDArray[Any]) -> NDArray[Any]:
    """Values at the nearest grid pixel, 0 outside."""
    ny, nx = window.shape
    x, y = np.rint(positions[..., 0]) - window.x0, np.rint(positions[..., 1]) - window.y0
    with np.errstate(invalid="ignore"):  # NaN is outside
        outside = ~((x >= 0) & (x < nx) & (y >= 0) & (y < ny))
    y *= nx
    y += x
    y[outside] = 0
    values: NDArray[Any] = np.take(image.reshape(-1), y.astype(np.intp))
    values[outside] = 0
    return values
