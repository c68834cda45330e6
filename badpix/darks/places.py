"""The usual read noise by output and place: what a pixel's noise is compared with.

Outputs differ, alternating columns do, and the frame of the detector may be louder than its middle. The level is
measured on the sample that describes the population, as logarithms of the white noise:

1. The median of every fourth column of each output (outputs that are interleaved, and even and odd columns).
2. What is left: medians of blocks of about 32 columns of an output in the rows of each sampled tile.
3. Between the middles of blocks the level is interpolated linearly, along columns within an output only.
4. Where what is left jumps from one column to the next, another output begins, whatever the amplifiers' map says (a
   subarray may be read through any of them): 1 to 3 once more, with the outputs cut there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BLOCK = 32  # columns of a block
PHASES = 4  # columns after which outputs or their column amplifiers repeat
FEWEST = 16  # pixels that a median is taken of
BESIDE = 8  # columns on each side that tell of a jump
JUMP, JUMP_SIGMA = 0.15, 6.0  # least jump of the logarithm, and in units of its scatter along the columns
MOST_JUMPS = 32

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Levels:
    """Logarithm of the usual noise over the median one.

    Attributes
    ----------
    rows : ndarray
        (R,) middles of the sampled tiles, ascending.
    field : ndarray
        (R, nx) float32 level along their columns, without what follows.
    phase : ndarray
        (nx,) float32: of the column's place among four, in its output.
    """

    rows: NDArray[np.float64]
    field: Float
    phase: Float

    def of_rows(self, start: int, stop: int) -> Float:
        """Noise over the median one of all pixels of some rows: (rows, nx) float32, 1 for the median."""
        return self._at(np.arange(start, stop))

    def of_pixels(self, index: NDArray[np.intp]) -> Float:
        """The same of pixels given by flat indices: (n,) float32."""
        y, x = np.divmod(index, self.field.shape[1])
        low, part = self._between(y)
        between = self.field[low, x] * (1 - part) + self.field[np.minimum(low + 1, len(self.rows) - 1), x] * part
        return np.exp(between + self.phase[x]).astype(np.float32)

    def _at(self, y: NDArray[np.intp]) -> Float:
        low, part = self._between(y)
        high = np.minimum(low + 1, len(self.rows) - 1)
        between = self.field[low] * (1 - part[:, None]) + self.field[high] * part[:, None]
        return np.exp(between + self.phase).astype(np.float32)

    def _between(self, y: NDArray[np.intp]) -> tuple[NDArray[np.intp], Float]:
        """The node at or below each row and the part of the way to the next one."""
        at = np.clip(np.interp(y, self.rows, np.arange(len(self.rows))), 0, len(self.rows) - 1)
        low = at.astype(np.intp)
        return low, (at - low).astype(np.float32)


def measure_levels(
    log_noise: NDArray[np.floating[Any]],
    index: NDArray[np.intp],
    columns: tuple[slice, ...],
    shape: tuple[int, int],
    rows: int,
) -> Levels:
    """Measure the levels on a sample of pixels.

    Parameters
    ----------
    log_noise : ndarray
        (n,) logarithm of the noise of pixels; NaN where not measured.
    index : ndarray
        (n,) flat indices of these pixels.
    columns : tuple of slice
        Columns of each output (:class:`badpix.darks.cells.Cells`); with a step where they are interleaved.
    shape : tuple of int
        Of the frame.
    rows : int
        Rows of a tile.
    """
    known = np.isfinite(log_noise)
    y, x, value = index[known] // shape[1], index[known] % shape[1], log_noise[known].astype(np.float64)
    tiles, tile = np.unique(y // rows, return_inverse=True)
    nodes = np.maximum(tiles, 0) * rows + (rows - 1) / 2
    if not len(value):
        return Levels(np.zeros(1), np.zeros((1, shape[1]), np.float32), np.zeros(shape[1], np.float32))
    value -= np.median(value)
    outputs = find_outputs(columns)
    phase, field = _measure_outputs(value, (tile, len(tiles)), x, outputs, shape[1])
    jumps = find_jumps(value - phase[x] - field[tile, x], x, shape[1])
    if jumps:
        outputs = cut_outputs(outputs, jumps)
        phase, field = _measure_outputs(value, (tile, len(tiles)), x, outputs, shape[1])
    return Levels(nodes, field, phase.astype(np.float32))


def _measure_outputs(
    value: NDArray[np.float64],
    tiles: tuple[NDArray[np.intp], int],
    x: NDArray[np.intp],
    outputs: list[tuple[int, int]],
    nx: int,
) -> tuple[NDArray[np.float64], Float]:
    """Steps 1 to 3: levels of the columns' places among four, (nx,), and of the blocks of each tile, (tiles, nx).

    ``tiles`` are the tile of each pixel and their number.
    """
    tile, number = tiles
    phase = np.zeros(nx)
    for start, stop in outputs:
        mine = (x >= start) & (x < stop)
        for k in range(PHASES):
            some = mine & (x % PHASES == k)
            if some.sum() >= FEWEST:
                phase[start:stop][(np.arange(start, stop) % PHASES) == k] = np.median(value[some])
    rest = value - phase[x]
    field = np.zeros((number, nx), np.float32)
    for start, stop in outputs:
        parts = max(1, round((stop - start) / BLOCK))
        edges = start + (stop - start) * np.arange(parts + 1) // parts
        block = np.searchsorted(edges, x, side="right") - 1
        inside = (x >= start) & (x < stop)
        medians = _block_medians(rest[inside], tile[inside], block[inside], (number, parts))
        field[:, start:stop] = _along(medians, (edges[:-1] + edges[1:] - 1) / 2, np.arange(start, stop))
    return phase, field


def find_jumps(rest: NDArray[np.float64], x: NDArray[np.intp], nx: int) -> list[int]:
    """First columns behind jumps of what is left of the logarithm of the noise, ascending.

    Medians of the columns' medians on both sides are compared, so that single loud columns don't count; of jumps
    closer together than a block the largest is taken.
    """
    if nx <= 2 * BESIDE:
        return []
    middle, size = _column_medians(rest, x, nx), np.zeros(nx)
    sides = _side_medians(middle)
    size[BESIDE : nx - BESIDE + 1] = np.nan_to_num(np.abs(sides[BESIDE:] - sides[:-BESIDE]))
    limit = max(JUMP, JUMP_SIGMA * 1.4826 * float(np.median(size)))
    found: list[int] = []
    while size.max(initial=0) > limit and len(found) < MOST_JUMPS:
        at = int(size.argmax())
        found.append(_refine_jump(middle, at))
        size[max(at - BLOCK, 0) : at + BLOCK + 1] = 0
    return sorted(found)


def _column_medians(rest: NDArray[np.float64], x: NDArray[np.intp], nx: int) -> NDArray[np.float64]:
    """Lower median of the values of each column, (nx,); NaN where there are fewer than four."""
    ordered = rest[np.lexsort((rest, x))]
    count = np.bincount(x, minlength=nx)
    first = np.cumsum(count) - count
    return np.where(count >= 4, ordered[np.minimum(first + (count - 1) // 2, len(ordered) - 1)], np.nan)


def _side_medians(middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower median of each run of :data:`BESIDE` columns; NaN where half of them is not known."""
    ordered = np.sort(sliding_window_view(middle, BESIDE), axis=1)  # NaN last
    count = np.isfinite(ordered).sum(axis=1)
    found = np.take_along_axis(ordered, np.maximum(count - 1, 0)[:, None] // 2, axis=1)[:, 0]
    return np.where(count > BESIDE // 2, found, np.nan)


def _refine_jump(middle: NDArray[np.float64], at: int) -> int:
    """Where around a column its two sides part best: medians of sides hardly change within a few columns."""
    low, high = np.nanmedian(middle[at - BESIDE : at]), np.nanmedian(middle[at : at + BESIDE])
    closer = np.nan_to_num(np.abs(middle - high) - np.abs(middle - low))[at - BESIDE : at + BESIDE]
    cost = [closer[k:].sum() - closer[:k].sum() for k in range(1, 2 * BESIDE)]
    return at - BESIDE + 1 + int(np.argmin(cost))


def cut_outputs(outputs: list[tuple[int, int]], jumps: list[int]) -> list[tuple[int, int]]:
    """Outputs cut before these columns."""
    cuts = [[start, *(k for k in jumps if start < k < stop), stop] for start, stop in outputs]
    return [pair for edges in cuts for pair in pairwise(edges)]


def find_outputs(columns: tuple[slice, ...]) -> list[tuple[int, int]]:
    """First and last (exclusive) column of each output; one for all where they are interleaved."""
    if any((c.step or 1) > 1 for c in columns):
        return [(min(c.start for c in columns), max(c.stop for c in columns))]
    return [(c.start, c.stop) for c in columns]


def _block_medians(
    value: NDArray[np.float64], tile: NDArray[np.intp], block: NDArray[np.intp], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Median of the values of each tile and block; of the whole output's where there are too few."""
    out = np.full(shape, np.median(value) if len(value) else 0.0)
    key = tile * shape[1] + block
    order = np.argsort(key, kind="stable")
    bounds = np.searchsorted(key[order], np.arange(shape[0] * shape[1] + 1))
    for k, (a, b) in enumerate(pairwise(bounds)):
        if b - a >= FEWEST:
            out.flat[k] = np.median(value[order[a:b]])
    return out


def _along(medians: NDArray[np.float64], middles: NDArray[np.float64], x: NDArray[np.intp]) -> NDArray[np.float64]:
    """Medians of blocks interpolated to columns, carried on linearly to the edges of the output: (R, len(x))."""
    if len(middles) == 1:
        return np.repeat(medians, len(x), axis=1)
    low = np.clip(np.searchsorted(middles, x, side="right") - 1, 0, len(middles) - 2)
    part = (x - middles[low]) / (middles[low + 1] - middles[low])
    return medians[:, low] * (1 - part) + medians[:, low + 1] * part
