"""The comparison of one level and two: the logarithm of their likelihood ratio, with all offsets integrated.

1. Both under the pixel's shot noise; hits that no flag marks, and the shape that all ramps share (settling), on the
   side of one level (:func:`compare_levels`).
2. The noise of one level is that of the fit or of two levels, whichever is likelier: noise with tails has a quiet
   core.
3. Levels far apart are also brought nearer first (:func:`bring_near`): hits between them then set neither noise nor
   offsets.

Everything is in units of the noise that is expected of the pixel (:class:`badpix.darks.chain.Pieces`).
"""

from __future__ import annotations

import numpy as np

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
)
from badpix.darks.levels import (
    QUIETEST,
    RATE_PRIOR,
    SHARPEST,
    OneLevel,
    TwoLevels,
    fit_one_level,
    likeliest_noise,
    noise_prior,
    take_line_off,
)

MOST_NOISE = 0.8  # part of the variance beside the line that is white noise at least
FAR = 6.0  # sigma beside both of such levels beyond which a group counts no more
CORE, CORE_PASSES = 4.0, 8  # sigma within which groups set their noise, and how often that is tried
SPACING = 0.45  # sigma between offsets
MARGIN = 2.0  # sigma that the offset may lie beyond the levels
REACH = 5.5  # sigma that one level may lie from the mean of a piece, before or behind a hit
HIT_RATE = 2e-3  # hits without a flag per group: as many as a pixel of interest may have, not as a pixel has
SHOT_SLOPE = 1 / 15  # residual variance of a random walk around its line, per group and unit variance of a step
HIT_COST = 9.0  # logarithm of the odds against a hit at a given place of a given size
SHAPE_COST = 8.0  # the same against a shape that all ramps share


def compare_levels(
    pieces: Pieces, one: OneLevel, two: TwoLevels, walk: Float64, templates: Array, spread: float
) -> Float64:
    """Logarithm of the likelihood ratio of two levels and one, offsets integrated: (pixels,).

    ``walk`` is the variance of shot noise from group to group in units of the expected noise squared, ``templates``
    (shapes, G) are shapes that ramps may share, orthonormal and without line.
    """
    ratio = _compare(pieces, one, two, walk, templates, spread)
    far = two.separation > SHARPEST
    if far.any():
        part, columns = pieces.take(far)
        near = compare_far(part, two.take(far, columns), walk[far], templates, spread)
        ratio[far] = np.maximum(ratio[far], near)
    return ratio


def compare_far(pieces: Pieces, two: TwoLevels, walk: Float64, templates: Array, spread: float) -> Float64:
    """:func:`compare_levels` for levels that lie far apart, brought near (:func:`bring_near`)."""
    return _compare(*bring_near(pieces, two, spread), walk, templates, spread, SHARPEST + FAR)


def _compare(
    pieces: Pieces,
    one: OneLevel,
    two: TwoLevels,
    walk: Float64,
    templates: Array,
    spread: float,
    reach: float = REACH,
) -> Float64:
    """:func:`compare_levels` for the levels as they are; one level may lie ``reach`` from the mean of a piece."""
    slope, noise = fit_beside_hits(pieces, one, walk, spread)
    shared = shape_squares(take_line_off(pieces, one.slope), templates) / (2 * one.noise**2)
    others = integrate_two(pieces, one, two, walk, spread) - np.maximum(shared - SHAPE_COST, 0)
    ratio = others - integrate_one(take_line_off(pieces, slope), one, noise, walk, spread, reach)
    quieter = (ratio > 0) & (two.noise < noise)
    if quieter.any():  # the noise that single groups far off leave to the others: its core, where noise has tails
        part, own = pieces.take(quieter)[0], one.take(quieter)
        core = integrate_one(
            take_line_off(part, slope[quieter]), own, two.noise[quieter], walk[quieter], spread, reach
        )
        ratio[quieter] = np.minimum(ratio[quieter], others[quieter] - core)
    return ratio


def bring_near(pieces: Pieces, two: TwoLevels, spread: float) -> tuple[Pieces, OneLevel, TwoLevels]:
    """Pixels whose levels lie further apart than :data:`SHARPEST`, with what is beyond that taken off.

    Which level a group is on is clear there; no group that is far off counts for more than at :data:`FAR`. Hits and
    what is left between the levels then don't set the noise, and bins of offsets reach both.
    """
    flat = take_line_off(pieces, two.slope)
    high = find_states(flat, two.offset, two.separation, two.up, two.down, two.noise)[0]
    usable = np.float32(1) if pieces.usable is None else pieces.usable
    rest = flat.values - two.offset - pieces.spread(two.separation) * high
    slope, noise, apart = two.slope.copy(), two.noise, two.separation.copy()
    groups = np.arange(len(rest), dtype=np.float32)[:, None]
    for _ in range(CORE_PASSES):  # offset, slope and noise of the groups near the levels
        near = usable * (np.abs(rest) < CORE * pieces.spread(noise))
        number = np.maximum(near.sum(axis=0), 1)
        rest -= (rest * near).sum(axis=0) / number
        for shape, total in ((high, apart), (groups, slope)):
            lever = shape - (shape * near).sum(axis=0) / number
            squares = np.maximum(pieces.total((lever**2 * near).sum(axis=0)), 1)
            more = pieces.total((lever * rest * near).sum(axis=0)) / squares
            rest -= pieces.spread(more) * lever
            total += more
        noise = np.sqrt(pieces.total((rest**2 * near).sum(axis=0)) / pieces.total(number))
        noise = np.maximum(noise, QUIETEST)
    limit = FAR * pieces.spread(noise)
    nearer = np.minimum(SHARPEST * noise, apart)
    values = np.clip(rest, -limit, limit) + pieces.spread(nearer) * high
    values += pieces.spread(slope) * (groups - pieces.middle)
    values -= (values * usable).sum(axis=0) / pieces.length
    nearby = pieces.replace((values * usable).astype(np.float32))
    held = (high * usable).sum(axis=0)
    offset = -pieces.spread(nearer) * held / pieces.length
    return nearby, fit_one_level(nearby, spread), TwoLevels(nearer, two.up, two.down, noise, slope, offset)


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


def integrate_one(
    flat: Pieces, one: OneLevel, noise: Float64, walk: Float64, spread: float, reach: float = REACH
) -> Float64:
    """Logarithm of the likelihood of one level."""
    number = 2 * int(np.ceil(reach / SPACING)) + 1
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
