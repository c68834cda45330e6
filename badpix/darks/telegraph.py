"""Two levels or one: how much better a chain that switches explains the ramps of a pixel than steady noise does.

All ramps of a pixel count together; they share levels, switching rates and noise, each has an offset of its own.

1. Ramps are cut into pieces at jump flags that go up (a hit: nothing is known of the offset behind it) and at
   unusable groups (:func:`cut_pieces`). Averaged groups that a flag marks may hold a part of the hit, and are left
   out. In a pixel that steps down, rises of that size are its own and no hits.
2. One level and two are fitted (:mod:`badpix.darks.levels`); the score is the logarithm of their likelihood ratio
   (:mod:`badpix.darks.level_ratio`, :func:`judge_ramps`).
3. Its limit is what good pixels of the same darks reach: the tail of the sample's scores, carried on to
   :data:`FALSE_ALARMS` (:func:`find_limit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.darks import level_ratio, levels
from badpix.darks.chain import Array, Float64, Pieces, moment
from badpix.darks.group_flags import JUMP_DET, UNUSABLE

DEEP = 6.5  # sigma of a step down from which on the pixel switches by itself
ON_A_LEVEL = 3  # groups that such a level has at least: a few far off are noise with tails
DROP = 14.0  # sigma of a fall from which on levels are tried that far apart
OWN_RISE = 1.3  # rises up to so many times the deepest step down are then no hits, whatever the flags say
SHORTEST_PIECE = 3  # groups
PIXELS = 1536  # pixels judged together, at 8 pieces each
BEHIND = 3.0  # what the fit of offsets gains over integrating them, about
WORTH = -1.5  # scores below it are left as they are, unless the levels are far apart (levels.SHARP)
FALSE_ALARMS = 3e-5  # of good pixels
TAIL = (3e-3, 8e-4)  # parts of the sample's pixels between which the slope of the tail is measured
TAIL_PASSES = 200
FEWEST = 30_000  # pixels of a sample whose tail is used


# --- 1: pieces -------------------------------------------------------------------------------------------


def cut_pieces(
    ramps: Array, flags: NDArray[np.uint8], noise: NDArray[np.floating[Any]], *, averaged: bool, deep: float = DEEP
) -> Pieces:
    """Ramps in units of the expected noise, cut at hits and unusable groups.

    Parameters
    ----------
    ramps, flags : ndarray
        (G, n, pixels) float32 DN without what the cells share, and uint8 GROUPDQ.
    noise : ndarray
        (pixels,) expected noise of a group, DN.
    averaged : bool
        Whether a group is the mean of several frames.
    deep : float
        Step down, in units of the noise, from which on rises of that size are the pixel's own.
    """
    groups, n, pixels = ramps.shape
    values = np.array(ramps.transpose(0, 2, 1), np.float32, order="C")
    values /= noise.astype(np.float32)[:, None]
    values = values.reshape(groups, pixels * n)
    bits = flags.transpose(0, 2, 1).reshape(groups, pixels * n)
    pixel, source = np.repeat(np.arange(pixels), n), np.arange(pixels * n)
    usable = np.ones(values.shape, bool)
    odd = np.flatnonzero((np.bitwise_or.reduce(bits, axis=0) & (UNUSABLE | JUMP_DET)) != 0)
    odd = np.union1d(odd, np.flatnonzero(~np.isfinite(values).all(axis=0)))
    good = ((bits[:, odd] & UNUSABLE) == 0) & np.isfinite(values[:, odd])
    hit = np.zeros_like(good)
    rise = np.diff(values, axis=0)
    with np.errstate(invalid="ignore"):
        deepest = np.fmax.reduceat(np.fmax.reduce(-rise, axis=0), np.arange(0, pixels * n, n))
        own = np.where(deepest > deep, OWN_RISE * deepest, 0)[pixel[odd]]  # of the pixel itself, no hit
        hit[1:] = ((bits[1:, odd] & JUMP_DET) != 0) & (rise[:, odd] > own)
    piece = np.cumsum(hit, axis=0, dtype=np.int16)
    if averaged:
        good &= ~hit
    usable[:, odd] = good & (piece == 0)
    sources, parts = [source], [usable]
    for k in range(1, int(piece.max(initial=0)) + 1):
        at = np.flatnonzero(piece[-1] >= k)
        sources.append(odd[at])
        parts.append(good[:, at] & (piece[:, at] == k))
    source, usable = np.concatenate(sources), np.concatenate(parts, axis=1)
    long = usable.sum(axis=0) >= SHORTEST_PIECE
    without = np.setdiff1d(np.arange(pixels), pixel[source[long]]) * n  # their first ramp stands for them, empty
    usable[:, without] = False
    long[without] = True
    order = np.flatnonzero(long)
    order = order[np.argsort(pixel[source[order]], kind="stable")]
    return _center(values[:, source[order]], usable[:, order], pixel[source[order]])


def _center(values: Array, usable: NDArray[np.bool_], pixel: NDArray[np.intp]) -> Pieces:
    """Pieces with their means taken off."""
    weight = usable.astype(np.float32)
    length = weight.sum(axis=0)
    values = np.where(usable, values, np.float32(0))
    values -= values.sum(axis=0) / np.maximum(length, 1)
    values *= weight
    middle = (moment(weight) / np.maximum(length, 1)).astype(np.float32, copy=False)
    first = np.searchsorted(pixel, np.arange(pixel[-1] + 1))
    return Pieces(values, None if usable.all() else weight, np.maximum(length, 1), middle, pixel, first)


# --- 2: the score ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """What is known of the noise of pixels beforehand: ``expected`` and ``shot`` variance from group to group
    (pixels,), DN and DN^2; ``spread`` of the logarithm over pixels; ``deep``: a step down that noise
    does not make."""

    expected: NDArray[np.floating[Any]]
    shot: NDArray[np.floating[Any]]
    spread: float
    deep: float = DEEP


COLUMNS = ("likelihood", "separation", "dwell_low", "dwell_high")


def judge_ramps(
    ramps: Array,
    flags: NDArray[np.uint8],
    noise: Noise,
    *,
    templates: Array,
    averaged: bool = False,
    worth: NDArray[np.floating[Any]] | float = WORTH,
) -> dict[str, Array]:
    """Compare two levels with one for some pixels.

    Parameters
    ----------
    ramps, flags : ndarray
        (n, G, pixels) float32 DN without what the cells share, and uint8 GROUPDQ.
    noise : Noise
        Of these pixels.
    templates : ndarray
        (shapes, G) shapes that ramps may share.
    averaged : bool
        Whether a group is the mean of several frames.
    worth : ndarray or float
        (pixels,) score of the fit from which on it is worth integrating all offsets; where it is above
        :data:`WORTH`, pixels that look hopeless are not fitted to the end.

    Returns
    -------
    dict
        (pixels,) float32: ``likelihood``, the logarithm of the ratio; ``separation`` of the levels, DN; ``dwell_low``
        and ``dwell_high``, mean stay in the lower and upper level, groups.
    """
    pixels = ramps.shape[2]
    out = {name: np.full(pixels, np.nan, np.float32) for name in COLUMNS}
    shapes = _without_line(templates)
    worth = np.broadcast_to(worth, pixels)
    step = max(PIXELS * 8 // max(len(ramps), 1), 64)
    for low in range(0, pixels, step):
        here = slice(low, low + step)
        own = Noise(noise.expected[here], noise.shot[here], noise.spread, noise.deep)
        found = _judge(ramps[:, :, here], flags[:, :, here], own, shapes, averaged, worth[here])
        for name, column in found.items():
            out[name][here] = column
    return out


def _judge(
    ramps: Array,
    flags: NDArray[np.uint8],
    noise: Noise,
    templates: Array,
    averaged: bool,
    worth: NDArray[np.floating[Any]],
) -> dict[str, Float64]:
    expected = np.where(noise.expected > 0, noise.expected, np.float32(1)).astype(np.float64)
    turned, bits = ramps.transpose(1, 0, 2), flags.transpose(1, 0, 2)
    pieces = cut_pieces(turned, bits, expected, averaged=averaged, deep=noise.deep)
    one = levels.fit_one_level(pieces, noise.spread)
    two = levels.start_levels(levels.take_line_off(pieces, one.slope), one)
    two, reached = levels.fit_levels(pieces, one, two, noise.spread, worth > WORTH)
    likelihood = reached - BEHIND
    chosen = (likelihood > worth) | (two.separation > levels.SHARP * two.noise)
    walk = np.maximum(noise.shot / expected**2, 0)
    if chosen.any():
        part, columns = pieces.take(chosen)
        likelihood[chosen] = level_ratio.compare_levels(
            part, one.take(chosen), two.take(chosen, columns), walk[chosen], templates, noise.spread
        )
    likelihood, two = _try_drops(pieces, two, likelihood, walk, templates, noise.spread)
    likelihood[one.number < ramps.shape[1]] = np.nan  # less than a ramp is left
    return {
        "likelihood": likelihood,
        "separation": two.separation * expected,
        "dwell_low": 1 / two.up,
        "dwell_high": 1 / two.down,
    }


def _try_drops(
    pieces: Pieces,
    two: levels.TwoLevels,
    likelihood: Float64,
    walk: Float64,
    templates: Array,
    spread: float,
) -> tuple[Float64, levels.TwoLevels]:
    """Likelihood and levels, where those as far apart as the deepest step down are likelier: theirs.

    The first fit starts from the scatter, which few switches between levels far apart leave far below the separation.
    """
    drop = levels.deepest_drop(pieces)
    again = drop > DROP
    if not again.any():
        return likelihood, two
    part, _ = pieces.take(again)
    better, fewer = levels.place_levels(part, drop[again])
    several = fewer >= ON_A_LEVEL
    if not several.any():
        return likelihood, two
    again[again] = several
    part, columns = part.take(several)
    better = better.take(several, columns)
    found = level_ratio.compare_far(part, better, walk[again], templates, spread)
    likelihood = likelihood.copy()
    won = np.zeros(len(again), bool)
    won[again] = found > likelihood[again]
    mine = won[again]
    likelihood[won] = found[mine]
    _, inner = part.take(mine)
    return likelihood, two.put(won, np.flatnonzero(won[pieces.pixel]), better.take(mine, inner))


def _without_line(templates: Array) -> Array:
    """Orthonormal shapes that span what is left of the templates beside constant and line."""
    groups = templates.shape[1]
    line = np.stack([np.ones(groups), np.arange(groups) - (groups - 1) / 2])
    basis, _ = np.linalg.qr(np.concatenate([line, templates]).T.astype(np.float64))
    return basis.T[2:].astype(np.float32)  # type: ignore[no-any-return]


# --- 3: the limit ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tail:
    """What good pixels reach in the search for two levels: the ``limit``, and the part of them that is expected above
    it by chance; NaN where the sample is too small to tell."""

    limit: float
    above: float = float("nan")


def find_limit(likelihood: NDArray[np.floating[Any]], pixels: int, least: float) -> Tail:
    """What good pixels reach in :data:`FALSE_ALARMS`, from the scores of the highest of a sample of ``pixels``.

    Scores of noise fall off exponentially. The limit rises from ``least`` to where the tail below it, carried on,
    leads: pixels above switch, however many they are. Down from the top it would stop among them, where more
    than the first part of :data:`TAIL` switch.
    """
    ordered = np.sort(likelihood[np.isfinite(likelihood)])[::-1]
    low, high = (int(part * pixels) for part in TAIL)
    limit, slope, at = least, np.nan, np.nan
    for _ in range(TAIL_PASSES):
        noise = ordered[ordered <= limit]
        if pixels < FEWEST or len(noise) <= low:
            return Tail(least)
        slope, at = (noise[high] - noise[low]) / np.log(TAIL[0] / TAIL[1]), noise[low]
        reached = float(at + slope * np.log(TAIL[0] / FALSE_ALARMS))
        if reached <= limit:
            break
        limit = reached
    return Tail(limit, float(TAIL[0] * np.exp(-(limit - at) / max(slope, 1e-9))))
