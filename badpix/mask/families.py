"""Masks for exposures of several depths from the evidence of one run of darks: a pixel that ruins an exposure of 150
groups may be fine in one of 5.

1. A *family* is a readout pattern, a number of groups (or a range), and the excess of the slope's variance over that
   of a typical pixel from which on a pixel must not be used (:mod:`badpix.settings.families`).
2. What each candidate of the darks adds to the variance of a slope of that depth follows from its noise, the shot
   noise of its dark current, its two levels, and the scatter of its rate from dark to dark
   (:func:`measure_excess`, :mod:`badpix.numerics.slope_noise`).
3. DO_NOT_USE is decided again where nothing but the darks' noise made it (HOT, WARM, TELEGRAPH, noisy, intermittent),
   and goes to candidates that no search flagged (:func:`decide`). All other flags, and what lists, flats or older
   masks say, stay as they are. Pixels that saturate in the darks stay unusable.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import DataError
from badpix.io.depths import Readout as Darks
from badpix.io.evidence import Evidence, Samples
from badpix.mask import file as mask_file
from badpix.mask import origins
from badpix.mask.file import Mask
from badpix.numerics import clipping
from badpix.numerics.slope_noise import Noise, Readout, expect_variance, measure_variance
from badpix.settings.families import Family

Bool = NDArray[np.bool_]
DQ = NDArray[np.uint32]
Float = NDArray[np.float32]

NOISE_FLAGS = ("HOT", "WARM", "TELEGRAPH", "UNRELIABLE_SLOPE")
BY_NOISE = np.uint32(sum(dq.VALUE[name] for name in NOISE_FLAGS))
UNUSABLE, UNRELIABLE = np.uint32(dq.VALUE["DO_NOT_USE"]), np.uint32(dq.VALUE["UNRELIABLE_SLOPE"])
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


@dataclass
class Member:
    """The mask of one family.

    Attributes
    ----------
    family : Family
        What was asked for.
    image : ndarray
        (ny, nx) uint32 DQ.
    excess : ndarray
        (n,) excess of the candidates at the worst number of groups; infinite where saturated.
    typical : tuple of float
        Error of a typical pixel's slope at the least and the largest number of groups, DN/s.
    freed, added : int
        Pixels that lost DO_NOT_USE, and that got it, against the mask of the run.
    """

    family: Family
    image: DQ
    excess: Float
    typical: tuple[float, float]
    freed: int
    added: int


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


# --- 3: the masks -----------------------------------------------------------------------------------------


def make_member(mask: Mask, evidence: Evidence, family: Family) -> Member:
    """The mask of one family from a mask of darks, or one that darks were merged into.

    Parameters
    ----------
    mask : Mask
        Of the run.
    evidence : Evidence
        Open, of that mask.
    family : Family

    Raises
    ------
    DataError
        If the evidence does not say how the darks were read, or lacks images.
    """
    if not evidence.readouts or not evidence.readouts[0].noise > 0:
        raise DataError(f"{mask.path}: its evidence does not say how the darks were read: no families from it")
    darks = evidence.readouts[0]
    known = read_candidates(evidence, darks)
    ends = [measure_excess(known, darks, family, n) for n in family.numbers()]
    excess: Float = np.maximum.reduce([e for e, _ in ends])
    held = find_held(mask)
    image = decide(mask.image, known.index, excess, family.max_excess, held | mask.reference)
    was, now = (mask.image & UNUSABLE) != 0, (image & UNUSABLE) != 0
    return Member(family, image, excess, (ends[0][1], ends[-1][1]), int((was & ~now).sum()), int((now & ~was).sum()))


def find_held(mask: Mask) -> Bool:
    """Pixels of which something else than the darks says that they are bad: (ny, nx)."""
    held = np.zeros(mask.image.shape, bool)
    for layer in origins.read_layers(mask):
        if layer.source.kind != "darks":
            held |= layer.flags != 0
    return held


def decide(image: DQ, index: NDArray[np.intp], excess: Float, limit: float, held: Bool) -> DQ:
    """A copy of a mask in which DO_NOT_USE follows from the excess where noise alone decides.

    Parameters
    ----------
    image : ndarray
        (ny, nx) DQ.
    index, excess : ndarray
        (n,) flat indices of the candidates, and their excess.
    limit : float
        Largest excess of a pixel in use.
    held : ndarray
        (ny, nx) bool, pixels that stay as they are.
    """
    out = image.copy()
    pixels = out.reshape(-1)
    free = ~held.reshape(-1)[index] & ((pixels[index] & ~(BY_NOISE | UNUSABLE)) == 0)
    at, noisy = index[free], excess[free] > limit
    unflagged = noisy & (pixels[at] == 0)
    pixels[at] = np.where(noisy, pixels[at] | UNUSABLE, pixels[at] & ~UNUSABLE)
    pixels[at[unflagged]] |= UNRELIABLE
    return out


def make_header(mask: Mask, member: Member, source: fits.Header) -> fits.Header:
    """The primary header of a family's mask: that of the run's with READPATT, NGROUPS and a line of HISTORY."""
    header, family = source.copy(), member.family
    for name in ("P_READPA", "CHECKSUM", "DATASUM"):
        header.remove(name, ignore_missing=True)
    header["READPATT"] = (family.readpatt, "CRDS match key")
    header["NGROUPS"] = (family.match, "CRDS match key")
    header["DESCRIP"] = (
        f"{family.name}: {family.readpatt}, {family.span} groups, {_descrip(mask)}"[:65],
        "what it is",
    )
    for line in describe(member):
        header.add_history(line)
    return header


def _descrip(mask: Mask) -> str:
    return str(mask.header.get("DESCRIP") or "bad pixel mask")


def describe(member: Member) -> list[str]:
    """Lines of HISTORY."""
    f = member.family
    errors = " to ".join(f"{e:.3g}" for e in dict.fromkeys(member.typical))
    return [
        f"FAMILY {f.name}: READPATT {f.readpatt}, NGROUPS {f.span}, max_excess {f.max_excess:g}",
        f"FAMILY: slope error of a typical pixel {errors} DN/s; DO_NOT_USE taken off {member.freed} pixels",
        f"FAMILY: and set on {member.added}, against the mask that it was made from",
    ]


def write_member(mask: Mask, member: Member, path: Path, overwrite: bool) -> None:
    """Write the mask of a family."""
    assert mask.path is not None
    with fits.open(mask.path, memmap=False) as hdus:
        source = hdus[0].header
    mask_file.write_mask(path, member.image, make_header(mask, member, source), overwrite=overwrite)


def count_states(members: Sequence[Member], mask: Mask) -> Mapping[str, dict[str, int]]:
    """For each noise flag of the run: pixels that it has, and how many of them each family takes out."""
    out: dict[str, dict[str, int]] = {}
    for name in NOISE_FLAGS:
        mine = (mask.image & dq.VALUE[name]) != 0
        if mine.any():
            out[name] = {"flagged": int(mine.sum())} | {
                m.family.name: int(((m.image[mine] & UNUSABLE) != 0).sum()) for m in members
            }
    return out
