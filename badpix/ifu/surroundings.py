"""What exposures show around some pixels: along the dispersion, across it, close by, in the other exposures.

Differences from what all exposures have in common, in units of the noise; NaN where unknown. What is made of these
measurements is in :mod:`badpix.ifu.sources`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.medians import median_rows
from badpix.numerics.neighbors import offsets

TRACE_NOISE = 2.2  # what noise alone gives of a trace
POOL = 8  # pixels that share one of the largest differences around

_FAR = (4, 5, 6, 7, 8)  # pixels along the dispersion at which a trace goes on ...
_FARTHER = (12, 13, 14, 15, 16)  # ... and at which it still does, while few tracks are that long
_SIDE = (2, 3, 4)  # pixels across it at which a line in extended emission goes on
_ASIDE = (4, 5)  # pixels across it at which it has ended
_BEYOND = 4  # pixels beyond the window, along the dispersion, that show the traces of other exposures
_STRIP = 1 << 16  # pixels of a frame that stay in the processor's cache
_RANK = 3  # which of the largest differences in the window counts
_WITH_TRACE = 8.0  # by which the ratio of a line and its trace may differ between exposures


def reach(window: tuple[int, int]) -> int:
    """Pixels at most by which what is looked at lies away from a pixel."""
    along, across = widen(window)
    return max(*_FARTHER, *_ASIDE, along // 2 + _BEYOND, across // 2)


def widen(window: tuple[int, int]) -> tuple[int, int]:
    """The window in which a line may peak of which only the flank lies in another one."""
    return window[0] + 2, window[1]


@dataclass(frozen=True)
class Differences:
    """What each exposure has beyond what all have in common, on a padded band, in units of the noise.

    ``along`` and ``across`` are the distances in memory from a pixel to the next along the dispersion and across it.
    """

    values: list[NDArray[Any]]  # float32, shape (ny, nx), NaN where unknown
    along: int
    across: int
    peaks: tuple[NDArray[Any], ...] = ()  # of each exposure, from measure_peaks: what can't matter isn't measured

    def around(self, along: NDArray[Any], across: NDArray[Any]) -> NDArray[Any]:
        """Distances in memory of a window, shape (along, across)."""
        found: NDArray[Any] = along[:, None] * self.along + across[None, :] * self.across
        return found


def measure_run(differences: Differences, e: int, at: NDArray[Any]) -> NDArray[Any]:
    """How high the exposure is further along the dispersion, up to two pixels to the side; 0 where unknown."""
    values = differences.values[e].reshape(-1)
    parts = []
    for steps, aside in ((_FAR, (1, -1)), (_FARTHER, (1, -1, 2, -2))):  # a bent trace runs further aside there
        far = np.array([sign * d for d in steps for sign in (-1, 1)]) * differences.along
        middle = values[at[:, None] + far]
        for side in aside:
            np.fmax(middle, values[at[:, None] + (far + side * differences.across)], out=middle)
        parts.append(middle)
    middle = np.concatenate(parts, axis=1)
    middle.sort(axis=1)  # NaN last
    half = np.maximum((np.isfinite(middle).sum(axis=1) - 1) // 2, 0)
    found: NDArray[Any] = middle[np.arange(at.size), half]
    found[np.isnan(found)] = 0
    return found


def measure_least(differences: Differences, e: int, at: NDArray[Any]) -> NDArray[Any]:
    """The least of the medians of what :func:`measure_run` looks at before and behind a pixel, near and farther off.

    The pixels are in order. Unknown values count as high; 0 where all four medians are of nothing else.
    """
    values = differences.values[e].reshape(-1)
    out = np.empty(at.size, np.float32)
    reach = _FARTHER[-1] * differences.along + 2 * differences.across
    for start in range(0, values.size, _STRIP):
        some = slice(*np.searchsorted(at, (start, start + _STRIP)))
        if some.start < some.stop:
            first = max(start - reach, 0)
            strip = values[first : start + _STRIP + reach]
            out[some] = _measure_least(strip, at[some] - first, differences.along, differences.across)
    return out


def _measure_least(values: NDArray[Any], at: NDArray[Any], along: int, across: int) -> NDArray[Any]:
    found = np.full(at.size, np.inf, np.float32)
    for steps, aside in ((_FAR, 1), (_FARTHER, 2)):
        wide = np.fmin(_run(np.fmax, values, across, 2 * aside + 1), np.float32(np.inf))
        middle = _median_of_five(wide, along)
        first = at - aside * across  # of the pixels beside each
        np.minimum(found, middle[first + steps[0] * along], out=found)
        np.minimum(found, middle[first - steps[-1] * along], out=found)
    found[np.isinf(found)] = 0
    return found


def measure_peaks(values: NDArray[Any], steps: tuple[int, int], window: tuple[int, int]) -> NDArray[Any]:
    """The largest size in the windows of :func:`measure_line`, of each ``POOL`` pixels in memory; 0 at its ends."""
    shape = window[0] + 2 * _BEYOND, window[1]
    flat = values.reshape(-1)
    reach = sum(size // 2 * step for step, size in zip(steps, shape, strict=True))
    out = np.zeros(-(-flat.size // POOL), np.float32)
    for first in range(-(-reach // POOL), (flat.size - reach) // POOL, _STRIP // POOL):
        last = min(first + _STRIP // POOL, (flat.size - reach) // POOL)
        strip = np.fmax(np.abs(flat[first * POOL - reach : last * POOL + reach]), np.float32(0))
        for step, size in zip(steps, shape, strict=True):
            strip = _run(np.maximum, strip, step, size)
        out[first:last] = strip.reshape(-1, POOL).max(axis=1)
    return out


def _run(largest: np.ufunc, values: NDArray[Any], step: int, size: int) -> NDArray[Any]:
    """The largest of ``size`` values, each a step in memory behind the one before, from each value on."""
    reached = 1
    while reached < size:
        more = min(reached, size - reached)
        values = largest(values[: -more * step], values[more * step :])
        reached += more
    return values


def _median_of_five(values: NDArray[Any], step: int) -> NDArray[Any]:
    """The median of five values, each a step in memory behind the one before, from each value on."""
    low, high = np.minimum(values[:-step], values[step:]), np.maximum(values[:-step], values[step:])
    three = 3 * step
    middle, other = np.maximum(low[:-three], low[three:]), np.minimum(high[:-three], high[three:])
    low = np.minimum(middle, other)
    np.maximum(middle, other, out=middle)
    np.minimum(middle, values[2 * step : -2 * step], out=middle)
    found: NDArray[Any] = np.maximum(low, middle, out=middle)
    return found


def measure_level(differences: Differences, e: int, at: NDArray[Any]) -> NDArray[Any]:
    """The level beside the run: the lower one of both sides, at most 0 (structure beside a trace is no level)."""
    values = differences.values[e].reshape(-1)
    far = np.array([-d for d in _FAR] + [*_FAR])
    sides = [differences.around(far, side).reshape(-1) for side in (np.array(_ASIDE), -np.array(_ASIDE))]
    found: NDArray[Any] = np.fmin.reduce([median_rows(values[at[:, None] + side]) for side in sides])
    found = np.fmin(found, np.float32(0))
    return found


def measure_line(
    differences: Differences,
    e: int,
    at: NDArray[Any],
    own: NDArray[Any],
    defects: Sequence[NDArray[Any]],
    window: tuple[int, int],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """How much structure that is no trace the other exposures show in the window, at least 0, and the highest trace.

    Structure on a trace counts in proportion to that of this exposure (``own``): a line comes with its continuum.
    """
    half, columns = window[0] // 2 + _BEYOND, window[1] // 2
    around = differences.around(np.arange(-half, half + 1), np.arange(-columns, columns + 1))
    near = around[:, :, None] + at
    out, traces = np.zeros((2, at.size), np.float32)
    shown = np.float32(_WITH_TRACE) * np.maximum(own, np.float32(TRACE_NOISE))
    for other, values in enumerate(differences.values):
        if other == e:
            continue
        seen = values.reshape(-1)[near]
        seen[defects[other][near]] = np.nan
        beyond = np.concatenate([seen[:_BEYOND], seen[-_BEYOND:]])
        trace = median_rows(beyond.reshape(2 * _BEYOND, -1).T.copy()).reshape(seen.shape[1:])
        trace[np.isnan(trace)] = 0
        np.maximum(traces, trace.max(axis=0), out=traces)
        size = np.abs(seen[_BEYOND:-_BEYOND] - trace)
        size *= np.minimum(1, shown / np.maximum(trace, shown))
        size = size.reshape(-1, at.size).T.copy()
        size[np.isnan(size)] = 0
        rank = min(_RANK, size.shape[1])
        size.partition(-rank, axis=1)
        np.maximum(out, size[:, -rank], out=out)
    return out, traces


def measure_across(differences: Differences, e: int, at: NDArray[Any]) -> NDArray[Any]:
    """How high the exposure is 2 to 4 pixels across the dispersion, on the lower side; 0 where unknown."""
    values = differences.values[e].reshape(-1)
    sides = [sign * np.array(_SIDE) * differences.across for sign in (-1, 1)]
    lower = np.fmin.reduce([median_rows(values[at[:, None] + side]) for side in sides])
    found: NDArray[Any] = np.nan_to_num(lower)
    return found


def measure_blob(differences: Differences, e: int, at: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Median size of the differences of the 8 neighbors, and the second lowest of them, at least 0; 0 if unknown."""
    values = differences.values[e]
    near = values.reshape(-1)[at[:, None] + offsets(3, 3, values.shape[1])]
    low = np.fmax(np.sort(near, axis=1)[:, 1], 0)  # NaN last
    found: NDArray[Any] = np.nan_to_num(median_rows(np.abs(near)))
    return found, low
