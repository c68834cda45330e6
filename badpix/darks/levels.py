"""One level and two: fits of both to the pieces of ramps.

1. One level: a line with the slope of all pieces together, and the noise that is likeliest given what the pixels of
   the detector have (a Gaussian of the logarithm, cut off at 3 sigma: noisy pixels exist).
2. Two levels: from a usual separation and rate (:data:`START`), with the offset of each piece where it fits best,
   by Baum-Welch to levels, rates, slope and noise of the pixel (:func:`fit_levels`). The rates have the prior
   :data:`RATE_PRIOR`: a pixel that switched once has shown little.

What they explain is compared in :mod:`badpix.darks.level_ratio`. Everything is in units of the noise that is expected
of the pixel (:class:`badpix.darks.chain.Pieces`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.darks.chain import Array, Float64, Pieces, find_states, moment, scan_offsets

START = 2.0, 0.2  # separation in sigma, rate per group: more starts found no more (5 x 60 and 5 x 20 groups)
FRACTIONS = (np.arange(7) / 6).astype(np.float32)  # of the separation, at which the lower level is tried
PASSES = 7  # of Baum-Welch
HOPELESS = {
    2: -1.0,
    3: 0.0,
    5: 1.0,
}  # likelihood after so many passes up to which pixels can be spared
SHARP = 4.0  # sigma between levels from which on the likelihood with fitted offsets is too low
RATES = (0.005, 0.8)  # per group
RATE_PRIOR = (0.5, 4.0)  # changes seen before in groups spent before: a beta distribution
QUIETEST = 0.8  # of the expected noise: where the separation explains all scatter
SHARPEST = 6.0  # sigma that levels count as apart at most: those beyond are brought that near
SLOPE_PARTS, NEAR = 5, 3.0  # parts of a ramp that differences span, and sigma that groups on a level are near it
PLACES = 12  # groups of a piece, about, at whose values its levels are tried
MOSTLY = 0.5  # part of the groups that are near a level, at least: noise of any strength is not
LEAST_SQUARE = 1e-6  # of a group in expected variances: simulated ramps may have no noise
PRIOR_END = 3.0  # sigma of the noise's spread beyond which all noise is as likely


@dataclass(frozen=True)
class OneLevel:
    """The line of all pieces with the noise around it; sums over the groups of a pixel, all (pixels,) float64.

    ``squares``, ``lever``, ``moment``: sums of values squared, of group numbers squared, of both together; ``number``
    of groups, ``freedom`` without the offsets, ``slope`` and ``noise`` of the fit.
    """

    squares: Float64
    lever: Float64
    moment: Float64
    number: Float64
    freedom: Float64
    slope: Float64
    noise: Float64

    @property
    def residual(self) -> Float64:
        """Sum of the squares beside the line."""
        return self.squares - self.slope * self.moment

    def take(self, keep: NDArray[np.bool_]) -> OneLevel:
        """The same of some pixels."""
        return OneLevel(*(column[keep] for column in vars(self).values()))


@dataclass(frozen=True)
class TwoLevels:
    """Separation, rates to leave the lower and the upper level, noise, slope (pixels,); offset of each piece (C,)."""

    separation: Float64
    up: Float64
    down: Float64
    noise: Float64
    slope: Float64
    offset: Array

    def take(self, keep: NDArray[np.bool_], columns: NDArray[np.intp]) -> TwoLevels:
        """The same of some pixels, whose pieces are ``columns``."""
        return TwoLevels(
            self.separation[keep],
            self.up[keep],
            self.down[keep],
            self.noise[keep],
            self.slope[keep],
            self.offset[columns],
        )

    def put(self, keep: NDArray[np.bool_], columns: NDArray[np.intp], part: TwoLevels) -> TwoLevels:
        """These levels with those of :meth:`take` replaced."""
        out = {}
        for name, column in vars(self).items():
            out[name] = column.copy()
            out[name][columns if name == "offset" else keep] = getattr(part, name)
        return TwoLevels(**out)


# --- 1: one level ----------------------------------------------------------------------------------------


def likeliest_noise(squares: Float64, freedom: Float64, spread: float) -> Float64:
    """Noise that residuals of this sum of squares most likely come from, given its spread over pixels."""
    squares = np.maximum(squares, LEAST_SQUARE * freedom)
    logarithm = 0.5 * np.log(squares / freedom)
    for _ in range(4):
        pull = np.where(np.abs(logarithm) < PRIOR_END * spread, 1 / spread**2, 0.0)
        scaled = squares * np.exp(-2 * logarithm)
        step = (scaled - freedom - pull * logarithm) / (2 * scaled + pull)
        logarithm = logarithm + np.clip(step, -1, 1)
    return np.exp(logarithm)  # type: ignore[no-any-return]


def noise_prior(noise: Float64, spread: float) -> Float64:
    """Logarithm of the odds of this noise against the expected one."""
    return -0.5 * np.minimum((np.log(noise) / spread) ** 2, PRIOR_END**2)  # type: ignore[no-any-return]


def likelihood_of(squares: Float64, noise: Float64, one: OneLevel, spread: float) -> Float64:
    """Logarithm of the likelihood of Gaussian residuals, with that of the noise."""
    return -squares / (2 * noise**2) - one.freedom * np.log(noise) + noise_prior(noise, spread)


def fit_one_level(pieces: Pieces, spread: float) -> OneLevel:
    """The line with the slope of all pieces together, and its noise."""
    groups = np.arange(len(pieces.values), dtype=np.float64)
    squares = pieces.total(np.einsum("gc,gc->c", pieces.values, pieces.values))
    moments = pieces.total(moment(pieces.values))
    usable = np.ones((len(groups), 1)) if pieces.usable is None else pieces.usable.astype(np.float64)
    clock = np.einsum("g,gc->c", groups, usable)
    lever = np.einsum("g,gc->c", groups**2, usable) - clock**2 / usable.sum(axis=0).clip(1)
    lever = np.broadcast_to(lever, pieces.length.shape)
    levers, number = np.maximum(pieces.total(lever), 1e-3), pieces.total(pieces.length)
    freedom = np.maximum(number - pieces.total(np.ones(len(pieces.pixel))), 1)
    slope = moments / levers
    noise = likeliest_noise(squares - slope * moments, freedom, spread)
    return OneLevel(squares, levers, moments, number, freedom, slope, noise)


def take_line_off(pieces: Pieces, slope: Float64) -> Pieces:
    """The pieces without a line through their middle."""
    groups = np.arange(len(pieces.values), dtype=np.float32)[:, None]
    line = pieces.spread(slope) * (groups - pieces.middle)
    if pieces.usable is not None:
        line *= pieces.usable
    return pieces.replace(np.subtract(pieces.values, line, out=line))


# --- 2: two levels ---------------------------------------------------------------------------------------


def deepest_drop(pieces: Pieces) -> Float64:
    """The largest fall within one or two groups (averaged ones hold a part) in any piece of each pixel: (pixels,)."""
    found = np.zeros(len(pieces.pixel), np.float32)
    for lag in (1, 2):
        fall = pieces.values[:-lag] - pieces.values[lag:]
        if pieces.usable is not None:
            fall *= pieces.usable[:-lag] * pieces.usable[lag:]
        np.maximum(found, fall.max(axis=0, initial=0), out=found)
    return np.maximum.reduceat(found, pieces.first).astype(np.float64)  # type: ignore[no-any-return]


def start_levels(flat: Pieces, one: OneLevel) -> TwoLevels:
    """Where Baum-Welch starts, for pieces without their line: wider apart where the scatter is large."""
    ratio, rate = START
    apart = ratio * np.maximum(1, 0.8 * np.sqrt(np.maximum(one.noise**2 - 1, 0)))
    rest = np.sqrt(np.maximum(one.noise**2 - 0.2 * apart**2, 0))
    rest = np.maximum(rest, np.maximum(QUIETEST, apart / SHARPEST))
    below = scan_offsets(flat, apart, rate, rest, FRACTIONS)[1]
    rates = np.full(len(apart), rate)
    return TwoLevels(apart, rates, rates, rest, one.slope, -below * flat.spread(apart))


def place_levels(pieces: Pieces, apart: Float64) -> tuple[TwoLevels, Float64]:
    """Levels so far ``apart`` (pixels,) that each group shows where it is: without sums of squares.

    Groups between the levels (switches within averaged frames) pull the levels of a Gaussian fit together. Here the
    slope is a median of differences, and the lower level of each piece lies where most groups are near a level. Also
    returned is the number of groups on the level that has fewer; 0 where most groups are near neither.
    """
    groups = len(pieces.values)
    lag = max(groups // SLOPE_PARTS, 1)
    rise = (pieces.values[lag:] - pieces.values[:-lag]) / np.float32(lag)
    if pieces.usable is not None:
        rise[pieces.usable[lag:] * pieces.usable[:-lag] == 0] = np.nan
    slope = np.nan_to_num(pieces.middle_of(rise))
    flat = take_line_off(pieces, slope)
    usable = np.float32(1) if flat.usable is None else flat.usable
    gap = flat.spread(apart)
    best, offset = np.full(len(gap), np.float32(-1)), np.zeros_like(gap)
    for g in range(0, groups, max(groups // PLACES, 1)):
        for level in (flat.values[g], flat.values[g] - gap):
            rest = flat.values - level
            near = (np.minimum(np.abs(rest), np.abs(rest - gap)) < NEAR) * usable
            number = near.sum(axis=0)
            if flat.usable is not None:
                number *= flat.usable[g]
            better = number > best
            np.copyto(best, number, where=better)
            np.copyto(offset, level, where=better)
    rates, noise = np.full(len(apart), START[1]), np.ones(len(apart))
    high, _, ups = find_states(flat, offset, apart, rates, rates, noise)
    up, down = _count_changes(pieces, high, ups)
    held = pieces.total(((high > 0.5) * usable).sum(axis=0))
    fewer = np.minimum(held, pieces.total(pieces.length) - held)
    clear = pieces.total(best) > MOSTLY * pieces.total(pieces.length)
    return TwoLevels(apart, up, down, noise, slope, offset), np.where(clear, fewer, 0)


def fit_levels(
    pieces: Pieces, one: OneLevel, start: TwoLevels, spread: float, spared: NDArray[np.bool_], done: int = 0
) -> tuple[TwoLevels, Float64]:
    """Baum-Welch from ``start``; and the logarithm of the likelihood ratio before the last pass, offsets fitted.

    Those of the pixels ``spared`` (pixels,) that are still below :data:`HOPELESS` after some passes keep what they
    have, unless their levels lie far apart. ``done`` passes were made before.
    """
    two, gain = start, np.zeros(len(one.noise))
    before = likelihood_of(one.residual, one.noise, one, spread)
    for number in range(done + 1, PASSES + 1):
        two, reached = improve_levels(pieces, one, two, spread)
        gain = reached - before
        keep = ~spared | (gain > HOPELESS.get(number, -np.inf)) | (two.separation > SHARP * two.noise)
        if keep.all():
            continue
        if keep.any():
            part, columns = pieces.take(keep)
            own = one.take(keep), two.take(keep, columns)
            better, gain[keep] = fit_levels(part, *own, spread, spared[keep], number)
            two = two.put(keep, columns, better)
        break
    return two, gain


def improve_levels(pieces: Pieces, one: OneLevel, two: TwoLevels, spread: float) -> tuple[TwoLevels, Float64]:
    """One pass of Baum-Welch, and the logarithm of the likelihood of what it started from."""
    flat = take_line_off(pieces, two.slope)
    high, likelihood, ups = find_states(flat, two.offset, two.separation, two.up, two.down, two.noise)
    below = one.squares - 2 * two.slope * one.moment + two.slope**2 * one.lever
    below += pieces.total(pieces.length * two.offset**2)
    reached = pieces.total(likelihood) + likelihood_of(below, two.noise, one, spread)
    up, down = _count_changes(pieces, high, ups)
    if pieces.usable is not None:
        high *= pieces.usable
    held = high.sum(axis=0)
    own = pieces.total(held - held * held / pieces.length)
    tilt = pieces.total(moment(high) - pieces.middle * held)
    signal = pieces.total(np.einsum("gc,gc->c", high, pieces.values))
    determinant = own * one.lever - tilt**2 + 1e-9
    separation = np.maximum((signal * one.lever - one.moment * tilt) / determinant, 0.5 * two.noise)
    slope = (one.moment - separation * tilt) / one.lever
    squares = one.squares - 2 * separation * signal - 2 * slope * one.moment
    squares += separation**2 * own + 2 * separation * slope * tilt + slope**2 * one.lever
    noise = likeliest_noise(np.maximum(squares, 1e-3 * one.squares), one.freedom, spread)
    noise = np.maximum(noise, separation / SHARPEST)
    offset = -pieces.spread(separation) * held / pieces.length
    return TwoLevels(separation, up, down, noise, slope, offset), reached


def _count_changes(pieces: Pieces, high: Array, ups: Array) -> tuple[Float64, Float64]:
    """Rates to leave the lower and the upper state, from the expected changes and the time in each."""
    seen, before = RATE_PRIOR
    rises = pieces.total(ups)
    falls = np.maximum(rises + pieces.total(high[0] - high[-1]), 0)  # the states at both ends say the rest
    above = pieces.total(high[:-1].sum(axis=0))
    below = pieces.total(np.full(len(pieces.pixel), len(high) - 1.0)) - above
    up, down = (rises + seen) / (below + before), (falls + seen) / (above + before)
    return np.clip(up, *RATES), np.clip(down, *RATES)
