"""Masks for exposures of several depths from the evidence of one run of darks: a pixel that ruins an exposure of 150
groups may be fine in one of 5.

1. A *family* is a readout pattern, a number of groups (or a range), and the excess of the slope's variance over that
   of a typical pixel from which on a pixel must not be used (:mod:`badpix.settings.families`).
2. What each candidate of the darks adds to the variance of a slope of that depth follows from its noise, the shot
   noise of its dark current, its two levels, and the scatter of its rate from dark to dark
   (:func:`measure_excess`, :mod:`badpix.numerics.slope_noise`).
3. The mask of each family follows (:mod:`badpix.mask.family_masks`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors
from badpix.errors import DataError
from badpix.io.depths import Readout as Darks
from badpix.io.evidence import Evidence, Samples
from badpix.numerics import clipping
from badpix.numerics.slope_noise import Noise, Readout, expect_variance, measure_variance
from badpix.settings.families import Family

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]

DRAWS = 192  # ramps of a pixel whose variance is drawn
NEAR = 6.0  # times the limit within which (above and below) a formula does not decide
LOUD = np.geomspace(0.7, 6.0, 24)  # noise over the usual one at which ramps are drawn once for all pixels
LOUD_DRAWS = 4000
LOUD_GROUPS = 400_000  # groups that are drawn at each of them, at most
LOUDER = 1.12  # noise over the usual or the known one from which on a pixel is looked at
BLOCK = 64  # rows and columns of a block whose median noise is the usual one
SEEN = 4.0  # scatters of all rates above which a pixel has a dark current of its own
FEWEST = 5  # integrations from which on the scatter of a rate counts
SURE = 3.1  # sigma above which it is more than the noise within the ramp makes


@dataclass(frozen=True)
class Candidates:
    """What the evidence says of the pixels that may be noisier than others.

    Attributes
    ----------
    index : ndarray
        (n,) flat indices.
    noise : Noise
        Of one frame of the darks.
    usual, known : ndarray
        (n,) read noise of a frame that a good pixel has at this place, and that the jump step knows, DN.
    wander : ndarray
        (n,) scatter of the rate from dark to dark beyond the noise within ramps, DN/s.
    saturated : ndarray
        (n,) whether it saturates in the darks.
    """

    index: NDArray[np.intp]
    noise: Noise
    usual: Float
    known: Float
    wander: Float
    saturated: Bool


# --- 1: what is known -------------------------------------------------------------------------------------


def read_candidates(evidence: Evidence, darks: Darks) -> Candidates:
    """The candidates of the darks and other pixels that are louder than usual or than is known of them.

    Raises
    ------
    DataError
        If the evidence lacks an image that this needs.
    """
    images = evidence.images
    for name in ("dark_rate", "dark_noise", "dark_noise_ratio"):
        if name not in images:
            raise DataError(f"the evidence holds no {name}: make the mask of the darks again with this version")
    noise, ratio = (np.asarray(images[name][:, :]).astype(np.float32) for name in ("dark_noise", "dark_noise_ratio"))
    usual = measure_usual(noise)
    known = np.asarray(images["dark_known_noise"][:, :]) if "dark_known_noise" in images else usual
    known = np.where(known > 0, known, usual)
    with np.errstate(invalid="ignore"):
        louder = (noise > LOUDER * known) | (noise > LOUDER * usual)
    index, shape = np.flatnonzero(np.isfinite(ratio) | louder), noise.shape
    frames = np.float32(np.sqrt(darks.frames))
    own, usual, known, ratio = (image.ravel()[index] * frames for image in (noise, usual, known, ratio / frames))
    with np.errstate(invalid="ignore", divide="ignore"):
        usual = np.where(ratio > 0, own / ratio, usual)

    def at(name: str, empty: float) -> Float:
        if name not in images:
            return np.full(len(index), empty, np.float32)
        found = np.asarray(images[name][:, :]).ravel()[index].astype(np.float32)
        return np.where(np.isfinite(found), found, np.float32(empty))

    fallback = np.float32(darks.noise) * frames
    own, usual, known = (np.where(np.isfinite(column), column, fallback) for column in (own, usual, known))
    time = darks.frame_time * (darks.frames + darks.skipped)
    two = at("is_telegraph", 0) > 0
    own = np.where(two, np.minimum(own, usual), np.fmax(own, at("dark_residual", 0) * frames))  # levels are no noise
    separation = np.where(two, at("telegraph_separation", 0), np.float32(0))
    low, high = (at(f"telegraph_dwell_{name}", 1.0) * np.float32(time) for name in ("low", "high"))
    spread = clipping.median_mad(np.asarray(images["dark_rate"][:, :]).ravel())[1]
    rate = at("dark_rate", 0)
    rate = np.where(rate > np.float32(SEEN * spread), rate, np.float32(0))  # of others it is noise of the darks
    shot = np.float32(darks.shot / time) + rate / np.float32(darks.gain)
    all_of = Noise(own, shot.astype(np.float32), separation, low, high)
    limits = [r.limit for r in evidence.rules if r.quantity == "votes_saturated"]
    saturated = at("votes_saturated", 0) >= float(limits[0] if limits else np.inf)
    wander = _measure_wander(evidence, all_of, darks, index, shape)
    return Candidates(index, all_of, usual, known, wander, saturated)


def measure_usual(noise: Float) -> Float:
    """Noise that pixels have at each place: medians of blocks, by column of four (outputs of MIRI); (ny, nx) DN."""
    ny, nx = noise.shape
    out = np.empty_like(noise)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # blocks of reference pixels
        for y in range(0, ny, BLOCK):
            for x in range(0, nx, BLOCK):
                for k in range(4):
                    part = (slice(y, y + BLOCK), slice(x + k, x + BLOCK, 4))
                    out[part] = np.nanmedian(noise[part])
    return out


def _measure_wander(
    evidence: Evidence, noise: Noise, darks: Darks, index: NDArray[np.intp], shape: tuple[int, ...]
) -> Float:
    """Scatter of the rates from dark to dark that the noise within the ramps does not explain, DN/s."""
    out = np.zeros(len(index), np.float32)
    samples: Samples | None = evidence.samples.get("dark_rate")
    if samples is None or samples.values.shape[1] < FEWEST:
        return out
    place = np.searchsorted(index, samples.y.astype(np.intp) * shape[1] + samples.x)
    inside = (place < len(index)) & (index[np.minimum(place, len(index) - 1)] == samples.y * shape[1] + samples.x)
    place, values = place[inside], samples.values[inside]
    number = np.isfinite(values).sum(axis=1)
    known = np.flatnonzero(number >= FEWEST)
    place, values, number = place[known], values[known], number[known]
    if not place.size:
        return out
    readout = Readout(darks.frames, darks.skipped, darks.frame_time)
    expected = _expect(noise.some(place), readout, darks.groups, darks.gain)
    variance = np.nanvar(values.astype(np.float64), axis=1, ddof=1)
    more = variance > expected * (1 + SURE * np.sqrt(2 / (number - 1)))
    out[place] = np.sqrt(np.where(more, variance - expected, 0))
    return out


def _expect(noise: Noise, readout: Readout, ngroups: int, gain: float) -> NDArray[np.float64]:
    """Variance by formula, the levels of slow switching included."""
    return expect_variance(noise, readout, ngroups, gain) + expect_levels(noise, readout, ngroups)


def expect_levels(noise: Noise, readout: Readout, ngroups: int) -> NDArray[np.float64]:
    """What two levels add to the variance of the unweighted slope, if no step is flagged: (n,) DN^2/s^2."""
    out = np.zeros(len(noise.read))
    two = np.flatnonzero(noise.separation > 0)
    if not two.size:
        return out
    x = np.arange(ngroups) - (ngroups - 1) / 2
    weights = x / (x @ x)
    lags = np.correlate(weights, weights, "full")[ngroups - 1 :]
    up, down = 1 / noise.low[two].astype(np.float64), 1 / noise.high[two].astype(np.float64)
    stay = np.exp(-(up + down) * readout.group_time)
    share = up / (up + down)
    powers = np.ones(len(two))
    total = np.full(len(two), lags[0])
    for lag in lags[1:]:
        powers *= stay
        total += 2 * lag * powers
    out[two] = total * share * (1 - share) * noise.separation[two].astype(np.float64) ** 2 / readout.group_time**2
    return out


# --- 2: the excess ----------------------------------------------------------------------------------------


def measure_excess(known: Candidates, darks: Darks, family: Family, ngroups: int) -> tuple[Float, float]:
    """Excess of the slope's variance of each candidate over that of a typical pixel, and a typical pixel's error.

    Parameters
    ----------
    known : Candidates
    darks : Readout
        Of the darks.
    family : Family
        Its readout.
    ngroups : int
        Groups of the exposure.

    Returns
    -------
    excess : ndarray
        (n,) variance over the typical one, less 1; infinite where the pixel saturates.
    error : float
        Error of a typical pixel's slope, DN/s.
    """
    readout, n = find_readout(family, darks), len(known.index)
    shot = np.float32(darks.shot / (darks.frame_time * (darks.frames + darks.skipped)))
    nothing = np.zeros(n, np.float32)
    typical = Noise(known.usual, np.full(n, shot), nothing, nothing, nothing)
    base = expect_variance(typical, readout, ngroups, darks.gain)
    quiet = expect_variance(replace(known.noise, shot=nothing), readout, ngroups, darks.gain)
    rng = np.random.default_rng((ngroups, readout.frames, readout.skipped))
    louder = _cut_by_jumps(known.noise.read / np.maximum(known.known, 1e-6), readout, ngroups, darks.gain, rng)
    variance = expect_variance(known.noise, readout, ngroups, darks.gain) + (louder - 1) * quiet
    variance += expect_levels(known.noise, readout, ngroups)
    near = np.abs(np.log(np.maximum(variance / base - 1, 1e-9) / family.max_excess)) < np.log(NEAR)
    at = np.flatnonzero((known.noise.separation > 0) & (near | (variance > base * (1 + family.max_excess))))
    if at.size:  # steps that the jump step sees are cut out
        some = known.noise.some(at), known.known[at]
        variance[at] = measure_variance(*some, readout, ngroups, darks.gain, draws=DRAWS, rng=rng)
    variance += known.wander.astype(np.float64) ** 2
    excess = np.where(known.saturated, np.inf, variance / base - 1).astype(np.float32)
    one = Noise(*(np.array([v], np.float32) for v in (darks.noise * np.sqrt(darks.frames), shot, 0, 1, 1)))
    return excess, float(np.sqrt(expect_variance(one, readout, ngroups, darks.gain)[0]))


def _cut_by_jumps(
    ratio: NDArray[np.floating[Any]], readout: Readout, ngroups: int, gain: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Variance of white noise that is so many times the usual one, over that of the formula: jumps cut the ramps."""
    draws = max(min(LOUD_DRAWS, LOUD_GROUPS // ngroups), 500)
    n = len(LOUD)
    zero, usual = np.zeros(n, np.float32), np.ones(n, np.float32)
    noise = Noise(LOUD.astype(np.float32), zero, zero, zero, zero)
    big = Noise(noise.read * 100, zero, zero, zero, zero)  # in DN that no shot noise of a few electrons matters in
    found = measure_variance(big, usual * 100, readout, ngroups, gain, draws=draws, rng=rng)
    rising = np.maximum.accumulate(found / expect_variance(big, readout, ngroups, gain))
    louder: NDArray[np.float64] = np.interp(ratio, LOUD, rising)
    return louder


def find_readout(family: Family, darks: Darks) -> Readout:
    """How exposures of a family are read; frames last as long as those of the darks.

    Raises
    ------
    DataError
        If the pattern is neither that of the darks nor a known one.
    """
    if family.readpatt == darks.readpatt:
        return Readout(darks.frames, darks.skipped, darks.frame_time)
    if family.readpatt not in detectors.READOUT:
        raise DataError(
            f"family {family.name}: readout pattern {family.readpatt!r} is unknown, and the darks are "
            f"{darks.readpatt!r}; known are {', '.join(detectors.READOUT)}"
        )
    return Readout(*detectors.READOUT[family.readpatt], darks.frame_time)
