"""What the pixels around do to candidates: bad ones among them, their leaks, and the edge.

1. A bad neighbor moves the level that a pixel is compared with by up to :data:`SHIFT` noises of an exposure.
2. It leaks by the inter-pixel capacitance, which is measured on the hot pixels at hand where there are some.
3. At the edge of the light a source beyond it is a slope without a range.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.ipc import leaked
from badpix.numerics.neighbors import AROUND, SIDES, Places
from badpix.science.residuals import offsets_of
from badpix.science.series import Table

# noises: the level of eight pixels of which one is far above or below (order statistics); of images, of spectra
SHIFT = (0.24, 0.18)
FOLLOWS = 1 / 8  # of a small excess of one of them that the level follows
LEAKS = 1.0  # of what it leaks, over the noise of the stack: a pixel on which leaks are measured
LEAKING = 12  # such pixels that say as much as the detector's usual coupling
ALONE = 5.0  # of what it leaks: most that a neighbor of such a pixel shows
LINE_REACH = 2  # pixels from the edge at which a line is cut
AGREE = 0.5  # of the mean: least median of the pointings' means
LEAST_BRIGHT = 3  # exposures in which a switching pixel is bright

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]


def measure_ipc(mean: Float, table: Table, places: Places, usual: float, axis: int | None) -> float:
    """Signal of a side neighbor over that of a hot pixel, as the hot pixels at hand show it, and the usual one.

    Used are candidates that are hot in most pointings, alone, and so bright that their leak is no less than
    :data:`LEAKS` of the noise of the stack, and not clipped in a single exposure.

    Parameters
    ----------
    mean : ndarray of float32
        (ny, nx) mean of the clipped residuals.
    table : dict
        Of the candidates.
    places : Places
        Where they lie.
    usual : float
        Of the detector.
    axis : int or None
        Of the dispersion: sides along it lie among the neighbors of the hot pixel's sides.
    """
    with np.errstate(invalid="ignore"):
        bright = (table["typical"] > AGREE * table["mean"]) & (table["least"] > AGREE * table["mean"])
        bright &= (table["mean"] * usual > LEAKS * table["noise_error"]) & (table["mean"] * usual < table["noise"])
        bright &= ~(places.neighbors(table["mean"], AROUND, 0.0).max(axis=0) > ALONE * usual * table["mean"])
    y, x = np.divmod(places.index[bright], places.shape[1])
    inside = (y > 0) & (x > 0) & (y < places.shape[0] - 1) & (x < places.shape[1] - 1)
    center, noise = table["mean"][bright][inside], table["noise"][bright][inside]
    at = [side for side in SIDES if axis is None or side not in offsets_of(axis)]
    sides = np.array([mean[y[inside] + dy, x[inside] + dx] for dy, dx in at], np.float32).reshape(len(at), -1)
    with np.errstate(invalid="ignore"):
        ratio = (np.median(sides, axis=0) + (0 if axis is not None else SHIFT[0] * noise)) / center
    ratio = ratio[np.isfinite(ratio)]
    measured = float(np.median(ratio)) if ratio.size else 0.0
    return (LEAKING * usual + ratio.size * max(measured, 0.0)) / (LEAKING + ratio.size)


def measure_shift(table: Table, places: Places, axis: int | None) -> Float:
    """By how much bad neighbors move what candidates are compared with (step 1)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        far = np.nan_to_num(table["mean"] / table["noise"])
    most = SHIFT[axis is not None]
    moved = most * np.tanh(FOLLOWS / most * far) * np.nan_to_num(table["noise"])
    near = places.neighbors(moved, offsets_of(axis), 0.0)
    out: Float = near.sum(axis=0, dtype=np.float32)
    return out


def measure_leak(table: Table, level: Float, places: Places, ipc: float) -> Float:
    """What side neighbors leak into candidates; those that switch, when they are bright (step 2)."""
    with np.errstate(invalid="ignore"):
        strong = np.where(table["bright"] >= LEAST_BRIGHT, np.fmax(table["height"], level), level)
        out: Float = leaked(np.maximum(strong, 0), places, ipc)
    return out


def find_alone(table: Table, places: Places, share: float) -> Bool:
    """Candidates that are no leak of a brighter neighbor, which shows ``share`` of itself beside it (step 5)."""
    peak = np.where(table["bright"] > 0, table["height"], table["mean"])
    beside = places.neighbors(np.nan_to_num(peak), SIDES, 0.0).max(axis=0, initial=0)
    return np.asarray(~(beside * share > peak))


def find_edges(places: Places, reference: Bool) -> Bool:
    """Candidates at the edge of the light-sensitive pixels: of a star beyond it they see the slope, and no range."""
    ny, nx = places.shape
    y, x = np.divmod(places.index, nx)
    out: Bool = (y == 0) | (x == 0) | (y == ny - 1) | (x == nx - 1)
    for dy, dx in SIDES:
        out |= reference[np.clip(y + dy, 0, ny - 1), np.clip(x + dx, 0, nx - 1)]
    return out


def at_edge(places: Places, axis: int) -> Bool:
    """Candidates so near the edge along the dispersion that a line beyond it could make them sharp."""
    place, size = np.divmod(places.index, places.shape[1])[axis], places.shape[axis]
    return np.asarray((place < LINE_REACH) | (place >= size - LINE_REACH))
