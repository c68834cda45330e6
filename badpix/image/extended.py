"""What is faint but wide in one exposure: trails out of focus, halos of snowballs.

A pixel of these stands a few sigma out at most, a line of nine not enough; an area does.

1. Differences z of flat pixels (no source, others saw them) that are no hits themselves are summed over 4 x 4 pixels,
   in sigma of the sum. Blocks of less than 10 usable pixels don't count.
2. Sums over 3 x 3 blocks, above their median in 24 x 24 blocks around (what is wider is sky, not an event), in units
   of their own scatter over the image: stripes, flat-field errors and the noise that pixels share raise it.
3. Seeds exceed ``wide_snr``; they grow to neighbors above half of it. Pixels of a block found count where its own
   mean, and that of the 5 x 5 pixels around each, exceed 0.7 sigma a pixel (:func:`find_extended`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics import clipping
from badpix.numerics.neighbors import chunks, gather, grow, locate

BLOCK = 4  # pixels
FILLED = 10  # of 16 pixels
LOW, HIGH = -3.0, 4.0  # sigma, to which pixels are clipped
SKY = 24  # blocks, over which the level is measured
GROWTH = 0.5  # of the limit, to which seeds grow
BAND = 64  # blocks
ROUNDS = 12  # of growth, a block each
MEAN = 0.7  # sigma a pixel, that a block must exceed by itself, and the surroundings of each of its pixels
EDGE = 2  # pixels to each side of these surroundings
SAMPLE = 400_000  # pixels by which covers are leveled, about
FEWEST = 16  # blocks of a tile that tell its level


def find_extended(z: NDArray[Any], flat: NDArray[Any], *, wide_snr: float) -> NDArray[Any]:
    """Pixels of wide faint events, bool (ny, nx).

    Parameters
    ----------
    z : float32 (ny, nx)
        Difference to the model in sigma; NaN on bad pixels.
    flat : bool (ny, nx)
        Pixels without structure in the model, that others saw and no hit touched.
    wide_snr : float
        Limit of 12 x 12 pixels, sigma.
    """
    found = np.zeros(z.shape, bool)
    sums, mean = _sum_blocks(z, flat)
    if not sums.size:
        return found
    wide = _sum_around(sums)
    level = _level_around(wide)
    scatter = clipping.median_mad(wide - level)[1]
    if not np.isfinite(scatter):
        return found
    with np.errstate(invalid="ignore"):
        height = (wide - level) / max(1.0, scatter)
        near, seeds = height > GROWTH * wide_snr, height > wide_snr
        for _ in range(ROUNDS):
            seeds |= grow(seeds) & near
        seeds = grow(seeds) & (mean > MEAN)
    ny, nx = (BLOCK * n for n in seeds.shape)
    found[:ny, :nx] = seeds.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    found &= flat & np.isfinite(z)
    ys, xs = locate(found)
    for part in chunks(len(ys)):
        around = np.clip(gather(z, ys[part], xs[part], EDGE), LOW, HIGH)
        known = np.isfinite(around).sum(axis=0)
        beyond = np.nansum(around, axis=0) < MEAN * known
        found[ys[part][beyond], xs[part][beyond]] = False
    return found


def level_covers(
    z: NDArray[Any], cover: NDArray[Any], use: NDArray[Any], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """z less the median of the usable pixels that equally many others saw, into ``out``, which may be z.

    At the edge of another exposure the model changes by what their skies differ, and a strip beside it is no event.
    """
    level = np.zeros(int(cover.max(initial=0)) + 1, np.float32)
    every = slice(None, None, max(1, z.size // SAMPLE))
    values, seen, usable = z.reshape(-1)[every], cover.reshape(-1)[every], use.reshape(-1)[every]
    for number in np.flatnonzero(np.bincount(seen[usable])):
        middle = clipping.median_mad(values[usable & (seen == number)])[0]
        if np.isfinite(middle):
            level[number] = middle
    out = np.empty_like(z) if out is None else out
    for top in range(0, len(z), BAND):
        rows = slice(top, top + BAND)
        np.subtract(z[rows], np.take(level, cover[rows], mode="clip"), out=out[rows])
    return out


def _sum_blocks(z: NDArray[Any], flat: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums of the usable pixels of each block, in sigma of the sum, and their means; NaN where there are too few."""
    ny, nx = (n // BLOCK for n in z.shape)
    total, number = np.zeros((ny, nx), np.float32), np.full((ny, nx), np.nan, np.float32)
    for top in range(0, ny, BAND):  # the copies of a band stay in cache
        rows = slice(top, min(top + BAND, ny))
        inner = slice(rows.start * BLOCK, rows.stop * BLOCK), slice(0, nx * BLOCK)
        use = flat[inner] & np.isfinite(z[inner])
        clipped = np.clip(z[inner], LOW, HIGH)
        np.copyto(clipped, 0, where=~use)
        total[rows] = _sum_every(_sum_every(clipped).T).T
        count = _sum_every(_sum_every(use.view(np.uint8)).T).T
        number[rows] = np.where(count >= FILLED, count, np.nan)
    return total / np.sqrt(number), total / number


def _sum_every(image: NDArray[Any]) -> NDArray[Any]:
    """Sums of each four rows."""
    out: NDArray[Any] = image[::BLOCK].copy()
    for k in range(1, BLOCK):
        out += image[k::BLOCK]
    return out


def _sum_around(sums: NDArray[Any]) -> NDArray[Any]:
    """Sums over 3 x 3 blocks over the root of their number; NaN without the middle one or 5 of them."""
    padded = np.pad(sums, 1, constant_values=np.nan)
    ny, nx = sums.shape
    around = [padded[y : y + ny, x : x + nx] for y, x in np.ndindex(3, 3)]
    known = np.sum([np.isfinite(part) for part in around], axis=0)
    total = np.sum([np.nan_to_num(part) for part in around], axis=0)
    return np.where((known >= 5) & np.isfinite(sums), total / np.sqrt(np.maximum(known, 1)), np.float32(np.nan))


def _level_around(wide: NDArray[Any]) -> NDArray[Any]:
    """Medians of tiles of 24 x 24 blocks, linear between their middles; of the image where a tile has too few."""
    ny, nx = (max(1, round(n / SKY)) for n in wide.shape)
    rows, columns = (np.linspace(0, n, k + 1).astype(int) for n, k in zip(wide.shape, (ny, nx), strict=True))
    usual = clipping.median_mad(wide)[0]
    tiles = np.full((ny, nx), usual)
    for j, i in np.ndindex(ny, nx):
        part = wide[rows[j] : rows[j + 1], columns[i] : columns[i + 1]]
        if np.isfinite(part).sum() >= FEWEST:
            tiles[j, i] = clipping.median_mad(part)[0]
    across = [_between(n, k) for n, k in zip(wide.shape, (ny, nx), strict=True)]
    (low, high, up), (left, right, over) = across
    lines = tiles[:, left] * (1 - over) + tiles[:, right] * over
    level: NDArray[Any] = lines[low] * (1 - up)[:, None] + lines[high] * up[:, None]
    return level


def _between(number: int, tiles: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """For each of ``number`` blocks: the tiles whose middles lie before and behind it, and how far it is from one to
    the other."""
    at = np.clip((np.arange(number) + 0.5) * tiles / number - 0.5, 0, tiles - 1)
    first = np.minimum(at.astype(np.intp), max(0, tiles - 2))
    return first, np.minimum(first + 1, tiles - 1), at - first
