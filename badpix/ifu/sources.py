"""What sources could leave at a pixel of one exposure, as other pixels tell: arrays in, arrays out.

A difference between exposures is a cosmic ray, or a source that the dither moved here. Its own surroundings tell
little, where a track looks like structure; the exposure is asked further along the dispersion, and the others are
asked around the pixel. All are in units of the noise, 0 where nothing shows (:mod:`badpix.ifu.surroundings`):

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
from badpix.ifu.surroundings import (
    POOL,
    TRACE_NOISE,
    Differences,
    measure_across,
    measure_blob,
    measure_least,
    measure_level,
    measure_line,
    measure_run,
    widen,
)
from badpix.numerics.neighbors import offsets

_CHUNK = 4000  # pixels whose surroundings are in memory at a time

_TRACE, _LINE, _CLOUD, _BESIDE = 0.5, 0.15, 0.8, 0.5  # weights of what shows, beside that of the blob
_LINE_NOISE, _BLOB_NOISE, _BESIDE_NOISE = 3.0, 0.67, 1.0  # what noise alone gives
_BLOB_OF_TRACE, _BLOB_OF_LINE = 20.0, 10.0  # how much larger a blob can be than what shows ...
_BLOB_OF_SEEN = 2.0  # ... than a trace that another exposure shows, too: it would show its lines
_BLOB_OF_LOW, _BLOB_LEAST = 4.0, 3.0  # ... than the second lowest neighbor, and sigma that are always allowed
_BLOB_ON_TRACE = 1.0  # ... and as high as the trace: a sharp one has no low neighbor at its sides
_WIDE = 0.3  # share of a pixel that its second lowest neighbor has in extended emission, and in few tracks
_GOES_ON, _GOES_ON_NOISE = 0.4, 1.5  # share of the common median that the least one has in a trace, not in a track
_BELOW = 0.5  # share of the trace that lies below its neighbors: they are at its sides
_SEEN, _SEEN_LEAST = 0.5, 5.0  # of the trace, and sigma, which another exposure must show for that
_LEVEL_OF_LOW = 1.5  # how much higher than the second lowest neighbor a level can be
_LEVEL_LEAST = 1.0  # sigma: a lower level is one


@dataclass(frozen=True)
class High:
    """Pixels of one exposure that are too high, by how much, and the trace that runs through them.

    ``at``: flat indices, in order; ``value``: beyond the level around them; ``common``: from :func:`measure_run`;
    ``least``: from :func:`measure_least`.
    """

    at: NDArray[Any]
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
    least = measure_least(differences, e, at)
    keep = strength**2 * _excess(_TRACE, np.maximum(least, 0), TRACE_NOISE) < (flat[at] / limit) ** 2 - 1
    at, least = at[keep], least[keep]
    common = measure_run(differences, e, at)
    level = flat[at] - stand_out(differences.values[e], at)
    some = np.flatnonzero(level > _LEVEL_LEAST)
    _, low = measure_blob(differences, e, at[some])
    level[some] = np.minimum(level[some], np.maximum(common[some], _LEVEL_OF_LOW * low))
    return High(at, flat[at] - level, common, least)


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
        The pixels, flat indices; some of ``high``.
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
    where = np.searchsorted(high.at, at)
    keep = high.value[where] > limit
    at, where = at[keep], where[keep]
    if strength == 0 or not at.size:
        return at, at[:0]
    out, rest = [], []
    for here in (where[i : i + _CHUNK] for i in range(0, at.size, _CHUNK)):
        room = ((high.value[here] / limit) ** 2 - 1) / strength**2  # variance that sources may have
        # most pixels on traces end here: a level only adds to them
        keep = _excess(_TRACE, np.maximum(high.least[here], 0), TRACE_NOISE) < room
        some, here, room = high.at[here[keep]], here[keep], room[keep]
        own = look_around(differences, e, some, high.common[here], high.least[here])
        keep = own.floor() < room
        some, room, own = some[keep], room[keep], own.part(keep)
        variance = explain(differences, e, some, own, room, defects, window)
        keep = variance < room
        rest.append(some[~keep])
        some, own, variance = some[keep], own.part(keep), variance[keep]
        room = room[keep] - explain_beside(differences, e, some)
        near = np.flatnonzero(variance >= room)  # what was a bound must be exact here
        variance[near] = explain(differences, e, some[near], own.part(near), room[near], defects, window)
        out.append(some[variance < room])
    return np.concatenate(out), np.concatenate(rest)


@dataclass(frozen=True)
class Own:
    """What an exposure itself shows around some pixels, each of shape (n,): see :func:`look_around`."""

    common: NDArray[Any]
    least: NDArray[Any]
    blob: NDArray[Any]
    low: NDArray[Any]
    across: NDArray[Any]

    def part(self, keep: NDArray[Any]) -> Own:
        """That of some of the pixels."""
        return Own(*(v[keep] for v in (self.common, self.least, self.blob, self.low, self.across)))

    def beyond(self, trace: NDArray[Any], most: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Blob and second lowest neighbor beyond a trace; the blob as a trace that is at ``most`` so high allows."""
        blob, low, across = (np.maximum(v - _BELOW * trace, 0) for v in (self.blob, self.low, self.across))
        allowed = _BLOB_OF_LOW * low + _BLOB_LEAST + _BLOB_ON_TRACE * most
        return np.maximum(np.minimum(blob, allowed), across), low

    def floor(self) -> NDArray[Any]:
        """The least variance that sources give, whatever other exposures show."""
        _, low = self.beyond(self.common, self.common)
        found: NDArray[Any] = _excess(_TRACE, self.least, TRACE_NOISE) + _excess(_CLOUD, low, _BLOB_NOISE / _CLOUD)
        return found

    def ceiling(self, line: NDArray[Any]) -> NDArray[Any]:
        """The largest, where lines of other exposures are no higher than ``line``."""
        blob, low = self.beyond(self.least, self.common)
        streaks = _excess(_TRACE, self.common, TRACE_NOISE) + _excess(_LINE, line, _LINE_NOISE)
        found: NDArray[Any] = streaks + _excess(1.0, np.maximum(blob, _CLOUD * low), _BLOB_NOISE)
        return found


def look_around(differences: Differences, e: int, at: NDArray[Any], common: NDArray[Any], least: NDArray[Any]) -> Own:
    """Trace beside the level, neighbors, and what goes on across the dispersion, of some pixels."""
    level = measure_level(differences, e, at)
    common, least = (np.maximum(v - level, 0) for v in (common, least))
    blob, low = measure_blob(differences, e, at)
    return Own(common, np.minimum(least, common), blob, low, measure_across(differences, e, at))


def explain(
    differences: Differences,
    e: int,
    at: NDArray[Any],
    own: Own,
    room: NDArray[Any],
    defects: Sequence[NDArray[Any]],
    window: tuple[int, int],
) -> NDArray[Any]:
    """Variance that sources could give to a difference, in units of that of the noise.

    Parameters
    ----------
    differences, e, at, defects, window
        As of :func:`find_unexplained`.
    own : Own
        From :func:`look_around`.
    room : ndarray of float32, shape (n,)
        What the variance is compared with: it is exact where it may be on either side.
    """
    if not at.size:
        return np.empty(0, np.float32)
    peaks = [2 * peak[at // POOL] for other, peak in enumerate(differences.peaks) if other != e]
    found = own.ceiling(np.maximum.reduce(peaks) if peaks else np.full(at.size, np.inf, np.float32))
    asked = np.flatnonzero(found >= room)
    if asked.size:
        found[asked] = _explain(differences, e, at[asked], own.part(asked), room[asked], defects, window)
    return found


def _explain(
    differences: Differences,
    e: int,
    at: NDArray[Any],
    own: Own,
    room: NDArray[Any],
    defects: Sequence[NDArray[Any]],
    window: tuple[int, int],
) -> NDArray[Any]:
    line, seen = measure_line(differences, e, at, own.common, defects, window)
    goes_on = (seen > np.maximum(_SEEN * own.common, _SEEN_LEAST)) | (
        own.least > _GOES_ON * own.common - _GOES_ON_NOISE
    )
    trace = np.where(goes_on, own.common, own.least)
    blob, low = own.beyond(trace, trace)
    streaks = _excess(_TRACE, trace, TRACE_NOISE) + _excess(_LINE, line, _LINE_NOISE)
    elsewhere = seen > np.maximum(_SEEN * trace, _SEEN_LEAST)  # this source, with its lines
    most = np.where(elsewhere, _BLOB_OF_SEEN, _BLOB_OF_TRACE) * (trace - TRACE_NOISE)
    np.maximum(most, _BLOB_OF_LINE * (line - _LINE_NOISE), out=most)
    asked = np.flatnonzero((blob > most) & (streaks + _excess(1.0, blob, _BLOB_NOISE) >= room))
    if asked.size:
        wide, _ = measure_line(differences, e, at[asked], trace[asked], defects, widen(window))
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


def _excess(weight: float, value: NDArray[Any], noise: float) -> NDArray[Any]:
    """Weighted square beyond what noise gives."""
    return weight**2 * np.maximum(value**2 - noise**2, 0)
