"""One level and two: fits of both to the pieces of ramps, and the comparison of what they explain.

1. One level: a line with the slope of all pieces together, and the noise that is likeliest given what the pixels of
   the detector have (a Gaussian of the logarithm, cut off at 3 sigma: noisy pixels exist).
2. Two levels: from a usual separation and rate (:data:`START`), with the offset of each piece where it fits best,
   by Baum-Welch to levels, rates, slope and noise of the pixel (:func:`fit_levels`). The rates have the prior
   :data:`RATE_PRIOR`: a pixel that switched once has shown little.
3. The logarithm of their likelihood ratio, with all offsets integrated, under the pixel's shot noise; with hits that
   no flag marks, and the shape that all ramps share (settling), on the side of one level (:func:`compare_levels`).
   Its noise is that of the fit or of two levels, whichever is likelier: noise with tails has a quiet core.

Everything is in units of the noise that is expected of the pixel (:class:`badpix.darks.chain.Pieces`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.darks.chain import (
    LARGEST_STEP,
    WALK_EVERY,
    Array,
    Bins,
    Float64,
    Pieces,
    Switching,
    find_states,
    integrate_offsets,
    moment,
    scan_offsets,
)

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
MOST_NOISE = 0.8  # part of the variance beside the line that is white noise at least
QUIETEST = 0.8  # of the expected noise: where the separation explains all scatter
SHARPEST = 6.0  # sigma that levels count as apart at most: those beyond are clear anyway
SPACING = 0.45  # sigma between offsets
MARGIN = 2.0  # sigma that the offset may lie beyond the levels
REACH = 5.5  # sigma that one level may lie from the mean of a piece, before or behind a hit
HIT_RATE = 2e-3  # hits without a flag per group: as many as a pixel of interest may have, not as a pixel has
SHOT_SLOPE = 1 / 15  # residual variance of a random walk around its line, per group and unit variance of a step
HIT_COST = 9.0  # logarithm of the odds against a hit at a given place of a given size
SHAPE_COST = 8.0  # the same against a shape that all ramps share
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


def start_levels(flat: Pieces, one: OneLevel) -> TwoLevels:
    """Where Baum-Welch starts, for pieces without their line: wider apart where the scatter is large."""
    ratio, rate = START
    apart = ratio * np.maximum(1, 0.8 * np.sqrt(np.maximum(one.noise**2 - 1, 0)))
    rest = np.sqrt(np.maximum(one.noise**2 - 0.2 * apart**2, 0))
    rest = np.maximum(rest, np.maximum(QUIETEST, apart / SHARPEST))
    below = scan_offsets(flat, apart, rate, rest, FRACTIONS)[1]
    rates = np.full(len(apart), rate)
    return TwoLevels(apart, rates, rates, rest, one.slope, -below * flat.spread(apart))


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


# --- 3: the comparison -----------------------------------------------------------------------------------


def compare_levels(
    pieces: Pieces, one: OneLevel, two: TwoLevels, walk: Float64, templates: Array, spread: float
) -> Float64:
    """Logarithm of the likelihood ratio of two levels and one, offsets integrated: (pixels,).

    ``walk`` is the variance of shot noise from group to group in units of the expected noise squared, ``templates``
    (shapes, G) are shapes that ramps may share, orthonormal and without line.
    """
    slope, noise = fit_beside_hits(pieces, one, walk, spread)
    shared = shape_squares(take_line_off(pieces, one.slope), templates) / (2 * one.noise**2)
    others = integrate_two(pieces, one, two, walk, spread) - np.maximum(shared - SHAPE_COST, 0)
    ratio = others - integrate_one(take_line_off(pieces, slope), one, noise, walk, spread)
    quieter = (ratio > 0) & (two.noise < noise)
    if quieter.any():  # the noise that single groups far off leave to the others: its core, where noise has tails
        part, own = pieces.take(quieter)[0], one.take(quieter)
        core = integrate_one(take_line_off(part, slope[quieter]), own, two.noise[quieter], walk[quieter], spread)
        ratio[quieter] = np.minimum(ratio[quieter], others[quieter] - core)
    return ratio


def fit_beside_hits(pieces: Pieces, one: OneLevel, walk: Float64, spread: float) -> tuple[Float64, Float64]:
    """Slope and noise of one level beside shot noise, and a step up in each piece where one pays for itself."""
    drift = walk * SHOT_SLOPE * len(pieces.values)
    slope, noise = one.slope, one.noise
    for _ in range(2):
        level, clock, weight = largest_step(take_line_off(pieces, slope))
        pays = level**2 * weight > HIT_COST * pieces.spread(2 * noise**2)
        level = np.where(pays, level + pieces.spread(slope) * clock, np.float32(0))
        clock = np.where(pays, clock, np.float32(0))
        slope = (one.moment - pieces.total(level * clock * weight)) / np.maximum(
            one.lever - pieces.total(clock**2 * weight), 1e-3
        )
        squares = one.squares - 2 * slope * one.moment + slope**2 * one.lever
        squares -= pieces.total((level - pieces.spread(slope) * clock) ** 2 * weight)
        noise = likeliest_noise(np.maximum(squares, 1e-3 * one.squares), one.freedom, spread)
    return slope, np.sqrt(np.maximum(noise**2 - drift, MOST_NOISE * noise**2))


def largest_step(flat: Pieces) -> tuple[Array, Array, Array]:
    """The step up that explains most of each piece: sums of values and of group numbers (about the middle) before it,
    and the weight that turns a sum squared into the squares explained; (C,) each, 0 where nothing rises."""
    sums = np.zeros((3, len(flat.pixel)), np.float32)  # of values, of group numbers, of groups
    best, found = np.zeros(len(flat.pixel), np.float32), np.zeros_like(sums)
    for g, values in enumerate(flat.values[:-1]):
        usable = np.float32(1) if flat.usable is None else flat.usable[g]
        sums[0] += values
        sums[1] += (np.float32(g) - flat.middle) * usable
        sums[2] += usable
        weight = flat.length / np.maximum(sums[2] * (flat.length - sums[2]), np.float32(0.5))
        gain = np.minimum(sums[0], 0) ** 2 * weight
        better = gain > best
        np.copyto(best, gain, where=better)
        np.copyto(found[:2], sums[:2], where=better)
        np.copyto(found[2], weight, where=better)
    return found[0], found[1], found[2]


def shape_squares(flat: Pieces, templates: Array) -> Float64:
    """Squares that the shape which all whole ramps of a pixel share explains: (pixels,)."""
    whole = (flat.length == len(flat.values)).astype(np.float32)
    shared = flat.total(np.einsum("kg,gc->kc", templates, flat.values) * whole)
    return (shared**2).sum(axis=0) / np.maximum(flat.total(whole), 1)  # type: ignore[no-any-return]


def spacing(walk: Float64) -> Float64:
    """Width of the bins of offsets, sigma: wider where the offset walks far from group to group."""
    return np.maximum(SPACING, np.sqrt(WALK_EVERY / (2 * LARGEST_STEP) * walk))  # type: ignore[no-any-return]


def integrate_one(flat: Pieces, one: OneLevel, noise: Float64, walk: Float64, spread: float) -> Float64:
    """Logarithm of the likelihood of one level."""
    number = 2 * int(np.ceil(REACH / SPACING)) + 1
    bins = Bins(-(number // 2), number, spacing(walk / noise**2))
    scaled = flat.replace(flat.values / flat.spread(noise))
    total = integrate_offsets(scaled, bins, None, noise, walk / noise**2, HIT_RATE)
    return flat.total(total + np.log(flat.spread(noise))) - one.number * np.log(noise) + noise_prior(noise, spread)


def integrate_two(pieces: Pieces, one: OneLevel, two: TwoLevels, walk: Float64, spread: float) -> Float64:
    """Logarithm of the likelihood of two levels, with the prior of the rates."""
    ratio = two.separation / two.noise
    apart = np.maximum(np.round(ratio / spacing(walk / two.noise**2)), 2).astype(int)
    margin = int(np.ceil(MARGIN / SPACING))
    total = np.empty(len(ratio))
    for k in np.unique(apart):  # levels a whole number of bins apart share the densities of the groups
        keep = apart == k
        part, columns = pieces.take(keep)
        own, noise = two.take(keep, columns), two.noise[keep]
        flat = take_line_off(part, own.slope)
        flat = flat.replace(flat.values / flat.spread(noise))
        bins = Bins(-int(k) - margin, int(k) + 2 * margin + 1, ratio[keep] / k)
        found = integrate_offsets(flat, bins, Switching(int(k), own.up, own.down), noise, walk[keep] / noise**2, 0.0)
        total[keep] = part.total(found + np.log(flat.spread(noise)))
    seen, before = RATE_PRIOR
    prior = seen * np.log(two.up * two.down) + (before - seen) * np.log((1 - two.up) * (1 - two.down))
    return total - one.number * np.log(two.noise) + noise_prior(two.noise, spread) + prior
