"""Groups that lie beside the others by more than the sharpening kernel can take: their WCS is wrong.

1. Bright peaks of a group's mosaic against the sources of the median of all groups: the offset, within 100 grid
   pixels, that most pairs share (:func:`measure_offset`).
2. A group is misplaced if that offset is above 1.5 pixel and is shared by three times as many sources as lie in
   place, and by more than chance explains (5, and 6 sigma above the mean number).
"""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image import audit as image_audit
from badpix.image.grid import Window
from badpix.image.stack import Shelf, mosaic_name
from badpix.io.tasks import run_in_order

REACH = 100  # grid pixels
IN_PLACE = 1.5
MOST = 400  # sources and peaks that are compared
FEWEST = 5
TIMES = 3.0


def measure_offset(peaks: NDArray[Any], sources: NDArray[Any]) -> tuple[float, float] | None:
    """By how much (x, y) the peaks lie beside the sources; None where they lie in place or it can't be told.

    Parameters
    ----------
    peaks, sources : float (n, 2)
        Positions x, y, brightest first.
    """
    if len(peaks) < FEWEST or len(sources) < FEWEST:
        return None
    pairs = (peaks[:MOST, None] - sources[None, :MOST]).reshape(-1, 2)
    pairs = pairs[(np.abs(pairs) <= REACH).all(axis=1)]
    bins = np.zeros((2 * REACH + 3, 2 * REACH + 3))
    np.add.at(bins, tuple((np.rint(pairs) + REACH + 1).astype(int).T), 1)
    around = np.zeros_like(bins)
    for step in np.ndindex(3, 3):
        around += np.roll(bins, step, (0, 1))
    x, y = (int(v) for v in np.unravel_index(int(np.argmax(around)), bins.shape))
    offset = x - REACH - 2, y - REACH - 2  # the 3x3 lies behind
    most, here, chance = around[x, y], around[REACH + 2, REACH + 2], around.mean()
    if np.hypot(*offset) <= IN_PLACE or most < TIMES * max(here, 1) or most < FEWEST + chance + 6 * chance**0.5:
        return None
    near = pairs[(np.abs(pairs - offset) <= 1.5).all(axis=1)]
    return float(near[:, 0].mean()), float(near[:, 1].mean())


def find_misplaced(
    shelf: Shelf, windows: list[Window], sources: NDArray[Any], *, snr: float, executor: Executor | None = None
) -> dict[int, tuple[float, float]]:
    """The offsets (x, y; grid pixels) of the groups that lie beside the others."""
    if len(windows) < 3:  # the median of two groups has the sources of both
        return {}
    offsets = run_in_order(executor, partial(_measure_group, shelf, sources, snr), list(enumerate(windows)))
    return {group: offset for group, offset in enumerate(offsets) if offset is not None}


def _measure_group(
    shelf: Shelf, sources: NDArray[Any], snr: float, item: tuple[int, Window]
) -> tuple[float, float] | None:
    """Task: the offset of one group."""
    group, window = item
    image = shelf.read(mosaic_name(group), window.shape, slice(None))
    x, y, height = image_audit.find_peaks(image, snr)
    order = np.argsort(-height, kind="stable")[:MOST]
    peaks = np.stack([x[order] + window.x0, y[order] + window.y0], axis=1)
    if not len(peaks):
        return None
    inside = (np.abs(sources - peaks.mean(axis=0)) < np.array(window.shape[::-1])).all(axis=1)
    return measure_offset(peaks, sources[inside])
