"""Likelihood of ramps that switch between two levels, and of ramps that do not: kernels, arrays only.

Data are *pieces* of ramps (:class:`Pieces`, columns): groups in order, the mean of the piece taken off, in units of
the noise that is expected of the pixel. Every kernel goes through the groups once and takes all pieces together.

1. :func:`scan_offsets`: the forward recursion of a two-state chain at a given separation, with the lower level of
   each piece at several offsets, integrated over the offsets. Where to start from.
2. :func:`find_states`: forward and backward, the probability of the upper state at each group given all groups of the
   piece. Half of a Baum-Welch step; the other half is a fit of the levels (:mod:`badpix.darks.levels`).
3. :func:`integrate_offsets`: the forward recursion over state *and* offset. The offset walks at random (shot noise)
   and may step up (a hit too faint for a jump flag), and no single group counts for more than :data:`FLOOR`. With one
   state it is the likelihood of a pixel that does not switch: both are compared under the same noise.

Source: Rabiner 1989, Proc. IEEE 77, 257 (forward-backward recursion, Baum-Welch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Float64 = NDArray[np.float64]

FLOOR = np.exp(-5.5)  # least density of a group, in units of that at its level under the expected noise
LARGEST = np.float32(20.0)  # logarithm of the odds of one group: beyond it float32 would overflow
RESCALE = 3  # groups after which probabilities are brought back to order 1
WALK_EVERY = 3  # groups after which the offset takes a step, three times as long
LARGEST_STEP = np.float32(0.25)  # part of the probability that leaves a bin to either side in one step


@dataclass(frozen=True)
class Pieces:
    """Pieces of ramps, those of one pixel side by side.

    Attributes
    ----------
    values : ndarray
        (G, C) float32, mean of the piece taken off; 0 outside of it.
    usable : ndarray or None
        (G, C) float32: 1 in the piece, 0 outside; None where every piece is a whole ramp.
    length, middle : ndarray
        (C,) float32: number of groups, and their mean number.
    pixel : ndarray
        (C,) int, ascending from 0 without gaps.
    first : ndarray
        (pixels,) int: first piece of each pixel.
    """

    values: Array
    usable: Array | None
    length: Array
    middle: Array
    pixel: NDArray[np.intp]
    first: NDArray[np.intp]

    def total(self, values: NDArray[np.floating[Any]]) -> Float64:
        """Sums over the pieces of each pixel: (..., pixels) of (..., C)."""
        # a copy first: reduceat converts in blocks, and sums would depend on where these begin
        return np.add.reduceat(values.astype(np.float64), self.first, axis=-1)  # type: ignore[no-any-return]

    def middle_of(self, values: NDArray[np.floating[Any]]) -> Float64:
        """Medians over all groups of each pixel, NaN left out: (pixels,) of (G, C)."""
        ends = [*self.first[1:], len(self.pixel)]
        found = [values[:, a:b] for a, b in zip(self.first, ends, strict=True)]
        known = [part[np.isfinite(part)] for part in found]
        return np.array([np.median(part) if part.size else np.nan for part in known], np.float64)

    def spread(self, values: NDArray[np.floating[Any]]) -> Array:
        """Values of the pixels at each of their pieces: (C,) float32 of (pixels,)."""
        return values.astype(np.float32)[self.pixel]

    def replace(self, values: Array) -> Pieces:
        """The same pieces with other values."""
        return Pieces(values, self.usable, self.length, self.middle, self.pixel, self.first)

    def take(self, keep: NDArray[np.bool_]) -> tuple[Pieces, NDArray[np.intp]]:
        """The pieces of some pixels, and which columns these were."""
        columns = np.flatnonzero(keep[self.pixel])
        pixel = (np.cumsum(keep) - 1)[self.pixel[columns]]
        usable = None if self.usable is None else self.usable[:, columns]
        first = np.searchsorted(pixel, np.arange(np.count_nonzero(keep)))
        part = Pieces(self.values[:, columns], usable, self.length[columns], self.middle[columns], pixel, first)
        return part, columns


def moment(values: Array) -> Array:
    """Sums over the groups of values times group number: (C,); unlike a product of matrices alike for any C."""
    return np.einsum("g,gc->c", np.arange(len(values), dtype=np.float32), values)  # type: ignore[no-any-return]


def scan_offsets(
    pieces: Pieces, separation: Float64, rate: float, noise: Float64, fractions: Array
) -> tuple[Float64, Array]:
    """Two states at ``separation`` (pixels,) that both leave at ``rate`` per group, against the mean level.

    The lower level of a piece lies ``fractions`` of the separation below its mean; these lie evenly between 0 and 1.

    Returns
    -------
    total : ndarray
        (C,) logarithm of the likelihood, integrated over the offset, over that of one level at ``noise``, integrated
        likewise.
    best : ndarray
        (C,) the likeliest of the fractions.
    """
    slope, height = pieces.spread(separation / noise**2), pieces.spread(separation**2 / noise**2)
    shift = np.exp(np.clip(height * (fractions[:, None] - np.float32(0.5)), -LARGEST, LARGEST))
    leave, keep = np.float32(rate), np.float32(1 - 2 * rate)
    high = np.full((len(fractions), len(pieces.pixel)), 0.5, np.float32)
    odds, scale, product = np.empty_like(high), np.empty_like(high), np.ones_like(high)
    total, one = np.zeros_like(high), np.empty_like(slope)
    for g, values in enumerate(pieces.values):
        if g:
            high *= keep
            high += leave
        np.multiply(values, slope, out=one)
        np.exp(np.clip(one, -LARGEST, LARGEST, out=one), out=one)
        np.multiply(shift, one, out=odds)
        if pieces.usable is not None:
            odds[:, pieces.usable[g] == 0] = 1
        np.subtract(1, high, out=scale)
        high *= odds
        scale += high
        high /= scale
        product *= scale
        if g % 2 or g == len(pieces.values) - 1:
            total += np.log(product, out=product)
            product[:] = 1
    total -= (pieces.length * height / 2) * (fractions**2)[:, None]
    peak = total.max(axis=0)
    width = pieces.spread(separation / noise) * np.sqrt(pieces.length / np.float32(2 * np.pi))
    summed = np.exp(total - peak).sum(axis=0) * (fractions[1] - fractions[0])
    return (np.log(summed * width) + peak).astype(np.float64), fractions[total.argmax(axis=0)]


def find_states(
    pieces: Pieces, offset: Array, separation: Float64, up: Float64, down: Float64, noise: Float64
) -> tuple[Array, Array, Array]:
    """Forward and backward through two states: lower level at ``offset`` (C,), upper level above it.

    ``up`` and ``down`` (pixels,) are the probabilities per group to leave the lower and the upper state.

    Returns
    -------
    high : ndarray
        (G, C) probability of the upper state given all groups.
    likelihood : ndarray
        (C,) logarithm of the likelihood over that of the lower level throughout.
    ups : ndarray
        (C,) expected number of changes to the upper state.
    """
    slope = pieces.spread(separation / noise**2)
    shift = slope * (offset + pieces.spread(separation / 2))
    rise, fall = pieces.spread(up), pieces.spread(down)
    groups, columns = pieces.values.shape
    high, ahead = np.empty((groups, columns), np.float32), np.empty((groups, columns), np.float32)
    odds, scale = np.empty(columns, np.float32), np.empty(columns, np.float32)
    product, likelihood, keep = np.ones(columns, np.float32), np.zeros(columns, np.float32), 1 - rise - fall
    for g in range(groups):
        if g:
            np.multiply(high[g - 1], keep, out=ahead[g])
            ahead[g] += rise
        else:
            np.divide(rise, rise + fall, out=ahead[0])
        np.multiply(pieces.values[g], slope, out=odds)
        odds -= shift
        if pieces.usable is not None:
            odds *= pieces.usable[g]
        np.exp(np.clip(odds, -LARGEST, LARGEST, out=odds), out=odds)
        np.subtract(1, ahead[g], out=scale)
        np.multiply(ahead[g], odds, out=high[g])
        scale += high[g]
        high[g] /= scale
        product *= scale
        if g % RESCALE == RESCALE - 1 or g == groups - 1:
            likelihood += np.log(product, out=product)
            product[:] = 1
    return high, likelihood, _look_back(high, ahead, rise, fall)


def _look_back(high: Array, ahead: Array, rise: Array, fall: Array) -> Array:
    """Turn the probabilities given the groups so far into those given all groups, in place; expected changes up."""
    columns = high.shape[1]
    ups, upper, lower = np.zeros(columns, np.float32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    room, stay = np.empty(columns, np.float32), 1 - fall
    for g in range(len(high) - 2, -1, -1):
        np.divide(high[g + 1], ahead[g + 1], out=upper)
        np.subtract(1, high[g + 1], out=lower)
        lower /= np.subtract(1, ahead[g + 1], out=room)
        np.subtract(1, high[g], out=room)
        room *= upper
        ups += room
        upper *= stay
        lower *= fall
        upper += lower
        high[g] *= upper
    ups *= rise
    return ups


@dataclass(frozen=True)
class Bins:
    """Offsets of the level: ``number`` bins from ``lowest`` on, one of each pixel ``width`` (pixels,) wide."""

    lowest: float
    number: int
    width: Float64


@dataclass(frozen=True)
class Switching:
    """The second level: how many bins above the first, and the probabilities to leave them (pixels,)."""

    bins: int
    up: Float64
    down: Float64


def integrate_offsets(
    pieces: Pieces, bins: Bins, switching: Switching | None, noise: Float64, walk: Float64, hits: float
) -> Float64:
    """Logarithm of the likelihood of each piece, summed over states and offsets: (C,), without the Gaussian's norm.

    Parameters
    ----------
    pieces : Pieces
        In units of the noise of one group.
    bins : Bins
        Offsets of the lower level, in the same unit.
    switching : Switching or None
        The upper level; None for one level.
    noise : ndarray
        (pixels,) that noise over the expected one: groups that are far off weigh the same under any noise.
    walk : ndarray
        (pixels,) variance of the step that the offset takes from group to group.
    hits : float
        Probability of a step up of any size, per group.
    """
    number, apart = bins.number, 0 if switching is None else switching.bins
    columns, width = len(pieces.pixel), pieces.spread(bins.width)
    levels = (np.arange(number + apart, dtype=np.float32)[:, None] + np.float32(bins.lowest)) * width
    density, room = np.empty_like(levels), np.empty((number, columns), np.float32)
    states = [np.ones((number, columns), np.float32) for _ in range(2 if switching else 1)]
    if switching is not None:
        rise, fall = pieces.spread(switching.up), pieces.spread(switching.down)
        states[1] *= rise / (rise + fall)
        states[0] -= states[1]
    part = np.minimum(pieces.spread(walk / (2 * bins.width**2)) * np.float32(WALK_EVERY), LARGEST_STEP)
    total, floor = np.zeros(columns), pieces.spread(np.minimum(FLOOR * noise, 0.1))
    for g, values in enumerate(pieces.values):
        if g and switching is not None:
            _switch(states, rise, fall, room)
        if g and g % WALK_EVERY == 0:
            _walk(states, part, room)
        if g and switching is None:
            _step_up(states[0], hits, room)
        np.subtract(levels, values, out=density)
        np.multiply(density, density, out=density)
        density *= np.float32(-0.5)
        np.maximum(np.exp(density, out=density), floor, out=density)
        if pieces.usable is not None:
            density[:, pieces.usable[g] == 0] = 1
        for k, state in enumerate(states):
            state *= density[k * apart : k * apart + number]
        if g % RESCALE == RESCALE - 1 or g == len(pieces.values) - 1:
            total += _rescale(states)
    return total + np.log(width)  # type: ignore[no-any-return]


def _switch(states: list[Array], rise: Array, fall: Array, room: Array) -> None:
    """Leave the states."""
    np.add(states[0], states[1], out=room)
    states[1] *= 1 - rise - fall
    np.copyto(states[0], room)
    room *= rise
    states[1] += room
    states[0] -= states[1]


def _walk(states: list[Array], part: Array, room: Array) -> None:
    """A step of the offset to the bins on both sides; at the ends it stays inside."""
    for state in states:
        np.multiply(state, part, out=room)
        state -= room
        state -= room
        state[1:] += room[:-1]
        state[:-1] += room[1:]
        state[0] += room[0]
        state[-1] += room[-1]


def _step_up(state: Array, hits: float, room: Array) -> None:
    """A hit: to any bin above."""
    room[0] = state[0]
    for k in range(1, len(state)):  # several times as fast as np.add.accumulate, which takes column by column
        np.add(room[k - 1], state[k], out=room[k])
    room *= np.float32(hits / len(state))
    state *= np.float32(1 - hits)
    state += room


def _rescale(states: list[Array]) -> Float64:
    """Bring the probabilities of each column to a sum of 1; the logarithm of what it was."""
    norm = states[0].sum(axis=0)
    for state in states[1:]:
        norm += state.sum(axis=0)
    for state in states:
        state /= norm
    return np.log(norm).astype(np.float64)  # type: ignore[no-any-return]
