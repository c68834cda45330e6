"""What sources could leave at a pixel of one exposure, as other pixels tell: arrays in, arrays out.

A difference between exposures is a cosmic ray, or a source that the dither moved here. Its own surroundings tell
little, where a track looks like structure; the exposure is asked further along the dispersion, and the others are
asked around the pixel. All are in units of the noise, 0 where nothing shows:

1. *Trace*: the median difference 4 to 8 and 12 to 16 pixels away along the dispersion, to either side, where a
   continuum goes on and a track doesn't: their common median where the least of the four medians is not much lower,
   or another exposure shows the source as well (a broad line ends, too); else that least one, as a track ends
   somewhere. A trace may run up to a pixel to the side there, and farther off two. Differences at both sides of it
   are the level.
2. *Line*: the largest difference in the other exposures, in the window in which a dither moves a source. The median
   of the 4 pixels before and behind it along the dispersion is taken off: a trace of another exposure says nothing
   here, as this exposure would show its own. Nor does a line on such a trace, beyond the share that shows here. The
   third largest counts, so that single bad pixels don't.
3. *Blob*: the median of the 8 neighbors in the exposure itself beyond most of the trace, at the most 20 times the
   trace or 10 times the line: a line on a source is as wide as the point-spread function; on blank sky nothing shows
   and nothing is allowed. Twice the trace where another exposure shows the source as well: it would show the line,
   too. The line may peak a pixel beyond the window along the dispersion: this may be its flank. A track is narrow, so
   that the second lowest neighbor is low: a blob counts as far as four times that, or as what goes on at both sides
   across the dispersion, as a thin line in extended emission does.
4. *Cloud*: that second lowest neighbor itself, whatever the others show. Where all neighbors are high, it is extended
   emission that no other exposure has in this slice; no track is that wide. So are the pixels beside two such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.ifu.noise import stand_out
from badpix.numerics.medians import median_rows
from badpix.numerics.neighbors import offsets

_FAR = (4, 5, 6, 7, 8)  # pixels along the dispersion at which a trace goes on ...
_FARTHER = (12, 13, 14, 15, 16)  # ... and at which it still does, while few tracks are that long
_SIDE = (2, 3, 4)  # pixels across it at which a line in extended emission goes on
_ASIDE = (4, 5)  # pixels across it at which it has ended
_BEYOND = 4  # pixels beyond the window, along the dispersion, that show the traces of other exposures
_CHUNK = 4000  # pixels whose surroundings are in memory at a time
_RANK = 3  # which of the largest differences in the window counts

_TRACE, _LINE, _CLOUD, _BESIDE = 0.5, 0.15, 0.8, 0.5  # weights of what shows, beside that of the blob
_TRACE_NOISE, _LINE_NOISE, _BLOB_NOISE, _BESIDE_NOISE = 2.2, 3.0, 0.67, 1.0  # what noise alone gives
_BLOB_OF_TRACE, _BLOB_OF_LINE = 20.0, 10.0  # how much larger a blob can be than what shows ...
_BLOB_OF_SEEN = 2.0  # ... than a trace that another exposure shows, too: it would show its lines
_BLOB_OF_LOW, _BLOB_LEAST = 4.0, 3.0  # ... than the second lowest neighbor, and sigma that are always allowed
_WIDE = 0.3  # share of a pixel that its second lowest neighbor has in extended emission, and in few tracks
_WITH_TRACE = 8.0  # by which the ratio of a line and its trace may differ between exposures
_GOES_ON = 0.4  # share of the common median that the least one has in a trace, and not in a track
_BELOW = 0.75  # share of the trace that lies below its neighbors: they are at its sides
_SEEN, _SEEN_LEAST = 0.5, 5.0  # of the trace, and sigma, which another exposure must show for that
_LEVEL_OF_LOW = 1.5  # how much higher than the second lowest neighbor a level can be
_LEVEL_LEAST = 1.0  # sigma: a lower level is one


def reach(window: tuple[int, int]) -> int:
    """Pixels at most by which what is looked at lies away from a pixel."""
    along, across = _widen(window)
    return max(*_FARTHER, *_ASIDE, along // 2 + _BEYOND, across // 2)


@dataclass(frozen=True)
class Differences:
    """What each exposure has beyond what all have in common, on a padded band, in units of the noise.

    ``along`` and ``across`` are the distances in memory from a pixel to the next along the dispersion and across it.
    """

    values: list[NDArray[Any]]  # float32, shape (ny, nx), NaN where unknown
    along: int
    across: int

    def around(self, along: NDArray[Any], across: NDArray[Any]) -> NDArray[Any]:
        """Distances in memory of a window, shape (along, across)."""
        found: NDArray[Any] = along[:, None] * self.along + across[None, :] * self.across
        return found


@dataclass(frozen=True)
class High:
    """By how much pixels of one exposure are too high, and the trace that runs through them; flat maps.

    ``value``: beyond the level around them, 0 elsewhere; ``common`` and ``least``: from :func:`measure_runs`.
    """

    value: NDArray[Any]
    common: NDArray[Any]
    least: NDArray[Any]


def measure_high(differences: Differences, e: int, at: NDArray[Any], limit: float, strength: float) -> High:
    """By how much some pixels stand out from the level around them, where a trace alone doesn't explain them.

    The level is the median of the 24 neighbors; where these are raised by a wide track it is no higher than what goes
    on along the dispersion, and than emission that is as extended.

    Parameters
    ----------
    differences, e, at
        As of :func:`find_unexplained`.
    limit : float
        The lowest that values will be compared with.
    strength : float
        0: sources explain nothing.
    """
    flat = differences.values[e].reshape(-1)
    common, least = measure_runs(differences, e, at)
    keep = strength**2 * _excess(_TRACE, np.maximum(least, 0), _TRACE_NOISE) < (flat[at] / limit) ** 2 - 1
    at, common, least = at[keep], common[keep], least[keep]
    level = flat[at] - stand_out(differences.values[e], at)
    some = np.flatnonzero(level > _LEVEL_LEAST)
    _, low = measure_blob(differences, e, at[some])
    level[some] = np.minimum(level[some], np.maximum(common[some], _LEVEL_OF_LOW * low))
    maps = High(*np.zeros((3, flat.size), np.float32))
    maps.value[at], maps.common[at], maps.least[at] = flat[at] - level, common, least
    return maps


def find_unexplained(
    differences: Differences,
    e: int,
    at: NDArray[Any],
    high: High,
    *,
    limit: float,
    defects: Sequence[NDArray[Any]],
    window: tuple[int, int],
    strength: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Those of some pixels that are too high beside the noise and what sources could give.

    Parameters
    ----------
    differences : Differences
        Of all exposures.
    e : int
        The exposure whose pixels are asked for.
    at : ndarray of int, shape (n,)
        The pixels, flat indices.
    high : High
        By how much they are too high, in units of the noise.
    limit : float
        What a value must exceed, once sources have been added to the noise.
    defects : sequence of ndarray of bool, flat
        Of each exposure: pixels that say nothing about sources, such as persistent ones.
    window : (int, int)
        Pixels along the dispersion and across it by which a dither moves a source; odd.
    strength : float
        0: sources explain nothing.

    Returns
    -------
    ndarray of int
        A part of ``at``.
    ndarray of int
        Of the rest those that only lines, of this exposure or others, explain.
    """
    at = at[high.value[at] > limit]
    if strength == 0 or not at.size:
        return at, at[:0]
    out, rest = [], []
    for some in (at[i : i + _CHUNK] for i in range(0, at.size, _CHUNK)):
        room = ((high.value[some] / limit) ** 2 - 1) / strength**2  # variance that sources may have
        # most pixels on traces end here: a level only adds to them
        keep = _excess(_TRACE, np.maximum(high.least[some], 0), _TRACE_NOISE) < room
        some, room = some[keep], room[keep]
        level = measure_level(differences, e, some)
        common, least = (np.maximum(v[some] - level, 0) for v in (high.common, high.least))
        keep = _excess(_TRACE, least, _TRACE_NOISE) < room
        some, room = some[keep], room[keep]
        variance = explain(differences, e, some, common[keep], least[keep], room, defects, window)
        keep = variance < room
        keep[keep] = variance[keep] + explain_beside(differences, e, some[keep]) < room[keep]
        out.append(some[keep])
        rest.append(some[~keep])
    return np.concatenate(out), np.concatenate(rest)


def explain(
    differences: Differences,
    e: int,
    at: NDArray[Any],
    common: NDArray[Any],
    least: NDArray[Any],
    room: NDArray[Any],
    defects: Sequence[NDArray[Any]],
    window: tuple[int, int],
) -> NDArray[Any]:
    """Variance that sources could give to a difference, in units of that of the noise.

    Parameters
    ----------
    differences, e, at, defects, window
        As of :func:`find_unexplained`.
    common, least : ndarray of float32, shape (n,)
        The trace, from :func:`measure_runs` and :func:`measure_level`.
    room : ndarray of float32, shape (n,)
        What the variance is compared with: it is exact where it may be on either side.
    """
    if not at.size:
        return np.empty(0, np.float32)
    line, seen = measure_line(differences, e, at, common, defects, window)
    goes_on = (seen > np.maximum(_SEEN * common, _SEEN_LEAST)) | (least > _GOES_ON * common)
    trace = np.where(goes_on, common, least)
    blob, low = (np.maximum(v - _BELOW * trace, 0) for v in measure_blob(differences, e, at))
    np.minimum(blob, _BLOB_OF_LOW * low + _BLOB_LEAST, out=blob)
    np.maximum(blob, measure_across(differences, e, at) - trace, out=blob)
    streaks = _excess(_TRACE, trace, _TRACE_NOISE) + _excess(_LINE, line, _LINE_NOISE)
    elsewhere = seen > np.maximum(_SEEN * trace, _SEEN_LEAST)  # this source, with its lines
    most = np.where(elsewhere, _BLOB_OF_SEEN, _BLOB_OF_TRACE) * (trace - _TRACE_NOISE)
    np.maximum(most, _BLOB_OF_LINE * (line - _LINE_NOISE), out=most)
    asked = np.flatnonzero((blob > most) & (streaks + _excess(1.0, blob, _BLOB_NOISE) >= room))
    if asked.size:
        wide, _ = measure_line(differences, e, at[asked], trace[asked], defects, _widen(window))
        most[asked] = np.maximum(most[asked], _BLOB_OF_LINE * (wide - _LINE_NOISE))
    blob = np.maximum(np.minimum(blob, np.maximum(most, 0)), _CLOUD * low)
    found: NDArray[Any] = streaks + _excess(1.0, blob, _BLOB_NOISE)
    return found


def explain_beside(differences: Differences, e: int, at: NDArray[Any]) -> NDArray[Any]:
    """Variance that extended emission could give which two of the 8 neighbors show."""
    values = differences.values[e]
    near = at[:, None] + offsets(3, 3, values.shape[1])
    _, low = measure_blob(differences, e, near.reshape(-1))
    low[~(low > _WIDE * values.reshape(-1)[near.reshape(-1)])] = 0
    low = np.sort(low.reshape(near.shape), axis=1)
    return _excess(_BESIDE, low[:, -2], _BESIDE_NOISE)


def _widen(window: tuple[int, int]) -> tuple[int, int]:
    """The window in which a line may peak of which only the flank lies in another one."""
    return window[0] + 2, window[1]


def _excess(weight: float, value: NDArray[Any], noise: float) -> NDArray[Any]:
    """Weighted square beyond what noise gives."""
    return weight**2 * np.maximum(value**2 - noise**2, 0)


def measure_runs(differences: Differences, e: int, at: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """How high the exposure is further along the dispersion, up to two pixels to the side; 0 where unknown.

    The lower median of all of it, and the least of the medians before and behind the pixel, near and farther off.
    """
    values = differences.values[e].reshape(-1)
    parts = []
    for steps, aside in ((_FAR, (1, -1)), (_FARTHER, (1, -1, 2, -2))):  # a bent trace runs further aside there
        for sign in (-1, 1):
            far = sign * np.array(steps) * differences.along
            middle = values[at[:, None] + far]
            for side in aside:
                np.fmax(middle, values[at[:, None] + (far + side * differences.across)], out=middle)
            parts.append(middle)
    least = np.fmin.reduce([median_rows(part.copy()) for part in parts])
    middle = np.concatenate(parts, axis=1)
    middle.sort(axis=1)  # NaN last
    half = np.maximum((np.isfinite(middle).sum(axis=1) - 1) // 2, 0)
    common: NDArray[Any] = middle[np.arange(at.size), half]
    for found in (common, least):
        found[np.isnan(found)] = 0
    return common, least


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
    shown = np.float32(_WITH_TRACE) * np.maximum(own, np.float32(_TRACE_NOISE))
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
