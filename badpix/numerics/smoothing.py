"""Box averages of images with missing pixels, in blocks of rows. Pure numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 32  # rows of an image worked on at a time; fixed, so that results do not depend on the memory limit
Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]


def blocks(ny: int) -> list[slice]:
    """All rows in blocks that stay in the cache."""
    return [slice(start, min(start + BLOCK, ny)) for start in range(0, ny, BLOCK)]


def measure_box_mean(image: Float, weight: Bool, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean of the pixels of a ``width`` x ``width`` box that exist and have weight, and their share of the box.

    Parameters
    ----------
    image : ndarray
        (ny, nx).
    weight : ndarray of bool
        (ny, nx), pixels to use; must be False where the image is NaN.
    width : int
        Odd width.

    Returns
    -------
    mean, share : ndarray of float32
        (ny, nx) each; the mean is NaN where the share is 0.
    """
    ny, nx = image.shape
    half = width // 2
    mean = np.empty(image.shape, np.float32)
    share = np.empty(image.shape, np.float32)
    for rows in blocks(ny):
        first, last = max(0, rows.start - half), min(ny, rows.stop + half)
        frame = (rows.stop - rows.start + 2 * half, nx + 2 * half)
        inside = (slice(first - rows.start + half, last - rows.start + half), slice(half, half + nx))
        values, use = np.zeros(frame), np.zeros(frame, np.min_scalar_type(width**2))
        use[inside] = weight[first:last]
        np.copyto(values[inside], image[first:last], where=weight[first:last])
        number = _box_sum(use, width)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean[rows] = _box_sum(values, width) / number
        share[rows] = number / np.float32(width**2)
    return mean, share


def _box_sum(values: NDArray[Any], width: int) -> NDArray[Any]:
    """Sums over all boxes that lie inside: (ny - width + 1, nx - width + 1); along y, then x."""
    return _run_sum(_run_sum(values, width).T, width).T


def _run_sum(values: NDArray[Any], width: int) -> NDArray[Any]:
    """Sums of ``width`` consecutive rows: runs of 1, 2, 4, ... rows, put together; nothing is subtracted again."""
    run, length = values, 1
    out: NDArray[Any] | None = None
    done = 0
    n = len(values) - width + 1
    while True:
        if width & length:
            part = run[done : done + n]
            out = part.copy() if out is None else np.add(out, part, out=out)
            done += length
        if 2 * length > width:
            return values[:0] if out is None else out
        run = run[:-length] + run[length:]
        length *= 2
