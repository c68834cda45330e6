"""The depth of a search in flats: which defects of the response these exposures could have shown.

1. Good, lit pixels on a grid are chosen, the same ones for equal flats; a kind and a strength fall to each.
2. Their normalized rate becomes that of a defect: DEAD and LOW_QE respond to a part of the light; an OPEN pixel shows
   little, and its side neighbors collect its charge.
3. The same decisions run over the copy of the normalized image; found is what got its right type, flagged any type.
4. False alarms: pixels as far above the light as the limit is below it.

The normalization is not done again: one changed pixel in sixteen does not move it.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from badpix.detectors import Detector
from badpix.flats.steep import Steep
from badpix.flats.types import dead_limit, find_flat_types
from badpix.io.depths import Alarm, Depth
from badpix.numerics import neighbors
from badpix.settings.flats import FlatSettings

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]

SPACING = 4  # rows and columns between changed pixels
DEAD_PARTS = (0.0, 0.4, 0.8, 1.0, 1.2, 1.6)  # of the limit of DEAD
LOW_PARTS = (0.4, 0.8, 0.95, 1.0, 1.05, 1.2)  # of the limit of LOW_QE
OPEN_EXCESS = (0.25, 0.5, 1.0, 1.5, 2.5, 5.0)  # of min_open_excess, collected by each side neighbor
OPEN_OWN = 0.1  # part of the light that an OPEN pixel shows
UNIT = "of the light"


def choose_strengths(p: FlatSettings, detector: Detector) -> dict[str, list[float]]:
    """Six strengths of each kind that is searched."""
    out = {}
    if p.dead_search:
        out["DEAD"] = [part * dead_limit(p, detector) for part in DEAD_PARTS]
    if p.low_qe_and_open_search:
        out["LOW_QE"] = [part * p.max_low_qe_norm_signal for part in LOW_PARTS]
        out["OPEN"] = [part * p.min_open_excess for part in OPEN_EXCESS]
    return out


def measure_depth(
    norm: Float, flagged: Bool, lit: Bool, light: Steep | None, p: FlatSettings, detector: Detector
) -> tuple[list[Depth], list[Alarm]]:
    """The depth of a search that is done.

    Parameters
    ----------
    norm : ndarray
        (ny, nx) normalized rate, NaN where undetermined.
    flagged, lit : ndarray
        (ny, nx) bool: pixels of any type; pixels that could be judged.
    light : Steep or None
        As of :func:`badpix.flats.types.find_flat_types`.
    p : FlatSettings
    detector : Detector

    Returns
    -------
    depth, alarms : list
    """
    good = lit & np.isfinite(norm) & neighbors.clear_of(flagged)
    strengths = choose_strengths(p, detector)
    y, x = choose_pixels(good, p.depth_pixels)
    cells = np.random.default_rng(crc32(norm.tobytes())).permutation(np.arange(len(y)) % (6 * max(len(strengths), 1)))
    kind, level = np.divmod(cells, 6)
    changed = norm.copy()
    light = None if light is None else light._replace(beside=light.beside.copy())
    for k, (name, values) in enumerate(strengths.items()):
        mine = kind == k
        put_defects(changed, y[mine], x[mine], np.asarray(values, np.float32)[level[mine]], name, light)
    maps = find_flat_types(changed, p, detector, light).maps
    any_type = np.any([maps[name][y, x] for name in maps], axis=0)
    rows = []
    for k, (name, values) in enumerate(strengths.items()):
        right = maps[name][y, x]
        for number, value in enumerate(values):
            mine = (kind == k) & (level == number)
            counts = (int((part & mine).sum()) for part in (np.ones_like(mine), right, any_type))
            rows.append(Depth(name, float(value), UNIT, *counts))
    return rows, count_above(norm, good, strengths, p, detector)


def choose_pixels(good: Bool, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Good pixels on the grid, evenly spread where there are more than asked for."""
    grid = np.zeros_like(good)
    grid[SPACING // 2 : -1 : SPACING, SPACING // 2 : -1 : SPACING] = True
    y, x = np.nonzero(good & grid)
    if len(y) > most:
        some = np.linspace(0, len(y) - 1, most).astype(np.intp)
        y, x = y[some], x[some]
    return y, x


def put_defects(
    norm: Float, y: NDArray[np.intp], x: NDArray[np.intp], value: Float, name: str, light: Steep | None = None
) -> None:
    """Change the normalized rate of some pixels to that of a defect, in place.

    ``value``: part of the light that they show; of OPEN pixels what each side neighbor collects of theirs. ``light``
    where it is steep: neighbors that are not judged take in the charge, too.
    """
    if name != "OPEN":
        norm[y, x] *= value
        return
    norm[y, x] *= np.float32(OPEN_OWN)
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        if light is None:
            norm[y + dy, x + dx] += value
        else:
            norm[y + dy, x + dx] += value * light.own[y, x] / light.own[y + dy, x + dx]
            light.beside[y + dy, x + dx] += value * light.own[y, x]


def count_above(
    norm: Float, good: Bool, strengths: dict[str, list[float]], p: FlatSettings, detector: Detector
) -> list[Alarm]:
    """The sign test: pixels as far above the light as the limits are below it."""
    limits = {"DEAD": dead_limit(p, detector), "LOW_QE": p.max_low_qe_norm_signal}
    with np.errstate(invalid="ignore"):
        return [
            Alarm(name, "sign", int(good.sum()), int((good & (norm > 2 - limits[name])).sum()))
            for name in limits
            if name in strengths
        ]
