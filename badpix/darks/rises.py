"""Ramps that rise: what is measured beside hits and beside the best step up, of many ramps at once.

Few ramps of an integration have jump flags or a slope above the noise. They are put aside, integration by integration
(:meth:`Rises.add`), and measured together (:mod:`badpix.darks.hits`): numpy then works on thousands of columns, not
on some dozens. Each column is measured by itself, so the results hang on no other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from badpix.darks.cells import Cells, take
from badpix.darks.hits import measure_hits, steady_slope

Array = NDArray[np.float32]
T = TypeVar("T", np.float32, np.uint16)

SIGMA = 5.0  # of the slope from which on a ramp rises
TOGETHER = 4096  # ramps measured at once


@dataclass(frozen=True)
class Columns:
    """Where in a table of values the numbers of a ramp stand: what is measured again."""

    residual: int
    white: int
    flatness: int
    memory: int
    calm: int
    steady: int


@dataclass(frozen=True)
class _Part:
    """Some ramps of an integration, (G, n), and where what is measured of them goes: ``values[:, pixels]``."""

    ramps: Array
    jumps: NDArray[np.uint16]
    values: Array
    pixels: NDArray[np.intp]


class Rises:
    """Ramps that wait to be measured again.

    Parameters
    ----------
    design : ndarray
        (G, 2) float32: what mean level and slope contribute to each group.
    weights : tuple of float
        Weights of the lags of the memory.
    columns : Columns
        Where the numbers go; mean level and slope stand in rows 0 and 1.
    most_hits : int
        Hits that are taken off a ramp at most.
    averaged : bool
        Whether a group is the mean of several frames.
    """

    def __init__(
        self, design: Array, weights: tuple[float, ...], columns: Columns, *, most_hits: int, averaged: bool
    ) -> None:
        self.design, self.weights, self.columns = design, weights, columns
        self.most_hits, self.averaged = most_hits, averaged
        self._parts: list[_Part] = []
        self._waiting = 0

    def find(self, slope: Array, white: Array) -> NDArray[np.bool_]:
        """Ramps whose slope (DN/group) stands out of their white noise (DN^2)."""
        with np.errstate(invalid="ignore", over="ignore"):
            found: NDArray[np.bool_] = np.square(slope) * np.float32(len(self.design) ** 3 / 12 / SIGMA**2) > white
        found &= slope > 0
        return found

    def add(
        self,
        ramps: Array,
        drift: Array,
        cells: Cells,
        values: Array,
        jumps: NDArray[np.uint16],
        chosen: tuple[NDArray[np.intp], NDArray[np.intp]],
    ) -> None:
        """Put aside those ramps of an integration that have jumps or rise, all groups of which are good.

        Parameters
        ----------
        ramps : ndarray
            (G, rows, nx), any byte order.
        drift : ndarray
            Medians of the cells.
        cells : Cells
            The cells.
        values : ndarray
            (numbers, pixels) of this integration, which :meth:`finish` fills in.
        jumps : ndarray
            (pixels,) number of jumps.
        chosen : tuple of ndarray
            Pixels that jump, and pixels that are left out.
        """
        again = self.find(values[1], values[self.columns.white])
        jumped, without = chosen
        again[jumped], again[without] = True, False
        pixels = np.flatnonzero(again)
        if not pixels.size:
            return
        self._parts.append(_Part(take(ramps, pixels, drift, cells), jumps[pixels], values, pixels))
        self._waiting += pixels.size
        if self._waiting >= TOGETHER:
            self.finish()

    def finish(self) -> None:
        """Measure what waits."""
        parts, self._parts, self._waiting = self._parts, [], 0
        if not parts:
            return
        ramps, jumps = _join([p.ramps for p in parts]), _join([p.jumps for p in parts])
        mean, slope = (_join([p.values[row, p.pixels] for p in parts]) for row in (0, 1))
        ramps -= self.design[:, 1:] * slope + mean
        ends = np.cumsum([p.pixels.size for p in parts])
        hit = np.flatnonzero(jumps > 0)
        if hit.size:
            found = self._take_hits_off(ramps, jumps, hit)
            where = (self.columns.calm, self.columns.flatness, self.columns.memory, self.columns.white)
            for row, column in zip(where, found, strict=True):
                known = np.isfinite(column)
                _put(parts, ends, row, hit[known], column[known])
        white = _join([p.values[self.columns.white, p.pixels] for p in parts])
        rising = np.flatnonzero(self.find(slope, white))
        if rising.size:
            some = np.resize(rising, max(rising.size, 2))  # numpy adds up a single column in another order
            found_slope = steady_slope(np.take(ramps, some, axis=1), slope[some])[: rising.size]
            _put(parts, ends, self.columns.steady, rising, found_slope)

    def _take_hits_off(self, residuals: Array, jumps: NDArray[np.uint16], hit: NDArray[np.intp]) -> list[Array]:
        """Residual variance, flatness, memory and white variance beside hits, of the ramps ``hit``."""
        some = np.resize(hit, max(hit.size, 2))
        found = measure_hits(
            np.take(residuals, some, axis=1), jumps[some], self.weights, most=self.most_hits, averaged=self.averaged
        )
        return [column[: hit.size] for column in found]


def _join(parts: list[NDArray[T]]) -> NDArray[T]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _put(parts: list[_Part], ends: NDArray[np.intp], row: int, at: NDArray[np.intp], found: Array) -> None:
    """Write numbers of the ramps ``at`` of all parts to where they belong."""
    bounds = np.searchsorted(at, [0, *ends])
    for k, part in enumerate(parts):
        mine = slice(bounds[k], bounds[k + 1])
        start = ends[k] - part.pixels.size
        part.values[row, part.pixels[at[mine] - start]] = found[mine]
